"""What a request or a task does, as a short stable name: `vms.clone`, `login`, `host.swupdateprogress`.

Wok's log names a request by its message code. Every controller of Wok, Kimchi, Ginger, Gingerbase and
gingers390x has a table of such codes, one for each method and each action of its resource; `operations.tsv`
beside this file is those tables put together, with a name for each. A code is the same whatever the
application it is logged under: each plug-in serves Wok's login and Wok's tasks, too.

For most codes the method settles it. Three need a second look:

* `WOKRES0001L` is what a controller without a code of its own says, and some real operations hide behind it:
  the restoring of a backup in Ginger, the killing of a task, the dismissal of a notification.
* `KCHPOOL0001L` creates a storage pool, but a pool of type `kimchi-iso` is a deep scan of the host for ISO
  images, which is a task. The 202 tells, because the type may have been overwritten before it was logged.
* `GINAUD0001L` created a rule for three weeks of August 2016, and has loaded a file of rules since.

A task that no request is known for still has its target_uri, and most operations make one that no other
makes. They are told by literal parts alone, because the names between may hold anything at all: blanks,
slashes, newlines, what looks like another URI. Both answers come from a finite set, however hostile the log:
a name in the table, `other`, or for requests a code that nobody knows.
"""

from __future__ import annotations

import re
from importlib import resources
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

CODE = re.compile(r"[A-Z][A-Z0-9]{2,40}")
"""What message codes look like: WOKRES0001L, GS390XIONW0001L, GINISCSIATH001L."""

OTHER = "other"
"""The operation of everything that has no name."""

ACCEPTED = 202
"""The status of a request that has started a task."""

UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
"""Ids of tasks since Wok 2.3, and of Ginger's backups."""

COUNTER_LIMIT = 10**9
"""Tasks were numbered from 1 up to Wok 2.2, which no host has done a thousand million times."""

TAIL_CHARS = 320
"""How much of the end of a target_uri a pattern sees, which is more than it can match: a name in a file
system has at most 255 characters."""

VM_CLONE = re.compile(r"-clone-[0-9]{16}/clone\Z")
VOLUME_CLONE = re.compile(
    rf"(?:-clone-[0-9]{{1,20}}|/{UUID.pattern}-[0-9]{{1,3}})(?:\.[^/.]{{0,254}})?/clone\Z"
)
# a clone made by hand, or one of a guest's disks: `disk-clone-1.img`, `<UUID of the new guest>-0.img`

TARGETS = {
    "/plugins/kimchi/storagepools/kimchi_isos": ("kimchi", "storagepools.deep_scan"),
    "/swaps/file_loc/": ("ginger", "swaps.create"),
    "/plugins/ginger/firmware/upgrade": ("ginger", "firmware.upgrade"),
    "/plugins/gingerbase/host/swupdate": ("gingerbase", "host.swupdate"),
    "/plugins/gingerbase/host/swupdateprogress": ("gingerbase", "host.swupdateprogress"),
    "/plugins/gingers390x/cioignore/remove": ("gingers390x", "cio_ignore.remove"),
    "/plugins/gingers390/lunscan/trigger": ("gingers390x", "lunscan.trigger"),
}
"""The target_uris that are always the same, with their application and operation."""


class _Shape(NamedTuple):
    """The literal parts of an operation's target_uri: it begins with `prefix`, goes on with a name, has
    `middle` somewhere behind it, ends with `ending`, and its last characters match `tail`.
    """

    app: str
    operation: str
    prefix: str
    middle: str = ""
    ending: str = ""
    tail: re.Pattern[str] | None = None

    def fits(self, target_uri: str) -> bool:
        """Tell whether the target_uri has all these parts; linear in its length."""
        # a name has at least one character
        start = len(self.prefix) + 1

        return (
            target_uri.startswith(self.prefix)
            and len(target_uri) >= start + len(self.ending)
            and (not self.middle or target_uri.find(self.middle, start) >= 0)
            and target_uri.endswith(self.ending)
            and (self.tail is None or self.tail.search(target_uri[-TAIL_CHARS:]) is not None)
        )


_VM = "/plugins/kimchi/vms/"
_POOL = "/plugins/kimchi/storagepools/"
_VOLUMES = "/storagevolumes/"
_HOSTDEVS = "/hostdevs/"
_S390X = "/plugins/gingers390x/nwdevices/"

SHAPES = (
    _Shape("kimchi", "vms.clone", _VM, tail=VM_CLONE),
    _Shape("kimchi", "vms.migrate", _VM, ending="/migrate"),
    _Shape("kimchi", "vms.hostdevs.attach", _VM, _HOSTDEVS, _HOSTDEVS),
    _Shape("kimchi", "vms.hostdevs.detach", _VM, _HOSTDEVS),
    _Shape("kimchi", "vms.snapshots.create", _VM, "/snapshots/"),
    _Shape("kimchi", "vms.create", _VM),
    _Shape("kimchi", "storagevolumes.clone", _POOL, _VOLUMES, tail=VOLUME_CLONE),
    _Shape("kimchi", "storagevolumes.create", _POOL, _VOLUMES),
    _Shape("ginger", "backup.create", "/backup/create/"),
    _Shape("ginger", "backup.restore", "/backup/restore/"),
    _Shape("ginger", "vgs.create", "/vgs/vg_name/"),
    _Shape("ginger", "lvs.create", "/lvs/vg_name/"),
    _Shape("ginger", "pvs.create", "/pvs/pv_name/"),
    _Shape("ginger", "partitions.format", "/partitions/", "/fstype"),
    _Shape("ginger", "dasddevs.format", "/dasddevs/", "/blksize/"),
    _Shape("ginger", "interfaces.enable_sriov", "/plugins/ginger/network/", ending="/enable_sriov"),
    _Shape(
        "gingerbase", "packagesupdate.upgrade", "/plugins/gingerbase/host/packagesupdate/", ending="/upgrade"
    ),
    _Shape("gingerbase", "debugreports.create", "/plugins/gingerbase/debugreports/"),
    _Shape("gingers390x", "nwdevices.configure", _S390X, ending="/configure"),
    _Shape("gingers390x", "nwdevices.unconfigure", _S390X, ending="/unconfigure"),
)
"""The target_uris with a name in them, the more particular first."""


class Row(NamedTuple):
    """One line of `operations.tsv`; `method` and `code` are empty for what no request is logged of."""

    app: str
    method: str
    code: str
    operation: str
    starts_task: bool


class Operations:
    """The table of operations, read once at the start and never changed.

    `apps` are the applications it knows, in its order: kimchi, ginger, gingerbase, gingers390x, wok.
    """

    def __init__(self, rows: Sequence[Row]) -> None:
        self.apps = tuple(dict.fromkeys(row.app for row in rows))
        self._tasks = {
            app: tuple(sorted({row.operation for row in rows if row.app == app and row.starts_task}))
            for app in self.apps
        }
        self._by_request: dict[tuple[str, str], str] = {}
        for row in rows:
            # two rows of one request: `_disputed` decides, and so it must be the one to be asked
            known = self._by_request.setdefault((row.method, row.code), row.operation)
            if known != row.operation:
                self._by_request[row.method, row.code] = ""
        self._shapes = {app: tuple(s for s in SHAPES if s.app == app) for app in self.apps}

    @classmethod
    def load(cls) -> Operations:
        """Read `operations.tsv` from the package; raises ValueError for a table that is damaged."""
        text = resources.files(__package__).joinpath("operations.tsv").read_text("utf-8")
        lines = [line for line in text.splitlines() if not line.startswith("#")]

        rows = []
        for line in lines[1:]:
            app, method, code, operation, task = line.split("\t")
            rows.append(Row(app, method, code, operation, starts_task=bool(("no", "yes").index(task))))

        return cls(rows)

    def of_request(
        self, app: str, method: str, code: str, params: Mapping[str, Any], status: int | None
    ) -> str:
        """Return the operation of a request: a name of the table, the code itself if it looks like one but is
        not in the table, `other` for all else, and nothing for a record without a code (Wok 2.1 and 2.2).

        `params` are those of the record's message, `status` is Wok's. Codes: the controllers' tables of
        requests, Wok 2.2 to 3.0 and the plug-ins of their time.
        """
        operation = self._by_request.get((method, code))
        if operation:
            return operation

        if operation is not None:
            return _disputed(app, method, code, params, status)

        if not code:
            return ""

        return code if CODE.fullmatch(code) else OTHER

    def of_target(self, app: str, target_uri: str) -> str:
        """Return the operation of a task of which only the target_uri is known, or `other`.

        The target_uri must be one of this application; those of Wok itself may be anybody's, for Wok starts
        no task, and a task that was started outside a request is logged under its name. Names may hold
        anything; where one holds what marks another operation, the more particular operation is returned.
        Source: the models' `AsyncTask` calls, 2016 to 2020. Takes time linear in the length.
        """
        constant = TARGETS.get(target_uri)
        if constant is not None and app in (constant[0], "wok"):
            return constant[1]

        for shape in SHAPES if app == "wok" else self._shapes.get(app, ()):
            if shape.fits(target_uri):
                return shape.operation

        return OTHER

    def tasks(self, app: str) -> tuple[str, ...]:
        """Return the operations of the application that start tasks, sorted; none for one that is unknown."""
        return self._tasks.get(app, ())


def _disputed(app: str, method: str, code: str, params: Mapping[str, Any], status: int | None) -> str:
    # the codes that stand more than once in the table for one method
    if code == "KCHPOOL0001L":
        is_scan = status == ACCEPTED or params.get("type") == "kimchi-iso"
        return "storagepools.deep_scan" if is_scan else "storagepools.create"

    if code == "GINAUD0001L":
        return "audit.rules.create" if "rule" in params else "audit.load_rules"

    ident = params.get("ident")
    name = ident if isinstance(ident, str) else ""
    is_uuid = UUID.fullmatch(name) is not None

    if method == "DELETE":
        # any plug-in serves Wok's tasks, too, but its other resources may well be called by a number
        if is_uuid or (app == "wok" and _is_counter(ident)):
            return "tasks.kill"
        # a notification's id is the code of its message
        return "notifications.delete" if app == "wok" and CODE.fullmatch(name) else "resource.delete"

    if app == "ginger" and "num_vfs" in params:
        return "interfaces.enable_sriov"

    # the only other action of Ginger's without a code is for network interfaces, and starts no task
    return "backup.restore" if app == "ginger" and (is_uuid or status == ACCEPTED) else "resource.action"


def _is_counter(ident: Any) -> bool:
    # numbers are text in logs of Python 2
    if isinstance(ident, str):
        return ident.isdecimal() and len(ident) < len(str(COUNTER_LIMIT))

    return type(ident) is int and 0 < ident < COUNTER_LIMIT

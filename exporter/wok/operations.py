"""What a request or a task does, as a short stable name: `vms.clone`, `login`, `host.swupdateprogress`.

Wok's log names a request by its message code. Every controller of Wok, Kimchi, Ginger, Gingerbase and
gingers390x has a table of such codes, one for each method and each action of its resource; `operations.tsv`
beside this file is those tables put together: a name for each, and for those that start tasks how the
task's target_uri is made and what that proves. A code is the same whatever the application it is logged
under: each plug-in serves Wok's login and Wok's tasks, too.

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

from exporter.wok.target_templates import UUID, Template, text_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

CODE = re.compile(r"[A-Z][A-Z0-9]{2,40}")
"""What message codes look like: WOKRES0001L, GS390XIONW0001L, GINISCSIATH001L."""

OTHER = "other"
"""The operation of everything that has no name."""

_RESOURCE_HOLE = re.compile(r"\{([a-z_]+)\}")

GENERIC = frozenset({"WOKCOL0001L", "WOKRES0001L"})
"""The codes of every controller that has none of its own."""

ACCEPTED = 202
"""The status of a request that has started a task."""

COUNTER_LIMIT = 10**9
"""Tasks were numbered from 1 up to Wok 2.2, which no host has done a thousand million times."""

SEEN_MAX = 256
"""Target_uris whose operation is remembered: a task's is looked up several times within moments."""

EVIDENCE = ("named", "shared", "repeats", "twice", "nests", "may_nest", "unlogged")
"""What the table may say of an operation's target_uri; the words are explained at its head."""


class Form(NamedTuple):
    """A target_uri as far as a request determines it; `named` when no other request's task would have it.

    `repeats` marks the operations whose tasks report again long after their end, `nests` those whose nested
    task has the same target_uri and ends first, `may_nest` those whose task has been seen to do so although it
    should not: a match by such a form is not exact, or not always. `timed` when the start of the task stands in its target_uri.
    """

    text: str
    named: bool
    repeats: bool = False
    nests: bool = False
    timed: bool = False
    may_nest: bool = False


class Target(NamedTuple):
    """A form of a task's target_uri; `epoch` is the task's start in nanoseconds, or 0."""

    text: str
    epoch: int = 0


class Row(NamedTuple):
    """One line of `operations.tsv`; `method` and `code` are empty for what no request is logged of.

    `target` is empty for an operation that starts no task.
    """

    app: str
    method: str
    code: str
    operation: str
    when: str = ""
    target: str = ""
    evidence: str = ""
    resource: str = ""


class TaskShape(NamedTuple):
    """One way in which Wok makes the target_uri of an operation's tasks; `is_asked_for` is False for tasks that
    no request of their own starts.
    """

    operation: str
    is_asked_for: bool
    template: Template
    conditions: tuple[Condition, ...]
    evidence: frozenset[str]
    is_named: bool
    repeats: bool
    nests: bool
    may_nest: bool
    resource: str

    def form(self, params: Mapping[str, Any]) -> Form | None:
        """Return the form of the target_uri that a request's task may have, None where it has no such task."""
        if not self.is_asked_for:
            return None
        for condition in self.conditions:
            if not condition.holds(params):
                return None
        text = self.template.fill(params)
        if not text:
            return None
        return Form(text, self.is_named, self.repeats, self.nests, self.template.is_timed, self.may_nest)


class Condition(NamedTuple):
    """A parameter that a request must have, or must not; where there are `values`, with one of them."""

    name: str
    values: tuple[str, ...]
    is_wanted: bool

    @classmethod
    def read(cls, source: str) -> Condition:
        """Read `name`, `!name`, `name=a,b` or `!name=a,b`."""
        name, _, values = source.removeprefix("!").partition("=")
        return cls(name, tuple(values.split(",")) if values else (), not source.startswith("!"))

    def holds(self, params: Mapping[str, Any]) -> bool:
        """Tell whether a request's parameters are as this wants them."""
        text = text_of(params, self.name)
        return (text in self.values if self.values else bool(text)) == self.is_wanted


class Operations:
    """The table of operations, read once at the start; its answers never change.

    `apps` are the applications it knows, in its order: kimchi, ginger, gingerbase, gingers390x, wok.
    """

    def __init__(self, rows: Sequence[Row]) -> None:
        self._rows = tuple(rows)
        self.apps = tuple(dict.fromkeys(row.app for row in rows))
        self._by_request: dict[tuple[str, str], str] = {}
        shapes: dict[str, list[TaskShape]] = {app: [] for app in self.apps}
        self._by_operation: dict[tuple[str, str], list[TaskShape]] = {}
        self._by_code: dict[tuple[str, str], list[TaskShape]] = {}
        for row in rows:
            if row.code:
                # two operations of one request: `_disputed` decides, and so it must be the one to be asked
                known = self._by_request.setdefault((row.method, row.code), row.operation)
                if known != row.operation:
                    self._by_request[row.method, row.code] = ""
            if row.target:
                shape = _shape(row)
                shapes[row.app].append(shape)
                self._by_operation.setdefault((row.app, row.operation), []).append(shape)
                if row.code:
                    self._by_code.setdefault((row.app, row.code), []).append(shape)
        self._shapes = {app: tuple(of_app) for app, of_app in shapes.items()}
        # A task that was started outside a request is logged under Wok's own name.
        everything = [shape for of_app in self._shapes.values() for shape in of_app]
        told_by = {**self._shapes, "wok": tuple(everything)}
        self._constants = {
            app: {shape.template.source: shape for shape in of_app if shape.template.is_constant}
            for app, of_app in told_by.items()
        }
        self._recognised = {app: _by_prefix(of_app) for app, of_app in told_by.items()}
        self._seen: dict[tuple[str, str], TaskShape | None] = {}
        self._marked = {
            app: tuple(shape.template for shape in of_app if shape.is_asked_for and shape.template.marks)
            for app, of_app in self._shapes.items()
        }

    @classmethod
    def load(cls) -> Operations:
        """Read `operations.tsv` from the package; raises ValueError for a table that is damaged."""
        text = resources.files(__package__).joinpath("operations.tsv").read_text("utf-8")
        lines = [line for line in text.splitlines() if not line.startswith("#")]
        width = len(Row._fields)
        rows = []
        for line in lines[1:]:
            cells = line.split("\t")
            if not 4 <= len(cells) <= width:
                raise ValueError(f"operations.tsv: {len(cells)} cells in {line!r}")
            rows.append(Row(*cells))
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
        shape = self.shape_of(app, target_uri)
        return shape.operation if shape is not None else OTHER

    def shape_of(self, app: str, target_uri: str) -> TaskShape | None:
        """Return what the table knows of a task's target_uri, None where it knows nothing."""
        key = (app, target_uri)
        try:
            return self._seen[key]
        except KeyError:
            shape = self._recognise(app, target_uri)
        if len(self._seen) >= SEEN_MAX:
            self._seen.clear()
        self._seen[key] = shape
        return shape

    def _recognise(self, app: str, target_uri: str) -> TaskShape | None:
        shape = self._constants.get(app, {}).get(target_uri)
        if shape is not None:
            return shape
        for prefix, shapes in self._recognised.get(app, {}).items():
            if target_uri.startswith(prefix):
                for shape in shapes:
                    if shape.template.fits(target_uri):
                        return shape
        return None

    def forms(self, app: str, code: str, operation: str, params: Mapping[str, Any]) -> tuple[Form, ...]:
        """Return the forms of the target_uri that a task of this request may have; none for one that starts no
        task, or that no row knows.

        A failed request may hide which operation of its code it was: then all of the code's count.
        """
        shapes = self._by_operation.get((app, operation)) or self._by_code.get((app, code)) or ()
        forms: list[Form] = []
        for shape in shapes:
            form = shape.form(params)
            if form is not None and form not in forms:
                forms.append(form)
        return tuple(forms)

    def targets(self, app: str, target_uri: str) -> list[Target]:
        """Return the forms of a task's target_uri, the strongest first: itself, then with marks for what Wok
        makes up in it.
        """
        targets = [Target(target_uri)]
        for template in self._marked.get(app, ()):
            generalised = template.generalise(target_uri)
            if generalised is not None:
                targets.append(Target(*generalised))
        return targets

    def is_unlogged(self, app: str, target_uri: str) -> bool:
        """Tell whether tasks of this target_uri have no request in the log: each of their final records is then
        a task of its own.
        """
        shape = self.shape_of(app, target_uri)
        return shape is not None and "unlogged" in shape.evidence

    def reports_twice(self, app: str, target_uri: str) -> bool:
        """Tell whether one failure of a task of this target_uri is reported by two records: one without an error,
        and one with it.
        """
        shape = self.shape_of(app, target_uri)
        return shape is not None and "twice" in shape.evidence

    def may_be_unknown(self, app: str, target_uri: str) -> bool:
        """Tell whether a task of this target_uri may be of an operation that the table does not know: nothing in
        it says otherwise, or it only ends with a name, which may hold anything.
        """
        shape = self.shape_of(app, target_uri)
        return shape is None or shape.template.ends_open

    def may_start_task(self, app: str, code: str, operation: str) -> bool:
        """Tell whether a request may start a task, for all that the table knows: a code that it does not have, or
        that stands for operations of any plug-in, may.
        """
        return (
            (app, operation) in self._by_operation
            or (app, code) in self._by_code
            or code in GENERIC
            or CODE.fullmatch(operation) is not None
        )

    def resource(self, app: str, operation: str, params: Mapping[str, Any]) -> str:
        """Return in words what a request works on (`guest web`); empty where the table does not say."""
        for shape in self._by_operation.get((app, operation), ()):
            if shape.form(params) is not None:
                return _RESOURCE_HOLE.sub(lambda hole: text_of(params, hole[1]), shape.resource)
        return ""

    @property
    def rows(self) -> Sequence[Row]:
        """All lines of the table."""
        return self._rows

    def shapes(self, app: str) -> tuple[TaskShape, ...]:
        """Return the ways in which target_uris of an application are made, the more particular first."""
        return self._shapes.get(app, ())

    def tasks(self, app: str) -> tuple[str, ...]:
        """Return the operations of the application that start tasks, sorted; none for one that is unknown."""
        return tuple(sorted({shape.operation for shape in self._shapes.get(app, ())}))


def uuid_bytes(text: str) -> bytes:
    """Return the 16 bytes of a record's id, none where it is not a uuid."""
    raw = bytes.fromhex(text.replace("-", "")) if UUID.fullmatch(text) else b""
    return raw if any(raw) else b""


def _by_prefix(shapes: Sequence[TaskShape]) -> dict[str, list[TaskShape]]:
    """Return the shapes by the beginning of their target_uris, each that says something else than those before."""
    found: dict[str, list[TaskShape]] = {}
    outlines = set()
    for shape in shapes:
        outline = (shape.operation, *shape.template.outline)
        if outline not in outlines:
            outlines.add(outline)
            found.setdefault(shape.template.prefix, []).append(shape)
    return found


def _shape(row: Row) -> TaskShape:
    evidence = frozenset(row.evidence.split())
    if not evidence <= set(EVIDENCE):
        raise ValueError(f"operations.tsv: unknown evidence in {row.evidence!r}")
    return TaskShape(
        row.operation,
        bool(row.code),
        Template(row.target),
        tuple(map(Condition.read, row.when.split())),
        evidence,
        "named" in evidence,
        "repeats" in evidence,
        "nests" in evidence,
        "may_nest" in evidence,
        row.resource,
    )


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

"""What a request and a task say about belonging together: the rules, and nothing else.

No line of Wok's log carries the id that would join a task to its request. What it has is the request's message
code and parameters on one side and the task's `target_uri` on the other, and for every operation a rule how
the second follows from the first. A rule is written here as a *form*: the target_uri as far as the request
determines it, with a mark (`#us`, `?`, ...) in place of what Wok makes up. The same form is computed from a
target_uri by putting the marks in place of what looks made up. Joining is then a look-up of equal strings:
no name is ever taken apart, so a guest called `a/snapshots/b` or `x >>> y` does no harm.

A form *names* its task when only this request's resource has it. `/swaps/file_loc/` is the same for every swap
file, `/lvs/vg_name/{vg_name}` for all volumes of a group: such forms join, but never exactly. Where Wok puts
the time of the start into the target_uri (clones: microseconds, unnamed snapshots: seconds, unnamed debug
reports: milliseconds), it comes along: the only time in the log that is finer than a second, in no time zone.

The rules are facts of Kimchi, Ginger, Gingerbase and gingers390x between 2016 and 2020 (models' `AsyncTask`
calls and controllers' log tables). A plug-in that no rule knows is served by evidence in general: a parameter
of the request that is a segment of the target_uri.
"""

from __future__ import annotations

import base64
import re
from os.path import splitext
from typing import TYPE_CHECKING, Any, NamedTuple

from exporter.wok.operations import OTHER

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from exporter.wok.operations import Operations

SEGMENTS_MAX = 24
"""Segments of a target_uri, and parameters of a request, that are looked at as general evidence."""
SEGMENT_CHARS_MAX = 4096

GENERAL_EXACT_CHARS_MIN = 4
"""A shorter value (`1`, `vda`) is too common to be the name of one task's resource."""


class Form(NamedTuple):
    """A target_uri as far as it is determined; `named` when no other request's task would have it.

    `repeats` marks the operations whose tasks report again long after their end, `nests` those whose nested
    task has the same target_uri and ends first: a match by such a form is not exact, or not always.
    """

    text: str
    named: bool
    repeats: bool = False
    nests: bool = False


class Target(NamedTuple):
    """A form of a target_uri, strongest first; `epoch` is the task's start in nanoseconds, or 0, and
    `epoch_unit` its resolution in nanoseconds.
    """

    text: str
    epoch: int = 0
    epoch_unit: int = 0


class _Rule(NamedTuple):
    """A form's template; `needs` are the parameters it is filled with, all of which must be there."""

    template: str
    needs: tuple[str, ...]
    named: bool = True
    repeats: bool = False


_KIMCHI = "/plugins/kimchi/"
_BASE = "/plugins/gingerbase/"
_VOLUMES = _KIMCHI + "storagepools/{pool}/storagevolumes/"

# (application, message code) -> rules, of which the first whose parameters are there counts.
_RULES: dict[tuple[str, str], tuple[_Rule, ...]] = {
    ("kimchi", "KCHVM0001L"): (
        _Rule(_KIMCHI + "vms/{name}", ("name",)),
        _Rule(_KIMCHI + "vms/?-vm-?", (), named=False),
    ),
    ("kimchi", "KCHVM0009L"): (_Rule(_KIMCHI + "vms/{ident}-clone-#us/clone", ("ident",)),),
    ("kimchi", "KCHVM0010L"): (_Rule(_KIMCHI + "vms/{ident}/migrate", ("ident",)),),
    ("kimchi", "KCHSNAP0001L"): (
        _Rule(_KIMCHI + "vms/{vm}/snapshots/{name}", ("vm", "name")),
        _Rule(_KIMCHI + "vms/{vm}/snapshots/#s", ("vm",)),
    ),
    # The device is not in the target_uri, and libvirt's events repeat the record for hours.
    ("kimchi", "KCHVMHDEV0001L"): (
        _Rule(_KIMCHI + "vms/{vmid}/hostdevs/", ("vmid",), named=False, repeats=True),
    ),
    ("kimchi", "KCHVMHDEV0002L"): (
        _Rule(_KIMCHI + "vms/{vmid}/hostdevs/{ident}", ("vmid", "ident"), repeats=True),
    ),
    ("kimchi", "KCHPOOL0001L"): (_Rule(_KIMCHI + "storagepools/kimchi_isos", (), named=False),),
    ("kimchi", "KCHVOL0001L"): (
        _Rule(_VOLUMES + "{name}", ("pool", "name")),
        _Rule(_VOLUMES + "{url_name}", ("pool", "url_name")),
    ),
    ("kimchi", "KCHVOL0006L"): (_Rule(_VOLUMES + "{stem}-clone-#{extension}/clone", ("pool", "ident")),),
    ("ginger", "GINHBK0002L"): (_Rule("/backup/create/#uuid", (), named=False),),
    ("ginger", "WOKRES0001L"): (_Rule("/backup/restore/{ident}", ("ident",)),),
    ("ginger", "GINVG0001L"): (_Rule("/vgs/vg_name/{vg_name}", ("vg_name",)),),
    ("ginger", "GINLV0001L"): (_Rule("/lvs/vg_name/{vg_name}", ("vg_name",), named=False),),
    ("ginger", "GINPV0001L"): (_Rule("/pvs/pv_name/{pv_name}", ("pv_name",)),),
    ("ginger", "GINSP0001L"): (_Rule("/swaps/file_loc/", (), named=False),),
    ("ginger", "GINPART0004L"): (_Rule("/partitions/{ident}/fstype{fstype}", ("ident", "fstype")),),
    # The request names a bus id, the task a device: only the block size is on both sides.
    ("ginger", "GINDASD0001L"): (_Rule("/dasddevs/?/blksize/{blk_size}", ("blk_size",), named=False),),
    ("ginger", "GINNET0007L"): (_Rule("/plugins/ginger/network/{ident}/enable_sriov", ("ident",)),),
    ("ginger", "GINFW0001L"): (_Rule("/plugins/ginger/firmware/upgrade", (), named=False),),
    ("gingerbase", "GGBPKGUPD0001L"): (_Rule(_BASE + "host/swupdate", (), named=False),),
    ("gingerbase", "GGBPKGUPD0002L"): (_Rule(_BASE + "host/packagesupdate/{ident}/upgrade", ("ident",)),),
    ("gingerbase", "GGBDR0001L"): (
        _Rule(_BASE + "debugreports/{name}", ("name",)),
        _Rule(_BASE + "debugreports/report-#ms", ()),
    ),
    ("gingers390x", "GS390XIOIG0001L"): (_Rule("/plugins/gingers390x/cioignore/remove", (), named=False),),
    # The plug-in's own spelling: no x.
    ("gingers390x", "GS390XSTG0003L"): (_Rule("/plugins/gingers390/lunscan/trigger", (), named=False),),
    ("gingers390x", "GS390XIONW0001L"): (
        _Rule("/plugins/gingers390x/nwdevices/{ident}/configure", ("ident",)),
    ),
    ("gingers390x", "GS390XIONW0002L"): (
        _Rule("/plugins/gingers390x/nwdevices/{ident}/unconfigure", ("ident",)),
    ),
}

# What Wok makes up in a target_uri: (quick test, pattern, form, unit of the epoch in nanoseconds). All patterns
# are anchored at the end, and what they replace is of a fixed alphabet: they run in linear time.
_GENERATED: tuple[tuple[str, re.Pattern[str], str, int], ...] = (
    ("/clone", re.compile(r"-clone-(\d{16})/clone\Z"), "-clone-#us/clone", 1_000),
    ("/storagevolumes/", re.compile(r"-clone-(\d{1,16})(\.[^/.]*)?/clone\Z"), "-clone-#{0}/clone", 0),
    ("/snapshots/", re.compile(r"/snapshots/(\d{10})\Z"), "/snapshots/#s", 1_000_000_000),
    ("/debugreports/report-", re.compile(r"/report-(\d{13})\Z"), "/report-#ms", 1_000_000),
    ("/backup/create/", re.compile(r"\A/backup/create/[0-9a-f-]{36}\Z"), "/backup/create/#uuid", 0),
    ("/dasddevs/", re.compile(r"\A/dasddevs/[^/]*/blksize/"), "/dasddevs/?/blksize/", 0),
    (
        "-vm-",
        re.compile(r"\A/plugins/kimchi/vms/[^/]*-vm-[0-9A-Za-z]{1,16}\Z"),
        "/plugins/kimchi/vms/?-vm-?",
        0,
    ),
)

REQUESTLESS = (
    "/plugins/gingerbase/host/swupdateprogress",
    "/plugins/kimchi/storagepools/kimchi_isos",
)
"""Targets of tasks whose request Wok does not log: each of their final records is a task of its own."""

_NESTED_CLONE = re.compile(
    r"/storagevolumes/[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}-\d+(\.[^/]*)?/clone\Z"
)


def is_requestless(target_uri: str) -> bool:
    """Tell whether tasks of this target_uri have no request in the log: polls of the update's progress, deep
    scans (since Wok 2.3.0), and the volume clones nested in the clone of a guest.
    """
    return target_uri in REQUESTLESS or (
        target_uri.endswith("/clone") and bool(_NESTED_CLONE.search(target_uri))
    )


def of_request(app: str, code: str, params: Mapping[str, Any]) -> tuple[Form, ...]:
    """Return the forms of the target_uri that a task of this request may have; empty where no rule knows it."""
    for rule in _RULES.get((app, code), ()):
        values = {name: _text(params, name) for name in rule.needs}
        if all(values.values()):
            nests = False
            if code == "GGBDR0001L" and rule.needs:
                values["name"] = values["name"].strip()
            elif code == "KCHVOL0006L":
                values["stem"], values["extension"] = splitext(values["ident"])  # noqa: PTH122 - the very split that Kimchi makes
            elif code == "KCHVOL0001L" and _text(params, "url"):
                # Outside file systems a download runs a nested task of the same target_uri, which ends first.
                nests = True
            forms = [Form(rule.template.format_map(values), rule.named, rule.repeats, nests)]
            guest = values.get("vmid", "")
            if guest and not guest.isascii():
                # Kimchi's libvirt name of a guest with a non-ASCII name.
                encoded = base64.urlsafe_b64encode(guest.encode("utf-8", "replace")).decode("ascii")
                forms.append(
                    Form(
                        rule.template.format_map({**values, "vmid": encoded}), rule.named, rule.repeats, nests
                    )
                )
            return tuple(forms)
    return ()


def of_target(target_uri: str) -> tuple[Target, ...]:
    """Return the forms of a task's target_uri, the strongest first: itself, then with marks for what Wok makes
    up in it.
    """
    targets = [Target(target_uri)]
    for hint, pattern, form, unit in _GENERATED:
        if hint in target_uri and (match := pattern.search(target_uri)):
            text = target_uri[: match.start()] + form + target_uri[match.end() :]
            if unit:
                targets.append(Target(text, int(match[1]) * unit, unit))
            else:
                extension = match[2] or "" if match.re.groups else ""
                targets.append(Target(text.replace("#{0}", "#" + extension)))
    return tuple(targets)


def values_of(params: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the plain values of a request's or an error's parameters, as text: what a request of an unknown
    operation could give its task's target_uri, and what an error may quote of its request.
    """
    found = []
    for value in list(params.values())[:SEGMENTS_MAX]:
        if isinstance(value, (str, int)) and not isinstance(value, bool):
            text = str(value)
            if 2 <= len(text) <= SEGMENT_CHARS_MAX:
                found.append(text)
    return tuple(found)


def general_forms(params: Mapping[str, Any]) -> tuple[Form, ...]:
    """Return the forms of a request that no rule knows: its values, as the last segment and as any."""
    values = values_of(params)
    named = [Form("~/" + value, named=len(value) >= GENERAL_EXACT_CHARS_MIN) for value in values]
    return tuple(named + [Form("~" + value, named=False) for value in values])


def general_targets(target_uri: str) -> tuple[Target, ...]:
    """Return the forms, of the kind that `general_forms` makes, of a target_uri that no rule knows."""
    segments = segments_of_target(target_uri)
    return tuple(Target("~/" + segment) for segment in segments[:1]) + tuple(
        Target("~" + segment) for segment in segments
    )


def targets_of(naming: Operations, app: str, target_uri: str) -> Iterator[Target]:
    """Yield the forms of a task's target_uri, the strongest first; where no rule knows it, the general ones too."""
    yield from of_target(target_uri)
    if naming.of_target(app, target_uri) == OTHER:
        yield from general_targets(target_uri)


def segments_of_target(target_uri: str) -> tuple[str, ...]:
    """Return the segments of a target_uri after the application's own, the last first, and every tail of it (a
    name may hold slashes).
    """
    parts = [part for part in target_uri.split("/") if part][-SEGMENTS_MAX:]
    if parts[:1] == ["plugins"]:
        parts = parts[2:]
    tails = ["/".join(parts[i:]) for i in range(len(parts))]
    return tuple(dict.fromkeys([*reversed(parts), *tails]))


def _text(params: Mapping[str, Any], name: str) -> str:
    if name == "url_name":
        return _text(params, "url").rstrip("/").rsplit("/", 1)[-1].split("?", 1)[0]
    value = params.get(name)
    if isinstance(value, str):
        return value
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else ""

"""What a request and a task say about belonging together.

Most lines of Wok's log carry no id that joins a task to its request. What they have is the request's operation
and parameters on one side and the task's `target_uri` on the other. The table of operations knows how the second
follows from the first: it gives a *form* of the target_uri for each (`Operations.forms`, `Operations.targets`),
and equal forms join. A form *names* its task when only this request's resource has it. Some targets are the same
for all tasks of a kind: their forms join, but never exactly.

A plug-in or an operation that the table does not know is served by evidence in general: a parameter of the
request that is a segment of the target_uri. That proves little. `full` may be the mode of one request and the last
word of another task's target_uri, so a request with a name (`ident`, `name`, ...) is known by its names alone. A
general form names its task only where the value looks like an identifier: a name, long, with a digit in it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from exporter.wok.operations import Form, Target

if TYPE_CHECKING:
    from collections.abc import Mapping

    from exporter.wok.operations import Operations

SEGMENTS_MAX = 24
"""Segments of a target_uri, and parameters of a request, that are looked at as general evidence."""
SEGMENT_CHARS_MAX = 4096
IDENTIFIER_CHARS_MIN = 8
"""A shorter value (`1`, `vda`, `full`) is too common to be the name of one task's resource."""

_NAMES = frozenset({"ident", "name", "id", "uuid"})
_NAME_ENDINGS = ("_name", "_id", "_uuid")


def forms_of(
    operations: Operations, app: str, code: str, operation: str, params: Mapping[str, Any]
) -> tuple[Form, ...]:
    """Return the forms of the target_uri that a task of this request may have; general ones for an operation that
    the table does not know to start tasks.
    """
    return operations.forms(app, code, operation, params) or general_forms(params)


def values_of(params: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the plain values of a request's or an error's parameters, as text: what an error may quote of its
    request.
    """
    return tuple(text for _, text in _plain(params))


def general_forms(params: Mapping[str, Any]) -> tuple[Form, ...]:
    """Return the forms of a request that the table does not know: its names, as the last segment and as any; or
    where it has no name its other values.
    """
    plain = _plain(params)
    names = [(text, is_identifier(text)) for name, text in plain if _is_name(name)]
    values = names or [(text, False) for _, text in plain]
    last = [Form("~/" + text, named) for text, named in values]
    return tuple(dict.fromkeys([*last, *(Form("~" + text, named) for text, named in values)]))


def is_general(text: str) -> bool:
    """Tell whether a form is one of general evidence."""
    return text.startswith("~")


def is_identifier(value: str) -> bool:
    """Tell whether a value looks like the name of one thing alone."""
    return len(value) >= IDENTIFIER_CHARS_MIN and any(map(str.isdigit, value))


def general_targets(operations: Operations, app: str, target_uri: str) -> tuple[str, ...]:
    """Return the general forms of a task's target_uri; none where only an operation of the table has such ones."""
    if not operations.may_be_unknown(app, target_uri):
        return ()
    segments = segments_of_target(target_uri)
    return tuple(["~/" + segment for segment in segments[:1]] + ["~" + segment for segment in segments])


def targets_of(operations: Operations, app: str, target_uri: str) -> list[Target]:
    """Return all forms of a task's target_uri, the strongest first."""
    general = general_targets(operations, app, target_uri)
    return [*operations.targets(app, target_uri), *(Target(text) for text in general)]


def segments_of_target(target_uri: str) -> tuple[str, ...]:
    """Return the segments of a target_uri after the application's own, the last first, and every tail of it (a
    name may hold slashes).
    """
    parts = [part for part in target_uri.split("/") if part][-SEGMENTS_MAX:]
    if parts[:1] == ["plugins"]:
        parts = parts[2:]
    tails = ["/".join(parts[i:]) for i in range(len(parts))]
    return tuple(dict.fromkeys([*reversed(parts), *tails]))


def _plain(params: Mapping[str, Any]) -> list[tuple[str, str]]:
    found = []
    for name, value in list(params.items())[:SEGMENTS_MAX]:
        if isinstance(value, (str, int)) and not isinstance(value, bool):
            text = str(value)
            if 2 <= len(text) <= SEGMENT_CHARS_MAX:
                found.append((name, text))
    return found


def _is_name(name: str) -> bool:
    return name in _NAMES or name.endswith(_NAME_ENDINGS)

"""The evidence that a request and a task belong together.

Most lines of Wok's log carry no id that connects a task with its request. A request has an
operation and parameters, a task has a `target_uri`. The table of operations knows how the
target_uri follows from the request. It gives a *form* of the target_uri for each
(`Operations.forms`, `Operations.targets`), and equal forms match. A form *names* its task if only
the resource of this request has it. Some target_uris are the same for all tasks of a kind: their
forms match, but never exactly.

For a plug-in or an operation that the table does not know, there is general evidence: a parameter
of the request that is a segment of the target_uri. That proves little. `full` may be the mode of
one request and the last word of another task's target_uri. A request with a name (`ident`, `name`,
...) is therefore identified by its names alone. A general form names its task only if the value
looks like an identifier: a name that is long and contains a digit.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from exporter.wok.operations import Form, Operations, Target

SEGMENTS_MAX = 24
"""Maximum number of segments of a target_uri, and of parameters of a request, for general evidence.
"""
SEGMENT_CHARS_MAX = 4096
IDENTIFIER_CHARS_MIN = 8
"""A shorter value (`1`, `vda`, `full`) is too common to identify the resource of one task."""

_NAMES = frozenset({"ident", "name", "id", "uuid"})
_NAME_ENDINGS = ("_name", "_id", "_uuid")


def forms_of(
    operations: Operations, app: str, code: str, operation: str, params: Mapping[str, Any]
) -> tuple[Form, ...]:
    """Return the forms of the target_uri that a task of this request may have.

    For an operation that starts no task according to the table, these are general forms.
    """
    return operations.forms(app, code, operation, params) or general_forms(params)


def values_of(params: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the plain values of parameters as text: an error may quote a value of its request."""
    return tuple(text for _, text in _plain(params))


def general_forms(params: Mapping[str, Any]) -> tuple[Form, ...]:
    """Return the forms of a request that the table does not know.

    They are its names, as the last segment and as any segment. Without a name, its other values are
    used.
    """
    plain = _plain(params)
    names = [(text, is_identifier(text)) for name, text in plain if _is_name(name)]
    values = names or [(text, False) for _, text in plain]
    last = [Form("~/" + text, named) for text, named in values]
    return tuple(dict.fromkeys([*last, *(Form("~" + text, named) for text, named in values)]))


def is_general(text: str) -> bool:
    """Return whether a form is general evidence."""
    return text.startswith("~")


def is_identifier(value: str) -> bool:
    """Return whether a value looks like the name of a single resource."""
    return len(value) >= IDENTIFIER_CHARS_MIN and any(map(str.isdigit, value))


def general_targets(operations: Operations, app: str, target_uri: str) -> tuple[str, ...]:
    """Return the general forms of a target_uri, or none if only operations of the table have such
    target_uris.
    """
    if not operations.may_be_unknown(app, target_uri):
        return ()
    segments = segments_of_target(target_uri)
    return tuple(["~/" + segment for segment in segments[:1]] + ["~" + segment for segment in segments])


def targets_of(operations: Operations, app: str, target_uri: str) -> list[Target]:
    """Return all forms of a task's target_uri, the strongest first."""
    general = general_targets(operations, app, target_uri)
    return [*operations.targets(app, target_uri), *(Target(text) for text in general)]


def segments_of_target(target_uri: str) -> tuple[str, ...]:
    """Return the segments of a target_uri after the application's own, the last first, and every
    tail of it.

    A tail is needed because a name may contain slashes.
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

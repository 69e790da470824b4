"""What a request and a task say about belonging together.

No line of Wok's log carries the id that would join a task to its request. What it has is the request's operation
and parameters on one side and the task's `target_uri` on the other. The table of operations knows how the second
follows from the first: it gives a *form* of the target_uri for each (`Operations.forms`, `Operations.targets`),
and equal forms join.

A form *names* its task when only this request's resource has it. Some targets are the same for all tasks of a
kind: their forms join, but never exactly.

A plug-in or an operation that the table does not know is served by evidence in general: a parameter of the
request that is a segment of the target_uri.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from exporter.wok.operations import OTHER, Form, Target

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from exporter.wok.operations import Operations

SEGMENTS_MAX = 24
"""Segments of a target_uri, and parameters of a request, that are looked at as general evidence."""
SEGMENT_CHARS_MAX = 4096

GENERAL_EXACT_CHARS_MIN = 4
"""A shorter value (`1`, `vda`) is too common to be the name of one task's resource."""


def forms_of(
    naming: Operations, app: str, code: str, operation: str, params: Mapping[str, Any]
) -> tuple[Form, ...]:
    """Return the forms of the target_uri that a task of this request may have; general ones for an operation that
    the table does not know.
    """
    return naming.forms(app, code, operation, params) or general_forms(params)


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
    yield from naming.targets(app, target_uri)
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

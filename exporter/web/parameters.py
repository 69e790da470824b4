"""The query parameters of the API: strict, bounded, and rejected with a remedy.

An unknown parameter is rejected too: a misspelt filter must not look like one that finds
everything. An empty one counts as left out, as HTML forms send them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from exporter.records import OUTCOMES
from exporter.store.search import INTEGER_MAX, Place, Sought

VALUES_MAX = 50
"""Of one parameter: more operations than anybody selects."""
CHARS_MAX = 300
"""Of one value: a target_uri is shorter, and a longer text takes time in every row."""
TASKS_MAX = 500
TASKS_USUAL = 100
REQUESTS_MAX = 2000
REQUESTS_USUAL = 500
"""Items of one answer, a quarter to half a megabyte; long texts make it fewer
(`search.PAGE_BYTES_MAX`).
"""

NANOS_A_MILLISECOND = 1_000_000
_TIME_MAX_MILLISECONDS = INTEGER_MAX // NANOS_A_MILLISECOND

STATES = ("running", "ended", "failed", "all")

_SHARED = ("app", "operation", "user", "text", "since", "until", "limit", "before")
TASK_PARAMETERS = ("state", *_SHARED[:2], "outcome", *_SHARED[2:])
REQUEST_PARAMETERS = _SHARED

Query = Mapping[str, Sequence[str]]


class ParameterError(Exception):
    """A parameter is wrong; the message names it and says what to do, in ASCII."""


class TaskQuery(NamedTuple):
    """A query of `/api/tasks`."""

    sought: Sought
    running: bool
    ended: bool
    place: Place | None
    limit: int


class RequestQuery(NamedTuple):
    """A query of `/api/requests`."""

    sought: Sought
    before: int | None
    limit: int


def task_query(query: Query) -> TaskQuery:
    """Return the query of `/api/tasks`; raises ParameterError."""
    values = _known(query, TASK_PARAMETERS, "/api/tasks")
    state = _one(values, "state") or "all"
    if state not in STATES:
        raise ParameterError(f"state: {_shown(state)} is none of {_listed(STATES)}: write one of these")
    outcomes = values.get("outcome", [])
    for outcome in outcomes:
        if outcome not in OUTCOMES:
            raise ParameterError(
                f"outcome: {_shown(outcome)} is none of {_listed(OUTCOMES)}: write some of these"
            )
    sought = _sought(values)._replace(outcomes=outcomes)
    ended = state != "running"
    if state == "failed":
        bad = [outcome for outcome in ("failure", "lost") if not outcomes or outcome in outcomes]
        sought, ended = sought._replace(outcomes=bad), bool(bad)
    return TaskQuery(
        sought,
        running=state in ("running", "all") and not outcomes,
        ended=ended,
        place=_place(_one(values, "before")),
        limit=_limit(values, TASKS_USUAL, TASKS_MAX),
    )


def request_query(query: Query) -> RequestQuery:
    """Return the query of `/api/requests`; raises ParameterError."""
    values = _known(query, REQUEST_PARAMETERS, "/api/requests")
    before = _one(values, "before")
    if before and not re.fullmatch(r"-?[0-9]{1,18}", before, re.ASCII):
        raise _not_ours(before)
    return RequestQuery(
        _sought(values), int(before) if before else None, _limit(values, REQUESTS_USUAL, REQUESTS_MAX)
    )


def no_query(query: Query, path: str) -> None:
    """Raise ParameterError for any parameter; the path has none."""
    _known(query, (), path)


def before_of(place: Place | None) -> str | None:
    """Return a place as the text of `before`."""
    if place is None:
        return None
    if place.running is None:
        return f"e{place.newest}.{place.before}"
    start, context = place.running
    return f"r{place.newest}.{start}.{context.hex()}"


def _place(text: str) -> Place | None:
    if not text:
        return None
    if found := re.fullmatch(r"e(-?[0-9]{1,18})\.(-?[0-9]{1,18})", text, re.ASCII):
        return Place(int(found[1]), None, int(found[2]))
    found = re.fullmatch(r"r(-?[0-9]{1,18})\.(-?[0-9]{1,19})\.((?:[0-9a-f]{2}){1,64})", text, re.ASCII)
    if found and abs(int(found[2])) <= INTEGER_MAX:
        return Place(int(found[1]), (int(found[2]), bytes.fromhex(found[3])), 0)
    raise _not_ours(text)


def _not_ours(before: str) -> ParameterError:
    return ParameterError(
        f"before: {_shown(before)} is not from an answer: leave it out for the first page, or write the"
        " `before` of the page before"
    )


def _sought(values: Query) -> Sought:
    return Sought(
        apps=values.get("app", ()),
        operations=values.get("operation", ()),
        users=values.get("user", ()),
        text=_one(values, "text"),
        since_ns=_time(values, "since"),
        until_ns=_time(values, "until"),
    )


def _known(query: Query, names: Collection[str], path: str) -> dict[str, list[str]]:
    """Return the values that are not empty; reject unknown names, and too many
    or too long values.
    """
    known: dict[str, list[str]] = {}
    for name, values in query.items():
        if name not in names:
            use = f"use {_listed(names)}" if names else "there are none"
            raise ParameterError(f"{_shown(name)} is not a parameter of {path}: leave it out; {use}")
        given = [value for value in values if value]
        if len(given) > VALUES_MAX:
            raise ParameterError(f"{name}: is given {len(given)} times: give it at most {VALUES_MAX} times")
        for value in given:
            if len(value) > CHARS_MAX:
                raise ParameterError(
                    f"{name}: {_shown(value)} has {len(value)} characters: write at most {CHARS_MAX}"
                )
        if given:
            known[name] = given
    return known


def _one(values: Query, name: str) -> str:
    given = values.get(name, ("",))
    if len(given) > 1:
        raise ParameterError(f"{name}: is given {len(given)} times: give it once")
    return given[0]


def _time(values: Query, name: str) -> int | None:
    text = _one(values, name)
    if not text:
        return None
    number = float(text) if re.fullmatch(r"-?[0-9]{1,16}(\.[0-9]{1,9})?", text, re.ASCII) else math.nan
    if not abs(number) <= _TIME_MAX_MILLISECONDS:
        raise ParameterError(
            f"{name}: {_shown(text)} is not a number of milliseconds: leave it out, or write the milliseconds"
            " since the epoch, such as 1718000000000"
        )
    return int(number * NANOS_A_MILLISECOND)


def _limit(values: Query, usual: int, most: int) -> int:
    text = _one(values, "limit")
    if not text:
        return usual
    if not re.fullmatch(r"[0-9]{1,6}", text, re.ASCII) or not 1 <= int(text) <= most:
        raise ParameterError(
            f"limit: {_shown(text)} is not a number from 1 to {most}: leave it out for {usual}, or write one"
        )
    return int(text)


def _listed(names: Collection[str]) -> str:
    *others, last = names
    return f"{', '.join(others)} or {last}" if others else last


def _shown(text: str) -> str:
    return ascii(text if len(text) <= 60 else f"{text[:60]}...")

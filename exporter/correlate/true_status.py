"""The true status of a request that Wok's log wrongly records as 500.

Wok logs two kinds of requests as 500 by mistake: a PUT that renames its resource (answered with
303), and a failed login since Wok 2.4 (401). Only these two are looked up in wok-access.log, when
their settling window closes. Until then, the request is held back, but everything else about it is
decided at once: a task does not depend on the status of its request.

An answer is accepted only if it has one of these two statuses, comes from the same address, in the
same second or the next, and for the same resource. Otherwise the status stays as logged. Two rules
decide what is certain:

* **No 500 can belong to the request.** A true 500 has a line of its own, so no other line can make
  it something else. A 500 belongs to other requests only if they would have no answer without it.
  This matters because anybody can write lines into that file: Wok answers a PUT
  of a client that is not logged in with 303 and does not log the request, and the client chooses
  its address and the path.
* **Requests and answers balance.** In the seconds around the request, this client's requests for
  this resource have as many answers, and each can have one of its own. If one line is missing
  (wokd was killed) or one is too many, it is unknown which answer is whose.

If the answer is in doubt when the window closes, one more second is awaited: then all answers to
the requests of the next second are there, too.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from exporter.records import NANOS, Record
from exporter.wok.access_log import Answer

LOGIN_CODE = "WOKROOT0001L"
RENAMED = 303
UNAUTHORIZED = 401
LOGGED = 500
ANSWER_NANOS = NANOS
"""An answer is logged in the second of its request's own line, or in the next."""
BEFORE_NANOS = 4 * NANOS
"""Requests and answers are compared from this long before a request."""
ASKED_MAX = 1024
RIVALS_MAX = 16
"""If more requests could have the same answers, a 500 among these puts all of them in doubt."""

_NAMES = ("ident", "vm", "vmid", "pool")
"""Parameters that name the resource or its parent: they are segments of the path."""

AnswerResult = Literal["corrected", "confirmed", "contested", "missing"]
"""What wok-access.log says of a doubtful request: another status, the same one, something that may
belong to another request, or nothing."""

Answers = Mapping[tuple[str, str], Sequence[Answer]]
"""Answers by method and client."""
AnswersBetween = Callable[[int, int], Answers | None]
"""Returns the answers between two times, inclusive, or None if they are unknown."""


class Decision(NamedTuple):
    """The true status of a request, as far as it is known."""

    status: int
    result: AnswerResult


class _Key(NamedTuple):
    """Who has asked for what. `names` are segments of the path, the first one is at the end."""

    address: str
    method: str
    app: str
    names: tuple[str, ...]


class _Asked(NamedTuple):
    """A request that was logged with 500."""

    time: int
    key: _Key


class TrueStatus:
    """The requests that were logged with 500, and the answers around them.

    `asked` adds each such request of the log. `decide` closes the window of one that `is_doubtful`.
    """

    def __init__(self, answers_between: AnswersBetween) -> None:
        self._answers_between = answers_between
        self._asked: deque[_Asked] = deque()
        self._by_key: dict[_Key, deque[_Asked]] = {}
        # Equal requests of one second have the same answers, until the next one is added.
        self._decided: dict[tuple[_Asked, int], Decision] = {}

    def asked(self, record: Record) -> None:
        """Add a request with the status 500."""
        if record.method != "PUT" and record.code != LOGIN_CODE:
            return
        asked = self._asked
        while asked and (
            len(asked) >= ASKED_MAX or abs(record.time - asked[0].time) > BEFORE_NANOS + 3 * ANSWER_NANOS
        ):
            self._forget_first()
        self._add(_asked_of(record))

    def _add(self, asked: _Asked) -> None:
        self._decided.clear()
        self._asked.append(asked)
        self._by_key.setdefault(asked.key, deque()).append(asked)

    def _forget_first(self) -> None:
        key = self._asked.popleft().key
        alike = self._by_key[key]
        alike.popleft()
        if not alike:
            del self._by_key[key]

    def decide(self, record: Record, shift: int = 0, *, is_last: bool = True) -> Decision:
        """Return the true status of a doubtful request. Call this when its window closes.

        `shift` is the difference between the times of the access log and their true time. `is_last`
        is False at the end of the settling window, and True one second later.
        """
        if len(self._asked) >= ASKED_MAX:
            return Decision(LOGGED, "contested")
        own = _asked_of(record)
        last = own.time + ANSWER_NANOS * (2 if is_last else 1)
        decided = self._decided.get((own, last))
        if decided is None:
            decided = self._decided[own, last] = self._decide(own, last, shift)
        return decided

    def _decide(self, own: _Asked, last: int, shift: int) -> Decision:
        first = own.time - BEFORE_NANOS
        found = self._answers_between(first - shift, last - shift)
        if found is None:
            return Decision(LOGGED, "missing")
        # Wok sends no user to this log. A longer text is the address of another client.
        of_client = found.get((own.key.method, f"{own.key.address} - -"), ())
        answers = [
            answer._replace(time=answer.time + shift) for answer in of_client if _is_for(answer, own.key)
        ]
        statuses = {answer.status for answer in answers if _fits(answer, own)}
        if not statuses:
            return Decision(LOGGED, "missing")
        if statuses == {LOGGED}:
            return Decision(LOGGED, "confirmed")
        true = _true_status(own)
        alike = self._by_key.get(own.key, ())
        # All answers to these requests are among those up to `last`.
        until = min(own.time + ANSWER_NANOS, last - ANSWER_NANOS)
        around = [asked for asked in alike if own.time - ANSWER_NANOS <= asked.time <= until]
        is_sure = (
            statuses <= {true, LOGGED}
            and _have_answers(around, answers)
            and (LOGGED not in statuses or _is_of_others(own, around, answers))
            and _is_balanced(own, alike, answers, last)
        )
        return Decision(true, "corrected") if is_sure else Decision(LOGGED, "contested")

    # The store

    def to_json(self) -> list[Any]:
        """Return the state as JSON values."""
        return list(self._asked)

    def restore(self, kept: Sequence[Any]) -> None:
        """Continue from the result of `to_json`."""
        for time, (address, method, app, names) in kept:
            self._add(_Asked(time, _Key(address, method, app, tuple(names))))


def is_doubtful(record: Record) -> bool:
    """Return whether the status of a request has to be looked up in wok-access.log."""
    if record.kind != "request" or record.status != LOGGED:
        return False
    return (record.method == "PUT" and not record.error_code) or record.code == LOGIN_CODE


def _asked_of(record: Record) -> _Asked:
    is_put = record.method == "PUT"
    values = [record.params.get(name) for name in _NAMES] if is_put else []
    names = tuple([value for value in values if isinstance(value, str) and value])
    key = _Key(record.address, record.method, record.app, names)
    return _Asked(record.time, key)


def _true_status(asked: _Asked) -> int:
    return RENAMED if asked.key.method == "PUT" else UNAUTHORIZED


def _is_of_others(own: _Asked, around: Sequence[_Asked], answers: Sequence[Answer]) -> bool:
    """Return whether each 500 that fits `own` belongs to another request: without it, one of these
    would have no answer. All requests `around` have one with it.
    """
    others = list(around)
    if own in others:
        others.remove(own)
    if len(others) > RIVALS_MAX:
        return False
    # Those of the same second are alike.
    errors = {
        answer.time: at for at, answer in enumerate(answers) if answer.status == LOGGED and _fits(answer, own)
    }
    return not any(_have_answers(others, [*answers[:at], *answers[at + 1 :]]) for at in errors.values())


def _have_answers(requests: Iterable[_Asked], answers: Iterable[Answer]) -> bool:
    """Return whether each request can have an answer of its own.

    The first answer that fits the first request is as good as any other: it fits a later request no
    better.
    """
    times = iter(sorted([answer.time for answer in answers]))
    for asked in sorted([asked.time for asked in requests]):
        found = next((time for time in times if time >= asked), None)
        if found is None or found > asked + ANSWER_NANOS:
            return False
    return True


def _is_balanced(own: _Asked, alike: Iterable[_Asked], answers: Iterable[Answer], last: int) -> bool:
    """Return whether the requests around `own` have an answer each, and the answers a request.

    `alike` are the requests of this client for this resource, including `own`.
    """
    first = own.time - BEFORE_NANOS
    counted = (_true_status(own), LOGGED)
    found = sum(answer.status in counted for answer in answers)
    times = [asked.time for asked in alike]
    # The answer to the last ones can be outside of these seconds, and one from before them inside.
    least = sum(first <= time <= last - ANSWER_NANOS for time in times)
    most = sum(first - ANSWER_NANOS <= time <= last for time in times)
    return least <= found <= most


def _fits(answer: Answer, asked: _Asked) -> bool:
    """Return whether an answer for the same resource can belong to a request."""
    return 0 <= answer.time - asked.time <= ANSWER_NANOS


def _is_for(answer: Answer, key: _Key) -> bool:
    """Return whether an answer to this client is for the resource of a request."""
    path = answer.path
    if key.method != "PUT":
        return path.endswith("/login")
    # Without a name, the resource cannot be identified.
    if not key.names or (key.app != "wok" and f"/plugins/{key.app}/" not in path):
        return False
    return path.endswith("/" + key.names[0]) and all(f"/{name}/" in path for name in key.names[1:])

"""The true status of a request that Wok's log wrongly records as 500.

Wok logs two kinds of requests as 500 by mistake: a PUT that renames its resource (answered with
303), and a failed login since Wok 2.4 (401). Only these two are looked up in wok-access.log, when
their settling window closes. Until then, the request is held back, but everything else about it is
decided at once: a task does not depend on the status of its request.

An answer is accepted only if it has one of these two statuses, comes from the same address, in the
same second or the next, and for the same resource. A true 500 has a line of its own there. So the
answer is in doubt as soon as a 500 could belong to this request, or if similar requests leave no
answer for it. Then the status stays as logged.

Anybody can write lines into that file: Wok answers a PUT of a client that is not logged in with 303
and does not log the request, and the client chooses its address and the path. Such a line alone
changes nothing, because it does not remove the line of a true 500. That line can be missing (wokd
was killed), or late (the host is overloaded). A forged line would then have to be the only one
around: more answers than requests put all of them in doubt.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Sequence
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
"""This long before a request, answers without a request put its answer in doubt."""
ASKED_MAX = 1024
SIMILAR_MAX = 16
"""Similar requests of which each is compared with each answer. Of more, only the numbers are
compared."""

AnswerResult = Literal["corrected", "confirmed", "contested", "missing"]
"""What wok-access.log says of a doubtful request: another status, the same one, something that may
belong to another request, or nothing."""

Answers = Sequence[Answer]
AnswersAround = Callable[[int], Answers | None]
"""Returns the answers from `BEFORE_NANOS` before a time to `ANSWER_NANOS` after it, or None if they
are unknown."""


class Decision(NamedTuple):
    """The true status of a request, as far as it is known."""

    status: int
    result: AnswerResult


class _Asked(NamedTuple):
    """A request that was logged with 500.

    names    Segments of its path. The first one is at the end.
    is_true  Wok's error shows that the answer was really a 500.
    """

    time: int
    address: str
    method: str
    app: str
    names: tuple[str, ...]
    is_true: bool


_NAMES = ("ident", "vm", "vmid", "pool")
"""Parameters that name the resource or its parent: they are segments of the path."""


class TrueStatus:
    """The requests that were logged with 500, and the answers around them.

    `asked` adds each such request of the log. `decide` closes the window of one that `is_doubtful`.
    """

    def __init__(self, answers_around: AnswersAround) -> None:
        self._answers_around = answers_around
        self._asked: deque[_Asked] = deque(maxlen=ASKED_MAX)

    def asked(self, record: Record) -> None:
        """Add a request with the status 500."""
        if record.method != "PUT" and record.code != LOGIN_CODE:
            return
        asked = self._asked
        while asked and abs(record.time - asked[0].time) > BEFORE_NANOS + 2 * ANSWER_NANOS:
            asked.popleft()
        asked.append(_asked_of(record))

    def decide(self, record: Record, shift: int = 0) -> Decision:
        """Return the true status of a doubtful request. Call this when its window closes.

        `shift` is the difference between the times of the access log and their true time.
        """
        found = self._answers_around(record.time - shift)
        if found is None:
            return Decision(LOGGED, "missing")
        own = _asked_of(record)
        answers = [answer._replace(time=answer.time + shift) for answer in found if _is_for(answer, own)]
        fitting = [answer for answer in answers if _fits(answer, own)]
        if not fitting:
            return Decision(LOGGED, "missing")
        if all(answer.status == LOGGED for answer in fitting):
            return Decision(LOGGED, "confirmed")
        alike = [asked for asked in self._asked if asked[1:5] == own[1:5]]
        if len(self._asked) < ASKED_MAX and _is_sure(own, alike, answers):
            return Decision(_true_status(own), "corrected")
        return Decision(LOGGED, "contested")

    # The store

    def to_json(self) -> list[Any]:
        """Return the state as JSON values."""
        return list(self._asked)

    def restore(self, kept: Sequence[Any]) -> None:
        """Continue from the result of `to_json`."""
        for time, address, method, app, names, is_true in kept:
            self._asked.append(_Asked(time, address, method, app, tuple(names), is_true))


def is_doubtful(record: Record) -> bool:
    """Return whether the status of a request has to be looked up in wok-access.log."""
    if record.kind != "request" or record.status != LOGGED:
        return False
    return (record.method == "PUT" and not record.error_code) or record.code == LOGIN_CODE


def _asked_of(record: Record) -> _Asked:
    names = [record.params.get(name) for name in _NAMES]
    return _Asked(
        record.time,
        record.address,
        record.method,
        record.app,
        tuple(name for name in names if isinstance(name, str) and name) if record.method == "PUT" else (),
        record.method == "PUT" and bool(record.error_code),
    )


def _true_status(asked: _Asked) -> int:
    return RENAMED if asked.method == "PUT" else UNAUTHORIZED


def _is_sure(own: _Asked, alike: list[_Asked], answers: list[Answer]) -> bool:
    """Return whether one of the answers for this client and resource is certainly that of `own`.

    `alike` are the requests of this client for this resource, including `own`.
    """
    true = _true_status(own)
    last = own.time + ANSWER_NANOS
    first = own.time - BEFORE_NANOS - ANSWER_NANOS
    possible = sum(first <= asked.time <= last and not asked.is_true for asked in alike)
    if sum(answer.status == true for answer in answers) > possible:
        return False  # somebody else writes such lines
    others = [asked for asked in alike if abs(asked.time - own.time) <= ANSWER_NANOS]
    if own in others:
        others.remove(own)
    times = {asked.time for asked in others if not asked.is_true} | {own.time}
    error_times = {asked.time for asked in others if asked.is_true}
    answers = [
        answer
        for answer in answers
        if not times.isdisjoint(_request_times(answer))
        or (answer.status == LOGGED and not error_times.isdisjoint(_request_times(answer)))
    ]
    if len(others) <= SIMILAR_MAX:
        _take_what_is_clear(others, answers)
    # A 500 with one of Wok's errors is a true one and has its own answer.
    errors = sum(asked.is_true for asked in others)
    statuses = Counter(answer.status for answer in answers)
    return (
        statuses[LOGGED] <= errors
        and statuses[true] > len(others) - errors
        and any(_fits(answer, own) for answer in answers)
    )


def _request_times(answer: Answer) -> tuple[int, int]:
    return answer.time, answer.time - ANSWER_NANOS


def _take_what_is_clear(others: list[_Asked], answers: list[Answer]) -> None:
    """Remove requests that have only one possible answer, and those answers."""
    while True:
        for asked in others:
            fitting = [answer for answer in answers if _fits(answer, asked)]
            if len(fitting) == 1:
                others.remove(asked)
                answers.remove(fitting[0])
                break
        else:
            return


def _fits(answer: Answer, asked: _Asked) -> bool:
    """Return whether an answer for the same resource can belong to a request."""
    is_in_time = 0 <= answer.time - asked.time <= ANSWER_NANOS
    return is_in_time and (answer.status == LOGGED or not asked.is_true)


def _is_for(answer: Answer, asked: _Asked) -> bool:
    """Return whether an answer is for the client and the resource of a request."""
    # Wok sends no user to this log. A longer text is the address of another client.
    if answer.method != asked.method or answer.client != asked.address + " - -":
        return False
    if asked.method != "PUT":
        return answer.path.endswith("/login")
    path = answer.path
    # Without a name, the resource cannot be identified.
    if not asked.names or (asked.app != "wok" and f"/plugins/{asked.app}/" not in path):
        return False
    return path.endswith("/" + asked.names[0]) and all(f"/{name}/" in path for name in asked.names[1:])

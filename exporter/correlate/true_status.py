"""The true status of a request that Wok's log wrongly records as 500.

Wok logs two kinds of requests as 500 by mistake: a PUT that renames its resource (answered with
303), and a failed login since Wok 2.4 (401). Only these two are looked up in wok-access.log. An
answer is accepted only if it has one of these two statuses, comes from the same address, in the
same second or the next, and for the same resource, and if no other answer in that time could be
confused with it.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

from exporter.records import NANOS, Record
from exporter.wok.access_log import Answer

LOGIN_CODE = "WOKROOT0001L"
RENAMED = 303
UNAUTHORIZED = 401
LOGGED = 500
ANSWER_NANOS = NANOS
"""An answer is logged in the second of its request's own line, or in the next."""
ANSWERS_MAX = 4096
ASKED_MAX = 4096
_NAMES = ("ident", "vm", "vmid", "pool")
"""Parameters that name the resource or its parent: they are segments of the path."""


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


class TrueStatus:
    """Answers of wok-access.log, and the requests that they may belong to.

    `offer` adds answers in the order of the file. `asked` adds each request of the request log.
    `decide` closes the window of a request that `is_doubtful`.
    """

    def __init__(self, state: str = "") -> None:
        kept = json.loads(state) if state else {"answers": (), "asked": ()}
        self._answers: deque[Answer] = deque((Answer(*fields) for fields in kept["answers"]), ANSWERS_MAX)
        self._asked: deque[_Asked] = deque(
            (
                _Asked(time, address, method, app, tuple(names), is_true)
                for time, address, method, app, names, is_true in kept["asked"]
            ),
            ASKED_MAX,
        )

    @staticmethod
    def is_doubtful(record: Record) -> bool:
        """Return whether the status of a request must be looked up in wok-access.log, with
        `decide`.
        """
        if record.kind != "request" or record.status != LOGGED:
            return False
        return (record.method == "PUT" and not record.error_code) or record.code == LOGIN_CODE

    def offer(self, answers: Iterable[Answer]) -> None:
        """Add the next answers of the access log."""
        self._answers.extend(answers)

    def asked(self, record: Record) -> None:
        """Add a request of the request log. Only requests that were logged with 500 matter."""
        if record.status == LOGGED and (record.method == "PUT" or record.code == LOGIN_CODE):
            self._asked.append(_asked_of(record))

    def decide(self, record: Record) -> int:
        """Return the true status of a doubtful request. Call this when its window closes."""
        own = _asked_of(record)
        while self._answers and self._answers[0].time < own.time - 2 * ANSWER_NANOS:
            self._answers.popleft()
        while self._asked and self._asked[0].time < own.time - 2 * ANSWER_NANOS:
            self._asked.popleft()
        true = RENAMED if own.method == "PUT" else UNAUTHORIZED
        others = [
            asked
            for asked in self._asked
            if asked[1:5] == own[1:5] and abs(asked.time - own.time) <= ANSWER_NANOS
        ]
        if own in others:
            others.remove(own)
        answers = [
            answer for answer in self._answers if any(_fits(answer, asked) for asked in [own, *others])
        ]
        _take_what_is_clear(others, answers)
        found = [answer.status for answer in answers]
        # A 500 with one of Wok's errors is a true one and has its own answer.
        errors = sum(asked.is_true for asked in others)
        is_sure = found.count(LOGGED) <= errors and found.count(true) > len(others) - errors
        return true if is_sure and any(_fits(answer, own) for answer in answers) else LOGGED

    @property
    def state(self) -> str:
        """The state as JSON text."""
        return json.dumps({"answers": list(self._answers), "asked": list(self._asked)}, separators=(",", ":"))


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
    """Return whether an answer can belong to a request."""
    if not 0 <= answer.time - asked.time <= ANSWER_NANOS or answer.method != asked.method:
        return False
    if asked.is_true and answer.status != LOGGED:
        return False
    if not answer.client.startswith(asked.address + " - "):
        return False
    if asked.method != "PUT":
        return answer.path.endswith("/login")
    path = answer.path
    # Without a name, the resource cannot be identified.
    if not asked.names or (asked.app != "wok" and f"/plugins/{asked.app}/" not in path):
        return False
    return path.endswith("/" + asked.names[0]) and all(f"/{name}/" in path for name in asked.names[1:])

"""The status that a request was answered with, where Wok's log says 500 and the answer was another one.

Two kinds of requests are logged as 500 by mistake: a PUT that renames its resource (answered 303), and since Wok 2.4 a
failed login (401). Nothing else is asked of wok-access.log, and nothing else is believed: the answer is one of these
two, from the same address, in the same second or the next, to the same resource, and there is no other answer in
that time which it could be mistaken for.
"""

from __future__ import annotations

import json
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from exporter.records import NANOS
from exporter.wok.access_log import Answer

if TYPE_CHECKING:
    from collections.abc import Iterable

    from exporter.records import Record

LOGIN_CODE = "WOKROOT0001L"
RENAMED = 303
UNAUTHORIZED = 401
LOGGED = 500
ANSWER_NANOS = NANOS
"""An answer is logged in the second of its request's own line, or in the next."""
ANSWERS_MAX = 4096
ASKED_MAX = 4096
_NAMES = ("ident", "vm", "vmid", "pool")
"""Parameters that name the resource or one that it belongs to: they are segments of the path."""


class _Asked(NamedTuple):
    """A request that was logged with 500: `names` must stand in its path, the first of them at the end. `is_true`
    when Wok's error shows that the answer was a 500 indeed.
    """

    time: int
    address: str
    method: str
    app: str
    names: tuple[str, ...]
    is_true: bool


class TrueStatus:
    """Answers of wok-access.log, and the requests that may be theirs.

    `offer` takes answers in the order of the file, `asked` each request of the request log, `decide` closes the window
    of one that `is_doubtful`.
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
        """Tell whether wok-access.log is to be asked about a request, and `decide` about its status."""
        if record.kind != "request" or record.status != LOGGED:
            return False
        return (record.method == "PUT" and not record.error_code) or record.code == LOGIN_CODE

    def offer(self, answers: Iterable[Answer]) -> None:
        """Take what the access log says next."""
        self._answers.extend(answers)

    def asked(self, record: Record) -> None:
        """Take a request of the request log: only those with a logged 500 matter."""
        if record.status == LOGGED and (record.method == "PUT" or record.code == LOGIN_CODE):
            self._asked.append(_asked_of(record))

    def decide(self, record: Record) -> int:
        """Return the status that a doubtful request was answered with; to be asked when its window closes."""
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
        # A 500 with an error of Wok's is a true one, and has its own answer.
        errors = sum(asked.is_true for asked in others)
        is_sure = found.count(LOGGED) <= errors and found.count(true) > len(others) - errors
        return true if is_sure and any(_fits(answer, own) for answer in answers) else LOGGED

    @property
    def state(self) -> str:
        """What to go on from, as JSON text."""
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
    """Take away requests for which only one answer is left, and their answers."""
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
    """Tell whether an answer can be the one to a request."""
    if not 0 <= answer.time - asked.time <= ANSWER_NANOS or answer.method != asked.method:
        return False
    if asked.is_true and answer.status != LOGGED:
        return False
    if not answer.client.startswith(asked.address + " - "):
        return False
    if asked.method != "PUT":
        return answer.path.endswith("/login")
    path = answer.path
    # Without a name there is nothing to know the resource by.
    if not asked.names or (asked.app != "wok" and f"/plugins/{asked.app}/" not in path):
        return False
    return path.endswith("/" + asked.names[0]) and all(f"/{name}/" in path for name in asked.names[1:])

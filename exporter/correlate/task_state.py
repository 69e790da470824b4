"""What waits and what runs: the mutable values of the correlator's state.

A `PendingRequest` can still be claimed: by a start record, or by a final record where it has opened its own task.
A `Task` is one that runs. A `PendingEnd` is a final record whose settling window is open. How the store keeps
them follows from their fields (`stored.py`); the fields marked *not stored* are made again from the rest.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from exporter.correlate.certainty import Certainty
from exporter.correlate.failure_reason import FailureReason
from exporter.records import Grade, Record
from exporter.wok.operations import Form, Target

NOT_STORED = {"stored": False}


class Phase(enum.Enum):
    """Where a task is in its life."""

    # There is one object of each: that of Enum hashes a name, in Python.
    __hash__ = object.__hash__

    SEEKING = "seeking"
    """A start record whose window is open and that has no request yet."""
    JOINED = "joined"
    """A start record whose window is open and that has its request."""
    RUNNING = "running"
    """All is known but the end."""
    OVER = "over"
    """It has ended, or another task stands for it."""


class Step(enum.Enum):
    """What can happen to a task."""

    __hash__ = object.__hash__

    FIND_REQUEST = "its request is found"
    CLOSE_WINDOW = "the settling window of its start record closes"
    HAND_OVER = "a start record claims the request that has opened it"
    END = "it ends"


TRANSITIONS: dict[tuple[Phase, Step], Phase] = {
    (Phase.SEEKING, Step.FIND_REQUEST): Phase.JOINED,
    (Phase.SEEKING, Step.CLOSE_WINDOW): Phase.RUNNING,
    (Phase.JOINED, Step.CLOSE_WINDOW): Phase.RUNNING,
    (Phase.RUNNING, Step.FIND_REQUEST): Phase.RUNNING,
    (Phase.RUNNING, Step.HAND_OVER): Phase.OVER,
    (Phase.RUNNING, Step.END): Phase.OVER,
}
"""All that may happen in each phase; anything else is a bug, and raises KeyError."""


@dataclass(slots=True, eq=False)
class PendingRequest:
    """A request that a start record or a final record may still claim.

    `context` is its span's, `ordinal` its number. `values` are its parameters' where its forms name nothing: an
    error may quote one. `contested` when a task that it was not given could have been its own. `failed` when its
    status was 500, without an error: it may have started a task all the same. `task` is the one that it has opened
    by itself, if it has.
    """

    key: bytes
    seq: int
    app: str
    time: int
    context: bytes
    operation: str
    ordinal: int
    record_id: str
    forms: tuple[Form, ...]
    values: tuple[str, ...] = ()
    contested: bool = False
    failed: bool = False
    task: Task | None = field(default=None, metadata=NOT_STORED)
    waiting: bool = field(default=False, metadata=NOT_STORED)

    def form_of(self, text: str) -> Form:
        """Return the form of this text; one that names the request, where it was found by its id."""
        for form in self.forms:
            if form.text == text:
                return form
        return Form(text, named=True)


@dataclass(slots=True, eq=False)
class Task:
    """A task that runs.

    `by_start` when a start record opened it, else a request did. `asked` is the request while it may be claimed:
    by a final record, or by another start where it failed.
    `context` is its span's, `origin` its request's; `parent` is that of its request too, or of the task that started
    this one. `request` is the ordinal of its request,
    `since` the ordinal of the last request before the task. `counted` is False where the start of a task was
    counted with the request that opened it. `candidates` are the contexts of other requests it might belong to,
    `rivals` the keys of starts that sought the same request, `links` the contexts of the first requests after its
    start, once there are enough of them. `nested` when a nested task of the same target_uri has ended. `texts` are the forms by which a start seeks its
    request, `epoch` is the time in its target_uri. `record` is the
    start record until it has been told, `end` the final record that waits.
    """

    key: bytes
    seq: int
    app: str
    start: int
    since: int
    by_start: bool
    context: bytes = b""
    parent: bytes = b""
    origin: bytes = b""
    operation: str = ""
    target_uri: str = ""
    task_id: str = ""
    request_id: str = ""
    parent_task_id: str = ""
    request: int = 0
    phase: Phase = Phase.RUNNING
    certainty: Certainty = field(default_factory=Certainty)
    counted: bool = True
    nested: bool = False
    candidates: tuple[bytes, ...] = ()
    rivals: tuple[bytes, ...] = ()
    links: tuple[bytes, ...] = ()
    asked: PendingRequest | None = None
    texts: tuple[str, ...] = field(default=(), metadata=NOT_STORED)
    epoch: int = field(default=0, metadata=NOT_STORED)
    record: Record | None = field(default=None, metadata=NOT_STORED)
    end: PendingEnd | None = field(default=None, metadata=NOT_STORED)
    waiting: bool = field(default=False, metadata=NOT_STORED)

    @property
    def time(self) -> int:
        """When its settling window opened, if it has one."""
        return self.start

    @property
    def grade(self) -> Grade:
        """How sure it is that its request is its own."""
        if self.asked is not None and self.asked.contested and self.certainty.joined:
            return "ambiguous"
        return self.certainty.grade

    @property
    def is_being_decided(self) -> bool:
        """Whether its start or its end waits for the settling window to close."""
        return self.waiting or self.end is not None

    def take(self, step: Step) -> None:
        """Go on to the next phase; KeyError for a step that no task takes in this one."""
        self.phase = TRANSITIONS[self.phase, step]


@dataclass(slots=True, eq=False)
class PendingEnd:
    """A final record that waits: `time` is that of the first record, `until` the number of requests before it,
    `repeats` are further records of the same end. `second` is the place of the record with the error, where the
    operation reports a failure twice and another record was taken for the first report. `is_held` when it waits longer, for what would show that it was a nested task's.
    `reason` is why the task failed, where that is certain. `targets` are the forms of its target_uri, once they
    are needed. `task` is what it ends where a task id says so. `earlier` is a
    final record without an error that this one may repeat, with the error.
    """

    record: Record
    time: int
    seq: int
    until: int
    repeats: list[Record] = field(default_factory=list)
    second: int = 0
    is_held: bool = False
    earlier: PendingEnd | None = None
    reason: FailureReason | None = None
    targets: tuple[Target, ...] = field(default=(), metadata=NOT_STORED)
    task: Task | None = field(default=None, metadata=NOT_STORED)
    waiting: bool = field(default=False, metadata=NOT_STORED)

    def ends(self, task: Task) -> None:
        """Say that this is the end of `task`, until it has ended."""
        self.task = task
        task.end = self


Waiting = PendingRequest | Task | PendingEnd
"""What may stand in the settling window."""


def record_key(record: Record) -> bytes:
    """Return what tells the task of a record from all others: its place in the log."""
    return record.file + record.offset.to_bytes(8, "big")

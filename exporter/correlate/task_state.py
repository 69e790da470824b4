"""The mutable values of the correlator's state.

A `PendingRequest` can still be claimed: by a start record, or by a final record if the request
opened its own task. A `Task` is running. A `PendingEnd` is a final record whose settling window is
open. `stored.py` derives the stored form from the fields. Fields marked *not stored* are rebuilt
from the others. Where the class alone does not tell how to store a value, `stored_as` does.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from exporter.correlate.certainty import Certainty
from exporter.correlate.failure_reason import FailureReason
from exporter.correlate.request_windows import Window
from exporter.records import Grade, Record
from exporter.wok.operations import Form, Target

NOT_STORED = {"stored": False}


def stored_as(codec: str) -> dict[str, str]:
    """Return the metadata of a field that `stored.py` encodes with this codec.

    The type of the field would be enough, but a compiled class only has its outer part (`tuple`).
    """
    return {"stored_as": codec}


class Phase(enum.Enum):
    """The phase of a task."""

    # Each member is a single object. The hash of Enum is slower: it hashes the name in Python.
    __hash__ = object.__hash__

    SEEKING = "seeking"
    """A start record whose window is open and that has no request yet."""
    JOINED = "joined"
    """A start record whose window is open and that has its request."""
    RUNNING = "running"
    """Only the end is unknown."""
    OVER = "over"
    """The task has ended, or another task has replaced it."""


class Step(enum.Enum):
    """An event in the life of a task."""

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
"""All allowed steps of each phase. Any other step is a bug and raises KeyError."""


@dataclass(slots=True, eq=False)
class PendingRequest:
    """A request that a start record or a final record may still claim.

    context    Span context of the request.
    ordinal    Number of the request.
    values     Values of the parameters, if no form names the resource: an error may quote one of
               them.
    shared     Values of requests whose tasks were ended by choice, although the end may have been
               this one's: their own ends may still come.
    contested  A task that another request was given could have been this request's.
    neighbour  So could a task that started in an earlier second than this line has. It counts only
               against tasks that did so as well.
    failed     The status was 500 without an error: the request may still have started a task.
    task       The task that the request opened by itself, if any.
    """

    key: bytes
    seq: int
    app: str
    time: int
    context: bytes
    operation: str
    ordinal: int
    record_id: str
    forms: tuple[Form, ...] = field(metadata=stored_as("forms"))
    values: tuple[str, ...] = field(default=(), metadata=stored_as("texts"))
    shared: tuple[str, ...] = field(default=(), metadata=stored_as("texts"))
    contested: bool = False
    neighbour: bool = False
    failed: bool = False
    task: Task | None = field(default=None, metadata=NOT_STORED)
    waiting: bool = field(default=False, metadata=NOT_STORED)

    def form_of(self, text: str) -> Form:
        """Return the form with this text.

        A request that was found by its id gets a form that names it.
        """
        for form in self.forms:
            if form.text == text:
                return form
        return Form(text, named=True)


@dataclass(slots=True, eq=False)
class Task:
    """A running task.

    by_start    A start record opened the task; otherwise a request did.
    context     Span context of the task.
    origin      Span context of its request.
    parent      Span context of its request, or of the task that started it.
    request     Ordinal of its request.
    since       Ordinal of the last request before the task.
    counted     False if the start was counted with the request that opened the task.
    nested      A nested task with the same target_uri has ended.
    candidates  Span contexts of other requests that the task may belong to.
    rivals      Keys of the starts that sought the same request.
    links       Span contexts of the first requests after the start, as soon as there are enough of
                them.
    asked       The request, as long as a final record may claim it, or another start if it failed.
    texts       The forms by which a start seeks its request.
    epoch       The time in the target_uri.
    record      The start record, until its event has been sent.
    end         The final record that waits.
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
    candidates: tuple[bytes, ...] = field(default=(), metadata=stored_as("contexts"))
    rivals: tuple[bytes, ...] = field(default=(), metadata=stored_as("contexts"))
    links: tuple[bytes, ...] | Window = field(default=(), metadata=stored_as("contexts"))
    asked: PendingRequest | None = field(default=None, metadata=stored_as("request"))
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
        """How certain the match with its request is."""
        if self.asked is not None and self.asked.contested and self.certainty.joined:
            return "ambiguous"
        return self.certainty.grade

    @property
    def is_being_decided(self) -> bool:
        """Whether its start or its end is in an open settling window."""
        return self.waiting or self.end is not None

    def take(self, step: Step) -> None:
        """Go to the next phase. Raises KeyError for a step that this phase does not allow."""
        self.phase = TRANSITIONS[self.phase, step]


@dataclass(slots=True, eq=False)
class PendingEnd:
    """A final record whose settling window is open.

    time      Time of the first record.
    until     Number of requests before it.
    repeats   Further records of the same end.
    second    Position of the record with the error, if the operation reports a failure twice and
              another record was taken for the first report.
    is_held   It waits longer, for a record that shows that it ended a nested task, or for the line
              of its request.
    earlier   A final record without an error that this one may repeat with the error.
    reason    Why the task failed, if that is certain.
    targets   The forms of its target_uri, computed when they are first needed.
    task      The task that it ends, if a task id says so.
    """

    record: Record = field(metadata=stored_as("record"))
    time: int
    seq: int
    until: int
    repeats: list[Record] = field(default_factory=list, metadata=stored_as("records"))
    second: int = 0
    is_held: bool = False
    earlier: PendingEnd | None = field(default=None, metadata=stored_as("end"))
    reason: FailureReason | None = field(default=None, metadata=stored_as("reason"))
    targets: tuple[Target, ...] = field(default=(), metadata=NOT_STORED)
    task: Task | None = field(default=None, metadata=NOT_STORED)
    waiting: bool = field(default=False, metadata=NOT_STORED)

    def ends(self, task: Task) -> None:
        """Connect this end with `task` until the task has ended."""
        self.task = task
        task.end = self


@dataclass(slots=True, eq=False)
class DoubtfulRequest:
    """A request that waits for its true status. The fields are those of its `RequestSeen`."""

    record: Record = field(metadata=stored_as("record"))
    operation: str
    context: bytes
    start: int
    ordinal: int
    waiting: bool = field(default=False, metadata=NOT_STORED)

    @property
    def time(self) -> int:
        """When the request was logged."""
        return self.record.time


Waiting = PendingRequest | Task | PendingEnd
"""The items that can be in the settling windows of correlation."""


def record_key(record: Record) -> bytes:
    """Return the unique key of a record's task: the position of the record in the log."""
    return record.file + record.offset.to_bytes(8, "big")

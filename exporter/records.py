"""The values that pass between the parts of the program: small, immutable, compared whole in tests.

They follow the data. The tail reads a `Line`. The parser turns it into a `Record`, a `Continuation`
or a `Rejected`. The correlator turns records into events (`RequestSeen`, `TaskStarted`,
`TaskEnded`, `TaskRepeated`). Telemetry encodes events as bytes and rows. A `Commit` carries all
changes of one batch of lines into the store.

All times are integer nanoseconds since the epoch, UTC, as in OTLP. A *context* is 24 bytes: the
trace id (16) and the span id (8) of the span of a request or a task.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, Protocol, get_args

NANOS = 1_000_000_000

Kind = Literal["request", "started", "finished"]
Dialect = Literal["text", "coded", "rfc", "json"]
Outcome = Literal["success", "failure", "lost", "unknown"]
Grade = Literal["exact", "likely", "ambiguous", "none"]
Signal = Literal["traces", "logs"]
RejectReason = Literal["json", "shape", "time", "too_long", "unsafe", "encoding", "nul", "torn"]
"""Why a line is not a record: invalid JSON; not the shape of a record; no valid timestamp; longer
than the limit; too costly to decode; invalid UTF-8; a hole of NUL bytes; a torn record."""

SIGNALS: tuple[Signal, ...] = ("traces", "logs")
OUTCOMES: tuple[Outcome, ...] = ("success", "failure", "lost", "unknown")
REJECT_REASONS: tuple[RejectReason, ...] = get_args(RejectReason)


class Line(NamedTuple):
    r"""One physical line of a log, without its newline.

    `file` is the identity of the file: the first 16 bytes of the SHA-256 of its first line.
    `offset` is the byte offset of the line in the (decompressed) file. `length` is the true length
    of the line in bytes. If it is larger than `len(data)`, the line was too long and only its
    beginning was kept. Then `newlines` is the number of escaped newlines (`\n`) in the whole line.
    `ended` is False for a last line without a newline, in a file that is no longer written to.
    """

    file: bytes
    offset: int
    data: bytes
    length: int
    ended: bool = True
    newlines: int = 0


class TailEvent(NamedTuple):
    """Something that happened to a log file: a rotation, a truncation, a gap."""

    kind: Literal["rename", "compressed", "copytruncate", "replaced", "gap", "unreadable"]
    detail: str


class Chunk(NamedTuple):
    """The result of one read of a source: lines, the position after them, and events of the file.

    `position` is opaque JSON text. The store keeps it and passes it to the source at the next
    start. `caught_up` is True if the source had no further complete line at that moment. `behind`
    is the number of bytes known to be unread. `is_readable` is False if a file exists, but cannot
    be read now: then nothing is known about its lines.
    """

    lines: Sequence[Line]
    position: str
    events: Sequence[TailEvent] = ()
    caught_up: bool = False
    behind: int = 0
    is_readable: bool = True


class Source(Protocol):
    """Where lines come from: a growing log (`tail.Tail`) or finished files (`archive.Archive`)."""

    def read(self, limit: int) -> Chunk:
        """Return at most about `limit` bytes of complete lines; never block."""

    def close(self) -> None:
        """Close the open file, if any."""


class Record(NamedTuple):
    """One record of the log, of any dialect, with secrets already redacted.

    `time` is in nanoseconds (the log has whole seconds). `app` is normalised (`kimchi`, `wok`).
    `method` is POST, PUT, DELETE or TASK. `status` is None if the dialect has none. `code` is Wok's
    message code. `text` is the first line of the English sentence, if the dialect has one. Both may
    be empty. `trace_id` is the uuid of the record, or derived from (instance, file, offset, line)
    if it has none. `record_id` is the uuid as text, or empty.

    In TASK records, `target_uri` and `task_id` are set if known. `request_id` (the record of the
    task's request) and `parent_task_id` (the task that started this one) are set if an extended Wok
    wrote them. `failed` distinguishes failures from successes.

    `logged_status` is set if wok-access.log has shown that Wok answered with another `status` than
    it logged.
    """

    kind: Kind
    dialect: Dialect
    time: int
    app: str
    method: str
    status: int | None
    user: str
    address: str
    code: str
    params: Mapping[str, Any]
    error_code: str
    error_params: Mapping[str, Any]
    text: str
    trace_id: bytes
    record_id: str
    file: bytes
    offset: int
    target_uri: str = ""
    task_id: str = ""
    request_id: str = ""
    failed: bool = False
    parent_task_id: str = ""
    logged_status: int | None = None


class Continuation(NamedTuple):
    """A further physical line of a multi-line record; `forged` if it imitates a record."""

    forged: bool
    offset: int


class Rejected(NamedTuple):
    """A line, or a part of one, that is not a record; `excerpt` is redacted and safe for a
    terminal.
    """

    reason: RejectReason
    file: bytes
    offset: int
    excerpt: str


Parsed = Record | Continuation | Rejected


class RequestSeen(NamedTuple):
    """A request record, which becomes a span.

    `start` is earlier than `record.time` only if the start record of its task comes first in the
    log. `ordinal` numbers the requests of this state from 1 (see `requests_between`).
    """

    record: Record
    operation: str
    context: bytes
    start: int
    ordinal: int
    opens_task: bool


class TaskStarted(NamedTuple):
    """A start record (status 1000), once it has its request or its settling window closed without
    one.

    `counts` is False if the request's 202 already opened and counted this task.
    """

    record: Record
    operation: str
    context: bytes
    parent: bytes
    correlation: Grade
    start: int
    counts: bool = True


class TaskEnded(NamedTuple):
    """A task that ended: by a final record, a restart of wokd, or expiry.

    * `parent` is the context of its request, or of the task that started it; empty if there is
      none.
    * `candidates` are the contexts of the other requests that it might belong to.
    * `links` are the contexts of the first 32 other requests between its start and its end, and
      `concurrent` is the number of all of these requests.
    * `record` is the final record, None for the outcomes `lost` and `unknown`.
    * `reported` is the time of its log record: `end`, or start + expiry.
    * `counts_start` is True for a final record without a task or request: its start is counted
      here, and it has no duration.
    * `request` is the ordinal of its request, 0 if there is none. `since` and `until` are the
      ordinals of the last request before its start and before its final record.
    * `found_id` is Wok's id of the task if only wok-error.log has it. `exception` (the class as
      Python prints it), `exception_text` and `stack` are why it failed, redacted. All four are
      empty if that is not certain.
    """

    context: bytes
    parent: bytes
    app: str
    operation: str
    target_uri: str
    task_id: str
    start: int
    end: int
    reported: int
    outcome: Outcome
    correlation: Grade
    record: Record | None
    concurrent: int
    links: Sequence[bytes]
    candidates: Sequence[bytes]
    counts_start: bool
    request: int
    since: int = 0
    until: int = 0
    found_id: str = ""
    exception: str = ""
    exception_text: str = ""
    stack: str = ""


class TaskRepeated(NamedTuple):
    """Another final record of a task that already ended; `context` is the context of that task."""

    record: Record
    operation: str
    context: bytes
    parent: bytes


Event = RequestSeen | TaskStarted | TaskEnded | TaskRepeated


class LastReload(NamedTuple):
    """Whether the last start or reload of the configuration succeeded; `success` is the time of the
    last one that did, in seconds since the epoch.
    """

    is_successful: bool
    success: float


class OpenTask(NamedTuple):
    """A running task in the store: columns for people and queries, `data` for the correlator."""

    key: bytes
    context: bytes
    app: str
    operation: str
    target_uri: str
    task_id: str
    start: int
    request: int
    data: str
    since: int = 0


class RequestRow(NamedTuple):
    """A request in the history, for `tasks` and the page.

    `message` is the rendered sentence, `resource` what it works on in words, empty if unknown.
    """

    ordinal: int
    time: int
    context: bytes
    app: str
    method: str
    operation: str
    status: int | None
    user: str
    address: str
    record_id: str
    message: str
    resource: str = ""


class TaskRow(NamedTuple):
    """An ended task in the history.

    `since` and `until` are the ordinals of the last request before its start and before its final
    record. So the requests between them have `since < ordinal <= until`. `found_id`, `exception`
    and `stack` come from wok-error.log. `resource` is what its target_uri says in words.
    """

    context: bytes
    parent: bytes
    app: str
    operation: str
    target_uri: str
    task_id: str
    start: int
    end: int
    outcome: Outcome
    correlation: Grade
    request: int
    concurrent: int
    error_code: str
    message: str
    since: int = 0
    until: int = 0
    candidates: bytes = b""
    found_id: str = ""
    exception: str = ""
    stack: str = ""
    resource: str = ""


def requests_between(since: int, until: int) -> int:
    """Return how many requests have `since < ordinal <= until`.

    The first request that the daemon read has the ordinal 1. Older ones that `backfill` added later
    count down from -1. So no request has the ordinal 0, which means "none" elsewhere.
    """
    return until - since - (since < 0 <= until)


class JournalRow(NamedTuple):
    """Encoded items of one signal and one resource, in order.

    `payload` is the part of OTLP's ScopeSpans (or ScopeLogs) after the scope: `items`
    length-delimited fields with number 2, one after the other. `resource` is an encoded Resource
    message. `first` and `last` are times in nanoseconds.
    """

    signal: Signal
    resource: bytes
    items: int
    payload: bytes
    first: int
    last: int


class Histogram(NamedTuple):
    """Increments of one series of a histogram.

    `buckets` are plain (not cumulative) counts, one for each bound and one for +Inf. `exemplars`
    are (bucket index, seconds, trace id in hex, time in seconds).
    """

    buckets: Sequence[int]
    sum: float
    exemplars: Sequence[tuple[int, float, str, float]]


Series = tuple[str, ...]
"""A metric's name followed by its label values, in the order of its definition."""


class Commit(NamedTuple):
    """All changes of one batch of lines; the store writes them in one transaction.

    `positions` maps the role of a source (`log`, `restarts`) to its opaque position. `state` is the
    small state of the parser and the correlator, as JSON text. `counters` are increments and
    `gauges` are the last values, both by series.
    """

    positions: Mapping[str, str]
    state: str
    opened: Sequence[OpenTask]
    closed: Sequence[bytes]
    counters: Mapping[Series, float]
    gauges: Mapping[Series, float]
    histograms: Mapping[Series, Histogram]
    journal: Iterable[JournalRow]
    requests: Sequence[RequestRow]
    tasks: Sequence[TaskRow]


class DeliveryStatus(NamedTuple):
    """The state of the delivery of one signal. Times are in seconds since the epoch.

    `held` is True if delivery cannot continue until somebody fixes the cause. `message` and
    `rejection` (why the backend last rejected an item permanently) are texts of the backend,
    bounded and printable.
    """

    endpoint: str
    last_success: float | None = None
    failing_since: float | None = None
    reason: str = ""
    message: str = ""
    held: bool = False
    remedy: str = ""
    rejection: str = ""

    def failed(self, now: float, reason: str, message: str, remedy: str, *, held: bool) -> DeliveryStatus:
        """Return the status after a failure."""
        since = now if self.failing_since is None else self.failing_since
        return self._replace(failing_since=since, reason=reason, message=message, held=held, remedy=remedy)

    def recovered(self, last_success: float | None = None) -> DeliveryStatus:
        """Return the status without a failure; if `last_success` is None, its value stays."""
        return DeliveryStatus(
            self.endpoint,
            self.last_success if last_success is None else last_success,
            rejection=self.rejection,
        )


class Problem(NamedTuple):
    """A problem of the running exporter and its remedy (may be empty), a sentence each."""

    what: str
    remedy: str

    @property
    def sentence(self) -> str:
        """Both in one sentence."""
        return f"{self.what}: {self.remedy}" if self.remedy else self.what


class Live(NamedTuple):
    """The state of the running exporter that is not in its store.

    `deliveries` are by signal, `problems` are sorted with the worst first.
    """

    behind_bytes: int
    deliveries: Mapping[Signal, DeliveryStatus]
    problems: Sequence[Problem]

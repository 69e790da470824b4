"""Selects and encodes the attributes of spans and log records.

A span and its log record have the same attributes in the same order. Attributes are of two kinds.

*Shared* attributes repeat from event to event (method, user, operation, outcome, ...). They are
encoded once and kept in a bounded cache. The attributes are made from the cache key alone
(`RequestFacts`, `TaskFacts`). A value that is not in the key cannot become an attribute, so an
event never gets the attributes of another one.

*Own* attributes (ids, offsets, names of resources) differ from event to event and are encoded each
time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from operator import attrgetter
from typing import Final, NamedTuple

from exporter import otlp_encoding
from exporter.records import Event, Record, RequestSeen, TaskEnded, TaskRepeated, TaskStarted
from exporter.wok.operations import Operations
from exporter.wok.sentences import People

_ATTRIBUTE_BYTES_MAX: Final = 4096
_ATTRIBUTE_CHARS_SURE: Final = _ATTRIBUTE_BYTES_MAX // 4  # this many characters always fit
_SHARED_MAX: Final = 2048  # users times operations of a busy host; some megabytes at most

_METHODS: Final = frozenset({"POST", "PUT", "DELETE"})  # all that Wok logs; TASK is no request
_STATUS_STARTED: Final = 1000
_STATUS_COMPLETED: Final = 1001
_STATUS_FAILED: Final = 1002

_RECORD_ID: Final = otlp_encoding.key("wok.record.id")
_OFFSET: Final = otlp_encoding.key("wok.log.offset")
_FILE_NAME: Final = otlp_encoding.key("log.file.name")
_LOGGED_STATUS: Final = otlp_encoding.key("wok.logged_status_code")
_TASK_ID: Final = otlp_encoding.key("wok.task.id")
_TARGET_URI: Final = otlp_encoding.key("wok.task.target_uri")
_RESOURCE: Final = otlp_encoding.key("wok.resource")
_CONCURRENT_REQUESTS: Final = otlp_encoding.key("wok.task.concurrent_requests")


class RequestFacts(NamedTuple):
    """All values from which the shared attributes of a request are made."""

    app: str
    method: str
    status: int | None
    user: str
    address: str
    code: str
    error_code: str
    operation: str


class TaskFacts(NamedTuple):
    """All values from which the shared attributes of a task's start, end or repeat are made.

    `status` is 1000, 1001 or 1002, or 0 if no record reports the event.
    """

    app: str
    operation: str
    outcome: str
    correlation: str
    status: int
    code: str
    error_code: str


class Shared(NamedTuple):
    """The span's name, and the shared attributes encoded for a span and for a log record."""

    name: str
    of_span: bytes
    of_log: bytes


class EventAttributes(NamedTuple):
    """The attributes of one event: `own` are pieces (see `otlp_encoding`)."""

    shared: Shared
    own: list[bytes]


_facts_of_record = attrgetter("app", "method", "status", "user", "address", "code", "error_code")


class Attributes:
    """Makes the attributes of events. `log_file_name` is the base name of the log,
    `file_names` has those of other files by their identity. `operations` has the words for
    resources.
    """

    def __init__(
        self,
        people: People,
        operations: Operations,
        log_file_name: str,
        file_names: Mapping[bytes, str] | None = None,
    ) -> None:
        self._people = people
        self._operations = operations
        self._log_file_name = text_piece(_FILE_NAME, log_file_name)
        self._file_names = {file: text_piece(_FILE_NAME, name) for file, name in (file_names or {}).items()}
        self._shared: dict[tuple[object, ...], Shared] = {}
        # The span, the log record and the history row of an event are made one after the other.
        self._latest: tuple[Event, EventAttributes] | None = None
        self._worded: tuple[Event, str] | None = None

    def of(self, event: Event) -> EventAttributes:
        """Return the attributes of an event."""
        latest = self._latest
        if latest is not None and latest[0] is event:
            return latest[1]
        if isinstance(event, RequestSeen):
            shared = self._of_request((*_facts_of_record(event.record), event.operation))
            own: list[bytes] = []
            logged_status = event.record.logged_status
            if logged_status is not None and 100 <= logged_status <= 599:
                own.append(otlp_encoding.count_piece(_LOGGED_STATUS, logged_status))
        else:
            shared = self._of_task(_task_facts(event))
            own = _own_of_task(event)
        resource = self.resource_of(event)
        if resource:
            own.append(text_piece(_RESOURCE, resource))
        record = event.record
        if record is not None:
            if record.record_id:
                own.append(text_piece(_RECORD_ID, record.record_id))
            own += (
                self._file_names.get(record.file, self._log_file_name),
                otlp_encoding.count_piece(_OFFSET, record.offset),
            )
        found = EventAttributes(shared, own)
        self._latest = (event, found)
        return found

    def resource_of(self, event: Event) -> str:
        """Return what a request or a task works on, in words; empty if that is not known."""
        latest = self._worded
        if latest is not None and latest[0] is event:
            return latest[1]
        if isinstance(event, RequestSeen):
            record = event.record
            resource = self._operations.resource(record.app, event.operation, record.params)
        else:
            task = event if isinstance(event, TaskEnded) else event.record
            resource = self._operations.resource_of_task(task.app, task.target_uri) if task.target_uri else ""
        self._worded = (event, resource)
        return resource

    def _of_request(self, facts: tuple[object, ...]) -> Shared:
        return self._shared.get(facts) or self._keep(
            facts, lambda: _request_attributes(RequestFacts._make(facts), self._people)
        )

    def _of_task(self, facts: TaskFacts) -> Shared:
        return self._shared.get(facts) or self._keep(facts, lambda: _task_attributes(facts))

    def _keep(self, facts: tuple[object, ...], make: Callable[[], Shared]) -> Shared:
        # A full cache is cleared: this is cheap, and bounds the memory that a hostile log can use.
        if len(self._shared) >= _SHARED_MAX:
            self._shared.clear()
        shared = self._shared[facts] = make()
        return shared


def app_of(event: Event) -> str:
    """Return the application whose resource the event belongs to."""
    return event.app if isinstance(event, TaskEnded) else event.record.app


def text_piece(encoded_key: bytes, text: str) -> bytes:
    """Return a text attribute as a piece, cut to 4,096 bytes."""
    if len(text) > _ATTRIBUTE_CHARS_SURE:
        text = otlp_encoding.clip(text, _ATTRIBUTE_BYTES_MAX)
    return otlp_encoding.text_piece(encoded_key, text)


def _request_attributes(facts: RequestFacts, people: People) -> Shared:
    status = facts.status or 0
    # The semantic conventions require `HTTP` and `_OTHER` for an unknown method.
    known = facts.method in _METHODS
    name = f"{facts.method if known else 'HTTP'} {facts.app} {facts.operation}".rstrip()
    return _encoded(
        name,
        {
            "http.request.method": facts.method if known else "_OTHER",
            "http.response.status_code": status if 100 <= status <= 599 else "",
            "client.address": people.address(facts.address),
            people.user_key: people.user(facts.user),
            "error.type": (facts.error_code or str(status)) if 400 <= status <= 599 else "",
            "wok.app": facts.app,
            "wok.operation": facts.operation,
            "wok.message.code": facts.code,
            "wok.error.code": facts.error_code,
        },
    )


def _task_facts(event: TaskStarted | TaskEnded | TaskRepeated) -> TaskFacts:
    record = event.record
    status, code, error_code = 0, "", ""
    if record is not None:
        code, error_code = record.code, record.error_code
        status = _task_status(record)
    return TaskFacts(
        app_of(event),
        event.operation,
        event.outcome if isinstance(event, TaskEnded) else "",
        "" if isinstance(event, TaskRepeated) else event.correlation,
        status,
        code,
        error_code,
    )


def _task_status(record: Record) -> int:
    if record.kind == "started":
        return _STATUS_STARTED
    return _STATUS_FAILED if record.failed else _STATUS_COMPLETED


def _task_attributes(facts: TaskFacts) -> Shared:
    error_type = "lost" if facts.outcome == "lost" else ""
    if facts.status == _STATUS_FAILED:
        error_type = facts.error_code or str(facts.status)
    return _encoded(
        f"task {facts.operation}".rstrip(),
        {
            "wok.app": facts.app,
            "wok.operation": facts.operation,
            "wok.task.status_code": facts.status or "",
            "wok.task.outcome": facts.outcome,
            "wok.task.correlation": facts.correlation,
            "error.type": error_type,
            "wok.error.code": facts.error_code,
            "wok.message.code": facts.code,
        },
    )


def _own_of_task(event: TaskStarted | TaskEnded | TaskRepeated) -> list[bytes]:
    task = event if isinstance(event, TaskEnded) else event.record
    own = []
    task_id = task.task_id or (event.found_id if isinstance(event, TaskEnded) else "")
    if task_id:
        own.append(text_piece(_TASK_ID, task_id))
    if task.target_uri:
        own.append(text_piece(_TARGET_URI, task.target_uri))
    if isinstance(event, TaskEnded):
        own.append(otlp_encoding.count_piece(_CONCURRENT_REQUESTS, event.concurrent))
    return own


def _encoded(name: str, attributes: Mapping[str, str | int]) -> Shared:
    # Every event has a method, a status or an outcome, so there is always at least one piece.
    pieces = [
        text_piece(otlp_encoding.key(key), value)
        if isinstance(value, str)
        else otlp_encoding.attribute(key, value)
        for key, value in attributes.items()
        if value != ""
    ]
    return Shared(name, otlp_encoding.SPAN_ATTRIBUTE.join(pieces), otlp_encoding.LOG_ATTRIBUTE.join(pieces))

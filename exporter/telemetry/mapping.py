"""What spans, log records and history rows say: events in, bytes and rows out.

Pure, and the same bytes for the same log: every id and time comes from the log, attributes stand in a fixed
order, and nothing here knows the time of reading, the process or a version of this program. MAPPING_VERSION
is the version of what this module says: it rises when, for the same log, it would say anything else.

A request becomes a span of kind SERVER, an ended task a span of kind INTERNAL under it, and every event a log
record in the context of the span it belongs to; `log` also serves the events that make no span of their own.
The attributes of a span and of its log record are the same, so that they are encoded once; those that repeat
from event to event (all but ids, offsets and names of resources) are kept in a bounded table. So are links: a
request is linked to by as many tasks as were running at its time.
"""

from __future__ import annotations

from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from exporter import otlp_encoding
from exporter.ids import event_uid, record_uid
from exporter.records import (
    Event,
    Record,
    RequestRow,
    RequestSeen,
    TaskEnded,
    TaskRepeated,
    TaskRow,
    TaskStarted,
)
from exporter.wok.sentences import MessageTables, People, Privacy, Sentences

if TYPE_CHECKING:
    from collections.abc import Mapping

SCOPE_NAME: Final = "wok-exporter"
MAPPING_VERSION: Final = "1"
SCHEMA_URL: Final = "https://opentelemetry.io/schemas/1.44.0"
SCOPE: Final = otlp_encoding.scope(SCOPE_NAME, MAPPING_VERSION)

_ATTRIBUTE_BYTES_MAX: Final = 4096
_ATTRIBUTE_CHARS_SURE: Final = _ATTRIBUTE_BYTES_MAX // 4  # as many characters always fit
_BODY_BYTES_MAX: Final = 4096
_DESCRIPTION_BYTES_MAX: Final = 1024  # the backends show it in one line
_CACHE_ENTRIES_MAX: Final = 2048  # users times operations of a busy host, some megabytes at the very most
_LINKS_MAX: Final = 8192  # the requests during a long task, two megabytes at most
_CANDIDATE_LINKS_MAX: Final = 32  # as many as of the concurrent requests

_METHODS: Final = frozenset({"POST", "PUT", "DELETE"})  # all that Wok logs; TASK is no request
_request_key = attrgetter("app", "method", "status", "user", "address", "code", "error_code")
_STATUS_STARTED: Final = 1000
_STATUS_COMPLETED: Final = 1001
_STATUS_FAILED: Final = 1002

# Keys of the attributes that differ from event to event.
_RECORD_ID: Final = otlp_encoding.key("wok.record.id")
_OFFSET: Final = otlp_encoding.key("wok.log.offset")
_UID: Final = otlp_encoding.key("log.record.uid")
_TASK_ID: Final = otlp_encoding.key("wok.task.id")
_TARGET_URI: Final = otlp_encoding.key("wok.task.target_uri")
_CONCURRENT_REQUESTS: Final = otlp_encoding.key("wok.task.concurrent_requests")
_EXCEPTION_TYPE: Final = otlp_encoding.key("exception.type")
_EXCEPTION_MESSAGE: Final = otlp_encoding.key("exception.message")
_CONCURRENT: Final = otlp_encoding.link_end([otlp_encoding.attribute("wok.link", "concurrent")])
_CANDIDATE: Final = otlp_encoding.link_end([otlp_encoding.attribute("wok.link", "candidate")])

_NO_REASON: Final = "failed without a reason in the log"
# Jaeger takes an end that is not after its start for a negative duration: it warns on the span and, because it changes it, no longer
# knows a repeat as one. It takes a child that is no longer than its parent, and begins after it, for a skewed clock.
_REQUEST_NANOS_MIN: Final = 1
_TASK_NANOS_MIN: Final = 2

_LOST: Final = "lost: wokd was restarted before the task ended"
_EXPIRED: Final = "unknown: the log never told the end of the task"

_SEVERITY_TEXTS: Final = {
    otlp_encoding.SEVERITY_INFO: "INFO",
    otlp_encoding.SEVERITY_WARN: "WARN",
    otlp_encoding.SEVERITY_ERROR: "ERROR",
}


class Identity(NamedTuple):
    """Whose log it is: what the resource of everything sent says.

    `instance` identifies the Wok of one host over restarts and is part of every derived id. `attributes` are
    those of OTEL_RESOURCE_ATTRIBUTES, `service_name` is OTEL_SERVICE_NAME or empty.
    """

    instance: str
    host_name: str
    host_id: str
    attributes: Mapping[str, str]
    service_name: str = ""


class _Shared(NamedTuple):
    """What many events say alike: the span's name, and attributes as one piece for spans and one for logs."""

    name: str
    of_span: bytes
    of_log: bytes


class _Links(dict[bytes, bytes]):
    """Encoded links to spans by context, made when they are first asked for."""

    def __init__(self, end: bytes) -> None:
        super().__init__()
        self._end = end

    def __missing__(self, context: bytes) -> bytes:
        if len(self) >= _LINKS_MAX:
            self.clear()
        link = self[context] = otlp_encoding.link(context[:16], context[16:], self._end)
        return link


class Telemetry:
    """Turns events into encoded spans, log records and history rows (the contract's "three outputs").

    `log_file_name` is the base name of the log as configured, `messages` the tables of the host's Wok.
    No method raises for anything that a log can hold.
    """

    def __init__(
        self, identity: Identity, *, log_file_name: str, privacy: Privacy, messages: MessageTables
    ) -> None:
        self._identity = identity
        self._people = People(identity.instance, privacy)
        self._sentences = Sentences(messages, self._people)
        self._log_file_name = _text(otlp_encoding.key("log.file.name"), log_file_name)
        self._resources: dict[str, bytes] = {}
        self._shared: dict[tuple[object, ...], _Shared] = {}
        self._concurrent = _Links(_CONCURRENT)
        self._candidates = _Links(_CANDIDATE)
        # A span, its log record and its row are asked for one after the other.
        self._latest: tuple[Event, _Shared, list[bytes]] | None = None

    def resource(self, app: str) -> bytes:
        """Return the encoded Resource of an application.

        It describes the host's Wok and its plug-in, not this program. Attributes of the user win, except that
        an empty one does not remove one of ours; OTEL_SERVICE_NAME wins over all (OpenTelemetry
        specification, Resource SDK).
        """
        found = self._resources.get(app)
        if found is None:
            identity = self._identity
            attributes = {
                "service.namespace": "wok",
                "service.name": app,
                "service.instance.id": identity.instance,
                "host.name": identity.host_name,
                "host.id": identity.host_id,
            }
            attributes.update((key, value) for key, value in sorted(identity.attributes.items()) if value)
            if identity.service_name:
                attributes["service.name"] = identity.service_name
            found = otlp_encoding.resource(
                _text(otlp_encoding.key(key), value) for key, value in attributes.items() if value
            )
            _keep(self._resources, app, found)
        return found

    def service(self, event: Event) -> str:
        """Return the application whose resource the event belongs to."""
        return event.app if isinstance(event, TaskEnded) else event.record.app

    def span(self, event: RequestSeen | TaskEnded) -> bytes:
        """Return the span as one `spans` field of ScopeSpans: tag, length, Span."""
        if isinstance(event, RequestSeen):
            return self._request_span(event)
        return self._task_span(event)

    def log(self, event: Event) -> bytes:
        """Return the log record as one `log_records` field of ScopeLogs: tag, length, LogRecord.

        A failure carries `exception.type` (Wok's error code) and `exception.message`.
        """
        shared, pieces = self._attributes(event)
        context = event.context
        record = event.record
        time = event.reported if isinstance(event, TaskEnded) else event.record.time
        if record is None:
            assert isinstance(event, TaskEnded)
            event_name = "wok.task.lost" if event.outcome == "lost" else "wok.task.expired"
            severity = otlp_encoding.SEVERITY_WARN
            body = _unreported(event)
            own = [_text(_UID, event_uid(context, event_name))]
        else:
            event_name, severity = _event_name_and_severity(event, record)
            body = self._sentences.of(record).message
            uid = record.record_id or record_uid(record.trace_id, record.file, record.offset)
            own = [_text(_UID, uid)]
            if severity != otlp_encoding.SEVERITY_INFO:
                if record.error_code:
                    own.append(_text(_EXCEPTION_TYPE, record.error_code))
                if error := self.error_text(record):
                    own.append(_text(_EXCEPTION_MESSAGE, error))
        message = otlp_encoding.log_record(
            context[:16],
            context[16:],
            time,
            severity=severity,
            severity_text=_SEVERITY_TEXTS[severity],
            body=otlp_encoding.clip(body, _BODY_BYTES_MAX),
            event_name=event_name,
            attributes=(shared.of_log, *pieces, *own),
        )
        return b"\x12" + otlp_encoding.sized(message)

    def message(self, record: Record) -> str:
        """Return the English sentence of a record, and for a failure the reason too (see `sentences`)."""
        return self._sentences.of(record).message

    def error_text(self, record: Record) -> str:
        """Return why a request or task failed, without the code; empty when the log has no reason."""
        return self._sentences.of(record).error

    def request_row(self, event: RequestSeen) -> RequestRow:
        """Return the request as the history keeps it; the privacy setting holds here too."""
        record = event.record
        return RequestRow(
            event.ordinal,
            record.time,
            event.context,
            record.app,
            record.method,
            event.operation,
            record.status,
            self._people.user(record.user),
            self._people.address(record.address),
            record.record_id,
            self._sentences.of(record).message,
        )

    def task_row(self, event: TaskEnded) -> TaskRow:
        """Return the ended task as the history keeps it; `message` is the error or the outcome in words."""
        record = event.record
        return TaskRow(
            event.context,
            event.parent,
            event.app,
            event.operation,
            event.target_uri,
            event.task_id,
            event.start,
            event.end,
            event.outcome,
            event.correlation,
            event.request,
            event.concurrent,
            record.error_code if record else "",
            self._description(event) or ("succeeded" if event.outcome == "success" else _EXPIRED),
            event.since,
            event.until,
        )

    def _request_span(self, event: RequestSeen) -> bytes:
        record = event.record
        context = event.context
        shared, pieces = self._attributes(event)
        failed = record.status is not None and record.status // 100 == 5
        message = otlp_encoding.span(
            context[:16],
            context[16:],
            b"",
            shared.name,
            otlp_encoding.KIND_SERVER,
            start=event.start,
            end=max(record.time, event.start + _REQUEST_NANOS_MIN),
            attributes=(shared.of_span, *pieces),
            status=otlp_encoding.STATUS_ERROR if failed else otlp_encoding.STATUS_UNSET,
        )
        return b"\x12" + otlp_encoding.sized(message)

    def _task_span(self, event: TaskEnded) -> bytes:
        context = event.context
        shared, pieces = self._attributes(event)
        links = [*map(self._concurrent.__getitem__, event.links)]
        if event.correlation == "ambiguous":
            links += map(self._candidates.__getitem__, event.candidates[:_CANDIDATE_LINKS_MAX])
        description = self._description(event)
        message = otlp_encoding.span(
            context[:16],
            context[16:],
            event.parent[16:],
            shared.name,
            otlp_encoding.KIND_INTERNAL,
            start=event.start,
            end=max(event.end, event.start + _TASK_NANOS_MIN),
            attributes=(shared.of_span, *pieces),
            links=links,
            status=otlp_encoding.STATUS_ERROR if description else otlp_encoding.STATUS_UNSET,
            description=otlp_encoding.clip(description, _DESCRIPTION_BYTES_MAX),
        )
        return b"\x12" + otlp_encoding.sized(message)

    def _description(self, event: TaskEnded) -> str:
        if event.outcome == "failure":
            return (event.record and self.error_text(event.record)) or _NO_REASON
        return _LOST if event.outcome == "lost" else ""

    # Attributes

    def _attributes(self, event: Event) -> tuple[_Shared, list[bytes]]:
        """Return what the event shares with others, and the pieces of its own that follow."""
        latest = self._latest
        if latest is not None and latest[0] is event:
            return latest[1], latest[2]
        pieces: list[bytes] = []
        if isinstance(event, RequestSeen):
            shared = self._request_shared(event)
        else:
            shared = self._task_shared(event)
            task_id, target_uri = (
                (event.task_id, event.target_uri)
                if isinstance(event, TaskEnded)
                else (event.record.task_id, event.record.target_uri)
            )
            if task_id:
                pieces.append(_text(_TASK_ID, task_id))
            if target_uri:
                pieces.append(_text(_TARGET_URI, target_uri))
            if isinstance(event, TaskEnded):
                pieces.append(otlp_encoding.count_piece(_CONCURRENT_REQUESTS, event.concurrent))
        record = event.record
        if record is not None:
            if record.record_id:
                pieces.append(_text(_RECORD_ID, record.record_id))
            pieces += (self._log_file_name, otlp_encoding.count_piece(_OFFSET, record.offset))
        self._latest = (event, shared, pieces)
        return shared, pieces

    def _request_shared(self, event: RequestSeen) -> _Shared:
        record = event.record
        key = (event.operation, _request_key(record))
        found = self._shared.get(key)
        if found is None:
            status = record.status or 0
            # The semantic conventions' words for a method that is not a known one.
            known = record.method in _METHODS
            name = f"{record.method if known else 'HTTP'} {record.app} {event.operation}".rstrip()
            attributes = {
                "http.request.method": record.method if known else "_OTHER",
                "http.response.status_code": status if 100 <= status <= 599 else "",
                "client.address": self._people.address(record.address),
                self._people.user_key: self._people.user(record.user),
                "error.type": (record.error_code or str(status)) if 400 <= status <= 599 else "",
                "wok.app": record.app,
                "wok.operation": event.operation,
                "wok.message.code": record.code,
                "wok.error.code": record.error_code,
            }
            found = _shared(name, attributes)
            _keep(self._shared, key, found)
        return found

    def _task_shared(self, event: TaskStarted | TaskEnded | TaskRepeated) -> _Shared:
        record = event.record
        app = self.service(event)
        outcome = event.outcome if isinstance(event, TaskEnded) else ""
        correlation = "" if isinstance(event, TaskRepeated) else event.correlation
        status, code, error_code = 0, "", ""
        if record is not None:
            code, error_code = record.code, record.error_code
            if record.kind == "started":
                status = _STATUS_STARTED
            else:
                status = _STATUS_FAILED if record.failed else _STATUS_COMPLETED
        key = (app, event.operation, outcome, correlation, status, code, error_code)
        found = self._shared.get(key)
        if found is None:
            error_type = "lost" if outcome == "lost" else ""
            if status == _STATUS_FAILED:
                error_type = error_code or str(status)
            attributes = {
                "wok.app": app,
                "wok.operation": event.operation,
                "wok.task.status_code": status or "",
                "wok.task.outcome": outcome,
                "wok.task.correlation": correlation,
                "error.type": error_type,
                "wok.error.code": error_code,
                "wok.message.code": code,
            }
            name = f"task {event.operation}".rstrip()
            found = _shared(name, attributes)
            _keep(self._shared, key, found)
        return found


def _text(encoded_key: bytes, text: str) -> bytes:
    if len(text) > _ATTRIBUTE_CHARS_SURE:
        text = otlp_encoding.clip(text, _ATTRIBUTE_BYTES_MAX)
    return otlp_encoding.text_piece(encoded_key, text)


def _shared(name: str, attributes: Mapping[str, str | int]) -> _Shared:
    # Never none at all: every event has a method, a status or an outcome.
    pieces = [
        _text(otlp_encoding.key(key), value)
        if isinstance(value, str)
        else otlp_encoding.attribute(key, value)
        for key, value in attributes.items()
        if value != ""
    ]
    return _Shared(name, otlp_encoding.SPAN_ATTRIBUTE.join(pieces), otlp_encoding.LOG_ATTRIBUTE.join(pieces))


def _keep(cache: dict[Any, Any], key: object, value: object) -> None:
    # Emptying a full table is cheap, needs no order of use, and bounds what a hostile log can make us hold.
    if len(cache) >= _CACHE_ENTRIES_MAX:
        cache.clear()
    cache[key] = value


def _unreported(event: TaskEnded) -> str:
    what = f"Task {event.operation} of {event.app} ({event.target_uri})"
    return f"{what} is {_LOST if event.outcome == 'lost' else _EXPIRED}"


def _event_name_and_severity(event: Event, record: Record) -> tuple[str, int]:
    if isinstance(event, RequestSeen):
        status = record.status or 0
        if 500 <= status <= 599:
            return "wok.request", otlp_encoding.SEVERITY_ERROR
        return (
            "wok.request",
            otlp_encoding.SEVERITY_WARN if 400 <= status <= 499 else otlp_encoding.SEVERITY_INFO,
        )
    if isinstance(event, TaskStarted):
        return "wok.task.started", otlp_encoding.SEVERITY_INFO
    severity = otlp_encoding.SEVERITY_ERROR if record.failed else otlp_encoding.SEVERITY_INFO
    if isinstance(event, TaskRepeated):
        return "wok.task.repeated", severity
    return "wok.task.failed" if record.failed else "wok.task.completed", severity

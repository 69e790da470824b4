"""What spans, log records and history rows say: events in, bytes and rows out.

Pure, and the same bytes for the same log: every id and time comes from the log, attributes stand in a fixed
order, and nothing here knows the time of reading, the process or a version of this program. MAPPING_VERSION
is the version of what this module says: it rises when, for the same log, it would say anything else.

A request becomes a span of kind SERVER, an ended task a span of kind INTERNAL under it, and every event a log
record in the context of the span it belongs to; `log` also serves the events that make no span of their own.
The attributes of a span and of its log record are the same, so that they are encoded once; those that repeat
from event to event (all but ids, offsets and names of resources) are kept in a bounded table.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from exporter import encode
from exporter.identity import event_uid, record_uid
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
from exporter.sentences import MessageTables, People, Privacy, Sentences

if TYPE_CHECKING:
    from collections.abc import Mapping

SCOPE_NAME: Final = "wok-exporter"
MAPPING_VERSION: Final = "1"
SCHEMA_URL: Final = "https://opentelemetry.io/schemas/1.44.0"
SCOPE: Final = encode.scope(SCOPE_NAME, MAPPING_VERSION)

_ATTRIBUTE_BYTES_MAX: Final = 4096
_BODY_BYTES_MAX: Final = 4096
_DESCRIPTION_BYTES_MAX: Final = 1024  # the backends show it in one line
_CACHE_ENTRIES_MAX: Final = 2048  # users times operations of a busy host, some megabytes at the very most
_CANDIDATE_LINKS_MAX: Final = 32  # as many as of the concurrent requests

_METHODS: Final = frozenset({"POST", "PUT", "DELETE"})  # all that Wok logs; TASK is no request
_STATUS_STARTED: Final = 1000
_STATUS_COMPLETED: Final = 1001
_STATUS_FAILED: Final = 1002

# Keys of the attributes that differ from event to event.
_RECORD_ID: Final = encode.key("wok.record.id")
_OFFSET: Final = encode.key("wok.log.offset")
_UID: Final = encode.key("log.record.uid")
_TASK_ID: Final = encode.key("wok.task.id")
_TARGET_URI: Final = encode.key("wok.task.target_uri")
_CONCURRENT_REQUESTS: Final = encode.key("wok.task.concurrent_requests")
_EXCEPTION_TYPE: Final = encode.key("exception.type")
_EXCEPTION_MESSAGE: Final = encode.key("exception.message")
_CONCURRENT: Final = encode.link_end([encode.attribute("wok.link", "concurrent")])
_CANDIDATE: Final = encode.link_end([encode.attribute("wok.link", "candidate")])

_NO_REASON: Final = "failed without a reason in the log"
_LOST: Final = "lost: wokd was restarted before the task ended"
_EXPIRED: Final = "unknown: the log never told the end of the task"

_SEVERITY_TEXTS: Final = {
    encode.SEVERITY_INFO: "INFO",
    encode.SEVERITY_WARN: "WARN",
    encode.SEVERITY_ERROR: "ERROR",
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
    """What many events say alike: the span's name and encoded attributes."""

    name: str
    pieces: tuple[bytes, ...]


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
        self._log_file_name = _text(encode.key("log.file.name"), log_file_name)
        self._resources: dict[str, bytes] = {}
        self._shared: dict[tuple[object, ...], _Shared] = {}
        # A span, its log record and its row are asked for one after the other.
        self._latest_pieces: tuple[Event, str, list[bytes]] | None = None

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
            found = encode.resource(
                _text(encode.key(key), value) for key, value in attributes.items() if value
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
        _, pieces = self._name_and_pieces(event)
        context = event.context
        record = event.record
        time = event.reported if isinstance(event, TaskEnded) else event.record.time
        if record is None:
            assert isinstance(event, TaskEnded)
            event_name = "wok.task.lost" if event.outcome == "lost" else "wok.task.expired"
            severity = encode.SEVERITY_WARN
            body = _unreported(event)
            own = [_text(_UID, event_uid(context, event_name))]
        else:
            event_name, severity = _event_name_and_severity(event, record)
            body = self.message(record)
            uid = record.record_id or record_uid(record.trace_id, record.file, record.offset)
            own = [_text(_UID, uid)]
            if severity != encode.SEVERITY_INFO:
                if record.error_code:
                    own.append(_text(_EXCEPTION_TYPE, record.error_code))
                if error := self.error_text(record):
                    own.append(_text(_EXCEPTION_MESSAGE, error))
        message = encode.log_record(
            context[:16],
            context[16:],
            time,
            severity=severity,
            severity_text=_SEVERITY_TEXTS[severity],
            body=encode.clip(body, _BODY_BYTES_MAX),
            event_name=event_name,
            attributes=pieces + own,
        )
        return b"\x12" + encode.sized(message)

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
            self.message(record),
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
        name, pieces = self._name_and_pieces(event)
        failed = record.status is not None and record.status // 100 == 5
        message = encode.span(
            context[:16],
            context[16:],
            b"",
            name,
            encode.KIND_SERVER,
            start=event.start,
            end=record.time,
            attributes=pieces,
            status=encode.STATUS_ERROR if failed else encode.STATUS_UNSET,
        )
        return b"\x12" + encode.sized(message)

    def _task_span(self, event: TaskEnded) -> bytes:
        context = event.context
        name, pieces = self._name_and_pieces(event)
        links = [encode.link(other[:16], other[16:], _CONCURRENT) for other in event.links]
        if event.correlation == "ambiguous":
            candidates = event.candidates[:_CANDIDATE_LINKS_MAX]
            links += [encode.link(other[:16], other[16:], _CANDIDATE) for other in candidates]
        description = self._description(event)
        message = encode.span(
            context[:16],
            context[16:],
            event.parent[16:],
            name,
            encode.KIND_INTERNAL,
            start=event.start,
            end=event.end,
            attributes=pieces,
            links=links,
            status=encode.STATUS_ERROR if description else encode.STATUS_UNSET,
            description=encode.clip(description, _DESCRIPTION_BYTES_MAX),
        )
        return b"\x12" + encode.sized(message)

    def _description(self, event: TaskEnded) -> str:
        if event.outcome == "failure":
            return (event.record and self.error_text(event.record)) or _NO_REASON
        return _LOST if event.outcome == "lost" else ""

    # Attributes

    def _name_and_pieces(self, event: Event) -> tuple[str, list[bytes]]:
        latest = self._latest_pieces
        if latest is not None and latest[0] is event:
            return latest[1], latest[2]
        if isinstance(event, RequestSeen):
            shared = self._request_shared(event)
            pieces = [*shared.pieces]
        else:
            shared = self._task_shared(event)
            pieces = [*shared.pieces]
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
                pieces.append(encode.piece(_CONCURRENT_REQUESTS, event.concurrent))
        record = event.record
        if record is not None:
            if record.record_id:
                pieces.append(_text(_RECORD_ID, record.record_id))
            pieces += (self._log_file_name, encode.piece(_OFFSET, record.offset))
        self._latest_pieces = (event, shared.name, pieces)
        return shared.name, pieces

    def _request_shared(self, event: RequestSeen) -> _Shared:
        record = event.record
        key = (
            record.method,
            record.status,
            record.address,
            record.user,
            record.error_code,
            record.app,
            event.operation,
            record.code,
        )
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
    return encode.piece(encoded_key, encode.clip(text, _ATTRIBUTE_BYTES_MAX))


def _shared(name: str, attributes: Mapping[str, str | int]) -> _Shared:
    return _Shared(
        name,
        tuple(
            _text(encode.key(key), value) if isinstance(value, str) else encode.attribute(key, value)
            for key, value in attributes.items()
            if value != ""
        ),
    )


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
            return "wok.request", encode.SEVERITY_ERROR
        return "wok.request", encode.SEVERITY_WARN if 400 <= status <= 499 else encode.SEVERITY_INFO
    if isinstance(event, TaskStarted):
        return "wok.task.started", encode.SEVERITY_INFO
    severity = encode.SEVERITY_ERROR if record.failed else encode.SEVERITY_INFO
    if isinstance(event, TaskRepeated):
        return "wok.task.repeated", severity
    return "wok.task.failed" if record.failed else "wok.task.completed", severity

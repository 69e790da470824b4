"""What every event says, as golden dicts of the decoded bytes, and that nothing hostile changes the form."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import ScopeLogs
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ScopeSpans

from exporter.ids import event_uid, record_uid
from exporter.records import (
    NANOS,
    Event,
    Grade,
    Outcome,
    Record,
    RequestRow,
    RequestSeen,
    TaskEnded,
    TaskRepeated,
    TaskRow,
    TaskStarted,
)
from exporter.telemetry.attributes import _SHARED_MAX, RequestFacts, TaskFacts
from exporter.telemetry.mapping import SCHEMA_URL, SCOPE, Telemetry
from exporter.telemetry.resource import _RESOURCES_MAX, Identity
from exporter.telemetry.spans import _FORMATS_MAX, _LINKS_MAX
from exporter.wok.operations import Operations
from exporter.wok.sentences import People, Privacy

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sized

TIME = 1_479_000_000 * NANOS
FILE = bytes(range(16, 32))
REQUEST = bytes(range(1, 17)) + bytes(range(41, 49))
TASK = bytes(range(1, 17)) + bytes(range(11, 19))
OTHERS = [bytes([n]) * 24 for n in range(100, 140)]
RECORD_ID = "5afaf8a7-0dc6-4ccb-8e31-85120e102ec7"
TRACE_HEX = REQUEST[:16].hex()
REQUEST_HEX = REQUEST[16:].hex()
TASK_HEX = TASK[16:].hex()
URI = "/plugins/kimchi/vms/web-clone-1479000000000000/clone"
IDENTITY = Identity("wok-1", "hyper", "abc", {})
OPERATIONS = Operations.load()


class Tables:
    """Message tables that show what they were asked."""

    def render(self, code: str, params: Mapping[str, Any]) -> str:
        """Return the code and the parameters, as for a code that no table has."""
        return " ".join([code, *(f"{key}={params[key]}" for key in sorted(params))])


def telemetry(privacy: Privacy = "plain", identity: Identity = IDENTITY) -> Telemetry:
    return Telemetry(
        identity,
        log_file_name="user-requests.data",
        privacy=privacy,
        messages=Tables(),
        operations=OPERATIONS,
    )


def value_of(value: AnyValue) -> Any:
    return getattr(value, value.WhichOneof("value") or "string_value")


def as_dict(attributes: Iterable[KeyValue]) -> dict[str, Any]:
    items = [(item.key, value_of(item.value)) for item in attributes]
    assert len(items) == len(dict(items)), "a key stands twice"
    return dict(items)


def span(event: RequestSeen | TaskEnded, sender: Telemetry | None = None) -> dict[str, Any]:
    (message,) = ScopeSpans.FromString((sender or telemetry()).span(event)).spans
    return {
        "trace": message.trace_id.hex(),
        "span": message.span_id.hex(),
        "parent": message.parent_span_id.hex(),
        "name": message.name,
        "kind": message.kind,
        "start": message.start_time_unix_nano,
        "end": message.end_time_unix_nano,
        "attributes": as_dict(message.attributes),
        "links": [(link.trace_id + link.span_id, as_dict(link.attributes)) for link in message.links],
        "status": (message.status.code, message.status.message),
        "flags": message.flags,
    }


def log(event: Event, sender: Telemetry | None = None) -> dict[str, Any]:
    """Return a log record; the name of its event is in both places, the field and the attribute."""
    (message,) = ScopeLogs.FromString((sender or telemetry()).log(event)).log_records
    assert message.time_unix_nano == message.observed_time_unix_nano
    attributes = as_dict(message.attributes)
    assert attributes.pop("event.name") == message.event_name
    return {
        "trace": message.trace_id.hex(),
        "span": message.span_id.hex(),
        "time": message.time_unix_nano,
        "severity": (message.severity_number, message.severity_text),
        "event": message.event_name,
        "body": value_of(message.body),
        "attributes": attributes,
        "flags": message.flags,
    }


def a_record(**changes: Any) -> Record:
    """Return the record of a request of the JSON dialect, changed as asked."""
    plain = Record(
        kind="request",
        dialect="json",
        time=TIME,
        app="kimchi",
        method="POST",
        status=202,
        user="ada",
        address="192.0.2.7",
        code="KCHVM0009L",
        params={"ident": "web"},
        error_code="",
        error_params={},
        text="",
        trace_id=REQUEST[:16],
        record_id=RECORD_ID,
        file=FILE,
        offset=300,
    )
    return plain._replace(**changes)


def a_task_record(**changes: Any) -> Record:
    """Return a final record of the RFC's dialect: success, unless changed."""
    plain = a_record(
        kind="finished",
        dialect="rfc",
        method="TASK",
        status=1001,
        user="",
        address="",
        code="WOKASYNC0001L",
        params={"target_uri": URI, "task_id": 7},
        text="Task 7 is done",
        trace_id=OTHERS[0][:16],
        record_id="",
        offset=900,
        target_uri=URI,
        task_id="7",
    )
    return plain._replace(**changes)


FAILED = {
    "status": 1002,
    "code": "WOKASYNC0002L",
    "failed": True,
    "error_code": "KCHVM0035E",
    "error_params": {"name": "web"},
    "text": "Failure on task 7 (KCHVM0035E No copy of web)",
}


def a_request(event: Mapping[str, Any] | None = None, **changes: Any) -> RequestSeen:
    plain = RequestSeen(a_record(**changes), "vms.clone", REQUEST, TIME, 12, opens_task=True)
    return plain._replace(**(event or {}))


def a_task(**changes: Any) -> TaskEnded:
    """Return the event of a task that ended well after five seconds."""
    plain = TaskEnded(
        context=TASK,
        parent=REQUEST,
        app="kimchi",
        operation="vms.clone",
        target_uri=URI,
        task_id="7",
        start=TIME,
        end=TIME + 5 * NANOS,
        reported=TIME + 5 * NANOS,
        outcome="success",
        correlation="exact",
        record=a_task_record(time=TIME + 5 * NANOS),
        concurrent=0,
        links=(),
        candidates=(),
        counts_start=False,
        request=12,
    )
    return plain._replace(**changes)


REQUEST_ATTRIBUTES = {
    "wok.resource": "guest web",
    "http.request.method": "POST",
    "http.response.status_code": 202,
    "client.address": "192.0.2.7",
    "user.name": "ada",
    "wok.app": "kimchi",
    "wok.operation": "vms.clone",
    "wok.message.code": "KCHVM0009L",
    "wok.record.id": RECORD_ID,
    "log.file.name": "user-requests.data",
    "wok.log.offset": 300,
}
TASK_ATTRIBUTES = {
    "wok.resource": "guest web",
    "wok.app": "kimchi",
    "wok.operation": "vms.clone",
    "wok.task.id": "7",
    "wok.task.target_uri": URI,
    "wok.task.status_code": 1001,
    "wok.task.outcome": "success",
    "wok.task.correlation": "exact",
    "wok.message.code": "WOKASYNC0001L",
    "log.file.name": "user-requests.data",
    "wok.log.offset": 900,
    "wok.task.concurrent_requests": 0,
}
FAILED_ATTRIBUTES = TASK_ATTRIBUTES | {
    "wok.task.status_code": 1002,
    "wok.task.outcome": "failure",
    "wok.message.code": "WOKASYNC0002L",
    "error.type": "KCHVM0035E",
    "wok.error.code": "KCHVM0035E",
}
TASK_UID = record_uid(OTHERS[0][:16], FILE, 900)


def without(attributes: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in attributes.items() if name not in names}


def test_a_request() -> None:
    """A request is a root span of kind SERVER and a log record in its context."""
    event = a_request()
    sender = telemetry()
    expected_span = {
        "trace": TRACE_HEX,
        "span": REQUEST_HEX,
        "parent": "",
        "name": "POST kimchi vms.clone",
        "kind": 2,
        "start": TIME,
        "end": TIME + 1,
        "attributes": REQUEST_ATTRIBUTES,
        "links": [],
        "status": (0, ""),
        "flags": 0x100,
    }
    expected_log = {
        "trace": TRACE_HEX,
        "span": REQUEST_HEX,
        "time": TIME,
        "severity": (9, "INFO"),
        "event": "wok.request",
        "body": "KCHVM0009L ident=web",
        "attributes": REQUEST_ATTRIBUTES | {"log.record.uid": RECORD_ID},
        "flags": 1,
    }

    assert expected_span == span(event, sender)
    assert expected_log == log(event, sender)


def test_a_request_starts_with_its_task() -> None:
    """A task's start record before its request's line moves the start of the request's span alone."""
    event = a_request({"start": TIME - NANOS})

    assert (span(event)["start"], span(event)["end"]) == (TIME - NANOS, TIME)
    assert log(event)["time"] == TIME


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        (None, "", {"type": None, "sent": None, "span": 0, "severity": "INFO"}),
        (99, "", {"type": None, "sent": None, "span": 0, "severity": "INFO"}),
        (100, "", {"type": None, "sent": 100, "span": 0, "severity": "INFO"}),
        (200, "KCHVM0035E", {"type": None, "sent": 200, "span": 0, "severity": "INFO"}),
        (399, "", {"type": None, "sent": 399, "span": 0, "severity": "INFO"}),
        (404, "", {"type": "404", "sent": 404, "span": 0, "severity": "WARN"}),
        (400, "KCHVM0035E", {"type": "KCHVM0035E", "sent": 400, "span": 0, "severity": "WARN"}),
        (499, "", {"type": "499", "sent": 499, "span": 0, "severity": "WARN"}),
        (500, "", {"type": "500", "sent": 500, "span": 2, "severity": "ERROR"}),
        (599, "KCHVM0035E", {"type": "KCHVM0035E", "sent": 599, "span": 2, "severity": "ERROR"}),
        (600, "", {"type": None, "sent": None, "span": 0, "severity": "INFO"}),
        (10**30, "", {"type": None, "sent": None, "span": 0, "severity": "INFO"}),
        (-1, "", {"type": None, "sent": None, "span": 0, "severity": "INFO"}),
    ],
)
def test_the_status_of_a_request(status: int | None, code: str, expected: dict[str, Any]) -> None:
    """Only 5xx makes a SERVER span an error; 4xx and 5xx have an error type; only HTTP's numbers are sent."""
    event = a_request(status=status, error_code=code)
    sent = span(event)
    attributes = sent["attributes"]

    assert expected == {
        "type": attributes.get("error.type"),
        "sent": attributes.get("http.response.status_code"),
        "span": sent["status"][0],
        "severity": log(event)["severity"][1],
    }
    assert attributes.get("wok.error.code", "") == code
    # a request that did not fail has no exception, whatever code it names
    failed = expected["severity"] != "INFO"
    assert (code if failed else "") == log(event)["attributes"].get("exception.type", "")


@pytest.mark.parametrize("status", [303, 401])
def test_the_status_that_wok_logged_by_mistake(status: int) -> None:
    """A request with the status of its answer also has the logged one, on the span and on the log record."""
    event = a_request(status=status, logged_status=500)

    assert span(event)["status"][0] == 0
    assert log(event)["severity"][1] == ("INFO" if status == 303 else "WARN")
    for attributes in (span(event)["attributes"], log(event)["attributes"]):
        assert attributes["http.response.status_code"] == status
        assert attributes["wok.logged_status_code"] == 500
    assert "wok.logged_status_code" not in span(a_request(status=status))["attributes"]


def test_a_failed_request_says_why_in_its_log_record() -> None:
    """The reason of a failed request is an exception of its log record, and part of the sentence."""
    sent = log(a_request(status=400, error_code="KCHVM0035E", error_params={"err": "full"}))

    assert sent["body"] == "KCHVM0009L ident=web (KCHVM0035E err=full)"
    assert sent["attributes"] == REQUEST_ATTRIBUTES | {
        "http.response.status_code": 400,
        "error.type": "KCHVM0035E",
        "wok.error.code": "KCHVM0035E",
        "log.record.uid": RECORD_ID,
        "exception.type": "KCHVM0035E",
        "exception.message": "KCHVM0035E err=full",
    }


def test_a_request_of_the_oldest_dialect() -> None:
    """What a dialect does not have is left out, not sent empty; the uid is a key of the line's place."""
    event = a_request(
        {"operation": ""},
        dialect="text",
        status=None,
        user="",
        address="",
        code="",
        params={},
        text="Clone guest 'web'",
        record_id="",
    )
    attributes = {
        "http.request.method": "POST",
        "wok.app": "kimchi",
        "log.file.name": "user-requests.data",
        "wok.log.offset": 300,
    }

    assert span(event)["name"] == "POST kimchi"
    assert attributes == span(event)["attributes"]
    assert attributes | {"log.record.uid": record_uid(REQUEST[:16], FILE, 300)} == log(event)["attributes"]
    assert log(event)["body"] == "Clone guest 'web'"


def test_an_unknown_method_does_not_reach_a_name() -> None:
    """A method that is none of Wok's has the conventions' stand-ins, so that names stay a finite set."""
    sent = span(a_request(method="EVIL1"))

    assert (sent["name"], sent["attributes"]["http.request.method"]) == ("HTTP kimchi vms.clone", "_OTHER")


@pytest.mark.parametrize("dialect", ["rfc", "json"])
def test_a_started_task(dialect: str) -> None:
    """A start record is a log record in the context of the task whose span comes later."""
    record = a_task_record(
        kind="started", dialect=dialect, status=1000, code="WOKASYNC0000L", text="Started task 7", offset=10
    )
    sent = log(TaskStarted(record, "vms.clone", TASK, REQUEST, "exact", TIME))

    assert sent == {
        "trace": TRACE_HEX,
        "span": TASK_HEX,
        "time": TIME,
        "severity": (9, "INFO"),
        "event": "wok.task.started",
        "body": "Started task 7",
        "attributes": without(TASK_ATTRIBUTES, "wok.task.outcome", "wok.task.concurrent_requests")
        | {
            "wok.task.status_code": 1000,
            "wok.message.code": "WOKASYNC0000L",
            "wok.log.offset": 10,
            "log.record.uid": record_uid(OTHERS[0][:16], FILE, 10),
        },
        "flags": 1,
    }


def test_a_completed_task() -> None:
    """A task that ended well is an INTERNAL span under its request, its status unset."""
    expected_span = {
        "trace": TRACE_HEX,
        "span": TASK_HEX,
        "parent": REQUEST_HEX,
        "name": "task vms.clone",
        "kind": 1,
        "start": TIME,
        "end": TIME + 5 * NANOS,
        "attributes": TASK_ATTRIBUTES,
        "links": [],
        "status": (0, ""),
        "flags": 0x100,
    }
    expected_log = {
        "trace": TRACE_HEX,
        "span": TASK_HEX,
        "time": TIME + 5 * NANOS,
        "severity": (9, "INFO"),
        "event": "wok.task.completed",
        "body": "Task 7 is done",
        "attributes": TASK_ATTRIBUTES | {"log.record.uid": TASK_UID},
        "flags": 1,
    }

    assert expected_span == span(a_task())
    assert expected_log == log(a_task())


def test_a_failed_task() -> None:
    """A failed task's span has its reason as the description, its log record as an exception."""
    event = a_task(outcome="failure", record=a_task_record(**FAILED))
    sent = log(event)

    assert span(event)["status"] == (2, "No copy of web")
    assert span(event)["attributes"] == FAILED_ATTRIBUTES
    assert (sent["event"], sent["severity"]) == ("wok.task.failed", (17, "ERROR"))
    assert sent["body"] == FAILED["text"]
    assert sent["attributes"] == FAILED_ATTRIBUTES | {
        "log.record.uid": TASK_UID,
        "exception.type": "KCHVM0035E",
        "exception.message": "No copy of web",
    }


def test_the_json_dialect_has_the_same_task_codes() -> None:
    """Final records of 200 and 400 are sent as 1001 and 1002, and a missing reason is said."""
    success = a_task(record=a_task_record(dialect="json", status=200, text=""))
    failure = a_task(
        outcome="failure", record=a_task_record(dialect="json", status=400, failed=True, text="")
    )
    attributes = span(failure)["attributes"]

    assert span(success)["attributes"]["wok.task.status_code"] == 1001
    assert (attributes["wok.task.status_code"], attributes["error.type"]) == (1002, "1002")
    assert span(failure)["status"] == (2, "failed without a reason in the log")
    assert "exception.type" not in log(failure)["attributes"]


UNREPORTED = without(
    TASK_ATTRIBUTES, "wok.task.status_code", "wok.message.code", "log.file.name", "wok.log.offset"
)


def test_a_lost_task() -> None:
    """A task that a restart ended is an error that ends there; no record is named, for none exists."""
    event = a_task(outcome="lost", record=None)
    attributes = UNREPORTED | {"wok.task.outcome": "lost", "error.type": "lost"}

    assert span(event)["attributes"] == attributes
    assert span(event)["status"] == (2, "lost: wokd was restarted before the task ended")
    assert log(event) == {
        "trace": TRACE_HEX,
        "span": TASK_HEX,
        "time": TIME + 5 * NANOS,
        "severity": (13, "WARN"),
        "event": "wok.task.lost",
        "body": f"Task vms.clone of kimchi ({URI}) is lost: wokd was restarted before the task ended",
        "attributes": attributes | {"log.record.uid": event_uid(TASK, "wok.task.lost")},
        "flags": 1,
    }


def test_an_expired_task() -> None:
    """A task without an end is a span of no length at its start, and a log record at its expiry."""
    expiry = TIME + 86_400 * NANOS
    event = a_task(outcome="unknown", record=None, end=TIME, reported=expiry)
    attributes = UNREPORTED | {"wok.task.outcome": "unknown"}
    sent = log(event)

    assert span(event)["attributes"] == attributes
    assert tuple(span(event)[key] for key in ("start", "end", "status")) == (TIME, TIME + 2, (0, ""))
    assert (expiry, (13, "WARN"), "wok.task.expired") == (sent["time"], sent["severity"], sent["event"])
    assert sent["attributes"] == attributes | {"log.record.uid": event_uid(TASK, "wok.task.expired")}


@pytest.mark.parametrize(("changes", "severity"), [({}, (9, "INFO")), (FAILED, (17, "ERROR"))])
def test_a_repeated_final_record(changes: dict[str, Any], severity: tuple[int, str]) -> None:
    """A further final record is a log record in its task's context, with a uid of its own."""
    sent = log(TaskRepeated(a_task_record(**changes, offset=950), "vms.clone", TASK, REQUEST))
    expected = FAILED_ATTRIBUTES if changes else TASK_ATTRIBUTES

    assert (sent["trace"], sent["span"], sent["event"]) == (TRACE_HEX, TASK_HEX, "wok.task.repeated")
    assert severity == sent["severity"]
    assert without(sent["attributes"], "exception.type", "exception.message") == without(
        expected, "wok.task.outcome", "wok.task.correlation", "wok.task.concurrent_requests"
    ) | {"wok.log.offset": 950, "log.record.uid": record_uid(OTHERS[0][:16], FILE, 950)}


def test_a_final_record_without_task_or_request() -> None:
    """An orphan is a root span without a length."""
    sent = span(a_task(parent=b"", correlation="none", start=TIME, end=TIME, counts_start=True, request=0))

    assert (
        sent["parent"],
        sent["start"],
        sent["end"],
        sent["attributes"]["wok.task.correlation"],
    ) == ("", TIME, TIME + 2, "none")


def test_links() -> None:
    """Concurrent requests are linked in order; other candidates only when the parent is a guess, and few."""
    concurrent = [(other, {"wok.link": "concurrent"}) for other in OTHERS[:3]]
    candidates = [(other, {"wok.link": "candidate"}) for other in OTHERS]
    event = a_task(links=OTHERS[:3], candidates=OTHERS, concurrent=500)

    assert concurrent == span(event)["links"]
    assert span(event)["attributes"]["wok.task.concurrent_requests"] == 500
    assert concurrent + candidates[:32] == span(event._replace(correlation="ambiguous"))["links"]


def test_long_texts_are_cut() -> None:
    """No text can make an item larger than its share: body and attributes 4 KiB, a description 1 KiB."""
    long = "\u20ac" * 100_000
    record = a_task_record(**FAILED | {"text": f"Failure (KCHVM0035E {long})"})
    event = a_task(outcome="failure", record=record, target_uri=long, task_id=long)
    sent = log(event)
    texts = {
        "description": span(event)["status"][1],
        "body": sent["body"],
        "uri": sent["attributes"]["wok.task.target_uri"],
        "id": sent["attributes"]["wok.task.id"],
        "reason": sent["attributes"]["exception.message"],
    }
    sizes = {name: len(text.encode()) for name, text in texts.items()}

    # as many characters of three bytes as fit, behind the body's twenty of one byte
    assert sizes == {"description": 1023, "body": 4094, "uri": 4095, "id": 4095, "reason": 4095}
    assert all(text.endswith("\u2026") for text in texts.values())


def test_short_texts_of_long_characters_are_cut() -> None:
    """A text is cut by its bytes also where it has fewer characters than that, and a body to the last byte."""
    sent = log(a_task(task_id="\u20ac" * 2000, record=a_task_record(text="x" * 5000)))

    assert len(sent["attributes"]["wok.task.id"].encode()) == 4095
    assert len(sent["body"].encode()) == 4096


@pytest.mark.parametrize(
    ("privacy", "expected"),
    [
        ("plain", {"user.name": "ada", "client.address": "192.0.2.7"}),
        ("hash", {"user.hash": People("wok-1", "hash").user("ada")}),
        ("drop", {}),
    ],
)
def test_people(privacy: Privacy, expected: dict[str, str]) -> None:
    """The privacy setting holds in spans, log records and the history alike."""
    event = a_request(text="Hello ada from 192.0.2.7", dialect="coded")
    sender = telemetry(privacy)
    row = sender.request_row(event)
    everything = repr((span(event, sender), log(event, sender), row))

    assert expected == {
        name: value
        for name, value in span(event, sender)["attributes"].items()
        if name.startswith(("user.", "client."))
    }
    assert (next((v for k, v in expected.items() if k.startswith("user.")), "")) == row.user
    assert expected.get("client.address", "") == row.address
    assert (privacy == "plain") == ("ada" in everything)
    assert (privacy == "plain") == ("192.0.2.7" in everything)


def resource(sender: Telemetry, app: str) -> list[tuple[str, Any]]:
    message = Resource.FromString(sender.resource(app))
    as_dict(message.attributes)
    return [(item.key, value_of(item.value)) for item in message.attributes]


def test_the_resource() -> None:
    """The resource names Wok, the plug-in, the instance and the host, and nothing of this program."""
    assert resource(telemetry(), "kimchi") == [
        ("service.namespace", "wok"),
        ("service.name", "kimchi"),
        ("service.instance.id", "wok-1"),
        ("host.name", "hyper"),
        ("host.id", "abc"),
    ]


def test_attributes_of_the_user_win() -> None:
    """Attributes of the environment override ours, except empty ones, in an order that is not theirs."""
    given_attributes = {
        "zone": "b",
        "host.id": "",
        "host.name": "other",
        "deployment.environment.name": "lab",
    }
    reordered = dict(reversed(given_attributes.items()))
    senders = [telemetry(identity=IDENTITY._replace(attributes=a)) for a in (given_attributes, reordered)]

    assert resource(senders[0], "kimchi") == [
        ("service.namespace", "wok"),
        ("service.name", "kimchi"),
        ("service.instance.id", "wok-1"),
        ("host.name", "other"),
        ("host.id", "abc"),
        ("deployment.environment.name", "lab"),
        ("zone", "b"),
    ]
    assert senders[0].resource("kimchi") == senders[1].resource("kimchi")


def test_a_service_name_of_the_user_is_that_of_everything() -> None:
    """OTEL_SERVICE_NAME wins over the application and over the environment's attributes."""
    sender = telemetry(identity=IDENTITY._replace(attributes={"service.name": "x"}, service_name="mine"))

    assert [resource(sender, app)[1] for app in ("wok", "kimchi")] == [("service.name", "mine")] * 2


def test_the_service_of_an_event() -> None:
    """Every event belongs to the application that its record, or its task, names."""
    events: list[Event] = [
        a_request(app="wok"),
        TaskStarted(a_task_record(app="wok"), "o", TASK, REQUEST, "exact", TIME),
        a_task(app="wok", record=None),
        TaskRepeated(a_task_record(app="wok"), "o", TASK, REQUEST),
    ]

    assert [telemetry().service(event) for event in events] == ["wok"] * 4


def test_the_scope() -> None:
    """The scope names this mapping and its version, which is not that of the program."""
    assert InstrumentationScope(name="wok-exporter", version="3") == InstrumentationScope.FromString(SCOPE)
    assert SCHEMA_URL == "https://opentelemetry.io/schemas/1.44.0"


def test_rows() -> None:
    """The history keeps a request's sentence, and of a task the reason or the outcome in words."""
    sender = telemetry()
    failed = a_task(outcome="failure", record=a_task_record(**FAILED), concurrent=3, since=12, until=15)
    outcomes: dict[Outcome, str] = {
        "success": "succeeded",
        "failure": "No copy of web",
        "lost": "lost: wokd was restarted before the task ended",
        "unknown": "unknown: the log never told the end of the task",
    }
    messages = {
        "success": sender.task_row(a_task()).message,
        "failure": sender.task_row(failed).message,
        "lost": sender.task_row(a_task(outcome="lost", record=None)).message,
        "unknown": sender.task_row(a_task(outcome="unknown", record=None)).message,
    }
    request_row = RequestRow(
        12,
        TIME,
        REQUEST,
        "kimchi",
        "POST",
        "vms.clone",
        202,
        "ada",
        "192.0.2.7",
        RECORD_ID,
        "KCHVM0009L ident=web",
        resource="guest web",
    )
    task_row = TaskRow(
        context=TASK,
        parent=REQUEST,
        app="kimchi",
        operation="vms.clone",
        target_uri=URI,
        task_id="7",
        start=TIME,
        end=TIME + 5 * NANOS,
        outcome="failure",
        correlation="exact",
        request=12,
        concurrent=3,
        error_code="KCHVM0035E",
        message="No copy of web",
        since=12,
        until=15,
        resource="guest web",
    )

    assert request_row == sender.request_row(a_request())
    assert task_row == sender.task_row(failed)
    assert outcomes == messages


def test_a_task_whose_exception_is_known() -> None:
    """An exception of wok-error.log is the reason of its task: its first line in the span and the row, all
    of it in the log record, with Wok's id of the task where no record has one.
    """
    event = a_task(
        outcome="failure",
        task_id="",
        found_id="uuid-1",
        record=a_task_record(dialect="json", status=400, failed=True, text="", task_id=""),
        exception="OSError",
        exception_text="disk full\nno room",
        stack="Traceback\nOSError: disk full",
    )
    sender = telemetry()
    sent = log(event)["attributes"]
    row = sender.task_row(event)

    assert span(event)["status"] == (2, "disk full")
    assert span(event._replace(exception_text=""))["status"] == (2, "OSError")
    assert {name: sent[name] for name in sent if name.startswith("exception.")} == {
        "exception.type": "OSError",
        "exception.message": "disk full\nno room",
        "exception.stacktrace": "Traceback\nOSError: disk full",
    }
    assert (sent["wok.task.id"], row.found_id) == ("uuid-1", "uuid-1")
    assert (row.exception, row.message, row.stack) == ("OSError", "disk full", event.stack)


def test_an_error_code_is_the_type_of_an_exception() -> None:
    """Where a record has an error code, it is the type, and the exception says the rest."""
    event = a_task(
        outcome="failure",
        record=a_task_record(**FAILED),
        exception="OSError",
        exception_text="disk full",
        stack="x" * 20_000,
    )
    sent = log(event)["attributes"]

    assert (sent["exception.type"], sent["exception.message"]) == ("KCHVM0035E", "disk full")
    assert len(sent["exception.stacktrace"].encode()) == 16_384
    assert len(telemetry().task_row(event).stack.encode()) == 4096


def test_a_record_of_another_file_names_that_file() -> None:
    """A record of a rotated file has that file's name, any other record the name of the log."""
    sender = Telemetry(
        IDENTITY,
        log_file_name="user-requests.data",
        privacy="plain",
        messages=Tables(),
        operations=OPERATIONS,
        file_names={FILE: "user-requests.data.1"},
    )
    names = [span(a_request(file=file), sender)["attributes"]["log.file.name"] for file in (FILE, bytes(16))]

    assert names == ["user-requests.data.1", "user-requests.data"]


def test_candidates_are_kept_of_a_guess_alone() -> None:
    """The history keeps the first 32 candidates of an ambiguous match, and none of any other."""
    event = a_task(candidates=OTHERS)
    sender = telemetry()

    assert sender.task_row(event).candidates == b""
    assert sender.task_row(event._replace(correlation="ambiguous")).candidates == b"".join(OTHERS[:32])


hostile = st.text(st.characters(codec=None), max_size=30) | st.sampled_from(
    ["\ud800", "\x00", "a\nb", "\x1b[2J", "<script>", "x" * 5000, "(KCHVM0001E ", "'", "%(name)s", "\u202e"]
)
hostile_params = st.dictionaries(
    hostile | st.sampled_from(["username", "user"]),
    hostile | st.integers() | st.none() | st.lists(hostile),
    max_size=3,
)
hostile_records = st.builds(
    Record,
    kind=st.sampled_from(["request", "started", "finished"]),
    dialect=st.sampled_from(["text", "coded", "rfc", "json"]),
    time=st.integers(0, 2**63 - 1),
    app=st.sampled_from(["kimchi", "wok"]),
    method=hostile | st.sampled_from(["POST", "PUT", "DELETE", "TASK"]),
    status=st.none() | st.integers(),
    user=hostile,
    address=hostile,
    code=hostile,
    params=hostile_params,
    error_code=hostile,
    error_params=hostile_params,
    text=hostile,
    trace_id=st.binary(min_size=16, max_size=16).filter(any),
    record_id=hostile,
    file=st.binary(min_size=16, max_size=16),
    offset=st.integers(0, 2**63),
    target_uri=hostile,
    task_id=hostile,
    failed=st.booleans(),
)
contexts = st.binary(min_size=24, max_size=24).filter(lambda c: any(c[:16]) and any(c[16:]))
operations = st.sampled_from(["", "vms.clone", "other"])
grades = st.sampled_from(get_args(Grade))
hostile_requests = st.builds(
    RequestSeen, hostile_records, operations, contexts, st.integers(0, 2**63), st.integers(1), st.booleans()
)
hostile_tasks = st.builds(
    TaskEnded,
    context=contexts,
    parent=st.just(b"") | contexts,
    app=st.sampled_from(["kimchi", "wok"]),
    operation=operations,
    target_uri=hostile,
    task_id=hostile,
    start=st.integers(0, 2**63),
    end=st.integers(0, 2**63),
    reported=st.integers(0, 2**63),
    outcome=st.sampled_from(get_args(Outcome)),
    correlation=grades,
    record=st.none() | hostile_records,
    concurrent=st.integers(0, 2**40),
    links=st.lists(contexts, max_size=3),
    candidates=st.lists(contexts, max_size=3),
    counts_start=st.booleans(),
    request=st.integers(0),
)
hostile_events = (
    hostile_requests
    | hostile_tasks
    | st.builds(TaskStarted, hostile_records, operations, contexts, contexts, grades, st.integers(0, 2**63))
    | st.builds(TaskRepeated, hostile_records, operations, contexts, contexts)
)
NAMES = {
    f"{m} {a}{o}"
    for m in ("POST", "PUT", "DELETE", "HTTP")
    for a in ("kimchi", "wok")
    for o in ("", " vms.clone", " other")
}
NAMES |= {"task", "task vms.clone", "task other"}


@given(st.lists(hostile_events, max_size=6), st.sampled_from(get_args(Privacy)))
def test_nothing_in_a_log_breaks_an_item(events: list[Event], privacy: Privacy) -> None:
    """Whatever a record holds, everything decodes, names are of a finite set, and the bytes are the same
    from a sender that has seen other events before as from a new one.
    """
    sender = telemetry(privacy)
    for event in (*events, *reversed(events)):
        new = telemetry(privacy)

        assert log(event, sender)["body"]
        assert new.log(event) == sender.log(event)
        if isinstance(event, RequestSeen):
            assert sender.request_row(event) == new.request_row(event)
        if isinstance(event, TaskEnded):
            assert sender.task_row(event) == new.task_row(event)
        if isinstance(event, RequestSeen | TaskEnded):
            assert span(event, sender)["name"] in NAMES
            assert new.span(event) == sender.span(event)


def test_caches_stay_bounded() -> None:
    """A log that names another user on every line fills the caches to their bounds and no further, and
    changes no span.
    """
    sender = telemetry()
    caches: list[Sized] = [
        sender._attributes._shared,
        sender._resources._encoded,
        sender._spans._request_formats,
    ]
    sizes = []
    for number in range(_SHARED_MAX + 100):
        sender.span(a_request(user=f"user{number}"))
        sender.resource(f"app{number}")
        sizes.append([len(cache) for cache in caches])

    assert [max(of_one) for of_one in zip(*sizes, strict=True)] == [_SHARED_MAX, _RESOURCES_MAX, _FORMATS_MAX]
    assert telemetry().span(a_request()) == sender.span(a_request())


def test_cached_links_stay_bounded() -> None:
    """The links to requests are kept up to their bound, and are the same before and after it is reached."""
    links = telemetry()._spans._concurrent
    contexts = [REQUEST[:16] + number.to_bytes(8, "big") for number in range(1, _LINKS_MAX + 3)]
    first, sizes = links[contexts[0]], []
    for context in contexts:
        assert links[context]
        sizes.append(len(links))

    assert max(sizes) == _LINKS_MAX
    assert contexts[0] not in links
    assert links[contexts[0]] == first


REQUEST_CHANGES: dict[str, Any] = {
    "app": "ginger",
    "method": "PUT",
    "status": 500,
    "user": "bob",
    "address": "192.0.2.99",
    "code": "KCHVM0002L",
    "error_code": "KCHVM0021E",
    "operation": "vms.delete",
}
TASK_CHANGES: dict[str, Any] = {
    "app": "ginger",
    "operation": "vms.delete",
    "outcome": "lost",
    "correlation": "likely",
    "status": a_task_record(failed=True, status=1002),
    "code": a_task_record(code="WOKASYNC0009L"),
    "error_code": a_task_record(error_code="KCHVM0021E"),
}


def test_every_shared_fact_is_tried_by_the_next_test() -> None:
    """A fact that is added to the shared attributes has a change here that shows when two events mix."""
    assert set(REQUEST_CHANGES) == set(RequestFacts._fields)
    assert set(TASK_CHANGES) == set(TaskFacts._fields)


def test_no_event_gets_the_attributes_of_another() -> None:
    """Events that differ in one shared fact only are written as by a sender that has seen no other event."""
    plain, task = a_request(), a_task()
    events: list[RequestSeen | TaskEnded] = [plain, task]
    for name, value in REQUEST_CHANGES.items():
        record = plain.record._replace(**{name: value}) if name != "operation" else plain.record
        operation = value if name == "operation" else plain.operation
        events.append(plain._replace(record=record, operation=operation))
    for name, value in TASK_CHANGES.items():
        events.append(task._replace(**{"record" if isinstance(value, Record) else name: value}))
    sender = telemetry()

    for event in (*events, *events):
        assert sender.span(event) == telemetry().span(event)
        assert sender.log(event) == telemetry().log(event)
    assert len({sender.span(event) for event in events}) == len(events)

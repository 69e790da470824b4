"""Delivery: every fault of a backend, over real sockets, and the search for what it refuses, by properties."""

from __future__ import annotations

import itertools
import threading
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, ScopeLogs
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ScopeSpans, Span

from exporter.deliver import request as envelope
from exporter.deliver import worker as deliver
from exporter.deliver.isolate import Isolator
from exporter.deliver.receipt import DELIVERED, FAILURES, LOST, REJECTED
from exporter.deliver.responses import Answer
from exporter.deliver.sender import Sender, make_sender
from exporter.deliver.worker import DeliveryTotals, DeliveryWorker
from exporter.records import Commit, DeliveryStatus, JournalRow, Series, Signal
from exporter.store.journal import JournalEntry
from exporter.store.writer import Store
from tests.sink import Received, Reply, Sink

SCOPE = InstrumentationScope(name="wok", version="1").SerializeToString()
SCHEMA_URL = "https://opentelemetry.io/schemas/1.44.0"
KIMCHI = Resource(attributes=[KeyValue(key="service.name")]).SerializeToString()
WOK = Resource(attributes=[KeyValue(key="host.name")]).SerializeToString()
NO_ENVIRONMENT = {"OTEL_EXPORTER_OTLP_TIMEOUT": "0.4"}


class Journal:
    """An outbox in memory; `is_full` makes every write fail."""

    def __init__(self, signal: Signal, rows: list[JournalEntry]) -> None:
        self.signal = signal
        self.rows = rows
        self.counters: Counter[Series] = Counter()
        self.is_full = False

    def journal_read(self, signal: Signal, items_max: int, bytes_max: int) -> list[JournalEntry]:
        assert signal == self.signal
        found: list[JournalEntry] = []
        for entry in self.rows:
            items_max -= entry.items - entry.skip
            bytes_max -= len(entry.payload)
            if found and (items_max < 0 or bytes_max < 0):
                break
            found.append(entry)
        return found

    def journal_advance(self, signal: Signal, row: int, item: int, counters: Any) -> None:
        assert signal == self.signal
        self.count(counters)
        ends = [(e.row, e.items) for e in self.rows]
        assert (row, item) > (self.rows[0].row, self.rows[0].skip), "the cursor only moves on"
        assert any(row == number and item <= items for number, items in ends)
        self.rows = [
            e._replace(skip=item) if e.row == row else e
            for e in self.rows
            if e.row > row or (e.row == row and item < e.items)
        ]

    def count(self, counters: Any) -> None:
        if self.is_full:
            raise OSError("disk full")
        self.counters.update(counters)


class Clock:
    """Time that only a test moves."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


class Judge:
    """A sender without a network: `verdict` sees the names of the items of a request."""

    endpoint = "judge"

    def __init__(self, verdict: Any) -> None:
        self.verdict = verdict
        self.sent: list[list[str]] = []
        self.taken: list[str] = []
        self.is_closed = False

    def send(self, body: bytes) -> Answer:
        names = names_in(body)
        self.sent.append(names)
        answer: Answer = self.verdict(names)
        if answer.kind in ("accepted", "partial"):
            self.taken += names
        return answer

    def close(self) -> None:
        self.is_closed = True


def names_in(body: bytes) -> list[str]:
    request = ExportTraceServiceRequest.FromString(body)
    return [s.name for r in request.resource_spans for scope in r.scope_spans for s in scope.spans]


def span_row(row: int, numbers: range, resource: bytes = KIMCHI, padding: int = 0) -> JournalEntry:
    """A row of the journal with a span for each number, which is its name and in its ids."""
    spans = [
        Span(trace_id=n.to_bytes(16), span_id=n.to_bytes(8), name=str(n), trace_state="x" * padding)
        for n in numbers
    ]
    return JournalEntry(row, 0, resource, len(spans), ScopeSpans(spans=spans).SerializeToString())


def log_row(row: int, numbers: range) -> JournalEntry:
    records = [LogRecord(trace_id=n.to_bytes(16), event_name="wok.request") for n in numbers]
    return JournalEntry(row, 0, WOK, len(records), ScopeLogs(log_records=records).SerializeToString())


def delivery(sender: Any, journal: Any, clock: Clock, signal: Signal = "traces") -> DeliveryWorker:
    return DeliveryWorker(
        signal,
        sender,
        journal,
        scope=SCOPE,
        schema_url=SCHEMA_URL,
        clock=clock,
        now=clock,
        draw=lambda: 1.0,
    )


def drive(subject: DeliveryWorker, clock: Clock, steps_max: int = 400) -> list[float]:
    """Step until the journal is empty; return the delays, which pass at once."""
    delays = []
    for _ in range(steps_max):
        delay = subject.step()
        if delay == deliver.IDLE_SECONDS:
            break
        if delay:
            delays.append(delay)
            clock.seconds += delay
    return delays


def over(sink: Sink, signal: Signal = "traces", **more: str) -> Sender:
    return make_sender(signal, sink.environ(**NO_ENVIRONMENT, **more))


PROTOCOLS = pytest.mark.parametrize("protocol", ["http", "grpc"])


@PROTOCOLS
def test_everything_arrives_once(protocol: Any) -> None:
    """Rows of several resources arrive whole, in the scope and schema, once, and are counted."""
    clock = Clock()
    rows = [span_row(1, range(1, 4)), span_row(2, range(4, 6)), span_row(3, range(6, 7), WOK)]
    journal = Journal("traces", list(rows))
    with Sink(protocol) as sink:
        sender = over(sink)
        subject = delivery(sender, journal, clock)
        delays = drive(subject, clock)
        sender.close()
        request = ExportTraceServiceRequest.FromString(sink.requests[0].body)

    assert ([], [], DeliveryTotals(6, {}, {})) == (delays, journal.rows, subject.totals)
    assert journal.counters == {(DELIVERED, "traces"): 6}
    assert [r.resource.SerializeToString() for r in request.resource_spans] == [KIMCHI, WOK]
    assert [[s.name for s in r.scope_spans[0].spans] for r in request.resource_spans] == [
        ["1", "2", "3", "4", "5"],
        ["6"],
    ]
    assert {(SCHEMA_URL, SCHEMA_URL, SCOPE)} == {
        (r.schema_url, r.scope_spans[0].schema_url, r.scope_spans[0].scope.SerializeToString())
        for r in request.resource_spans
    }
    assert DeliveryStatus(sender.endpoint, last_success=1000.0) == subject.status


def test_log_records_go_the_same_way() -> None:
    """A request of log records has the same framing."""
    clock = Clock()
    journal = Journal("logs", [log_row(1, range(1, 4))])
    with Sink() as sink:
        sender = over(sink, "logs")
        drive(delivery(sender, journal, clock, "logs"), clock)
        sender.close()
        request = ExportLogsServiceRequest.FromString(sink.requests[0].body)

    assert [r.resource.SerializeToString() for r in request.resource_logs] == [WOK]
    assert (len(sink.logs()), journal.counters) == (3, {(DELIVERED, "logs"): 3})


@PROTOCOLS
def test_a_backend_that_is_down_is_tried_for_ever(protocol: Any) -> None:
    """Back-off doubles from one second to a minute, the reason is shown, and nothing is lost."""
    clock = Clock()
    journal = Journal("traces", [span_row(1, range(1, 4))])
    with Sink(protocol) as sink:
        port = sink.port
        environ = sink.environ()
    sender = make_sender("traces", environ)
    subject = delivery(sender, journal, clock)
    delays = drive(subject, clock, 8)
    status = subject.status
    with Sink(protocol, port=port) as sink:
        drive(subject, clock)
        stored = len(sink.spans())
    sender.close()

    assert delays == [1, 2, 4, 8, 16, 32, 60, 60]
    assert (status.failing_since, status.reason, status.held) == (1000.0, "refused_connection", False)
    assert "OTEL_EXPORTER_OTLP_ENDPOINT" in status.remedy
    assert (
        stored,
        journal.counters,
    ) == (3, {(DELIVERED, "traces"): 3, (FAILURES, "traces", "refused_connection"): 8})


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_an_overloaded_backend_is_obeyed(status: int) -> None:
    """Retry-After is honoured up to an hour; without it, and when it is shorter, back-off counts."""
    clock = Clock()
    journal = Journal("traces", [span_row(1, range(1, 4))])
    after = ["", "7", "1", "86400"]
    with Sink() as sink:
        sink.script([Reply(status=status, headers={"Retry-After": text}, body=b"") for text in after])
        sender = over(sink)
        delays = drive(delivery(sender, journal, clock), clock)
        sender.close()

    assert delays == [1, 7, 4, 3600]
    assert {(DELIVERED, "traces"): 3, (FAILURES, "traces", f"http_{status}"): 4} == journal.counters


def test_an_overloaded_grpc_backend_is_obeyed() -> None:
    """RetryInfo is honoured in the same way."""
    clock = Clock()
    journal = Journal("traces", [span_row(1, range(1, 4))])
    with Sink("grpc") as sink:
        sink.script([Reply(code="RESOURCE_EXHAUSTED", retry_after_seconds=7), Reply(code="ABORTED")])
        sender = over(sink)
        delays = drive(delivery(sender, journal, clock), clock)
        sender.close()

    assert delays == [7, 2]


def refuse_seven(received: Received) -> Reply | None:
    """A receiver that refuses every request with item 7 in it."""
    if "7" in names_in(received.body):
        return Reply(400, body=b"\x12\x05seven", code="INVALID_ARGUMENT", message="seven")
    return None


@PROTOCOLS
def test_a_refused_item_is_set_aside(protocol: Any) -> None:
    """One bad item among others is found, counted by reason, shown and passed; all others arrive."""
    clock = Clock()
    journal = Journal("traces", [span_row(1, range(1, 6)), span_row(2, range(6, 21))])
    with Sink(protocol) as sink:
        sink.judge = refuse_seven
        sender = over(sink)
        subject = delivery(sender, journal, clock)
        delays = drive(subject, clock)
        sender.close()
        stored = {int.from_bytes(key[1]) for key in sink.spans()}

    reason = "http_400" if protocol == "http" else "grpc_invalid_argument"
    assert ([], set(range(1, 21)) - {7}) == (delays, stored)
    assert (journal.counters[DELIVERED, "traces"], journal.counters[REJECTED, "traces", reason]) == (19, 1)
    assert (subject.status.rejection, subject.status.failing_since, subject.status.held) == (
        "seven",
        None,
        False,
    )


@pytest.mark.parametrize(
    ("protocol", "reply", "reason"),
    [
        ("http", Reply(401, body=b""), "http_401"),
        ("http", Reply(403, body=b""), "http_403"),
        ("http", Reply(404, body=b""), "http_404"),
        ("http", Reply(302, headers={"Location": "https://sso/"}, body=b""), "redirect"),
        ("http", Reply(200, headers={"Content-Type": "text/html"}, body=b"<html>"), "not_otlp"),
        ("grpc", Reply(code="UNAUTHENTICATED"), "grpc_unauthenticated"),
        ("grpc", Reply(code="UNIMPLEMENTED"), "grpc_unimplemented"),
    ],
)
def test_a_wrong_configuration_is_held(protocol: Any, reply: Reply, reason: str) -> None:
    """Credentials, paths, redirects and login pages hold the journal, say so, and drop nothing."""
    clock = Clock()
    journal = Journal("traces", [span_row(1, range(1, 4))])
    with Sink(protocol) as sink:
        sink.script([reply] * 3)
        sender = over(sink)
        subject = delivery(sender, journal, clock)
        held = drive(subject, clock, 3)
        status = subject.status
        drive(subject, clock)
        sender.close()

    assert ([30, 30, 30], True, reason) == (held, status.held, status.reason)
    assert status.remedy
    assert (journal.counters[DELIVERED, "traces"], journal.counters[FAILURES, "traces", reason]) == (3, 3)
    assert not subject.status.held


@PROTOCOLS
def test_a_partial_success_is_not_repeated(protocol: Any) -> None:
    """What a backend has rejected is counted and passed, whatever number it names."""
    clock = Clock()
    journal = Journal("traces", [span_row(1, range(1, 11))])
    with Sink(protocol) as sink:
        sink.script([Reply(rejected=4, message="too long")])
        sender = over(sink)
        subject = delivery(sender, journal, clock)
        drive(subject, clock)
        sender.close()

    assert (sink.request_count, subject.status.rejection) == (1, "too long")
    assert journal.counters == {(DELIVERED, "traces"): 6, (REJECTED, "traces", "partial"): 4}
    assert DeliveryTotals(6, {"partial": 4}, {}) == subject.totals


def test_a_backend_cannot_reject_more_than_it_got() -> None:
    """A number of rejected items beyond the request's is cut, so that counters stay sums of items."""
    clock = Clock()
    journal = Journal("traces", [span_row(1, range(1, 4))])
    drive(delivery(Judge(lambda _: Answer("partial", "partial", 10**12)), journal, clock), clock)

    assert journal.counters == {(REJECTED, "traces", "partial"): 3}


def test_lokis_refusals_are_passed() -> None:
    """Loki's 400 for times, after it has taken the rest, is counted by reason and not sent again."""
    clock = Clock()
    journal = Journal("logs", [log_row(1, range(1, 11))])
    words = "entry with timestamp x ignored, reason: 'entry too far behind',\nuser 'fake', total ignored: 3 out of 10"
    with Sink() as sink:
        sink.script([Reply(400, headers={"Content-Type": "text/plain"}, body=words.encode())])
        sender = over(sink, "logs")
        drive(delivery(sender, journal, clock, "logs"), clock)
        sender.close()

    assert (
        journal.counters,
        sink.request_count,
    ) == ({(DELIVERED, "logs"): 7, (REJECTED, "logs", "loki_too_old"): 3}, 1)


@pytest.mark.parametrize(
    ("protocol", "fault"), [("http", "hang"), ("http", "drip"), ("http", "half"), ("grpc", "hang")]
)
def test_a_receipt_that_never_came(protocol: Any, fault: Any) -> None:
    """Items whose receipt was lost are sent again with the same bytes, beside newer ones."""
    clock = Clock()
    journal = Journal("traces", [span_row(1, range(1, 4))])
    with Sink(protocol) as sink:
        sink.script([Reply(fault=fault, is_kept=True)])
        sender = over(sink)
        subject = delivery(sender, journal, clock)
        delays = [subject.step()]
        clock.seconds += delays[0]
        journal.rows.append(span_row(2, range(4, 6)))
        delays += drive(subject, clock)
        sender.close()

    assert (delays, [len(arrivals) for arrivals in sink.spans().values()]) == ([1], [2, 2, 2, 1, 1])
    assert {1} == {len(set(arrivals)) for arrivals in sink.spans().values()}
    assert journal.counters[DELIVERED, "traces"] == 5


def test_one_backend_down_does_not_hold_up_the_other() -> None:
    """Traces wait for their backend while log records flow."""
    clock = Clock()
    traces, logs = Journal("traces", [span_row(1, range(1, 4))]), Journal("logs", [log_row(1, range(1, 4))])
    with Sink() as down, Sink() as up:
        environ = down.environ(OTEL_EXPORTER_OTLP_LOGS_ENDPOINT=f"{up.endpoint}/v1/logs")
        down.script([Reply(503, body=b"")] * 5)
        senders = [make_sender("traces", environ), make_sender("logs", environ)]
        drive(delivery(senders[0], traces, clock, "traces"), clock, 3)
        drive(delivery(senders[1], logs, clock, "logs"), clock, 3)
        for sender in senders:
            sender.close()

    assert (traces.counters[FAILURES, "traces", "http_503"], logs.counters) == (3, {(DELIVERED, "logs"): 3})


def test_waiting_is_not_cut_short_by_new_rows() -> None:
    """A step before its time sends nothing and returns the rest of the wait."""
    clock = Clock()
    judge = Judge(lambda _: Answer("retry", "http_503", 0, 20.0))
    subject = delivery(judge, Journal("traces", [span_row(1, range(1, 3))]), clock)
    delays = [subject.step()]
    clock.seconds += 15
    delays.append(subject.step())

    assert (delays, len(judge.sent)) == ([20, 5], 1)


def test_jitter_is_full() -> None:
    """The wait is drawn from nearly nothing to the back-off's ceiling."""
    clock = Clock()
    draws = iter([0.0, 0.5, 1.0])
    subject = DeliveryWorker(
        "traces",
        Judge(lambda _: Answer("retry", "http_503")),
        Journal("traces", [span_row(1, range(1, 3))]),
        scope=SCOPE,
        schema_url=SCHEMA_URL,
        clock=clock,
        now=clock,
        draw=lambda: next(draws),
    )

    assert drive(subject, clock, 3) == [0.1, 1.0, 4.0]


def test_a_backend_that_refuses_everything_is_held() -> None:
    """When every item is rejected, none is dropped: delivery is held at once, retries ever later, and says so."""
    clock = Clock()
    journal = Journal("traces", [span_row(1, range(1, 101))])
    judge = Judge(lambda _: Answer("rejected", "http_400", message="no"))
    subject = delivery(judge, journal, clock)
    delays = drive(subject, clock, 200)

    assert (
        delays[:7],
        subject.status.held,
        subject.status.reason,
    ) == ([1, 2, 4, 8, 16, 30, 30], True, "http_400")
    assert [span_row(1, range(1, 101))] == journal.rows
    assert {(FAILURES, "traces", "http_400")} == set(journal.counters)


def test_a_lone_refused_item_waits_for_a_neighbour() -> None:
    """Without an item beside it a refused one is kept, held after two minutes, and judged by the next one."""
    clock = Clock()
    journal = Journal("traces", [span_row(1, range(7, 8))])
    judge = Judge(lambda names: Answer("rejected", "http_400") if "7" in names else Answer("accepted"))
    subject = delivery(judge, journal, clock)
    early, late = drive(subject, clock, 16), drive(subject, clock, 13)
    held = subject.status.held
    journal.rows.append(span_row(2, range(8, 9)))
    drive(subject, clock)

    assert (early, late[-1], held) == ([1, 2, 4, 8, 16], 30, True)
    assert (journal.rows, judge.taken, journal.counters[REJECTED, "traces", "http_400"]) == (
        [],
        ["8", "8"],
        1,
    )


def test_the_last_item_is_judged_by_those_of_its_request() -> None:
    """A refused item at the journal's end is set aside if the others of its request have gone through."""
    clock = Clock()
    journal = Journal("traces", [span_row(1, range(1, 8))])
    judge = Judge(lambda names: Answer("rejected", "http_400") if "7" in names else Answer("accepted"))
    delays = drive(delivery(judge, journal, clock), clock)

    assert (delays, journal.rows, journal.counters[REJECTED, "traces", "http_400"]) == ([], [], 1)


def test_a_witness_speaks_for_its_own_request_only() -> None:
    """When a backend begins to refuse everything, what it took earlier does not condemn a later lone item."""
    clock = Clock()
    journal = Journal("traces", [span_row(1, range(1, 8))])
    judge = Judge(lambda names: Answer("rejected", "http_400") if "7" in names else Answer("accepted"))
    subject = delivery(judge, journal, clock)
    drive(subject, clock)
    judge.verdict = lambda _: Answer("rejected", "http_400")
    journal.rows.append(span_row(2, range(8, 9)))
    drive(subject, clock, 10)

    assert (journal.rows, subject.totals.rejected) == ([span_row(2, range(8, 9))], {"http_400": 1})


def test_a_500_is_an_outage_before_it_is_a_refusal() -> None:
    """An internal error is waited for five times; an item that always causes one is set aside at last."""
    clock = Clock()
    journal = Journal("traces", [span_row(1, range(1, 4))])
    judge = Judge(lambda names: Answer("rejected", "http_500") if "2" in names else Answer("accepted"))
    delays = drive(delivery(judge, journal, clock), clock)

    assert delays[:5] == [1, 2, 4, 8, 16]
    assert ([], {"1", "3"}) == (journal.rows, set(judge.taken))
    assert {"http_500": 1}.items() <= {
        k[2]: v for k, v in journal.counters.items() if k[0] == REJECTED
    }.items()


def test_a_short_spell_of_500_costs_nothing() -> None:
    """A backend that fails for a while with 500 gets everything afterwards, and nothing is set aside."""
    clock = Clock()
    journal = Journal("traces", [span_row(1, range(1, 4))])
    verdicts = itertools.chain([Answer("rejected", "http_500")] * 4, itertools.repeat(Answer("accepted")))
    judge = Judge(lambda _: next(verdicts))
    drive(delivery(judge, journal, clock), clock)

    assert (judge.sent, journal.counters[DELIVERED, "traces"]) == ([["1", "2", "3"]] * 5, 3)


def test_a_receivers_limit_on_size_is_remembered() -> None:
    """After a 413 requests stay smaller, so that not every second one is refused."""
    clock = Clock()
    journal = Journal("traces", [span_row(n, range(n, n + 1), padding=100_000) for n in range(1, 41)])
    judge = Judge(lambda names: Answer("rejected", "http_413") if len(names) > 5 else Answer("accepted"))
    drive(delivery(judge, journal, clock), clock)

    assert sum(len(names) > 5 for names in judge.sent) == 1
    assert (journal.rows, journal.counters[DELIVERED, "traces"]) == ([], 40)


rows_of_numbers = st.lists(st.integers(1, 12), min_size=1, max_size=8).map(
    lambda sizes: [
        span_row(row, range(start, start + size))
        for row, (start, size) in enumerate(
            zip(itertools.accumulate(sizes, initial=1), sizes, strict=False), 1
        )
    ]
)


@settings(max_examples=150, deadline=None)
@given(rows=rows_of_numbers, bad=st.sets(st.integers(1, 96), max_size=8))
def test_exactly_the_bad_items_are_set_aside(rows: list[JournalEntry], bad: set[int]) -> None:
    """Wherever the bad items are, they and no others are set aside; what cannot be judged waits at the end."""
    clock = Clock()
    count = sum(entry.items for entry in rows)
    journal = Journal("traces", list(rows))
    judge = Judge(
        lambda names: Answer("rejected", "http_400") if bad & {int(n) for n in names} else Answer("accepted")
    )
    subject = delivery(judge, journal, clock)
    drive(subject, clock, 600)
    waiting = sum(entry.items - entry.skip for entry in journal.rows)
    kept = range(count - waiting + 1, count + 1)

    assert set(kept) <= bad
    assert {str(n) for n in range(1, count + 1) if n not in bad} == set(judge.taken)
    assert len({n for n in bad if n <= count} - set(kept)) == journal.counters[REJECTED, "traces", "http_400"]
    assert count - len({n for n in bad if n <= count}) == journal.counters[DELIVERED, "traces"]


@settings(max_examples=100, deadline=None)
@given(
    rows=rows_of_numbers,
    begin=st.integers(0, 12),
    length=st.integers(1, 40),
    reason=st.sampled_from(["http_400", "http_413", "http_500"]),
)
def test_a_spell_of_refusals_costs_nothing(
    rows: list[JournalEntry], begin: int, length: int, reason: str
) -> None:
    """A backend that refuses everything for a time, and then nothing, has cost no item, whenever it ended."""
    clock = Clock()
    count = sum(entry.items for entry in rows)
    journal = Journal("traces", list(rows))
    numbers = itertools.count()

    def verdict(_: list[str]) -> Answer:
        is_ill = begin <= next(numbers) < begin + length
        return Answer("rejected", reason) if is_ill else Answer("accepted")

    judge = Judge(verdict)
    subject = delivery(judge, journal, clock)
    subject._isolator = Isolator(4)  # so that a spell can begin in the midst
    drive(subject, clock, 600)

    assert ([], count) == (journal.rows, journal.counters[DELIVERED, "traces"])
    assert {str(n) for n in range(1, count + 1)} == set(judge.taken)
    assert subject.totals.rejected == {}


def test_a_row_that_is_dropped_takes_its_proof_along() -> None:
    """A witness speaks for the suspect that it was sought for, not for the item that has come into its place."""
    clock = Clock()
    journal = Journal("traces", [span_row(1, range(1, 2)), span_row(2, range(2, 5))])
    answers = itertools.chain(
        [Answer("rejected", "http_400")] * 3, [Answer("accepted")], [Answer("rejected", "http_400")] * 20
    )
    judge = Judge(lambda _: next(answers))
    subject = delivery(judge, journal, clock)
    while len(judge.sent) < 4:
        subject.step()
    assert judge.sent[2:] == [["1"], ["2"]], "item 1 is suspected, and item 2 is its witness"
    journal.rows.pop(0)
    drive(subject, clock, 15)

    assert (journal.rows, subject.totals.rejected) == ([span_row(2, range(2, 5))], {})


@settings(max_examples=200, deadline=None)
@given(
    rows=rows_of_numbers,
    bad=st.sets(st.integers(1, 96), max_size=40),
    begin=st.integers(0, 60),
    length=st.integers(0, 60),
    kinds=st.lists(st.sampled_from(["http_400", "http_500", "http_503"]), min_size=1, max_size=3),
    dropped=st.sets(st.integers(0, 80), max_size=3),
    items_max=st.integers(1, 30),
)
def test_bad_items_and_a_spell_together_cost_no_good_item(
    rows: list[JournalEntry],
    bad: set[int],
    begin: int,
    length: int,
    kinds: list[str],
    dropped: set[int],
    items_max: int,
) -> None:
    """Bad items, a time in which all is rejected, outages, and rows that a full journal drops: no good item is set
    aside, none is sent in a wrong order for the first time, and all that are not dropped arrive.
    """
    clock = Clock()
    journal = Journal("traces", list(rows))
    numbers = itertools.count()
    gone: set[str] = set()

    def verdict(names: list[str]) -> Answer:
        number = next(numbers)
        if number in dropped and len(journal.rows) > 1:
            gone.update(names_of(journal.rows.pop(0)))
        if begin <= number < begin + length:
            kind = kinds[number % len(kinds)]
            return Answer("retry" if kind == "http_503" else "rejected", kind)
        if bad & {int(n) for n in names}:
            return Answer("rejected", "http_400")
        return Answer("accepted")

    judge = Judge(verdict)
    subject = delivery(judge, journal, clock)
    subject._isolator = Isolator(items_max)
    settled: list[str] = []
    real = journal.journal_advance

    def advance(signal: Signal, row: int, item: int, counters: Any) -> None:
        if row not in {entry.row for entry in journal.rows}:
            journal.count(counters)  # as the store does for a row that is not there any more
            return
        before = [name for entry in journal.rows for name in names_of(entry)]
        real(signal, row, item, counters)
        after = {name for entry in journal.rows for name in names_of(entry)}
        settled.extend(name for name in before if name not in after)

    journal.journal_advance = advance  # type: ignore[method-assign]
    drive(subject, clock, 900)

    good = {name for entry in rows for name in names_of(entry)} - {str(n) for n in bad}
    assert good - gone <= set(judge.taken), "every good item that was not dropped has been accepted"
    assert [name for name in settled if name in good and name not in judge.taken] == []
    assert settled == sorted(settled, key=int)


def names_of(entry: JournalEntry) -> list[str]:
    spans = ScopeSpans.FromString(entry.payload).spans
    return [span.name for span in spans][entry.skip :]


def test_a_receipt_that_cannot_be_committed_is_not_asked_for_again() -> None:
    """With a full disk the answer is kept and committed later; the request is not sent a second time."""
    clock = Clock()
    journal = Journal("traces", [span_row(1, range(1, 4))])
    judge = Judge(lambda _: Answer("accepted"))
    subject = delivery(judge, journal, clock)
    journal.is_full = True
    for _ in range(3):
        with pytest.raises(OSError, match="disk full"):
            subject.step()
    journal.is_full = False
    drive(subject, clock)

    assert (judge.sent, journal.counters) == ([["1", "2", "3"]], {(DELIVERED, "traces"): 3})


def test_rows_given_up_meanwhile_take_their_suspects_along() -> None:
    """When the journal's bound has taken a suspect, the item in its place is not judged for it."""
    clock = Clock()
    journal = Journal("traces", [span_row(1, range(1, 2)), span_row(2, range(2, 5))])
    answers = iter([Answer("rejected", "http_400")] * 3 + [Answer("accepted")] * 9)
    judge = Judge(lambda _: next(answers))
    subject = delivery(judge, journal, clock)
    for _ in range(3):
        subject.step()
    journal.rows.pop(0)
    drive(subject, clock)

    assert ({"2", "3", "4"}, {}) == (set(judge.taken), subject.totals.rejected)


@PROTOCOLS
@pytest.mark.parametrize(("first", "count"), [(11, 10), (1, 10), (11, 60), (41, 20)])
def test_rejected_neighbours_do_not_block_the_items_behind_them(
    protocol: Any, first: int, count: int, tmp_path: Any
) -> None:
    """Any number of adjacent rejected items, wherever they are, is set aside in bounded time; all others arrive."""
    clock = Clock()
    total = first + count + 20 if first != 41 else 60  # the last case has them at the end
    bad = {str(n) for n in range(first, first + count)}
    store = Store(tmp_path / "state")
    store.load()
    store.set_signals(frozenset(("traces", "logs")))
    rows = [span_row(row, range(row * 3 - 2, row * 3 + 1)) for row in range(1, total // 3 + 1)]
    total = total // 3 * 3
    journal = [JournalRow("traces", r.resource, r.items, r.payload, 1, 2) for r in rows]
    store.commit(Commit({}, "", [], [], {}, {}, {}, journal, [], []), 0.0)
    with Sink(protocol) as sink:
        sink.judge = lambda received: (
            Reply(400, body=b"no", code="INVALID_ARGUMENT") if bad & set(names_in(received.body)) else None
        )
        sender = over(sink)
        subject = delivery(sender, store, clock)
        drive(subject, clock, 1000)
        sender.close()
        stored = {str(int.from_bytes(key[1])) for key in sink.spans()}
        conflicts, requests = sink.counts()["conflicts"], sink.request_count
    waiting = store.journal_status("traces").records
    store.close()

    bad &= {str(n) for n in range(1, total + 1)}
    assert (waiting, conflicts, sum(subject.totals.rejected.values())) == (0, 0, len(bad))
    assert stored == {str(n) for n in range(1, total + 1)} - bad
    assert requests <= 3 * len(bad) + 40
    assert clock.seconds - 1000 < 10
    assert (subject.status.reason, subject.status.held) == ("", False)


def test_rejected_neighbours_with_a_500_are_an_outage_once() -> None:
    """The half minute that a 500 is doubted for passes once for a run of them, not once for each."""
    clock = Clock()
    journal = Journal("traces", [span_row(1, range(1, 101))])
    bad = {str(n) for n in range(30, 45)}
    judge = Judge(lambda names: Answer("rejected", "http_500") if bad & set(names) else Answer("accepted"))
    subject = delivery(judge, journal, clock)
    drive(subject, clock, 1000)

    assert (journal.rows, subject.totals.rejected, clock.seconds - 1000) == ([], {"http_500": 15}, 31)


def test_new_items_are_witnesses_for_a_lone_rejected_one() -> None:
    """A rejected item that was alone is judged within seconds of the arrival of others, not after a long hold."""
    clock = Clock()
    journal = Journal("traces", [span_row(1, range(7, 8))])
    judge = Judge(lambda names: Answer("rejected", "http_400") if "7" in names else Answer("accepted"))
    subject = delivery(judge, journal, clock)
    drive(subject, clock, 5)
    journal.rows.append(span_row(2, range(8, 12)))
    began = clock.seconds
    drive(subject, clock)

    assert (journal.rows, subject.totals.rejected, clock.seconds - began <= 2) == ([], {"http_400": 1}, True)


def test_a_damaged_row_is_passed_and_counted_as_lost() -> None:
    """A row whose payload is no list of items is lost with its items, said, and blocks nothing behind it."""
    clock = Clock()
    good, bad, last = (span_row(n, range(n * 10, n * 10 + 3)) for n in (1, 2, 3))
    journal = Journal("traces", [good, bad._replace(payload=b"\xff" + bad.payload[1:], skip=1), last])
    judge = Judge(lambda _: Answer("accepted"))
    drive(delivery(judge, journal, clock), clock)

    assert (journal.rows, judge.taken) == ([], ["10", "11", "12", "30", "31", "32"])
    assert journal.counters == {(DELIVERED, "traces"): 6, (LOST, "damaged"): 2}


def test_a_response_that_cannot_be_handled_does_not_end_delivery(caplog: pytest.LogCaptureFixture) -> None:
    """A bug of ours in a sender is retried like an outage and called a bug; the disk is not blamed."""
    clock = Clock()
    journal = Journal("traces", [span_row(1, range(1, 4))])
    answers = iter([OverflowError("cannot convert float infinity to integer"), None])

    def verdict(_: list[str]) -> Answer:
        if (error := next(answers)) is not None:
            raise error
        return Answer("accepted")

    subject = delivery(Judge(verdict), journal, clock)
    subject.step()
    ill = subject.status
    drive(subject, clock)

    assert (ill.reason, "bug" in ill.remedy, "disk" in ill.remedy, journal.rows) == (
        "internal",
        True,
        False,
        [],
    )


class Bell(threading.Event):
    """An event whose waits are recorded, take no time, and end the loop after some."""

    def __init__(self, stopped: threading.Event, waits_max: int) -> None:
        super().__init__()
        self.waits: list[float] = []
        self._stopped = stopped
        self._waits_max = waits_max

    def wait(self, timeout: float | None = None) -> bool:
        self.waits.append(timeout or 0)
        if len(self.waits) >= self._waits_max:
            self._stopped.set()
        return True


def test_the_loop_outlives_its_store(caplog: pytest.LogCaptureFixture) -> None:
    """A store that raises is waited for, told once, shown in the status, and never ends the loop."""
    clock, stopped = Clock(), threading.Event()
    journal = Journal("traces", [span_row(1, range(1, 4))])
    journal.is_full = True
    judge = Judge(lambda _: Answer("accepted"))
    subject = delivery(judge, journal, clock)
    bell = Bell(stopped, 3)
    subject.run(stopped, bell)
    ill = subject.status
    journal.is_full = False
    stopped.clear()
    subject.run(stopped, Bell(stopped, 1))

    assert (bell.waits, sum("journal" in r.message for r in caplog.records)) == ([5, 5, 5], 1)
    assert (ill.reason, ill.message, subject.status.reason) == ("store", "disk full", "")
    assert (journal.counters[DELIVERED, "traces"], judge.is_closed) == (3, True)


def test_a_stop_is_answered_during_an_outage() -> None:
    """A stop ends the loop while it waits for a dead backend, without waiting that long (SIGTERM)."""
    stopped, work = threading.Event(), threading.Event()
    with Sink() as sink:
        sink.judge = lambda _: Reply(503, headers={"Retry-After": "3000"}, body=b"")
        subject = DeliveryWorker(
            "traces",
            over(sink),
            Journal("traces", [span_row(1, range(1, 4))]),
            scope=SCOPE,
            schema_url=SCHEMA_URL,
        )
        thread = threading.Thread(target=subject.run, args=(stopped, work), daemon=True)
        thread.start()
        while not subject.status.reason:
            thread.join(0.01)
        stopped.set()
        work.set()
        thread.join(5)

    assert not thread.is_alive()


def test_trouble_is_told_once_and_its_end_too(caplog: pytest.LogCaptureFixture) -> None:
    """An outage of any length is two lines of log, one at each end."""
    caplog.set_level("INFO", "exporter.deliver.worker")
    clock = Clock()
    verdicts = itertools.chain([Answer("retry", "http_503")] * 20, itertools.repeat(Answer("accepted")))
    subject = delivery(Judge(lambda _: next(verdicts)), Journal("traces", [span_row(1, range(1, 4))]), clock)
    drive(subject, clock)

    assert [
        next(words for words in ("fails, retrying", "works again") if words in record.getMessage())
        for record in caplog.records
    ] == ["fails, retrying", "works again"]


@settings(max_examples=150, deadline=None)
@given(
    sizes=st.lists(st.integers(0, 400), min_size=1, max_size=30),
    chunk=st.integers(1, 9),
    skip=st.integers(0, 8),
    items_max=st.integers(1, 12),
    bytes_max=st.integers(1, 900),
)
def test_requests_cut_a_journal_into_its_items(
    sizes: list[int], chunk: int, skip: int, items_max: int, bytes_max: int
) -> None:
    """However a journal is cut, its items come out whole, in order and once, within the limits."""
    spans = [Span(name=str(n), trace_state="x" * size) for n, size in enumerate(sizes)]
    rows = [
        JournalEntry(row, 0, KIMCHI, len(part), ScopeSpans(spans=part).SerializeToString())
        for row, part in enumerate(spans[at : at + chunk] for at in range(0, len(spans), chunk))
    ]
    skip = min(skip, len(spans) - 1, chunk - 1, rows[0].items - 1)
    rows[0] = rows[0]._replace(skip=skip)
    passed, found, request = 0, [], envelope.cut(rows, 0, items_max, bytes_max)
    while request:
        size = sum(len(part) for _, part in request.parts)
        assert 1 <= request.items <= items_max
        assert size <= bytes_max or request.items == 1
        body = ExportTraceServiceRequest.FromString(envelope.wrap(request.parts, SCOPE, b""))
        found += [s for r in body.resource_spans for scope in r.scope_spans for s in scope.spans]
        passed += request.items
        assert passed + skip == request.row * chunk + request.item
        request = envelope.cut(rows, passed, items_max, bytes_max)

    assert spans[skip:] == found


def test_a_damaged_row_is_not_sent() -> None:
    """A payload that is not a list of items is an error that names what is wrong, not a request."""
    row = span_row(1, range(1, 4))
    for damaged in (row._replace(payload=b"\x0a" + row.payload[1:]), row._replace(payload=row.payload[:-1])):
        with pytest.raises(ValueError, match="journal"):
            envelope.cut([damaged._replace(skip=2)], 0, 10, 10_000)


@PROTOCOLS
def test_the_real_store_and_a_real_backend(protocol: Any, tmp_path: Any) -> None:
    """From the store's journal to a receiver: everything arrives, and counters and cursor survive a restart."""
    clock = Clock()
    rows = [span_row(row, range(row * 100, row * 100 + 50)) for row in range(1, 9)]
    store = Store(tmp_path / "state")
    store.load()
    store.set_signals(frozenset(("traces", "logs")))
    journal = [JournalRow("traces", r.resource, r.items, r.payload, 1, 2) for r in rows]
    store.commit(Commit({}, "", [], [], {}, {}, {}, journal, [], []), 0.0)
    with Sink(protocol) as sink:
        sink.judge = lambda received: (
            Reply(400, code="INTERNAL") if "333" in names_in(received.body) else None
        )
        sink.script([Reply(503, body=b"", code="UNAVAILABLE")])
        sender = over(sink)
        subject = delivery(sender, store, clock)
        subject._isolator = Isolator(120)
        for _ in range(4):
            clock.seconds += subject.step()
        store.close()
        store = Store(tmp_path / "state")
        drive(delivery(sender, store, clock), clock)
        sender.close()
    reader = store.reader()
    counters = reader.snapshot().counters
    reader.close()
    store.close()

    assert {n for r in rows for n in range(r.row * 100, r.row * 100 + 50)} - {333} == {
        int.from_bytes(key[1]) for key in sink.spans()
    }
    assert (
        counters[DELIVERED, "traces"],
        sum(value for series, value in counters.items() if series[0] == REJECTED),
    ) == (399, 1)
    assert deliver.REQUEST_BYTES_MAX < 4 * 1024 * 1024

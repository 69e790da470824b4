"""What is counted: the contract's series, bounded, and there before they are needed."""

from __future__ import annotations

from exporter.correlate.correlator import Correlator
from exporter.metrics import counting
from exporter.metrics.counting import Tally
from exporter.records import NANOS, Chunk, Continuation, Line, Record, Rejected, TailEvent
from exporter.wok.operations import Operations

from .records_made import EPOCH, FILE, Log


def counted(records: list[Record], made: Tally) -> dict[tuple[str, ...], float]:
    """Everything that a finished log counts, but for zeros."""
    correlator = Correlator(Operations.load(), expiry=24 * 3600 * NANOS)
    for record in records:
        made.parsed(record)
        for event in correlator.feed(record):
            made.event(event)
    for event in correlator.finish():
        made.event(event)
    counters, _, _ = made.take()
    return {series: value for series, value in counters.items() if value}


def test_a_task_and_its_request() -> None:
    """A failed clone counts one request, one start, one end, one failure by code, and one correlation."""
    log = Log("json")
    clone = "/plugins/kimchi/vms/web-clone-1470000000500000/clone"
    records = [
        log.request(1, "KCHVM0009L", {"ident": "web"}),
        log.finished(9, clone, failed=True, error_code="KCHVM0035E"),
    ]

    assert counted(records, Tally()) == {
        ("wok_requests_total", "kimchi", "POST", "202"): 1,
        ("wok_tasks_started_total", "kimchi", "vms.clone"): 1,
        ("wok_tasks_finished_total", "kimchi", "vms.clone", "failure"): 1,
        ("wok_task_failures_total", "kimchi", "vms.clone", "KCHVM0035E"): 1,
        ("wok_exporter_correlations_total", "exact"): 1,
        ("wok_exporter_lines_total", "record"): 2,
        ("wok_exporter_records_total", "request", "json"): 1,
        ("wok_exporter_records_total", "task_finished", "json"): 1,
    }


def test_every_outcome_is_there_before_the_first() -> None:
    """With a task's start, all its outcomes exist at 0, so that increase() sees the first failure."""
    correlator = Correlator(Operations.load(), expiry=24 * 3600 * NANOS)
    made = Tally()
    for event in correlator.feed(Log("json").request(0, "XYZJOB0001L", {"name": "x"}, app="xyz")):
        made.event(event)
    counters, _, _ = made.take()

    assert {
        series[3]: value for series, value in counters.items() if series[0] == "wok_tasks_finished_total"
    } == {
        "success": 0,
        "failure": 0,
        "lost": 0,
        "unknown": 0,
    }


def test_durations_are_observed_with_their_trace() -> None:
    """A task's duration falls into its bucket, with the trace id as the exemplar; an orphan has none."""
    log = Log("json")
    correlator = Correlator(Operations.load(), expiry=24 * 3600 * NANOS)
    made = Tally()
    request = log.request(0, "KCHVM0010L", {"ident": "web"})
    records = [request, log.finished(7, "/plugins/kimchi/vms/web/migrate"), log.finished(9, "/nobody/asked")]
    for event in [event for record in records for event in correlator.feed(record)] + correlator.finish():
        made.event(event)
    _, gauges, histograms = made.take()
    [(series, histogram)] = histograms.items()

    assert series == ("wok_task_duration_seconds", "kimchi", "vms.migrate", "success")
    assert (sum(histogram.buckets), histogram.buckets[3], histogram.sum) == (1, 1, 7.0)
    assert list(histogram.exemplars) == [(3, 7.0, request.trace_id.hex(), EPOCH + 7.0)]
    assert gauges["wok_task_last_success_timestamp_seconds", "kimchi", "vms.migrate"] == EPOCH + 7


def test_hostile_labels_end_as_other() -> None:
    """A flood of applications fills a family to its bound and no further, also over a restart."""
    log = Log("json")
    flood = [log.request(0, "", app=f"app{number}", status=200) for number in range(counting.SERIES_MAX + 50)]
    first = counted(flood, Tally())
    known = [series for series in first if series[0] == "wok_requests_total"]
    again = counted([log.request(0, "", app="fresh", status=200)], Tally(known))

    assert first["wok_requests_total", "other", "POST", "other"] == 50
    assert len(known) == counting.SERIES_MAX + 1
    assert again["wok_requests_total", "other", "POST", "other"] == 1


def test_error_codes_that_are_none_are_other() -> None:
    """Only what looks like a code of Wok becomes a label; no code at all is `none`."""
    log = Log("json")
    records = [
        log.finished(0, "/x/1", failed=True, error_code="<script>alert(1)</script>"),
        log.finished(9, "/x/2", failed=True),
    ]
    codes = {series[3] for series in counted(records, Tally()) if series[0] == "wok_task_failures_total"}

    assert codes == {"other", "none"}


def test_lines_bytes_and_rotations() -> None:
    """Bytes are counted with their newlines, lines by what they are, files by what happened to them."""
    made = Tally()
    lines = [Line(FILE, 0, b"x" * 9, 9), Line(FILE, 10, b"torn", 4, ended=False)]
    made.chunk(Chunk(lines, "", [TailEvent("rename", ""), TailEvent("gap", ""), TailEvent("unreadable", "")]))
    for item in (Continuation(forged=True, offset=0), Continuation(forged=False, offset=0)):
        made.parsed(item)
    made.parsed(Rejected("torn", FILE, 10, "torn"))
    counters, _, _ = made.take()

    assert counters == {
        ("wok_exporter_read_bytes_total",): 14,
        ("wok_exporter_rotations_total", "rename"): 1,
        ("wok_exporter_lost_records_total", "gap"): 1,
        ("wok_exporter_lines_total", "forged"): 1,
        ("wok_exporter_lines_total", "continuation"): 1,
        ("wok_exporter_lines_total", "rejected"): 1,
        ("wok_exporter_rejected_lines_total", "torn"): 1,
    }

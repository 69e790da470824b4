"""What is counted: the contract's series, bounded, and there before they are needed."""

from __future__ import annotations

from collections.abc import Iterable

from hypothesis import given
from hypothesis import strategies as st

from exporter.correlate.correlator import Correlator
from exporter.metrics import series as limits
from exporter.metrics.counting import Tally
from exporter.metrics.series import SERIES_MAX, SeriesLimits
from exporter.records import (
    NANOS,
    OUTCOMES,
    Chunk,
    Continuation,
    Line,
    Record,
    Rejected,
    Series,
    TailEvent,
)
from exporter.wok.operations import Operations

from .records_made import EPOCH, FILE, Log

OPERATIONS = Operations.load()
KNOWN_APPS = ("kimchi", "ginger", "gingerbase", "gingers390x")


def tally(series: Iterable[Series] = ()) -> Tally:
    return Tally(SeriesLimits(series, OPERATIONS.tasks))


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

    assert counted(records, tally()) == {
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
    made = tally()
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
    made = tally()
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
    flood = [log.request(0, "", app=f"app{number}", status=200) for number in range(SERIES_MAX)]
    first = counted(flood, tally())
    known = [series for series in first if series[0] == "wok_requests_total"]
    again = counted([log.request(0, "", app="fresh", status=200)], tally(known))

    assert first["wok_requests_total", "other", "POST", "other"] == SERIES_MAX - len(known) + 1
    assert len(known) <= SERIES_MAX
    assert again["wok_requests_total", "other", "POST", "other"] == 1


@given(
    names=st.lists(st.tuples(st.text(max_size=3), st.text(max_size=3)), min_size=1, max_size=5),
    copies=st.integers(1, 400),
)
def test_no_family_exceeds_its_bound(names: list[tuple[str, str]], copies: int) -> None:
    """Whatever applications, operations, codes and statuses a log names, no family has more than 1,000 series."""
    made = SeriesLimits([], OPERATIONS.tasks)
    tasks = {
        made.task(f"{app}{n}", f"{operation}{n % 7}") for app, operation in names for n in range(copies)
    } | {(app, operation) for app in KNOWN_APPS for operation in OPERATIONS.tasks(app)}
    failures = {made.failure(*task, f"C{n}") for task in tasks for n in range(9)}
    requests = {made.request(app, "POST", n) for app in ("wok", *KNOWN_APPS, "x", "y") for n in range(600)}
    requests |= {made.request(f"{app}{n}", method, n) for app, method in names for n in range(copies)}

    assert len(tasks | {("other", "other")}) * len(OUTCOMES) <= SERIES_MAX
    assert len(failures) <= SERIES_MAX
    assert len(requests) <= SERIES_MAX


def test_a_flood_hides_no_task_of_the_table() -> None:
    """After a flood of made-up names, a failed clone still has its own series, and its error code if there is room."""
    made = SeriesLimits([], OPERATIONS.tasks)
    for number in range(2 * SERIES_MAX):
        made.failure(*made.task(f"app{number}", "x"), f"E{number}")
        made.request(f"app{number}", "POST", 200)

    assert made.task("kimchi", "vms.clone") == ("kimchi", "vms.clone")
    assert made.task("new", "x") == ("other", "other")
    assert made.failure("kimchi", "vms.clone", "KCHVM0035E")[:3] == (
        "wok_task_failures_total",
        "kimchi",
        "vms.clone",
    )
    assert made.request("kimchi", "POST", 500) == ("wok_requests_total", "kimchi", "POST", "500")


def test_the_table_of_operations_fits_its_reserve() -> None:
    """The pairs that always have series of their own are fewer than the room that is reserved for them."""
    assert sum(len(OPERATIONS.tasks(app)) for app in KNOWN_APPS) <= limits._TABLE_TASKS_MAX


def test_error_codes_that_are_none_are_other() -> None:
    """Only what looks like a code of Wok becomes a label; no code at all is `none`."""
    log = Log("json")
    records = [
        log.finished(0, "/x/1", failed=True, error_code="<script>alert(1)</script>"),
        log.finished(9, "/x/2", failed=True),
    ]
    codes = {series[3] for series in counted(records, tally()) if series[0] == "wok_task_failures_total"}

    assert codes == {"other", "none"}


def test_lines_bytes_and_rotations() -> None:
    """Bytes are counted with their newlines, lines by what they are, files by what happened to them."""
    made = tally()
    lines = [Line(FILE, 0, b"x" * 9, 9), Line(FILE, 10, b"torn", 4, ended=False)]
    made.chunk(Chunk(lines, "", [TailEvent("rename", ""), TailEvent("gap", ""), TailEvent("unreadable", "")]))
    for item in (Continuation(forged=True, offset=0), Continuation(forged=False, offset=0)):
        made.parsed(item)
    made.parsed(Rejected("torn", FILE, 10, "torn"))
    counters, _, _ = made.take()

    assert counters == {
        ("wok_exporter_read_bytes_total",): 14,
        ("wok_exporter_rotations_total", "rename"): 1,
        ("wok_exporter_log_gaps_total",): 1,
        ("wok_exporter_lines_total", "forged"): 1,
        ("wok_exporter_lines_total", "continuation"): 1,
        ("wok_exporter_lines_total", "rejected"): 1,
        ("wok_exporter_rejected_lines_total", "torn"): 1,
    }

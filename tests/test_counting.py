"""Counters: the defined series, bounded in number, with zeros before their first increment."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.correlate.correlator import Correlator
from exporter.metrics import series as limits
from exporter.metrics.counting import BUCKETS_SECONDS, Tally
from exporter.metrics.series import SERIES_MAX, SeriesLimits
from exporter.records import (
    NANOS,
    OUTCOMES,
    Chunk,
    Continuation,
    Line,
    Outcome,
    Record,
    Rejected,
    Series,
    TailEvent,
    TaskEnded,
    TaskRepeated,
    TaskStarted,
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


def test_the_last_record_is_not_in_the_future() -> None:
    """The last record of a log may have a wrong clock's time: no gauge shows it, and the one before stays."""
    log = Log("json")
    made = tally()
    made.latest = (EPOCH + 100) * NANOS
    for seconds in (10, 315_360_000):
        made.parsed(log.request(seconds, "KCHVM0004L"))
    _, gauges, _ = made.take()

    assert gauges["wok_exporter_last_record_timestamp_seconds",] == EPOCH + 10


@settings(deadline=None)  # up to 400 copies take longer where the machine is busy
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


CLONE = ("kimchi", "vms.clone")
URI = "/plugins/kimchi/vms/web-clone-1470000000500000/clone"
CONTEXT = bytes(range(1, 25))


def ended(outcome: Outcome = "success", seconds: float = 7.5, **changes: Any) -> TaskEnded:
    """The end of a clone that began half a second after EPOCH."""
    begun = EPOCH * NANOS + NANOS // 2
    end = begun + int(seconds * NANOS)
    event = TaskEnded(
        context=CONTEXT,
        parent=b"",
        app="kimchi",
        operation="vms.clone",
        target_uri=URI,
        task_id="",
        start=begun,
        end=end,
        reported=end,
        outcome=outcome,
        correlation="exact",
        record=None,
        concurrent=0,
        links=(),
        candidates=(),
        counts_start=False,
        request=1,
    )
    return event._replace(**changes)


def test_times_keep_their_fractions() -> None:
    """The time of the last record, of the last success and of an exemplar are seconds with their fraction."""
    made = tally()
    made.parsed(Log("json").request(2.5, "KCHVM0009L"))
    made.event(ended(seconds=7.25))
    _, gauges, histograms = made.take()
    histogram = histograms["wok_task_duration_seconds", *CLONE, "success"]

    assert gauges == {
        ("wok_exporter_last_record_timestamp_seconds",): EPOCH + 2.5,
        ("wok_task_last_success_timestamp_seconds", *CLONE): EPOCH + 7.75,
    }
    assert [exemplar[1:] for exemplar in histogram.exemplars] == [(7.25, CONTEXT[:16].hex(), EPOCH + 7.75)]


def test_durations_of_one_series_add_up() -> None:
    """Two ends in one bucket are two observations with the later one's trace; a bound is in its own bucket."""
    made = tally()
    for event in (ended(seconds=5), ended(seconds=4.5, context=CONTEXT[::-1]), ended(seconds=10**6)):
        made.event(event)
    histogram = made.take()[2]["wok_task_duration_seconds", *CLONE, "success"]
    at = BUCKETS_SECONDS.index(5)

    assert histogram.sum == 10**6 + 9.5
    assert {n: many for n, many in enumerate(histogram.buckets) if many} == {at: 2, len(BUCKETS_SECONDS): 1}
    assert [(exemplar[0], exemplar[2]) for exemplar in histogram.exemplars] == [
        (at, CONTEXT[::-1][:16].hex()),
        (len(BUCKETS_SECONDS), CONTEXT[:16].hex()),
    ]


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_what_an_end_counts(outcome: Outcome) -> None:
    """Every outcome is counted; only a failure has a code, only what ended by itself a time of its last one,
    and only an end that is known a duration.
    """
    made = tally()
    made.event(ended(outcome))
    counters, gauges, histograms = made.take()
    failure: dict[Series, float] = {("wok_task_failures_total", *CLONE, "none"): 1}

    assert counters == {
        ("wok_tasks_finished_total", *CLONE, outcome): 1,
        ("wok_exporter_correlations_total", "exact"): 1,
    } | (failure if outcome == "failure" else {})
    assert list(gauges) == (
        [(f"wok_task_last_{outcome}_timestamp_seconds", *CLONE)] if outcome in ("success", "failure") else []
    )
    assert list(histograms) == (
        [("wok_task_duration_seconds", *CLONE, outcome)] if outcome != "unknown" else []
    )


def test_an_end_without_a_start_counts_both() -> None:
    """A final record that nobody asked for is a start, too, and has no duration."""
    made = tally()
    made.event(ended(counts_start=True))
    counters, _, histograms = made.take()

    assert counters["wok_tasks_started_total", *CLONE] == 1
    assert counters["wok_tasks_finished_total", *CLONE, "success"] == 1
    assert not histograms


def test_starts_and_repeats() -> None:
    """A start is counted each time, but not where its request was counted already; a repeat is no end."""
    made = tally()
    log = Log("json")
    start = TaskStarted(log.started(0, URI), "vms.clone", CONTEXT, b"", "exact", EPOCH * NANOS)
    for event in (start, start, start._replace(counts=False)):
        made.event(event)
    made.event(TaskRepeated(log.finished(1, URI), "vms.clone", CONTEXT, b""))
    counters = {series: value for series, value in made.take()[0].items() if value}

    assert counters == {
        ("wok_tasks_started_total", *CLONE): 2,
        ("wok_task_repeats_total", *CLONE): 1,
    }


def test_a_gauge_does_not_rise_above_the_latest_time() -> None:
    """An end at the latest time is shown, and one after it, of a clock that was ahead, is not."""
    made = tally()
    end = ended().end
    gauge = ("wok_task_last_success_timestamp_seconds", *CLONE)
    shown = []
    for made.latest in (end - 1, end, end + 1, None):
        made.event(ended())
        shown.append(made.take()[1].get(gauge))

    assert shown == [None, EPOCH + 8, EPOCH + 8, EPOCH + 8]


def test_exceptions_of_the_other_log_add_up() -> None:
    """What became of exceptions is counted by result, over several reads of one batch."""
    made = tally()
    made.blocks({"joined": 2, "alone": 1})
    made.blocks({"joined": 3})

    assert made.take()[0] == {
        ("wok_exporter_error_blocks_total", "joined"): 5,
        ("wok_exporter_error_blocks_total", "alone"): 1,
    }


@pytest.mark.parametrize(
    ("status", "code"),
    [(None, "unknown"), (99, "other"), (100, "100"), (599, "599"), (600, "other"), (-200, "other")],
)
def test_the_code_of_a_request(status: int | None, code: str) -> None:
    """Only a status of HTTP is a label; a record without one is `unknown`."""
    assert SeriesLimits([], OPERATIONS.tasks).request("wok", "PUT", status)[3] == code


def test_a_method_that_is_none_of_wok_is_other() -> None:
    """The label `method` has the three methods that Wok logs, and one value for all others."""
    made = SeriesLimits([], OPERATIONS.tasks)

    assert [made.request("wok", method, 200)[2] for method in ("POST", "PUT", "DELETE", "GET")] == [
        "POST",
        "PUT",
        "DELETE",
        "other",
    ]


@pytest.mark.parametrize(
    ("error_code", "exception", "label"),
    [
        ("KCHVM0035E", "", "KCHVM0035E"),
        ("KCHVM0035E", "OSError", "KCHVM0035E"),
        ("", "OSError", "OSError"),
        ("", "made.UpError", "other"),
        ("", "", "none"),
        ("x", "", "other"),
        ("A1", "", "A1"),
        ("A", "", "other"),
        ("A" * 41, "", "A" * 41),
        ("A" * 42, "", "other"),
    ],
)
def test_the_label_of_a_failure(error_code: str, exception: str, label: str) -> None:
    """A failure is counted by its code, else by the class of its exception, if that is a known one."""
    made = SeriesLimits([], OPERATIONS.tasks)

    assert made.failure(*CLONE, error_code, exception) == ("wok_task_failures_total", *CLONE, label)


def test_a_full_family_keeps_what_it_has() -> None:
    """Where there is no more room, the tasks, requests and codes that came first keep their series, also
    over a restart, and `other` takes no room.
    """
    made = SeriesLimits([], OPERATIONS.tasks)
    tasks = [made.task("xyz", f"job{n}") for n in range(300)]
    unknown = [made.request(f"app{n}", "POST", 200) for n in range(500)]
    known = [made.request("wok", method, n) for method in ("PUT", "POST") for n in range(100, 400)]
    made.failure(*CLONE, "made up")
    failures = [made.failure(*CLONE, f"E{n}") for n in range(800)]
    others: list[Series] = [
        ("other", "other"),
        ("wok_requests_total", "other", "POST", "other"),
        ("wok_requests_total", "wok", "POST", "other"),
        ("wok_task_failures_total", *CLONE, "other"),
    ]
    kept = [
        [series for series in given if series not in others] for given in (tasks, unknown, known, failures)
    ]
    table: list[Series] = [
        ("wok_tasks_started_total", app, operation)
        for app in KNOWN_APPS
        for operation in OPERATIONS.tasks(app)
    ]
    started: list[Series] = [("wok_tasks_started_total", *task) for task in kept[0]]
    stored = [*table, ("wok_tasks_started_total", "other", "other"), *started, *kept[1], *kept[2], *kept[3]]
    again = SeriesLimits(stored, OPERATIONS.tasks)

    # 250 tasks but for the room of the table and `other`; 450 requests on each side; 750 codes
    assert [len(series) for series in kept] == [149, 450, 450, 750]
    for bounded in (made, again):
        assert [bounded.task("xyz", "job0"), bounded.task("xyz", "job148")] == [tasks[0], tasks[148]]
        assert bounded.request("app449", "POST", 200) == unknown[449]
        assert bounded.request("wok", "PUT", 100) == known[0]
        assert bounded.failure(*CLONE, "E749") == failures[749]
        assert [
            bounded.task("xyz", "late"),
            bounded.request("late", "POST", 200),
            bounded.request("wok", "POST", 599),
            bounded.failure(*CLONE, "LATE"),
        ] == others


def test_a_restart_does_not_take_room_for_the_table() -> None:
    """Tasks of the table and `other` in the store leave the whole room for made-up names."""
    stored: list[Series] = [
        ("wok_tasks_started_total", *CLONE),
        ("wok_tasks_started_total", "other", "other"),
    ]
    made = SeriesLimits(stored, OPERATIONS.tasks)
    own = [n for n in range(300) if made.task("xyz", f"job{n}") != ("other", "other")]

    assert own == list(range(149))


def test_a_store_that_has_more_than_the_bound_gets_no_more() -> None:
    """Where the store has more series than a bound allows, each keeps its own, and a new name is `other`."""
    pairs = [("xyz", f"job{n}") for n in range(200)]
    requests: list[Series] = [("wok_requests_total", f"app{n}", "POST", "200") for n in range(500)]
    failures: list[Series] = [("wok_task_failures_total", *CLONE, f"E{n}") for n in range(800)]
    started: list[Series] = [("wok_tasks_started_total", *pair) for pair in pairs]
    made = SeriesLimits([*started, *requests, *failures], OPERATIONS.tasks)

    assert [made.task(*pair) for pair in pairs] == pairs
    assert made.task("xyz", "late") == ("other", "other")
    assert made.request("app499", "POST", 200) == requests[499]
    assert made.request("late", "POST", 200)[1] == "other"
    assert made.failure(*CLONE, "E799") == failures[799]
    assert made.failure(*CLONE, "LATE")[3] == "other"

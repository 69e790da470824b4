"""The scrape: all defined metric families from the store, whatever happens to it."""

from __future__ import annotations

import gzip
import os
import re
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from exporter.http.routes import Request, Response
from exporter.metrics import counting
from exporter.metrics.definitions import DURATION_BOUNDS_SECONDS, FAMILIES
from exporter.metrics.scrape import StoreCollector, metrics_handler
from exporter.metrics.series import TASKS_MAX
from exporter.records import Histogram, LastReload
from exporter.store.reader import Reader, Snapshot
from exporter.store.writer import Store, StoreError
from tests.program import installed
from tests.store_made import commit, journal_row, open_task

OPENMETRICS = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3"
TRACE_ID = "6ad3e0b45a0c4a369d0e24b3ad2ddf11"
DURATION = ("wok_task_duration_seconds", "kimchi", "vms.clone", "success")

BUSY = commit(
    counters={
        ("wok_requests_total", "kimchi", "POST", "202"): 3,
        ("wok_requests_total", "wok", "POST", "200"): 1,
        ("wok_tasks_started_total", "kimchi", "vms.clone"): 3,
        ("wok_tasks_started_total", "kimchi", 'odd "name"\\\n'): 1,
        ("wok_tasks_finished_total", "kimchi", "vms.clone", "success"): 1,
        ("wok_task_failures_total", "kimchi", "vms.clone", "KCHVM0001E"): 1,
        ("wok_exporter_lines_total", "record"): 7,
        ("wok_exporter_read_bytes_total",): 1234,
        ("wok_exporter_of_another_release_total", "x"): 9,
        ("wok_requests_total", "too", "few"): 9,
    },
    gauges={
        ("wok_task_last_success_timestamp_seconds", "kimchi", "vms.clone"): 1_470_000_000.0,
        ("wok_exporter_last_record_timestamp_seconds",): 1_470_000_009.0,
    },
    histograms={
        DURATION: Histogram([0, 2, 1] + [0] * 11 + [1], 50007.5, [(1, 1.5, TRACE_ID, 1_470_000_000.0)])
    },
    opened=[open_task(5), open_task(3), open_task(4, operation="vms.migrate")],
    journal=[journal_row("traces", 8, items=4)],
)


class Table:
    """A table of operations of two applications."""

    def tasks(self, app: str) -> Sequence[str]:
        """The operations that start tasks."""
        return {"kimchi": ("vms.clone", "vms.migrate"), "ginger": ("backup.create",)}.get(app, ())


@pytest.fixture(name="store")
def _store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "state")
    store.set_signals(frozenset({"traces", "logs"}))
    yield store
    store.close()


@pytest.fixture(name="reader")
def _reader(store: Store) -> Iterator[Reader]:
    reader = store.reader()
    yield reader
    reader.close()


def collector(snapshot: Callable[[], Snapshot], *, apps: Sequence[str] = ()) -> StoreCollector:
    """A collector of what `snapshot` returns."""
    return StoreCollector(
        snapshot,
        Table(),
        apps=apps,
        behind_bytes=lambda: 77,
        problems=lambda: ["log"],
        last_reload=lambda: LastReload(is_successful=False, success=5.5),
        version="1.2.3",
    )


def scraped(made: StoreCollector) -> str:
    """A whole scrape in the text format."""
    registry = CollectorRegistry()
    registry.register(made)
    return generate_latest(registry).decode()


def samples(text: str) -> dict[tuple[str, ...], float]:
    """The samples of a scrape, by name and label values."""
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def ask(made: StoreCollector, query: dict[str, list[str]] | None = None, **headers: str) -> Response:
    """The answer of `/metrics`; header names are written with `_` for `-`."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return metrics_handler(made)(Request("GET", "/metrics", query or {}, named))


def lines_of(text: str, *starts: str) -> list[str]:
    """The lines of samples that begin with one of `starts`."""
    return [line for line in text.splitlines() if line.startswith(starts)]


def test_stored_values_are_shown(store: Store, reader: Reader) -> None:
    """A scrape shows the store's numbers in the text format, escaped, and nothing that is not defined."""
    store.commit(BUSY, 1.0)
    store.mark_ready()
    text = scraped(collector(reader.snapshot))

    assert lines_of(text, "wok_requests", "wok_task_", "wok_tasks_in", "wok_exporter_journal") == [
        'wok_requests_total{app="kimchi",code="202",method="POST"} 3.0',
        'wok_requests_total{app="wok",code="200",method="POST"} 1.0',
        'wok_task_failures_total{app="kimchi",error_code="KCHVM0001E",operation="vms.clone"} 1.0',
        *(
            f'wok_task_duration_seconds_bucket{{app="kimchi",le="{bound}",operation="vms.clone",outcome="success"}} {n}'
            for bound, n in zip(
                [*map(float, DURATION_BOUNDS_SECONDS), "+Inf"], [0.0, 2.0, *[3.0] * 12, 4.0], strict=True
            )
        ),
        'wok_task_duration_seconds_count{app="kimchi",operation="vms.clone",outcome="success"} 4.0',
        'wok_task_duration_seconds_sum{app="kimchi",operation="vms.clone",outcome="success"} 50007.5',
        'wok_tasks_in_progress{app="kimchi",operation="odd \\"name\\"\\\\\\n"} 0.0',
        'wok_tasks_in_progress{app="kimchi",operation="vms.clone"} 2.0',
        'wok_tasks_in_progress{app="kimchi",operation="vms.migrate"} 1.0',
        'wok_task_oldest_start_timestamp_seconds{app="kimchi",operation="vms.clone"} 3.0',
        'wok_task_oldest_start_timestamp_seconds{app="kimchi",operation="vms.migrate"} 4.0',
        'wok_task_last_success_timestamp_seconds{app="kimchi",operation="vms.clone"} 1.47e+09',
        'wok_exporter_journal_records{signal="logs"} 0.0',
        'wok_exporter_journal_records{signal="traces"} 4.0',
        'wok_exporter_journal_bytes{signal="logs"} 0.0',
        'wok_exporter_journal_bytes{signal="traces"} 10.0',
        'wok_exporter_journal_oldest_timestamp_seconds{signal="traces"} 8.0',
    ]
    found = samples(text)
    assert found["wok_exporter_build_info", "1.2.3"] == 1
    assert found["wok_exporter_behind_bytes",] == 77
    assert found["wok_exporter_reading_problem", "log"] == 1
    assert found["wok_exporter_reading_problem", "state"] == 0
    assert found["wok_exporter_last_reload_successful",] == 0
    assert found["wok_exporter_last_reload_success_timestamp_seconds",] == 5.5
    assert "of_another_release" not in text
    assert '"few"' not in text


def test_failures_exist_before_they_happen(store: Store, reader: Reader) -> None:
    """Every operation of an application seen or configured, and every other seen one, has all outcomes at 0."""
    store.commit(BUSY, 1.0)
    store.mark_ready()
    found = samples(scraped(collector(reader.snapshot, apps=["ginger", "unheard-of"])))

    finished = {key[1:]: value for key, value in found.items() if key[0] == "wok_tasks_finished_total"}
    operations = [
        ("kimchi", "vms.clone"),
        ("kimchi", "vms.migrate"),
        ("kimchi", 'odd "name"\\\n'),
        ("ginger", "backup.create"),
    ]
    expected = {
        (*op, outcome): 0.0 for op in operations for outcome in ("success", "failure", "lost", "unknown")
    }
    assert expected | {("kimchi", "vms.clone", "success"): 1.0} == finished


def test_every_family_is_described_when_empty(store: Store, reader: Reader) -> None:
    """A ready store without a record has HELP and TYPE of every family of the table, in both formats."""
    store.mark_ready()
    made = collector(reader.snapshot)
    text = ask(made).body.decode()
    open_text = ask(made, Accept=OPENMETRICS).body.decode()

    for doc in FAMILIES:
        assert f"# HELP {doc.name} {doc.help}\n# TYPE {doc.name} {doc.type}\n" in text
        assert f"# TYPE {doc.name.removesuffix('_total')} {doc.type}\n" in open_text
        assert doc.help.endswith(".")


def test_table_is_the_contract() -> None:
    """Names are unique and well-formed, units are the ends of names, and the buckets are those that are counted."""
    names = [doc.name for doc in FAMILIES]
    assert len(names) == len(set(names))
    for doc in FAMILIES:
        assert (doc.type == "counter") == doc.name.endswith("_total")
        assert doc.name.removesuffix("_total").endswith(doc.unit)
        assert all(len(known) == len(doc.labels) for known in doc.known)

    assert counting.BUCKETS_SECONDS == DURATION_BOUNDS_SECONDS


def test_history_is_withheld_until_ready(store: Store, reader: Reader) -> None:
    """Before the first backlog is read there is no `wok_*` family; those about the exporter are there."""
    store.commit(BUSY, 1.0)
    made = collector(reader.snapshot)
    before = {family.name for family in made.collect()}
    store.mark_ready()
    after = {family.name for family in made.collect()}

    assert {name for name in after if name.startswith("wok_exporter_")} == before
    assert {doc.name.removesuffix("_total") for doc in FAMILIES} == after


def test_unreadable_store_shows_the_last_values(store: Store, reader: Reader) -> None:
    """While the store cannot be read a scrape shows what it last could, and counts the errors."""
    store.commit(BUSY, 1.0)
    store.mark_ready()
    trouble = False

    def snapshot() -> Snapshot:
        if trouble:
            raise StoreError("no")
        return reader.snapshot()

    made = collector(snapshot)
    good = samples(scraped(made))
    trouble = True
    bad = [samples(scraped(made)) for _ in range(2)]
    trouble = False
    errors = ("wok_exporter_collect_errors_total",)

    assert bad == [good | {errors: 1.0}, good | {errors: 2.0}]
    assert samples(scraped(made)) == good | {errors: 2.0}


def test_store_that_never_could_be_read() -> None:
    """Without any good read the exporter's own families are still answered."""

    def snapshot() -> Snapshot:
        raise StoreError("no")

    found = samples(scraped(collector(snapshot)))

    assert found["wok_exporter_collect_errors_total",] == 1
    assert not [key for key in found if not key[0].startswith("wok_exporter_")]


def test_registering_does_not_read() -> None:
    """Making the handler, which registers the collector, runs no query."""

    def snapshot() -> Snapshot:
        raise AssertionError

    metrics_handler(collector(snapshot))


def test_flood_of_open_tasks_is_bounded(store: Store, reader: Reader) -> None:
    """However many kinds of open tasks a hostile log makes, gauges are bounded, and every task is in one."""
    flood = [open_task(n, operation=f"x{n}") for n in range(TASKS_MAX + 50)]
    store.commit(commit(opened=flood), 1.0)
    store.mark_ready()
    found = samples(scraped(collector(reader.snapshot)))
    in_progress = {
        key[1:]: value for key, value in found.items() if key[0] == "wok_tasks_in_progress" and value
    }

    assert len(in_progress) <= TASKS_MAX
    assert sum(in_progress.values()) == TASKS_MAX + 50


def test_openmetrics_has_exemplars(store: Store, reader: Reader) -> None:
    """Prometheus' own Accept header gets OpenMetrics, which parses strictly and carries the trace ids."""
    store.commit(BUSY, 1.0)
    store.mark_ready()
    made = collector(reader.snapshot)
    answer = ask(made, Accept=OPENMETRICS)
    families = {
        family.name: family
        for family in openmetrics.text_string_to_metric_families(answer.body.decode())  # type: ignore[no-untyped-call]
    }
    exemplars = [
        (sample.labels["le"], sample.exemplar.labels, sample.exemplar.value)
        for sample in families["wok_task_duration_seconds"].samples
        if sample.exemplar
    ]

    assert answer.content_type.startswith("application/openmetrics-text; version=1.0.0")
    assert {name for name in families if not name.startswith("process_")} == {
        doc.name.removesuffix("_total") for doc in FAMILIES
    }
    assert exemplars == [("2.0", {"trace_id": TRACE_ID}, 1.5)]
    assert TRACE_ID not in ask(made).body.decode()


@pytest.mark.parametrize(
    "accept", ["", "*/*", "application/openmetrics-text;version=x", "text/plain;version=;q", ";,;=,"]
)
def test_odd_accept_headers_get_text(store: Store, reader: Reader, accept: str) -> None:
    """Whatever else a client accepts, it is answered in a format that it can read."""
    answer = ask(collector(reader.snapshot), Accept=accept)

    assert answer.content_type.startswith("text/plain; version=0.0.4")
    assert samples(answer.body.decode())["wok_exporter_behind_bytes",] == 77


@pytest.mark.parametrize("version", ["1.0.0;escaping=values", "1.0.0;escaping=x", "2.0.0", "99.0.0"])
def test_any_openmetrics_version_is_answered(store: Store, reader: Reader, version: str) -> None:
    """A version or escaping scheme that nobody knows yet is no reason to fail a scrape."""
    answer = ask(collector(reader.snapshot), Accept=f"application/openmetrics-text;version={version}")

    assert answer.content_type.startswith("application/openmetrics-text")
    assert re.search(rb"_behind__?bytes 77", answer.body)


def test_answers_are_compressed_and_restricted(store: Store, reader: Reader) -> None:
    """Gzip for those who accept it; `name[]` shows just the samples named."""
    store.commit(BUSY, 1.0)
    made = collector(reader.snapshot)
    # Without `process_*`, which differ from scrape to scrape.
    ours = {"name[]": ["wok_exporter_lines_total", "wok_exporter_build_info"]}
    plain, packed = ask(made, ours), ask(made, ours, Accept_Encoding="deflate, GZIP;q=1")
    named = ask(made, {"name[]": ["wok_exporter_behind_bytes", "wok_exporter_lines_total", "nonsense"]})

    assert gzip.decompress(packed.body) == plain.body
    assert (packed.headers["Content-Encoding"], plain.headers.get("Content-Encoding")) == ("gzip", None)
    assert {key[0] for key in samples(named.body.decode())} == {
        "wok_exporter_behind_bytes",
        "wok_exporter_lines_total",
    }


def test_the_process_is_beside_the_store(store: Store, reader: Reader) -> None:
    """A scrape has the process_* metrics of this process: CPU, memory, open files, and when it started."""
    before = time.time()
    found = samples(ask(collector(reader.snapshot)).body.decode())
    ticks, fields = (
        os.sysconf("SC_CLK_TCK"),
        Path("/proc/self/stat").read_text("utf-8").rpartition(")")[2].split(),
    )
    boot = next(int(line.split()[1]) for line in Path("/proc/stat").read_text("utf-8").splitlines() if line.startswith("btime"))  # fmt: skip

    assert abs(found["process_start_time_seconds",] - (boot + int(fields[19]) / ticks)) < 2
    assert found["process_start_time_seconds",] < before
    assert 0 < found["process_cpu_seconds_total",] <= time.process_time()
    assert found["process_virtual_memory_bytes",] > found["process_resident_memory_bytes",] > 2**20
    assert 0 < found["process_open_fds",] < found["process_max_fds",]


def test_scrape_during_a_write(tmp_path: Path, store: Store, reader: Reader) -> None:
    """A scrape during a long write transaction answers at once, with the values before it."""
    store.commit(BUSY, 1.0)
    store.mark_ready()
    before = scraped(collector(reader.snapshot))
    writer = sqlite3.connect(tmp_path / "state" / "state.db", isolation_level=None)
    writer.execute("BEGIN EXCLUSIVE")
    writer.execute("DELETE FROM counter")

    assert scraped(collector(reader.snapshot)) == before

    writer.execute("COMMIT")
    writer.close()

    assert scraped(collector(reader.snapshot)) != before


def test_promtool_finds_nothing_to_say(store: Store, reader: Reader) -> None:
    """Prometheus' own linter accepts the whole scrape."""
    store.commit(BUSY, 1.0)
    store.mark_ready()
    text = scraped(collector(reader.snapshot, apps=["ginger"]))
    checked = subprocess.run(
        [installed("promtool"), "check", "metrics"], input=text, capture_output=True, text=True, check=False
    )

    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")

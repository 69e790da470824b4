"""From a log to the store: batches, failed commits and crashes change nothing of what comes out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from exporter.config.config import load
from exporter.pipeline import commit_builder
from exporter.pipeline.batch_processor import ProcessingConfig
from exporter.pipeline.commit_builder import CommitBuilder
from exporter.pipeline.from_config import messages_of, processing_config_of, telemetry_of
from exporter.pipeline.pipeline import Pipeline
from exporter.pipeline.reader import InProcessReader, OpenSource
from exporter.records import NANOS, SIGNALS, Chunk, Line, Signal
from exporter.simulate.busy import busy
from exporter.simulate.story import story
from exporter.source.archive import Archive
from exporter.source.tail import Tail
from exporter.store.writer import Store, StoreError

BOTH: frozenset[Signal] = frozenset(("traces", "logs"))


class Means(NamedTuple):
    """How a log is processed, and how its events are encoded."""

    processing_config: ProcessingConfig
    commit_builder: CommitBuilder

    def pipeline(self, store: Store, log: OpenSource, wall: Callable[[], int] | None = None) -> Pipeline:
        """A pipeline that reads `log` into `store`."""
        return Pipeline(
            store,
            self.commit_builder,
            lambda loaded: InProcessReader(self.processing_config, loaded, log=log, errors=None, wall=wall),
            now=lambda: 0.0,
        )


@pytest.fixture(name="means", scope="module")
def _means() -> Means:
    config = load({"timezone": "UTC", "instance": "test", "messages": "off"}, {}, "replay")
    messages = messages_of(config)
    return Means(
        processing_config_of(config, messages),
        CommitBuilder(telemetry_of(config, messages, "wok-req.log"), signals=BOTH),
    )


@pytest.fixture(name="log", scope="module")
def _log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log of both dialects with every kind of trouble the stories have."""
    path = tmp_path_factory.mktemp("log") / "wok-req.log"
    start = datetime(2026, 8, 12, 9, tzinfo=UTC)
    lines = [line.data for line in story("rfc", start=start) if line.log == "requests"]
    lines += [
        line.data
        for line in story("json", start=datetime(2026, 8, 12, 10, tzinfo=UTC))
        if line.log == "requests"
    ]
    lines += [
        line.data
        for line in busy(
            "json", start=datetime(2026, 8, 12, 11, tzinfo=UTC), requests=300, per_second=5.0, seed=3
        )
        if line.log == "requests"
    ]
    path.write_bytes(b"\n".join(lines) + b"\n")
    return path


class Pieces:
    """A source that returns lines of an archive in pieces of given sizes, from any position."""

    def __init__(self, path: Path, position: str, sizes: Callable[[], int]) -> None:
        archive = Archive([path])
        self._lines: list[Line] = []
        while not (chunk := archive.read(1 << 20)).caught_up:
            self._lines += chunk.lines
        archive.close()
        self._at = int(position or 0)
        self._sizes = sizes

    def read(self, limit: int) -> Chunk:  # noqa: ARG002 - the size is the test's
        lines = self._lines[self._at : self._at + self._sizes()]
        self._at += len(lines)
        return Chunk(lines, str(self._at), caught_up=self._at == len(self._lines))

    def close(self) -> None:
        pass


def run(store: Store, means: Means, log: Path, sizes: Callable[[], int]) -> None:
    """Run a finished log through a pipeline, as far as it goes."""
    made = means.pipeline(store, lambda position: Pieces(log, position, sizes))
    try:
        while not made.step().caught_up:
            pass
    finally:
        made.close()


def sent(store: Store) -> dict[tuple[str, bytes], bytes]:
    """All queued bytes of the journal, by signal and resource, in order."""
    found: dict[tuple[str, bytes], bytes] = {}
    for signal in SIGNALS:
        for entry in store.journal_read(signal, 1 << 30, 1 << 40):
            key = (signal, entry.resource)
            found[key] = found.get(key, b"") + entry.payload
    return found


class Seen:
    """Everything a store holds that people, Prometheus and backends see; not to
    be printed whole.
    """

    def __init__(self, *parts: Any) -> None:
        self.parts = parts

    def __repr__(self) -> str:
        return "Seen(...)"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Seen) and self.parts == other.parts

    __hash__ = None  # type: ignore[assignment]


def seen(store: Store) -> Seen:
    """Return all that a store holds."""
    reader = store.reader()
    try:
        snapshot = reader.snapshot()
        tasks = reader.tasks(limit=10_000).tasks
        requests = reader.requests_between(0, 1 << 40, 100_000)
        return Seen(
            sent(store),
            snapshot.counters,
            snapshot.gauges,
            snapshot.histograms,
            tasks,
            requests,
            reader.running(),
        )
    finally:
        reader.close()


@pytest.fixture(name="whole", scope="module")
def _whole(means: Means, log: Path, tmp_path_factory: pytest.TempPathFactory) -> Seen:
    store = _fresh(tmp_path_factory.mktemp("whole"))
    run(store, means, log, lambda: 1 << 30)
    found = seen(store)
    store.close()
    return found


def _fresh(directory: Path) -> Store:
    store = Store(directory)
    store.set_signals(BOTH)
    return store


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sizes=st.lists(st.integers(0, 400), min_size=1))
def test_any_cutting_gives_identical_bytes(
    means: Means,
    log: Path,
    whole: Seen,
    tmp_path_factory: pytest.TempPathFactory,
    sizes: list[int],
) -> None:
    """The same log split into any batches gives the same bytes, counters,
    histograms and history.
    """
    store = _fresh(tmp_path_factory.mktemp("cut"))
    turns = iter(sizes)
    run(store, means, log, lambda: next(turns, 97))
    found = seen(store)
    store.close()

    assert found == whole


class Failing(Store):
    """A store whose commit fails now and then, before or after it has written."""

    fails: Iterator[str]

    def commit(self, commit: Any, now_seconds: float) -> None:
        how = next(self.fails, "")
        if how == "before":
            raise StoreError("before")
        super().commit(commit, now_seconds)
        if how == "after":
            raise StoreError("after")


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(fails=st.lists(st.sampled_from(["", "before", "after"]), min_size=5, max_size=60))
def test_a_failed_commit_begins_again_from_the_store(
    means: Means,
    log: Path,
    whole: Seen,
    tmp_path_factory: pytest.TempPathFactory,
    fails: list[str],
) -> None:
    """Commits that fail, before or after they reached the disk, do not change the output."""
    store = Failing(tmp_path_factory.mktemp("fail"))
    store.set_signals(BOTH)
    store.fails = iter(fails)
    for _ in range(len(fails) + 1):
        try:
            run(store, means, log, lambda: 40)
            break
        except StoreError:
            continue
    found = seen(store)
    store.close()

    assert found == whole


def test_ids_are_unique_and_every_line_is_counted(whole: Seen, log: Path) -> None:
    """The story leaves no rejected line, and as many log records as records, lost and expired tasks
    apart.
    """
    counters: dict[tuple[str, ...], float] = whole.parts[1]
    lines = Counter(
        {series[1]: value for series, value in counters.items() if series[0] == "wok_exporter_lines_total"}
    )

    assert lines["record"] + lines["continuation"] + lines["forged"] == len(log.read_bytes().splitlines())
    assert lines["rejected"] == 0


def test_a_first_start_leaves_out_what_is_older(means: Means, log: Path, tmp_path: Path) -> None:
    """Records before `skip_until` are not counted or sent, up to the first later record."""
    store = _fresh(tmp_path)
    later = datetime(2026, 8, 12, 10, tzinfo=UTC).timestamp()
    later_means = means._replace(
        processing_config=means.processing_config._replace(skip_until=int(later) * NANOS)
    )
    run(store, later_means, log, lambda: 50)
    reader = store.reader()
    times = [row.time for row in reader.requests_between(0, 1 << 40, 100_000)]
    reader.close()
    store.close()

    assert times
    assert min(times) >= later * 10**9


def test_idle_steps_commit_nothing(means: Means, tmp_path: Path) -> None:
    """A caught-up pipeline without pending changes does not write, after it stored its first
    position.
    """
    log = tmp_path / "empty.log"
    log.touch()
    store = _fresh(tmp_path / "state")

    made = means.pipeline(store, lambda position: Tail(log, position), wall=lambda: 10**18)
    committed = [made.step().committed for _ in range(3)]
    made.close()
    store.close()

    assert committed == [True, False, False]


def test_a_stall_while_reading_closes_no_window(means: Means, tmp_path: Path) -> None:
    """The wall clock is read before the log, so a line written in between still
    finds its partner.
    """
    log = tmp_path / "user-requests.data"
    start = 1_470_000_000
    info = '"ip": "", "date": "2016-07-31", "time": "21:20:%02d", "zone": "UTC"'
    final = (
        '{"id": "b26ffd08-3c06-443e-bc61-0d42904fcadb", "message": {"code": "WOKASYNC0001L", "params":'
        ' {"target_uri": "/plugins/kimchi/vms/web/migrate"}}, "error": null, "info": {"app": "/plugins/kimchi",'
        ' "req": "TASK", "status": 200, "user": "", ' + info % 0 + "}}\n"
    )
    request = (
        '{"id": "5afaf8a7-0dc6-4ccb-8e31-85120e102ec7", "message": {"code": "KCHVM0010L", "params": {"ident":'
        ' "web", "remote_host": "h"}}, "error": null, "info": {"app": "/plugins/kimchi", "req": "POST", "status":'
        ' 202, "user": "ada", ' + info % 0 + "}}\n"
    )
    now = [start]
    log.write_text(final)

    class Stalling(Archive):
        def read(self, limit: int) -> Chunk:
            chunk = super().read(limit)
            if not chunk.lines and now[0] == start:
                # The process sleeps for an hour here; Wok has written the request's line a moment
                # ago.
                now[0] += 3600
                with log.open("a") as stream:
                    stream.write(request)
            return chunk._replace(caught_up=True)

    store = _fresh(tmp_path / "state")
    made = means.pipeline(store, lambda position: Stalling([log], position), wall=lambda: now[0] * NANOS)
    made.step()
    made.step()
    made.restart()
    made.step()
    made.step()
    made.close()
    reader = store.reader()
    grades = [task.correlation for task in reader.tasks(limit=9).tasks]
    reader.close()
    store.close()

    assert grades == ["exact"]


def test_a_large_batch_is_encoded_in_portions(
    means: Means, log: Path, whole: Seen, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch of very many events, which is encoded during the write, gives the same bytes."""
    monkeypatch.setattr(commit_builder, "EVENTS_AT_ONCE", 50)
    store = _fresh(tmp_path)
    run(store, means, log, lambda: 1 << 30)
    found = seen(store)
    rows = len(store.journal_read("traces", 1 << 30, 1 << 40))
    store.close()

    assert found == whole
    assert rows > 5

"""The daemon from outside: a log that grows at one end, backends and Prometheus at the other.

Where a test needs Wok's own pace, lines are written at the moment they are stamped with: what waits for a partner is
settled by comparing the log's times with the clock. Where it needs Wok's whole day, the daemon runs in this process,
and the clock that it asks is the writer: it writes all lines up to a moment, then says that it is that moment.
"""

from __future__ import annotations

import json
import signal
import sqlite3
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from datetime import UTC, datetime
from itertools import takewhile
from pathlib import Path
from threading import Event, Thread
from typing import Any, Literal, NamedTuple

import pytest
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from prometheus_client.parser import text_string_to_metric_families

from exporter.config.config import load
from exporter.daemon.daemon import Daemon
from exporter.records import NANOS
from exporter.simulate.records import SimulatedLine
from exporter.simulate.story import story
from tests import crash
from tests.program import SAME, environ, free_port, ids, request_line, run, running, wait_until
from tests.sink import Reply, Sink, make_certificates

PAST_SECONDS = 18
SHOWN_SECONDS = 20.5
"""What of the story is there at the start, and where it breaks off: in between a clone fails that has begun before."""


HANGS_SECONDS = 60
"""How long a request may hang: many times what a stop may take, on a machine that has other things to do as well."""


class Wok(Thread):
    """Writes the story's requests: those of the past at once, the others when they happen; `lag` in seconds."""

    def __init__(self, log: Path) -> None:
        super().__init__(daemon=True)
        self.lag = 0.0
        self._log = log
        # Whole seconds in the log: a line must never be stamped later than it is written.
        self._start = int(time.time()) + 1 - PAST_SECONDS
        lines = story("json", start=datetime.fromtimestamp(self._start, UTC))
        self._lines = [
            line for line in takewhile(lambda one: one.at < SHOWN_SECONDS, lines) if line.log == "requests"
        ]
        with log.open("wb") as stream:
            stream.writelines(line.data + b"\n" for line in self._lines if line.at < PAST_SECONDS)

    def run(self) -> None:
        with self._log.open("ab", buffering=0) as stream:
            for line in self._lines:
                if line.at >= PAST_SECONDS:
                    wait = self._start + line.at - time.time()
                    time.sleep(max(0.0, wait))
                    self.lag = max(self.lag, -wait)
                    stream.write(line.data + b"\n")


class Shown(NamedTuple):
    """What two daemons made of the same growing log, one over each protocol."""

    log: Path
    sinks: dict[str, Sink]
    metrics: dict[str, str]
    ready: dict[str, tuple[int, str]]
    exits: dict[str, int]
    said: dict[str, str]


@pytest.fixture(name="shown", scope="module")
def _shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shown]:
    tmp_path = tmp_path_factory.mktemp("shown")
    certificates = make_certificates(tmp_path / "ca")
    log = tmp_path / "user-requests.data"
    with ExitStack() as stack:
        sinks = {
            "http": stack.enter_context(Sink("http", certificates=certificates)),
            "grpc": stack.enter_context(Sink("grpc", certificates=certificates)),
        }
        wok = Wok(log)
        daemons = {
            name: stack.enter_context(
                follow(log, tmp_path / name, environ(**sink.environ(OTEL_EXPORTER_OTLP_COMPRESSION="gzip")))
            )
            for name, sink in sinks.items()
        }
        wok.start()
        wok.join()
        # The failed clone's record comes last, and is settled some seconds later; spans are not sent with it.
        for name, daemon in daemons.items():
            wait_until(lambda name=name: uids(sinks[name]) >= ids(log))  # type: ignore[misc]
            wait_until(lambda daemon=daemon: is_drained(daemon.get("/metrics")[1]))  # type: ignore[misc]
        shown = Shown(
            log,
            sinks,
            metrics={name: daemon.get("/metrics")[1] for name, daemon in daemons.items()},
            ready={name: daemon.get("/readyz") for name, daemon in daemons.items()},
            exits={name: daemon.stop() for name, daemon in daemons.items()},
            said={name: daemon.said for name, daemon in daemons.items()},
        )
        if wok.lag > crash.LAG_SECONDS_MAX:
            pytest.skip(f"this machine is too busy: the log was written {wok.lag:.1f} s late")
        yield shown


def follow(log: Path, state: Path, env: dict[str, str], *more: object) -> Any:
    """Run a daemon on a log, at any free port."""
    state.parent.mkdir(exist_ok=True)
    arguments = ["run", "--log", log, "--state", state, "--listen", "127.0.0.1:0", *SAME, *more]
    return running(*arguments, said=state.with_suffix(".said"), env=env)


def is_drained(scrape: str) -> bool:
    waiting = [line for line in scrape.splitlines() if line.startswith("wok_exporter_journal_records{")]
    return [line.rpartition(" ")[2] for line in waiting] == ["0.0", "0.0"]


def uids(sink: Sink) -> set[str]:
    return {key[-1] for key in sink.logs()}


def spans(sink: Sink) -> list[Span]:
    return [Span.FromString(contents[0]) for contents in sink.spans().values()]


def logs(sink: Sink) -> list[LogRecord]:
    return [LogRecord.FromString(contents[0]) for contents in sink.logs().values()]


def attributes(item: Span | LogRecord) -> dict[str, str]:
    return {one.key: one.value.string_value for one in item.attributes if one.value.HasField("string_value")}


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_a_log_that_grows_arrives_whole(shown: Shown, protocol: str) -> None:
    """Over either protocol, with TLS of a private CA and gzip, every request is a span whose trace is its uuid, and
    every line a log record, a request's in the trace of its own.
    """
    sink = shown.sinks[protocol]
    lines = {one["id"]: one for one in map(json.loads, shown.log.read_bytes().splitlines())}
    requests = {
        bytes.fromhex(id_.replace("-", "")) for id_, one in lines.items() if one["info"]["req"] != "TASK"
    }
    records = {attributes(one)["log.record.uid"]: one for one in logs(sink)}

    assert requests == {one.trace_id for one in spans(sink) if one.kind == Span.SPAN_KIND_SERVER}
    assert requests <= {one.trace_id for one in records.values()}
    assert lines.keys() == records.keys()
    assert {id_: one.trace_id.hex() for id_, one in records.items() if one.event_name == "wok.request"} == {
        id_: id_.replace("-", "") for id_, one in lines.items() if one["info"]["req"] != "TASK"
    }
    assert sink.counts()["repeats"] == 0


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_a_clone_that_fails(shown: Shown, protocol: str) -> None:
    """The task of a failed clone is a child of its request's span, from the one's time to the other's, and an error
    with its reason; its log record stands in the same context.
    """
    sink = shown.sinks[protocol]
    (line,) = [line for line in shown.log.read_bytes().splitlines() if b'"ident": "legacy"' in line]
    (request,) = [
        one for one in spans(sink) if attributes(one).get("wok.record.id") == json.loads(line)["id"]
    ]
    (task,) = [one for one in spans(sink) if one.parent_span_id == request.span_id]
    (told,) = [one for one in logs(sink) if one.span_id == task.span_id]

    assert (request.name, task.name) == ("POST kimchi vms.clone", "task vms.clone")
    assert task.trace_id == request.trace_id == told.trace_id
    assert task.status.code == Status.STATUS_CODE_ERROR
    assert attributes(task)["error.type"] == "KCHVM0035E"
    assert "no space is left in the pool default" in task.status.message
    assert attributes(task)["wok.task.correlation"] == "exact"
    assert 2 <= (task.end_time_unix_nano - task.start_time_unix_nano) / NANOS <= 5
    assert (told.event_name, attributes(told)["exception.type"]) == ("wok.task.failed", "KCHVM0035E")


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_metrics_are_a_recount_of_the_log(shown: Shown, protocol: str) -> None:
    """What a scrape says was read and requested is what a recount of the log says; the failure is among it."""
    found = counted(shown.metrics[protocol])
    wanted = crash.recount(shown.log)

    assert wanted == {series: found.get(series) for series in wanted}
    failed = 'wok_tasks_finished_total{app="kimchi",operation="vms.clone",outcome="failure"} 1.0'
    assert failed in shown.metrics[protocol]
    assert shown.ready[protocol] == (200, "ready\n")


def counted(text: str) -> crash.Counts:
    """Return the compared counters of a scrape."""
    return {
        (sample.name, *(f"{key}={value}" for key, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name in crash.COMPARED
    }


def test_both_protocols_and_a_replay_send_the_same_bytes(shown: Shown) -> None:
    """What one daemon sends over HTTP, another over gRPC, and a replay of the finished log, is the same; HTTP was
    compressed.
    """
    http, grpc = shown.sinks["http"], shown.sinks["grpc"]
    with Sink() as sink:
        done = run("replay", shown.log, *SAME, env=environ(**sink.environ()))
    assert done.returncode == 0, done.stderr

    assert http.spans() == grpc.spans()
    assert http.logs() == grpc.logs()
    # The daemons were stopped before the last windows closed: tasks that run, and the like, are only in the replay.
    assert http.spans().items() <= sink.spans().items()
    assert http.logs().items() <= sink.logs().items()
    assert {"gzip"} == {received.headers["content-encoding"] for received in http.requests}


def test_the_daemons_said_what_they_do_and_ended_well(shown: Shown) -> None:
    """The start names what is read, where it goes and where to look; SIGTERM is a clean end; no other line was said."""
    for name, sink in shown.sinks.items():
        paths = ("/v1/traces", "/v1/logs") if name == "http" else ("", "")
        said = [line.split(" ", 3)[3] for line in shown.said[name].splitlines()]
        port = said[3].removeprefix("INFO serving http://127.0.0.1:").partition("/")[0]
        assert [
            f"INFO reading {shown.log} (time zone: UTC); state in {shown.log.parent / name}",
            f"INFO sending traces to {sink.endpoint}{paths[0]}",
            f"INFO sending logs to {sink.endpoint}{paths[1]}",
            f"INFO serving http://127.0.0.1:{port}/metrics, /healthz and /readyz",
            f"INFO the page: http://127.0.0.1:{port}/",
            f"INFO backlog read; following {shown.log}",
            "INFO stopped",
        ] == said
    assert shown.exits == {"http": 0, "grpc": 0}


# --- backends that are away


@pytest.mark.parametrize("dead", ["traces", "logs"])
def test_a_dead_backend_stops_nobody_else(tmp_path: Path, dead: Literal["traces", "logs"]) -> None:
    """While one signal's backend is away the other signal arrives, metrics go on, and /readyz names the backend with
    a remedy; when it comes, nothing is missing and the exporter is ready again.
    """
    alive = "logs" if dead == "traces" else "traces"
    log = tmp_path / "user-requests.data"
    log.write_bytes(request_line(time.time() - 60, "web1"))
    port = free_port()
    with Sink() as sink:
        places = {
            f"OTEL_EXPORTER_OTLP_{alive.upper()}_ENDPOINT": f"{sink.endpoint}/v1/{alive}",
            f"OTEL_EXPORTER_OTLP_{dead.upper()}_ENDPOINT": f"http://127.0.0.1:{port}/v1/{dead}",
        }
        with follow(log, tmp_path / "state", environ(**places)) as daemon:
            wait_until(
                lambda: daemon.get("/readyz")[0] == 503 and "refuses connections" in daemon.get("/readyz")[1]
            )
            with log.open("ab") as stream:
                stream.write(request_line(time.time(), "web2"))
            wait_until(lambda: len(sink.logs() if alive == "logs" else sink.spans()) == 2)
            status, problem = daemon.get("/readyz")
            scrape = daemon.get("/metrics")[1]
            with Sink(port=port) as late:
                wait_until(lambda: len(late.logs() if dead == "logs" else late.spans()) == 2)
                wait_until(lambda: daemon.get("/readyz") == (200, "ready\n"))
            code = daemon.stop()

    assert code == 0
    assert status == 503
    assert problem == (
        f"{dead}: http://127.0.0.1:{port}/v1/{dead} refuses connections (refused_connection): is the"
        " backend running? Check OTEL_EXPORTER_OTLP_ENDPOINT\n"
    )
    assert f'wok_exporter_journal_records{{signal="{dead}"}} 2.0' in scrape
    assert 'wok_requests_total{app="kimchi",code="200",method="POST"} 2.0' in scrape
    assert f"delivery of {dead} to http://127.0.0.1:{port}/v1/{dead} works again" in daemon.said


def test_a_stop_does_not_wait_for_a_backend_that_hangs(tmp_path: Path) -> None:
    """Over either protocol, SIGTERM ends the daemon within its stop time, with 0, though a backend never answers; the
    next start delivers all.
    """
    log = tmp_path / "user-requests.data"
    log.write_bytes(b"".join(request_line(time.time() - 60, f"web{n}") for n in range(50)))
    with Sink("http") as http, Sink("grpc") as grpc, ExitStack() as stack:
        sinks = {tmp_path / "http": http, tmp_path / "grpc": grpc}
        for sink in sinks.values():
            sink.judge = lambda _: Reply(fault="hang")
        daemons = [
            stack.enter_context(
                follow(log, state, environ(**sink.environ(OTEL_EXPORTER_OTLP_TIMEOUT=str(HANGS_SECONDS))))
            )
            for state, sink in sinks.items()
        ]
        wait_until(lambda: http.request_count == grpc.request_count == 2)
        for daemon in daemons:
            daemon.process.terminate()
        codes = [daemon.process.wait(HANGS_SECONDS / 2) for daemon in daemons]
        before = [(sink.counts()["spans"], sink.counts()["logs"]) for sink in sinks.values()]
        for state, sink in sinks.items():
            sink.judge = lambda _: None
            stack.enter_context(follow(log, state, environ(**sink.environ())))
        for sink in sinks.values():
            wait_until(lambda sink=sink: sink.counts()["spans"] == sink.counts()["logs"] == 50)  # type: ignore[misc]

    assert codes == [0, 0]
    assert before == [(0, 0), (0, 0)]
    assert uids(http) == uids(grpc) == ids(log)


def test_without_a_backend_nothing_is_kept_for_one(tmp_path: Path) -> None:
    """Without an endpoint the start says that nothing is sent, nothing is journalled, and metrics and tasks work."""
    log = tmp_path / "user-requests.data"
    log.write_bytes(request_line(time.time() - 60, "web1"))
    with follow(log, tmp_path / "state", environ()) as daemon:
        daemon.wait_for("backlog read")
        ready, scrape = daemon.get("/readyz"), daemon.get("/metrics")[1]
        code = daemon.stop()
    with closing(sqlite3.connect(tmp_path / "state" / "state.db")) as db:
        rows = db.execute("SELECT count(*) FROM journal").fetchone()[0]

    assert code == 0
    assert "OTEL_EXPORTER_OTLP_ENDPOINT is not set" in daemon.said
    assert ready == (200, "ready\n")
    assert 'wok_requests_total{app="kimchi",code="200",method="POST"} 1.0' in scrape
    assert "wok_exporter_journal_records{" not in scrape
    assert rows == 0


# --- starts


@pytest.mark.parametrize(
    ("start_at", "names"),
    [
        ("beginning", {"yesterday", "morning", "recent", "later"}),
        ("1h", {"recent", "later"}),
        ("end", {"later"}),
        ("{morning}", {"morning", "recent", "later"}),
    ],
)
def test_a_first_start(tmp_path: Path, start_at: str, names: set[str]) -> None:
    """A first start sends what --start-at says; what is written while the daemon is stopped is sent by the second
    start, which begins where the first has ended.
    """
    now = time.time()
    log = tmp_path / "user-requests.data"
    times = {"yesterday": now - 90_000, "morning": now - 10_000, "recent": now - 600}
    log.write_bytes(b"".join(request_line(at, name) for name, at in times.items()))
    moment = datetime.fromtimestamp(int(times["morning"]), UTC).isoformat()
    flags = ["--start-at", start_at.format(morning=moment)]
    with Sink() as sink:
        with follow(log, tmp_path / "state", environ(**sink.environ()), *flags) as daemon:
            daemon.wait_for("backlog read")
            first = daemon.stop()
        with log.open("ab") as stream:
            stream.write(request_line(now, "later"))
        with follow(log, tmp_path / "state", environ(**sink.environ()), *flags) as daemon:
            wait_until(lambda: len(sink.logs()) >= len(names) and len(sink.spans()) >= len(names))
            scrape = daemon.get("/metrics")[1]
            second = daemon.stop()

    assert (first, second) == (0, 0)
    assert {attributes(one)["wok.record.id"] for one in spans(sink)} == uids(sink)
    assert uids(sink) == {json.loads(request_line(now, name))["id"] for name in names}
    assert f'wok_exporter_records_total{{dialect="json",kind="request"}} {len(names)}.0' in scrape


def test_two_daemons_on_one_state(tmp_path: Path) -> None:
    """The second one says whose state it is and what to do, and exits with 2; the first goes on."""
    log = tmp_path / "user-requests.data"
    log.write_bytes(request_line(time.time() - 60, "web1"))
    with follow(log, tmp_path / "state", environ()) as daemon:
        daemon.wait_for("backlog read")
        done = run("run", "--log", log, "--state", tmp_path / "state", "--listen", "off")
        code = daemon.stop()

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"error: {tmp_path / 'state'} is in use by another wok-exporter; stop that one, or give this one another"
        " state directory\n"
    )
    assert code == 0


def test_a_port_that_is_taken(tmp_path: Path) -> None:
    """A start that cannot serve is refused with the address and the remedy."""
    log = tmp_path / "user-requests.data"
    log.touch()
    with follow(log, tmp_path / "state", environ()) as daemon:
        done = run("run", "--log", log, "--state", tmp_path / "other", "--listen", f"127.0.0.1:{daemon.port}")

    assert (done.returncode, done.stdout) == (2, "")
    assert f"error: cannot listen on 127.0.0.1:{daemon.port}" in done.stderr


def test_a_broken_state(tmp_path: Path) -> None:
    """A state that is no database is refused with a sentence and 2; told to restart, the exporter puts it aside and
    goes on with an empty one.
    """
    log, state = tmp_path / "user-requests.data", tmp_path / "state"
    log.write_bytes(request_line(time.time() - 60, "web1"))
    state.mkdir()
    (state / "state.db").write_bytes(b"no database" * 1000)
    done = run("run", "--log", log, "--state", state, "--listen", "off")
    with follow(log, state, environ(), "--on-broken-state", "restart") as daemon:
        daemon.wait_for("backlog read")
        code = daemon.stop()

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines()[-1].startswith(f"error: {state / 'state.db'} is broken (")
    assert "Traceback" not in done.stderr
    assert code == 0
    assert (state / "state.db.broken-1").read_bytes() == b"no database" * 1000


def test_the_state_of_a_replay_is_none_of_a_daemon(tmp_path: Path) -> None:
    """A daemon on the state of a replay says whose it is, and exits with 2: their positions are not alike."""
    log, state = tmp_path / "user-requests.data", tmp_path / "state"
    log.write_bytes(request_line(time.time() - 60, "web1"))
    with Sink() as sink:
        replayed = run("replay", log, "--state", state, env=environ(**sink.environ()))
    done = run("run", "--log", log, "--state", state, "--listen", "off")

    assert replayed.returncode == 0, replayed.stderr
    assert (done.returncode, done.stdout) == (2, "")
    assert f"error: {state} contains the state of a replay" in done.stderr


# --- a whole day, by a clock that writes


class Clock:
    """Writes a story while it tells the time: all lines up to a moment, then that moment, in steps of `step`.

    After the last line it goes on for `rest` seconds, then sets `stopped`. Each look at it calls `looked`.
    """

    def __init__(
        self, lines: Sequence[SimulatedLine], folder: Path, start: datetime, *, step: float, rest: float
    ) -> None:
        self.stopped = Event()
        self.looked: Callable[[], None] = lambda: None
        self._files = {"requests": folder / "user-requests.data", "errors": folder / "wok-error.log"}
        self._lines = list(lines)
        self._start = int(start.timestamp()) * NANOS
        self._step = step
        self._at = 0.0
        self._end = lines[-1].at + rest
        for path in self._files.values():
            path.touch()

    def __call__(self) -> int:
        self.looked()
        self._at += self._step
        while self._lines and self._lines[0].at <= self._at:
            line = self._lines.pop(0)
            with self._files[line.log].open("ab") as stream:
                stream.write(line.data + b"\n")
        if self._at > self._end:
            self.stopped.set()
        return self._start + int(self._at * NANOS)


@pytest.mark.parametrize("dialect", ["rfc", "json"])
def test_a_whole_story(tmp_path: Path, dialect: Literal["rfc", "json"]) -> None:
    """The demo's story, followed step by step through failures, losses and a restart of wokd, gives the spans and log
    records that a replay of the finished log gives, byte for byte.
    """
    start = datetime(2026, 8, 12, 9, tzinfo=UTC)
    clock = Clock(list(story(dialect, start=start)), tmp_path, start, step=0.3, rest=10)
    log, errors = tmp_path / "user-requests.data", tmp_path / "wok-error.log"
    flags = {
        "log": str(log),
        "wok_error_log": str(errors),
        "state": str(tmp_path / "state"),
        "listen": "off",
        "poll_interval": "10ms",
        "start_at": "beginning",
        **{flag[2:].replace("-", "_"): value for flag, value in zip(SAME[::2], SAME[1::2], strict=True)},
    }
    with Sink() as sink, Sink() as again:
        daemon = Daemon(load(flags, {}, "run"), sink.environ(), wall=clock)
        daemon.run(clock.stopped)
        # What the daemon was about to send when it was stopped is sent by the next one.
        rest = Daemon(load(flags, {}, "run"), sink.environ(), wall=clock)
        stopped = Event()
        clock.looked = lambda: stopped.set() if not waiting(rest) else None
        rest.run(stopped)
        done = run("replay", log, "--wok-error-log", errors, *SAME, env=environ(**again.environ()))

    assert done.returncode == 0, done.stderr
    outcomes = [attributes(one).get("wok.task.outcome") for one in spans(sink)]
    assert {"success", "failure", "lost"} <= set(outcomes)
    assert outcomes.count("lost") == 2
    assert firsts(sink.spans()) == firsts(again.spans())
    assert firsts(sink.logs()) == firsts(again.logs())
    assert sink.counts()["conflicts"] == 0


def firsts(found: dict[Any, list[bytes]]) -> dict[Any, bytes]:
    return {key: contents[0] for key, contents in found.items()}


def waiting(daemon: Daemon) -> int:
    return daemon.store.journal_status("traces").records + daemon.store.journal_status("logs").records


def test_history_is_not_shown_as_a_burst(tmp_path: Path) -> None:
    """While the first backlog is read a scrape has no wok_* families of Wok, and /readyz says what is still to do; the
    first scrape that has them has the whole backlog.
    """
    log = tmp_path / "user-requests.data"
    log.write_bytes(b"".join(request_line(1_786_525_200 + n, f"web{n}") for n in range(6000)))
    seen: list[tuple[float | None, str]] = []
    stopped = Event()

    def wall() -> int:
        if server := getattr(daemon, "server", None):
            seen.append((requests_shown(server.port), page(server.port, "/readyz")))
            if seen[-1][1] == "ready\n":
                stopped.set()
        return 1_786_525_200 * NANOS

    flags = {"log": str(log), "state": str(tmp_path / "state"), "listen": "127.0.0.1:0", "timezone": "UTC"}
    flags |= {"poll_interval": "10ms", "start_at": "beginning", "instance": "test", "wok_error_log": "off"}
    daemon: Daemon | None = None
    daemon = Daemon(load(flags, {}, "run"), {}, wall=wall)
    daemon.run(stopped)

    shown = [count for count, _ in seen]
    assert shown.count(None) >= 3
    assert set(shown) == {None, 6000.0}
    assert [ready == "ready\n" for _, ready in seen] == [count is not None for count in shown]
    assert all("still reading the backlog" in ready for count, ready in seen if count is None)


def page(port: int, path: str) -> str:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
            return str(answer.read().decode())
    except urllib.error.HTTPError as error:
        with error:
            return error.read().decode()


def requests_shown(port: int) -> float | None:
    counts = counted(page(port, "/metrics"))
    found = [value for series, value in counts.items() if series[0] == "wok_requests_total"]
    return sum(found) if found else None


# --- SIGKILL


def test_kill_at_any_moment(tmp_path: Path) -> None:
    """A daemon that is killed four times while the log grows and rotates has counted and sent, in the end, what an
    undisturbed one has, and what a recount of the log says.
    """
    log = tmp_path / "wok" / "user-requests.data"
    log.parent.mkdir()
    writer = crash.Writer(log, seconds=5, per_second=200, rotate_lines=400, seed=7)
    # Without the tasks that end a minute later.
    writer._story = takewhile(lambda line: line.at < 5, writer._story)
    port, calm = free_port(), free_port()
    with Sink() as sink, ExitStack() as stack:
        writer.start()
        stack.enter_context(crash.daemon(log, tmp_path / "calm", calm, {}))
        for seconds in (0.4, 0.7, 1.1, 1.5):
            with crash.daemon(log, tmp_path / "state", port, sink.environ()) as process:
                # The moment is the test: anything may be under way when it comes.
                time.sleep(seconds)
                process.send_signal(signal.SIGKILL)
                process.wait()
        writer.join()
        if writer.lag > crash.LAG_SECONDS_MAX:
            pytest.skip(f"this machine is too busy: the log was written {writer.lag:.1f} s late")
        stack.enter_context(crash.daemon(log, tmp_path / "state", port, sink.environ()))
        killed = crash.settled(port, writer.lines, 60)
        undisturbed = crash.settled(calm, writer.lines, 60)
        wait_until(lambda: len(sink.logs()) >= writer.lines)
        wait_until(lambda: not crash.missing(log, sink))

    assert crash.differences("recount", killed, crash.recount(log), subset=True) == []
    assert crash.differences("undisturbed", killed, undisturbed, subset=False) == []
    assert sink.counts()["conflicts"] == 0

"""What a running daemon costs besides processor time a line: memory, idling, delay, a scrape, a start. For `make bench`."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from statistics import median, quantiles
from threading import Event, Thread
from typing import NamedTuple

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

from exporter.store.writer import Store
from tests.bench_logs import request, write_busy, write_open_tasks
from tests.peers import Program, metrics_of, number_of
from tests.program import free_port
from tests.served import ask
from tests.sink import Received, Sink
from tests.store_made import commit, request_row, task_row

MIB = 1024 * 1024
TICKS = os.sysconf("SC_CLK_TCK")
STEP_SECONDS = 0.05
DEADLINE_SECONDS = 600.0
SERIES = 2_000
ROWS = 100_000
RATES = (1, 100, 5_000)


class Usage(NamedTuple):
    """Processor seconds and resident bytes of a process and its children."""

    seconds: float
    resident: int


def usage(pid: int) -> Usage:
    """Add up what a process and its living children use."""
    seconds, resident = 0.0, 0
    for one in (pid, *_children(pid)):
        try:
            fields = Path(f"/proc/{one}/stat").read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        seconds += (int(fields[11]) + int(fields[12])) / TICKS
        resident += int(fields[21]) * os.sysconf("SC_PAGE_SIZE")
    return Usage(seconds, resident)


def _children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


class Daemon(NamedTuple):
    """A daemon of its own process."""

    pid: int
    url: str

    def peak_bytes(self) -> int:
        """Return the most memory that it has had."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
        raise LookupError("VmHWM")

    def seconds(self) -> float:
        """Return the processor seconds of all its threads."""
        tasks = Path(f"/proc/{self.pid}/task").iterdir()
        return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9

    def wait_until_read(self, lines: int) -> None:
        """Wait until it has read so many lines."""
        end = time.monotonic() + DEADLINE_SECONDS
        while number_of(metrics_of(self.url), 'wok_exporter_lines_total{result="record"}') < lines:
            assert time.monotonic() < end, "the log was not read"
            time.sleep(STEP_SECONDS)


@contextmanager
def following(program: Program, log: Path, state: Path, environ: Mapping[str, str]) -> Iterator[Daemon]:
    """Run a daemon on a log from its beginning, inside the block; it serves when the block begins."""
    port = free_port()
    flags = ["--log", str(log), "--state", str(state), "--listen", f"127.0.0.1:{port}"]
    process = subprocess.Popen(
        program.command("run", *flags, "--start-at", "beginning", "--log-level", "error"),
        env={**os.environ, **environ},
        cwd=program.directory,
    )
    daemon = Daemon(process.pid, f"http://127.0.0.1:{port}")
    try:
        end = time.monotonic() + DEADLINE_SECONDS
        while not _serves(daemon):
            assert time.monotonic() < end, "the daemon does not serve"
            time.sleep(0.002)
        yield daemon
    finally:
        process.send_signal(signal.SIGINT)
        process.wait()


def memory(program: Program, folder: Path, environ: Mapping[str, str], sizes: Sequence[int]) -> list[str]:
    """Return rows of a table: the most memory, for logs of these sizes, for open tasks, and for a full queue."""
    rows = []
    log = folder / "memory.log"
    for lines in sizes:
        count = write_busy(log, lines, "json")
        with following(program, log, folder / f"memory-{lines}", environ) as daemon:
            daemon.wait_until_read(count)
            rows.append(f"| log of {lines:,} lines, both signals | {daemon.peak_bytes() / MIB:.0f} |")
    for tasks in (100, 1_000, 10_000, 100_000):
        write_open_tasks(log, tasks)
        with following(program, log, folder / f"tasks-{tasks}", environ) as daemon:
            daemon.wait_until_read(tasks)
            rows.append(f"| {tasks:,} open tasks | {daemon.peak_bytes() / MIB:.0f} |")
    nowhere = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{free_port()}"}
    for lines in (10_000, 100_000):
        count = write_busy(log, lines, "json")
        with following(program, log, folder / f"queue-{lines}", nowhere) as daemon:
            daemon.wait_until_read(count)
            queued = sum(
                number_of(metrics_of(daemon.url), f'wok_exporter_journal_records{{signal="{name}"}}')
                for name in ("traces", "logs")
            )
            rows.append(
                f"| backend unreachable, {queued:,.0f} items queued on disk | {daemon.peak_bytes() / MIB:.0f} |"
            )
    log.unlink()
    return rows


def idle(program: Program, folder: Path, environ: Mapping[str, str], seconds: float) -> str:
    """Return the share of a processor that a daemon needs on a log that nobody writes to."""
    log = folder / "quiet.log"
    count = write_busy(log, 1_000, "json")
    with following(program, log, folder / "idle", environ) as daemon:
        daemon.wait_until_read(count)
        time.sleep(6)
        before, began = daemon.seconds(), time.monotonic()
        time.sleep(seconds)
        share = (daemon.seconds() - before) / (time.monotonic() - began)
        return f"{share:.2%} of a processor over {seconds:.0f} s, {daemon.peak_bytes() / MIB:.0f} MiB"


def delays(program: Program, folder: Path, rate: int, seconds: float, *, watching: int = 0) -> list[float]:
    """Return the seconds from the write of each line to the arrival of its log record, at a rate of lines a second.

    Meanwhile, `watching` clients look at the page.
    """
    log = folder / f"live-{rate}.log"
    log.write_bytes(b"")
    arrivals: list[float] = []

    def arrived(received: Received) -> None:
        now = time.monotonic()
        if received.path == "/v1/logs":
            found = ExportLogsServiceRequest.FromString(received.body)
            arrivals.extend(
                now for r in found.resource_logs for scope in r.scope_logs for _ in scope.log_records
            )

    written: list[float] = []
    with Sink() as sink:
        # Only the time of arrival is of interest, so nothing is stored.
        sink.judge = arrived
        setattr(sink, "_store", lambda *_: None)  # noqa: B010 - a benchmark of its own
        with (
            following(program, log, folder / f"live-{rate}-{watching}", sink.environ()) as daemon,
            viewers(daemon.url, watching),
            log.open("ab", 0) as stream,
        ):
            began = time.monotonic()
            step = max(1, rate // 100)
            for first in range(0, int(rate * seconds), step):
                time.sleep(max(0.0, began + first / rate - time.monotonic()))
                stream.write(
                    b"".join(request(datetime.now(UTC), n) + b"\n" for n in range(first, first + step))
                )
                written += [time.monotonic()] * step
            end = time.monotonic() + DEADLINE_SECONDS
            while len(arrivals) < len(written) and time.monotonic() < end:
                time.sleep(STEP_SECONDS)
    return [later - at for at, later in zip(written, arrivals, strict=True)]


def scrapes(program: Program, folder: Path, tries: int) -> tuple[int, list[float]]:
    """Return the number of series of a state, and the seconds of scrapes of them."""
    state = folder / "series"
    counters = {("wok_requests_total", f"app{n}", "POST", "200"): 1.0 for n in range(SERIES)}
    with closing(Store(state)) as store:
        store.commit(commit(counters=counters), 0.0)
        store.mark_ready()
    log = folder / "empty.log"
    log.touch()
    took = []
    with following(program, log, state, {}) as daemon:
        found = sum(not line.startswith("#") for line in metrics_of(daemon.url).splitlines())
        for _ in range(tries):
            began = time.perf_counter()
            metrics_of(daemon.url)
            took.append(time.perf_counter() - began)
    return found, took


def starts(program: Program, folder: Path, tries: int) -> list[float]:
    """Return the seconds from the start of the process until it serves, with a state of many rows."""
    state = folder / "full"
    with closing(Store(state)) as store:
        for first in range(1, ROWS + 1, 10_000):
            numbers = range(first, first + 10_000)
            requests = [request_row(number) for number in numbers]
            store.commit(commit(requests=requests, tasks=[task_row(number) for number in numbers]), 0.0)
    log = folder / "empty.log"
    log.touch()
    took = []
    for _ in range(tries):
        began = time.monotonic()
        with following(program, log, state, {}):
            took.append(time.monotonic() - began)
    return took


@contextmanager
def viewers(url: str, count: int) -> Iterator[None]:
    """Look at the page as so many open ones do, and scrape, inside the block."""
    stopped = Event()

    def look() -> None:
        while not stopped.wait(0.5):
            for path in ("/api/status", "/api/tasks?limit=500", "/api/requests?limit=2000", "/metrics"):
                with suppress(OSError):
                    ask(url, path)

    threads = [Thread(target=look) for _ in range(count)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stopped.set()
        for thread in threads:
            thread.join()


def spread(seconds: Sequence[float]) -> str:
    """Return the median and the 99th percentile."""
    return f"median {median(seconds) * 1000:.0f} ms, 99 % under {quantiles(seconds, n=100)[98] * 1000:.0f} ms"


def _serves(daemon: Daemon) -> bool:
    try:
        return ask(daemon.url, "/healthz").status == 200
    except OSError:
        return False

"""Measures what the exporter costs, for anyone: `make bench`.

    replay    1,000,000 lines into a local sink, both signals: lines a second, and the memory of all its processes
    idle      `run` on a quiet log: share of one processor, memory
    delay     from a line's write to its span at the sink: requests and ends of tasks; and the same while 20
              clients look at the page and scrape, as often as pages and Prometheus do
    peers     processor time a line, beside other programs over the same log (tests/peers.py)
    api       answers of the API with 100,000 ended tasks and 100,000 requests in the store

Nothing is compared with a limit: machines differ. Compare runs on one machine, at a quiet time.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from datetime import UTC, datetime
from pathlib import Path
from statistics import median, quantiles
from threading import Event, Thread
from typing import NamedTuple

from exporter.simulate.busy import busy
from exporter.simulate.records import Dialect
from exporter.store.writer import Store
from tests import peers
from tests.served import ask, served
from tests.sink import Sink
from tests.store_made import commit, request_row, task_row

TICKS = os.sysconf("SC_CLK_TCK")
MIB = 1024 * 1024
PEER_LINES_MAX = 300_000
TABLE_BEGINS, TABLE_ENDS = "<!-- table of peers -->", "<!-- end of the table -->"
COMMON = ("--timezone", "UTC", "--instance", "bench", "--messages", "off")


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


def write_log(path: Path, lines: int, dialect: Dialect) -> int:
    """Write a busy day's log of about so many lines; return how many."""
    written = 0
    start = datetime(2026, 11, 1, tzinfo=UTC)
    with path.open("wb") as stream:
        for line in busy(dialect, start=start, requests=lines, per_second=30.0, seed=1):
            if line.log == "requests":
                stream.write(line.data + b"\n")
                written += 1
                if written == lines:
                    break
    return written


def replay(folder: Path, lines: int, dialect: Dialect) -> None:
    """Measure a replay into a sink that only counts, in a process of its own."""
    log = folder / f"{dialect}.log"
    count = write_log(log, lines, dialect)
    command = [sys.executable, "-m", "tests.sink", "--port", "24318", "--discard"]
    sink = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert sink.stdout is not None, "opened as a pipe"
    sink.stdout.readline()
    environ = {**os.environ, "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:24318"}
    began = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "exporter", "replay", str(log), *COMMON],
        env=environ,
        stderr=subprocess.DEVNULL,
    )
    resident, seconds = [], 0.0
    while process.poll() is None:
        used = usage(process.pid)
        resident.append(used.resident)
        seconds = max(seconds, used.seconds)
        time.sleep(0.1)
    took = time.monotonic() - began
    sink.terminate()
    received = json.loads(sink.stdout.read().splitlines()[-1])
    quarter = len(resident) // 4
    print(
        f"replay, {dialect}: {count:,} lines in {took:.1f} s: {count / took:,.0f} lines/s,"
        f" {seconds / count * 1e6:.1f} µs of processor a line; exit {process.returncode};"
        f" memory at a quarter {max(resident[: quarter + 1]) / MIB:.0f} MiB, at most {max(resident) / MIB:.0f} MiB;"
        f" the sink took {received['requests']:,} requests of {received['bytes'] / MIB:,.0f} MiB"
    )
    log.unlink()


def idle(folder: Path, seconds: float) -> None:
    """Measure the daemon on a log that nobody writes to."""
    log = folder / "quiet.log"
    write_log(log, 1000, "json")
    command = ["run", "--log", str(log), "--state", str(folder / "idle"), "--listen", "127.0.0.1:24319"]
    environ = {**os.environ, "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:24318"}
    with Sink(port=24318):
        process = subprocess.Popen(
            [sys.executable, "-m", "exporter", *command, *COMMON, "--start-at", "beginning"],
            env=environ,
            stderr=subprocess.DEVNULL,
        )
        time.sleep(6)
        before = usage(process.pid)
        time.sleep(seconds)
        after = usage(process.pid)
        process.terminate()
        process.wait()
    share = (after.seconds - before.seconds) / seconds
    print(f"idle: {share:.2%} of a processor over {seconds:.0f} s, {after.resident / MIB:.0f} MiB")


def delay(folder: Path, seconds: float, *, viewers: int = 0) -> None:
    """Measure the way of a line to its span at the sink, while so many clients look at the page."""
    log = folder / f"live{viewers}.log"
    log.touch()
    command = [
        "run",
        "--log",
        str(log),
        "--state",
        str(folder / f"live{viewers}"),
        "--listen",
        "127.0.0.1:24319",
    ]
    written: dict[str, float] = {}
    is_task: dict[str, bool] = {}
    with Sink() as sink:
        process = subprocess.Popen(
            [sys.executable, "-m", "exporter", *command, *COMMON, "--start-at", "beginning"],
            env={**os.environ, **sink.environ()},
            stderr=subprocess.DEVNULL,
        )
        time.sleep(3)
        seen: dict[str, float] = {}
        stopped = Event()
        looking = [Thread(target=_look_at_the_page, args=(stopped,)) for _ in range(viewers)]
        for thread in looking:
            thread.start()
        with log.open("ab", buffering=0) as stream:
            for line in _paced(seconds):
                stream.write(line + b"\n")
                record = json.loads(line)
                written[record["id"]] = time.monotonic()
                is_task[record["id"]] = record["info"]["req"] == "TASK"
                _look(sink, seen)
        end = time.monotonic() + 8
        while time.monotonic() < end:
            _look(sink, seen)
            time.sleep(0.02)
        stopped.set()
        for thread in looking:
            thread.join()
        process.terminate()
        process.wait()
    beside = f" beside {viewers} viewers" if viewers else ""
    for name, wanted in (("requests", False), ("ends of tasks", True)):
        delays = [seen[uid] - at for uid, at in written.items() if is_task[uid] is wanted and uid in seen]
        missing = sum(is_task[uid] is wanted and uid not in seen for uid in written)
        print(f"delay of {name}{beside}: {_spread(delays)}; {missing} of {missing + len(delays)} not there")


def _look_at_the_page(stopped: Event) -> None:
    """Poll as an open page does (status every two seconds, then what it shows), and scrape now and then."""
    paths = ("/api/status", "/api/tasks?limit=500", "/api/requests?limit=2000", "/metrics")
    while not stopped.wait(0.5):
        for path in paths:
            with suppress(OSError):
                ask("http://127.0.0.1:24319", path)


API_PATHS = (
    "/api/status",
    "/api/tasks",
    "/api/tasks?limit=500",
    "/api/tasks?state=failed",
    "/api/tasks?app=kimchi&operation=vms.clone&outcome=failure",
    "/api/tasks?outcome=lost",
    "/api/tasks?user=admin",
    "/api/tasks?user=nobody",
    "/api/tasks?text=web",
    "/api/tasks?text=never-there",
    "/api/requests?limit=2000",
    "/api/requests?user=nobody",
    "/api/requests?text=never-there",
)


def api(folder: Path, tries: int = 40) -> None:
    """Measure the API over a full history."""
    with closing(Store(folder / "full")) as store:
        for first in range(1, 100_001, 10_000):
            numbers = range(first, first + 10_000)
            requests = [request_row(number) for number in numbers]
            store.commit(commit(requests=requests, tasks=[task_row(number) for number in numbers]), 0.0)
        with served(folder / "full") as url:
            one = ask(url, "/api/tasks?limit=1").json["tasks"][0]["id"]
            took: dict[str, list[float]] = {path: [] for path in (*API_PATHS, f"/api/tasks/{one}")}
            for path in [path for _ in range(tries) for path in took]:
                began = time.perf_counter()
                answer = ask(url, path)
                took[path].append((time.perf_counter() - began) * 1000)
                assert answer.status == 200, (path, answer.status)
    for path, times in sorted(took.items(), key=lambda item: -median(item[1])):
        print(
            f"api: median {median(times):5.1f} ms, 99 % under {quantiles(times, n=100)[98]:5.1f} ms  {path[:60]}"
        )


def beside_peers(folder: Path, lines: int, runs: int, page: Path | None) -> None:
    """Measure what a line costs beside other programs, and put the table into a page."""
    log = folder / "peers.log"
    count = write_log(log, lines, "json")
    table = peers.table(peers.compare(log, runs))
    told = f"{count:,} lines, {log.stat().st_size / count:.0f} bytes a line, {runs} runs; {machine()}"
    print(f"{told}\n{table}")
    if page is not None:
        before, _, rest = page.read_text("utf-8").partition(TABLE_BEGINS)
        after = rest.partition(TABLE_ENDS)[2]
        page.write_text(f"{before}{TABLE_BEGINS}\n{told}\n\n{table}\n{TABLE_ENDS}{after}", "utf-8")


def machine() -> str:
    """Describe the machine, as far as figures depend on it."""
    models = {
        line.partition(": ")[2]
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    }
    return f"{os.cpu_count()} processors ({', '.join(sorted(models)) or platform.machine()}), Python {platform.python_version()}"


def _paced(seconds: float) -> Iterator[bytes]:
    start = float(int(time.time()) + 1)
    lines = busy(
        "json",
        start=datetime.fromtimestamp(start, UTC),
        requests=int(seconds * 10),
        per_second=10.0,
        seed=2,
    )
    for line in lines:
        if line.log == "requests" and line.at < seconds:
            time.sleep(max(0.0, start + line.at - time.time()))
            yield line.data


def _look(sink: Sink, seen: dict[str, float]) -> None:
    now = time.monotonic()
    # A log record arrives with its span, or with the next request of its own: its uid is the line's id.
    for key in sink.logs():
        seen.setdefault(key[-1], now)


def _spread(values: Sequence[float]) -> str:
    if len(values) < 2:
        return f"{len(values)} values"
    return f"median {median(values):.2f} s, 99 % under {quantiles(values, n=100)[98]:.2f} s ({len(values)} values)"


def main() -> None:
    """Run the chosen measurements."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--lines", type=int, default=1_000_000)
    parser.add_argument(
        "--seconds", type=float, default=30.0, help="length of the idle and delay measurements"
    )
    parser.add_argument("--only", choices=["replay", "idle", "delay", "peers", "api"])
    parser.add_argument("--runs", type=int, default=3, help="how often the peers are measured")
    parser.add_argument("--write", type=Path, help="put the table of the peers into this page")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if chosen.only in (None, "replay"):
            replay(folder, chosen.lines, "json")
            replay(folder, chosen.lines, "rfc")
        if chosen.only in (None, "idle"):
            idle(folder, chosen.seconds)
        if chosen.only in (None, "delay"):
            delay(folder, chosen.seconds)
            delay(folder, chosen.seconds, viewers=20)
        if chosen.only in (None, "peers"):
            beside_peers(folder, min(chosen.lines, PEER_LINES_MAX), chosen.runs, chosen.write)
        if chosen.only in (None, "api"):
            api(folder)


if __name__ == "__main__":
    main()

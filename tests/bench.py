"""Measures what the exporter costs, for anyone: `make bench`.

    peers     processor time a line, beside other programs over the same log (tests/peers.py)
    stages    where a line's processor time goes (tests/stages.py)
    logs      processor time a line for other logs: the RFC's format, few tasks, names that never repeat
    memory    the most memory by length of the log, open tasks and queued items
    delay     from the write of a line to its log record at the sink, at several rates; beside viewers of the page
    idle      share of a processor on a quiet log
    start     from the start of the process until it serves, with 100,000 rows of each history
    scrape    scrapes of 2,000 series
    api       answers of the API over a full history

It measures the checkout, and the copy with compiled modules that `make test-compiled` has made, if there is one.
Nothing is compared with a limit: machines differ. Compare figures of one run, at a quiet time. `--write PAGE` puts
the results into a page, between the markers of each measurement.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from statistics import median, quantiles

from exporter.store.writer import Store
from tests import daemon_costs, peers
from tests.bench_logs import QUIET_PER_SECOND, write_busy, write_hostile
from tests.served import ask, served
from tests.stages import STAGES
from tests.store_made import commit, request_row, task_row

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
VIEWERS = 20


class Bench:
    """The measurements, each of which returns Markdown.

    `lines` is the length of the logs, `runs` how often processor time is measured, and `seconds` the length of the
    measurements of delay and idling.
    """

    def __init__(self, folder: Path, lines: int, runs: int, seconds: float) -> None:
        self._folder = folder
        self._lines = lines
        self._runs = runs
        self._seconds = seconds
        self._programs = peers.programs()

    def peers(self) -> str:
        """Compare all programs over a busy log."""
        log = self._folder / "peers.log"
        count = write_busy(log, self._lines, "json")
        told = f"{count:,} lines of {log.stat().st_size / count:.0f} bytes, {self._runs} runs."
        return f"{told} {machine()}\n\n{peers.table(peers.compare(log, self._runs, [*peers.peers(), *peers.ours()]))}"

    def stages(self) -> str:
        """Account the stages of `run`, in each build, with both signals and with none."""
        log = self._folder / "stages.log"
        lines = write_busy(log, min(self._lines, 100_000), "json")
        columns: dict[str, dict[str, float]] = {}
        with peers.discarding() as environ:
            for signals in (("traces", "logs"), ()):
                for program in self._programs:
                    tries = [_stages(program, log, signals, environ) for _ in range(self._runs)]
                    best = min(tries, key=lambda seconds: sum(seconds.values()))
                    columns[f"{program.name}, {'both signals' if signals else 'Prometheus only'}"] = best
        rows = [
            f"| {told} | "
            + " | ".join(f"{found[stage] / lines * 1e6:.1f}" for found in columns.values())
            + " |"
            for stage, told in STAGES.items()
        ]
        sums = " | ".join(f"**{sum(found.values()) / lines * 1e6:.1f}**" for found in columns.values())
        return "\n".join(
            [
                f"| stage | {' | '.join(columns)} |",
                "|---|" + "---|" * len(columns),
                *rows,
                f"| sum | {sums} |",
            ]
        )

    def logs(self) -> str:
        """Measure the first build over other logs."""
        lines = self._lines // 3
        program = self._programs[0]
        kinds: dict[str, Callable[[Path], int]] = {
            "JSON format, busy": lambda log: write_busy(log, lines, "json"),
            "RFC's format, busy": lambda log: write_busy(log, lines, "rfc"),
            "JSON format, few tasks at a time": lambda log: write_busy(log, lines, "json", QUIET_PER_SECOND),
            "no name, address, code or parameter repeats": lambda log: write_hostile(log, lines),
        }
        rows = []
        with peers.discarding() as environ:
            for kind, write in kinds.items():
                log = self._folder / "logs.log"
                count = write(log)
                cells = []
                for run, backend in (
                    (program.follow, environ),
                    (program.follow, {}),
                    (program.replay, environ),
                ):
                    values = [run(log, backend) / count * 1e6 for _ in range(self._runs)]
                    cells.append(f"{min(values):.1f} ({median(values):.1f})")
                rows.append(f"| {kind} | {' | '.join(cells)} |")
                print(rows[-1], file=sys.stderr)
        head = f"| {program.name}, {lines:,} lines | `run` | `run` without a backend | `replay` |"
        return "\n".join([head, "|---|---|---|---|", *rows])

    def memory(self) -> str:
        """Measure the most memory of `run`."""
        sizes = [lines for lines in (10_000, 100_000, 1_000_000) if lines <= max(self._lines, 10_000)]
        with peers.discarding() as environ:
            rows = daemon_costs.memory(self._programs[0], self._folder, environ, sizes)
        return "\n".join([f"| {self._programs[0].name} | MiB |", "|---|---|", *rows])

    def delay(self) -> str:
        """Measure the way of a line to its log record at the sink."""
        rows = []
        for rate in daemon_costs.RATES:
            found = daemon_costs.delays(self._programs[0], self._folder, rate, self._seconds)
            rows.append(f"| {rate:,} lines/s | {daemon_costs.spread(found)} |")
        watched = daemon_costs.delays(self._programs[0], self._folder, 100, self._seconds, watching=VIEWERS)
        rows.append(f"| 100 lines/s, beside {VIEWERS} viewers of the page | {daemon_costs.spread(watched)} |")
        return "\n".join(["| rate | delay |", "|---|---|", *rows])

    def idle(self) -> str:
        """Measure a daemon that has nothing to do."""
        with peers.discarding() as environ:
            return f"Idle: {daemon_costs.idle(self._programs[0], self._folder, environ, self._seconds)}."

    def start(self) -> str:
        """Measure starts with a large state."""
        took = daemon_costs.starts(self._programs[0], self._folder, 10)
        return (
            f"Start with {daemon_costs.ROWS:,} requests and tasks in the history: median {median(took):.2f} s,"
            f" least {min(took):.2f} s, most {max(took):.2f} s."
        )

    def scrape(self) -> str:
        """Measure scrapes of many series."""
        series, took = daemon_costs.scrapes(self._programs[0], self._folder, 200)
        return f"Scrape of {series:,} samples: {daemon_costs.spread(took)}."

    def api(self, tries: int = 40) -> str:
        """Measure the API over a full history."""
        with closing(Store(self._folder / "api")) as store:
            for first in range(1, 100_001, 10_000):
                numbers = range(first, first + 10_000)
                requests = [request_row(number) for number in numbers]
                store.commit(commit(requests=requests, tasks=[task_row(number) for number in numbers]), 0.0)
            with served(self._folder / "api") as url:
                one = ask(url, "/api/tasks?limit=1").json["tasks"][0]["id"]
                took: dict[str, list[float]] = {path: [] for path in (*API_PATHS, f"/api/tasks/{one}")}
                for path in [path for _ in range(tries) for path in took]:
                    began = time.perf_counter()
                    answer = ask(url, path)
                    took[path].append((time.perf_counter() - began) * 1000)
                    assert answer.status == 200, (path, answer.status)
        rows = [
            f"| `{path.replace(one, 'ID')}` | {median(times):.1f} | {quantiles(times, n=100)[98]:.1f} |"
            for path, times in sorted(took.items(), key=lambda item: -median(item[1]))
        ]
        return "\n".join(["| request | median, ms | 99 % under, ms |", "|---|---|---|", *rows])


def _stages(
    program: peers.Program, log: Path, signals: tuple[str, ...], environ: dict[str, str]
) -> dict[str, float]:
    command = [program.python, "-m", "tests.stages", str(log), "--signals", *signals]
    done = subprocess.run(
        command,
        cwd=program.directory,
        env={**os.environ, **environ},
        check=True,
        capture_output=True,
        text=True,
    )
    found: dict[str, float] = json.loads(done.stdout)
    return found


def machine() -> str:
    """Describe the machine, as far as figures depend on it."""
    models = {
        line.partition(": ")[2]
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    }
    return (
        f"{os.cpu_count()} processors ({', '.join(sorted(models)) or platform.machine()}), "
        f"Python {platform.python_version()} built by {platform.python_compiler()}."
    )


def put(page: Path, name: str, text: str) -> None:
    """Replace what stands between the markers of a measurement in a page."""
    before = page.read_text("utf-8")
    marked = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end of {name} -->)", re.DOTALL)
    after, count = marked.subn(lambda found: f"{found[1]}\n{text}\n\n{found[2]}", before)
    assert count == 1, f"{page} has no markers of {name}"
    page.write_text(after, "utf-8")


NAMES = ("peers", "stages", "logs", "memory", "delay", "idle", "start", "scrape", "api")


def main() -> None:
    """Run the chosen measurements."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--lines", type=int, default=300_000, help="length of the logs")
    parser.add_argument("--runs", type=int, default=3, help="how often processor time is measured")
    parser.add_argument(
        "--seconds", type=float, default=30.0, help="length of the measurements of delay and idling"
    )
    parser.add_argument("--only", choices=NAMES, action="append")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="put the results into this page")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        bench = Bench(Path(name), chosen.lines, chosen.runs, chosen.seconds)
        for measurement in chosen.only or NAMES:
            text: str = getattr(bench, measurement)()
            print(f"{measurement}\n\n{text}\n", flush=True)
            if chosen.write is not None:
                put(chosen.write, measurement, text)


if __name__ == "__main__":
    main()

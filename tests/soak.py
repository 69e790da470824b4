"""An hour of a Wok a hundred times busier than any, with faults going on: `make soak`.

A simulated Wok writes `--per-second` requests and their tasks; logs rotate; the backend is
unreachable for minutes, overloaded, or loses its answers; the daemon is killed every few minutes; scrapes and page
polls go on all the time. Memory, descriptors, the state's size and the lag are sampled every second
and drawn into `--chart` (an SVG). At the end the counters must equal a recount of the log, and
everything must have arrived once: the exit code says so.
"""

from __future__ import annotations

import argparse
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from threading import Event, Thread
from typing import NamedTuple

from tests.crash import Writer, daemon, differences, missing, recount, scrape, settled
from tests.daemon_costs import MIB, usage
from tests.program import free_port
from tests.served import ask
from tests.sink import Received, Reply, Sink

FAULT_SECONDS = 60.0
"""A new fault of the backend begins this often, and lasts for half of it."""
KILL_SECONDS = 300.0
FAULTS = (Reply(fault="close"), Reply(status=503), Reply(fault="half", is_kept=True), Reply(fault="hang"))
ROTATE_LINES = 100_000


class Sample(NamedTuple):
    """One look at the daemon: seconds since the start, bytes, a count, bytes, lines."""

    at: float
    resident: int
    descriptors: int
    state: int
    lag: float


def look(pid: int, state: Path, written: int, port: int, began: float) -> Sample | None:
    """Measure the daemon from outside; None while it does not run or does not answer."""
    try:
        descriptors = len(list(Path(f"/proc/{pid}/fd").iterdir()))
        counts = scrape(port)
    except OSError:
        return None
    read = sum(value for series, value in counts.items() if series[0] == "wok_exporter_records_total")
    size = sum(path.stat().st_size for path in state.glob("*") if path.is_file())
    return Sample(time.monotonic() - began, usage(pid).resident, descriptors, size, written - read)


def chart(samples: Sequence[Sample]) -> str:
    """Draw memory, state and lag over time as an SVG: three panels, one scale of time."""
    panels = (
        ("Memory (MiB)", [s.resident / MIB for s in samples]),
        ("Open descriptors", [float(s.descriptors) for s in samples]),
        ("State on disk (MiB)", [s.state / MIB for s in samples]),
        ("Lines written and not read", [s.lag for s in samples]),
    )
    width, height, left = 720, 110, 60
    last = samples[-1].at
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height * len(panels) + 20}">',
        "<style>text { font: 11px sans-serif } .title { font-weight: bold }</style>",
        '<rect width="100%" height="100%" fill="white"/>',
    ]
    for number, (title, values) in enumerate(panels):
        top, bottom = number * height + 22, number * height + height - 6
        highest = max(*values, 1.0)
        points = " ".join(
            f"{left + s.at / last * (width - left - 10):.1f},{bottom - value / highest * (bottom - top):.1f}"
            for s, value in zip(samples, values, strict=True)
        )
        parts += [
            f'<text x="{left}" y="{top - 6}" class="title">{title}</text>',
            f'<text x="{left - 6}" y="{top + 6}" text-anchor="end">{highest:,.0f}</text>',
            f'<text x="{left - 6}" y="{bottom}" text-anchor="end">0</text>',
            f'<line x1="{left}" y1="{bottom}" x2="{width - 10}" y2="{bottom}" stroke="#999"/>',
            f'<polyline fill="none" stroke="#1f6feb" points="{points}"/>',
        ]
    parts += [
        f'<text x="{width - 10}" y="{height * len(panels) + 14}" text-anchor="end">{last / 60:.0f} minutes</text>',
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def weather(sink: Sink, stopped: Event, seed: int) -> None:
    """Let the backend fail and recover until `stopped`."""
    draw = random.Random(seed)
    while not stopped.wait(FAULT_SECONDS / 2):
        reply = draw.choice(FAULTS)

        def judge(_: Received, reply: Reply = reply) -> Reply:
            return reply

        sink.judge = judge
        stopped.wait(FAULT_SECONDS / 2)
        sink.judge = lambda _: None
    sink.judge = lambda _: None


def visit(port: int, stopped: Event) -> None:
    """Poll the page and the metrics as four open pages and a Prometheus would."""
    while not stopped.wait(0.5):
        with suppress(OSError):
            for path in ("/api/status", "/metrics"):
                ask(f"http://127.0.0.1:{port}", path)


def soak(seconds: float, per_second: float, seed: int) -> tuple[list[Sample], list[str], str]:
    """Run the whole experiment; return the samples, the differences, and a summary."""
    began = time.monotonic()
    samples: list[Sample] = []
    with tempfile.TemporaryDirectory() as folder, Sink() as sink, ExitStack() as stack:
        log, state, port = Path(folder) / "wok" / "user-requests.data", Path(folder) / "state", free_port()
        log.parent.mkdir()
        writer = Writer(log, seconds=seconds, per_second=per_second, rotate_lines=ROTATE_LINES, seed=seed)
        stopped = Event()
        threads = [
            Thread(target=weather, args=(sink, stopped, seed), daemon=True),
            Thread(target=visit, args=(port, stopped), daemon=True),
        ]
        for thread in (writer, *threads):
            thread.start()
        env = sink.environ(OTEL_EXPORTER_OTLP_TIMEOUT="5")
        while writer.is_alive():
            with daemon(log, state, port, env) as process:
                end = time.monotonic() + KILL_SECONDS
                while writer.is_alive() and time.monotonic() < end:
                    time.sleep(1)
                    sample = look(process.pid, state, writer.lines, port, began)
                    samples += [sample] if sample else []
                process.send_signal(signal.SIGKILL)
        stopped.set()
        for thread in threads:
            thread.join()
        process = stack.enter_context(daemon(log, state, port, env))
        found = settled(port, writer.lines, 300)
        wrong = differences("recount", found, recount(log), subset=True)
        end = time.monotonic() + 300
        while len(sink.logs()) < writer.lines and time.monotonic() < end:
            time.sleep(1)
        last = look(process.pid, state, writer.lines, port, began)
        samples += [last] if last else []
        wrong += missing(log, sink)
        counts = sink.counts()
        summary = (
            f"{writer.lines:,} lines in {seconds / 60:.0f} minutes (seed {seed}): {len(wrong)} differences;"
            f" {counts['spans']:,} spans, {counts['logs']:,} log records, {counts['repeats']:,} re-sent;"
            f" memory at most {max(s.resident for s in samples) / MIB:.0f} MiB,"
            f" descriptors at most {max(s.descriptors for s in samples)},"
            f" state at most {max(s.state for s in samples) / MIB:.0f} MiB,"
            f" lag at most {max(s.lag for s in samples):,.0f} lines and at the end {samples[-1].lag:,.0f}"
        )
    return samples, wrong, summary


def main() -> int:
    """Run it, draw the chart, print the figures."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--per-second", type=float, default=1000.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--chart", type=Path)
    chosen = parser.parse_args()
    try:
        samples, wrong, summary = soak(chosen.minutes * 60, chosen.per_second, chosen.seed)
    except subprocess.SubprocessError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(summary)
    for line in wrong[:20]:
        print("  " + line)
    if chosen.chart:
        chosen.chart.write_text(chart(samples), encoding="utf-8")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

"""What a line costs, beside what other programs make of the same line: `make bench` (`--only peers`).

Everything reads the same log in the same run, and the figure is processor time (user and system) a
line: the smallest of several runs, with the spread beside it. What each program makes of a line, and
what it does not, is in the table. A peer that is not installed is left out.
"""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from tests.program import free_port

READ = """
import json, sys
for line in open(sys.argv[1], "rb"):
    json.loads(line)
"""
"""The least that a Python program can do with a line."""

ORDINARY = """
import json, sys, uuid
from datetime import datetime, timezone
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
provider = TracerProvider()
provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(), max_queue_size=10_000_000))
tracer = provider.get_tracer("ordinary")
for line in open(sys.argv[1], "rb"):
    record = json.loads(line)
    info = record["info"]
    when = datetime.fromisoformat(f"{info['date']}T{info['time']}").replace(tzinfo=timezone.utc)
    at = int(when.timestamp() * 1e9)
    span = tracer.start_span(f"{info['req']} {info['app']} {record['message']['code']}", start_time=at)
    span.set_attribute("http.response.status_code", info["status"])
    span.set_attribute("user.name", info["user"])
    span.set_attribute("client.address", info["ip"])
    span.set_attribute("wok.app", info["app"])
    span.set_attribute("wok.message.code", record["message"]["code"])
    span.set_attribute("wok.record.id", record["id"])
    span.end(end_time=at + 1)
provider.shutdown()
"""
"""What somebody would write in an afternoon: a flat span a line, nothing durable, no tasks."""

MTAIL = """
counter wok_requests_total by app, method, code
/"app": "(?P<app>[^"]*)", "req": "(?P<method>[A-Z]+)", "status": (?P<code>\\d+)/ {
  wok_requests_total[$app][$method][$code]++
}
"""


class Peer(NamedTuple):
    """A program to measure: what it makes, whether that survives a crash, and how to run it once.

    `run` returns the processor seconds it took.
    """

    name: str
    makes: str
    durable: str
    run: Callable[[Path, Mapping[str, str]], float]


class Cost(NamedTuple):
    """What a line costs a peer, in microseconds of processor time."""

    peer: Peer
    least: float
    most: float


def finished(command: list[str], environ: Mapping[str, str]) -> float:
    """Run a command to its end and return its processor seconds."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        command,
        env={**os.environ, **environ},
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def script(text: str) -> Callable[[Path, Mapping[str, str]], float]:
    """Return what runs a Python program over a log."""
    return lambda log, environ: finished([sys.executable, "-c", text, str(log)], environ)


def mtail(log: Path, environ: Mapping[str, str]) -> float:
    """Run mtail once over a log."""
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "wok.mtail"
        program.write_text(MTAIL)
        return finished(
            ["mtail", "--one_shot", "--progs", str(program), "--logs", str(log), "--address", "127.0.0.1"],
            environ,
        )


def exporter(*arguments: str) -> list[str]:
    common = ("--timezone", "UTC", "--instance", "bench", "--messages", "off", "--wok-error-log", "off")
    return [sys.executable, "-m", "exporter", *arguments, *common]


def replayed(log: Path, environ: Mapping[str, str]) -> float:
    """Replay a log to the backends of the environment."""
    return finished(exporter("replay", str(log)), environ)


def followed(log: Path, environ: Mapping[str, str]) -> float:
    """Let the daemon read a log from its beginning, until all is counted and delivered."""
    lines = log.read_bytes().count(b"\n")
    port = free_port()
    with tempfile.TemporaryDirectory() as state:
        flags = ["--log", str(log), "--state", state, "--listen", f"127.0.0.1:{port}"]
        command = exporter("run", *flags, "--start-at", "beginning", "--log-level", "warning")
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        process = subprocess.Popen(command, env={**os.environ, **environ})
        try:
            while not is_done(port, lines):
                time.sleep(0.3)
        finally:
            process.terminate()
            process.wait()
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def is_done(port: int, lines: int) -> bool:
    """Tell whether a daemon has read so many lines and has nothing left to send."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            text = answer.read().decode()
    except OSError:
        return False
    queued = [line for line in text.splitlines() if line.startswith("wok_exporter_journal_records")]
    return f'lines_total{{result="record"}} {float(lines)}\n' in text and all(
        line.endswith(" 0.0") for line in queued
    )


def peers() -> list[Peer]:
    """Return the programs that can be measured here."""
    found = [
        Peer("Python: read and json.loads", "nothing", "-", script(READ)),
        Peer("mtail", "counters; no tasks, no traces", "no", mtail),
        Peer("ordinary script with the SDK", "a flat span a line; no tasks", "no", script(ORDINARY)),
        Peer(
            "**wok-exporter run**, both signals",
            "spans, tasks, log records, counters, history",
            "yes",
            followed,
        ),
        Peer(
            "**wok-exporter run**, no backend",
            "tasks, counters, history",
            "yes",
            lambda log, _: followed(log, {}),
        ),
        Peer("**wok-exporter replay**", "spans, tasks, log records", "yes", replayed),
    ]
    return [peer for peer in found if peer.name != "mtail" or shutil.which("mtail")]


def compare(log: Path, runs: int) -> list[Cost]:
    """Measure all peers in turn, `runs` times, with a sink that only counts what it receives."""
    lines = log.read_bytes().count(b"\n")
    port = free_port()
    sink = subprocess.Popen(
        [sys.executable, "-m", "tests.sink", "--port", str(port), "--discard"],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert sink.stdout is not None, "opened as a pipe"
    sink.stdout.readline()
    environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}"}
    took: dict[str, list[float]] = {}
    measured = peers()
    try:
        for _ in range(runs):
            for peer in measured:
                took.setdefault(peer.name, []).append(peer.run(log, environ) / lines * 1e6)
                print(f"{peer.name}: {took[peer.name][-1]:.1f} µs a line", file=sys.stderr)
    finally:
        sink.terminate()
        sink.wait()
    return [Cost(peer, min(took[peer.name]), max(took[peer.name])) for peer in measured]


def table(costs: list[Cost]) -> str:
    """Return the costs as a Markdown table."""
    rows = [
        f"| {cost.peer.name} | {cost.peer.makes} | {cost.peer.durable} | {cost.least:.1f} | {cost.most:.1f} |"
        for cost in costs
    ]
    return "\n".join(
        ["| program | makes | durable | µs/line, least | most |", "|---|---|---|---|---|", *rows]
    )

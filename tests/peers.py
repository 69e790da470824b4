"""What a line costs, beside what other programs make of the same line: `make bench` (`--only peers`).

Everything reads the same log in the same run, and the figure is processor time (user and system) a
line: the least, the median and the most of several runs. What each program makes of a line, and
what it does not, is in the table. A peer that is not installed is left out.
"""

from __future__ import annotations

import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import median
from typing import NamedTuple

from exporter.wok.operations import Operations
from tests.program import free_port

ROOT = Path(__file__).parents[1]
COMPILED = ROOT / "build" / "compiled" / "checkout"
COLLECTOR = os.environ.get("BENCH_COLLECTOR") or shutil.which("otelcol-contrib") or ""
"""A collector that contains filelogreceiver, otlphttpexporter and filestorage."""

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


QUIET_LOOKS = 4
BUSY_SECONDS = 0.05
IDLE_START_SECONDS = 0.5

COLLECTOR_CONFIG = """
receivers:
  filelog:
    include: [{log}]
    start_at: beginning
    {checkpoints}
    operators:
      - type: json_parser
exporters:
  otlphttp:
    endpoint: {endpoint}
    {queue}
{extensions}
service:
  {enabled}
  telemetry: {{metrics: {{level: none}}, logs: {{level: error}}}}
  pipelines:
    logs: {{receivers: [filelog], exporters: [otlphttp]}}
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
    values: Sequence[float]


def finished(command: list[str], environ: Mapping[str, str], directory: Path | None = None) -> float:
    """Run a command to its end and return its processor seconds."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        command,
        env={**os.environ, **environ},
        cwd=directory,
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def script(text: str) -> Callable[[Path, Mapping[str, str]], float]:
    """Return what runs a Python program over a log."""
    return lambda log, environ: finished([sys.executable, "-c", text, str(log)], environ)


def patterns_of_tasks(operations: Operations) -> str:
    """Return a program for mtail that counts ended tasks by operation: one pattern for each form of a target_uri."""
    forms = {
        (row.operation, re.sub(r"(\{[^}]*\}|<[^>]*>)", "\0", row.target))
        for row in operations.rows
        if row.target
    }
    lines = ["counter wok_tasks_total by operation", '/"req": "TASK", "status": (?P<code>\\d+)/ {']
    for operation, form in sorted(forms):
        uri = '[^"]*'.join(map(re.escape, form.split("\0"))).replace("/", r"\/")
        lines += [f'  /"target_uri": "{uri}"/ {{', f'    wok_tasks_total["{operation}"]++', "    stop", "  }"]
    return "\n".join([*lines, "}", ""])


def mtail(log: Path, environ: Mapping[str, str], program_text: str = MTAIL) -> float:
    """Run mtail once over a log."""
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "wok.mtail"
        program.write_text(program_text)
        return finished(
            ["mtail", "--one_shot", "--progs", str(program), "--logs", str(log), "--address", "127.0.0.1"],
            environ,
        )


def collector(log: Path, environ: Mapping[str, str], *, is_durable: bool) -> float:
    """Let a collector read a log and send it, until it has nothing more to do."""
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "config.yaml"
        config.write_text(
            COLLECTOR_CONFIG.format(
                log=log,
                endpoint=environ["OTEL_EXPORTER_OTLP_ENDPOINT"],
                checkpoints="storage: file_storage" if is_durable else "",
                queue="sending_queue: {storage: file_storage}" if is_durable else "",
                extensions=f"extensions: {{file_storage: {{directory: {folder}}}}}" if is_durable else "",
                enabled="extensions: [file_storage]" if is_durable else "",
            )
        )
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        process = subprocess.Popen([COLLECTOR, "--config", str(config)], stderr=subprocess.DEVNULL)
        try:
            # It does not say when it has read everything: it has, when it does nothing for two seconds.
            used, quiet = -1.0, 0
            while quiet < QUIET_LOOKS or used < IDLE_START_SECONDS:
                time.sleep(0.5)
                now = _processor_seconds(process.pid)
                quiet = quiet + 1 if now - used < BUSY_SECONDS else 0
                used = now
        finally:
            process.terminate()
            process.wait()
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _processor_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Program(NamedTuple):
    """A build of the exporter: the checkout's, or a copy with compiled modules."""

    name: str
    python: str
    directory: Path

    def command(self, *arguments: str) -> list[str]:
        """Return a command of this program."""
        common = ("--timezone", "UTC", "--instance", "bench", "--messages", "off", "--wok-error-log", "off")
        return [self.python, "-m", "exporter", *arguments, *common]

    def replay(self, log: Path, environ: Mapping[str, str]) -> float:
        """Replay a log to the backends of the environment."""
        return finished(self.command("replay", str(log)), environ, self.directory)

    def follow(self, log: Path, environ: Mapping[str, str]) -> float:
        """Let the daemon read a log from its beginning, until all is counted and delivered."""
        lines = log.read_bytes().count(b"\n")
        port = free_port()
        with tempfile.TemporaryDirectory() as state:
            flags = ["--log", str(log), "--state", state, "--listen", f"127.0.0.1:{port}"]
            command = self.command("run", *flags, "--start-at", "beginning", "--log-level", "error")
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            process = subprocess.Popen(command, env={**os.environ, **environ}, cwd=self.directory)
            try:
                while not is_done(f"http://127.0.0.1:{port}", lines):
                    time.sleep(0.3)
            finally:
                process.terminate()
                process.wait()
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def programs() -> list[Program]:
    """Return the builds that can be measured here; the compiled one first, if `make test-compiled` has made it."""
    found = [Program("pure Python", sys.executable, ROOT)]
    if any(COMPILED.glob("exporter__mypyc.*.so")):
        found.insert(0, Program("compiled", str(COMPILED / ".venv" / "bin" / "python"), COMPILED))
    return found


def metrics_of(url: str) -> str:
    """Return the metrics that a daemon serves, or nothing."""
    try:
        with urllib.request.urlopen(f"{url}/metrics", timeout=10) as answer:
            return str(answer.read().decode())
    except OSError:
        return ""


def number_of(metrics: str, series: str) -> float:
    """Return the value of a series; 0 if it is not there."""
    values = [line.removeprefix(series) for line in metrics.splitlines() if line.startswith(f"{series} ")]
    return float(values[0]) if values else 0.0


def is_done(url: str, lines: int) -> bool:
    """Tell whether a daemon has read so many lines and has nothing left to send."""
    text = metrics_of(url)
    queued = [line for line in text.splitlines() if line.startswith("wok_exporter_journal_records")]
    read = number_of(text, 'wok_exporter_lines_total{result="record"}')
    return read == lines and all(line.endswith(" 0.0") for line in queued)


def peers() -> list[Peer]:
    """Return the other programs that can be measured here."""
    found = [
        Peer("Python: read and json.loads", "nothing", "-", script(READ)),
        Peer("mtail, one pattern", "counters of requests; no ids, no tasks, no traces", "no", mtail),
        Peer(
            "mtail, a pattern for each kind of task",
            "counters of requests and ended tasks; no ids, no durations, no traces",
            "no",
            partial(mtail, program_text=MTAIL + patterns_of_tasks(Operations.load())),
        ),
        Peer(
            "OpenTelemetry Collector, filelog",
            "a log record a line; no tasks, no traces, no counters",
            "no",
            partial(collector, is_durable=False),
        ),
        Peer(
            "the same with checkpoints and a queue on disk",
            "a log record a line; no tasks, no traces, no counters",
            "yes",
            partial(collector, is_durable=True),
        ),
        Peer(
            "ordinary script with the SDK",
            "a flat span a line; no tasks, no log records",
            "no",
            script(ORDINARY),
        ),
    ]
    installed = {"mtail": shutil.which("mtail"), "OpenTelemetry": COLLECTOR, "the": COLLECTOR}
    return [peer for peer in found if installed.get(peer.name.replace(",", " ").split()[0], True)]


def _alone(program: Program, log: Path, _: Mapping[str, str]) -> float:
    return program.follow(log, {})


def ours() -> list[Peer]:
    """Return the exporter's own rows: each build, each way to run it."""
    return [
        peer
        for program in programs()
        for peer in (
            Peer(
                f"**`run`**, {program.name}",
                "spans, tasks, log records, counters, history",
                "yes",
                program.follow,
            ),
            Peer(
                f"**`run` without a backend**, {program.name}",
                "tasks, counters, history",
                "yes",
                partial(_alone, program),
            ),
            Peer(f"**`replay`**, {program.name}", "spans, tasks, log records", "yes", program.replay),
        )
    ]


@contextmanager
def discarding() -> Iterator[dict[str, str]]:
    """Run a sink that only counts what it receives, in a process of its own; give the variables that lead there."""
    port = free_port()
    command = [sys.executable, "-m", "tests.sink", "--port", str(port), "--discard"]
    sink = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert sink.stdout is not None, "opened as a pipe"
    sink.stdout.readline()
    try:
        yield {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}"}
    finally:
        sink.terminate()
        sink.wait()


def compare(log: Path, runs: int, measured: Sequence[Peer]) -> list[Cost]:
    """Measure all peers in turn, `runs` times, with a sink that only counts what it receives."""
    lines = log.read_bytes().count(b"\n")
    took: dict[str, list[float]] = {}
    with discarding() as environ:
        for _ in range(runs):
            for peer in measured:
                took.setdefault(peer.name, []).append(peer.run(log, environ) / lines * 1e6)
                print(f"{peer.name}: {took[peer.name][-1]:.1f} µs a line", file=sys.stderr)
    return [Cost(peer, took[peer.name]) for peer in measured]


def table(costs: list[Cost]) -> str:
    """Return the costs as a Markdown table."""
    rows = [
        f"| {cost.peer.name} | {cost.peer.makes} | {cost.peer.durable}"
        f" | {min(cost.values):.1f} | {median(cost.values):.1f} | {max(cost.values):.1f} |"
        for cost in costs
    ]
    return "\n".join(
        ["| program | makes | durable | least | median | most |", "|---|---|---|---|---|---|", *rows]
    )

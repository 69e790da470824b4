"""Kill the daemon with SIGKILL at random moments and compare what it counted and sent with what the log says.

`make crash`, or `python tests/crash.py --kills 100`. A simulated Wok writes a log at its real pace, rotated now and
then; `wok-exporter run` follows it, is killed again and again, and is left alone at the end. Then:

* the counters on /metrics must equal a recount of the log, made here with nothing but `json`, and must equal those
  of a daemon that reads the same log undisturbed;
* every request and every ended task must be at the sink, and no id with two contents, also after a replay of the
  whole log into the same sink from an empty state.

What it prints are the figures; it exits with 1 when one is wrong.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from prometheus_client.parser import text_string_to_metric_families

sys.path.insert(0, str(Path(__file__).parents[1]))

from exporter.simulate.busy import busy
from tests.sink import Sink

SETTLES_SECONDS = 5.0
"""The last record's window closes three seconds after it by the clock; a second for the turn that sees to it."""
LAG_SECONDS_MAX = 0.9
"""The settling windows compare the log's whole seconds with the wall clock; a writer this late is no Wok."""
COMPARED = (
    "wok_requests_total",
    "wok_tasks_started_total",
    "wok_tasks_finished_total",
    "wok_task_failures_total",
    "wok_task_repeats_total",
    "wok_task_duration_seconds_count",
    "wok_exporter_records_total",
    "wok_exporter_lines_total",
    "wok_exporter_correlations_total",
    "wok_exporter_read_bytes_total",
)
Counts = dict[tuple[str, ...], float]


class Outcome(NamedTuple):
    """What a run of `crash` found: the differences are empty when all is well."""

    kills: int
    lines: int
    differences: list[str]
    spans: int
    logs: int
    repeats: int


class Writer(threading.Thread):
    """A Wok that writes `seconds` of requests at their real pace, and rotates by renaming every `rotate_lines`."""

    def __init__(self, log: Path, *, seconds: float, per_second: float, rotate_lines: int, seed: int) -> None:
        super().__init__(daemon=True)
        self.lag = 0.0
        self.lines = 0
        self._log = log
        self._rotate_lines = rotate_lines
        # Whole seconds in the log: begin with one, so that a line is never stamped before it is written.
        self._start = float(int(time.time()) + 1)
        count = int(seconds * per_second)
        start = datetime.fromtimestamp(self._start, UTC)
        self._story = busy("json", start=start, requests=count, per_second=per_second, seed=seed)

    def run(self) -> None:
        generation = 0
        stream = self._log.open("ab")
        for line in self._story:
            if line.log != "requests":
                continue
            wait = self._start + line.at - time.time()
            if wait > 0:
                stream.flush()
                time.sleep(wait)
            self.lag = max(self.lag, -wait)
            stream.write(line.data + b"\n")
            self.lines += 1
            if self._rotate_lines and self.lines % self._rotate_lines == 0:
                stream.close()
                for at in range(generation, 0, -1):
                    Path(f"{self._log}.{at}").replace(f"{self._log}.{at + 1}")
                self._log.replace(f"{self._log}.1")
                generation += 1
                stream = self._log.open("ab")
        stream.close()


@contextmanager
def daemon(
    log: Path, state: Path, port: int, environ: Mapping[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    """Run the daemon; kill it at the end if it has not been."""
    command = [sys.executable, "-m", "exporter", "run", "--log", str(log), "--state", str(state)]
    command += ["--listen", f"127.0.0.1:{port}", "--start-at", "beginning", "--timezone", "UTC"]
    command += [
        "--instance",
        "crash",
        "--wok-error-log",
        "off",
        "--messages",
        "off",
        "--log-level",
        "warning",
    ]
    process = subprocess.Popen(command, env={**os.environ, **environ})
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def scrape(port: int) -> Counts:
    """Return the compared counters of a running daemon."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    found: Counts = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name in COMPARED and sample.value:
                found[sample.name, *(f"{key}={value}" for key, value in sorted(sample.labels.items()))] = (
                    sample.value
                )
    return found


def settled(port: int, records: int, deadline_seconds: float) -> Counts:
    """Wait until the daemon has read all records and ended what waits; return its counters."""
    end = time.monotonic() + deadline_seconds
    last: Counts = {}
    since = 0.0
    while time.monotonic() < end:
        time.sleep(1)
        try:
            now = scrape(port)
        except OSError:
            continue
        read = sum(value for series, value in now.items() if series[0] == "wok_exporter_records_total")
        if now != last:
            last, since = now, time.monotonic()
        elif read >= records and time.monotonic() - since > SETTLES_SECONDS:
            return now
    raise TimeoutError(f"after {deadline_seconds} s the daemon has not read {records} records")


def recount(log: Path) -> Counts:
    """Count the log with nothing but json: no code of the exporter is asked."""
    counts: Counter[tuple[str, ...]] = Counter()
    for path in log.parent.glob(log.name + "*"):
        for line in path.read_bytes().splitlines():
            record = json.loads(line)
            info = record["info"]
            app = info["app"].rpartition("/")[2] or "wok"
            counts["wok_exporter_lines_total", "result=record"] += 1
            counts[("wok_exporter_read_bytes_total",)] += len(line) + 1
            kind = "task_finished" if info["req"] == "TASK" else "request"
            counts["wok_exporter_records_total", "dialect=json", f"kind={kind}"] += 1
            if info["req"] != "TASK":
                method, code = info["req"], info["status"]
                counts["wok_requests_total", f"app={app}", f"code={code}", f"method={method}"] += 1
    return dict(counts)


def crash(kills: int, *, per_second: float, seed: int) -> Outcome:
    """Run the whole experiment."""
    draw = random.Random(seed)
    seconds = kills * 1.6 + 10
    with tempfile.TemporaryDirectory() as folder, Sink() as sink:
        log, port = Path(folder) / "wok" / "user-requests.data", _free_port()
        log.parent.mkdir()
        writer = Writer(log, seconds=seconds, per_second=per_second, rotate_lines=3000, seed=seed)
        writer.start()
        done = 0
        while done < kills:
            with daemon(log, Path(folder) / "state", port, sink.environ()) as process:
                time.sleep(draw.uniform(0.05, 2.0))
                process.send_signal(signal.SIGKILL)
                done += 1
        writer.join()
        if writer.lag > LAG_SECONDS_MAX:
            raise TimeoutError(f"this machine is too busy: the writer was {writer.lag:.1f} s late")
        with daemon(log, Path(folder) / "state", port, sink.environ()):
            killed = settled(port, writer.lines, 120)
        with daemon(log, Path(folder) / "calm", port, {}):
            calm = settled(port, writer.lines, 120)
        wrong = differences("recount", killed, recount(log), subset=True)
        wrong += differences("undisturbed", killed, calm, subset=False)
        _wait_for(lambda: len(sink.logs()) >= writer.lines)
        wrong += missing(log, sink)
        files = [str(path) for path in log.parent.iterdir()]
        replay = [
            sys.executable,
            "-m",
            "exporter",
            "replay",
            *files,
            "--timezone",
            "UTC",
            "--instance",
            "crash",
        ]
        subprocess.run([*replay, "--messages", "off"], env={**os.environ, **sink.environ()}, check=True)
        wrong += missing(log, sink)
        counts = sink.counts()
        return Outcome(kills, writer.lines, wrong, len(sink.spans()), len(sink.logs()), counts["repeats"])


def differences(name: str, found: Counts, wanted: Counts, *, subset: bool) -> list[str]:
    """Return the series that differ; those that are only `found` do not count with `subset`."""
    keys = wanted.keys() if subset else wanted.keys() | found.keys()
    return [
        f"{name}: {' '.join(key)}: {found.get(key, 0):g}, not {wanted.get(key, 0):g}"
        for key in sorted(keys)
        if found.get(key, 0) != wanted.get(key, 0)
    ]


def missing(log: Path, sink: Sink) -> list[str]:
    """Return what has not arrived at the sink, or has arrived with two contents."""
    spans, logs = sink.spans(), sink.logs()
    traces = {trace_id.hex() for trace_id, _ in spans}
    uids = {key[-1] for key in logs}
    found = [
        f"sink: {len(contents)} contents of span {key}"
        for key, contents in spans.items()
        if len(set(contents)) > 1
    ]
    found += [
        f"sink: {len(contents)} contents of log {key}"
        for key, contents in logs.items()
        if len(set(contents)) > 1
    ]
    for path in log.parent.iterdir():
        for line in path.read_bytes().splitlines():
            record = json.loads(line)
            if record["info"]["req"] != "TASK" and record["id"].replace("-", "") not in traces:
                found.append(f"sink: no span of request {record['id']}")
            if record["id"] not in uids:
                found.append(f"sink: no log record of {record['id']}")
    return found


def _wait_for(is_true: Any) -> None:
    end = time.monotonic() + 60
    while not is_true() and time.monotonic() < end:
        time.sleep(0.2)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def main() -> int:
    """Run it and print the figures."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--per-second", type=float, default=200.0)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    chosen = parser.parse_args()
    outcome = crash(chosen.kills, per_second=chosen.per_second, seed=chosen.seed)
    print(
        f"{outcome.kills} kills (seed {chosen.seed}), {outcome.lines:,} lines: {len(outcome.differences)} differences;"
        f" at the sink {outcome.spans:,} spans and {outcome.logs:,} log records, {outcome.repeats:,} repeats"
    )
    for difference in outcome.differences[:20]:
        print("  " + difference)
    return 1 if outcome.differences else 0


if __name__ == "__main__":
    sys.exit(main())

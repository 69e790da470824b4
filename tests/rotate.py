"""Let the real logrotate rotate a log that is written and read, and compare what was counted and sent with what was written.

`make rotate`, or `python tests/rotate.py`. Each configuration has a folder, a state and a sink of its own. In it a
simulated Wok writes its log at its real pace through the very handler that Wok uses (`WatchedFileHandler`: a stat
before each record, opened again when the name leads to another file), logrotate is forced to rotate every 0.7 s, and
`wok-exporter run` reads; either all the time, or with stops in which the log is rotated on. At the end

* a line that the exporter has not sent must be on no file on the disk, and must have been removed by logrotate in one
  of the ways that are known: deleted by `rotate`, lost by `copytruncate`, or overwritten in a `.backup`;
* the counters must equal a recount of the lines that were sent, made with nothing but `json`: one counted
  twice, or not at all, shows here;
* no id may have two contents at the sink, and none may be there that was not written;
* each run of lines that were deleted unread is one gap in the metric and one warning; elsewhere there is neither.

What it prints are the figures, a line a configuration; it exits with 1 when one is wrong. The two ways in which
logrotate itself loses lines are worth knowing. `copytruncate` cuts the log some time after it was copied. And where the
writer makes the new log before `create` does, logrotate moves it to a `.backup` named after the hour, over the last one.
"""

from __future__ import annotations

import argparse
import gzip
import json
import logging
import logging.handlers
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from itertools import cycle, groupby
from pathlib import Path
from typing import NamedTuple, Self

from prometheus_client.parser import text_string_to_metric_families

sys.path.insert(0, str(Path(__file__).parents[1]))

from exporter.simulate.busy import busy
from tests.crash import Counts, _free_port, _wait_for, differences, recount, settled
from tests.sink import LogKey, Sink, SpanKey

PERIOD_SECONDS = 0.7
"""Between two rotations: some polls of the exporter (250 ms), and no multiple of them."""
ROTATIONS_UP = 3
"""What the exporter sees between two stops: its start takes about one of them."""
STOP_SECONDS_MAX = 10.0
SETTLE_SECONDS_MAX = 60.0
RECOUNTED = (
    "wok_requests_total",
    "wok_exporter_records_total",
    "wok_exporter_lines_total",
    "wok_exporter_read_bytes_total",
)


class Setup(NamedTuple):
    """What logrotate is told, and for how many rotations the exporter is stopped at a time (0: never)."""

    directives: tuple[str, ...]
    rotations_down: int = 0
    rotate: int = 100

    @property
    def name(self) -> str:
        """How the configuration is called in the output."""
        kept = (f"rotate {self.rotate}",) if self.deletes else ()
        return " ".join((*kept, *self.directives)) + (", with stops" if self.rotations_down else ", running")

    @property
    def deletes(self) -> bool:
        """Whether files are deleted that the exporter, being stopped, has not read."""
        return self.rotate < self.rotations_down

    @property
    def cuts(self) -> bool:
        """Whether lines between the copy and the truncation are lost."""
        return "copytruncate" in self.directives


DATEEXT = ("dateext", "dateformat -%Y%m%d%s")
DIRECTIVES = (
    ("create",),
    ("create", *DATEEXT),
    ("create", "compress"),
    ("create", "compress", "delaycompress"),
    ("copytruncate",),
)
SETUPS = (
    *(Setup(directives, down) for directives in DIRECTIVES for down in (0, 2)),
    Setup(("create",), rotations_down=6, rotate=2),
)


class Facts(NamedTuple):
    """What a run has left behind: all that `judge` asks.

    `written` are the lines by id, in their order; `disk` the ids in the files that are left. `gaps` is the metric,
    `warnings` are the exporter's own words. `rotations` were done and `refused` were not (a name was taken).
    """

    written: Mapping[str, bytes]
    disk: Collection[str]
    has_backup: bool
    spans: Mapping[SpanKey, Sequence[bytes]]
    logs: Mapping[LogKey, Sequence[bytes]]
    counts: Counts
    gaps: int
    warnings: Sequence[str]
    rotations: int
    refused: int
    noticed: int
    stops: int

    @property
    def sent(self) -> set[str]:
        """The ids of all records at the sink."""
        return {key[-1] for key in self.logs}

    @property
    def lost(self) -> list[str]:
        """The ids of the lines that were written and not sent, in their order."""
        sent = self.sent
        return [known for known in self.written if known not in sent]


class Wok(threading.Thread):
    """Writes `seconds` of requests at their real pace and remembers them: `written` are the lines by their ids."""

    def __init__(self, log: Path, *, seconds: float, per_second: float, seed: int) -> None:
        super().__init__(daemon=True)
        self.written: dict[str, bytes] = {}
        self._handler = logging.handlers.WatchedFileHandler(log, encoding="utf-8")
        self._seconds = seconds
        # Whole seconds in the log: begin with one, so that a line is never stamped before it is written.
        self._start = float(int(time.time()) + 1)
        start = datetime.fromtimestamp(self._start, UTC)
        count = int(seconds * per_second)
        self._story = busy("json", start=start, requests=count, per_second=per_second, seed=seed)

    def run(self) -> None:
        for line in self._story:
            if line.at > self._seconds:
                break
            if line.log != "requests":
                continue
            time.sleep(max(0.0, self._start + line.at - time.time()))
            self._handler.emit(logging.makeLogRecord({"msg": line.data.decode()}))
            self.written[json.loads(line.data)["id"]] = line.data
        self._handler.close()


class Exporter:
    """The real daemon, which can be stopped and started again; a context manager that leaves none behind."""

    def __init__(self, log: Path, folder: Path, environ: Mapping[str, str]) -> None:
        self.port = _free_port()
        self.stops = 0
        self._words = folder / "stderr"
        self._environ = {**os.environ, **environ}
        self._command = [sys.executable, "-m", "exporter", "run", "--log", str(log)]
        self._command += ["--state", str(folder / "state"), "--listen", f"127.0.0.1:{self.port}"]
        self._command += ["--start-at", "beginning", "--timezone", "UTC", "--instance", "rotate"]
        self._command += ["--wok-error-log", "off", "--messages", "off", "--log-level", "warning"]
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def be(self, *, running: bool) -> None:
        """Start or stop it, unless that is how it is; raises RuntimeError when it does not end well."""
        if running and self._process is None:
            with self._words.open("ab") as words:
                self._process = subprocess.Popen(self._command, env=self._environ, stderr=words)
        elif not running and self._process is not None:
            # Before it has installed its handlers, a signal ends it as any program: on a busy machine it starts late.
            _wait_for(self._answers)
            self._process.terminate()
            code = self._process.wait(STOP_SECONDS_MAX)
            self._process = None
            self.stops += 1
            if code:
                raise RuntimeError(f"the exporter ended with {code}: {self.warnings()}")

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/healthz", timeout=10):
                return True
        except OSError:
            return False

    def warnings(self) -> list[str]:
        """Return the lines it has written for people so far."""
        return self._words.read_text().splitlines()

    def total(self, name: str) -> int:
        """Return a counter's sum over its series."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=10) as answer:
            families = text_string_to_metric_families(answer.read().decode())
        samples = (sample for family in families for sample in family.samples if sample.name == name)
        return int(sum(sample.value for sample in samples))


def rotate(setup: Setup, *, seconds: float, per_second: float, seed: int) -> Facts:
    """Run one configuration; raises RuntimeError when the exporter does not stop as it should."""
    with tempfile.TemporaryDirectory() as name, Sink() as sink:
        folder = Path(name)
        log = folder / "wok" / "user-requests.data"
        log.parent.mkdir(mode=0o755)
        conf = folder / "logrotate.conf"
        inner = "".join(f"    {directive}\n" for directive in (*setup.directives, f"rotate {setup.rotate}"))
        conf.write_text(f"{log} {{\n{inner}}}\n")
        conf.chmod(0o644)  # logrotate reads none that others may write
        command = ["logrotate", "-f", "-s", str(folder / "logrotate.state"), str(conf)]
        wok = Wok(log, seconds=seconds, per_second=per_second, seed=seed)
        wok.start()
        rotations = refused = 0
        with Exporter(log, folder, sink.environ()) as exporter:
            for is_up in cycle([True] * ROTATIONS_UP + [False] * setup.rotations_down):
                exporter.be(running=is_up)
                wok.join(PERIOD_SECONDS)
                if not wok.is_alive():
                    break
                is_done = subprocess.run(command, capture_output=True, check=False).returncode == 0
                rotations += is_done
                refused += not is_done
            exporter.be(running=True)
            disk = _ids_on_disk(log)
            _wait_for(lambda: disk <= {key[-1] for key in sink.logs()})
            counts = settled(exporter.port, 0, SETTLE_SECONDS_MAX)
            return Facts(
                written=wok.written,
                disk=disk,
                has_backup=any(path.suffix == ".backup" for path in log.parent.iterdir()),
                spans=sink.spans(),
                logs=sink.logs(),
                counts=counts,
                gaps=exporter.total("wok_exporter_log_gaps_total"),
                warnings=exporter.warnings(),
                rotations=rotations,
                refused=refused,
                noticed=exporter.total("wok_exporter_rotations_total"),
                stops=exporter.stops,
            )


def judge(setup: Setup, facts: Facts) -> list[str]:
    """Return what is wrong, a sentence each; nothing when all is well."""
    lost, sent_ids = facts.lost, facts.sent
    found = [f"on disk but not sent: {known}" for known in lost if known in facts.disk]
    # An overwritten backup had been there for a rotation at least: time enough for an exporter that runs.
    if not (setup.deletes or setup.cuts or (facts.has_backup and setup.rotations_down)):
        found += [f"neither sent nor on disk: {known}" for known in lost if known not in facts.disk]
    found += [f"sent but never written: {known or 'no id'}" for known in sent_ids - facts.written.keys()]
    found += _in_two_contents(facts)
    traces = {trace_id.hex() for trace_id, _ in facts.spans}
    sent = {known: line for known, line in facts.written.items() if known in sent_ids}
    found += [
        f"no span of request {known}"
        for known, line in sent.items()
        if json.loads(line)["info"]["req"] != "TASK" and known.replace("-", "") not in traces
    ]
    counts = {series: value for series, value in facts.counts.items() if series[0] in RECOUNTED}
    found += differences("recount", counts, _recounted(sent.values()), subset=False)
    gaps = (
        sum(is_lost for is_lost, _ in groupby(facts.written, set(lost).__contains__)) if setup.deletes else 0
    )
    warned = sum("gap: " in line for line in facts.warnings)
    if (facts.gaps, warned) != (gaps, gaps):
        found.append(f"{gaps} gaps: {facts.gaps} in the metric, {warned} warnings")
    if setup.deletes and not lost:
        found.append("nothing was deleted unread: this run has shown nothing")
    if facts.rotations < 2 or (setup.rotations_down and not facts.stops):
        found.append(f"{facts.rotations} rotations and {facts.stops} stops: this run has shown nothing")
    return found


def _in_two_contents(facts: Facts) -> list[str]:
    by_id: defaultdict[str, set[bytes]] = defaultdict(set)
    for key, contents in facts.logs.items():
        by_id[key[-1]].update(contents)
    found = [
        f"{len(contents)} log records of {known}" for known, contents in by_id.items() if len(contents) > 1
    ]
    return found + [
        f"{len(set(contents))} contents of span {span_id.hex()}"
        for (_, span_id), contents in facts.spans.items()
        if len(set(contents)) > 1
    ]


def _ids_on_disk(log: Path) -> set[str]:
    found = set()
    for path in log.parent.iterdir():
        data = path.read_bytes()
        for line in (gzip.decompress(data) if path.suffix == ".gz" else data).splitlines():
            # `copytruncate` may copy half a line.
            if line.startswith(b"{") and line.endswith(b"}}"):
                found.add(json.loads(line)["id"])
    return found


def _recounted(lines: Iterable[bytes]) -> Counts:
    """Recount lines as if they were a log that was never rotated."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "sent"
        log.write_bytes(b"".join(line + b"\n" for line in lines))
        return recount(log)


def told(setup: Setup, facts: Facts, differences: Sequence[str]) -> str:
    """Return the figures of a run as a line."""
    removed = len(facts.written.keys() - facts.disk)
    repeats = sum(len(found) - 1 for kept in (facts.spans, facts.logs) for found in kept.values())
    return (
        f"{setup.name:60} {len(facts.written):6,} lines, {facts.rotations:3} rotations ({facts.noticed} noticed,"
        f" {facts.refused} refused), {facts.stops} stops; gone from disk {removed:5,}, not sent {len(facts.lost):5,},"
        f" gaps {facts.gaps}, repeats {repeats}: {len(differences)} differences"
    )


def main() -> int:
    """Run all configurations and print the figures."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--seconds", type=float, default=12.0, help="how long each is written to")
    parser.add_argument("--per-second", type=float, default=300.0)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--only", default="", help="those whose name has this in it")
    chosen = parser.parse_args()
    if shutil.which("logrotate") is None:
        print("logrotate is not installed")
        return 1
    print(f"seed {chosen.seed}")
    is_wrong = False
    for setup in SETUPS:
        if chosen.only not in setup.name:
            continue
        facts = rotate(setup, seconds=chosen.seconds, per_second=chosen.per_second, seed=chosen.seed)
        differences = judge(setup, facts)
        print(told(setup, facts, differences), flush=True)
        for difference in differences[:20]:
            print("  " + difference)
        is_wrong |= bool(differences)
    return int(is_wrong)


if __name__ == "__main__":
    sys.exit(main())

"""Counts the instructions that a line costs, stage by stage: `make instructions`.

Seconds differ from run to run and from machine to machine; instructions of one Python build on one
input hardly do. Valgrind's callgrind counts them for two logs of different length, and the
difference is what the additional lines cost. The stages are cumulative: `parse`, then `correlate`
with it, then `count`, then `encode`, which is the whole path from a line to the bytes of its span
and log record.

tests/instructions.json has the figures that are accepted, and the Python they are of. With that
Python the command fails when a stage costs over 5 % more; with another it only prints. `--write`
accepts the present figures.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from exporter.correlate.correlator import Correlator
from exporter.metrics.counting import Tally
from exporter.metrics.series import SeriesLimits
from exporter.parse.parser import Parser
from exporter.parse.timezone import Zones
from exporter.records import NANOS, Event, Line, Record, RequestSeen, TaskEnded
from exporter.simulate.busy import busy
from exporter.telemetry.mapping import Telemetry
from exporter.telemetry.resource import Identity
from exporter.wok.messages import Messages
from exporter.wok.operations import Operations

ACCEPTED = Path(__file__).with_suffix(".json")
STAGES = ("parse", "correlate", "count", "encode")
SHORT, LONG = 1000, 4000
TOLERANCE = 0.05
FILE = b"instructions----"


def run(stage: str, log: Path) -> None:
    """Take a log through the stages up to this one."""
    depth = STAGES.index(stage)
    operations = Operations.load()
    parser = Parser("instructions", Zones("UTC"))
    correlator = Correlator(operations, expiry=24 * 3600 * NANOS)
    tally = Tally(SeriesLimits([], operations.tasks))
    identity = Identity("instructions", "host", "h", {})
    telemetry = Telemetry(
        identity, log_file_name="log", privacy="plain", messages=Messages({}), operations=operations
    )
    offset = 0
    for data in log.read_bytes().splitlines():
        for item in parser.feed(Line(FILE, offset, data, len(data))):
            if depth and isinstance(item, Record):
                if depth >= STAGES.index("count"):
                    tally.parsed(item)
                for event in correlator.feed(item):
                    if depth >= STAGES.index("count"):
                        tally.event(event)
                    if depth >= STAGES.index("encode"):
                        encode(telemetry, event)
        offset += len(data) + 1


def encode(telemetry: Telemetry, event: Event) -> None:
    """Make everything that leaves the program of an event."""
    if isinstance(event, RequestSeen):
        telemetry.request_row(event)
        telemetry.span(event)
    elif isinstance(event, TaskEnded):
        telemetry.task_row(event)
        telemetry.span(event)
    telemetry.log(event)


def counted(stage: str, log: Path) -> int:
    """Return the instructions of a process that takes a log through a stage."""
    valgrind = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null"]
    done = subprocess.run(
        [*valgrind, sys.executable, "-m", "tests.instructions", "--stage", stage, "--log", log],
        env={**os.environ, "PYTHONHASHSEED": "0"},
        capture_output=True,
        text=True,
        check=False,
    )
    found = re.search(r"Collected : (\d+)", done.stderr)
    assert done.returncode == 0, done.stderr
    assert found, done.stderr
    return int(found[1])


def measured() -> dict[str, int]:
    """Return the instructions that a line costs, by stage."""
    with tempfile.TemporaryDirectory() as folder:
        logs = {}
        for lines in (SHORT, LONG):
            logs[lines] = Path(folder) / f"{lines}.log"
            start = datetime(2026, 11, 1, tzinfo=UTC)
            story = busy("json", start=start, requests=lines, per_second=1.0, seed=1)
            data = [line.data for line in story if line.log == "requests"][:lines]
            logs[lines].write_bytes(b"\n".join(data))
        return {
            stage: (counted(stage, logs[LONG]) - counted(stage, logs[SHORT])) // (LONG - SHORT)
            for stage in STAGES
        }


def python() -> str:
    """Return what the figures depend on, as a text."""
    return f"{platform.python_implementation()} {platform.python_version()} {platform.machine()}"


def main() -> int:
    """Measure, print, and compare with what is accepted."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--write", action="store_true", help="accept the present figures")
    parser.add_argument("--stage", choices=STAGES, help=argparse.SUPPRESS)
    parser.add_argument("--log", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.stage:
        run(chosen.stage, chosen.log)
        return 0
    if shutil.which("valgrind") is None:
        print("skipped: valgrind is not installed (Debian, Ubuntu: apt install valgrind)")
        return 0
    found = measured()
    if chosen.write:
        ACCEPTED.write_text(json.dumps({"python": python(), "per_line": found}, indent=2) + "\n")
    accepted = json.loads(ACCEPTED.read_text())
    is_comparable = accepted["python"] == python()
    worse = []
    for stage, instructions in found.items():
        before = accepted["per_line"][stage]
        change = instructions / before - 1
        print(f"{stage:10} {instructions:9,} instructions a line ({change:+.1%})")
        if change > TOLERANCE:
            worse.append(stage)
    if not is_comparable:
        print(f"not compared: the accepted figures are of {accepted['python']}, this is {python()}")
        return 0
    if worse:
        print(f"over {TOLERANCE:.0%} more than accepted: {', '.join(worse)}; `--write` accepts it")
    return 1 if worse else 0


if __name__ == "__main__":
    sys.exit(main())

"""The experiment of `rotate.py`, short, and whether it would notice what it is for."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from exporter.source.tail import Tail
from tests.rotate import Facts, Setup, judge, rotate, told

RUNNING = Setup(("create", "compress"))
STOPPING = Setup(("create", "compress"), rotations_down=2)
CUTTING = Setup(("copytruncate",))
DELETING = Setup(("create",), rotations_down=6, rotate=2)

LINES = {
    f"0000000{n}": b'{"id": "0000000%d", "info": {"app": "/plugins/kimchi", "req": "POST", "status": 200}}'
    % n
    for n in range(4)
}
COUNTS = {
    ("wok_requests_total", "app=kimchi", "code=200", "method=POST"): 4.0,
    ("wok_exporter_records_total", "dialect=json", "kind=request"): 4.0,
    ("wok_exporter_lines_total", "result=record"): 4.0,
    ("wok_exporter_read_bytes_total",): float(sum(len(line) + 1 for line in LINES.values())),
}
GOOD = Facts(
    written=LINES,
    disk=set(LINES),
    has_backup=False,
    spans={(bytes.fromhex(known), b"span"): [b"content"] for known in LINES},
    logs={(bytes.fromhex(known), b"span", "", known): [b"content"] for known in LINES},
    counts=COUNTS,
    gaps=0,
    warnings=[],
    rotations=9,
    refused=0,
    noticed=9,
    stops=1,
)
LAST = list(LINES)[-1]
UNSENT: dict[str, Any] = {
    "spans": {key: found for key, found in GOOD.spans.items() if key[0].hex() != LAST},
    "logs": {key: found for key, found in GOOD.logs.items() if key[-1] != LAST},
    "counts": {
        series: value - (value // 4 if series[0] == "wok_exporter_read_bytes_total" else 1)
        for series, value in COUNTS.items()
    },
}


@pytest.mark.skipif(shutil.which("logrotate") is None, reason="logrotate is not installed")
@pytest.mark.parametrize("setup", [STOPPING, CUTTING], ids=lambda setup: setup.name)
def test_rotation_by_logrotate(setup: Setup) -> None:
    """What the real logrotate leaves of a log that is being written is counted once and sent, whole."""
    facts = rotate(setup, seconds=4, per_second=300, seed=1)

    assert judge(setup, facts) == [], told(setup, facts, [])


def test_all_is_well() -> None:
    """Facts of a run in which nothing went wrong are judged so."""
    assert judge(RUNNING, GOOD) == []


@pytest.mark.parametrize(
    ("setup", "changed", "wrong"),
    [
        (RUNNING, UNSENT, [f"on disk but not sent: {LAST}"]),
        (CUTTING, UNSENT, [f"on disk but not sent: {LAST}"]),
        (RUNNING, UNSENT | {"disk": set(LINES) - {LAST}}, [f"neither sent nor on disk: {LAST}"]),
        (
            RUNNING,
            UNSENT | {"disk": set(LINES) - {LAST}, "has_backup": True},
            [f"neither sent nor on disk: {LAST}"],
        ),
        (STOPPING, UNSENT | {"disk": set(LINES) - {LAST}, "has_backup": True}, []),
        (CUTTING, UNSENT | {"disk": set(LINES) - {LAST}}, []),
        (DELETING, UNSENT | {"disk": set(LINES) - {LAST}}, ["1 gaps: 0 in the metric, 0 warnings"]),
        (DELETING, {}, ["nothing was deleted unread: this run has shown nothing"]),
        (RUNNING, {"gaps": 1, "warnings": ["gap: gone"]}, ["0 gaps: 1 in the metric, 1 warnings"]),
        (RUNNING, {"rotations": 1}, ["1 rotations and 1 stops: this run has shown nothing"]),
        (RUNNING, {"spans": UNSENT["spans"]}, [f"no span of request {LAST}"]),
        (
            RUNNING,
            {"counts": COUNTS | {("wok_exporter_lines_total", "result=rejected"): 1.0}},
            ["recount: wok_exporter_lines_total result=rejected: 1, not 0"],
        ),
        (
            RUNNING,
            {"counts": COUNTS | {("wok_exporter_records_total", "dialect=json", "kind=request"): 5.0}},
            ["recount: wok_exporter_records_total dialect=json kind=request: 5, not 4"],
        ),
        (
            RUNNING,
            {"logs": {**GOOD.logs, (b"another", b"span", "", LAST): [b"other content"]}},
            [f"2 log records of {LAST}"],
        ),
        (
            RUNNING,
            {"logs": {**GOOD.logs, (b"", b"", "", "9"): [b"content"]}},
            ["sent but never written: 9"],
        ),
        (
            RUNNING,
            {"spans": {**GOOD.spans, (b"another", b"\x01"): [b"content", b"other content"]}},
            ["2 contents of span 01"],
        ),
    ],
)
def test_what_is_wrong_is_told(setup: Setup, changed: dict[str, Any], wrong: list[str]) -> None:
    """Each thing that can go wrong in a run is found in its facts, and what logrotate does itself is not."""
    assert judge(setup, GOOD._replace(**changed)) == wrong


def test_backup_beside_dates_to_the_second(tmp_path: Path) -> None:
    """A `.backup`, whose name is of an hour, is read in its turn although the other names are of another form."""
    log = tmp_path / "log"
    names = ["log-202611241764000000", "log-2026112408.backup", "log-202611241764000900", "log"]
    for number, name in enumerate(names):
        path = tmp_path / name
        path.write_bytes(b"line %d\n" % number)
        # as a kernel's tick makes them: the backup is no younger than the file that was rotated before it
        os.utime(path, (number // 2, number // 2))
    tail = Tail(log)
    lines = [line.data for _ in range(9) for line in tail.read(100).lines]
    tail.close()

    assert lines == [b"line 0", b"line 1", b"line 2", b"line 3"]

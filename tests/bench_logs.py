"""The logs of the benchmarks: busy, with few tasks at a time, hostile, or with tasks that never end."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any

from exporter.simulate.busy import busy
from exporter.simulate.records import Dialect

BUSY_PER_SECOND = 30.0
"""Requests a second of a log with eight links a line."""
QUIET_PER_SECOND = 0.05
"""Requests a second of most hosts: one line in ten has a link."""
START = datetime(2026, 11, 1, tzinfo=UTC)


def write_busy(path: Path, lines: int, dialect: Dialect, per_second: float = BUSY_PER_SECOND) -> int:
    """Write the log of a simulated Wok; return its number of lines."""
    story = busy(dialect, start=START, requests=lines, per_second=per_second, seed=1)
    return _write(path, islice((line.data for line in story if line.log == "requests"), lines))


def write_hostile(path: Path, lines: int) -> int:
    """Write the log of somebody who uses every name, address, code and parameter only once."""
    return _write(path, (_hostile(number) for number in range(lines)))


def write_open_tasks(path: Path, tasks: int) -> int:
    """Write a log of requests a few minutes ago whose tasks have not ended."""
    start = datetime.now(UTC) - timedelta(minutes=10)
    return _write(
        path,
        (
            request(
                start + timedelta(seconds=number // 1000),
                number,
                code="KCHVM0010L",
                status=202,
                params={"ident": f"vm-{number}", "remote_host": "kvm02", "user": "root"},
            )
            for number in range(tasks)
        ),
    )


def request(
    at: datetime, number: int, *, code: str = "KCHVM0004L", status: int = 200, **changed: Any
) -> bytes:
    """Return the line of a request."""
    info = {"app": "/plugins/kimchi", "req": "POST", "status": status, "user": "ada", "ip": "192.0.2.1"}
    info |= {"date": f"{at:%Y-%m-%d}", "time": f"{at:%H:%M:%S}", "zone": "UTC"} | changed.get("info", {})
    params = changed.get("params", {"ident": "web", "remote_host": ""})
    record = {"id": f"00000001-0000-4000-8000-{number:012x}", "message": {"code": code, "params": params}}
    return json.dumps(record | {"error": None, "info": info}).encode()


def _hostile(number: int) -> bytes:
    return request(
        START + timedelta(seconds=number // 30),
        number,
        code=f"KCHX{number:06}L",
        status=202 if number % 3 else 400,
        params={f"name{number}": f"value-{number}", "ident": f"guest-{number}", "path": f"/a/{number}/b"},
        info={"user": f"user-{number}", "ip": f"2001:db8::{number:x}", "app": f"/plugins/p{number}"},
    )


def _write(path: Path, lines: Iterator[bytes]) -> int:
    count = 0
    with path.open("wb") as stream:
        for line in lines:
            stream.write(line + b"\n")
            count += 1
    return count

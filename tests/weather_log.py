"""A Wok and its log files, which rotate, are cut, and are edited: the part of `tests/weather.py` that writes.

`lines` is what was ever written, as the truth, and `whole` is a file of all of it, which nobody rotates or edits.
"""

from __future__ import annotations

import gzip
import json
import os
import shutil
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, NamedTuple
from uuid import UUID, uuid5

Rotation = Literal["rename", "gzip", "date", "copytruncate"]
Edit = Literal["delete", "tail", "in place"]
"""`sed -i` of a line, `tail -n > new; mv new log`, and an editor that writes into the file itself."""

TAIL_LINES = 5
CHAIN = (
    "Listening for SIGTERM.",
    "Listening for SIGHUP.",
    "Listening for SIGUSR1.",
    "Bus STARTING",
    "Serving on http://127.0.0.1:8010",
    "Bus STARTED",
)
"""What a true start of wokd writes into wok-error.log."""


class Written(NamedTuple):
    """A line of the log: its id, and whether it is of a request."""

    uid: str
    is_request: bool
    data: bytes


class WokLog:
    """The log files below `folder`. Times of the log are its own: they only say the order."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "wok" / "user-requests.data"
        self.errors = folder / "wok" / "wok-error.log"
        self.whole = folder / "whole" / "user-requests.data"
        self.lines: list[Written] = []
        self.is_edited = False
        self._now = int(time.time()) - 40_000
        self._rotations = 0
        self._torn = b""
        self.whole.parent.mkdir(parents=True)
        self.file.parent.mkdir(parents=True)
        self.errors.touch()

    def request(self, name: str, *, status: int = 202) -> None:
        """Write the line of a request to clone a guest."""
        self._write("POST", "KCHVM0009L", {"ident": name, "remote_host": ""}, status)

    def end(self, name: str, *, failed: bool = False) -> None:
        """Write the final record of the clone of a guest."""
        target = f"/plugins/kimchi/vms/{name}-clone-{self._now * 1_000_000}/clone"
        code = "WOKASYNC0002L" if failed else "WOKASYNC0001L"
        self._write("TASK", code, {"target_uri": target}, 400 if failed else 200)

    def step_clock(self, seconds: int) -> None:
        """Let Wok's clock jump."""
        self._now += seconds

    def restart(self) -> None:
        """Start wokd anew: tasks that run are lost."""
        self._now += 5
        stamp = f"{datetime.fromtimestamp(self._now, UTC):%d/%b/%Y:%H:%M:%S}"
        with self.errors.open("a") as stream:
            stream.writelines(f"[{stamp}] ENGINE {said}\n" for said in CHAIN)
        self._now += 5

    def tear(self) -> None:
        """Write only the first half of the next line; the next write completes it."""
        if not self._torn:
            line = self._line("PUT", "KCHVM0003L", {"ident": f"torn{len(self.lines)}"}, 200)
            half = len(line.data) // 2
            self._append(line.data[:half])
            self._torn = line.data[half:]
            self.lines.append(line)

    def rotate(self, how: Rotation) -> None:
        """Rotate the log as logrotate does."""
        if self._torn or not self.file.exists() or not self.file.stat().st_size:
            return
        self._rotations += 1
        number = self._rotations
        name = f"{self.file.name}-{20200101 + number}" if how == "date" else f"{self.file.name}.1"
        if how != "date":
            for old in sorted(self.file.parent.glob(f"{self.file.name}.*"), key=_age, reverse=True):
                old.rename(old.with_name(f"{self.file.name}.{_age(old) + 1}{'.gz' * (old.suffix == '.gz')}"))
        target = self.file.with_name(name)
        if how == "copytruncate":
            shutil.copyfile(self.file, target)
            os.truncate(self.file, 0)
            return
        self.file.rename(target)
        if how == "gzip":
            packed = target.with_name(target.name + ".gz")
            with gzip.open(packed, "wb") as stream:
                stream.write(target.read_bytes())
            target.unlink()

    def edit(self, how: Edit, at: int) -> None:
        """Take lines out of the log that is written to, which must all have been read: line `at`, or the first."""
        lines = self.file.read_bytes().splitlines(keepends=True) if self.file.exists() else []
        if self._torn or len(lines) < 2:
            return
        del lines[at % len(lines)]
        if how == "in place":
            self.file.write_bytes(b"".join(lines))
        else:
            new = self.file.with_name("sedXyz123")
            new.write_bytes(b"".join(lines[-TAIL_LINES:] if how == "tail" else lines))
            new.rename(self.file)
        self.is_edited = True

    def end_of_story(self) -> None:
        """Complete what is torn, and write a record so late that every settling window closes for everybody."""
        if self._torn:
            self._append(self._torn)
            self._torn = b""
        self._now += 7200
        self._write("PUT", "KCHVM0003L", {"ident": "last"}, 200)

    def _write(self, method: str, code: str, params: Mapping[str, object], status: int) -> None:
        line = self._line(method, code, params, status)
        self._append(self._torn + line.data)
        self._torn = b""
        self.lines.append(line)

    def _line(self, method: str, code: str, params: Mapping[str, object], status: int) -> Written:
        self._now += 3
        when = datetime.fromtimestamp(self._now, UTC)
        uid = str(uuid5(UUID(int=1), str(len(self.lines))))
        is_request = method != "TASK"
        info = {
            "app": "/plugins/kimchi",
            "req": method,
            "status": status,
            "user": "ada" if is_request else "",
            "ip": "192.0.2.1" if is_request else "",
            "date": f"{when:%Y-%m-%d}",
            "time": f"{when:%H:%M:%S}",
            "zone": "UTC",
        }
        error = {"code": "KCHVM0035E", "params": {"name": "x", "err": "no space"}} if status == 400 else None
        record = {"id": uid, "message": {"code": code, "params": params}, "error": error, "info": info}
        return Written(uid, is_request, json.dumps(record).encode() + b"\n")

    def _append(self, data: bytes) -> None:
        for path in (self.whole, self.file):
            with path.open("ab") as stream:
                stream.write(data)


def _age(path: Path) -> int:
    return int(path.name.removesuffix(".gz").rpartition(".")[2])

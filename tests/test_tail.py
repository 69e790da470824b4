"""The tail, on real files: a model of a log that rotates at random, scenarios as data, and the real logrotate."""

from __future__ import annotations

import gzip
import json
import lzma
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import IO, TYPE_CHECKING, NamedTuple

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from exporter.files import KEPT_BYTES
from exporter.tail import Tail

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from exporter.records import Chunk, Line, TailEvent

READS_MAX = 400


def drain(tail: Tail, limit: int = 1 << 20) -> tuple[list[Line], list[TailEvent]]:
    """Read until the tail has caught up, and has nothing to say either."""
    lines: list[Line] = []
    events: list[TailEvent] = []
    for _ in range(READS_MAX):
        chunk = tail.read(limit)
        lines += chunk.lines
        events += chunk.events
        if chunk.caught_up:
            return lines, events
    raise AssertionError("the tail never catches up")


def texts(lines: list[Line]) -> list[bytes]:
    return [line.data for line in lines]


def kinds(events: list[TailEvent]) -> list[str]:
    return [event.kind for event in events]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "wok-req.log"


@pytest.fixture
def open_tail(log: Path) -> Iterator[Callable[..., Tail]]:
    """Return a function that opens a tail of the log, which is closed after the test."""
    opened: list[Tail] = []

    def opens(position: str = "", *, line_bytes_max: int = 1 << 24, from_end: bool = False) -> Tail:
        tail = Tail(log, position, line_bytes_max=line_bytes_max, from_end=from_end)
        opened.append(tail)
        return tail

    yield opens
    for tail in opened:
        tail.close()


def append(path: Path, data: bytes) -> None:
    with path.open("ab") as file:
        file.write(data)


def inode(path: Path) -> int | None:
    return path.stat().st_ino if path.exists() else None


def compress(path: Path) -> None:
    """Compress a file as logrotate does: the copy has the time of the original, which goes."""
    status = path.stat()
    packed = Path(f"{path}.gz")
    packed.write_bytes(gzip.compress(path.read_bytes()))
    os.utime(packed, ns=(status.st_atime_ns, status.st_mtime_ns))
    path.unlink()


class Shifts:
    """Makes room for `log.1` as logrotate does."""

    def __init__(self, log: Path) -> None:
        self.log = log

    def shift(self) -> Path:
        for number in range(60, 0, -1):
            for suffix in ("", ".gz"):
                old = Path(f"{self.log}.{number}{suffix}")
                if old.exists():
                    old.rename(f"{self.log}.{number + 1}{suffix}")
        return Path(f"{self.log}.1")


# --- A model of a log -----------------------------------------------------------------------------------


class LogModel(RuleBasedStateMachine):
    """Writes, rotates, compresses, crashes and reads at random; what is read must equal what was written."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="tail-model-"))
        self.log = self.folder / "log"
        self.log.touch()
        self.count = 0
        self.generation = 0
        self.dated = False
        self.written: list[bytes] = []
        self.received: list[bytes] = []
        self.racy: set[bytes] = set()
        self.copied_bytes: int | None = None
        self.pending = b""  # the second half of a line that the logger is writing
        self.torn = b""  # the first half of a line that has no end yet
        self.torn_in: int | None = None
        self.stream: IO[bytes] | None = None
        self.committed = ("", 0)
        self.tail = Tail(self.log)

    def teardown(self) -> None:
        self.finish_line()
        self.write(1, 0)
        lines, _ = drain(self.tail)
        self.received += texts(lines)
        self.check_all()
        self.tail.close()
        shutil.rmtree(self.folder)

    def check_all(self) -> None:
        assert self.received == self.written

    def make_line(self, padding: int) -> bytes:
        self.count += 1
        return b"%d|" % self.count + b"x" * (padding + 8)

    @rule(lines=st.integers(1, 5), padding=st.sampled_from([0, 0, 10, 300, 5000]))
    def write(self, lines: int, padding: int) -> None:
        self.finish_line()
        with self.log.open("ab") as file:
            for _ in range(lines):
                line = self.make_line(padding)
                file.write(line + b"\n")
                self.wrote(self.torn + line)
                self.torn = b""

    def wrote(self, line: bytes) -> None:
        self.written.append(line)
        if self.copied_bytes is not None:
            self.racy.add(line)

    @rule(padding=st.integers(0, 300))
    def write_half(self, padding: int) -> None:
        self.finish_line()
        line = self.make_line(padding)
        half = len(line) // 2
        self.stream = self.log.open("ab", buffering=0)
        self.stream.write(line[:half])
        self.pending = line[half:]
        self.torn += line[:half]
        self.torn_in = inode(self.log)

    @rule()
    def finish_line(self) -> None:
        """The logger's stream goes on in the file it was opened for, wherever that was moved."""
        if self.stream is not None:
            self.stream.write(self.pending + b"\n")
            self.stream.close()
            self.wrote(self.torn + self.pending)
            self.stream, self.pending, self.torn = None, b"", b""

    @precondition(lambda self: self.stream is not None)
    @rule()
    def kill_logger(self) -> None:
        assert self.stream is not None
        self.stream.close()
        self.stream, self.pending = None, b""
        self.end_torn_line()

    def end_torn_line(self) -> None:
        """A torn line is the last one of its file once a dead logger's file was rotated."""
        if self.torn and self.stream is None and self.torn_in != inode(self.log):
            self.wrote(self.torn)
            self.torn = b""

    def rotated_path(self) -> Path:
        self.generation += 1
        if self.dated:
            return Path(f"{self.log}-{20160101 + self.generation}")
        return Shifts(self.log).shift()

    @precondition(lambda self: self.log.exists() and self.copied_bytes is None)
    @rule(creates=st.booleans())
    def rename(self, creates: bool) -> None:
        self.log.rename(self.rotated_path())
        if creates:
            self.log.touch()
        self.end_torn_line()

    @precondition(lambda self: self.stream is None)
    @rule(which=st.integers(0, 3))
    def compress_one(self, which: int) -> None:
        plain = [path for path in self.folder.iterdir() if path != self.log and path.suffix != ".gz"]
        if which < len(plain):
            compress(sorted(plain)[which])

    @precondition(lambda self: self.stream is None)
    @rule(which=st.integers(0, 3))
    def delete(self, which: int) -> None:
        """Delete a rotated file that was read and committed: any but the log, the oldest or not."""
        rotated = sorted(path for path in self.folder.iterdir() if path != self.log)
        committed = set(self.received[: self.committed[1]])
        if which < len(rotated):
            data = rotated[which].read_bytes()
            text = gzip.decompress(data) if rotated[which].suffix == ".gz" else data
            if all(line in committed for line in text.split(b"\n") if line):
                rotated[which].unlink()

    @rule()
    def commit(self) -> None:
        self.committed = (self.position(), len(self.received))

    def position(self) -> str:
        chunk = self.tail.read(1)
        self.received += texts(list(chunk.lines))
        return chunk.position

    @rule()
    def crash(self) -> None:
        self.tail.close()
        position, count = self.committed
        del self.received[count:]
        self.tail = Tail(self.log, position)

    @rule(limit=st.sampled_from([1, 50, 1000, 1 << 20]), times=st.integers(1, 6))
    def read(self, limit: int, times: int) -> None:
        for _ in range(times):
            self.received += texts(list(self.tail.read(limit).lines))

    @invariant()
    def received_is_a_beginning_of_written(self) -> None:
        assert self.received == self.written[: len(self.received)]


class DatedModel(LogModel):
    """The same with names that hold a date."""

    def __init__(self) -> None:
        super().__init__()
        self.dated = True


class TruncatingModel(LogModel):
    """The same with copytruncate: only what is written between the copy and the truncation may be missing."""

    @precondition(lambda self: self.log.exists() and self.stream is None and not self.torn)
    @rule()
    def copy(self) -> None:
        if self.copied_bytes is None:
            shutil.copy(self.log, self.rotated_path())
            self.copied_bytes = self.log.stat().st_size

    @precondition(lambda self: self.copied_bytes is not None and self.stream is None and not self.torn)
    @rule()
    def truncate(self) -> None:
        os.truncate(self.log, 0)
        self.copied_bytes = None

    @invariant()
    def received_is_a_beginning_of_written(self) -> None:
        """Everything that was received was written, in that order and once."""
        rest = iter(self.written)
        assert all(line in rest for line in self.received)

    def check_all(self) -> None:
        self.received_is_a_beginning_of_written()
        assert set(self.written) - set(self.received) <= self.racy


for model in (LogModel, DatedModel, TruncatingModel):
    model.TestCase.settings = settings(
        max_examples=1500,
        stateful_step_count=40,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )


class TestLogModel(LogModel.TestCase):  # type: ignore[name-defined,misc]
    """Reads equal writes, once and in order, over renames, compression and crashes."""


class TestDatedModel(DatedModel.TestCase):  # type: ignore[name-defined,misc]
    """Reads equal writes, once and in order, with dated names."""


class TestTruncatingModel(TruncatingModel.TestCase):  # type: ignore[name-defined,misc]
    """Reads are bounded by the writes from above, and from below by those outside the race of copytruncate."""

"""The tail, on real files: a model of a log that rotates at random, scenarios as data, and the real
logrotate.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import lzma
import os
import shutil
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from exporter.records import Line
from exporter.source.line_reader import KEPT_BYTES
from exporter.source.rotation import generations
from exporter.source.tail import Tail

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from exporter.records import Chunk, TailEvent
    from exporter.source.rotation import Generation

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
    """Writes, rotates, compresses, crashes and reads at random; what is read must equal what was
    written.
    """

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
    """The same with copytruncate: only what is written between the copy and the truncation may be
    missing.
    """

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


@pytest.mark.parametrize("model", [LogModel, DatedModel, TruncatingModel])
def test_model(model: type[LogModel]) -> None:
    """Reads equal writes, once and in order, over whatever happens; with copytruncate but for its
    race.
    """
    run_state_machine_as_test(
        model,
        settings=settings(
            max_examples=80, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )


# --- Scenarios ------------------------------------------------------------------------------------------


class Logger:
    """Appends whole lines; keeps its file open for ever like Wok 2.1's, or opens the path for each
    line.
    """

    def __init__(self, log: Path, *, keeps_open: bool) -> None:
        self.log = log
        self.stream = log.open("ab", buffering=0) if keeps_open else None

    def write(self, *lines: bytes) -> None:
        for line in lines:
            if self.stream is not None:
                self.stream.write(line + b"\n")
            else:
                append(self.log, line + b"\n")

    def close(self) -> None:
        if self.stream is not None:
            self.stream.close()


def by_rename(log: Path) -> None:
    log.rename(Shifts(log).shift())
    log.touch()


def by_rename_without_create(log: Path) -> None:
    log.rename(Shifts(log).shift())


def by_date(log: Path) -> None:
    day = 1 + len(list(log.parent.glob("wok-req.log-*")))
    log.rename(f"{log}-201611{day:02}")
    log.touch()


def by_compressing(log: Path) -> None:
    target = Shifts(log).shift()
    log.rename(target)
    log.touch()
    compress(target)


def by_copying(log: Path) -> None:
    shutil.copy(log, Shifts(log).shift())
    os.truncate(log, 0)


def by_deleting(log: Path) -> None:
    log.unlink()
    log.touch()


class Scenario(NamedTuple):
    rotate: Callable[[Path], None]
    keeps_open: bool
    stops: bool
    event: list[str]
    lost: tuple[bytes, ...] = ()


# What a logger writes to a file that was unlinked is read as long as the file is held open, and no
# longer.
SCENARIOS = [
    Scenario(by_rename, keeps_open=False, stops=False, event=["rename"]),
    Scenario(by_rename, keeps_open=False, stops=True, event=["rename"]),
    Scenario(by_rename, keeps_open=True, stops=False, event=[]),
    Scenario(by_rename, keeps_open=True, stops=True, event=["rename"]),
    Scenario(by_rename_without_create, keeps_open=False, stops=False, event=["rename"]),
    Scenario(by_rename_without_create, keeps_open=False, stops=True, event=["rename"]),
    Scenario(by_rename_without_create, keeps_open=True, stops=False, event=[]),
    Scenario(by_date, keeps_open=False, stops=False, event=["rename"]),
    Scenario(by_date, keeps_open=False, stops=True, event=["rename"]),
    Scenario(by_compressing, keeps_open=False, stops=False, event=["compressed"]),
    Scenario(by_compressing, keeps_open=False, stops=True, event=["compressed"]),
    Scenario(by_compressing, keeps_open=True, stops=False, event=[]),
    Scenario(by_compressing, keeps_open=True, stops=True, event=["compressed"], lost=(b"four",)),
    Scenario(by_copying, keeps_open=False, stops=False, event=["copytruncate"]),
    Scenario(by_copying, keeps_open=False, stops=True, event=["rename"]),
    Scenario(by_copying, keeps_open=True, stops=False, event=["copytruncate"]),
    Scenario(by_deleting, keeps_open=False, stops=False, event=["replaced"]),
    Scenario(by_deleting, keeps_open=False, stops=True, event=["gap"], lost=(b"three",)),
]


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda one: f"{one.rotate.__name__}-{one[1:3]}")
def test_rotation_scenario(scenario: Scenario, log: Path, open_tail: Callable[..., Tail]) -> None:
    """Each way of rotating, with each kind of logger, running and stopped, gives each line once."""
    logger = Logger(log, keeps_open=scenario.keeps_open)
    logger.write(b"one", b"two")
    tail = open_tail()
    before, _ = drain(tail)
    position = tail.read(1).position
    if scenario.stops:
        tail.close()
    logger.write(b"three")
    scenario.rotate(log)
    logger.write(b"four")
    if scenario.stops:
        tail = open_tail(position)
    after, events = drain(tail)
    logger.close()

    assert texts(before) == [b"one", b"two"]
    assert texts(after) == [line for line in (b"three", b"four") if line not in scenario.lost]
    assert kinds(events) == scenario.event


LOGROTATE = {
    "rename": "create 0644",
    "dateext": "create 0644\n dateext\n dateformat -%Y%m%d-%s",
    "compress": "create 0644\n compress",
    "delaycompress": "create 0644\n compress\n delaycompress",
    "nocreate": "nocreate",
    "copytruncate": "copytruncate",
    "copytruncate and compress": "copytruncate\n compress",
}


@pytest.mark.parametrize("stops", [False, True], ids=["running", "stopped"])
@pytest.mark.parametrize("options", LOGROTATE.values(), ids=LOGROTATE)
def test_real_logrotate(options: str, stops: bool, log: Path, open_tail: Callable[..., Tail]) -> None:
    """The real logrotate, three times in a row with and without reads between, loses and repeats
    nothing.
    """
    program = shutil.which("logrotate") or shutil.which("logrotate", path="/usr/sbin:/sbin")
    if program is None:
        pytest.skip("logrotate is not installed")
    config = log.parent / "logrotate.conf"
    config.write_text(f"{log} {{\n rotate 9\n {options}\n}}\n")
    config.chmod(0o600)
    state = log.parent / "logrotate.state"
    tail = open_tail()
    position = ""
    written: list[bytes] = []
    received: list[bytes] = []
    for turn in range(4):
        lines = [b"turn %d line %d" % (turn, number) for number in range(50)]
        append(log, b"".join(line + b"\n" for line in lines))
        written += lines
        if turn != 2:  # two rotations without a read between them
            chunk = tail.read(200)
            received += texts(list(chunk.lines))
            position = chunk.position
        if stops:
            tail.close()
        # dateformat has whole seconds: the file's own date must not repeat
        subprocess.run([program, "-f", "-s", str(state), str(config)], check=True, capture_output=True)
        for number, path in enumerate(sorted(log.parent.glob("wok-req.log-*"))):
            path.rename(
                f"{log}-20161101-{number}{''.join(path.suffixes[-1:]) if path.suffix == '.gz' else ''}"
            )
        if stops:
            tail = open_tail(position)
    append(log, b"last\n")
    received += texts(drain(tail, 500)[0])

    assert received == [*written, b"last"]


# --- One thing at a time --------------------------------------------------------------------------------


def test_lines_carry_identity_offset_and_length(log: Path, open_tail: Callable[..., Tail]) -> None:
    """A line knows its file by the digest of the first line, its byte offset and its length."""
    log.write_bytes(b"first\r\nsecond \xe2\x80\xa8 \xc2\x85\x0b\x0c\xff\n\nfourth\nunfinished")
    chunk = open_tail().read(1 << 20)

    file = hashlib.sha256(b"first\r").digest()[:16]
    expected = [
        (file, 0, b"first\r", 6, True),
        (file, 7, b"second \xe2\x80\xa8 \xc2\x85\x0b\x0c\xff", 16, True),
        (file, 24, b"", 0, True),
        (file, 25, b"fourth", 6, True),
    ]
    assert chunk.lines == [Line(*fields) for fields in expected]
    assert chunk.behind == len("unfinished")


def test_limit_bounds_a_chunk(log: Path, open_tail: Callable[..., Tail]) -> None:
    """A chunk has at most about `limit` bytes, and at least one line where there is one."""
    log.write_bytes(b"".join(b"%09d\n" % number for number in range(20)))
    tail = open_tail()
    sizes = [[line.length for line in tail.read(limit).lines] for limit in (35, 1, 10)]

    assert sizes == [[9, 9, 9], [9], [9]]


def test_line_byte_by_byte(log: Path, open_tail: Callable[..., Tail]) -> None:
    """A line that arrives in pieces is returned when its newline has come, and not before."""
    log.touch()
    tail = open_tail()
    counts = []
    for byte in b"one\ntwo\n":
        append(log, bytes([byte]))
        counts.append(len(tail.read(100).lines))

    assert counts == [0, 0, 0, 1, 0, 0, 0, 1]


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gz"])
@pytest.mark.parametrize("length", [100_000, 100_001, 400_000])
def test_over_long_line(length: int, packed: bool, log: Path, open_tail: Callable[..., Tail]) -> None:
    """A line over the bound is one line with its beginning and its true length, over restarts
    within it.
    """
    long = (b"%d " % length * (length // 7 + 1))[:length]
    log.write_bytes(b"before\n" + long + b"\nafter\n")
    if packed:
        log.rename(f"{log}.1")
        compress(Path(f"{log}.1"))
    received: list[Line] = []
    position = ""
    for _ in range(60):
        tail = open_tail(position, line_bytes_max=100_000)
        chunk = tail.read(30_000)
        received += chunk.lines
        position = chunk.position
        tail.close()

    kept = long if length == 100_000 else long[:KEPT_BYTES]
    assert [(line.offset, line.data, line.length) for line in received] == [
        (0, b"before", 6),
        (7, kept, length),
        (8 + length, b"after", 5),
    ]


def test_over_long_first_and_unfinished_line(log: Path, open_tail: Callable[..., Tail]) -> None:
    """A first line that is over-long, and never ends, is returned when its file
    has been rotated.
    """
    log.write_bytes(b"x" * 300_000)
    tail = open_tail(line_bytes_max=1000)
    before, _ = drain(tail, 10_000)
    by_rename(log)
    append(log, b"next\n")
    after, events = drain(tail, 10_000)

    assert before == []
    assert [(line.data, line.length, line.ended) for line in after] == [
        (b"x" * 1000, 300_000, False),
        (b"next", 4, True),
    ]
    assert kinds(events) == ["rename"]


def test_hole_of_stale_writer(log: Path, open_tail: Callable[..., Tail]) -> None:
    """A logger without O_APPEND leaves a hole of NUL bytes after copytruncate, which is bounded and
    passed.
    """
    with log.open("wb", buffering=0) as writer:
        writer.write(b"one\n" * 100_000)
        tail = open_tail(line_bytes_max=100_000)
        first, _ = drain(tail)
        by_copying(log)
        writer.write(b"two\nthree\n")
        second, events = drain(tail)

    assert len(first) == 100_000
    assert [(line.offset, line.data[-5:], line.length) for line in second] == [
        (0, b"\0" * 5, 400_003),
        (400_004, b"three", 5),
    ]
    assert kinds(events) == ["copytruncate"]


def test_truncated_and_regrown_past_the_offset(log: Path, open_tail: Callable[..., Tail]) -> None:
    """A log that was cut and is longer than before at the next look is read from its beginning."""
    append(log, b"one\n")
    tail = open_tail()
    drain(tail)
    log.write_bytes(b"two\nthree\nfour\n")
    lines, events = drain(tail)

    assert texts(lines) == [b"two", b"three", b"four"]
    assert kinds(events) == ["copytruncate"]


def test_copies_of_a_log_cut_twice(log: Path, open_tail: Callable[..., Tail]) -> None:
    """Two truncations between two reads: the rest of the first copy, all of the second, then the
    log.
    """
    append(log, b"one\n")
    tail = open_tail()
    drain(tail)
    append(log, b"two\n")
    by_copying(log)
    append(log, b"three\n")
    by_copying(log)
    append(log, b"four\n")

    assert texts(drain(tail)[0]) == [b"two", b"three", b"four"]


def test_copy_of_a_log_of_which_nothing_was_read(log: Path, open_tail: Callable[..., Tail]) -> None:
    """A log that was open but empty, then written, copied and cut, is read from its copy first."""
    log.touch()
    tail = open_tail()
    drain(tail)
    append(log, b"one\n")
    by_copying(log)
    append(log, b"two\n")

    assert texts(drain(tail)[0]) == [b"one", b"two"]


def test_copy_and_rename_of_a_log_of_which_nothing_was_read(
    log: Path, open_tail: Callable[..., Tail]
) -> None:
    """A log that was empty when it was opened, then copied, cut and renamed, is read from its copy first."""
    log.touch()
    tail = open_tail()
    drain(tail)
    append(log, b"one\n")
    by_copying(log)
    append(log, b"two\n")
    log.rename(Shifts(log).shift())
    append(log, b"three\n")

    assert texts(drain(tail)[0]) == [b"one", b"two", b"three"]


def test_lines_written_between_two_looks(
    log: Path, open_tail: Callable[..., Tail], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a logger writes to the old file after it was drained, and before the new one is seen, is
    read.
    """
    append(log, b"one\n")
    tail = open_tail()
    drain(tail)
    log.rename(f"{log}.1")
    late = [b"late\n"]

    def write_and_list(path: Path, **rest: Any) -> list[Generation]:
        if late:
            append(Path(f"{log}.1"), late.pop())
            append(log, b"new\n")
        return generations(path, **rest)

    monkeypatch.setattr("exporter.source.tail.generations", write_and_list)

    assert texts(drain(tail)[0]) == [b"late", b"new"]


def test_overwritten_rotated_file(log: Path, open_tail: Callable[..., Tail]) -> None:
    """A rotated file that is overwritten before it is deleted (`shred`) is closed and reported."""
    append(log, b"one\n")
    tail = open_tail()
    drain(tail)
    by_rename(log)
    drain(tail)
    with Path(f"{log}.1").open("r+b") as file:
        file.write(b"\xff\n" * 10)
    Path(f"{log}.1").unlink()
    append(log, b"two\n")
    lines, events = drain(tail)

    assert (texts(lines), kinds(events)) == ([b"two"], ["gap"])


def test_names_that_move_while_they_are_listed(
    log: Path, open_tail: Callable[..., Tail], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A listing that misses a file during its renaming is not used."""
    append(log, b"one\n")
    tail = open_tail()
    drain(tail)
    by_rename(log)
    append(log, b"two\n")
    by_rename(log)
    append(log, b"three\n")
    by_rename(log)
    append(log, b"four\n")
    missed = [f"{log.name}.2", ""]  # the second listing misses it
    system_scandir = os.scandir

    @contextmanager
    def scan(path: Path) -> Iterator[list[os.DirEntry[str]]]:
        hidden = missed.pop() if missed else ""
        with system_scandir(path) as entries:
            yield [entry for entry in entries if entry.name != hidden]

    monkeypatch.setattr(os, "scandir", scan)

    assert texts(drain(tail)[0]) == [b"two", b"three", b"four"]


def test_names_that_move_after_they_were_listed(
    log: Path, open_tail: Callable[..., Tail], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that got the name of another one after the listing is not read in its place."""
    append(Path(f"{log}.2"), b"zero\n")
    append(Path(f"{log}.1"), b"one\n")
    append(log, b"two\n")
    rotations = [by_rename]

    def list_and_rotate(path: Path, **rest: Any) -> list[Generation]:
        listed = generations(path, **rest)
        if rotations:
            rotations.pop()(log)
        return listed

    monkeypatch.setattr("exporter.source.tail.generations", list_and_rotate)

    assert texts(drain(open_tail())[0]) == [b"zero", b"one", b"two"]


def test_first_lines_are_kept_when_the_folder_fails(
    log: Path, open_tail: Callable[..., Tail], monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the directory cannot be listed after the first lines were read, no line is lost."""
    log.touch()
    tail = open_tail()
    drain(tail)
    append(log, b"one\n")
    with monkeypatch.context() as patch:

        def fail(_: Path, **rest: Any) -> list[Generation]:
            raise OSError(24, "Too many open files")

        patch.setattr("exporter.source.tail.generations", fail)
        chunk = tail.read(100)

    assert (chunk.lines, "raise the limit of open files" in tail.problem) == ((), True)
    assert texts(drain(tail)[0]) == [b"one"]


def test_folder_that_is_away_at_the_start(log: Path, open_tail: Callable[..., Tail]) -> None:
    """A folder that is not there yet, such as a late mount, is no gap."""
    append(log, b"one\n")
    tail = open_tail()
    drain(tail)
    position = tail.read(1).position
    append(log, b"two\n")
    log.rename(log.parent / "away")
    tail = open_tail(position)
    before, events = drain(tail)
    position = tail.read(1).position
    (log.parent / "away").rename(log)
    after, later = drain(open_tail(position))

    assert (before, kinds(events), texts(after), later) == ([], ["unreadable"], [b"two"], [])


def test_from_end_of_a_log_that_is_still_missing(log: Path, open_tail: Callable[..., Tail]) -> None:
    """Where there is nothing at the start, everything that comes is new."""
    tail = open_tail(from_end=True)
    drain(tail)
    append(log, b"one\n")

    assert texts(drain(tail)[0]) == [b"one"]


def test_backup_of_logrotate(log: Path, open_tail: Callable[..., Tail]) -> None:
    """A log that logrotate moved aside, because the logger had been quicker to create it, is read
    in its turn.
    """
    names = [".3.gz", ".2", ".1", "-2026112304.backup", "-20261124.gz", "-2026112405.backup", ""]
    for number, name in enumerate(names):
        path = Path(f"{log}{name}")
        text = b"line %d\n" % number
        path.write_bytes(gzip.compress(text) if name.endswith(".gz") else text)
        os.utime(path, (number, number))

    assert texts(drain(open_tail())[0]) == [b"line %d" % number for number in range(7)]


def test_backup_of_logrotate_between_numbers(log: Path, open_tail: Callable[..., Tail]) -> None:
    """Names of both ways are in the order of their times, and each way in that of its names."""
    for seconds, name in enumerate([".2", "-2026112304.backup", ".1", ""]):
        Path(f"{log}{name}").write_bytes(b"line %d\n" % seconds)
        os.utime(f"{log}{name}", (seconds, seconds))

    assert texts(drain(open_tail())[0]) == [b"line 0", b"line 1", b"line 2", b"line 3"]


def test_gzip_in_the_making(log: Path, open_tail: Callable[..., Tail]) -> None:
    """A start while a rotated file is being compressed reads the plain one, at once and once."""
    text = b"".join(b"line %d\n" % number for number in range(3000))
    Path(f"{log}.1").write_bytes(text)
    Path(f"{log}.1.gz").write_bytes(gzip.compress(text)[:2000])
    append(log, b"last\n")
    lines, events = drain(open_tail())

    assert (b"".join(line.data + b"\n" for line in lines), events) == (text + b"last\n", [])


def test_log_that_begins_again_like_before(log: Path, open_tail: Callable[..., Tail]) -> None:
    """A log that was cut while the tail ran is read again from its beginning, even one that looks
    the same.
    """
    append(log, b"one\ntwo\n")
    tail = open_tail()
    drain(tail)
    log.write_bytes(b"one\n")
    lines, events = drain(tail)

    assert (texts(lines), kinds(events)) == ([b"one"], ["copytruncate"])


def test_log_replaced_by_its_beginning(log: Path, open_tail: Callable[..., Tail]) -> None:
    """A log that somebody replaced by a shorter version of itself is not read again."""
    append(log, b"one\ntwo\nthree\n")
    tail = open_tail()
    drain(tail)
    other = log.parent / "head"
    other.write_bytes(b"one\ntwo\n")
    other.replace(log)
    before, events = drain(tail)
    append(log, b"four\n")

    assert (before, kinds(events), texts(drain(tail)[0])) == ([], ["replaced"], [b"four"])


def test_restart_inside_an_over_long_first_line(log: Path, open_tail: Callable[..., Tail]) -> None:
    """A position inside a first line that has no end yet is found again."""
    append(log, b"x" * 200_000)
    tail = open_tail(line_bytes_max=1000)
    drain(tail, 50_000)
    position = tail.read(1).position
    append(log, b"y\nnext\n")
    lines, events = drain(open_tail(position, line_bytes_max=1000))

    assert [(line.offset, line.length) for line in lines] == [(0, 200_001), (200_002, 4)]
    assert events == []


def test_copy_that_is_still_being_made(log: Path, open_tail: Callable[..., Tail]) -> None:
    """A start while copytruncate is copying reads each line once, and no piece of one."""
    append(log, b"one\ntwo\nthree\n")
    Path(f"{log}.1").write_bytes(b"one\ntw")

    assert texts(drain(open_tail())[0]) == [b"one", b"two", b"three"]


def test_first_start_reads_what_was_rotated(log: Path, open_tail: Callable[..., Tail]) -> None:
    """A first start begins with the oldest generation, whatever way each is compressed."""
    Path(f"{log}.10.gz").write_bytes(gzip.compress(b"one\n") + gzip.compress(b"two\n"))
    Path(f"{log}.2.xz").write_bytes(lzma.compress(b"three\nfour"))
    Path(f"{log}.1").write_bytes(b"five\n")
    Path(f"{log}.old").write_bytes(b"no generation\n")
    append(log, b"six\n")
    lines, events = drain(open_tail())

    assert texts(lines) == [b"one", b"two", b"three", b"four", b"five", b"six"]
    assert [line.ended for line in lines] == [True, True, True, False, True, True]
    assert events == []


def test_from_end(log: Path, open_tail: Callable[..., Tail]) -> None:
    """A first start from the end returns only what comes then, also after the log was replaced."""
    Path(f"{log}.1.gz").write_bytes(gzip.compress(b"zero\n"))
    append(log, b"one\ntwo")
    tail = open_tail(from_end=True)
    before, _ = drain(tail)
    append(log, b" and a half\nthree\n")
    after, _ = drain(tail)
    position = tail.read(1).position
    log.unlink()
    append(log, b"four\n")
    last, _ = drain(open_tail(position))

    assert (before, texts(after), texts(last)) == ([], [b"two and a half", b"three"], [b"four"])


def test_from_end_of_nothing(log: Path, open_tail: Callable[..., Tail]) -> None:
    """A start from the end where no log is yet does not read rotated files later."""
    Path(f"{log}.1").write_bytes(b"zero\n")
    tail = open_tail(from_end=True)
    position = tail.read(100).position
    append(log, b"one\n")

    assert texts(drain(open_tail(position, from_end=True))[0]) == [b"one"]


def test_shorter_log_after_a_power_cut(log: Path, open_tail: Callable[..., Tail]) -> None:
    """A log that has lost its end while the tail was stopped is not read again
    from its beginning.
    """
    append(log, b"one\ntwo\nthree\n")
    tail = open_tail()
    drain(tail)
    position = tail.read(1).position
    os.truncate(log, 6)
    tail = open_tail(position)
    before, events = drain(tail)
    append(log, b"x\nfour\n")

    assert (before, texts(drain(tail)[0])) == ([], [b"twx", b"four"])
    assert events == []


def test_gap_is_reported_once(log: Path, open_tail: Callable[..., Tail]) -> None:
    """A log that vanished while the tail was stopped is a gap, told once."""
    append(log, b"one\n")
    tail = open_tail()
    drain(tail)
    position = tail.read(1).position
    log.unlink()
    append(log, b"two\n")
    tail = open_tail(position)
    lines, events = drain(tail)
    again, later = drain(open_tail(tail.read(1).position))

    assert (texts(lines), kinds(events), again, later) == ([b"two"], ["gap"], [], [])
    assert "byte 4" in events[0].detail


def test_rotated_file_that_is_gone_is_a_gap(log: Path, open_tail: Callable[..., Tail]) -> None:
    """With the last file gone, an earlier one still shows which files are old."""
    Path(f"{log}.1").write_bytes(b"zero\n")
    append(log, b"one\n")
    tail = open_tail()
    drain(tail)
    position = tail.read(1).position
    log.unlink()
    append(log, b"two\n")
    lines, events = drain(open_tail(position))

    assert (texts(lines), kinds(events)) == ([b"two"], ["gap"])


def make_directory(log: Path) -> None:
    log.mkdir()


def make_fifo(log: Path) -> None:
    os.mkfifo(log)


def make_loop(log: Path) -> None:
    log.symlink_to(log)


def make_dangling_link(log: Path) -> None:
    log.symlink_to(log.parent / "elsewhere")


def make_nothing(log: Path) -> None:
    """Leave the path without anything."""


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (make_directory, "is a directory"),
        (make_fifo, "is not a regular file"),
        (make_loop, "remove the loop"),
        (make_dangling_link, "does not exist"),
        (make_nothing, "does not exist"),
    ],
)
def test_something_else_in_its_place(
    make: Callable[[Path], None], words: str, log: Path, open_tail: Callable[..., Tail]
) -> None:
    """A path that is not a log is reported once, with the path, and reading resumes once it is
    fixed.
    """
    make(log)
    tail = open_tail()
    chunks = [tail.read(100) for _ in range(3)]
    problem = tail.problem
    if log.is_dir():
        log.rmdir()
    elif log.is_fifo() or log.is_symlink():
        log.unlink()
    append(log, b"one\n")
    lines, events = drain(tail)

    assert [kinds(list(chunk.events)) for chunk in chunks] == [["unreadable"], [], []]
    assert all(chunk.caught_up and not chunk.lines for chunk in chunks)
    assert words in problem
    assert str(log) in problem
    assert (texts(lines), events, tail.problem) == ([b"one"], [], "")


def test_missing_folder(tmp_path: Path) -> None:
    """A log whose folder does not exist yet is waited for."""
    log = tmp_path / "wok" / "wok-req.log"
    tail = Tail(log)
    tail.read(1)
    problem = tail.problem
    log.parent.mkdir()
    append(log, b"one\n")
    lines, _ = drain(tail)
    tail.close()

    assert (f"{log} does not exist" in problem, texts(lines)) == (True, [b"one"])


def test_directory_in_place_of_a_read_log(log: Path, open_tail: Callable[..., Tail]) -> None:
    """A log that was moved away for a directory is still read to its end, and gone on with
    afterwards.
    """
    append(log, b"one\n")
    tail = open_tail()
    drain(tail)
    append(log, b"two\n")
    log.rename(f"{log}.1")
    log.mkdir()
    during, events = drain(tail)
    problem = tail.problem
    log.rmdir()
    append(log, b"three\n")
    after, _ = drain(tail)

    assert (texts(during), kinds(events), texts(after)) == ([b"two"], ["unreadable"], [b"three"])
    assert "is a directory" in problem


def test_permission_lost_and_given_back(
    log: Path, open_tail: Callable[..., Tail], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that cannot be opened blocks reading, is reported once, and is read once it can be
    opened.
    """
    append(log, b"one\n")
    tail = open_tail()
    drain(tail)
    by_rename(log)
    append(log, b"two\n")
    system_open = os.open
    with monkeypatch.context() as patch:

        def refuse(path: str, *rest: int) -> int:
            if Path(path).name.startswith(log.name):
                raise PermissionError(13, "Permission denied", str(path))
            return system_open(path, *rest)

        patch.setattr(os, "open", refuse)
        chunks = [tail.read(100) for _ in range(3)]
        problem = tail.problem
    lines, events = drain(tail)

    assert [kinds(list(chunk.events)) for chunk in chunks] == [["unreadable"], [], []]
    assert not any(chunk.is_readable for chunk in chunks)
    assert tail.read(100).is_readable
    assert problem == f"cannot read {log}: Permission denied; give the exporter's user read access"
    assert (texts(lines), kinds(events), tail.problem) == ([b"two"], ["rename"], "")


def test_stale_handle(log: Path, open_tail: Callable[..., Tail], monkeypatch: pytest.MonkeyPatch) -> None:
    """After ESTALE, the file is closed and found again by its content."""
    append(log, b"one\n")
    tail = open_tail()
    drain(tail)
    append(log, b"two\n")
    with monkeypatch.context() as patch:

        def fail(*_: int) -> bytes:
            raise OSError(116, "Stale file handle")

        patch.setattr(os, "pread", fail)
        chunk = tail.read(100)
    lines, _ = drain(tail)

    assert (chunk.lines, kinds(list(chunk.events)), texts(lines)) == ((), ["unreadable"], [b"two"])


def test_symbolic_link(log: Path, open_tail: Callable[..., Tail]) -> None:
    """Of a log that is a symbolic link, the generations beside the real file count."""
    real = log.parent / "data" / "requests"
    real.parent.mkdir()
    append(real, b"one\n")
    log.symlink_to(real)
    tail = open_tail()
    drain(tail)
    append(real, b"two\n")
    by_rename(real)
    append(real, b"three\n")
    lines, events = drain(tail)

    assert (texts(lines), kinds(events)) == ([b"two", b"three"], ["rename"])


def test_same_text_in_another_file(log: Path, open_tail: Callable[..., Tail]) -> None:
    """If a copy of the log replaces it, reading continues at the same place."""
    append(log, b"one\n")
    tail = open_tail()
    drain(tail)
    other = log.parent / "copy"
    shutil.copy(log, other)
    other.replace(log)
    append(log, b"two\n")
    lines, events = drain(tail)

    assert (texts(lines), kinds(events)) == ([b"two"], ["replaced"])


def test_damaged_gzip(log: Path, open_tail: Callable[..., Tail]) -> None:
    """A cut gzip file is tried again, then read as far as it goes and reported; one that grows is
    read whole.
    """
    whole = gzip.compress(b"".join(b"line %d\n" % number for number in range(5000)))
    packed = Path(f"{log}.1.gz")
    packed.write_bytes(whole[:-4000])
    append(log, b"last\n")
    patient = open_tail()
    early = [patient.read(1 << 20) for _ in range(3)]
    packed.write_bytes(whole)
    complete, no_events = drain_repeatedly(patient)
    packed.write_bytes(whole[:-4000])
    lines, events = drain_repeatedly(open_tail())

    count = sum(len(chunk.lines) for chunk in early)
    assert 0 < count < 5000
    assert (count + len(complete), no_events) == (5001, [])
    assert texts(lines)[-1] == b"last"
    assert texts(lines)[:count] == [b"line %d" % number for number in range(count)]
    assert kinds(events) == ["gap"]
    assert packed.name in events[0].detail


def drain_repeatedly(tail: Tail) -> tuple[list[Line], list[TailEvent]]:
    """Drain more often than a damaged file is tried again."""
    drained = [drain(tail) for _ in range(6)]
    return [line for lines, _ in drained for line in lines], [
        event for _, events in drained for event in events
    ]


def test_zstd_without_library(log: Path, open_tail: Callable[..., Tail]) -> None:
    """A .zst file whose library is missing is reported with the remedy, and skipped."""
    if can_read_zstd():
        pytest.skip("this Python reads zstd")
    append(log, b"one\n")
    tail = open_tail()
    drain(tail)
    log.unlink()
    Path(f"{log}.1.zst").write_bytes(b"\x28\xb5\x2f\xfd....")
    append(log, b"two\n")
    lines, events = drain(tail)

    assert (texts(lines), kinds(events)) == ([b"two"], ["unreadable", "replaced"])
    assert "install the Python package `zstandard`" in events[0].detail


def can_read_zstd() -> bool:
    for name in ("compression.zstd", "zstandard"):
        try:
            __import__(name)
        except ImportError:
            continue
        return True
    return False


def test_behind(log: Path, open_tail: Callable[..., Tail]) -> None:
    """What is known to be unread is counted over the open file and the later ones."""
    for number, name in enumerate((f"{log}.2", f"{log}.1", f"{log}")):
        Path(name).write_bytes(b"line %d\n" % number * 10)
    tail = open_tail()
    behind = []
    while not (chunk := tail.read(70)).caught_up:
        behind.append(chunk.behind)

    assert [*behind, chunk.behind] == [140, 70, 0]


@pytest.mark.parametrize(
    "position", ["{}", "[]", "null", '{"version":2,"marks":[]}', '{"version":1,"marks":[1]}', "x"]
)
def test_bad_position(position: str, log: Path) -> None:
    """An invalid position is rejected."""
    with pytest.raises(ValueError, match=r"position|mark|Expecting"):
        Tail(log, position)


def test_position_is_small(log: Path, open_tail: Callable[..., Tail]) -> None:
    """A position has a bounded number of marks: it is written with every batch."""
    for number in range(40, 0, -1):
        Path(f"{log}.{number}").write_bytes(b"file %d\n" % number)
    append(log, b"live\n")
    tail = open_tail()
    lines, _ = drain(tail)
    position = tail.read(1).position

    assert len(lines) == 41
    assert len(json.loads(position)["marks"]) == 8


def test_quiet_log_costs_two_system_calls(
    log: Path, open_tail: Callable[..., Tail], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a quiet log, also one with an unfinished line, a read is one stat and one short read."""
    append(log, b"one\n" + b"y" * 100_000)
    tail = open_tail()
    drain(tail)
    drain(tail)
    sizes: list[int] = []
    system_read = os.pread

    def count(descriptor: int, size: int, offset: int) -> bytes:
        sizes.append(size)
        return system_read(descriptor, size, offset)

    monkeypatch.setattr(os, "pread", count)
    monkeypatch.setattr(os, "scandir", None)
    monkeypatch.setattr(os, "open", None)
    chunk = tail.read(1 << 20)

    assert (sizes, chunk.lines, chunk.caught_up) == ([4], (), True)


def test_corpus_by_pieces(tmp_path: Path) -> None:
    """The lines of a real log are the same in one read, in small reads and over restarts."""
    corpus = Path(__file__).parents[2] / "shared" / "corpus" / "wok-3.0.0-calm" / "user-requests.data"
    if not corpus.exists():
        pytest.skip("the corpus is not here")
    log = tmp_path / "user-requests.data"
    shutil.copy(corpus, log)
    chunks: list[Chunk] = []
    while not chunks or not chunks[-1].caught_up:
        tail = Tail(log, chunks[-1].position if chunks else "")
        chunks += [tail.read(5000), tail.read(20_000)]
        tail.close()

    assert [line.data for chunk in chunks for line in chunk.lines] == corpus.read_bytes().split(b"\n")[:-1]

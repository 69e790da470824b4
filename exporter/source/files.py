"""Log files on disk: open them at any offset, know them by their content, read whole lines from them.

A log file changes its name (rotation), its inode (copy), its bytes on disk (compression) and its size
(truncation), and an inode number is used again as soon as its file is gone. What stays is what was written.
So a file is *known* by the digest of its first line, its identity; and a place in it is *proved* by the
digest of the bytes just before that place, because a file that was cut and has grown past the place again
may even begin with the same line. Together they make a `Mark`, which finds its place again under any name.

Offsets are always those of the text, so a mark made in a plain file also holds in its gzip copy.
Lines end with the byte 0x0A only: logs before Wok 2.3 hold raw U+2028, U+0085 and carriage returns.
"""

from __future__ import annotations

import bz2
import gzip
import hashlib
import importlib
import lzma
import os
import stat
from functools import partial
from itertools import accumulate, repeat
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

from exporter.records import Line

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

LINE_BYTES_MAX = 16 * 1024 * 1024
"""Longest line that is kept whole; Wok logs whole request bodies, so its lines have no bound of their own."""

KEPT_BYTES = 4096
"""What is kept of a longer line: enough to show what it was."""

HEAD_BYTES_MAX = 64 * 1024
"""How much of a first line makes the identity: a first line that never ends must not hide the file."""

PROOF_BYTES = 256
"""How many bytes prove an offset: more than the fixed part of a record, so that they hold its time or id."""

UNPACK_BYTES = 128 * 1024
"""Text asked from a decompressor at a time: bounds the memory that a hostile archive can claim."""

DIGEST_BYTES = 16

_MAGIC = (b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"\xfd7zXZ\x00", b"BZh")
_MAGIC_BYTES = 6
PACKED_SUFFIXES = (".gz", ".zst", ".xz", ".bz2")


class UnsupportedError(OSError):
    """Raised for a compressed file that needs a library which is not installed; the message names it."""


class ChangedError(Exception):
    """Raised when the bytes before an offset are no longer those that were read: the file was cut."""


class Mark(NamedTuple):
    """A proved place in a file: all before `offset` was handed on.

    `start` is smaller than `offset` only inside an over-long line, and is where that line begins. `proof` is
    the digest of the up to 256 bytes before `offset`. `done` says that the file was left for its successor.
    """

    file: bytes
    offset: int
    start: int
    proof: bytes
    done: bool = False

    def as_json(self) -> list[Any]:
        """Return the mark as a JSON value, for a position."""
        return [self.file.hex(), self.offset, self.start, self.proof.hex(), int(self.done)]


def mark_from_json(value: Any) -> Mark:
    """Return the mark that `as_json` wrote; raises ValueError for anything else."""
    match value:
        case [str() as file, int() as offset, int() as start, str() as proof, (0 | 1) as done]:
            return Mark(bytes.fromhex(file), offset, start, bytes.fromhex(proof), done == 1)
        case _:
            raise ValueError(f"not a mark: {str(value)[:80]!r}")


class PlainFile:
    """An uncompressed file; raises OSError from every method as the system does."""

    is_packed = False
    damage = ""

    def __init__(self, path: Path, descriptor: int, status: os.stat_result) -> None:
        self.path = path
        self.key = (status.st_dev, status.st_ino)
        self._descriptor = descriptor

    def read_at(self, offset: int, size: int) -> bytes:
        """Return up to `size` bytes of text from `offset` on; fewer only at the end."""
        return os.pread(self._descriptor, size, offset)

    def status(self) -> os.stat_result:
        """Return the file's status as it is now."""
        return os.fstat(self._descriptor)

    def end(self) -> int:
        """Return the length of the text in bytes."""
        return self.status().st_size

    def bytes_after(self, offset: int) -> int:
        """Return how many bytes on disk lie behind the text offset `offset`."""
        return max(0, self.end() - offset)

    def retry(self) -> None:
        """Do nothing: there is no damage to look at again."""

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)


class PackedFile:
    """A compressed file, read forwards; going back starts at its beginning again.

    `damage` says what is wrong with it, empty as long as nothing is: the text before the damage is readable
    like any other. Concatenated gzip members are one text. Raises UnsupportedError for zstd without a library.
    """

    is_packed = True

    def __init__(self, path: Path, raw: BinaryIO, magic: bytes) -> None:
        status = os.fstat(raw.fileno())
        self.path = path
        self.key = (status.st_dev, status.st_ino)
        self.damage = ""
        self._raw = raw
        self._magic = magic
        self._rewind()

    def _rewind(self) -> None:
        self._raw.seek(0)
        self._base = 0
        self._buffer = bytearray()
        self._text = _unpacked(self._raw, self._magic, self.path)

    def read_at(self, offset: int, size: int) -> bytes:
        """Return up to `size` bytes of text from `offset` on; fewer only at the end or before damage."""
        if offset < self._base:
            self._rewind()
        while self._base + len(self._buffer) < offset + size and (piece := self._piece()):
            self._buffer += piece
            passed = min(offset - self._base, len(self._buffer))
            if passed > 0:
                del self._buffer[:passed]
                self._base += passed
        from_here = offset - self._base
        return bytes(self._buffer[from_here : from_here + size])

    def _piece(self) -> bytes:
        try:
            piece: bytes = self._text.read1(UNPACK_BYTES)
        except Exception as error:  # each of five libraries has its own errors for bad data
            if isinstance(error, OSError) and error.errno is not None:
                raise
            self.damage = str(error) or type(error).__name__
            return b""
        return piece

    def status(self) -> os.stat_result:
        """Return the file's status as it is now."""
        return os.fstat(self._raw.fileno())

    def end(self) -> int:
        """Return the length of the text in bytes, as far as it is readable; reads it all."""
        offset = self._base + len(self._buffer)
        while piece := self.read_at(offset, UNPACK_BYTES):
            offset += len(piece)
        return offset

    def bytes_after(self, offset: int) -> int:
        """Return how many compressed bytes have not been read yet."""
        text_ahead = self._base + len(self._buffer) - offset
        return max(0, self.status().st_size - self._raw.tell()) + max(0, text_ahead)

    def retry(self) -> None:
        """Forget the damage: the file may have been in the making."""
        self.damage = ""
        self._rewind()

    def close(self) -> None:
        """Close the file."""
        self._raw.close()


LogFile = PlainFile | PackedFile


def _unpacked(raw: BinaryIO, magic: bytes, path: Path) -> Any:
    if magic.startswith(b"\x1f\x8b"):
        return gzip.GzipFile(fileobj=raw, mode="rb")
    if magic.startswith(b"BZh"):
        return bz2.BZ2File(raw)
    if magic.startswith(b"\xfd7zXZ"):
        return lzma.LZMAFile(raw)
    try:
        return importlib.import_module("compression.zstd").ZstdFile(raw)
    except ImportError:
        pass
    try:
        unpacker = importlib.import_module("zstandard").ZstdDecompressor()
    except ImportError:
        raise UnsupportedError(
            f"cannot decompress {path}: install the Python package `zstandard` or use Python 3.14"
        ) from None
    # Unlike the other libraries, this one does not tell a file that was cut from one that is complete.
    return unpacker.stream_reader(raw, read_across_frames=True, closefd=False)


def open_log(path: Path) -> LogFile:
    """Open a log file, compressed or not by what it holds, without ever waiting for a writer of a FIFO.

    Raises OSError as the system does, IsADirectoryError for a directory and plain OSError for anything else
    that is no regular file, UnsupportedError for a compression that this installation cannot read.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        status = os.fstat(descriptor)
        require_regular(path, status)
        magic = os.pread(descriptor, _MAGIC_BYTES, 0)
        if not magic.startswith(_MAGIC):
            return PlainFile(path, descriptor, status)
        raw = os.fdopen(os.dup(descriptor), "rb")
        try:
            packed = PackedFile(path, raw, magic)
        except BaseException:
            raw.close()
            raise
    except BaseException:
        os.close(descriptor)
        raise
    os.close(descriptor)
    return packed


def require_regular(path: Path, status: os.stat_result) -> None:
    """Raise OSError, naming the path, unless `status` is that of a regular file."""
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(f"{path} is a directory, not a log file")
    if not stat.S_ISREG(status.st_mode):
        raise OSError(f"{path} is not a regular file")


def digest(data: bytes) -> bytes:
    """Return the 16 bytes that stand for `data` in identities and proofs: the first of its SHA-256."""
    return hashlib.sha256(data).digest()[:DIGEST_BYTES]


def identity(file: LogFile, *, is_finished: bool) -> bytes:
    """Return the digest of the first line (of its first 64 KiB), or empty bytes while it is not complete.

    A finished file's first line is complete even without its newline.
    """
    head = file.read_at(0, HEAD_BYTES_MAX)
    first, newline, _ = head.partition(b"\n")
    if newline or len(head) == HEAD_BYTES_MAX or (is_finished and head):
        return digest(first)
    return b""


def proved_mark(file: LogFile, marks: Sequence[Mark], *, is_finished: bool) -> Mark | None:
    """Return that of `marks` which is the furthest place in this file, or None."""
    known = identity(file, is_finished=is_finished) if marks else b""
    for mark in _furthest_first(marks):
        if mark.file == known and digest(_before(file, mark.offset)) == mark.proof:
            return mark
    return None


def _furthest_first(marks: Sequence[Mark]) -> list[Mark]:
    return sorted(marks, key=lambda mark: mark.offset, reverse=True)


def shortened_mark(file: LogFile, marks: Sequence[Mark], *, is_finished: bool) -> Mark | None:
    """Return the end of this file when one of `marks` shows that more than it holds was read, or None.

    Such is a copy made before the last lines were written, and a log whose end a power cut took away; not a
    log that begins again like one that is done.
    """
    known = identity(file, is_finished=is_finished) if marks else b""
    for mark in _furthest_first(marks):
        if mark.file == known and (is_finished or not mark.done) and (end := file.end()) < mark.offset:
            return mark_at(file, known, end if is_finished else last_line_end(file, end))
    return None


def mark_at(file: LogFile, known: bytes, offset: int) -> Mark:
    """Return the mark of a place between two lines."""
    return Mark(known, offset, offset, digest(_before(file, offset)))


def last_line_end(file: LogFile, end: int) -> int:
    """Return the offset behind the last newline before `end`."""
    while end > 0:
        start = max(0, end - UNPACK_BYTES)
        newline = file.read_at(start, end - start).rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        end = start
    return 0


def _before(file: LogFile, offset: int) -> bytes:
    size = min(PROOF_BYTES, offset)
    return file.read_at(offset - size, size)


class Reader:
    """Reads the lines of one open file, from its beginning or from a mark that is proved in it.

    `identity` is empty until the first line is complete, and until then there are no lines. `offset` is
    behind all that was handed on. Every method raises OSError as the file does. Raises ChangedError for a
    mark that does not hold.
    """

    def __init__(self, file: LogFile, mark: Mark | None, line_bytes_max: int) -> None:
        self.file = file
        self.identity = mark.file if mark else b""
        self.offset = mark.offset if mark else 0
        self._start = mark.start if mark else 0
        self._before = _before(file, self.offset)
        if mark and digest(self._before) != mark.proof:
            raise ChangedError
        self._line_bytes_max = line_bytes_max
        self._kept_bytes = min(KEPT_BYTES, line_bytes_max)
        # A line is skipped piecemeal only when it has an identity to be skipped under.
        self._window_bytes_max = max(line_bytes_max, HEAD_BYTES_MAX) + 1

    def mark(self, *, done: bool = False) -> Mark | None:
        """Return the place reached, or None while the file has no identity."""
        if not self.identity:
            return None
        return Mark(self.identity, self.offset, self._start, digest(self._before), done)

    def is_proved(self) -> bool:
        """Return whether the bytes before the offset still are those that were read."""
        return self._before == _before(self.file, self.offset)

    def take(self, limit: int) -> list[Line]:
        """Return complete lines of about `limit` bytes, at least one if there is one.

        Of a line that is longer than the bound only the beginning is kept; while it is passed, no line is
        returned but the offset moves. Raises ChangedError when the file was cut before the offset.
        """
        is_inside = self._start < self.offset
        window = max(limit, 1)
        while True:
            data = self.file.read_at(self.offset, window)
            parts = data.split(b"\n")
            rest = parts.pop()
            if parts or is_inside or len(rest) < window or window >= self._window_bytes_max:
                break
            window = min(2 * window, self._window_bytes_max)
        # Proved after reading: a cut before the read shows now, a cut after it does not matter to the data.
        if not self.file.is_packed and not self.is_proved():
            raise ChangedError
        if not parts and not is_inside and len(rest) < self._window_bytes_max:
            return []
        if not self.identity:
            self.identity = digest((parts[0] if parts else rest)[:HEAD_BYTES_MAX])
        if not parts:
            self._move(len(data), data[-PROOF_BYTES:], self._start)
            return []
        lines: list[Line] = []
        offset = self.offset
        if is_inside:
            offset += len(parts[0]) + 1
            lines.append(self._cut_line(offset - 1 - self._start))
            del parts[0]
        lines += self._lines(offset, parts)
        taken = len(data) - len(rest)
        self._move(taken, data[max(0, taken - PROOF_BYTES) : taken], self.offset + taken)
        return lines

    def unfinished(self) -> bytes:
        """Return what stands behind the last newline, as far as it is not passed already."""
        return self.file.read_at(self.offset, self._window_bytes_max)

    def take_unfinished(self) -> list[Line]:
        """Return the last line of a file that nobody will write to any more, if it has no newline."""
        rest = self.unfinished()
        length = self.offset - self._start + len(rest)
        if not length:
            return []
        if not self.identity:
            self.identity = digest(rest[:HEAD_BYTES_MAX])
        data = rest if length <= self._line_bytes_max else self._cut_line(length).data
        line = Line(self.identity, self._start, data, length, ended=False)
        self._move(len(rest), rest[-PROOF_BYTES:], self.offset + len(rest))
        return [line]

    def is_held_by(self, other: LogFile) -> bool:
        """Return whether `other` has the same bytes around the offset: it is a copy, or this file is."""
        here = self._before + self.unfinished()[:KEPT_BYTES]
        return other.read_at(self.offset - len(self._before), len(here)) == here

    def _lines(self, offset: int, parts: list[bytes]) -> list[Line]:
        """Return the lines, whose newlines are gone, from `offset` on; built in C, a third of the time."""
        lengths = [len(part) for part in parts]
        offsets = accumulate([length + 1 for length in lengths], initial=offset)
        fields = zip(repeat(self.identity), offsets, parts, lengths, repeat(True))
        lines: list[Line] = list(map(partial(tuple.__new__, Line), fields))
        if lengths and max(lengths) > self._line_bytes_max:
            return [self._cut(line) for line in lines]
        return lines

    def _cut(self, line: Line) -> Line:
        return (
            line._replace(data=line.data[: self._kept_bytes]) if line.length > self._line_bytes_max else line
        )

    def _cut_line(self, length: int) -> Line:
        return Line(self.identity, self._start, self.file.read_at(self._start, self._kept_bytes), length)

    def _move(self, size: int, tail: bytes, start: int) -> None:
        """Pass `size` bytes, of which `tail` is the end."""
        self.offset += size
        self._before = (self._before + tail)[-PROOF_BYTES:]
        self._start = start

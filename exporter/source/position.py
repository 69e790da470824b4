"""Places in log files that are found again under any name: what was written proves them.

A file is *known* by the digest of its first line, its identity; and a place in it is *proved* by the digest of the
bytes just before that place, because a file that was cut and has grown past the place again may even begin with
the same line. Together they make a `FileMark`. Its offset is that of the text, so it also holds in a gzip copy.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, NamedTuple

from exporter.source.files import UNPACK_BYTES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from exporter.source.files import LogFile

HEAD_BYTES_MAX = 64 * 1024
"""How much of a first line makes the identity: a first line that never ends must not hide the file."""

PROOF_BYTES = 256
"""How many bytes prove an offset: more than the fixed part of a record, so that they hold its time or id."""

DIGEST_BYTES = 16


class FileMark(NamedTuple):
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


def mark_from_json(value: Any) -> FileMark:
    """Return the mark that `as_json` wrote; raises ValueError for anything else."""
    match value:
        case [str() as file, int() as offset, int() as start, str() as proof, (0 | 1) as done]:
            return FileMark(bytes.fromhex(file), offset, start, bytes.fromhex(proof), done == 1)
        case _:
            raise ValueError(f"not a mark: {str(value)[:80]!r}")


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


def proved_mark(file: LogFile, marks: Sequence[FileMark], *, is_finished: bool) -> FileMark | None:
    """Return that of `marks` which is the furthest place in this file, or None."""
    known = identity(file, is_finished=is_finished) if marks else b""
    for mark in _furthest_first(marks):
        if mark.file == known and digest(bytes_before(file, mark.offset)) == mark.proof:
            return mark
    return None


def _furthest_first(marks: Sequence[FileMark]) -> list[FileMark]:
    return sorted(marks, key=lambda mark: mark.offset, reverse=True)


def shortened_mark(file: LogFile, marks: Sequence[FileMark], *, is_finished: bool) -> FileMark | None:
    """Return the end of this file when one of `marks` shows that more than it holds was read, or None.

    Such is a copy made before the last lines were written, and a log whose end a power cut took away; not a
    log that begins again like one that is done.
    """
    known = identity(file, is_finished=is_finished) if marks else b""
    for mark in _furthest_first(marks):
        if mark.file == known and (is_finished or not mark.done) and (end := file.end()) < mark.offset:
            return mark_at(file, known, end if is_finished else last_line_end(file, end))
    return None


def mark_at(file: LogFile, known: bytes, offset: int) -> FileMark:
    """Return the mark of a place between two lines."""
    return FileMark(known, offset, offset, digest(bytes_before(file, offset)))


def last_line_end(file: LogFile, end: int) -> int:
    """Return the offset behind the last newline before `end`."""
    while end > 0:
        start = max(0, end - UNPACK_BYTES)
        newline = file.read_at(start, end - start).rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        end = start
    return 0


def bytes_before(file: LogFile, offset: int) -> bytes:
    """Return the bytes that prove an offset: the last ones before it."""
    size = min(PROOF_BYTES, offset)
    return file.read_at(offset - size, size)

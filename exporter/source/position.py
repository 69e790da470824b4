"""Positions in log files that stay valid when the file is renamed, copied or compressed.

The *identity* of a file is the digest of its first line. It is not enough: a file that was
truncated and grew beyond the position again may even begin with the same line. So the digest of the
bytes just before a position *proves* the position. Both digests and the offset make a `FileMark`.
Its offset counts bytes of the text, so the mark is also valid in a gzip copy.
"""

from __future__ import annotations

import binascii
import hashlib
from collections import deque
from typing import TYPE_CHECKING, Any, NamedTuple

from exporter.source.files import UNPACK_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from exporter.source.files import LogFile

HEAD_BYTES_MAX = 64 * 1024
"""Bytes of a first line that make the identity, because that line may never end."""

PROOF_BYTES = 256
"""Bytes that prove an offset: enough to contain the time or the id of a record."""

DIGEST_BYTES = 16

KNOWN_LINES_MAX = 256
RECORD_BYTES_MIN = 64
"""The shortest record that Wok ever wrote has 90 bytes."""
PRINT_BYTES = 6
"""Gives a chance of about one in a million that a file of a million lines has a false match."""
WINDOW_BYTES = 1024 * 1024
_ID = b'"id": "'
_UUID_CHARS = 36


class FileMark(NamedTuple):
    """A position in a file, with its proof: everything before `offset` was returned.

    `start` is smaller than `offset` only inside a line that is too long; it is where that line
    begins. `proof` is the digest of up to 256 bytes before `offset`. `done` means that reading
    moved on to the next file.
    """

    file: bytes
    offset: int
    start: int
    proof: bytes
    done: bool = False

    def as_json(self) -> list[Any]:
        """Return the mark as a JSON value, for the position text."""
        return [self.file.hex(), self.offset, self.start, self.proof.hex(), int(self.done)]


def mark_from_json(value: Any) -> FileMark:
    """Return the mark that `as_json` wrote. Raises ValueError for anything else."""
    match value:
        case [str() as file, int() as offset, int() as start, str() as proof, (0 | 1) as done]:
            return FileMark(bytes.fromhex(file), offset, start, bytes.fromhex(proof), done == 1)
        case _:
            raise ValueError(f"not a mark: {str(value)[:80]!r}")


def digest(data: bytes) -> bytes:
    """Return the digest for identities and proofs: the first 16 bytes of the SHA-256."""
    return hashlib.sha256(data).digest()[:DIGEST_BYTES]


def identity(file: LogFile, *, is_finished: bool) -> bytes:
    """Return the digest of the first line (or its first 64 KiB); empty while it is incomplete.

    The first line of a finished file is complete even without a newline.
    """
    head = file.read_at(0, HEAD_BYTES_MAX)
    first, newline, _ = head.partition(b"\n")
    if newline or len(head) == HEAD_BYTES_MAX or (is_finished and head):
        return digest(first)
    return b""


def proved_mark(file: LogFile, marks: Sequence[FileMark], *, is_finished: bool) -> FileMark | None:
    """Return the mark with the largest offset among those that this file proves, or None."""
    known = identity(file, is_finished=is_finished) if marks else b""
    for mark in _furthest_first(marks):
        if mark.file == known and digest(bytes_before(file, mark.offset)) == mark.proof:
            return mark
    return None


def _furthest_first(marks: Sequence[FileMark]) -> list[FileMark]:
    return sorted(marks, key=lambda mark: mark.offset, reverse=True)


def shortened_mark(file: LogFile, marks: Sequence[FileMark], *, is_finished: bool) -> FileMark | None:
    """Return the end of this file if a mark shows that more was read than the file has, else None.

    This is the case for a copy that was made before the last lines were written, and for a log that
    lost its end in a power failure. It is not the case for a new log whose first line equals that
    of a file which is done.
    """
    known = identity(file, is_finished=is_finished) if marks else b""
    for mark in _furthest_first(marks):
        if mark.file == known and (is_finished or not mark.done) and (end := file.end()) < mark.offset:
            return mark_at(file, known, end if is_finished else last_line_end(file, end))
    return None


class KnownLines:
    """Fingerprints of the last lines read, to find the position in a log that somebody edited.

    The fingerprint of a record is that of its uuid, and of any other line that of all its bytes.
    Only records are evidence. Other lines may repeat, so they only count directly after a known
    line.
    """

    def __init__(self, saved: str = "") -> None:
        data = binascii.a2b_base64(saved)
        prints = [data[at : at + PRINT_BYTES] for at in range(0, len(data), PRINT_BYTES)]
        self._prints = deque(prints, maxlen=KNOWN_LINES_MAX)

    def __bool__(self) -> bool:
        return bool(self._prints)

    def add(self, lines: Sequence[bytes]) -> None:
        """Add lines that were read, oldest first."""
        self._prints += map(_print, lines[-KNOWN_LINES_MAX:])

    def saved(self) -> str:
        """Return the fingerprints as text, for the constructor."""
        return binascii.b2a_base64(b"".join(self._prints), newline=False).decode("ascii")

    def place(self, file: LogFile) -> FileMark | None:
        """Return the mark after the last known line of this file, or None.

        An uncompressed file is read backwards, because the known lines are near its end.
        """
        order = {known: at for at, known in enumerate(self._prints)}
        best = (-1, 0)
        for start, data in _windows(file):
            offset = start
            is_known = False
            for line in data.split(b"\n")[:-1]:
                offset += len(line) + 1
                is_evidence = len(line) >= RECORD_BYTES_MIN and line.startswith(b'{"')
                at = order.get(_print(line), -1) if is_evidence or is_known else -1
                is_known = at >= 0
                if is_known:
                    best = max(best, (at, offset))
            if best[0] >= 0 and not file.is_packed:
                break
        if best[0] < 0 or not (known := identity(file, is_finished=False)):
            return None
        return mark_at(file, known, best[1])


def _windows(file: LogFile) -> Iterator[tuple[int, bytes]]:
    """Yield whole lines in pieces with offsets, backwards; forwards in a compressed file."""
    if file.is_packed:
        offset = 0
        while data := file.read_at(offset, WINDOW_BYTES):
            whole = data[: data.rfind(b"\n") + 1] or data
            yield offset, whole
            offset += len(whole)
        return
    end = last_line_end(file, file.end())
    while end > 0:
        start = max(0, end - WINDOW_BYTES)
        data = file.read_at(start, end - start)
        passed = data.find(b"\n") + 1 if start else 0
        if passed < len(data):
            yield start + passed, data[passed:]
            end = start + passed
        else:
            end = start  # one line fills the window: it is too long to be a known line


def _print(line: bytes) -> bytes:
    at = 1 + len(_ID) if line.startswith(b"{" + _ID) else line.rfind(_ID) + len(_ID)
    if (
        at >= len(_ID)
        and line[at + _UUID_CHARS : at + _UUID_CHARS + 1] == b'"'
        and line[at + 8 : at + 9] == b"-"
    ):
        line = line[at : at + _UUID_CHARS]
    # An editor that converts the ends of lines leaves the lines themselves.
    line = line.removesuffix(b"\r")
    return hashlib.blake2b(line, digest_size=PRINT_BYTES).digest()


def mark_at(file: LogFile, known: bytes, offset: int) -> FileMark:
    """Return the mark of an offset between two lines."""
    return FileMark(known, offset, offset, digest(bytes_before(file, offset)))


def last_line_end(file: LogFile, end: int) -> int:
    """Return the offset after the last newline before `end`."""
    while end > 0:
        start = max(0, end - UNPACK_BYTES)
        newline = file.read_at(start, end - start).rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        end = start
    return 0


def bytes_before(file: LogFile, offset: int) -> bytes:
    """Return the bytes that prove an offset: up to 256 bytes before it."""
    size = min(PROOF_BYTES, offset)
    return file.read_at(offset - size, size)

"""Opens log files, compressed or not, and reads them at any offset of their text.

A log file can change its name (rotation), its inode (copy), its bytes on disk (compression) and its
size (truncation). An inode number is reused as soon as its file is gone. Only the text stays the
same: `position.py` identifies a file by its text, and `line_reader.py` reads the lines.

Offsets always count bytes of the text. So a place in a plain file has the same offset in its gzip
copy.
"""

from __future__ import annotations

import bz2
import gzip
import importlib
import lzma
import os
import stat
from typing import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:
    from pathlib import Path

UNPACK_BYTES = 128 * 1024
"""Bytes of text per call of a decompressor: bounds the memory that a hostile archive can use."""

_MAGIC = (b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"\xfd7zXZ\x00", b"BZh", b"\x5d\x00\x00")
_FOREIGN = {
    b"PK\x03\x04": "zip",
    b"\x1f\x9d": "compress",
    b"\x04\x22\x4d\x18": "lz4",
    b"LZIP": "lzip",
    b"\x89LZO": "lzop",
    b"7z\xbc\xaf": "7z",
}
"""Compressions that nothing here can undo, by the first bytes of their files."""
_MAGIC_BYTES = 6


class UnsupportedError(OSError):
    """Raised for a compressed file whose library is not installed; the message
    names the library.
    """


class PlainFile:
    """An uncompressed file; every method can raise OSError."""

    is_packed = False
    damage = ""

    def __init__(self, path: Path, descriptor: int, status: os.stat_result) -> None:
        self.path = path
        self.key = (status.st_dev, status.st_ino)
        self._descriptor = descriptor

    def read_at(self, offset: int, size: int) -> bytes:
        """Return up to `size` bytes of text from `offset` on; fewer only at the end of the file."""
        return os.pread(self._descriptor, size, offset)

    def status(self) -> os.stat_result:
        """Return the file's status as it is now."""
        return os.fstat(self._descriptor)

    def end(self) -> int:
        """Return the length of the text in bytes."""
        return self.status().st_size

    def bytes_after(self, offset: int) -> int:
        """Return the number of bytes on disk after the text offset `offset`."""
        return max(0, self.end() - offset)

    def retry(self) -> None:
        """Do nothing: a plain file has no damage to check again."""

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)


class PackedFile:
    """A compressed file, read forwards; reading at an earlier offset starts again at the beginning.

    `damage` describes what is wrong with the file, and is empty if nothing is. The text before the
    damage is readable. Concatenated gzip members are one text. Raises UnsupportedError for zstd if
    no library for it is installed.
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
        """Return up to `size` bytes of text from `offset` on; fewer only at the
        end or at damage.
        """
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
        except Exception as error:  # each of the five libraries has its own exceptions for bad data
            if isinstance(error, OSError) and error.errno is not None:
                raise
            self.damage = str(error) or type(error).__name__
            return b""
        return piece

    def status(self) -> os.stat_result:
        """Return the file's status as it is now."""
        return os.fstat(self._raw.fileno())

    def end(self) -> int:
        """Return the length of the readable text in bytes. This decompresses all of it."""
        offset = self._base + len(self._buffer)
        while piece := self.read_at(offset, UNPACK_BYTES):
            offset += len(piece)
        return offset

    def bytes_after(self, offset: int) -> int:
        """Return the number of compressed bytes that are unread, plus the text after `offset` in
        memory.
        """
        text_ahead = self._base + len(self._buffer) - offset
        return max(0, self.status().st_size - self._raw.tell()) + max(0, text_ahead)

    def retry(self) -> None:
        """Clear the damage and start again: the file may have been incomplete at that time."""
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
    if magic.startswith((b"\xfd7zXZ", b"\x5d\x00\x00")):
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
    # Unlike the other libraries, this one cannot tell a truncated file from a complete one.
    return unpacker.stream_reader(raw, read_across_frames=True, closefd=False)


def open_log(path: Path, *, is_named: bool = False) -> LogFile:
    """Open a log file; its content decides whether it is compressed. Never block, not even on a
    FIFO.

    Raises IsADirectoryError for a directory, OSError for anything else that is not a regular file
    or that the system cannot open, and UnsupportedError for a compression without a library.
    Foreign compressions are an error for rotated files. A file that the user named (`is_named`) is
    read as it is, because the commands say what it is.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        status = os.fstat(descriptor)
        require_regular(path, status)
        magic = os.pread(descriptor, _MAGIC_BYTES, 0)
        if not is_named:
            _require_readable(path, magic)
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


def _require_readable(path: Path, magic: bytes) -> None:
    for beginning, name in _FOREIGN.items():
        if magic.startswith(beginning):
            raise UnsupportedError(f"cannot decompress {path}: it is in the format of {name}; unpack it")


def require_regular(path: Path, status: os.stat_result) -> None:
    """Raise OSError with the path unless `status` is that of a regular file."""
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(f"{path} is a directory, not a log file")
    if not stat.S_ISREG(status.st_mode):
        raise OSError(f"{path} is not a regular file")

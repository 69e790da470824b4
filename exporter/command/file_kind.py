"""Names files that are not logs, by their first bytes: archives, databases, programs."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from pathlib import Path

from exporter.config.files import why_unreadable
from exporter.terminal.text import visible

HEAD_BYTES = 4096
GZIP = b"\x1f\x8b"
TAR_MAGIC_AT = 257
MAGIC = (
    (b"PK\x03\x04", "a zip archive: unpack it first"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive: unpack it first"),
    (b"\x04\x22\x4d\x18", "compressed with lz4: unpack it first"),
    (b"!<arch>\n", "an ar archive, such as a .deb: unpack it first"),
    (b"SQLite format 3\x00", "an SQLite database, not a log"),
    (b"\x7fELF", "a program, not a log"),
)
COMPRESSED = (b"BZh", b"\xfd7zXZ\x00", b"\x5d\x00\x00", b"\x28\xb5\x2f\xfd")
"""bzip2, xz, lzma and zstd: the exporter reads them, so what they hold is judged by its lines."""
BINARY_SHARE = 0.1
"""Texts of any encoding that Wok writes have no control characters but blanks, tabs and newlines.
"""


def not_a_log(path: Path) -> str:
    """Return what a file is if it cannot be a log, otherwise an empty text; never raises."""
    if why_unreadable(path):
        return ""
    try:
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
    except OSError:
        return ""
    if head.startswith(GZIP):
        try:
            head = zlib.decompressobj(31).decompress(head, HEAD_BYTES)
        except zlib.error:
            return ""
        if _is_tar(head):
            return "a compressed tar archive: unpack it first"
    if head.startswith(COMPRESSED):
        return ""
    if _is_tar(head):
        return "a tar archive: unpack it first"
    for magic, what in MAGIC:
        if head.startswith(magic):
            return what
    # a log that was truncated under its writer begins with a hole of NUL bytes
    text = head.lstrip(b"\0")
    controls = sum(byte < 32 and byte not in b"\t\n\r\x1b" for byte in text)
    return "a binary file, not a log" if text and controls > BINARY_SHARE * len(text) else ""


def names_of_kinds(paths: Iterable[Path]) -> str:
    """Return a sentence that names the files that cannot be logs, empty if there are none."""
    return ". ".join(f"{visible(str(path))} is {what}" for path in paths if (what := not_a_log(path)))


def _is_tar(head: bytes) -> bool:
    return head[TAR_MAGIC_AT : TAR_MAGIC_AT + 5] == b"ustar"

r"""Finds what the request log quotes of wok-error.log in lines that are not processed yet.

The request log shows which lines of wok-error.log are forged (`wok/forgery.py`). While the exporter
follows both logs, it reads these proofs in time: no forged line is older than its quote. In a
backlog, wok-error.log is read ahead of the request log. Then a forged line can be there long before
its quote, as if it had been written at the time that it claims. So the rest of the request log is
searched for quotes first. Nothing is searched as long as nobody asks.
"""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Final

from exporter.records import NANOS
from exporter.source.files import LogFile, PackedFile, open_log
from exporter.wok.forgery import WORDS, forged_by

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

BLOCK_BYTES: Final = 1024 * 1024
SLACK_NANOS: Final = 24 * 3600 * NANOS
"""The modification time of a file is not older than its lines, whose zone may be another one."""
SEARCHED_BYTES_MAX: Final = 4 * 1024 * 1024 * 1024
"""This takes some seconds. A log of Wok is a thousand times smaller."""
QUOTES_MAX: Final = 65536
FILES_MAX: Final = 64
"""The newest files that are searched."""


class LaterQuotes:
    """The quotes in the files of a log: ids of tasks, and marks of a start.

    `paths` returns the files, oldest first. Each part of a file is searched once.
    """

    def __init__(self, paths: Callable[[], Sequence[Path]]) -> None:
        self._paths = paths
        self._quotes: set[str] = set()
        self._reached: dict[tuple[int, int], int] = {}
        self._searched = 0
        self._is_current = False

    def outdate(self) -> None:
        """Search again before the next answer: more of wok-error.log was read."""
        self._is_current = False

    def has(self, text: str, since: int) -> bool:
        """Return whether a line quotes an id or a mark.

        Lines before `since` (in nanoseconds) may be ignored.

        If there is too much to search, everything counts as quoted: it is not known to be true.
        """
        if not self._is_current:
            self._is_current = True
            self._search(since - SLACK_NANOS)
        is_known = self._searched <= SEARCHED_BYTES_MAX and len(self._quotes) <= QUOTES_MAX
        return text in self._quotes or not is_known

    def _search(self, since: int) -> None:
        reached: dict[tuple[int, int], int] = {}
        for path in self._paths()[-FILES_MAX:]:
            try:
                if path.stat().st_mtime_ns < since:
                    continue
                with closing(open_log(path)) as file:
                    reached[file.key] = self._search_file(file)
            except OSError:
                continue  # the file is gone, or was never read
        self._reached = reached

    def _search_file(self, file: LogFile) -> int:
        """Search the new part of a file and return where it ends."""
        offset = self._reached.get(file.key, 0)
        if isinstance(file, PackedFile):
            if offset:
                return offset  # a compressed file does not grow
        elif file.end() < offset:
            offset = 0  # the file was truncated
        while self._searched <= SEARCHED_BYTES_MAX and len(self._quotes) <= QUOTES_MAX:
            block = file.read_at(offset, BLOCK_BYTES)
            end = block.rfind(b"\n") + 1
            if not end and len(block) < BLOCK_BYTES:
                break
            block = block[:end] if end else block
            for line in _lines_with(WORDS, block):
                quoted = forged_by(line)
                self._quotes.update(quoted.ids, quoted.marks)
            offset += len(block)
            self._searched += len(block)
        return offset


def _lines_with(words: Sequence[bytes], block: bytes) -> Iterator[bytes]:
    """Return the lines of a block that contain one of these words. Most blocks have none."""
    for word in words:
        at = block.find(word)
        while at >= 0:
            end = block.find(b"\n", at)
            end = len(block) if end < 0 else end
            yield block[block.rfind(b"\n", 0, at) + 1 : end]
            at = block.find(word, end)

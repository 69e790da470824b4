"""Which line is being read, on disk, so that no start dies twice of the same one.

What a line costs is bounded, as far as anybody knows. Should a line end the process all the same, by all memory that
there is or a fault in a library, the service manager starts it again, it reads the same line, and so on for ever. So the
place of each long line is written down before it is read, and taken back behind it. A place that is found at a start
is that of a line which was not survived: it is not read again, but rejected and counted.

Short lines are not written down: there is nothing in them that could cost much, and it would take half of their time.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from exporter.records import Line

LONG_BYTES = 64 * 1024


class Attempts:
    """The line that is being read, in the file `path`. Without the file's directory nothing is written down."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._failed = ""
        with suppress(OSError, UnicodeDecodeError):
            self._failed = path.read_text("ascii")

    def begin(self, line: Line) -> bool:
        """Write down that the line is being read; return False if an earlier attempt to read it was not survived."""
        place = f"{line.file.hex()} {line.offset}"
        if place == self._failed:
            return False
        with suppress(OSError):
            self._path.write_text(place, "ascii")
        return True

    def end(self) -> None:
        """Take back what `begin` has written; a line that was not survived stays known until its rejection is committed."""
        with suppress(OSError):
            if self._failed:
                self._path.write_text(self._failed, "ascii")
            else:
                self._path.unlink()

"""Records on disk which long line is being parsed, so that one line cannot crash every start.

The cost of a line is bounded as far as we know. If a line crashes the process anyway (it uses all
memory, or hits a fault in a library), the service manager restarts the process, which reads the
same line again, forever. So the position of each long line is written to a file before the line is
parsed and removed afterwards. A position that is found at a start belongs to a line that crashed
the process. That line is rejected and counted instead of parsed.

Short lines are not recorded. They cannot cost much, and recording them would take half of the time
of parsing them.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from exporter.records import Line

LONG_BYTES = 64 * 1024


class Attempts:
    """The line that is being parsed, stored in the file `path`.

    If the directory of the file does not exist, nothing is stored.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._failed = ""
        with suppress(OSError, UnicodeDecodeError):
            self._failed = path.read_text("ascii")

    def begin(self, line: Line) -> bool:
        """Store the position of the line; return False if parsing it crashed an earlier process."""
        place = f"{line.file.hex()} {line.offset}"
        if place == self._failed:
            return False
        with suppress(OSError):
            self._path.write_text(place, "ascii")
        return True

    def end(self) -> None:
        """Remove the position that `begin` stored.

        A line that crashed an earlier process stays recorded until its rejection is committed.
        """
        with suppress(OSError):
            if self._failed:
                self._path.write_text(self._failed, "ascii")
            else:
                self._path.unlink()

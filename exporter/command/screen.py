"""What people see while something happens: lines that stay, and a last one that changes.

There is a terminal or there is none. On a terminal lines are folded at words and may be in colour; anywhere else they
are whole and plain, so that what is written to a file or a pipe can be searched and compared.
"""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Mapping
from typing import TextIO

from exporter.command.text import visible

COLOURS = {"green": "32", "red": "31", "magenta": "35", "yellow": "33", "bold": "1"}
"""Select Graphic Rendition (ECMA-48), in the sixteen colours that people have tuned for their eyes."""
TEXT_COLUMNS_MIN = 20
"""A terminal narrower than this folds by itself."""


class Screen:
    """Prints for people: folded and in colour on a terminal, whole lines without any escapes elsewhere.

    Colour obeys `NO_COLOR` and `TERM=dumb`.
    """

    def __init__(self, out: TextIO, environ: Mapping[str, str]) -> None:
        self._out = out
        self._is_terminal = out.isatty()
        self._is_coloured = (
            self._is_terminal and not environ.get("NO_COLOR") and environ.get("TERM") != "dumb"
        )
        self._status = ""

    def say(self, text: str, *, first: str = "", indent: int = 0, colour: str = "") -> None:
        """Print a line: `first` in front, in its colour, and the text behind it, from column `indent` on."""
        self.status("")
        head = visible(first)
        whole = visible(text)
        columns = max(TEXT_COLUMNS_MIN, self._columns() - indent)
        parts = textwrap.wrap(whole, columns, break_on_hyphens=False) if self._is_terminal else [whole]
        for part in parts or [""]:
            gap = " " * (indent - len(head)) if part else ""
            self._put(f"{self._painted(head, colour)}{gap}{part}\n")
            head = ""

    def title(self, text: str) -> None:
        """Print a heading."""
        self.say("")
        self.say("", first=text, colour="bold")

    def raw(self, text: str) -> None:
        """Print a line that is to be copied, and so is not folded."""
        self.status("")
        self._put(visible(text) + "\n")

    def status(self, text: str) -> None:
        """Show a line that the next one replaces; on a terminal alone."""
        if not self._is_terminal:
            return
        text = visible(text)[: self._columns() - 1]
        if text == self._status:
            return
        self._put("\r" + " " * len(self._status) + "\r" + text)
        self._status = text

    def _columns(self) -> int:
        return shutil.get_terminal_size().columns

    def _painted(self, text: str, colour: str) -> str:
        return f"\x1b[{COLOURS[colour]}m{text}\x1b[0m" if self._is_coloured and colour and text else text

    def _put(self, text: str) -> None:
        encoding = self._out.encoding or "utf-8"
        self._out.write(text.encode(encoding, "replace").decode(encoding))
        self._out.flush()

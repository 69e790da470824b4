"""Output for people while something happens: lines that stay, and a last one that changes.

On a terminal, lines are wrapped at words and may have colours. Elsewhere they are whole and plain,
so that a file or a pipe can be searched and compared.
"""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Mapping
from typing import TextIO

from exporter.terminal.task_table import clipped, may_be_coloured, width_of
from exporter.terminal.text import visible

COLOURS = {"green": "32", "red": "31", "magenta": "35", "yellow": "33", "bold": "1"}
"""Select Graphic Rendition (ECMA-48), in the sixteen colours of the terminal's theme."""
TEXT_COLUMNS_MIN = 20
"""A narrower terminal wraps by itself."""


def terminal_width(out: TextIO) -> int | None:
    """Return the width of a terminal in cells, None for a pipe or a file."""
    return shutil.get_terminal_size().columns if out.isatty() else None


class StatusLine:
    """A line on `out` that the next one replaces, no wider than the terminal; nothing without a
    terminal.
    """

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._is_terminal = out.isatty()
        self._shown = ""

    def show(self, text: str) -> None:
        """Draw the text over the previous one; an empty text erases the line."""
        if not self._is_terminal:
            return
        text = clipped(visible(text), shutil.get_terminal_size().columns - 1)
        if text != self._shown:
            rest = " " * (width_of(self._shown) - width_of(text))
            _put(self._out, f"\r{text}{rest}" if text else f"\r{rest}\r")
            self._shown = text


class Screen:
    """Prints for people: wrapped and coloured on a terminal, whole plain lines elsewhere.

    `NO_COLOR` and `TERM=dumb` disable colours.
    """

    def __init__(self, out: TextIO, environ: Mapping[str, str]) -> None:
        self._out = out
        self._is_terminal = out.isatty()
        self._is_coloured = self._is_terminal and may_be_coloured(environ)
        self._line = StatusLine(out)

    def say(self, text: str, *, first: str = "", indent: int = 0, colour: str = "") -> None:
        """Print a line: `first` in its colour, then the text from column `indent` on."""
        self.status("")
        head = visible(first)
        whole = visible(text)
        columns = max(TEXT_COLUMNS_MIN, shutil.get_terminal_size().columns - indent)
        parts = textwrap.wrap(whole, columns, break_on_hyphens=False) if self._is_terminal else [whole]
        for part in parts or [""]:
            gap = " " * (indent - len(head)) if part else ""
            _put(self._out, f"{self._painted(head, colour)}{gap}{part}\n")
            head = ""

    def title(self, text: str) -> None:
        """Print a heading."""
        self.say("")
        self.say("", first=text, colour="bold")

    def raw(self, text: str) -> None:
        """Print a line that people copy, and that is therefore not wrapped."""
        self.status("")
        _put(self._out, visible(text) + "\n")

    def status(self, text: str) -> None:
        """Show a line that the next one replaces, on a terminal only."""
        self._line.show(text)

    def _painted(self, text: str, colour: str) -> str:
        return f"\x1b[{COLOURS[colour]}m{text}\x1b[0m" if self._is_coloured and colour and text else text


def _put(out: TextIO, text: str) -> None:
    encoding = out.encoding or "utf-8"
    out.write(text.encode(encoding, "replace").decode(encoding))
    out.flush()

"""A full-screen terminal: entered, drawn again and again, and restored at the end.

It uses the alternate screen of xterm and compatible terminals (1049), so that the previous contents
come back afterwards. The terminal is restored in every case: at a key, at Ctrl-C, at a signal, and
while the program is suspended with Ctrl-Z. Keys are read one by one without echo; Ctrl-C and Ctrl-Z
remain signals.
"""

from __future__ import annotations

import os
import selectors
import shutil
import signal
import termios
import tty
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from types import FrameType
from typing import Self, TextIO

ENTER = "\x1b[?1049h\x1b[?25l\x1b[?7l"
LEAVE = "\x1b[?7h\x1b[?25h\x1b[?1049l"
"""The alternate screen, no cursor, and no second row for a line that is too wide (DEC private
modes).
"""
HOME, CLEAR_LINE, CLEAR_BELOW = "\x1b[H", "\x1b[K", "\x1b[J"

KEY_BYTES_MAX = 64
"""How much to read at once; a key has up to about ten bytes."""


class FullScreen:
    """Draws on `out`, a terminal, and reads keys from `keyboard`, if that is a terminal.

    It is a context manager. Inside, SIGTERM and SIGHUP raise KeyboardInterrupt, like Ctrl-C.
    """

    def __init__(self, out: TextIO, keyboard: TextIO | None) -> None:
        self._out = out
        # None: the program was started with its standard input closed
        self._keyboard = keyboard if keyboard is not None and keyboard.isatty() else None
        self._modes = termios.tcgetattr(self._keyboard) if self._keyboard else None
        self._is_to_stop = False
        self._left = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as left:
            self._selector = left.enter_context(selectors.DefaultSelector())
            self._bell, self._ring = os.pipe()
            left.callback(os.close, self._bell)
            left.callback(os.close, self._ring)
            for end in (self._bell, self._ring):
                os.set_blocking(end, False)
            self._selector.register(self._bell, selectors.EVENT_READ, "bell")
            for number, handler in (
                (signal.SIGWINCH, self._rung),
                (signal.SIGTSTP, self._rung),
                (signal.SIGTERM, signal.default_int_handler),
                (signal.SIGHUP, signal.default_int_handler),
            ):
                left.callback(signal.signal, number, signal.signal(number, handler) or signal.SIG_DFL)
            if self._keyboard:
                self._selector.register(self._keyboard, selectors.EVENT_READ, "key")
            left.callback(self._leave)
            self._enter()
            self._left = left.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._left.close()

    def size(self) -> tuple[int, int]:
        """Return columns and rows; COLUMNS and LINES of the environment have precedence."""
        return shutil.get_terminal_size()

    def draw(self, lines: Sequence[str]) -> None:
        """Show the lines from the first row on, and nothing below; there are at most as many as
        rows.
        """
        # In one write, over the old contents: clearing the screen first makes it flicker.
        self._put(HOME + "\r\n".join(f"{line}{CLEAR_LINE}" for line in lines) + CLEAR_BELOW)

    def wait(self, seconds: float) -> str:
        """Wait until a key is pressed, the window's size changes, or `seconds` have passed; return
        the key.

        Without a key the text is empty; if the terminal was closed it is `q`.
        """
        for chosen, _ in self._selector.select(seconds):
            if chosen.data == "bell":
                os.read(self._bell, KEY_BYTES_MAX)
                if self._is_to_stop:
                    self._stop()
                continue
            try:
                key = os.read(chosen.fd, KEY_BYTES_MAX)
            except OSError:
                key = b""
            return key.decode("utf-8", "replace") if key else "q"
        return ""

    def _enter(self) -> None:
        if self._keyboard:
            tty.setcbreak(self._keyboard)
        self._put(ENTER)

    def _leave(self) -> None:
        # A closed terminal needs no restoring.
        with suppress(OSError):
            self._put(LEAVE)
            if self._keyboard and self._modes:
                termios.tcsetattr(self._keyboard, termios.TCSADRAIN, self._modes)

    def _put(self, text: str) -> None:
        self._out.write(text)
        self._out.flush()

    def _rung(self, number: int, _frame: FrameType | None) -> None:
        # Nothing is drawn here: the signal may have interrupted drawing.
        self._is_to_stop = self._is_to_stop or number == signal.SIGTSTP
        with suppress(BlockingIOError):
            os.write(self._ring, b".")

    def _stop(self) -> None:
        self._is_to_stop = False
        self._leave()
        os.kill(os.getpid(), signal.SIGSTOP)
        self._enter()

"""What signals ask of a command: to stop, or (the daemon) to read its configuration again.

A handler may run in the middle of anything the main thread does, also in the middle of its waiting. It therefore
sets a flag and writes a byte into a pipe, and takes no lock: `threading.Event.set` in a handler may wait for the
lock that the interrupted `wait` of the same thread holds, for ever.
"""

from __future__ import annotations

import os
import select
import signal
from contextlib import suppress

BELL_BYTES = 512


class SignalFlags:
    """What has been asked for so far: `stop` for good, `reload` until it is taken up and set back."""

    def __init__(self) -> None:
        self.stop = False
        self.reload = False
        self._bell, self._ring = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    @classmethod
    def by_signals(cls, *, hangup_stops: bool) -> SignalFlags:
        """Return what SIGTERM and SIGINT (stop) and SIGHUP (reload) ask of this process from now on.

        With `hangup_stops` SIGHUP stops as well: at a terminal it means that the terminal has gone.
        """
        asked = cls()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: asked.ask_stop())
        signal.signal(signal.SIGHUP, lambda *_: asked.ask_stop() if hangup_stops else asked.ask_reload())
        return asked

    def ask_stop(self) -> None:
        """Ask to stop; from anywhere, also from a handler."""
        self.stop = True
        self._wake()

    def ask_reload(self) -> None:
        """Ask to reload; from anywhere, also from a handler."""
        self.reload = True
        self._wake()

    def is_set(self) -> bool:
        """Return whether to stop."""
        return self.stop

    def wait(self, timeout: float) -> None:
        """Wait until something is asked, at most so long; what was asked since the last wait ends it at once, a stop
        any.
        """
        if not self.stop and select.select([self._bell], [], [], timeout)[0]:
            with suppress(BlockingIOError):
                os.read(self._bell, BELL_BYTES)

    def _wake(self) -> None:
        # A full pipe rings as well.
        with suppress(BlockingIOError):
            os.write(self._ring, b".")

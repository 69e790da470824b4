"""What signals ask a command to do: stop, or (the daemon) read its configuration again.

A handler may interrupt the main thread anywhere, also while it waits. It therefore only sets a flag
and writes a byte into a pipe, and takes no lock: `threading.Event.set` in a handler may deadlock on
the lock that the interrupted `wait` of the same thread holds.
"""

from __future__ import annotations

import os
import select
import signal
from contextlib import suppress

BELL_BYTES = 512


class SignalFlags:
    """What signals have asked for: `stop` for good, `reload` until it is handled and reset."""

    def __init__(self) -> None:
        self.stop = False
        self.reload = False
        self._bell, self._ring = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    @classmethod
    def by_signals(cls, *, hangup_stops: bool) -> SignalFlags:
        """Install handlers and return the flags they set: SIGTERM and SIGINT stop, SIGHUP reloads.

        With `hangup_stops` SIGHUP stops, too: in a terminal it means that the terminal was closed.
        """
        asked = cls()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: asked.ask_stop())
        signal.signal(signal.SIGHUP, lambda *_: asked.ask_stop() if hangup_stops else asked.ask_reload())
        return asked

    def ask_stop(self) -> None:
        """Ask to stop, from anywhere, including a handler."""
        self.stop = True
        self._wake()

    def ask_reload(self) -> None:
        """Ask to reload, from anywhere, including a handler."""
        self.reload = True
        self._wake()

    def is_set(self) -> bool:
        """Return whether to stop."""
        return self.stop

    def wait(self, timeout: float) -> None:
        """Wait for a request, at most `timeout` seconds.

        A request since the last wait ends it immediately; a stop ends every wait.
        """
        if not self.stop and select.select([self._bell], [], [], timeout)[0]:
            with suppress(BlockingIOError):
                os.read(self._bell, BELL_BYTES)

    def _wake(self) -> None:
        # A full pipe wakes the reader, too.
        with suppress(BlockingIOError):
            os.write(self._ring, b".")

"""systemd's notification protocol: datagrams of `NAME=value` lines to the service manager.

It needs neither systemd's library nor systemd: without a manager's address nothing is sent. A
manager that does not accept a datagram is not waited for, because lost news is sent again with the
next turn. The address and the watchdog are removed from the environment, so that no child notifies
in our name. Source: sd_notify(3), "Well-known assignments" and "Notes"; sd_watchdog_enabled(3).
"""

from __future__ import annotations

import logging
import math
import os
import socket
import time
from collections.abc import MutableMapping

SEND_SECONDS_MAX = 1.0
"""How long to wait for a manager whose queue is full."""
STATUS_CHARS_MAX = 400
"""Longer than a terminal is wide, shorter than a datagram."""
TURNS_A_WATCHDOG = 4
"""Keep-alives within the watchdog's time: one may be lost, and one late."""

log = logging.getLogger(__name__)


class ServiceManager:
    """Notifies the manager at `address` of this program's status; an empty address is no manager.

    `watchdog_seconds` is how long the manager waits for a keep-alive before it kills the program;
    infinite without a watchdog. Every method returns whether the manager received the news, True
    without a manager.
    """

    def __init__(self, address: str = "", watchdog_seconds: float = math.inf) -> None:
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._fed_at = -math.inf
        self._has_failed = False
        self.pace_seconds = watchdog_seconds / TURNS_A_WATCHDOG
        """How often a keep-alive is due, and the longest that the program should wait in one turn.
        """

    @classmethod
    def of(cls, environ: MutableMapping[str, str]) -> ServiceManager:
        """Return the manager that started this program, and remove its variables from the
        environment.
        """
        address = environ.pop("NOTIFY_SOCKET", "")
        microseconds = environ.pop("WATCHDOG_USEC", "")
        pid = environ.pop("WATCHDOG_PID", "")
        if address and not address.startswith(("/", "@")):
            log.warning(
                "NOTIFY_SOCKET is not a local socket (%s): the service manager is not notified", address
            )
            address = ""
        # Set for another process, it is our parent's.
        is_watched = microseconds.isdecimal() and int(microseconds) > 0 and pid in {"", str(os.getpid())}
        return cls(address, int(microseconds) / 1e6 if address and is_watched else math.inf)

    @property
    def is_there(self) -> bool:
        """Whether there is a manager."""
        return bool(self._address)

    def ready(self, status: str) -> bool:
        """Report that the start, or a reload, is done."""
        return self._send("READY=1", _status(status))

    def say(self, status: str) -> bool:
        """Send one line of status, for `systemctl status`."""
        return self._send(_status(status))

    def reloading(self, status: str) -> bool:
        """Report that a reload started; it ends with `ready`.

        The time is for Type=notify-reload (systemd 253 and later).
        """
        return self._send("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}", _status(status))

    def stopping(self, status: str) -> bool:
        """Report that the stop started."""
        return self._send("STOPPING=1", _status(status))

    def alive(self) -> bool:
        """Send a keep-alive if one is due; never without a watchdog."""
        if math.isinf(self.pace_seconds):
            return True
        now = time.monotonic()
        if now - self._fed_at < self.pace_seconds:
            return True
        if not self._send("WATCHDOG=1"):
            return False
        self._fed_at = now
        return True

    def _send(self, *lines: str) -> bool:
        if not self._address:
            return True
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
                sender.settimeout(SEND_SECONDS_MAX)
                sender.connect(self._address)
                sender.send("\n".join(lines).encode("utf-8", "replace"))
        except OSError as error:
            if not self._has_failed:
                log.warning("cannot notify the service manager at NOTIFY_SOCKET: %s", error)
            self._has_failed = True
            return False
        self._has_failed = False
        return True


def _status(text: str) -> str:
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return f"STATUS={line if len(line) <= STATUS_CHARS_MAX else line[: STATUS_CHARS_MAX - 1] + '…'}"

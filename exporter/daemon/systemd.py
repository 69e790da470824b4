"""What a service manager is told: systemd's notification protocol, a datagram of `NAME=value` lines for each news.

It is spoken without systemd's library, and without systemd: where no manager has given us an address, nothing is
said. A manager that does not take a datagram is not waited for: news that is lost comes again with the next turn.
The address and the watchdog are taken out of the environment, so that no child speaks in our name.
Source: sd_notify(3), "Well-known assignments" and "Notes"; sd_watchdog_enabled(3).
"""

from __future__ import annotations

import logging
import math
import os
import socket
import time
from collections.abc import MutableMapping

SEND_SECONDS_MAX = 1.0
"""A manager whose queue is full has worse troubles; ours must not be that we wait for it."""
STATUS_CHARS_MAX = 400
"""More than a terminal is wide, less than a datagram takes."""
TURNS_A_WATCHDOG = 4
"""How often news comes within the watchdog's time: one may be lost, and one late."""

log = logging.getLogger(__name__)


class ServiceManager:
    """Tells a manager at `address` how this program stands; an empty address is no manager.

    `watchdog_seconds` is how long the manager waits for a sign of life before it ends the program; infinite
    without a watchdog. Every method returns whether the news is with the manager, True where there is none.
    """

    def __init__(self, address: str = "", watchdog_seconds: float = math.inf) -> None:
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._fed_at = -math.inf
        self._has_failed = False
        self.pace_seconds = watchdog_seconds / TURNS_A_WATCHDOG
        """How often a sign of life is due, and how long nobody should wait between two."""

    @classmethod
    def of(cls, environ: MutableMapping[str, str]) -> ServiceManager:
        """Return the manager that has started this program, and take its variables out of the environment."""
        address = environ.pop("NOTIFY_SOCKET", "")
        microseconds = environ.pop("WATCHDOG_USEC", "")
        pid = environ.pop("WATCHDOG_PID", "")
        if address and not address.startswith(("/", "@")):
            log.warning(
                "NOTIFY_SOCKET is no address of this system (%s): no manager is told anything", address
            )
            address = ""
        # Set for another process, it is our parent's own.
        is_watched = microseconds.isdecimal() and int(microseconds) > 0 and pid in {"", str(os.getpid())}
        return cls(address, int(microseconds) / 1e6 if address and is_watched else math.inf)

    @property
    def is_there(self) -> bool:
        """Whether anybody listens."""
        return bool(self._address)

    def ready(self, status: str) -> bool:
        """The start, or a reload, is done."""
        return self._send("READY=1", _status(status))

    def say(self, status: str) -> bool:
        """One line on how things stand, for whoever asks the manager."""
        return self._send(_status(status))

    def reloading(self, status: str) -> bool:
        """A reload has begun; it ends with `ready`. The time is for Type=notify-reload (systemd 253 and later)."""
        return self._send("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}", _status(status))

    def stopping(self, status: str) -> bool:
        """The end has begun."""
        return self._send("STOPPING=1", _status(status))

    def alive(self) -> bool:
        """A sign of life; as often as it is called it is sent no more often than is due, and never without watchdog."""
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
                log.warning("the service manager does not listen at NOTIFY_SOCKET: %s", error)
            self._has_failed = True
            return False
        self._has_failed = False
        return True


def _status(text: str) -> str:
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return f"STATUS={line if len(line) <= STATUS_CHARS_MAX else line[: STATUS_CHARS_MAX - 1] + '…'}"

"""A service manager's end of the notification protocol: a real datagram socket, and what came in."""

from __future__ import annotations

import socket
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Self

from tests.program import DEADLINE_SECONDS, environ

MESSAGE_BYTES = 65536


class ManagerEnd:
    """Hears what a program says at NOTIFY_SOCKET: each message is a mapping of its lines, kept in order in `heard`.

    It listens at a path, or without one at an abstract address. It is a context manager.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._address = str(path) if path is not None else f"@wok-exporter-{uuid.uuid4().hex}"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path) if path is not None else f"\0{self._address[1:]}")
        self.heard: list[dict[str, str]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def environ(
        self, more: Mapping[str, str] | None = None, *, watchdog_seconds: float | None = None
    ) -> dict[str, str]:
        """Return the environment of a program that this manager starts, with `more` in it."""
        watchdog = {} if watchdog_seconds is None else {"WATCHDOG_USEC": str(int(watchdog_seconds * 1e6))}
        return environ(NOTIFY_SOCKET=self._address, **watchdog, **(more or {}))

    def listen(self, seconds: float) -> list[dict[str, str]]:
        """Return what comes within so long."""
        end = time.monotonic() + seconds
        found = []
        while (left := end - time.monotonic()) > 0:
            self._socket.settimeout(left)
            try:
                found.append(self._next())
            except TimeoutError:
                break
        return found

    def wait_for(self, is_it: Callable[[dict[str, str]], bool]) -> dict[str, str]:
        """Return the next message that is the one; what came before it is in `heard`."""
        end = time.monotonic() + DEADLINE_SECONDS
        while True:
            self._socket.settimeout(max(0.001, end - time.monotonic()))
            try:
                message = self._next()
            except TimeoutError:
                raise AssertionError(f"it was not said; this was: {self.heard}") from None
            if is_it(message):
                return message

    def wait_ready(self) -> dict[str, str]:
        """Return the next message that says that the program is ready."""
        return self.wait_for(lambda message: "READY" in message)

    def _next(self) -> dict[str, str]:
        text = self._socket.recv(MESSAGE_BYTES).decode()
        message = dict(line.split("=", 1) for line in text.splitlines())
        self.heard.append(message)
        return message

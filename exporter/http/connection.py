"""One connection of a client, without blocking: handshake, head of the request, answer, end.

The server's loop calls `step` whenever the socket is ready. A step does what it can and returns
what to wait for next; it never waits itself.
"""

from __future__ import annotations

import socket
import ssl
from contextlib import suppress
from typing import Literal

from exporter.http.head import REQUEST_BYTES_MAX, is_complete

READ_BYTES = 4096
WRITE_BYTES = 256 * 1024
"""As much of an answer is handed to the kernel at a time: others get their turn."""

DISCARD_BYTES_MAX = 1024 * 1024
"""What a client sends behind its request is read up to here, see `Connection`."""

Phase = Literal["handshake", "head", "answering", "writing", "ending", "closed"]
Wait = Literal["read", "write", "nothing"]


class Connection:
    """The phases of a connection:

        handshake --> head --> answering --> writing --> ending --> closed

    While it is `answering`, the request is with a handler and the connection waits for nothing.
    `ending` reads what the client still sends: closing a socket with unread data would destroy the
    answer on its way. Any error ends in `closed`. `deadline` is when the server closes it, by the
    monotonic clock; `unsent_bytes` are left of the answer.
    """

    def __init__(self, raw: socket.socket, address: str, tls: ssl.SSLContext | None, deadline: float) -> None:
        raw.setblocking(False)
        self._socket = raw
        if tls is not None:
            self._socket = tls.wrap_socket(raw, server_side=True, do_handshake_on_connect=False)
        self._tls = isinstance(self._socket, ssl.SSLSocket)
        self.address = address
        self.deadline = deadline
        self.phase: Phase = "handshake" if self._tls else "head"
        self._received = bytearray()
        self._unsent: list[memoryview] = []
        self.unsent_bytes = 0
        self._discarded = 0

    def fileno(self) -> int:
        """Return the descriptor, for the selector."""
        return self._socket.fileno()

    @property
    def head(self) -> bytes:
        """What the client has sent."""
        return bytes(self._received)

    @property
    def is_too_large(self) -> bool:
        """True when the head is larger than allowed."""
        return len(self._received) >= REQUEST_BYTES_MAX and not is_complete(self._received)

    def send(self, *answer: bytes) -> None:
        """Give the answer, in parts; the following steps send it."""
        if self.phase != "closed":
            self.phase = "writing"
            self._unsent = [memoryview(part) for part in answer if part]
            self.unsent_bytes = sum(map(len, self._unsent))

    def step(self) -> Wait:
        """Go on as far as possible without waiting."""
        try:
            while True:
                before = self.phase
                self._step()
                if self.phase in {"answering", "closed"}:
                    return "nothing"
                if self.phase == before:
                    return "write" if before == "writing" else "read"
        except (ssl.SSLWantReadError, BlockingIOError):
            return "write" if self.phase == "writing" and not self._tls else "read"
        except ssl.SSLWantWriteError:
            return "write"
        except (OSError, ValueError):
            # Resets, bad handshakes: clients' troubles are not for the log.
            self.close()
            return "nothing"

    def _step(self) -> None:
        if self.phase == "handshake":
            assert isinstance(self._socket, ssl.SSLSocket)
            self._socket.do_handshake()
            self.phase = "head"
        elif self.phase == "head":
            self._read_head()
        elif self.phase == "writing":
            sent = self._socket.send(self._unsent[0][:WRITE_BYTES])
            self.unsent_bytes -= sent
            self._unsent[0] = self._unsent[0][sent:]
            if not self._unsent[0]:
                del self._unsent[0]
            if not self._unsent:
                self._end()
        elif self.phase == "ending":
            self._discard()

    def _read_head(self) -> None:
        while not is_complete(self._received):
            room = REQUEST_BYTES_MAX - len(self._received)
            data = self._socket.recv(min(READ_BYTES, room)) if room else b""
            if not data:
                if self._received:
                    break  # too large, or a client that has closed its side after the headers
                self.close()
                return
            self._received += data
        self.phase = "answering"

    def _end(self) -> None:
        """Say that nothing follows."""
        self.phase = "ending"
        if isinstance(self._socket, ssl.SSLSocket):
            with suppress(OSError):
                self._socket.unwrap()  # sends the alert; waiting for the client's is of no use
            self.close()
            return
        self._socket.shutdown(socket.SHUT_WR)

    def _discard(self) -> None:
        while self._discarded < DISCARD_BYTES_MAX:
            data = self._socket.recv(READ_BYTES)
            if not data:
                break
            self._discarded += len(data)
        self.close()

    def close(self) -> None:
        """Close the socket; further calls do nothing."""
        self.phase = "closed"
        self._unsent = []
        self.unsent_bytes = 0
        self._socket.close()

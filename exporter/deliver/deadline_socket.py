"""A connection whose waits all end at one moment, whatever the other side does."""

from __future__ import annotations

import io
import select
import socket
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ssl

    from _typeshed import WriteableBuffer


class DeadlineSocket:
    """A socket whose reads and writes all end at one moment, `end`, by the monotonic clock."""

    def __init__(self, sock: socket.socket, end: float) -> None:
        self.end = end
        self.has_received = False
        self._socket = sock
        self.reader = io.BufferedReader(_Reader(self))

    @classmethod
    def connect(cls, host: str, port: int, end: float) -> DeadlineSocket:
        """Connect to the first address of a host that accepts."""
        last: OSError = OSError("the host has no address")
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        for index, (family, kind, number, _, address) in enumerate(found):
            sock = socket.socket(family, kind, number)
            try:
                # One address that swallows packets must leave time for the others.
                sock.settimeout(left(end) / (len(found) - index))
                sock.connect(address)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            except OSError as error:
                sock.close()
                last = error
            else:
                return cls(sock, end)
        raise last

    def start_tls(self, context: ssl.SSLContext, host: str) -> None:
        """Continue with TLS; the certificate must be for `host`."""
        self._socket.settimeout(left(self.end))
        self._socket = context.wrap_socket(self._socket, server_hostname=host)

    def acknowledge_at_once(self) -> None:
        """Do not delay the acknowledgement of the next response.

        Many servers send its head and its body apart, and the body only once the head is
        acknowledged: 40 ms.
        """
        if hasattr(socket, "TCP_QUICKACK"):
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)

    def send_all(self, data: bytes) -> None:
        """Send all of it."""
        view = memoryview(data)
        while view:
            self._socket.settimeout(left(self.end))
            view = view[self._socket.send(view) :]

    def receive_into(self, buffer: memoryview) -> int:
        """Receive what there is; return its length, 0 at the end."""
        self._socket.settimeout(left(self.end))
        length = self._socket.recv_into(buffer)
        self.has_received = self.has_received or length > 0
        return length

    def makefile(self, _mode: str) -> io.BufferedReader[_Reader]:
        """Return the reader of the next response: what HTTPResponse wants of a socket."""
        self.reader = io.BufferedReader(_Reader(self))
        return self.reader

    def is_stale(self) -> bool:
        """Whether the other side has closed the connection, or has sent what nobody asked for."""
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        return bool(poll.poll(0))

    def close(self) -> None:
        """Close it, in either direction."""
        self._socket.close()


class _Reader(io.RawIOBase):
    """The received bytes as a file; closing it leaves the socket open for the next request."""

    def __init__(self, connection: DeadlineSocket) -> None:
        super().__init__()
        self._connection = connection

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        return self._connection.receive_into(memoryview(buffer))


def left(end: float) -> float:
    """Return the seconds until a moment; raises TimeoutError after it."""
    seconds = end - time.monotonic()
    if seconds <= 0:
        raise TimeoutError
    return seconds

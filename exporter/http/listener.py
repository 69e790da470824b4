"""The listening socket."""

from __future__ import annotations

import errno
import os
import socket

from exporter.http.errors import ServerError

BACKLOG_CONNECTIONS = 1024
"""Connections that the kernel queues; a client repeats a dropped one after a second."""


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens; raises ServerError with the setting to change."""
    if not 0 <= port <= 65535:
        # The resolver would take such a number modulo 65536.
        raise _cannot_listen(host, port, OverflowError("no such port"))
    try:
        family, _, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, socket.SOCK_STREAM)
    except (OSError, OverflowError, UnicodeError) as error:
        raise _cannot_listen(host, port, error) from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG_CONNECTIONS)
        listener.setblocking(False)
    except (OSError, OverflowError) as error:
        listener.close()
        raise _cannot_listen(host, port, error) from error
    return listener


def _cannot_listen(host: str, port: int, error: Exception) -> ServerError:
    number = error.errno if isinstance(error, OSError) else None
    if isinstance(error, socket.gaierror | OverflowError | UnicodeError) or number == errno.EADDRNOTAVAIL:
        remedy = "set `listen` to an address of this host and a port from 1 to 65535"
    elif number == errno.EADDRINUSE:
        remedy = "stop the program that uses it, or set `listen` to another port"
    elif number == errno.EACCES:
        remedy = "set `listen` to a port above 1023"
    else:
        remedy = "set `listen` to another address"
    reason = os.strerror(number) if number is not None and number > 0 else error
    return ServerError(f"cannot listen on {host}:{port}: {reason}; {remedy}")

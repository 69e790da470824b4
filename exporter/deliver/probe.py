"""Finds out why a server closes a connection without a word: does it speak TLS, and which HTTP?

A server that expects TLS mostly hangs up on plain HTTP, and a gRPC server on HTTP/1.1. Both look
like an outage, but never end by themselves. One TLS handshake tells: it is done only after a new
connection was accepted and then closed, and nothing is sent through it.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import time
from typing import Literal

SECONDS_MAX = 2.0

Tls = Literal["none", "http/1.1", "h2"]


def tls_of(host: str, port: int) -> Tls:
    """Return what a server speaks behind TLS ("http/1.1" if it does not say), "none" if it has no
    TLS.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # nothing is sent, and the certificate is not the question
    context.set_alpn_protocols(["http/1.1", "h2"])
    end = time.monotonic() + SECONDS_MAX
    with (
        contextlib.suppress(OSError, ValueError),
        socket.create_connection((host, port), SECONDS_MAX) as sock,
    ):
        sock.settimeout(max(0.1, end - time.monotonic()))
        with context.wrap_socket(sock, server_hostname=host) as secured:
            return "h2" if secured.selected_alpn_protocol() == "h2" else "http/1.1"
    return "none"

"""Why an HTTP request got no response, and what that means for the delivery."""

from __future__ import annotations

import http.client
import socket
import ssl

from exporter.deliver.responses import Answer, printable

_NO_TLS = frozenset(  # OpenSSL's names for a response that is not TLS
    {
        "WRONG_VERSION_NUMBER",
        "HTTP_REQUEST",
        "UNKNOWN_PROTOCOL",
        "PACKET_LENGTH_TOO_LONG",
        "RECORD_LAYER_FAILURE",
    }
)


class TransportError(Exception):
    """Something that is neither the operating system's error nor that of `http.client`."""


class ProxyError(TransportError):
    """A proxy refused or failed; `is_config` when somebody has to change something."""

    def __init__(self, message: str, *, is_config: bool) -> None:
        super().__init__(message)
        self.is_config = is_config


class CertificateFileError(TransportError):
    """A file of certificates cannot be used any more."""


class InvalidResponseError(TransportError):
    """The response is not one that HTTP allows."""


class NotHttpError(TransportError):
    """The response begins with these bytes, which are not HTTP."""

    def __init__(self, start: bytes) -> None:
        super().__init__("not HTTP")
        self.start = start


def failure(error: Exception) -> Answer:
    """Return what an exception of the transport, of `socket`, `ssl` or `http.client` means."""
    message = printable(str(getattr(error, "strerror", None) or error))
    match error:
        case ProxyError():
            return Answer("config" if error.is_config else "retry", "proxy", message=message)
        case CertificateFileError():
            return Answer("config", "request", message=printable(f"certificates: {error}"))
        case InvalidResponseError():
            return Answer("config", "not_otlp", message=message)
        case NotHttpError():
            return _not_http(error.start)
        case ssl.SSLError():
            if error.reason in _NO_TLS:
                return Answer("config", "no_tls", message="the backend responds without TLS")
            return Answer("retry", "tls", message=printable(str(error)))
        case socket.gaierror():
            return Answer("retry", "dns", message=message)
        case TimeoutError():
            return Answer("retry", "timeout", message=message)
        case ConnectionRefusedError():
            return Answer("retry", "refused_connection", message=message)
        case OSError() | http.client.IncompleteRead():
            return Answer("retry", "connection", message=message)
        case http.client.HTTPException():
            return Answer("config", "not_otlp", message=message)
    return Answer("config", "request", message=message)


def _not_http(start: bytes) -> Answer:
    """What sends something other than HTTP/1.1, by its first bytes."""
    if start[:1] == b"\0" and start[3:4] in (b"\x04", b"\x07"):
        # A SETTINGS or a GOAWAY frame: gRPC servers speak HTTP/2 alone.
        return Answer("config", "needs_grpc", message="the backend responds with HTTP/2, as gRPC servers do")
    if start[:2] in (b"\x15\x03", b"\x16\x03"):
        return Answer("config", "needs_tls", message="the backend responds with TLS")
    return Answer("config", "not_otlp", message=printable(start.decode("utf-8", "replace")))

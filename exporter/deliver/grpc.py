"""OTLP over gRPC: one call at a time on a channel of its own.

gRPC reads certificates once, when a channel is made, and a channel that has failed may stick to a
dead address. So a new channel is made after each call that found the backend unavailable. That is
also when a renewed certificate is needed.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

# gRPC's core writes lines of its own format to stderr, even for a connection that ends as it
# should.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

import grpc

from exporter import __version__
from exporter.deliver.probe import tls_of
from exporter.deliver.responses import Answer, grpc_answer, printable, response, shown

if TYPE_CHECKING:
    from collections.abc import Mapping

    from exporter.deliver.otlp_env import OtlpSettings
    from exporter.records import Signal

RECONNECT_MILLISECONDS_MAX = 10_000  # gRPC's own 120 s would outlast an outage by two minutes
RESPONSE_BYTES_MAX = 4 * 1024 * 1024
_PATHS: Mapping[Signal, str] = {
    "traces": "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
    "logs": "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
}
_UNREACHABLE = frozenset({"refused_connection", "dns", "timeout", "grpc_unavailable"})


class GrpcSender:
    """Sends requests of one signal to one gRPC server."""

    def __init__(self, settings: OtlpSettings) -> None:
        self.endpoint = shown(settings.endpoint)
        self._settings = settings
        endpoint = settings.endpoint
        parts = urlsplit(endpoint if "://" in endpoint else f"//{endpoint}")
        self._address = parts.netloc.rpartition("@")[2]
        self._channel: grpc.Channel | None = None
        self._export: Any = None

    def _connect(self) -> None:
        """Make a channel; it connects with the first call. Raises OSError for unreadable
        certificates.
        """
        settings = self._settings
        options: Any = (
            ("grpc.max_reconnect_backoff_ms", RECONNECT_MILLISECONDS_MAX),
            ("grpc.max_receive_message_length", RESPONSE_BYTES_MAX),
            ("grpc.primary_user_agent", f"wok-exporter/{__version__}"),
            # Connections of an earlier channel, with their back-off, are not to be shared.
            ("grpc.use_local_subchannel_pool", 1),
        )
        compression = (
            grpc.Compression.Gzip if settings.compression == "gzip" else grpc.Compression.NoCompression
        )
        if settings.is_secure:
            credentials = grpc.ssl_channel_credentials(
                root_certificates=_content(settings.ca),
                private_key=_content(settings.client_key),
                certificate_chain=_content(settings.client_chain),
            )
            self._channel = grpc.secure_channel(self._address, credentials, options, compression)
        else:
            self._channel = grpc.insecure_channel(self._address, options, compression)
        # Without serializers bytes go in and bytes come out.
        self._export = self._channel.unary_unary(_PATHS[settings.signal], None, None)

    def send(self, body: bytes) -> Answer:
        """See `Sender`."""
        settings = self._settings
        try:
            if self._channel is None:
                self._connect()
            content = self._export(body, timeout=settings.timeout_seconds, metadata=settings.headers)
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.UNAVAILABLE:
                self.close()
            answer = grpc_answer(settings.signal, error)
            if settings.proxy and answer.reason in _UNREACHABLE:
                through = f"through the proxy {shown(settings.proxy)}: {answer.message}"
                return answer._replace(reason="proxy", message=printable(through))
            if answer.reason == "grpc_unavailable" and not settings.is_secure and not settings.proxy:
                return self._diagnosed(answer)
            return answer
        except (OSError, ValueError) as error:
            return Answer("config", "request", message=printable(str(error)))
        return response(settings.signal, content, "application/x-protobuf")

    def _diagnosed(self, answer: Answer) -> Answer:
        """Look behind a plain connection that was closed: does the backend expect TLS?"""
        if not any(sign in answer.message.lower() for sign in ("socket closed", "connection reset")):
            return answer
        parts = urlsplit(f"//{self._address}")
        if tls_of(parts.hostname or "", parts.port or 443) == "none":
            return answer
        return Answer("config", "needs_tls", message="the backend hangs up on plain HTTP/2, and offers TLS")

    def close(self) -> None:
        """See `Sender`."""
        if self._channel is not None:
            self._channel.close()
            self._channel = None


def _content(path: str) -> bytes | None:
    return Path(path).read_bytes() if path else None

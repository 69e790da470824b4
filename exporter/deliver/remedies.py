"""What people read about each reason why a delivery fails: what happens, and what to do about it.

The reasons are the values of the label `reason`, so there is a finite number of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

_SYMPTOMS: Mapping[str, str] = {
    "dns": "has a host name that cannot be resolved",
    "refused_connection": "refuses connections",
    "connection": "closes connections without a response",
    "tls": "fails the TLS handshake",
    "timeout": "times out",
    "proxy": "cannot be reached through the proxy",
    "redirect": "redirects to another address",
    "not_otlp": "does not respond like an OTLP receiver",
    "needs_tls": "expects TLS",
    "no_tls": "responds without TLS",
    "needs_grpc": "speaks gRPC, but OTEL_EXPORTER_OTLP_PROTOCOL is http/protobuf",
    "needs_http": "does not speak gRPC, but OTEL_EXPORTER_OTLP_PROTOCOL is grpc",
    "request": "cannot be sent requests",
    "internal": "gave a response that the exporter failed to handle",
    "store": "cannot be sent data because the delivery queue cannot be used",
}
_REMEDIES: Mapping[str, str] = {
    "dns": "check the host name in OTEL_EXPORTER_OTLP_ENDPOINT, and name resolution on this host",
    "refused_connection": "is the backend running? Check OTEL_EXPORTER_OTLP_ENDPOINT",
    "connection": "check the log of the backend, and of proxies and load balancers in front of it",
    "tls": "check OTEL_EXPORTER_OTLP_CERTIFICATE, and the backend's certificate and its dates. A backend"
    " without TLS needs http:// in OTEL_EXPORTER_OTLP_ENDPOINT",
    "timeout": "check the load of the backend, the firewall, and OTEL_EXPORTER_OTLP_TIMEOUT (in seconds)",
    "proxy": "check the proxy that HTTPS_PROXY, HTTP_PROXY or ALL_PROXY names, or add the backend to NO_PROXY."
    " Only http:// proxies are supported, SOCKS is not",
    "redirect": "set OTEL_EXPORTER_OTLP_ENDPOINT to the address of the redirect",
    "not_otlp": "something other than an OTLP receiver responds (a login page, a proxy, another port)."
    " Check OTEL_EXPORTER_OTLP_ENDPOINT",
    "needs_tls": "change http:// to https:// in OTEL_EXPORTER_OTLP_ENDPOINT",
    "no_tls": "change https:// to http:// in OTEL_EXPORTER_OTLP_ENDPOINT, or check the port",
    "needs_grpc": "set OTEL_EXPORTER_OTLP_PROTOCOL=grpc, or use the backend's port for OTLP over HTTP"
    " (usually 4318)",
    "needs_http": "set OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf, or use the backend's port for gRPC"
    " (usually 4317)",
    "request": "check the URL, headers and certificates in the OTEL_EXPORTER_OTLP_* variables",
    "internal": "this is a bug in the exporter. Report it with the log",
    "http_401": "check the credentials in OTEL_EXPORTER_OTLP_HEADERS",
    "http_403": "check the permissions of the credentials in OTEL_EXPORTER_OTLP_HEADERS",
    "http_404": "check the path: /v1/traces and /v1/logs are appended to OTEL_EXPORTER_OTLP_ENDPOINT, but not to"
    " the endpoint of one signal",
    "http_415": "check OTEL_EXPORTER_OTLP_COMPRESSION and OTEL_EXPORTER_OTLP_PROTOCOL",
    "http_429": "the backend limits its intake: raise the limit of this tenant, or wait",
    "grpc_unauthenticated": "check the credentials in OTEL_EXPORTER_OTLP_HEADERS",
    "grpc_permission_denied": "check the permissions of the credentials in OTEL_EXPORTER_OTLP_HEADERS",
    "grpc_unimplemented": "check that OTEL_EXPORTER_OTLP_ENDPOINT is a gRPC receiver (usually port 4317)"
    " that accepts this signal",
    "grpc_unavailable": "check the log of the backend, and of proxies and load balancers in front of it",
    "store": "check the disk that holds the state",
}


def symptom_of(reason: str) -> str:
    """Return what a backend does, as the rest of a sentence that begins with its address."""
    transport, _, code = reason.partition("_")
    if transport in ("http", "grpc"):
        return f"responds with {'HTTP' if transport == 'http' else 'gRPC'} {code.upper().replace('OTHER', 'errors')}"
    return _SYMPTOMS.get(reason, "fails")


def remedy_of(reason: str) -> str:
    """Return what to do about it."""
    return _REMEDIES.get(reason, "check the message and the log of the backend")

"""The standard OTEL_* variables of OTLP export, read and validated. Pure, but for reading
certificate files.

These names and their meaning belong to the OpenTelemetry specification. An empty variable counts as
unset. A variable of one signal (OTEL_EXPORTER_OTLP_TRACES_...) comes before the general one. As in
the Python SDK, and against the letter of the specification, a timeout is in seconds.

What cannot work is rejected at the start with a sentence that names the variable and the remedy.
Values that may hold a secret (headers, credentials in a URL) are never part of such a sentence.
"""

from __future__ import annotations

import ipaddress
import os
import re
import ssl
import stat
from contextlib import suppress
from importlib.util import find_spec
from typing import TYPE_CHECKING, Literal, NamedTuple
from urllib.parse import unquote, urlsplit

from exporter.deliver.responses import printable, shown
from exporter.records import SIGNALS, Signal

if TYPE_CHECKING:
    from collections.abc import Mapping

TIMEOUT_SECONDS = 10.0
TIMEOUT_SECONDS_MAX = 600  # more is a value in milliseconds, as other languages read this variable

Protocols = Literal["http/protobuf", "grpc"]
Compressions = Literal["gzip", "deflate", "none"]

_HTTP_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # a token of RFC 9110
_GRPC_NAME = re.compile(r"[0-9a-z_.-]+")
_VALUE = re.compile(r"[ -~]*")
_OUR_HEADERS = frozenset(  # those that frame a request: a second one makes it invalid
    {"connection", "content-encoding", "content-length", "content-type", "expect", "keep-alive"}
    | {"te", "trailer", "transfer-encoding", "upgrade"}
)


class OtlpConfigError(Exception):
    """The environment asks for something that cannot work; the message names the variable and a
    remedy.
    """


class OtlpSettings(NamedTuple):
    """How to send one signal to one backend, as the environment describes it.

    `endpoint` is the full URL, or host:port for gRPC, and may hold credentials. Header names are in
    lower case. Paths of PEM files are empty where there is none. `proxy` is the URL of the proxy
    that applies to the endpoint, empty without one.
    """

    signal: Signal
    protocol: Protocols
    endpoint: str
    is_secure: bool
    headers: tuple[tuple[str, str], ...]
    timeout_seconds: float
    compression: Compressions
    ca: str
    client_chain: str
    client_key: str
    proxy: str


def is_disabled(environ: Mapping[str, str]) -> bool:
    """Whether OTEL_SDK_DISABLED switches all export off."""
    return environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"


def why_unconfigured(environ: Mapping[str, str]) -> str:
    """Return which variable is the reason that no signal is sent, for an
    environment without any.
    """
    if is_disabled(environ):
        return "OTEL_SDK_DISABLED is true"
    if any(_setting(signal, "ENDPOINT", environ)[1] for signal in SIGNALS):
        return "OTEL_TRACES_EXPORTER and OTEL_LOGS_EXPORTER leave no signal with an endpoint"
    return "OTEL_EXPORTER_OTLP_ENDPOINT is not set"


def configured(environ: Mapping[str, str]) -> dict[Signal, str]:
    """Return the signals that have a backend, with their endpoints as people may see them.

    A signal counts when an `OTEL_EXPORTER_OTLP_*ENDPOINT` applies to it, its `OTEL_*_EXPORTER` is
    not `none`, and `OTEL_SDK_DISABLED` is not `true`. Raises OtlpConfigError for an exporter that
    is neither `otlp` nor `none`.
    Source: OpenTelemetry specification, "General SDK Configuration", "Exporter Selection", "OTLP
    Exporter Configuration".
    """
    found: dict[Signal, str] = {}
    for signal in SIGNALS:
        name = f"OTEL_{signal.upper()}_EXPORTER"
        chosen = {part.strip().lower() for part in environ.get(name, "").split(",")} - {""}
        if chosen - {"otlp", "none"}:
            raise OtlpConfigError(f"{name} must be `otlp` or `none` here, got: {printable(environ[name])}")
        _, endpoint = _setting(signal, "ENDPOINT", environ)
        if endpoint and "none" not in chosen and not is_disabled(environ):
            found[signal] = shown(_full_endpoint(signal, environ))
    return found


def read_settings(signal: Signal, environ: Mapping[str, str]) -> OtlpSettings:
    """Return the settings of one signal. Connects to nothing and keeps nothing.

    Raises OtlpConfigError for a missing endpoint, an unknown protocol or compression, unreadable
    certificates, headers that cannot be sent, an invalid timeout, or a package that is not
    installed.
    """
    protocol = _protocol(signal, environ)
    is_secure = _validate_endpoint(signal, protocol, environ)
    endpoint = _full_endpoint(signal, environ)
    _validate_files(signal, protocol, environ)
    return OtlpSettings(
        signal,
        protocol,
        endpoint,
        is_secure,
        _headers(signal, protocol, environ),
        _timeout_seconds(signal, environ),
        _compression(signal, protocol, environ),
        ca=_setting(signal, "CERTIFICATE", environ)[1],
        client_chain=_setting(signal, "CLIENT_CERTIFICATE", environ)[1],
        client_key=_setting(signal, "CLIENT_KEY", environ)[1],
        proxy=_proxy(protocol, endpoint, is_secure, environ),
    )


def _setting(signal: Signal, option: str, environ: Mapping[str, str]) -> tuple[str, str]:
    """Return the variable that decides an option, and its value."""
    general = f"OTEL_EXPORTER_OTLP_{option}"
    for name in (f"OTEL_EXPORTER_OTLP_{signal.upper()}_{option}", general):
        if value := environ.get(name, "").strip():
            return name, value
    return general, ""


def _protocol(signal: Signal, environ: Mapping[str, str]) -> Protocols:
    name, text = _setting(signal, "PROTOCOL", environ)
    if text not in ("", "http/protobuf", "grpc"):
        raise OtlpConfigError(f"{name} must be `http/protobuf` or `grpc`, got: {printable(text)}")
    for transport in ("HTTP", "GRPC"):
        for part in ("", f"_{signal.upper()}"):
            provider = f"OTEL_PYTHON_EXPORTER_OTLP_{transport}{part}_CREDENTIAL_PROVIDER"
            if environ.get(provider, "").strip():
                raise OtlpConfigError(
                    f"{provider} is not supported: set credentials with OTEL_EXPORTER_OTLP_HEADERS, or a client"
                    " certificate with OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE"
                )
    if text != "grpc":
        return "http/protobuf"
    if find_spec("grpc") is None:
        raise OtlpConfigError(
            f"{name}=grpc needs a package that is not installed: grpcio. Install it, or use http/protobuf"
        )
    return "grpc"


# --- the endpoint ---------------------------------------------------------------------------------


def _full_endpoint(signal: Signal, environ: Mapping[str, str]) -> str:
    name, endpoint = _setting(signal, "ENDPOINT", environ)
    is_base = name == "OTEL_EXPORTER_OTLP_ENDPOINT" and _setting(signal, "PROTOCOL", environ)[1] != "grpc"
    return f"{endpoint.removesuffix('/')}/v1/{signal}" if is_base else endpoint


def _validate_endpoint(signal: Signal, protocol: Protocols, environ: Mapping[str, str]) -> bool:
    """Validate the endpoint; return whether it is to be reached with TLS."""
    name, endpoint = _setting(signal, "ENDPOINT", environ)
    if not endpoint:
        raise OtlpConfigError(f"no backend for {signal}: set {name}, e.g. to http://localhost:4318")
    is_bare = protocol == "grpc" and "://" not in endpoint
    if is_bare:
        insecure = _setting(signal, "INSECURE", environ)[1].lower() == "true"
        endpoint, is_secure = f"//{endpoint}", not insecure
    else:
        is_secure = endpoint.lower().startswith("https:")
    scheme = urlsplit(endpoint).scheme.lower() if (is_whole := _is_address(endpoint)) else ""
    if not is_whole or (not is_bare and scheme not in ("http", "https")):
        raise OtlpConfigError(
            f"{name} must be http://host:port or https://host:port, got: {shown(endpoint.removeprefix('//'))}"
        )
    return is_secure


def _is_address(url: str) -> bool:
    """Whether a URL names a host, and a port that can be connected to, if any."""
    try:
        parts = urlsplit(url)
        host, port = _idna(parts.hostname or ""), parts.port
    except ValueError:
        return False
    return bool(host) and port != 0 and not re.search(r"[\s\x00-\x1f\x7f]", url)


def _idna(host: str) -> str:
    """Return a host name as it is sent; raises ValueError for one that cannot be a name."""
    return host if host.isascii() else host.encode("idna").decode("ascii")


def _proxy(protocol: Protocols, endpoint: str, is_secure: bool, environ: Mapping[str, str]) -> str:
    """Return the URL of the proxy that applies to an endpoint, empty for none.

    Lower-case names come first, as in curl. gRPC looks for its proxy by itself, and only by
    lower-case names: here they tell that there is one.
    """
    names = ["grpc_proxy", "https_proxy", "http_proxy"] if protocol == "grpc" else []
    names = names or ["https_proxy" if is_secure else "http_proxy", "all_proxy"]

    def first(*options: str) -> str:
        found = (
            environ.get(each, "").strip()
            for name in options
            for each in ((name,) if protocol == "grpc" else (name, name.upper()))
        )
        return next(filter(None, found), "")

    parts = urlsplit(endpoint if "://" in endpoint else f"//{endpoint}")
    bypassed = first("no_grpc_proxy", "no_proxy") if protocol == "grpc" else first("no_proxy")
    if is_bypassed(parts.hostname or "", parts.port, bypassed):
        return ""
    proxy = first(*names)
    proxy = proxy if not proxy or "://" in proxy else f"http://{proxy}"
    if proxy and protocol != "grpc" and not _is_address(proxy):
        raise OtlpConfigError(
            f"the proxy for {shown(endpoint)} must be http://host:port, got: {shown(proxy)}."
            f" Check {', '.join(name.upper() for name in names)}, or add the backend to NO_PROXY"
        )
    return proxy


def is_bypassed(host: str, port: int | None, no_proxy: str) -> bool:
    """Whether NO_PROXY excepts a host: `*`, a domain and those below it, an
    address or a network.
    """
    host = host.lower().rstrip(".")
    for part in filter(None, (part.strip().lower() for part in no_proxy.split(","))):
        name, _, number = part.rpartition(":")
        is_with_port = bool(name) and ":" not in name and number == str(port)
        entry = name if is_with_port else part
        domain = entry.removeprefix("*").removeprefix(".")
        if entry == "*" or host == domain or host.endswith(f".{domain}"):
            return True
        with suppress(ValueError):
            if ipaddress.ip_address(host) in ipaddress.ip_network(entry, strict=False):
                return True
    return False


# --- the other options ----------------------------------------------------------------------------


def _compression(signal: Signal, protocol: Protocols, environ: Mapping[str, str]) -> Compressions:
    from opentelemetry.exporter.otlp.proto.http import Compression  # noqa: PLC0415  # only with a backend

    name, text = _setting(signal, "COMPRESSION", environ)
    chosen = text.lower() or Compression.NoCompression.value
    known: dict[str, Compressions] = {Compression.Gzip.value: "gzip"}
    if protocol != "grpc":
        known[Compression.Deflate.value] = "deflate"
    known[Compression.NoCompression.value] = "none"
    if chosen not in known:
        raise OtlpConfigError(
            f"{name} with {protocol} must be one of {', '.join(known)}, got: {printable(text)}"
        )
    return known[chosen]


def _timeout_seconds(signal: Signal, environ: Mapping[str, str]) -> float:
    name, text = _setting(signal, "TIMEOUT", environ)
    with suppress(ValueError):
        seconds = float(text or TIMEOUT_SECONDS)
        if 0 < seconds <= TIMEOUT_SECONDS_MAX:
            return seconds
    raise OtlpConfigError(
        f"{name} is in seconds, above 0 and at most {TIMEOUT_SECONDS_MAX}, got: {printable(text)}"
    )


def _headers(signal: Signal, protocol: Protocols, environ: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """Return the headers of a list of name=value, percent-decoded; a later one replaces an earlier
    one.

    No message here quotes a part of the list: a typing error may have put the secret anywhere.
    """
    variable, text = _setting(signal, "HEADERS", environ)
    found: dict[str, str] = {}
    for number, part in enumerate(text.split(","), 1):
        if not part.strip():
            continue
        if mistake := _mistake(part, protocol):
            raise OtlpConfigError(f"{variable}: header {number} of the list {mistake}")
        raw_name, _, raw_value = part.partition("=")
        found[unquote(raw_name).strip().lower()] = unquote(raw_value).strip()
    return tuple(found.items())


def _mistake(part: str, protocol: Protocols) -> str:
    """Say why one name=value of the headers cannot be sent, empty if it can."""
    raw_name, mark, raw_value = part.strip().partition("=")
    if not mark or not raw_name.strip():
        return "is not name=value. Separate headers with commas, and write a comma in a value as %2C"
    quotes = ('"', "'")
    if (
        part.strip().startswith(quotes)
        or raw_value.strip().startswith(quotes)
        or part.strip().endswith(quotes)
    ):
        return "has quotes around it. Remove them (or write a quote that belongs to a value as %22 or %27)"
    if ";" in part:
        return "has a semicolon. Separate headers with commas, and write a semicolon in a value as %3B"
    try:
        name, value = (unquote(raw, errors="strict").strip() for raw in (raw_name, raw_value))
    except ValueError:
        return "has characters other than printable ASCII, which cannot be sent"
    if not _HTTP_NAME.fullmatch(name) or (protocol == "grpc" and not _GRPC_NAME.fullmatch(name.lower())):
        return f"has a name with characters that {'gRPC' if protocol == 'grpc' else 'HTTP'} does not allow"
    if not value.isprintable() and value.isascii():
        return "has control characters, which cannot be sent"
    if not _VALUE.fullmatch(value):
        return "has characters other than printable ASCII, which cannot be sent"
    if name.lower() in _OUR_HEADERS:
        return "is one that the exporter sets itself. Remove it"
    if protocol == "grpc" and name.lower().endswith("-bin"):
        return "has a name that ends in -bin: gRPC takes bytes there, not text. Remove it, or rename it"
    if protocol == "grpc" and name.lower().startswith("grpc-"):
        return "has a name that begins with grpc-, which gRPC reserves. Remove it, or rename it"
    return ""


def _validate_files(signal: Signal, protocol: Protocols, environ: Mapping[str, str]) -> None:
    ca_name, ca = _setting(signal, "CERTIFICATE", environ)
    chain_name, chain = _setting(signal, "CLIENT_CERTIFICATE", environ)
    key_name, key = _setting(signal, "CLIENT_KEY", environ)
    for name, path in ((ca_name, ca), (chain_name, chain), (key_name, key)):
        try:
            if path and not stat.S_ISREG(os.stat(path).st_mode):  # noqa: PTH116  # opening a FIFO would block
                raise OtlpConfigError(f"{name}: {printable(path)} must be a regular file")
            if path:
                with open(path, "rb"):  # noqa: PTH123  # only to see that it can be read
                    pass
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else error
            raise OtlpConfigError(f"{name}: cannot read {printable(path)}: {why}") from error
    if key and not chain:
        raise OtlpConfigError(f"{key_name} needs {chain_name} too")
    if chain and protocol == "grpc" and not key:
        raise OtlpConfigError(f"with grpc, {chain_name} needs {key_name} too")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        if ca:
            context.load_verify_locations(ca)
        if chain:
            # Without a password OpenSSL would ask the terminal for that of an encrypted key.
            context.load_cert_chain(chain, key or None, password="")
    except (ssl.SSLError, ValueError, OSError) as error:
        where = f"{chain_name} and {key_name}" if chain else ca_name
        raise OtlpConfigError(f"{where} must be PEM files without a passphrase: {error}") from error

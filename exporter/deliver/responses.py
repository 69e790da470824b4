"""What a backend's response to one request means.

OTLP has five outcomes that must be told apart: accepted, accepted in part, an outage, a rejection
of this payload, and a wrong configuration that fails every request alike. Here the statuses and
bodies of both transports become one `Answer`. Pure, but for the clock that a Retry-After with a
date is compared with.

Where OTLP's own list ends:

* A redirect, and a success whose body is not OTLP, are a wrong configuration (a login page, a
  proxy). So are 401, 403, 404 and their likes, for which OTLP would have a client drop the data.
* A 500 and its likes are rejections that are not believed at once.
* Loki rejects some entries after it has stored the others: a partial success (`loki`).
"""

from __future__ import annotations

import json
import math
import re
import time
from contextlib import suppress
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

from exporter.deliver.loki import read_loki

if TYPE_CHECKING:
    from collections.abc import Mapping

    from exporter.records import Signal

MESSAGE_CHARACTERS_MAX = 300  # of a backend's own words: enough for a sentence in a status, a log, a page

Kind = Literal["accepted", "partial", "retry", "rejected", "config"]

DOUBTFUL = frozenset({"http_500", "grpc_internal", "grpc_unknown", "grpc_failed_precondition"})
"""Rejections that may as well be the backend's own trouble: retried several times before they
count.
"""

_HTTP_RETRY = frozenset({408, 425, 429, 502, 503, 504})
_HTTP_REJECTED = frozenset({400, 413, 422, 500})
_HTTP_NAMED = _HTTP_RETRY | _HTTP_REJECTED | {401, 403, 404, 405, 415}  # the rest shares a label
_GRPC_KINDS: Mapping[str, Kind] = {
    "CANCELLED": "retry",
    "DEADLINE_EXCEEDED": "retry",
    "RESOURCE_EXHAUSTED": "retry",
    "ABORTED": "retry",
    "OUT_OF_RANGE": "retry",
    "UNAVAILABLE": "retry",
    "DATA_LOSS": "retry",
    "INVALID_ARGUMENT": "rejected",
    "ALREADY_EXISTS": "rejected",
    "FAILED_PRECONDITION": "rejected",
    "INTERNAL": "rejected",
    "UNKNOWN": "rejected",
    "UNAUTHENTICATED": "config",
    "PERMISSION_DENIED": "config",
    "UNIMPLEMENTED": "config",
    "NOT_FOUND": "config",
}
_GRPC_SIGNS = (  # gRPC has one code for all trouble on the way, and tells its kind in words only
    ("http1.x", "needs_http"),
    ("http/1", "needs_http"),
    ("failed parsing http/2", "needs_http"),
    ("alpn", "needs_http"),
    ("wrong_version_number", "no_tls"),
    ("resolv", "dns"),
    ("name resol", "dns"),
    ("dns", "dns"),
    ("handshake", "tls"),
    ("ssl", "tls"),
    ("connection refused", "refused_connection"),
)
_TLS_WANTED = re.compile(  # the words of Go, nginx and Apache for plain HTTP at a port of TLS
    r"HTTP request to an HTTPS server|plain HTTP request was sent to HTTPS port|speaking plain HTTP to an SSL",
    re.IGNORECASE,
)
_OTLP_MEDIA = frozenset({"application/x-protobuf", "application/protobuf", "application/octet-stream", ""})
_EMPTY_MEDIA = _OTLP_MEDIA | {"application/json", "text/plain"}  # what may be the type of nothing
_COUNT_MAX = 2**63 - 1  # OTLP's own type


class Answer(NamedTuple):
    """What became of one request.

    `accepted`: all of it is stored. `partial`: all but `rejected` items, which never will be.
    `retry`: an outage. `rejected`: something about this very payload. `config`: a wrong
    configuration, so that every request fails alike. `reason` is of a finite set, for labels.
    `message` is the backend's own words, bounded and printable, but otherwise untrusted.
    Source: OTLP 1.x, "OTLP/HTTP Response", "OTLP/gRPC Response"; Loki's own rejections (`loki`).
    """

    kind: Kind
    reason: str = ""
    rejected: int = 0
    retry_after_seconds: float | None = None
    message: str = ""


class Headers(Protocol):
    """The headers of a response, found in any case."""

    def get(self, name: str, failobj: str, /) -> str:
        """Return the value of a header, else `failobj`."""

    def __contains__(self, name: str, /) -> bool: ...


def http_answer(signal: Signal, status: int, headers: Headers, content: bytes) -> Answer:
    """Read a response of OTLP/HTTP; `content` is the decompressed body."""
    media = headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if 200 <= status < 300:
        is_framed = status == 204 or "Content-Length" in headers or "Transfer-Encoding" in headers
        if not is_framed and not content:
            # So looks a response whose connection has ended among its headers: not a receipt.
            return Answer("retry", "connection")
        return response(signal, content, media)
    message = _words(content, media)
    if 300 <= status < 400:
        place = shown(headers.get("Location", ""))
        return Answer("config", "redirect", message=f"to {place}" if place else "")
    if status == 400 and _TLS_WANTED.search(message):
        return Answer("config", "needs_tls", message=printable(message))
    if status == 400 and signal == "logs" and (loki := read_loki(message)):
        return Answer("partial", loki.reason, loki.entries, message=printable(message))
    reason = f"http_{status}" if status in _HTTP_NAMED else "http_other"
    if status in _HTTP_REJECTED:
        return Answer("rejected", reason, message=printable(message))
    if status in _HTTP_RETRY or (status > 500 and status not in (501, 505)):
        after = _retry_after_seconds(headers.get("Retry-After", ""))
        return Answer("retry", reason, retry_after_seconds=after, message=printable(message))
    return Answer("config", reason, message=printable(message))


def _retry_after_seconds(text: str) -> float | None:
    """Retry-After in seconds from now, of either form of RFC 9110 section 10.2.3; None if it is
    neither.
    """
    try:
        seconds = float(text)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(text).timestamp() - time.time()
        except (ValueError, OverflowError):
            return None
    return max(seconds, 0.0) if math.isfinite(seconds) else None


def grpc_answer(signal: Signal, error: Any) -> Answer:
    """Read the failure of a call of OTLP/gRPC, a grpc.RpcError with code, details and trailing
    metadata.
    """
    code: str = error.code().name
    words = error.details() or ""
    kind = _GRPC_KINDS.get(code, "config")
    reason = f"grpc_{code.lower()}"
    after: float | None = None
    if kind == "rejected" and signal == "logs" and (loki := read_loki(words)):
        return Answer("partial", loki.reason, loki.entries, message=printable(words))
    if code == "DEADLINE_EXCEEDED":
        reason = "timeout"
    elif code == "UNAVAILABLE":
        lowered = words.lower()
        reason = next((name for sign, name in _GRPC_SIGNS if sign in lowered), reason)
        kind = "config" if reason in ("needs_http", "no_tls") else kind
    if kind == "retry":
        after = _retry_info_seconds(error.trailing_metadata() or ())
    if code == "RESOURCE_EXHAUSTED" and after is None and "larger than max" in words:
        # A receiver's limit for one message (4 MiB by default): not an outage, smaller ones go
        # through.
        kind, reason = "rejected", "grpc_message_too_large"
    return Answer(kind, reason, retry_after_seconds=after, message=printable(words))


def _retry_info_seconds(metadata: Any) -> float | None:
    """The delay of a google.rpc.RetryInfo, by itself or among the details of the status."""
    from google.protobuf.message import DecodeError  # noqa: PLC0415  # heavy
    from google.rpc.error_details_pb2 import (  # type: ignore[import-untyped]  # noqa: PLC0415  # heavy
        RetryInfo,
    )
    from google.rpc.status_pb2 import (  # type: ignore[import-untyped]  # noqa: PLC0415  # heavy
        Status,
    )

    info = RetryInfo()
    with suppress(DecodeError):
        for key, value in metadata:
            if key == "google.rpc.retryinfo-bin":
                info.ParseFromString(value)
                return _seconds(info.retry_delay)
            if key == "grpc-status-details-bin":
                for detail in Status.FromString(value).details:
                    if detail.Unpack(info):
                        return _seconds(info.retry_delay)
    return None


def _seconds(duration: Any) -> float:
    return max(0.0, float(duration.seconds) + float(duration.nanos) / 1e9)


def response(signal: Signal, content: bytes, media: str) -> Answer:
    """Read the body of a success: OTLP's own response, or nothing at all."""
    not_otlp = Answer("config", "not_otlp", message=printable(_words(content, media) or f"an empty {media}"))
    if not content:
        return Answer("accepted") if media in _EMPTY_MEDIA else not_otlp
    try:
        if media == "application/json":
            rejected, message = _json_success(content)  # some receivers answer protobuf with JSON
        elif media in _OTLP_MEDIA:
            rejected, message = _protobuf_success(signal, content)
        else:
            return not_otlp
    except ValueError:
        return not_otlp
    if rejected > 0:
        return Answer("partial", "partial", rejected, message=printable(message))
    return Answer("accepted", message=printable(message))


def _protobuf_success(signal: Signal, content: bytes) -> tuple[int, str]:
    """Read the number of rejected items and the message; ValueError if these are not there."""
    from google.protobuf.message import DecodeError  # noqa: PLC0415  # heavy
    from opentelemetry.proto.collector.logs.v1 import logs_service_pb2  # noqa: PLC0415  # heavy
    from opentelemetry.proto.collector.trace.v1 import trace_service_pb2  # noqa: PLC0415  # heavy

    try:
        if signal == "traces":
            spans = trace_service_pb2.ExportTraceServiceResponse.FromString(content).partial_success
            return _count(spans.rejected_spans), spans.error_message
        logs = logs_service_pb2.ExportLogsServiceResponse.FromString(content).partial_success
        return _count(logs.rejected_log_records), logs.error_message
    except DecodeError as error:
        raise ValueError("no OTLP response") from error


def _json_success(content: bytes) -> tuple[int, str]:
    """The same of a response in JSON."""
    try:
        document = json.loads(content)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if document == {}:
        return 0, ""
    partial = document.get("partialSuccess", 0) if isinstance(document, dict) else 0
    if partial is None:
        return 0, ""
    if not isinstance(partial, dict):
        raise ValueError("no OTLP response")  # noqa: TRY004 - of the document, not of an argument
    message = partial.get("errorMessage", "")
    counts = [
        partial[name] for name in ("rejectedSpans", "rejectedLogRecords") if partial.get(name) is not None
    ]
    return _count(counts[0] if counts else 0), message if isinstance(message, str) else ""


def _count(value: object) -> int:
    """Read a number of items as protobuf's JSON may write it; ValueError for anything else (1e999,
    -1, true).
    """
    if isinstance(value, str):
        if not value.isascii() or not value.isdigit() or len(value) > len(str(_COUNT_MAX)):
            raise ValueError("no number of items")
        value = int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _COUNT_MAX:
        raise ValueError("no number of items")
    return value


def _words(content: bytes, media: str) -> str:
    """Return the message in the body of a failure.

    That is the message of a google.rpc.Status in protobuf (Loki calls it an octet stream) or JSON,
    else the whole text.
    """
    text = content.decode("utf-8", "replace")
    if media == "application/json":
        with suppress(ValueError, RecursionError):
            document = json.loads(content)
            if isinstance(document, dict) and isinstance(document.get("message"), str):
                return str(document["message"])
    elif not media.startswith("text/"):
        from google.protobuf.message import DecodeError  # noqa: PLC0415  # heavy
        from google.rpc.status_pb2 import (  # noqa: PLC0415  # heavy
            Status,
        )

        with suppress(DecodeError):
            return str(Status.FromString(content).message) or text
    return text


def printable(words: str) -> str:
    """Return a backend's words for logs and terminals: bounded, without control and direction
    characters.
    """
    kept = "".join(c if c.isprintable() else " " for c in words[: 4 * MESSAGE_CHARACTERS_MAX])
    return " ".join(kept.split())[:MESSAGE_CHARACTERS_MAX]


def shown(endpoint: str) -> str:
    """Return the part of an endpoint that everybody may see: no user, no password, no query."""
    scheme, mark, rest = endpoint.partition("://")
    place = (rest if mark else scheme).partition("?")[0]
    authority, slash, path = place.partition("/")
    if not mark and "@" in path:
        return printable(path.rpartition("@")[2])  # `https//user:secret@host`: nobody can tell what is what
    return printable(f"{scheme if mark else ''}{mark}{authority.rpartition('@')[2]}{slash}{path}")

"""What a backend's answer to one request means.

OTLP has five outcomes that must be told apart: taken, taken in part, an outage, a refusal of this payload,
and a configuration that fails every request alike. Here statuses, bodies and exceptions of both transports
become one `Answer`. Pure: no socket, no clock but the one that a Retry-After with a date is measured against.

Where OTLP's own list ends, this is the reading: a redirect and a success whose body is not OTLP are a
configuration (a login page, a proxy); so are 401, 403, 404 and their likes, which OTLP would have a client
drop; 500 and its likes are a refusal that is to be doubted; Loki's refusals of entries for their times come
after it has stored the others, so they are a partial success.
"""

from __future__ import annotations

import json
import math
import re
import socket
import ssl
import time
from contextlib import suppress
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

    from exporter.records import Signal

MESSAGE_CHARACTERS_MAX = 300  # of a backend's own words: enough for a sentence in a status, a log, a page

Kind = Literal["taken", "partial", "retry", "refused", "config"]

DOUBTFUL = frozenset({"http_500", "grpc_internal", "grpc_unknown", "grpc_failed_precondition"})
"""Refusals that may as well be the backend's own trouble: to be tried some times before they are believed."""

_HTTP_RETRY = frozenset({408, 425, 429, 502, 503, 504})
_HTTP_REFUSED = frozenset({400, 413, 422, 500})
_HTTP_NAMED = _HTTP_RETRY | _HTTP_REFUSED | {401, 403, 404, 405, 415}  # the rest shares a label
_GRPC_KINDS: Mapping[str, Kind] = {
    "CANCELLED": "retry",
    "DEADLINE_EXCEEDED": "retry",
    "RESOURCE_EXHAUSTED": "retry",
    "ABORTED": "retry",
    "OUT_OF_RANGE": "retry",
    "UNAVAILABLE": "retry",
    "DATA_LOSS": "retry",
    "INVALID_ARGUMENT": "refused",
    "ALREADY_EXISTS": "refused",
    "FAILED_PRECONDITION": "refused",
    "INTERNAL": "refused",
    "UNKNOWN": "refused",
    "UNAUTHENTICATED": "config",
    "PERMISSION_DENIED": "config",
    "UNIMPLEMENTED": "config",
    "NOT_FOUND": "config",
}
_GRPC_SIGNS = (  # gRPC has one code for all trouble on the way, and tells its kind in words only
    ("resolv", "dns"),
    ("name resol", "dns"),
    ("dns", "dns"),
    ("handshake", "tls"),
    ("ssl", "tls"),
    ("connection refused", "refused_connection"),
)
_LOKI_OLD = re.compile(r"entry too far behind|entry out of order|has timestamp too old")
_LOKI_NEW = re.compile(r"has timestamp too new")
_LOKI_TOTALS = re.compile(r"total ignored: (\d{1,9}) out of \d{1,9}")


class Answer(NamedTuple):
    """What became of one request.

    `taken`: all of it is stored. `partial`: `rejected` items are not, for good, the others are. `retry`: an
    outage. `refused`: something about this very payload. `config`: somebody's configuration, so every
    request would fare the same. `reason` is of a finite set, for labels; `message` is the backend's own
    words, bounded and printable, but otherwise untrusted.
    Source: OTLP 1.x, "OTLP/HTTP Response", "OTLP/gRPC Response", with Loki's own refusals beside them.
    """

    kind: Kind
    reason: str = ""
    rejected: int = 0
    retry_after_seconds: float | None = None
    message: str = ""


def http_answer(signal: Signal, status: int, headers: Mapping[str, str], content: bytes) -> Answer:
    """Read a response of OTLP/HTTP; `headers` are found in any case, `content` is the decompressed body."""
    media = headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if 200 <= status < 300:
        is_framed = status == 204 or "Content-Length" in headers or "Transfer-Encoding" in headers
        if not is_framed and not content:
            # So looks a response whose connection has ended among its headers: not a receipt.
            return Answer("retry", "connection")
        return response(signal, content, media)
    message = _words(content, media)
    if 300 <= status < 400:
        return Answer("config", "redirect", message=printable(f"to {shown(headers.get('Location', '?'))}"))
    if status == 400 and signal == "logs" and (loki := _loki(message)):
        return loki
    reason = f"http_{status}" if status in _HTTP_NAMED else "http_other"
    if status in _HTTP_REFUSED:
        return Answer("refused", reason, message=printable(message))
    if status in _HTTP_RETRY or (status > 500 and status not in (501, 505)):
        after = _retry_after_seconds(headers.get("Retry-After", ""))
        return Answer("retry", reason, retry_after_seconds=after, message=printable(message))
    return Answer("config", reason, message=printable(message))


def _retry_after_seconds(text: str) -> float | None:
    """Retry-After in seconds from now, of either form of RFC 9110 section 10.2.3; None if it is neither."""
    try:
        seconds = float(text)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(text).timestamp() - time.time()
        except (ValueError, OverflowError):
            return None
    return max(seconds, 0.0) if math.isfinite(seconds) else None


def trouble(error: Exception) -> Answer:
    """What kept an HTTP request from an answer: found among causes that are wrapped into each other."""
    import requests  # noqa: PLC0415  # heavy
    import urllib3  # noqa: PLC0415  # heavy

    causes: list[BaseException] = [error]
    for cause in causes:  # grows while it is walked, and never twice over the same
        inner = (cause.__cause__, cause.__context__, getattr(cause, "reason", None), *cause.args)
        causes += [e for e in inner if isinstance(e, BaseException) and all(e is not seen for seen in causes)]

    def is_caused_by(*kinds: type[BaseException]) -> bool:
        return any(isinstance(cause, kinds) for cause in causes)

    own = next((c for c in reversed(causes) if isinstance(c, OSError) and c.strerror), None)
    message = printable(str(own.strerror if own else ""))
    if is_caused_by(ssl.SSLError):
        return Answer(
            "retry", "tls", message=printable(next(str(c) for c in causes if isinstance(c, ssl.SSLError)))
        )
    if is_caused_by(socket.gaierror):
        return Answer("retry", "dns", message=message)
    if is_caused_by(TimeoutError, requests.Timeout, urllib3.exceptions.ReadTimeoutError):
        return Answer("retry", "timeout", message=message)
    if is_caused_by(ConnectionRefusedError):
        return Answer("retry", "refused_connection", message=message)
    if is_caused_by(requests.exceptions.InvalidURL, requests.exceptions.InvalidHeader, UnicodeError) or (
        isinstance(error, OSError) and not isinstance(error, requests.RequestException | ConnectionError)
    ):
        # Files of certificates that have gone since the start, or a name that is no host name.
        return Answer("config", "request", message=printable(str(error)))
    return Answer("retry", "connection", message=message)


def grpc_answer(signal: Signal, error: Any) -> Answer:
    """Read the failure of a call of OTLP/gRPC, a grpc.RpcError with code, details and trailing metadata."""
    code: str = error.code().name
    words = error.details() or ""
    kind = _GRPC_KINDS.get(code, "config")
    reason = f"grpc_{code.lower()}"
    after: float | None = None
    if kind == "refused" and signal == "logs" and (loki := _loki(words)):
        return loki
    if code == "DEADLINE_EXCEEDED":
        reason = "timeout"
    elif code == "UNAVAILABLE":
        lowered = words.lower()
        reason = next((name for sign, name in _GRPC_SIGNS if sign in lowered), reason)
    if kind == "retry":
        after = _retry_info_seconds(error.trailing_metadata() or ())
    if code == "RESOURCE_EXHAUSTED" and after is None and "larger than max" in words:
        # A receiver's limit for one message (4 MiB by default): not an outage, smaller ones go through.
        kind, reason = "refused", "grpc_message_too_large"
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
    """The answer in the body of a success: OTLP's own response, or nothing at all."""
    if not content:
        return Answer("taken")
    not_otlp = Answer("config", "not_otlp", message=printable(_words(content, media)))
    rejected, message = 0, ""
    if media == "application/json":
        # Some receivers answer a protobuf request in JSON.
        try:
            document = json.loads(content)
            if document != {}:
                partial = document["partialSuccess"] or {}
                rejected = int(partial.get("rejectedSpans", partial.get("rejectedLogRecords", 0)))
                message = str(partial.get("errorMessage", ""))
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            return not_otlp
    elif media in ("application/x-protobuf", "application/protobuf", "application/octet-stream", ""):
        from google.protobuf.message import DecodeError  # noqa: PLC0415  # heavy
        from opentelemetry.proto.collector.logs.v1 import logs_service_pb2  # noqa: PLC0415  # heavy
        from opentelemetry.proto.collector.trace.v1 import trace_service_pb2  # noqa: PLC0415  # heavy

        try:
            if signal == "traces":
                spans = trace_service_pb2.ExportTraceServiceResponse.FromString(content).partial_success
                rejected, message = spans.rejected_spans, spans.error_message
            else:
                logs = logs_service_pb2.ExportLogsServiceResponse.FromString(content).partial_success
                rejected, message = logs.rejected_log_records, logs.error_message
        except DecodeError:
            return not_otlp
    else:
        return not_otlp
    if rejected > 0:
        return Answer("partial", "partial", rejected, message=printable(message))
    return Answer("taken", message=printable(message))


def _loki(words: str) -> Answer | None:
    """Loki's refusal of entries for their times, which it gives after it has stored the others.

    Their number is what Loki says of itself, which is the least it can be: it names no number for entries
    that its distributor has refused, and may leave streams out.
    Source: Loki 2.4 to 3.x, `pkg/ingester/stream.go`, `pkg/validation/validate.go`.
    """
    is_old = bool(_LOKI_OLD.search(words))
    if not is_old and not _LOKI_NEW.search(words):
        return None
    named = sum(int(total) for total in _LOKI_TOTALS.findall(words))
    counted = len(_LOKI_OLD.findall(words)) + len(_LOKI_NEW.findall(words))
    return Answer(
        "partial",
        "loki_too_old" if is_old else "loki_too_new",
        rejected=named or counted,
        message=printable(words),
    )


def _words(content: bytes, media: str) -> str:
    """The message in the body of a failure.

    That is a google.rpc.Status as protobuf (Loki calls it an octet stream) or JSON, else the text as it is.
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
    """A backend's words for logs and terminals: bounded, no control characters, no turned direction."""
    kept = "".join(c if c.isprintable() else " " for c in words[: 4 * MESSAGE_CHARACTERS_MAX])
    return " ".join(kept.split())[:MESSAGE_CHARACTERS_MAX]


def shown(endpoint: str) -> str:
    """Cut an endpoint down to what everybody may see: no user, no password, no query."""
    scheme, mark, rest = endpoint.partition("://")
    place = (rest if mark else scheme).partition("?")[0]
    authority, slash, path = place.partition("/")
    return printable(f"{scheme if mark else ''}{mark}{authority.rpartition('@')[2]}{slash}{path}")

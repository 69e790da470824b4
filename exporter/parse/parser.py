"""Parses the lines of Wok's user request log in order. Never raises for a line.

`dialects` decodes a line. This module validates, redacts and bounds the fields, finds the time, and
distinguishes records from lines that continue the previous record.

The text of the dialects with `>>>` is raw. It contains what users typed, including newlines. So a
record can span several physical lines, and anybody who can send a user name can send a line that
looks like a record. In the coded dialects, PARAMS has the same value a second time, safely encoded.
So a value with newlines is a *proof*: if the line of a record ends with the first line of the
value, and the next physical line is the second line of the value, then that line is a continuation,
whatever it looks like. Only digests of these lines are kept. Nobody can use this to hide a record
of another user: a record only counts as forged if its whole INFO is in the value. The ``text``
dialect has no such proof, so a forged record cannot be detected there.

All output is redacted and bounded here, once. Most lines have nothing to redact or bound, and a few
quick tests of the raw line prove that. Only the other lines are processed value by value.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any, NamedTuple

from exporter.parse.continuation import ContinuationProof
from exporter.parse.dialects import Decoded, Malformed, Part, first_object, parts_of, read
from exporter.parse.redact import may_hold_secret, redact_value, safe_excerpt
from exporter.parse.timezone import Zones
from exporter.records import Continuation, Dialect, Kind, Line, Parsed, Record, Rejected, RejectReason

# Limits in characters. Longer values are not real names, and would only fill the backends.
MAX_APP_CHARS = 64
MAX_NAME_CHARS = 256
MAX_CODE_CHARS = 64
MAX_TEXT_CHARS = 1024
MAX_URI_CHARS = 4096
MAX_STRING_CHARS = 8192
MAX_ENTRIES = 200
"""Entries kept of a list or an object in parameters. A form of Kimchi has about thirty."""
MAX_NESTING_SIGNS = 20
"""A line with at most this many brackets is never too deep, so its depth is not measured."""
MAX_CACHED_APPS = 256
MAX_CACHED_MEANINGS = 1024
"""Equal to the number of frames that `dialects` caches."""
INT32 = 1 << 31
UUID_CHARS = 36

STARTED = 1000
SUCCEEDED = 1001
RFC_STATUSES = frozenset({STARTED, SUCCEEDED, 1002})
INFO_FIELDS = ("date", "zone", "req", "status", "user", "ip", "app", "msgCode", "detCode")

COSTLY_BYTES = 64 * 1024
"""Longer lines are checked before they are decoded. Shorter lines cannot cost much."""
COST_FREE = 4 * 1024 * 1024
COST_PER_BYTE = 4
_COSTS = ((b"{", 200), (b"[", 64), (b",", 40), (b'"', 30))
"""Approximate memory in bytes of JSON values, by the character that creates them."""

# A record of the json dialect is one physical line, so no line can continue it.
_JSON_STARTS = (b'{"info": {', b'{"id": ', b'{"message": {', b'{"error": ')
_BOM = b"\xef\xbb\xbf"
_NOT_APP = re.compile(r"[^a-z0-9_.-]")
_STATUS = re.compile(r"[ ]*(\d{1,9})(?!\d)", re.ASCII)
_METHOD = re.compile(r"[A-Z]{1,16}", re.ASCII)
_ESCAPED_SURROGATE = re.compile(r"\\u[dD]")
_SURROGATE = re.compile(f"[{chr(0xD800)}-{chr(0xDFFF)}]")


FIRST_RECORDS = 8
"""The median time of these records sorts the file, so that one wrong timestamp has no effect."""


def first_time(zones: Zones) -> Callable[[Sequence[Line]], int | None]:
    """Return a function that returns the time of the first records of some lines, or None."""

    def time_of(lines: Sequence[Line]) -> int | None:
        parser = Parser("", zones, excerpts=False)
        parsed = (item.time for line in lines for item in parser.feed(line) if isinstance(item, Record))
        times = sorted(islice(parsed, FIRST_RECORDS))
        return times[(len(times) - 1) // 2] if times else None

    return time_of


class Meaning(NamedTuple):
    """The fields of INFO except the time: validated, redacted and bounded.

    `is_record` is False if INFO is not that of a record. `codes` are the codes of the message and
    of the error, which the coded dialect has in INFO.
    """

    date: str
    zone: str
    app: str
    method: str
    status: int | None
    user: str
    address: str
    codes: tuple[str, str]
    kind: Kind
    is_failed: bool
    is_rfc: bool
    is_record: bool


class Parser:
    """Parses the lines of one log, in order.

    `instance` is part of the trace ids of records without a uuid. `state` is an earlier value of
    the property `state`, or empty. With it, a log gives the same result however it is split into
    batches. Raises ValueError for an invalid state. `excerpts` is False if nobody reads those of
    the rejected lines: they are most of the work for short lines, which anybody can cause by
    newlines in a name.
    """

    def __init__(self, instance: str, zones: Zones, state: str = "", *, excerpts: bool = True) -> None:
        self._nanos = zones.nanos
        self._shift = zones.shift
        self._excerpt = _excerpt if excerpts else _no_excerpt
        self.shift: int | None = None
        """Nanoseconds from the configured zone to the last record's, or None without one."""
        self._seed = hashlib.sha256(_framed(instance.encode("utf-8", "surrogatepass")))
        self._file = b""
        self._file_seed = self._seed.copy()
        self._file_seed.update(_framed(self._file))
        self._apps: dict[str, str] = {}
        self._meanings: dict[str, Meaning] = {}
        self._text_may_continue = bool(state)
        self._proof: ContinuationProof | None = None
        if state:
            try:
                proof = dict(json.loads(state)).get("proof")
                self._proof = ContinuationProof.restored(proof) if proof else None
            except (ValueError, TypeError, KeyError) as error:
                raise ValueError(f"not the state of a parser: {state[:80]!r}") from error

    @property
    def state(self) -> str:
        """Small JSON text that has no text of the log; empty if the next line needs no context."""
        if not self._text_may_continue:
            return ""
        return json.dumps({"proof": self._proof.saved()} if self._proof else {}, separators=(",", ":"))

    def feed(self, line: Line) -> list[Parsed]:
        """Parse a line into one item, or several if it is torn or has NUL bytes. Never raises."""
        file, offset, data, length, _, newlines = line
        size = len(data)
        if length > size:
            return [self._unread("too_long", line, newlines)]
        if size > COSTLY_BYTES and _is_costly(data):
            return [self._unread("unsafe", line, data.count(b"\\n"))]
        proof, self._proof = self._proof, None
        if self._text_may_continue and b'{"' not in data and not data.startswith(b"\0"):
            if proof is not None:
                proof.advance(data)
                self._proof = proof
            return [Continuation(False, offset)]
        if offset == 0 and data.startswith(_BOM):
            data = data[len(_BOM) :]
            offset = len(_BOM)
        whole = data
        if data.endswith(b"\r"):
            data = data[:-1]
        content = read(data)
        # The fast path: nearly all lines are exactly one record.
        if proof is None and type(content) is Decoded and '{"' not in content.text:
            dialect = content.dialect
            self._text_may_continue = dialect != "json"
            if dialect == "coded":
                self._proof = ContinuationProof.of(content, line.data)
            return [self._record(content, data, file, offset)]
        if proof is None and isinstance(content, Malformed) and b'{"' not in data and data[:1] != b"\0":
            # No part of it is a record.
            return [self._parsed(Part(0, data, content), line, offset)]
        parts = parts_of(data, content)
        if proof is not None:
            is_doubted = proof.doubted > 0
            proved = proof.advance(whole)
            records = [part.start for part in parts if isinstance(part.content, Decoded)]
            is_forged = any(
                first_object(data[start : max(proved, start)])
                or ((start > 0 or proved >= 0) and proof.knows(data[start:], is_behind_text=start > 0))
                for start in records
            )
            # A record that is only partly covered is genuine: the value did not continue here.
            if is_forged or (proved >= 0 and not records):
                self._proof = proof
                return [Continuation(is_forged, offset)]
            if is_doubted:
                self._proof = proof
                if records:
                    return [Continuation(forged=True, offset=offset)]
        return [self._parsed(part, line, offset + part.start) for part in parts]

    def skip(self, line: Line) -> Rejected:
        """Reject a line without decoding it."""
        return self._unread("unsafe", line, max(line.newlines, line.data.count(b"\\n")))

    def _unread(self, reason: RejectReason, line: Line, newlines: int) -> Rejected:
        """Reject a line without decoding it; doubt the lines after it, which cannot be proved."""
        doubted = self._proof.lines if self._proof is not None else 0
        if not line.data.startswith(_JSON_STARTS):
            doubted += newlines
            self._text_may_continue = True
        elif not doubted:
            self._text_may_continue = False
        self._proof = ContinuationProof.doubt(doubted)
        return Rejected(reason, line.file, line.offset, self._excerpt(line.data))

    def _parsed(self, part: Part, line: Line, offset: int) -> Parsed:
        content = part.content
        if isinstance(content, Decoded):
            self._text_may_continue = content.dialect != "json"
            self._proof = ContinuationProof.of(content, line.data) if content.dialect == "coded" else None
            return self._record(content, part.data, line.file, offset)
        if content.reason == "nul":
            self._text_may_continue = False
            return Rejected("nul", line.file, offset, f"{len(part.data)} NUL bytes")
        if self._text_may_continue and not part.data.startswith(b'{"'):
            return Continuation(forged=False, offset=offset)
        return Rejected(content.reason if line.ended else "torn", line.file, offset, self._excerpt(part.data))

    def _record(self, decoded: Decoded, data: bytes, file: bytes, offset: int) -> Record | Rejected:
        meaning = self._meanings.get(decoded.frame)
        if meaning is None:
            meaning = self._meaning(decoded)
        date, zone, app, method, status, user, address, codes, kind, is_failed, is_rfc, is_record = meaning
        time = self._nanos(date, decoded.clock, zone)
        if time is None:
            return Rejected("time", file, offset, self._excerpt(data))
        if zone:
            self.shift = self._shift(date, decoded.clock, zone)
        if not is_record:
            return Rejected("shape", file, offset, self._excerpt(data))
        rest, written, _, _, _, code, params, error_code, error_params, text, record_id, is_damaged = decoded
        if is_damaged or _is_suspect(rest):
            params, error_params = _clean(params), _clean(error_params)
            code, error_code, text = _clean(code), _clean(error_code), _clean(text)
        dialect: Dialect = written
        if written == "coded":
            code, error_code = codes
            if is_rfc:
                dialect = "rfc"
        uri = task_id = request_id = parent_task_id = ""
        if method == "TASK":
            uri = _field(params.get("target_uri"), MAX_URI_CHARS)
            task_id = _field(params.get("task_id"), MAX_CODE_CHARS)
            request_id = _field(params.get("request_id"), MAX_CODE_CHARS)
            parent_task_id = _field(params.get("parent_task_id"), MAX_CODE_CHARS)
        trace_id = _uuid(record_id) if record_id else None
        if trace_id is None:
            record_id = ""
            trace_id = self._derived_id(file, offset, data)
        return Record(
            kind,
            dialect,
            time,
            app,
            method,
            status,
            user,
            address,
            code if type(code) is str and len(code) <= MAX_CODE_CHARS else _field(code, MAX_CODE_CHARS),
            params,
            "" if error_code == "" else _field(error_code, MAX_CODE_CHARS),
            error_params,
            text if len(text) <= MAX_TEXT_CHARS else _cut(text, MAX_TEXT_CHARS),
            trace_id,
            record_id,
            file,
            offset,
            uri,
            task_id,
            request_id,
            is_failed,
            parent_task_id,
        )

    def _meaning(self, decoded: Decoded) -> Meaning:
        info = decoded.info
        if decoded.is_damaged or _is_suspect(decoded.frame or decoded.rest):
            info = {name: _clean(info[name]) for name in INFO_FIELDS if name in info}
        zone = info.get("zone")
        method = info["req"]
        status = info.get("status")
        if type(status) is not int:
            status = _status(status)
        if status is not None and not 0 <= status < INT32:
            status = None
        user = info.get("user")
        path = info.get("app")
        app = self._apps.get(path) if type(path) is str else "wok"
        is_task = method == "TASK"
        is_record = _METHOD.fullmatch(method) is not None
        kind: Kind = "request"
        is_failed = False
        if is_task:
            kind = "started" if status == STARTED else "finished"
            is_record = status is not None and status >= 200
            is_failed = status is not None and status >= 400 and status not in {STARTED, SUCCEEDED}
        meaning = Meaning(
            info["date"],
            zone if type(zone) is str else "",
            self._app(str(path)) if app is None else app,
            method,
            status,
            "" if user is None or user in ("N/A", "None") else _field(user, MAX_NAME_CHARS),
            _field(info.get("ip"), MAX_NAME_CHARS),
            (_field(info.get("msgCode"), MAX_CODE_CHARS), _field(info.get("detCode"), MAX_CODE_CHARS)),
            kind,
            is_failed,
            is_task and status in RFC_STATUSES,
            is_record,
        )
        if decoded.frame:
            if len(self._meanings) >= MAX_CACHED_MEANINGS:
                self._meanings.clear()
            self._meanings[decoded.frame] = meaning
        return meaning

    def _app(self, path: str) -> str:
        """Return an application's name: `/wok/plugins/kimchi` -> `kimchi`; `wok` for the root."""
        # `app` is the path of the application below a configurable `server_root`. Before September
        # 2016 it is a name without a slash.
        _, is_plugin, below = f"/{path}".rpartition("/plugins/")
        name = below if is_plugin else "" if "/" in path else path
        name = _NOT_APP.sub("_", name[: 4 * MAX_APP_CHARS].lower().strip("/"))[:MAX_APP_CHARS] or "wok"
        if len(path) <= MAX_APP_CHARS:
            if len(self._apps) >= MAX_CACHED_APPS:
                self._apps.clear()
            self._apps[path] = name
        return name

    def _derived_id(self, file: bytes, offset: int, data: bytes) -> bytes:
        if file != self._file:
            self._file_seed = self._seed.copy()
            self._file_seed.update(_framed(file))
            self._file = file
        seed = self._file_seed.copy()
        seed.update(_framed(b"%d" % offset) + _framed(data))
        return seed.digest()[:16]


def _is_suspect(line: str) -> bool:
    """Return whether redacting or bounding could change a value decoded from this text."""
    return (
        may_hold_secret(line)
        or len(line) > MAX_STRING_CHARS
        or ("\\" in line and _ESCAPED_SURROGATE.search(line) is not None)
        or line.count("{") + (line.count("[") if "[" in line else 0) > MAX_NESTING_SIGNS
        or (len(line) >= 2 * MAX_ENTRIES and line.count(",") >= MAX_ENTRIES)
    )


def _is_costly(data: bytes) -> bool:
    """Return whether decoding would take more memory than a small multiple of the line."""
    cost = sum(data.count(sign) * size for sign, size in _COSTS)
    return cost > COST_FREE + COST_PER_BYTE * len(data)


def _uuid(text: Any) -> bytes | None:
    """Return the bytes of a canonical uuid (lower case, not zero), or None for anything else."""
    if type(text) is not str or len(text) != UUID_CHARS or text[8:24:5] != "----":
        return None
    digits = text.replace("-", "")
    try:
        raw = bytes.fromhex(digits)
    except ValueError:
        return None
    return raw if raw.hex() == digits and len(raw) == 16 and any(raw) else None


def _status(value: Any) -> int | None:
    """Convert a status that is not an int: `200 OK` -> 200, and None without a number."""
    if type(value) is float and value.is_integer():
        return int(value)
    found = _STATUS.match(value) if type(value) is str else None
    return int(found[1]) if found else None


def _field(value: Any, limit: int) -> str:
    """Return a field as a bounded string, whatever its type is."""
    if type(value) is str:
        return value if len(value) <= limit else _cut(value, limit)
    return "" if value is None else _cut(str(value), limit)


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _clean(value: Any) -> Any:
    """Redact decoded JSON, replace lone surrogates, and bound depth, entries and lengths."""
    return _bounded(redact_value(value))


def _bounded(value: Any) -> Any:
    if isinstance(value, str):
        return _cut(_SURROGATE.sub("\ufffd", value), MAX_STRING_CHARS)
    if isinstance(value, dict):
        return {_bounded(key): _bounded(item) for key, item in islice(value.items(), MAX_ENTRIES)}
    if isinstance(value, list):
        return [_bounded(item) for item in value[:MAX_ENTRIES]]
    return value


def _excerpt(data: bytes) -> str:
    """Return the excerpt of a rejected line.

    Without the beginning of a record, it is unknown which part of the line is a secret.
    """
    if not data.startswith(b"{") and (b'"' in data or b"'" in data):
        return "(left out: it may be the middle of a record)"
    return safe_excerpt(data)


def _no_excerpt(_: bytes) -> str:
    return ""


def _framed(data: bytes) -> bytes:
    return len(data).to_bytes(8, "big") + data

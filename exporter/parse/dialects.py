"""Decodes the four dialects of Wok's user request log: from bytes to the fields of a record.

One file can contain several dialects:

* ``text``   (2.1, 2.2)    ``INFO >>> text``
* ``coded``  (August 2016) ``INFO >>> PARAMS >>> text``, and with an error
  ``INFO >>> PARAMS >>> ERRPARAMS >>> text``
* ``rfc``    the same form for the TASK records 1000, 1001 and 1002 of the RFC; ``coded`` in this
  module
* ``json``   (2.3 and later) one JSON object: ``{"info": INFO, "message": {...}, "id": "...",
  "error": ...}``

INFO, PARAMS and ERRPARAMS are JSON objects. They and the text can contain `>>>`. So the line is
never split: the objects are decoded one by one from its beginning. INFO determines the dialect:
only in ``coded`` it has `msgCode`, and it has `detCode` exactly if ERRPARAMS follows. In ``text``,
the text can begin with a brace.

If a crash tears a line, the next record follows it without a newline. That record is recovered. A
hole of NUL bytes is what copytruncate leaves if the writer keeps its offset.

Decoding is half of the work for a line, and INFO is half of the decoding. Apart from its time, INFO
is equal in many lines, because a few users do a few things. So an INFO is not decoded again if its
*frame* (its text without the time) was seen before. This is done only if the result for the whole
line is certain to be the same.
"""

from __future__ import annotations

import json
import re
from functools import lru_cache
from itertools import islice
from typing import Any, Literal, NamedTuple

from exporter.records import RejectReason

MAX_SALVAGE_TRIES = 8
"""Places in a torn line where an appended record is searched; a record has at most three."""
INT64 = 1 << 63
MAX_FRAMES = 1024
"""Cached frames, about 1 KiB each: users times what they do in about a day."""
MAX_FRAME_CHARS = 512
"""Frames of Wok have up to 200 characters. Long names from clients must not fill the cache."""
CLOCK_CHARS = len("HH:MM:SS")

_RECORD_START = (
    r'\{"(?:info|message|error|id|status|zone|ip|app|req|user|time|date|msgCode|detCode)": ?(?=\{|"|null|\d)'
)
_RECORD_START_TEXT = re.compile(_RECORD_START)
_RECORD_START_BYTES = re.compile(_RECORD_START.encode())
_ARROW = re.compile(r"[ \t]*>>>")
_ERROR_PARAMS = re.compile(r"[ \t]*(?:\{|\Z)")
_BLANKS = re.compile(r"[ \t]*")
# Shared by all records without parameters. It is never changed, and saves memory and time.
_NO_PARAMS: dict[str, Any] = {}
_INFO_FIRST = '{"info": '
_INFO_FIRST_CHARS = len(_INFO_FIRST)


def _integer(digits: str) -> int | str:
    """Keep integers over 64 bits as text: protobuf has none, and Python rejects very long ones."""
    if len(digits) < 19:
        return int(digits)
    if len(digits) > 20 or not -INT64 <= int(digits) < INT64:
        return digits
    return int(digits)


_DECODE = json.JSONDecoder(parse_int=_integer).raw_decode


class Decoded(NamedTuple):
    """A record of a known shape, whose fields are not validated, redacted or bounded yet.

    `clock` is its time. Records with equal `frame` share their `info`, which has no time then. The
    frame is empty if INFO was decoded for this record only. `rest` is the line without INFO if
    there is a frame, else the whole line.
    """

    rest: str
    dialect: Literal["text", "coded", "json"]
    info: dict[str, Any]
    clock: str
    frame: str
    code: Any
    params: dict[str, Any]
    error_code: Any
    error_params: dict[str, Any]
    text: str
    id: Any
    is_damaged: bool


class Malformed(NamedTuple):
    """A line, or a part of one, that is not a record, and the reason."""

    reason: RejectReason


class Part(NamedTuple):
    """A part of a physical line, from byte `start` on."""

    start: int
    data: bytes
    content: Decoded | Malformed


def first_object(data: bytes) -> bytes:
    """Return the JSON object at the beginning of the bytes, or empty bytes.

    It is the INFO of a record, or a whole record of the json dialect.
    """
    text = data.decode("utf-8", "surrogateescape")
    try:
        _, end = _DECODE(text)
    except (ValueError, RecursionError):
        return b""
    return text[:end].encode("utf-8", "surrogateescape")


def objects_in(text: str, tries: int) -> tuple[list[str], int]:
    """Return the JSON objects in a text, and how many of `tries` decoding attempts are left.

    Objects within objects are not searched.
    """
    found = []
    at = text.find('{"')
    while at >= 0 and tries > 0:
        tries -= 1
        try:
            _, end = _DECODE(text, at)
            found.append(text[at:end])
        except (ValueError, RecursionError):
            end = at + 1
        at = text.find('{"', end)
    return found, 0 if at >= 0 else tries


def parts_of(
    data: bytes, content: Decoded | Malformed, start: int = 0, tries: int = MAX_SALVAGE_TRIES
) -> list[Part]:
    """Split a line after a hole of NUL bytes, and where a record was appended to a torn record.

    `content` is the result of decoding `data` as a whole. `start` is the offset of `data` in the
    physical line.
    """
    if data.startswith(b"\0"):
        rest = data.lstrip(b"\0")
        hole = len(data) - len(rest)
        later = parts_of(rest, read(rest), start + hole, tries) if rest else []
        return [Part(start, data[:hole], Malformed("nul")), *later]
    if isinstance(content, Malformed):
        search_from = 1
    elif content.dialect == "coded" and '{"' in content.text and _is_torn(content):
        search_from = len(data) - len(content.text.encode("utf-8", "surrogateescape"))
    else:
        return [Part(start, data, content)]
    for tried, found in enumerate(islice(_RECORD_START_BYTES.finditer(data, search_from), tries), 1):
        at = found.start()
        appended = read(data[at:])
        if isinstance(appended, Decoded):
            torn = read(data[:at])
            first = Part(start, data[:at], torn if isinstance(torn, Decoded) else Malformed("torn"))
            return [first, *parts_of(data[at:], appended, start + at, tries - tried)]
    return [Part(start, data, content)]


def _is_torn(record: Decoded) -> bool:
    """Return whether the text has the start of a record that is not from a parameter."""
    starts = {found[0] for found in _RECORD_START_TEXT.finditer(record.text)}
    values = [str(value) for params in (record.params, record.error_params) for value in params.values()]
    return any(not any(start in value for value in values) for start in starts)


def read(data: bytes) -> Decoded | Malformed:
    """Decode a record of any dialect, or return why this is not one. Never raises."""
    if not data.startswith(b'{"'):
        return Malformed("shape" if _is_utf8(data) else "encoding")
    is_damaged = False
    try:
        line = data.decode()
    except UnicodeDecodeError:
        is_damaged = True
        line = data.decode("utf-8", "surrogateescape")
    try:
        decoded = None if is_damaged else _read_framed(line)
        if decoded is not None:
            return decoded
        first, end = _DECODE(line)
        if end == len(line) or line[end:].isspace():
            info = first.get("info")
            if not _is_info(info):
                return Malformed("shape")
            return _read_json(line, first, info, info["time"], "", is_damaged)
        arrow = _ARROW.match(line, end)
        if arrow is None:
            return Malformed("encoding" if is_damaged else "json")
        if not _is_info(first):
            return Malformed("shape")
        return _read_arrows(line, arrow.end(), line, first, first["time"], "", is_damaged)
    except (ValueError, RecursionError):
        return Malformed("encoding" if is_damaged else "json")


def _read_framed(line: str) -> Decoded | None:
    """Decode a record whose frame is known; return None for all others.

    INFO is searched where the releases of Wok write it. The text of a known frame is one complete
    object. So the text found is INFO if the line without it is an otherwise complete record. Raises
    ValueError, RecursionError.
    """
    is_first = line.startswith(_INFO_FIRST)
    is_json = is_first or line.endswith("}}")
    if is_first:
        before, found, behind = line.partition("}, ")
        text, rest = before[_INFO_FIRST_CHARS:] + "}", "{" + behind
    elif is_json:
        before, found, behind = line.rpartition(', "info": ')
        text, rest = behind[:-1], before + "}"
    else:
        before, found, rest = line.partition("} >>>")
        text = before + "}"
    head, mark, tail = text.partition('"time": "')
    clock = tail[:CLOCK_CHARS]
    # With a quote or a backslash, the time would end somewhere else.
    if not found or not mark or not clock.replace(":", "0").isalnum():
        return None
    frame = head + mark + tail[CLOCK_CHARS:]
    info = _framed_info(frame) if len(frame) <= MAX_FRAME_CHARS else None
    if info is None:
        return None
    if not is_json:
        return _read_arrows(rest, 0, rest, info, clock, frame, is_damaged=False)
    record, end = _DECODE(rest)
    # If a name is twice in an object, the last one counts: here another INFO follows this one.
    if end != len(rest) or not record or (is_first and "info" in record):
        return None
    return _read_json(rest, record, info, clock, frame, is_damaged=False)


@lru_cache(maxsize=MAX_FRAMES)
def _framed_info(frame: str) -> dict[str, Any] | None:
    """Return the decoded INFO of a frame, or None if it is not INFO with its time there."""
    head, mark, tail = frame.partition('"time": "')
    infos = []
    for clock in ("00:00:00", "11:11:11"):
        try:
            info, end = _DECODE(head + mark + clock + tail)
        except (ValueError, RecursionError):
            return None
        if end != len(frame) + CLOCK_CHARS or not _is_info(info) or info.pop("time") != clock:
            return None
        infos.append(info)
    return infos[0] if infos[0] == infos[1] else None


def _read_arrows(
    line: str, at: int, rest: str, info: dict[str, Any], clock: str, frame: str, is_damaged: bool
) -> Decoded:
    """Decode a record with arrows, from the first arrow on. Raises ValueError, RecursionError."""
    if "msgCode" not in info:
        text = line[at + 1 :] if line.startswith(" ", at) else line[at:]
        return Decoded(rest, "text", info, clock, frame, "", _NO_PARAMS, "", _NO_PARAMS, text, "", is_damaged)
    params, at = _object(line, at)
    error_params = _NO_PARAMS
    error_code: Any = ""
    if "detCode" in info:
        error_code = info["detCode"]
        # Be lenient: without an object, this is an error without parameters, and the text follows.
        if _ERROR_PARAMS.match(line, at) is not None:
            error_params, at = _object(line, at)
    text = line[at + 1 :] if line.startswith(" ", at) else line[at:]
    code = info["msgCode"]
    return Decoded(
        rest, "coded", info, clock, frame, code, params, error_code, error_params, text, "", is_damaged
    )


def _read_json(
    rest: str, record: dict[str, Any], info: dict[str, Any], clock: str, frame: str, is_damaged: bool
) -> Decoded:
    message = record.get("message")
    code: Any = ""
    params: Any = _NO_PARAMS
    if type(message) is dict:
        code = message.get("code")
        params = message.get("params")
        if type(params) is not dict:
            params = _NO_PARAMS
    error = record.get("error")
    error_code: Any = ""
    error_params: Any = _NO_PARAMS
    if type(error) is dict:
        error_code = error.get("code")
        error_params = error.get("params")
        if type(error_params) is not dict:
            error_params = _NO_PARAMS
    record_id = record.get("id")
    return Decoded(
        rest, "json", info, clock, frame, code, params, error_code, error_params, "", record_id, is_damaged
    )


def _object(line: str, at: int) -> tuple[dict[str, Any], int]:
    """Return the object at `at` and its arrow's end. Raises ValueError, RecursionError."""
    if line.startswith(" {", at):
        start = at + 1
    else:
        blanks = _BLANKS.match(line, at)
        start = blanks.end() if blanks else at
    value, end = _DECODE(line, start)
    arrow = _ARROW.match(line, end)
    if type(value) is not dict or arrow is None:
        raise ValueError("no object between arrows")
    # These releases write all parameters as strings. So this is the INFO of a record after a torn
    # one.
    if _is_info(value) and type(value.get("status")) is int:
        raise ValueError("the INFO of another record")
    return value, arrow.end()


def _is_info(info: Any) -> bool:
    return (
        type(info) is dict
        and type(info.get("date")) is str
        and type(info.get("time")) is str
        and type(info.get("req")) is str
    )


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True

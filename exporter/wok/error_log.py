r"""Parses wok-error.log: starts of wokd, and the exceptions that ended tasks.

If the function of a task raises an exception, Wok writes to this file twice:

    Error in async_task 3a8d4178-eac8-11f1-9d32-02fc00000001        the header
    Traceback (most recent call last):                              the traceback
      File ".../wok/asynctask.py", line 109, in _run_helper
        self.fn(cb, opaque)
      File ".../wok/plugins/kimchi/model/vms.py", line 465, in _clone_task
        ...
    wok.exception.OperationFailed: KCHVM0035E: ...                  class and text
                                                                    one empty line

Other threads can write between the two. The traceback of a header is the next one that begins in
`_run_helper`. If a second header comes first, the owner of the traceback is unknown. Then the block
has all ids (`Block.ids`), and serves only to cast doubt on others. The next header after a
traceback starts a new group, so that a lost traceback does not shift all that follow. A traceback
without a header shows that the last pair was wrong.

In a chain, the causes come first. The task's own traceback is the only one that begins in
`_run_helper`. Everything after it, up to the first empty line, is text, whatever it looks like. An
empty line inside the text cuts it.

Anybody can write into this file: a line break in a name is enough. So nothing in it is proof. The
parser reports signs of forgery that the file itself shows: a header inside the text of another
block, a second traceback for a header, a traceback whose `_run_helper` is in another file or line
than that of its neighbours, and a mark of a start without the lines that wokd writes before it.

The file is read as bytes, split at b"\n" only. An unfinished traceback is kept only in memory:
tracebacks quote secrets, and a part of one cannot be redacted. `held` is the number of lines since
the last point outside of a traceback, and `state` is the state at that point. After a restart, read
the file again from there.
"""

from __future__ import annotations

import builtins
import json
import re
from typing import Any, NamedTuple

from exporter.parse.redact import REDACTED, redact_text
from exporter.parse.timezone import Zones
from exporter.wok.log_time import TIME, nanos_of, second_reading

TRACEBACK_LINES_MAX = 4000
"""An infinite recursion gives 2,000 lines in Python 2. Python writes no longer tracebacks."""
TRACEBACK_BYTES_MAX = 1024 * 1024
TEXT_BYTES_MAX = 64 * 1024
STACK_BYTES_MAX = 16 * 1024
"""From a longer stack, the beginning and the end are kept: where the task began and where it
failed.
"""
FRAMES_MAX = 3
"""Frames of plug-ins to keep: the function of the task, and those of wrappers around it."""
VALUE_CHARS_MAX = 200
"""This much of the value of an error is compared with a text."""
IDS_MAX = 16
"""Headers that wait for their tracebacks. More threads do not fail within a millisecond."""
HELPERS_MAX = 8
"""Each block's `_run_helper` is compared with those of this many blocks before it."""

_EPOCH_OF_UUID = 0x01B21DD213814000
"""Steps of 100 ns from 15 October 1582, the epoch of uuid1, to 1970."""

_HEADER = re.compile(
    rb"\AError in async_task ([0-9a-f]{8}-[0-9a-f]{4}-1[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}) ?\r?\Z"
)
_ENGINE = re.compile(
    rb"\A" + TIME + rb" ENGINE "
    rb"(Listening for SIG[A-Z0-9]{1,8}\.|Bus STARTING|Serving on [^\r]{1,256}|Bus STARTED)\r?\Z"
)
# The classes of wok/exception.py. Python 2 prints them without their module.
_WOK_CLASSES = frozenset(
    {
        "WokException",
        "NotFoundError",
        "OperationFailed",
        "MissingParameter",
        "InvalidParameter",
        "InvalidOperation",
        "IsoFormatError",
        "ImageFormatError",
        "TimeoutExpired",
        "UnauthorizedError",
    }
)
_TRACEBACK = "Traceback (most recent call last):"
_GROUP = "  + Exception Group " + _TRACEBACK
_GROUP_PREFIX = "  | "
_CHAINED = (
    "During handling of the above exception, another exception occurred:",
    "The above exception was the direct cause of the following exception:",
)
_HELPER = re.compile(r'\A  File "([^"\n]{0,4096}asynctask\.pyc?)", line (\d{1,9}), in _run_helper\Z')
_FRAME = re.compile(r'\A  File "([^"\n]{1,4096})", line \d{1,9}, in ([^\s()]{1,256})\Z')
_PLUGIN = re.compile(r"wok/plugins/([^/]{1,64})/([^\n]{1,256})\Z")
_CLASS = re.compile(r"\A([^\W\d][\w.<>]{0,255})(?:: ?(.*))?\Z", re.DOTALL)
_NOT_PLAIN = re.compile(r"[^\x20-\x7e]+|" + re.escape(REDACTED))
_MESSAGE = re.compile(r"\A[A-Z][A-Z0-9]{2,40}\d[A-Z]: ")
"""Follows an unfinished traceback: Wok logs the text of a WokException when it creates one."""
_CODE = re.compile(r"\A([A-Z][A-Z0-9]{2,40}): ")


class Frame(NamedTuple):
    """A frame of a traceback inside a plug-in; `file` is relative to the plug-in's directory."""

    plugin: str
    file: str
    function: str


class Mark(NamedTuple):
    """A line that reports a start of wokd at `time` (nanoseconds; the line has whole seconds).

    `is_chained`: the lines that wokd writes before it precede it, or the file has no such lines at
    all. `text` is the line.
    """

    number: int
    time: int
    is_chained: bool
    text: str


class Header(NamedTuple):
    """The id of a failed task; `is_quoted` if it is inside the text of a block."""

    number: int
    task_id: str
    is_quoted: bool


class Block(NamedTuple):
    """An exception that ended a task, redacted and bounded.

    `ids` has one task id, or several if it is not certain which header belongs to the traceback.
    `code` is Wok's error code; it is empty unless the exception is a WokException. `text` is the
    first paragraph of the exception's text. `is_cut`: there may have been more. `is_odd`: its
    `_run_helper` is in another place than that of the other blocks.
    """

    number: int
    ids: tuple[str, ...]
    exception: str
    code: str
    text: str
    is_cut: bool
    stack: str
    frames: tuple[Frame, ...]
    is_odd: bool


class Doubt(NamedTuple):
    """A further traceback without a header of its own: Wok did not write one of the two."""

    number: int
    ids: tuple[str, ...]


class Dropped(NamedTuple):
    """A traceback of one of these tasks that is damaged or too long."""

    number: int
    ids: tuple[str, ...]


Item = Mark | Header | Block | Doubt | Dropped
"""One item of the file; `number` counts all of them."""


def start_of(task_id: str) -> int:
    """Return the creation time of the task with this uuid1, in nanoseconds.

    It is exact unless uuidd runs on the host.
    """
    fields = task_id.split("-")
    steps = int(fields[2][1:] + fields[1] + fields[0], 16) - _EPOCH_OF_UUID
    return steps * 100


def clock_sequence_of(task_id: str) -> str:
    """Return the clock sequence of a uuid1: one per thread, or one per host if uuidd runs."""
    return task_id[19:23]


class ErrorLog:
    """Parses the lines of wok-error.log; times are in `zones`. Raises no exceptions."""

    def __init__(self, zones: Zones, state: str = "") -> None:
        self._zones = zones
        kept = json.loads(state) if state else {}
        self._number: int = kept.get("number", 0)
        self._ids: list[str] = kept.get("ids", [])
        self._expected: int = kept.get("expected", 0)
        self._has_traceback: bool = kept.get("has_traceback", False)
        self._stage: int = kept.get("stage", 0)
        self._helpers: list[str] = kept.get("helpers", [])
        self._has_chains: bool = kept.get("has_chains", False)
        self._marked: int = kept.get("marked", 0)
        # An unfinished traceback: its lines, and the indexes of the task's own part and of its
        # text.
        self._lines: list[str] = []
        self._bytes = 0
        self._own = -1
        self._text = -1
        self._raw: list[bytes] = []
        self._is_group = False

    @property
    def number(self) -> int:
        """The number of the last item."""
        return self._number

    @property
    def held(self) -> int:
        """The number of the last lines that are not yet in `state`."""
        return len(self._lines)

    @property
    def state(self) -> str:
        """The state `held` lines ago, as JSON text."""
        return json.dumps(
            {
                "number": self._number,
                "ids": self._ids,
                "expected": self._expected,
                "has_traceback": self._has_traceback,
                "stage": self._stage,
                "helpers": self._helpers,
                "has_chains": self._has_chains,
                "marked": self._marked,
            },
            separators=(",", ":"),
        )

    def feed(self, data: bytes) -> list[Item]:
        """Take the next line, without its newline, and return the items that it completes."""
        if self._lines:
            return self._inside(data)
        return self._outside(data)

    # Outside of tracebacks

    def _outside(self, data: bytes) -> list[Item]:
        first = data[:1]
        if first == b"E":
            header = _HEADER.match(data)
            if header is not None:
                return [self._header(header[1].decode())]
        elif first == b"[":
            return self._engine(data)
        elif first in (b"T", b" "):
            line = _decoded(data)
            if line in (_TRACEBACK, _GROUP):
                self._begin(line, data)
        return []

    def _header(self, task_id: str) -> Header:
        if self._has_traceback or not self._expected:
            self._ids = []
            self._expected = 0
            self._has_traceback = False
        self._ids.append(task_id)
        del self._ids[:-IDS_MAX]
        self._expected = min(self._expected + 1, IDS_MAX)
        return Header(self._next(), task_id, is_quoted=False)

    def _engine(self, data: bytes) -> list[Item]:
        match = _ENGINE.match(data)
        if match is None:
            return []
        said = match[5]
        if said != b"Bus STARTED":
            self._has_chains = True
        if said.startswith(b"Listening"):
            self._stage = max(self._stage, 1)
        elif said == b"Bus STARTING":
            self._stage = max(self._stage, 2)
        elif said.startswith(b"Serving"):
            self._stage = 3 if self._stage >= 2 else self._stage
        else:
            date = (match[1], match[2], match[3], match[4])
            time = nanos_of(*date, self._zones)
            if time is None:
                return []
            is_chained = self._stage == 3 or not self._has_chains
            if is_chained:
                # A forged mark inside the lines of a start must not use them up.
                self._stage = 0
                if time < self._marked:
                    # Marks are in order, so this one is in the second pass of a repeated hour.
                    later = second_reading(*date, self._zones)
                    time = later if later is not None and later >= self._marked else time
                self._marked = max(self._marked, time)
            return [Mark(self._next(), time, is_chained, _decoded(data))]
        return []

    # Inside of tracebacks

    def _begin(self, line: str, data: bytes) -> None:
        self._lines = [line]
        self._raw = [data]
        self._bytes = len(data)
        self._own = self._text = -1

    def _forget(self) -> None:
        self._lines = []
        self._raw = []
        self._bytes = 0

    def _inside(self, data: bytes) -> list[Item]:
        line = _decoded(data)
        self._bytes += len(data)
        if self._own < 0:
            return self._before_own(line, data)
        self._lines.append(line)
        self._raw.append(data)
        is_full = len(self._lines) > TRACEBACK_LINES_MAX or self._bytes > TRACEBACK_BYTES_MAX
        if self._text < 0:
            code = self._plain(line)
            if code.startswith("  ") and not is_full:
                return []
            if is_full or _CLASS.match(code) is None or _MESSAGE.match(code) is not None:
                return self._broken()
            self._text = len(self._lines) - 1
            return []
        if not line:
            return self._whole(is_cut=False)
        return self._whole(is_cut=True) if is_full else []

    def _before_own(self, line: str, data: bytes) -> list[Item]:
        """Take a line of a traceback that may be a cause, or belong to a request."""
        previous = self._lines[-1]
        if previous in (_TRACEBACK, _GROUP):
            self._is_group = previous == _GROUP
            if _HELPER.match(self._plain(line)) is not None:
                self._own = len(self._lines) - 1
                self._lines.append(line)
                self._raw.append(data)
                return []
        if line in (_TRACEBACK, _GROUP):
            if not self._is_chain():
                self._begin(line, data)
                return []
        elif data.startswith((b"Error in async_task ", b"[")) or not self._may_be_cause():
            self._forget()
            return self._outside(data)
        self._lines.append(line)
        self._raw.append(data)
        return []

    def _may_be_cause(self) -> bool:
        """Return whether the task's own traceback can still follow its causes."""
        if not self._expected or self._bytes > TRACEBACK_BYTES_MAX or len(self._lines) > TRACEBACK_LINES_MAX:
            # Two lines are enough to see whose it is.
            return len(self._lines) < 2
        return True

    def _is_chain(self) -> bool:
        said = [line for line in self._lines[-3:] if line]
        return bool(said) and said[-1] in _CHAINED

    def _plain(self, line: str) -> str:
        """Return a line of a traceback without the frame that Python draws around a group."""
        if self._is_group and line.startswith(_GROUP_PREFIX):
            return line[len(_GROUP_PREFIX) :]
        return line

    def _broken(self) -> list[Item]:
        """Drop a traceback: its last line does not belong to it, or it is too long."""
        last = self._raw[-1]
        self._forget()
        dropped: Item = Dropped(self._next(), tuple(self._ids))
        self._expected = max(0, self._expected - 1)
        return [dropped, *self._outside(last)]

    def _whole(self, *, is_cut: bool) -> list[Item]:
        """Return the finished block, and the headers and marks inside its text."""
        lines, raw, own, at = self._lines, self._raw, self._own, self._text
        self._forget()
        items: list[Item] = []
        for data in raw[at + 1 :]:
            header = _HEADER.match(data)
            if header is not None:
                items.append(Header(self._next(), header[1].decode(), is_quoted=True))
            elif data.startswith(b"["):
                items += self._engine(data)
        if not self._expected:
            return [*items, Doubt(self._next(), tuple(self._ids))]
        ids = tuple(self._ids)
        helper = _HELPER.match(self._plain(lines[own + 1]))
        place = f"{helper[1]}:{helper[2]}" if helper is not None else ""
        found = _CLASS.match(self._plain(lines[at]))
        exception, first = (found[1], found[2] or "") if found is not None else ("", "")
        text = [first]
        for line in lines[at + 1 :]:
            if not line or (self._is_group and not line.startswith(_GROUP_PREFIX)):
                break
            text.append(self._plain(line))
        whole = redact_text("\n".join(text))
        kept = _head(whole, TEXT_BYTES_MAX)
        code = _CODE.match(kept)
        block = Block(
            number=self._next(),
            ids=ids,
            exception=exception,
            code=code[1] if code is not None and not is_builtin(exception) else "",
            text=kept,
            is_cut=is_cut or len(kept) < len(whole),
            stack=_ends(redact_text("\n".join(lines).rstrip("\n")), STACK_BYTES_MAX),
            frames=_frames([self._plain(line) for line in lines[own + 2 : at]]),
            is_odd=self._is_odd(place),
        )
        self._expected -= 1
        self._has_traceback = True
        return [*items, block]

    def _next(self) -> int:
        self._number += 1
        return self._number

    def _is_odd(self, place: str) -> bool:
        """Return whether most of the last blocks have another `_run_helper`: wokd has only one."""
        same = self._helpers.count(place) + 1
        others = max((self._helpers.count(other) for other in set(self._helpers) - {place}), default=0)
        self._helpers = [*self._helpers, place][-HELPERS_MAX:]
        return others > 2 * same


def is_wok(exception: str) -> bool:
    """Return whether this is the class of a WokException, as printed by Python 2 or 3."""
    return exception.startswith("wok.exception.") or exception in _WOK_CLASSES


def plain_pieces(value: Any) -> list[str]:
    """Return the pieces of an error's value that the text of its WokException must contain.

    These are the pieces of its first line that are ASCII and not redacted. Python 2 escapes other
    characters in a traceback, and a latin-1 locale loses them.
    """
    if isinstance(value, str):
        line = value[:VALUE_CHARS_MAX].partition("\n")[0]
        return [piece for piece in _NOT_PLAIN.split(line) if piece]
    return [str(value)] if isinstance(value, int) else []


def is_builtin(exception: str) -> bool:
    """Return whether an exception, as Python prints it, is built in and so has no code of Wok."""
    return isinstance(getattr(builtins, exception, None), type)


def _frames(lines: list[str]) -> tuple[Frame, ...]:
    frames: list[Frame] = []
    for line in lines:
        frame = _FRAME.match(line)
        inside = _PLUGIN.search(frame[1]) if frame is not None else None
        if frame is not None and inside is not None:
            frames.append(Frame(inside[1], inside[2], frame[2]))
            if len(frames) == FRAMES_MAX:
                break
    return tuple(frames)


def _decoded(data: bytes) -> str:
    return data.removesuffix(b"\r").decode("utf-8", "replace")


def _head(text: str, limit: int) -> str:
    return text if len(text) <= limit // 4 else text.encode()[:limit].decode("utf-8", "ignore")


def _ends(text: str, limit: int) -> str:
    """Return a text, or only its beginning and its end if it is longer than `limit` bytes."""
    data = text.encode("utf-8", "replace")
    if len(data) <= limit:
        return text
    mark = "\n...\n"
    half = (limit - len(mark)) // 2
    return data[:half].decode("utf-8", "ignore") + mark + data[-half:].decode("utf-8", "ignore")

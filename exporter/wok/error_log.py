r"""What wok-error.log says: starts of wokd, and the exceptions that ended tasks.

When a task's function raises, Wok makes two writes to this file:

    Error in async_task 3a8d4178-eac8-11f1-9d32-02fc00000001        the header
    Traceback (most recent call last):                              the traceback
      File ".../wok/asynctask.py", line 109, in _run_helper
        self.fn(cb, opaque)
      File ".../wok/plugins/kimchi/model/vms.py", line 465, in _clone_task
        ...
    wok.exception.OperationFailed: KCHVM0035E: ...                  class and text
                                                                    one empty line

Other threads write between the two. The traceback of a header is the next one that begins in `_run_helper`. Where
a second header comes first, nothing says which traceback is whose: the block then carries all the ids (`Block.ids`)
and is of no use but to cast doubt on others. The next header after a traceback begins anew: a lost traceback must not shift
all that follow. A traceback too many says that the last pair was wrong.

Of a chain the causes stand first; the task's own traceback is the only one that begins in `_run_helper`. All behind
it, up to the first empty line, is text, whatever it looks like. An empty line inside the text cuts it.

Anybody can write into this file: a line break in a name is enough. Nothing here is proof. What can be seen from the
file alone is reported beside the blocks: a header that stands inside the text of another block, a second traceback
for a header, a traceback whose `_run_helper` is in another file or line than that of its neighbours, and a mark of
a start without the lines that wokd writes before it.

The file is read as bytes, split at b"\n" only. Nothing is kept of an unfinished traceback but in memory: tracebacks
quote secrets, and a half one cannot be redacted. `held` is the number of lines since the last point at which
nothing was half read; `state` is the state at that point. Read the file again from there after a restart.
"""

from __future__ import annotations

import builtins
import json
import re
from typing import TYPE_CHECKING, Any, NamedTuple

from exporter.parse.redact import REDACTED, redact_text
from exporter.wok.log_time import TIME, nanos_of, second_reading

if TYPE_CHECKING:
    from exporter.parse.timezone import Zones

TRACEBACK_LINES_MAX = 4000
"""A recursion without end has 2,000 lines in Python 2; what is longer was not written by Python."""
TRACEBACK_BYTES_MAX = 1024 * 1024
TEXT_BYTES_MAX = 64 * 1024
STACK_BYTES_MAX = 16 * 1024
"""Of a longer stack the head and the tail are kept: where the task began, and where it broke."""
FRAMES_MAX = 3
"""Frames of plug-ins that are kept: the task's function, and what a wrapper of it may hide."""
VALUE_CHARS_MAX = 200
"""What of an error's value is compared with a text."""
IDS_MAX = 16
"""Headers that may wait for their tracebacks at one time: more threads do not fail within a millisecond."""
HELPERS_MAX = 8
"""Blocks whose `_run_helper` is compared with that of the next one."""

_EPOCH_OF_UUID = 0x01B21DD213814000
"""100 ns steps from 15 October 1582, where uuid1 begins, to 1970."""

_HEADER = re.compile(
    rb"\AError in async_task ([0-9a-f]{8}-[0-9a-f]{4}-1[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}) ?\r?\Z"
)
_ENGINE = re.compile(
    rb"\A" + TIME + rb" ENGINE "
    rb"(Listening for SIG[A-Z0-9]{1,8}\.|Bus STARTING|Serving on [^\r]{1,256}|Bus STARTED)\r?\Z"
)
# The classes of wok/exception.py: Python 2 prints them without their module.
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
"""What follows a traceback that has no end: the text of a WokException, told when it was made."""
_CODE = re.compile(r"\A([A-Z][A-Z0-9]{2,40}): ")


class Frame(NamedTuple):
    """A frame of a traceback that is inside a plug-in: `file` is relative to the plug-in's directory."""

    plugin: str
    file: str
    function: str


class Mark(NamedTuple):
    """A line that says that wokd has started, at `time` (nanoseconds, whole seconds of the host's zone).

    `is_chained` when the lines that wokd writes before it stand there too, or in no part of the file. `text` is the
    line.
    """

    number: int
    time: int
    is_chained: bool
    text: str


class Header(NamedTuple):
    """The id of a task that has raised; `is_quoted` when the line stands inside the text of another block."""

    number: int
    task_id: str
    is_quoted: bool


class Block(NamedTuple):
    """An exception that ended a task, redacted and bounded.

    `ids` has one task id; more where the pair of header and traceback is
    unsure. `code` is Wok's error code, empty for all but a WokException. `text` is its first paragraph, `is_cut`
    when there may have been more. `is_odd` when its `_run_helper` is not where that of the other blocks is.
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
    """A further traceback of tasks without a header of its own: one of the two is not Wok's."""

    number: int
    ids: tuple[str, ...]


class Dropped(NamedTuple):
    """A traceback that is damaged or over a limit, of one of these tasks."""

    number: int
    ids: tuple[str, ...]


Item = Mark | Header | Block | Doubt | Dropped
"""What the file says, one thing at a time; `number` counts all of them."""


def start_of(task_id: str) -> int:
    """Return when the task of this uuid1 was made, in nanoseconds; exact unless uuidd runs on the host."""
    fields = task_id.split("-")
    steps = int(fields[2][1:] + fields[1] + fields[0], 16) - _EPOCH_OF_UUID
    return steps * 100


def clock_sequence_of(task_id: str) -> str:
    """Return the clock sequence of a uuid1: one a thread without uuidd, one a host with it."""
    return task_id[19:23]


class ErrorLog:
    """Reads the lines of wok-error.log; times are in `zones`. Never raises."""

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
        # An unfinished traceback: its lines, where the task's own begins in them, and where its text begins.
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
        """How many of the last lines are not yet in `state`."""
        return len(self._lines)

    @property
    def state(self) -> str:
        """What to go on from, at the line `held` lines ago, as JSON text."""
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
        """Take the next line, without its newline, and return what has become whole with it."""
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
                # A forged mark in the middle must not take the chain from the true one.
                self._stage = 0
                if time < self._marked:
                    # Marks stand in their order: an hour that the clock repeats has come for the second time.
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
        """Take a line of a traceback that has not turned out to be a task's own: a cause, or a request's."""
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
        """Tell whether a task's own traceback can still follow: it does at once, or the causes are none."""
        if not self._expected or self._bytes > TRACEBACK_BYTES_MAX or len(self._lines) > TRACEBACK_LINES_MAX:
            # Two lines are enough to see whose it is.
            return len(self._lines) < 2
        return True

    def _is_chain(self) -> bool:
        said = [line for line in self._lines[-3:] if line]
        return bool(said) and said[-1] in _CHAINED

    def _plain(self, line: str) -> str:
        """Return a line of a traceback as it is without the frame that Python draws around a group."""
        if self._is_group and line.startswith(_GROUP_PREFIX):
            return line[len(_GROUP_PREFIX) :]
        return line

    def _broken(self) -> list[Item]:
        """Give up a traceback: its last line is no part of one, or it is too long."""
        last = self._raw[-1]
        self._forget()
        dropped: Item = Dropped(self._next(), tuple(self._ids))
        self._expected = max(0, self._expected - 1)
        return [dropped, *self._outside(last)]

    def _whole(self, *, is_cut: bool) -> list[Item]:
        """Return the block that has ended, and what stands inside its text as if it were Wok's."""
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
        """Tell whether most of the last blocks have their `_run_helper` elsewhere; it is in one place in a boot."""
        same = self._helpers.count(place) + 1
        others = max((self._helpers.count(other) for other in set(self._helpers) - {place}), default=0)
        self._helpers = [*self._helpers, place][-HELPERS_MAX:]
        return others > 2 * same


def is_wok(exception: str) -> bool:
    """Tell whether this is the class of a WokException, as either Python prints it."""
    return exception.startswith("wok.exception.") or exception in _WOK_CLASSES


def plain_pieces(value: Any) -> list[str]:
    """Return what of an error's value must stand in the text of its WokException: its first line, but for what is
    redacted or not ASCII. Python 2 escapes that in a traceback, and a latin-1 locale loses it.
    """
    if isinstance(value, str):
        line = value[:VALUE_CHARS_MAX].partition("\n")[0]
        return [piece for piece in _NOT_PLAIN.split(line) if piece]
    return [str(value)] if isinstance(value, int) else []


def is_builtin(exception: str) -> bool:
    """Tell whether an exception as Python prints it is one of Python's own, which carries no code of Wok's."""
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
    """Return a text, or its head and its tail where it is longer than `limit` bytes."""
    data = text.encode("utf-8", "replace")
    if len(data) <= limit:
        return text
    mark = "\n...\n"
    half = (limit - len(mark)) // 2
    return data[:half].decode("utf-8", "ignore") + mark + data[-half:].decode("utf-8", "ignore")

"""Templates of the target_uri of tasks: `/plugins/kimchi/vms/{ident}-clone-<us>/clone`.

A template has three kinds of parts: literal text, *holes* for parameters of the request
(`{ident}`), and *marks* for parts that Wok makes up (`<us>`). It has four methods:

* `fill` returns the target_uri of a request's task, as far as the request determines it. It keeps
  the marks.
* `generalise` returns the same text for the target_uri of a task: it replaces the parts that look
  made up by marks. A request matches a task if both texts are equal. No name is ever taken apart,
  so a guest called `a/snapshots/b` or `x >>> y` does no harm.
* `read` returns the names in a target_uri, if they can be told apart.
* `fits` returns whether a target_uri may belong to this operation. Only literal parts and marks
  are compared, because a name can contain anything: blanks, slashes, newlines, another URI.

Some marks are times. They are the only times in the log with fractions of a second, and they do not
depend on a time zone.

All patterns are anchored, and bounded or unambiguous, so every method takes time linear in the
length of the target_uri.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Mapping
from os.path import splitext
from typing import Any, NamedTuple
from urllib.parse import unquote

UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
"""The ids of tasks since Wok 2.3, and of Ginger's backups."""

TAIL_CHARS = 320
"""Patterns see this much of the end of a target_uri. They cannot match more: the name of a file has
at most 255 characters."""

READ_CHARS_MAX = 1024
"""`read` takes no longer target_uri apart."""

_EXTENSION = r"(?:\.[^/.]{0,254})?"


class _Mark(NamedTuple):
    """A part that Wok makes up: its pattern, and the symbol that replaces it.

    For a time, `unit` is its unit in nanoseconds.
    """

    pattern: str
    symbol: str
    unit: int = 0


_MARKS = {
    "us": _Mark(r"[0-9]{16}", "#us", 1_000),
    "ms": _Mark(r"[0-9]{13}", "#ms", 1_000_000),
    "s": _Mark(r"[0-9]{10}", "#s", 1_000_000_000),
    "n": _Mark(r"[0-9]{1,20}", "#"),
    "count": _Mark(r"[0-9]{1,9}", "#"),
    "uuid": _Mark(UUID.pattern, "#uuid"),
    "extension": _Mark(_EXTENSION, "?"),
    "segment": _Mark(r"[^/]*", "?"),
    "word": _Mark(r"[0-9A-Za-z]{1,16}", "?"),
}

_PART = re.compile(r"\{([a-z_]+)(?::([a-z]+))?\}|<([a-z]+)>")


def text_of(params: Mapping[str, Any], name: str) -> str:
    """Return a parameter as text; empty if it is missing, or neither a string nor a number."""
    value = params.get(name)
    if isinstance(value, str):
        return value
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else ""


def _basename(url: str) -> str:
    return url.rstrip("/").rsplit("/", 1)[-1].split("?", 1)[0]


def _label(uri: str) -> str:
    """Return the name in a URI as Kimchi puts it into the name of a guest, without slashes."""
    return unquote(_basename(uri)).replace("/", "-")


def _libvirt(name: str) -> str:
    """Return Kimchi's name for a guest in libvirt if its own name is not ASCII, else nothing."""
    if name.isascii():
        return ""
    return base64.urlsafe_b64encode(name.encode("utf-8", "replace")).decode("ascii")


_VALUES: dict[str, Callable[[str], str]] = {
    "basename": _basename,
    "label": _label,
    "libvirt": _libvirt,
    "stripped": str.strip,
    # Kimchi splits names in the same way.
    "stem": lambda name: splitext(name)[0],  # noqa: PTH122
    "extension": lambda name: splitext(name)[1],  # noqa: PTH122
}
_MAY_BE_EMPTY = frozenset({"extension"})


class _Hole(NamedTuple):
    """A part of a target_uri that comes from a parameter of the request."""

    name: str
    part: str

    def value(self, params: Mapping[str, Any]) -> str | None:
        """Return the text of this hole, None if the request does not have it."""
        if not self.part:
            return text_of(params, self.name) or None
        text = _VALUES[self.part](text_of(params, self.name))
        return text if text or (self.part in _MAY_BE_EMPTY and text_of(params, self.name)) else None


_Part = str | _Hole | _Mark


class Generalised(NamedTuple):
    """A target_uri in which marks replace the parts that Wok made up.

    `epoch` is the time that it contained, in nanoseconds, or 0.
    """

    text: str
    epoch: int


class Template:
    """The template of an operation's target_uri."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.parts = tuple(_parts(source))
        self.marks = tuple(part for part in self.parts if isinstance(part, _Mark))
        self.is_constant = len(self.parts) == 1 and isinstance(self.parts[0], str)
        """Whether the target_uri is always the same."""
        self.ends_open = isinstance(self.parts[-1], _Hole)
        """Whether it ends with a name, which can contain anything."""
        self.is_timed = any(mark.unit for mark in self.marks)
        """Whether it contains the start of the task."""
        # Most templates have one name and no mark. They are filled without a loop.
        names = [part for part in self.parts if not isinstance(part, str)]
        hole = names[0] if len(names) == 1 else None
        self._only = hole.name if isinstance(hole, _Hole) and not hole.part else ""
        self._before, self._after = ("", "")
        if self._only:
            self._before, _, self._after = source.partition("{" + self._only + "}")
        first = self.parts[0]
        self.prefix = first if isinstance(first, str) else ""
        self._middle, self._tail = self._outline()
        self._pattern, self._hint = self._compiled()
        self._names = self._named()

    @property
    def outline(self) -> tuple[str, str, str]:
        """The parts that `fits` compares: the beginning, the text between names, and the end."""
        tail = self._tail
        return self.prefix, self._middle, tail if isinstance(tail, str) else tail.pattern

    def fill(self, params: Mapping[str, Any]) -> str:
        """Return the target_uri of a request's task with marks; empty if a parameter is missing."""
        if self._only:
            text = text_of(params, self._only)
            return self._before + text + self._after if text else ""
        texts: list[str] = []
        for part in self.parts:
            if isinstance(part, str):
                texts.append(part)
            elif isinstance(part, _Mark):
                texts.append(part.symbol)
            else:
                value = part.value(params)
                if value is None:
                    return ""
                texts.append(value)
        return "".join(texts)

    def generalise(self, target_uri: str) -> Generalised | None:
        """Return the target_uri with marks, None if it does not have this form."""
        if self._pattern is None or self._hint not in target_uri:
            return None
        match = self._pattern.search(target_uri)
        if match is None:
            return None
        texts, epoch, at = [target_uri[: match.start()]], 0, match.start()
        for number, mark in enumerate(self.marks, 1):
            begin, end = match.span(number)
            texts += (target_uri[at:begin], mark.symbol)
            at = end
            if mark.unit:
                epoch = int(match[number]) * mark.unit
        texts.append(target_uri[at:])
        return Generalised("".join(texts), epoch)

    def fits(self, target_uri: str) -> bool:
        """Return whether the target_uri has all literal parts and marks of this template."""
        # A name has at least one character.
        start = len(self.prefix) + 1
        tail = self._tail
        if not target_uri.startswith(self.prefix):
            return False
        if isinstance(tail, str):
            if len(target_uri) < start + len(tail) or not target_uri.endswith(tail):
                return False
        elif tail.search(target_uri[-TAIL_CHARS:]) is None:
            return False
        return not self._middle or target_uri.find(self._middle, start) >= 0

    def read(self, target_uri: str) -> Mapping[str, str]:
        """Return the parameters of the request by name, as far as the target_uri has them.

        A target_uri that can be split in two ways has none: a name may contain the text between
        two names.
        """
        if self._names is None or len(target_uri) > READ_CHARS_MAX or not self.fits(target_uri):
            return {}
        if self._middle and target_uri.count(self._middle, len(self.prefix)) != 1:
            return {}
        match = self._names.fullmatch(target_uri)
        return match.groupdict() if match is not None else {}

    def _named(self) -> re.Pattern[str] | None:
        """Return a pattern with a group for each name; None if there is none, or only a part of
        one.
        """
        names = [part for part in self.parts if isinstance(part, _Hole)]
        if not names or any(hole.part for hole in names):
            return None
        texts = [f"(?P<{part.name}>.+)" if isinstance(part, _Hole) else _pattern(part) for part in self.parts]
        return re.compile("".join(texts), re.DOTALL)

    def _outline(self) -> tuple[str, str | re.Pattern[str]]:
        """Return the literal text between two names, and the end of the target_uri after the last
        name.
        """
        last = max((at for at, part in enumerate(self.parts) if _is_free(part)), default=0)
        middles = [part for part in self.parts[1:last] if isinstance(part, str)]
        end = self.parts[last + 1 :]
        middle = middles[0] if middles else ""
        if all(isinstance(part, str) for part in end):
            return middle, "".join(part for part in end if isinstance(part, str))
        if last == 0:
            # No name precedes the marks: the prefix is enough, and is more specific than the marks.
            return middle, ""
        return middle, re.compile("".join(map(_pattern, end)) + r"\Z")

    def _compiled(self) -> tuple[re.Pattern[str] | None, str]:
        """Return a pattern with a group for each mark, and a literal that each match contains."""
        if not self.marks:
            return None, ""
        at = next(number for number, part in enumerate(self.parts) if isinstance(part, _Mark))
        hint = max((part for part in self.parts if isinstance(part, str)), key=len)
        if all(isinstance(part, str) for part in self.parts[:at]):
            free = next((n for n, part in enumerate(self.parts) if n > at and _is_free(part)), None)
            closed = self.parts if free is None else self.parts[:free]
            pattern = r"\A" + "".join(map(_group, closed)) + (r"\Z" if free is None else "")
        else:
            pattern = "".join(map(_group, self.parts[at - 1 :])) + r"\Z"
        return re.compile(pattern), hint


def _parts(source: str) -> list[_Part]:
    parts: list[_Part] = []
    at = 0
    for match in _PART.finditer(source):
        if match.start() > at:
            parts.append(source[at : match.start()])
        name, part, mark = match.groups()
        if mark:
            parts.append(_MARKS[mark])
        else:
            if part and part not in _VALUES:
                raise ValueError(f"{source!r} asks for an unknown part, {part!r}")
            parts.append(_Hole(name, part or ""))
        at = match.end()
    if at < len(source):
        parts.append(source[at:])
    return parts


def _is_free(part: _Part) -> bool:
    """Return whether a part can contain anything."""
    return isinstance(part, _Hole) and part.part != "extension"


def _pattern(part: _Part) -> str:
    if isinstance(part, _Hole):
        return _EXTENSION
    return part.pattern if isinstance(part, _Mark) else re.escape(part)


def _group(part: _Part) -> str:
    return f"({_pattern(part)})" if isinstance(part, _Mark) else _pattern(part)

r"""Finds credentials in URLs (`http://ada:secret@host/`) in any encoding that occurs in a log.

A URL in a JSON text can have escaped slashes (`http:\/\/`). A URL within another URL is
percent-encoded (`http%3A%2F%2Fada%3Asecret%40host`). Texts can be quoted within texts any number of
times. RFC 3986 allows `'` in user information, and pasted passwords also contain slashes, quotes
and blanks. So the search does not stop at a quote, and the colon before a password with a slash or
a blank identifies it. If in doubt, more is redacted.

The result of each search in the text is reused for the following positions. So the time is linear
in the text, even if it has `://` many times.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

_SLASH = r"(?:\\*/|\\+u002f|\\+x2f)"
_SEPARATOR = re.compile(
    rf"(?P<plain>(?::|(?<!\\)\\+(?:u003a|x3a)){_SLASH}{_SLASH}+)|(?P<encoded>%(?:25)*3a(?:%(?:25)*2f|/)(?:%(?:25)*2f|/)+)",
    re.IGNORECASE,
)
_AT = re.compile(r"@|(?<!\\)\\+(?:u0040|x40)", re.IGNORECASE)
_ENCODED_AT = re.compile(r"%(?:25)*40|@", re.IGNORECASE)
_BLANK = re.compile(r"[ \t\r\n\f\v]|(?<!\\)\\+[nrt]")
_LINE_END = re.compile(r"[\r\n]")
_AUTHORITY_END = re.compile(r"[/?# \t\r\n\f\v]|(?<!\\)\\+(?:/|u002f)", re.IGNORECASE)
_ENCODED_AUTHORITY_END = re.compile(r"[/?# \t\r\n\f\v]|%(?:25)*(?:2f|3f|23)", re.IGNORECASE)
# The colon before a password, but not before a port or the slashes of another URL.
_COLON = re.compile(r"(?::|(?<!\\)\\+u003a)(?![/\\]|\d{1,5}(?![^/?#\s'\"]))", re.IGNORECASE)
_HOST_SIGN = re.compile(r"[.:\]]|localhost", re.IGNORECASE)
_HOST = re.compile(r"[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63})+(?![A-Za-z0-9_.-])")
_HOST_AND_PATH = re.compile(
    r"(?:[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63})+|localhost|\[[0-9A-Fa-f:.%]{2,64}\])(?::\d{1,5})?(?:\\*/|$)"
)
_NO_HOST = re.compile(r"(?![A-Za-z0-9.\[-]+(?::\d{1,5})?(?:\\*/|$))")
# `//user:secret@host` without a scheme, `http//...` without its colon, and `http:/...` with a slash
# too few. They need the whole form, because paths have double slashes, and `host:/path` is an NFS
# export. A password with a slash must be short: each start would search all that follows.
_INCOMPLETE = re.compile(
    r"""(?:(?:(?<![\w:/\\.-])(?:[A-Za-z][A-Za-z0-9+.-]{1,15})?\\*/(?:\\*/)+)|(?<=[A-Za-z0-9]):\\*/(?![\\/]))"""
    r"""(?P<user>[^\s/@:'"<>()\[\]{},\\]+:(?!\d{0,5}\\*/)(?:[^\s/]+|\S{1,128}))@(?=[A-Za-z0-9\[])"""
)
_ADDRESS = re.compile(r"\[[0-9A-Fa-f:.%]{2,64}\]")


def may_hold_url(text: str) -> bool:
    """Return whether `credentials` could find a match in a lower-case text; made for each line."""
    return (
        "://" in text
        or ("\\" in text and ("\\/" in text or "u002f" in text or "x2f" in text))
        or ("%" in text and "2f" in text)
    )


def credentials(text: str) -> Iterator[tuple[int, int]]:
    """Yield spans of user information, from the slashes to the `@`, ordered, without overlap."""
    done = 0
    blank = _Next(text, _BLANK)
    at = _Next(text, _AT)
    colon = _Next(text, _COLON)
    line_end = _Next(text, _LINE_END)
    last_at = _Last(text)
    for found in _SEPARATOR.finditer(text):
        start = found.end()
        if start < done:
            continue
        if found["encoded"]:
            end = _encoded_end(text, start)
        else:
            end = _end(text, start, blank, at, colon, line_end, last_at)
            if end >= start and blank(end + 1) == end + 1 and (following := at(end + 1)) < line_end(start):
                end = last_at(following, blank(following))  # a password with a blank after an `@`
        if end > start:
            yield start, end
            done = end


def may_hold_incomplete(text: str) -> bool:
    """Return whether `incomplete` could find a match; made for each line, and few have an `@`."""
    return "@" in text and ("//" in text or ":/" in text or "\\/" in text)


def incomplete(text: str) -> Iterator[tuple[int, int]]:
    """Yield spans of `user:secret` in URLs without a scheme, or with a slash too few."""
    for found in _INCOMPLETE.finditer(text):
        yield found.span("user")


class _Next:
    """Finds the next match of a pattern; positions must be asked for in ascending order."""

    def __init__(self, text: str, pattern: re.Pattern[str]) -> None:
        self._text = text
        self._pattern = pattern
        self._found = -1

    def __call__(self, start: int) -> int:
        """Return the first match from `start` on, or the length of the text."""
        if self._found < start:
            match = self._pattern.search(self._text, start)
            self._found = len(self._text) if match is None else match.start()
        return self._found


class _Last:
    """Finds the last `@` of a word."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._end = -1
        self._found = -1

    def __call__(self, start: int, end: int) -> int:
        if end != self._end:
            self._end = end
            self._found = -1
            for match in _AT.finditer(self._text, start, end):
                self._found = match.start()
        return self._found if self._found >= start else -1


def _end(
    text: str, start: int, blank: _Next, at: _Next, colon: _Next, line_end: _Next, last_at: _Last
) -> int:
    """Return the end of the user information that begins at `start`, or -1 if there is none."""
    if at(start) >= len(text):
        return -1
    authority = _AUTHORITY_END.search(text, start)
    authority_end = len(text) if authority is None else authority.start()
    if at(start) < authority_end:
        # `user:p@ss@host`: the last `@` ends the user information.
        last = -1
        for match in _AT.finditer(text, start, authority_end):
            last = match.start()
        # `user:p@s/s@host.example`: after the first `@` there is no host, or a less likely one than
        # later.
        further = last_at(start, blank(start))
        is_host = _HOST_AND_PATH.match(text, last + 1) is not None
        if (
            further > last
            and not is_host
            and (_HOST.match(text, further + 1) or _NO_HOST.match(text, last + 1))
        ):
            return further
        return last
    address = _ADDRESS.match(text, start)
    name_end = start if address is None else address.end()
    sign = colon(name_end)
    word_end = blank(start)
    last = last_at(start, word_end)
    if sign >= word_end:
        # `https://to/ken@host.example/`: the first part cannot be a host, but the part after `@` is
        # one.
        is_token = last >= 0 and _HOST_SIGN.search(text, start, authority_end) is None
        return last if is_token and _HOST.match(text, last + 1) is not None else -1
    if last > sign:
        return last  # a raw slash in the password
    # The password has a blank: redact up to the next `@` of the line.
    if sign + 1 < word_end and sign < authority_end:
        following = at(start)
        return last_at(following, blank(following)) if following < line_end(start) else -1
    return -1


def _encoded_end(text: str, start: int) -> int:
    end = _ENCODED_AUTHORITY_END.search(text, start)
    last = -1
    for match in _ENCODED_AT.finditer(text, start, len(text) if end is None else end.start()):
        last = match.start()
    return last

"""Says on what a request or a task works: `guest web`, `volume disk.img of pool default`.

The words come from the column `resource` of `operations.tsv`. `{ident}` in them is a parameter.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from typing import Any

from exporter.wok.target_templates import text_of

RESOURCE_CHARS_MAX = 256
"""Longer words end with an ellipsis."""

_HOLE = re.compile(r"\{([a-z_]+)\}")
_CODED = re.compile(r"(?:[A-Za-z0-9_-]{4}){1,340}(?:[A-Za-z0-9_-]{2}==|[A-Za-z0-9_-]{3}=)?")


class ResourceWords:
    """The words of one operation; `source` is its column in the table."""

    def __init__(self, source: str) -> None:
        first, *rest = _HOLE.split(source)
        self._first = first
        # Each name with the text behind it.
        self._names = tuple(zip(rest[::2], rest[1::2], strict=True))

    def of(self, params: Mapping[str, Any]) -> str:
        """Return the words with the names of these parameters; empty if one is missing."""
        words = self._first
        for name, behind in self._names:
            text = text_of(params, name)
            if not text:
                return ""
            words += decoded(text) + behind
        return words if len(words) <= RESOURCE_CHARS_MAX else words[: RESOURCE_CHARS_MAX - 1] + "…"


def decoded(name: str) -> str:
    """Return the name that is meant by base64, or the name itself.

    Kimchi has base64 in place of a guest's name that is not ASCII, and in place of a device's path.
    Nothing else is decoded: a plain name may be valid base64, too.
    """
    if len(name) % 4 or not _CODED.fullmatch(name):
        return name
    try:
        text = base64.urlsafe_b64decode(name).decode()
    except ValueError:
        return name
    is_meant = text.isprintable() and (not text.isascii() or text.startswith("/dev/"))
    return text if is_meant and base64.urlsafe_b64encode(text.encode()).decode() == name else name

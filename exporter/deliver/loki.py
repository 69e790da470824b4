"""Loki's rejection of some entries, which it gives after it has stored the others: how many, and
why.

Its distributor groups equal errors, as `3 errors like: A; 2 errors like: B`. Its ingester writes
`total ignored: 3 out of 10` for each stream. Their sum is the least number that can be true: for a
stream that is rejected as a whole, Loki names no number of entries.

Source: Loki 2.4 to 3.x, `pkg/ingester/stream.go`, `pkg/validation/validate.go`,
`pkg/util/errors.go`.
"""

from __future__ import annotations

import re
from typing import NamedTuple

_OLD = re.compile(r"entry too far behind|entry out of order|has timestamp too old")
_NEW = re.compile(r"has timestamp too new")
_GROUP = re.compile(r"\b(\d{1,9}) errors? like: ")
_TOTALS = re.compile(r"total ignored: (\d{1,9}) out of \d{1,9}")


class LokiRejection(NamedTuple):
    """Why and how many entries were rejected; `reason` is of a finite set."""

    reason: str
    entries: int


def read_loki(text: str) -> LokiRejection | None:
    """Read the text of a 400 of Loki's; None if it is no rejection of a part."""
    is_old, is_new = bool(_OLD.search(text)), bool(_NEW.search(text))
    first, *groups = _GROUP.split(text)
    if not (is_old or is_new or groups or _TOTALS.search(text)):
        return None
    entries = _entries(first, 0)
    for times, error in zip(groups[::2], groups[1::2], strict=True):
        entries += int(times) * _entries(error, 1)
    return LokiRejection("loki_too_old" if is_old else "loki_too_new" if is_new else "loki_invalid", entries)


def _entries(error: str, least: int) -> int:
    """Return the number of entries in one error, `least` if it names none."""
    named = sum(int(total) for total in _TOTALS.findall(error))
    return named or max(least, len(_OLD.findall(error)) + len(_NEW.findall(error)))

r"""What a record's parameters prove about the physical lines after it.

The text of a record of the coded dialects is raw: where a user typed a newline, the record goes on in a
further physical line, and what stands there may look like a record of its own. PARAMS and ERRPARAMS hold the
same value once more, encoded. So if a record's physical line ends with the first line of a value, the next one
must be the value's second line.

For every value with newlines all its lines are hypotheses about the next physical line, kept as the bits of a
number: a line that fits moves them on by one. Lines without `{"` are no records, belong to the record before
them anyway, and need no proof, so they fit any line without it. Lines with `{"` must be equal, and of these
digests are kept. Of a value's last line only the beginning must fit, as the sentence around it goes on there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, NamedTuple

from exporter.parse.dialects import Decoded

MAX_VALUES = 64
"""Values with newlines in one record. The templates of Wok and its plug-ins show at most four values."""
MAX_RECORDS = 1000
"""Lines that look like records, over all values of one record; a value is followed no further than that."""

_Digest = tuple[int, str]


class _Value(NamedTuple):
    """A multi-line value: `size`, the number of its lines, its first and its last, and where the ones with `{"` are.

    `last` is None if the value is longer than is followed. Bit n of a mask stands for line n.
    """

    size: int
    first: _Digest
    last: _Digest | None
    inner: dict[_Digest, int]
    plain: int


class ContinuationProof:
    """The hypotheses about the next physical line; `is_open` as long as there are any."""

    def __init__(self, values: list[_Value], active: list[int]) -> None:
        self._values = values
        self._active = active

    @classmethod
    def of(cls, record: Decoded, data: bytes) -> ContinuationProof | None:
        """Return what a record proves whose physical line is `data`; None if its text cannot go on."""
        # In JSON a newline is always an escape, and most records have none.
        if "\\" not in record.rest:
            return None
        strings = [
            value
            for params in (record.params, record.error_params)
            for value in params.values()
            if type(value) is str and "\n" in value
        ]
        if not strings:
            return None
        # Wok on Python 2 writes the text as UTF-8 that may hold surrogates.
        split = [value.encode("utf-8", "surrogatepass").split(b"\n") for value in strings]
        # What may begin right here comes first, so that nobody can crowd it out.
        split.sort(key=lambda lines: not any(end.endswith(lines[0]) for end in _ends(data)))
        left = MAX_RECORDS
        values = []
        for lines in split[:MAX_VALUES]:
            values.append(_value(lines, left))
            left -= len(values[-1].inner)
        proof = cls(values, [0] * len(values))
        proof._begin(data)
        return proof if proof.is_open else None

    @classmethod
    def restored(cls, saved: Any) -> ContinuationProof:
        """Return the proof that `saved` described. Raises ValueError, TypeError or KeyError for anything else."""
        values = []
        active = []
        for item in saved:
            value: Mapping[str, Any] = dict(item)
            inner = {(int(size), str(digest)): int(mask, 16) for size, digest, mask in value["inner"]}
            first_size, first_digest = value["first"]
            last = None if value["last"] is None else (int(value["last"][0]), str(value["last"][1]))
            first = (int(first_size), str(first_digest))
            values.append(_Value(int(value["count"]), first, last, inner, _plain(int(value["count"]), inner)))
            active.append(int(value["active"], 16))
        return cls(values, active)

    def saved(self) -> list[dict[str, Any]]:
        """Return what `restored` understands, fit for JSON: digests and numbers, no text."""
        return [
            {
                "count": value.size,
                "first": value.first,
                "last": value.last,
                "inner": [(*digest, f"{mask:x}") for digest, mask in value.inner.items()],
                "active": f"{active:x}",
            }
            for value, active in zip(self._values, self._active, strict=True)
        ]

    @property
    def is_open(self) -> bool:
        """Whether the next physical line may still belong to this record by proof."""
        return any(self._active)

    def advance(self, data: bytes) -> int:
        """Return how many bytes of the next physical line are proved, -1 for none at all, and move on."""
        is_plain = b'{"' not in data
        ends = _ends(data)
        digests = [] if is_plain else [_digest(end) for end in ends]
        proved = -1
        for number, value in enumerate(self._values):
            active = self._active[number]
            self._active[number] = 0
            if not active:
                continue
            fits = value.plain if is_plain else 0
            for digest in digests:
                fits |= value.inner.get(digest, 0)
            fitting = active & fits
            if fitting:
                proved = len(data)
                self._active[number] = (fitting << 1) & ((1 << value.size) - 1)
            if value.last is not None and active >> (value.size - 1):
                size = value.last[0]
                if len(data) >= size and _digest(data[:size]) == value.last:
                    proved = max(proved, size)
        if proved >= 0:
            self._begin(data)
        return proved

    def _begin(self, data: bytes) -> None:
        """Add the hypotheses that values begin at the end of this physical line."""
        ends = _ends(data)
        for number, (_, first, *_) in enumerate(self._values):
            size = first[0]
            if any(len(end) >= size and _digest(end[len(end) - size :]) == first for end in ends):
                self._active[number] |= 2


def _value(lines: list[bytes], limit: int) -> _Value:
    inner: dict[_Digest, int] = {}
    count = len(lines)
    last: _Digest | None = _digest(lines[-1])
    for number, line in enumerate(lines[1:-1], 1):
        if b'{"' in line:
            if len(inner) >= limit:
                count, last = number, None
                break
            digest = _digest(line)
            inner[digest] = inner.get(digest, 0) | 1 << number
    return _Value(count, _digest(lines[0]), last, inner, _plain(count, inner))


def _plain(count: int, inner: Mapping[_Digest, int]) -> int:
    """The lines of a value that are neither its first nor its last and have no digest."""
    plain = (1 << max(count - 1, 1)) - 2
    for mask in inner.values():
        plain &= ~mask
    return plain


def _ends(data: bytes) -> tuple[bytes, ...]:
    """A carriage return at the end belongs to the value, or to whoever converted the file."""
    return (data, data[:-1]) if data.endswith(b"\r") else (data,)


def _digest(data: bytes) -> _Digest:
    return len(data), hashlib.blake2b(data, digest_size=16).hexdigest()

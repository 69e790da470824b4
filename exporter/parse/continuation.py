r"""Detects lines that continue the previous record, also if they imitate a record.

The text of a record in the coded dialects is raw. If a user typed a newline, the record continues
on the next physical line, and that line may look like a record. PARAMS and ERRPARAMS have the same
value a second time, encoded. So if the physical line of a record ends with the first line of a
value, the next physical line must be the second line of the value.

A value is a pattern of lines. The lines after the record are searched for it with the algorithm of
Knuth, Morris and Pratt. So each value needs only one state, even if the next line could be at many
places in the value. Lines with `{"` could be records, so their digest must equal that of the line
in the value. All other lines belong to the previous record anyway. For them it only matters whether
a value could begin at their end. Of the last line of a value, only the beginning must match,
because the sentence around the value continues there.

A record can also be forged without a newline in it: one value ends with a newline, and after it, in
the same line, comes another value that is a record. So the digests of the objects in all values are
kept. A record after other text in a line looks like one that was appended to a torn line. It
counts as forged if its INFO is in a value.

Nobody can displace a proof by adding more values. Values whose first line ends the record's line
are followed first. If the work is still too much, the remaining lines are *doubted*: for each value
that could not be followed, as many lines as it has are not accepted as records. The same applies to
lines after a record that was too long or too costly to parse. Doubting hides at most one record for
each two bytes that somebody wrote. Accepting the lines would let everybody forge records of other
users.
"""

from __future__ import annotations

import binascii
import hashlib
import zlib
from array import array
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from exporter.parse.dialects import Decoded, first_object, objects_in

STEPS_MAX = 2_000_000
"""Limit for lines after a record times followed values: about a second for the worst megabyte."""
VALUES_MAX = 256
OBJECTS_MAX = 64
"""Places in the values of a record where an object is searched. If there are more, no record after
other text in a line is accepted."""
BEGINNINGS_MAX = 32
"""Different lengths of first lines: for each length, the end of every further line is compared."""

_PLAIN, _BEGINNING = 0, 1
"""Lines without `{"`: plain, and where the value may begin again. Other symbols are larger."""
_UNBEGUN = -1

_Digest = tuple[int, str]


class _Value:
    """The lines of a value as a pattern, and how far the lines so far match it.

    `symbols` are the lines between the first and the last one. `begins` has a 1 for each of them at
    whose end the value may begin again. `state` is the number of symbols that match, or -1 if the
    first line does not match yet. `retreats` is the failure function: for each state, the next
    shorter state that matches the same lines.
    """

    __slots__ = ("begins", "first", "last", "retreats", "state", "symbols")

    def __init__(self, first: _Digest, last: _Digest | None, symbols: array[int], begins: bytes) -> None:
        self.first = first
        self.last = last
        self.symbols = symbols
        self.begins = begins
        self.retreats = _retreats(symbols, begins)
        self.state = _UNBEGUN


class _SeenLine:
    """A physical line; caches its digests for all values."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.is_plain = b'{"' not in data
        # A carriage return at the end belongs to the value, or was added by a conversion of the
        # file.
        self.ends = (data, data[:-1]) if data.endswith(b"\r") else (data,)
        self._suffixes: dict[_Digest, bool] = {}
        self.symbols = () if self.is_plain else tuple(_symbol(_digest(end)) for end in self.ends)

    def ends_with(self, first: _Digest) -> bool:
        """Return whether a value with this first line can begin at the end of the line."""
        known = self._suffixes.get(first)
        if known is None:
            size = first[0]
            known = any(len(end) >= size and _digest(end[len(end) - size :]) == first for end in self.ends)
            self._suffixes[first] = known
        return known

    def begins_with(self, last: _Digest) -> bool:
        """Return whether the line begins with this last line of a value."""
        return len(self.data) >= last[0] and _digest(self.data[: last[0]]) == last


class ContinuationProof:
    """The proof about lines after one record; `doubted` further lines are not accepted."""

    def __init__(
        self,
        values: Sequence[_Value],
        doubted: int = 0,
        objects: frozenset[int] = frozenset(),
        *,
        all_objects: bool = True,
    ) -> None:
        self._values = values
        self._objects = objects
        self._has_all_objects = all_objects
        self.doubted = doubted

    @classmethod
    def of(cls, record: Decoded, data: bytes) -> ContinuationProof | None:
        """Return the proof for a record; None if no value has a record. `data` is its line."""
        # In JSON a newline is always an escape, and most records have none.
        if "\\" not in record.rest:
            return None
        # Wok on Python 2 writes the text as UTF-8 that may contain surrogates.
        strings = {
            value for value in _strings(record.params, record.error_params) if "\n" in value or '{"' in value
        }
        posing = sorted(value for value in strings if '{"' in value)
        if not posing or not any("\n" in value for value in strings):
            return None
        objects: set[int] = set()
        tries = OBJECTS_MAX
        for value in posing:
            found, tries = objects_in(value, tries)
            objects.update(_symbol(_digest(item.encode("utf-8", "surrogatepass"))) for item in found)
        split = [value.encode("utf-8", "surrogatepass").split(b"\n") for value in strings if "\n" in value]
        seen = _SeenLine(data)
        # Values that can begin here come first, so that others cannot displace them. Then any
        # stable order.
        split.sort(
            key=lambda lines: (not any(end.endswith(lines[0]) for end in seen.ends), len(lines), lines)
        )
        total = sum(map(len, split))
        followed_max = min(VALUES_MAX, max(1, STEPS_MAX // total))
        followed: list[_Value] = []
        sizes: set[int] = set()
        doubted = 0
        for lines in split:
            if len(followed) < followed_max and (len(lines[0]) in sizes or len(sizes) < BEGINNINGS_MAX):
                sizes.add(len(lines[0]))
                followed.append(_value(lines))
            elif _may_pose(lines):
                doubted += len(lines) - 1
        for one in followed:
            if seen.ends_with(one.first):
                one.state = 0
        return cls(followed, doubted, frozenset(objects), all_objects=tries > 0)

    @property
    def lines(self) -> int:
        """The maximum number of further lines that can belong to the record."""
        return self.doubted + sum(len(value.symbols) + 1 for value in self._values)

    @classmethod
    def doubt(cls, lines: int) -> ContinuationProof | None:
        """Return the proof after an unparsed record with at most this many further lines."""
        return cls((), lines) if lines else None

    @classmethod
    def restored(cls, saved: Any) -> ContinuationProof:
        """Return the proof from the value of `saved`, also from that of version 0.1.0.

        Raises ValueError, TypeError or KeyError for anything else.
        """
        if isinstance(saved, list):
            return cls([_value_of_0_1_0(dict(item)) for item in saved])
        values = []
        for item in saved["values"]:
            first, last, packed, begins, state = item
            symbols = array("Q", _unpacked(packed))
            value = _Value(
                _digest_of(first), None if last is None else _digest_of(last), symbols, _unpacked(begins)
            )
            value.state = int(state)
            if not _UNBEGUN <= value.state <= len(symbols) == len(value.begins):
                raise ValueError("a state outside of its value")
            values.append(value)
        objects = frozenset(int(item, 16) for item in saved.get("objects", ()))
        return cls(values, int(saved["doubted"]), objects, all_objects=bool(saved.get("all_objects", 1)))

    def saved(self) -> dict[str, Any]:
        """Return the proof as a JSON value for `restored`: digests and numbers, but no text."""
        return {
            "values": [
                [
                    value.first,
                    value.last,
                    _packed(value.symbols.tobytes()),
                    _packed(value.begins),
                    value.state,
                ]
                for value in self._values
            ],
            "doubted": self.doubted,
            "objects": [f"{item:x}" for item in sorted(self._objects)],
            "all_objects": int(self._has_all_objects),
        }

    def knows(self, data: bytes, *, is_behind_text: bool) -> bool:
        """Return whether the object at the beginning of `data` is in a value of the record."""
        if is_behind_text and not self._has_all_objects:
            return True
        return bool(self._objects) and _symbol(_digest(first_object(data))) in self._objects

    def advance(self, data: bytes) -> int:
        """Advance by a line; return how many bytes of it the proof covers, or -1."""
        self.doubted = max(0, self.doubted - 1)
        if not self._values:
            return _UNBEGUN
        seen = _SeenLine(data)
        return max([_UNBEGUN, *(_step(value, seen) for value in self._values)])


def _strings(*values: Any) -> Iterator[str]:
    """Return all strings in decoded JSON, nested ones too: a text may show any of them."""
    waiting = list(values)
    while waiting:
        value = waiting.pop()
        if type(value) is str:
            yield value
        elif type(value) is dict:
            waiting += value.values()
        elif type(value) is list:
            waiting += value


def _may_pose(lines: list[bytes]) -> bool:
    return any(b'{"' in line for line in lines[1:])


def _step(value: _Value, seen: _SeenLine) -> int:
    """Advance a value by a line; return how many bytes of the line it covers, -1 for no match."""
    proved = -1
    symbols = value.symbols
    state = value.state
    is_beginning = seen.ends_with(value.first)
    if state == len(symbols):
        if value.last is not None and seen.begins_with(value.last):
            proved = value.last[0]
        state = value.retreats[state]
    wanted = seen.symbols or ((_BEGINNING if is_beginning else _PLAIN),)
    while state >= 0 and symbols[state] not in wanted:
        state = value.retreats[state]
    if state >= 0:
        value.state = state + 1
        return len(seen.data)
    value.state = 0 if is_beginning else _UNBEGUN
    return proved


def _value(lines: list[bytes]) -> _Value:
    first = lines[0]
    begins = bytes(line.endswith(first) for line in lines[1:-1])
    symbols = array("Q")
    for line, is_beginning in zip(lines[1:-1], begins, strict=True):
        if b'{"' in line:
            symbols.append(_symbol(_digest(line)))
        else:
            symbols.append(_BEGINNING if is_beginning else _PLAIN)
    return _Value(_digest(first), _digest(lines[-1]), symbols, begins)


def _retreats(symbols: Sequence[int], begins: bytes) -> array[int]:
    """Return for each state the longest shorter state that matches the same lines, or -1.

    A shorter match began later, so the value must be able to begin at the end of the line where it
    began.
    """
    retreats = array("i", [_UNBEGUN])
    for at, symbol in enumerate(symbols):
        state = retreats[at]
        while state >= 0 and symbols[state] != symbol:
            state = retreats[state]
        retreats.append(state + 1 if state >= 0 else 0 if begins[at] else _UNBEGUN)
    return retreats


def _value_of_0_1_0(saved: Mapping[str, Any]) -> _Value:
    """Return a value from the state of version 0.1.0: line masks with digests, and active lines."""
    size = int(saved["count"]) - (1 if saved["last"] is None else 2)
    symbols = array("Q", bytes(8 * max(size, 0)))
    for length, text, mask in saved["inner"]:
        bits = int(mask, 16)
        for at in range(len(symbols)):
            if bits >> (at + 1) & 1:
                symbols[at] = _symbol((int(length), str(text)))
    first_size, first_digest = saved["first"]
    last = None if saved["last"] is None else (int(saved["last"][0]), str(saved["last"][1]))
    value = _Value((int(first_size), str(first_digest)), last, symbols, bytes(len(symbols)))
    active = int(saved["active"], 16)
    value.state = min(active.bit_length() - 2, len(symbols)) if active else _UNBEGUN
    return value


def _digest_of(saved: Any) -> _Digest:
    size, digest = saved
    return int(size), str(digest)


def _symbol(digest: _Digest) -> int:
    """Return the symbol for a line that may be a record. It differs from those of plain lines."""
    return int(digest[1][:16], 16) | 2


def _unpacked(text: Any) -> bytes:
    try:
        return zlib.decompress(binascii.a2b_base64(str(text)))
    except (binascii.Error, zlib.error) as error:
        raise ValueError(str(error)) from error


def _packed(data: bytes) -> str:
    return binascii.b2a_base64(zlib.compress(data, 1), newline=False).decode("ascii")


def _digest(data: bytes) -> _Digest:
    return len(data), hashlib.blake2b(data, digest_size=16).hexdigest()

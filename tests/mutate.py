"""Changes single fields of records in the lines of a log, as an attacker or a damaged disk would."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from typing import Any

from exporter.records import Line

VALUES: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    -1,
    202,
    1000,
    1001,
    2**63,
    -(2**70),
    10**400,
    1.5,
    float("nan"),
    float("inf"),
    "",
    "None",
    "202",
    "1000",
    "x\0y",
    "\ud800",
    "\u2028",
    "x\ny",
    ">>>",
    "x" * 5000,
    [],
    ["a"],
    {},
    {"target_uri": "/plugins/kimchi/vms/web"},
    {"a": {"b": [{"c": 1}]}},
)


def mutated(lines: Sequence[Line], chance: random.Random, share: float = 0.1) -> list[Line]:
    """Return the lines with one change in a share of them. The offsets stay those of a whole log."""
    found: list[Line] = []
    offset = 0
    for line in lines:
        data = change(line.data, chance) if chance.random() < share else line.data
        for part in data.split(b"\n"):
            found.append(Line(line.file, offset, part, len(part)))
            offset += len(part) + 1
    return found


def change(data: bytes, chance: random.Random) -> bytes:
    """Change one field of one of the JSON objects of a line, or the line itself."""
    if chance.random() < 0.2:
        return _broken(data, chance)
    text = data.decode("utf-8", "surrogateescape")
    parts = text.split(" >>> ")
    at = chance.randrange(len(parts))
    try:
        value = json.loads(parts[at])
    except ValueError:
        return data
    if not isinstance(value, dict):
        return data
    places = list(_places(value))
    if not places:
        return data
    place, name = chance.choice(places)
    how: Callable[[], None] = chance.choice(
        (
            lambda: place.pop(name),
            lambda: place.__setitem__(name, chance.choice(VALUES)),
            lambda: place.__setitem__(name, {"nested": place[name]}),
            lambda: place.__setitem__(name.upper(), place[name]),
        )
    )
    how()
    encoded = json.dumps(value)
    if chance.random() < 0.1 and len(encoded) > 2:
        encoded = encoded[:-1] + f", {json.dumps(name)}: {json.dumps(chance.choice(VALUES))}}}"
    parts[at] = encoded
    return " >>> ".join(parts).encode("utf-8", "surrogateescape")


def _broken(data: bytes, chance: random.Random) -> bytes:
    at = chance.randrange(len(data) + 1)
    return chance.choice(
        (
            data[:at],
            data[at:],
            data[:at] + b"\0" * chance.randint(1, 9) + data[at:],
            data[:at] + b"\n" + data[at:],
            data[:at] + b"\xff\xfe" + data[at:],
            data[:at] + data,
            data + b"\r",
            b" " + data,
            data.replace(b": ", b":"),
        )
    )


def _places(value: dict[str, Any]) -> list[tuple[dict[str, Any], str]]:
    found = []
    for name, inner in value.items():
        found.append((value, name))
        if isinstance(inner, dict):
            found += _places(inner)
    return found

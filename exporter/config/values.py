"""Turns what an administrator wrote into values: durations, sizes, addresses, paths, time zones.

Each reader takes text from a variable or a flag, or any TOML value from the file. It raises
ValueError with a sentence that says what is wrong and ends with what to write instead.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import date, datetime, timedelta, tzinfo
from difflib import get_close_matches
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Literal, NamedTuple
from zoneinfo import available_timezones

from exporter.parse.timezone import load_zone
from exporter.records import NANOS

PORT = 10_965
"""The default port. Prometheus' list (9100 to 9999) is full; 965 is WOK on a phone keypad."""
SHOWN_CHARS = 80
"""How much of a wrong value an error quotes: enough to find it."""
IDENTIFIER_CHARS_MAX = 255
"""The longest possible host name; ids are shorter."""
UNIT_SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
UNIT_BYTES = {"": 1, "B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
DURATION_MAX = "36500d"
"""Anything longer is a typing error, and dates end in the year 1."""

Moment = timedelta | datetime
"""How long before now, or a time."""
StartAt = Literal["beginning", "end"] | Moment


class Address(NamedTuple):
    """Where to listen: a name or an IP address (IPv6 without brackets), and a port; 0 is any free
    port.
    """

    host: str
    port: int

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can connect."""
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def shown(value: object) -> str:
    """Return the value as an error quotes it: on one line and not too long."""
    text = repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= SHOWN_CHARS else text[:SHOWN_CHARS] + "…"


def did_you_mean(text: str, words: Iterable[str]) -> str:
    """Return ` (did you mean ...?)` with the nearest of the words, or nothing."""
    near = {word.lower(): word for word in words}
    return "".join(f" (did you mean {near[w]}?)" for w in get_close_matches(text.lower(), near, 1, 0.7))


def as_text(value: Any) -> str:
    """Return text without blanks around it."""
    if not isinstance(value, str):
        raise ValueError(f"{shown(value)} is not text: put it in quotes")  # noqa: TRY004 (one kind of mistake)
    if not value.isprintable():
        raise ValueError(f"{shown(value)} contains unprintable characters: remove them")
    return value.strip()


def as_word(value: Any, words: tuple[str, ...]) -> str:
    """Return one of the words."""
    text = as_text(value)
    if text not in words:
        raise ValueError(f"{shown(text)} is unknown: write {' or '.join(words)}{did_you_mean(text, words)}")
    return text


def as_path(value: Any, words: tuple[str, ...] = ()) -> Path | str:
    """Return a path, or one of the words, or an empty text."""
    text = as_text(value)
    return Path(text) if text and text not in words else text


def as_list(value: Any) -> list[str]:
    """Return the texts of a list, or of a text with commas."""
    values = value.split(",") if isinstance(value, str) else value
    if not isinstance(values, list):
        raise ValueError(f"{shown(value)} is not a list: write a list, or text with commas")  # noqa: TRY004 (as in as_text)
    return [text for text in map(as_text, values) if text]


def as_paths(value: Any) -> tuple[Path, ...] | None:
    """Return paths; None for `auto`, empty for `off`."""
    texts = as_list(value)
    if texts == ["auto"]:
        return None
    return () if texts == ["off"] else tuple(map(Path, texts))


def as_apps(value: Any) -> tuple[str, ...]:
    """Return names of applications."""
    apps = tuple(as_list(value))
    for app in apps:
        if not re.fullmatch(r"[a-z0-9_.-]{1,64}", app):
            raise ValueError(f"{shown(app)} is not an application: write names such as kimchi, ginger, wok")
    return apps


def _within(value: Any, number: float, least: float, most: float, limits: str) -> None:
    if not least <= number <= most:
        raise ValueError(f"{shown(value)} is out of range: write {limits}")


def as_number(value: Any, least: int, most: int) -> int:
    """Return a whole number within limits."""
    text = str(value).replace("_", "")
    if not re.fullmatch(r"-?[0-9]{1,18}", text):
        raise ValueError(f"{shown(value)} is not a whole number: write {least} to {most}")
    _within(value, int(text), least, most, f"{least} to {most}")
    return int(text)


def _bytes(value: Any) -> int:
    match = re.fullmatch(r"([0-9]{1,15}(?:\.[0-9]{1,3})?) ?([A-Za-z]*)", str(value).strip())
    if not match or match[2] not in UNIT_BYTES:
        raise ValueError(f"{shown(value)} is not a size: write a number of B, KiB, MiB, GiB, kB, MB or GB")
    return int(float(match[1]) * UNIT_BYTES[match[2]])


def as_size(value: Any, least: str, most: str) -> int:
    """Return a number of bytes within limits."""
    size = _bytes(value)
    _within(value, size, _bytes(least), _bytes(most), f"{least} to {most}")
    return size


def _seconds(value: Any) -> float:
    text = str(value).replace(" ", "")
    parts = re.findall(r"([0-9]{1,9}(?:\.[0-9]{1,6})?)(ms|[smhdw])", text)
    if not parts or "".join(map("".join, parts)) != text:
        raise ValueError(
            f"{shown(value)} is not a duration: write a number and its unit, as in 250ms, 90s, 24h or 7d"
        )
    return sum(float(number) * UNIT_SECONDS[unit] for number, unit in parts)


def as_duration(value: Any, least: str = "0s", most: str = DURATION_MAX) -> timedelta:
    """Return a duration within limits."""
    seconds = _seconds(value)
    _within(value, seconds, _seconds(least), _seconds(most), f"{least} to {most}")
    return timedelta(seconds=seconds)


def as_start_at(value: Any) -> StartAt:
    """Return where to start reading."""
    if isinstance(value, date):
        value = value.isoformat()  # a native TOML time, with or without the hours
    text = as_text(value)
    if text in {"beginning", "end"}:
        return "end" if text == "end" else "beginning"
    if re.match(r"[0-9.]+ ?[a-y]", text):
        return as_duration(text)
    try:
        start = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(
            f"{shown(value)} is not a start position: write beginning, end, 24h, 7d or 2026-11-23T08:00:00Z"
            f"{did_you_mean(text, ('beginning', 'end'))}"
        ) from None
    _within(value, start.year, 1971, 2261, "a time from 1971 to 2261")
    return start


def in_zone(time: datetime, zone: tzinfo | None) -> datetime:
    """Return a time with its zone; one without is of `zone`, or of this host's if that is None."""
    if time.tzinfo is not None:
        return time
    return time.replace(tzinfo=zone) if zone else time.astimezone()


def nanos_of(moment: Moment, now: int) -> int:
    """Return a moment in nanoseconds since the epoch, like `now`; a time must have its zone."""
    if isinstance(moment, timedelta):
        return now - moment // timedelta(microseconds=1) * 1_000
    return int(moment.timestamp()) * NANOS


def as_address(value: Any) -> Address | None:
    """Return an address to listen on; None for `off`."""
    text = as_text(value)
    if text in {"", "off"}:
        return None
    host, _, port = text.rpartition(":")
    is_bracketed = host.startswith("[") and host.endswith("]")
    if not re.fullmatch(r"[0-9]{1,5}", port) or int(port) > 65_535 or (":" in host and not is_bracketed):
        raise ValueError(
            f"{shown(value)} is not an address and a port: write 127.0.0.1:{PORT} or [::1]:{PORT}"
        )
    if not host:
        raise ValueError(
            f"{shown(value)} has no address: write 0.0.0.0:{port} to listen to the whole network"
        )
    host = host[1:-1] if is_bracketed else host
    if is_bracketed or re.fullmatch(r"[0-9.]+", host):
        try:
            address = ip_address(host)
        except ValueError:
            raise ValueError(f"{shown(host)} is not an IP address: write 127.0.0.1 or [::1]") from None
        if address.is_multicast or host == "255.255.255.255":
            raise ValueError(f"{shown(host)} is not the address of one host: write 127.0.0.1 or [::1]")
    elif not _is_host_name(host):
        raise ValueError(f"{shown(host)} is not a host name: write localhost, or an IP address")
    return Address(host, int(port))


def as_hosts(value: Any) -> tuple[str, ...]:
    """Return names and addresses that a Host header can have, without a port."""
    names = tuple(as_list(value))
    for name in names:
        try:
            ip_address(name[1:-1] if name.startswith("[") and name.endswith("]") else name)
        except ValueError:
            if not _is_host_name(name):
                raise ValueError(
                    f"{shown(name)} is not a host name or an IP address: write it alone, without https://, port,"
                    " path or *, and a name with other letters as browsers send it (xn--...)"
                ) from None
    return names


def _is_host_name(text: str) -> bool:
    labels = text.removesuffix(".").split(".")
    return len(text) <= 253 and all(
        re.fullmatch(r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?", x) for x in labels
    )


def as_switch(value: Any) -> bool:
    """Return a boolean."""
    if isinstance(value, bool):
        return value
    return as_word(value, ("true", "false")) == "true"


def as_trace_url(value: Any) -> str:
    """Return a template of a URL, or an empty text."""
    text = as_text(value)
    if text and (not re.match(r"https?://[^/\s]", text) or "{trace_id}" not in text):
        raise ValueError(
            f"{shown(text)} is not a link to a trace: write a URL such as http://jaeger:16686/trace/{{trace_id}}"
        )
    return text


def as_timezone(value: Any) -> str:
    """Return the name of a time zone, empty for the host's."""
    name = as_text(value)
    if name in {"", "host"}:
        return ""
    try:
        load_zone(name)
    except ValueError:
        nearest = did_you_mean(name, available_timezones())
        raise ValueError(
            f"{shown(name)} is not a time zone: write host, or a name such as America/Sao_Paulo{nearest}"
        ) from None
    return name


def as_identifier(value: Any) -> str:
    """Return a text that is short enough for an id or a name."""
    text = as_text(value)
    if len(text) > IDENTIFIER_CHARS_MAX:
        raise ValueError(f"{shown(text)} is too long: write at most {IDENTIFIER_CHARS_MAX} characters")
    return text

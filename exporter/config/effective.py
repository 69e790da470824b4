"""The effective settings as a configuration file: what `run --check-config` prints.

The text is TOML that can be written back: loaded again, it gives the same values. Where each value
came from, and what OpenTelemetry's variables decide, is in comments.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta

from exporter.config.options import GROUPS, Config, Option
from exporter.config.values import Address
from exporter.records import SIGNALS, Signal

_UNITS = (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1))
_ABSENT = {"wok_error_log": "off", "wok_access_log": "off", "listen": "off", "messages": "auto"}
"""How to write that there is none, where an empty text does not say it."""
_EMPTY_LISTS = {"messages": "off"}


def effective(config: Config, telemetry: Sequence[tuple[str, str]] = ()) -> str:
    """Return the configuration as TOML, with the origin of each value behind it.

    `telemetry` are further facts, as (name, value), in comments at the end.
    """
    lines: list[str] = []
    for title, options in GROUPS.items():
        lines += ["", f"# --- {title}"] if lines else [f"# --- {title}"]
        rows = [(option, f"{option.key} = {_toml(option, config)}") for option in options]
        width = max(len(text) for _, text in rows)
        lines += [f"{text.ljust(width)}  # {_comment(config.origins[option.key])}" for option, text in rows]
    if telemetry:
        lines += ["", "# --- OpenTelemetry (set by OTEL_* variables)"]
        lines += [f"# {name}: {_comment(value)}" for name, value in telemetry]
    return "\n".join(lines) + "\n"


def _toml(option: Option, config: Config) -> str:
    value = getattr(config, option.key)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return str(value)
    if isinstance(value, tuple) and not isinstance(value, Address):
        if not value and option.key in _EMPTY_LISTS:
            return quoted(_EMPTY_LISTS[option.key])
        return f"[{', '.join(quoted(str(each)) for each in value)}]"
    return quoted(_text(option, value))


def _text(option: Option, value: object) -> str:
    if value is None:
        return _ABSENT.get(option.key, "")
    if isinstance(value, timedelta):
        return _duration(value)
    if isinstance(value, datetime):
        return value.isoformat()
    if option.key == "timezone" and not value:
        return "host"
    return str(value)


def _duration(value: timedelta) -> str:
    return "".join(_parts(value // timedelta(milliseconds=1))) or "0s"


def _parts(milliseconds: int) -> Iterator[str]:
    for unit, size in _UNITS:
        count, milliseconds = divmod(milliseconds, size)
        if count:
            yield f"{count}{unit}"


def quoted(text: str) -> str:
    """Return a text as a basic string of TOML."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(c if c.isprintable() else f"\\U{ord(c):08x}" for c in escaped) + '"'


def _comment(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text)


def otel_facts(
    endpoints: Mapping[Signal, str], protocols: Mapping[Signal, str], config: Config
) -> list[tuple[str, str]]:
    """Return where each signal goes, by which protocol, and what describes the resource."""
    facts: list[tuple[str, str]] = [
        (signal, f"sent to {endpoints[signal]} ({protocols[signal]})" if signal in endpoints else "not sent")
        for signal in SIGNALS
    ]
    if config.service_name:
        facts.append(("service.name", config.service_name))
    facts += [(f"resource attribute {name}", value) for name, value in config.resource_attributes.items()]
    return facts

"""Everything an administrator can set: one table, from which all else about a setting is made.

Each `Option` has a key in the TOML file, a variable (`WOK_EXPORTER_` and the key in capitals) and a flag; `--help`
and docs/configuration.md are made from the same rows, so that they cannot disagree. `read` turns what was given into
the value of the field of `config.Config` that has the key's name: text from a variable or a flag, text or a
TOML value from the file. It raises ValueError with a sentence that says what is wrong and ends in what to write
instead. A default is text that goes through `read` like everything else.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from difflib import get_close_matches
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING, Any, Literal, NamedTuple
from zoneinfo import available_timezones

from exporter.parse.timezone import load_zone

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterable, Mapping

PREFIX = "WOK_EXPORTER_"
CONFIG_FILE = "etc/wok-exporter.toml"
PORT = 10_965
"""Our own: Prometheus' list (9100 to 9999) is full, and 965 are the keys of WOK on a telephone."""

SHOWN_CHARS = 80
"""How much of a wrong value a mistake quotes: enough to find it, never a screenful."""
IDENTIFIER_CHARS_MAX = 255
"""The longest host name there is; ids are shorter."""
UNIT_SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
UNIT_BYTES = {"": 1, "B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
DURATION_MAX = "36500d"
"""Whatever is longer is a slip, and dates end in the year 1."""

StartAt = Literal["beginning", "end"] | timedelta | datetime


class Address(NamedTuple):
    """Where to listen: a name or an IP address (IPv6 without brackets), and a port; port 0 is any free one."""

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


@dataclass(frozen=True)
class Option:
    """One thing that can be set: `read` raises ValueError, `commands` are those it matters to."""

    key: str
    read: Callable[[Any], object]
    default: str
    metavar: str
    commands: tuple[str, ...]
    help: str

    @property
    def flag(self) -> str:
        """The flag, as in `--start-at`."""
        return "--" + self.key.replace("_", "-")

    @property
    def variable(self) -> str:
        """The environment variable, as in `WOK_EXPORTER_START_AT`."""
        return PREFIX + self.key.upper()


def shown(value: object) -> str:
    """Return the value as a mistake quotes it: on one line, and not too long."""
    text = repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= SHOWN_CHARS else text[:SHOWN_CHARS] + "…"


def did_you_mean(text: str, words: Iterable[str]) -> str:
    """Return ` (did you mean ...?)` with the nearest of the words, or nothing."""
    near = {word.lower(): word for word in words}
    return "".join(f" (did you mean {near[w]}?)" for w in get_close_matches(text.lower(), near, 1, 0.7))


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{shown(value)} is not text: put it in quotes")  # noqa: TRY004 (one kind of mistake)
    if not value.isprintable():
        raise ValueError(f"{shown(value)} holds characters that nobody can see: leave them out")
    return value.strip()


def _word(value: Any, words: tuple[str, ...]) -> str:
    text = _text(value)
    if text not in words:
        raise ValueError(f"{shown(text)} is unknown: write {' or '.join(words)}{did_you_mean(text, words)}")
    return text


def _path(value: Any, words: tuple[str, ...] = ()) -> Path | str:
    text = _text(value)
    return Path(text) if text and text not in words else text


def _list(value: Any) -> list[str]:
    values = value.split(",") if isinstance(value, str) else value
    if not isinstance(values, list):
        raise ValueError(f"{shown(value)} is not a list: write a list, or text with commas")  # noqa: TRY004 (as in _text)
    return [text for text in map(_text, values) if text]


def _paths(value: Any) -> tuple[Path, ...] | None:
    texts = _list(value)
    if texts == ["auto"]:
        return None
    return () if texts == ["off"] else tuple(map(Path, texts))


def _apps(value: Any) -> tuple[str, ...]:
    apps = tuple(_list(value))
    for app in apps:
        if not re.fullmatch(r"[a-z0-9_.-]{1,64}", app):
            raise ValueError(f"{shown(app)} is not an application: write names such as kimchi, ginger, wok")
    return apps


def _within(value: Any, number: float, least: float, most: float, limits: str) -> None:
    if not least <= number <= most:
        raise ValueError(f"{shown(value)} is out of range: write {limits}")


def _number(value: Any, least: int, most: int) -> int:
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


def _size(value: Any, least: str, most: str) -> int:
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


def _duration(value: Any, least: str = "0s", most: str = DURATION_MAX) -> timedelta:
    seconds = _seconds(value)
    _within(value, seconds, _seconds(least), _seconds(most), f"{least} to {most}")
    return timedelta(seconds=seconds)


def _start_at(value: Any) -> StartAt:
    if isinstance(value, date):
        value = value.isoformat()  # a native TOML time, with or without the hours
    text = _text(value)
    if text in {"beginning", "end"}:
        return "end" if text == "end" else "beginning"
    if re.match(r"[0-9.]+ ?[a-y]", text):
        return _duration(text)
    try:
        start = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(
            f"{shown(value)} is not a start: write beginning, end, 24h, 7d or 2026-11-23T08:00:00Z"
            f"{did_you_mean(text, ('beginning', 'end'))}"
        ) from None
    _within(value, start.year, 1971, 2261, "a time from 1971 to 2261")
    return start


def _address(value: Any) -> Address | None:
    text = _text(value)
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
            ip_address(host)
        except ValueError:
            raise ValueError(f"{shown(host)} is not an IP address: write 127.0.0.1 or [::1]") from None
    elif not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,252}", host):
        raise ValueError(f"{shown(host)} is not a host's name: write localhost, or an IP address")
    return Address(host, int(port))


def _switch(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    return _word(value, ("true", "false")) == "true"


def _trace_url(value: Any) -> str:
    text = _text(value)
    if text and (not re.match(r"https?://[^/\s]", text) or "{trace_id}" not in text):
        raise ValueError(
            f"{shown(text)} leads to no trace: write a URL such as http://jaeger:16686/trace/{{trace_id}}"
        )
    return text


def _timezone(value: Any) -> str:
    name = _text(value)
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


def _identifier(value: Any) -> str:
    text = _text(value)
    if len(text) > IDENTIFIER_CHARS_MAX:
        raise ValueError(f"{shown(text)} is too long: write at most {IDENTIFIER_CHARS_MAX} characters")
    return text


ROWS_MAX = 100_000_000
"""What SQLite still counts and prunes in seconds."""
COUNT = partial(_number, least=0, most=ROWS_MAX)
READERS = ("run", "replay", "check", "tasks", "text")
SENDERS = ("run", "replay")

# a row is easier to compare when it is not spread over ten lines
# fmt: off
GROUPS: Mapping[str, tuple[Option, ...]] = {
    "What is read": (
        Option("log", partial(_path, words=("auto",)), "auto", "FILE", ("run",),
               "Wok's user request log; auto is the first of /var/lib/wok/user-requests.data (Wok 2.3"
               " and later) and /var/log/wok/wok-req.log (before) that exists"),
        Option("wok_error_log", partial(_path, words=("auto", "off")), "auto", "FILE", (*SENDERS, "check", "tasks"),
               "Wok's error log, whose ENGINE lines tell when wokd was restarted; auto is"
               " /var/log/wok/wok-error.log where it can be read, and off for the other commands"),
        Option("timezone", _timezone, "host", "ZONE", READERS,
               "the zone that wokd writes its times in, such as America/Sao_Paulo; host is this"
               " machine's"),
        Option("start_at", _start_at, "24h", "WHEN", ("run",),
               "where a first start begins: beginning, end, a duration before now, or a time in ISO 8601"),
        Option("messages", _paths, "auto", "PATHS", ("run", "replay", "tasks", "text"),
               "files or directories with the message tables of Wok and its plug-ins (i18n.py; read,"
               " never executed); auto finds the installed ones, off leaves messages as codes"),
        Option("apps", _apps, "", "NAMES", ("run",),
               "applications whose metrics are there, at zero, before they are first seen, such as"
               " kimchi,ginger"),
        Option("poll_interval", partial(_duration, least="10ms", most="1m"), "250ms", "DURATION", ("run",),
               "how often the log is looked at when nothing comes"),
        Option("task_expiry", partial(_duration, least="1m", most="365d"), "24h", "DURATION",
               ("run", "replay", "check", "tasks"),
               "the age at which a task that was never reported as ended is given up as unknown"),
        Option("line_bytes_max", partial(_size, least="4KiB", most="1GiB"), "16MiB", "SIZE", READERS,
               "the longest line that is understood; longer ones are skipped and counted"),
    ),
    "What is kept": (
        Option("state", _path, "/var/lib/wok-exporter", "DIRECTORY", ("run", "replay", "tasks", "demo"),
               "where positions, counters, open tasks and what is still to be sent are kept; replay and"
               " demo take only a flag, and without it a temporary directory"),
        Option("on_broken_state", partial(_word, words=("fail", "restart")), "fail", "WHAT", SENDERS,
               "what to do about a state that cannot be read: fail, or put it aside and restart with an"
               " empty one"),
        Option("journal_bytes_max", partial(_size, least="1MiB", most="1024GiB"), "512MiB", "SIZE", ("run",),
               "how much may wait for a backend; beyond, the oldest is given up and counted"),
        Option("journal_rows_max", partial(_number, least=100, most=ROWS_MAX), "1000000", "COUNT", ("run",),
               "how many batches may wait for a backend"),
        Option("history_requests", COUNT, "100000", "COUNT", SENDERS,
               "how many requests are remembered for tasks and the page"),
        Option("history_tasks", COUNT, "100000", "COUNT", SENDERS,
               "how many ended tasks are remembered for tasks and the page"),
    ),
    "What is sent": (
        Option("instance", _identifier, "auto", "ID", SENDERS,
               "the identity of this Wok in every span (service.instance.id); auto is a UUID made from"
               " /etc/machine-id"),
        Option("host_name", _identifier, "auto", "NAME", SENDERS,
               "the host that is observed (host.name); auto is this one"),
        Option("host_id", _identifier, "auto", "ID", SENDERS,
               "its unique id (host.id); auto is /etc/machine-id, else the instance"),
        Option("privacy", partial(_word, words=("plain", "hash", "drop")), "plain", "HOW", (*SENDERS, "text"),
               "what becomes of user names and client addresses: plain, hash or drop; metrics never have"
               " them"),
        Option("give_up_after", _duration, "5m", "DURATION", ("replay",),
               "how long a backend may stay away before replay ends without it"),
    ),
    "Who may look": (
        Option("listen", _address, f"127.0.0.1:{PORT}", "ADDRESS:PORT", ("run", "demo"),
               "where /metrics, /healthz, /readyz and the page are served; off for nowhere"),
        Option("ui", _switch, "true", "true|false", ("run",),
               "serve the page and its API at /; false for metrics and probes alone"),
        Option("trace_url", _trace_url, "", "URL", ("run", "demo"),
               "where the page leads from a trace, with {trace_id} in it: Jaeger, Tempo or Grafana; in TOML also"
               " ui.trace_url"),
        Option("hosts", lambda value: tuple(_list(value)), "", "NAMES", ("run",),
               "further names of this server that browsers may use; others are refused, as a defence against DNS"
               " rebinding"),
        Option("tls_certificate", _path, "", "FILE", ("run",), "a certificate chain in PEM: serve HTTPS"),
        Option("tls_key", _path, "", "FILE", ("run",), "its private key, if it is not in the same file"),
        Option("auth_file", _path, "", "FILE", ("run",),
               "ask for a user and a password: a file with one user:hash on a line"),
        Option("open_metrics", _switch, "false", "true|false", ("run",),
               "let /metrics and /readyz be read without a password, and the page not"),
    ),
    "What the exporter says of itself": (
        Option("log_level", partial(_word, words=("debug", "info", "warning", "error")), "info",
               "LEVEL", SENDERS, "the least that is said: debug, info, warning or error"),
        Option("log_format", partial(_word, words=("text", "json")), "text", "FORMAT", SENDERS,
               "how it is said: text, or json with an object on each line"),
    ),
}
# fmt: on

OPTIONS: Mapping[str, Option] = {option.key: option for group in GROUPS.values() for option in group}


def add_flags(parser: argparse.ArgumentParser, command: str) -> None:
    """Give the parser of a command `--config` and the flags of all options that matter to the command.

    A flag that was not given is None in the namespace, under the option's key: `vars(...)` is what
    `config.load` takes.
    """
    parser.add_argument(
        "--config", metavar="FILE", help=f"a TOML file [{PREFIX}CONFIG, default: /{CONFIG_FILE}]"
    )
    for title, options in GROUPS.items():
        mine = [option for option in options if command in option.commands]
        group = parser.add_argument_group(title.lower()) if mine else parser
        for option in mine:
            default = f", default: {option.default}" if option.default else ""
            text = f"{option.help} [{option.variable}{default}]"
            group.add_argument(
                option.flag, dest=option.key, metavar=option.metavar, help=text.replace("%", "%%")
            )


def reference() -> str:
    """Return docs/configuration.md: every option with its flag, variable, default, commands and meaning."""
    parts = [REFERENCE_HEAD]
    for title, options in GROUPS.items():
        parts.append(f"## {title}\n")
        for option in options:
            default = f"`{option.default}`" if option.default else "none"
            commands = ", ".join(f"`{command}`" for command in option.commands)
            parts.append(
                f"### `{option.key}`\n\n"
                f"{option.help[0].upper()}{option.help[1:]}.\n\n"
                f"* flag: `{option.flag} {option.metavar}`\n"
                f"* variable: `{option.variable}`\n"
                f"* default: {default}\n"
                f"* matters to: {commands}\n"
            )
    example = "\n".join(_setting(option) for option in OPTIONS.values())
    parts.append(f"## A whole file\n\nThis one says what is said without it:\n\n```toml\n{example}\n```\n")
    parts.append(REFERENCE_TAIL)
    return "\n".join(parts)


def example_file() -> str:
    """Return deploy/wok-exporter.toml: every option as a comment with its meaning and its default, nothing set."""
    parts = [EXAMPLE_HEAD]
    for title, options in GROUPS.items():
        parts.append(f"# --- {title}\n")
        for option in options:
            said = f"{option.help[0].upper()}{option.help[1:]}."
            if "run" not in option.commands:
                said += f" (Not for the daemon: {', '.join(option.commands)}.)"
            parts.append("\n".join(wrap(said, EXAMPLE_CHARS, initial_indent="# ", subsequent_indent="# ")))
            parts.append(f"#{_setting(option)}\n")
    return "\n".join(parts)


def _setting(option: Option) -> str:
    """Return the line of TOML that sets an option to its default: numbers and switches as such, the rest quoted."""
    bare = option.default.isdigit() or option.default in {"true", "false"}
    return f"{option.key} = {option.default if bare else _quoted(option.default)}"


def _quoted(text: str) -> str:
    return f'"{text}"'


EXAMPLE_CHARS = 110
EXAMPLE_HEAD = f"""\
# wok-exporter: the configuration of this host, /{CONFIG_FILE}.
#
# Everything is optional, and everything below is a comment that says what is so without it: take the # from a line
# to change it. `wok-exporter run --check-config` proves the file and shows what is in force; `systemctl reload
# wok-exporter` takes it up, or says what is wrong and goes on as before. Only `state` needs a restart.
#
# Durations have units: 250ms, 90s, 24h, 7d. Sizes are bytes, or have units: 512MiB. Where traces and log records go
# is set with OpenTelemetry's own variables, which systemd reads from /etc/default/wok-exporter.
"""


REFERENCE_HEAD = f"""\
# Configuration

Everything is optional. A setting comes from a TOML file, is overridden by an environment variable, and that by a
flag. The file is `/{CONFIG_FILE}` where it exists, or what `--config FILE` or `{PREFIX}CONFIG` names. Its keys stand
alone, without tables. All mistakes are reported together, each with its place and its remedy;
`wok-exporter run --check-config` reports them, shows what is in force and where it came from, and ends.

Durations have units: `250ms`, `90s`, `24h`, `7d`, `1h30m`. Sizes are bytes, or have units: `512MiB`, `1GB`. Lists are
lists in the file, or texts with commas. Paths may begin with `~`; in the file they are relative to the file. An empty
variable counts as unset.

SIGHUP (`systemctl reload wok-exporter`) makes the daemon read the file again, and the certificate, key and users that
it names. It proves all of it first: with a mistake, or while the state cannot be written, it says so and goes on as
before; else it stops reading, and begins again from its state as a start does, so that no line is lost or counted
twice. Variables of the environment stay those of the start, and `state` cannot move: both need a restart. At a
terminal SIGHUP ends the daemon.
"""

REFERENCE_TAIL = """\
## OpenTelemetry's own variables

Where spans and log records go is set with the standard variables alone:
`OTEL_EXPORTER_OTLP_ENDPOINT`, `_PROTOCOL` (`http/protobuf` or `grpc`), `_HEADERS`, `_CERTIFICATE`,
`_CLIENT_CERTIFICATE`, `_CLIENT_KEY`, `_COMPRESSION` and `_TIMEOUT`, with `OTEL_EXPORTER_OTLP_TRACES_` or
`OTEL_EXPORTER_OTLP_LOGS_` in front for one signal. `OTEL_TRACES_EXPORTER=none` and `OTEL_LOGS_EXPORTER=none` switch a
signal off. Without any endpoint nothing is sent or kept for sending.

`OTEL_RESOURCE_ATTRIBUTES` (`key=value,key=value`, percent-encoded) is added to what describes Wok in every span and
log record. `OTEL_SERVICE_NAME`, or `service.name` among these attributes, is the service name of everything, in
place of the application's.
"""

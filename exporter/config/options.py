"""Everything an administrator can set: the fields of `Config`, and nowhere else.

A field has the key that the TOML file uses. Its type is what the program works with; the row behind
it says how to read the value, its default, the commands that use it, and its help text. The
variable (`WOK_EXPORTER_` and the key in capitals), the flag, `--help`, docs/configuration.md and
deploy/wok-exporter.toml are made from the same row, so they cannot disagree.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, Literal

from exporter.config.values import (
    PORT,
    Address,
    StartAt,
    as_address,
    as_apps,
    as_duration,
    as_hosts,
    as_identifier,
    as_number,
    as_path,
    as_paths,
    as_size,
    as_start_at,
    as_switch,
    as_timezone,
    as_trace_url,
    as_word,
    nanos_of,
)

PREFIX = "WOK_EXPORTER_"
CONFIG_FILE = "etc/wok-exporter.toml"


@dataclass(frozen=True)
class Option:
    """One setting. `read` raises ValueError, `commands` are those that use it."""

    group: str
    read: Callable[[Any], object]
    default: str
    metavar: str
    commands: tuple[str, ...]
    help: str
    key: str

    @property
    def flag(self) -> str:
        """The flag, as in `--start-at`."""
        return "--" + self.key.replace("_", "-")

    @property
    def words(self) -> tuple[str, ...]:
        """All values, of an option that has a fixed set of them; otherwise empty."""
        if self.read is as_switch:
            return ("true", "false")
        words: tuple[str, ...] = ()
        if isinstance(self.read, partial) and self.read.func is as_word:
            words = self.read.keywords["words"]
        return words

    @property
    def variable(self) -> str:
        """The environment variable, as in `WOK_EXPORTER_START_AT`."""
        return PREFIX + self.key.upper()


def _option(
    group: str,
    read: Callable[[Any], object],
    default: str,
    metavar: str,
    commands: tuple[str, ...],
    text: str,
) -> Any:
    """Return a field of `Config` that is set by an option of this group."""
    return field(metadata={"option": partial(Option, group, read, default, metavar, commands, text)})


_input = partial(_option, "Input")
_storage = partial(_option, "Storage")
_telemetry = partial(_option, "Telemetry")
_server = partial(_option, "HTTP server")
_logging = partial(_option, "Logging")

ROWS_MAX = 100_000_000
"""SQLite still counts and prunes this many rows in seconds."""
COUNT = partial(as_number, least=0, most=ROWS_MAX)
READERS = ("run", "replay", "backfill", "check", "tasks", "text")
SENDERS = ("run", "replay")
HISTORIANS = (*SENDERS, "backfill")
"""The commands that write a history."""


# a row is easier to compare when it is not spread over ten lines
# fmt: off
@dataclass(frozen=True, kw_only=True)
class Config:
    """The whole configuration, validated.

    `state` is None for a temporary one (`replay` and `demo` without a state of their own), `listen`
    None for no server, `wok_error_log` and `wok_access_log` None where they are not read,
    `messages` None for those of the installed Wok. `start_at` is an aware datetime, a duration or a
    word. `origins` says for each key where its value came from; `warnings` are sentences to log at
    the start. `automatic` are the keys of logs that were found, and are searched again while the
    daemon runs.
    """

    log: Path = _input(
        partial(as_path, words=("auto",)), "auto", "FILE", ("run", "backfill"),
        "Wok's user request log; auto is the first of /var/lib/wok/user-requests.data (Wok 2.3 and"
        " later) and /var/log/wok/wok-req.log (earlier releases) that exists")
    wok_error_log: Path | None = _input(
        partial(as_path, words=("auto", "off")), "auto", "FILE", (*HISTORIANS, "check", "tasks"),
        "Wok's error log, which shows why a task failed and when wokd was restarted; auto is"
        " /var/log/wok/wok-error.log if it can be read, and off for a log that is not in its default"
        " place; off reads none")
    wok_access_log: Path | None = _input(
        partial(as_path, words=("auto", "off")), "auto", "FILE", (*HISTORIANS, "check", "tasks"),
        "Wok's access log, which has the true status of renames and failed logins that Wok logs as 500; auto is"
        " /var/log/wok/wok-access.log if it can be read, and off for a log that is not in its default"
        " place; off reads none")
    olddir: Path | None = _input(
        as_path, "", "DIRECTORY", ("run", "backfill"),
        "where logrotate moves rotated logs, if not beside the log (its option olddir); relative to the"
        " directory of the log")
    timezone: str = _input(
        as_timezone, "host", "ZONE", READERS,
        "the time zone of the log's timestamps, such as America/Sao_Paulo; host is the time zone of"
        " this machine")
    start_at: StartAt = _input(
        as_start_at, "24h", "WHEN", ("run", "check"),
        "where to start reading the first time: beginning, end, a duration before now, or an ISO 8601"
        " time (ignored once a state exists; `backfill` adds older records to the history)")
    messages: tuple[Path, ...] | None = _input(
        as_paths, "auto", "PATHS", (*HISTORIANS, "tasks", "text"),
        "files or directories with the message tables of Wok and its plug-ins (i18n.py; parsed, never"
        " executed); auto finds the installed ones, off uses the exporter's own sentences only")
    apps: tuple[str, ...] = _input(
        as_apps, "", "NAMES", ("run",),
        "applications whose metrics exist, at zero, before their first record, such as kimchi,ginger")
    poll_interval: timedelta = _input(
        partial(as_duration, least="10ms", most="1m"), "250ms", "DURATION", ("run",),
        "how often to check an idle log for new lines")
    task_expiry: timedelta = _input(
        partial(as_duration, least="1m", most="365d"), "24h", "DURATION", (*HISTORIANS, "check", "tasks"),
        "the age at which a task without an end record is closed with the outcome unknown")
    line_bytes_max: int = _input(
        partial(as_size, least="4KiB", most="1GiB"), "1MiB", "SIZE", READERS,
        "the longest line to parse; longer lines are skipped and counted")

    state: Path | None = _storage(
        as_path, "/var/lib/wok-exporter", "DIRECTORY", (*HISTORIANS, "tasks", "demo"),
        "the directory for read positions, counters, open tasks and queued data; replay and demo take"
        " it from the flag only, and use a temporary directory by default")
    on_broken_state: Literal["fail", "restart"] = _storage(
        partial(as_word, words=("fail", "restart")), "fail", "WHAT", SENDERS,
        "what to do if the state cannot be read: fail, or move it aside and restart with an empty one")
    journal_bytes_max: int = _storage(
        partial(as_size, least="1MiB", most="1024GiB"), "512MiB", "SIZE", ("run",),
        "the size limit of the delivery queue; beyond it, the oldest data is dropped and counted")
    journal_rows_max: int = _storage(
        partial(as_number, least=100, most=ROWS_MAX), "1000000", "COUNT", ("run",),
        "the maximum number of batches in the delivery queue")
    history_requests: int = _storage(
        COUNT, "100000", "COUNT", HISTORIANS,
        "how many requests to keep for `tasks` and the page")
    history_tasks: int = _storage(
        COUNT, "100000", "COUNT", HISTORIANS,
        "how many finished tasks to keep for `tasks` and the page")
    history_bytes_max: int = _storage(
        partial(as_size, least="1MiB", most="64GiB"), "256MiB", "SIZE", HISTORIANS,
        "the size limit of both histories together; beyond it, the oldest rows are deleted")

    instance: str = _telemetry(
        as_identifier, "auto", "ID", HISTORIANS,
        "the identity of this Wok in every span (service.instance.id); auto is a UUID derived from"
        " /etc/machine-id")
    host_name: str = _telemetry(
        as_identifier, "auto", "NAME", SENDERS,
        "the name of the observed host (host.name); auto is the name of this machine")
    host_id: str = _telemetry(
        as_identifier, "auto", "ID", SENDERS,
        "the unique id of the observed host (host.id); auto is /etc/machine-id, or else the instance")
    privacy: Literal["plain", "hash", "drop"] = _telemetry(
        partial(as_word, words=("plain", "hash", "drop")), "plain", "HOW", (*HISTORIANS, "text"),
        "how to send user names and client addresses: plain, hash or drop; metrics never contain them")
    give_up_after: timedelta = _telemetry(
        as_duration, "5m", "DURATION", ("replay",),
        "how long replay waits for an unavailable backend before it exits")

    listen: Address | None = _server(
        as_address, f"127.0.0.1:{PORT}", "ADDRESS:PORT", ("run", "demo"),
        "where to serve /metrics, /healthz, /readyz and the page; off disables the server")
    ui: bool = _server(
        as_switch, "true", "true|false", ("run",),
        "serve the page and its API at /; false serves metrics and probes only")
    trace_url: str = _server(
        as_trace_url, "", "URL", ("run", "demo"),
        "the URL that the page links a trace to, with {trace_id} in it: Jaeger, Tempo or Grafana; in"
        " TOML also ui.trace_url")
    hosts: tuple[str, ...] = _server(
        as_hosts, "", "NAMES", ("run",),
        "additional names of this server that browsers may use; requests for other names are rejected,"
        " as a defence against DNS rebinding")
    tls_certificate: Path | None = _server(
        as_path, "", "FILE", ("run",),
        "a certificate chain in PEM format: serve HTTPS")
    tls_key: Path | None = _server(
        as_path, "", "FILE", ("run",),
        "the private key, if it is not in the certificate file")
    auth_file: Path | None = _server(
        as_path, "", "FILE", ("run",),
        "require a user name and a password: a file with one user:hash on each line")
    open_metrics: bool = _server(
        as_switch, "false", "true|false", ("run",),
        "allow /metrics and /readyz without a password, but not the page")

    log_level: Literal["debug", "info", "warning", "error"] = _logging(
        partial(as_word, words=("debug", "info", "warning", "error")), "info", "LEVEL", HISTORIANS,
        "the lowest level to log: debug, info, warning or error")
    log_format: Literal["text", "json"] = _logging(
        partial(as_word, words=("text", "json")), "text", "FORMAT", HISTORIANS,
        "the log format: text, or json with one object on each line")

    # from OpenTelemetry's own variables, and from reading all of them
    resource_attributes: Mapping[str, str]
    service_name: str
    origins: Mapping[str, str]
    warnings: tuple[str, ...]
    automatic: frozenset[str] = field(default=frozenset(), compare=False)
    # fmt: on

    def first_time(self, now: int) -> int | None:
        """Return the time of the oldest record to send if there is no state yet.

        Times are nanoseconds since the epoch; 0 is the beginning of the log, None its end. `now`
        matters only to a `start_at` that is a duration.
        """
        if self.start_at == "end":
            return None
        return 0 if self.start_at == "beginning" else max(0, nanos_of(self.start_at, now))


OPTIONS: Mapping[str, Option] = {
    row.name: row.metadata["option"](key=row.name) for row in fields(Config) if "option" in row.metadata
}
GROUPS: Mapping[str, tuple[Option, ...]] = {
    group: tuple(option for option in OPTIONS.values() if option.group == group)
    for group in dict.fromkeys(option.group for option in OPTIONS.values())
}


def add_flags(parser: argparse.ArgumentParser, command: str) -> None:
    """Give a command's parser `--config` and the flags of all options that the command uses.

    A flag that was not given is None in the namespace, under the option's key: `vars(...)` is what
    `config.load` takes.
    """
    parser.add_argument(
        "--config", metavar="FILE", help=f"a TOML file [{PREFIX}CONFIG, default: /{CONFIG_FILE}]"
    )
    for title, options in GROUPS.items():
        mine = [option for option in options if command in option.commands]
        group = parser.add_argument_group(title) if mine else parser
        for option in mine:
            default = f", default: {option.default}" if option.default else ""
            text = f"{option.help} [{option.variable}{default}]"
            group.add_argument(
                option.flag, dest=option.key, metavar=option.metavar, help=text.replace("%", "%%")
            )

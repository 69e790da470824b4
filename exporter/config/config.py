"""Loads the configuration: a TOML file, overridden by the environment, overridden by flags.

The settings are defined in options.py. Here the sources are merged, words such as `auto` are
replaced by what they stand for on this host, and settings that contradict each other are found.

All errors are reported together: every source is read to its end, also where a stronger one
overrides it. Each error says where it is, what is wrong, and what to write instead.

What the OpenTelemetry specification names is not repeated here: `deliver` reads endpoints, headers,
certificates and timeouts. Only the two variables that say who is observed,
`OTEL_RESOURCE_ATTRIBUTES` and `OTEL_SERVICE_NAME`, are read here, because they are part of the
data.
"""

from __future__ import annotations

import hmac
import os
import re
import socket
import tomllib
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import unquote_to_bytes
from uuid import UUID

from exporter.config.files import may_exist, why_unreadable
from exporter.config.options import CONFIG_FILE, OPTIONS, PREFIX, SENDERS, Config
from exporter.config.otel_names import unknown_variables
from exporter.config.values import Address, did_you_mean, in_zone, shown
from exporter.parse.timezone import load_zone

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

LOGS = ("var/lib/wok/user-requests.data", "var/log/wok/wok-req.log")
"""Where an installed Wok writes its log: from 2.3.0 on, and earlier."""
WOK_ERROR_LOG = "var/log/wok/wok-error.log"
WOK_ACCESS_LOG = "var/log/wok/wok-access.log"
AUTOMATIC = ("log", "wok_error_log", "wok_access_log")
"""Keys of logs that `auto` finds."""
MACHINE_IDS = ("etc/machine-id", "var/lib/dbus/machine-id")
APPLICATION_ID = UUID("46c01d7a-8901-42f0-bb3c-d4acaaee7611").bytes
"""Makes the instance's UUID specific to this program, as `systemd-id128 machine-id --app-specific=`
does.
"""

UI_KEYS = ("trace_url", "hosts")
"""Options that may also be keys of the table `ui`."""

KUBERNETES = re.compile(r"WOK_EXPORTER_(SERVICE_HOST|SERVICE_PORT(_.*)?|PORT(_.*)?)")
"""What Kubernetes sets in every container if there is a Service named wok-exporter: not settings.
"""


class ConfigError(Exception):
    """All errors in the configuration, one line each: where it is, what is
    wrong, and the remedy.
    """

    def __init__(self, mistakes: list[str]) -> None:
        super().__init__("\n".join(mistakes))
        self.mistakes = mistakes


# --- the sources, from the weakest to the strongest


class _Given(NamedTuple):
    """A value as given: `origin` is where a person finds it, `base` the directory of relative
    paths.
    """

    origin: str
    key: str
    value: object
    base: Path


def _from_file(
    flags: Mapping[str, str | None],
    environ: Mapping[str, str],
    command: str,
    root: Path,
    mistakes: list[str],
    warnings: list[str],
) -> Iterator[_Given]:
    named = flags.get("config") or environ.get(f"{PREFIX}CONFIG")
    path = Path(named) if named else root / CONFIG_FILE
    if not may_exist(path):
        if named:
            mistakes.append(f"{path}: no such file: create it, or name another one with --config")
        return
    if reason := why_unreadable(path):
        # Users other than the daemon's may run `check` or `tasks`. The daemon itself must not run
        # without the file's passwords and privacy.
        sentence = (
            f"{path}: cannot be read ({reason}): let this user read it, or name another one with --config"
        )
        (mistakes if named or command == "run" else warnings).append(sentence)
        return
    try:
        with path.open("rb") as stream:
            table = tomllib.load(stream)
    except OSError as e:
        mistakes.append(f"{path}: cannot be read ({e.strerror}): check the disk")
        return
    except (ValueError, RecursionError) as e:  # the latter for lists a thousand deep
        mistakes.append(f"{path}: invalid TOML ({e}): see the example in docs/configuration.md")
        return
    # Settings of the page may also be in a table: `ui.trace_url`, `[ui]`.
    page = table.pop("ui") if isinstance(table.get("ui"), dict) else {}
    table |= {key if key in UI_KEYS else f"ui.{key}": value for key, value in page.items()}
    for key, value in table.items():
        if key in OPTIONS:
            yield _Given(f"{path}: {key}", key, value, path.parent)
        else:
            what = "table: keys are top-level" if isinstance(value, dict) else "key: remove it"
            shown = key if key.isprintable() else ascii(key)
            mistakes.append(f"{path}: {shown}: unknown {what}{did_you_mean(key, OPTIONS)}")


def _from_environment(environ: Mapping[str, str], mistakes: list[str]) -> Iterator[_Given]:
    variables = {option.variable: option.key for option in OPTIONS.values()}
    for variable in sorted(environ):
        if not variable.startswith(PREFIX) or not environ[variable]:
            continue  # an empty variable counts as unset, as in OpenTelemetry's specification
        if variable in variables:
            yield _Given(variable, variables[variable], environ[variable], Path())
        elif variable != f"{PREFIX}CONFIG" and not KUBERNETES.fullmatch(variable):
            named = variable if variable.isprintable() else ascii(variable)
            mistakes.append(f"{named}: unknown variable: unset it{did_you_mean(variable, variables)}")


def _from_flags(flags: Mapping[str, str | None]) -> Iterator[_Given]:
    for option in OPTIONS.values():
        value = flags.get(option.key)
        if value is not None:
            yield _Given(option.flag, option.key, value, Path())


def _require_content(given: _Given) -> None:
    """Raise ValueError for a value without content, except in a file where nothing is the default.

    An unset variable of a shell (`--auth-file "$FILE"`) would switch off what was asked for.
    """
    texts = given.value if isinstance(given.value, list) else [given.value]
    if not all(isinstance(text, str) and not text.strip(" ,\t\r\n") for text in texts):
        return
    option = OPTIONS[given.key]
    is_from_file = given.origin not in (option.flag, option.variable)
    if not (is_from_file and given.value in ("", []) and not option.default):
        raise ValueError("is empty: write a value, or leave it out")


# --- everything together


def load(
    flags: Mapping[str, str | None], environ: Mapping[str, str], command: str, *, root: Path = Path("/")
) -> Config:
    """Return the configuration of a command from its flags (by key), the environment and the TOML
    file.

    The host's own files are looked for below `root`: the default file, Wok's logs, the machine id.
    Raises ConfigError with all errors.
    """
    mistakes: list[str] = []
    warnings: list[str] = []
    values: dict[str, Any] = {option.key: option.read(option.default) for option in OPTIONS.values()}
    origins = dict.fromkeys(OPTIONS, "default")
    for given in (
        *_from_file(flags, environ, command, root, mistakes, warnings),
        *_from_environment(environ, mistakes),
        *_from_flags(flags),
    ):
        try:
            _require_content(given)
            value = OPTIONS[given.key].read(given.value)
            values[given.key] = _located(value, given.base, environ)
            origins[given.key] = given.origin
        except (ValueError, RuntimeError) as e:
            mistakes.append(f"{given.origin}: {e}")

    attributes, service_name = _resource(environ, mistakes)
    if command in SENDERS:
        warnings += unknown_variables(environ)
    automatic = frozenset(key for key in AUTOMATIC if values[key] == "auto")
    _resolve(values, origins, command, root, mistakes, _files(flags))
    _cross_check(values, origins, command, mistakes, warnings)
    if mistakes:
        raise ConfigError(mistakes)

    return Config(
        **values,
        resource_attributes=attributes,
        service_name=service_name,
        origins=origins,
        warnings=tuple(warnings),
        automatic=automatic,
    )


def _located(value: Any, base: Path, environ: Mapping[str, str]) -> Any:
    """Return the value with `~` expanded in its paths, and relative ones joined to `base`."""
    if isinstance(value, tuple) and not isinstance(value, Address):
        return tuple(_located(each, base, environ) for each in value)
    if not isinstance(value, Path):
        return value
    if value.parts[:1] == ("~",) and "HOME" in environ:
        value = Path(environ["HOME"], *value.parts[1:])
    return base / value.expanduser()


def _files(flags: Mapping[str, Any]) -> list[Path]:
    """Return the logs that a command is asked to read."""
    return [*(flags.get("files") or ()), *(flags.get("file") or ())]


def _are_of_this_host(files: Sequence[Path], root: Path) -> bool:
    """Return whether all files are the log of the installed Wok, or rotated files of it."""
    here = [root / log for log in LOGS]
    return bool(files) and all(
        any(os.path.realpath(path).startswith(os.path.realpath(log)) for log in here) for path in files
    )


class HostLogs(NamedTuple):
    """Wok's logs on a host. The error log and the access log are None if they cannot be read."""

    log: Path
    wok_error_log: Path | None
    wok_access_log: Path | None


def logs_of_this_host(root: Path = Path("/")) -> HostLogs:
    """Return what `auto` means on this host now."""
    # A folder that this user may not enter may contain the log: that is worth a problem, not a
    # guess.
    found = [path for path in (root / log for log in LOGS) if may_exist(path)]
    others = [root / path for path in (WOK_ERROR_LOG, WOK_ACCESS_LOG)]
    error_log, access_log = (path if os.access(path, os.R_OK) else None for path in others)
    return HostLogs(found[0] if found else root / LOGS[0], error_log, access_log)


def _resolve(
    values: dict[str, Any],
    origins: dict[str, str],
    command: str,
    root: Path,
    mistakes: list[str],
    files: Sequence[Path],
) -> None:
    """Replace words such as `auto` by what they stand for on this host, or for this command."""
    host = logs_of_this_host(root)
    if values["log"] in {"auto", ""}:
        values["log"] = host.log
    # for another log, this host's other logs would be a guess: the log may be from another host
    is_mine = command in {"run", "backfill"} or _are_of_this_host(files, root)
    if values["wok_error_log"] == "auto":
        values["wok_error_log"] = host.wok_error_log if is_mine else None
    if values["wok_access_log"] == "auto":
        values["wok_access_log"] = host.wok_access_log if is_mine else None
    for key in (
        "wok_error_log",
        "wok_access_log",
        "olddir",
        "state",
        "tls_certificate",
        "tls_key",
        "auth_file",
    ):
        if not isinstance(values[key], Path):
            values[key] = None
    if command in {"replay", "demo"} and origins["state"] != OPTIONS["state"].flag:
        # never the daemon's: its counters and positions belong to its own log
        values["state"] = None
    elif command in {"run", "backfill", "tasks"} and not values["state"]:
        mistakes.append(f"{origins['state']}: is empty: set it to a directory")

    machine = _machine_id(root)
    if values["instance"] in {"auto", ""}:
        if not machine and command in {"run", "replay", "backfill"}:
            mistakes.append(f"instance: this host has no /{MACHINE_IDS[0]} to derive it from: set --instance")
        digest = hmac.digest(machine, APPLICATION_ID, "sha256")
        values["instance"] = str(UUID(bytes=digest[:16], version=4)) if machine else "unknown"
    if values["host_name"] in {"auto", ""}:
        values["host_name"] = socket.gethostname()
    if values["host_id"] in {"auto", ""}:
        values["host_id"] = machine.hex() or values["instance"]

    start = values["start_at"]
    if isinstance(start, datetime):
        values["start_at"] = in_zone(start, load_zone(values["timezone"]) if values["timezone"] else None)


def _machine_id(root: Path) -> bytes:
    for path in MACHINE_IDS:
        if why_unreadable(root / path):
            continue
        try:
            machine = bytes.fromhex((root / path).read_text("ascii").strip())
        except (OSError, ValueError):
            continue
        if len(machine) == 16 and any(machine):
            return machine
    return b""


def _cross_check(
    values: dict[str, Any], origins: dict[str, str], command: str, mistakes: list[str], warnings: list[str]
) -> None:
    """Find settings that contradict each other, and missing files."""
    if command != "run":
        return
    mistakes += [
        f"{origins[key]}: is the same file as {other}: write Wok's {name} log, or off"
        for key, name, others in (
            ("wok_error_log", "error", ("log",)),
            ("wok_access_log", "access", ("log", "wok_error_log")),
        )
        for other in others
        if values[key] and values[key] == values[other]
    ]
    if values["tls_key"] and not values["tls_certificate"]:
        mistakes.append(f"{origins['tls_key']}: is set without a certificate: set tls_certificate, too")
    mistakes += [
        f"{origins[key]}: {values[key]} cannot be read ({reason}): name a file that wok-exporter's user can read"
        for key in ("tls_certificate", "tls_key", "auth_file")
        if values[key] and (reason := why_unreadable(values[key]))
    ]
    mistakes += [
        f"{origins['messages']}: {path} cannot be read ({reason}): name an i18n.py or its directory,"
        " let wok-exporter's user read it, or write auto or off"
        for path in values["messages"] or ()
        if (reason := why_unreadable(path, may_be_directory=True))
    ]

    listen = values["listen"]
    if listen and not listen.is_loopback and not values["auth_file"]:
        warnings.append(
            f"{origins['listen']}: anyone who can reach {listen} can read who did what: set auth_file, or"
            f" listen on 127.0.0.1:{listen.port}"
        )
    elif listen and not listen.is_loopback and not values["tls_certificate"]:
        warnings.append(
            f"{origins['listen']}: passwords for {listen} are sent unencrypted: set tls_certificate"
        )


def _resource(environ: Mapping[str, str], mistakes: list[str]) -> tuple[dict[str, str], str]:
    """Return the attributes of `OTEL_RESOURCE_ATTRIBUTES`, and the service name of everything, if
    any.

    The form is `key=value,key=value`, with percent-encoding in both (OpenTelemetry specification,
    Resource SDK, "Specifying resource information via an environment variable").
    `OTEL_SERVICE_NAME` wins over `service.name`.
    """
    attributes: dict[str, str] = {}
    for pair in environ.get("OTEL_RESOURCE_ATTRIBUTES", "").split(","):
        if not pair.strip():
            continue
        key, equals, value = (part.strip() for part in pair.partition("="))
        if not equals or not key:
            mistakes.append(
                f"OTEL_RESOURCE_ATTRIBUTES: {shown(pair.strip())} is not key=value: write %3D for = and %2C for a"
                " comma inside"
            )
            continue
        try:
            attributes[_decoded(key)] = _decoded(value)
        except ValueError as e:
            mistakes.append(f"OTEL_RESOURCE_ATTRIBUTES: {shown(pair.strip())} {e}")
    named = attributes.pop("service.name", "")
    return attributes, environ.get("OTEL_SERVICE_NAME", "").strip() or named


def _decoded(text: str) -> str:
    if re.search(r"%(?![0-9A-Fa-f]{2})", text):
        raise ValueError("contains a % without two hexadecimal digits: write %25 for it")
    try:
        return unquote_to_bytes(text).decode()
    except UnicodeError:
        raise ValueError("does not decode to UTF-8: percent-encode its UTF-8 bytes") from None

"""The command line: the only part of the program that prints for people and that exits.

Data goes to stdout, everything else to stderr. Exit codes: 0 done; 1 done, but something is wrong with what was
looked at or sent; 2 the command, the configuration or the state does not allow it; 130 interrupted.
"""

from __future__ import annotations

import argparse
import getpass
import io
import logging
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from exporter import __version__
from exporter.config.config import Config, ConfigError, effective, load
from exporter.config.options import add_flags
from exporter.daemon.signals import SignalFlags

log = logging.getLogger(__name__)

WRONG = 1
REFUSED = 2
INTERRUPTED = 130

DESCRIPTION = """\
Wok's user request log as OpenTelemetry traces, log records and Prometheus metrics: how long did a task take or is
it taking, what else was requested meanwhile, and why did it fail."""

EPILOG = """\
examples:
  wok-exporter demo                                watch it work, on a simulated Wok
  wok-exporter check /var/lib/wok/user-requests.data
                                                   what would be understood; sends nothing
  wok-exporter tasks --failed                      what failed, and why
  wok-exporter trace /plugins/kimchi/vms/web01/clone
                                                   one request, its task, and what was asked meanwhile
  OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:4318 wok-exporter run
                                                   the daemon, sending to a collector on this host

Where traces and log records go is set by the OTEL_EXPORTER_OTLP_* variables of the OpenTelemetry specification;
everything else by /etc/wok-exporter.toml, WOK_EXPORTER_* variables and flags (docs/configuration.md)."""


class _Command:
    """A subcommand: its name, its one sentence, and the function that does it."""

    def __init__(self, name: str, sentence: str, do: Callable[[Config, argparse.Namespace], int]) -> None:
        self.name = name
        self.sentence = sentence
        self.do = do


def main(argv: Sequence[str] | None = None, environ: Mapping[str, str] | None = None) -> int:
    """Run one command and return its exit code."""
    environ = os.environ if environ is None else environ
    parser, commands = _parser()
    args = parser.parse_args(argv)
    # Names in the log are of any alphabet; the terminal may know only one.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    if args.command == "hash-password":
        return _hash_password()
    try:
        config = load(vars(args), environ, _SETTINGS.get(args.command, args.command))
    except ConfigError as error:
        for mistake in error.mistakes:
            print(f"error: {mistake}", file=sys.stderr)
        return REFUSED
    _log_to_stderr(config)
    try:
        code = commands[args.command].do(config, args)
        # Here rather than at exit, where a reader that has gone is an error.
        print(end="", flush=True)
        return code  # noqa: TRY300 - the flush belongs to what may fail
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of our output (head, less) has seen enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except _expected_errors() as error:
        print(f"error: {error}", file=sys.stderr)
        return REFUSED


def _parser() -> tuple[argparse.ArgumentParser, dict[str, _Command]]:
    parser = argparse.ArgumentParser(
        prog="wok-exporter",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"wok-exporter {__version__}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    commands = {command.name: command for command in _COMMANDS}
    for command in _COMMANDS:
        sub = subparsers.add_parser(
            command.name,
            help=command.sentence,
            description=command.sentence[0].upper() + command.sentence[1:] + ".",
            usage=f"wok-exporter {command.name} [option ...]{_ARGUMENTS.get(command.name, '')}",
            epilog=_NOTES.get(command.name),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        if command.name in _FILES_HELP:
            nargs = "*" if command.name == "tasks" else "+"
            sub.add_argument("files", nargs=nargs, metavar="FILE", type=Path, help=_FILES_HELP[command.name])
        _add_own_flags(sub, command.name)
        add_flags(sub, _SETTINGS.get(command.name, command.name))
    subparsers.add_parser(
        "hash-password",
        help="make the hash of a password for auth_file",
        description="Asks for a password, or reads it from standard input, and prints its hash: a line of auth_file"
        " is USER:HASH.",
        usage="wok-exporter hash-password",
    )
    return parser, commands


def _hash_password() -> int:
    from exporter.http.auth import hash_password  # noqa: PLC0415 - each command loads what it needs

    password = getpass.getpass() if sys.stdin.isatty() else sys.stdin.readline().rstrip("\n")
    if not password:
        print("error: there is no password: type one, or pass it on standard input", file=sys.stderr)
        return REFUSED
    print(hash_password(password))
    return 0


_ARGUMENTS = {
    "replay": " FILE ...",
    "check": " FILE ...",
    "tasks": " [FILE ...]",
    "trace": " ID | RECORD_ID | TARGET_URI [--file FILE ...]",
    "text": " FILE ...",
}
_FILES_HELP = {
    "replay": "logs: plain, .gz or .zst, rotated sets in any order",
    "check": "logs: plain, .gz or .zst",
    "tasks": "logs to look at, instead of the daemon's state",
    "text": "logs: plain, .gz or .zst",
}


_NOTES = {
    "run": """\
SIGTERM and SIGINT end it. SIGHUP makes it read the configuration again and go on with it, or with the one of before
where the new one has a mistake; at a terminal SIGHUP ends it. Under systemd it tells when it is ready, how it stands,
and, for the watchdog, that its pipeline moves."""
}
_SETTINGS = {"trace": "tasks"}
"""A command that looks at the same as another has the same settings."""


def _add_own_flags(sub: argparse.ArgumentParser, command: str) -> None:
    if command == "run":
        sub.add_argument(
            "--check-config", action="store_true", help="prove the configuration, print it, and exit"
        )
    if command in ("check", "tasks", "trace"):
        sub.add_argument("--json", action="store_true", help="print JSON, for programs")
    if command == "trace":
        sub.add_argument(
            "sought",
            metavar="ID",
            help="a trace id (a uuid will do) or span context, the record id of a request, or the TARGET_URI of tasks",
        )
        sub.add_argument(
            "--file",
            nargs="+",
            action="extend",
            type=Path,
            metavar="FILE",
            help="logs to look at, instead of the daemon's state",
        )
    if command == "tasks":
        sub.add_argument(
            "--watch", action="store_true", help="the daemon's tasks, drawn anew every second until q"
        )
        which = sub.add_mutually_exclusive_group()
        which.add_argument("--running", action="store_true", help="only what runs")
        which.add_argument("--failed", action="store_true", help="only what failed or was lost")
        sub.add_argument(
            "--limit", type=int, default=50, metavar="COUNT", help="ended tasks shown (default: 50)"
        )


def _run(config: Config, args: argparse.Namespace) -> int:
    from exporter.daemon.daemon import validate  # noqa: PLC0415 - the heavy half of the program
    from exporter.daemon.service import Service  # noqa: PLC0415
    from exporter.daemon.systemd import ServiceManager  # noqa: PLC0415

    _warn(config)
    if args.check_config:
        validate(config, os.environ)
        print(effective(config), end="")
        return 0
    is_at_terminal = sys.stdin is not None and sys.stdin.isatty()
    asked = SignalFlags.by_signals(hangup_stops=is_at_terminal)
    service = Service(
        config,
        os.environ,
        ServiceManager.of(os.environ),
        asked,
        again=lambda: load(vars(args), os.environ, "run"),
        in_force=_take_up,
    )
    service.run()
    log.info("stopped")
    return 0


def _warn(config: Config) -> None:
    for warning in config.warnings:
        log.warning("%s", warning)


def _take_up(config: Config) -> None:
    _log_to_stderr(config)
    _warn(config)


def _replay(config: Config, args: argparse.Namespace) -> int:
    from exporter.command.replay import Replay  # noqa: PLC0415 - the heavy half of the program
    from exporter.terminal.text import visible  # noqa: PLC0415

    stopped = SignalFlags.by_signals(hangup_stops=True)
    replay = Replay(config, args.files, os.environ, screen=sys.stderr)
    if not replay.endpoints:
        print(
            "error: there is nowhere to send to: set OTEL_EXPORTER_OTLP_ENDPOINT"
            " (or look at the log with `check`, `tasks` and `text`)",
            file=sys.stderr,
        )
        replay.close()
        return REFUSED
    missing = replay.run(stopped)
    for problem in replay.problems() if missing else []:
        print(f"error: {problem.sentence}", file=sys.stderr)
    for signal_name, count in missing.waiting.items():
        if count:
            print(f"error: {signal_name}: {count:,} items were not acknowledged", file=sys.stderr)
    for signal_name, reasons in missing.refused.items():
        for reason, count in reasons.items():
            print(f"error: {signal_name}: {count:,} items were refused ({reason})", file=sys.stderr)
    for damage in replay.damages:
        print(f"error: {visible(damage)}", file=sys.stderr)
    if stopped.is_set() or not replay.caught_up:
        where = f"--state {config.state}" if config.state else "--state DIRECTORY, which keeps what was done,"
        print(f"not finished: run it again with {where} to go on", file=sys.stderr)
        return INTERRUPTED if stopped.is_set() else WRONG
    return WRONG if missing or replay.damages else 0


def _check(config: Config, args: argparse.Namespace) -> int:
    from exporter.command.check import check  # noqa: PLC0415 - each command loads what it needs

    return check(config, args.files, as_json=args.json, out=sys.stdout)


def _tasks(config: Config, args: argparse.Namespace) -> int:
    from exporter.command.tasks import tasks  # noqa: PLC0415 - each command loads what it needs

    which: Any = "running" if args.running else "failed" if args.failed else "all"
    if args.watch:
        return _watch(config, args, which)
    return tasks(config, args.files, which=which, limit=args.limit, as_json=args.json, out=sys.stdout)


def _watch(config: Config, args: argparse.Namespace, which: Any) -> int:
    from exporter.command.tasks import watch  # noqa: PLC0415 - each command loads what it needs
    from exporter.terminal.fullscreen import FullScreen  # noqa: PLC0415

    if args.files or args.json:
        print("error: --watch shows the daemon's state to people: leave out FILE and --json", file=sys.stderr)
        return REFUSED
    if not sys.stdout.isatty() or os.environ.get("TERM") == "dumb":
        print(
            "error: --watch needs a terminal to draw on: without it the tasks are printed once,"
            " with --json for programs",
            file=sys.stderr,
        )
        return REFUSED
    return watch(config, FullScreen(sys.stdout, sys.stdin), which=which, limit=args.limit)


def _trace(config: Config, args: argparse.Namespace) -> int:
    from exporter.command.trace import trace  # noqa: PLC0415 - each command loads what it needs

    return trace(config, args.sought, args.file or [], as_json=args.json, out=sys.stdout)


def _text(config: Config, args: argparse.Namespace) -> int:
    from exporter.command.check import text  # noqa: PLC0415 - each command loads what it needs

    return text(config, args.files, out=sys.stdout)


def _demo(config: Config, args: argparse.Namespace) -> int:  # noqa: ARG001 - every command has these arguments
    from exporter.command.demo import demo  # noqa: PLC0415 - each command loads what it needs

    return demo(config, os.environ, out=sys.stdout, stopped=SignalFlags.by_signals(hangup_stops=True))


_COMMANDS = (
    _Command("run", "the daemon: follow the log, deliver, serve metrics", _run),
    _Command("replay", "read finished logs, deliver all of it, end when it is acknowledged", _replay),
    _Command("check", "tell what would be understood of a log; send nothing", _check),
    _Command("tasks", "what runs, what failed and why, and what else was requested meanwhile", _tasks),
    _Command(
        "trace", "one request with its tasks, on a scale of time with what was requested meanwhile", _trace
    ),
    _Command("text", "print a log as the text lines of Wok's download", _text),
    _Command("demo", "watch it all work, on a simulated Wok, with no backend needed", _demo),
)


def _expected_errors() -> tuple[type[Exception], ...]:
    """Errors whose message is for the operator: named late, so that a command loads only what it needs."""
    found: list[type[Exception]] = []
    for module, name in (
        ("exporter.source.archive", "ArchiveError"),
        ("exporter.store.writer", "StoreError"),
        ("exporter.deliver.otlp", "OtlpConfigError"),
        ("exporter.http.server", "ServerError"),
        ("exporter.http.auth", "AuthError"),
    ):
        loaded = sys.modules.get(module)
        if loaded is not None:
            found.append(getattr(loaded, name))
    return tuple(found)


class _JsonLines(logging.Formatter):
    """One JSON object a line, for log collectors."""

    def format(self, record: logging.LogRecord) -> str:
        import json  # noqa: PLC0415 - only where it was asked for

        line = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)


def _log_to_stderr(config: Config) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        _JsonLines()
        if config.log_format == "json"
        else logging.Formatter("%(asctime)s %(levelname)s %(message)s")
    )
    logging.basicConfig(level=config.log_level.upper(), handlers=[handler], force=True)

"""The command line: what each command does with its arguments, and the exit code.

Data goes to stdout, everything else to stderr. Exit codes: 0 success; 1 finished, but with problems
in the data or in delivery; 2 the command line, the configuration or the state is wrong; 130
interrupted.
"""

from __future__ import annotations

import argparse
import getpass
import io
import logging
import os
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from exporter.command import arguments, tasklog
from exporter.command.parser import Command, grammars, parse
from exporter.command.task_filters import TaskFilters, filters_of, nanos_at
from exporter.config.config import ConfigError, load
from exporter.config.options import Config
from exporter.daemon.signals import SignalFlags
from exporter.parse.timezone import load_zone
from exporter.terminal.log_format import formatter_of, priority_of
from exporter.terminal.text import visible

log = logging.getLogger(__name__)

WRONG = 1
REFUSED = 2
INTERRUPTED = 130


def main(argv: Sequence[str] | None = None, environ: Mapping[str, str] | None = None) -> int:
    """Run one command and return its exit code."""
    args = parse(COMMANDS, sys.argv[1:] if argv is None else argv)
    command = COMMANDS[args.command]
    if named := getattr(args, "environment_file", None):
        try:
            os.environ.update(_variables_of(named))
        except (OSError, ValueError) as error:
            _complain(f"--environment-file: cannot read {named}: {error}")
            return REFUSED
    environ = os.environ if environ is None else environ
    if sys.stdout is None:  # started with its standard output closed
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115 - open until the end
    # The log may contain any alphabet; the terminal may support only one.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        flags, variables = (
            (vars(args), environ) if command.is_loaded else ({}, {"WOK_EXPORTER_CONFIG": os.devnull})
        )
        config = load(flags, variables, command.settings_of or args.command)
    except ConfigError as error:
        for mistake in error.mistakes:
            _complain(mistake)
        return REFUSED
    _log_to_stderr(config)
    try:
        code = command.do(config, args)
        # Here rather than at exit, where a closed pipe would print an error.
        print(end="", flush=True)
        return code  # noqa: TRY300 - the flush may fail, too
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of our output (head, less) has closed the pipe.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except _expected_errors() as error:
        _complain(str(error))
        return REFUSED
    except Exception as error:
        _silence_stdout()
        _complain(_explained(error))
        log.debug("where it happened", exc_info=True)
        return REFUSED if isinstance(error, OSError) else WRONG


def _complain(mistake: str) -> None:
    """Print why a command ends, in the journal with the priority of an error.

    It may quote a path or a variable, which can have escape sequences in it.
    """
    prefix = priority_of("ERROR", sys.stderr, os.environ)
    print(f"{prefix}error: {visible(mistake)}", file=sys.stderr)


def _variables_of(path: Path) -> dict[str, str]:
    from exporter.config.environment_file import parse as parse_variables  # noqa: PLC0415 - only where it is used
    from exporter.config.files import why_unreadable  # noqa: PLC0415

    if reason := why_unreadable(path):
        raise OSError(reason)
    found = parse_variables(path.read_text("utf-8"))
    for mistake in found.mistakes:
        print(f"warning: {visible(str(path))}: {visible(mistake)}", file=sys.stderr)
    return found.variables


def _explained(error: Exception) -> str:
    """Return a sentence about an error that no part of the program has foreseen."""
    if isinstance(error, OSError) and error.strerror:
        named = f"{error.filename}: " if error.filename is not None else ""
        return f"{named}{error.strerror}. Check the paths that the command line and the configuration name"
    if isinstance(error, MemoryError):
        return "not enough memory"
    place = ""
    for frame in traceback.extract_tb(error.__traceback__):
        _, _, name = frame.filename.rpartition("/exporter/")
        place = f"{name}:{frame.lineno}"
    return (
        f"internal error: {type(error).__name__}: {error} ({place})."
        " Please report it, with the output of the same command with WOK_EXPORTER_LOG_LEVEL=debug"
    )


def _silence_stdout() -> None:
    """Discard what is not written yet: if stdout is full or closed, the end of the program would
    fail again.
    """
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _run(config: Config, args: argparse.Namespace) -> int:
    from exporter.daemon.service import Service  # noqa: PLC0415 - the heavy half of the program
    from exporter.daemon.systemd import ServiceManager  # noqa: PLC0415

    _warn(config)
    if args.check_config:
        return _check_config(config)
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


def _check_config(config: Config) -> int:
    from exporter.config.effective import effective, otel_facts  # noqa: PLC0415 - only what this needs
    from exporter.daemon.daemon import validate  # noqa: PLC0415
    from exporter.deliver.otlp_env import configured, read_settings  # noqa: PLC0415

    validate(config, os.environ)
    endpoints = configured(os.environ)
    protocols = {signal: read_settings(signal, os.environ).protocol for signal in endpoints}
    print(effective(config, otel_facts(endpoints, protocols, config)), end="")
    return 0


def _warn(config: Config) -> None:
    for warning in config.warnings:
        log.warning("%s", warning)


def _take_up(config: Config) -> None:
    _log_to_stderr(config)
    _warn(config)


def _replay(config: Config, args: argparse.Namespace) -> int:
    from exporter.command.replay import Replay  # noqa: PLC0415 - the heavy half of the program
    from exporter.deliver.otlp_env import why_unconfigured  # noqa: PLC0415

    stopped = SignalFlags.by_signals(hangup_stops=True)
    replay = Replay(config, args.files, os.environ, screen=sys.stderr)
    if not replay.endpoints:
        print(
            f"error: no backend is configured: {why_unconfigured(os.environ)}"
            " (or inspect the log with `check`, `tasks` or `text`)",
            file=sys.stderr,
        )
        replay.close()
        return REFUSED
    missing = replay.run(stopped)
    for problem in replay.problems() if missing else []:
        _complain(problem.sentence)
    for signal_name, count in missing.waiting.items():
        if count:
            print(f"error: {signal_name}: {count:,} items were not acknowledged", file=sys.stderr)
    for signal_name, reasons in missing.refused.items():
        for reason, count in reasons.items():
            print(f"error: {signal_name}: {count:,} items were rejected ({reason})", file=sys.stderr)
    for damage in replay.damages:
        print(f"error: {visible(damage)}", file=sys.stderr)
    if stopped.is_set() or not replay.caught_up:
        where = f"--state {config.state}" if config.state else "--state DIRECTORY, which saves the progress,"
        print(f"not finished: run it again with {where} to continue", file=sys.stderr)
        return INTERRUPTED if stopped.is_set() else WRONG
    why = replay.why_nothing()
    if why:
        _complain(why)
    return WRONG if missing or replay.damages or why else 0


def _backfill(config: Config, args: argparse.Namespace) -> int:
    from exporter.command.backfill import backfill  # noqa: PLC0415 - each command loads what it needs

    zone = load_zone(config.timezone) if config.timezone else None
    since = nanos_at(args.since, time.time_ns(), zone)
    return backfill(config, args.files, since=max(0, since or 0), out=sys.stdout)


def _check(config: Config, args: argparse.Namespace) -> int:
    from exporter.command.check import check  # noqa: PLC0415 - each command loads what it needs

    return check(config, args.files, as_json=args.json, out=sys.stdout)


def _tasks(config: Config, args: argparse.Namespace) -> int:
    from exporter.command.tasks import tasks  # noqa: PLC0415 - each command loads what it needs

    try:
        filters = filters_of(args)
    except ValueError as error:
        _complain(str(error))
        return REFUSED
    which: Any = "running" if args.running else "failed" if args.failed else "all"
    if args.watch:
        return _watch(config, args, which, filters)
    return tasks(
        config,
        args.files,
        which=which,
        filters=filters,
        limit=args.limit,
        as_json=args.json,
        out=sys.stdout,
    )


def _watch(config: Config, args: argparse.Namespace, which: Any, filters: TaskFilters) -> int:
    from exporter.command.tasks import watch  # noqa: PLC0415 - each command loads what it needs
    from exporter.terminal.fullscreen import FullScreen  # noqa: PLC0415

    if args.files or args.json:
        print("error: --watch shows the daemon's state on a terminal: omit FILE and --json", file=sys.stderr)
        return REFUSED
    if not sys.stdout.isatty() or os.environ.get("TERM") == "dumb":
        print(
            "error: --watch needs a terminal: without --watch the tasks are printed once,"
            " and as JSON with --json",
            file=sys.stderr,
        )
        return REFUSED
    return watch(config, FullScreen(sys.stdout, sys.stdin), which=which, filters=filters, limit=args.limit)


def _trace(config: Config, args: argparse.Namespace) -> int:
    from exporter.command.trace import trace  # noqa: PLC0415 - each command loads what it needs

    return trace(config, " ".join(args.sought), args.file or [], as_json=args.json, out=sys.stdout)


def _text(config: Config, args: argparse.Namespace) -> int:
    from exporter.command.check import text  # noqa: PLC0415 - each command loads what it needs

    return text(config, args.files, out=sys.stdout)


def _doctor(config: Config, args: argparse.Namespace) -> int:  # noqa: ARG001 - it loads its own configuration
    from exporter.command.doctor.doctor import doctor  # noqa: PLC0415 - each command loads what it needs

    # A mistake in the log level is a finding, not the end: only errors of libraries would be
    # logged.
    return doctor(
        vars(args),
        os.environ,
        environment_file=args.service_environment,
        as_json=args.json,
        out=sys.stdout,
        user=args.user,
    )


def _demo(config: Config, args: argparse.Namespace) -> int:  # noqa: ARG001 - every command has these arguments
    from exporter.command.demo import demo  # noqa: PLC0415 - each command loads what it needs

    return demo(config, os.environ, out=sys.stdout, stopped=SignalFlags.by_signals(hangup_stops=True))


def _tasklog(config: Config, args: argparse.Namespace) -> int:  # noqa: ARG001 - every command has these arguments
    return tasklog.run(args)


def _completion(config: Config, args: argparse.Namespace) -> int:  # noqa: ARG001 - every command has these arguments
    from exporter.command.completion import script  # noqa: PLC0415 - each command loads what it needs

    print(script(args.shell, grammars(COMMANDS)), end="")
    return 0


def _hash_password(config: Config, args: argparse.Namespace) -> int:  # noqa: ARG001 - every command has these arguments
    from exporter.http.auth import hash_password  # noqa: PLC0415 - each command loads what it needs

    password = getpass.getpass() if sys.stdin.isatty() else sys.stdin.readline().rstrip("\n")
    if not password:
        print("error: the password is empty: type one, or pass it on standard input", file=sys.stderr)
        return REFUSED
    print(hash_password(password))
    return 0


COMMANDS: Mapping[str, Command] = {
    "run": Command(
        _run,
        "run the daemon: follow the log, send traces and log records, serve metrics",
        arguments=arguments.run_arguments,
        note=arguments.RUN_NOTE,
    ),
    "replay": Command(
        _replay,
        "read finished logs, send everything, and exit when it is acknowledged",
        usage=" FILE ...",
        arguments=arguments.files("+", "log files: plain, .gz or .zst, rotated sets in any order"),
    ),
    "backfill": Command(
        _backfill,
        "add records from before the daemon's first start to the page, tasks and trace",
        usage=" [FILE ...]",
        arguments=arguments.backfill_arguments,
        note=arguments.BACKFILL_NOTE,
    ),
    "check": Command(
        _check,
        "report how much of a log can be parsed; sends nothing",
        usage=" FILE ...",
        arguments=arguments.check_arguments,
    ),
    "tasks": Command(
        _tasks,
        "list running and failed tasks, who started each, and concurrent requests",
        usage=" [FILE ...]",
        arguments=arguments.tasks_arguments,
    ),
    "trace": Command(
        _trace,
        "show a request with its tasks and concurrent requests on one time scale",
        usage=" ID | NAME | TARGET_URI [--file FILE ...]",
        settings_of="tasks",
        arguments=arguments.trace_arguments,
        note=arguments.TRACE_NOTE,
    ),
    "text": Command(
        _text,
        "print a log as the text lines of Wok's download",
        usage=" FILE ...",
        arguments=arguments.files("+", "log files: plain, .gz or .zst"),
    ),
    "doctor": Command(
        _doctor,
        "find out why nothing arrives, and what to do; changes nothing",
        settings_of="run",
        arguments=arguments.doctor_arguments,
        note=arguments.DOCTOR_NOTE,
        is_loaded=False,
    ),
    "demo": Command(_demo, "watch the exporter work on a simulated Wok; needs no backend"),
    "tasklog": Command(
        _tasklog,
        "install, check or remove the plug-in that makes Wok log starts and ends of tasks",
        usage=" install | status | remove [option ...]",
        arguments=tasklog.add_arguments,
        note=tasklog.HELP,
        is_configured=False,
    ),
    "completion": Command(
        _completion,
        "print a script that completes command lines in bash, zsh or fish",
        usage=" bash | zsh | fish",
        arguments=arguments.completion_arguments,
        note=arguments.COMPLETION_NOTE,
        is_configured=False,
        is_loaded=False,
    ),
    "hash-password": Command(
        _hash_password,
        "read a password and print its hash, for a line USER:HASH of auth_file",
        is_configured=False,
        is_loaded=False,
    ),
}


def _expected_errors() -> tuple[type[Exception], ...]:
    """Errors whose message is for the operator; looked up late, so that a command loads only what
    it needs.
    """
    found: list[type[Exception]] = []
    for module, name in (
        ("exporter.source.archive", "ArchiveError"),
        ("exporter.store.writer", "StoreError"),
        ("exporter.deliver.otlp_env", "OtlpConfigError"),
        ("exporter.http.server", "ServerError"),
        ("exporter.http.auth", "AuthError"),
    ):
        loaded = sys.modules.get(module)
        if loaded is not None:
            found.append(getattr(loaded, name))
    return tuple(found)


def _log_to_stderr(config: Config, environ: Mapping[str, str] = os.environ) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter_of(config.log_format, sys.stderr, environ))
    logging.basicConfig(level=config.log_level.upper(), handlers=[handler], force=True)

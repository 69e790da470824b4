"""The arguments and flags of each command besides its options, and the notes below its help."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from exporter.command.completion import SHELLS
from exporter.command.task_filters import add_filters, moment


def files(nargs: str, text: str) -> Callable[[argparse.ArgumentParser], None]:
    """Return what adds the argument FILE."""

    def add(sub: argparse.ArgumentParser) -> None:
        sub.add_argument("files", nargs=nargs, metavar="FILE", type=Path, help=text)

    return add


def json_flag(sub: argparse.ArgumentParser) -> None:
    """Add --json."""
    sub.add_argument("--json", action="store_true", help="print JSON, for programs")


def run_arguments(sub: argparse.ArgumentParser) -> None:
    """Add the flags of `run`."""
    sub.add_argument(
        "--check-config", action="store_true", help="validate the configuration, print it as TOML, and exit"
    )
    _environment_file(sub)


def _environment_file(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "--environment-file",
        metavar="FILE",
        type=Path,
        help="set the variables of a file, read as systemd reads it, such as /etc/default/wok-exporter",
    )


def backfill_arguments(sub: argparse.ArgumentParser) -> None:
    """Add the arguments of `backfill`."""
    files("*", "log files to read instead of the log and its rotated files")(sub)
    sub.add_argument(
        "--since",
        type=moment,
        metavar="WHEN",
        help="leave out older records: 2026-11-23T08:00, or 30d before now",
    )
    _environment_file(sub)


def check_arguments(sub: argparse.ArgumentParser) -> None:
    """Add the arguments of `check`."""
    files("+", "log files: plain, .gz or .zst")(sub)
    json_flag(sub)


def tasks_arguments(sub: argparse.ArgumentParser) -> None:
    """Add the arguments of `tasks`."""
    files("*", "log files to read instead of the daemon's state")(sub)
    json_flag(sub)
    sub.add_argument(
        "--watch",
        action="store_true",
        help="show the daemon's tasks, updated every second, until q is pressed",
    )
    which = sub.add_mutually_exclusive_group()
    which.add_argument("--running", action="store_true", help="only running tasks")
    which.add_argument("--failed", action="store_true", help="only failed and lost tasks")
    sub.add_argument(
        "--limit", type=int, default=50, metavar="COUNT", help="how many finished tasks to show (default: 50)"
    )
    add_filters(sub)


def trace_arguments(sub: argparse.ArgumentParser) -> None:
    """Add the arguments of `trace`."""
    json_flag(sub)
    sub.add_argument(
        "sought",
        nargs="+",
        metavar="ID",
        help="a trace, span, record or task id, or its first 4 characters or more; the TARGET_URI of tasks; or the"
        " name of a resource, such as web01 or guest web01. If several requests match, they are listed",
    )
    sub.add_argument(
        "--file",
        nargs="+",
        action="extend",
        type=Path,
        metavar="FILE",
        help="log files to read instead of the daemon's state",
    )


TRACE_NOTE = """\
Exit code: 0 if a request was shown; 1 if nothing matches, or if several requests match and are listed
(with --json, all of them are printed in full, at most 20); 2 if the state or a file cannot be read."""


COMPLETION_NOTE = """\
The packages install these scripts. Elsewhere: source <(wok-exporter completion bash) in ~/.bashrc;
wok-exporter completion zsh > DIRECTORY/_wok-exporter for a directory of $fpath; wok-exporter completion fish
> ~/.config/fish/completions/wok-exporter.fish."""


def completion_arguments(sub: argparse.ArgumentParser) -> None:
    """Add the argument of `completion`."""
    sub.add_argument("shell", choices=tuple(SHELLS), metavar="SHELL", help="bash, zsh or fish")


def doctor_arguments(sub: argparse.ArgumentParser) -> None:
    """Add the flags of `doctor`."""
    json_flag(sub)
    sub.add_argument(
        "--environment-file",
        dest="service_environment",
        metavar="FILE",
        type=Path,
        help="the file with the service's variables (default: /etc/default/wok-exporter, if it exists)",
    )
    sub.add_argument(
        "--user",
        metavar="NAME",
        default="wok-exporter",
        help="if run as root, check whether this user can read the files (default: wok-exporter)",
    )


DOCTOR_NOTE = """\
doctor checks, in the order in which data flows: the service's variables, the configuration, the installed
Wok, its logs and their time zone, the state, the running daemon, each backend (with an empty request), and
the clock. The first problem is the one to solve first. Exit code: 0 without a problem, otherwise 1."""

BACKFILL_NOTE = """\
Use it when the daemon has started to read at start_at, and the page, `tasks` and `trace` lack what was
before. Stop the daemon, run this as root or as the daemon's user, and start the daemon again: it loses
nothing. Metrics do not change, and nothing is sent: to send older records, use replay. A second run adds
nothing twice, and a run that is interrupted changes nothing. Exit code: 0 done; 1 done, but a file is
damaged or is no log; 2 nothing was changed."""

RUN_NOTE = """\
SIGTERM and SIGINT stop the daemon. SIGHUP makes it read the configuration again and continue with it,
or with the previous one if the new one has an error. In a terminal, SIGHUP stops the daemon. Under
systemd, it reports readiness and status, and feeds the watchdog while its pipeline makes progress."""

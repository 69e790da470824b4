"""Checks of the host: the service's variables, the installed Wok and its plug-in, the clock."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from exporter.command.doctor.findings import Finding, ok, problem, warning
from exporter.config.environment_file import parse
from exporter.config.files import may_exist, why_unreadable
from exporter.wok.message_tables import default_paths

ENVIRONMENT_FILE = Path("/etc/default/wok-exporter")
PLUGIN = "wok/plugins/tasklog"
OURS = ("OTEL_", "WOK_EXPORTER_")
SECONDS_MAX = 10
CLOCK_UNSYNCHRONISED = 5
"""TIME_ERROR of adjtimex(2)."""
TIMEX_BYTES = 512
"""More than struct timex has on any platform; modes 0 at its beginning only reads."""


class Environment(NamedTuple):
    """The variables that the service has, and what was found about them."""

    variables: Mapping[str, str]
    findings: list[Finding]


def service_environment(environ: Mapping[str, str], path: Path | None) -> Environment:
    """Return the variables of the service: those of its file, read as systemd reads it, if there is
    one.

    Variables of the shell are no variables of the service: one that is only there is a warning.
    """
    file = path or ENVIRONMENT_FILE
    check = "environment"
    if path is None and not may_exist(file):
        return Environment(environ, [ok(check, f"{file} does not exist: using the variables of this shell")])
    reason = why_unreadable(file)
    if not reason:
        try:
            text = file.read_text("utf-8")
        except (OSError, ValueError) as error:
            reason = str(error)
    if reason:
        found = (problem if path else warning)(
            check,
            f"cannot read {file} ({reason}): using the variables of this shell",
            "Run doctor as root (sudo), to see what the service sees",
        )
        return Environment(environ, [found])
    parsed = parse(text)
    others = {name: value for name, value in environ.items() if not name.startswith(OURS)}
    findings = [
        problem(check, f"{file}: {mistake}", "Write NAME=value on each line, without export and without $")
        for mistake in parsed.mistakes
    ]
    ours = {name: value for name, value in environ.items() if name.startswith(OURS)}
    findings += [
        warning(
            check,
            f"{name} is set in this shell, but {'differs' if name in parsed.variables else 'is not'} in {file}",
            f"The service does not see it: write it to {file}, then restart wok-exporter",
        )
        for name, value in sorted(ours.items())
        if parsed.variables.get(name) != value and name != "WOK_EXPORTER_CONFIG"
    ]
    names = sorted(name for name in parsed.variables if name.startswith(OURS))
    if not parsed.mistakes:
        findings.insert(0, ok(check, f"{file} sets {', '.join(names) or 'nothing'}"))
    return Environment({**others, **parsed.variables}, findings)


def wok(libraries: list[Path]) -> Iterator[Finding]:
    """Say which Wok is installed, and whether the plug-in for exact task records is linked."""
    release = _package_version("wok")
    if not libraries:
        said = (
            f"package wok {release}, but its Python code was not found"
            if release
            else "Wok is not installed here"
        )
        yield warning(
            "wok",
            said,
            "This is fine for a log that comes from another host. Otherwise install Wok, and start wokd",
        )
        return
    yield ok("wok", f"Wok {release or '(release unknown)'} in {libraries[0].parent}")
    link = libraries[0].parents[1] / PLUGIN
    if not os.path.lexists(link):
        yield ok("plug-in", "tasklog is not linked (optional: it makes the matching of tasks exact)")
    elif not (link / "__init__.py").exists():
        yield problem(
            "plug-in",
            f"{link} leads nowhere",
            "Reinstall wok-exporter, or remove the link, then restart wokd",
        )
    else:
        yield ok("plug-in", f"tasklog is linked: {link} -> {os.path.realpath(link)}")


def installed_wok(prefix: Path | None = None) -> list[Path]:
    """Return the message tables of the installed Wok, its own first; empty without one."""
    tables = default_paths([prefix]) if prefix else default_paths()
    return [table for table in tables if table.parent.name == "wok"]


def _package_version(name: str) -> str:
    for command in (
        ["dpkg-query", "-W", "-f=${Version}", name],
        ["rpm", "-q", "--qf", "%{VERSION}-%{RELEASE}", name],
    ):
        program = shutil.which(command[0])
        if program is None:
            continue
        try:
            done = subprocess.run(  # noqa: S603 - two fixed commands
                [program, *command[1:]], capture_output=True, text=True, timeout=SECONDS_MAX, check=False
            )
        except (OSError, subprocess.TimeoutExpired):
            continue
        if done.returncode == 0 and done.stdout.strip():
            return done.stdout.strip()
    return ""


def clock(now: float, committed: float) -> Iterator[Finding]:
    """Say whether the system's clock is synchronised, and not behind what the state has seen."""
    if committed > now + 60:
        yield problem(
            "clock",
            f"the clock is {committed - now:.0f} s behind the last time that the state was written",
            "The clock was set back: check it (timedatectl). Durations may be wrong until it has caught up",
        )
        return
    try:
        status = ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(TIMEX_BYTES))
    except (OSError, AttributeError):
        return
    if status == CLOCK_UNSYNCHRONISED:
        yield warning(
            "clock",
            "the clock is not synchronised",
            "Start a time service (systemctl enable --now systemd-timesyncd, or chronyd). In a container, ignore this",
        )
    else:
        yield ok("clock", "synchronised")

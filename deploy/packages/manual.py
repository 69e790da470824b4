"""The manual page, made from the program's help."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

_FILES = """\
.SH FILES
.TP
.I /etc/wok\\-exporter.toml
The configuration: every setting with its default.
.TP
.I /etc/default/wok\\-exporter
Environment variables of the service, such as OTEL_EXPORTER_OTLP_ENDPOINT.
.TP
.I /var/lib/wok\\-exporter
The state of the service: read positions, counters, history and queued data.
.TP
.I /usr/share/wok\\-exporter
Rules for Prometheus and dashboards for Grafana.
.TP
.I /usr/share/doc/wok\\-exporter
The documentation.
.SH EXIT STATUS
0 success; 1 finished, but with problems in the log or in delivery; 2 the command line, the configuration
or the state is wrong; 130 interrupted.
"""


def manual_page(program: Path, version: str, date: str) -> str:
    """Return wok-exporter(1) as roff, made from the help of the program and its commands.

    `date` is the date of the sources.
    """
    general = _help(program)
    commands = re.findall(r"^    ([a-z-]+)(?: |$)", general, re.MULTILINE)
    parts = [
        f'.TH WOK\\-EXPORTER 1 "{date}" "wok\\-exporter {version}" "User Commands"\n',
        ".SH NAME\nwok\\-exporter \\- Wok's request log as traces, log records and metrics\n",
        ".SH SYNOPSIS\n.B wok\\-exporter\n.I COMMAND\n[option ...]\n",
        f".SH DESCRIPTION\n{_verbatim(general)}",
        ".SH COMMANDS\n",
        *(f".SS {_escaped(command)}\n{_verbatim(_help(program, command))}" for command in commands),
        _FILES,
    ]
    return "".join(parts)


def _help(program: Path, *command: str) -> str:
    # the width of a manual page on a terminal of 80 columns, without its indentation
    environ = {**os.environ, "COLUMNS": "72", "LC_ALL": "C.UTF-8"}
    done = subprocess.run(
        [program, *command, "--help"], env=environ, capture_output=True, text=True, check=True
    )
    return done.stdout


def _verbatim(text: str) -> str:
    lines = (rf"\&{line}" if line.startswith((".", "'")) else line for line in _escaped(text).splitlines())
    return "\n".join([".nf", *lines, ".fi", ""])


def _escaped(text: str) -> str:
    return text.replace("\\", "\\e").replace("-", "\\-")

"""The manual page, made of what the program says of itself."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

_FILES = """\
.SH FILES
.TP
.I /etc/wok\\-exporter.toml
The configuration; every setting stands in it with its default.
.TP
.I /etc/default/wok\\-exporter
Variables of the service, such as OTEL_EXPORTER_OTLP_ENDPOINT.
.TP
.I /var/lib/wok\\-exporter
The state of the service: what was read and counted, and what is still to be sent.
.TP
.I /usr/share/wok\\-exporter
Rules for Prometheus and dashboards for Grafana.
.TP
.I /usr/share/doc/wok\\-exporter
The documentation.
.SH EXIT STATUS
0 done; 1 done, but something is wrong with what was looked at or sent; 2 the command, the configuration or the state does not allow it;
130 interrupted.
"""


def manual_page(program: Path, version: str, date: str) -> str:
    """Return wok-exporter(1) as roff, of the help of a program and of its commands; `date` is that of the sources."""
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
    # as wide as a manual page is on a terminal of 80 columns, less its indent
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

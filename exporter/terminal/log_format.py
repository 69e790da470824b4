"""The program's own log on stderr: for a terminal or a file, for journald, and as JSON.

journald adds the time and takes the priority from a prefix (sd-daemon(3)); elsewhere a line has its
time with the offset of its zone, so that it can be compared with the times of another host.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from datetime import datetime
from typing import Literal, TextIO

PRIORITIES = {"DEBUG": 7, "INFO": 6, "WARNING": 4, "ERROR": 3, "CRITICAL": 2}
"""syslog(3)'s priorities, as journald reads them."""


def formatter_of(
    form: Literal["text", "json"], stream: TextIO, environ: Mapping[str, str]
) -> logging.Formatter:
    """Return the format of a log that is written to `stream`."""
    if form == "json":
        return _JsonLines()
    return _Journal() if is_journal(stream, environ) else _Text()


def is_journal(stream: TextIO, environ: Mapping[str, str]) -> bool:
    """Return whether a stream is the journal's: JOURNAL_STREAM has its device and inode
    (systemd.exec(5)).
    """
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return environ.get("JOURNAL_STREAM", "") == f"{status.st_dev}:{status.st_ino}"


def priority_of(level: str, stream: TextIO, environ: Mapping[str, str]) -> str:
    """Return the prefix of a line of this level, empty if the stream is not the journal's."""
    return f"<{PRIORITIES[level]}>" if is_journal(stream, environ) else ""


class _Text(logging.Formatter):
    """`2026-11-28 00:12:30 -03:00 WARNING message`."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s")

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: ARG002, N802
        """Return the record's time with its offset."""
        when = datetime.fromtimestamp(record.created).astimezone().isoformat(" ", "seconds")
        return f"{when[:-6]} {when[-6:]}"


class _Journal(logging.Formatter):
    """`<4>message`; each line of a message has the prefix."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record's lines."""
        priority = PRIORITIES.get(record.levelname, 6)
        return "\n".join(f"<{priority}>{line}" for line in super().format(record).splitlines())


class _JsonLines(logging.Formatter):
    """One JSON object on each line, for log collectors."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as an object."""
        when = datetime.fromtimestamp(record.created).astimezone()
        line = {
            "time": when.isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)

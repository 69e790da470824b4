"""Checks of Wok's logs: found, readable, growing, in a known format, in the configured time
zone.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from exporter.command.check_report import ZoneWords, offset_text, shown_time
from exporter.command.doctor.as_user import why_unreadable_as
from exporter.command.doctor.findings import Finding, ok, problem, warning
from exporter.command.file_kind import not_a_log
from exporter.config.config import WOK_ACCESS_LOG
from exporter.config.options import Config
from exporter.parse.parser import Parser
from exporter.parse.timezone import Zones
from exporter.records import NANOS, Line, Record, Rejected
from exporter.source.rotation import paths_of
from exporter.terminal.task_table import duration
from exporter.wok.error_log import ErrorLog, Mark
from exporter.wok.log_time import TIME, nanos_of

SAMPLE_BYTES = 1024 * 1024
"""The end of the log: hundreds of records, and whatever Wok writes now."""
QUIET_SECONDS = 7 * 86_400
FUTURE_SECONDS = 300
SHIFT_SECONDS = 1800
"""Time zones differ by multiples of half an hour (and three of a quarter)."""
SHIFT_TOLERANCE_SECONDS = 60
SHIFT_SECONDS_MAX = 15 * 3600
_TIME = re.compile(TIME)


class Sample(NamedTuple):
    """What is at the end of a log: `last` is the time of the newest record in nanoseconds, 0
    without one.
    """

    findings: list[Finding]
    last: int = 0


def log(config: Config, user: str, now: float) -> Sample:
    """Check the user request log."""
    path = config.log
    who = f" as user {user}" if user else ""
    reason = why_unreadable_as(user, path)
    if reason:
        if not os.path.lexists(path):
            remedy = (
                "Check `log` in the configuration, or start wokd: it creates the log with its first request"
            )
        else:
            remedy = f"Give the exporter's user read access (setfacl -m u:wok-exporter:r {path}), and x on its directory"
        return Sample([problem("log", f"cannot read {path}{who}: {reason}", remedy)])
    try:
        status = path.stat()
        lines = _end_of(path)
    except OSError as error:
        return Sample(
            [problem("log", f"cannot read {path}: {error.strerror}", "Check the disk and the permissions")]
        )
    if not_a_log(path):
        return Sample([problem("log", f"{path} is {not_a_log(path)}", "Set `log` to Wok's user request log")])
    if not status.st_size:
        return Sample(
            [
                warning(
                    "log",
                    f"{path} is empty",
                    "Wait for the first request to Wok, such as a login; start wokd",
                )
            ]
        )
    age = max(0.0, now - status.st_mtime)
    said = f"{path}: {status.st_size:,} bytes, written {duration(int(age * NANOS))} ago, readable{who}"
    if age > QUIET_SECONDS:
        grows = warning(
            "log", said, "Nothing was written for days: is wokd running, and is this the log it writes to?"
        )
    else:
        grows = ok("log", said)
    found = _dialect(config, lines)
    return Sample([grows, *found.findings, *_zone(config, found, now, status.st_mtime)], found.last)


class _Parsed(NamedTuple):
    findings: list[Finding]
    last: int
    words: ZoneWords


def _dialect(config: Config, lines: Sequence[Line]) -> _Parsed:
    parser = Parser("doctor", Zones(config.timezone), excerpts=False)
    words = ZoneWords(config)
    dialects: Counter[str] = Counter()
    rejected = since = last = 0
    for line in lines:
        for item in parser.feed(line):
            if isinstance(item, Record):
                dialects[item.dialect] += 1
                words.record(item, line.data)
                last = max(last, item.time)
                since = 0
            elif isinstance(item, Rejected):
                rejected += 1
                since += 1
    records = dialects.total()
    said = (
        f"the last {records + rejected:,} lines: {records:,} parsed ({', '.join(dialects)}), {rejected:,} not"
    )
    remedy = f"Run `wok-exporter check {config.log}` to see which lines and why"
    if not records:
        found = problem("format", f"none of the last {rejected:,} lines can be parsed", remedy)
    elif since >= min(20, records):
        found = problem("format", f"the last {since:,} lines cannot be parsed", f"Was Wok upgraded? {remedy}")
    elif rejected:
        found = warning("format", said, remedy)
    else:
        found = ok("format", said.removesuffix(", 0 not"))
    return _Parsed([found], last, words)


def _zone(config: Config, parsed: _Parsed, now: float, written: float) -> Iterator[Finding]:
    if not parsed.last:
        return
    name = config.timezone or "this host's"
    remedy = "Set `timezone` to the zone of Wok's host, such as America/Sao_Paulo"
    for word, (own, configured) in parsed.words.contradicting.items():
        yield problem(
            "time zone",
            f"the log's times are {word} ({offset_text(own)}), the configured zone is {name} ({offset_text(configured)})",
            remedy,
        )
        return
    last = parsed.last / NANOS
    if last > now + FUTURE_SECONDS:
        yield problem(
            "time zone", f"the last record is {duration(int((last - now) * NANOS))} in the future", remedy
        )
    elif is_shift(written - last) and not _says_something(parsed.words):
        yield warning(
            "time zone",
            f"the last record seems to be {duration(int(abs(written - last) * NANOS))} older than its line: a shift by a"
            " time zone?",
            remedy,
        )
    else:
        yield ok("time zone", f"{name}, consistent with the log")


def _says_something(words: ZoneWords) -> bool:
    return any(word and word not in words.meaningless for word in words.counts)


def is_shift(seconds: float) -> bool:
    """Return whether a difference of times looks like one of time zones: a multiple of half an
    hour.
    """
    nearest = round(seconds / SHIFT_SECONDS) * SHIFT_SECONDS
    return (
        nearest != 0
        and abs(seconds) <= SHIFT_SECONDS_MAX
        and abs(seconds - nearest) <= SHIFT_TOLERANCE_SECONDS
    )


def error_log(config: Config, user: str, root: Path) -> Iterator[Finding]:
    """Check wok-error.log: readable, in the configured zone, and what it says of restarts."""
    path = config.wok_error_log or root / "var/log/wok/wok-error.log"
    if config.wok_error_log is None and config.origins["wok_error_log"] != "default":
        yield ok("wok-error.log", "switched off: tasks that a restart of wokd interrupted end as unknown")
        return
    reason = why_unreadable_as(user, path)
    if reason:
        yield warning(
            "wok-error.log",
            f"cannot read {path}{f' as user {user}' if user else ''}: {reason}",
            f"Without it, tasks that a restart of wokd interrupted are found late. Give the exporter's user read access"
            f" (setfacl -m u:wok-exporter:r {path})",
        )
        return
    zones = Zones(config.timezone)
    starts = _starts(path, zones)
    last = f", the last one {shown_time(max(starts), config)}" if starts else ""
    yield ok("wok-error.log", f"{path}: {len(starts):,} start{'' if len(starts) == 1 else 's'} of wokd{last}")
    newest = _last_time(path, zones)
    try:
        written = path.stat().st_mtime
    except OSError:
        return
    if newest and is_shift(written - newest / NANOS):
        yield problem(
            "wok-error.log",
            f"its last line is from {shown_time(newest, config)}, but was written {duration(int(abs(written - newest / NANOS) * NANOS))}"
            f" {'later' if written > newest / NANOS else 'earlier'}: its times are in another time zone",
            "Set `timezone` to the zone of Wok's host: times in wok-error.log have no zone of their own",
        )


def access_log(config: Config, user: str, root: Path) -> Finding:
    """Check wok-access.log: readable."""
    path = config.wok_access_log or root / WOK_ACCESS_LOG
    if config.wok_access_log is None and config.origins["wok_access_log"] != "default":
        return ok("wok-access.log", "switched off: renames and failed logins keep the status 500")
    if config.wok_access_log is None and not os.path.lexists(path):
        return ok("wok-access.log", f"{path} does not exist: renames and failed logins keep the status 500")
    if reason := why_unreadable_as(user, path):
        return warning(
            "wok-access.log",
            f"cannot read {path}{f' as user {user}' if user else ''}: {reason}",
            f"Without it, renames and failed logins keep the status 500. Give the exporter's user read access"
            f" (setfacl -m u:wok-exporter:r {path}), or set wok_access_log to off",
        )
    return ok("wok-access.log", f"{path} can be read")


def _starts(path: Path, zones: Zones) -> list[int]:
    """Return the times of wokd's starts, from the same lines that make the
    daemon believe in one.
    """
    reader = ErrorLog(zones)
    starts: list[int] = []
    for file in paths_of(path):
        if file.name.endswith((".gz", ".zst")):
            continue
        try:
            lines = _end_of(file)
        except OSError:
            continue
        for line in lines:
            starts += [
                item.time for item in reader.feed(line.data) if isinstance(item, Mark) and item.is_chained
            ]
    return starts


def _last_time(path: Path, zones: Zones) -> int:
    for line in reversed(_end_of(path)):
        if match := _TIME.match(line.data):
            return nanos_of(match[1], match[2], match[3], match[4], zones) or 0
    return 0


def _end_of(path: Path) -> list[Line]:
    """Return the complete lines at the end of a file."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        start = max(0, size - SAMPLE_BYTES)
        file.seek(start)
        data = file.read(SAMPLE_BYTES)
    if start:
        _, newline, rest = data.partition(b"\n")
        start += len(data) - len(rest) if newline else 0
        data = rest if newline else data
    lines: list[Line] = []
    for piece in data.split(b"\n")[:-1]:
        lines.append(Line(bytes(16), start, piece, len(piece)))
        start += len(piece) + 1
    return lines

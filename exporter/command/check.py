"""`check` and `text`: how much of a log can be parsed, and the log as Wok's own text form; both
without state.

`check` runs the parser and the correlator as the daemon does, and only counts. `text` runs only the
parser.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Final, TextIO

from exporter.command.check_report import CheckReport, ErrorSurvey, as_object, report
from exporter.command.file_kind import names_of_kinds, not_a_log
from exporter.command.text import render
from exporter.config.options import Config
from exporter.correlate.correlator import Correlator
from exporter.correlate.error_evidence import ErrorEvidence
from exporter.parse.parser import Parser
from exporter.parse.timezone import Zones, load_zone
from exporter.pipeline.answers import AccessLog
from exporter.pipeline.from_config import archive_of, messages_of, quotes_of
from exporter.records import NANOS, Line, Record, Rejected
from exporter.source.archive import Archive
from exporter.source.rotation import paths_of
from exporter.terminal.progress import ProgressLine
from exporter.terminal.screen import terminal_width
from exporter.terminal.text import visible
from exporter.wok.error_log import ErrorLog
from exporter.wok.forgery import forged_by
from exporter.wok.operations import Operations
from exporter.wok.sentences import People, Sentences
from exporter.wok.task_functions import TaskFunctions

READ_BYTES: Final = 512 * 1024
TEXT_READ_BYTES: Final = 64 * 1024
"""Small, so that `| head` does not wait for lines that it does not read."""


def check(
    config: Config, files: Sequence[Path], *, as_json: bool, out: TextIO, screen: TextIO | None = None
) -> int:
    """Print how much of the files can be parsed; return 1 if a line was rejected or a file is
    damaged, else 0.

    It counts lines (a torn line may contain several records, or a record and a rejected part),
    records by kind, and tasks by outcome and correlation. It lists the first 100 rejected parts
    with file, line (from 1), byte offset, reason and a redacted excerpt. As JSON it is one object
    with all of this. Progress goes to `screen`, stderr by default. Raises ArchiveError if a file
    cannot be read.
    """
    survey = _surveyed(config, files, screen or sys.stderr)
    if as_json:
        json.dump(as_object(survey), out, indent=2)
        out.write("\n")
    else:
        out.writelines(f"{line}\n" for line in report(survey, terminal_width(out)))
    out.flush()
    return 0 if survey.is_understood else 1


def text(config: Config, files: Sequence[Path], *, out: TextIO, screen: TextIO | None = None) -> int:
    """Print every record as one line of Wok's text form (see `text.render`); return 1 if a line was
    rejected.

    Sentences and errors are those of the log records that are sent, users and addresses follow the
    privacy setting. Lines that could not be read or parsed are reported on `screen`, stderr by
    default, at the end. Raises ArchiveError if a file cannot be read.
    """
    screen = screen or sys.stderr
    zone = load_zone(config.timezone) if config.timezone else None
    parser = Parser(config.instance, Zones(config.timezone))
    messages = messages_of(config)
    screen.writelines(f"warning: {visible(problem)}\n" for problem in messages.problems)
    people = People(config.instance, config.privacy)
    sentences = Sentences(messages, people)
    rejected = 0
    damages: list[str] = []
    with closing(archive_of(config, files)) as archive:
        is_read = False
        while not is_read:
            chunk = archive.read(TEXT_READ_BYTES)
            is_read = chunk.caught_up
            damages += [event.detail for event in chunk.events if event.kind == "unreadable"]
            for line in chunk.lines:
                for item in parser.feed(line):
                    if isinstance(item, Record):
                        message = sentences.of(item).message
                        told = item._replace(
                            user=people.user(item.user), address=people.address(item.address)
                        )
                        out.write(f"{render(told, message, zone)}\n")
                    elif isinstance(item, Rejected):
                        rejected += 1
            out.flush()
    kinds = names_of_kinds(files)
    if kinds:
        screen.write(f"error: {kinds}\n")
    screen.writelines(f"error: {visible(damage)}\n" for damage in damages)
    if rejected:
        was = "1 line was" if rejected == 1 else f"{rejected:,} lines were"
        screen.write(f"error: {was} not parsed: `check` lists them\n")
    return 1 if rejected or damages or kinds else 0


def _surveyed(config: Config, files: Sequence[Path], screen: TextIO) -> CheckReport:
    zones = Zones(config.timezone)
    parser = Parser(config.instance, zones)
    naming, expiry = Operations.load(), int(config.task_expiry.total_seconds() * NANOS)
    quotes = quotes_of(config, files)
    errors = ErrorEvidence(
        naming, TaskFunctions.load(), expiry=expiry, is_quoted=quotes.has if quotes is not None else None
    )
    access = AccessLog(config.wok_access_log, zones) if config.wok_access_log else None
    correlator = Correlator(
        naming, expiry=expiry, errors=errors, answers_between=access.between if access is not None else None
    )
    survey = CheckReport(config)
    if config.wok_error_log:
        survey.errors = _errors(config.wok_error_log, config, zones, errors)
    survey.files = len(files)
    survey.not_logs = {visible(str(path)): what for path in files if (what := not_a_log(path))}
    numbers: dict[bytes, int] = {}
    with closing(archive_of(config, files)) as archive:
        progress = ProgressLine(screen, archive.total_bytes)
        is_read = False
        while not is_read:
            chunk = archive.read(READ_BYTES)
            is_read = chunk.caught_up
            survey.damages += [visible(event.detail) for event in chunk.events if event.kind == "unreadable"]
            for line in chunk.lines:
                # A file may continue where a shorter copy of it ended.
                number = numbers[line.file] = numbers.get(line.file, 0) + 1 if line.offset else 1
                survey.lines += 1
                rejected = survey.parts["rejected"]
                forged = forged_by(line.data)
                for item in parser.feed(line):
                    if isinstance(item, Record):
                        survey.record(item, line.data)
                        errors.shift = parser.shift or 0
                        correlator.shift_answers(errors.shift)
                        survey.meant(correlator.feed(item))
                    elif isinstance(item, Rejected):
                        survey.reject(item, _name(archive, line), number)
                    else:
                        survey.parts["forged" if item.forged else "continuation"] += 1
                survey.lines_rejected += survey.parts["rejected"] > rejected
                errors.discredit(forged)
            if is_read:
                survey.meant(correlator.finish())
                survey.judged(errors)
                survey.answers = correlator.take_answer_counts() if access is not None else None
            changes = correlator.changes()
            survey.running.update(task.key for task in changes.opened)
            survey.running.difference_update(changes.closed)
            progress.show(archive.done_bytes, survey.lines)
        progress.clear()
    if access is not None:
        access.close()
    return survey


def _name(archive: Archive, line: Line) -> str:
    path = archive.file_names.get(line.file)
    return visible(str(path)) if path is not None else ""


def _errors(path: Path, config: Config, zones: Zones, errors: ErrorEvidence) -> ErrorSurvey:
    """Read wok-error.log, whose items wait in `errors` for their time."""
    survey = ErrorSurvey()
    reader = ErrorLog(zones)
    with closing(Archive(paths_of(path), line_bytes_max=config.line_bytes_max)) as archive:
        while lines := archive.read(READ_BYTES).lines:
            for line in lines:
                items = reader.feed(line.data)
                survey.take(items)
                errors.offer(items)
    return survey

"""Reads and processes finished logs one chunk ahead, in a child process, to use two processors.

The pipes carry plain tuples in Python's `marshal` format, which is the fastest there is. This is
safe because both ends are the same program and the format is never stored. The child only reads
files. It exits when its pipe is closed.
"""

from __future__ import annotations

import marshal
import os
import struct
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import IO, Any, NamedTuple

from exporter.parse.parser import first_time
from exporter.parse.timezone import Zones
from exporter.pipeline.answers import AccessLog
from exporter.pipeline.batch_processor import BatchResult, Encoded, ProcessingConfig
from exporter.pipeline.commit_builder import EVENTS_AT_ONCE, CommitBuilder
from exporter.pipeline.cycles import collect_seldom
from exporter.pipeline.later_quotes import LaterQuotes
from exporter.pipeline.reader import InProcessReader
from exporter.records import (
    Event,
    Histogram,
    JournalRow,
    OpenTask,
    Record,
    RequestRow,
    RequestSeen,
    Signal,
    TailEvent,
    TaskEnded,
    TaskRepeated,
    TaskRow,
    TaskStarted,
)
from exporter.source.archive import Archive, ArchiveError
from exporter.source.rotation import paths_of
from exporter.store.writer import Loaded
from exporter.telemetry.mapping import Telemetry
from exporter.telemetry.resource import Identity
from exporter.wok.messages import Messages
from exporter.wok.operations import Operations
from exporter.wok.sentences import Privacy
from exporter.wok.task_functions import TaskFunctions

_LENGTH = struct.Struct("<Q")
_EVENTS: tuple[type[Any], ...] = (RequestSeen, TaskStarted, TaskEnded, TaskRepeated)
_NUMBERS = {kind: number for number, kind in enumerate(_EVENTS)}
_RECORDS = tuple(kind._fields.index("record") for kind in _EVENTS)


class Encoding(NamedTuple):
    """What the child needs to encode events.

    The fields are those of `Telemetry` and `CommitBuilder`.
    """

    identity: Identity
    log_file_name: str
    file_names: dict[bytes, str]
    privacy: Privacy
    signals: Sequence[Signal]
    keeps_history: bool

    def plain(self) -> tuple[Any, ...]:
        """Return the fields as plain values for the pipe."""
        *names, attributes, service_name = self.identity
        return ((*names, dict(attributes), service_name), *self[1:])

    def builder(self, messages: Messages, operations: Operations) -> CommitBuilder:
        """Return what encodes the events."""
        telemetry = Telemetry(
            Identity(*self.identity),
            log_file_name=self.log_file_name,
            privacy=self.privacy,
            messages=messages,
            operations=operations,
            file_names=self.file_names,
        )
        return CommitBuilder(telemetry, signals=frozenset(self.signals), keeps_history=self.keeps_history)


class SubprocessReader:
    """Reads `files` (and Wok's error and access logs) in a child process that is one chunk ahead.

    With `encoding`, the child also encodes the events, which is cheaper than to send them. Only a
    burst of events, too large to be encoded at once, comes as it is.

    `zone` is a name that `Zones` accepts. Raises ArchiveError for files that the child cannot read.
    """

    def __init__(
        self,
        loaded: Loaded,
        files: Sequence[Path],
        *,
        wok_error_log: Path | None,
        wok_access_log: Path | None,
        instance: str,
        zone: str,
        expiry: int,
        line_bytes_max: int,
        is_kept: bool,
        messages: Sequence[Path],
        encoding: Encoding | None = None,
    ) -> None:
        task = {
            "files": [str(path) for path in files],
            "wok_error_log": str(wok_error_log) if wok_error_log else "",
            "wok_access_log": str(wok_access_log) if wok_access_log else "",
            "instance": instance,
            "zone": zone,
            "expiry": expiry,
            "line_bytes_max": line_bytes_max,
            "is_kept": is_kept,
            "messages": [str(path) for path in messages],
            "encoding": encoding.plain() if encoding is not None else None,
            "positions": loaded.positions,
            "state": loaded.state,
            "open_tasks": [tuple(row) for row in loaded.open_tasks],
            "ended": [tuple(row) for row in loaded.ended],
            "series": list(loaded.series),
        }
        self._child = subprocess.Popen(  # noqa: S603 - this very program
            # -P: import no modules from the current directory, like `wok-exporter` itself.
            [sys.executable, "-P", "-m", __name__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
            start_new_session=True,  # only the parent gets Ctrl-C; it then closes the pipes
        )
        try:
            _send(_opened(self._child.stdin), task)
        except BrokenPipeError:
            self.close()
            raise self._ended() from None

    def step(self) -> BatchResult:
        """Return the result of the next lines; wait for the child."""
        try:
            fields = _receive(_opened(self._child.stdout))
        except EOFError:
            raise self._ended() from None
        if isinstance(fields, str):
            raise ArchiveError(fields)
        plain: dict[str, Any] = dict(zip(BatchResult._fields, fields, strict=True))
        plain["events"] = [_event(number, event) for number, event in plain["events"]]
        plain["opened"] = [OpenTask._make(row) for row in plain["opened"]]
        plain["histograms"] = {series: Histogram._make(a) for series, a in plain["histograms"].items()}
        plain["noticed"] = [TailEvent._make(event) for event in plain["noticed"]]
        if plain["encoded"] is not None:
            count, journal, requests, tasks = plain["encoded"]
            plain["encoded"] = Encoded(
                count,
                [JournalRow._make(row) for row in journal],
                [RequestRow._make(row) for row in requests],
                [TaskRow._make(row) for row in tasks],
            )
        return BatchResult(**plain)

    def _ended(self) -> ArchiveError:
        code = self._child.wait()
        how = f"was killed by signal {-code}" if code < 0 else f"has ended with {code}"
        return ArchiveError(
            f"the process that reads the log {how}: look for its reason above and in the kernel's log"
        )

    def close(self) -> None:
        """Stop the child."""
        for pipe in (self._child.stdin, self._child.stdout):
            if pipe is not None:
                with suppress(BrokenPipeError):  # the child may exit before it reads everything
                    pipe.close()
        self._child.terminate()
        self._child.wait()


def _opened(pipe: IO[bytes] | None) -> IO[bytes]:
    assert pipe is not None, "opened as a pipe"
    return pipe


def _send(pipe: IO[bytes], value: Any) -> None:
    data = marshal.dumps(value)
    pipe.write(_LENGTH.pack(len(data)))
    pipe.write(data)
    pipe.flush()


def _receive(pipe: IO[bytes]) -> Any:
    """Return the next value of the other end; raise EOFError if it exited, even within a value."""
    header = pipe.read(_LENGTH.size)
    if len(header) < _LENGTH.size:
        raise EOFError
    (size,) = _LENGTH.unpack(header)
    data = pipe.read(size)
    if len(data) < size:
        raise EOFError
    return marshal.loads(data)  # noqa: S302 - from the other half of this program


def _plain(event: Event) -> tuple[int, tuple[Any, ...]]:
    number = _NUMBERS[type(event)]
    record = event.record
    if record is None:
        return number, tuple(event)
    fields: list[Any] = list(event)
    fields[_RECORDS[number]] = tuple(record)
    return number, tuple(fields)


def _plain_rows(encoded: Encoded) -> Any:
    count, *rows = encoded
    return (count, *([tuple(row) for row in of_kind] for of_kind in rows))


def _event(number: int, fields: tuple[Any, ...]) -> Any:
    at = _RECORDS[number]
    made = list(fields)
    if made[at] is not None:
        made[at] = Record._make(made[at])
    return _EVENTS[number]._make(made)


def _run(task: dict[str, Any], pipe: IO[bytes]) -> None:
    zones = Zones(task["zone"])
    messages = Messages.load([Path(path) for path in task["messages"]])
    operations = Operations.load()
    builder = Encoding(*task["encoding"]).builder(messages, operations) if task["encoding"] else None
    files = [Path(path) for path in task["files"]]
    config = ProcessingConfig(
        task["instance"],
        zones,
        operations,
        task["expiry"],
        is_kept=task["is_kept"],
        code_of=messages.code_of,
        functions=TaskFunctions.load() if task["wok_error_log"] else None,
        access_log=AccessLog(Path(task["wok_access_log"]), zones) if task["wok_access_log"] else None,
        quotes=LaterQuotes(lambda: files) if task["wok_error_log"] else None,
    )
    loaded = Loaded(
        positions=task["positions"],
        state=task["state"],
        open_tasks=[OpenTask._make(row) for row in task["open_tasks"]],
        ended=[TaskRow._make(row) for row in task["ended"]],
        series=set(task["series"]),
    )
    collect_seldom()
    errors = partial(Archive, paths_of(Path(task["wok_error_log"]))) if task["wok_error_log"] else None
    try:
        log = partial(
            Archive, files, line_bytes_max=task["line_bytes_max"], first_time=first_time(config.zones)
        )
        reader = InProcessReader(config, loaded, log=log, errors=errors, wall=None)
        caught_up = False
        while not caught_up:
            result = reader.step()
            assert result is not None, "a finished log is never idle"
            caught_up = result.caught_up
            if builder is not None and len(result.events) <= EVENTS_AT_ONCE:
                result = result._replace(events=(), encoded=_plain_rows(builder.encode(result.events)))
            plain: dict[str, Any] = {
                **result._asdict(),
                "events": [_plain(event) for event in result.events],
                "opened": [tuple(row) for row in result.opened],
                "histograms": {series: tuple(added) for series, added in result.histograms.items()},
                "noticed": [tuple(event) for event in result.noticed],
            }
            _send(pipe, tuple(plain.values()))
        reader.close()
    except ArchiveError as error:
        _send(pipe, str(error))


if __name__ == "__main__":
    try:
        _run(_receive(sys.stdin.buffer), sys.stdout.buffer)
    except BrokenPipeError:
        # The parent exited or stopped reading: avoid a second error when stdout is flushed at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

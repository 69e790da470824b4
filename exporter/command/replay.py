"""`replay`: read finished logs, send everything, and exit when every item is acknowledged.

It sends the same ids and bytes as a daemon that reads the log, so that a replay beside a daemon, or
a second replay, creates no visible duplicates. Items that a backend rejected, or did not accept in
time, are reported at the end.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing, suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple, TextIO

from exporter.command.file_kind import names_of_kinds
from exporter.command.query_source import NOTHING_PARSED
from exporter.command.temporary import temporary_directory
from exporter.config.options import Config
from exporter.daemon.daemon import Stopped
from exporter.daemon.deliveries import Deliveries
from exporter.pipeline.commit_builder import CommitBuilder
from exporter.pipeline.cycles import collect_seldom
from exporter.pipeline.from_config import identity_of, messages_of, tables_of, telemetry_of
from exporter.pipeline.pipeline import Pipeline
from exporter.pipeline.reader_process import Encoding, SubprocessReader
from exporter.records import NANOS, Problem, Signal
from exporter.source.archive import Archive
from exporter.source.rotation import own_name
from exporter.store.writer import Loaded, Store, StoreError
from exporter.terminal.screen import StatusLine
from exporter.terminal.task_table import duration

JOURNAL_BYTES_MAX = 64 * 1024 * 1024
"""How much may be queued before reading waits: seconds of a fast reader, and little memory."""
FULL_WAIT_SECONDS = 0.02
DRAIN_WAIT_SECONDS = 0.05
TERMINAL_SECONDS = 0.2
"""How often to draw the progress line on a terminal; elsewhere a line is printed every
LINE_SECONDS.
"""
LINE_SECONDS = 10.0


class Missing(NamedTuple):
    """What was not delivered: items still queued and items rejected, by signal."""

    waiting: Mapping[Signal, int]
    refused: Mapping[Signal, Mapping[str, int]]

    def __bool__(self) -> bool:
        return any(self.waiting.values()) or any(self.refused.values())


class Replay:
    """One replay of `files` into the configured backends.

    `run` returns what is missing. It returns early when `stopped` is set, or when a backend has
    accepted nothing for `config.give_up_after`. `damages` has a sentence for each file that could
    not be read to its end. Raises ArchiveError, StoreError, OtlpConfigError.
    """

    def __init__(
        self,
        config: Config,
        files: Sequence[Path],
        environ: Mapping[str, str],
        *,
        screen: TextIO,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._config = config
        self._files = files
        self._screen = screen
        self._line = StatusLine(screen)
        self._clock = clock
        self._resources = ExitStack()
        with self._resources:
            directory = config.state or temporary_directory(self._resources)
            self.store = self._resources.enter_context(
                closing(
                    Store(
                        directory,
                        journal_bytes_max=JOURNAL_BYTES_MAX,
                        requests_kept=config.history_requests,
                        tasks_kept=config.history_tasks,
                        history_bytes_max=config.history_bytes_max,
                        on_broken=config.on_broken_state,
                        gives_up_when_full=False,
                        is_temporary=config.state is None,
                    )
                )
            )
            self._deliveries = Deliveries(self.store, environ)
            log_file_name, file_names = _base_name(files[0]), _base_names(files)
            signals = self._deliveries.signals
            # A temporary state needs no history, which is a fifth of the work.
            keeps_history = config.state is not None
            # The child encodes all events but those of a burst.
            commit_builder = CommitBuilder(
                telemetry_of(config, messages_of(config), log_file_name, file_names),
                signals=signals,
                keeps_history=keeps_history,
            )
            encoding = Encoding(
                identity_of(config),
                log_file_name,
                dict(file_names),
                config.privacy,
                sorted(signals),
                keeps_history,
            )
            ahead = partial(_ahead, config, files, encoding)
            self._pipeline = self._resources.enter_context(
                closing(Pipeline(self.store, commit_builder, ahead, now=time.time))
            )
            self._resources = self._resources.pop_all()
        self.endpoints = self._deliveries.endpoints
        self.lines = 0
        self.caught_up = False
        self._events = 0
        self.damages: list[str] = []
        self._behind = self._total = sum(_size_bytes(path) for path in files)
        self._began = clock()
        self._shown = -LINE_SECONDS

    def why_nothing(self) -> str:
        """Return why the files gave nothing to send: they are not logs, or cannot be parsed;
        otherwise empty.
        """
        is_nothing = self.caught_up and self.lines and not self._events
        return names_of_kinds(self._files) or (NOTHING_PARSED if is_nothing else "")

    def close(self) -> None:
        """Release everything without running."""
        self._resources.close()

    def run(self, stopped: Stopped) -> Missing:
        """Read and deliver everything; return what is missing."""
        collect_seldom()
        with self._resources:
            self._deliveries.start()
            try:
                self._read(stopped)
                self._drain(stopped)
                self._show(last=True)
                return self._missing()
            finally:
                self._deliveries.stop()

    def _read(self, stopped: Stopped) -> None:
        waits = _Patience(self._config.give_up_after.total_seconds(), self._clock)
        while not stopped.is_set() and not self.caught_up:
            if not self.store.journal_has_room():
                if waits.is_over(self._delivered()):
                    return
                stopped.wait(FULL_WAIT_SECONDS)
            else:
                progress = self._pipeline.step()
                self.lines += progress.lines
                self._events += progress.events
                self.caught_up = progress.caught_up
                self._behind = progress.behind
                self.damages += progress.damages
                self._deliveries.wake()
            self._show()

    def _drain(self, stopped: Stopped) -> None:
        waits = _Patience(self._config.give_up_after.total_seconds(), self._clock)
        while not stopped.is_set() and any(self._waiting().values()) and not waits.is_over(self._delivered()):
            stopped.wait(DRAIN_WAIT_SECONDS)
            self._show()

    def _waiting(self) -> dict[Signal, int]:
        return {signal: self.store.journal_status(signal).records for signal in self._deliveries.by_signal}

    def _delivered(self) -> int:
        tallies = [delivery.totals for delivery in self._deliveries.by_signal.values()]
        return sum(tally.delivered + sum(tally.rejected.values()) for tally in tallies)

    def delivered(self) -> dict[Signal, int]:
        """Return how many items each backend has acknowledged."""
        return {signal: delivery.totals.delivered for signal, delivery in self._deliveries.by_signal.items()}

    def _missing(self) -> Missing:
        refused = {
            signal: dict(delivery.totals.rejected) for signal, delivery in self._deliveries.by_signal.items()
        }
        return Missing(self._waiting(), refused)

    def problems(self) -> list[Problem]:
        """Say which backend does not accept data, and what to do."""
        return self._deliveries.problems()

    def _show(self, *, last: bool = False) -> None:
        is_terminal = self._screen.isatty()
        now = self._clock()
        if not last and now - self._shown < (TERMINAL_SECONDS if is_terminal else LINE_SECONDS):
            return
        self._shown = now
        line = self._progress(now)
        if is_terminal and not last:
            self._line.show(line)
        else:
            self._line.show("")
            self._screen.write(line + "\n")
            self._screen.flush()

    def _progress(self, now: float) -> str:
        seconds = max(now - self._began, 0.001)
        share = 1 - self._behind / self._total if self._total else 1.0
        left = ""
        if share and not self.caught_up:
            left = f", {duration(round(seconds * (1 - share) / share) * NANOS)} left"
        acknowledged = ", ".join(f"{count:,} {signal}" for signal, count in self.delivered().items())
        waiting = sum(self._waiting().values())
        return (
            f"{share:4.0%}  {self.lines:,} lines, {self.lines / seconds:,.0f}/s{left}; acknowledged: {acknowledged}"
            + (f"; {waiting:,} queued" if waiting else "")
        )


def _size_bytes(path: Path) -> int:
    # Only for the progress: the archive reports what is wrong with a file.
    with suppress(OSError):
        return path.stat().st_size
    return 0


def _ahead(config: Config, files: Sequence[Path], encoding: Encoding, loaded: Loaded) -> SubprocessReader:
    try:
        Archive((), loaded.positions.get("log", ""))
    except ValueError as error:
        raise StoreError(
            f"{config.state} contains the state of a daemon, not of a replay: set --state to another directory"
        ) from error
    return SubprocessReader(
        loaded,
        files,
        wok_error_log=config.wok_error_log,
        wok_access_log=config.wok_access_log,
        instance=config.instance,
        zone=config.timezone,
        expiry=int(config.task_expiry.total_seconds() * NANOS),
        line_bytes_max=config.line_bytes_max,
        is_kept=config.state is not None,
        messages=tables_of(config),
        encoding=encoding,
    )


class _Patience:
    """How long to wait for a backend that accepts nothing."""

    def __init__(self, seconds: float, clock: Callable[[], float]) -> None:
        self._seconds = seconds
        self._clock = clock
        self._count = -1
        self._since = clock()

    def is_over(self, count: int) -> bool:
        if count != self._count:
            self._count, self._since = count, self._clock()
        return self._clock() - self._since >= self._seconds


def _base_names(files: Sequence[Path]) -> Mapping[bytes, str]:
    """Return the base name of each file by its identity, where there are several."""
    if len({_base_name(path) for path in files}) < 2:
        return {}
    return {file: _base_name(path) for file, path in Archive(files).file_names.items()}


def _base_name(path: Path) -> str:
    """Return the log's own base name, never that of a rotated file or of a copy of it."""
    name = path.name
    for stem, known in (("user-requests", "user-requests.data"), ("wok-req", "wok-req.log")):
        if name.startswith(stem):
            return known
    return own_name(name)

"""`demo`: the real exporter follows a simulated Wok for forty seconds.

Everything but Wok is real: a log and a wok-error.log that grow over time, the daemon that follows
them, its store, its HTTP server, and its delivery if `OTEL_EXPORTER_OTLP_ENDPOINT` is set.

The log has two dialects. Until the story's update restarts wokd, it is the Wok of August 2016 with
the RFC's TASK records. After the restart it is Wok 3.0.0, which writes JSON, no record when a task
starts, and no task ids. (A real 3.0.0 writes to another file; a log may contain all dialects
anyway.)

The results are read from the store, like a scrape or `tasks` does: what is printed here is
committed. Results appear up to three seconds after their line, because a task waits that long for
its request, or for a second end record.
"""

from __future__ import annotations

import http.client
import logging
import os
import shlex
import shutil
import sys
import time
import webbrowser
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Event
from typing import TextIO

from exporter.command.temporary import temporary_directory
from exporter.config.options import Config
from exporter.daemon.daemon import Daemon, Stopped
from exporter.deliver import otlp_env
from exporter.http.server import ServerError
from exporter.records import NANOS, RequestRow, TaskRow
from exporter.simulate.records import SimulatedLine
from exporter.simulate.story import story
from exporter.store.reader import Reader
from exporter.store.writer import StoreError
from exporter.terminal.screen import Screen

STORY_SECONDS = 40.0
UPDATED_SECONDS = 28.0
"""While wokd is down for its update: later lines are those of Wok 3.0.0."""
LOOK_SECONDS = 0.2
"""How often the daemon polls the log and the demo polls the store; it looks immediate."""
END_SECONDS = 10.0
"""How long reading and delivery may take after the last line, also with a slow collector."""
SCRAPE_SECONDS = 10.0
HISTORY_ROWS_MAX = 1000
"""Many times the story's tasks and requests."""
OPERATIONS_SHOWN = 5
NOTE_COLUMN = 7
FINDING_COLUMN = 14
MEANWHILE_SHOWN = 3

INTERRUPTED = 130
WRONG = 1

WORDS = {"success": "done", "failure": "failed", "lost": "lost", "unknown": "unknown"}
COLOURS = {"done": "green", "failed": "red", "lost": "magenta", "unknown": "yellow", "refused": "yellow"}
ITEMS = {"traces": "spans", "logs": "log records"}
OPERATION_SCRAPED = "vms.clone"
SERIES_SHOWN = (
    "wok_tasks_finished_total{",
    "wok_task_failures_total{",
    'wok_task_duration_seconds_sum{app="kimchi",operation="vms.clone",outcome="success"}',
)
ON_A_REAL_WOK = (
    ("wok-exporter check /var/lib/wok/user-requests.data", "the log of a real Wok"),
    ("wok-exporter run", "the daemon that follows it"),
)
FOR_WHOM = {"exact": " for {}", "likely": ", probably for {}", "ambiguous": ", perhaps for {}"}


def demo(
    config: Config,
    environ: Mapping[str, str],
    *,
    out: TextIO,
    stopped: Stopped,
    speed: float = 1.0,
    wall: Callable[[], int] = time.time_ns,
) -> int:
    """Show the exporter at work on a simulated Wok; return an exit code.

    0 if everything was shown, 130 if `stopped` was set earlier, 1 if the exporter did not keep up.
    Without `config.state`, everything is in a temporary directory, which is removed. `speed` scales
    the story's time, `math.inf` for no waiting; the story starts now by `wall` (nanoseconds since
    the epoch), which may stand still. Raises StoreError if `config.state` is in use, and what
    `Daemon` raises.
    """
    screen = Screen(out, environ)
    with ExitStack() as resources:
        resources.enter_context(_only_warnings())
        directory = config.state or temporary_directory(resources, "wok-exporter-demo-")
        stage = _stage(config, directory)
        daemon, listens_elsewhere = _daemon(stage, environ, wall)
        url = _url(stage, daemon)
        is_kept = config.state is not None
        _introduce(screen, stage, url, environ, is_kept=is_kept, listens_elsewhere=listens_elsewhere)
        runs = resources.enter_context(_running(daemon))
        is_open = bool(url) and _open_page(url, out, environ)
        # closed before the daemon's own connection, which then leaves a single file
        reader = resources.enter_context(closing(daemon.store.reader()))
        watch = Watch(reader, screen, runs, wall)
        lines = _lines(datetime.fromtimestamp(wall() / NANOS, UTC).astimezone())
        written = _play(lines, stage, watch, stopped, speed)
        is_whole = _wait_for_all(watch, daemon, written, stopped)
        if stopped.is_set():
            screen.say("")
            screen.say("Stopped.")
            return INTERRUPTED
        _sum_up(screen, watch)
        _show_metrics(screen, daemon, url)
        _show_deliveries(screen, watch, daemon, environ)
        _show_next(screen, stage, is_kept=is_kept)
        if is_open:
            screen.say("")
            screen.say("The page stays open until you press Ctrl-C.")
            while not stopped.is_set():
                stopped.wait(END_SECONDS)
        return 0 if is_whole else WRONG


# --- the stage


def _open_page(url: str, out: TextIO, environ: Mapping[str, str]) -> bool:
    """Open the page if there is a graphical session; return whether a browser was found."""
    if not out.isatty() or not (environ.get("DISPLAY") or environ.get("WAYLAND_DISPLAY")):
        return False
    return webbrowser.open(url)


def _stage(config: Config, directory: Path) -> Config:
    """Create the two logs, and return the configuration that follows them."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if any(directory.iterdir()):
            # it may be the state of a real daemon
            raise StoreError(f"{directory} is not empty: set --state to a new directory for the demo")
        stage = replace(
            config,
            log=directory / "wok-req.log",
            wok_error_log=directory / "wok-error.log",
            automatic=frozenset(),
            timezone="",
            start_at="beginning",
            poll_interval=timedelta(seconds=LOOK_SECONDS),
            state=directory,
            # a collector must not mistake this for the host's real Wok
            instance="demo",
            tls_certificate=None,
            tls_key=None,
            auth_file=None,
        )
        for log in (directory / "wok-req.log", directory / "wok-error.log"):
            log.touch()
    except OSError as error:
        raise StoreError(
            f"cannot use {directory} ({error.strerror}): set --state to another directory"
        ) from error
    return stage


def _daemon(stage: Config, environ: Mapping[str, str], wall: Callable[[], int]) -> tuple[Daemon, bool]:
    """Return the daemon, and whether it listens on another port than the configured one."""
    try:
        return Daemon(stage, environ, wall=wall), False
    except ServerError:
        if stage.listen is None or stage.listen.port == 0:
            raise
        # most often the real daemon has the port
        return Daemon(replace(stage, listen=stage.listen._replace(port=0)), environ, wall=wall), True


@contextmanager
def _running(daemon: Daemon) -> Iterator[Future[None]]:
    """Run the daemon in a thread until the end of the block; raise its error."""
    ends = Event()
    with ThreadPoolExecutor(1, "demo-daemon") as threads:
        runs = threads.submit(daemon.run, ends)
        try:
            yield runs
        finally:
            ends.set()
        runs.result()


@contextmanager
def _only_warnings() -> Iterator[None]:
    """Hide the daemon's info messages, which the demo shows in its own way."""
    log = logging.getLogger("exporter")
    level = log.level
    log.setLevel(logging.WARNING)
    try:
        yield
    finally:
        log.setLevel(level)


def _url(stage: Config, daemon: Daemon) -> str:
    if stage.listen is None or daemon.server is None:
        return ""
    return f"http://{stage.listen._replace(port=daemon.server.port)}/"


def _lines(start: datetime) -> list[SimulatedLine]:
    """Return the story that starts at `start`, in one dialect until the update,
    then in the other.
    """
    # ids must differ from those of the last demo, which a collector may still have
    seed = int(start.timestamp())
    before = [line for line in story("rfc", start=start, seed=seed) if line.at < UPDATED_SECONDS]
    after = [line for line in story("json", start=start, seed=seed) if line.at >= UPDATED_SECONDS]
    return before + after


def _play(lines: Sequence[SimulatedLine], stage: Config, watch: Watch, stopped: Stopped, speed: float) -> int:
    """Write the logs, print notes and results; return the number of lines in the request log."""
    assert stage.wok_error_log is not None, "the stage has both logs"
    written = 0
    began = time.monotonic()
    with stage.log.open("ab", buffering=0) as requests, stage.wok_error_log.open("ab", buffering=0) as errors:
        for line in lines:
            while (left := line.at / speed - (time.monotonic() - began)) > 0:
                stopped.wait(min(left, LOOK_SECONDS))
                if stopped.is_set():
                    break
                watch.look(line.at - left * speed)
            if stopped.is_set():
                break
            (requests if line.log == "requests" else errors).write(line.data + b"\n")
            written += line.log == "requests"
            if line.note:
                watch.tell(line)
    return written


def _wait_for_all(watch: Watch, daemon: Daemon, written: int, stopped: Stopped) -> bool:
    """Wait until all lines are read and delivered, or cannot be; return whether they are read."""
    end = time.monotonic() + END_SECONDS
    while not stopped.is_set():
        is_read = watch.look(STORY_SECONDS) >= written and not watch.running
        if is_read and (watch.is_delivered() or daemon.problems()):
            return True
        if time.monotonic() > end:
            return is_read
        stopped.wait(LOOK_SECONDS)
    return False


# --- what is printed while it happens


class Watch:
    """Polls the store and prints what is new in it."""

    def __init__(self, reader: Reader, screen: Screen, runs: Future[None], wall: Callable[[], int]) -> None:
        self.tasks: list[TaskRow] = []
        self.requests = 0
        self.running = 0
        self.counters: Mapping[tuple[str, ...], float] = {}
        self._reader = reader
        self._screen = screen
        self._runs = runs
        self._wall = wall
        self._waiting = 0

    def tell(self, line: SimulatedLine) -> None:
        """Print what was just written to Wok's log."""
        note = line.note
        self._screen.say(note, first=_clock(line.at), indent=NOTE_COLUMN)
        if note == "wokd is back":
            self._screen.say(
                "as Wok 3.0.0: it writes JSON, no record when a task starts, and no task ids",
                indent=NOTE_COLUMN,
            )

    def look(self, at: float) -> int:
        """Print what is new; return the number of lines that have been read."""
        if self._runs.done():
            self._runs.result()  # it ends by itself only with an error
        snapshot = self._reader.snapshot()
        self.counters = snapshot.counters
        self._waiting = sum(status.records for status in snapshot.journal.values())
        for row in self._reader.requests_between(
            self.requests + 1, self.requests + HISTORY_ROWS_MAX, HISTORY_ROWS_MAX
        ):
            self.requests = row.ordinal
            self._tell_refusal(row)
        ended = self._reader.tasks(limit=HISTORY_ROWS_MAX).tasks[::-1]
        for task in ended[len(self.tasks) :]:
            self._tell_end(task)
        self.tasks = ended
        running = self._reader.running()
        self.running = len(running)
        now = self._wall()
        said = ", ".join(f"{task.operation} {_seconds(now - task.start)}" for task in running)
        self._screen.status(f"{_clock(at)}  running: {said}" if said else "")
        lines = [value for series, value in self.counters.items() if series[0] == "wok_exporter_lines_total"]
        return int(sum(lines))

    def is_delivered(self) -> bool:
        """Whether nothing was queued at the last look."""
        return not self._waiting

    def _tell_refusal(self, row: RequestRow) -> None:
        if row.status is not None and row.status >= 400:
            self._find(
                "refused", f"{row.operation} by {row.user or row.address}: {row.status}, {row.message}"
            )

    def _tell_end(self, task: TaskRow) -> None:
        request = self._reader.request(task.request) if task.request else None
        whose = FOR_WHOM[task.correlation].format(request.user) if request else ", no request"
        many = {0: "", 1: ", 1 other request meanwhile"}.get(
            task.concurrent, f", {task.concurrent} other requests meanwhile"
        )
        word = WORDS[task.outcome]
        # without a request and a start record, only its end is known
        is_timed = request is not None or task.task_id != ""
        took = _seconds(task.end - task.start) if is_timed else "start not in the log"
        self._find(word, f"{task.operation}{whose}: {took}{many}")
        if task.outcome == "success":
            return
        why = task.message.removeprefix("lost: ")
        # a message that no table of this host knows begins with its code
        code = f" ({task.error_code})" if task.error_code and task.error_code not in why else ""
        self._screen.say(f"why: {why}{code}", indent=FINDING_COLUMN)
        if task.concurrent:
            self._screen.say(f"meanwhile: {self._meanwhile(task)}", indent=FINDING_COLUMN)
        self._screen.say(f"trace {task.context[:16].hex()}", indent=FINDING_COLUMN)

    def _meanwhile(self, task: TaskRow) -> str:
        others = [
            row
            for row in self._reader.requests_between(task.since + 1, task.until, MEANWHILE_SHOWN + 1)
            if row.ordinal != task.request
        ][:MEANWHILE_SHOWN]
        said = ", ".join(f"{row.operation} by {row.user or row.address}" for row in others)
        more = task.concurrent - len(others)
        return f"{said}, and {more} more" if more else said

    def _find(self, word: str, text: str) -> None:
        self._screen.say(text, first=f"   > {word}", indent=FINDING_COLUMN, colour=COLOURS[word])


# --- what is printed before and after


def _introduce(
    screen: Screen,
    stage: Config,
    url: str,
    environ: Mapping[str, str],
    *,
    is_kept: bool,
    listens_elsewhere: bool,
) -> None:
    screen.say(
        "A simulated Wok writes its log for forty seconds, and the real exporter follows it. No line of that log"
        " says which request started a task, how long the task took, or that it was lost. Lines with > show what"
        " the exporter found out."
    )
    if url:
        why = f" ({stage.listen} is in use)" if listens_elsewhere else ""
        screen.say(f"Open the page: {url}{why}. Read the metrics: curl {url}metrics")
    for signal, endpoint in otlp_env.configured(environ).items():
        screen.say(f"Sending {signal} to {endpoint}")
    if not otlp_env.configured(environ):
        screen.say(
            f"Sending nothing, because {otlp_env.why_unconfigured(environ)}. The state is in"
            f" {stage.state}{'' if is_kept else ' until the end'}."
        )
    screen.say("")


def _sum_up(screen: Screen, watch: Watch) -> None:
    tasks = watch.tasks
    many = Counter(WORDS[task.outcome] for task in tasks)
    said = ", ".join(f"{many[word]} {word}" for word in WORDS.values() if many[word])
    screen.title(f"{watch.requests} requests, {len(tasks)} tasks: {said}")
    by_operation: dict[str, list[TaskRow]] = {}
    for task in tasks:
        by_operation.setdefault(f"{task.app} {task.operation}", []).append(task)
    spent = {name: sum(task.end - task.start for task in rows) for name, rows in by_operation.items()}
    screen.raw(f"  {'where the time went':<32}{'time':>6}{'tasks':>7}{'failed':>8}{'lost':>6}")
    for name in sorted(spent, key=lambda name: -spent[name])[:OPERATIONS_SHOWN]:
        rows = by_operation[name]
        failed, lost = (sum(task.outcome == outcome for task in rows) for outcome in ("failure", "lost"))
        screen.raw(f"  {name:<32}{_seconds(spent[name]):>6}{len(rows):>7}{failed or '-':>8}{lost or '-':>6}")


def _show_metrics(screen: Screen, daemon: Daemon, url: str) -> None:
    if daemon.server is None:
        return
    screen.title(f"curl -s {url}metrics | grep {OPERATION_SCRAPED}")
    server = daemon.server
    # not urllib, which would use a proxy from the environment
    with closing(http.client.HTTPConnection(server.host, server.port, timeout=SCRAPE_SECONDS)) as connection:
        connection.request("GET", "/metrics")
        page = connection.getresponse().read().decode()
    for line in page.splitlines():
        if line.startswith(SERIES_SHOWN) and OPERATION_SCRAPED in line and not line.endswith(" 0.0"):
            screen.raw(f"  {line}")
    screen.say("...", indent=2)


def _show_deliveries(screen: Screen, watch: Watch, daemon: Daemon, environ: Mapping[str, str]) -> None:
    endpoints = otlp_env.configured(environ)
    if not endpoints:
        return
    screen.title("Delivered")
    for signal, endpoint in endpoints.items():
        taken = watch.counters.get(("wok_exporter_delivered_total", signal), 0)
        screen.say(f"{taken:.0f} {ITEMS[signal]} to {endpoint}", indent=2)
    for problem in daemon.problems():
        screen.say(problem.sentence, indent=2)
    shown = next((task for task in watch.tasks if task.outcome == "failure"), None)
    if shown and watch.counters.get(("wok_exporter_delivered_total", "traces")):
        screen.say(
            f"Find the trace of the failed {shown.operation} there: {shown.context[:16].hex()}",
            indent=2,
        )


def _show_next(screen: Screen, stage: Config, *, is_kept: bool) -> None:
    screen.title("What to try next")
    if is_kept:
        state, log = shlex.quote(str(stage.state)), shlex.quote(str(stage.log))
        again: tuple[tuple[str, str], ...] = (
            (f"wok-exporter tasks --state {state}", "the tasks, as a table"),
            (f"wok-exporter text {log}", "the log, as text"),
            (f"wok-exporter check {log}", "how much of it can be parsed"),
        )
    else:
        again = (
            ("wok-exporter demo --state ./demo", "run it again, and keep the state"),
            ("wok-exporter tasks --state ./demo --failed", "which tasks failed, and why"),
        )
    # `make demo` runs a program that is not on PATH: print the name that can be typed.
    program = "wok-exporter"
    if not shutil.which(program) and Path(sys.argv[0]).name == program:
        program = os.path.relpath(sys.argv[0])
    commands = [
        (command.replace("wok-exporter", program, 1), why) for command, why in (*again, *ON_A_REAL_WOK)
    ]
    longest = max(len(command) for command, _ in commands)
    for command, why in commands:
        screen.raw(f"  {command:<{longest}}  # {why}")


def _clock(at: float) -> str:
    return f"{int(at) // 60:>2}:{int(at) % 60:02}"


def _seconds(nanos: int) -> str:
    """Return a duration in the log's whole seconds."""
    return f"{round(nanos / NANOS)} s" if nanos >= NANOS else "under 1 s"

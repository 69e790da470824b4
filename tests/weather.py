"""A host in bad weather: a Wok, the real daemon and two backends, all of which can fail in any order.

    with Host(folder) as host:
        host.wok.request("web"), host.wok.end("web")
        host.kill(), host.wok.rotate("gzip"), host.backend("down", "traces")
        host.prove()

`prove` lets the weather clear and then checks what `docs/reliability.md` promises: every record has
arrived (L0), nothing has arrived with two contents (D0), and the counters are a recount of the log,
equal to those of a daemon that reads the same lines undisturbed (C0). What was damaged on the disk
may be missing: no more than is counted as damaged.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sqlite3
import subprocess
import time
import urllib.request
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import IO, Literal, Self

from prometheus_client.parser import text_string_to_metric_families

from exporter.records import SIGNALS, Signal
from tests.program import command, environ, free_port
from tests.sink import Received, Reply, Sink
from tests.weather_log import Edit, WokLog

Backend = Literal["up", "down", "overloaded", "hanging", "lying", "deaf"]
"""Accepts; hangs up; 503; never answers; 200 with a login page; stores, but its answer is lost."""

REPLIES: dict[Backend, Reply | None] = {
    "up": None,
    "down": Reply(fault="close"),
    "overloaded": Reply(status=503),
    "hanging": Reply(fault="hang"),
    "lying": Reply(headers={"Content-Type": "text/html"}, body=b"<html>Please log in</html>"),
    "deaf": Reply(fault="half", is_kept=True),
}
COUNTED = (
    "wok_requests_total",
    "wok_tasks_started_total",
    "wok_tasks_finished_total",
    "wok_task_failures_total",
    "wok_task_repeats_total",
    "wok_task_duration_seconds_count",
    "wok_task_duration_seconds_sum",
    "wok_exporter_records_total",
    "wok_exporter_lines_total",
    "wok_exporter_correlations_total",
    "wok_exporter_read_bytes_total",
)
LOST = ("wok_exporter_lost_records_total", "damaged")
CLEARS_SECONDS_MAX = 90.0
FULL_DISK_ROOM_BYTES = 16 * 1024
"""What can still be written to a full disk: some commits, at the beginning of SQLite's log."""
PR_CAPBSET_DROP = 24
CAPABILITIES = (1, 2)
"""CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH, by which root reads what it may not; see capabilities(7)."""

Counts = dict[tuple[str, ...], float]


class Host:
    """Everything on one host, below `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.wok = WokLog(folder)
        self.sink = Sink()
        self._behaviour: dict[Signal, Backend] = dict.fromkeys(SIGNALS, "up")
        self._daemon: subprocess.Popen[bytes] | None = None
        self._port = free_port()
        self._said: IO[bytes] | None = None
        self._said_before = 0
        self._is_damaged = False

    def __enter__(self) -> Self:
        self.sink.judge = self._judge
        self.sink.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop(signal.SIGKILL)
        self.sink.__exit__(*exception)

    # The backends, the disk and the daemon

    def backend(self, how: Backend, *signals: Signal) -> None:
        """Let the backend of these signals behave like this from now on; of all, if none is named."""
        self._behaviour |= dict.fromkeys(signals or SIGNALS, how)

    def _judge(self, received: Received) -> Reply | None:
        name: Signal = "logs" if received.path.endswith("/logs") else "traces"
        return REPLIES[self._behaviour[name]]

    def permit(self, allowed: bool) -> None:
        """Give or take the permission to read the log. Only root can still write to it then, as Wok does."""
        if allowed:
            for path in self.wok.file.parent.iterdir():
                path.chmod(0o644)
        elif os.geteuid() == 0 and self.wok.file.exists():
            self.wok.file.chmod(0)

    def fill_disk(self, is_full: bool) -> None:
        """Let the daemon that serves write to the beginning of files alone, or everywhere again. A start
        on a full disk ends with a sentence, and systemd tries it again.
        """
        if self._daemon is not None and self._is_serving:
            room = len(self.said) + FULL_DISK_ROOM_BYTES if is_full else resource.RLIM_INFINITY
            resource.prlimit(self._daemon.pid, resource.RLIMIT_FSIZE, (room, resource.RLIM_INFINITY))

    def damage(self, row: int, at: int) -> None:
        """Change a byte of a queued batch on the disk, while no daemon runs."""
        file = self.folder / "state" / "state.db"
        if self._daemon is not None or not file.exists():
            return
        with closing(sqlite3.connect(file)) as db, db:
            rows = [] if not _has_journal(db) else db.execute('SELECT "row", payload FROM journal').fetchall()
            if rows:
                number, payload = rows[row % len(rows)]
                changed = bytearray(payload)
                changed[at % len(payload)] ^= 0x20
                db.execute('UPDATE journal SET payload = ? WHERE "row" = ?', (bytes(changed), number))
                self._is_damaged = True

    def edit_when_read(self, how: Edit, at: int) -> None:
        """Edit the log, if a daemon runs that has read all of it: what is taken out is not lost."""
        try:
            read = _scrape(self._port).get(("wok_exporter_lines_total", "record"), 0) if self._daemon else 0
        except OSError:
            return
        if read == len(self.wok.lines):
            self.wok.edit(how, at)

    def start(self) -> None:
        """Start the daemon, unless it runs."""
        if self._daemon is None:
            self._said = (self.folder / "said").open("ab")
            self._said_before = len(self.said)
            self._daemon = self._run(self.wok.file, "state", self._port, self.sink.environ(), self._said)

    def stop(self, number: signal.Signals) -> None:
        """Send a signal that ends the daemon, if it runs, and wait until it has ended."""
        if self._daemon is not None:
            self._daemon.send_signal(number)
            code = self._daemon.wait(30)
            assert self._said is not None
            self._said.close()
            self._daemon = None
            # Before its handlers are installed, a signal ends it as any program.
            assert code in (0, -number), self.said

    def reload(self) -> None:
        """Let the daemon read its configuration again, if it has installed its handlers."""
        if self._daemon is not None and self._is_serving:
            self._daemon.send_signal(signal.SIGHUP)

    @property
    def _is_serving(self) -> bool:
        return self._daemon is not None and "serving" in self.said[self._said_before :]

    @property
    def said(self) -> str:
        """All that the daemons have written to stderr."""
        return (self.folder / "said").read_text()

    def _run(
        self, log: Path, state: str, port: int, backend: Mapping[str, str], said: IO[bytes]
    ) -> subprocess.Popen[bytes]:
        arguments = ["run", "--log", log, "--state", self.folder / state]
        arguments += ["--listen", f"127.0.0.1:{port}", "--wok-error-log", self.wok.errors]
        arguments += ["--start-at", "beginning", "--timezone", "UTC", "--instance", "weather"]
        env = environ(**backend, OTEL_EXPORTER_OTLP_TIMEOUT="2")
        return subprocess.Popen(
            command(*arguments, "--messages", "off"),
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=said,
            preexec_fn=let_permissions_count,  # noqa: PLW1509  # prctl takes no lock
        )

    # The truth

    def prove(self) -> None:
        """Let the weather clear, and check L0, D0 and C0."""
        self.permit(allowed=True)
        self.fill_disk(is_full=False)
        self.wok.end_of_story()
        self.backend("up")
        self.start()
        found = self._settled(self._port)
        calm_port = free_port()
        log = self.wok.whole if self.wok.is_edited else self.wok.file
        with (self.folder / "calm-said").open("wb") as said:
            calm = self._run(log, "calm", calm_port, {}, said)
            try:
                undisturbed = self._settled(calm_port)
            finally:
                calm.kill()
                calm.wait()
        assert found == undisturbed, self.said
        assert found["wok_exporter_lines_total", "record"] == len(self.wok.lines)
        assert found["wok_exporter_read_bytes_total",] == sum(len(line.data) for line in self.wok.lines)
        lost = self._await_arrivals()
        assert not lost or self._is_damaged, self.said
        contents = [set(bytes_) for kept in (self.sink.spans(), self.sink.logs()) for bytes_ in kept.values()]
        assert all(len(different) == 1 for different in contents), self.said
        ended = sum(value for (name, *_), value in found.items() if name == "wok_tasks_finished_total")
        spans = len(self.sink.spans())
        requests = sum(line.is_request for line in self.wok.lines)
        written, arrived = {line.uid for line in self.wok.lines}, {key[3] for key in self.sink.logs()}
        missing, more = written - arrived, arrived - written
        unreported = sum(value for series, value in found.items() if {"lost", "unknown"} & set(series))
        assert len(more) <= unreported, self.said  # tasks of which the log has no end
        assert 0 <= requests + ended - spans <= lost - len(missing), (
            requests + ended,
            spans,
            lost,
            self.said,
        )
        assert "Traceback" not in self.said

    def _await_arrivals(self) -> float:
        """Wait until nothing is queued; return how many items are counted as damaged."""
        end = time.monotonic() + CLEARS_SECONDS_MAX
        while True:
            counts = _scrape(self._port)
            if not any(counts["wok_exporter_journal_records", each] for each in SIGNALS):
                return counts.get(LOST, 0)
            assert time.monotonic() < end, f"{counts} are still queued\n{self.said}"
            time.sleep(0.2)

    def _settled(self, port: int) -> Counts:
        end = time.monotonic() + CLEARS_SECONDS_MAX
        before: Counts = {}
        while True:
            time.sleep(0.3)
            assert time.monotonic() < end, f"it has not settled: {before}\n{self.said}"
            try:
                now = _scrape(port)
            except OSError:
                continue
            read = now.get(("wok_exporter_lines_total", "record"), 0)
            if now == before and read >= len(self.wok.lines):
                return {series: value for series, value in now.items() if series[0] in COUNTED and value}
            before = now


def _scrape(port: int) -> Counts:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name in COUNTED or sample.name in ("wok_exporter_journal_records", LOST[0])
    }


def _has_journal(db: sqlite3.Connection) -> bool:
    return bool(db.execute("SELECT 1 FROM sqlite_schema WHERE name = 'journal'").fetchall())


def let_permissions_count() -> None:
    """Let permissions count for the program that this process becomes, also where root runs the tests."""
    libc = ctypes.CDLL(None)
    for capability in CAPABILITIES:
        libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)

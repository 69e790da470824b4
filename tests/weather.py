"""A host in bad weather: a Wok, the real daemon and a backend, all of which can fail in any order.

    with Host(folder) as host:
        host.request("web"), host.end("web")
        host.kill(), host.rotate("gzip"), host.backend("down")
        host.prove()

`prove` lets the weather clear and then checks what `docs/reliability.md` promises: every record has
arrived (L0), nothing has arrived with two contents (D0), and the counters are a recount of the log,
equal to those of a daemon that reads the same files undisturbed (C0). `lines` is what was ever
written, as the truth.
"""

from __future__ import annotations

import gzip
import json
import os
import shutil
import signal
import subprocess
import time
import urllib.request
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Literal, NamedTuple, Self
from uuid import UUID, uuid5

from prometheus_client.parser import text_string_to_metric_families

from tests.program import command, environ, free_port
from tests.sink import Received, Reply, Sink

Backend = Literal["up", "down", "overloaded", "hanging", "lying", "deaf"]
"""Accepts; hangs up; 503; never answers; 200 with a login page; stores, but its answer is lost."""
Rotation = Literal["rename", "gzip", "date", "copytruncate"]

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
CLEARS_SECONDS_MAX = 90.0
CHAIN = (
    "Listening for SIGTERM.",
    "Listening for SIGHUP.",
    "Listening for SIGUSR1.",
    "Bus STARTING",
    "Serving on http://127.0.0.1:8010",
    "Bus STARTED",
)
"""What a true start of wokd writes into wok-error.log."""

Counts = dict[tuple[str, ...], float]


class Written(NamedTuple):
    """A line of the log: its id, and whether it is of a request."""

    uid: str
    is_request: bool
    data: bytes


class Host:
    """Everything on one host, below `folder`. Times of the log are its own: they only say the order."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = folder / "wok" / "user-requests.data"
        self.errors = folder / "wok" / "wok-error.log"
        self.lines: list[Written] = []
        self.sink = Sink()
        self._now = int(time.time()) - 40_000
        self._rotations = 0
        self._torn = b""
        self._daemon: subprocess.Popen[bytes] | None = None
        self._port = free_port()
        self._said: IO[bytes] | None = None

    def __enter__(self) -> Self:
        self.log.parent.mkdir(parents=True)
        self.errors.touch()
        self.sink.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop(signal.SIGKILL)
        self.sink.__exit__(*exception)

    # Wok

    def request(self, name: str, *, status: int = 202) -> None:
        """Write the line of a request to clone a guest."""
        self._write("POST", "KCHVM0009L", {"ident": name, "remote_host": ""}, status)

    def end(self, name: str, *, failed: bool = False) -> None:
        """Write the final record of the clone of a guest."""
        target = f"/plugins/kimchi/vms/{name}-clone-{self._now * 1_000_000}/clone"
        code = "WOKASYNC0002L" if failed else "WOKASYNC0001L"
        self._write("TASK", code, {"target_uri": target}, 400 if failed else 200)

    def step_clock(self, seconds: int) -> None:
        """Let Wok's clock jump."""
        self._now += seconds

    def restart_wok(self) -> None:
        """Start wokd anew: tasks that run are lost."""
        self._now += 5
        stamp = f"{datetime.fromtimestamp(self._now, UTC):%d/%b/%Y:%H:%M:%S}"
        with self.errors.open("a") as stream:
            stream.writelines(f"[{stamp}] ENGINE {said}\n" for said in CHAIN)
        self._now += 5

    def tear(self) -> None:
        """Write only the first half of the next line; the next write completes it."""
        if not self._torn:
            line = self._line("PUT", "KCHVM0003L", {"ident": f"torn{len(self.lines)}"}, 200)
            half = len(line.data) // 2
            self._append(line.data[:half])
            self._torn = line.data[half:]
            self.lines.append(line)

    def rotate(self, how: Rotation) -> None:
        """Rotate the log as logrotate does."""
        if self._torn or not self.log.exists() or not self.log.stat().st_size:
            return
        self._rotations += 1
        number = self._rotations
        name = f"{self.log.name}-{20200101 + number}" if how == "date" else f"{self.log.name}.1"
        if how != "date":
            for old in sorted(self.log.parent.glob(f"{self.log.name}.*"), key=_age, reverse=True):
                old.rename(old.with_name(f"{self.log.name}.{_age(old) + 1}{'.gz' * (old.suffix == '.gz')}"))
        target = self.log.with_name(name)
        if how == "copytruncate":
            shutil.copyfile(self.log, target)
            os.truncate(self.log, 0)
            return
        self.log.rename(target)
        if how == "gzip":
            packed = target.with_name(target.name + ".gz")
            with gzip.open(packed, "wb") as stream:
                stream.write(target.read_bytes())
            target.unlink()

    def _write(self, method: str, code: str, params: Mapping[str, object], status: int) -> None:
        line = self._line(method, code, params, status)
        self._append(self._torn + line.data)
        self._torn = b""
        self.lines.append(line)

    def _line(self, method: str, code: str, params: Mapping[str, object], status: int) -> Written:
        self._now += 3
        when = datetime.fromtimestamp(self._now, UTC)
        uid = str(uuid5(UUID(int=1), str(len(self.lines))))
        is_request = method != "TASK"
        info = {
            "app": "/plugins/kimchi",
            "req": method,
            "status": status,
            "user": "ada" if is_request else "",
            "ip": "192.0.2.1" if is_request else "",
            "date": f"{when:%Y-%m-%d}",
            "time": f"{when:%H:%M:%S}",
            "zone": "UTC",
        }
        error = {"code": "KCHVM0035E", "params": {"name": "x", "err": "no space"}} if status == 400 else None
        record = {"id": uid, "message": {"code": code, "params": params}, "error": error, "info": info}
        return Written(uid, is_request, json.dumps(record).encode() + b"\n")

    def _append(self, data: bytes) -> None:
        with self.log.open("ab") as stream:
            stream.write(data)

    # The backend and the daemon

    def backend(self, how: Backend) -> None:
        """Let the backend behave like this from now on."""
        reply = REPLIES[how]

        def judge(_: Received) -> Reply | None:
            return reply

        self.sink.judge = judge

    def start(self) -> None:
        """Start the daemon, unless it runs."""
        if self._daemon is None:
            self._said = (self.folder / "said").open("ab")
            self._daemon = self._run("state", self._port, self.sink.environ(), self._said)

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
        """Let the daemon read its configuration again, if it runs and has installed its handlers."""
        if self._daemon is not None and "serving" in self.said.rpartition("reading ")[2]:
            self._daemon.send_signal(signal.SIGHUP)

    @property
    def said(self) -> str:
        """All that the daemons have written to stderr."""
        return (self.folder / "said").read_text()

    def _run(
        self, state: str, port: int, backend: Mapping[str, str], said: IO[bytes]
    ) -> subprocess.Popen[bytes]:
        arguments = ["run", "--log", self.log, "--state", self.folder / state]
        arguments += ["--listen", f"127.0.0.1:{port}", "--wok-error-log", self.errors]
        arguments += ["--start-at", "beginning", "--timezone", "UTC", "--instance", "weather"]
        env = environ(**backend, OTEL_EXPORTER_OTLP_TIMEOUT="2")
        return subprocess.Popen(
            command(*arguments, "--messages", "off"),
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=said,
        )

    # The truth

    def prove(self) -> None:
        """Let the weather clear, and check L0, D0 and C0."""
        if self._torn:
            self._append(self._torn)
            self._torn = b""
        # A record far behind the others closes every settling window in the same place for everybody.
        self._now += 7200
        self._write("PUT", "KCHVM0003L", {"ident": "last"}, 200)
        self.backend("up")
        self.start()
        found = self._settled(self._port)
        calm_port = free_port()
        with (self.folder / "calm-said").open("wb") as said:
            calm = self._run("calm", calm_port, {}, said)
            try:
                undisturbed = self._settled(calm_port)
            finally:
                calm.kill()
                calm.wait()
        assert found == undisturbed, self.said
        assert found["wok_exporter_lines_total", "record"] == len(self.lines)
        assert found["wok_exporter_read_bytes_total",] == sum(len(line.data) for line in self.lines)
        self._await_arrivals()
        contents = [set(bytes_) for kept in (self.sink.spans(), self.sink.logs()) for bytes_ in kept.values()]
        assert all(len(different) == 1 for different in contents), self.said
        ended = sum(value for (name, *_), value in found.items() if name == "wok_tasks_finished_total")
        requests = sum(line.is_request for line in self.lines)
        assert len(self.sink.spans()) == requests + ended, self.said
        assert "Traceback" not in self.said

    def _await_arrivals(self) -> None:
        wanted = {line.uid for line in self.lines}
        end = time.monotonic() + CLEARS_SECONDS_MAX
        while missing := wanted - {key[3] for key in self.sink.logs()}:
            assert time.monotonic() < end, f"{len(missing)} records have not arrived\n{self.said}"
            time.sleep(0.2)
        while _scrape(self._port)["wok_exporter_journal_records", "traces"]:
            assert time.monotonic() < end, f"spans are still queued\n{self.said}"
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
            if now == before and read >= len(self.lines):
                return {series: value for series, value in now.items() if series[0] in COUNTED and value}
            before = now


def _age(path: Path) -> int:
    return int(path.name.removesuffix(".gz").rpartition(".")[2])


def _scrape(port: int) -> Counts:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name in COUNTED or sample.name == "wok_exporter_journal_records"
    }

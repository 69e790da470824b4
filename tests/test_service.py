"""The daemon under a service manager, at a real socket: ready, how it stands, alive, and not alive."""

from __future__ import annotations

import fcntl
import os
import re
import resource
import signal
import socket
import sqlite3
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from itertools import pairwise
from pathlib import Path

import pytest

from exporter.config.config import load
from exporter.daemon.daemon import Daemon
from exporter.daemon.signals import SignalFlags
from exporter.daemon.systemd import STATUS_CHARS_MAX, ServiceManager
from tests.manager import ManagerEnd
from tests.program import SAME, command, environ, free_port, request_line, running, wait_until
from tests.sink import Sink

WATCHDOG_SECONDS = 1.2


@pytest.fixture(name="manager")
def _manager() -> Iterator[ManagerEnd]:
    with ManagerEnd() as manager:
        yield manager


@pytest.fixture(name="log")
def _log(tmp_path: Path) -> Path:
    log = tmp_path / "user-requests.data"
    log.write_bytes(request_line(time.time() - 60, "web1"))
    return log


def arguments(log: Path, *more: object) -> list[object]:
    return ["run", "--log", log, "--state", log.parent / "state", "--listen", "127.0.0.1:0", *SAME, *more]


# --- the protocol


@pytest.mark.parametrize("where", ["a path", "an abstract address"])
def test_what_is_said_arrives(tmp_path: Path, where: str) -> None:
    """At a path and at an abstract address: each news is one datagram of the protocol's assignments."""
    with ManagerEnd(tmp_path / "notify" if where == "a path" else None) as end:
        manager = ServiceManager.of(variables := end.environ(watchdog_seconds=30))
        before = time.monotonic_ns() // 1000
        said = [
            manager.ready("one"),
            manager.reloading("two"),
            manager.say("three"),
            manager.stopping("four"),
        ]
        said.append(manager.alive())
        heard = end.listen(0.2)

    assert said == [True] * 5
    since = int(heard[1].pop("MONOTONIC_USEC"))
    assert before <= since <= time.monotonic_ns() // 1000
    assert heard == [
        {"READY": "1", "STATUS": "one"},
        {"RELOADING": "1", "STATUS": "two"},
        {"STATUS": "three"},
        {"STOPPING": "1", "STATUS": "four"},
        {"WATCHDOG": "1"},
    ]
    assert not {"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"} & variables.keys()


def test_a_status_is_one_line(manager: ManagerEnd) -> None:
    """A status with lines, control characters or without end arrives as one printable line of bounded length."""
    told = ServiceManager.of(manager.environ())
    told.say("a\nREADY=1\x1b[31m" + "x" * 10_000)
    (heard,) = manager.listen(0.2)

    assert heard.keys() == {"STATUS"}
    assert heard["STATUS"].startswith("a READY=1 [31mxx")
    assert len(heard["STATUS"]) == STATUS_CHARS_MAX


@pytest.mark.parametrize(
    "variables", [{}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "vsock:2:1"}, {"WATCHDOG_USEC": "2000000"}]
)
def test_without_a_manager_nothing_is_said(variables: dict[str, str]) -> None:
    """Without an address, or with one of another kind, all is well and no watchdog is served."""
    manager = ServiceManager.of(variables)

    assert (manager.is_there, manager.ready("x"), manager.alive()) == (False, True, True)
    assert manager.pace_seconds == float("inf")


def test_a_manager_that_has_gone_is_not_waited_for(tmp_path: Path) -> None:
    """News for a socket that nobody reads, or that is gone, is given up within a moment and reported as not heard."""
    with ManagerEnd(tmp_path / "notify") as end:
        manager = ServiceManager.of(end.environ(watchdog_seconds=0.001))
        began = time.monotonic()
        while manager.say("x" * 300):
            assert time.monotonic() < began + 10, "the queue never fills"
        waited = time.monotonic() - began
    (tmp_path / "notify").unlink()

    assert waited < 5
    assert (manager.ready("x"), manager.alive()) == (False, False)


@pytest.mark.parametrize(("pid", "is_served"), [(str(os.getpid()), True), ("1", False), ("", True)])
def test_whose_watchdog_it_is(manager: ManagerEnd, pid: str, is_served: bool) -> None:
    """A watchdog that is set for another process is not ours to feed."""
    told = ServiceManager.of(manager.environ({"WATCHDOG_PID": pid}, watchdog_seconds=2))

    assert told.pace_seconds == (0.5 if is_served else float("inf"))
    assert told.alive()
    assert manager.listen(0.1) == ([{"WATCHDOG": "1"}] if is_served else [])


def test_signs_of_life_are_not_more_than_due(manager: ManagerEnd) -> None:
    """However often a turn says that it is alive, the manager hears it four times within the watchdog's time."""
    told = ServiceManager.of(manager.environ(watchdog_seconds=0.8))
    end = time.monotonic() + 0.75
    while time.monotonic() < end:
        told.alive()
        time.sleep(0.002)

    assert 2 <= len(manager.listen(0.1)) <= 5


def test_a_signal_in_the_middle_of_a_wait() -> None:
    """A signal ends a wait at once, and one that came before it too; waits without one take their time."""
    asked = SignalFlags.by_signals(hangup_stops=False)
    try:
        os.kill(os.getpid(), signal.SIGHUP)
        began = time.monotonic()
        asked.wait(30)
        assert (asked.reload, asked.stop) == (True, False)
        asked.wait(0.05)
        assert 0.05 <= time.monotonic() - began < 10
        os.kill(os.getpid(), signal.SIGTERM)
        asked.wait(30)
        assert asked.stop
        assert time.monotonic() - began < 10
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGHUP, signal.SIG_DFL)


# --- ready


def test_ready_means_that_it_answers(manager: ManagerEnd, log: Path, tmp_path: Path) -> None:
    """At the moment READY arrives /healthz is answered and the log's lines are committed; the status says what is
    followed, and the end is told before it comes.
    """
    port = free_port()
    more = ("--listen", f"127.0.0.1:{port}", "--start-at", "beginning")
    with running(*arguments(log, *more), said=tmp_path / "said", env=manager.environ()) as daemon:
        first = manager.wait_ready()
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=10) as answer:
            assert answer.status == 200
        with closing(sqlite3.connect(f"file:{tmp_path}/state/state.db?mode=ro", uri=True)) as db:
            assert db.execute("SELECT count(*) FROM request").fetchone() == (1,)
        code = daemon.stop()

    assert manager.heard[0] == first
    assert first["STATUS"].startswith(f"following {log}; 0 running tasks; last record 20")
    assert code == 0
    assert manager.listen(0.1)[-1]["STOPPING"] == "1"


def test_it_is_not_ready_before_it_can_serve(manager: ManagerEnd, log: Path, tmp_path: Path) -> None:
    """A start that fails, because the port is taken, never says READY."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        more = ("--listen", f"127.0.0.1:{other.getsockname()[1]}")
        done = subprocess.run(
            command(*arguments(log, *more)),
            env=manager.environ(),
            capture_output=True,
            check=False,
            timeout=60,
        )

    assert done.returncode == 2
    assert manager.listen(0.1) == []


def test_a_log_that_is_not_there_yet(manager: ManagerEnd, log: Path, tmp_path: Path) -> None:
    """Before Wok has written its first line the exporter is ready all the same, and its status says what it waits
    for; once the log is there, the status follows.
    """
    log.unlink()
    with running(*arguments(log), said=tmp_path / "said", env=manager.environ()):
        first = manager.wait_ready()
        log.write_bytes(request_line(time.time(), "web1"))
        later = manager.wait_for(lambda message: message.get("STATUS", "").startswith(f"following {log}"))

    assert f"{log} does not exist; check the configured path, or start wokd" in first["STATUS"]
    assert "last record 20" in later["STATUS"]


def test_the_status_names_a_backend_that_is_away(manager: ManagerEnd, log: Path, tmp_path: Path) -> None:
    """While a backend is away the status says which, what to do and how much waits; when it has come, that all is
    sent.
    """
    port = free_port()
    env = manager.environ({"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}"})
    with running(*arguments(log, "--start-at", "beginning"), said=tmp_path / "said", env=env):
        away = manager.wait_for(lambda message: "traces: http" in message.get("STATUS", ""))["STATUS"]
        with Sink(port=port):
            sent = manager.wait_for(lambda message: "nothing queued" in message.get("STATUS", ""))["STATUS"]

    assert f"traces: http://127.0.0.1:{port}/v1/traces refuses connections" in away
    assert "is the backend running?" in away
    assert re.search("queued: 1 (span|log record)", away)
    assert sent.startswith(f"following {log}; ")


# --- alive, and not


def test_an_idle_pipeline_is_alive(manager: ManagerEnd, log: Path, tmp_path: Path) -> None:
    """With nothing to read, and with a poll interval longer than the watchdog's time, signs of life come in time."""
    env = manager.environ(watchdog_seconds=WATCHDOG_SECONDS)
    with running(*arguments(log, "--poll-interval", "1m"), said=tmp_path / "said", env=env):
        manager.wait_ready()
        times = []
        for _ in range(6):
            manager.wait_for(lambda message: "WATCHDOG" in message)
            times.append(time.monotonic())

    gaps = [after - before for before, after in pairwise(times)]
    assert max(gaps) < WATCHDOG_SECONDS


def signs(messages: list[dict[str, str]]) -> int:
    return sum("WATCHDOG" in message for message in messages)


def test_a_commit_that_hangs_is_not_alive(manager: ManagerEnd, log: Path, tmp_path: Path) -> None:
    """While another program holds the state's lock and a commit waits for it, no sign of life is given, though the
    server answers; afterwards there are some again.
    """
    env = manager.environ(watchdog_seconds=WATCHDOG_SECONDS)
    with running(*arguments(log), said=tmp_path / "said", env=env) as daemon:
        manager.wait_ready()
        with closing(sqlite3.connect(tmp_path / "state" / "state.db", isolation_level=None)) as db:
            db.execute("BEGIN IMMEDIATE")
            with log.open("ab") as stream:
                stream.write(request_line(time.time(), "web2"))
            manager.listen(0.7)  # until the turn that hangs
            hanging = manager.listen(1.5 * WATCHDOG_SECONDS)
            answer = daemon.get("/healthz")
            db.execute("ROLLBACK")
        manager.wait_for(lambda message: "WATCHDOG" in message)

    assert signs(hanging) == 0
    assert answer == (200, "ok\n")


def test_a_write_that_hangs_is_not_alive(manager: ManagerEnd, log: Path, tmp_path: Path) -> None:
    """While the pipeline waits in writing a message, because nobody reads the pipe of its stderr, no sign of life is
    given; once somebody reads, it goes on.
    """
    read, write = os.pipe()
    fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, 4096)
    program = subprocess.Popen(
        command(*arguments(log)),
        env=manager.environ(watchdog_seconds=WATCHDOG_SECONDS),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=write,
    )
    try:
        manager.wait_ready()
        manager.wait_for(lambda message: "WATCHDOG" in message)
        os.set_blocking(read, False)
        os.read(read, 65536)
        with os.fdopen(os.dup(write), "wb", buffering=0) as ours:
            fill(ours.fileno())
        log.write_bytes(request_line(time.time(), "web2"))  # another file in its place is worth a warning
        manager.listen(0.7)
        hanging = manager.listen(1.5 * WATCHDOG_SECONDS)
        os.read(read, 65536)
        manager.wait_for(lambda message: "WATCHDOG" in message)
    finally:
        program.kill()
        program.wait()
        os.close(read)
        os.close(write)

    assert signs(hanging) == 0


def fill(pipe: int) -> None:
    """Write into a pipe until it is full."""
    flags = fcntl.fcntl(pipe, fcntl.F_GETFL)
    fcntl.fcntl(pipe, fcntl.F_SETFL, flags | os.O_NONBLOCK)
    try:
        for size in (4096, 512, 64, 1):
            while True:
                try:
                    os.write(pipe, b"." * size)
                except BlockingIOError:
                    break
    finally:
        # The flag is the open file's, and that is the program's as well.
        fcntl.fcntl(pipe, fcntl.F_SETFL, flags)


def test_a_full_disk_is_alive(manager: ManagerEnd, log: Path, tmp_path: Path) -> None:
    """Turns that the store fails are signs of life: a restart would heal nothing. The status says what is wrong, and
    that it is over when it is.
    """
    env = manager.environ(watchdog_seconds=WATCHDOG_SECONDS)
    more = ("--start-at", "beginning")
    with running(*arguments(log, *more), said=tmp_path / "said", env=env) as daemon:
        manager.wait_ready()
        # A file size limit is a full disk to SQLite.
        limit_file_size(daemon.process.pid, 64 * 1024)
        with log.open("ab") as stream:
            stream.write(b"".join(request_line(time.time(), f"web{n}") for n in range(2000)))
        bad = manager.wait_for(lambda message: "state.db" in message.get("STATUS", ""))["STATUS"]
        during = manager.listen(WATCHDOG_SECONDS)
        limit_file_size(daemon.process.pid, None)
        good = manager.wait_for(lambda message: message.get("STATUS", "").startswith("following"))["STATUS"]
        daemon.wait_for("the state can be written again")

    assert signs(during) >= 1
    assert bad
    assert good


def limit_file_size(pid: int, size_bytes: int | None) -> None:
    limit = resource.RLIM_INFINITY if size_bytes is None else size_bytes
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))


def test_children_do_not_speak_for_it(manager: ManagerEnd, log: Path, tmp_path: Path) -> None:
    """The manager's variables are gone from the environment that a child of the daemon would get."""
    seen = "import os, exporter.cli as c; c.os.environ; from exporter.daemon import service as s; "
    seen += "s.Service.run = lambda self: print(sorted(n for n in os.environ if n.startswith(('NOTIFY', 'WATCH'))));"
    seen += f"c.main({[str(one) for one in arguments(log)]!r})"
    done = subprocess.run(
        [*command()[:1], "-c", seen],
        env=manager.environ({"WATCHDOG_PID": "1"}, watchdog_seconds=5),
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.stdout == "[]\n", done.stderr


def test_the_check_says_nothing_to_the_manager(manager: ManagerEnd, log: Path) -> None:
    """`run --check-config`, which a unit runs before the daemon, says nothing in its name."""
    done = subprocess.run(
        command(*arguments(log), "--check-config"), env=manager.environ(), capture_output=True, check=False
    )

    assert done.returncode == 0
    assert manager.listen(0.1) == []


def test_ready_is_said_again_when_it_was_not_heard(log: Path, tmp_path: Path) -> None:
    """A manager whose socket is away at the moment of the start hears READY with a later turn."""
    env = environ(NOTIFY_SOCKET=str(tmp_path / "notify"))
    with running(*arguments(log), said=tmp_path / "said", env=env) as daemon:
        wait_until(lambda: "cannot notify the service manager at NOTIFY_SOCKET" in daemon.said)
        with ManagerEnd(tmp_path / "notify") as late:
            late.wait_ready()


def test_a_hung_pipeline_is_seen_from_outside(
    log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a turn of the pipeline hangs, /readyz is 503 and says since when and what to do, and /metrics has the
    problem; without systemd, too. Afterwards both are as before.
    """
    monkeypatch.setattr("exporter.daemon.daemon.TURN_SECONDS_MAX", 0.2)
    hangs, goes_on, stopped = threading.Event(), threading.Event(), threading.Event()

    def wall() -> int:
        if hangs.is_set() and threading.current_thread().name == "pipeline":
            goes_on.wait(30)
        return time.time_ns()

    flags = {
        "log": str(log),
        "state": str(tmp_path / "state"),
        "listen": "127.0.0.1:0",
        "start_at": "beginning",
    }
    daemon = Daemon(load(flags, {}, "run"), {}, wall=wall)
    runs = threading.Thread(target=daemon.run, args=(stopped,), name="pipeline")
    runs.start()
    try:
        assert daemon.server is not None
        port = daemon.server.port
        wait_until(lambda: asked(port, "/readyz") == (200, "ready\n"))
        hangs.set()
        wait_until(lambda: asked(port, "/readyz")[0] == 503)
        said = asked(port, "/readyz")[1]
        scrape = asked(port, "/metrics")[1]
        hangs.clear()
        goes_on.set()
        wait_until(lambda: asked(port, "/readyz") == (200, "ready\n"))
    finally:
        goes_on.set()
        stopped.set()
        runs.join()

    assert re.match(
        r"the pipeline hangs: its last turn began \d+ s ago and has not ended\. Check the disks of", said
    )
    assert 'wok_exporter_reading_problem{kind="pipeline"} 1.0' in scrape


def asked(port: int, path: str) -> tuple[int, str]:
    """Return the status and the body of a page of a server."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"http://127.0.0.1:{port}{path}", timeout=30) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()

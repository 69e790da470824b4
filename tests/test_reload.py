"""Reloading the daemon with SIGHUP: a good configuration is taken up, a bad one is told, and no line is lost or counted twice."""

from __future__ import annotations

import os
import pty
import resource
import signal
import socket
import sqlite3
import ssl
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from itertools import takewhile
from pathlib import Path
from typing import Any

import pytest

from exporter.config.config import load
from exporter.config.options import Config
from exporter.daemon.service import Service
from exporter.daemon.signals import SignalFlags
from exporter.daemon.systemd import ServiceManager
from exporter.http.auth import hash_password
from tests import crash
from tests.manager import ManagerEnd
from tests.program import SAME, Running, command, environ, free_port, request_line, running, wait_until
from tests.sink import Sink, make_certificates

RELOADS = 20


class Reloaded:
    """A daemon that a manager has started with a configuration file, and which is asked to read it again."""

    def __init__(self, daemon: Running, manager: ManagerEnd, config: Path, settings: dict[str, Any]) -> None:
        self.daemon = daemon
        self.manager = manager
        self._config = config
        self._settings = settings

    def reload(self, **changes: Any) -> str:
        """Change settings in the file, reload, and return the status that the manager is told at the end."""
        self._settings |= changes
        write(self._config, self._settings)
        return self.reload_file()

    def reload_file(self) -> str:
        """Reload the file as it is."""
        self.daemon.process.send_signal(signal.SIGHUP)
        begun = self.manager.wait_for(lambda message: "RELOADING" in message)
        assert int(begun["MONOTONIC_USEC"]) <= time.monotonic_ns() // 1000
        return self.manager.wait_ready()["STATUS"]


def write(config: Path, settings: dict[str, Any]) -> None:
    lines = [
        f"{key} = {str(value).lower() if isinstance(value, bool) else repr(str(value))}\n"
        for key, value in settings.items()
    ]
    config.write_text("".join(lines))


@contextmanager
def reloadable(folder: Path, **settings: Any) -> Iterator[Reloaded]:
    """Run a daemon from a configuration file, and wait until it is ready."""
    config = folder / "wok-exporter.toml"
    log = folder / "user-requests.data"
    if not log.exists():
        log.write_bytes(request_line(time.time() - 60, "web1"))
    settings = {
        "log": log,
        "state": folder / "state",
        "listen": f"127.0.0.1:{free_port()}",
        "wok_error_log": "off",
        "messages": "off",
        "timezone": "UTC",
        "instance": "test",
        "start_at": "beginning",
        **settings,
    }
    write(config, settings)
    with (
        ManagerEnd() as manager,
        running("run", "--config", config, said=folder / "said", env=manager.environ()) as daemon,
    ):
        manager.wait_ready()
        yield Reloaded(daemon, manager, config, settings)


def requests_shown(port: int) -> float:
    counts = crash.scrape(port)
    return sum(value for series, value in counts.items() if series[0] == "wok_requests_total")


def reload_shown(port: int) -> tuple[float, float]:
    """Whether the last reload succeeded, and the time of the last that did, by the metrics."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    shown = dict(line.rsplit(" ", 1) for line in lines if line.startswith("wok_exporter_last_reload_"))
    return (
        float(shown["wok_exporter_last_reload_successful"]),
        float(shown["wok_exporter_last_reload_success_timestamp_seconds"]),
    )


# --- good ones


def test_a_good_configuration_is_taken_up(tmp_path: Path) -> None:
    """What has changed in the file is in force after the reload, in the same process, and is named; the rest, and all
    counts, are as before.
    """
    port = free_port()
    with reloadable(tmp_path, listen=f"127.0.0.1:{port}") as reloaded:
        pid = reloaded.daemon.process.pid
        status = reloaded.reload(ui=False, log_format="json", log_level="debug")
        shown = requests_shown(port)
        page, scrape = reloaded.daemon.get("/")[0], reloaded.daemon.get("/metrics")[0]
        runbook = reloaded.daemon.get("/runbooks/WokTaskFailed.md")
        assert reloaded.daemon.process.poll() is None
        assert reloaded.daemon.stop() == 0
        said = reloaded.daemon.said

    assert pid == reloaded.daemon.process.pid
    assert (page, scrape, shown) == (404, 200, 1.0)
    # alerts link to it, with or without the page
    assert (runbook[0], runbook[1].splitlines()[0]) == (200, "# WokTaskFailed")
    assert status.startswith("following")
    assert '"message": "reloaded; changed settings: ui, log_level, log_format"' in said


def test_it_moves_to_another_port(tmp_path: Path) -> None:
    """After a reload with another port the new one answers and the old one does not."""
    old, new = free_port(), free_port()
    with reloadable(tmp_path, listen=f"127.0.0.1:{old}") as reloaded:
        assert requests_shown(old) == 1
        reloaded.reload(listen=f"127.0.0.1:{new}")

        assert requests_shown(new) == 1
        with pytest.raises(OSError, match="refused"):
            crash.scrape(old)


def test_users_and_certificate_are_read_again(tmp_path: Path) -> None:
    """A new certificate and a new file of users are in force after a reload: the old password is refused, the new
    one is taken, over the new certificate.
    """
    users, pem = tmp_path / "users", tmp_path / "server.pem"
    port = free_port()

    def install(name: str) -> None:
        made = tmp_path / name
        make_certificates(made)
        pem.write_bytes(b"".join((made / f"{one}.pem").read_bytes() for one in ("server", "server-key")))
        users.write_text(f"ada:{hash_password(name)}\n")

    def status(password: str, made: str) -> int:
        context = ssl.create_default_context(cafile=str(tmp_path / made / "ca.pem"))
        handler = urllib.request.HTTPBasicAuthHandler()
        handler.add_password("wok-exporter", f"https://127.0.0.1:{port}/", "ada", password)
        opener = urllib.request.build_opener(urllib.request.HTTPSHandler(context=context), handler)
        try:
            with opener.open(f"https://127.0.0.1:{port}/metrics", timeout=10) as answer:
                return int(answer.status)
        except urllib.request.HTTPError as error:
            with error:
                return int(error.code)

    install("first")
    with reloadable(tmp_path, listen=f"127.0.0.1:{port}", tls_certificate=pem, auth_file=users) as reloaded:
        before = status("first", "first")
        install("second")
        reloaded.reload()
        after = [status("first", "second"), status("second", "second")]

    assert (before, after) == (200, [401, 200])


def test_twenty_reloads_while_the_log_grows(tmp_path: Path) -> None:
    """A daemon that is reloaded twenty times, every other time to another port, while Wok writes and rotates, counts
    what a recount of the log says, and every line arrives at the backend once and unchanged.
    """
    log = tmp_path / "wok" / "user-requests.data"
    log.parent.mkdir()
    writer = crash.Writer(log, seconds=4, per_second=200, rotate_lines=300, seed=11)
    writer._story = takewhile(lambda line: line.at < 4, writer._story)
    ports = (free_port(), free_port())
    with Sink() as sink, ManagerEnd() as manager:
        settings = {
            "log": log,
            "state": tmp_path / "state",
            "wok_error_log": "off",
            "messages": "off",
            "timezone": "UTC",
            "instance": "crash",
            "start_at": "beginning",
        }
        config = tmp_path / "wok-exporter.toml"
        write(config, settings | {"listen": f"127.0.0.1:{ports[0]}"})
        env = manager.environ(sink.environ())
        with running("run", "--config", config, said=tmp_path / "said", env=env) as daemon:
            manager.wait_ready()
            reloaded = Reloaded(daemon, manager, config, settings)
            writer.start()
            for turn in range(1, RELOADS + 1):
                reloaded.reload(listen=f"127.0.0.1:{ports[turn % 2]}")
                time.sleep(0.1)
            writer.join()
            if writer.lag > crash.LAG_SECONDS_MAX:
                pytest.skip(f"this machine is too busy: the log was written {writer.lag:.1f} s late")
            counted = crash.settled(ports[0], writer.lines, 60)
            wait_until(lambda: not crash.missing(log, sink))
            said = daemon.said

    assert crash.differences("recount", counted, crash.recount(log), subset=True) == []
    assert sink.counts()["conflicts"] == 0
    assert said.count("reloaded; changed settings") == RELOADS
    assert "Traceback" not in said


# --- bad ones


def test_a_bad_configuration_is_refused(tmp_path: Path) -> None:
    """Each mistake of the new file is told in the log with its place and remedy, the first in the status; the daemon
    goes on as before, also when the file is later gone, and takes up a file that is mended.
    """
    port = free_port()
    with reloadable(tmp_path, listen=f"127.0.0.1:{port}") as reloaded:
        good = (tmp_path / "wok-exporter.toml").read_text()
        (tmp_path / "wok-exporter.toml").write_text(f'{good}\npoll_interval = "soon"\ncolour = "red"\n')
        begun = reload_shown(port)
        status = reloaded.reload_file()
        refused = reload_shown(port)
        with (tmp_path / "user-requests.data").open("ab") as stream:
            stream.write(request_line(time.time(), "web2"))
        wait_until(lambda: requests_shown(port) == 2)
        (tmp_path / "wok-exporter.toml").unlink()
        gone = reloaded.reload_file()
        (tmp_path / "wok-exporter.toml").write_text(good)
        mended = reloaded.reload_file()
        shown, said = requests_shown(port), reloaded.daemon.said
        again = reload_shown(port)

    assert (begun[0], refused, again[0]) == (1, (0, begun[1]), 1)
    assert again[1] > begun[1]
    file = tmp_path / "wok-exporter.toml"
    assert status.startswith(
        f"reload rejected: {file}: colour: unknown key: remove it (and 1 more); running with the previous configuration: following"
    )
    assert f"ERROR {file}: poll_interval: 'soon' is not a duration: write a number and its unit" in said
    assert gone.startswith(f"reload rejected: {file}: no such file")
    assert mended.startswith("following")
    assert shown == 2


def test_files_that_the_configuration_names_are_proved(tmp_path: Path) -> None:
    """A certificate that is none, and a file of users with a mistake, refuse a reload with their sentences."""
    pem, users = tmp_path / "server.pem", tmp_path / "users"
    pem.write_text("no certificate")
    users.write_text("ada:secret\n")
    with reloadable(tmp_path) as reloaded:
        statuses = [
            reloaded.reload(tls_certificate=pem),
            reloaded.reload(tls_certificate="", auth_file=users),
        ]
        answer = reloaded.daemon.get("/healthz")

    assert statuses[0].startswith(f"reload rejected: cannot read the certificate {pem}")
    assert statuses[1].startswith(f"reload rejected: {users}:1 is not user:hash")
    assert answer[0] == 200


def test_the_state_cannot_move(tmp_path: Path) -> None:
    """Another state is refused with a sentence that says what to do, and is not made."""
    with reloadable(tmp_path) as reloaded:
        status = reloaded.reload(state=tmp_path / "other")

    assert (
        f"a reload cannot move the state from {tmp_path / 'state'} to {tmp_path / 'other'}: restart" in status
    )
    assert not (tmp_path / "other").exists()


def test_a_port_that_is_taken(tmp_path: Path) -> None:
    """Where only the start can tell that the new configuration does not work, the one of before is started again."""
    port = free_port()
    with reloadable(tmp_path, listen=f"127.0.0.1:{port}") as reloaded, socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = other.getsockname()[1]
        status = reloaded.reload(listen=f"127.0.0.1:{taken}", ui=False)
        with (tmp_path / "user-requests.data").open("ab") as stream:
            stream.write(request_line(time.time(), "web2"))
        wait_until(lambda: requests_shown(port) == 2)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=10) as page:
            assert page.status == 200

    assert status.startswith(f"reload rejected: cannot listen on 127.0.0.1:{taken}")


def test_a_certificate_for_the_backend_that_is_gone(tmp_path: Path) -> None:
    """Files that OTEL_* variables name are looked at before the old daemon ends: one that is gone refuses the reload."""
    certificates = make_certificates(tmp_path / "ca")
    with Sink("http", certificates=certificates) as sink, ManagerEnd() as manager:
        config = tmp_path / "wok-exporter.toml"
        log = tmp_path / "user-requests.data"
        log.write_bytes(request_line(time.time() - 60, "web1"))
        settings = {
            "log": log,
            "state": tmp_path / "state",
            "listen": "off",
            "instance": "x",
            "timezone": "UTC",
        }
        write(config, settings)
        env = manager.environ(sink.environ())
        with running("run", "--config", config, said=tmp_path / "said", env=env) as daemon:
            manager.wait_ready()
            wait_until(lambda: len(sink.logs()) == 1)
            authority = Path(env["OTEL_EXPORTER_OTLP_CERTIFICATE"])
            authority.rename(tmp_path / "away")
            status = Reloaded(daemon, manager, config, settings).reload_file()
            (tmp_path / "away").rename(authority)
            with log.open("ab") as stream:
                stream.write(request_line(time.time(), "web2"))
            wait_until(lambda: len(sink.logs()) == 2)

    assert "OTEL_EXPORTER_OTLP_CERTIFICATE: cannot read" in status


def test_a_state_that_cannot_be_written(tmp_path: Path) -> None:
    """While another program holds the state's lock no start can come from it: a reload is refused and the daemon,
    which would else be gone, goes on; afterwards the same file is taken up.
    """
    with reloadable(tmp_path) as reloaded:
        with closing(sqlite3.connect(tmp_path / "state" / "state.db", isolation_level=None)) as db:
            db.execute("BEGIN IMMEDIATE")
            locked = reloaded.reload(ui=False)
            answer = reloaded.daemon.get("/")
            db.execute("ROLLBACK")
        free = reloaded.reload_file()

    assert locked.startswith(f"reload rejected: {tmp_path}/state/state.db: database is locked")
    assert answer[0] == 200
    assert free.startswith("following")


def test_a_refusal_makes_nothing_ready(tmp_path: Path) -> None:
    """A daemon whose first turn the store has failed is not ready because a reload is refused; it is when the state
    can be written.
    """
    log = tmp_path / "user-requests.data"
    log.write_bytes(b"".join(request_line(time.time() - 60, f"web{n}") for n in range(2000)))
    more = ["--listen", "off", "--state", tmp_path / "state", "--start-at", "beginning", *SAME]
    with ManagerEnd() as manager, ExitStack() as stack:
        unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (640 * 1024, unlimited[1]))  # to SQLite, a full disk
        try:
            daemon = stack.enter_context(
                running("run", "--log", log, *more, said=tmp_path / "said", env=manager.environ())
            )
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
        manager.wait_for(lambda message: "state.db" in message.get("STATUS", ""))
        daemon.process.send_signal(signal.SIGHUP)
        manager.wait_for(lambda message: "reload rejected" in message.get("STATUS", ""))
        limited = list(manager.heard)
        resource.prlimit(daemon.process.pid, resource.RLIMIT_FSIZE, unlimited)
        manager.wait_ready()

    assert [message for message in limited if "READY" in message] == []


def test_a_stop_in_the_middle_of_a_reload(tmp_path: Path) -> None:
    """A daemon that is asked to stop while it takes up a new configuration stops, and begins no other one."""
    flags = {"log": tmp_path / "log", "state": tmp_path / "state", "listen": "off", "instance": "x"}
    config = load({key: str(value) for key, value in flags.items()}, {}, "run", root=tmp_path)
    asked = SignalFlags()
    begun: list[Config] = []

    def again() -> Config:
        asked.ask_stop()
        return config

    asked.ask_reload()
    with ManagerEnd() as manager:
        told = ServiceManager.of(manager.environ())
        Service(config, {}, told, asked, again=again, in_force=begun.append).run()
        heard = manager.listen(0.1)

    assert [next(iter(message)) for message in heard] == ["READY", "RELOADING", "STOPPING"]
    assert begun == []


# --- where it is no reload


def test_at_a_terminal_it_is_the_end(tmp_path: Path) -> None:
    """With a terminal as its standard input SIGHUP ends the daemon cleanly: the terminal has gone."""
    ours, theirs = pty.openpty()
    (tmp_path / "log").touch()
    flags = ["--log", tmp_path / "log", "--state", tmp_path / "state", "--listen", "off", "--instance", "x"]
    with (tmp_path / "said").open("wb") as said:
        program = subprocess.Popen(command("run", *flags), env=environ(), stdin=theirs, stderr=said)
    try:
        wait_until(lambda: "backlog read" in (tmp_path / "said").read_text())
        program.send_signal(signal.SIGHUP)
        code = program.wait(60)
    finally:
        program.kill()
        program.wait()
        os.close(ours)
        os.close(theirs)

    assert code == 0
    assert (tmp_path / "said").read_text().endswith("INFO stopped\n")

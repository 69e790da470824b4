"""Hostile users of Wok, hostile clients and a damaged state, against the daemon as others start it."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

import pytest

from exporter.http.auth import hash_password
from tests.program import SAME, Running, run, running, wait_until

BASIC = {"Authorization": "Basic cHJvbWV0aGV1czpyaWdodCBob3JzZQ=="}
"""prometheus:right horse"""


def line(seconds: float, user: str, params: dict[str, str], status: int = 200) -> str:
    """A request of the JSON dialect so many seconds before now."""
    at = time.gmtime(time.time() - seconds)
    info = {
        "app": "/plugins/kimchi",
        "req": "POST",
        "status": status,
        "user": user,
        "ip": "192.0.2.7",
        "date": time.strftime("%Y-%m-%d", at),
        "time": time.strftime("%H:%M:%S", at),
        "zone": "UTC",
    }
    message = {"code": "KCHVM0010L" if status == 202 else "KCHVM0004L", "params": params}
    return json.dumps({"id": os.urandom(16).hex(), "message": message, "error": None, "info": info}) + "\n"


@contextmanager
def daemon(tmp_path: Path, *more: object, endpoint: str = "") -> Iterator[Running]:
    """A daemon on `log` and `state` of a directory."""
    places = ("--log", tmp_path / "log", "--state", tmp_path / "state", "--listen", "127.0.0.1:0")
    env = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "WOK_"))}
    if endpoint:
        env["OTEL_EXPORTER_OTLP_ENDPOINT"] = endpoint
    flags = (*places, *SAME, "--start-at", "beginning", "--wok-error-log", "off", *more)
    with running("run", *flags, said=tmp_path / "said", env=env) as started:
        yield started


def read_lines(program: Running, count: int) -> None:
    """Wait until so many lines have been read."""
    wait_until(
        lambda: f'wok_exporter_lines_total{{result="record"}} {float(count)}' in program.get("/metrics")[1]
    )


def memory_mib(program: Running) -> float:
    """The most memory that the process has had."""
    status = Path(f"/proc/{program.process.pid}/status").read_text()
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert found
    return int(found[1]) / 1024


def test_long_names(tmp_path: Path) -> None:
    """Thousands of requests with names of 16 KB each cost the page, the API and the state a bounded size."""
    with (tmp_path / "log").open("w") as log:
        for n in range(2000):
            name = f"{n:05d}" + "\U0001f600" * 4000
            log.write(line(3000 - n, name, {"ident": name}))
    with daemon(tmp_path) as program:
        read_lines(program, 2000)
        for path in ("/api/requests?limit=2000", "/api/tasks?limit=500", "/api/status"):
            status, body = program.get(path)
            assert (status, len(body) < 8 * 2**20) == (200, True)
        assert memory_mib(program) < 180
        assert program.stop() == 0
    assert (tmp_path / "state" / "state.db").stat().st_size < 16 * 2**20


def test_many_open_tasks(tmp_path: Path) -> None:
    """20,000 tasks without an end are counted by a scrape in a moment, and a start on them needs little memory."""
    with (tmp_path / "log").open("w") as log:
        for n in range(20_000):
            log.write(line(1000 - n / 50, "ada", {"ident": f"{n:06d}" + "g" * 300, "remote_host": "h"}, 202))
    with daemon(tmp_path) as program:
        read_lines(program, 20_000)
        assert program.stop() == 0
    with daemon(tmp_path) as program:
        wait_until(lambda: program.get("/readyz")[0] == 200)
        begin = time.monotonic()
        status, page = program.get("/metrics")
        assert time.monotonic() - begin < 1
        assert (status, 'wok_tasks_in_progress{app="kimchi",operation="vms.migrate"} 20000.0' in page) == (
            200,
            True,
        )
        assert memory_mib(program) < 160


def test_a_restart_of_wokd_with_many_open_tasks(tmp_path: Path) -> None:
    """When wokd restarts and 20,000 tasks are lost at once, no row of the journal is large."""
    marks = tmp_path / "wok-error.log"
    with (tmp_path / "log").open("w") as log:
        for n in range(20_000):
            log.write(line(1000 - n / 50, "ada", {"ident": f"{n:06d}", "remote_host": "h"}, 202))
    marks.write_text(time.strftime("[%d/%b/%Y:%H:%M:%S] ENGINE Bus STARTED\n", time.gmtime()))
    with daemon(tmp_path, "--wok-error-log", marks, endpoint="http://127.0.0.1:9") as program:
        lost = re.compile(
            r'wok_tasks_finished_total{app="kimchi",operation="vms.migrate",outcome="lost"} 20000\.0'
        )
        wait_until(lambda: bool(lost.search(program.get("/metrics")[1])))
        assert memory_mib(program) < 250
        assert program.stop() == 0
    with sqlite3.connect(tmp_path / "state" / "state.db") as db:
        sizes = db.execute("SELECT max(length(payload)), sum(items) FROM journal").fetchone()
    assert (sizes[0] <= 2**20, sizes[1]) == (True, 4 * 20_000)


def test_a_search_and_the_end(tmp_path: Path) -> None:
    """Searches that find nothing end in seconds, all of them together, and a stop does not wait for them."""
    with (tmp_path / "log").open("w") as log:
        for n in range(5000):
            log.write(line(3000 - n / 10, "\u00e9" * 2000, {"ident": "\u00e9" * 2000}))
    with daemon(tmp_path) as program:
        read_lines(program, 5000)
        path = "/api/requests?limit=1&text=" + quote("\u00e9" * 299 + "b")

        def search() -> None:
            with suppress(OSError):  # the stop may close the connection first
                program.get(path)

        asked = [threading.Thread(target=search, daemon=True) for _ in range(20)]
        for each in asked:
            each.start()
        time.sleep(0.3)
        begin = time.monotonic()
        assert program.stop(signal.SIGTERM) == 0
        assert time.monotonic() - begin < 5


def test_clients_of_all_kinds(tmp_path: Path) -> None:
    """Beside silent, slow and guessing clients a scrape with the right password takes less than a second."""
    users = tmp_path / "users"
    users.write_text(f"prometheus:{hash_password('right horse')}\n")
    (tmp_path / "log").write_text(line(10, "ada", {"ident": "x"}))
    with daemon(tmp_path, "--auth-file", users) as program, ExitStack() as stack:
        wait_until(lambda: program.get("/metrics", BASIC)[0] == 200)
        for n in range(300):
            client = stack.enter_context(socket.create_connection(("127.0.0.1", program.port), timeout=10))
            client.sendall(
                (b"", b"GET / HT", f"GET /{n} HTTP/1.1\r\nAuthorization: Basic OjA=\r\n\r\n".encode())[n % 3]
            )
        for n in range(5):
            begin = time.monotonic()
            assert program.get("/metrics", BASIC)[0] == 200
            assert time.monotonic() - begin < 1, n


def test_a_page_of_another_site(tmp_path: Path) -> None:
    """Neither what another site's page makes a browser ask for, nor a rebound name, is told anything."""
    (tmp_path / "log").mkdir()
    with daemon(tmp_path) as program:
        wait_until(lambda: str(tmp_path / "log") in program.get("/readyz")[1])
        cross = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"}
        rebound = {"Host": "rebound.example"}
        for path in ("/", "/api/status", "/metrics", "/readyz"):
            assert program.get(path, cross)[0] == 403
        for path in ("/", "/api/status"):
            assert program.get(path, rebound)[0] == 421
        assert str(tmp_path) not in program.get("/readyz", rebound)[1]
        assert str(tmp_path) not in program.get("/metrics", rebound)[1]


@pytest.mark.parametrize("policy", ["fail", "restart"])
def test_a_byte_of_the_journal(tmp_path: Path, policy: str) -> None:
    """A changed byte in what waits for a backend: that row is set aside and counted, and the daemon goes on."""
    log = tmp_path / "log"
    log.write_text(
        "".join(line(600 - n, "z" * 40 if n == 9 else f"user{n}", {"ident": "x"}) for n in range(20))
    )
    with daemon(tmp_path, endpoint="http://127.0.0.1:9") as program:
        read_lines(program, 20)
        assert program.stop() == 0
    file = tmp_path / "state" / "state.db"
    with sqlite3.connect(file) as db:
        before = db.execute("SELECT sum(items) FROM journal WHERE signal = 'traces'").fetchone()[0]
    data = file.read_bytes()
    assert data.count(b"z" * 40) > 0
    file.write_bytes(data.replace(b"z" * 40, b"z" * 20 + b"Q" + b"z" * 19))
    with daemon(tmp_path, "--on-broken-state", policy, endpoint="http://127.0.0.1:9") as program:
        lost = re.compile(r'wok_exporter_lost_records_total{reason="damaged"} ([1-9]\d*)\.0')
        wait_until(lambda: bool(lost.search(program.get("/metrics")[1])))
        with log.open("a") as more:
            more.write(line(1, "later", {"ident": "x"}))
        read_lines(program, 21)
        assert "is damaged" in program.said
        assert "Traceback" not in program.said
        assert program.stop() == 0
    with sqlite3.connect(file) as db:
        after = db.execute("SELECT sum(items) FROM journal WHERE signal = 'traces'").fetchone()[0]
        kept = db.execute("SELECT count(*) FROM damaged").fetchone()[0]
    assert after < before + 1
    assert kept > 0


@pytest.mark.parametrize("place", ["users", "state.db", "certificate"])
def test_pipes_do_not_hang_a_start(tmp_path: Path, place: str) -> None:
    """A FIFO in the place of a file is a mistake that is told at once."""
    (tmp_path / "log").write_text(line(1, "ada", {"ident": "x"}))
    (tmp_path / "state").mkdir()
    fifo = tmp_path / ("state/state.db" if place == "state.db" else place)
    os.mkfifo(fifo)
    flags = {"users": ("--auth-file", fifo), "certificate": ("--tls-certificate", fifo), "state.db": ()}
    done = run(
        "run",
        "--log",
        tmp_path / "log",
        "--state",
        tmp_path / "state",
        "--listen",
        "127.0.0.1:0",
        *flags[place],
    )

    assert done.returncode in (1, 2)
    assert "not a regular file" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("run", "--check-config", "--config", "/nowhere/\x1b[31mx"),
        ("run", "--\x1b[31m"),
        ("check", "/nowhere/\x1b]0;title\x07"),
        ("tasks", "/nowhere/\u202ex"),
        ("\x1b[31m",),
        ("run", "--listen", "\x1b[31m"),
        ("run", "--check-config", "--environment-file", "/nowhere/\x9bx"),
    ],
)
def test_errors_quote_no_escapes(arguments: tuple[str, ...]) -> None:
    """Whatever an argument has in it, an error does not hand it to the terminal."""
    done = run(*arguments)

    assert done.returncode == 2
    assert "error: " in done.stderr
    assert all(character.isprintable() or character == "\n" for character in done.stderr)

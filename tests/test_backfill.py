"""`backfill` adds what a daemon did not read at its first start to the history, and changes nothing else."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import resource
import signal
import sqlite3
import subprocess
import time
import uuid
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from exporter.command.backfill import backfill
from exporter.config.config import load
from exporter.config.options import Config
from exporter.parse.parser import Parser
from exporter.parse.timezone import Zones
from exporter.pipeline.commit_builder import CommitBuilder
from exporter.pipeline.from_config import messages_of, processing_config_of, tail_of, telemetry_of
from exporter.pipeline.pipeline import Pipeline
from exporter.pipeline.reader import InProcessReader
from exporter.records import NANOS, Line, Record
from exporter.simulate.busy import busy
from exporter.simulate.records import ADA, record, task_record
from exporter.simulate.story import story
from exporter.store.writer import Store
from tests.program import DEADLINE_SECONDS, SAME, command, environ, request_line, run, running, wait_until

START = datetime(2026, 3, 2, 9, 0, 0, tzinfo=UTC)
END = START + timedelta(minutes=10)


class History(NamedTuple):
    """What people see of a state, with numbers that count from its newest request."""

    requests: list[tuple[Any, ...]]
    tasks: list[tuple[Any, ...]]
    running: list[tuple[Any, ...]]


def configured(directory: Path) -> Config:
    given = {
        "timezone": "UTC",
        "messages": "off",
        "instance": "test",
        "log": str(directory / "user-requests.data"),
        "state": str(directory / "state"),
        "wok_error_log": "off",
        "wok_access_log": "off",
    }
    return load(given, {}, "backfill", root=directory)


def read(config: Config, *, since: datetime | None = None) -> None:
    """Read the log as the daemon does, from its position, or at a first start from a time on."""
    assert config.state is not None
    skip = int(since.timestamp()) * NANOS if since is not None else 0
    now = int(END.timestamp()) * NANOS
    processing = processing_config_of(config, messages_of(config), skip_until=skip)
    with closing(Store(config.state)) as store:
        builder = CommitBuilder(telemetry_of(config, messages_of(config), "log"), signals=frozenset())
        with closing(
            Pipeline(
                store,
                builder,
                lambda loaded: InProcessReader(
                    processing,
                    loaded,
                    log=partial(tail_of, config, from_end=False),
                    errors=None,
                    wall=lambda: now,
                ),
                now=lambda: 0.0,
            )
        ) as pipeline:
            while not pipeline.step().caught_up:
                pass


def history_of(config: Config) -> History:
    """Return what a state shows, in an order and with numbers that do not depend on its first request."""
    assert config.state is not None
    with closing(sqlite3.connect(config.state / "state.db")) as db:
        requests = db.execute("SELECT * FROM request ORDER BY ordinal").fetchall()
        order: list[int] = [row[0] for row in requests]
        places = {row[0]: at for at, row in enumerate(requests)}
        number = {ordinal: len(requests) - at for ordinal, at in places.items()}

        def last(ordinal: int) -> int:
            """Return the number of the last request up to this ordinal."""
            return len(requests) - sum(each <= ordinal for each in order)

        tasks = [
            {**dict(zip(_names(db, "task"), row, strict=True)), "id": 0}
            for row in db.execute("SELECT * FROM task ORDER BY id")
        ]
        for task in tasks:
            task |= {
                "request": number.get(task["request"], 0),
                "since": last(task["since"]),
                "until": last(task["until"]),
            }
        running = [
            (context, app, operation, target_uri, start, number.get(request, 0), last(since))
            for context, app, operation, target_uri, start, request, since in db.execute(
                "SELECT context, app, operation, target_uri, start, request, since FROM open_task ORDER BY context"
            )
        ]
    return History(
        [row[1:] for row in requests],
        sorted(tuple(task.values()) for task in tasks),
        running,
    )


def _names(db: sqlite3.Connection, table: str) -> list[str]:
    return [row[1] for row in db.execute(f"PRAGMA table_info({table})")]


def known(history: History, dialect: str, begin: datetime) -> list[tuple[Any, ...]]:
    """Return the tasks that a daemon knows for certain wherever it began.

    In the RFC's dialect, only a daemon that has seen the ids of earlier tasks notices at once that wokd was restarted,
    and which tasks were lost. The other tasks that began before the daemon are what a backfill adds.
    """
    if dialect == "json":
        return [*history.tasks, *history.running]
    nanos = int(begin.timestamp()) * NANOS
    return [task for task in history.tasks if task[1] != "lost" and task[4] < nanos]


def counters_of(config: Config) -> dict[str, float]:
    assert config.state is not None
    with closing(sqlite3.connect(config.state / "state.db")) as db:
        return dict(db.execute("SELECT * FROM counter"))


def added(config: Config, *files: Path, since: int = 0) -> str:
    out, screen = StringIO(), StringIO()
    assert backfill(config, files, since=since, out=out, screen=screen) == 0, screen.getvalue()
    return out.getvalue()


def moments(log: bytes) -> Iterator[datetime]:
    """Yield the times of the records."""
    parser = Parser("test", Zones("UTC"))
    seen: set[int] = set()
    for at, data in enumerate(log.splitlines()):
        for item in parser.feed(Line(b"f" * 16, at, data, len(data))):
            if isinstance(item, Record) and item.time not in seen:
                seen.add(item.time)
                yield datetime.fromtimestamp(item.time // NANOS, UTC)


def log_of(dialect: str) -> bytes:
    return b"".join(line.data + b"\n" for line in story(dialect, start=START) if line.log == "requests")  # type: ignore[arg-type]


@pytest.mark.parametrize("dialect", ["json", "rfc"])
def test_wherever_the_daemon_began(tmp_path: Path, dialect: str) -> None:
    """Wherever in the log the daemon began and had got to, a backfill and the rest of the log give the history of a
    daemon that began at the beginning, and a second backfill adds nothing.
    """
    data = log_of(dialect)
    lines = data.splitlines(keepends=True)
    whole = tmp_path / "whole"
    whole.mkdir()
    (whole / "user-requests.data").write_bytes(data)
    read(configured(whole))
    expected = history_of(configured(whole))
    for number, begin in enumerate(sorted(moments(data))):
        directory = tmp_path / str(number)
        directory.mkdir()
        config = configured(directory)
        stop = len(lines) * (number % 3 + 1) // 3
        config.log.write_bytes(b"".join(lines[:stop]))
        read(config, since=begin)
        before = counters_of(config)
        said = added(config)
        again = added(config)
        after = counters_of(config)
        with config.log.open("ab") as stream:
            stream.write(b"".join(lines[stop:]))
        read(config, since=begin)
        found = history_of(config)

        about = f"began at {begin}, stopped after {stop}: {said}"
        assert found.requests == expected.requests, about
        assert known(found, dialect, begin) == known(expected, dialect, begin), about
        assert "nothing to add" in again
        started = {key for key in after if after[key] != before.get(key, 0)}
        assert all("started" in key for key in started)


OFF = ("--wok-error-log", "off", "--wok-access-log", "off")


def busy_log(requests: int, begin: float, seed: int = 1) -> bytes:
    """Return the log of a busy Wok."""
    start = datetime.fromtimestamp(int(begin), UTC)
    lines = busy("json", start=start, requests=requests, per_second=20, seed=seed)
    return b"".join(line.data + b"\n" for line in lines)


def clone_line(seconds: float, name: str) -> bytes:
    """Return the line of a request to clone a guest."""
    stamp = _stamp(seconds, f"clone {name}")
    return record("json", stamp, "kimchi", "POST", 202, ADA, "KCHVM0009L", {"ident": name}, "") + b"\n"


def clone_end(seconds: float, started: float, name: str) -> bytes:
    """Return the line of the end of that clone."""
    target_uri = f"/plugins/kimchi/vms/{name}-clone-{int(started * 1_000_000)}/clone"
    return task_record("json", _stamp(seconds, f"end {name}"), "kimchi", 1001, target_uri, "1") + b"\n"


def _stamp(seconds: float, name: str) -> dict[str, str]:
    when = datetime.fromtimestamp(seconds, UTC)
    return {
        "date": f"{when:%Y-%m-%d}",
        "time": f"{when:%H:%M:%S}",
        "zone": "UTC",
        "id": str(uuid.uuid5(uuid.NAMESPACE_URL, name)),
    }


def followed(directory: Path, *more: object) -> tuple[object, ...]:
    """Return the arguments of a daemon of the log in a directory."""
    files = ("--log", directory / "user-requests.data", "--state", directory / "state")
    return ("run", *files, "--listen", "127.0.0.1:0", *SAME, *OFF, *more)


def filled(directory: Path, *more: object) -> subprocess.CompletedProcess[str]:
    return run("backfill", *_words(directory), *more)


def pages(get: Any, kind: str) -> list[dict[str, Any]]:
    """Return all tasks or requests of the API, from small pages."""
    found: list[dict[str, Any]] = []
    before = ""
    while True:
        page = json.loads(get(f"/api/{kind}?limit=7{before}")[1])
        found += page[kind]
        if page["before"] is None:
            return found
        before = f"&before={page['before']}"


def test_a_daemon_that_began_at_the_end(tmp_path: Path) -> None:
    """Rotated and compressed files are added to the state of a real daemon that began at the end of its log: the page
    shows every request and every task, the counters begin where the daemon began, and a task that ran meanwhile ends
    with its request.
    """
    now = time.time()
    log = tmp_path / "user-requests.data"
    old = busy_log(60, now - 5000)
    (tmp_path / "user-requests.data.2.gz").write_bytes(gzip.compress(old))
    (tmp_path / "user-requests.data.1").write_bytes(busy_log(40, now - 900, seed=2))
    log.write_bytes(clone_line(now - 59.9, "straddles"))
    with running(*followed(tmp_path, "--start-at", "end"), said=tmp_path / "said0") as daemon:
        wait_until(lambda: daemon.get("/readyz") == (200, "ready\n"))
        refused = filled(tmp_path)
        assert daemon.stop() == 0
    done, again = filled(tmp_path), filled(tmp_path)
    with log.open("ab") as stream:
        stream.write(clone_end(now - 1, now - 60, "straddles"))
    with running(*followed(tmp_path), said=tmp_path / "said1") as daemon:
        wait_until(lambda: "vms.clone" in str(pages(daemon.get, "tasks")[0]))
        wait_until(lambda: json.loads(daemon.get("/api/tasks?limit=1&state=running")[1])["tasks"] == [])
        tasks, requests = pages(daemon.get, "tasks"), pages(daemon.get, "requests")
        text = json.loads(daemon.get("/api/requests?text=ada&limit=100")[1])["requests"]
        metrics = daemon.get("/metrics")[1]
        assert daemon.stop() == 0

    assert refused.returncode == 2
    assert "Stop it (systemctl stop wok-exporter), run this command again" in refused.stderr
    assert done.returncode == again.returncode == 0, done.stderr
    assert done.stdout.startswith("Added to the history: 101 requests, ")
    assert "1 running task." in done.stdout
    assert again.stdout.startswith("There was nothing to add")
    assert len(requests) == len({one["ordinal"] for one in requests}) == 101
    assert [one["time"] for one in requests] == sorted((one["time"] for one in requests), reverse=True)
    assert len(text) <= 100
    assert len(tasks) == len({one["id"] for one in tasks})
    assert {one["state"] for one in tasks} <= {"done", "failed"}
    clone = next(one for one in tasks if "straddles" in one["target_uri"])
    assert (clone["state"], clone["correlation"], clone["user"]) == ("done", "exact", "ada")
    assert all(
        line.endswith(" 0.0") for line in metrics.splitlines() if line.startswith("wok_requests_total{")
    )
    assert 'wok_tasks_started_total{app="kimchi",operation="vms.clone"} 1.0' in metrics
    assert 'wok_tasks_finished_total{app="kimchi",operation="vms.clone",outcome="success"} 1.0' in metrics


def test_a_kill_leaves_all_or_nothing(tmp_path: Path) -> None:
    """A backfill that is killed has changed nothing or added everything, and the next one completes it."""
    config = _begun_late(tmp_path)
    before = history_of(config)
    histories = []
    for seconds in (0.3, 0.6, 0.9, 1.2):
        process = subprocess.Popen(
            command("backfill", *_words(tmp_path)),
            env=environ(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(seconds)
        process.kill()
        process.wait()
        histories.append(history_of(config))
    done = filled(tmp_path)
    after = history_of(config)

    assert done.returncode == 0, done.stderr
    assert len(after.requests) == len(before.requests) + 2000
    assert all(history in (before, after) for history in histories)


def test_a_full_disk_changes_nothing(tmp_path: Path) -> None:
    """A backfill that cannot write ends with an error that says so, and the state is what it was."""
    config = _begun_late(tmp_path)
    before = history_of(config)
    room = (tmp_path / "state" / "state.db").stat().st_size + 128 * 1024
    done = subprocess.run(
        command("backfill", *_words(tmp_path)),
        env=environ(),
        capture_output=True,
        text=True,
        check=False,
        timeout=DEADLINE_SECONDS,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (room, room)),
    )

    assert done.returncode == 2
    assert "free space on its file system" in done.stderr or "check the disk" in done.stderr
    assert history_of(config) == before
    assert filled(tmp_path).returncode == 0


def test_root_leaves_the_state_to_the_daemon(tmp_path: Path) -> None:
    """Run as root, it works on a state that a crash left with its -wal, and all files stay those of the daemon's user."""
    if os.geteuid():
        pytest.skip("only root can give files to another user")
    config = _begun_late(tmp_path)
    assert config.state is not None
    log = config.log.read_bytes()
    with running(*followed(tmp_path), said=tmp_path / "said") as daemon:
        daemon.wait_for("following")
        daemon.stop(signal.SIGKILL)
    for path in (config.state, *config.state.iterdir()):
        os.chown(path, 65534, 65534)
    with closing(sqlite3.connect(config.state / "state.db")) as reader:
        # a page that is open keeps the -wal and the -shm in their place
        reader.execute("SELECT count(*) FROM request").fetchone()
        done = filled(tmp_path)
        owners = {path.name: path.stat().st_uid for path in config.state.iterdir()}

    assert done.returncode == 0, done.stderr
    assert set(owners.values()) == {65534}, owners
    assert {"state.db", "state.db-wal"} <= set(owners)
    assert config.log.read_bytes() == log


def _begun_late(directory: Path, seconds: float = 1800) -> Config:
    """Return the configuration of a daemon that has read the end of a log."""
    config = configured(directory)
    begin = time.time() - 7200
    config.log.write_bytes(busy_log(2000, begin) + request_line(begin + 3600, "last"))
    read(config, since=datetime.fromtimestamp(begin + seconds, UTC))
    return config


def test_only_what_was_asked_for(tmp_path: Path) -> None:
    """--since leaves out what is older, files can be named, and a full history says what to raise."""
    config = _begun_late(tmp_path)
    begin = datetime.fromtimestamp(time.time() - 7200 + 50, UTC)
    some = filled(tmp_path, "--since", begin.isoformat())
    few = len(history_of(config).requests)
    full = filled(tmp_path, config.log, "--history-requests", "1500")
    bounded = len(history_of(config).requests)

    assert some.returncode == full.returncode == 0, full.stderr
    assert 0 < few < 2000
    assert "It has no room for all older records: to add the others, raise history_requests" in full.stdout
    assert few < bounded <= 1500


WRONG = {
    "no state": "has no state yet: set start_at",
    "nothing read": "has not read anything yet: set start_at",
    "replay": "contains the state of a replay, not of a daemon",
    "other files": "has the place up to which the daemon has read",
    "a gap": "the first request in the history of",
    "binary": "is",
}


@pytest.mark.parametrize("what", WRONG)
def test_what_does_not_fit_is_refused(tmp_path: Path, what: str) -> None:
    """A state or files that a backfill cannot use are named, with what to do, and nothing is changed."""
    log = tmp_path / "user-requests.data"
    files: list[object] = []
    if what == "nothing read":
        read(configured(tmp_path))
    elif what == "replay":
        log.write_bytes(request_line(time.time(), "one"))
        backend = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}
        run(
            "replay",
            log,
            "--state",
            tmp_path / "state",
            *SAME,
            "--give-up-after",
            "10ms",
            env=environ(**backend),
        )
    elif what != "no state":
        _begun_late(tmp_path, seconds=50)
        files = [tmp_path / "other"]
        if what == "a gap":
            lines = log.read_bytes().splitlines(keepends=True)
            others = [line.replace(b'{"id": "', b'{"ID": "') for line in lines[1:-3]]
            files[0].write_bytes(b"".join([lines[0], *others, *lines[-3:]]))  # type: ignore[attr-defined]
        else:
            files[0].write_bytes(b"\x7fELF" if what == "binary" else request_line(1, "x"))  # type: ignore[attr-defined]
    before = history_of(configured(tmp_path)) if files else None
    done = filled(tmp_path, *files)

    assert done.returncode == 2
    assert WRONG[what] in done.stderr
    assert before is None or history_of(configured(tmp_path)) == before


def _words(directory: Path) -> list[object]:
    words = [word for word in SAME if word not in {"--host-name", "host", "--host-id", "h"}]
    return ["--log", directory / "user-requests.data", "--state", directory / "state", *words, *OFF]

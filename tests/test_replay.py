"""The command `replay` from outside: finished logs in, everything acknowledged or said to be missing."""

from __future__ import annotations

import gzip
import itertools
import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from exporter.simulate.busy import busy
from exporter.simulate.story import story
from exporter.store.reader import Reader
from tests.program import (
    SAME,
    command,
    environ,
    free_port,
    ids,
    left_behind,
    request_line,
    run,
    running,
    wait_until,
)
from tests.sink import TRACES_PATH, Received, Reply, Sink

CORPUS = Path(__file__).parents[2] / "shared" / "corpus"
SECRETS = (b"s3cret", b"chap-secret", b"chapsecret", b"leakedpw")
"""What the makers of the reference logs planted under the keys of passwords, and in texts that quote them."""
SHORT_SECRET = re.compile(rb"""passw\w*\\*["']:\s*u?\\*["']chap\\*["']""")
"""A secret that is a word of Wok's as well, so only a secret as the whole value of such a key."""


@pytest.fixture(name="log", scope="module")
def _log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The story, and some minutes of a busy Wok after it."""
    log = tmp_path_factory.mktemp("log") / "user-requests.data"
    # So late that no task that runs at the end is given up by the clock of a daemon.
    begin = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=1)
    later = begin + timedelta(minutes=10)
    lines = itertools.chain(
        story("json", start=begin), busy("json", start=later, requests=1500, per_second=10.0, seed=2)
    )
    log.write_bytes(b"".join(line.data + b"\n" for line in lines if line.log == "requests"))
    return log


class Arrived:
    """What a sink has got, compared whole, but not printed whole."""

    def __init__(self, sink: Sink) -> None:
        self.spans = {key: set(contents) for key, contents in sink.spans().items()}
        self.logs = {key: set(contents) for key, contents in sink.logs().items()}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Arrived) and (self.spans, self.logs) == (other.spans, other.logs)

    def __repr__(self) -> str:
        return f"{len(self.spans)} spans and {len(self.logs)} log records"

    __hash__ = None  # type: ignore[assignment]


@pytest.fixture(name="whole", scope="module")
def _whole(log: Path) -> Arrived:
    """What a plain replay of the log sends."""
    with Sink() as sink:
        done = replay(log, sink=sink)
        assert (done.returncode, done.stdout) == (0, ""), done.stderr
        return Arrived(sink)


def replay(*arguments: object, sink: Sink) -> subprocess.CompletedProcess[str]:
    return run("replay", *arguments, *SAME, env=environ(**sink.environ()))


def rotated(log: Path, folder: Path) -> list[Path]:
    """Cut the log into a rotated set: the oldest compressed twice, one plain, and the live one."""
    lines = log.read_bytes().splitlines(keepends=True)
    at = (0, len(lines) // 5, len(lines) // 2, len(lines) - 40, len(lines))
    parts = [b"".join(lines[begin:end]) for begin, end in itertools.pairwise(at)]
    names = [f"{log.name}.3.gz", f"{log.name}.2.gz", f"{log.name}.1", log.name]
    paths = [folder / name for name in names]
    for path, part in zip(paths, parts, strict=True):
        path.write_bytes(gzip.compress(part) if path.suffix == ".gz" else part)
    return paths


def test_a_replay_is_whole(log: Path, whole: Arrived) -> None:
    """Every record of the log is a log record, by its id, and nothing is there in two versions."""
    uids = {key[-1] for key in whole.logs}

    assert ids(log) <= uids
    assert {1} == {len(contents) for found in (whole.spans, whole.logs) for contents in found.values()}


@pytest.fixture(name="generations", scope="module")
def _generations(log: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Path], Arrived]:
    """The log as a rotated set, oldest first, two of it compressed, and what `run` sends of it."""
    folder = tmp_path_factory.mktemp("rotated")
    lines = log.read_bytes().splitlines(keepends=True)
    cuts = (0, len(lines) // 5, len(lines) // 2, len(lines) - 40, len(lines))
    parts = [b"".join(lines[begin:end]) for begin, end in itertools.pairwise(cuts)]
    paths = [folder / f"{log.name}{suffix}" for suffix in (".3.gz", ".2.gz", ".1", "")]
    for path, part in zip(paths, parts, strict=True):
        path.write_bytes(gzip.compress(part) if path.suffix == ".gz" else part)
    return paths, followed(paths[-1], folder / "state")


def followed(log: Path, state: Path) -> Arrived:
    """Return what a daemon sends of a log, and of what was rotated out of it, that is there at its start."""
    wanted = ids(log) if not log.with_name(f"{log.name}.1").exists() else set()
    with Sink() as sink:
        arguments = ["--log", log, "--state", state, "--listen", "off", "--start-at", "beginning", *SAME]
        arguments += ["--wok-error-log", "off"]
        said = state.with_suffix(".said")
        with running("run", *arguments, said=said, env=environ(**sink.environ())) as daemon:
            daemon.wait_for("backlog read")
            wait_until(lambda: is_sent(state))
            daemon.stop()
        sent = Arrived(sink)
    assert wanted <= {key[-1] for key in sent.logs}
    return sent


def is_sent(state: Path) -> bool:
    with closing(Reader(state)) as reader:
        return not any(status.records for status in reader.snapshot().journal.values())


def test_the_daemon_has_sent_the_same(log: Path, whole: Arrived, tmp_path: Path) -> None:
    """What `run` sends of a log that is there at its start is, byte for byte, what `replay` sends of it."""
    assert whole == followed(log, tmp_path / "state")


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 2, 1, 0), (2, 0, 3, 1)])
def test_a_rotated_set_in_any_order(
    generations: tuple[list[Path], Arrived], whole: Arrived, order: Sequence[int]
) -> None:
    """Plain and compressed generations, named in any order, give the bytes that `run` gives of them, in the traces
    of the log in one piece.
    """
    paths, expected = generations
    with Sink() as sink:
        done = replay(*(paths[at] for at in order), sink=sink)
        sent = Arrived(sink)

    assert done.returncode == 0, done.stderr
    assert expected == sent
    assert {trace for trace, _ in whole.spans} == {trace for trace, _ in sent.spans}


@pytest.mark.parametrize("name", ["of-another-name.log", "user-requests.data"])
def test_the_name_of_the_log_is_never_a_rotated_one(tmp_path: Path, name: str) -> None:
    """Whichever file is named first, items carry the log's own name, as the daemon's do."""
    now = time.time()
    (tmp_path / name).write_bytes(request_line(now - 60, "web2"))
    (tmp_path / f"{name}.1").write_bytes(request_line(now - 120, "web1"))
    with Sink() as sink:
        done = replay(tmp_path / f"{name}.1", tmp_path / name, sink=sink)
        found = [Span.FromString(*contents) for contents in sink.spans().values()]

    assert done.returncode == 0, done.stderr
    names = [
        one.value.string_value for span in found for one in span.attributes if one.key == "log.file.name"
    ]
    assert names == [name, name]


def test_twice_is_once(log: Path, whole: Arrived, tmp_path: Path) -> None:
    """A second replay into the same backend repeats ids and bytes; with a state that has finished it sends nothing."""
    with Sink() as sink:
        first = replay(log, "--state", tmp_path / "state", sink=sink)
        second = replay(log, sink=sink)
        sent, requests = Arrived(sink), sink.request_count
        third = replay(log, "--state", tmp_path / "state", sink=sink)
        again = sink.request_count

    assert [done.returncode for done in (first, second, third)] == [0, 0, 0]
    assert whole == sent
    assert requests == again


def test_progress_off_a_terminal(log: Path, whole: Arrived) -> None:
    """Where there is no terminal the last line says all of it, and nothing moves a cursor."""
    with Sink() as sink:
        done = replay(log, sink=sink)
    lines = len(log.read_bytes().splitlines())
    last = done.stderr.splitlines()[-1]

    assert "\r" not in done.stderr
    assert re.fullmatch(
        rf"100%  {lines:,} lines, [\d,]+/s; acknowledged: {len(whole.spans):,} traces, {len(whole.logs):,} logs",
        last,
    ), last


def test_progress_at_a_narrow_terminal(log: Path) -> None:
    """At a terminal the line is drawn over itself, never so wide that it wraps; the last one stays, whole."""
    ours, terminal = pty.openpty()
    with Sink() as sink:
        env = environ(**sink.environ(), COLUMNS="40")
        subprocess.run(command("replay", log, *SAME), env=env, stderr=terminal, check=True, timeout=60)
    told = os.read(ours, 65_536).decode()
    os.close(terminal)
    os.close(ours)

    *drawn, last, _ = told.replace("\r\n", "\r").split("\r")

    assert re.fullmatch(r"100%  [\d,]+ lines, [\d,]+/s; acknowledged: [\d,]+ traces, [\d,]+ logs", last)
    assert max(map(len, drawn)) == 39


# --- interrupted, refused, given up


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_replay_goes_on(
    log: Path, whole: Arrived, tmp_path: Path, number: signal.Signals
) -> None:
    """Interrupted while a backend takes no more, it says how to go on and exits with 130, with no process left; the
    next run with the same state sends the rest, the bytes of an undisturbed one.
    """
    state = tmp_path / "state"
    with Sink() as sink:
        sink.script([Reply()])
        sink.judge = lambda _: Reply(status=503)
        env = environ(**sink.environ())
        with running("replay", log, "--state", state, *SAME, said=tmp_path / "said", env=env) as going:
            wait_until(lambda: sink.request_count >= 2)
            code = going.stop(number)
            left = left_behind(going.mark)
        before = sink.counts()
        sink.judge = lambda _: None
        done = replay(log, "--state", state, sink=sink)
        sent = Arrived(sink)

    assert (code, left) == (130, [])
    assert going.said.splitlines()[-1] == f"not finished: run it again with --state {state} to continue"
    assert "Traceback" not in going.said
    assert before["spans"] + before["logs"] < len(whole.spans) + len(whole.logs)
    assert done.returncode == 0, done.stderr
    assert whole == sent


def test_one_item_is_refused(log: Path, whole: Arrived) -> None:
    """A span that the backend refuses for good is the only one missing; it is said, with the reason, and the code is 1."""
    # A task's: a request's id stands in the spans of its task and of those who link to it, too.
    bad = next(span_id for (_, span_id), (content,) in whole.spans.items() if b"task vms.create" in content)

    def judge(received: Received) -> Reply | None:
        return Reply(status=400) if received.path == TRACES_PATH and bad in received.body else None

    with Sink() as sink:
        sink.judge = judge
        done = replay(log, sink=sink)
        sent = Arrived(sink)

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines()[-1] == "error: traces: 1 items were rejected (http_400)"
    assert [span_id for _, span_id in whole.spans.keys() - sent.spans.keys()] == [bad]
    assert whole.logs == sent.logs


def test_a_backend_that_stays_away(log: Path, whole: Arrived, tmp_path: Path) -> None:
    """After --give-up-after it says what is missing of which signal and what to do, exits with 1, and leaves no
    process; the same state goes on when the backend is there.
    """
    port, state = free_port(), tmp_path / "state"
    with Sink() as sink:
        places = {
            "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT": f"{sink.endpoint}/v1/logs",
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"http://127.0.0.1:{port}/v1/traces",
        }
        arguments = ["replay", log, "--state", state, "--give-up-after", "1s", *SAME]
        with running(*arguments, said=tmp_path / "said", env=environ(**places)) as going:
            code = going.process.wait(60)
            left = left_behind(going.mark)
        with Sink(port=port) as late:
            done = run(*arguments, env=environ(**places))
            spans = Arrived(late).spans
        logs = Arrived(sink).logs

    assert (code, left) == (1, [])
    remedy = "is the backend running? Check OTEL_EXPORTER_OTLP_ENDPOINT"
    away, missing = going.said.splitlines()[-2:]
    assert away == (
        f"error: traces: http://127.0.0.1:{port}/v1/traces refuses connections (refused_connection): {remedy}"
    )
    assert missing == f"error: traces: {len(whole.spans):,} items were not acknowledged"
    assert done.returncode == 0, done.stderr
    assert (whole.spans, whole.logs) == (spans, logs)


def test_there_is_nowhere_to_send_to(log: Path) -> None:
    """Without an endpoint it is refused with what to set."""
    done = run("replay", log, env=environ())

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "error: no backend is configured: OTEL_EXPORTER_OTLP_ENDPOINT is not set (or inspect the log with `check`, `tasks`"
        " or `text`)\n"
    )


@pytest.mark.parametrize("kind", ["missing", "directory", "unreadable parent"])
def test_a_file_that_cannot_be_read(log: Path, tmp_path: Path, kind: str) -> None:
    """A file that is missing, or is none, is named, and nothing is sent of the others; the code is 2."""
    path = tmp_path / "directory"
    path.mkdir()
    if kind == "missing":
        path /= "user-requests.data.9"
    elif kind == "unreadable parent":
        path /= "x" * 300
    with Sink() as sink:
        with running(
            "replay", log, path, *SAME, said=tmp_path / "said", env=environ(**sink.environ())
        ) as going:
            code = going.process.wait(60)
            left = left_behind(going.mark)
        requests = sink.request_count

    assert (code, left, requests) == (2, [], 0)
    assert len(going.said.splitlines()) == 1
    assert going.said.startswith("error: ")
    assert str(path) in going.said


def test_a_damaged_file(log: Path, whole: Arrived, tmp_path: Path) -> None:
    """A compressed file that breaks off is sent as far as it goes; it is said which one, and the code is 1."""
    data = gzip.compress(log.read_bytes())
    path = tmp_path / "user-requests.data.1.gz"
    path.write_bytes(data[: len(data) // 2])
    with Sink() as sink:
        done = replay(path, sink=sink)
        sent = Arrived(sink)

    assert done.returncode == 1
    assert f"error: {path} is damaged after byte " in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert 0 < len(sent.spans) < len(whole.spans)


@pytest.mark.parametrize("when", ["at once", "while it reads"])
def test_the_reading_process_dies(tmp_path: Path, when: str) -> None:
    """Whenever the process that reads is killed, the replay ends with a sentence and 2, and leaves nobody behind."""
    log = tmp_path / "user-requests.data"
    lines = busy("json", start=datetime(2026, 8, 12, tzinfo=UTC), requests=40_000, per_second=50.0, seed=1)
    log.write_bytes(b"".join(line.data + b"\n" for line in lines))
    with Sink() as sink:
        env = environ(**sink.environ())
        with running("replay", log, *SAME, said=tmp_path / "said", env=env) as going:
            if when == "while it reads":
                wait_until(lambda: sink.request_count > 0)
            wait_until(lambda: len(left_behind(going.mark)) == 2)
            (child,) = set(left_behind(going.mark)) - {going.process.pid}
            os.kill(child, signal.SIGKILL)
            code = going.process.wait(60)
            left = left_behind(going.mark)

    assert (code, left) == (2, [])
    assert "Traceback" not in going.said
    assert going.said.splitlines()[-1] == (
        "error: the process that reads the log was killed by signal 9: look for its reason above and in the kernel's log"
    )


def test_nobody_is_left_behind(log: Path, tmp_path: Path) -> None:
    """The reading process ends with the replay, also where that is killed and can tell nobody."""
    with Sink() as sink:
        env = environ(**sink.environ())
        with running("replay", log, *SAME, said=tmp_path / "said", env=env) as going:
            code = going.process.wait(60)
            left = left_behind(going.mark)
        with running("replay", log, *SAME, said=tmp_path / "said", env=env) as killed:
            wait_until(lambda: len(left_behind(killed.mark)) == 2)
            killed.stop(signal.SIGKILL)
            wait_until(lambda: not left_behind(killed.mark))

    assert (code, left) == (0, [])


def test_no_module_comes_from_where_one_stands(log: Path, tmp_path: Path) -> None:
    """A file that is called like a module, in the directory in which somebody calls the program, is not run."""
    (tmp_path / "json.py").write_text("raise SystemExit('not ours')")
    (tmp_path / "exporter.py").write_text("raise SystemExit('not ours')")
    with Sink() as sink:
        done = subprocess.run(
            [Path(sys.executable).with_name("wok-exporter"), "replay", log, *SAME],
            env=environ(**sink.environ()),
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )

    assert done.returncode == 0, done.stderr


# --- states


def test_the_state_of_a_daemon_is_none_of_a_replay(log: Path, tmp_path: Path) -> None:
    """A replay on the state of a daemon says whose it is, and exits with 2: their positions are not alike."""
    followed(log, tmp_path / "state")
    with Sink() as sink:
        done = replay(log, "--state", tmp_path / "state", sink=sink)

    assert (done.returncode, done.stdout) == (2, "")
    assert f"error: {tmp_path / 'state'} contains the state of a daemon" in done.stderr


def test_a_broken_state(log: Path, whole: Arrived, tmp_path: Path) -> None:
    """A state that is no database is refused with a sentence and 2; told to restart, the replay puts it aside."""
    (tmp_path / "state.db").write_bytes(b"no database" * 1000)
    with Sink() as sink:
        refused = replay(log, "--state", tmp_path, sink=sink)
        done = replay(log, "--state", tmp_path, "--on-broken-state", "restart", sink=sink)
        sent = Arrived(sink)

    assert (refused.returncode, done.returncode) == (2, 0), done.stderr
    assert refused.stderr.startswith(f"error: {tmp_path / 'state.db'} is broken (")
    assert whole == sent


# --- secrets


def test_no_secret_leaves(tmp_path: Path) -> None:
    """What is planted in the reference logs under the keys of passwords is in nothing that is sent, printed or kept."""
    logs = sorted(CORPUS.glob("*/user-requests.data")) + sorted(CORPUS.glob("*/wok-req.log"))
    if not logs:
        pytest.skip("the reference logs do not lie beside this checkout")
    state = tmp_path / "state"
    outputs: dict[str, bytes] = {}
    with Sink() as sink:
        sent = replay(*logs, "--state", state, sink=sink)
        outputs["what was sent"] = b"".join(received.body for received in sink.requests)
    done = {
        "replay": sent,
        "check --json": run("check", *logs, "--json", *SAME[:2]),
        "text": run("text", *logs, *SAME[:2]),
        "tasks --json FILE": run("tasks", *logs, "--json", "--limit", "100000", *SAME[:2]),
        "tasks --json": run("tasks", "--state", state, "--json", "--limit", "100000"),
    }
    for name, one in done.items():
        outputs[name] = one.stdout.encode("utf-8", "surrogateescape") + one.stderr.encode()
    for path in state.iterdir():
        outputs[path.name] = path.read_bytes()
    planted = secrets(b"".join(path.read_bytes() for path in logs))

    assert {one.returncode for one in done.values()} == {0}
    assert planted.keys() == {*SECRETS, b"chap"}
    assert sum(planted.values()) > 100
    assert all(b"[redacted]" in outputs[name] for name in ("what was sent", "text", "state.db"))
    assert {name: {} for name in outputs} == {name: secrets(output) for name, output in outputs.items()}


def secrets(data: bytes) -> dict[bytes, int]:
    """Count the planted secrets in lower case, the short one only where it is a secret."""
    lower = data.lower()
    found = {secret: lower.count(secret) for secret in SECRETS} | {b"chap": len(SHORT_SECRET.findall(lower))}
    return {secret: count for secret, count in found.items() if count}

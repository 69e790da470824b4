"""The command `replay` from outside: finished logs in, everything acknowledged or said to be missing."""

from __future__ import annotations

import gzip
import itertools
import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from exporter.simulate.busy import busy
from exporter.simulate.story import story
from tests.program import (
    MARK,
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
SECRETS = re.compile(rb"S3cret|chap-?secret|LeakedPW", re.IGNORECASE)
"""What the makers of the reference logs planted under the keys of passwords, and in texts that quote them."""
SHORT_SECRET = re.compile(rb"""passw\w*\\*["']:\s*u?\\*["']chap\\*["']""", re.IGNORECASE)
"""A secret that is a word of Wok's as well, so only a secret as the whole value of such a key."""
WHEN = datetime(2026, 8, 12, 9, tzinfo=UTC)


@pytest.fixture(name="log", scope="module")
def _log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The story, and some minutes of a busy Wok after it."""
    log = tmp_path_factory.mktemp("log") / "user-requests.data"
    later = datetime(2026, 8, 12, 10, tzinfo=UTC)
    lines = itertools.chain(
        story("json", start=WHEN), busy("json", start=later, requests=1500, per_second=10.0, seed=2)
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


def test_the_daemon_has_sent_the_same(log: Path, whole: Arrived, tmp_path: Path) -> None:
    """What `run` sends of a log that is there at its start is, byte for byte, what `replay` sends of it: all of it but
    what still waits for a later record.
    """
    with Sink() as sink:
        arguments = ["--log", log, "--state", tmp_path / "state", "--listen", "off", "--start-at", "beginning"]
        with running("run", *arguments, *SAME, said=tmp_path / "said", env=environ(**sink.environ())) as daemon:
            wait_until(lambda: {key[-1] for key in sink.logs()} >= ids(log))
            wait_until(lambda: len(sink.spans()) >= len(whole.spans))
            daemon.stop()
        sent = Arrived(sink)

    assert sent == whole


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 2, 1, 0), (2, 0, 3, 1)])
def test_a_rotated_set_in_any_order(
    log: Path, whole: Arrived, tmp_path: Path, order: Sequence[int]
) -> None:
    """Plain and compressed generations, named in any order, are the log: the same ids and bytes."""
    paths = rotated(log, tmp_path)
    with Sink() as sink:
        done = replay(*(paths[at] for at in order), sink=sink)
        sent = Arrived(sink)

    assert done.returncode == 0, done.stderr
    assert sent == whole_but_for_places(whole, sent)


def whole_but_for_places(whole: Arrived, sent: Arrived) -> Arrived:
    """Offsets are those of a line in its own file: a cut log has others, and with them other bytes."""
    assert whole.spans.keys() == sent.spans.keys()
    assert whole.logs.keys() == sent.logs.keys()
    return sent

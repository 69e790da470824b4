"""Promises of docs/security.md that no other file proves."""

from __future__ import annotations

import gzip
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from exporter.deliver.http import RESPONSE_BYTES_MAX
from exporter.parse.parser import Parser
from exporter.records import Record
from exporter.source.line_reader import Reader
from exporter.wok.messages import Messages
from tests.fuzz_targets import Growing, utc
from tests.program import request_line
from tests.sink import Reply, Sink
from tests.test_otlp import send

MIB = 1024 * 1024


@pytest.fixture(name="sink")
def _sink() -> Iterator[Sink]:
    with Sink() as sink:
        yield sink


def test_tables_are_not_executed(tmp_path: Path) -> None:
    """What a message table would do when it is imported does not happen; its sentences are read."""
    mark = tmp_path / "executed"
    table = tmp_path / "i18n.py"
    table.write_text(f'open({str(mark)!r}, "w")\nmessages = {{"WAX0001L": "Melt %(name)s"}}\n')

    assert Messages.load([table]).render("WAX0001L", {"name": "it"}) == "Melt it"
    assert not mark.exists()


def test_an_answer_that_expands(sink: Sink) -> None:
    """An answer of 256 MiB that was compressed to 256 KiB costs some megabytes, and is no receipt."""
    bomb = gzip.compress(bytes(256 * MIB))
    headers = {"Content-Type": "text/plain", "Content-Encoding": "gzip"}
    sink.script([Reply(headers=headers, body=bomb)])
    tracemalloc.start()
    try:
        answer = send(sink.environ())
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert answer.kind == "config"
    assert peak < 16 * RESPONSE_BYTES_MAX + len(bomb) * 8


def test_redirects_are_not_followed(sink: Sink) -> None:
    """Where a backend answers with another place, neither data nor credentials go there."""
    with Sink() as other:
        place = f"http://127.0.0.1:{other.port}/v1/traces"
        sink.script(
            [Reply(status=status, headers={"Location": place}, body=b"") for status in (302, 307, 308)]
        )
        environ = {**sink.environ(), "OTEL_EXPORTER_OTLP_HEADERS": "authorization=Bearer secret"}
        answers = [send(environ) for _ in range(3)]

        assert [answer.reason for answer in answers] == ["redirect"] * 3
        assert other.counts()["requests"] == 0


def test_a_long_line_hides_no_record() -> None:
    """Behind an over-long line, which is passed in pieces and has no newline in a value, records are records."""
    file: Any = Growing()
    genuine = [request_line(time.time(), name) for name in ("ada", "grace")]
    file.data = b'{"info": "' + b"x" * (3 * MIB) + b"\n" + b"".join(genuine)
    reader, parser = Reader(file, None, MIB), Parser("host", utc())
    items = []
    for _ in range(8):
        items += [item for line in reader.take(MIB) for item in parser.feed(line)]

    assert [type(item) for item in items[1:]] == [Record, Record]


def test_a_restart_inside_a_long_line_hides_no_record() -> None:
    """An exporter that starts again in the middle of such a line counts the newlines of its beginning, not its bytes."""
    file: Any = Growing()
    genuine = [request_line(time.time(), name) for name in ("ada", "grace", "josé", "bob", "eve")]
    file.data = b'{"info": "' + b"x" * (3 * MIB) + b"\n" + b"".join(genuine)
    parser = Parser("host", utc())
    mark = None
    items = []
    for _ in range(8):
        reader = Reader(file, mark, MIB)
        items += [item for line in reader.take(MIB) for item in parser.feed(line)]
        mark = reader.mark()

    assert [type(item) for item in items[1:]] == [Record] * len(genuine)

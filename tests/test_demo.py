"""The demo, whole and at full speed: a simulated Wok, the real daemon, and what people are shown of them."""

from __future__ import annotations

import io
import logging
import math
import re
import socket
import tempfile
import threading
from collections import Counter
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from exporter.command.demo import WORDS, _stage, demo
from exporter.config.config import load
from exporter.config.options import Config
from exporter.records import NANOS
from exporter.store.reader import Reader
from exporter.store.writer import StoreError
from exporter.terminal.screen import Screen
from tests.sink import Reply, Sink

WALL = 1_788_000_000 * NANOS


class Terminal(io.StringIO):
    """An output that says it is a terminal."""

    def isatty(self) -> bool:
        return True


class StopsAt(io.StringIO):
    """An output whose reader interrupts the program when a text comes."""

    def __init__(self, text: str, stopped: Event) -> None:
        super().__init__()
        self._text = text
        self._stopped = stopped

    def write(self, text: str) -> int:
        if self._text in text:
            self._stopped.set()
        return super().write(text)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary directories are made, empty."""
    directory = tmp_path / "temporary"
    directory.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(directory))
    return directory


def configured(tmp_path: Path, **flags: str) -> Config:
    config = load({"listen": "127.0.0.1:0", **flags}, {}, "demo", root=tmp_path)
    return replace(config, messages=())


def show(
    config: Config, environ: dict[str, str] | None = None, *, out: io.StringIO | None = None, **more: Any
) -> str:
    """Return what the whole demo prints."""
    out = io.StringIO() if out is None else out
    given: dict[str, Any] = {"stopped": Event(), "speed": math.inf, "wall": lambda: WALL} | more
    assert demo(config, environ or {}, out=out, **given) == 0
    return out.getvalue()


def findings(text: str) -> list[str]:
    """Return the lines that tell what was found out, each with the lines that belong to it."""
    found: list[str] = []
    for line in text.splitlines():
        if line.startswith("   > "):
            found.append(" ".join(line.split()))
        elif line.startswith(" " * 14):
            found[-1] += " | " + re.sub("[0-9a-f]{32}", "ID", line.strip())
    return found


def test_every_kind_of_end_is_told(tmp_path: Path, place: Path) -> None:
    """Tasks that succeed, fail and are lost are told with whose they are, why, and what happened meanwhile."""
    found = findings(show(configured(tmp_path)))

    assert "> done vms.clone for ada: 9 s, 10 other requests meanwhile" in found
    assert (
        "> failed vms.migrate for josé: 5 s, 3 other requests meanwhile"
        " | why: db01 could not move: kvm02 closed the connection (KCHVM0058E)"
        " | meanwhile: storagevolumes.update by grace, storagevolumes.create by grace, vms.clone by ada"
        " | trace ID"
    ) in found
    assert (
        "> lost vms.clone for ada: 4 s | why: wokd was restarted before the task ended | trace ID"
    ) in found
    assert (
        "> failed lvs.create, probably for josé: 1 s"
        " | why: the logical volume could not be created: data has 12 GiB left (GINLV00003E) | trace ID"
    ) in found
    assert list(place.iterdir()) == []


def test_scraped_lines_say_what_the_text_says(tmp_path: Path, place: Path) -> None:
    """The series that are shown come from the daemon's own scrape and count what has been told line by line."""
    text = show(configured(tmp_path))
    words = {word: outcome for outcome, word in WORDS.items()}
    told: Counter[str] = Counter()
    for line in findings(text):
        if (match := re.match(r"> (\w+) vms\.clone\b", line)) and match[1] in words:
            told[words[match[1]]] += 1

    shown = re.findall(r"^  wok_.*", text, re.MULTILINE)
    finished = dict(
        re.findall(r'wok_tasks_finished_total.*operation="vms.clone",outcome="(\w+)"} (\d+)', text)
    )

    assert {outcome: int(count) for outcome, count in finished.items()} == told
    assert told == {"success": 2, "failure": 1, "lost": 1}
    assert len(shown) == 5
    assert (
        '  wok_task_failures_total{app="kimchi",error_code="KCHVM0035E",operation="vms.clone"} 1.0' in shown
    )


def test_summary_counts_what_was_told(tmp_path: Path, place: Path) -> None:
    """The summary's numbers are those of the lines above it."""
    text = show(configured(tmp_path))
    many = Counter(line.split()[1] for line in findings(text))
    tasks = many["done"] + many["failed"] + many["lost"]

    assert (
        f"28 requests, {tasks} tasks: {many['done']} done, {many['failed']} failed, {many['lost']} lost\n"
        in text
    )
    assert many["refused"] == 2


def test_everything_arrives_at_a_collector(tmp_path: Path, place: Path) -> None:
    """With an endpoint, each request and task is one span there, and the numbers shown are those that arrived."""
    with Sink() as sink:
        text = show(configured(tmp_path), sink.environ())
        counts = sink.counts()
        failed = re.findall(r"Find the trace of the failed vms.migrate there: ([0-9a-f]{32})", text)
        traces = {trace.hex() for trace, _ in sink.spans()}

    assert counts["spans"] == 28 + 19
    assert f"  {counts['spans']} spans to {sink.endpoint}" in text
    assert f"  {counts['logs']} log records to {sink.endpoint}" in text
    assert counts["repeats"] == 0
    assert len(failed) == 1
    assert set(failed) < traces
    assert set(re.findall(r"trace ([0-9a-f]{32})", text)) < traces


def test_slow_collector_is_waited_for(tmp_path: Path, place: Path) -> None:
    """The end waits for what is on its way, so that the numbers shown are all there is."""

    def slowly(_: object) -> None:
        Event().wait(0.5)

    with Sink() as sink:
        sink.judge = slowly
        text = show(configured(tmp_path), sink.environ())

    assert f"  {28 + 19} spans to {sink.endpoint}" in text


def test_refusing_collector_does_not_spoil_the_show(
    tmp_path: Path, place: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A collector that takes nothing is told of at the end; everything else is shown all the same."""
    with Sink() as sink:
        sink.judge = lambda _: Reply(status=401)
        text = show(configured(tmp_path), sink.environ())

    assert f"traces: {sink.endpoint}/v1/traces responds with HTTP 401" in text
    assert "  0 spans to" in text
    assert "What to try next" in text


def test_pipe_gets_plain_whole_lines(tmp_path: Path, place: Path) -> None:
    """What is not a terminal gets neither escapes nor returns, nor a line that only a terminal can take back."""
    text = show(configured(tmp_path))

    assert "\x1b" not in text
    assert "\r" not in text
    assert "running:" not in text


@pytest.mark.parametrize(
    ("environ", "is_coloured"), [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)]
)
def test_terminal_is_coloured_unless_told_otherwise(
    environ: dict[str, str], is_coloured: bool, tmp_path: Path, place: Path
) -> None:
    """Colour is for terminals whose person has not asked for none."""
    text = show(configured(tmp_path), environ, out=Terminal())

    assert ("\x1b[31m   > failed\x1b[0m" in text) == is_coloured
    assert ("\x1b" in text) == is_coloured


def test_lines_fit_a_narrow_terminal(tmp_path: Path, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At eighty columns, only what is to be copied is longer than a line."""
    monkeypatch.setenv("COLUMNS", "80")
    text = show(configured(tmp_path), {"NO_COLOR": "1"}, out=Terminal())
    copied = ("  wok", "curl", "  wok-exporter")

    long = [line for line in re.split("[\r\n]", text) if len(line) > 80 and not line.startswith(copied)]
    assert long == []


@pytest.mark.parametrize("text", ["A simulated Wok", "josé logs in", "the update restarts wokd"])
def test_interruption_leaves_nothing_behind(text: str, tmp_path: Path, place: Path) -> None:
    """Ctrl-C at any moment ends the demo, its daemon and its directory."""
    stopped = Event()
    out = StopsAt(text, stopped)

    code = demo(configured(tmp_path), {}, out=out, stopped=stopped, speed=math.inf, wall=lambda: WALL)

    assert code == 130
    assert out.getvalue().endswith("Stopped.\n")
    assert list(place.iterdir()) == []
    assert [thread.name for thread in threading.enumerate() if "demo" in thread.name] == []


def test_broken_pipe_leaves_nothing_behind(tmp_path: Path, place: Path) -> None:
    """An output that is closed in the middle ends the daemon and its directory, too."""

    class Closed(io.StringIO):
        def write(self, text: str) -> int:
            if "grace" in text:
                raise BrokenPipeError
            return len(text)

    with pytest.raises(BrokenPipeError):
        show(configured(tmp_path), out=Closed())

    assert list(place.iterdir()) == []
    assert [thread.name for thread in threading.enumerate() if "demo" in thread.name] == []


def test_state_is_kept_where_asked(tmp_path: Path, place: Path) -> None:
    """With a state of its own, the tasks told are in it, every line of its log was understood, both dialects."""
    state = tmp_path / "kept"
    text = show(configured(tmp_path, state=str(state)))

    with closing(Reader(state)) as reader:
        tasks = reader.tasks(limit=100).tasks
        counters = reader.snapshot().counters
    log = (state / "wok-req.log").read_bytes()

    assert Counter(WORDS[task.outcome] for task in tasks) == Counter(
        line.split()[1] for line in findings(text) if not line.startswith("> refused")
    )
    assert counters["wok_exporter_lines_total", "record"] == log.count(b"\n")
    assert [
        count for series, count in counters.items() if series[0] == "wok_exporter_rejected_lines_total"
    ] == []
    assert {
        dialect: sum(
            count
            for series, count in counters.items()
            if series[0::2] == ("wok_exporter_records_total", dialect)
        )
        > 0
        for dialect in ("coded", "rfc", "json")
    } == {"coded": True, "rfc": True, "json": True}
    assert f" tasks --state {state}" in text
    assert list(place.iterdir()) == []


def test_directory_in_use_is_refused(tmp_path: Path, place: Path) -> None:
    """A directory that holds anything, such as a real daemon's state, is left as it is."""
    (tmp_path / "state.sqlite").write_bytes(b"of a real daemon")

    with pytest.raises(StoreError, match="is not empty: set --state to a new directory for the demo"):
        show(configured(tmp_path, state=str(tmp_path)))

    assert sorted(path.name for path in tmp_path.iterdir()) == ["state.sqlite", "temporary"]


def test_taken_port_is_replaced_by_a_free_one(tmp_path: Path, place: Path) -> None:
    """Where the real daemon has the port already, the demo says so and takes another."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        text = show(configured(tmp_path, listen=f"127.0.0.1:{port}"))

    assert f"(127.0.0.1:{port} is in use)" in text
    assert f"http://127.0.0.1:{port}/" not in text
    assert "wok_tasks_finished_total" in text


def test_without_a_server_nothing_is_scraped(tmp_path: Path, place: Path) -> None:
    """`listen = off` is obeyed: no address is told, and no series shown."""
    text = show(configured(tmp_path, listen="off"))

    assert "http://" not in text
    assert "  wok_" not in text
    assert "19 tasks" in text


def test_log_level_is_given_back(tmp_path: Path, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Afterwards the program's logging is as it was."""
    log = logging.getLogger("exporter")
    monkeypatch.setattr(log, "level", logging.DEBUG)
    show(configured(tmp_path))

    assert log.level == logging.DEBUG


def test_ids_of_two_demos_differ(tmp_path: Path, place: Path) -> None:
    """A collector that has seen the demo before is not shown two contents of one trace."""
    first = show(configured(tmp_path))
    second = show(configured(tmp_path), wall=lambda: WALL + 60 * NANOS)

    ids = [set(re.findall("trace ([0-9a-f]{32})", text)) for text in (first, second)]
    assert len(ids[0]) == len(ids[1]) == 5
    assert ids[0] & ids[1] == set()


def test_pace_is_that_of_the_story(tmp_path: Path, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The story takes its forty seconds, divided by the speed, and the store is looked at all the time."""

    class Clock(Event):
        """An event and a clock: who waits is given the time at once, by this clock."""

        def __init__(self) -> None:
            super().__init__()
            self.waits: list[float] = []

        def wait(self, timeout: float | None = None) -> bool:
            self.waits.append(timeout or 0.0)
            return super().wait(0.01)

        def monotonic(self) -> float:
            return sum(self.waits)

    clock = Clock()
    monkeypatch.setattr("exporter.command.demo.time", clock)
    show(configured(tmp_path), stopped=clock, speed=4.0)

    assert sum(clock.waits) >= 39.5 / 4
    assert max(clock.waits) == 0.2


def test_screen_shows_nothing_a_terminal_obeys() -> None:
    """Texts of a log cannot move the cursor, and letters that the output lacks do not end the program."""
    out = io.TextIOWrapper(io.BytesIO(), "ascii")
    Screen(out, {}).say("josé\x1b[2J", first="a\nb", indent=6)

    out.seek(0)
    assert out.read() == "a\\nb  jos??[2J\n"
    out.close()


def test_status_line_is_taken_back_before_the_next() -> None:
    """On a terminal the changing line is overwritten, in full, by the one that stays."""
    out = Terminal()
    screen = Screen(out, {"NO_COLOR": "1"})
    screen.status("running: a")
    screen.status("running: a")
    screen.say("done")

    assert out.getvalue() == "\rrunning: a\r          \rdone\n"


def test_the_demo_follows_its_own_logs_alone(tmp_path: Path) -> None:
    """Where the configuration looks for the logs of a real Wok by itself, the demo still follows the simulated ones."""
    config = load({"listen": "off"}, {}, "demo", root=tmp_path)
    stage = _stage(config, tmp_path / "stage")

    assert config.automatic == {"log", "wok_error_log", "wok_access_log"}
    assert (stage.automatic, stage.log) == (frozenset(), tmp_path / "stage" / "wok-req.log")

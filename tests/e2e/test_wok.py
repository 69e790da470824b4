"""The plug-in `tasklog` on real Wok: harmless whatever breaks in it, installed by `wok-exporter tasklog`, at work in a running wokd.

Skipped, in CI too, unless WOK_SOURCE names a git checkout of Wok, which no package registry has (installed_wok.py).
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from exporter.cli import main
from exporter.correlate.correlator import Correlator
from exporter.parse.parser import Parser
from exporter.parse.timezone import Zones
from exporter.records import NANOS, Event, Line, Record, RequestSeen, TaskEnded
from exporter.wok.operations import Operations
from tests.e2e import installed_wok
from tests.woklike import proof

pytestmark = pytest.mark.needs_wok

PYTHON3_RELEASES = ("3.0.0", "master")
PYTHON2_RELEASES = ("2.3.0", "2.4.0", "2.5.0")
RELEASES = (*PYTHON2_RELEASES, *PYTHON3_RELEASES)
ENDS = ("success", "wok", "plain", "both", "text", "silent", "nested", "success")


@pytest.fixture(scope="module")
def python3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    installed_wok.source()
    return installed_wok.python3(tmp_path_factory.mktemp("python3") / "venv")


@pytest.fixture(params=RELEASES)
def release(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def python(release: str, request: pytest.FixtureRequest) -> Path:
    """The interpreter for the release."""
    installed_wok.source()
    if release in PYTHON2_RELEASES:
        return installed_wok.python2()
    found: Path = request.getfixturevalue("python3")
    return found


@pytest.fixture
def prefix(release: str, tmp_path: Path) -> Path:
    """The release, installed, with a plug-in that makes tasks."""
    prefix = installed_wok.lay_out(release, tmp_path / "wok")
    installed_wok.add_jobs(prefix)
    return prefix


def tasklog(action: str, prefix: Path) -> int:
    return main(
        ["tasklog", action, "--wokd", str(prefix / "bin" / "wokd"), "--source", str(proof.PLUGIN)], environ={}
    )


def test_every_kind_of_task_is_as_without_the_plugin(release: str, python: Path, tmp_path: Path) -> None:
    """On each release: with the plug-in, and with each of its parts broken, nothing is worse than without it."""
    prefix = installed_wok.lay_out(release, tmp_path / "wok")
    library = proof.lay_out(tmp_path / "lib", wok=prefix / "lib" / "wok")
    for name in installed_wok.EMPTY_MODULES:
        (library / name).write_text(installed_wok.EMPTY_MODULES[name], encoding="utf-8")
    answer = proof.played(python, library)

    assert list(proof.differences(answer["without"], answer["with"])) == []
    assert list(proof.unexpected_ends(answer["with"])) == []
    worse = {
        part: list(proof.differences(answer["without"], played)) for part, played in answer["broken"].items()
    }
    assert {part: found for part, found in worse.items() if found} == {}
    assert len(worse) > 40
    assert all(not touched for _, _, touched in answer["unknown"])
    assert proof.without_ids(answer["removed"]) == proof.without_ids(answer["without"])


def test_the_stand_in_is_like_wok(python3: Path, tmp_path: Path) -> None:
    """Played by the same Python, Wok 3.0.0 and the stand-in log the same lines and leave the same states, in every scene."""
    prefix = installed_wok.lay_out("3.0.0", tmp_path / "wok")
    real = proof.lay_out(tmp_path / "real", wok=prefix / "lib" / "wok", plugin=None)
    for name in installed_wok.EMPTY_MODULES:
        (real / name).write_text(installed_wok.EMPTY_MODULES[name], encoding="utf-8")
    like = proof.lay_out(tmp_path / "like", plugin=None)

    scenes = [proof.without_ids(proof.played(python3, library)["without"]) for library in (real, like)]
    assert scenes[0] == scenes[1]


def test_a_running_wok_with_the_plugin(
    release: str, python: Path, prefix: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Installed by the command, wokd logs starts and ends that the exporter joins exactly, and shows its pages as before."""
    assert tasklog("install", prefix) == 0
    assert tasklog("status", prefix) == 1
    with installed_wok.running(prefix, python) as wok:
        assert tasklog("status", prefix) == 0, capsys.readouterr().out
        statuses = [
            wok.send("POST", "/plugins/jobs/work", {"name": f"n{n}", "end": end})[0]
            for n, end in enumerate(ENDS)
        ]
        assert statuses == [202] * len(ENDS)
        records = wok.wait(len(ENDS) + 1)
        assert wok.send("GET", "/plugins/tasklog")[0] == 404
        log = wok.log.read_bytes()
        shown, plain = _shown(wok), _without_tasks(wok)
    assert tasklog("status", prefix) == 1

    tasks = [record for record in records if record["info"]["req"] == "TASK"]
    assert {record["info"]["status"] for record in tasks} == {1000, 1001, 1002}
    _assert_joined(records)
    assert shown == plain
    assert len(log.splitlines()) == len(records)
    assert "tasklog: could not log" not in wok.error_log.read_text("utf-8", "replace")


def test_a_plugin_that_is_switched_off_rests(
    release: str, python: Path, prefix: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`enable = False` holds on each release, master too, where Wok itself takes it for true; removed, all is as before."""
    assert tasklog("install", prefix) == 0
    conf = prefix / "etc" / "wok" / "plugins.d" / "tasklog.conf"
    conf.write_text(conf.read_text("utf-8").replace("True", "False"), encoding="utf-8")
    _assert_as_wok_logs(prefix, python)
    assert tasklog("status", prefix) == 1
    assert tasklog("remove", prefix) == 0
    assert not conf.exists()
    _assert_as_wok_logs(prefix, python)
    assert release in capsys.readouterr().out


@pytest.mark.parametrize("release", ["2.5.0", *PYTHON3_RELEASES], indirect=True)
def test_it_is_enabled_in_the_settings_of_wok(python: Path, prefix: Path) -> None:
    """Enabled through Wok's API, as its page of settings does, the plug-in is at work without a restart."""
    assert tasklog("install", prefix) == 0
    conf = prefix / "etc" / "wok" / "plugins.d" / "tasklog.conf"
    conf.write_text(conf.read_text("utf-8").replace("True", "False"), encoding="utf-8")
    with installed_wok.running(prefix, python) as wok:
        assert wok.send("POST", "/config/plugins/tasklog/enable", {})[0] == 200
        assert "enable = True" in conf.read_text("utf-8")
        assert tasklog("status", prefix) == 0
        assert wok.send("POST", "/plugins/jobs/work", {"name": "a", "end": "success"})[0] == 202
        records = wok.wait(1)
    statuses = [record["info"]["status"] for record in records if record["info"]["req"] == "TASK"]
    assert statuses == [1000, 1001]


def _assert_as_wok_logs(prefix: Path, python: Path) -> None:
    with installed_wok.running(prefix, python) as wok:
        before = len(wok.records()) if wok.log.exists() else 0
        assert wok.send("POST", "/plugins/jobs/work", {"name": "a", "end": "success"})[0] == 202
        end = time.monotonic() + installed_wok.ANSWER_SECONDS
        while len(records := wok.records()[before:]) < 2 and time.monotonic() < end:
            time.sleep(0.05)
    assert sorted(record["info"]["status"] for record in records) == [200, 202]


def _shown(wok: installed_wok.Wok) -> tuple[Any, bytes]:
    """Return what Wok's log page asks for, and the file that it offers for download."""
    status, page = wok.send("GET", "/logs")
    assert status == 200
    status, answer = wok.send("GET", "/logs?download=True")
    assert status == 200
    status, text = wok.send("GET", "/" + json.loads(answer)["uri"].lstrip("/"))
    assert status == 200
    assert text.strip()
    return page, text


def _without_tasks(wok: installed_wok.Wok) -> tuple[Any, bytes]:
    """Return the same of the same log without the records of tasks."""
    lines = wok.log.read_bytes().splitlines(keepends=True)
    wok.log.write_bytes(b"".join(line for line in lines if json.loads(line)["info"]["req"] != "TASK"))
    return _shown(wok)


def _assert_joined(records: list[dict[str, Any]]) -> None:
    parser = Parser("test", Zones("UTC"))
    correlator = Correlator(Operations.load(), expiry=24 * 3600 * NANOS)
    events: list[Event] = []
    offset = 0
    for record in records:
        data = json.dumps(record).encode()
        for item in parser.feed(Line(b"f", offset, data, len(data))):
            assert isinstance(item, Record), item
            events += correlator.feed(item)
        offset += len(data) + 1
    events += correlator.finish()
    requests = {event.context: event.record for event in events if isinstance(event, RequestSeen)}
    names = {
        record["message"]["params"]["request_id"]: record["message"]["params"]["task_id"]
        for record in records
        if record["info"]["req"] == "TASK" and "parent_task_id" not in record["message"]["params"]
    }
    direct = [e for e in events if isinstance(e, TaskEnded) and e.task_id in names.values()]
    assert len(direct) == len(ENDS)
    assert [e.correlation for e in direct] == ["exact"] * len(ENDS)
    assert {requests[e.parent].record_id: e.task_id for e in direct} == names
    failures = [e.record.error_code for e in direct if e.record is not None and e.outcome == "failure"]
    assert sorted(failures) == ["JOBS0001E", "JOBS0001E", "WOKTASK0001E", "WOKTASK0001E"]

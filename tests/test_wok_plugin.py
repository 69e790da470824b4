"""The plug-in `tasklog` on a stand-in for Wok, with CherryPy's real requests and real threads: what it writes, and that it is harmless.

The proof that it is harmless came first: every kind of task is played with every function and every class of the plug-in
broken in turn, and nothing may be worse than without it. tests/e2e/test_wok.py plays the same on real Wok.
"""

from __future__ import annotations

import ast
import importlib.util
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from exporter.correlate.correlator import Correlator
from exporter.parse.parser import Parser
from exporter.parse.timezone import Zones
from exporter.records import NANOS, Line, Record, RequestSeen, TaskEnded
from exporter.wok.messages import Messages
from exporter.wok.operations import Operations
from tests.woklike import proof
from tests.woklike.proof import PLUGIN, Scene

EXPIRY = 24 * 3600 * NANOS
SAO_PAULO = ZoneInfo("America/Sao_Paulo")
WORKS = "starts and ends of tasks are logged with their ids"


def parts() -> list[str]:
    """Return the functions and classes of the plug-in's module, as its source has them."""
    tree = ast.parse((PLUGIN / "records.py").read_text("utf-8"))
    return sorted(node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef))


@pytest.fixture(scope="module")
def answer(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """All scenes, played once in a process of their own."""
    return proof.played(sys.executable, proof.lay_out(tmp_path_factory.mktemp("lib")))


@pytest.fixture
def scenes(answer: dict[str, Any]) -> dict[str, Scene]:
    return {scene["name"]: scene for scene in answer["with"]}


def test_nothing_is_worse_with_the_plugin(answer: dict[str, Any]) -> None:
    """State, message and answers of every kind of task, wok-error.log and the lines of requests are as without it."""
    assert list(proof.differences(answer["without"], answer["with"])) == []


def test_every_part_is_broken(answer: dict[str, Any]) -> None:
    """No function and no class of the module escapes the test below."""
    assert answer["parts"] == parts()


@pytest.mark.parametrize("kind", ["RuntimeError", "KeyboardInterrupt"])
@pytest.mark.parametrize("part", parts())
def test_a_broken_part_harms_nothing(answer: dict[str, Any], part: str, kind: str) -> None:
    """With this part raising, every kind of task goes on as without the plug-in, and no end is lost or logged twice."""
    broken = answer["broken"][f"{part} {kind}"]

    assert list(proof.differences(answer["without"], broken)) == []
    own = {text for scene in broken for text in scene["own"]}
    assert all(
        re.fullmatch(r"tasklog: could not log [a-z ]+ \(\w+\); Wok and its tasks go on", text) for text in own
    )
    assert sum(len(scene["own"]) for scene in broken) == len(own), "each is said once"


@pytest.mark.parametrize("part", [part for part in parts() if part != "install"])
def test_a_part_that_is_broken_from_the_first_moment_harms_nothing(answer: dict[str, Any], part: str) -> None:
    """If a part raises while the plug-in is installed, either all of Wok's methods are wrapped or none is."""
    told, touched, played = answer["broken_before"][part]

    assert (told == WORKS) == bool(touched)
    assert len(touched) in (0, 6)
    before = [scene for scene in answer["without"] if scene["name"] in ("succeeds", "raises_wok")]
    assert list(proof.differences(before, played)) == []


def test_an_unknown_wok_is_left_alone(answer: dict[str, Any]) -> None:
    """Where a method has other arguments, or is no function, nothing is wrapped, and one sentence says so."""
    assert len(answer["unknown"]) > 0
    for told, is_untouched, touched in answer["unknown"]:
        assert told.startswith("this Wok is not known ("), told
        assert is_untouched
        assert touched == []


def test_it_installs_once_and_can_be_taken_off(answer: dict[str, Any]) -> None:
    """A second installation changes nothing; five methods are wrapped, and without the wrappers all is as before."""
    assert answer["installed"] == [WORKS, WORKS]
    assert answer["touched"] == [
        "AsyncTask.__init__",
        "AsyncTask._log",
        "AsyncTask._run_helper",
        "AsyncTask.is_tasklog",
        "AsyncTask.kill",
        "RequestRecord.__init__",
    ]
    assert proof.without_ids(answer["removed"]) == proof.without_ids(answer["without"])


def test_each_kind_of_task_has_its_ends(answer: dict[str, Any]) -> None:
    """Ends, codes and texts of reasons of every kind of task are those of the table."""
    assert list(proof.unexpected_ends(answer["with"])) == []
    assert {scene["name"] for scene in answer["with"]} == set(proof.ENDS)


def test_each_task_has_one_start_before_its_ends(scenes: dict[str, Scene]) -> None:
    """Every task has one record with status 1000; only a kill may stand before it. Wok's own 200 and 400 are gone."""
    for scene in scenes.values():
        by_task: dict[str, list[int]] = {}
        for record in proof.tasks_of(scene):
            by_task.setdefault(record["message"]["params"]["task_id"], []).append(record["info"]["status"])
        for statuses in by_task.values():
            assert statuses.count(1000) == 1, scene["name"]
            assert set(statuses) <= {1000, 1001, 1002}
            assert statuses[0] == 1000 or scene["name"] == "killed"


def test_a_task_names_the_line_of_its_request(scenes: dict[str, Scene]) -> None:
    """The request_id of every record of a task, nested ones too, is the id of the request's first line, whichever stands first."""
    for name, scene in scenes.items():
        found = {record["message"]["params"].get("request_id") for record in proof.tasks_of(scene)}
        assert found == {None if name == "outside_of_requests" else scene["request_lines"][0]}, name


def test_a_second_line_of_a_request_has_an_id_of_its_own(scenes: dict[str, Scene]) -> None:
    """The chosen id is given to one line alone, and two tasks of one request name the same line."""
    scene = scenes["two_tasks_and_two_lines"]

    assert len(set(scene["request_lines"])) == 2
    assert len({record["message"]["params"]["task_id"] for record in proof.tasks_of(scene)}) == 2


def test_a_nested_task_names_its_parent(scenes: dict[str, Scene]) -> None:
    """A task that a task's function makes names that task, at any depth; others name none."""
    scene = scenes["nests_twice"]
    uris = {
        r["message"]["params"]["task_id"]: r["message"]["params"]["target_uri"] for r in proof.tasks_of(scene)
    }
    parents = {
        r["message"]["params"]["target_uri"]: uris.get(r["message"]["params"].get("parent_task_id", ""), "")
        for r in proof.tasks_of(scene)
    }

    assert parents == {
        "/x/nests_twice": "",
        "/middle": "/x/nests_twice",
        "/inner": "/middle",
        "/second": "/middle",
    }


def test_a_start_has_the_time_at_which_the_task_was_made(answer: dict[str, Any]) -> None:
    """Date, time and zone of a start are of Wok's own timestamp of the task, even if its thread begins an hour later."""
    for scene in (*answer["with"], answer["late"]):
        start = next(
            record
            for record in proof.tasks_of(scene)
            if (record["message"]["params"]["task_id"], record["info"]["status"]) == (scene["task_id"], 1000)
        )
        made = datetime.fromtimestamp(scene["timestamp"], SAO_PAULO)
        assert (start["info"]["date"], start["info"]["time"]) == (f"{made:%Y-%m-%d}", f"{made:%H:%M:%S}")
        assert start["info"]["zone"] == "-03"


def test_a_record_has_the_fields_of_the_specification(scenes: dict[str, Scene]) -> None:
    """A task's records hold what docs/tasklog.md says and nothing else of the request: no user, no address, no parameter."""
    for scene in scenes.values():
        for record in proof.tasks_of(scene):
            assert set(record) == {"id", "message", "error", "info"}
            assert set(record["info"]) == {"app", "req", "status", "user", "ip", "date", "time", "zone"}
            assert (record["info"]["user"], record["info"]["ip"]) == ("", "")
            assert set(record["message"]["params"]) <= {
                "target_uri",
                "task_id",
                "request_id",
                "parent_task_id",
            }
            assert "S3cret" not in json.dumps(record)


def test_the_text_of_a_reason_is_bounded(scenes: dict[str, Scene]) -> None:
    """Of a long text at most 4,096 characters are logged: its head, and its tail."""
    (error,) = (record["error"] for record in proof.tasks_of(scenes["raises_long"]) if record["error"])

    assert len(error["params"]["err"]) == 4096
    assert error["params"]["err"].startswith("head xxx")
    assert error["params"]["err"].endswith("xxx tail")


def test_what_json_cannot_hold_becomes_text(scenes: dict[str, Scene], answer: dict[str, Any]) -> None:
    """A failure whose parameters are exceptions and classes is logged with their texts; Wok itself loses that line."""
    (error,) = (record["error"] for record in proof.tasks_of(scenes["raises_unencodable"]) if record["error"])
    before = next(scene for scene in answer["without"] if scene["name"] == "raises_unencodable")

    assert proof.ends_of(before) == []
    assert error["params"]["name"] == "web01"
    assert error["params"]["err"] == "boom"
    assert error["params"]["more"] == [{"deep": ["<class 'object'>", 1]}]


def test_an_exception_without_a_text_is_named(scenes: dict[str, Scene]) -> None:
    """An exception that Wok cannot print, and so never reports, is logged with its class."""
    (error,) = (record["error"] for record in proof.tasks_of(scenes["raises_unprintable"]) if record["error"])

    assert error["params"] == {"err": "<unprintable Unprintable object>", "type": "Unprintable"}


def test_a_kept_callback_keeps_its_task_open(scenes: dict[str, Scene]) -> None:
    """While somebody holds the callback nothing is taken for an end: the end is logged when they call, once."""
    assert proof.ends_of(scenes["keeps_the_callback"]) == [(1001, "")]
    assert scenes["keeps_the_callback"]["state"][:2] == ["finished", "done"]
    assert scenes["says_nothing"]["state"][0] == "running", "Wok itself never learns of it"


def test_the_callback_looks_like_that_of_wok(scenes: dict[str, Scene]) -> None:
    """A function that asks the callback for its name and its task gets the answers of Wok's own."""
    assert scenes["asks_the_callback"]["state"][1] == "_status_cbAsyncTask"


def test_the_exporter_joins_every_task_exactly(answer: dict[str, Any]) -> None:
    """The real parser understands every line, and the real correlator gives each direct task its request, graded exact."""
    for scene in answer["with"]:
        if scene["name"] in ("outside_of_requests", "two_tasks_and_two_lines"):
            continue
        parser, correlator = (
            Parser("test", Zones("America/Sao_Paulo")),
            Correlator(Operations.load(), expiry=EXPIRY),
        )
        events, offset = [], 0
        for record in scene["records"]:
            data = json.dumps(record).encode() + b"\n"
            for item in parser.feed(Line(b"f", offset, data, len(data))):
                assert isinstance(item, Record), item
                events += correlator.feed(item)
            offset += len(data)
        events += correlator.finish()
        requests = {e.context: e.record.record_id for e in events if isinstance(e, RequestSeen)}
        ends = [e for e in events if isinstance(e, TaskEnded) and e.task_id == scene["task_id"]]
        assert [(requests.get(e.parent), e.correlation) for e in ends] == [
            (scene["request_lines"][0], "exact")
        ], scene["name"]


def test_the_exporter_finds_the_texts() -> None:
    """The plug-in's own codes have sentences in its i18n.py, as the exporter reads those of every plug-in."""
    messages = Messages.load([PLUGIN])

    assert messages.problems == []
    assert messages.render("WOKTASK0001E", {"err": "no space left"}) == "no space left"
    assert messages.render("WOKTASK0002E", {}) == "A user killed the task"
    assert "4a06" in messages.render("WOKASYNC0000L", {"target_uri": "/x", "task_id": "4a06"})


def switch() -> Callable[[str], bool]:
    """Return the plug-in's own look at its configuration."""
    spec = importlib.util.spec_from_file_location("switch", PLUGIN / "switch.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    is_on: Callable[[str], bool] = module.is_switched_on
    return is_on


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ((PLUGIN / "tasklog.conf").read_text("utf-8"), True),
        ("[wok]\nenable = True\n", True),
        ("[wok]\nenable=true\n", True),
        ("[wok]\nenable = 1\n", True),
        ('[wok]\nenable = "True"\n', True),
        ("[wok]\nenable = False\n", False),
        ("[wok]\nenable = false\n", False),
        ('[wok]\nenable = "False"\n', False),
        ("[wok]\nenable = 0\n", False),
        ("[wok]\nenable = None\n", False),
        ("[wok]\nenable =\n", False),
        ("[wok]\n", False),
        ("[other]\nenable = True\n", False),
        ("enable = True\n", False),
        ("\x00\xff", False),
        ("", False),
    ],
)
def test_the_switch(tmp_path: Path, text: str, expected: bool) -> None:
    """`enable` decides, however it is written, also where Wok takes every text for true; what cannot be read is a no."""
    (tmp_path / "tasklog.conf").write_text(text, encoding="utf-8")

    assert switch()(str(tmp_path / "tasklog.conf")) is expected


def test_the_switch_without_a_file(tmp_path: Path) -> None:
    """A configuration that is not there, or is a directory, is a no."""
    assert switch()(str(tmp_path / "none.conf")) is False
    assert switch()(str(tmp_path)) is False


LOADER = """
import logging, sys
sys.path.insert(0, sys.argv[1])
import cherrypy
from wok import asynctask
from wok.config import PluginPaths
said = []
class Ear(logging.Handler):
    def emit(self, record):
        said.append(record.getMessage())
cherrypy.log.screen = False
cherrypy.log.error_log.addHandler(Ear())
from wok.plugins.tasklog import Tasklog
from wok.plugins.tasklog.control import sub_nodes
mounted = Tasklog(None)
open(PluginPaths("tasklog").conf_file, "w").write("[wok]\\nenable = True\\n")
Tasklog(None)
print([said, hasattr(asynctask.AsyncTask, "is_tasklog"), sub_nodes, mounted.domain, mounted.depends, mounted.extends])
"""


def test_a_switched_off_plugin_stays_off_until_it_is_enabled(tmp_path: Path) -> None:
    """Where Wok loads a plug-in that is switched off, it does nothing; enabled in Wok's settings, it begins at once."""
    library = proof.lay_out(tmp_path / "lib")
    conf = library / "plugins.d" / "tasklog.conf"
    conf.write_text("[wok]\nenable = False\n", encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", LOADER, library], capture_output=True, text=True, check=False
    )

    said, is_installed, nodes, domain, depends, extends = ast.literal_eval(done.stdout or done.stderr)
    assert said == [
        f"tasklog: disabled in {conf}: Wok logs tasks as it does without this plug-in",
        f"tasklog: {WORKS}",
    ]
    assert (is_installed, nodes, domain, depends, extends) == (True, {}, "tasklog", [], None)


def test_a_wok_without_tasks_is_left_alone(tmp_path: Path) -> None:
    """On a Wok that lacks what the plug-in imports, its object is made all the same and one sentence says why it rests."""
    library = proof.lay_out(tmp_path / "lib")
    (library / "wok" / "reqlogger.py").unlink()
    script = LOADER.replace("from wok import asynctask\n", "").replace("asynctask.AsyncTask", "cherrypy")
    done = subprocess.run(
        [sys.executable, "-c", script, library], capture_output=True, text=True, check=False
    )

    said = ast.literal_eval(done.stdout or done.stderr)[0]
    assert len(said) == 2
    assert all(
        re.fullmatch(r"tasklog: not started \((ImportError|ModuleNotFoundError)\): Wok logs .*", text)
        for text in said
    )


def test_the_folder_holds_what_the_loader_wants() -> None:
    """Configuration, class, table of URLs and messages are there under the names that Wok looks for."""
    assert {path.name for path in PLUGIN.iterdir()} - {"__pycache__"} == {
        "__init__.py", "control.py", "i18n.py", "records.py", "switch.py", "tasklog.conf"
    }  # fmt: skip
    assert '"/plugins/tasklog"' in (PLUGIN / "tasklog.conf").read_text("utf-8")


def test_the_source_is_python_2_7_and_3() -> None:
    """Vermin finds nothing in the plug-in, or in the scenes, that Python 2.7 or Python 3.4 lacks."""
    vermin = Path(sys.executable).with_name("vermin")
    assert vermin.exists()
    done = subprocess.run(
        [vermin, "--violations", "--no-tips", "-t=2.7-", "-t=3.4-", PLUGIN, proof.PYTHON2],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stdout


def test_python_2_7_compiles_it() -> None:
    """Where a Python 2.7 is installed it compiles the plug-in and plays nothing: real Wok does that in tests/e2e."""
    python = shutil.which("python2.7")
    if python is None or subprocess.run([python, "-V"], capture_output=True, check=False).returncode != 0:
        pytest.skip("no python2.7 on this machine; vermin has looked at the syntax")
    script = "import sys\nfor name in sys.argv[1:]: compile(open(name).read(), name, 'exec')"
    files = [*PLUGIN.glob("*.py"), proof.SCENES]

    assert subprocess.run([python, "-c", script, *files], check=False).returncode == 0

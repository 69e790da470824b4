"""What must hold of the scenes of python2/scenes.py, on the stand-in and on every real Wok: plain functions over its answer."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PLUGIN = ROOT / "deploy" / "wok" / "tasklog"
PYTHON2 = Path(__file__).with_name("python2")
SCENES = PYTHON2 / "scenes.py"
LIKE = Path(__file__).with_name("wok")
SECONDS_MAX = 240

Scene = dict[str, Any]

REASON = "WOKTASK0001E"
ENDS: dict[str, list[tuple[int, str]]] = {
    "succeeds": [(1001, "")],
    "raises_wok": [(1002, "KCHVM0035E")],
    "raises_plain": [(1002, REASON)],
    "raises_os": [(1002, REASON)],
    "raises_without_text": [(1002, REASON)],
    "raises_many_lines": [(1002, REASON)],
    "raises_long": [(1002, REASON)],
    "raises_not_ascii": [(1002, REASON)],
    "raises_bytes": [(1002, REASON)],
    "raises_unprintable": [(1002, REASON)],
    "raises_what_looks_like_wok": [(1002, REASON)],
    "raises_unencodable": [(1002, "KCHVM0035E")],
    "raises_chained": [(1002, "KCHVM0035E")],
    "raises_recursion": [(1002, REASON)],
    "exits": [(1002, REASON)],
    "reports_failure": [(1002, REASON)],
    "reports_failure_by_keyword": [(1002, REASON)],
    "reports_failure_without_text": [(1002, "")],
    "reports_failure_twice": [(1002, REASON)],
    "reports_failure_then_raises_wok": [(1002, "KCHVM0035E")],
    "reports_failure_then_raises_plain": [(1002, REASON)],
    "reports_failure_then_exits": [(1002, REASON)],
    "reports_failure_while_handling": [(1002, REASON)],
    "reports_failure_then_success": [(1002, REASON), (1001, "")],
    "reports_failure_from_a_thread": [(1002, REASON)],
    "succeeds_then_raises": [(1001, ""), (1002, "KCHVM0035E")],
    "succeeds_twice": [(1001, ""), (1001, "")],
    "says_nothing": [(1001, "")],
    "keeps_the_callback": [(1001, "")],
    "keeps_the_callback_and_fails": [(1002, REASON)],
    "ends_in_its_request": [(1001, "")],
    "asks_the_callback": [(1001, "")],
    "nests": [(1001, "")],
    "nests_and_fails": [(1002, "KCHVM0035E")],
    "nests_twice": [(1001, "")],
    "killed": [(1002, "WOKTASK0002E")],
    "not_killable": [(1001, "")],
    "request_first": [(1001, "")],
    "two_tasks_and_two_lines": [(1001, "")],
    "outside_of_requests": [(1001, "")],
}
"""Scene -> the ends of its own task, nested ones left out: status, and the code of the reason."""

TEXTS: dict[str, tuple[str, str | None]] = {
    "raises_plain": ("no space left", "ValueError"),
    "raises_what_looks_like_wok": ("no such table", "Statement"),
    "raises_without_text": ("RuntimeError", "RuntimeError"),
    "exits": ("3", "SystemExit"),
    "reports_failure": ("giving up", None),
    "reports_failure_by_keyword": ("giving up", None),
    "reports_failure_twice": ("giving up", None),
    "reports_failure_then_raises_plain": ("no space left", "ValueError"),
    "reports_failure_then_exits": ("3", "SystemExit"),
    "reports_failure_while_handling": ("giving up", None),
    "reports_failure_then_success": ("not yet", None),
    "reports_failure_from_a_thread": ("from a thread", None),
    "raises_not_ascii": ("\u00e9t\u00e9 \U0001f4a5", "ValueError"),
}
"""Scene -> text and class of the reason, the same on every Wok and Python."""


def lay_out(library: Path, *, plugin: Path | None = PLUGIN, wok: Path = LIKE) -> Path:
    """Copy a package `wok` into a directory, with the plug-in if any; return the directory."""
    ignored = shutil.ignore_patterns("__pycache__")
    # A source tree of Wok has links to files that its configure script makes.
    shutil.copytree(wok, library / "wok", ignore=ignored, ignore_dangling_symlinks=True)
    if plugin is not None:
        shutil.copytree(plugin, library / "wok" / "plugins" / "tasklog", ignore=ignored)
        (library / "plugins.d").mkdir(exist_ok=True)
        shutil.copy(plugin / "tasklog.conf", library / "plugins.d")
    return library


def played(python: str | Path, library: Path) -> dict[str, Any]:
    """Play the scenes with this Python on the Wok in this directory; return what scenes.py says."""
    done = subprocess.run(
        [python, SCENES, library],
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "TZ": "America/Sao_Paulo", "LC_ALL": "C.UTF-8"},
        capture_output=True,
        timeout=SECONDS_MAX,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode(errors="replace")[-3000:]
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def tasks_of(scene: Scene) -> list[dict[str, Any]]:
    """Return the TASK records of a scene."""
    return [record for record in scene["records"] if record["info"]["req"] == "TASK"]


def ends_of(scene: Scene) -> list[tuple[int, str]]:
    """Return status and code of the ends of a scene's own task."""
    return [
        (record["info"]["status"], record["error"]["code"] if record["error"] else "")
        for record in tasks_of(scene)
        if record["info"]["status"] != 1000
        and record["message"]["params"].get("task_id", scene["task_id"]) == scene["task_id"]
        and record["message"]["params"]["target_uri"] == scene["state"][3]
    ]


def differences(without: Sequence[Scene], after: Sequence[Scene]) -> Iterator[str]:
    """Yield what is worse than without the plug-in: state, message, answers, wok-error.log, lines that are missing or twice."""
    assert [scene["name"] for scene in without] == [scene["name"] for scene in after]
    for before, now in zip(without, after, strict=True):
        name = before["name"]
        if before["state"] != now["state"]:
            yield f"{name}: {before['state']} is {now['state']}"
        if _unfolded(before["said"]) != _unfolded(now["said"]):
            yield f"{name}: wok-error.log says {now['said']} instead of {before['said']}"
        if _requests(before) != _requests(now):
            yield f"{name}: the lines of requests are {_requests(now)}"
        ends = ends_of(now)
        if ends_of(before) and not ends:
            yield f"{name}: no end is logged"
        if len(ends) > max(1, len(ends_of(before))):
            yield f"{name}: {len(ends)} ends are logged: {ends}"
        yield from (f"{name}: {problem}" for problem in wrong_ids(now))


def wrong_ids(scene: Scene) -> Iterator[str]:
    """Yield every id that leads to another request or task than the true one, and ids that are there twice."""
    lines = scene["request_lines"]
    own = {record["id"] for record in scene["records"]}
    if len(own) != len(scene["records"]):
        yield "two records have one id"
    tasks = {record["message"]["params"].get("task_id") for record in tasks_of(scene)}
    for record in tasks_of(scene):
        params = record["message"]["params"]
        if params.get("request_id") in own - set(lines[:1]):
            yield f"request_id {params['request_id']} is the id of another line"
        if params.get("parent_task_id") not in tasks | {None}:
            yield f"parent_task_id {params['parent_task_id']} is no task"


def unexpected_ends(after: Sequence[Scene]) -> Iterator[str]:
    """Yield every scene whose ends, or the texts of their reasons, are not those of the tables above."""
    for scene in after:
        if ends_of(scene) != ENDS[scene["name"]]:
            yield f"{scene['name']}: {ends_of(scene)}"
        if (expected := TEXTS.get(scene["name"])) is not None:
            errors = [record["error"]["params"] for record in tasks_of(scene) if record["error"]]
            found = [(params["err"], params.get("type")) for params in errors]
            if found != [expected]:
                yield f"{scene['name']}: {found}"


def without_ids(scenes: Sequence[Scene]) -> list[Any]:
    """Return the scenes with nothing in them that differs from run to run: for comparing Wok with its stand-in."""
    return [
        [
            scene["name"],
            scene["state"][0],
            [
                (record["info"]["req"], record["info"]["status"], record["message"]["code"], record["error"])
                for record in scene["records"]
            ],
        ]
        for scene in scenes
    ]


def _unfolded(said: Sequence[str]) -> list[list[str]]:
    # How often a function can call itself depends on how deep it begins: one frame deeper with the plug-in.
    return [
        [line for line in dict.fromkeys(text.split("\n")) if "[Previous line repeated " not in line]
        for text in said
    ]


def _requests(scene: Scene) -> list[Mapping[str, Any]]:
    return [
        {"message": record["message"], "error": record["error"], "status": record["info"]["status"]}
        for record in scene["records"]
        if record["info"]["req"] != "TASK"
    ]

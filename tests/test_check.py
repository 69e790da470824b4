"""What `check` and `text` say of a log: every count, every rejected line, and nothing that a terminal obeys."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import sqlite3
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.command import check_report
from exporter.command.check import check, text
from exporter.config.config import load
from exporter.config.options import Config
from exporter.simulate.records import ADA, FAILED, FINISHED, STARTED, Failure, record, task_record
from exporter.simulate.story import story
from exporter.source.archive import ArchiveError
from tests.program import environ, run

CORPUS = Path(__file__).parents[2] / "shared" / "corpus"
REAL_LOGS = sorted(CORPUS.glob("*/user-requests.data")) + sorted(CORPUS.glob("*/wok-req.log"))
MORNING = datetime(2026, 3, 2, 9, 0, 0, tzinfo=UTC)
STAMP = {
    "date": "2016-08-12",
    "time": "11:49:55",
    "zone": "-03",
    "id": "00000000-0000-4000-8000-000000000001",
}

CLONE = record("rfc", STAMP, "kimchi", "POST", 202, ADA, "KCHVM0009L", {"ident": "web01"}, "A clone of web01")
LOGIN = record("json", STAMP, "wok", "POST", 200, ADA, "WOKROOT0001L", {"username": "ada"}, "")
URI = "/plugins/kimchi/vms/web01-clone-1471013395000000/clone"
START = task_record("rfc", STAMP, "kimchi", STARTED, URI, 7)
END = task_record("rfc", STAMP, "kimchi", FINISHED, URI, 7)
WHY = Failure("KCHVM0035E", {"name": "web01", "err": "full"}, "web01 could not be cloned: full")


def configured(directory: Path, **flags: str) -> Config:
    return load({"timezone": "UTC", "messages": "off", **flags}, {}, "check", root=directory)


def log(directory: Path, *lines: bytes, name: str = "user-requests.data") -> Path:
    path = directory / name
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    return path


def checked(*files: Path, **flags: str) -> tuple[int, str]:
    """The exit code, and what is printed for a person."""
    out = StringIO()
    code = check(configured(files[0].parent, **flags), files, as_json=False, out=out, screen=StringIO())
    return code, out.getvalue()


def found(*files: Path, **flags: str) -> dict[str, Any]:
    """What is printed for programs."""
    out = StringIO()
    check(configured(files[0].parent, **flags), files, as_json=True, out=out, screen=StringIO())
    result: dict[str, Any] = json.loads(out.getvalue())
    return result


def as_text(*files: Path, **flags: str) -> tuple[int, str, str]:
    """The exit code, what is printed, and what is said beside it."""
    out, screen = StringIO(), StringIO()
    code = text(configured(files[0].parent, **flags), files, out=out, screen=screen)
    return code, out.getvalue(), screen.getvalue()


# check


class Terminal(StringIO):
    """A screen of a person."""

    def isatty(self) -> bool:
        return True


def test_sentences_fit_a_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal sentences are wrapped at their blanks, and the rest of a warning begins below its first word."""
    monkeypatch.setenv("COLUMNS", "60")
    path = log(tmp_path, CLONE, START, END)
    out = Terminal()
    check(configured(tmp_path), [path], as_json=False, out=out, screen=StringIO())
    whole = checked(path)[1].split("LINES", maxsplit=1)[0].splitlines()
    wrapped = out.getvalue().split("LINES", maxsplit=1)[0].splitlines()

    assert max(map(len, whole)) > 60 >= max(map(len, wrapped))
    first = next(at for at, line in enumerate(wrapped) if line.startswith("Warning: "))
    assert wrapped[first + 1].startswith("         ")
    assert " ".join(map(str.strip, wrapped)).split() == " ".join(whole).split()


def test_a_log_that_is_understood(tmp_path: Path) -> None:
    """The verdict is the first sentence; below it every count stands at the right."""
    expected = """\
All lines can be parsed: 4 lines in 1 file.
From 2016-08-12 14:49:55 UTC to 2016-08-12 14:49:55 UTC.
All task records since 2016-08-12 14:49:55 UTC have ids. 1 of 1 ended tasks (100 %) have ids.
Warning: The log's times are -03 (-03:00), but the configured time zone is UTC (+00:00). Set --timezone to the zone of\
 Wok's host: the times in wok-error.log have no zone of their own.
Warning: All records are older than start_at (24 h ago): the daemon would skip them the first time. Set --start-at, or\
 send them with `replay`.

LINES
  records                              4
  continuation lines                   0
  forged records                       0
  rejected                             0

DIALECTS
  rfc                                  2
  coded                                1
  json                                 1

KINDS
  started                              1
  request                              2
  finished                             1

APPLICATIONS
  kimchi                               3
  wok                                  1

OPERATIONS                      requests     tasks
  kimchi vms.clone                     1         1
  wok login                            1         0

TASKS by outcome, correlation      exact    likely ambiguous      none       all
  success                              1         0         0         0         1

TIME ZONES
  -03                                  4
"""

    assert (0, expected) == checked(log(tmp_path, START, CLONE, END, LOGIN))


def test_rejected_lines_are_listed(tmp_path: Path) -> None:
    """Every part that is no record is named with its file, line, byte and reason, and the exit code is 1."""
    first = log(tmp_path, b"what is this?", CLONE, b"", LOGIN, b"\0\0\0" + LOGIN, name="a.log")
    second = log(tmp_path, LOGIN, LOGIN[:-9], name="b.log")
    code, said = checked(first, second)

    offset = len(b"what is this?\n") + len(CLONE) + 1
    listed = found(first, second)["rejected"]["listed"]
    assert code == 1
    assert said.startswith("3 of 7 lines in 2 files cannot be parsed.\n")
    assert [
        (str(first), 1, 0, "shape"),
        (str(first), 5, offset + 1 + len(LOGIN) + 1, "nul"),
        (str(second), 2, len(LOGIN) + 1, "json"),
    ] == [(one["file"], one["line"], one["offset"], one["reason"]) for one in listed]
    assert f"\n  {first}:1 (byte 0) shape: what is this?\n" in said


def test_everything_for_programs(tmp_path: Path) -> None:
    """JSON is one object with all of it, in the names that stay."""
    failed = task_record("rfc", STAMP, "kimchi", FAILED, URI, 7, WHY)
    path = log(tmp_path, b"\x1b[31mno record\x1b[0m", START, CLONE, failed, CLONE)

    none = {"exact": 0, "likely": 0, "ambiguous": 0, "none": 0}
    expected = {
        "is_understood": False,
        "verdict": "1 of 5 lines in 1 file cannot be parsed.",
        "files": 1,
        "lines": 5,
        "parts": {"record": 4, "continuation": 0, "forged": 0, "rejected": 1},
        "records": {
            "dialect": {"rfc": 2, "coded": 2},
            "kind": {"started": 1, "request": 2, "finished": 1},
            "app": {"kimchi": 4},
        },
        "operations": [{"app": "kimchi", "operation": "vms.clone", "requests": 2, "tasks": 1}],
        "tasks": {
            "running": 0,
            "ended": {
                "success": none,
                "failure": {**none, "exact": 1},
                "lost": none,
                "unknown": none,
            },
            "repeated_records": 0,
        },
        "first": "2016-08-12T14:49:55+00:00",
        "last": "2016-08-12T14:49:55+00:00",
        "task_ids": {
            "has_plugin": None,
            "since": "2016-08-12T14:49:55+00:00",
            "last_with_ids": "2016-08-12T14:49:55+00:00",
            "tasks": 1,
            "tasks_with_ids": 1,
            "share": 1.0,
        },
        "restarts": None,
        "older_than_start_at": 4,
        "warnings": [
            "The log's times are -03 (-03:00), but the configured time zone is UTC (+00:00). Set --timezone to the zone of Wok's host: the times in wok-error.log have no zone of their own.",
            "All records are older than start_at (24 h ago): the daemon would skip them the first time. Set --start-at, or send them with `replay`.",
        ],
        "zones": [{"zone": "-03", "records": 4, "is_understood": True}],
        "wok_error_log": None,
        "wok_access_log": None,
        "damages": [],
        "rejected": {
            "reasons": {"shape": 1},
            "listed": [
                {
                    "file": str(path),
                    "line": 1,
                    "offset": 0,
                    "reason": "shape",
                    "excerpt": "\ufffd[31mno record\ufffd[0m",
                }
            ],
            "not_listed": 0,
        },
    }
    assert expected == found(path)


def test_only_the_first_rejected_lines_are_listed(tmp_path: Path) -> None:
    """A file that is no log at all does not flood the screen, but is counted to its end."""
    path = log(tmp_path, *(b"line %d" % n for n in range(1, 251)))

    rejected = found(path)["rejected"]
    assert (len(rejected["listed"]), rejected["not_listed"]) == (100, 150)
    assert checked(path)[1].endswith("  and 150 more\n")


def test_continuations_and_forgeries_are_told_apart(tmp_path: Path) -> None:
    """A name with a newline makes a line that only continues, or one that poses as a record: neither is rejected."""
    forged = CLONE.decode()
    names = ("two\nlines", f"root\n{forged}")
    lines = [
        record("rfc", STAMP, "wok", "POST", 401, ADA, "WOKROOT0001L", {"username": name}, f"signs in: {name}")
        for name in names
    ]
    path = log(tmp_path, *lines)

    assert found(path)["parts"] == {"record": 2, "continuation": 1, "forged": 1, "rejected": 0}


def test_line_numbers_count_each_file(tmp_path: Path) -> None:
    """Numbers begin again with every file, and go on where a file goes on after a shorter copy of it."""
    older = [CLONE, LOGIN, b"bad 3"]
    short = log(tmp_path, *older, name="user-requests.data.1")
    whole = log(tmp_path, *older, LOGIN, b"bad 5", name="user-requests.data")
    other = log(tmp_path, LOGIN, b"bad 2", name="other.log")

    assert [one["line"] for one in found(short, whole)["rejected"]["listed"]] == [3, 5]
    assert sorted(one["line"] for one in found(short, other)["rejected"]["listed"]) == [2, 3]


def test_line_numbers_begin_again_in_a_file_with_the_same_first_line(tmp_path: Path) -> None:
    """Two logs may begin alike and be no copies of one another."""
    first = log(tmp_path, LOGIN, b"bad 2", name="a.log")
    second = log(tmp_path, LOGIN, LOGIN, b"bad 3", name="b.log")

    assert [one["line"] for one in found(first, second)["rejected"]["listed"]] == [2, 3]


def test_a_zone_that_says_nothing_is_told(tmp_path: Path) -> None:
    """A word that neither the zone uses nor has one meaning is named: its times may be wrong by hours."""
    lines = [CLONE.replace(b'"-03"', b'"%b"' % word) for word in (b"-03", b"BRT", b"IST", b"IST", b"BST")]
    path = log(tmp_path, *lines, CLONE.replace(b'"zone": "-03", ', b""))

    expected = [
        {"zone": "-03", "records": 1, "is_understood": True},
        {"zone": "BRT", "records": 1, "is_understood": True},
        {"zone": "IST", "records": 2, "is_understood": False},
        {"zone": "BST", "records": 1, "is_understood": False},
        {"zone": None, "records": 1, "is_understood": True},
    ]
    assert expected == found(path)["zones"]
    assert "  IST is ambiguous: these times are read in the zone of UTC (--timezone)\n" in checked(path)[1]


def test_a_word_of_the_configured_zone_says_something(tmp_path: Path) -> None:
    """IST is understood in Kolkata."""
    path = log(tmp_path, CLONE.replace(b'"-03"', b'"IST"'))

    zones = found(path, timezone="Asia/Kolkata")["zones"]
    assert zones == [{"zone": "IST", "records": 1, "is_understood": True}]


def test_a_parameter_is_no_zone(tmp_path: Path) -> None:
    """What stands in a request's parameters under the name `zone` is not taken for the record's."""
    json_line = record("json", STAMP, "kimchi", "POST", 200, ADA, "KCHVM0004L", {"zone": "evil"}, "")
    rfc_line = record("rfc", STAMP, "kimchi", "POST", 200, ADA, "KCHVM0004L", {"zone": "evil"}, "")

    assert [(z["zone"], z["records"]) for z in found(log(tmp_path, json_line, rfc_line))["zones"]] == [
        ("-03", 2)
    ]


def test_a_damaged_file_is_not_understood(tmp_path: Path) -> None:
    """A compressed file that breaks off is read as far as it goes, and the verdict says so."""
    packed = gzip.compress((CLONE + b"\n") * 4000)
    path = tmp_path / "log.gz"
    path.write_bytes(packed[: len(packed) // 2])
    code, said = checked(path)

    assert code == 1
    assert " 1 file could not be read to the end.\n" in said
    assert f"\nDAMAGED FILES\n  {path} is damaged after byte " in said


def test_an_empty_log(tmp_path: Path) -> None:
    """No line is no mistake."""
    code, said = checked(log(tmp_path))

    assert (code, said.splitlines()[0]) == (0, "No lines in 1 file.")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """A file that is not there is an error with its remedy."""
    with pytest.raises(ArchiveError, match=r"none\.log.*check the path"):
        checked(tmp_path / "none.log")


def test_names_are_counted_apart_up_to_a_bound(tmp_path: Path) -> None:
    """A log with endless applications, operations and zones is counted in bounded memory."""
    lines = [
        CLONE.replace(b'"kimchi"', b'"app%d"' % n)
        .replace(b"KCHVM0009L", b"XYZ%05dL" % n)
        .replace(b'"-03"', b'"Z%dZ"' % n)
        for n in range(check_report.NAMES_MAX + 50)
    ]
    seen = found(log(tmp_path, *lines))

    assert (len(seen["records"]["app"]), seen["records"]["app"]["other"]) == (1001, 50)
    assert (len(seen["operations"]), max(one["requests"] for one in seen["operations"])) == (1001, 50)
    assert len(seen["zones"]) == check_report.ZONES_MAX + 1
    assert len(lines) == sum(zone["records"] for zone in seen["zones"])


def test_what_runs_at_the_end_and_what_is_repeated_are_told(tmp_path: Path) -> None:
    """Tasks without an end, and further final records of ended ones, are counted beside the outcomes."""
    another = START.replace(b"web01", b"web02").replace(b'"task_id": 7', b'"task_id": 8')
    later = END.replace(b"11:49:55", b"11:50:55")
    path = log(tmp_path, START, CLONE, END, later, another)
    tasks = found(path)["tasks"]

    assert (tasks["running"], tasks["repeated_records"]) == (1, 1)
    assert "\n  1 task still running\n  1 repeated end record\n" in checked(path)[1]


def test_restart_marks_are_known(tmp_path: Path) -> None:
    """With wok-error.log what a restart has ended is lost, and does not run."""
    lines = list(story("json", start=MORNING))
    path = log(tmp_path, *(line.data for line in lines if line.log == "requests"))
    errors = log(tmp_path, *(line.data for line in lines if line.log == "errors"), name="errors")

    def counts(tasks: Any) -> tuple[int, int]:
        return tasks["running"], sum(tasks["ended"]["lost"].values())

    assert counts(found(path)["tasks"]) == (2, 0)
    assert counts(found(path, wok_error_log=str(errors))["tasks"]) == (0, 2)


def test_a_hostile_log_is_shown_harmlessly(tmp_path: Path) -> None:
    """Whatever a log or a file's name holds, no line of the report can move a cursor or begin a line."""
    nasty = "\x1b[2J\u202e\u2028\x07".encode()
    path = log(
        tmp_path,
        nasty,
        CLONE.replace(b'"-03"', b'"' + nasty + b'"').replace(b"kimchi", nasty),
        name="a\x1b[31m\nb",
    )
    out = StringIO()
    check(configured(tmp_path), [path], as_json=False, out=out, screen=StringIO())

    assert [line for line in out.getvalue().split("\n") if not line.isprintable()] == []


@settings(max_examples=60)
@given(st.lists(st.binary(max_size=60) | st.sampled_from([CLONE, START, END, LOGIN, CLONE[:80], b"\0"])))
def test_every_line_is_counted(tmp_path_factory: pytest.TempPathFactory, lines: list[bytes]) -> None:
    """Whatever the bytes: each part is one of four things, numbers fit together, and nothing is raised."""
    path = tmp_path_factory.mktemp("any") / "log"
    path.write_bytes(b"\n".join(lines))
    seen = found(path)

    data = path.read_bytes()
    assert seen["lines"] == data.count(b"\n") + (bool(data) and not data.endswith(b"\n"))
    assert sum(seen["parts"].values()) >= seen["lines"]
    assert seen["parts"]["record"] == sum(seen["records"]["kind"].values())
    assert seen["is_understood"] is (seen["parts"]["rejected"] == 0)
    for one in seen["rejected"]["listed"]:
        assert one["line"] == data[: one["offset"]].count(b"\n") + 1


@pytest.mark.parametrize("path", REAL_LOGS, ids=[path.parent.name for path in REAL_LOGS])
def test_every_line_of_real_logs_is_understood(path: Path) -> None:
    """Of what real releases of Wok wrote, nothing is rejected, and every line is something."""
    seen = found(path)

    assert (seen["parts"]["rejected"], seen["damages"]) == (0, [])
    assert seen["lines"] == path.read_bytes().count(b"\n") == sum(seen["parts"].values())


def test_the_corpus_is_there() -> None:
    """The test above has something to say (it has no cases without the corpus)."""
    if not CORPUS.is_dir():
        pytest.skip("no corpus beside this checkout")

    assert len(REAL_LOGS) >= 8


# text


def test_the_log_as_text(tmp_path: Path) -> None:
    """Requests and tasks are lines of Wok's own text form, with the reason of a failure behind its sentence."""
    failed = task_record("rfc", STAMP, "kimchi", FAILED, URI, 7, WHY)
    expected = f"""\
[2016-08-12 14:49:55 UTC] TASK   1000 kimchi                      : Kimchi task 7 started: {URI}
[2016-08-12 14:49:55 UTC] POST   202 kimchi      192.168.122.10  ada: A clone of web01
[2016-08-12 14:49:55 UTC] TASK   1002 kimchi                      : Kimchi task 7 failed: {URI} (KCHVM0035E web01 could not be cloned: full)
"""

    assert (0, expected, "") == as_text(log(tmp_path, START, CLONE, failed))


def test_sentences_come_from_the_tables_of_wok(tmp_path: Path) -> None:
    """A record that holds codes alone gets its sentence, and its error's, from the tables that are named."""
    (tmp_path / "i18n.py").write_text(
        'messages = {"KCHVM0009L": _("Clone guest \'%(ident)s\'"), "KCHVM0035E": _("no clone: %(err)s")}'
    )
    line = record("json", STAMP, "kimchi", "POST", 400, ADA, "KCHVM0009L", {"ident": "web01"}, "", WHY)
    path = log(tmp_path, line)

    sentence = "Clone guest 'web01' (KCHVM0035E: no clone: full)"
    expected = f"[2016-08-12 11:49:55 -03] POST   400 kimchi      192.168.122.10  ada: {sentence}\n"
    flags = {"messages": str(tmp_path / "i18n.py"), "timezone": "America/Sao_Paulo"}
    assert (0, expected, "") == as_text(path, **flags)


def test_rejected_lines_are_counted_beside_the_text(tmp_path: Path) -> None:
    """What is no record is not printed; the count is told at the end, and the exit code is 1."""
    code, said, beside = as_text(log(tmp_path, b"bad", CLONE, b"worse"))

    assert (code, said.count("\n")) == (1, 1)
    assert beside == "error: 1 line was not parsed: `check` lists them\n"


def test_damage_is_told_beside_the_text(tmp_path: Path) -> None:
    """A file that breaks off is printed as far as it goes."""
    packed = gzip.compress((CLONE + b"\n") * 4000)
    path = tmp_path / "log.gz"
    path.write_bytes(packed[: len(packed) // 2])
    code, said, beside = as_text(path)

    assert code == 1
    assert said.count("\n") > 100
    assert beside.startswith(f"error: {path} is damaged after byte ")


def test_privacy_holds_for_the_text(tmp_path: Path) -> None:
    """Where people are not to be told, neither names nor addresses are printed."""
    _, said, _ = as_text(log(tmp_path, CLONE, LOGIN), privacy="drop")

    assert ("ada" in said, "192.168" in said) == (False, False)


def test_a_pipe_that_closes_ends_the_work(tmp_path: Path) -> None:
    """`text FILE | head -1` prints one line, says nothing, and does not read the log to its end."""
    path = log(tmp_path, *[CLONE] * 20_000)
    command = f'"{sys.executable}" -m exporter text --timezone UTC --messages off "{path}" | head -1'
    done = subprocess.run(
        ["bash", "-c", f"{command}; echo ${{PIPESTATUS[0]}}"],
        capture_output=True,
        check=True,
        env={"PATH": os.environ["PATH"]},
        cwd=Path(__file__).parents[1],
    )

    line = b"[2016-08-12 14:49:55 UTC] POST   202 kimchi      192.168.122.10  ada: A clone of web01\n"
    assert (line + b"0\n", b"") == (done.stdout, done.stderr)


def test_hostile_text_is_one_line_a_record(tmp_path: Path) -> None:
    """A name with a newline and an escape stays on its line."""
    name = "web\n\x1b[31m\u202e"
    line = record("json", STAMP, "kimchi", "POST", 200, ADA, "KCHVM0004L", {"ident": name}, "")

    _, said, _ = as_text(log(tmp_path, line, line))
    assert [one.isprintable() for one in said.splitlines()] == [True, True]


# --- what run would say


STARTED_AGAIN = b"[12/Aug/2016:%s] ENGINE Bus STARTED\n"


def test_restarts_are_found_and_counted(tmp_path: Path) -> None:
    """Restarts in wok-error.log, rotated ones and those after the last record included, are counted, and end tasks as
    `run`, `tasks` and `replay` say it.
    """
    path = log(tmp_path, START, CLONE)
    (tmp_path / "wok-error.log.1").write_bytes(STARTED_AGAIN % b"01:00:00")
    errors = tmp_path / "wok-error.log"
    errors.write_bytes(STARTED_AGAIN % b"23:30:00")
    checked_object = found(path, timezone="America/Sao_Paulo", wok_error_log=str(errors))
    flags = ["--wok-error-log", errors, "--timezone", "America/Sao_Paulo", "--json"]
    listed = json.loads(run("tasks", path, *flags).stdout)

    assert checked_object["restarts"] == 2
    assert (checked_object["tasks"]["running"], sum(checked_object["tasks"]["ended"]["lost"].values())) == (
        0,
        1,
    )
    assert [task["state"] for task in listed] == ["lost"]
    assert (
        "\n  in wok-error.log                     2\n"
        in checked(path, timezone="America/Sao_Paulo", wok_error_log=str(errors))[1]
    )


@pytest.mark.parametrize("command", ["check", "replay", "tasks"])
def test_the_default_log_has_the_hosts_error_log(tmp_path: Path, command: str) -> None:
    """For the installed Wok's log, rotated files and links to it included, wok-error.log is read as `run` reads it;
    for another log it is not.
    """
    for name in (
        "var/lib/wok/user-requests.data",
        "var/lib/wok/user-requests.data-20260101.gz",
        "var/log/wok/wok-error.log",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    mine, rotated = sorted((tmp_path / "var/lib/wok").iterdir())
    (tmp_path / "link").symlink_to(mine)
    other = log(tmp_path, CLONE, name="copy.log")

    def errors(*files: Path) -> Path | None:
        key = "file" if command == "trace" else "files"
        flags = {key: list(files), "instance": "x"}
        return load(flags, {}, command, root=tmp_path).wok_error_log  # type: ignore[arg-type]

    expected = tmp_path / "var/log/wok/wok-error.log"
    assert [errors(mine), errors(mine, rotated), errors(tmp_path / "link")] == [expected] * 3
    assert [errors(other), errors(mine, other)] == [None] * 2


def archive(path: Path, kind: str) -> Path:
    """Write a file of a kind that is no log, with a log in it."""
    line = CLONE + b"\n"
    match kind:
        case "tar" | "tar.gz":
            with tarfile.open(path, "w:gz" if kind == "tar.gz" else "w") as tar:
                info = tarfile.TarInfo("user-requests.data")
                info.size = len(line)
                tar.addfile(info, io.BytesIO(line))
        case "zip":
            with zipfile.ZipFile(path, "w") as file:
                file.writestr("user-requests.data", line)
        case "sqlite":
            with closing(sqlite3.connect(path)) as db:
                db.execute("CREATE TABLE t (x)")
                db.commit()
        case "program":
            path.write_bytes(Path(sys.executable).read_bytes()[:100_000])
        case "noise":
            path.write_bytes(bytes(range(256)) * 40)
    return path


KINDS_OF_FILES = {
    "tar": "a tar archive",
    "tar.gz": "a compressed tar archive",
    "zip": "a zip archive",
    "sqlite": "an SQLite database",
    "program": "a program",
    "noise": "a binary file",
}


@pytest.mark.parametrize("kind", KINDS_OF_FILES)
def test_a_file_that_is_no_log_is_named(tmp_path: Path, kind: str) -> None:
    """Archives, databases, programs and noise are called what they are, and every command exits with 1."""
    path = archive(tmp_path / "log", kind)
    env = environ(OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:1", WOK_EXPORTER_INSTANCE="x")
    done = {
        words[0]: run(*words, env=env)
        for words in (
            ["check", path],
            ["tasks", path],
            ["trace", "x", "--file", path],
            ["replay", path, "--give-up-after", "0s"],
            ["text", path],
        )
    }

    assert {name: one.returncode for name, one in done.items()} == dict.fromkeys(done, 1)
    assert done["check"].stdout.startswith(f"{path} is {KINDS_OF_FILES[kind]}")
    for name in ("tasks", "trace", "replay", "text"):
        assert f"error: {path} is {KINDS_OF_FILES[kind]}" in done[name].stderr


@pytest.mark.parametrize("compress", [bz2.compress, lzma.compress, gzip.compress])
def test_a_compressed_log_is_a_log(tmp_path: Path, compress: Callable[[bytes], bytes]) -> None:
    """A log in a compression that the exporter reads is read, and not called an archive."""
    path = tmp_path / "log.packed"
    path.write_bytes(compress(CLONE + b"\n"))
    done = run("check", path, "--json")

    assert done.returncode == 0
    assert json.loads(done.stdout)["lines"] == 1


def test_a_text_that_is_no_log(tmp_path: Path) -> None:
    """A text file of another program is an error of every command, not an empty answer."""
    path = log(tmp_path, *[b"127.0.0.1 - - GET /"] * 9)
    env = environ(OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:1", WOK_EXPORTER_INSTANCE="x")
    for words in (["tasks", path], ["trace", "x", "--file", path], ["replay", path, "--give-up-after", "0s"]):
        done = run(*words, env=env)

        assert done.returncode == 1
        assert "error: nothing can be parsed: is it Wok's user request log?" in done.stderr


def test_no_warning_without_a_reason(tmp_path: Path) -> None:
    """Recent records in the configured zone, with the zone's own words or numbers, are warned of by nothing."""
    now = datetime.now(ZoneInfo("America/Sao_Paulo"))
    clone = CLONE.replace(b"2016-08-12", now.strftime("%Y-%m-%d").encode())
    path = log(tmp_path, clone, clone.replace(b'"-03"', b'"BRT"'))

    assert found(path, timezone="America/Sao_Paulo")["warnings"] == []

"""Logs that somebody edits, and rotated files under every name that logrotate can give them."""

from __future__ import annotations

import gzip
import json
import os
import re
import shutil
import subprocess
import uuid
from pathlib import Path
from time import process_time
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from exporter.parse.parser import first_time
from exporter.parse.timezone import Zones
from exporter.source.rotation import generations
from exporter.source.tail import Tail

if TYPE_CHECKING:
    from collections.abc import Callable

    from exporter.records import Line

UUIDS = [str(uuid.uuid5(uuid.NAMESPACE_OID, f"line {number}")) for number in range(2000)]


def json_2(number: int) -> bytes:
    """A record as Wok 2.3 to 2.5 write it, with its id behind."""
    info = {
        "status": 200,
        "zone": "UTC",
        "req": "POST",
        "user": "ada",
        "time": clock(number),
        "date": "2026-11-23",
    }
    message = {"code": "KCHVM0004L", "params": {"ident": f"guest{number}", "id": "x"}}
    return json.dumps({"info": info, "message": message, "id": UUIDS[number], "error": None}).encode()


def json_3(number: int) -> bytes:
    """A record as Wok 3 writes it, with its id in front."""
    info = {"req": "POST", "status": 200, "date": "2026-11-23", "time": clock(number), "zone": "UTC"}
    params = {"ident": f"guest{number}", "id": UUIDS[0]}
    return json.dumps(
        {"id": UUIDS[number], "message": {"params": params}, "error": None, "info": info}
    ).encode()


def coded(number: int) -> bytes:
    info = {
        "status": 200,
        "zone": "UTC",
        "req": "POST",
        "msgCode": "KCHVM0004L",
        "time": clock(number),
        "date": "2026-11-23",
    }
    return f"{json.dumps(info)} >>> {json.dumps({'ident': f'guest{number}'})}  >>> Start guest".encode()


def text(number: int) -> bytes:
    info = {"date": "2026-11-23", "app": "kimchi", "req": "POST", "user": "root", "time": clock(number)}
    return f"{json.dumps(info)} >>> Start guest 'guest{number}'".encode()


def clock(number: int) -> str:
    return f"{number // 3600:02}:{number // 60 % 60:02}:{number % 60:02}"


DIALECTS = [json_2, json_3, coded, text]


def tail_of(log: Path, position: str = "", olddir: Path | None = None) -> Tail:
    return Tail(log, position, olddir=olddir, first_time=first_time(Zones("UTC")))


def drain(tail: Tail) -> tuple[list[Line], str]:
    lines: list[Line] = []
    for _ in range(5000):
        chunk = tail.read(1 << 20)
        lines += chunk.lines
        if chunk.caught_up:
            return lines, chunk.position
    raise AssertionError("the tail never catches up")


def write(path: Path, lines: list[bytes]) -> None:
    data = b"".join(line + b"\n" for line in lines)
    path.write_bytes(gzip.compress(data) if path.suffix in {".gz", ".gzip", ".Z"} else data)


EDITS: dict[str, Callable[[list[bytes]], list[bytes]]] = {
    "sed /bad/d": lambda lines: [line for line in lines if b"broken" not in line],
    "sed 1d": lambda lines: lines[1:],
    "sed 1,10d": lambda lines: lines[10:],
    "sed $d": lambda lines: lines[:-1],
    "tail -n 5": lambda lines: lines[-5:],
    "head -n -5": lambda lines: lines[:-5],
    "every third": lambda lines: lines[::3],
    "a new first line": lambda lines: [b"# edited", *lines],
    "unix2dos": lambda lines: [line + b"\r" for line in lines],
    "one line changed": lambda lines: [line.replace(b"guest7", b"guest70") for line in lines],
}


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.__name__)
@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS)
@pytest.mark.parametrize("how", ["replaced", "written over"])
@pytest.mark.parametrize("stops", [False, True], ids=["running", "stopped"])
def test_edited_log(
    how: str,
    stops: bool,
    edit: Callable[[list[bytes]], list[bytes]],
    dialect: Callable[[int], bytes],
    tmp_path: Path,
) -> None:
    """A log that was edited is not read again, and what is written behind the edit is read once."""
    log = tmp_path / "user-requests.data"
    lines = [dialect(number) for number in range(20)]
    lines[5] = b"this line is broken and somebody will take it out"
    write(log, lines)
    tail = tail_of(log)
    _, position = drain(tail)
    if stops:
        tail.close()
    if how == "replaced":
        write(tmp_path / "sedXYZ", edit(lines))
        (tmp_path / "sedXYZ").replace(log)
    else:
        write(log, edit(lines))
    after = [dialect(number) for number in range(100, 103)]
    with log.open("ab") as file:
        file.write(b"".join(line + b"\n" for line in after))
    tail = tail_of(log, position) if stops else tail
    found, position = drain(tail)
    tail.close()
    again, _ = drain(tail_of(log, position))

    assert [line.data for line in found] == after
    assert again == []


@pytest.mark.parametrize("dialect", [json_2, json_3], ids=lambda dialect: dialect.__name__)
def test_every_line_edited(dialect: Callable[[int], bytes], tmp_path: Path) -> None:
    """A record is known by its uuid, whatever an edit has made of the rest of it."""
    log = tmp_path / "user-requests.data"
    write(log, [dialect(number) for number in range(20)])
    _, position = drain(tail_of(log))
    write(log, [dialect(number).replace(b"guest", b"server") for number in range(22)])

    assert [line.data for line in drain(tail_of(log, position))[0]] == [
        dialect(number).replace(b"guest", b"server") for number in (20, 21)
    ]


def test_edited_and_rotated(tmp_path: Path) -> None:
    """A log that was edited, rotated and compressed while nobody read goes on
    in its rotated file.
    """
    log = tmp_path / "user-requests.data"
    write(log, [json_3(number) for number in range(20)])
    _, position = drain(tail_of(log))
    write(Path(f"{log}.2.gz"), [json_3(number) for number in range(3, 23)])
    write(Path(f"{log}.1"), [json_3(number) for number in range(23, 25)])
    write(log, [json_3(25)])

    assert [line.data for line in drain(tail_of(log, position))[0]] == [
        json_3(number) for number in range(20, 26)
    ]


def test_lines_that_come_again_are_no_evidence(tmp_path: Path) -> None:
    """A continuation that is in every record does not show where an edited log was read to."""
    log = tmp_path / "wok-req.log"
    note = b"the same further line of a long text in each record, longer than many a record is itself"
    write(log, [coded(1), note, coded(2), note])
    _, position = drain(tail_of(log))
    write(log, [coded(2), note, coded(3), note])

    assert [line.data for line in drain(tail_of(log, position))[0]] == [coded(3), note]


def test_log_of_an_earlier_version_is_known(tmp_path: Path) -> None:
    """A position without known lines learns them from the file, so that the first edit is noticed
    too.
    """
    log = tmp_path / "user-requests.data"
    lines = [json_3(number) for number in range(20)]
    write(log, lines)
    _, position = drain(tail_of(log))
    old = json.loads(position)
    del old["known"]
    tail = tail_of(log, json.dumps(old))
    drain(tail)
    write(log, [*lines[3:], json_3(20)])

    assert [line.data for line in drain(tail)[0]] == [json_3(20)]


def test_large_edited_log(tmp_path: Path) -> None:
    """The end of a log of megabytes is searched for known lines, and found."""
    log = tmp_path / "user-requests.data"
    filler = [b"x" * 4000] * 1000
    write(log, [*filler, *(json_3(number) for number in range(20))])
    _, position = drain(tail_of(log))
    write(log, [b"y", *filler, *(json_3(number) for number in range(21))])

    assert [line.data for line in drain(tail_of(log, position))[0]] == [json_3(20)]


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.sampled_from(DIALECTS),
    st.lists(st.sets(st.integers(0, 400)), min_size=1, max_size=3),
    st.lists(st.integers(0, 40), min_size=3, max_size=3),
    st.booleans(),
)
@example(json_2, [set(range(400))], [0, 0, 0], True)
def test_any_lines_taken_out(
    tmp_path_factory: pytest.TempPathFactory,
    dialect: Callable[[int], bytes],
    deleted: list[set[int]],
    added: list[int],
    stops: bool,
) -> None:
    """Whatever lines are taken out, again and again, each record is read once, unless all known
    ones were.
    """
    log = tmp_path_factory.mktemp("edit") / "user-requests.data"
    count = 300
    current = [dialect(number) for number in range(count)]
    write(log, current)
    tail = tail_of(log)
    received, position = drain(tail)
    for lines, more in zip(deleted, added, strict=False):
        kept = [line for at, line in enumerate(current) if at not in lines]
        if not kept or not set(kept) & set(current[-200:]):
            kept.append(current[-1])
        current = kept + [dialect(number) for number in range(count, count + more)]
        count += more
        write(log.with_name("new"), current)
        log.with_name("new").replace(log)
        if stops:
            tail = tail_of(log, position)
        found, position = drain(tail)
        received += found

    assert [line.data for line in received] == [dialect(number) for number in range(count)]


NAMES = [
    "user-requests.data-20261123.gz", "user-requests.data-202611", "user-requests.data-23112026", "user-requests.data-11232026.gz",
    "user-requests.data.2026-11-23", "user-requests.data-20261123-1795392000", "user-requests.data-1795392000.gz",
    "user-requests.data20261123", "user-requests.data_2026_11_23", "user-requests.data-2026-W48", "user-requests.data-20261123.gzip",
    "user-requests.data-20261123.Z", "user-requests.data.1.gzip", "user-requests-20261123.data", "user-requests-20261123.data.gz",
    "user-requests.1.data", "user-requests.1.data.gz", "user-requests-202611.data", "user-requests.data-23.11.2026",
    "user-requests.data.old", "user-requests.data.saved by ada", "user-requests.before-upgrade",
]  # fmt: skip


@pytest.mark.parametrize("folder", ["", "old"])
@pytest.mark.parametrize("name", NAMES)
def test_rotated_while_stopped(name: str, folder: str, tmp_path: Path) -> None:
    """Lines that were not read before a rotation are found in the rotated file,
    whatever its name.
    """
    log = tmp_path / "user-requests.data"
    olddir = Path(folder) if folder else None
    (tmp_path / folder).mkdir(exist_ok=True)
    write(log, [json_3(number) for number in range(3)])
    _, position = drain(tail_of(log, olddir=olddir))
    log.unlink()
    write(tmp_path / folder / name, [json_3(number) for number in range(6)])
    write(log, [json_3(number) for number in range(6, 8)])

    assert [line.data for line in drain(tail_of(log, position, olddir))[0]] == [
        json_3(number) for number in range(3, 8)
    ]


@pytest.mark.parametrize(
    "names",
    [
        ["-23112026", "-24112026", "-01122026"],  # the day first
        ["-202611", "-202612.gz", "-202701"],
        ["-1795392000", "-1795478400.gz", "-1795564800"],
        [".2026-W48", ".2026-W49", ".2027-W01"],
        ["-Nov2026", "-Dec2026", "-Jan2027"],
        ["20261123", "20261124.gz", "20261125"],
        [".3.gz", ".2.gz", ".1"],
        ["-20261123.gzip", ".2", ".1"],
    ],
)
def test_first_start_with_any_date_format(names: list[str], tmp_path: Path) -> None:
    """A first start reads rotated files of any date format in the order of their records, whatever
    their times.
    """
    log = tmp_path / "user-requests.data"
    for number, name in enumerate(names):
        write(Path(f"{log}{name}"), [json_3(number)])
        os.utime(f"{log}{name}", (1000 - number, 1000 - number))
    write(log, [json_3(3)])

    assert [line.data for line in drain(tail_of(log))[0]] == [json_3(number) for number in range(4)]


def test_first_start_leaves_other_files_alone(tmp_path: Path) -> None:
    """What has the log's name and a digit, but no records or a name that people give, is no part of
    its past.
    """
    log = tmp_path / "user-requests.data"
    write(log, [json_3(9)])
    write(Path(f"{log}.bak1"), [json_3(1)])
    write(Path(f"{log}.20261123.tmp"), [json_3(2)])
    write(Path(f"{log}-2"), [b"no record"])
    Path(f"{log}-2026.tar").write_bytes(bytes(1000))
    write(tmp_path / "user-requests2.data", [json_3(3)])
    write(tmp_path / "other.data.1", [json_3(4)])

    assert [line.data for line in drain(tail_of(log))[0]] == [json_3(9)]


def test_order_of_many_files(tmp_path: Path) -> None:
    """A listing of names of one kind opens no file."""
    log = tmp_path / "log"
    for number in range(30, 0, -1):
        Path(f"{log}.{number}").write_bytes(b"x\n")

    def fail(_: object) -> int:
        raise AssertionError("opened")

    assert [one.path.name for one in generations(log, time_of=fail)][:2] == ["log.30", "log.29"]


def test_many_rotated_files(tmp_path: Path) -> None:
    """A first start reads 2,000 rotated files in seconds: four times as many take about four times
    as long.
    """
    spent = []
    for count in (250, 1000):
        log = tmp_path / str(count) / "user-requests.data"
        log.parent.mkdir()
        for number in range(count):
            write(
                Path(
                    f"{log}-{2026010100 + number // 24 * 100 + number % 24}"
                    if number < 600
                    else f"{log}.{count - number}"
                ),
                [json_3(number)],
            )
        for number, path in enumerate(sorted(log.parent.iterdir())):
            os.utime(path, (number, number))
        write(log, [json_3(1999)])
        tail = tail_of(log)
        begin = process_time()
        lines = sum(len(drain(tail)[0]) for _ in range(3))
        spent.append(process_time() - begin)
        assert lines == count + 1

    assert spent[1] < 7 * spent[0]
    assert spent[1] < 8


LOGROTATE = {
    "dateformat": "dateext\n dateformat -%d%m%Y-%s",
    "month": "dateext\n dateformat .%Y%m_%s",
    "extension": "dateext\n dateformat -%Y%m%d-%s\n extension .data",
    "addextension": "addextension .data",
    "compressext": "compress\n compressext .gzip",
    "olddir": "olddir archive",
    "olddir and compressext": "olddir archive\n compress\n compressext .packed",
}


@pytest.mark.parametrize("stops", [False, True], ids=["running", "stopped"])
@pytest.mark.parametrize("options", LOGROTATE.values(), ids=LOGROTATE)
def test_options_of_the_real_logrotate(options: str, stops: bool, tmp_path: Path) -> None:
    """The real logrotate with each of its options for names loses and repeats nothing."""
    program = shutil.which("logrotate") or shutil.which("logrotate", path="/usr/sbin:/sbin")
    if program is None:
        pytest.skip("logrotate is not installed")
    log = tmp_path / "user-requests.data"
    (tmp_path / "archive").mkdir()
    config = tmp_path / "logrotate.conf"
    config.write_text(f"{log} {{\n rotate 9\n create 0644\n {options}\n}}\n")
    config.chmod(0o600)
    olddir = Path("archive") if "olddir" in options else None
    tail = tail_of(log, olddir=olddir)
    position = ""
    received: list[bytes] = []
    for turn in range(3):
        with log.open("ab") as file:
            file.write(b"".join(json_3(turn * 50 + number) + b"\n" for number in range(50)))
        chunk = tail.read(2000)
        received += [line.data for line in chunk.lines]
        position = chunk.position
        if stops:
            tail.close()
        subprocess.run(
            [program, "-f", "-s", str(tmp_path / "state"), str(config)], check=True, capture_output=True
        )
        # Dates have whole seconds at best, and must not repeat.
        for path in [*tmp_path.glob("user*"), *(tmp_path / "archive").glob("*")]:
            path.rename(path.with_name(re.sub(r"([-_])(1\d{9})(?!\d)", rf"\g<1>{turn + 1}\g<2>", path.name)))
        if stops:
            tail = tail_of(log, position, olddir)
    with log.open("ab") as file:
        file.write(json_3(999) + b"\n")
    received += [line.data for line in drain(tail)[0]]

    assert received == [*(json_3(number) for number in range(150)), json_3(999)]

"""Finished files: their order, their content once, their positions, and what is
said of bad ones.
"""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
import json
import lzma
import os
import shutil
import subprocess
import tempfile
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from exporter.parse.parser import first_time
from exporter.parse.timezone import Zones
from exporter.records import Line
from exporter.source.archive import Archive, ArchiveError
from exporter.source.files import UnsupportedError, open_log
from exporter.source.rotation import own_name

if TYPE_CHECKING:
    from collections.abc import Iterable

    from exporter.records import Chunk


def record(hour: int, word: str = "") -> bytes:
    """Return a line of the log with a time."""
    return b'{"info": {"time": "%02d:00:00", "date": "2026-11-23", "req": "POST", "user": "%s"}}' % (
        hour,
        word.encode(),
    )


def chunks_of(archive: Archive, limit: int = 1 << 20) -> list[Chunk]:
    """Read an archive to its end and close it."""
    chunks = [archive.read(limit)]
    while not chunks[-1].caught_up:
        chunks.append(archive.read(limit))
    archive.close()
    return chunks


def lines_of(chunks: Iterable[Chunk]) -> list[Line]:
    return [line for chunk in chunks for line in chunk.lines]


def read_all(paths: list[Path], position: str = "", limit: int = 1 << 20) -> list[bytes]:
    archive = Archive(paths, position, first_time=first_time(Zones("UTC")))
    return [line.data for line in lines_of(chunks_of(archive, limit))]


def test_order_is_that_of_time(tmp_path: Path) -> None:
    """The first time in a file decides, over the name and the order of the arguments."""
    early, middle, late = (tmp_path / name for name in ("log", "log.1.gz", "log.2"))
    early.write_bytes(b"a torn beginning\n" + record(1) + b"\n")
    middle.write_bytes(gzip.compress(record(2) + b"\n"))
    late.write_bytes(record(3) + b"\n")

    assert read_all([late, early, middle]) == [b"a torn beginning", record(1), record(2), record(3)]


def test_order_without_time_is_that_of_rotation(tmp_path: Path) -> None:
    """Without a time the name decides, and equal names stay as they were given."""
    names = ["log", "log.2", "log.10.gz", "log-20161101", "log-20161031.gz", "other"]
    for name in names:
        text = name.encode() + b"\n"
        (tmp_path / name).write_bytes(gzip.compress(text) if name.endswith(".gz") else text)

    expected = [b"log.10.gz", b"log.2", b"log-20161031.gz", b"log-20161101", b"log", b"other"]
    assert read_all([tmp_path / name for name in names]) == expected


def test_same_content_is_read_once(tmp_path: Path) -> None:
    """A file, its gzip copy and an earlier copy of it give each line once, in any order of
    arguments.
    """
    text = b"".join(record(hour) + b"\n" for hour in range(5))
    whole, packed, earlier = (tmp_path / name for name in ("log", "log.gz", "log.1"))
    whole.write_bytes(text)
    packed.write_bytes(gzip.compress(text))
    earlier.write_bytes(text[: len(text) // 2])
    expected = [record(hour) for hour in range(5)]

    assert read_all([whole, packed]) == expected
    assert read_all([packed, whole, whole]) == expected
    assert read_all([whole, earlier, packed]) == expected


def test_earlier_copy_under_a_later_name(tmp_path: Path) -> None:
    """A copy that ends earlier is known to be one even when it comes second."""
    first, second = tmp_path / "log.1", tmp_path / "log"
    first.write_bytes(b"one\ntwo\nthree\n")
    second.write_bytes(b"one\ntwo\n")

    assert read_all([second, first]) == [b"one", b"two", b"three"]


def test_same_first_line_is_not_the_same_file(tmp_path: Path) -> None:
    """Two files that begin alike and go on differently are both read, also over a restart."""
    first, second = tmp_path / "log.1", tmp_path / "log"
    first.write_bytes(b"same\none\nlong enough to be longer\n")
    second.write_bytes(b"same\ntwo\n")
    chunks = chunks_of(Archive([second, first]))

    expected = [b"same", b"one", b"long enough to be longer", b"same", b"two"]
    assert [line.data for line in lines_of(chunks)] == expected
    assert read_all([second, first], chunks[-1].position) == []


def test_lines_and_progress(tmp_path: Path) -> None:
    """Lines name their file; the unfinished last line is returned; progress
    ends at the whole size.
    """
    plain, packed = tmp_path / "log.1", tmp_path / "log"
    plain.write_bytes(b"one\ntwo")
    packed.write_bytes(gzip.compress(b"three\n" * 1000))
    archive = Archive([packed, plain])
    first = archive.read(100)
    second = archive.read(100)
    done = archive.done_bytes
    chunks_of(archive)

    file = hashlib.sha256(b"one").digest()[:16]
    assert first.lines == [Line(file, 0, b"one", 3)]
    assert second.lines == [Line(file, 4, b"two", 3, ended=False)]
    assert done == 7
    assert archive.done_bytes == archive.total_bytes == 7 + packed.stat().st_size
    assert archive.file_names == {file: plain, hashlib.sha256(b"three").digest()[:16]: packed}


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    files=st.lists(st.lists(st.integers(0, 60), max_size=8), min_size=1, max_size=4),
    packed=st.lists(st.booleans(), min_size=4, max_size=4),
    ended=st.booleans(),
    limit=st.integers(1, 200),
    later=st.integers(0, 3),
)
def test_restarts_and_more_files(
    tmp_path: Path, files: list[list[int]], packed: list[bool], ended: bool, limit: int, later: int
) -> None:
    """A restart after every chunk, and files that join later, give every line once."""
    paths = []
    expected = []
    for number, sizes in enumerate(files):
        lines = [b"%d %d " % (number, at) + b"x" * size for at, size in enumerate(sizes)]
        expected += lines
        text = b"\n".join(lines) + (b"\n" if ended and lines else b"")
        path = tmp_path / f"log.{number + 1}"
        path.write_bytes(gzip.compress(text) if packed[number] else text)
        paths.append(path)
    received: list[bytes] = []
    position = ""
    for known in (paths[later:], paths):
        while True:
            archive = Archive(known, position, line_bytes_max=50)
            chunk = archive.read(limit)
            archive.close()
            received += [line.data for line in chunk.lines]
            position = chunk.position
            if chunk.caught_up:
                break

    assert sorted(received) == sorted(line[:50] for line in expected)


def test_over_long_unfinished_line(tmp_path: Path) -> None:
    """An over-long line that never ends is one line, with its true length."""
    path = tmp_path / "log"
    path.write_bytes(b"one\n" + b"x" * 200_000)
    lines = lines_of(chunks_of(Archive([path], line_bytes_max=1000), 10_000))

    assert [(line.offset, len(line.data), line.length, line.ended) for line in lines] == [
        (0, 3, 3, True),
        (4, 1000, 200_000, False),
    ]


def test_damaged_file(tmp_path: Path) -> None:
    """A cut gzip file is read as far as it goes, reported, and followed by the next."""
    cut, whole = tmp_path / "log.2.gz", tmp_path / "log.1"
    packed = gzip.compress(os.urandom(50_000).hex().encode().replace(b"0", b"\n"))
    cut.write_bytes(packed[:-1000])
    whole.write_bytes(b"last\n")
    chunks = chunks_of(Archive([cut, whole]))
    events = [event for chunk in chunks for event in chunk.events]

    assert len(lines_of(chunks)) > 1000
    assert lines_of(chunks)[-1].data == b"last"
    assert [(event.kind, str(cut) in event.detail) for event in events] == [("unreadable", True)]


def test_bad_paths(tmp_path: Path) -> None:
    """An unreadable file is rejected at once, with its path and the remedy."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    for path, words in ((tmp_path / "no", "check the path"), (tmp_path, "a directory"), (fifo, "no regular")):
        with pytest.raises(ArchiveError) as caught:
            Archive([path])

        assert str(path) in str(caught.value)
        assert words.replace("no regular", "not a regular file") in str(caught.value)


def test_file_that_goes_meanwhile(tmp_path: Path) -> None:
    """If a file disappears after the start, the error has its path."""
    path = tmp_path / "log"
    path.write_bytes(b"one\n")
    archive = Archive([path])
    path.unlink()
    with pytest.raises(ArchiveError, match=r"log: No such file"):
        archive.read(100)

    archive.close()


@pytest.mark.parametrize("position", ["{}", "[]", "x", '{"version":1,"files":[[]]}'])
def test_bad_position(position: str) -> None:
    """An invalid position is rejected."""
    with pytest.raises(ValueError, match=r"position|mark|Expecting"):
        Archive([], position)


def test_nothing_to_read(tmp_path: Path) -> None:
    """No files, and empty files, are read at once."""
    empty = tmp_path / "empty"
    empty.touch()

    assert read_all([]) == []
    assert read_all([empty]) == []


def test_zstd(tmp_path: Path) -> None:
    """A .zst file is read if a library is installed, and otherwise rejected
    with the package name.
    """
    program = shutil.which("zstd")
    if program is None:
        pytest.skip("the zstd program is not installed")
    path = tmp_path / "log"
    path.write_bytes(b"one\ntwo\n")
    subprocess.run([program, "-q", "--rm", str(path)], check=True)
    packed = [Path(f"{path}.zst")]
    if any(importlib.util.find_spec(name) for name in ("compression", "zstandard")):
        assert read_all(packed) == [b"one", b"two"]
    else:
        with pytest.raises(ArchiveError, match="install the Python package `zstandard`"):
            read_all(packed)


@pytest.mark.parametrize(
    ("beginning", "name"),
    [(b"PK\x03\x04", "zip"), (b"\x1f\x9d\x90", "compress"), (b"\x04\x22\x4d\x18", "lz4")],
)
def test_a_compression_that_nothing_can_undo(beginning: bytes, name: str, tmp_path: Path) -> None:
    """A rotated file in such a format is named with it, and not read as a log of garbage."""
    path = tmp_path / "user-requests.data-20261123.packed"
    path.write_bytes(beginning + bytes(100))

    with pytest.raises(UnsupportedError, match=rf"it is in the format of {name}; unpack it"):
        open_log(path)


def test_the_old_format_of_xz(tmp_path: Path) -> None:
    """A `.lzma` file, as `compresscmd lzma` makes it, is read like an `.xz` file."""
    path = tmp_path / "log.1.lzma"
    path.write_bytes(lzma.compress(b"one\ntwo\n", format=lzma.FORMAT_ALONE))

    assert read_all([path]) == [b"one", b"two"]


def test_order_by_what_the_records_say(tmp_path: Path) -> None:
    """A long first line, a torn one, and parameters called date and time do not hide when a file
    was begun.
    """
    names = ("c", "b.2", "a.1")
    first = b'{"info": {"req": "POST", "date": "2026-11-23", "time": "01:00:00", "note": "%s"}}' % (
        b"x" * 300_000
    )
    second = b'{"message": {"params": {"date": "2001-01-01", "time": "00:00:00"}}, ' + record(2)[1:]
    third = b"torn\n" * 30_000 + record(3)
    paths = [tmp_path / name for name in names]
    for path, text in zip(paths, (first, second, third), strict=True):
        path.write_bytes(text + b"\n")

    assert [line for line in read_all(paths[::-1]) if line != b"torn"] == [first, second, record(3)]


def test_order_over_the_repeated_hour(tmp_path: Path) -> None:
    """The abbreviation of the zone tells which of two equal hours was first."""
    written = []
    for name, clock, zone in (("b", "02:40:00", "CEST"), ("a", "02:10:00", "CET")):
        line = json.dumps(
            {"info": {"req": "POST", "date": "2026-10-25", "time": clock, "zone": zone}}
        ).encode()
        (tmp_path / name).write_bytes(line + b"\n")
        written.append(line)
    archive = Archive([tmp_path / "a", tmp_path / "b"], first_time=first_time(Zones("Europe/Berlin")))

    assert [line.data for line in lines_of(chunks_of(archive))] == written


def test_a_clock_that_was_wrong_for_a_moment(tmp_path: Path) -> None:
    """Two first records of another year do not tell where a file belongs."""
    wrong = record(1).replace(b"2026", b"2036")
    (tmp_path / "b").write_bytes(b"\n".join([record(1, "x"), record(2, "x")]) + b"\n")
    (tmp_path / "a").write_bytes(
        b"\n".join([wrong, wrong + b" ", *(record(3, str(n)) for n in range(5))]) + b"\n"
    )
    (tmp_path / "c").write_bytes(record(4) + b"\n")

    ordered = read_all([tmp_path / name for name in "cba"])

    assert (ordered[0], ordered[2], ordered[-1]) == (record(1, "x"), wrong, record(4))


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    count=st.integers(2, 12),
    cuts=st.lists(st.integers(1, 11), max_size=2),
    copies=st.lists(st.tuples(st.integers(0, 2), st.integers(1, 1200), st.booleans()), max_size=3),
    same_first=st.booleans(),
    limit=st.integers(1, 400),
    later=st.integers(0, 3),
)
def test_copies_join_and_restarts(
    tmp_path: Path,
    count: int,
    cuts: list[int],
    copies: list[tuple[int, int, bool]],
    same_first: bool,
    limit: int,
    later: int,
) -> None:
    """With earlier copies of its files, read before, after or between, each line of a log is read
    once, and it ends.
    """
    folder = Path(tempfile.mkdtemp(dir=tmp_path))
    lines = [record(number % 24, f"user {number}") for number in range(count)]
    bounds = sorted({0, count, *(cut for cut in cuts if cut < count)})
    segments = [lines[low:high] for low, high in pairwise(bounds)]
    paths = []
    for number, segment in enumerate(segments):
        path = folder / f"log.{number}"
        path.write_bytes(b"".join(line + b"\n" for line in segment))
        paths.append(path)
    for number, (which, size, is_packed) in enumerate(copies):
        segment = segments[which % len(segments)]
        text = b"".join(line + b"\n" for line in segment)[:size]
        path = folder / f"copy.{number}"
        path.write_bytes(gzip.compress(text) if is_packed else text)
        paths.insert(0 if same_first else len(paths), path)
    received: list[bytes] = []
    position = ""
    originals = [path for path in paths if path.name.startswith("log.")]
    # A copy that was cut in the middle of its only line cannot be known for one while its original
    # is not there.
    for known in (originals + [path for path in paths[later:] if path not in originals], paths):
        for _ in range(200):
            archive = Archive(known, position, first_time=first_time(Zones("UTC")))
            chunk = archive.read(limit)
            archive.close()
            received += [line.data for line in chunk.lines]
            position = chunk.position
            if chunk.caught_up:
                break
        else:
            raise AssertionError("the archive never ends")

    assert sorted(received) == sorted(lines)


@pytest.mark.parametrize(
    ("name", "own"),
    [
        ("wok.log", "wok.log"), ("wok.log.2.gz", "wok.log"), ("wok.log-20161123.gz", "wok.log"), ("wok.log-202611", "wok.log"),
        ("wok.log-1795392000.xz", "wok.log"), ("wok-20161123.log", "wok.log"), ("wok-20161123.log.gz", "wok.log"),
        ("user-requests.data-2026112304.backup", "user-requests.data"), ("log.1", "log"), ("2026", "2026"), ("wok-2.1.log", "wok-2.1.log"),
    ],
)  # fmt: skip
def test_own_name(name: str, own: str) -> None:
    """The name of a rotated file without what rotation added is the log's own."""
    assert own_name(name) == own

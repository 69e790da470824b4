"""Attacks the real daemon and writes down what it needed, beside what is documented: `make bounds`.

Each attack has a daemon, a log and a state of its own. Where control groups can be made, the kernel
holds the daemon to `--memory`, and kills it above that: the attack fails then. The peak of the
resident memory, as Linux keeps it, is compared with the limit of the unit, too. The table replaces the one in
`docs/reliability.md`, between its two marks.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import platform
import re
import socket
import sqlite3
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import IO, NamedTuple

from exporter.store.database import WAL_BYTES_KEPT
from tests.memory_limit import limit_file, limited
from tests.program import Running, environ, running

PAGE = Path(__file__).parents[1] / "docs" / "reliability.md"
BEGIN, END = "<!-- bounds: `make bounds` writes this -->", "<!-- end of bounds -->"
MIB = 1024 * 1024
MEMORY_MIB = 512
"""MemoryMax of deploy/systemd/wok-exporter.service; the container has half."""
THREADS = 128
"""TasksMax of the same."""
DESCRIPTORS = 1100
"""Of the server's clients at one time, and some for files."""
SERIES = 1000
"""Of one family (docs/limitations.md)."""
READS_SECONDS_MAX = 900.0


class Bound(NamedTuple):
    """What an attack needed, and what it may need; `note` says what else came out."""

    attack: str
    memory: float
    series: int
    disk: float
    disk_max: float
    threads: int
    descriptors: int
    seconds: float
    note: str

    @property
    def is_kept(self) -> bool:
        """Whether nothing is over its bound."""
        return (
            self.memory <= MEMORY_MIB
            and self.series <= SERIES
            and self.disk <= self.disk_max
            and self.threads <= THREADS
            and self.descriptors <= DESCRIPTORS
        )


class Watch(threading.Thread):
    """Looks at a process twice a second, for the most it ever has."""

    def __init__(self, program: Running, state: Path) -> None:
        super().__init__(daemon=True)
        self.threads = self.descriptors = self.disk = 0
        self._pid = program.process.pid
        self._state = state
        self._ended = threading.Event()

    def run(self) -> None:
        while not self._ended.wait(0.5):
            with suppress(OSError):
                self.threads = max(self.threads, _count(f"/proc/{self._pid}/task"))
                self.descriptors = max(self.descriptors, _count(f"/proc/{self._pid}/fd"))
                sizes = [path.stat().st_size for path in self._state.iterdir()]
                self.disk = max(self.disk, sum(sizes))

    def end(self) -> float:
        """Stop looking; return the most resident memory in MiB, which Linux keeps."""
        self._ended.set()
        self.join()
        found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{self._pid}/status").read_text())
        assert found, "the daemon has ended"
        return int(found[1]) / 1024


def _count(folder: str) -> int:
    return sum(1 for _ in Path(folder).iterdir())


def record(seconds: float, *, user: str, app: str, code: str, ident: str, status: int) -> bytes:
    """Return the line of a request, so many seconds ago."""
    at = time.gmtime(time.time() - seconds)
    info = {
        "app": f"/plugins/{app}",
        "req": "POST",
        "status": status,
        "user": user,
        "ip": "192.0.2.7",
        "date": time.strftime("%Y-%m-%d", at),
        "time": time.strftime("%H:%M:%S", at),
        "zone": "UTC",
    }
    message = {"code": code, "params": {"ident": ident, "remote_host": "h"}}
    error = {"code": f"{code[:-1]}E", "params": {}} if status >= 400 else None
    whole = {"id": os.urandom(16).hex(), "message": message, "error": error, "info": info}
    return json.dumps(whole).encode() + b"\n"


def open_tasks(log: IO[bytes], count: int) -> None:
    """Write requests whose tasks never end."""
    for n in range(count):
        log.write(
            record(3000 - n / 50, user="ada", app="kimchi", code="KCHVM0010L", ident=f"g{n}", status=202)
        )


def made_up(log: IO[bytes], count: int) -> None:
    """Write requests with a new user, application, operation and code each."""
    for n in range(count):
        code = f"XYZ{n:07d}L"
        log.write(record(40_000 - n / 50, user=f"u{n}", app=f"a{n}", code=code, ident=f"g{n}", status=400))


def long_line(log: IO[bytes], size: int) -> None:
    """Write a line without its newline."""
    log.write(b'{"info": "')
    for _ in range(size // MIB):
        log.write(b"x" * MIB)
    log.flush()


def scrape(program: Running) -> str:
    """Return the metrics."""
    return program.get("/metrics")[1]


def series(page: str) -> int:
    """Return how many series the largest family has; a histogram's buckets are one series."""
    counts: dict[str, set[str]] = {}
    for name, labels in re.findall(r"^(\w+)(?:{(.*)})? ", page, re.MULTILINE):
        family = re.sub(r"_(bucket|sum|count)$", "", name)
        counts.setdefault(family, set()).add(re.sub(r',?le="[^"]*"', "", labels))
    return max(map(len, counts.values()))


def wait_for(program: Running, is_true: Callable[[str], bool]) -> None:
    """Wait until a scrape says something; raises TimeoutError."""
    end = time.monotonic() + READS_SECONDS_MAX
    while not is_true(scrape(program)):
        if time.monotonic() > end:
            raise TimeoutError(f"it has not happened\n{program.said}")
        time.sleep(0.5)


def has_read(count: int) -> Callable[[str], bool]:
    """Return whether so many records were read."""

    def is_true(page: str) -> bool:
        found = re.search(r'^wok_exporter_lines_total{result="record"} (\S+)', page, re.MULTILINE)
        return found is not None and float(found[1]) >= count

    return is_true


class Attack(NamedTuple):
    """What is written before the start, what is done then, and how large the state may become (MiB)."""

    name: str
    write: Callable[[IO[bytes]], None]
    do: Callable[[Running, Path], str]
    disk_max: float
    flags: tuple[str, ...] = ()


def attacks(scale: float, memory: int) -> Iterator[Attack]:
    """Yield all attacks, at a scale of 1 as documented."""
    tasks, names, line = int(100_000 * scale), int(1_000_000 * scale), int(1024 * MIB * scale)
    # The queue and both histories, and a fifth for open tasks, indexes and SQLite's own log.
    kept, few_kept = 1.2 * (512 + 256), 1.2 * (64 + 256)
    log_of_sqlite = WAL_BYTES_KEPT / MIB
    yield Attack(f"{tasks:,} open tasks", lambda log: open_tasks(log, tasks), _read_tasks(tasks), kept)
    yield Attack(
        f"a start on {tasks:,} open tasks",
        lambda log: open_tasks(log, tasks),
        _started_on(tasks, memory),
        kept,
    )
    yield Attack(
        f"{names:,} made-up users, applications and codes",
        lambda log: made_up(log, names),
        _read(names),
        kept,
    )
    yield Attack(
        f"a line of {line // MIB:,} MiB without its end",
        lambda log: long_line(log, line),
        _passed,
        log_of_sqlite,
    )
    full = ("--journal-bytes-max", "64MiB")
    yield Attack(
        "a journal that is full for a week",
        lambda log: open_tasks(log, 0),
        _full(max(7, int(7 * 24 * scale))),
        few_kept,
        full,
    )
    few: Callable[[IO[bytes]], None] = lambda log: open_tasks(log, 100)  # noqa: E731
    yield Attack("1,000 scrapes at once", few, _scrapes, log_of_sqlite)
    yield Attack("1,000 silent clients", few, _silent, log_of_sqlite)


def _read(count: int) -> Callable[[Running, Path], str]:
    def do(program: Running, _: Path) -> str:
        began = time.monotonic()
        wait_for(program, has_read(count))
        return f"{count / (time.monotonic() - began):,.0f} lines a second"

    return do


def _read_tasks(count: int) -> Callable[[Running, Path], str]:
    def do(program: Running, log: Path) -> str:
        _read(count)(program, log)
        began = time.monotonic()
        found = re.findall(r"^wok_tasks_in_progress{.*} (\S+)", scrape(program), re.MULTILINE)
        return f"a scrape of {sum(map(float, found)):,.0f} tasks takes {time.monotonic() - began:.2f} s"

    return do


def _started_on(count: int, memory: int) -> Callable[[Running, Path], str]:
    def do(program: Running, log: Path) -> str:
        state = log.with_name("state")
        arguments = _arguments(log, state)
        wait_for(program, has_read(count))
        program.stop()
        began = time.monotonic()
        said = log.with_name("said-2")
        with under_limit(memory, said, *arguments) as second:
            watch = Watch(second, state)
            watch.start()
            wait_for(second, has_read(count))
            took = time.monotonic() - began
            most = watch.end()
        return f"{took:.1f} s until it is ready;{most:.0f}"

    return do


def _passed(program: Running, log: Path) -> str:
    began = time.monotonic()
    time.sleep(5)
    with log.open("ab") as more:
        more.write(b"\n" + record(1, user="ada", app="kimchi", code="KCHVM0004L", ident="x", status=200))
    wait_for(program, has_read(1))
    rejected = re.search(r'rejected_lines_total{reason="too_long"} (\d+)', scrape(program))
    took = time.monotonic() - began
    return f"rejected {rejected[1] if rejected else 0}, and the next line is read after {took:.0f} s"


def _full(hours: int) -> Callable[[Running, Path], str]:
    def do(program: Running, log: Path) -> str:
        """Write a week of requests, an hour at a time, to a backend that is down."""
        total = 0
        with log.open("ab") as more:
            for hour in range(hours):
                for n in range(500):
                    ago = (hours - hour) * 3600 - n
                    more.write(
                        record(ago, user="ada", app="kimchi", code="KCHVM0004L", ident="z" * 400, status=200)
                    )
                more.flush()
                total += 500
        wait_for(program, has_read(total))
        page = scrape(program)
        lost = re.search(r'lost_records_total{reason="journal_full"} (\d+)', page)
        queued = sum(map(float, re.findall(r"^wok_exporter_journal_records{.*} (\S+)", page, re.MULTILINE)))
        return f"{total:,} lines; {queued:,.0f} items queued, {lost[1] if lost else 0} dropped and counted"

    return do


def _scrapes(program: Running, __: Path) -> str:
    port, answers = program.port, []
    wait_for(program, has_read(100))

    def one() -> None:
        began = time.monotonic()
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
            connection.request("GET", "/metrics")
            status = connection.getresponse().status
            connection.close()
        except OSError:
            status = 0
        answers.append((status, time.monotonic() - began))

    asked = [threading.Thread(target=one, daemon=True) for _ in range(1000)]
    for each in asked:
        each.start()
    for each in asked:
        each.join()
    good = sum(status == 200 for status, _ in answers)
    busy = sum(status == 503 for status, _ in answers)
    return f"{good} answered, {busy} told to come back, {1000 - good - busy} without an answer"


def _silent(program: Running, __: Path) -> str:
    port = program.port
    wait_for(program, has_read(100))
    slowest = 0.0
    with ExitStack() as stack:
        for _ in range(1000):
            stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=10))
        for _ in range(10):
            began = time.monotonic()
            scrape(program)
            slowest = max(slowest, time.monotonic() - began)
            time.sleep(0.1)
    return f"the slowest of 10 scrapes takes {slowest:.2f} s"


def _arguments(log: Path, state: Path) -> list[object]:
    # The memory of what a failure may belong to is kept only if wok-error.log is read.
    log.with_name("wok-error.log").touch()
    flags: list[object] = [
        "--listen",
        "127.0.0.1:0",
        "--start-at",
        "beginning",
        "--wok-error-log",
        log.with_name("wok-error.log"),
        "--messages",
        "off",
    ]
    return ["--log", log, "--state", state, *flags, "--instance", "bounds", "--timezone", "UTC"]


def _environ() -> dict[str, str]:
    # Nobody listens there: everything is queued.
    return environ(OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:9")


@contextmanager
def under_limit(memory: int, said: Path, *flags: object) -> Iterator[Running]:
    """Run the daemon with so many MiB, where the kernel can enforce that."""
    with ExitStack() as stack:
        program = stack.enter_context(running("run", *flags, said=said, env=_environ()))
        if limit_file() is None:
            yield program
            return
        with limited(program.process.pid, memory):
            try:
                yield program
            finally:
                program.process.terminate()
                program.process.wait()


def run(attack: Attack, limit: int) -> Bound:
    """Run one attack."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        log, state = folder / "user-requests.data", folder / "state"
        with log.open("wb") as stream:
            attack.write(stream)
        began = time.monotonic()
        flags = [*_arguments(log, state), *attack.flags]
        with under_limit(limit, folder / "said", *flags) as program:
            watch = Watch(program, state)
            watch.start()
            note = attack.do(program, log)
            second = re.search(r";(\d+)$", note)
            most = 0
            if second is None:
                most = series(scrape(program))
                memory = watch.end()
            else:
                memory, note = float(second[1]), note[: second.start()]
            took = time.monotonic() - began
        with closing(sqlite3.connect(state / "state.db")) as db:
            assert db.execute("PRAGMA quick_check").fetchone() == ("ok",)
        return Bound(
            attack.name,
            memory,
            most,
            watch.disk / MIB,
            attack.disk_max,
            watch.threads,
            watch.descriptors,
            took,
            note,
        )


def machine() -> str:
    """Return what this ran on."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{os.cpu_count()} processors ({platform.machine()}), {memory:.0f} GiB, Python {platform.python_version()}"


def table(bounds: list[Bound]) -> str:
    """Return the section of the page."""
    rows = [
        f"| {b.attack} | {b.memory:.0f} | {b.series or ''} | {b.disk:.0f} of {b.disk_max:.0f} | {b.threads} | {b.descriptors} |"
        f" {b.note} |"
        for b in bounds
    ]
    head = [
        BEGIN,
        "",
        f"Measured on {machine()}, with a backend that is down.",
        f"Bounds: {MEMORY_MIB} MiB of memory (`MemoryMax`), {SERIES:,} series of a metric, {THREADS} threads",
        f"(`TasksMax`), {DESCRIPTORS:,} descriptors. A state may have 1.2 times the queue and the histories, and",
        "64 MiB of SQLite's own log where it has nothing else.",
        "",
        "| attack | memory, MiB | series of the largest metric | state, MiB | threads | descriptors | result |",
        "|---|---|---|---|---|---|---|",
    ]
    return "\n".join([*head, *rows, "", END])


def main() -> int:
    """Run all attacks, print the table, and write it into the page."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--scale", type=float, default=1.0, help="of the attacks; below 1 nothing is written")
    parser.add_argument("--memory", type=int, default=MEMORY_MIB, help="MiB that the kernel allows a daemon")
    parser.add_argument("--only", default="", help="attacks whose name has this in it")
    chosen = parser.parse_args()
    bounds = []
    for attack in attacks(chosen.scale, chosen.memory):
        if chosen.only in attack.name:
            bounds.append(run(attack, chosen.memory))
            print(bounds[-1], flush=True)
    text = table(bounds)
    print(text)
    if chosen.scale == 1 and not chosen.only:
        page = PAGE.read_text("utf-8")
        before, _, rest = page.partition(BEGIN)
        PAGE.write_text(before + text + rest.partition(END)[2], "utf-8")
    over = [bound.attack for bound in bounds if not bound.is_kept]
    for name in over:
        print(f"over its bound: {name}", file=sys.stderr)
    return 1 if over else 0


if __name__ == "__main__":
    sys.exit(main())

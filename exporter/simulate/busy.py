"""A very long day of the simulated Wok, for benchmarks and endurance tests.

As in `story`, each line says when to write it, and the same arguments give the same bytes. Lines
are made from templates, which the functions of `records` render once: several hundred thousand
lines a second.
"""

from __future__ import annotations

from datetime import datetime
from heapq import heappop, heappush
from random import Random
from typing import TYPE_CHECKING, NamedTuple

from exporter.simulate.records import (
    ADA,
    FAILED,
    FINISHED,
    GRACE,
    JOSE,
    STARTED,
    Dialect,
    Failure,
    Params,
    SimulatedLine,
    record,
    task_record,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


class _Work(NamedTuple):
    """One kind of work, with placeholders: `{n}` a serial number, `{epoch}` its start in
    microseconds, `{uuid}` a UUID.

    `share` is in relation to the others, `seconds` the mean duration of its task (0 for work
    without a task); one task of `one_fails_of` fails with `error`.
    """

    share: int
    app: str
    method: str
    code: str
    params: Params
    text: str
    target_uri: str = ""
    seconds: float = 0.0
    one_fails_of: int = 0
    error: Failure | None = None


GUEST = {"ident": "web{n}", "remote_host": ""}
WHY = "no space is left in the pool default"
WORKS = (
    _Work(10, "wok", "POST", "WOKROOT0001L", {"username": "ada"}, "ada signs in"),
    _Work(16, "kimchi", "POST", "KCHVM0004L", GUEST, "web{n} is switched on"),
    _Work(14, "kimchi", "POST", "KCHVM0005L", GUEST, "web{n} is switched off"),
    _Work(12, "kimchi", "PUT", "KCHVM0003L", GUEST, "web{n} is changed"),
    _Work(6, "kimchi", "DELETE", "KCHVM0002L", GUEST, "web{n} is removed"),
    _Work(10, "kimchi", "POST", "KCHVM0001L", {"name": "web{n}", "template": "/plugins/kimchi/templates/debian"},
          "A new guest web{n} from the template debian", "/plugins/kimchi/vms/web{n}", 8, 20,
          Failure("KCHVM0007E", {"name": "web{n}", "err": WHY}, f"web{{n}} could not be created: {WHY}")),
    _Work(8, "kimchi", "POST", "KCHVM0009L", GUEST, "A clone of web{n}",
          "/plugins/kimchi/vms/web{n}-clone-{epoch}/clone", 60, 10,
          Failure("KCHVM0035E", {"name": "web{n}", "err": WHY}, f"web{{n}} could not be cloned: {WHY}")),
    _Work(4, "kimchi", "POST", "KCHVM0010L", {"ident": "web{n}", "remote_host": "kvm02", "user": "root"},
          "web{n} moves to kvm02", "/plugins/kimchi/vms/web{n}/migrate", 30, 8,
          Failure("KCHVM0058E", {"name": "web{n}", "err": "timed out"}, "web{n} could not move: timed out")),
    _Work(10, "kimchi", "POST", "KCHSNAP0001L", {"vm": "web{n}", "name": "daily"}, "A snapshot daily of web{n}",
          "/plugins/kimchi/vms/web{n}/snapshots/daily", 0.5),
    _Work(5, "kimchi", "POST", "KCHVOL0001L", {"name": "disk{n}.img", "pool": "default", "capacity": 10_737_418_240},
          "A new volume disk{n}.img in default", "/plugins/kimchi/storagepools/default/storagevolumes/disk{n}.img", 4),
    _Work(2, "ginger", "POST", "GINHBK0002L", {"description": "number {n}"}, "An archive of the configuration",
          "/backup/create/{uuid}", 15),
    _Work(2, "gingerbase", "POST", "GGBDR0001L", {"name": "report{n}"}, "A debug report report{n}",
          "/plugins/gingerbase/debugreports/report{n}", 20),
    _Work(1, "gingerbase", "POST", "GGBPKGUPD0002L", {"ident": "package{n}"}, "The package package{n} is updated",
          "/plugins/gingerbase/host/packagesupdate/package{n}/upgrade", 10),
)  # fmt: skip

STAMP = {name: f"{{{name}}}" for name in ("date", "time", "zone", "id")}
TEMPLATES_PER_SHARE = 10
"""Enough for a realistic share of failed tasks, and few enough to render quickly."""
QUICK_SECONDS, QUICK_SHARE = 1.0, 0.1
"""How many of the tasks shorter than this end before their request's line is written."""
MICROS = 1_000_000


class _Template(NamedTuple):
    """The lines of a piece of work as `%` formats of bytes; `ends` are its end records in order."""

    request: bytes
    start: bytes
    ends: tuple[bytes, ...]
    seconds: float


def busy(
    dialect: Dialect, *, start: datetime, requests: int, per_second: float, seed: int = 1
) -> Iterator[SimulatedLine]:
    """Yield the log of `requests` requests at an even rate, with the records of their tasks.

    Every name is used once, so that every task has one true request. Nothing restarts and no task
    is lost: each task ends, the last one after the last request. The first line has `at` 0.
    """
    random = Random(seed)  # noqa: S311 (repeatable on purpose)
    templates = _templates(dialect)
    epoch = int(start.timestamp() * MICROS)
    family = f"{random.getrandbits(32):08x}-{random.getrandbits(16):04x}-4{random.getrandbits(12):03x}-8"
    ids = family.encode() + b"%03x-%012x"
    pending: list[tuple[float, int, bytes, dict[bytes, bytes]]] = []
    pick, second, clock = random.random, -1, (b"", b"", b"")
    written = tasks = 0

    def line(at: float, template: bytes, values: dict[bytes, bytes]) -> SimulatedLine:
        nonlocal second, clock, written
        if int(at) != second:
            second = int(at)
            when = datetime.fromtimestamp(epoch / MICROS + second, start.tzinfo)
            clock = (f"{when:%Y-%m-%d}".encode(), f"{when:%H:%M:%S}".encode(), f"{when:%Z}".encode())
        written += 1
        values[b"date"], values[b"time"], values[b"zone"] = clock
        if dialect == "json":
            values[b"id"] = ids % (written & 0xFFF, written)
        return SimulatedLine(at, "requests", template % values, "")

    for n in range(requests):
        at = n / per_second
        while pending and pending[0][0] <= at:
            end, _, template, values = heappop(pending)
            yield line(end, template, values)
        work = templates[int(pick() * len(templates))]
        values = {b"n": b"%d" % n}
        if work.ends:
            tasks += 1
            values[b"epoch"] = b"%d" % (epoch + int(at * MICROS))
            values[b"task"] = b"%d" % tasks
            values[b"uuid"] = b"%08x-0000-4000-8000-000000000000" % n
            if work.start:
                yield line(at, work.start, values)
            if work.seconds < QUICK_SECONDS and pick() < QUICK_SHARE:
                for template in work.ends:
                    yield line(at, template, values)
            else:
                end = at + work.seconds * (0.5 + pick())
                for i, template in enumerate(work.ends):
                    heappush(pending, (end, 2 * n + i, template, values))
        yield line(at, work.request, values)

    while pending:
        end, _, template, values = heappop(pending)
        yield line(end, template, values)


def _templates(dialect: Dialect) -> Sequence[_Template]:
    """Return as many templates for each kind of work as its share, so that a
    random pick is fair.
    """
    found = []
    for work in WORKS:
        for i in range(work.share * TEMPLATES_PER_SHARE):
            status = 202 if work.target_uri else 200
            person = (ADA, GRACE, JOSE)[i % 3]
            request = record(
                dialect, STAMP, work.app, work.method, status, person, work.code, work.params, work.text
            )
            start: bytes = b""
            ends: tuple[bytes, ...] = ()
            if work.target_uri:
                ends = _ends(dialect, work, is_failed=work.one_fails_of > 0 and i % work.one_fails_of == 0)
                if dialect == "rfc":
                    start = _format(task_record("rfc", STAMP, work.app, STARTED, work.target_uri, "{task}"))
            found.append(_Template(_format(request), start, ends, work.seconds))
    return found


def _ends(dialect: Dialect, work: _Work, *, is_failed: bool) -> tuple[bytes, ...]:
    if not is_failed:
        return (_format(task_record(dialect, STAMP, work.app, FINISHED, work.target_uri, "{task}")),)
    told = _format(task_record(dialect, STAMP, work.app, FAILED, work.target_uri, "{task}", work.error))
    if work.code != "KCHVM0010L":
        return (told,)
    # a failed migration is reported twice, first without the reason
    return (_format(task_record(dialect, STAMP, work.app, FAILED, work.target_uri, "{task}")), told)


def _format(data: bytes) -> bytes:
    """Return a rendered line as a `%` format: `{name}` becomes `%(name)s`; a
    task's id is a number.
    """
    data = data.replace(b"%", b"%%").replace(b'"{task}"', b"{task}")
    for name in (b"n", b"epoch", b"uuid", b"task", b"date", b"time", b"zone", b"id"):
        data = data.replace(b"{" + name + b"}", b"%(" + name + b")s")
    return data

"""Simulates the request log of a busy Wok without wok-error.log, with the truth, and damages it:
`story_of`.

`python -m tests.request_simulation [FIRST] [LAST] [HAZARD...]` counts wrong and exact matches for
each kind of damage, per 10,000 ended tasks. A match is wrong if the task belongs to another
request, or to one that has no line in the log.
"""

from __future__ import annotations

import datetime as dt
import itertools
import json
import random
import sys
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from exporter.parse.timezone import Zones
from exporter.pipeline.batch_processor import BatchProcessor, ProcessingConfig
from exporter.records import NANOS, Chunk, Event, Line, RequestSeen, TaskEnded
from exporter.store.writer import Loaded
from exporter.wok.operations import Operations
from exporter.wok.task_functions import TaskFunctions

DOWN_SECONDS = 5
"""How long wokd takes to restart."""
EXPIRY = 24 * 3600 * NANOS
FILE = b"s" * 16
ZONE = "Europe/Berlin"
SUMMER_ENDS = dt.datetime(2026, 10, 25, 1, tzinfo=dt.UTC).timestamp()
NAMES = ("web", "db-1", "web-2")
USERS = ("ada", "bob", "cy", "dee")
CODES = {1000: "WOKASYNC0000L", 1001: "WOKASYNC0001L", 1002: "WOKASYNC0002L"}


class Hazard(NamedTuple):
    """What happens to a log. Numbers are shares of the lines, or seconds.

    lost       Share of lines that are missing.
    torn       Share of lines of which only a part was written, in front of the next line.
    gap        Share of the log that is missing in one piece.
    rotated    Share of the beginning that is missing.
    disorder   How late a line may be written after its time was taken.
    step       By how much the clock is set forward or back during the log.
    summer     Whether summer time ends during the log.
    restart    Whether wokd is restarted during the log, without a mark.
    repeated   Share of lines that are there twice.
    forged     Number of forged records (only where a name can contain a line break).
    """

    lost: float = 0.0
    torn: float = 0.0
    gap: float = 0.0
    rotated: float = 0.0
    disorder: float = 0.02
    step: float = 0.0
    summer: bool = False
    restart: bool = False
    repeated: float = 0.0
    forged: int = 0


HAZARDS = {
    "calm": Hazard(),
    "lost": Hazard(lost=0.05),
    "torn": Hazard(torn=0.03),
    "gap": Hazard(gap=0.2),
    "rotated": Hazard(rotated=0.4),
    "disorder": Hazard(disorder=0.9),
    "step": Hazard(step=30.0),
    "hour": Hazard(step=3600.0),
    "summer": Hazard(summer=True),
    "restart": Hazard(restart=True),
    "repeated": Hazard(repeated=0.05),
    "forged": Hazard(forged=6),
    "all": Hazard(0.02, 0.01, 0.05, 0.1, 0.5, 5.0, True, True, 0.02, 2),
}


class Kind(NamedTuple):
    """An operation: its application, code and parameters, and the target_uri of its task.

    `{name}` is a name of few, `{own}` a name that no other request has. `{us}`, `{ms}` and `{s}`
    are the start of the task, `{n}` a small number, `{uuid}` a uuid.
    """

    app: str
    code: str
    params: dict[str, str]
    target_uri: str
    error: str = ""
    reports_twice: bool = False
    is_nesting: bool = False


KINDS = (
    Kind(
        "kimchi",
        "KCHVM0009L",
        {"ident": "{name}", "remote_host": ""},
        "/plugins/kimchi/vms/{name}-clone-{us}/clone",
        "KCHVM0035E",
    ),
    Kind("kimchi", "KCHVM0001L", {"name": "{name}", "template": "t"}, "/plugins/kimchi/vms/{name}"),
    Kind(
        "kimchi",
        "KCHVM0001L",
        {"name": "", "template": "/plugins/kimchi/templates/{name}"},
        "/plugins/kimchi/vms/{name}-vm-{n}",
    ),
    Kind(
        "kimchi",
        "KCHSNAP0001L",
        {"vm": "{name}", "name": ""},
        "/plugins/kimchi/vms/{name}/snapshots/{s}",
        "KCHSNAP0002E",
    ),
    Kind(
        "kimchi",
        "KCHSNAP0001L",
        {"vm": "{name}", "name": "{own}"},
        "/plugins/kimchi/vms/{name}/snapshots/{own}",
    ),
    Kind(
        "kimchi",
        "KCHVM0010L",
        {"ident": "{name}", "remote_host": "h"},
        "/plugins/kimchi/vms/{name}/migrate",
        "KCHVM0058E",
        reports_twice=True,
    ),
    Kind(
        "kimchi",
        "KCHVMHDEV0001L",
        {"vmid": "{name}", "name": "pci_{own}"},
        "/plugins/kimchi/vms/{name}/hostdevs/",
        "KCHVMHDEV0005E",
        reports_twice=True,
    ),
    Kind(
        "kimchi",
        "KCHVOL0001L",
        {"pool": "{name}", "name": "{own}", "capacity": "1"},
        "/plugins/kimchi/storagepools/{name}/storagevolumes/{own}",
    ),
    Kind(
        "kimchi",
        "KCHVOL0001L",
        {"pool": "{name}", "name": "v", "url": "http://h/v", "pool_type": "logical"},
        "/plugins/kimchi/storagepools/{name}/storagevolumes/v",
        "KCHVOL0007E",
        is_nesting=True,
    ),
    Kind(
        "kimchi",
        "KCHVOL0006L",
        {"pool": "{name}", "ident": "v.img", "size": ""},
        "/plugins/kimchi/storagepools/{name}/storagevolumes/v-clone-{n}.img/clone",
    ),
    Kind("ginger", "GINSP0001L", {"file_loc": "/{own}"}, "/swaps/file_loc/", "GINSP00005E", True),
    Kind("ginger", "GINLV0001L", {"vg_name": "{name}", "size": "1"}, "/lvs/vg_name/{name}"),
    Kind("ginger", "GINHBK0002L", {"description": "{own}"}, "/backup/create/{uuid}", "GINHBK0011E", True),
    Kind(
        "gingerbase",
        "GGBPKGUPD0002L",
        {"ident": "{name}"},
        "/plugins/gingerbase/host/packagesupdate/{name}/upgrade",
    ),
    Kind(
        "gingerbase",
        "GGBPKGUPD0001L",
        {"ident": ""},
        "/plugins/gingerbase/host/swupdate",
    ),
    Kind("gingerbase", "GGBDR0001L", {"name": ""}, "/plugins/gingerbase/debugreports/report-{ms}"),
    Kind("gingerbase", "GGBDR0001L", {"name": "{name}"}, "/plugins/gingerbase/debugreports/{name}"),
    Kind("kimchi", "KCHVM9999L", {"ident": "{name}"}, "/plugins/kimchi/vms/{name}/freeze"),
    Kind("acme", "ACME0001L", {"ident": "job-{own}"}, "/plugins/acme/jobs/job-{own}"),
    Kind("acme", "ACME0002L", {"ident": "{name}", "mode": "full"}, "/plugins/acme/jobs/{name}/full"),
)

DIALECTS = ("json", "python2", "tasklog", "no task ids", "rfc", "rfc without ids")


@dataclass
class Task:
    """A simulated task. `request` is the text that identifies its request's line."""

    kind: Kind
    words: dict[str, str]
    request: str
    boot: int
    task_id: str


class Written(NamedTuple):
    """A line: what it reports, of which task, and the length of a torn line in front of it."""

    data: bytes
    what: str
    number: int
    torn: int = 0


@dataclass
class Story:
    """The lines of a log, and what is true."""

    dialect: str
    written: list[Written]
    tasks: list[Task] = field(default_factory=list)

    def lines(self) -> list[Line]:
        """Return the lines as the reader gives them."""
        return [Line(FILE, at, each.data, len(each.data)) for at, each in self._placed()]

    def numbers(self, what: str) -> dict[int, int]:
        """Return the task of each record of this kind, by the offset of the record."""
        return {at + each.torn: each.number for at, each in self._placed() if each.what == what}

    def _placed(self) -> Iterator[tuple[int, Written]]:
        offset = 0
        for each in self.written:
            yield offset, each
            offset += len(each.data) + 1


class _Wok:
    """Writes the lines of one story in the order in which Wok makes them."""

    def __init__(self, seed: int, hazard: Hazard) -> None:
        self.chance = chance = random.Random(seed)
        self.dialect = chance.choice(DIALECTS if not hazard.forged else DIALECTS[4:])
        self.is_rfc = self.dialect.startswith("rfc")
        self.hazard = hazard
        self.span = chance.choice((2.0, 20.0, 120.0, 900.0))
        self.base = SUMMER_ENDS - self.span / 2 if hazard.summer else SUMMER_ENDS + 10 * 86400
        self.base += chance.random()
        self.step_at = chance.random() * self.span if hazard.step else 1e9
        self.step = chance.choice((-1, 1)) * hazard.step * chance.random()
        self.restart_at = chance.random() * self.span if hazard.restart else 1e9
        self.tasks: list[Task] = []
        self.written: list[tuple[float, int, bytes, str, int]] = []
        self.numbers = itertools.count()
        self.task_ids = [itertools.count(1), itertools.count(1)]

    def wall(self, at: float) -> float:
        """The wall clock, in seconds."""
        return self.base + at + (self.step if at >= self.step_at else 0.0)

    def write(self, at: float, data: bytes, what: str, number: int) -> None:
        """Write a line whose time was taken at `at`."""
        late = self.chance.random() * self.hazard.disorder if self.chance.random() < 0.3 else 0.0
        self.written.append((at + late, next(self.numbers), data, what, number))

    def line(
        self,
        at: float,
        app: str,
        method: str,
        status: int,
        code: str,
        params: dict[str, Any],
        error: str = "",
        user: str = "",
        error_params: dict[str, str] | None = None,
    ) -> bytes:
        """Return a record in the dialect of the story."""
        utc = self.wall(at) - self.chance.random() * 0.004
        offset = 2 if utc < SUMMER_ENDS else 1
        local = dt.datetime.fromtimestamp(int(utc // 1) + offset * 3600, dt.UTC)
        info: dict[str, Any] = {
            "status": status,
            "zone": "CEST" if offset == 2 else "CET",
            "ip": "" if method == "TASK" else "192.0.2.1",
            "app": app if self.is_rfc else f"/plugins/{app}",
            "req": method,
            "user": user,
            "time": f"{local:%H:%M:%S}",
            "date": f"{local:%Y-%m-%d}",
        }
        if self.is_rfc:
            info["msgCode"] = code
            if error:
                info["detCode"] = error
            middle = f" >>> {json.dumps(error_params or {})}" if error else " "
            return f"{json.dumps(info)} >>> {json.dumps(params)}{middle} >>> words".encode()
        fault = {"code": error, "params": error_params or {}} if error else None
        record_id = str(uuid.UUID(int=self.chance.getrandbits(128), version=4))
        record_id = params.pop("=id", record_id)
        message = {"code": code, "params": params}
        return json.dumps({"id": record_id, "message": message, "error": fault, "info": info}).encode()

    def task(self, asked: float) -> None:
        """Request a task, run it, and end it. Call this in the order of the requests."""
        chance, number = self.chance, len(self.tasks)
        kind = chance.choice(KINDS)
        boot = 1 if asked > self.restart_at else 0
        if boot:
            asked += DOWN_SECONDS
        start = asked + chance.random() * 0.005
        slow = chance.uniform(0.3, 0.9) if chance.random() < 0.03 else chance.random() * 0.01
        wall = self.wall(start)
        words = {
            "name": chance.choice(NAMES),
            "own": f"n{number}" if chance.random() < 0.9 else "again",
            "us": str(int(wall * 1e6)),
            "ms": str(int(wall * 1e3)),
            "s": str(int(wall)),
            "n": str(chance.randint(1, 4)),
            "uuid": str(uuid.UUID(int=chance.getrandbits(128), version=4)),
        }
        params = {key: value.format(**words) for key, value in kind.params.items()}
        user = chance.choice(USERS)
        record_id = str(uuid.UUID(int=chance.getrandbits(128), version=4))
        task_id = str(next(self.task_ids[boot]))
        if not self.is_rfc:
            task_id = str(uuid.UUID(int=chance.getrandbits(128), version=1))
            params["=id"] = record_id
        self.tasks.append(Task(kind, words, record_id, boot, task_id))
        is_failed = self.dialect in ("json", "no task ids") and chance.random() < 0.02
        method = "POST"
        data = self.line(
            start + slow, kind.app, method, 500 if is_failed else 202, kind.code, params, user=user
        )
        self.write(start + slow, data, "request", number)
        target = {"target_uri": kind.target_uri.format(**words)}
        if self.dialect in ("tasklog", "rfc"):
            target["task_id"] = task_id
        if self.dialect == "tasklog" and chance.random() < 0.9:
            target["request_id"] = record_id
        has_starts = self.is_rfc or self.dialect in ("tasklog", "no task ids")
        if has_starts:
            at = start + chance.random() * 0.002
            self.write(at, self.end(at, kind, 1000, target), "start", number)
        end = start + chance.choice((0.002, 0.1, 1.0, 8.0, 60.0)) * chance.random()
        outcome = chance.choice(("success", "success", "coded", "bare", "never", "success"))
        if outcome == "never" or (boot == 0 and end >= self.restart_at):
            return
        good, bad = (1001, 1002) if has_starts else (200, 400)
        if outcome == "success":
            if kind.is_nesting:
                inner = start + (end - start) * chance.random()
                self.write(
                    inner, self.end(inner, kind, good, {"target_uri": target["target_uri"]}), "end", number
                )
            self.write(end, self.end(end, kind, good, target), "end", number)
            return
        if kind.reports_twice:
            at = max(start, end - 0.002)
            self.write(at, self.end(at, kind, bad, target), "end", number)
        error = (kind.error or "KCHVM0007E") if outcome == "coded" or kind.reports_twice else ""
        quoted = {"name": words["name"], "err": chance.choice(("x", f"/{words['own']}"))}
        self.write(end, self.end(end, kind, bad, target, error, quoted), "end", number)

    def end(
        self,
        at: float,
        kind: Kind,
        status: int,
        target: dict[str, str],
        error: str = "",
        quoted: dict[str, str] | None = None,
    ) -> bytes:
        """Return a TASK record."""
        code = CODES.get(status) or ("WOKASYNC0001L" if status == 200 else "WOKASYNC0002L")
        return self.line(at, kind.app, "TASK", status, code, dict(target), error, error_params=quoted)

    def poll(self) -> None:
        """Write the end of a task that no request has."""
        at = self.chance.random() * self.span
        kind = Kind("gingerbase", "", {}, "/plugins/gingerbase/host/swupdateprogress")
        status = 1001 if self.is_rfc else 200
        self.write(at, self.end(at, kind, status, {"target_uri": kind.target_uri}), "end", -1)

    def forge(self) -> None:
        """Put a whole record behind a line break in the name of somebody who fails to log in."""
        at = self.chance.random() * self.span
        victim = self.chance.choice(self.tasks)
        target = {"target_uri": victim.kind.target_uri.format(**victim.words)}
        if self.dialect == "rfc":
            target["task_id"] = victim.task_id
        status = self.chance.choice((1000, 1001, 1002, 202))
        if status == 202:
            params = {key: value.format(**victim.words) for key, value in victim.kind.params.items()}
            lie = self.line(at, victim.kind.app, "POST", 202, victim.kind.code, params, user="eve")
        else:
            lie = self.end(at, victim.kind, status, target)
        name = "x\n" + lie.decode()
        login = self.line(at, "wok", "POST", 401, "WOKROOT0001L", {"username": name})
        self.write(at, login.removesuffix(b"words") + b"User 'x", "forged", -1)
        self.written.append((self.written[-1][0], next(self.numbers), lie + b"' login", "forged", -1))

    def lines(self) -> list[Written]:
        """Return the lines as the log has them after all damage."""
        chance, hazard = self.chance, self.hazard
        lines = [Written(data, what, number) for _, _, data, what, number in sorted(self.written)]
        if hazard.rotated:
            del lines[: int(len(lines) * hazard.rotated * chance.random())]
        if hazard.gap:
            count = int(len(lines) * hazard.gap * chance.random())
            first = chance.randint(0, len(lines) - count)
            del lines[first : first + count]
        kept: list[Written] = []
        torn = b""
        for data, what, number, _ in lines:
            if what != "forged" and chance.random() < hazard.lost:
                continue
            if what != "forged" and chance.random() < hazard.torn:
                torn += data[: chance.randrange(len(data))]
                continue
            kept.append(Written(torn + data, what, number, len(torn)))
            torn = b""
            if what != "forged" and chance.random() < hazard.repeated:
                kept.append(Written(data, what, number))
        last = self.line(self.span + 200, "kimchi", "POST", 200, "KCHVM0004L", {"ident": "calm"}, user="eve")
        return [*kept, Written(last, "", -1)]


def story_of(seed: int, hazard: Hazard) -> Story:
    """Make one story."""
    wok = _Wok(seed, hazard)
    count = wok.chance.randint(2, 40)
    for asked in sorted(wok.chance.random() * wok.span for _ in range(count)):
        wok.task(asked)
    for _ in range(wok.chance.randint(0, 3)):
        wok.poll()
    for _ in range(hazard.forged):
        wok.forge()
    return Story(wok.dialect, wok.lines(), wok.tasks)


_CONFIG = ProcessingConfig(
    "simulation", Zones(ZONE), Operations.load(), EXPIRY, functions=TaskFunctions.load()
)


def told(lines: Sequence[Line]) -> list[Event]:
    """Return all events of a log."""
    processor = BatchProcessor(_CONFIG, Loaded(positions={}, state="", open_tasks=[], ended=[], series=set()))
    events = [*processor.advance(Chunk(lines, "-")).events]
    return [*events, *processor.advance(Chunk([], "-", caught_up=True), finished=True).events]


class Wrong(NamedTuple):
    """An exact match that is wrong."""

    task: Task
    is_logged: bool
    event: TaskEnded


def score(story: Story) -> tuple[Counter[str], list[Wrong]]:
    """Count ended tasks and exact matches; return the wrong ones."""
    owners, asked = story.numbers("end"), story.numbers("request")
    logged = set(asked.values())
    events = told(story.lines())
    given = {
        event.context[:16]: asked[event.record.offset]
        for event in events
        if isinstance(event, RequestSeen) and event.record.offset in asked
    }
    found: Counter[str] = Counter()
    wrong = []
    for event in events:
        if not isinstance(event, TaskEnded) or event.record is None:
            continue
        number = owners.get(event.record.offset)
        if number is None:
            found["believed"] += event.correlation == "exact"
            continue
        found["tasks"] += 1
        is_right = bool(event.parent) and given.get(event.parent[:16]) == number
        if event.correlation == "exact":
            found["exact"] += 1
            if not is_right:
                found["wrong"] += 1
                wrong.append(Wrong(story.tasks[number], number in logged, event))
        else:
            found["right, not exact"] += is_right
    return found, wrong


def _cause(story: Story, wrong: Wrong) -> str:
    where = "there" if wrong.is_logged else "missing"
    return f"{story.dialect}: {wrong.task.kind.code} {wrong.task.kind.target_uri}, its request is {where}"


def main(arguments: Iterable[str]) -> None:
    """Print the table."""
    given = list(arguments)
    bounds = [int(each) for each in given if each.isdigit()]
    first, last = bounds if len(bounds) == 2 else (0, 300)
    for name in [each for each in given if each in HAZARDS] or HAZARDS:
        total: Counter[str] = Counter()
        causes: Counter[str] = Counter()
        for seed in range(first, last):
            story = story_of(seed, HAZARDS[name])
            found, wrong = score(story)
            total += found
            causes.update(_cause(story, each) for each in wrong)
            if "-v" in given:
                for each in wrong:
                    print(f"  seed {seed}", _cause(story, each), each.event.target_uri)
        tasks = max(1, total["tasks"])
        print(
            f"{name:10} tasks {total['tasks']:6}  exact {total['exact'] / tasks:6.1%}"
            f"  wrong exact {total['wrong']:4}  per 10,000 {total['wrong'] / tasks * 1e4:6.1f}"
            f"  forged {total['believed']}"
        )
        if "-c" in given:
            for cause, count in causes.most_common(12):
                print(f"      {count:4} {cause}")


if __name__ == "__main__":
    main(sys.argv[1:])

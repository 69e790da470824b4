"""Score the correlation against logs with ground truth: `make score`, or `python tests/score.py [SET...]`.

For every set of the corpus that lies beside the checkout it prints how many tasks were given their true request, by
grade, and what the misses have in common. A task is *linkable* when its request has a line in the log. A match
is wrong when the parent is another request than the true one, or when a task without a request in the log was
given one. Tasks of `/agings/` are left out: their truth is incomplete. The command fails when a floor of the
project's contract is broken.
"""

from __future__ import annotations

import json
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from exporter.parse.timezone import Zones
from exporter.pipeline.batch_processor import BatchProcessor, ProcessingConfig
from exporter.records import NANOS, Chunk, Event, Record, RequestSeen, TaskEnded, TaskStarted
from exporter.source.archive import Archive
from exporter.store.writer import Loaded
from exporter.wok.error_log import ErrorLog
from exporter.wok.operations import Operations
from exporter.wok.task_functions import TaskFunctions
from tests import error_score

CORPUS = Path(__file__).parents[2] / "shared" / "corpus"
CLOCK_SECONDS = 1.0
"""The log has whole seconds: no duration can be better, and none may be worse."""
EXPIRY = 24 * 3600 * NANOS


class Floor(NamedTuple):
    """What a set must reach: wrong among exact, right among linkable, exact among linkable (shares)."""

    wrong_exact_max: float
    right_min: float
    exact_min: float


# set -> zone of its host, required score (None: only printed)
SETS: dict[str, tuple[str, Floor | None]] = {
    "rfc-default": ("America/Sao_Paulo", Floor(0.0, 1.0, 1.0)),
    "rfc-calm": ("America/Sao_Paulo", Floor(0.0, 1.0, 1.0)),
    "wok-3.0.0-calm": ("America/Sao_Paulo", Floor(0.0, 0.9797, 0.7056)),
    "wok-2.3.0": ("America/Sao_Paulo", Floor(0.0, 0.9085, 0.6646)),
    "wok-2.5.0-tasklog": ("America/Sao_Paulo", Floor(0.0, 1.0, 1.0)),
    # Nested tasks have no record of their request, and forged restarts stand in wok-error.log.
    "wok-3.0.0-errors": ("America/Sao_Paulo", Floor(0.005, 0.84, 0.57)),
    "wok-2.4.0-errors": ("Asia/Kolkata", Floor(0.006, 0.80, 0.52)),
}


class Match(NamedTuple):
    """A task of the truth and what was made of it: requests by whatever names them in the truth."""

    kind: str
    target_uri: str
    true: str
    found: str
    grade: str


def events_of(folder: Path, zone: str) -> list[Event]:
    """Run the real processor over a set, with its wok-error.log where it has one."""
    zones = Zones(zone)
    log = next(path for name in ("user-requests.data", "wok-req.log") if (path := folder / name).exists())
    config = ProcessingConfig("score", zones, Operations.load(), EXPIRY, functions=TaskFunctions.load())
    processor = BatchProcessor(config, Loaded(positions={}, state="", open_tasks=[], ended=[], series=set()))
    errors = folder / "wok-error.log"
    if errors.exists():
        reader = ErrorLog(zones)
        processor.offer([item for line in _lines(errors) for item in reader.feed(line.data)])
    events = [*processor.advance(Chunk(list(_lines(log)), "-")).events]
    return [*events, *processor.advance(Chunk([], "-", caught_up=True), finished=True).events]


def _lines(path: Path) -> Iterator[Any]:
    archive = Archive([path])
    try:
        while chunk := archive.read(1 << 20).lines:
            yield from chunk
    finally:
        archive.close()


def matches(folder: Path, events: Iterable[Event]) -> list[Match]:
    """Pair every task of the truth that left a record with the parent it was given."""
    truth = [json.loads(line) for line in (folder / "truth.jsonl").read_text("utf-8").splitlines()]
    requests: dict[bytes, Record] = {}
    ends: dict[bytes, tuple[bytes, str]] = {}
    by_record: dict[Any, bytes] = {}
    is_rfc = (folder / "wok-req.log").exists()
    for event in events:
        if isinstance(event, RequestSeen):
            requests[event.context] = event.record
            continue
        if isinstance(event, TaskEnded):
            ends[event.context] = (event.parent, event.correlation)
        elif isinstance(event, TaskStarted):
            ends.setdefault(event.context, (event.parent, event.correlation))
        if event.record is not None and (not is_rfc or isinstance(event, TaskStarted)):
            by_record[event.record.offset if is_rfc else event.record.record_id] = event.context
    if is_rfc:
        return _rfc(folder, truth, requests, ends, by_record)
    return _json(truth, requests, ends, by_record)


def _rfc(
    folder: Path,
    truth: list[dict[str, Any]],
    requests: dict[bytes, Record],
    ends: dict[bytes, tuple[bytes, str]],
    by_record: dict[Any, bytes],
) -> list[Match]:
    offsets = _offsets(folder)
    line_of = {offset: number for number, offset in enumerate(offsets) if number}
    logged = {item["uid"]: item["line"] for item in truth if item["type"] == "request" and item["line"]}
    found = []
    for task in truth:
        if task["type"] != "task" or not task["lines"]["1000"]:
            continue
        context = by_record.get(offsets[task["lines"]["1000"][0]], b"")
        parent, grade = ends.get(context, (b"", "missing"))
        true = str(logged.get(task["request"], ""))
        given = str(line_of[requests[parent].offset]) if parent else ""
        found.append(Match(task["kind"], task["target_uri"], true, given, grade))
    return found


def _json(
    truth: list[dict[str, Any]],
    requests: dict[bytes, Record],
    ends: dict[bytes, tuple[bytes, str]],
    by_record: dict[Any, bytes],
) -> list[Match]:
    found = []
    for task in truth:
        if task["type"] != "task" or "/agings/" in task["target_uri"]:
            continue
        records = [record["id"] for record in task["task_records"] if record["in_file"]]
        if not records:
            continue
        parent, grade = ends.get(by_record.get(records[0], b""), (b"", "missing"))
        true = task["request_record_id"] or ""
        # A nested task's parent is a task: its request is that of the one at the top.
        while parent and parent not in requests:
            parent = ends[parent][0]
        given = requests[parent].record_id if parent else ""
        found.append(Match(task["request_kind"] or "", task["target_uri"], true, given, grade))
    return found


def compare_ends(folder: Path, events: Iterable[Event]) -> tuple[list[float], list[str]]:
    """Compare the ends of tasks with a start and a final record with the truth (RFC sets): by how many seconds
    durations differ, and which outcomes are wrong.
    """
    offsets = _offsets(folder)
    starts: dict[bytes, int] = {}
    ended: dict[int, TaskEnded] = {}
    for event in events:
        if isinstance(event, TaskStarted):
            starts[event.context] = event.record.offset
        elif isinstance(event, TaskEnded) and event.record is not None and event.context in starts:
            ended[starts[event.context]] = event
    off_by: list[float] = []
    wrong: list[str] = []
    for line in (folder / "truth.jsonl").read_text("utf-8").splitlines():
        task = json.loads(line)
        if (
            task["type"] == "task"
            and task["lines"]["1000"]
            and (task["lines"]["1001"] or task["lines"]["1002"])
        ):
            end = ended.get(offsets[task["lines"]["1000"][0]])
            if end is None or end.outcome != {"failed": "failure"}.get(task["outcome"], task["outcome"]):
                wrong.append(f"{task['key']} {task['target_uri']}: {end.outcome if end else 'lost'}")
            else:
                off_by.append(abs((end.end - end.start) / NANOS - (task["t_end"] - task["t_start"])))
    return off_by, wrong


def _offsets(folder: Path) -> list[int]:
    """Return the byte offset of every physical line of an RFC set's log, by its number from 1."""
    offsets, at = [0], 0
    for line in (folder / "wok-req.log").read_bytes().split(b"\n"):
        offsets.append(at)
        at += len(line) + 1
    return offsets


def report(name: str, found: list[Match], floor: Floor | None) -> bool:
    """Print the score of one set; return whether its floor holds."""
    linkable = [match for match in found if match.true]
    right = [match for match in linkable if match.found == match.true]
    exact = [match for match in found if match.grade == "exact"]
    wrong_exact = [match for match in exact if match.found != match.true]
    orphans = [match for match in found if not match.true]
    adopted = [match for match in orphans if match.found]
    right_share = len(right) / len(linkable)
    exact_share = sum(match.grade == "exact" for match in linkable) / len(linkable)
    wrong_share = len(wrong_exact) / max(1, len(exact))
    print(
        f"{name}: {len(found)} tasks, {len(linkable)} linkable, {len(orphans)} without a request in the log"
    )
    print(f"  true parent          {len(right):5} of {len(linkable)}  {right_share:7.2%}")
    print(f"  graded exact         {exact_share:23.2%}")
    print(f"  wrong among exact    {len(wrong_exact):5} of {len(exact)}  {wrong_share:7.2%}")
    print(f"  orphans given one    {len(adopted):5} of {len(orphans)}")
    for grade in ("exact", "likely", "ambiguous", "none", "missing"):
        graded = [match for match in found if match.grade == grade]
        if graded:
            good = sum(match.found == match.true for match in graded)
            print(f"    {grade:10} {len(graded):5}  right {good:5}  wrong {len(graded) - good:4}")
    misses: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for match in found:
        if match.found != match.true:
            kind = (
                "another request"
                if match.true and match.found
                else "no parent"
                if match.true
                else "orphan adopted"
            )
            misses[match.grade, kind][match.kind] += 1
    for (grade, kind), kinds in sorted(misses.items()):
        print(f"    missed, {grade}, {kind}: " + ", ".join(f"{k} {n}" for k, n in kinds.most_common()))
    if floor is None:
        return True
    return (
        wrong_share <= floor.wrong_exact_max
        and right_share >= floor.right_min
        and exact_share >= floor.exact_min
    )


def main(names: list[str]) -> int:
    """Score the named sets, or all; return 1 when a floor is broken, 0 when there is no corpus."""
    if not CORPUS.is_dir():
        print("score: no corpus beside the checkout, nothing to score")
        return 0
    broken = []
    for name, (zone, floor) in SETS.items():
        folder = CORPUS / name
        is_chosen = (not names or name in names) and folder.is_dir()
        if is_chosen:
            events = events_of(folder, zone)
            if not report(name, matches(folder, events), floor):
                broken.append(name)
            if name.startswith("rfc-"):
                seconds, wrong = compare_ends(folder, events)
                print(f"  durations            {len(seconds):5} tasks, off by {max(seconds):.3f} s at most")
                print(
                    f"  wrong outcomes       {len(wrong):5}" + "".join(f"\n    {task}" for task in wrong[:5])
                )
                if max(seconds) > CLOCK_SECONDS or wrong:
                    broken.append(f"{name} (ends)")
    for name in error_score.SETS:
        if (not names or name in names) and (CORPUS / name).is_dir():
            score = error_score.score_of(name)
            print("\n".join(error_score.report(name, score)))
            if not error_score.is_good(name, score):
                broken.append(f"{name} (wok-error.log)")
    if broken:
        print("score: below the floor: " + ", ".join(broken))
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

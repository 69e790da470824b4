"""Scores what is made of wok-error.log and wok-access.log against sets with ground truth: `score_of`, and `python -m tests.error_score`.

The real processor reads both logs, once as a replay does (wok-error.log first), once as a daemon does (a line at a time,
and of wok-error.log only what had been written by then).
"""

from __future__ import annotations

import json
import re
from collections import Counter, deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from exporter.parse.redact import redact_text
from exporter.parse.timezone import Zones
from exporter.pipeline.answers import AccessLog
from exporter.pipeline.batch_processor import BatchProcessor, BatchResult, ProcessingConfig
from exporter.pipeline.later_quotes import LaterQuotes
from exporter.records import NANOS, Chunk, Event, Line, RequestSeen, TaskEnded
from exporter.source.archive import Archive
from exporter.store.writer import Loaded
from exporter.wok.error_log import Block, ErrorLog, Header, Item, Mark
from exporter.wok.operations import Operations
from exporter.wok.task_functions import TaskFunctions

CORPUS = Path(__file__).parents[2] / "shared" / "corpus"
SETS = {"wok-3.0.0-errors": "America/Sao_Paulo", "wok-2.4.0-errors": "Asia/Kolkata"}
FLOORS = {"wok-3.0.0-errors": (0.78, 0.85, 8), "wok-2.4.0-errors": (0.78, 0.85, 4)}
"""Right among failed, likely that become exact among all likely, and the number of ambiguous that become exact."""
EXPIRY = 24 * 3600 * NANOS
START_SECONDS = 0.001
LOGGED = 500
FALSE_500 = 0.95
SECRETS = re.compile(r"S3cret-\d|LeakedPW-\d|chap-secret-\d")
EMPTY = Loaded(positions={}, state="", open_tasks=[], ended=[], series=set())


class Score(NamedTuple):
    """What came out. `failed` tasks have a block and a record, `coded` ones a WokException; `before` and `exact` count
    them by their grade without and `exact` those that became it; `off_starts` are further than a millisecond from
    the truth.
    """

    failed: int
    right: int
    wrong: int
    wrong_texts: int
    coded: int
    coded_right: int
    starts: int
    off_starts: int
    before: Counter[str]
    exact: Counter[str]
    wrong_exact: int
    wrong_exact_before: int
    forged: int
    secrets: int
    results: Counter[str]
    blocks: Counter[str]
    false_500: int
    false_500_right: int
    wrong_statuses: int
    answers: Counter[str]


class Run(NamedTuple):
    """A set that has been read: all events, and the last state."""

    events: list[Event]
    states: str
    blocks: Counter[str]
    answers: Counter[str]

    def ended(self) -> dict[str, TaskEnded]:
        """The tasks that ended by a record, by its id."""
        return {
            event.record.record_id: event
            for event in self.events
            if isinstance(event, TaskEnded) and event.record is not None
        }

    def requests(self) -> dict[bytes, str]:
        """The ids of the requests' records, by their contexts."""
        return {
            event.context: event.record.record_id for event in self.events if isinstance(event, RequestSeen)
        }


def run_of(folder: Path, zone: str, *, has_errors: bool = True, live: bool = False) -> Run:
    """Read both logs of a set, or the request log alone; `live` reads no block before it was written."""
    zones = Zones(zone)
    config = ProcessingConfig(
        "score",
        zones,
        Operations.load(),
        EXPIRY,
        functions=TaskFunctions.load() if has_errors else None,
        access_log=AccessLog(folder / "wok-access.log", zones),
        quotes=None if live else LaterQuotes(lambda: [folder / "user-requests.data"]),
    )
    items = list(_items(folder / "wok-error.log", zones)) if has_errors else []
    processor = BatchProcessor(config, EMPTY)
    results: list[BatchResult] = []
    if live:
        coming = deque(zip(_written(folder, items), items, strict=True))
        for line in _lines(folder / "user-requests.data"):
            chunk = Chunk([line], "1")
            latest = processor.parse(chunk)
            while coming and coming[0][0] <= latest:
                processor.offer([coming.popleft()[1]])
            results.append(processor.advance(chunk))
        processor.offer([item for _, item in coming])
    else:
        processor.offer(items)
        results.append(processor.advance(Chunk(list(_lines(folder / "user-requests.data")), "1")))
    results.append(processor.advance(Chunk([], "1", caught_up=True), finished=True))
    blocks: Counter[str] = Counter()
    answers: Counter[str] = Counter()
    for result in results:
        for series, count in result.counters.items():
            if series[0] == "wok_exporter_error_blocks_total":
                blocks[series[1]] += int(count)
            elif series[0] == "wok_exporter_access_answers_total":
                answers[series[1]] += int(count)
    states = "".join(result.state for result in results[-2:])
    return Run([event for result in results for event in result.events], states, blocks, answers)


def score_of(name: str, *, live: bool = False) -> Score:
    """Score one set of the corpus."""
    folder = CORPUS / name
    run = run_of(folder, SETS[name], live=live)
    plain = run_of(folder, SETS[name], has_errors=False)
    truth = [json.loads(line) for line in (folder / "truth.jsonl").read_text("utf-8").splitlines()]
    tasks = [item for item in truth if item["type"] == "task"]
    by_record = {record["id"]: task for task in tasks for record in task["task_records"]}
    known = {task["task_id"]: task for task in tasks}
    failed = {
        task["task_id"]
        for task in tasks
        if task["outcome"] == "failed"
        and task["exception"]["blocks"]
        and any(record["in_file"] for record in task["task_records"])
    }
    coded = {made for made in failed if known[made]["exception"]["code"]}
    ended, ended_before = run.ended(), plain.ended()
    joined = {record: event for record, event in ended.items() if event.found_id}
    right = {
        record: event for record, event in joined.items() if by_record[record]["task_id"] == event.found_id
    }
    starts = [event for event in right.values() if event.start % NANOS]
    lies = {item["text"] for item in truth if item["type"] == "forged_error" and item["kind"] == "block"}
    boots = [int(item["t"]) * NANOS for item in truth if item["type"] == "boot"]
    lost = {event.end for event in run.events if isinstance(event, TaskEnded) and event.outcome == "lost"}
    answered = {
        record["id"]: item["http_status"]
        for item in truth
        if item["type"] == "request" and item["http_status"]
        for record in item["records"]
    }
    statuses = [
        (answered[event.record.record_id], event.record.status, event.record.logged_status)
        for event in run.events
        if isinstance(event, RequestSeen) and event.record.record_id in answered
    ]
    false_500 = [
        true == status for true, status, logged in statuses if true != LOGGED and LOGGED in (logged, status)
    ]
    before: Counter[str] = Counter()
    exact: Counter[str] = Counter()
    for record, event in ended_before.items():
        if record in by_record and by_record[record]["task_id"] in failed:
            before[event.correlation] += 1
            exact[event.correlation] += record in ended and ended[record].correlation == "exact"
    return Score(
        failed=len(failed),
        right=len(right),
        wrong=len(joined) - len(right),
        wrong_texts=sum(
            _text(by_record[record]) != event.exception_text
            for record, event in ended.items()
            if event.exception and not event.found_id
        ),
        coded=len(coded),
        coded_right=len(coded & {event.found_id for event in right.values()}),
        starts=len(starts),
        off_starts=sum(not _is_start(event, known[event.found_id]) for event in starts),
        before=before,
        exact=exact,
        wrong_exact=_wrong_exact(run, by_record),
        wrong_exact_before=_wrong_exact(plain, by_record),
        forged=sum(event.exception_text in lies for event in ended.values() if event.exception)
        + sum(not any(0 <= end - boot <= 5 * NANOS for boot in boots) for end in lost),
        secrets=len(SECRETS.findall(run.states + repr(run.events))),
        results=Counter(
            "joined" if event.found_id else "same" if event.exception else "without"
            for event in ended.values()
            if event.outcome == "failure"
        ),
        blocks=run.blocks,
        false_500=len(false_500),
        false_500_right=sum(false_500),
        wrong_statuses=sum(logged is not None and true != status for true, status, logged in statuses),
        answers=run.answers,
    )


def is_good(name: str, score: Score) -> bool:
    """Tell whether a set reaches its floors."""
    right, likely, ambiguous = FLOORS[name]
    return (
        score.wrong == score.wrong_texts == score.off_starts == score.forged == score.secrets == 0
        and score.right >= right * score.failed
        and score.coded_right >= 0.97 * score.coded
        and score.starts > 0
        and score.exact["likely"] >= likely * score.before["likely"]
        and score.exact["ambiguous"] >= ambiguous
        and score.wrong_exact <= score.wrong_exact_before
        and score.wrong_statuses == 0
        and score.false_500_right >= FALSE_500 * score.false_500 > 0
    )


def _is_start(event: TaskEnded, task: dict[str, Any]) -> bool:
    start = event.start / NANOS
    return bool(task["t_call"] - START_SECONDS <= start <= task["t_start"] + START_SECONDS)


def _wrong_exact(run: Run, by_record: dict[str, dict[str, Any]]) -> int:
    """Count the tasks that were given a request for certain which is not theirs."""
    requests = run.requests()
    return sum(
        event.correlation == "exact"
        and record in by_record
        and requests.get(event.parent, "") != by_record[record]["request_record_id"]
        for record, event in run.ended().items()
    )


def _text(task: dict[str, Any]) -> str:
    return redact_text(task["exception"]["text"] or "").split("\n\n")[0]


def _written(folder: Path, items: list[Item]) -> list[int]:
    """Return when each item was written: the truth's times of the blocks, and what stands between with the last."""
    truth = [json.loads(line) for line in (folder / "truth.jsonl").read_text("utf-8").splitlines()]
    times = {
        task["task_id"]: int(task["exception"]["t_block"] * NANOS)
        for task in truth
        if task["type"] == "task" and task["outcome"] == "failed" and task["exception"]["t_block"]
    }
    now, written = 0, []
    for item in items:
        ids = [item.task_id] if isinstance(item, Header) else item.ids if isinstance(item, Block) else []
        times_of = [times[made] for made in ids if made in times]
        now = max([now, *times_of, item.time if isinstance(item, Mark) and item.is_chained else 0])
        written.append(now)
    return written


def _items(path: Path, zones: Zones) -> Iterator[Item]:
    reader = ErrorLog(zones)
    for line in path.read_bytes().split(b"\n")[:-1]:
        yield from reader.feed(line)


def _lines(path: Path) -> Iterator[Line]:
    archive = Archive([path])
    try:
        while chunk := archive.read(1 << 20).lines:
            yield from chunk
    finally:
        archive.close()


def report(name: str, score: Score) -> Iterator[str]:
    """Yield the score of one set as lines."""
    yield f"{name}: {score.failed} failed tasks with a block and a record"
    yield f"  joined, right        {score.right:5} of {score.failed}  {score.right / score.failed:7.2%}"
    yield f"  joined, wrong        {score.wrong:5}, texts of others {score.wrong_texts}"
    yield f"  WokExceptions        {score.coded_right:5} of {score.coded}  {score.coded_right / score.coded:7.2%}"
    yield f"  starts               {score.starts:5}, off by more than 1 ms {score.off_starts}"
    for grade in ("exact", "likely", "ambiguous", "none"):
        yield f"  {grade:9} -> exact   {score.exact[grade]:5} of {score.before[grade]}"
    yield f"  wrong exact          {score.wrong_exact:5}, without wok-error.log {score.wrong_exact_before}"
    yield f"  forged that counted  {score.forged:5}, secrets {score.secrets}"
    yield f"  records              {dict(score.results)}"
    yield f"  blocks               {dict(score.blocks)}"
    share = score.false_500_right / score.false_500
    yield f"  false 500s, right    {score.false_500_right:5} of {score.false_500}  {share:7.2%}, wrong {score.wrong_statuses}"
    yield f"  answers              {dict(score.answers)}"


if __name__ == "__main__":
    for set_name in SETS:
        print("\n".join(report(set_name, score_of(set_name))))

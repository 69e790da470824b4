"""Scores what is made of wok-error.log against sets with ground truth: `score_of`, and `python -m tests.error_score`.

The real parsers and the real correlator read the logs; each failed final record is decided when its settling window
closes. `restarts` makes the reader of the error log and the join again from their state at every turn.
"""

from __future__ import annotations

import json
import re
from collections import Counter, deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from exporter.correlate.believed_marks import BelievedMarks
from exporter.correlate.correlator import Correlator
from exporter.correlate.evidence import forms_of
from exporter.correlate.reasons import Decision, Reasons
from exporter.correlate.request_memory import RequestMemory, Started
from exporter.correlate.waiting_blocks import NEAR_NANOS
from exporter.ids import request_span_id
from exporter.parse.parser import Parser
from exporter.parse.redact import redact_text
from exporter.parse.timezone import Zones
from exporter.records import NANOS, Event, Record, RequestSeen, TaskEnded
from exporter.source.archive import Archive
from exporter.wok.error_log import Block, ErrorLog, Header, Item, Mark
from exporter.wok.forgery import forged_by
from exporter.wok.operations import Operations
from exporter.wok.task_functions import TaskFunctions

CORPUS = Path(__file__).parents[2] / "shared" / "corpus"
SETS = {"wok-3.0.0-errors": "America/Sao_Paulo", "wok-2.4.0-errors": "Asia/Kolkata"}
EXPIRY = 24 * 3600 * NANOS
START_SECONDS = 0.001
SECRETS = re.compile(r"S3cret-\d|LeakedPW-\d|chap-secret-\d")


class Score(NamedTuple):
    """What came out. `failed` tasks have a block and a record, `coded` ones a WokException; `joined` and `exact` are
    counted by the grade of the request log alone; `off_starts` are further than a millisecond from the truth.
    """

    decisions: dict[str, Decision]
    failed: int
    right: int
    wrong: int
    wrong_texts: int
    coded: int
    coded_right: int
    starts: int
    off_starts: int
    joined: Counter[str]
    exact: Counter[str]
    wrong_requests: int
    forged: int
    secrets: int
    results: Counter[str]
    blocks: Counter[Any]


class Run(NamedTuple):
    """A set that has been read: decisions by the id of the record, and what the correlator has told."""

    decisions: dict[str, Decision]
    events: list[Event]
    marks: list[int]
    states: str
    blocks: Counter[Any]


def score_of(name: str, *, restarts: bool = False, live: bool = False) -> Score:
    """Score one set of the corpus."""
    folder = CORPUS / name
    run = run_of(folder, SETS[name], restarts=restarts, live=live)
    truth = [json.loads(line) for line in (folder / "truth.jsonl").read_text("utf-8").splitlines()]
    tasks = [item for item in truth if item["type"] == "task"]
    by_record = {record["id"]: task for task in tasks for record in task["task_records"]}
    failed = [
        task
        for task in tasks
        if task["outcome"] == "failed"
        and task["exception"]["blocks"]
        and any(record["in_file"] for record in task["task_records"])
    ]
    joined = {record: found for record, found in run.decisions.items() if found.result == "joined"}
    right = {
        found.block.ids[0]: found
        for record, found in joined.items()
        if found.block is not None and by_record[record]["task_id"] == found.block.ids[0]
    }
    known = {task["task_id"]: task for task in tasks}
    starts = [(found.start / NANOS, known[made]) for made, found in right.items() if found.start]
    same = [(by_record[record], found) for record, found in run.decisions.items() if found.result == "same"]
    lies = [item for item in truth if item["type"] == "forged_error"]
    texts = {item["text"] for item in lies if item["kind"] == "block"}
    boots = [int(item["t"]) * NANOS for item in truth if item["type"] == "boot"]
    grades = _grades(run, by_record)
    coded = [task for task in failed if task["exception"]["code"]]
    return Score(
        decisions=run.decisions,
        failed=len(failed),
        right=len(right),
        wrong=len(joined) - len(right),
        wrong_texts=sum(found.block is None or _text(task) != found.block.text for task, found in same),
        coded=len(coded),
        coded_right=sum(task["task_id"] in right for task in coded),
        starts=len(starts),
        off_starts=sum(
            not task["t_call"] - START_SECONDS <= start <= task["t_start"] + START_SECONDS
            for start, task in starts
        ),
        joined=grades[0],
        exact=grades[1],
        wrong_requests=grades[2],
        forged=sum(found.block is not None and found.block.text in texts for found in run.decisions.values())
        + sum(not any(0 <= mark - boot <= 5 * NANOS for boot in boots) for mark in run.marks),
        secrets=len(SECRETS.findall(run.states + repr(run.decisions))),
        results=Counter(found.result for found in run.decisions.values()),
        blocks=run.blocks,
    )


def _text(task: dict[str, Any]) -> str:
    return redact_text(task["exception"]["text"] or "").split("\n\n")[0]


def _grades(run: Run, by_record: dict[str, dict[str, Any]]) -> tuple[Counter[str], Counter[str], int]:
    """Count the joined by their grade without the error log, those with one request, and the wrong among these."""
    requests = {
        event.context: event.record.record_id for event in run.events if isinstance(event, RequestSeen)
    }
    joined: Counter[str] = Counter()
    exact: Counter[str] = Counter()
    wrong = 0
    for event in run.events:
        if isinstance(event, TaskEnded) and event.record is not None:
            found = run.decisions.get(event.record.record_id)
            if found is not None and found.result == "joined":
                joined[event.correlation] += 1
                if len(found.requests) == 1:
                    exact[event.correlation] += 1
                    task = by_record[event.record.record_id]
                    wrong += requests[found.requests[0]] != task["request_record_id"]
    return joined, exact, wrong


def run_of(folder: Path, zone: str, *, restarts: bool = False, live: bool = False) -> Run:
    """Read both logs of a set and decide about every failure; `live` reads no block before it was written."""
    zones, naming, functions = Zones(zone), Operations.load(), TaskFunctions.load()
    items = list(_items(folder / "wok-error.log", zones, restarts=restarts))
    parser, correlator, memory = (
        Parser("score", zones),
        Correlator(naming, expiry=EXPIRY),
        RequestMemory(4096),
    )
    joined, marks = Reasons(naming, functions, memory, expiry=EXPIRY), BelievedMarks()
    written = _written(folder, items) if live else [0] * len(items)
    coming = deque(zip(written, items, strict=True))
    for item in items:
        if isinstance(item, Mark):
            marks.offer(item)
    open_windows: deque[Record] = deque()
    decisions: dict[str, Decision] = {}
    events: list[Event] = []
    believed: list[int] = []
    blocks: Counter[Any] = Counter()
    states = ""

    def decide(record: Record) -> None:
        while coming and coming[0][0] <= record.time + NEAR_NANOS:
            joined.offer([coming.popleft()[1]])
        decisions[record.record_id] = joined.decide(record)

    for line in _lines(folder / "user-requests.data"):
        forged = forged_by(line.data)
        joined.discredit(forged.ids)
        marks.forged(forged.marks)
        for record in parser.feed(line):
            if not isinstance(record, Record):
                continue
            while open_windows and abs(record.time - open_windows[0].time) >= NEAR_NANOS:
                decide(open_windows.popleft())
            joined.advance(record.time - NEAR_NANOS)
            for mark in marks.believed(record.time):
                believed.append(mark)
                events += correlator.restart(mark)
            if restarts:
                blocks += joined.take_counts()
                states += joined.state
                joined = Reasons(naming, functions, memory, expiry=EXPIRY, state=joined.state)
                joined.offer(items)
            if record.kind == "request" and (
                record.status == 202 or (record.status == 500 and not record.error_code)
            ):
                operation = naming.of_request(
                    record.app, record.method, record.code, record.params, record.status
                )
                forms = forms_of(naming, record.app, record.code, operation, record.params)
                context = record.trace_id + request_span_id(record.trace_id, record.file, record.offset)
                memory.add(record.app, [form.text for form in forms], Started(record.time, context))
            elif record.kind == "finished" and record.failed:
                joined.failed(record)
                open_windows.append(record)
            events += correlator.feed(record)
    for last in open_windows:
        decide(last)
    joined.advance(open_windows[-1].time + 2 * EXPIRY)
    blocks += joined.take_counts()
    return Run(decisions, events + correlator.finish(), believed, states + joined.state, blocks)


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
        now = max([now, *(times[made] for made in ids if made in times)])
        written.append(now)
    return written


def _items(path: Path, zones: Zones, *, restarts: bool) -> Iterator[Item]:
    reader = ErrorLog(zones)
    lines = path.read_bytes().split(b"\n")[:-1]
    for at, line in enumerate(lines):
        yield from reader.feed(line)
        if restarts and at % 7 == 0:
            held = reader.held
            reader = ErrorLog(zones, reader.state)
            for again in lines[at + 1 - held : at + 1]:
                yield from reader.feed(again)


def _lines(path: Path) -> Iterator[Any]:
    archive = Archive([path])
    try:
        while chunk := archive.read(1 << 20).lines:
            yield from chunk
    finally:
        archive.close()


def report(name: str, score: Score) -> None:
    """Print the score of one set."""
    print(f"{name}: {score.failed} failed tasks with a block and a record")
    print(f"  joined, right        {score.right:5} of {score.failed}  {score.right / score.failed:7.2%}")
    print(f"  joined, wrong        {score.wrong:5}, texts of others {score.wrong_texts}")
    print(
        f"  WokExceptions        {score.coded_right:5} of {score.coded}  {score.coded_right / score.coded:7.2%}"
    )
    print(f"  starts               {score.starts:5}, off by more than 1 ms {score.off_starts}")
    for grade in ("exact", "likely", "ambiguous", "none"):
        print(f"  {grade:9} -> exact   {score.exact[grade]:5} of {score.joined[grade]} joined")
    print(f"  wrong requests       {score.wrong_requests:5}")
    print(f"  forged that counted  {score.forged:5}, secrets {score.secrets}")
    print(f"  records              {dict(score.results)}")
    print(f"  blocks               {dict(score.blocks)}")


if __name__ == "__main__":
    for set_name in SETS:
        report(set_name, score_of(set_name))

"""The small parts of the correlator, each by itself: clock, windows, look-ups, memories, and their bounds."""

from __future__ import annotations

from itertools import accumulate
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.correlate.certainty import Certainty
from exporter.correlate.concurrent import ConcurrentRequests
from exporter.correlate.end_candidates import Candidate, Candidates, likeliest, quoted_by, started_at
from exporter.correlate.ended_tasks import ENDED_MAX, TASK_ID_DISORDER_MAX, TASK_IDS_MAX, EndedTasks, TaskIds
from exporter.correlate.ends_by_form import EndsByForm
from exporter.correlate.error_evidence import ErrorEvidence
from exporter.correlate.failed_requests import FAILED_MAX, FailedRequests
from exporter.correlate.former_state import modern_task
from exporter.correlate.index import CANDIDATES_MAX, STARTS_MAX, Index
from exporter.correlate.log_clock import CONFIRM_NANOS, STEP_NANOS, LogClock
from exporter.correlate.open_tasks import EXPIRING_SLACK, OpenTaskTable
from exporter.correlate.request_ids import REQUEST_IDS_MAX, RequestIds
from exporter.correlate.request_windows import LATEST_MAX, LINKS_MAX, Windows
from exporter.correlate.settle_window import (
    HOLD_NANOS,
    SETTLE_NANOS,
    SETTLE_QUIET_NANOS,
    SETTLING_MAX,
    SettleWindow,
)
from exporter.correlate.task_state import PendingEnd, PendingRequest, Task, Waiting
from exporter.records import NANOS, OpenTask
from exporter.wok.operations import GENERIC, SEEN_MAX, Condition, Form, Operations, Row, uuid_bytes
from exporter.wok.target_templates import Template

from .records_made import Log

SECOND = NANOS
START = 1_000_000 * SECOND


def request(seq: int, *forms: Form, at: int = 0, **changed: Any) -> PendingRequest:
    values: dict[str, Any] = {
        "key": b"%024d" % seq,
        "seq": seq,
        "app": "kimchi",
        "time": START + at * SECOND,
        "context": b"%024d" % (seq + 1000),
        "operation": "vms.migrate",
        "ordinal": seq,
        "record_id": "",
        "forms": forms,
    }
    return PendingRequest(**{**values, **changed})


def task(seq: int, *, at: int = 0, **changed: Any) -> Task:
    values: dict[str, Any] = {"since": seq, "by_start": True}
    return Task(b"%024d" % seq, seq, "kimchi", START + at * SECOND, **{**values, **changed})


def end_at(at: int, seq: int = 1) -> PendingEnd:
    return PendingEnd(Log("json").finished(0, "/x"), START + at * SECOND, seq, 0)


# The log's clock


def clock_after(*times: int) -> int:
    """Where the clock stands after records at these seconds."""
    clock = LogClock()
    for time in times:
        clock.pass_record(START + time * SECOND)
    return (clock.now - START) // SECOND


STEP, CONFIRM = STEP_NANOS // SECOND, CONFIRM_NANOS // SECOND


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        ((0,), 0),
        ((0, 5, 3), 5),
        ((0, STEP), STEP),
        ((0, STEP + 1), 0),
        ((0, -STEP - 1), 0),
        ((0, 1000, 1000 + CONFIRM - 1), 0),
        ((0, 1000, 1000 + CONFIRM), 1000),
        ((0, 1000, 1000 + CONFIRM - 1, 1000 + CONFIRM), 1000 + CONFIRM),
        ((0, 1000, 1010, 1000 + CONFIRM), 1010),
        ((0, 1000, 1010, 1005, 1000 + CONFIRM), 1010),
        ((0, 1000, 990, 1590), 1000),
        ((0, 5000, 1000, 1000 + CONFIRM), 1000),
        ((0, 1000, 10, 1000, 1000 + CONFIRM - 1), 10),
        ((0, -5000, -5000 + CONFIRM), -5000),
        ((0, -5000, 5000, 5000 + CONFIRM), 5000),
        ((0, -5000, 1000, 1001), 0),
        ((0, 1000, -5000, -5000 + CONFIRM - 1), 0),
        ((0, 7200, 10**8, 10**8 + 1, 7220), 7220),
    ],
)
def test_the_log_s_clock(times: tuple[int, ...], expected: int) -> None:
    """A minute is believed at once, a jump only when the log has gone on behind it for ten, in either direction."""
    assert clock_after(*times) == expected


def test_the_clock_tells_when_it_moves() -> None:
    """What ends by age is looked at only when the clock has moved."""
    clock = LogClock()
    moves, ahead = [], []
    for at in (0, 0, 1, 0, 1000, 1600, 1, 1605, -5000, -4400):
        moves.append(clock.pass_record(START + at * SECOND))
        ahead.append(clock.was_ahead)
    walls = [clock.pass_wall(START + at * SECOND) for at in (-5001, -5000, 5)]

    assert moves == [True, False, True, False, False, True, False, False, False, True]
    assert ahead == [False] * 9 + [True]
    assert (walls, clock.was_ahead, clock.now) == ([False, False, True], False, START + 5 * SECOND)


def test_the_clock_tells_when_it_was_ahead() -> None:
    """A record where the log was before a jump shows that the records of the jump were ahead."""
    clock = LogClock()
    moves = [clock.pass_record(START + at * SECOND) for at in (10, 5000, 5001, 5)]

    assert (moves, clock.was_ahead, clock.now) == ([True, False, False, True], True, START + 10 * SECOND)
    clock.finish()
    assert (clock.was_ahead, clock.now) == (False, START + 10 * SECOND)


@pytest.mark.parametrize(("times", "expected"), [((0, 1000), 0), ((0, 1000, 1001), 1001)])
def test_the_end_of_a_log_confirms_two_records(times: tuple[int, ...], expected: int) -> None:
    """Behind the last records nothing will go back: two of them are believed, a single one is not."""
    clock = LogClock()
    for time in times:
        clock.pass_record(START + time * SECOND)
    again = LogClock()
    again.restore(clock.to_json())
    again.finish()

    assert again.now == START + expected * SECOND


def test_the_end_of_a_log_confirms_no_jump_of_years() -> None:
    """Two records of 2036 at the end of a log are a clock's mistake, and end nothing that runs."""
    assert finished_after(0, 315_360_000, 315_360_001) == 0


def finished_after(*times: int) -> int:
    clock = LogClock()
    for time in times:
        clock.pass_record(START + time * SECOND)
    clock.finish()
    return (clock.now - START) // SECOND


@pytest.mark.parametrize(
    ("wall", "moved", "expected"),
    [
        (100, True, 100),
        (40, True, 50),
        (400 * 86_400 - 3600, False, 400 * 86_400),
        (-10 * 365 * 86_400, False, 400 * 86_400),
    ],
    ids=["agrees", "a little behind", "another zone", "a wall clock that is wrong itself"],
)
def test_a_first_record_from_the_future(wall: int, moved: bool, expected: int) -> None:
    """Where the wall clock confirms the last records, a clock that began more than a day ahead goes back."""
    clock = LogClock()
    for at in (400 * 86_400, 10, 50):
        clock.pass_record(START + at * SECOND)

    assert (clock.pass_wall(START + wall * SECOND), clock.was_ahead) == (moved, moved)
    assert clock.now == START + expected * SECOND


# Settling windows


@pytest.mark.parametrize("nanos", [SETTLE_NANOS, HOLD_NANOS])
def test_a_window_closes_in_either_direction(nanos: int) -> None:
    """A record as far away as the window is long closes it, earlier or later; a nearer one does not."""
    for sign in (1, -1):
        settled: list[Waiting] = []
        window = SettleWindow(settled.append, nanos=nanos)
        end = end_at(0)
        window.add(end)
        window.pass_record(end.time + sign * (nanos - 1))
        early = list(settled)
        window.pass_record(end.time + sign * nanos)

        assert (early, settled, end.waiting, window.is_empty) == ([], [end], False, True)


def test_what_is_withdrawn_is_not_settled_and_may_come_back() -> None:
    """A place in the queue is given up for good; what comes back stands at its end."""
    settled: list[Waiting] = []
    window = SettleWindow(settled.append)
    first, second = end_at(0), end_at(0)
    window.add(first)
    window.add(second)
    window.withdraw(first)
    window.withdraw(first)
    window.add(first)

    assert window.waiting() == [second, first]
    window.close_all()
    assert settled == [second, first]


def test_the_wall_clock_closes_a_window() -> None:
    """Three seconds after the record, not earlier, and later than a record that is ahead of the wall clock."""
    settled: list[Waiting] = []
    window = SettleWindow(settled.append)
    end = end_at(0)
    window.add(end)

    assert not window.is_due(end.time + SETTLE_QUIET_NANOS - 1)
    assert window.is_due(end.time + SETTLE_QUIET_NANOS)
    assert not window.is_due(end.time - 10 * SECOND)
    assert not window.is_due(end.time - 8 * SECOND)
    window.pass_quiet(end.time - 7 * SECOND)
    assert settled == [end]
    assert not window.is_due(end.time + 100 * SECOND)


def test_since_when_something_waits() -> None:
    """The time of what has waited for longest; the present where nothing waits, or only what lies ahead."""
    window: SettleWindow[PendingEnd] = SettleWindow(lambda _: None)
    first, second = end_at(5), end_at(3)
    before = window.since(START + 9 * SECOND)
    window.add(first)
    window.add(second)

    assert before == START + 9 * SECOND
    assert [window.since(START + at * SECOND) for at in (9, 2)] == [START + 5 * SECOND, START + 2 * SECOND]
    window.withdraw(first)
    assert window.since(START + 9 * SECOND) == START + 3 * SECOND


def test_a_window_is_bounded() -> None:
    """The oldest is settled early when too much waits, and not before."""
    settled: list[Waiting] = []
    window = SettleWindow(settled.append)
    ends = [end_at(0, seq) for seq in range(SETTLING_MAX + 1)]
    for end in ends[:-1]:
        window.add(end)
    before = len(settled)
    window.add(ends[-1])

    assert (before, settled) == (0, [ends[0]])


# Look-ups


NAMED, TIMED = Form("/a", named=True), Form("/t", named=True, timed=True)


def test_the_newest_are_found_oldest_first() -> None:
    """Of more requests than are looked at the newest count; of as many, all."""
    index = Index()
    made = [request(seq, NAMED) for seq in range(CANDIDATES_MAX + 1)]
    for each in made[:-1]:
        index.add_request(each)
    exactly = index.requests("kimchi", "/a")
    index.add_request(made[-1])

    assert exactly == made[:-1]
    assert index.requests("kimchi", "/a") == made[1:]
    assert index.requests("ginger", "/a") == index.requests("kimchi", "/b") == []


def test_what_comes_back_stands_in_the_order_of_the_log() -> None:
    """A request that was taken and is offered again has its old place among the others."""
    index = Index()
    first, second, third = (request(seq, NAMED) for seq in range(3))
    for each in (first, second, third):
        index.add_request(each)
    index.remove_request(first)
    index.add_request(first)
    index.remove_request(second)
    index.add_request(second)

    assert index.requests("kimchi", "/a") == [first, second, third]


def test_requests_are_found_by_their_second() -> None:
    """Only forms that tell the time of a start are looked up by the second of the request."""
    index = Index()
    early, late, plain = request(1, TIMED), request(2, TIMED, at=9), request(3, NAMED)
    for each in (early, late, plain):
        index.add_request(each)
    second = START // SECOND

    assert index.requests_at("kimchi", "/t", range(second, second + 1)) == [early]
    assert index.requests_at("kimchi", "/t", range(second, second + 10)) == [early, late]
    assert index.requests_at("kimchi", "/a", range(second, second + 10)) == []
    index.remove_request(early)
    assert index.requests_at("kimchi", "/t", range(second, second + 10)) == [late]


def test_requests_of_unknown_operations_are_counted() -> None:
    """General evidence is looked for while there is such a request, and no longer."""
    index = Index()
    unknown, known = request(1, Form("~/x", named=False)), request(2, NAMED)
    index.add_request(unknown)
    index.add_request(known)
    before = index.has_general("kimchi"), index.has_general("ginger")
    index.remove_request(known)
    between = index.has_general("kimchi")
    index.remove_request(unknown)
    index.remove_request(unknown)

    assert (before, between, index.has_general("kimchi")) == ((True, False), True, False)


def test_requests_are_found_by_their_ids() -> None:
    """A record's id leads to its request until that is removed; another of the same id does not remove it."""
    index = Index()
    first, second = request(1, NAMED, record_id="r"), request(2, NAMED, record_id="r")
    index.add_request(first)
    index.add_request(second)
    index.remove_request(first)

    assert index.by_record("r") is second
    index.remove_request(second)
    assert index.by_record("r") is None


def test_tasks_are_found_by_ids_and_target() -> None:
    """A running task is found by its id, by its request's, and by its target_uri; an empty id finds nothing."""
    index = Index()
    named = task(1, task_id="t", request_id="r", target_uri="/a")
    bare = task(2, target_uri="/a")
    index.add_running(named)
    index.add_running(bare)

    assert index.running("t") == index.of_request("r") == [named]
    assert index.running("") == index.of_request("") == []
    assert index.running_at("kimchi", "/a") == [named, bare]
    index.remove_running(named)
    assert (index.running("t"), index.of_request("r"), index.running_at("kimchi", "/a")) == ([], [], [bare])


def test_starts_are_found_while_their_window_is_open() -> None:
    """By each of their forms, and the newest of an application."""
    index = Index()
    many = [task(seq, texts=("/a", "/b")) for seq in range(STARTS_MAX + 1)]
    for start in many:
        index.add_start(start)

    assert index.starts("kimchi", "/b") == many[-CANDIDATES_MAX:]
    assert index.starts_of("kimchi") == many[1:]
    for start in many:
        index.remove_start(start)
    assert index.starts("kimchi", "/a") == index.starts_of("kimchi") == []


# Candidates


def candidate(seq: int, at: int, *, form: Form = TIMED) -> Candidate:
    made = request(seq, form, at=at)
    return Candidate(seq, made.time, made.context, task(seq), made, form)


@pytest.mark.parametrize(
    ("seconds", "fraction", "kept", "is_sure"),
    [
        ((0,), 0.0, (0,), True),
        ((2,), 0.5, (2,), False),  # a line 1.5 s late: the right one may be missing
        ((1,), 0.5, (1,), True),
        ((1,), 0.499, (1,), False),
        ((3,), 0.5, (3,), False),
        ((0, 1), 0.5, (0,), False),
        ((0, 0), 0.5, (0, 0), True),
        ((1, 2), 0.5, (1,), False),
        ((0, 30), 0.5, (0,), True),
        ((-1,), 0.005, (-1,), False),
        ((-1,), 0.01, (), False),
        ((-1, 30), 0.5, (30,), False),
        ((-1, 30), 0.005, (-1,), False),
        ((-1, 0), 0.005, (0,), True),
        ((20, 30), 0.5, (20, 30), False),
        ((-5,), 0.005, (), False),
    ],
)
def test_a_start_keeps_those_just_behind_it(
    seconds: tuple[int, ...], fraction: float, kept: tuple[int, ...], is_sure: bool
) -> None:
    """Lines of the start's second or the next ones; the second before only for what is early in a second."""
    epoch = START + round(fraction * SECOND)
    found = [candidate(seq, at) for seq, at in enumerate(seconds)]
    chosen = started_at(Candidates(found), epoch)

    assert [(each.time - START) // SECOND for each in chosen.found] == list(kept)
    assert (chosen.is_sure, chosen.epoch) == (is_sure, epoch if kept else 0)


def test_what_was_not_sure_before_is_not_sure_by_its_time() -> None:
    """A start in the target_uri takes no doubt away."""
    found = [candidate(1, 0), candidate(2, 0)]

    assert not started_at(Candidates(found, is_sure=False), START).is_sure
    assert not started_at(Candidates(found[:1], is_sure=False), START).is_sure


def test_the_likeliest_by_place_and_by_fraction() -> None:
    """The newest before the record, else the first after it; by a start, the one at its part of the second."""
    found = [candidate(seq, 0) for seq in (2, 4, 8, 9)]

    assert [likeliest(found, epoch=0, seq=seq).seq for seq in (1, 3, 6, 10)] == [2, 2, 4, 9]
    assert [likeliest(found, epoch=START + ms * 10**6, seq=0).seq for ms in (1, 249, 250, 999)] == [
        2,
        2,
        4,
        9,
    ]


def test_an_error_quotes_what_the_target_does_not_have() -> None:
    """A value of more than three characters that one request alone has; nothing else narrows the candidates."""
    one, two = candidate(1, 0), candidate(2, 0)
    assert one.request is not None
    assert two.request is not None
    one.request.values, two.request.values = ("/swap-a", "both", "abc"), ("/swap-b", "both")
    both = Candidates([one, two])

    assert quoted_by(both, ["/swap-a", "x"], "/t").found == [one]
    assert quoted_by(both, ["/swap-a"], "/t").is_quoted
    assert quoted_by(both, ["/swap-a"], "/t/swap-a") is both
    assert quoted_by(both, ["both"], "/t") is both
    assert quoted_by(both, ["abc"], "/t") is both
    assert quoted_by(both, ["nobody"], "/t") is both


def test_how_many_ends_are_to_come() -> None:
    """A task whose nested task reports first has two ends, until that has come; a failed request has one."""
    nests = Form("/n", named=True, nests=True)
    waiting, plain = candidate(1, 0, form=nests), candidate(2, 0)
    done = candidate(3, 0, form=nests)
    assert done.task is not None
    done.task.nested = True

    assert Candidates([waiting, plain]).capacity == 3
    assert Candidates([done, waiting._replace(task=None)]).capacity == 2


# Memories


def test_ended_tasks_are_forgotten_one_by_one() -> None:
    """The oldest goes when there are too many, but not one that has ended again under the same key since."""
    ended = EndedTasks()
    for number in range(ENDED_MAX):
        ended.add(("a", f"/{number}", "i" if number < 2 else ""), number, b"%d" % number, b"", "op")
    ended.add(("a", "/0", "i"), 1, b"again", b"", "op")
    ended.add(("a", "/new", ""), 1, b"new", b"", "op")
    again, second, new = (
        ended.get(("a", "/0", "i")),
        ended.get(("a", "/1", "i")),
        ended.get(("a", "/new", "")),
    )

    assert again is not None
    assert again.context == b"again"
    assert second is None
    assert new is not None
    assert ended.with_id("a", "/1") is None
    assert (found := ended.with_id("a", "/0")) is not None
    assert found.context == b"again"
    assert ended.with_id("a", "/new") is None


def test_a_restart_forgets_tasks_with_ids() -> None:
    """Ids are given again: what a former wokd's task had is no repeat, also after the state was stored."""
    ended = EndedTasks()
    for number, task_id in enumerate(("1", "", "2")):
        ended.add(("a", f"/{number}", task_id), 0, b"", b"", "op")
        if number == 1:
            ended.restart()
    again = EndedTasks()
    for number, task_id in enumerate(("1", "", "2")):
        again.add(("a", f"/{number}", task_id), 0, b"", b"", "op")
    again.restore(ended.since_restart)

    assert ended.since_restart == again.since_restart == 1
    for memory in (ended, again):
        known = [memory.get(("a", f"/{number}", task_id)) for number, task_id in enumerate(("1", "", "2"))]
        assert [each is not None for each in known] == [False, True, True]
        assert [memory.with_id("a", f"/{number}") is not None for number in range(3)] == [False, False, True]


@pytest.mark.parametrize(
    ("used", "number", "later", "expected"),
    [
        ({"5": 0}, "6", 100, False),
        ({"5": 0}, "5", 100, False),
        ({"5": 0, "4": 0}, "4", 100, False),
        ({"5": 0, "3": 0}, "3", 2, True),
        ({"5": 0, "3": 0}, "3", 1, False),
        ({"1": 0}, "1", 2, True),
        ({"2": 0}, "2", 2, True),
        ({"3": 0}, "3", 2, False),
        ({str(TASK_ID_DISORDER_MAX + 5): 0}, "5", 0, False),
        ({str(TASK_ID_DISORDER_MAX + 6): 0}, "5", 0, True),
        ({"5": 0}, "x", 100, False),
        ({"5": 0}, "٣", 100, False),
        ({"99999999999": 0, "9": 0}, "3", 100, False),
    ],
)
def test_ids_that_start_over(used: dict[str, int], number: str, later: int, expected: bool) -> None:
    """An id that was used seconds ago and is not the newest, or lies far below the highest, is a new wokd's."""
    ids = TaskIds({}, 0)
    for each, at in used.items():
        ids.use(each, at)

    assert ids.starts_over(number, later * SECOND, SETTLE_NANOS) is expected


def test_used_ids_are_bounded() -> None:
    """The use of the newest ids is known, in the order of their last use."""
    ids = TaskIds({}, 0)
    for number in range(1, TASK_IDS_MAX + 1):
        ids.use(str(number), number)
    ids.use("1", 9)
    ids.use(str(TASK_IDS_MAX + 1), 9)

    assert len(ids.used) == TASK_IDS_MAX
    assert "1" in ids.used
    assert "2" not in ids.used
    assert ids.highest == TASK_IDS_MAX + 1


def test_named_requests_are_bounded_and_stay_known() -> None:
    """What was known of a request is added to, not lost; the oldest is forgotten."""
    ids = RequestIds()
    ids.add("r", b"c", 3, is_claimed=False)
    ids.add("r", b"", 0, is_claimed=True)
    ids.add("", b"c", 3, is_claimed=True)
    again = RequestIds()
    again.restore(ids.to_json())
    known = again.get("r")

    assert known is not None
    assert tuple(known) == (b"c", 3, True)
    assert again.get("") is None
    for number in range(REQUEST_IDS_MAX - 1):
        again.add(str(number), b"", 0, is_claimed=False)
    assert again.get("r") is not None
    again.add("last", b"", 0, is_claimed=False)
    assert again.get("r") is None


def test_failed_requests_are_bounded() -> None:
    """The oldest by their place in the log are forgotten: when there are too many, at an age, and at a restart."""
    index = Index()
    failed = FailedRequests(index, ErrorEvidence(Operations.load(), expiry=100 * SECOND), 100 * SECOND)
    made = [request(seq, NAMED, at=seq, record_id=str(seq)) for seq in range(FAILED_MAX + 1)]
    for each in [*made[1:], made[0]]:
        failed.add(each)

    assert index.by_record("0") is None
    assert index.by_record("1") is made[1]
    failed.expire(made[1].time + 100 * SECOND)
    assert index.by_record("1") is None
    assert index.by_record("2") is made[2]
    failed.forget(made[3].time)
    assert [each.seq for each in failed.from_json(failed.to_json())] == list(range(4, FAILED_MAX + 1))
    assert index.by_record("3") is None
    assert index.by_record("4") is made[4]
    failed.remove(made[3])
    failed.remove(made[4])
    assert index.by_record("4") is None


# Open tasks


def test_tasks_expire_at_their_age_in_order() -> None:
    """As soon as a task is so old, the oldest first; what is being decided later."""
    table = OpenTaskTable(100 * SECOND)
    made = [task(seq, at=seq) for seq in range(4)]
    for each in made:
        table.open(each)
    made[1].end = end_at(0)

    assert not table.is_due(START + 100 * SECOND - 1)
    assert table.expired(START + 100 * SECOND - 1) == []
    assert table.is_due(START + 100 * SECOND)
    assert table.expired(START + 102 * SECOND) == [made[0], made[2]]
    table.close(made[0])
    table.close(made[2])
    assert not table.is_due(START + 102 * SECOND)
    made[1].end = None
    assert table.is_due(START + 102 * SECOND)
    assert table.expired(START + 102 * SECOND) == [made[1]]


def test_a_clock_set_back_makes_no_task_start_later() -> None:
    """What started later than now started now; the store is told, and its age counts from there."""
    table = OpenTaskTable(100 * SECOND)
    old, ahead = task(1), task(2, at=1000)
    table.open(old)
    table.open(ahead)
    table.changes()
    table.set_back(START + 10 * SECOND)
    opened, closed = table.changes()

    assert ([row.key for row in opened], list(closed)) == ([ahead.key], [])
    assert (old.start, ahead.start) == (START, START + 10 * SECOND)
    assert table.expired(START + 110 * SECOND) == [old, ahead]


def test_the_store_is_told_what_changed() -> None:
    """Opened and touched tasks are written, closed ones struck out if the store knew them, each once."""
    table = OpenTaskTable(100 * SECOND)
    first, second = task(1), task(2)
    table.open(first)
    before = table.changes()
    table.touch(first)
    table.touch(task(9))
    table.open(second)
    table.close(second)
    between = table.changes()
    table.close(first)
    after = table.changes()

    assert [[row.key for row in opened] for opened, _ in (before, between, after)] == [
        [first.key],
        [first.key],
        [],
    ]
    assert [list(closed) for _, closed in (before, between, after)] == [[], [], [first.key]]
    assert table.changes() == ([], [])


def test_what_had_started_by_a_restart() -> None:
    """Tasks that began at its time or before, in the order in which they opened."""
    table = OpenTaskTable(100 * SECOND)
    made = [task(3, at=1), task(1, at=5), task(2, at=6)]
    for each in made:
        table.open(each)

    assert table.started_by(START + 5 * SECOND) == [made[1], made[0]]


def test_ended_tasks_do_not_pile_up() -> None:
    """What awaits expiry is bounded by what runs, and no task is forgotten for it."""
    table = OpenTaskTable(100 * SECOND)
    kept = task(0)
    table.open(kept)
    for seq in range(1, 4 * EXPIRING_SLACK):
        each = task(seq)
        table.open(each)
        table.close(each)

    assert len(table._expiring) <= 2 * 2 + EXPIRING_SLACK
    assert table.expired(START + 100 * SECOND) == [kept]


# Other requests


@pytest.mark.parametrize("count", [0, 1, LINKS_MAX, LINKS_MAX + 1, LINKS_MAX + 5])
@pytest.mark.parametrize("own", [0, 1, 2])
def test_links_are_the_first_requests_after_a_start(count: int, own: int) -> None:
    """The first of them in order, without the task's own; the list is made once, and the store is told."""
    touched: list[Task] = []
    requests = ConcurrentRequests(touched.append)
    requests.request(b"before", 0)
    running = task(1, since=1)
    requests.begin(running)
    contexts = [b"%d" % number for number in range(count)]
    for context in contexts:
        requests.request(context, 0)
    own = own + 1 if 0 < own <= count else 0
    others = [context for number, context in enumerate(contexts, 2) if number != own]

    assert requests.links(running, requests.ordinal, own) == others[:LINKS_MAX]
    assert touched == ([running] if count >= LATEST_MAX else [])
    assert requests.links(running, 1, 0) == []


def test_a_task_that_begins_late_has_links_only_while_they_are_known() -> None:
    """Of a failed request's task the first requests after it are known as long as they are the latest."""
    requests = ConcurrentRequests(lambda _: None)
    for number in range(LATEST_MAX + 1):
        requests.request(b"%d" % number, 0)
    known, unknown = task(1, since=1), task(2, since=0)
    requests.begin(known)
    requests.begin(unknown)

    assert requests.links(known, requests.ordinal, 0) == [
        b"%d" % number for number in range(1, LINKS_MAX + 1)
    ]
    assert requests.links(unknown, requests.ordinal, 0) == []
    requests.end(known)
    assert requests.links(known, requests.ordinal, 0) == []


# Templates and the table


@pytest.mark.parametrize(
    ("source", "params", "filled"),
    [
        ("/a/{x}", {"x": "1"}, "/a/1"),
        ("/a/{x}", {"x": 7}, "/a/7"),
        ("/a/{x}", {"x": True}, ""),
        ("/a/{x}", {"x": ""}, ""),
        ("/a/{x}/b/{y}", {"x": "{y}", "y": "z"}, "/a/{y}/b/z"),
        ("/a/{x}/b/{y}", {"x": "1"}, ""),
        ("/a/{x:stripped}", {"x": " 1 "}, "/a/1"),
        ("/a/{x:stripped}", {"x": "  "}, ""),
        ("/a/{x:stem}-<n>{x:extension}/c", {"x": "d.img"}, "/a/d-#.img/c"),
        ("/a/{x:stem}-<n>{x:extension}/c", {"x": "d"}, "/a/d-#/c"),
        ("/a/{x:stem}-<n>{x:extension}/c", {}, ""),
        ("/a/{x:basename}", {"x": "http://h/d/f.iso/?k=1"}, ""),
        ("/a/{x:basename}", {"x": "http://h/d/f.iso?k=1"}, "/a/f.iso"),
        ("/a/{x:libvirt}", {"x": "web"}, ""),
        ("/a/{x:libvirt}", {"x": "é"}, "/a/w6k="),
        ("/a/<segment>/b/{x}", {"x": "1"}, "/a/?/b/1"),
        ("/a", {}, "/a"),
    ],
)
def test_templates_are_filled(source: str, params: dict[str, Any], filled: str) -> None:
    """A template says a request's target_uri with marks, or nothing where a parameter is missing."""
    assert Template(source).fill(params) == filled


@pytest.mark.parametrize(
    ("source", "target", "text", "epoch"),
    [
        ("/a/{x}-<us>/c", "/a/y-1470994166305743/c", "/a/y-#us/c", 1_470_994_166_305_743_000),
        ("/a/{x}-<us>/c", "/a/y-147099416630574/c", None, 0),
        ("/a/{x}-<us>/c", "/a/y-1470994166305743/c/", None, 0),
        ("/a/{x}/<s>", "/a/y/1470994166", "/a/y/#s", 1_470_994_166_000_000_000),
        ("/a/{x}/<s>", "/a/y/14709941661", None, 0),
        ("/a/r-<ms>", "/a/r-1470994166305", "/a/r-#ms", 1_470_994_166_305_000_000),
        ("/a/r-<ms>", "/b/a/r-1470994166305", None, 0),
        ("/a/{x}-<n>{x:extension}/c", "/a/y-2.img/c", "/a/y-#.img/c", 0),
        ("/a/{x}-<n>{x:extension}/c", "/a/y-2.i/g/c", None, 0),
        ("/a/<segment>/b/{x}", "/a/y/b/z/z", "/a/?/b/z/z", 0),
        ("/a/<segment>/b/{x}", "/a/y/y/b/z", None, 0),
        ("/a/<segment>-vm-<word>", "/a/y-vm-7", "/a/?-vm-?", 0),
        ("/a/<segment>-vm-<word>", "/a/y-vm-7-", None, 0),
        ("/a/{x}", "/a/y", None, 0),
    ],
)
def test_targets_are_generalised(source: str, target: str, text: str | None, epoch: int) -> None:
    """What Wok made up becomes marks, and a time comes along; what is not of this form gives nothing."""
    generalised = Template(source).generalise(target)

    assert (generalised and (generalised.text, generalised.epoch)) == (text and (text, epoch))


@pytest.mark.parametrize(
    ("source", "target", "fits"),
    [
        ("/a/{x}", "/a/y", True),
        ("/a/{x}", "/a/", False),
        ("/a/{x}", "/b/y", False),
        ("/a/{x}/m", "/a/y/m", True),
        ("/a/{x}/m", "/a//m", False),
        ("/a/{x}/m", "/a/m", False),
        ("/a/{x}/b/{y}", "/a/x/b/", True),
        ("/a/{x}/b/{y}", "/a//b/y", False),
        ("/a/{x}/b/{y}", "/a/x/c/y", False),
        ("/a/{x}-<count>/c", "/a/x-123456789/c", True),
        ("/a/{x}-<count>/c", "/a/x-1234567890/c", False),
        ("/a/{x}/b/{y}-<n>/c", "/a/x/b/y-1/c", True),
        ("/a/{x}/b/{y}-<n>/c", "/a/x/y-1/c", False),
        ("/a/<uuid>", "/a/anything", True),
    ],
)
def test_targets_fit(source: str, target: str, fits: bool) -> None:
    """The literal parts decide, and what stands between them has at least one character."""
    assert Template(source).fits(target) is fits


def test_what_a_template_is() -> None:
    """Whether it is constant, ends with a name, and tells a time follows from its parts."""
    sources = ("/a", "/a/{x}", "/a/{x}/<s>", "/a/{x}/b")
    made = [Template(source) for source in sources]

    assert [template.is_constant for template in made] == [True, False, False, False]
    assert [template.ends_open for template in made] == [False, True, False, False]
    assert [template.is_timed for template in made] == [False, False, True, False]


@pytest.mark.parametrize(
    ("source", "params", "holds"),
    [
        ("x", {"x": "1"}, True),
        ("x", {}, False),
        ("!x", {}, True),
        ("!x", {"x": "1"}, False),
        ("x=a,b", {"x": "b"}, True),
        ("x=a,b", {"x": "c"}, False),
        ("!x=a,b", {"x": "a"}, False),
        ("!x=a,b", {}, True),
    ],
)
def test_conditions(source: str, params: dict[str, str], holds: bool) -> None:
    """A parameter must be there, or not, or have one of some values, or none of them."""
    assert Condition.read(source).holds(params) is holds


def test_what_may_start_a_task() -> None:
    """Operations of the table that do, codes that the table does not have, and those of any plug-in."""
    naming = Operations.load()
    asked = [
        ("kimchi", "KCHVM0010L", "vms.migrate"),
        ("kimchi", "KCHPOOL0001L", "storagepools.create"),
        ("kimchi", "KCHVM0003L", "vms.update"),
        ("wok", "WOKROOT0001L", "login"),
        ("acme", "ACMEBK0001L", "ACMEBK0001L"),
        ("acme", "", ""),
        *(("acme", code, "resource.action") for code in sorted(GENERIC)),
    ]

    assert [naming.may_start_task(*each) for each in asked] == [
        True,
        True,
        False,
        False,
        True,
        False,
        True,
        True,
    ]


def test_a_failed_request_may_be_any_of_its_code_s_operations() -> None:
    """The operations of a code all count where which of them it was is not known."""
    naming = Operations.load()
    forms = naming.forms("kimchi", "KCHPOOL0001L", "storagepools.create", {"name": "x"})

    assert [form.text for form in forms] == ["/plugins/kimchi/storagepools/kimchi_isos"]
    assert naming.forms("ginger", "KCHPOOL0001L", "storagepools.create", {"name": "x"}) == ()
    texts = [form.text for form in naming.forms("ginger", "WOKRES0001L", "resource.action", {"ident": "i"})]
    assert texts == ["/backup/restore/i", "/plugins/ginger/network/i/enable_sriov"]


def test_a_hidden_operation_is_not_a_row_s_alone() -> None:
    """A row without a code is known by its tasks, and gives its operation's requests no form."""
    naming = Operations.load()
    forms = naming.forms("kimchi", "KCHVOL0006L", "storagevolumes.clone", {"pool": "p", "ident": "v.img"})

    assert [form.text for form in forms] == [
        "/plugins/kimchi/storagepools/p/storagevolumes/v-clone-#.img/clone"
    ]


def test_recognised_targets_are_remembered_within_bounds() -> None:
    """However many target_uris are asked for, few are kept, and each has its answer."""
    naming = Operations.load()
    for number in range(SEEN_MAX + 10):
        assert naming.of_target("kimchi", f"/plugins/kimchi/vms/{number}/migrate") == "vms.migrate"

    assert len(naming._seen) <= SEEN_MAX


@pytest.mark.parametrize(
    ("app", "target", "unlogged", "twice", "open_ended"),
    [
        ("kimchi", "/plugins/kimchi/vms/web/migrate", False, True, False),
        ("kimchi", "/plugins/kimchi/vms/web", False, False, True),
        ("kimchi", "/plugins/kimchi/storagepools/kimchi_isos", True, False, False),
        ("gingerbase", "/plugins/gingerbase/host/swupdateprogress", True, False, False),
        ("ginger", "/swaps/file_loc/", False, True, False),
        ("ginger", "/lvs/vg_name/vg", False, False, True),
        ("acme", "/plugins/acme/x", False, False, True),
        ("wok", "/swaps/file_loc/", False, True, False),
    ],
)
def test_what_the_table_says_of_a_target(
    app: str, target: str, unlogged: bool, twice: bool, open_ended: bool
) -> None:
    """Whether its tasks have requests, report a failure twice, or may be of an operation that is not known."""
    naming = Operations.load()

    assert naming.is_unlogged(app, target) is unlogged
    assert naming.reports_twice(app, target) is twice
    assert naming.may_be_unknown(app, target) is open_ended


def test_a_table_with_missing_cells_is_refused() -> None:
    """Evidence is one of the known words, and a target has a template that can be read."""
    row = Row("kimchi", "POST", "X0001L", "x.y", "", "/x/{name}", "named", "thing {name}")
    naming = Operations([row])

    assert naming.forms("kimchi", "X0001L", "x.y", {"name": "a"}) == (Form("/x/a", named=True),)
    assert naming.resource("kimchi", "x.y", {"name": "a"}) == "thing a"
    assert naming.resource("kimchi", "x.y", {}) == ""
    with pytest.raises(ValueError, match="certain"):
        Operations([row._replace(evidence="named certain")])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("4f41cceb-8802-4897-8b16-8444a086a68c", "4f41cceb880248978b168444a086a68c"),
        ("4f41cceb-8802-4897-8b16-8444a086a68", ""),
        ("00000000-0000-0000-0000-000000000000", ""),
        ("", ""),
    ],
)
def test_ids_of_records(text: str, expected: str) -> None:
    """A record's id is a uuid, and not that of zeros: anything else is no trace's id."""
    assert uuid_bytes(text).hex() == expected


# The previous version's state


@pytest.mark.parametrize(
    ("by_start", "named", "crowded", "contested", "grade"),
    [
        (True, True, False, False, "exact"),
        (True, False, False, False, "exact"),
        (True, False, True, False, "likely"),
        (True, False, True, False, "exact"),
        (True, True, True, True, "ambiguous"),
        (False, False, False, False, "exact"),
    ],
)
def test_grades_of_the_previous_version(
    by_start: bool, named: bool, crowded: bool, contested: bool, grade: str
) -> None:
    """A task that was joined has the grade that it had."""
    row = OpenTask(b"k" * 24, b"c" * 24, "kimchi", "op", "/t", "1", START, 1, "", 0)
    data = {
        "seq": 1,
        "parent": "aa",
        "request_id": "",
        "request_time": START,
        "forms": [["/plugins/kimchi/vms/a-clone-#us/clone", True, False, False]],
        "named": named,
        "contested": contested,
        "crowded": crowded,
        "values": [],
        "grade": grade,
        "by_start": by_start,
        "counted": True,
        "candidates": [],
        "rivals": [],
        "links": "",
    }
    fields = modern_task(row, data)

    assert Certainty(**dict.fromkeys(fields["certainty"], True)).grade == grade
    assert (fields["asked"] is None) is by_start
    if not by_start:
        assert fields["asked"]["forms"][0][4] is True


def test_ends_that_leave_are_no_longer_found_under_any_form() -> None:
    """An end is found under its target_uri and its general forms until it leaves, also if two of its forms are equal."""
    log = Log("json")
    ends = EndsByForm(Operations.load())
    named = PendingEnd(log.finished(1, "/dasddevs/?/blksize/4096", app="ginger"), 0, 1, 0)
    unknown = PendingEnd(log.finished(2, "/plugins/kimchi/oddities/web-1234567"), 0, 2, 0)
    for final in (named, unknown):
        ends.add(final)
    assert ends.of("ginger", "/dasddevs/?/blksize/4096") == [(named.record.time, 0)]
    assert ends.of("kimchi", "~web-1234567") == [(unknown.record.time, 0)]
    for final in (named, unknown):
        ends.remove(final)
    assert not ends.of("ginger", "/dasddevs/?/blksize/4096")
    assert not ends.of("kimchi", "~web-1234567")


def test_an_end_that_another_may_repeat_is_not_counted_before_that_is_decided() -> None:
    """Of two ends of which the second may repeat the first, one is counted."""
    log = Log("json")
    ends = EndsByForm(Operations.load())
    first = PendingEnd(log.finished(1, "/plugins/kimchi/vms/web/migrate", failed=True), 0, 1, 0)
    second = PendingEnd(
        log.finished(2, "/plugins/kimchi/vms/web/migrate", failed=True), 0, 2, 0, earlier=first
    )
    for final in (first, second):
        ends.add(final)
    assert ends.of("kimchi", "/plugins/kimchi/vms/web/migrate") == [(second.record.time, 0)]


@settings(deadline=None)
@given(st.lists(st.integers(0, 9), max_size=40), st.randoms())
def test_windows_share_their_lists(gaps: list[int], random: Random) -> None:
    """Each window has the requests that followed its task, as they come and as they are restored, also
    with gaps between them, repeated contexts and lists that fit nothing.
    """
    contexts = [bytes([random.randrange(256), random.randrange(2)]) for _ in range(500)]
    live, made = Windows(), []
    for number, context in enumerate(contexts, 1):
        live.append(context)
        if number >= LATEST_MAX:
            made.append(live.latest())
    expected = [tuple(contexts[at : at + LATEST_MAX]) for at in range(len(made))]
    assert [tuple(each) for each in made] == expected
    assert {len(each) for each in made} == {LATEST_MAX}

    ends = list(accumulate(gaps))
    chosen = [expected[end] for end in ends if end < len(expected)]
    chosen.insert(random.randrange(len(chosen) + 1), (b"x",) * LATEST_MAX)
    chosen.insert(random.randrange(len(chosen) + 1), (b"y",))
    windows = Windows()
    restored = [windows.of(each) for each in chosen]
    assert [tuple(each) for each in restored] == chosen
    assert [len(each) for each in restored] == [len(each) for each in chosen]

"""Right, or unsure: what the correlator must not be sure of, and what it must join all the same.

Each story is a kind of log that once gave an answer that was wrong and said that it was sure.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.correlate.correlator import Correlator
from exporter.correlate.end_candidates import FAR_SECONDS
from exporter.correlate.index import CANDIDATES_MAX
from exporter.records import NANOS, Event, Record, TaskRepeated, TaskStarted
from exporter.wok.operations import TaskShape
from exporter.wok.target_templates import text_of

from .records_made import EPOCH, Log
from .test_correlate import (
    EXPIRY,
    MIGRATE,
    NAMING,
    SWAP,
    ends,
    make,
    make_with_errors,
    requests,
    restart,
    row_of_end,
    run,
    told,
)
from .test_operations import shapes, target_of

VM = "/plugins/kimchi/vms/"
POOL = "/plugins/kimchi/storagepools/p/storagevolumes/"
DISK = POOL + "69ae76e6-e6ec-41f1-a1fa-02fc00000001-0.img/clone"
DAY = 24 * 3600


def clone_of(at: float, guest: str = "web") -> str:
    """The target_uri of a clone that started `at` seconds after EPOCH."""
    return f"{VM}{guest}-clone-{round((EPOCH + at) * 10**6)}/clone"


def clone(log: Log, at: float, guest: str = "web", **more: Any) -> Record:
    return log.request(at, "KCHVM0009L", {"ident": guest}, **more)


def migrate(log: Log, at: float, guest: str = "web", **more: Any) -> Record:
    return log.request(at, "KCHVM0010L", {"ident": guest}, **more)


def swap(log: Log, at: float, **more: Any) -> Record:
    return log.request(at, "GINSP0001L", {"file_loc": "/a"}, app="ginger", **more)


def quiet(log: Log, at: float) -> Record:
    """A request that starts nothing."""
    return log.request(at, "KCHVM0004L", {"ident": "calm"}, status=200)


def joined(events: Iterable[Event]) -> list[tuple[int, str, str]]:
    """The ended tasks: the offset of their request's record (-1 without one), grade, outcome."""
    events = list(events)
    offsets = {seen.context: seen.record.offset for seen in requests(events)}
    return [(offsets.get(end.parent, -1), end.correlation, end.outcome) for end in ends(events)]


# 1: the start in a target_uri speaks for a request, and against it


def test_a_start_long_before_a_request_is_not_its_tasks() -> None:
    """A clone that began an hour before a request ends nothing of that request's; its own end does."""
    log = Log("json")
    request = clone(log, 3600)
    records = [request, log.finished(3660, clone_of(0)), log.finished(3900, clone_of(3600), failed=True)]

    assert joined(run(records)) == [(-1, "none", "success"), (request.offset, "exact", "failure")]


@pytest.mark.parametrize(("late", "grade"), [(1, "exact"), (5, "likely"), (FAR_SECONDS + 2, "none")])
def test_the_later_a_request_the_less_sure(late: int, grade: str) -> None:
    """A request's line just behind the start is the task's, one some seconds later may be, one far behind is not."""
    log = Log("json")

    assert joined(run([clone(log, late), log.finished(90, clone_of(0.5))]))[0][1] == grade


def test_a_task_whose_request_is_missing_takes_no_end_from_the_next() -> None:
    """A clone that began half a minute before a request leaves that request's task to its own end."""
    log = Log("json")
    first, second = clone(log, 0), clone(log, 60)
    records = [
        first,
        second,
        *(log.finished(at, clone_of(start)) for at, start in ((100, 30), (110, 0.1), (120, 60.1))),
    ]

    assert joined(run(records)) == [
        (-1, "none", "success"),
        (first.offset, "exact", "success"),
        (second.offset, "exact", "success"),
    ]


def test_a_request_before_the_clock_was_set_back_is_a_rival() -> None:
    """Its time lies behind the end, its line before it: the end may be that of its task, so no match is exact."""
    log = Log("json")
    first, second = migrate(log, 3600), migrate(log, 100)

    assert joined(run([first, second, log.finished(200, MIGRATE)])) == [
        (second.offset, "ambiguous", "success")
    ]


def test_an_end_after_an_expiry_may_be_the_expired_tasks() -> None:
    """A task that was given up may end after all: of a later end of its target it is not certain that it is the new task's."""
    log = Log("json")
    expired = migrate(log, 0)
    hours = [quiet(log, hour * 3600) for hour in range(1, 26)]
    second, second_end = migrate(log, DAY + 4000), log.finished(DAY + 4030, MIGRATE)
    third, third_end = migrate(log, DAY + 4300), log.finished(DAY + 4330, MIGRATE)

    assert joined(run([expired, *hours, second, second_end, third, third_end])) == [
        (expired.offset, "exact", "unknown"),
        (second.offset, "likely", "success"),
        (third.offset, "exact", "success"),
    ]


@pytest.mark.parametrize(("status", "error_code"), [(200, ""), (201, ""), (400, "X1E"), (500, "X1E")])
def test_a_request_that_a_task_names_is_its_whatever_the_status(status: int, error_code: str) -> None:
    """An id needs no evidence: a request that a start has named is joined when its line comes, also a failed one."""
    log = Log("json")
    start = log.started(0, SWAP, "t1", app="ginger", request_id="r1")
    request = swap(log, 1, status=status, error_code=error_code)._replace(record_id="r1")
    end = log.finished(9, SWAP, "t1", app="ginger", request_id="r1")

    assert joined(run([start, request, end])) == [(request.offset, "exact", "success")]


def test_a_request_without_a_task_of_its_own_takes_no_start_by_its_target() -> None:
    """A request of status 200 that only a nested task names leaves the start beside it to nobody."""
    log = Log("json")
    records = [
        log.started(0, SWAP, "t1", app="ginger"),
        log.started(0, "/nested", "t2", app="ginger", request_id="r1", parent="t0"),
        swap(log, 0, status=200)._replace(record_id="r1"),
        log.finished(9, SWAP, "t1", app="ginger"),
    ]

    assert joined(run(records)) == [(-1, "none", "success")]


def test_the_start_chooses_among_neighbours() -> None:
    """Of requests within a second the first at or behind the start is taken, and neither match is sure by chance."""
    log = Log("json")
    first, second = clone(log, 0), clone(log, 1)
    records = [first, second, log.finished(60, clone_of(0.05)), log.finished(70, clone_of(1.05))]

    assert joined(run(records)) == [(first.offset, "likely", "success"), (second.offset, "exact", "success")]
    assert [end.start for end in ends(run(records))] == [(EPOCH * 1000 + ms) * 10**6 for ms in (50, 1050)]


def test_two_requests_of_one_second_are_told_by_the_fraction() -> None:
    """Where both lines are of the start's second the order of starts is taken for theirs, and both are in doubt."""
    log = Log("json")
    first, second = clone(log, 0), clone(log, 0)
    records = [first, second, log.finished(60, clone_of(0.9)), log.finished(70, clone_of(0.1))]

    assert joined(run(records)) == [
        (second.offset, "ambiguous", "success"),
        (first.offset, "ambiguous", "success"),
    ]


def test_a_line_of_the_second_before() -> None:
    """Wok's coarse clock may write the second before into a line; a start early in a second allows that, unsure."""
    log = Log("json")
    request = clone(log, 0)

    assert joined(run([request, log.finished(60, clone_of(1.005))])) == [
        (request.offset, "likely", "success")
    ]
    assert joined(run([request, log.finished(60, clone_of(1.5))])) == [(-1, "none", "success")]


@given(st.one_of(st.integers(0, EPOCH - 2 * DAY), st.integers(EPOCH + 100, 10**10 - 1)))
def test_digits_that_cannot_be_a_time_are_a_name(second: int) -> None:
    """A snapshot may be called by any ten digits: no task began years before the log, or after its own end."""
    log = Log("json")
    request = log.request(0, "KCHSNAP0001L", {"vm": "web", "name": ""})
    events = run([request, log.finished(5, f"{VM}web/snapshots/{second:010}")])

    assert told(events) == [("vms.snapshots.create", 0, 5, "success", "likely", True)]


def test_a_snapshot_that_was_given_its_name() -> None:
    """A name of ten digits that the request has is as good as any."""
    log = Log("json")
    name = str(EPOCH - 3600)
    request = log.request(0, "KCHSNAP0001L", {"vm": "web", "name": name})

    assert joined(run([request, log.finished(5, f"{VM}web/snapshots/{name}")]))[0][1] == "exact"


def test_a_start_record_heeds_the_time_in_its_target() -> None:
    """A request whose line is older than the start in the target_uri takes no start record."""
    log = Log("rfc")
    start = log.started(1, clone_of(1.5), "1")
    events = run([start, clone(log, 0), clone(log, 1)])

    assert [event.parent for event in events if isinstance(event, TaskStarted)] == [
        requests(events)[1].context
    ]


# 2: a request that failed without an error


def test_a_retry_after_a_500_is_not_sure() -> None:
    """Wok may answer 500 when the thread has begun: the end may be either's, and the accepted one is taken."""
    log = Log("json")
    failed, retry = migrate(log, 0, status=500), migrate(log, 4)
    events = run([failed, retry, log.finished(5, MIGRATE, failed=True), log.finished(300, MIGRATE)])

    assert joined(events) == [
        (retry.offset, "ambiguous", "failure"),
        (failed.offset, "ambiguous", "success"),
    ]
    assert list(ends(events)[0].candidates) == [requests(events)[0].context]
    assert [end.counts_start for end in ends(events)] == [False, True]


def test_a_500_alone_is_likely() -> None:
    """With no other request the one that failed has started the task, but nobody saw it."""
    log = Log("json")
    events = run([migrate(log, 0, status=500), quiet(log, 10), log.finished(60, MIGRATE)])

    assert told(events) == [("vms.migrate", 0, 60, "success", "likely", True)]
    assert not requests(events)[0].opens_task
    assert (ends(events)[0].concurrent, len(ends(events)[0].links)) == (1, 1)


@pytest.mark.parametrize(
    "refused",
    [
        {"error_code": "KCHVM0058E"},
        {"code": "KCHVM0003L"},
    ],
)
def test_other_failures_start_nothing(refused: dict[str, str]) -> None:
    """A 500 with an error, or of an operation that starts no task, is no rival."""
    log = Log("json")
    code = refused.get("code", "KCHVM0010L")
    failed = log.request(0, code, {"ident": "web"}, status=500, error_code=refused.get("error_code", ""))
    retry = migrate(log, 4)

    assert joined(run([failed, retry, log.finished(5, MIGRATE)])) == [(retry.offset, "exact", "success")]


def test_a_restart_ends_the_rivalry() -> None:
    """What failed before wokd was started again has no task any more."""
    log = Log("json")
    correlator, errors = make_with_errors()
    events = run([migrate(log, 0, status=500)], correlator) + restart(
        correlator, errors, (EPOCH + 10) * NANOS
    )
    retry = migrate(log, 20)

    assert joined(events + run([retry, log.finished(30, MIGRATE)], correlator)) == [
        (retry.offset, "exact", "success")
    ]


def test_failed_requests_expire_and_are_bounded() -> None:
    """A day later a 500 is no rival, and of a flood of them only the newest are remembered."""
    log = Log("json")
    old = [migrate(log, 0, status=500), *(quiet(log, DAY + at) for at in (0, 700, 1400))]
    retry = migrate(log, DAY + 1500)
    flood = [migrate(log, DAY + 2000, f"g{number}", status=500) for number in range(100)]
    events = run(
        [*old, retry, *flood, log.finished(DAY + 2001, MIGRATE), log.finished(DAY + 2001, f"{VM}g0/migrate")]
    )

    assert joined(events) == [(retry.offset, "exact", "success"), (-1, "none", "success")]


@pytest.mark.parametrize("order", ["bsa", "asb", "sba", "sab", "bas"])
def test_a_202_beside_the_start_is_preferred(order: str) -> None:
    """In whatever order start, 500 and 202 stand: the 202 has certainly started a task, the 500 leaves a doubt."""
    log = Log("rfc")
    make_record = {
        "b": lambda: migrate(log, 0, status=500),
        "s": lambda: log.started(0, MIGRATE, "1"),
        "a": lambda: migrate(log, 0),
    }
    records = [make_record[letter]() for letter in order]
    accepted = records[order.index("a")]
    events = run([*records, log.finished(60, MIGRATE, "1")])

    assert joined(events) == [(accepted.offset, "ambiguous", "success")]
    assert len(ends(events)[0].candidates) == 1


# 3: clones of other times


@pytest.mark.parametrize("target", [f"{VM}name/clone", f"{VM}name-clone-1/clone"])
def test_clones_of_2016(target: str) -> None:
    """The RFC's own example, and the numbered clones of Kimchi 2.0 and 2.1, are clones that were asked for."""
    log = Log("rfc")
    request = clone(log, 0, "name")
    events = run([log.started(0, target, "100"), request, log.finished(5, target, "100", failed=True)])

    assert told(events) == [("vms.clone", 0, 5, "failure", "exact", True)]


def test_a_numbered_clone_in_json_is_likely() -> None:
    """Without a start record beside it a clone's number says little: others of the guest would have the next."""
    log = Log("json")

    assert joined(run([clone(log, 0), log.finished(5, f"{VM}web-clone-1/clone")]))[0][1] == "likely"


# 4: operations and plug-ins that no table knows


def unknown(log: Log, at: float, params: dict[str, Any], app: str = "acme") -> Record:
    return log.request(at, "ACMEBK0001L" if app == "acme" else "KCHVM9999L", params, app=app)


def test_an_unknown_operation_of_a_known_plugin() -> None:
    """It is matched as one of an unknown plug-in, likely at most, and is no creation of a guest `web01/freeze`."""
    log = Log("json")
    events = run(
        [
            unknown(log, 0, {"ident": "web01-7f3a91c2"}, "kimchi"),
            log.finished(9, f"{VM}web01-7f3a91c2/freeze"),
        ]
    )

    assert told(events) == [("KCHVM9999L", 0, 9, "success", "likely", True)]
    log = Log("rfc")
    events = run(
        [
            log.started(0, f"{VM}web01-7f3a91c2/freeze", "1"),
            unknown(log, 0, {"ident": "web01-7f3a91c2"}, "kimchi"),
        ]
    )
    assert [event.correlation for event in events if isinstance(event, TaskStarted)] == ["likely"]


@pytest.mark.parametrize("known", [f"{VM}web01/migrate", "/plugins/kimchi/storagepools/kimchi_isos", DISK])
def test_known_operations_are_not_given_to_unknown_requests(known: str) -> None:
    """A target_uri that only a known operation has is no evidence for another one."""
    log = Log("json")
    params = {"ident": "web01", "name": "migrate", "pool": "kimchi_isos"}

    assert joined(run([unknown(log, 0, params, "kimchi"), log.finished(9, known)])) == [
        (-1, "none", "success")
    ]


@given(st.text(st.characters(codec="ascii", categories=["Ll"]), min_size=2, max_size=20))
def test_words_prove_nothing(word: str) -> None:
    """A word without a digit may be anybody's: it joins as a name, never exactly, and as another value not at all."""
    log = Log("json")
    other = unknown(log, 0, {"ident": "guest", "mode": word})
    events = run([other, log.finished(9, f"/plugins/acme/sync/{word}", app="acme")])

    assert joined(events)[0][1] == ("likely" if word in ("guest", "sync") else "none")
    log = Log("json")
    events = run([unknown(log, 0, {"name": word}), log.finished(9, f"/plugins/acme/sync/{word}", app="acme")])
    assert joined(events)[0][1] == "likely"


@pytest.mark.parametrize(
    ("name", "value", "grade"),
    [
        ("ident", "guest-7f3a91c2e5", "exact"),
        ("guest_name", "guest-7f3a91c2e5", "exact"),
        ("ident", "guest-7", "likely"),
        ("ident", "production", "likely"),
        ("mode", "guest-7f3a91c2e5", "likely"),
    ],
)
def test_an_identifier_names_its_task(name: str, value: str, grade: str) -> None:
    """Only a name that looks like an identifier makes a general match exact."""
    log = Log("json")
    events = run(
        [unknown(log, 0, {name: value}), log.finished(60, f"/plugins/acme/guests/{value}/backup", app="acme")]
    )

    assert joined(events)[0][1] == grade


def test_an_identifier_outweighs_a_word() -> None:
    """Of two requests whose names are both in the target_uri the identifier's is taken, but it is not sure."""
    log = Log("json")
    word, identifier = unknown(log, 0, {"name": "disk"}), unknown(log, 0, {"name": "guest-7f3a91c2e5"})
    target = "/plugins/acme/guests/guest-7f3a91c2e5/disk"

    assert joined(run([word, identifier, log.finished(60, target, app="acme")])) == [
        (identifier.offset, "likely", "success")
    ]


def test_two_requests_with_one_identifier_are_ambiguous() -> None:
    """An identifier that two requests have names neither's task."""
    log = Log("json")
    both = [unknown(log, at, {"name": "guest-7f3a91c2e5"}) for at in (0, 1)]
    end = log.finished(60, "/plugins/acme/guests/guest-7f3a91c2e5/backup", app="acme")

    assert joined(run([*both, end])) == [(both[1].offset, "ambiguous", "success")]


# 5: many open requests


def test_the_newest_of_many_are_candidates() -> None:
    """However many requests have one target, the newest is the parent and the next newest are named."""
    log = Log("json")
    many = [log.request(at * 1800, "GGBPKGUPD0001L", app="gingerbase") for at in range(CANDIDATES_MAX + 8)]
    end = log.finished(
        many[-1].time // NANOS - EPOCH + 60, "/plugins/gingerbase/host/swupdate", app="gingerbase"
    )
    events = run([*many, end])
    contexts = [seen.context for seen in requests(events)]

    assert (ends(events)[0].parent, ends(events)[0].correlation) == (contexts[-1], "ambiguous")
    assert list(ends(events)[0].candidates) == contexts[-CANDIDATES_MAX:-1]


def test_the_start_finds_its_request_among_many() -> None:
    """A start in the target_uri finds the oldest of a hundred requests of one guest."""
    log = Log("json")
    many = [clone(log, at * 120) for at in range(100)]

    assert joined(run([*many, log.finished(20_000, clone_of(0.2))])) == [(many[0].offset, "exact", "success")]


# 6: two records, one end or two


def snapshot(log: Log, at: float) -> Record:
    return log.request(at, "KCHSNAP0001L", {"vm": "web", "name": "s1"})


def test_a_success_is_not_taken_back_by_a_second_attempt() -> None:
    """A double click: the snapshot was made, and the second attempt, whose line comes last, failed."""
    log = Log("json")
    target = f"{VM}web/snapshots/s1"
    first, made = snapshot(log, 0), log.finished(1, target)
    refused = log.finished(2, target, failed=True, error_code="KCHSNAP0002E")
    for late in (0, 1):
        second = snapshot(log, 2 + late)
        events = run([first, made, refused, second, quiet(log, 30)])

        assert [(offset, outcome) for offset, _, outcome in joined(events)] == [
            (first.offset, "success"),
            (second.offset, "failure"),
        ]


def test_a_success_is_taken_back_where_only_one_task_ran() -> None:
    """A task that reports its success and then raises is one failure."""
    log = Log("json")
    made, raised = log.finished(5, MIGRATE), log.finished(5, MIGRATE, failed=True, error_code="KCHVM0058E")
    events = run([migrate(log, 0), made, raised])

    assert told(events) == [("vms.migrate", 0, 5, "failure", "exact", True)]
    assert [event.record for event in events if isinstance(event, TaskRepeated)] == [made]


@pytest.mark.parametrize("open_tasks", [1, 2])
def test_failures_of_two_tasks_are_two(open_tasks: int) -> None:
    """Two volumes of a group: a failure without and one with an error are two ends, if there are two tasks."""
    log = Log("json")
    target = "/lvs/vg_name/vg0"
    asked = [log.request(at, "GINLV0001L", {"vg_name": "vg0"}, app="ginger") for at in (0, 5)[:open_tasks]]
    records = [*asked, log.finished(60, target, app="ginger", failed=True)]
    records += [log.finished(61, target, app="ginger", failed=True, error_code="GINLV0002E")]

    assert [outcome for _, _, outcome in joined(run(records))] == ["failure"] * open_tasks


@pytest.mark.parametrize(
    ("code", "params", "app", "target"),
    [
        ("GINSP0001L", {"file_loc": "/a"}, "ginger", SWAP),
        ("KCHVM0010L", {"ident": "web"}, "kimchi", MIGRATE),
        ("GINHBK0002L", {}, "ginger", "/backup/create/69ae76e6-e6ec-41f1-a1fa-02fc00000001"),
        ("WOKRES0001L", {"ident": "b"}, "ginger", "/backup/restore/b"),
        ("KCHVMHDEV0001L", {"vmid": "web"}, "kimchi", f"{VM}web/hostdevs/"),
    ],
)
def test_operations_that_report_a_failure_twice(
    code: str, params: dict[str, Any], app: str, target: str
) -> None:
    """Of two open tasks one has failed, with both its reports; the other runs on."""
    log = Log("json")
    records = [log.request(at, code, params, app=app) for at in (0, 5)]
    records += [log.finished(60, target, app=app, failed=True)]
    records += [log.finished(60, target, app=app, failed=True, error_code="X0001E")]

    assert len(ends(run(records))) == 1


def test_a_report_before_the_requests_line_may_be_anothers() -> None:
    """The error names the second swap, but its line stands between the two reports: the match is not sure."""
    log = Log("json")
    first = log.request(0, "GINSP0001L", {"file_loc": "/swap-a"}, app="ginger")
    bare = log.finished(1, SWAP, app="ginger", failed=True)
    second = log.request(1, "GINSP0001L", {"file_loc": "/swap-b"}, app="ginger")
    full = log.finished(1, SWAP, app="ginger", failed=True, error_code="GINSP0005E")
    events = run([first, bare, second, full._replace(error_params={"file_loc": "/swap-b"})])

    assert joined(events) == [(second.offset, "likely", "failure")]


# 7: records with ids


TASK, CHILD = "4a067870-eac5-11f1-b2d5-02fc00000001", "5a067870-eac5-11f1-b2d5-02fc00000001"


def test_a_nested_task_is_the_child_of_its_task() -> None:
    """The copy of the disk says which task has started it: exactly its child, in the trace of the request."""
    log = Log("json")
    request = clone(log, 0)
    ids = request.record_id
    records = [log.started(0, clone_of(0), TASK, request_id=ids), request]
    records += [log.started(1, DISK, CHILD, request_id=ids, parent=TASK)]
    records += [log.finished(20, DISK, CHILD, request_id=ids, parent=TASK)]
    records += [log.finished(21, clone_of(0), TASK, request_id=ids)]
    events = run(records)
    child, parent = ends(events)

    assert told(events) == [
        ("storagevolumes.clone", 1, 20, "success", "exact", True),
        ("vms.clone", 0, 21, "success", "exact", True),
    ]
    assert (child.parent, parent.parent) == (parent.context, requests(events)[0].context)
    assert {end.context[:16] for end in ends(events)} == {request.trace_id}
    assert [end.request for end in ends(events)] == [1, 1]
    assert sum(event.counts for event in events if isinstance(event, TaskStarted)) == 2


def test_a_second_task_of_a_request() -> None:
    """Two tasks that name one request are both its own, exactly, also after the first has ended."""
    log = Log("json")
    request = swap(log, 0)
    ids: dict[str, Any] = {"app": "ginger", "request_id": request.record_id}
    records = [request, log.started(0, SWAP, TASK, **ids), log.finished(5, SWAP, TASK, **ids)]
    records += [
        log.started(9, "/vgs/vg_name/v", CHILD, **ids),
        log.finished(30, "/vgs/vg_name/v", CHILD, **ids),
    ]

    assert told(run(records)) == [
        ("swaps.create", 0, 5, "success", "exact", True),
        ("vgs.create", 9, 30, "success", "exact", True),
    ]


@pytest.mark.parametrize("end", [1, 30])
def test_a_requests_line_may_be_late(end: int) -> None:
    """A line that comes seconds later still joins, before or after the end of its task, and opens no other."""
    log = Log("json")
    request = swap(log, 6)
    ids: dict[str, Any] = {"app": "ginger", "request_id": request.record_id}
    start, final = log.started(0, SWAP, TASK, **ids), log.finished(end, SWAP, TASK, **ids)
    between = [quiet(log, 3)]
    records = [start, *between, request, final] if end > 6 else [start, final, *between, request]
    events = run([*records, quiet(log, 60)])

    assert told(events) == [("swaps.create", 0, end, "success", "exact", True)]
    assert ends(events)[0].context[:16] == request.trace_id
    assert not any(seen.opens_task for seen in requests(events))


def test_an_end_without_its_start_ends_no_other_task() -> None:
    """The start of the disk's copy was cut off: its end is an orphan below the request, and the clone runs on."""
    log = Log("json")
    request = clone(log, 0)
    ids = request.record_id
    records = [request, log.finished(20, DISK, CHILD, request_id=ids, parent=TASK), quiet(log, 25)]
    records += [log.finished(33, clone_of(0), TASK, request_id=ids, failed=True)]

    assert told(run(records)) == [
        ("storagevolumes.clone", 20, 20, "success", "exact", True),
        ("vms.clone", 0, 33, "failure", "exact", True),
    ]


def test_an_end_of_another_kind_does_not_end_the_requests_task() -> None:
    """An end that names a request, of a target_uri that its own task cannot have, is a second task's."""
    log = Log("json")
    request = clone(log, 0)
    records = [request, log.finished(20, DISK, CHILD, request_id=request.record_id)]
    events = run([*records, log.finished(33, clone_of(0), TASK, request_id=request.record_id)])

    assert [end.operation for end in ends(events)] == ["storagevolumes.clone", "vms.clone"]


def test_an_end_without_a_start_or_a_request_is_an_orphan() -> None:
    """Ids that nothing else in the log has lead nowhere; the trace is that of the request they name."""
    log = Log("json")
    unseen = "4f41cceb-8802-4897-8b16-8444a086a68c"
    events = run([log.finished(20, DISK, CHILD, request_id=unseen, parent=TASK)])

    assert told(events) == [("storagevolumes.clone", 20, 20, "success", "none", False)]
    assert ends(events)[0].context[:16].hex() == unseen.replace("-", "")


@pytest.mark.parametrize(("status", "joined"), [(1001, [(0, 33)]), (200, [(0, 20), (33, 33)])])
def test_an_end_with_a_task_id_alone(status: int, joined: list[tuple[int, int]]) -> None:
    """Without its start it ends no request's task, unless it is one of Wok's own records, which have no starts."""
    log = Log("json")
    request = swap(log, 0)
    other = log.finished(20, SWAP, CHILD, app="ginger")._replace(status=status)
    last = log.finished(33, SWAP, TASK, app="ginger", request_id=request.record_id)
    events = run([request, other, quiet(log, 25), last])

    assert [
        (end.start // NANOS - EPOCH, end.end // NANOS - EPOCH) for end in ends(events) if end.parent
    ] == joined


@pytest.mark.parametrize("own_first", [False, True])
@pytest.mark.parametrize("at", [10, 11])
def test_wok_s_own_record_beside_is_a_repeat(own_first: bool, at: int) -> None:
    """Wok's own 200 beside the record with ids, before or after it, reports the same end again."""
    log = Log("json")
    target = "/backup/create/0f0f0f0f-0000-4000-8000-000000000000"
    request = log.request(0, "GINHBK0002L", app="ginger")
    ids: dict[str, Any] = {"app": "ginger", "request_id": request.record_id}
    records = [log.started(0, target, TASK, **ids), request]
    both = [log.finished(10, target, TASK, **ids), log.finished(at, target, app="ginger")]
    events = run([*records, *(both[::-1] if own_first else both), quiet(log, 60)])

    assert [end.correlation for end in ends(events)] == ["exact"]
    assert [event.context for event in events if isinstance(event, TaskRepeated)] == [ends(events)[0].context]


def test_wok_s_own_record_much_later_is_not_beside() -> None:
    """An end without an id, long after one with an id, is another task's."""
    log = Log("json")
    request = swap(log, 0)
    ids: dict[str, Any] = {"app": "ginger", "request_id": request.record_id}
    later = swap(log, 20)
    records = [request, log.started(0, SWAP, TASK, **ids), log.finished(10, SWAP, TASK, **ids)]
    events = run([*records, later, log.finished(30, SWAP, app="ginger")])

    assert joined(events) == [(request.offset, "exact", "success"), (later.offset, "likely", "success")]


@pytest.mark.parametrize("ended", [False, True])
@pytest.mark.parametrize("number", ["1", "5"])
def test_an_end_before_its_start_of_a_new_boot(number: str, ended: bool) -> None:
    """An id is used again: the final record before its start is the new task's, not the old one's."""
    log = Log("rfc")
    old = [log.started(0, SWAP, number, app="ginger"), swap(log, 0)]
    old += [log.finished(9, SWAP, number, app="ginger")] if ended else []
    final = log.finished(3600, SWAP, number, app="ginger", failed=True)
    new = [final, log.started(3600, SWAP, number, app="ginger"), swap(log, 3600)]
    events = run([*old, *new, quiet(log, 3700)])

    assert [(end.outcome, end.start) for end in ends(events)] == [
        ("success" if ended else "lost", EPOCH * NANOS),
        ("failure", (EPOCH + 3600) * NANOS),
    ]
    assert ends(events)[1].parent == requests(events)[1].context


def test_an_end_without_its_start_below_a_task_that_runs() -> None:
    """The task that has started it still runs: that is its parent, not the request."""
    log = Log("json")
    request = clone(log, 0)
    ids = request.record_id
    records = [log.started(0, clone_of(0), TASK, request_id=ids), request, quiet(log, 10)]
    records += [log.finished(20, DISK, CHILD, request_id=ids, parent=TASK), quiet(log, 25)]
    child, parent = ends(run([*records, log.finished(33, clone_of(0), TASK, request_id=ids)]))

    assert (child.parent, child.correlation) == (parent.context, "exact")


def test_tasks_that_share_an_id_end_by_their_own_targets() -> None:
    """Of two tasks with one number the target_uri tells which has ended, in either order of their names."""
    for first, second in (("a", "b"), ("b", "a")):
        log = Log("rfc")
        targets = [f"{VM}{name}/migrate" for name in (first, second)]
        records = [log.started(0, target, "5") for target in targets]
        events = run([*records, log.finished(9, targets[1], "5"), log.finished(12, targets[0], "5")])

        assert [end.target_uri for end in ends(events)] == targets[::-1]


def test_an_error_belongs_to_a_failure_rather_than_to_a_success() -> None:
    """A swap that was made and one that failed with two reports, in one second, are two ends."""
    log = Log("json")
    records = [swap(log, 0), swap(log, 1), log.finished(9, SWAP, app="ginger", failed=True)]
    records += [log.finished(9, SWAP, app="ginger")]
    records += [log.finished(9, SWAP, app="ginger", failed=True, error_code="GINSP0005E")]
    events = run(records)

    assert [end.outcome for end in ends(events)] == ["failure", "success"]
    assert [event.record for event in events if isinstance(event, TaskRepeated)] == [records[2]]


def test_a_repeat_is_known_for_as_long_as_a_task_may_run() -> None:
    """A day after its end nothing repeats a task any more."""
    log = Log("json")
    records = [migrate(log, 0), *(log.finished(at, MIGRATE) for at in (5, DAY + 4, DAY + 5, DAY + 6))]
    events = run(records)

    assert [event.record for event in events if isinstance(event, TaskRepeated)] == [records[2], records[4]]
    assert [end.correlation for end in ends(events)] == ["exact", "none"]


def test_what_comes_after_is_named_as_well() -> None:
    """The candidates that were not taken are named, whether they stand before the end or behind it."""
    log = Log("json")
    records = [swap(log, 0), swap(log, 1), log.finished(9, SWAP, app="ginger"), swap(log, 9)]
    events = run([*records, quiet(log, 30)])
    contexts = [seen.context for seen in requests(events)]

    assert ends(events)[0].parent == contexts[1]
    assert list(ends(events)[0].candidates) == [contexts[0], contexts[2]]


def test_a_lone_request_between_two_reports_is_sure() -> None:
    """With no other task both reports are its own, wherever its line stands."""
    log = Log("json")
    bare = log.finished(1, MIGRATE, failed=True)
    request = migrate(log, 1)
    full = log.finished(1, MIGRATE, failed=True, error_code="KCHVM0058E")

    assert joined(run([bare, request, full])) == [(request.offset, "exact", "failure")]


def test_two_seconds_are_too_far() -> None:
    """A start two seconds after a request is not beside it, and an end two seconds after another is another's."""
    log = Log("json")
    far = [log.request(0, "KCHVM0010L", {"ident": "web"}), log.started(2, MIGRATE), quiet(log, 9)]
    assert [event.correlation for event in run(far) if isinstance(event, TaskStarted)] == ["none"]
    log = Log("json")
    request = swap(log, 0)
    ids: dict[str, Any] = {"app": "ginger", "request_id": request.record_id}
    records = [request, log.started(0, SWAP, TASK, **ids), log.finished(10, SWAP, TASK, **ids)]
    events = run([*records, log.finished(12, SWAP, app="ginger"), quiet(log, 30)])
    assert [end.correlation for end in ends(events)] == ["exact", "none"]


# 8: nested volumes


def download(log: Log, at: float, **params: str) -> Record:
    return log.request(at, "KCHVOL0001L", {"pool": "p", "url": "http://h/f.iso", **params})


@pytest.mark.parametrize("kind", ["dir", "netfs"])
def test_a_download_into_a_file_system(kind: str) -> None:
    """Nothing nests there: the one end that comes is the request's own, exactly, named or not."""
    log = Log("json")
    events = run([download(log, 0, pool_type=kind), log.finished(50, POOL + "f.iso"), quiet(log, 90)])

    assert told(events) == [("storagevolumes.create", 0, 50, "success", "exact", True)]


@pytest.mark.parametrize("failed", [False, True])
@pytest.mark.parametrize("gap", [1, 40])
def test_a_download_into_another_pool(failed: bool, gap: int) -> None:
    """The first success is the nested task's, the record that follows is the end of what was asked for."""
    log = Log("json")
    error = "KCHVOL0029E" if failed else ""
    records = [download(log, 0, name="f.iso", pool_type="logical"), log.finished(50, POOL + "f.iso")]
    records += [log.finished(50 + gap, POOL + "f.iso", failed=failed, error_code=error), quiet(log, 200)]
    events = run(records)
    nested, own = ends(events)

    assert told(events) == [
        ("storagevolumes.create", 50, 50, "success", "likely", True),
        ("storagevolumes.create", 0, 50 + gap, "failure" if failed else "success", "likely", True),
    ]
    assert nested.parent == own.context


def test_a_download_that_fails_at_once() -> None:
    """A failure is the end, whatever the pool: its nested task has not even begun, or failed with it."""
    log = Log("json")
    events = run([download(log, 0, pool_type="logical"), log.finished(50, POOL + "f.iso", failed=True)])

    assert told(events) == [("storagevolumes.create", 0, 50, "failure", "likely", True)]


@pytest.mark.parametrize("gap", [1, 10])
def test_a_file_system_that_nests_all_the_same(gap: int) -> None:
    """Two ends of one download within moments show a nested task: neither match is sure."""
    log = Log("json")
    records = [download(log, 0, name="f.iso", pool_type="dir"), log.finished(50, POOL + "f.iso")]
    events = run([*records, log.finished(50 + gap, POOL + "f.iso"), quiet(log, 200)])

    assert [(end.correlation, end.start == end.end) for end in ends(events)] == [
        ("likely", True),
        ("likely", False),
    ]


def test_a_restart_just_after_a_download_leaves_a_doubt() -> None:
    """What would have shown that the end was a nested task's cannot come any more."""
    log = Log("json")
    correlator, errors = make_with_errors()
    records = [download(log, 0, pool_type="dir"), log.finished(50, POOL + "f.iso"), quiet(log, 53)]
    events = [event for record in records for event in correlator.feed(record)]
    events += restart(correlator, errors, (EPOCH + 55) * NANOS)

    assert told(events) == [("storagevolumes.create", 0, 50, "success", "likely", True)]


def test_a_pool_of_an_unknown_type_is_likely() -> None:
    """Without the type nobody knows whether the end is the nested task's."""
    log = Log("json")

    assert joined(run([download(log, 0), log.finished(50, POOL + "f.iso")]))[0][1] == "likely"


# 9: lost, expired, and without ids


@pytest.mark.parametrize("contested", [False, True])
def test_a_lost_task_says_how_sure_it_is(contested: bool) -> None:
    """A task that its request has opened is certainly its own, unless an end was taken that may have been its."""
    log = Log("json")
    correlator, errors = make_with_errors()
    records = (
        [swap(log, 0), swap(log, 1), log.finished(5, SWAP, app="ginger")] if contested else [swap(log, 0)]
    )
    events = [event for record in records for event in correlator.feed(record)]
    events += restart(correlator, errors, (EPOCH + 100) * NANOS)

    assert [end.correlation for end in ends(events) if end.outcome == "lost"] == [
        "ambiguous" if contested else "exact"
    ]


@pytest.mark.parametrize("records_between", [2, 30])
def test_a_late_end_is_an_orphan(records_between: int) -> None:
    """After the expiry of a task its end is nobody's, least of all a repeat of one that ended a day before."""
    log = Log("json")
    target, params = "/vgs/vg_name/vg0", {"vg_name": "vg0"}
    records = [log.request(0, "GINVG0001L", params, app="ginger"), log.finished(5, target, app="ginger")]
    records += [log.request(10, "GINVG0001L", params, app="ginger")]
    records += [quiet(log, DAY + 100 + number * 60) for number in range(records_between)]
    late = log.finished(DAY + 3000, target, app="ginger", failed=True)
    events = run([*records, late, quiet(log, DAY + 4000)])

    assert sorted((end.outcome, end.correlation) for end in ends(events)) == [
        ("failure", "none"),
        ("success", "exact"),
        ("unknown", "exact"),
    ]


def test_late_ends_of_expired_tasks_are_remembered_once() -> None:
    """A late end uses up the memory of its task; the next one of that target_uri is a repeat of what ended last."""
    log, correlator = Log("json"), make()
    target, params = "/vgs/vg_name/vg0", {"vg_name": "vg0"}
    first = [log.request(0, "GINVG0001L", params, app="ginger")]
    events = [event for record in first for event in correlator.feed(record)]
    events += correlator.quiet((EPOCH + DAY + 10) * NANOS)
    late = [log.finished(DAY + at, target, app="ginger") for at in (20, 40)]
    for record in late:
        events += correlator.feed(record)
        kept = correlator.changes()
        rows = [each for each in ends(events) if each.outcome == "success"]
        correlator = Correlator(
            NAMING,
            expiry=EXPIRY,
            state=kept.state,
            open_tasks=kept.opened,
            ended=[row_of_end(row) for row in rows],
        )
    events += correlator.finish()

    assert [(end.outcome, end.correlation) for end in ends(events)] == [
        ("unknown", "exact"),
        ("success", "none"),
    ]
    assert [event.record for event in events if isinstance(event, TaskRepeated)] == late[1:]


@pytest.mark.parametrize("dialect", ["rfc", "json"])
def test_starts_and_ends_without_ids_join_by_target(dialect: Any) -> None:
    """Without ids a start and an end of one target_uri are one task all the same, with its length."""
    log = Log(dialect)
    records = [migrate(log, 0), log.started(0, MIGRATE)._replace(status=1000)]
    events = run([*records, quiet(log, 20), log.finished(50, MIGRATE)])

    assert told(events) == [("vms.migrate", 0, 50, "success", "exact", True)]


def test_two_starts_without_ids_are_ambiguous() -> None:
    """Which of two tasks of one target_uri has ended nobody knows."""
    log = Log("rfc")
    records = [log.started(0, SWAP, app="ginger"), swap(log, 0), log.started(60, SWAP, app="ginger")]
    records += [swap(log, 60), log.finished(90, SWAP, app="ginger"), log.finished(95, SWAP, app="ginger")]

    assert [(offset, grade) for offset, grade, _ in joined(run(records))] == [
        (records[3].offset, "ambiguous"),
        (records[1].offset, "ambiguous"),
    ]


# 10: every row of the table


def params_for(shape: TaskShape) -> dict[str, str]:
    """Parameters of a request that starts such a task."""
    params = {"template": "/plugins/kimchi/templates/t"}
    for part in shape.template.parts:
        name = getattr(part, "name", "")
        if name:
            source = {"basename": "http://h/x1", "libvirt": "é1", "stem": "x1.img", "extension": "x1.img"}
            params[name] = source.get(part.part, "x1")  # type: ignore[union-attr]
    for condition in shape.conditions:
        if condition.is_wanted and not params.get(condition.name):
            params[condition.name] = condition.values[0] if condition.values else "logical"
        if not condition.is_wanted and not condition.values:
            params[condition.name] = ""
    return params


@pytest.mark.parametrize(("app", "shape"), [each for each in shapes() if each[1].is_asked_for])
@pytest.mark.parametrize("dialect", ["json", "rfc"])
def test_every_row_joins(app: str, shape: TaskShape, dialect: Any) -> None:
    """Each way in which a task's target_uri is made, alone in a log, leads to the only request there is."""
    code = next(
        row.code for row in NAMING.rows if row.operation == shape.operation and row.app == app and row.code
    )
    method = "DELETE" if shape.operation == "vms.hostdevs.detach" else "POST"
    params = params_for(shape)
    if shape.operation == "interfaces.enable_sriov":
        params["num_vfs"] = "4"
    filled = shape.template.fill(params)
    target = target_of(shape)
    for symbol, digits in (("#us", round(EPOCH * 10**6)), ("#ms", EPOCH * 1000), ("#s", EPOCH)):
        if symbol in filled:
            target = filled.replace(symbol, str(digits))
    if "libvirt" in shape.template.source:
        target = filled
    log = Log(dialect)
    request = log.request(0, code, params, app=app, method=method)
    number = "7" if dialect == "rfc" else ""
    start = [log.started(0, target, number, app=app)] if number else []
    final = log.finished(30, target, number, app=app)
    events = run([request, *start, final, *([final._replace(offset=9999)] if shape.nests else [])])

    assert text_of(params, "x") == ""
    assert [(end.operation, bool(end.parent)) for end in ends(events)][-1] == (shape.operation, True)
    assert ends(events)[-1].end - ends(events)[-1].start == 30 * NANOS


# 12: a restart of the exporter


@pytest.mark.parametrize("cut", [1, 2, 3, 4])
def test_a_request_that_found_its_start_closes_no_window(cut: int) -> None:
    """The clock went a second back, and what has been withdrawn from the queue counts no more, restarted or not."""
    log = Log("rfc")
    records = [swap(log, 1), log.started(0, SWAP, "1", app="ginger"), swap(log, 2)]
    records += [log.finished(50, SWAP, "1", app="ginger"), quiet(log, 55)]
    first = make()
    events = [event for record in records[:cut] for event in first.feed(record)]
    kept = first.changes()
    second = Correlator(NAMING, expiry=EXPIRY, state=kept.state, open_tasks=kept.opened)

    assert events + run(records[cut:], second) == run(records)


# 13: a clock that was ahead


@pytest.mark.parametrize("ahead", [3600, 10 * 365 * DAY])
@pytest.mark.parametrize("count", [1, 2, 5])
def test_a_clock_that_was_ahead_ends_nothing(ahead: int, count: int) -> None:
    """Some records dated in the future end no task that runs, and the log's clock is right again after them."""
    log = Log("json")
    wrong = [quiet(log, ahead + number) for number in range(count)]
    events = run([migrate(log, 0), *wrong, log.finished(20, MIGRATE), migrate(log, 30, "db"), quiet(log, 40)])

    assert told(events) == [("vms.migrate", 0, 20, "success", "exact", True)]


def test_expiry_goes_on_after_a_clock_that_was_ahead() -> None:
    """What never reports is given up at its age, not in ten years."""
    log = Log("json")
    records = [quiet(log, 10 * 365 * DAY), quiet(log, 10 * 365 * DAY + 1), migrate(log, 0)]
    records += [quiet(log, at) for at in range(0, DAY + 2000, 500)]
    correlator = make()
    events = [event for record in records for event in correlator.feed(record)]

    assert told(events) == [("vms.migrate", 0, 0, "unknown", "exact", True)]


@pytest.mark.parametrize("first", [False, True])
def test_a_task_of_a_clock_that_was_ahead_expires(first: bool) -> None:
    """What began while the clock was ahead began no later than the log is now, and is given up at its age."""
    log, correlator = Log("json"), make()
    records = [] if first else [quiet(log, 0)]
    records += [migrate(log, 400 * DAY), *(quiet(log, at) for at in range(10, 701, 30))]
    for record in records:
        correlator.feed(record)
    opened = {row.key: row for row in correlator.changes().opened}
    (row,) = opened.values()
    start = 700 - 30 if first else 10

    assert row.start == (EPOCH + start) * NANOS or (first and row.start <= (EPOCH + 700) * NANOS)
    assert not correlator.is_due(row.start + DAY * NANOS - 1)
    assert correlator.is_due(row.start + DAY * NANOS)
    assert [end.outcome for end in ends(correlator.quiet(row.start + DAY * NANOS))] == ["unknown"]
    assert not correlator.is_due(row.start + 2 * DAY * NANOS)


def test_a_wall_clock_behind_the_log_changes_no_task() -> None:
    """A log in another time zone may be hours ahead of the wall clock: what is said of its tasks stays."""
    log, correlator = Log("json"), make()
    correlator.feed(migrate(log, 3 * 3600))
    correlator.quiet(EPOCH * NANOS)

    assert [row.start for row in correlator.changes().opened] == [(EPOCH + 3 * 3600) * NANOS]


def test_a_window_ahead_of_the_wall_clock_closes() -> None:
    """A final record dated in the future is decided three seconds after it was first waited for."""
    log, correlator = Log("json"), make()
    correlator.feed(log.finished(400 * DAY, MIGRATE))
    times = [(EPOCH + at) * NANOS for at in (0, 2, 3)]

    assert [correlator.is_due(time) for time in times] == [False, False, True]
    assert len(ends(correlator.quiet(times[2]))) == 1
    assert not correlator.is_due(times[2] + NANOS)


def test_what_waits_may_end_a_task_that_is_just_too_old() -> None:
    """Nothing expires while a final record from before its expiry waits; then all that is too old does."""
    log, correlator = Log("json"), make()
    for record in (migrate(log, 0), migrate(log, 1, "db")):
        correlator.feed(record)
    correlator.quiet((EPOCH + DAY - 10) * NANOS)
    correlator.feed(log.finished(DAY - 1, MIGRATE))
    early = [correlator.is_due((EPOCH + DAY + 1) * NANOS), correlator.quiet((EPOCH + DAY + 1) * NANOS)]
    events = correlator.quiet((EPOCH + DAY + 2) * NANOS)

    assert early == [False, []]
    assert [end.outcome for end in ends(events)] == ["success", "unknown"]


def test_a_task_that_is_being_decided_does_not_expire() -> None:
    """A task whose end waits is ended by it, and keeps no other from expiring."""
    log, correlator = Log("rfc"), make()
    db = f"{VM}db/migrate"
    records = [log.started(0, MIGRATE, "1"), log.started(1, db, "2"), log.finished(DAY - 1, MIGRATE, "1")]
    events = [event for record in records for event in correlator.feed(record)]
    events += correlator.quiet((EPOCH + DAY + 3) * NANOS)

    assert [(end.outcome, end.target_uri) for end in ends(events)] == [("success", MIGRATE), ("unknown", db)]


def test_a_clock_set_back_between_request_and_end() -> None:
    """The order of the log counts: a request that stands before an end may be its, dated later though it is."""
    log = Log("json")
    records = [migrate(log, 3600), quiet(log, 3), log.finished(20, MIGRATE)]

    assert told(run(records)) == [("vms.migrate", 20, 20, "success", "likely", True)]


def test_an_end_before_its_own_start_may_belong_to_it() -> None:
    """Without ids, a start behind an end of the same second is a rival of the running task; alone, it is likely."""
    log = Log("json")
    records = [
        migrate(log, 0),
        log.started(0, MIGRATE),
        migrate(log, 9),
        log.finished(9, MIGRATE)._replace(status=1001),
        log.started(9, MIGRATE),
        log.finished(20, MIGRATE)._replace(status=1001),
    ]

    assert [grade for _, grade, _ in joined(run(records))] == ["ambiguous", "ambiguous"]
    assert joined(run(records[2:5])) == [(records[2].offset, "likely", "success")]


@pytest.mark.parametrize(
    ("ids", "times", "grade"),
    [
        (("1", "2"), (1, 1), "exact"),
        (("2", "1"), (1, 1), "ambiguous"),
        (("", ""), (1, 1), "exact"),
        (("", ""), (2, 1), "ambiguous"),
    ],
)
def test_starts_out_of_order_contest_each_other(
    ids: tuple[str, str], times: tuple[int, int], grade: str
) -> None:
    """Two starts of one target between their requests: the ids or times show that the lines changed places."""
    log = Log("rfc")
    records = [
        migrate(log, 1),
        log.started(times[0], MIGRATE, ids[0]),
        log.started(times[1], MIGRATE, ids[1]),
        migrate(log, 1),
        quiet(log, 9),
    ]

    assert [start.correlation for start in run(records) if isinstance(start, TaskStarted)] == [grade] * 2


def test_a_request_that_no_task_has_named_yet_is_known_by_its_id() -> None:
    """A request without a 202 may be named by a start minutes later, and by an end whose start is missing."""
    log = Log("json")
    request = swap(log, 0, status=200)
    start = log.started(300, SWAP, TASK, app="ginger", request_id=request.record_id)
    end = log.finished(309, SWAP, TASK, app="ginger", request_id=request.record_id)

    assert joined(run([request, quiet(log, 100), start, end])) == [(0, "exact", "success")]
    assert joined(run([request, quiet(log, 100), end])) == [(0, "exact", "success")]


def test_an_unnamed_guest_belongs_to_a_request_of_its_template() -> None:
    """Of two requests without a name, the template decides; a name that fits neither leaves both."""
    log = Log("json")
    templates = "/plugins/kimchi/templates/"
    records = [
        log.request(at, "KCHVM0001L", {"name": "", "template": templates + name})
        for at, name in enumerate("xy")
    ]
    of_first, of_none = log.finished(30, VM + "x-vm-1"), log.finished(30, VM + "auto-vm-e054cf")

    assert joined(run([*records, of_first])) == [(0, "likely", "success")]
    assert joined(run([*records, of_none])) == [(100, "ambiguous", "success")]


def test_python_2_logs_a_missing_name_as_none() -> None:
    """`None` is no name, or it is one: both target_uris belong to the request."""
    for name in (str(EPOCH), "None"):
        log = Log("json")
        request = log.request(0, "KCHSNAP0001L", {"vm": "web", "name": "None"})

        assert joined(run([request, log.finished(5, f"{VM}web/snapshots/{name}")])) == [
            (0, "exact", "success")
        ]


@pytest.mark.parametrize("late", [2, 9, 14])
def test_a_request_whose_line_follows_the_end_of_its_task(late: int) -> None:
    """A start has named the request: its line joins for some seconds, although the task has ended."""
    log = Log("json")
    named = "4f41cceb-8802-4897-8b16-8444a086a68c"
    records = [
        log.started(0, SWAP, TASK, app="ginger", request_id=named),
        log.finished(1, SWAP, TASK, app="ginger", request_id=named),
        quiet(log, late),
        swap(log, 1 + late)._replace(record_id=named, trace_id=bytes.fromhex(named.replace("-", ""))),
    ]

    assert joined(run(records)) == [(300, "exact", "success")]
    assert joined(run([*records[:3], quiet(log, 40), records[3]])) == [(-1, "none", "success")]


def test_wok_s_own_record_beside_an_end_that_waits_for_its_request() -> None:
    """It is a repeat of that end, and ends no other task of the target."""
    log = Log("json")
    named = "4f41cceb-8802-4897-8b16-8444a086a68c"
    records = [
        swap(log, 0),
        log.started(20, SWAP, TASK, app="ginger", request_id=named),
        log.finished(30, SWAP, TASK, app="ginger", request_id=named),
        log.finished(30, SWAP, app="ginger"),
        quiet(log, 60),
    ]

    assert joined(run(records)) == [(-1, "none", "success")]


def test_a_second_report_of_an_end_that_waits_for_its_request() -> None:
    """It may lack the target_uri, and the one with the error counts."""
    log = Log("json")
    named = "4f41cceb-8802-4897-8b16-8444a086a68c"
    records = [
        log.started(0, SWAP, TASK, app="ginger", request_id=named),
        log.finished(1, SWAP, TASK, app="ginger", failed=True),
        quiet(log, 5),
        log.finished(6, "", TASK, app="ginger", failed=True, error_code="GINSP00005E"),
        quiet(log, 40),
    ]
    events = run(records)

    assert [(end.target_uri, end.record) for end in ends(events)] == [(SWAP, records[3])]
    assert [each.record for each in events if isinstance(each, TaskRepeated)] == [records[1]]

"""Which task belongs to which request: stories, one a rule, and the property that batches make no difference."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.correlate import settle_window as settling
from exporter.correlate.correlator import Correlator
from exporter.correlate.error_evidence import ErrorEvidence
from exporter.records import (
    NANOS,
    Event,
    OpenTask,
    Record,
    RequestSeen,
    TaskEnded,
    TaskRepeated,
    TaskRow,
    TaskStarted,
)
from exporter.wok.operations import Operations

from .records_made import EPOCH, Log

MIGRATE = "/plugins/kimchi/vms/web/migrate"
SWAP = "/swaps/file_loc/"
PROGRESS = "/plugins/gingerbase/host/swupdateprogress"
NAMING = Operations.load()
EXPIRY = 24 * 3600 * NANOS


def make() -> Correlator:
    """A correlator that has seen nothing."""
    return Correlator(NAMING, expiry=EXPIRY)


def make_with_errors() -> tuple[Correlator, ErrorEvidence]:
    """A correlator that has seen nothing, and its evidence of wok-error.log."""
    errors = ErrorEvidence(NAMING, expiry=EXPIRY)
    return Correlator(NAMING, expiry=EXPIRY, errors=errors), errors


def restart(correlator: Correlator, errors: ErrorEvidence, time: int) -> list[Event]:
    """All events of a restart of wokd that is confirmed by the wall clock."""
    errors.expect(time)
    return correlator.quiet(time + 3 * NANOS)


def run(records: Iterable[Record], correlator: Correlator | None = None) -> list[Event]:
    """All events of a finished log."""
    correlator = correlator or make()
    events = [event for record in records for event in correlator.feed(record)]
    return events + correlator.finish()


def ends(events: Iterable[Event]) -> list[TaskEnded]:
    return [event for event in events if isinstance(event, TaskEnded)]


def requests(events: Iterable[Event]) -> list[RequestSeen]:
    return [event for event in events if isinstance(event, RequestSeen)]


def seconds(nanos: int) -> float:
    return nanos / NANOS - EPOCH


def told(events: Iterable[Event]) -> list[tuple[Any, ...]]:
    """Ends of tasks in short: (operation, start, end, outcome, grade, whether it has a parent)."""
    return [
        (end.operation, seconds(end.start), seconds(end.end), end.outcome, end.correlation, bool(end.parent))
        for end in ends(events)
    ]


# The JSON dialect: a 202 opens a task, a final record ends it


def test_a_named_target_joins_exactly() -> None:
    """The final record of a migration ends the request that names the guest, and only that."""
    log = Log("json")
    other = log.request(0, "KCHVM0010L", {"ident": "db", "remote_host": "h"})
    mine = log.request(1, "KCHVM0010L", {"ident": "web", "remote_host": "h"})
    events = run([other, mine, log.finished(61, MIGRATE)])

    assert told(events) == [("vms.migrate", 1, 61, "success", "exact", True)]
    assert ends(events)[0].parent == requests(events)[1].context


def test_a_constant_target_is_only_likely() -> None:
    """Every swap has the same target_uri: with one candidate the match is likely, never exact."""
    log = Log("json")
    events = run([log.request(0, "GINSP0001L", app="ginger"), log.finished(5, SWAP, app="ginger")])

    assert told(events) == [("swaps.create", 0, 5, "success", "likely", True)]


def test_several_candidates_are_ambiguous() -> None:
    """Of two swaps the newest is taken, the other named, and the match of the second is in doubt as well."""
    log = Log("json")
    first, second = log.request(0, "GINSP0001L", app="ginger"), log.request(1, "GINSP0001L", app="ginger")
    events = run([first, second, log.finished(5, SWAP, app="ginger"), log.finished(9, SWAP, app="ginger")])
    seen = requests(events)

    assert [(end.correlation, end.parent, list(end.candidates)) for end in ends(events)] == [
        ("ambiguous", seen[1].context, [seen[0].context]),
        ("ambiguous", seen[0].context, []),
    ]


def test_an_error_that_quotes_one_request_names_it() -> None:
    """A failure that names the swap file joins exactly, whatever else runs with the same target_uri."""
    log = Log("json")
    first = log.request(0, "GINSP0001L", {"file_loc": "/swap-a"}, app="ginger")
    second = log.request(1, "GINSP0001L", {"file_loc": "/swap-b"}, app="ginger")
    final = log.finished(5, SWAP, app="ginger", failed=True, error_code="GINSP0005E")
    events = run([first, second, final._replace(error_params={"file_loc": "/swap-a", "err": "no space"})])

    assert [(end.correlation, end.parent) for end in ends(events)] == [("exact", requests(events)[0].context)]


def test_the_request_before_is_preferred() -> None:
    """A request after the final record is taken only where none stands before."""
    log = Log("json")
    before, final = log.request(0, "GINSP0001L", app="ginger"), log.finished(1, SWAP, app="ginger")
    events = run([before, final, log.request(1, "GINSP0001L", app="ginger")])

    assert [(end.correlation, end.parent) for end in ends(events)] == [
        ("ambiguous", requests(events)[0].context)
    ]


def test_a_fast_task_stands_before_its_request() -> None:
    """A final record that finds no request waits for it, and lasts no negative time."""
    log = Log("json")
    final = log.finished(0, MIGRATE)
    events = run([final, log.request(1, "KCHVM0010L", {"ident": "web"})])

    assert told(events) == [("vms.migrate", 0, 0, "success", "exact", True)]


def test_the_window_is_two_seconds_of_the_log() -> None:
    """A request two seconds after the final record is another one: the record was an orphan."""
    log = Log("json")
    events = run([log.finished(0, MIGRATE), log.request(2, "KCHVM0010L", {"ident": "web"})])

    assert told(events) == [("vms.migrate", 0, 0, "success", "none", False)]


def test_the_error_wins_within_the_window() -> None:
    """Of two final records in a moment the one with the error makes the span; the other is a repeat."""
    log = Log("json")
    bare, full = (
        log.finished(9, MIGRATE, failed=True),
        log.finished(9, MIGRATE, failed=True, error_code="KCHVM0058E"),
    )
    events = run([log.request(0, "KCHVM0010L", {"ident": "web"}), bare, full])

    assert [(end.record, end.outcome) for end in ends(events)] == [(full, "failure")]
    assert [event.record for event in events if isinstance(event, TaskRepeated)] == [bare]
    assert [event.context for event in events if isinstance(event, TaskRepeated)] == [ends(events)[0].context]


def test_a_success_is_not_taken_back_while_another_may_have_failed() -> None:
    """With two swaps running, a success and a failure in one second are the ends of both."""
    log = Log("json")
    records = [log.request(0, "GINSP0001L", app="ginger"), log.request(0, "GINSP0001L", app="ginger")]
    records += [log.finished(5, SWAP, app="ginger")]
    records += [log.finished(5, SWAP, app="ginger", failed=True, error_code="GINSP0005E")]

    assert [end.outcome for end in ends(run(records))] == ["success", "failure"]


def test_late_finals_are_repeats() -> None:
    """Further final records, hours later, are told in the context of the ended task and make no span."""
    log = Log("json")
    records = [log.request(0, "KCHVMHDEV0001L", {"vmid": "web", "name": "pci"})]
    records += [log.finished(at, "/plugins/kimchi/vms/web/hostdevs/") for at in (3, 7200, 7201)]
    events = run(records)

    assert told(events) == [("vms.hostdevs.attach", 0, 3, "success", "likely", True)]
    assert [event.record for event in events if isinstance(event, TaskRepeated)] == records[2:]


def test_polls_are_tasks_of_their_own() -> None:
    """Each end of a progress poll is an orphan task, never a repeat of the one before."""
    log = Log("json")
    events = run([log.finished(at, PROGRESS, app="gingerbase") for at in (0, 0, 30)])

    assert told(events) == [("host.swupdateprogress", at, at, "success", "none", False) for at in (0, 0, 30)]
    assert all(end.counts_start for end in ends(events))


def test_the_epoch_in_a_target_tells_clones_apart() -> None:
    """Two clones of one guest are told apart by the start in their target_uri, which is the span's start."""
    log = Log("json")
    early, late = (
        log.request(10, "KCHVM0009L", {"ident": "web"}),
        log.request(40, "KCHVM0009L", {"ident": "web"}),
    )
    epoch = (EPOCH + 39) * 10**6 + 750_000
    events = run([early, late, log.finished(70, f"/plugins/kimchi/vms/web-clone-{epoch}/clone")])

    assert told(events) == [("vms.clone", 39.75, 70, "success", "exact", True)]
    assert ends(events)[0].parent == requests(events)[1].context


def test_a_choice_between_neighbours_makes_none_of_their_matches_exact() -> None:
    """Clones may start just before the second of their line: a wrong first choice never makes the second exact."""
    log = Log("json")
    early, late = (log.request(at, "KCHVM0009L", {"ident": "web"}) for at in (10, 11))
    epochs = [EPOCH * 10**6 + micros for micros in (10_980_000, 9_980_000)]
    ended = [
        log.finished(at, f"/plugins/kimchi/vms/web-clone-{epoch}/clone")
        for at, epoch in zip((60, 70), epochs, strict=True)
    ]
    events = run([early, late, *ended])

    assert [grade for *_, grade, _ in told(events)] == ["likely", "likely"]


@pytest.mark.parametrize(
    ("micros", "grade"), [(10_000_000, "exact"), (9_700_000, "exact"), (9_300_000, "likely")]
)
def test_a_line_most_of_a_second_after_the_start_is_only_likely(micros: int, grade: str) -> None:
    """A request's line is written at once: a later one may be another's, where the right one is missing."""
    log = Log("json")
    target_uri = f"/plugins/kimchi/vms/web-clone-{EPOCH * 10**6 + micros}/clone"
    events = run([log.request(10, "KCHVM0009L", {"ident": "web"}), log.finished(60, target_uri)])

    assert [grade for *_, grade, _ in told(events)] == [grade]


def test_an_epoch_that_contradicts_the_log_is_not_exact() -> None:
    """When no request can have started the task at the time its target_uri tells, the match is only likely."""
    log = Log("json")
    epoch = (EPOCH + 3600) * 10**6
    events = run(
        [
            log.request(0, "KCHVM0009L", {"ident": "web"}),
            log.finished(9, f"/plugins/kimchi/vms/web-clone-{epoch}/clone"),
        ]
    )

    assert told(events) == [("vms.clone", 0, 9, "success", "likely", True)]


def test_the_same_name_in_another_application_is_a_stranger() -> None:
    """Applications are never mixed, whatever the target_uri says."""
    log = Log("json")
    events = run([log.request(0, "KCHVM0010L", {"ident": "web"}), log.finished(5, MIGRATE, app="evil")])

    assert told(events) == [("other", 5, 5, "success", "none", False)]


def test_unknown_plugins_are_joined_by_a_segment() -> None:
    """A parameter that is the last segment of the target_uri joins where no rule is known."""
    log = Log("json")
    records = [
        log.request(0, "XYZJOB0001L", {"name": "night-backup-7"}, app="xyz"),
        log.request(0, "XYZJOB0001L", {"name": "weekly"}, app="xyz"),
        log.finished(30, "/plugins/xyz/jobs/night-backup-7", app="xyz"),
    ]

    assert told(run(records)) == [("XYZJOB0001L", 0, 30, "success", "exact", True)]


def test_sentences_without_codes_are_known_by_the_tables() -> None:
    """Where a release wrote no codes, Wok's own message tables tell what a request did."""
    log = Log("text")
    record = log.request(0, "", status=None)._replace(text="Start guest 'web'")
    correlator = Correlator(NAMING, expiry=EXPIRY, code_of=lambda text: "KCHVM0004L" if "web" in text else "")

    assert [event.operation for event in requests(correlator.feed(record))] == [
        NAMING.of_request("kimchi", "POST", "KCHVM0004L", {}, None)
    ]


# The RFC's dialect: a start record, joined by its task id


def test_a_start_before_its_request_starts_both() -> None:
    """The start record stands first; request and task start there, and the request ends at its own line."""
    log = Log("rfc")
    events = run(
        [
            log.started(10, MIGRATE, "7"),
            log.request(11, "KCHVM0010L", {"ident": "web"}),
            log.finished(300, MIGRATE, "7", failed=True, error_code="KCHVM0058E"),
        ]
    )
    seen = requests(events)[0]

    assert told(events) == [("vms.migrate", 10, 300, "failure", "exact", True)]
    assert (seconds(seen.start), seconds(seen.record.time), seen.opens_task) == (10, 11, False)
    assert [type(event) for event in events] == [RequestSeen, TaskStarted, TaskEnded]


def test_a_start_after_its_request_moves_the_task_alone() -> None:
    """Later evidence never moves a request span that has been made."""
    log = Log("rfc")
    events = run(
        [
            log.request(10, "KCHVM0010L", {"ident": "web"}),
            log.started(11, MIGRATE, "7"),
            log.finished(12, MIGRATE, "7"),
        ]
    )

    assert told(events) == [("vms.migrate", 11, 12, "success", "exact", True)]
    assert seconds(requests(events)[0].start) == 10


def test_an_end_before_its_start() -> None:
    """A final record may stand before the start record of its own task."""
    log = Log("rfc")
    final = log.finished(10, "/internal/cleanup", "27", app="wok")
    events = run([final, log.started(10, "/internal/cleanup", "27", app="wok")])

    assert told(events) == [("other", 10, 10, "success", "none", False)]
    assert [type(event) for event in events] == [TaskStarted, TaskEnded]
    assert not ends(events)[0].counts_start


def test_nested_and_internal_tasks_have_no_parent() -> None:
    """A start record that no request follows is a task of its own, told when its window closes."""
    log = Log("rfc")
    nested = "/plugins/kimchi/storagepools/p/storagevolumes/69ae76e6-e6ec-41f1-a1fa-02fc00000001-0.img/clone"
    events = run(
        [
            log.started(0, nested, "3"),
            log.request(1, "KCHVM0002L", {"ident": "x"}, status=204),
            log.finished(9, nested, "3"),
        ]
    )

    assert told(events) == [("storagevolumes.clone", 0, 9, "success", "none", False)]


def test_crossing_starts_are_ambiguous() -> None:
    """Two starts of one target before two requests: joined in order, and both say that it may be otherwise."""
    log = Log("rfc")
    target = "/plugins/kimchi/vms/web/hostdevs/"
    records = [log.started(0, target, "1"), log.started(0, target, "2")]
    records += [log.request(0, "KCHVMHDEV0001L", {"vmid": "web", "name": name}) for name in "ab"]
    records += [log.finished(5, target, "1"), log.finished(6, target, "2")]
    events = run(records)
    first, second = (request.context for request in requests(events))

    assert [(end.correlation, end.parent, list(end.candidates)) for end in ends(events)] == [
        ("ambiguous", first, [second]),
        ("ambiguous", second, [first]),
    ]


def test_a_lone_pair_is_exact_and_a_crowd_is_not() -> None:
    """A start beside its request joins exactly though every swap has that target; near another it is likely."""
    log = Log("rfc")
    pair = [log.started(0, SWAP, "1", app="ginger"), log.request(0, "GINSP0001L", app="ginger")]
    close = [log.started(1, SWAP, "2", app="ginger"), log.request(1, "GINSP0001L", app="ginger")]
    far = [log.started(60, SWAP, "3", app="ginger"), log.request(60, "GINSP0001L", app="ginger")]
    finals = [log.finished(90, SWAP, task_id, app="ginger") for task_id in "123"]

    assert [end.correlation for end in ends(run([*pair, *close, *far, *finals]))] == [
        "likely",
        "likely",
        "exact",
    ]


def test_a_request_that_failed_may_have_started_its_task() -> None:
    """A 500 without an error, beside its start record, is its parent; with an error it is not."""
    log = Log("rfc")
    start, request = log.started(0, MIGRATE, "1"), log.request(0, "KCHVM0010L", {"ident": "web"}, status=500)
    refused = request._replace(error_code="KCHVM0058E")

    assert [event.correlation for event in run([start, request]) if isinstance(event, TaskStarted)] == [
        "exact"
    ]
    assert [event.correlation for event in run([start, refused]) if isinstance(event, TaskStarted)] == [
        "none"
    ]


def test_two_tasks_may_share_an_id() -> None:
    """Wok's counter is not locked: tasks of one id are told apart by their target_uri."""
    log = Log("rfc")
    other = "/plugins/kimchi/vms/db/migrate"
    events = run(
        [
            log.started(0, MIGRATE, "5"),
            log.started(0, other, "5"),
            log.finished(7, other, "5"),
            log.finished(9, MIGRATE, "5"),
        ]
    )

    assert [(end.target_uri, seconds(end.end)) for end in ends(events)] == [(other, 7), (MIGRATE, 9)]


@pytest.mark.parametrize("targets", [(MIGRATE, ""), ("", MIGRATE)])
def test_a_second_final_may_lack_the_target(targets: tuple[str, str]) -> None:
    """Two final records of one task id are one end, with the error of the second, also where one has no target."""
    log = Log("rfc")
    first, second = targets
    records = [
        log.started(0, MIGRATE, "7"),
        log.finished(5, first, "7"),
        log.finished(5, second, "7", failed=True, error_code="KCHVM0058E"),
    ]
    correlator = make()
    events = [event for record in records for event in correlator.feed(record)]
    changes = correlator.changes()
    again = Correlator(NAMING, expiry=EXPIRY, state=changes.state, open_tasks=changes.opened)

    (end,) = ends(correlator.finish())

    assert (end.outcome, end.target_uri, end.record) == ("failure", MIGRATE, records[2])
    assert events + again.finish() == run(records)


def test_an_id_that_starts_over_is_a_restart() -> None:
    """Id 1 again, long after it was used: what ran is lost at that moment, and 1 is a new task."""
    log = Log("rfc")
    events = run(
        [
            log.started(0, MIGRATE, "1"),
            log.started(900, SWAP, "1", app="ginger"),
            log.finished(905, SWAP, "1", app="ginger"),
        ]
    )

    assert told(events) == [
        ("vms.migrate", 0, 900, "lost", "none", False),
        ("swaps.create", 900, 905, "success", "none", False),
    ]


def test_ids_a_little_out_of_order_are_no_restart() -> None:
    """Threads log their ids in any order within a moment."""
    log = Log("rfc")
    events = run(
        [
            log.started(0, MIGRATE, "12"),
            log.started(0, SWAP, "11", app="ginger"),
            log.finished(5, MIGRATE, "12"),
        ]
    )

    assert [end.outcome for end in ends(events)] == ["success"]


def test_the_newest_id_may_be_given_twice() -> None:
    """A second task with the highest id, however much later, is two threads that took one number."""
    log = Log("rfc")
    records = [log.started(0, MIGRATE, "32"), log.started(1, SWAP, "33", app="ginger")]
    records += [log.started(40, "/lvs/vg_name/vg", "33", app="ginger"), log.finished(90, MIGRATE, "32")]

    assert [end.outcome for end in ends(run(records))] == ["success"]


def test_a_wokd_that_ran_one_task_is_seen_to_restart() -> None:
    """Id 1 again is a beginning, although it is the newest id as well."""
    log = Log("rfc")
    records = [log.started(0, MIGRATE, "1"), log.started(40, SWAP, "1", app="ginger")]

    assert [end.outcome for end in ends(run(records))] == ["lost"]


def test_an_id_far_below_is_a_restart() -> None:
    """An id that was never used here, but lies far below the highest, is a new wokd's."""
    log = Log("rfc")
    events = run([log.started(0, MIGRATE, "300"), log.started(1, SWAP, "2", app="ginger")])

    assert [end.outcome for end in ends(events)] == ["lost"]


def test_ids_of_a_former_wokd_are_forgotten() -> None:
    """After a restart a final record of a used id and target is not a repeat of the old task."""
    log = Log("rfc")
    events = run(
        [
            log.started(0, MIGRATE, "1"),
            log.finished(5, MIGRATE, "1"),
            log.started(60, SWAP, "1", app="ginger"),
            log.finished(90, MIGRATE, "1"),
        ]
    )

    assert [end.correlation for end in ends(events)] == ["none", "none"]
    assert not [event for event in events if isinstance(event, TaskRepeated)]


# An extended Wok: JSON with the RFC's statuses


def test_a_request_id_joins_exactly() -> None:
    """A start that names its request's record claims it, before it or after it, and counts once."""
    log = Log("json")
    request = log.request(0, "GINSP0001L", app="ginger")
    start = log.started(0, SWAP, "9", app="ginger", request_id=request.record_id)
    final = log.finished(8, SWAP, "9", app="ginger")
    for records in ([request, start, final], [start, request, final]):
        events = run(records)
        counted = sum(event.opens_task for event in requests(events)) + sum(
            event.counts for event in events if isinstance(event, TaskStarted)
        )

        assert told(events) == [("swaps.create", 0, 8, "success", "exact", True)]
        assert counted == 1


def test_a_final_with_a_request_id_needs_no_start() -> None:
    """Where the start record is missing, the request id alone joins exactly."""
    log = Log("json")
    first, second = log.request(0, "GINSP0001L", app="ginger"), log.request(0, "GINSP0001L", app="ginger")
    final = log.finished(8, SWAP, "9", app="ginger", request_id=second.record_id)
    events = run([first, second, final])

    assert [(end.parent, end.correlation) for end in ends(events)] == [(requests(events)[1].context, "exact")]


# Restarts, expiry, concurrency


def test_a_mark_loses_what_ran() -> None:
    """A start of wokd ends its predecessor's tasks at the mark; what began later runs on."""
    log = Log("json")
    correlator, errors = make_with_errors()
    events = run([log.request(0, "KCHVM0010L", {"ident": "web"})], correlator)
    events += restart(correlator, errors, (EPOCH + 100) * NANOS)
    events += run([log.request(101, "KCHVM0010L", {"ident": "web"}), log.finished(150, MIGRATE)], correlator)

    assert told(events) == [
        ("vms.migrate", 0, 100, "lost", "exact", True),
        ("vms.migrate", 101, 150, "success", "exact", True),
    ]


def test_age_alone_ends_as_unknown() -> None:
    """After a day without an end the task is unknown, of no length; its end after that is an orphan."""
    log = Log("json")
    day = 24 * 3600
    events = run(
        [
            log.request(0, "KCHVM0010L", {"ident": "web"}),
            log.request(day, "KCHVM0002L", status=204),
            log.request(day + 1, "KCHVM0002L", status=204),
            log.finished(day + 9, MIGRATE),
        ]
    )

    assert told(events) == [
        ("vms.migrate", 0, 0, "unknown", "exact", True),
        ("vms.migrate", day + 9, day + 9, "success", "none", False),
    ]
    assert seconds(ends(events)[0].reported) == day


def test_one_record_from_the_future_expires_nothing() -> None:
    """A single forged or mistaken time does not end the tasks that run."""
    log = Log("json")
    events = run(
        [
            log.request(0, "KCHVM0010L", {"ident": "web"}),
            log.request(10**8, "KCHVM0002L", status=204),
            log.finished(9, MIGRATE),
        ]
    )

    assert told(events) == [("vms.migrate", 0, 9, "success", "exact", True)]


def test_a_lost_task_expires_on_a_quiet_night() -> None:
    """When caught up the wall clock ends it, with no record to push."""
    log, correlator = Log("json"), make()
    events = correlator.feed(log.request(0, "KCHVM0010L", {"ident": "web"}))
    before = correlator.quiet((EPOCH + 24 * 3600) * NANOS - 1)
    events += correlator.quiet((EPOCH + 24 * 3600) * NANOS)

    assert before == []
    assert told(events) == [("vms.migrate", 0, 0, "unknown", "exact", True)]


def test_the_window_closes_by_the_wall_clock_when_caught_up() -> None:
    """Three seconds after its time a waiting final record is decided."""
    log, correlator = Log("json"), make()
    correlator.feed(log.finished(5, MIGRATE))

    assert correlator.quiet((EPOCH + 8) * NANOS - 1) == []
    assert told(correlator.quiet((EPOCH + 8) * NANOS)) == [("vms.migrate", 5, 5, "success", "none", False)]


def test_a_clock_set_back_closes_the_window() -> None:
    """An hour back at the end of summer time does not hold records for an hour."""
    log, correlator = Log("json"), make()
    correlator.feed(log.finished(5, MIGRATE))

    assert told(correlator.feed(log.request(-3595, "KCHVM0002L", status=204)))[0][1:3] == (5, 5)


@pytest.mark.parametrize("between", [0, 1, 40])
def test_concurrent_requests_are_counted_and_linked(between: int) -> None:
    """The count is exact at any length, the first 32 are linked in order, the task's own request is neither."""
    log = Log("rfc")
    records = [log.started(0, MIGRATE, "1"), log.request(1, "KCHVM0010L", {"ident": "web"})]
    records += [log.request(2, "KCHVM0003L", status=200, method="PUT") for _ in range(between)]
    records += [log.finished(5, MIGRATE, "1"), log.request(5, "KCHVM0003L", status=200, method="PUT")]
    events = run(records)
    end = ends(events)[0]

    assert end.concurrent == between
    assert list(end.links) == [request.context for request in requests(events)[1 : 1 + min(32, between)]]
    assert (end.since, end.until) == (0, 1 + between)


def test_what_waits_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A flood within one second settles the oldest early instead of growing."""
    monkeypatch.setattr(settling, "SETTLING_MAX", 10)
    log, correlator = Log("json"), make()
    events = [event for at in range(50) for event in correlator.feed(log.finished(0, f"/x/{at}"))]

    assert len(events) == 40


# Batches


STEPS = [0, 0, 0, 0, 1, 1, 2, 3, 100, 700, 90_000, -1, -1, -3, -3600, -90_000, 10**8]
"""How far the clock goes on between two records: it is set back and forth as well."""
KINDS = [
    *("migrate", "attach", "clone", "swap", "download", "job", "sync", "failed"),
    *("start", "named", "nested", "end", "end", "fail", "plain", "plain", "plainfail"),
]
TASK_IDS = ["1", "2", "3", "40", "", "4a067870-eac5-11f1-b2d5-02fc00000001"]


def _records(draw: st.DrawFn) -> list[Record]:
    """A log of a few tasks in either dialect, with everything that may be out of order out of order."""
    log = Log("json")
    records: list[Record] = []
    named: list[str] = ["4f41cceb-8802-4897-8b16-8444a086a68c"]
    at = 0.0
    # Either anything, or a crowd of the same within moments.
    is_crowd = draw(st.booleans())
    for _ in range(draw(st.integers(1, 40))):
        at += draw(st.sampled_from([0, 1, 1, -1, -1, 2] if is_crowd else STEPS))
        log.dialect = draw(st.sampled_from(["json", "rfc"]))
        guest = "a" if is_crowd else draw(st.sampled_from("ab"))
        epoch = round((EPOCH + at - draw(st.sampled_from([0.01, 0.9, 3]))) * 10**6)
        target = draw(
            st.sampled_from(
                [
                    f"/plugins/kimchi/vms/{guest}/migrate",
                    f"/plugins/kimchi/vms/{guest}/hostdevs/",
                    f"/plugins/kimchi/vms/{guest}-clone-{epoch}/clone",
                    "/plugins/kimchi/storagepools/p/storagevolumes/v",
                    "/plugins/kimchi/jobs/night-backup-7",
                    "",
                ]
            )
        )
        if is_crowd:
            target = MIGRATE.replace("web", "a")
        task_id = draw(st.sampled_from(TASK_IDS))
        what = draw(st.sampled_from(["migrate", "failed", "start", "end"] if is_crowd else KINDS))
        if what == "migrate":
            records.append(log.request(at, "KCHVM0010L", {"ident": guest}))
        elif what == "attach":
            records.append(log.request(at, "KCHVMHDEV0001L", {"vmid": guest}))
        elif what == "clone":
            records.append(log.request(at, "KCHVM0009L", {"ident": guest}))
        elif what == "swap":
            records.append(log.request(at, "GINSP0001L", {"file_loc": f"/{guest}"}, app="ginger"))
        elif what == "download":
            pool_type = draw(st.sampled_from(["dir", "logical", ""]))
            params = {"pool": "p", "name": "v", "url": "http://h/v", "pool_type": pool_type}
            records.append(log.request(at, "KCHVOL0001L", params))
        elif what == "job":
            records.append(log.request(at, "KCHXX0001L", {"name": "night-backup-7"}))
        elif what == "sync":
            records.append(log.request(at, "KCHVM0002L", status=204))
        elif what == "failed":
            records.append(log.request(at, "KCHVM0010L", {"ident": guest}, status=500))
        else:
            app = "kimchi"
            if draw(st.integers(0, 4)) == 0:
                target, app = SWAP, "ginger"
            ids = {"app": app, "request_id": "", "parent": ""}
            if what in ("named", "nested"):
                ids["request_id"] = draw(st.sampled_from(named[-4:]))
            if what == "nested":
                ids["parent"] = draw(st.sampled_from(TASK_IDS))
            if what == "start" or (what in ("named", "nested") and draw(st.booleans())):
                records.append(log.started(at, target, task_id, **ids))
            else:
                plain = what.startswith("plain")
                error = draw(st.sampled_from(["", "KCHVM0058E"])) if "fail" in what else ""
                number = "" if plain else task_id
                records.append(
                    log.finished(at, target, number, failed="fail" in what, error_code=error, **ids)
                )
        named += [records[-1].record_id] if records[-1].record_id else []
    return records


logs = st.composite(_records)()


@settings(max_examples=300, deadline=None)
@given(logs, st.data())
def test_batches_make_no_difference(records: list[Record], data: st.DataObject) -> None:
    """Storing the state after any record, and going on from the store, gives the same events as one run."""
    whole = run(records)
    open_tasks: dict[bytes, OpenTask] = {}
    ended: list[TaskRow] = []
    state, events = "", []
    correlator = make()
    for record in records:
        new = correlator.feed(record)
        events += new
        ended += [row_of_end(end) for end in ends(new) if end.outcome in ("success", "failure")]
        if data.draw(st.booleans(), label="restart the exporter"):
            changes = correlator.changes()
            open_tasks |= {task.key: task for task in changes.opened}
            for key in changes.closed:
                del open_tasks[key]
            state = changes.state
            correlator = Correlator(
                NAMING, expiry=EXPIRY, state=state, open_tasks=open_tasks.values(), ended=ended
            )

    assert events + correlator.finish() == whole


def test_a_restart_keeps_the_order_of_candidates() -> None:
    """Requests of both dialects that wait side by side are found in the order of the log, also when restored."""
    log = Log("rfc")
    records = [log.request(0, "KCHVM0010L", {"ident": "web"})]
    log.dialect = "json"
    records += [log.request(0, "KCHVM0010L", {"ident": "web"}), log.started(1, MIGRATE, "1")]
    first = make()
    events = [event for record in records[:2] for event in first.feed(record)]
    changes = first.changes()
    second = Correlator(NAMING, expiry=EXPIRY, state=changes.state, open_tasks=changes.opened)

    assert events + second.feed(records[2]) + second.finish() == run(records)


@settings(max_examples=200, deadline=None)
@given(logs)
def test_every_record_is_told_once(records: list[Record]) -> None:
    """Each record is in exactly one event, each task ends at most once, and no span has two contents."""
    events = run(records)
    mentioned = [event.record for event in events if event.record is not None]
    contexts = [end.context for end in ends(events)]

    assert sorted(record.offset for record in mentioned) == [record.offset for record in records]
    assert len(set(contexts)) == len(contexts)
    assert all(end.end >= end.start for end in ends(events))


def test_a_held_end_whose_task_was_taken_over() -> None:
    """An end is held for a nested task, then a start record takes the task over: the end is decided about once more."""
    log = Log("json")
    volume = {"pool": "p", "name": "v", "url": "http://h/v", "pool_type": "dir"}
    end = log.finished(0, "/plugins/kimchi/storagepools/p/storagevolumes/v")
    request = log.request(0, "KCHVOL0001L", volume)
    start = log.started(2, "/swaps/file_loc/", "1", app="ginger", request_id=request.record_id)
    events = run([end, request, start])

    assert sorted(event.record.offset for event in events if event.record is not None) == [
        end.offset,
        request.offset,
        start.offset,
    ]


def test_a_candidate_without_a_request_is_not_listed() -> None:
    """A task whose request is unknown makes another match ambiguous, but there is no request to list."""
    log = Log("json")
    volume = "/plugins/kimchi/storagepools/p/storagevolumes/v"
    params = {"pool": "p", "name": "v", "url": "http://h/v", "pool_type": "dir"}
    records = [log.started(0, volume, "1"), log.request(5, "KCHVOL0001L", params), log.finished(5, volume)]
    (end,) = (end for end in ends(run(records)) if end.record is not None)

    assert (end.correlation, list(end.candidates)) == ("ambiguous", [])


def row_of_end(end: TaskEnded) -> TaskRow:
    return TaskRow(
        context=end.context,
        parent=end.parent,
        app=end.app,
        operation=end.operation,
        target_uri=end.target_uri,
        task_id=end.task_id,
        start=end.start,
        end=end.end,
        outcome=end.outcome,
        correlation=end.correlation,
        request=end.request,
        concurrent=end.concurrent,
        error_code="",
        message="",
    )

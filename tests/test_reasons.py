"""Which exception belongs to which failed task: the rules one by one, forgeries, and logs with ground truth."""

from __future__ import annotations

import json
from collections import Counter, deque
from collections.abc import Iterable, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.correlate import block_matcher, pending_blocks
from exporter.correlate.block_matcher import BlockMatcher, Decision
from exporter.correlate.evidence import forms_of, targets_of, values_of
from exporter.correlate.pending_blocks import AHEAD_ITEMS, NEAR_NANOS
from exporter.correlate.request_memory import Asked, RequestMemory, Started
from exporter.correlate.restart_confirmation import RestartConfirmation
from exporter.records import NANOS, Record
from exporter.wok.error_log import Item, Mark, start_of
from exporter.wok.operations import Operations
from exporter.wok.task_functions import TaskFunctions

from .error_log_made import (
    BOOT,
    SWAPS_CREATE,
    VMS_CLONE,
    VMS_MIGRATE,
    block,
    header,
    parsed,
    task_id,
    traceback,
)
from .error_score import CORPUS, SETS, is_good, run_of, score_of
from .error_simulation import score, story_of, told
from .records_made import EPOCH, Log

NAMING = Operations.load()
FUNCTIONS = TaskFunctions.load()
EXPIRY = 24 * 3600 * NANOS
MIGRATE = "/plugins/kimchi/vms/{}/migrate"
SWAP = "/swaps/file_loc/"
WOK = "wok.exception.OperationFailed: KCHVM0058E: {}: {}"

has_corpus = pytest.mark.skipif(not CORPUS.is_dir(), reason="no recorded logs beside this checkout")


class Story:
    """A request log and a wok-error.log beside it; `log` makes the records."""

    def __init__(self) -> None:
        self.log = Log()
        self.lines: list[str | bytes] = []
        self.records: list[Record] = []

    def migrate(self, at: int, name: str) -> None:
        """A guest's migration is requested."""
        self.records.append(self.log.request(at, "KCHVM0010L", {"ident": name}))

    def swap(self, at: int) -> None:
        """A swap device is requested."""
        self.records.append(self.log.request(at, "GINSP0001L", {"file_loc": "/s"}, app="ginger"))

    def fails(self, at: int, target_uri: str, code: str = "", app: str = "kimchi", **error: str) -> Record:
        """A task is logged as failed."""
        record = self.log.finished(at, target_uri, app=app, failed=True, error_code=code)
        record = record._replace(error_params=error)
        self.records.append(record)
        return record

    def raises(
        self, made: str, function: tuple[str, str, str] = VMS_MIGRATE, said: str = "ValueError: x"
    ) -> None:
        """A block is written."""
        self.lines += block(made, function, said)

    def decided(self, discredited: Sequence[str] = ()) -> list[Decision]:
        """What is decided about the failures, in their order."""
        return decided(self.records, parsed(self.lines), discredited)


class Running:
    """The requests of a story, as the correlator tells them to `BlockMatcher`, and the failures that wait."""

    def __init__(self, joined: BlockMatcher, memory: RequestMemory) -> None:
        self.joined = joined
        self.memory = memory
        self.asked: list[Asked] = []
        self.windows: deque[Record] = deque()
        self.time = 0

    def feed(self, record: Record) -> list[Decision]:
        """Take the next record; return what is decided by it."""
        found = []
        while self.windows and record.time - self.windows[0].time >= NEAR_NANOS:
            found += self.decide()
        if record.kind == "request":
            operation = NAMING.of_request(record.app, record.method, record.code, record.params, 202)
            forms = forms_of(NAMING, record.app, record.code, operation, record.params)
            texts = tuple(form.text for form in forms)
            self.asked.append(
                Asked(
                    record.app,
                    operation,
                    texts,
                    Started(record.time, record.trace_id),
                    () if forms[0].named else values_of(record.params),
                )
            )
            self.memory.add(self.asked[-1])
        else:
            if record.failed:
                self.joined.failed(record)
            self.windows.append(record)
        return found

    def decide(self) -> list[Decision]:
        """Close the first window; return the decision about a failure."""
        record = self.windows[0]
        self.time = record.time
        decision = [self.joined.decide(record, self)] if record.failed else []
        self.windows.popleft()
        texts = {target.text for target in targets_of(NAMING, record.app, record.target_uri)}
        alike = [
            asked
            for asked in self.asked
            if not texts.isdisjoint(asked.forms) and asked.request.time <= record.time
        ]
        if alike:
            self.asked.remove(alike[-1])
            self.memory.end(alike[-1].request.context, is_sure=len(alike) == 1)
        return decision

    def count(self, app: str, form: str, until: int) -> int:
        """How many final records of a form wait."""
        return sum(
            record.app == app
            and record.time <= until
            and form in {target.text for target in targets_of(NAMING, app, record.target_uri)}
            for record in self.windows
        )

    def count_of_second(self, app: str, form: str, second: int) -> int:
        """How many final records of a form wait that tell this second, or just before."""
        targets = [
            target
            for record in self.windows
            if record.app == app
            for target in targets_of(NAMING, app, record.target_uri)
        ]
        return sum(
            target.text == form and second - NANOS <= target.epoch < second + NANOS for target in targets
        )


def decided(
    records: Iterable[Record], items: Iterable[Item], discredited: Sequence[str] = ()
) -> list[Decision]:
    """What is decided about the failures among these records when everything has been read."""
    memory = RequestMemory(1000)
    joined = BlockMatcher(NAMING, FUNCTIONS, memory, expiry=EXPIRY)
    joined.offer(items)
    joined.discredit(discredited)
    running = Running(joined, memory)
    found = [decision for record in records for decision in running.feed(record)]
    while running.windows:
        found += running.decide()
    return found


def results(decisions: Iterable[Decision]) -> list[str]:
    return [decision.result for decision in decisions]


def test_a_failure_is_given_its_exception() -> None:
    """The only block that fits is joined, with its id and the request of its second."""
    story = Story()
    story.migrate(10, "web")
    story.raises(task_id(10.25))
    story.fails(12, MIGRATE.format("web"))
    (decision,) = story.decided()

    assert decision.result == "joined"
    assert decision.block is not None
    assert (decision.block.ids, decision.block.text) == ((task_id(10.25),), "x")
    assert decision.requests == (story.records[0].trace_id,)


def test_the_fraction_counts_after_two_clock_sequences() -> None:
    """Where uuidd gives out the ids, all have one clock sequence, and the start is not told."""
    for clocks, fine in (((1, 2, 3), [0, 0, start_of(task_id(30.5, 3))]), ((1, 1, 1), [0, 0, 0])):
        story = Story()
        for number, clock in enumerate(clocks):
            at = 10 * number + 10
            story.migrate(at, f"vm{number}")
            story.raises(task_id(at + 0.5, clock))
            story.fails(at + 2, MIGRATE.format(f"vm{number}"))

        assert [decision.start for decision in story.decided()] == fine


def test_a_restart_of_wokd_may_bring_uuidd() -> None:
    """What was seen in one boot says nothing about the next."""
    story = Story()
    for number in range(4):
        at = 10 * number + 10_000
        story.migrate(at, f"vm{number}")
        story.raises(task_id(at + 0.5, number))
        story.fails(at + 2, MIGRATE.format(f"vm{number}"))
        if number == 2:
            story.lines += [line.replace(b"00:00:0", b"00:07:2") for line in BOOT]

    assert [decision.start > 0 for decision in story.decided()] == [False, False, True, False]


@pytest.mark.parametrize(
    ("function", "target_uri", "app"),
    [
        (VMS_CLONE, MIGRATE.format("web"), "kimchi"),
        (SWAPS_CREATE, MIGRATE.format("web"), "kimchi"),
        (("ginger", "model/vms.py", "_migrate_task"), MIGRATE.format("web"), "kimchi"),
        (("kimchi", "model/unheard_of.py", "_migrate_task"), MIGRATE.format("web"), "kimchi"),
        (VMS_MIGRATE, MIGRATE.format("web"), "ginger"),
    ],
)
def test_rule_1_the_function_is_the_operations(
    function: tuple[str, str, str], target_uri: str, app: str
) -> None:
    """A block of another application, of another operation, or of an unknown function is not joined."""
    story = Story()
    story.migrate(10, "web")
    story.raises(task_id(10.2), function)
    story.fails(12, target_uri, app=app)

    assert results(story.decided()) == ["none"]


def test_every_operation_that_starts_a_task_has_a_function() -> None:
    """The table of functions names operations of the table of operations, all of them."""
    told = {
        (app, operation)
        for (app, _, _), operations in FUNCTIONS._operations.items()
        for operation in operations
    }

    assert told == {(app, operation) for app in NAMING.apps for operation in NAMING.tasks(app)}


def test_a_wrapper_says_nothing() -> None:
    """The frame of a plug-in that runs the functions of others is passed over."""
    story = Story()
    story.migrate(10, "web")
    wrapper = ['  File "/x/wok/plugins/kimchi/model/vms.py", line 1, in _migrate_task', "    x"]
    story.lines += [header(task_id(10.2)), *traceback(("tasklog", "records.py", "run"), deeper=wrapper)]
    story.fails(12, MIGRATE.format("web"))

    assert results(story.decided()) == ["joined"]


def test_a_function_that_is_a_name() -> None:
    """A task without a frame of its own is the attaching of a device, and nothing else."""
    for target_uri, expected in (
        ("/plugins/kimchi/vms/web/hostdevs/", "joined"),
        (MIGRATE.format("web"), "none"),
    ):
        story = Story()
        story.records.append(story.log.request(10, "KCHVMHDEV0001L", {"vmid": "web", "name": "usb_1"}))
        story.migrate(10, "web")
        story.lines += [header(task_id(10.2)), *traceback(None, "TypeError: 'str' object is not callable")]
        story.fails(12, target_uri)

        assert results(story.decided()) == [expected]


@pytest.mark.parametrize(
    ("said", "code", "error", "expected"),
    [
        (WOK.format("web", "no"), "KCHVM0058E", {"name": "web", "err": "no"}, "joined"),
        (
            "OperationFailed: KCHVM0058E: web: caf\\xe9",
            "KCHVM0058E",
            {"name": "web", "err": "café"},
            "joined",
        ),
        (WOK.format("web", "one\ntwo"), "KCHVM0058E", {"err": "one\ntwo\n\nthree"}, "joined"),
        (WOK.format("web", "password=x"), "KCHVM0058E", {"err": "password=[redacted]"}, "joined"),
        (WOK.format("web", "no"), "", {}, "none"),
        (WOK.format("web", "no"), "KCHVM0059E", {}, "none"),
        ("ValueError: KCHVM0058E: x", "KCHVM0058E", {}, "none"),
        ("ValueError: KCHVM0058E: x", "", {}, "joined"),
        ("plugin.Own: KCHVM0058E: x", "", {}, "joined"),
        ("plugin.Own: KCHVM0058E: x", "KCHVM0058E", {}, "joined"),
        ("ValueError: x", "KCHVM0058E", {}, "none"),
    ],
)
def test_rule_2_code_and_values(said: str, code: str, error: dict[str, str], expected: str) -> None:
    """A WokException has the record's code and values; any other exception has a record without a code."""
    story = Story()
    story.migrate(10, "web")
    story.raises(task_id(10.2), said=said)
    story.fails(12, MIGRATE.format("web"), code, **error)

    assert results(story.decided()) == [expected]


def test_values_tell_equal_operations_apart() -> None:
    """Failures of one operation in one second are told apart by what their errors say."""
    story = Story()
    story.swap(10)
    story.swap(10)
    for number in (1, 2):
        story.raises(
            task_id(10.1 + number / 10, number), SWAPS_CREATE, f"OperationFailed: GINSP00005E: /s{number}: x"
        )
    for number in (2, 1):
        story.fails(12, SWAP, "GINSP00005E", app="ginger", file_loc=f"/s{number}")
    first, second = story.decided()

    assert first.block is not None
    assert second.block is not None
    assert (first.block.text, second.block.text) == ("GINSP00005E: /s2: x", "GINSP00005E: /s1: x")


@pytest.mark.parametrize(
    ("said", "expected"), [(["a"], "joined"), (["a", "a"], "same"), (["a", "b"], "unsure")]
)
def test_a_message_that_does_not_say_its_values(said: list[str], expected: str) -> None:
    """Where no block has the values, a single block of the code is joined; of several the text at most is known."""
    story = Story()
    story.migrate(10, "web")
    for number, text in enumerate(said):
        story.raises(task_id(10.1 + number / 10), said=f"OperationFailed: KCHVM0058E: {text}")
    story.fails(12, MIGRATE.format("web"), "KCHVM0058E", err="the reason")

    assert results(story.decided()) == [expected]


@pytest.mark.parametrize(
    ("start", "requested", "expected"),
    [(10.5, 10, 1), (10.5, 11, 1), (10.005, 9, 1), (10.5, 9, 0), (10.5, 14, 0), (10.5, 13, 1)],
)
def test_rule_3_a_request_in_the_second_of_the_start(start: float, requested: int, expected: int) -> None:
    """The request stands in the start's second or the next, or just before; two seconds more where uuidd may run."""
    story = Story()
    story.migrate(requested, "web")
    story.raises(task_id(start))
    story.fails(15, MIGRATE.format("web"))

    assert results(story.decided()) == [["none", "joined"][expected]]


def test_rule_3_a_time_inside_the_target_uri() -> None:
    """The time in a clone's target_uri is that of the start."""
    for off, expected in ((0.4, "joined"), (3.0, "none")):
        story = Story()
        story.records.append(story.log.request(10, "KCHVM0009L", {"ident": "web"}))
        story.records.append(story.log.request(14, "KCHVM0009L", {"ident": "web"}))
        story.raises(task_id(10.1 + off), VMS_CLONE)
        story.fails(15, f"/plugins/kimchi/vms/web-clone-{EPOCH * 1_000_000 + 10_100_000}/clone")

        assert results(story.decided()) == [expected]


def test_a_block_is_not_of_the_future() -> None:
    """A task cannot have begun after its own end."""
    story = Story()
    story.migrate(10, "web")
    story.migrate(14, "web")
    story.raises(task_id(14.2))
    story.fails(12, MIGRATE.format("web"))

    assert results(story.decided()) == ["none"]


def test_rule_4_order() -> None:
    """A block that stands before one of an earlier record is not of a later record."""
    story = Story()
    for at in (10, 11):
        story.swap(at)
    story.migrate(12, "web")
    story.raises(task_id(10.6), SWAPS_CREATE)  # has no record: it was lost
    story.raises(task_id(12.1))
    story.fails(14, MIGRATE.format("web"))
    late = story.fails(20, SWAP, app="ginger")

    assert results(story.decided()) == ["joined", "none"], late


def test_rule_4_known_pairs_keep_others_on_their_side() -> None:
    """A block behind that of a later record, known by code and values, is not of an earlier record."""
    story = Story()
    for at in (10, 10, 11):
        story.swap(at)
    story.raises(task_id(10.1, 1), SWAPS_CREATE, "ValueError: first")
    story.raises(task_id(10.2, 2), SWAPS_CREATE, "OperationFailed: GINSP00005E: /s1: x")
    story.raises(task_id(10.3, 3), SWAPS_CREATE, "OperationFailed: GINSP00005E: /s2: x")
    story.raises(task_id(10.4, 4), SWAPS_CREATE, "ValueError: last")
    story.fails(12, SWAP, app="ginger")
    for number in (1, 2):
        story.fails(12, SWAP, "GINSP00005E", app="ginger", file_loc=f"/s{number}")
    story.fails(13, SWAP, app="ginger")

    assert [decision.block.text for decision in story.decided() if decision.block] == [
        "first",
        "GINSP00005E: /s1: x",
        "GINSP00005E: /s2: x",
        "last",
    ]


def test_neighbours_may_stand_the_other_way_round() -> None:
    """Two that fail within milliseconds may have their blocks in the other order: that is no evidence."""
    story = Story()
    story.swap(10)
    story.swap(10)
    story.raises(task_id(10.2, 2), SWAPS_CREATE, "OperationFailed: GINSP00005E: /s1: x")
    story.raises(task_id(10.1, 1), SWAPS_CREATE, "ValueError: before")
    story.fails(12, SWAP, app="ginger")
    story.fails(12, SWAP, "GINSP00005E", app="ginger", file_loc="/s1")

    assert results(story.decided()) == ["joined", "joined"]


def test_rule_5_several_blocks_or_several_records() -> None:
    """Two blocks for one failure, or two failures for one block, leave all of them without; so does a like task that
    has not ended.
    """
    for blocks, failures in ((2, 1), (1, 2), (2, 2)):
        story = Story()
        story.swap(10)
        story.swap(10)
        for number in range(blocks):
            story.raises(task_id(10.1 + number / 10, number), SWAPS_CREATE, f"ValueError: {number}")
        for _ in range(failures):
            story.fails(12, SWAP, app="ginger")

        assert results(story.decided()) == ["none"] if failures == 1 else ["unsure"] * failures


def test_records_two_seconds_apart_do_not_compete() -> None:
    """The window is two seconds of the log: what fails later has its block later."""
    story = Story()
    story.migrate(10, "web")
    story.migrate(14, "web")
    story.raises(task_id(10.1))
    story.fails(12, MIGRATE.format("web"))
    story.raises(task_id(14.1), said="ValueError: y")
    story.fails(16, MIGRATE.format("web"))

    assert [decision.block.text for decision in story.decided() if decision.block] == ["x", "y"]


def test_one_task_that_tells_its_end_twice() -> None:
    """Two records of the only request for their target_uri are one task's, and do not compete."""
    story = Story()
    story.migrate(10, "web")
    story.raises(task_id(10.1))
    story.fails(12, MIGRATE.format("web"))
    story.fails(12, MIGRATE.format("web"))

    assert results(story.decided())[0] == "joined"


def test_one_way_to_pair() -> None:
    """Where as many blocks as failures can be paired in one way only, that is the way."""
    story = Story()
    story.swap(10)
    story.swap(12)
    story.raises(task_id(10.1), SWAPS_CREATE, "ValueError: early")
    story.raises(task_id(12.9, 1), SWAPS_CREATE, "ValueError: late")
    story.fails(11, SWAP, app="ginger")
    story.fails(12, SWAP, app="ginger")
    first, second = story.decided()

    assert first.block is not None
    assert second.block is not None
    assert (first.block.text, second.block.text) == ("early", "late")


def test_all_say_the_same() -> None:
    """Where every block that could be a failure's says the same, the text is known and the id is not."""
    story = Story()
    story.swap(10)
    story.swap(10)
    for number in (1, 2):
        story.raises(task_id(10 + number / 10, number), SWAPS_CREATE, "OSError: full")
    for _ in range(2):
        story.fails(12, SWAP, app="ginger")
    decisions = story.decided()

    assert results(decisions) == ["same", "same"]
    assert [(decision.start, decision.requests) for decision in decisions] == [(0, ())] * 2
    story.fails(12, SWAP, app="ginger")
    assert results(story.decided()) == ["unsure"] * 3, "one of three has no block"


@pytest.mark.parametrize(("start", "expected"), [(24.3, [1]), (24.8, [1, 2]), (25.3, [2])])
def test_the_request_of_the_second(start: float, expected: list[int]) -> None:
    """Of several requests for one target_uri the one of the start's second is named; a start late in its second may
    have been logged in the next.
    """
    story = Story()
    for number, clock in enumerate((1, 2)):
        story.migrate(number, f"vm{number}")
        story.raises(task_id(number + 0.1, clock))
        story.fails(number + 1, MIGRATE.format(f"vm{number}"))
    swaps = []
    for at in (20, 24, 25, 28):
        story.swap(at)
        swaps.append(story.records[-1].trace_id)
    story.raises(task_id(start, 3), SWAPS_CREATE)
    story.records += [story.log.finished(30, SWAP, app="ginger") for _ in swaps[1:]]
    story.fails(30, SWAP, app="ginger")

    assert story.decided()[-1].requests == tuple(swaps[number] for number in expected)


def test_a_task_without_a_request_in_the_log() -> None:
    """A poll of the update's progress has no request; its block is known by its function and the time alone."""
    story = Story()
    story.raises(task_id(10.1), ("gingerbase", "swupdate.py", "tailUpdateLogs"))
    story.fails(12, "/plugins/gingerbase/host/swupdateprogress", app="gingerbase")

    assert results(story.decided()) == ["joined"]


def test_a_record_with_a_task_id() -> None:
    """An extended Wok says the id: its block is joined, and no other."""
    story = Story()
    story.raises(task_id(10.1))
    for made, expected in ((task_id(10.1), "joined"), (task_id(10.2), "none")):
        record = story.fails(12, MIGRATE.format("web"), "WOKTASK0001E", err="told by the plug-in")
        story.records[-1] = record._replace(task_id=made)

        assert results(story.decided()) == [expected]
        story.records.clear()


def forged_story(said: str) -> Story:
    """A migration that its callback has ended as failed: it has no block, but somebody else writes `said`."""
    story = Story()
    story.migrate(10, "web")
    story.swap(10)
    story.raises(task_id(10.3, 1), SWAPS_CREATE, said)
    story.fails(12, MIGRATE.format("web"))
    story.fails(12, SWAP, app="ginger")
    return story


def test_a_forged_block_that_a_parameter_has_brought() -> None:
    """An id whose header stands in a parameter of the request log is never joined."""
    forged = "\n".join(block(task_id(10.1), VMS_MIGRATE, "ValueError: forged"))
    story = forged_story("RuntimeError: x\n\n" + forged)

    assert results(story.decided(discredited=[task_id(10.1)])) == ["unsure", "joined"]


def test_a_forged_block_inside_a_text() -> None:
    """What stands inside the text of a block is no block."""
    forged = "\n".join(block(task_id(10.1), VMS_MIGRATE, "ValueError: forged")[:-1])
    story = forged_story("RuntimeError: x\n" + forged)

    assert results(story.decided()) == ["none", "joined"]


def test_two_headers_for_an_id() -> None:
    """A forged block for the id of a task that fails later takes its reason away, and gives none."""
    story = Story()
    story.migrate(10, "web")
    story.raises(task_id(10.1), said="ValueError: forged")
    story.raises(task_id(10.1), said="ValueError: true")
    story.fails(12, MIGRATE.format("web"))

    assert results(story.decided()) == ["unsure"]


def test_a_block_from_elsewhere() -> None:
    """A traceback with another `_run_helper` than its neighbours is not joined, and casts doubt."""
    story = Story()
    for number in range(3):
        story.migrate(number, f"vm{number}")
        story.raises(task_id(number + 0.1, number))
        story.fails(number + 1, MIGRATE.format(f"vm{number}"))
    story.migrate(10, "web")
    story.lines += block(task_id(10.1), VMS_MIGRATE, "ValueError: forged", place="/usr/lib/other")
    story.fails(12, MIGRATE.format("web"))

    assert results(story.decided())[-1] == "unsure"


def test_an_id_of_the_future_holds_up_nothing() -> None:
    """A forged id of the year 2100 does not keep what follows it from being read."""
    story = Story()
    story.migrate(10, "web")
    story.raises(task_id(2_600_000_000.0), SWAPS_CREATE)
    story.raises(task_id(10.1))
    story.fails(12, MIGRATE.format("web"))

    assert results(story.decided()) == ["joined"]


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([task_id(10.1, 1), task_id(10.2, 2), task_id(11.0, 3), task_id(99.0, 4)]),
            st.sampled_from([VMS_MIGRATE, VMS_CLONE, SWAPS_CREATE]),
            st.sampled_from(["ValueError: forged", "OperationFailed: KCHVM0058E: forged"]),
            st.integers(0, 5),
        ),
        max_size=4,
    )
)
def test_nothing_forged_gives_a_reason_to_a_task_that_has_one(
    forged: list[tuple[str, tuple[str, str, str], str, int]],
) -> None:
    """Whatever is written between true blocks, a failure that has a block keeps it or goes without."""
    story = Story()
    story.migrate(10, "web")
    story.swap(10)
    lines = [
        block(task_id(10.1, 1), VMS_MIGRATE, "ValueError: true"),
        block(task_id(10.2, 2), SWAPS_CREATE, "OSError: true"),
    ]
    for made, function, said, at in forged:
        lines.insert(at, block(made, function, said))
    story.lines = [line for group in lines for line in group]
    story.fails(12, MIGRATE.format("web"))
    story.fails(12, SWAP, app="ginger")

    for decision in story.decided():
        assert decision.block is None or decision.block.text == "true"


def test_items_that_are_offered_again() -> None:
    """After a restart the error log is read again from a place before: nothing counts twice."""
    story = Story()
    story.migrate(10, "web")
    story.raises(task_id(10.1))
    story.fails(12, MIGRATE.format("web"))
    items = parsed(story.lines)

    assert results(decided(story.records, [*items, *items])) == ["joined"]


def test_what_becomes_of_blocks_is_counted() -> None:
    """Each block is counted once: joined, unsure, discredited, or without a record."""
    story = Story()
    story.migrate(10, "web")
    for at in (10.1, 10.2):
        story.raises(task_id(at), said=f"ValueError: {at}")
    story.raises(task_id(10.3), SWAPS_CREATE)
    story.raises(task_id(10.4), SWAPS_CREATE)
    record = story.fails(12, MIGRATE.format("web"))
    joined = BlockMatcher(NAMING, FUNCTIONS, RequestMemory(10), expiry=EXPIRY)
    joined.offer(parsed(story.lines))
    joined.discredit([task_id(10.4)])
    joined.failed(record)
    joined.decide(record, Running(joined, RequestMemory(10)))
    joined.advance(EPOCH * NANOS + 2 * EXPIRY)

    assert joined.take_counts() == {"without_record": 3, "discredited": 1}
    assert not joined.take_counts()


def test_what_waits_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Above the limit the oldest blocks are given up, and counted."""
    monkeypatch.setattr(pending_blocks, "WAITING_MAX", 3)
    joined = BlockMatcher(NAMING, FUNCTIONS, RequestMemory(10), expiry=EXPIRY)
    joined.offer(parsed([line for number in range(10) for line in block(task_id(number))]))
    joined.advance((EPOCH + 100) * NANOS)

    assert joined.take_counts() == {"without_record": 7}
    assert len(json.loads(joined.state)["blocks"]["waiting"]) == 3


def test_a_flood_of_blocks_costs_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where somebody floods the error log with blocks of one operation, its failures go without a reason."""
    monkeypatch.setattr(block_matcher, "CROWD_MAX", 3)
    story = Story()
    story.migrate(10, "web")
    story.swap(10)
    for number in range(4):
        story.raises(task_id(5 + number / 10), said="ValueError: forged")
    story.raises(task_id(10.1), SWAPS_CREATE)
    story.fails(12, MIGRATE.format("web"))
    story.fails(12, SWAP, app="ginger")

    assert results(story.decided()) == ["unsure", "joined"]


def test_requests_are_forgotten_after_their_tasks() -> None:
    """The memory keeps the requests of running tasks, and the last ones of ended tasks, also over a restart."""
    memory = RequestMemory(2)
    requests = [Started(number * NANOS, bytes([number])) for number in range(4)]
    for number, request in enumerate(requests):
        memory.add(Asked("kimchi", "x", ("a", f"b{number}"), request))
    for request in requests[:3]:
        memory.end(request.context, is_sure=True)
    again = RequestMemory(2, memory.state)

    assert memory.logged("kimchi", "a", 0, 9 * NANOS) == requests[1:]
    assert again.logged("kimchi", "a", 0, 9 * NANOS) == requests[1:3]
    assert again.logged("kimchi", "a", 2 * NANOS, 2 * NANOS) == [requests[2]]
    assert (again.count("kimchi", "b0"), again.count("kimchi", "b1"), again.count("ginger", "a")) == (0, 1, 0)
    assert again.state == memory.state


def mark(at: int, *, is_chained: bool = True) -> Mark:
    return Mark(1, (EPOCH + at) * NANOS, is_chained, f"mark {at}")


def test_marks_are_believed_after_two_seconds() -> None:
    """A mark with its chain is told once, when the log is two seconds past it; one without is never."""
    marks = RestartConfirmation()
    marks.offer(mark(10))
    marks.offer(mark(11, is_chained=False))
    marks = RestartConfirmation(marks.state)

    assert marks.is_due((EPOCH + 12) * NANOS)
    assert not marks.is_due((EPOCH + 12) * NANOS - 1)
    assert marks.believed((EPOCH + 11) * NANOS) == []
    assert marks.believed((EPOCH + 20) * NANOS) == [(EPOCH + 10) * NANOS]
    assert marks.believed((EPOCH + 30) * NANOS) == []
    assert not marks.is_due((EPOCH + 99) * NANOS)


def test_marks_that_are_forged_or_refuted() -> None:
    """A mark that a parameter has brought, or that a task has survived, is dropped."""
    marks = RestartConfirmation()
    for at in (10, 20, 30):
        marks.offer(mark(at))
    marks.forged(["mark 10"])
    marks.survived((EPOCH + 15) * NANOS, (EPOCH + 25) * NANOS)
    marks.survived((EPOCH + 30) * NANOS, (EPOCH + 35) * NANOS)

    assert RestartConfirmation(marks.state).believed((EPOCH + 100) * NANOS) == [(EPOCH + 30) * NANOS]


def test_a_mark_that_is_read_late_waits_for_what_follows() -> None:
    """A mark may be forged with an earlier time: it waits two seconds from when it was read, over a restart too."""
    marks = RestartConfirmation()
    marks.offer(mark(10), seen=(EPOCH + 100) * NANOS)
    marks.offer(mark(95), seen=(EPOCH + 100) * NANOS)

    assert marks.believed((EPOCH + 101) * NANOS) == [(EPOCH + 95) * NANOS]
    assert RestartConfirmation(marks.state).believed((EPOCH + 102) * NANOS) == [(EPOCH + 10) * NANOS]


def test_a_mark_that_a_later_line_quotes_is_none() -> None:
    """In a backlog, a mark is not believed if the rest of the request log shows that it is forged."""
    quotes: list[tuple[str, int]] = []

    def is_quoted(text: str, since: int) -> bool:
        quotes.append((text, since))
        return text == "mark 10"

    marks = RestartConfirmation(is_quoted=is_quoted)
    marks.offer(mark(10))
    marks.offer(mark(20))

    assert marks.believed((EPOCH + 30) * NANOS) == [(EPOCH + 20) * NANOS]
    assert quotes == [("mark 10", (EPOCH + 10) * NANOS), ("mark 20", (EPOCH + 20) * NANOS)]


def test_dense_equal_tasks() -> None:
    """Where equal tasks overlap, fail, report twice, lose lines and are forged, no join and no exact match is wrong."""
    for live in (True, False):
        told_of = sum(
            (score(story, told(story, live=live)) for story in map(story_of, range(300))), Counter()
        )

        assert told_of["joined"] > 200
        assert not [what for what in told_of if what.endswith("wrong")]


def test_dense_equal_tasks_over_restarts() -> None:
    """A restart behind each record changes nothing, live or in a replay."""
    for story in map(story_of, range(40)):
        for live in (True, False):
            assert told(story, live=live, restarts=True) == told(story, live=live)


@has_corpus
@pytest.mark.parametrize("name", SETS)
def test_logs_with_truth(name: str) -> None:
    """On real logs no reason is wrong, and enough of them are found."""
    assert is_good(name, score_of(name))


@has_corpus
@pytest.mark.parametrize("name", SETS)
def test_live_and_replay_agree(name: str) -> None:
    """All events are the same where each block is read when it was written, and where all are read before."""
    folder, zone = CORPUS / name, SETS[name]

    assert run_of(folder, zone, live=True).events == run_of(folder, zone).events


def test_look_ahead_is_enough() -> None:
    """Items that are offered bit by bit, a little ahead of the log, give the same decisions."""
    story = Story()
    # Two clock sequences: from here on the fraction of a second counts.
    for number, clock in enumerate((1, 2)):
        story.migrate(number, f"vm{number}")
        story.raises(task_id(number + 0.1, clock))
        story.fails(number + 1, MIGRATE.format(f"vm{number}"))
    for number in range(40):
        story.swap(10 + 2 * number)
        story.raises(task_id(10.5 + 2 * number, number), SWAPS_CREATE, f"ValueError: {number}")
        story.fails(11 + 2 * number, SWAP, app="ginger")
    items = parsed(story.lines)
    expected = decided(story.records, items)

    memory = RequestMemory(1000)
    joined = BlockMatcher(NAMING, FUNCTIONS, memory, expiry=EXPIRY)
    running = Running(joined, memory)
    actual = []
    for record in story.records:
        while joined.ahead <= AHEAD_ITEMS and items:
            joined.offer([items.pop(0)])
        actual += running.feed(record)
    while running.windows:
        actual += running.decide()

    assert results(actual).count("joined") == 42
    assert [decision.block for decision in actual] == [decision.block for decision in expected]

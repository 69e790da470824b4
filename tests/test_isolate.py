"""The search for rejected items: its phases, its bound on requests, and that it drops nothing that is good."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.deliver.backoff import outage_seconds, rejection_seconds
from exporter.deliver.isolate import SUSPECTS_MAX, TRANSITIONS, Event, Isolator, Phase


class Queue:
    """A queue whose items 0, 1, 2 ... are sent by an isolator's plans, and what became of them."""

    def __init__(self, count: int, bad: set[int], items_max: int = 2000) -> None:
        self.isolator = Isolator(items_max)
        self.bad = bad
        self.items = list(range(count))
        self.set_aside: list[int] = []
        self.delivered: list[int] = []
        self.known_good: int | None = None
        self.requests = 0

    def step(self) -> None:
        plan = self.isolator.plan()
        known = self.known_good if plan.is_known_good else None
        sent = [known] if known is not None else self.items[plan.skip : plan.skip + plan.items_max]
        sent = self.items[plan.skip :][-1:] if plan.is_newest else sent
        if not sent:
            self.isolator.no_item()
            return
        self.requests += 1
        if self.bad & set(sent):
            if self.isolator.rejected(len(sent)):
                self.set_aside.append(self.items.pop(0))
            return
        if not plan.is_newest:
            self.known_good = sent[0]
        if self.isolator.accepted(len(sent)):
            self.delivered += sent
            del self.items[: len(sent)]

    def run(self, steps_max: int = 200_000) -> None:
        """Until the queue is empty, or held."""
        for _ in range(steps_max):
            if not self.items or self.isolator.phase is Phase.HELD:
                return
            self.step()


@pytest.mark.parametrize("count", [1, 9, 10, 11, 20, 500, 3000])
@pytest.mark.parametrize("before", [0, 10])
def test_any_number_of_adjacent_bad_items_is_set_aside(count: int, before: int) -> None:
    """A run of rejected items of any length is passed, at about two requests for each, wherever it begins."""
    bad = set(range(before, before + count))
    queue = Queue(before + count + 50, bad)
    while queue.items and queue.isolator.rounds < 40:
        queue.run()
        if queue.isolator.phase is Phase.HELD:
            queue.step()

    assert (queue.items, set(queue.set_aside)) == ([], bad)
    assert len(queue.delivered) == before + 50
    assert queue.requests <= 2.5 * count + 60


def test_bad_items_at_the_end_are_judged_by_an_item_that_was_accepted() -> None:
    """When no item follows, the item that was accepted last is sent once more, and nothing is held."""
    queue = Queue(40, set(range(25, 40)))
    queue.run()

    assert (queue.items, queue.set_aside) == ([], list(range(25, 40)))


def test_a_backend_that_rejects_everything_costs_few_requests_and_no_item() -> None:
    """One round ends after a few dozen requests, and sets nothing aside."""
    queue = Queue(50_000, set(range(50_000)), items_max=1)
    queue.run()

    assert (len(queue.items), queue.isolator.phase, queue.isolator.is_all_rejected) == (
        50_000,
        Phase.HELD,
        True,
    )
    assert queue.requests <= SUSPECTS_MAX + 20


def test_rounds_look_at_different_places() -> None:
    """A single good item far behind many bad ones is found in some round, because no two rounds look alike."""
    queue = Queue(1000, set(range(1000)) - {777})
    for _ in range(4000):
        queue.run(100)
        if 777 in queue.delivered:
            break
        if queue.isolator.phase is Phase.HELD:
            queue.step()

    assert queue.delivered == [777]
    assert 777 not in queue.set_aside


def test_what_is_accepted_again_does_not_condemn_what_is_new() -> None:
    """A backend that accepts what it has already, and rejects every new item, costs no item, one by one or more."""
    queue = Queue(10, set())
    queue.run()
    for number in range(10, 60):
        queue.bad.add(number)
        queue.items.append(number)
        for _ in range(10):
            queue.run()
            queue.step()

    assert (len(queue.delivered), queue.set_aside, len(queue.items)) == (10, [], 50)


@settings(max_examples=300, deadline=None)
@given(
    count=st.integers(1, 60),
    bad=st.sets(st.integers(0, 59), max_size=60),
    items_max=st.integers(1, 40),
    interruptions=st.sets(st.integers(0, 200), max_size=10),
)
def test_good_items_are_delivered_and_only_bad_ones_set_aside(
    count: int, bad: set[int], items_max: int, interruptions: set[int]
) -> None:
    """Wherever bad items are and whatever interrupts: good ones arrive once and in order, bad ones do not."""
    queue = Queue(count, bad, items_max)
    for number in range(1500):
        if not queue.items:
            break
        if number in interruptions:
            queue.isolator.interrupted()
        queue.step()

    assert queue.delivered == [n for n in range(count) if n not in bad and n not in queue.items]
    assert set(queue.set_aside) <= bad
    assert set(queue.items) <= bad, "only what no good item speaks for may wait"


def test_the_table_names_every_phase_and_leads_back() -> None:
    """From each phase something leads on, and SENDING is within reach of every one by way of the window."""
    assert {phase for phase, _ in TRANSITIONS} == set(Phase)
    assert {event for _, event in TRANSITIONS} == set(Event)
    for phase in Phase:
        reached = {phase}
        for _ in Phase:
            reached |= {after for (before, _), after in TRANSITIONS.items() if before in reached}
        assert reached & {Phase.SENDING, Phase.NARROWING}


def test_backoff_doubles_to_its_ceiling() -> None:
    """Waits double up to a minute for outages and to half a minute for rejections, whatever the count."""
    outages = [outage_seconds(n, 1.0) for n in (1, 2, 3, 7, 100_000)]
    rejections = [rejection_seconds(n) for n in (1, 2, 3, 6, 100_000)]

    assert (outages, rejections) == ([1, 2, 4, 60, 60], [1, 2, 4, 30, 30])
    assert outage_seconds(1, 0.0) > 0
    assert list(itertools.starmap(outage_seconds, [(1, 1.0, 7.0), (9, 1.0, 7.0), (1, 1.0, 1e9)])) == [
        7,
        60,
        3600,
    ]

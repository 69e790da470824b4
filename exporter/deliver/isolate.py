"""Finds the items that a backend rejects, without dropping one that it would accept. Pure: no
clock, no I/O.

A backend answers for a whole request. When it rejects one, the request is halved until a single
item is left: the suspect. But a backend that is broken rejects every item, so a rejection alone
proves nothing. An item is set aside only after three answers in this order:

    1. the item alone is rejected,
    2. another item alone is accepted (the witness: the backend works),
    3. the item alone is rejected again.

A backend that rejects everything for any length of time, once, therefore costs no item.

The witness is the item after the suspects. If that one is rejected too, it becomes a suspect
itself, until there are SUSPECTS_MAX. Then (or when no item follows) the search goes on elsewhere:
with the newest item of the queue, with an item that was accepted moments ago, which is sent once
more, and with items further down the queue at growing distances, other ones in every round. If none
of these is accepted, the backend is at fault. Everything is held and tried again later, with
another round of at most about 30 requests.

An item that was accepted before speaks only for items that were in one rejected request with it: a
backend may well accept what it has already, and reject everything new.

Setting aside n adjacent items takes 2 * n requests, and one witness for every SUSPECTS_MAX of them:
there is no number of rejected items that blocks the accepted items behind them. Witnesses are sent
twice, with the same bytes.

The phases and their transitions are the table TRANSITIONS. What only counts (the window, the
suspects) does not change the phase.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

SUSPECTS_MAX = 10  # a run of rejected items is set aside in steps of this many
DISTANCE_MAX = 100_000  # how far down the queue a witness is looked for
GOLDEN_RATIO = 0.6180339887498949  # its multiples, modulo 1, spread evenly, however many there are


class Phase(Enum):
    """What the next request is for."""

    SENDING = auto()  # full requests
    NARROWING = auto()  # a larger request was rejected: smaller ones, until one item is left
    PROBING = auto()  # the items at the head are suspects: is the item after them accepted?
    SEARCHING = auto()  # it is not, or there is none: is any other item accepted?
    CONFIRMING = auto()  # a witness was accepted: are the suspects still rejected?
    HELD = auto()  # no item was accepted: wait, then try the first item again


class Event(Enum):
    """What became of a request, as far as the phase is concerned."""

    ACCEPTED = auto()
    GROWN = auto()  # and the next request may be a full one again
    REJECTED_MANY = auto()  # a request of several items
    REJECTED_ONE = auto()  # the last one needed in this phase, or a request of one item
    SUSPECTED = auto()  # a request of one item, and the phase has more to try
    NO_ITEM = auto()  # there is no item where the plan points to
    INTERRUPTED = auto()  # an outage, or the head of the queue is another: suspicions are void


TRANSITIONS: Mapping[tuple[Phase, Event], Phase] = {
    (Phase.SENDING, Event.ACCEPTED): Phase.SENDING,
    (Phase.SENDING, Event.REJECTED_MANY): Phase.NARROWING,
    (Phase.SENDING, Event.REJECTED_ONE): Phase.PROBING,
    (Phase.SENDING, Event.INTERRUPTED): Phase.SENDING,
    (Phase.NARROWING, Event.ACCEPTED): Phase.NARROWING,
    (Phase.NARROWING, Event.GROWN): Phase.SENDING,
    (Phase.NARROWING, Event.REJECTED_MANY): Phase.NARROWING,
    (Phase.NARROWING, Event.REJECTED_ONE): Phase.PROBING,
    (Phase.NARROWING, Event.INTERRUPTED): Phase.NARROWING,
    (Phase.PROBING, Event.ACCEPTED): Phase.CONFIRMING,
    (Phase.PROBING, Event.SUSPECTED): Phase.PROBING,
    (Phase.PROBING, Event.REJECTED_ONE): Phase.SEARCHING,
    (Phase.PROBING, Event.NO_ITEM): Phase.SEARCHING,
    (Phase.PROBING, Event.INTERRUPTED): Phase.NARROWING,
    (Phase.SEARCHING, Event.ACCEPTED): Phase.CONFIRMING,
    (Phase.SEARCHING, Event.SUSPECTED): Phase.SEARCHING,
    (Phase.SEARCHING, Event.REJECTED_ONE): Phase.HELD,
    (Phase.SEARCHING, Event.NO_ITEM): Phase.HELD,
    (Phase.SEARCHING, Event.INTERRUPTED): Phase.NARROWING,
    (Phase.CONFIRMING, Event.ACCEPTED): Phase.NARROWING,  # the suspect was none, so the others may be none
    (Phase.CONFIRMING, Event.SUSPECTED): Phase.CONFIRMING,
    (Phase.CONFIRMING, Event.REJECTED_ONE): Phase.NARROWING,  # that was the last suspect
    (Phase.CONFIRMING, Event.INTERRUPTED): Phase.NARROWING,
    (Phase.HELD, Event.ACCEPTED): Phase.NARROWING,
    (Phase.HELD, Event.REJECTED_ONE): Phase.PROBING,
    (Phase.HELD, Event.INTERRUPTED): Phase.HELD,
}


class Plan(NamedTuple):
    """What to send next: at most `items_max` items after the first `skip` items of the queue.

    `is_newest`: of the items after the first `skip`, send the last one. `is_known_good`: instead of
    all these, send the item that the backend accepted last.
    """

    skip: int
    items_max: int
    is_known_good: bool = False
    is_newest: bool = False


class Isolator:
    """The search for rejected items at the head of one queue; `items_max` is that of a full
    request.

    The caller sends what `plan` says and tells the result with one of the five methods below it.
    """

    def __init__(self, items_max: int) -> None:
        self.phase = Phase.SENDING
        self.rounds = 0  # searches in a row that found no witness
        self.is_all_rejected = False  # the last of them has tried more than one item
        self._items_max = items_max
        self._window = items_max
        self._suspects = 0  # items at the head that were rejected alone and are not confirmed yet
        self._searched = 0  # places that this search has tried: newest, known good, then by distance
        self._rejected = 0  # single items that were rejected since one was accepted
        self._rejected_ahead = 0  # items from the head on that were in the last larger rejected request
        self._has_known_good = False  # another item of that request has been accepted since

    def plan(self) -> Plan:
        """Return what to send next."""
        match self.phase:
            case Phase.SENDING | Phase.NARROWING:
                return Plan(0, self._window)
            case Phase.PROBING:
                return Plan(self._suspects, 1)
            case Phase.SEARCHING:
                match self._searched:
                    case 0:
                        return Plan(self._suspects, 1, is_newest=True)
                    case 1:
                        return Plan(self._suspects, 1, is_known_good=True)
                return Plan(self._distance(), 1)
            case Phase.CONFIRMING | Phase.HELD:
                return Plan(0, 1)

    def accepted(self, items: int) -> bool:
        """The backend has accepted a request of `items`; return whether they leave the queue."""
        is_witness = self.phase in (Phase.PROBING, Phase.SEARCHING)
        plan = self.plan()
        if not plan.is_newest and not plan.is_known_good:
            self._has_known_good = plan.skip < self._rejected_ahead
        if not is_witness:
            self._settled(items)
        self.rounds = 0
        self._searched = self._rejected = 0
        self._move(Event.ACCEPTED)
        if not is_witness:
            self._suspects = 0
            self._window = min(self._window * 2, self._items_max)
            if self.phase is Phase.NARROWING and self._window == self._items_max:
                self._move(Event.GROWN)
        return not is_witness

    def rejected(self, items: int) -> bool:
        """The backend has rejected a request of `items`; return whether its item is to be set
        aside.
        """
        if self.phase in (Phase.SENDING, Phase.NARROWING) and items > 1:
            self._window = items // 2
            if items > self._rejected_ahead:
                self._rejected_ahead = items
                self._has_known_good = False
            self._move(Event.REJECTED_MANY)
            return False
        self._window = 1
        self._rejected += 1
        match self.phase:
            case Phase.PROBING:
                self._suspects += 1
                is_last = self._suspects == SUSPECTS_MAX
                self._move(Event.REJECTED_ONE if is_last else Event.SUSPECTED)
            case Phase.SEARCHING:
                self._search_on()
                self._move(Event.REJECTED_ONE if self._distance() > DISTANCE_MAX else Event.SUSPECTED)
            case Phase.CONFIRMING:
                self._suspects -= 1
                self._settled(1)
                self._move(Event.SUSPECTED if self._suspects else Event.REJECTED_ONE)
                return True
            case _:
                self._suspects = 1
                self._move(Event.REJECTED_ONE)
        return False

    def no_item(self) -> None:
        """The queue has no item where the plan points to."""
        if self.phase is Phase.SEARCHING:
            self._search_on()
            if self._searched == 1:
                return  # no newest one, but there is a known good one
        self._move(Event.NO_ITEM)

    def interrupted(self) -> None:
        """Something else has happened in between, so that the rejections so far prove nothing."""
        self._suspects = self._searched = 0
        self._move(Event.INTERRUPTED)

    def moved(self) -> None:
        """The queue begins with another item than it did: nothing is known of the items at its
        head.
        """
        self._rejected_ahead = 0
        self._has_known_good = False
        self.interrupted()

    def _search_on(self) -> None:
        """Go to the next place of a search; without a known good item that one is left out."""
        can_speak = self._has_known_good and self._suspects <= self._rejected_ahead
        self._searched += 1 if self._searched or can_speak else 2

    def _settled(self, items: int) -> None:
        """So many items have left the queue."""
        self._rejected_ahead = max(0, self._rejected_ahead - items)

    def _distance(self) -> int:
        """How far down the queue this search looks next: twice as far each time, elsewhere each
        round.
        """
        step = 1 << max(0, self._searched - 2)
        return self._suspects + step - 1 + int(self.rounds * GOLDEN_RATIO % 1 * step)

    def _move(self, event: Event) -> None:
        self.phase = TRANSITIONS[self.phase, event]
        if self.phase is Phase.HELD and event is not Event.INTERRUPTED:
            self.rounds += 1
            self.is_all_rejected = self._rejected > 1
            self._suspects = self._searched = self._rejected = 0

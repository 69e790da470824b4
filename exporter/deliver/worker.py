"""Sends the journal of one signal to one backend, one request at a time.

The journal holds rows of encoded items after a cursor. A step reads some rows, wraps them into one
request, sends it, and moves the cursor past the items that are settled. Cursor and counters move in
one transaction. After a crash between the response and that transaction, and after a response that
never arrived, the same bytes are sent again: items never change, so a backend that has them already
sees exact duplicates.

What a response leads to:

    accepted   the cursor moves.
    partial    it moves too: the backend will never accept the rest. The rest is counted by reason.
    retry      an outage. Exponential back-off with full jitter, without end (`backoff`).
    config     somebody has to change something. Held: retried at a steady pace, nothing is dropped.
    rejected   something about this payload. The items at fault are found and set aside (`isolate`).

Rejections that are likely to be the backend's own trouble (a 500) are treated as an outage several
times before they count as rejections.

A step never sleeps: it returns the seconds until there is something to do. The loop around it waits
that long on an event, so that it can stop at once. A request on its way is bounded by its timeout.
"""

from __future__ import annotations

import logging
import random
import time
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from exporter.deliver.backoff import HOLD_SECONDS, outage_seconds, rejection_seconds
from exporter.deliver.isolate import DISTANCE_MAX, Isolator, Phase, Plan
from exporter.deliver.receipt import Receipt
from exporter.deliver.remedies import remedy_of
from exporter.deliver.request import Request, cut, first_item, whole_rows, wrap
from exporter.deliver.responses import DOUBTFUL, Answer, printable
from exporter.records import DeliveryStatus

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from threading import Event

    from exporter.deliver.receipt import DeliveryQueue
    from exporter.deliver.sender import Sender
    from exporter.records import Signal
    from exporter.store.journal import JournalEntry

REQUEST_ITEMS_MAX = 2_000  # some ms of a receiver's work; Tempo and Loki limit a request's items by size only
REQUEST_BYTES_MAX = 1024 * 1024  # before compression; a gRPC receiver takes 4 MiB, many proxies 1 MiB
REQUEST_BYTES_MIN = 64 * 1024  # a receiver that rejects even this must object to something else
LOOK_AHEAD_BYTES = 16 * 1024 * 1024  # how far to read for an item further down, when a search needs one
DOUBTFUL_TRIES = 5  # about half a minute of back-off: longer than a restart behind a load balancer
HELD_AFTER_SECONDS = 120  # rejections and nothing else for this long are a matter for people
IDLE_SECONDS = 10  # the loop is woken by new rows; this is for those that another process has written
STORE_WAIT_SECONDS = 5  # after the store has raised
WARN_SECONDS_MIN = 60.0  # Loki words every rejection differently; the counters have them all

_TOO_LARGE = frozenset({"http_413", "grpc_message_too_large"})

log = logging.getLogger(__name__)


class DeliveryTotals(NamedTuple):
    """What this process has delivered: accepted items, rejected items and failed requests by
    reason.
    """

    delivered: int = 0
    rejected: Mapping[str, int] = {}
    failures: Mapping[str, int] = {}


class DeliveryWorker:
    """Sends the journal of one signal to one backend.

    `scope` is an encoded InstrumentationScope, `schema_url` that of resources and scope. `clock` is
    monotonic and drives the back-off, `now` is the wall clock for people, `draw` gives the jitter
    (0 to 1). `status` and `totals` are replaced whole, so that other threads may read them at any
    time.
    Source: OTLP 1.x, "Failures", "Retryable Response Codes", "Partial Success"; RFC 9110,
    "Retry-After".
    """

    def __init__(
        self,
        signal: Signal,
        sender: Sender,
        queue: DeliveryQueue,
        *,
        scope: bytes,
        schema_url: str,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self.status = DeliveryStatus(sender.endpoint)
        self.totals = DeliveryTotals()
        self._signal = signal
        self._sender = sender
        self._queue = queue
        self._scope = scope
        self._schema_url = schema_url.encode()
        self._clock = clock
        self._now = now
        self._draw = draw
        self._not_before = clock()
        self._failures = 0  # in a row; of these, doubtful rejections:
        self._doubts = 0
        self._bytes_max = REQUEST_BYTES_MAX
        self._isolator = Isolator(REQUEST_ITEMS_MAX)
        self._known_good: Request | None = None  # the item that the isolator may send again
        self._head: tuple[int, int] | None = None  # row and item where the queue must begin at the next step
        self._receipt = Receipt(signal)
        self._rejected_since: float | None = None  # by `clock`; None after a success
        self._announced: tuple[str, bool] | None = None  # the reason that the log has told last, and held
        self._warned_at = -WARN_SECONDS_MIN

    def run(self, stopped: Event, work: Event) -> None:
        """Deliver until `stopped`; whoever sets `stopped`, or commits new rows, sets `work` as
        well.
        """
        is_usable = True
        while not stopped.is_set():
            try:
                delay = self.step()
            except Exception as error:
                if stopped.is_set():
                    break  # the request outlasted the store: it is sent again after the next start
                # A full disk, a locked file: logged once, and never the end of the thread.
                if is_usable:
                    log.exception("delivery of %s: cannot use the journal, retrying", self._signal)
                is_usable = False
                self._failed("store", printable(str(error)), held=False, is_logged=False)
                delay = STORE_WAIT_SECONDS
            else:
                if self.status.reason == "store":
                    self.status = self.status.recovered()
                is_usable = True
            if delay > 0:
                work.wait(delay)
                work.clear()
        self._sender.close()

    def step(self) -> float:
        """Send one request at most; return the seconds to wait before the next step, 0 for none.

        Raises what the queue raises. A receipt that could not be committed is kept, and a later
        step commits it before it sends anything.
        """
        self._receipt.commit(self._queue)
        wait = self._not_before - self._clock()
        if wait > 0:
            return wait
        plan = self._isolator.plan()
        if plan.is_known_good and self._known_good is not None:
            return self._send(plan, self._known_good, [])
        entries = self._read(DISTANCE_MAX if plan.is_newest else plan.skip)
        if entries and (entries[0].row, entries[0].skip) != self._head:
            # The journal was full and has dropped rows, or this is the first step.
            self._isolator.moved()
            self._head = (entries[0].row, entries[0].skip)
            plan = self._isolator.plan()
        if not entries:
            self._isolator.moved()
            self._doubts = 0
            return IDLE_SECONDS
        last = sum(entry.items - entry.skip for entry in entries) - 1
        skip = max(last, plan.skip) if plan.is_newest else plan.skip
        try:
            request = cut(entries, skip, plan.items_max, self._bytes_max)
        except ValueError:
            return self._pass_damaged(entries)
        if request is not None:
            return self._send(plan, request, entries)
        self._isolator.no_item()
        return self._pause_if_held()

    def _pass_damaged(self, entries: Sequence[JournalEntry]) -> float:
        """Send the rows before a damaged one; the damaged one itself is lost."""
        self._isolator.moved()
        plan = self._isolator.plan()
        whole = whole_rows(entries)
        request = cut(whole, 0, plan.items_max, self._bytes_max)
        if request is not None:
            return self._send(plan, request, whole)
        row = entries[0]
        log.warning(
            "a row of the journal of %s is damaged: %d items lost", self._signal, row.items - row.skip
        )
        self._receipt.add_lost(row.row, row.items, row.items - row.skip)
        self._receipt.commit(self._queue)
        return 0

    def _read(self, skip: int) -> Sequence[JournalEntry]:
        """Read what a request after `skip` items needs."""
        items_max = REQUEST_ITEMS_MAX + skip
        if not skip:
            return self._queue.journal_read(self._signal, items_max, self._bytes_max)
        # Rows are read whole, and the limit may end before the one that is needed.
        entries = self._queue.journal_read(self._signal, items_max, LOOK_AHEAD_BYTES)
        if sum(entry.items - entry.skip for entry in entries) > skip:
            return entries
        return self._queue.journal_read(self._signal, 2 * items_max, LOOK_AHEAD_BYTES)

    def _send(self, plan: Plan, request: Request, entries: Sequence[JournalEntry]) -> float:
        try:
            answer = self._sender.send(wrap(request.parts, self._scope, self._schema_url))
        except Exception as error:
            # No backend may end the thread, nor have the store blamed.
            log.exception("delivery of %s: the response cannot be handled", self._signal)
            answer = Answer("retry", "internal", message=printable(f"{type(error).__name__}: {error}"))
        if answer.kind in ("accepted", "partial"):
            self._succeed(plan, request, entries, answer)
            delay = 0.0
        else:
            delay = self._fail(request, entries, answer)
        self._receipt.commit(self._queue)
        return delay

    def _succeed(self, plan: Plan, request: Request, entries: Sequence[JournalEntry], answer: Answer) -> None:
        self._failures = 0
        self._rejected_since = None
        if not plan.is_newest and not plan.is_known_good:
            self._known_good = first_item(request)
        if not self._isolator.accepted(request.items):
            return  # a witness: its turn comes later
        rejected = min(answer.rejected, request.items) if answer.kind == "partial" else 0
        self._settle(request, entries, request.items - rejected, rejected, answer)
        if self._isolator.phase is Phase.SENDING:
            self._doubts = 0
        self._recovered(self._now())

    def _fail(self, request: Request, entries: Sequence[JournalEntry], answer: Answer) -> float:
        failures = Counter(self.totals.failures)
        failures[answer.reason] += 1
        self.totals = self.totals._replace(failures=failures)
        self._receipt.add_failure(answer.reason)
        is_doubted = answer.reason in DOUBTFUL and self._doubts < DOUBTFUL_TRIES
        if answer.kind == "rejected" and not is_doubted:
            return self._reject(request, entries, answer)
        self._doubts += is_doubted
        self._failures += 1
        self._isolator.interrupted()
        self._failed(answer.reason, answer.message, held=answer.kind == "config")
        if answer.kind == "config":
            return self._pause(HOLD_SECONDS)
        return self._pause(outage_seconds(self._failures, self._draw(), answer.retry_after_seconds))

    def _reject(self, request: Request, entries: Sequence[JournalEntry], answer: Answer) -> float:
        size = sum(len(part) for _, part in request.parts)
        if request.items > 1 and answer.reason in _TOO_LARGE and size > REQUEST_BYTES_MIN:
            # For good: a receiver's limit on size does not go away with this request.
            self._bytes_max = max(REQUEST_BYTES_MIN, size // 2)
        now = self._clock()
        if self._rejected_since is None:
            self._rejected_since = now
        is_held = self.status.held or now - self._rejected_since >= HELD_AFTER_SECONDS
        self._failed(answer.reason, answer.message, held=is_held, is_logged=is_held)
        if self._isolator.rejected(request.items):
            self._settle(request, entries, 0, 1, answer)
            if self._isolator.phase is not Phase.CONFIRMING:
                self._recovered(None)
        return self._pause_if_held()

    def _pause_if_held(self) -> float:
        if self._isolator.phase is not Phase.HELD:
            return 0
        if self._isolator.is_all_rejected:
            self._failed(self.status.reason, self.status.message, held=True)
        return self._pause(rejection_seconds(self._isolator.rounds))

    def _settle(
        self, request: Request, entries: Sequence[JournalEntry], delivered: int, rejected: int, answer: Answer
    ) -> None:
        """The items of a request are done: the cursor moves past them."""
        self._receipt.add_settled(request.row, request.item, delivered, rejected, answer.reason)
        self._head = _head_after(request, entries)
        reasons = Counter(self.totals.rejected)
        if rejected:
            reasons[answer.reason] += rejected
            self.status = self.status._replace(rejection=answer.message)
            if self._clock() - self._warned_at >= WARN_SECONDS_MIN:
                self._warned_at = self._clock()
                log.warning(
                    "%s has rejected %d items of %s (%s): %s",
                    self.status.endpoint,
                    rejected,
                    self._signal,
                    answer.reason,
                    answer.message,
                )
        self.totals = self.totals._replace(delivered=self.totals.delivered + delivered, rejected=reasons)

    def _recovered(self, last_success: float | None) -> None:
        self.status = self.status.recovered(last_success)
        if self._announced is not None:
            self._announced = None
            log.info("delivery of %s to %s works again", self._signal, self.status.endpoint)

    def _failed(self, reason: str, message: str, *, held: bool, is_logged: bool = True) -> None:
        self.status = self.status.failed(self._now(), reason, message, remedy_of(reason), held=held)
        if is_logged and self._announced != (reason, held):
            self._announced = (reason, held)
            log.warning(
                "delivery of %s to %s %s (%s%s): %s",
                self._signal,
                self.status.endpoint,
                "paused, data stays queued" if held else "fails, retrying",
                reason,
                f": {message}" if message else "",
                self.status.remedy,
            )

    def _pause(self, seconds: float) -> float:
        self._not_before = self._clock() + seconds
        return seconds


def _head_after(request: Request, entries: Sequence[JournalEntry]) -> tuple[int, int] | None:
    """Where the queue begins once a request is done; None if `entries` do not tell."""
    for entry, following in zip(entries, (*entries[1:], None), strict=True):
        if entry.row == request.row and request.item < entry.items:
            return request.row, request.item
        if entry.row == request.row and following is not None:
            return following.row, 0
    return None

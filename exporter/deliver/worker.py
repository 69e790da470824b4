"""From the store's journal to a backend: one signal, one destination, one request at a time.

The journal holds rows of encoded items that follow a cursor. A step reads some rows, wraps them into one
request, sends it, and moves the cursor past whatever has found its end; cursor and counters move in one
transaction. A crash between the answer and that transaction sends the same bytes again, and so does an
answer that never came: items are never changed, so a backend that knows them sees repeats.

What an answer leads to:

    taken      the cursor moves.
    partial    it moves too: what the backend has not taken it will never take. That is counted by reason.
    retry      an outage. Exponential back-off with full jitter, for ever, and no sooner than Retry-After.
    config     somebody has to change something. Held: tried again at a steady pace, nothing is dropped.
    refused    something about this payload. The request is halved until one item is left: the suspect.

A backend that refuses everything looks, item by item, like one that refuses a bad item. So a suspect alone
proves nothing: the item after it is sent, past the suspect. If that one is refused as well it is a suspect in
its turn, up to a bound; then it is the backend that is at fault, and all is held. If it is taken, the backend
is well, and the suspects are tried once more: what is refused now is at fault, and is set aside: counted,
logged, passed. (The item after it is sent twice; a crash would do the same.) Where no item follows, the others of the
refused request may speak for a suspect; else it waits. Refusals that are likely to be the backend's own
trouble (a 500) are treated as an outage several times before they count as a refusal.

A step never sleeps: it returns the seconds until there is something to do, and the loop around it waits for
those on an event, so that a stop is answered at once. A request on its way is bounded by its timeout.
"""

from __future__ import annotations

import logging
import random
import time
from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from exporter.deliver.request import Request, cut, wrap
from exporter.deliver.responses import DOUBTFUL

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from threading import Event

    from exporter.deliver.otlp import Sender
    from exporter.deliver.responses import Answer
    from exporter.records import Series, Signal
    from exporter.store.journal import JournalEntry

DELIVERED = "wok_exporter_delivered_total"
REJECTED = "wok_exporter_rejected_by_backend_total"
FAILURES = "wok_exporter_delivery_failures_total"

REQUEST_ITEMS_MAX = 2_000  # some ms of a receiver's work; Tempo and Loki limit a request's items by size only
REQUEST_BYTES_MAX = 1024 * 1024  # before compression; a gRPC receiver takes 4 MiB, many proxies 1 MiB
REQUEST_BYTES_MIN = 64 * 1024  # a receiver that takes less than this must be refusing something else
LOOK_AHEAD_ITEMS = 100_000  # how far to read for the item after a suspect: further than any row is long
LOOK_AHEAD_BYTES = 16 * 1024 * 1024
SUSPECTS_MAX = 10  # so many refused items side by side are a backend that refuses everything
DOUBTFUL_TRIES = 5  # about half a minute of back-off: longer than a restart behind a load balancer
HELD_AFTER_SECONDS = 120  # refusals and nothing else for this long are a matter for people
HOLD_SECONDS = 30  # a repair should show soon, and a login page need not be hammered
BACKOFF_SECONDS_MIN = 1.0
BACKOFF_SECONDS_MAX = 60.0
BACKOFF_SECONDS_FLOOR = 0.1  # full jitter may draw 0
RETRY_AFTER_SECONDS_MAX = 3600  # a backend's typing error must not silence a host for a week
IDLE_SECONDS = 10  # the loop is woken by new rows; this is for those that another process has written
STORE_WAIT_SECONDS = 5  # after the store has raised
WARN_SECONDS_MIN = 60.0  # Loki words every refusal differently; the counters tell the rest

_TOO_LARGE = frozenset({"http_413", "grpc_message_too_large"})
_REMEDIES: Mapping[str, str] = {
    "dns": "check the host name in OTEL_EXPORTER_OTLP_ENDPOINT, and name resolution on this host",
    "refused_connection": "check that the backend runs, and OTEL_EXPORTER_OTLP_ENDPOINT",
    "tls": "check OTEL_EXPORTER_OTLP_CERTIFICATE, the backend's certificate and its dates",
    "timeout": "check the backend's load, the firewall, and OTEL_EXPORTER_OTLP_TIMEOUT (in seconds)",
    "redirect": "set OTEL_EXPORTER_OTLP_ENDPOINT to the place that the answer points to",
    "not_otlp": "something else than an OTLP receiver answers (a login page, a proxy, another port)",
    "request": "check the URL, the headers and the certificates in the OTEL_EXPORTER_OTLP_* variables",
    "http_401": "check the credentials in OTEL_EXPORTER_OTLP_HEADERS",
    "http_403": "check the rights of the credentials in OTEL_EXPORTER_OTLP_HEADERS",
    "http_404": "check the path: /v1/traces and /v1/logs are added to OTEL_EXPORTER_OTLP_ENDPOINT, but not to"
    " the endpoint of one signal",
    "http_415": "check OTEL_EXPORTER_OTLP_COMPRESSION and OTEL_EXPORTER_OTLP_PROTOCOL",
    "http_429": "the backend limits its intake: raise its limit for this tenant, or wait",
    "grpc_unauthenticated": "check the credentials in OTEL_EXPORTER_OTLP_HEADERS",
    "grpc_permission_denied": "check the rights of the credentials in OTEL_EXPORTER_OTLP_HEADERS",
    "grpc_unimplemented": "check that OTEL_EXPORTER_OTLP_ENDPOINT is a gRPC receiver (usually port 4317)"
    " that takes this signal",
    "store": "check the disk that holds the state",
}
_WELL: Mapping[str, Any] = {
    "failing_since": None,
    "reason": "",
    "message": "",
    "held": False,
    "remedy": "",
}
_REMEDY = "see the backend's message and log"

log = logging.getLogger(__name__)


class DeliveryQueue(Protocol):
    """What delivery needs of the store; used by one thread; may raise anything, and is then called again."""

    def journal_read(self, signal: Signal, items_max: int, bytes_max: int) -> Sequence[JournalEntry]:
        """Rows after the cursor, whole and in order, within the limits, but at least one if there is any."""

    def journal_advance(self, signal: Signal, row: int, item: int, counters: Mapping[Series, float]) -> None:
        """In one transaction: the first `item` items of `row` and all rows before it are done; count."""

    def count(self, counters: Mapping[Series, float]) -> None:
        """Count, with the cursor where it is."""


class DeliveryStatus(NamedTuple):
    """How delivery of one signal stands. Times are in seconds since the epoch.

    `held` is True when nothing will change before a person has changed something. `message` and
    `rejection` (why the backend last refused an item for good) are a backend's own words.
    """

    endpoint: str
    last_success: float | None = None
    failing_since: float | None = None
    reason: str = ""
    message: str = ""
    held: bool = False
    remedy: str = ""
    rejection: str = ""


class Tally(NamedTuple):
    """What this process has delivered: items taken, items rejected and requests failed, both by reason."""

    delivered: int = 0
    rejected: Mapping[str, int] = {}
    failures: Mapping[str, int] = {}


class Delivery:
    """Sends the journal of one signal to one destination.

    `scope` is an encoded InstrumentationScope, `schema_url` that of resources and scope. `clock` is
    monotonic and drives the back-off, `now` is the wall clock for people, `draw` gives the jitter (0 to 1).
    `status`, `tally` and `is_drained` are replaced whole, so that other threads may read them at any time.
    Source: OTLP 1.x, "Failures", "Retryable Response Codes", "Partial Success"; RFC 9110, "Retry-After".
    """

    def __init__(
        self,
        signal: Signal,
        sender: Sender,
        outbox: DeliveryQueue,
        *,
        scope: bytes,
        schema_url: str,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self.status = DeliveryStatus(sender.endpoint)
        self.tally = Tally()
        self.is_drained = False
        self._signal = signal
        self._sender = sender
        self._outbox = outbox
        self._scope = scope
        self._schema_url = schema_url.encode()
        self._clock = clock
        self._now = now
        self._draw = draw
        self._not_before = clock()
        self._attempts = 0  # failed requests since the last success
        self._items_max = REQUEST_ITEMS_MAX
        self._bytes_max = REQUEST_BYTES_MAX
        self._suspects: list[str] = []  # reasons of the first items after the cursor, refused one by one
        self._proofs = 0  # so many former suspects are at fault, if they are refused once more
        self._refused_since: float | None = None  # by `clock`; None after a success
        self._refused_until = (0, 0)  # row and item at the end of the last larger request that was refused
        self._has_witness = False  # another item of that request has been taken since
        self._announced: tuple[str, bool] | None = None  # the reason that the log has last told, and held
        self._warned_at = -WARN_SECONDS_MIN
        self._owed_cursor: tuple[int, int] | None = (
            None  # row and item; what is to be committed at the next chance
        )
        self._owed: Counter[Series] = Counter()

    def run(self, stopped: Event, work: Event) -> None:
        """Deliver until `stopped`; whoever sets `stopped`, or commits new rows, sets `work` as well."""
        is_usable = True
        while not stopped.is_set():
            try:
                delay = self.step()
            except Exception as error:
                if stopped.is_set():
                    break  # the request on its way outlasted the store: it is sent again after the next start
                # A full disk, a locked file: said once, and never the end of the thread.
                if is_usable:
                    log.exception("delivery of %s: the journal cannot be used, trying again", self._signal)
                is_usable = False
                self._failed("store", str(error), held=False, is_logged=False)
                delay = STORE_WAIT_SECONDS
            else:
                if self.status.reason == "store":
                    self.status = self.status._replace(**_WELL)
                is_usable = True
            if delay > 0:
                work.wait(delay)
                work.clear()
        self._sender.close()

    def step(self) -> float:
        """Send one request at most; return the seconds to wait before the next step, 0 for none.

        Raises what the outbox raises. A receipt that could not be committed is kept, and committed by a later
        step before it sends anything.
        """
        self._commit()
        wait = self._not_before - self._clock()
        if wait > 0:
            return wait
        entries = self._outbox.journal_read(
            self._signal,
            LOOK_AHEAD_ITEMS if self._suspects else self._items_max,
            LOOK_AHEAD_BYTES if self._suspects else self._bytes_max,
        )
        self.is_drained = not entries
        if not entries:
            self._suspects.clear()  # the journal was full, and its bound has taken them
            return IDLE_SECONDS
        passed = len(self._suspects)
        request = cut(entries, passed, 1 if passed else self._items_max, self._bytes_max)
        if request is None:
            delay = self._judge_alone(entries)
        else:
            answer = self._sender.send(wrap(request.parts, self._scope, self._schema_url))
            if answer.kind in ("taken", "partial"):
                delay = self._succeed(request, answer)
            else:
                delay = self._fail(request, answer)
        self._commit()
        return delay

    def _fail(self, request: Request, answer: Answer) -> float:
        self.tally = self.tally._replace(failures=Counter(self.tally.failures) + Counter([answer.reason]))
        self._owed[FAILURES, self._signal, answer.reason] += 1
        if answer.kind == "refused" and (answer.reason not in DOUBTFUL or self._attempts >= DOUBTFUL_TRIES):
            return self._divide(request, answer)
        self._attempts += 1
        self._suspects.clear()
        if answer.reason not in DOUBTFUL:
            self._proofs = 0
        is_config = answer.kind == "config"
        self._failed(answer.reason, answer.message, held=is_config)
        return self._pause(HOLD_SECONDS if is_config else self._backoff_seconds(answer))

    def _succeed(self, request: Request, answer: Answer) -> float:
        self._proofs = len(self._suspects)
        if self._suspects:
            self._suspects.clear()
            self._attempts = 0
            self._refused_since = None
            return 0
        rejected = min(answer.rejected, request.items) if answer.kind == "partial" else 0
        counted = Counter({answer.reason: rejected} if rejected else {})
        self._settle(request.row, request.item, request.items - rejected, counted, answer.message)
        self.status = self.status._replace(last_success=self._now())
        self._recovered()
        self._has_witness = True
        self._items_max = min(self._items_max * 2, REQUEST_ITEMS_MAX)
        return 0

    def _divide(self, request: Request, answer: Answer) -> float:
        """Come closer to what the backend refuses."""
        now = self._clock()
        if self._refused_since is None:
            self._refused_since = now
        is_held = self.status.held or now - self._refused_since >= HELD_AFTER_SECONDS
        self._failed(answer.reason, answer.message, held=is_held, is_logged=is_held)
        if request.items > 1:
            if (request.row, request.item) > self._refused_until:
                self._refused_until = (request.row, request.item)
                self._has_witness = False
            size = sum(len(part) for _, part in request.parts)
            if answer.reason in _TOO_LARGE and size > REQUEST_BYTES_MIN:
                # For good: a receiver's limit on size does not go away with this request.
                self._bytes_max = max(REQUEST_BYTES_MIN, size // 2)
            self._items_max = request.items // 2
            return 0
        self._items_max = 1
        if self._proofs:
            self._proofs -= 1
            self._settle(request.row, request.item, 0, Counter([answer.reason]), answer.message)
            return 0
        self._suspects.append(answer.reason)
        if len(self._suspects) < SUSPECTS_MAX:
            return 0
        self._suspects.clear()
        self._failed(answer.reason, answer.message, held=True)
        return self._pause(HOLD_SECONDS)

    def _judge_alone(self, entries: Sequence[JournalEntry]) -> float:
        """Decide about suspects that no item follows: only a single one, for which its neighbours speak."""
        end = (entries[-1].row, entries[-1].items)
        reasons = Counter(self._suspects)
        is_proved = self._has_witness and end <= self._refused_until
        if is_proved and len(self._suspects) == 1 and not reasons.keys() & DOUBTFUL:
            self._suspects.clear()
            self._settle(*end, 0, reasons, self.status.message)
            self._recovered()
            return 0
        self._suspects.clear()
        return self._pause(HOLD_SECONDS)

    def _settle(self, row: int, item: int, delivered: int, rejected: Counter[str], message: str) -> None:
        """Owe the store a new place of the cursor, and what became of the items before it."""
        self._owed_cursor = (row, item)
        self._owed[DELIVERED, self._signal] += delivered
        for reason, items in rejected.items():
            self._owed[REJECTED, self._signal, reason] += items
        if rejected:
            self.status = self.status._replace(rejection=message)
            if self._clock() - self._warned_at >= WARN_SECONDS_MIN:
                self._warned_at = self._clock()
                log.warning(
                    "%s has not taken %d items of %s (%s): %s",
                    self.status.endpoint,
                    rejected.total(),
                    self._signal,
                    ", ".join(sorted(rejected)),
                    message,
                )
        self.tally = self.tally._replace(
            delivered=self.tally.delivered + delivered, rejected=Counter(self.tally.rejected) + rejected
        )

    def _commit(self) -> None:
        counters = {series: float(value) for series, value in self._owed.items() if value}
        if self._owed_cursor is not None:
            self._outbox.journal_advance(self._signal, *self._owed_cursor, counters)
        elif counters:
            self._outbox.count(counters)
        self._owed_cursor = None
        self._owed.clear()

    def _failed(self, reason: str, message: str, *, held: bool, is_logged: bool = True) -> None:
        since = self.status.failing_since
        self.status = self.status._replace(
            failing_since=self._now() if since is None else since,
            reason=reason,
            message=message,
            held=held,
            remedy=_REMEDIES.get(reason, _REMEDY),
        )
        if is_logged and self._announced != (reason, held):
            self._announced = (reason, held)
            log.warning(
                "delivery of %s to %s %s: %s%s; %s",
                self._signal,
                self.status.endpoint,
                "is held, nothing is dropped" if held else "fails and is tried again",
                reason,
                f": {message}" if message else "",
                self.status.remedy,
            )

    def _recovered(self) -> None:
        self.status = self.status._replace(**_WELL)
        self._attempts = 0
        self._refused_since = None
        if self._announced is not None:
            self._announced = None
            log.info("delivery of %s to %s works again", self._signal, self.status.endpoint)

    def _backoff_seconds(self, answer: Answer) -> float:
        ceiling = min(BACKOFF_SECONDS_MIN * 2.0 ** min(self._attempts - 1, 16), BACKOFF_SECONDS_MAX)
        seconds = max(self._draw() * ceiling, BACKOFF_SECONDS_FLOOR)
        return max(seconds, min(answer.retry_after_seconds or 0, RETRY_AFTER_SECONDS_MAX))

    def _pause(self, seconds: float) -> float:
        self._not_before = self._clock() + seconds
        return seconds

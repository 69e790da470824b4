"""The state that the handlers of request records, start records and final records share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from exporter.correlate.concurrent import ConcurrentRequests
from exporter.correlate.doubtful_requests import DoubtfulRequests
from exporter.correlate.error_evidence import ErrorEvidence
from exporter.correlate.failed_requests import FailedRequests
from exporter.correlate.index import Index
from exporter.correlate.open_tasks import OpenTaskTable
from exporter.correlate.pending_ends import PendingEnds
from exporter.correlate.request_ids import RequestIds
from exporter.correlate.settle_window import SettleWindow
from exporter.correlate.start_matcher import StartMatcher
from exporter.correlate.task_state import Waiting
from exporter.records import Event
from exporter.wok.operations import Operations


@dataclass(frozen=True, slots=True)
class SharedState:
    """The parts of one correlator. The value is frozen, the parts are mutable.

    settling    The settling window of all kinds of records.
    held        The longer window of final records that may end a nested task.
    doubtful    Requests that wait for their true status.
    emit        Receives the events.
    expiry      For how many nanoseconds after its request or start a task can get a final record.
    """

    operations: Operations
    index: Index
    open_tasks: OpenTaskTable
    concurrent: ConcurrentRequests
    start_matcher: StartMatcher
    failed_requests: FailedRequests
    request_ids: RequestIds
    pending_ends: PendingEnds
    settling: SettleWindow[Waiting]
    held: SettleWindow[Waiting]
    doubtful: DoubtfulRequests
    errors: ErrorEvidence
    emit: Callable[[Event], None]
    expiry: int

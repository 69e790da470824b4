"""Requests that task records have named by id, after those tasks have ended.

An extended Wok writes the id of the request's line into the records of its tasks. A second task of
a request, or a request line that comes after the end of its task, is then joined without evidence.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from exporter.correlate.concurrent import ConcurrentRequests
from exporter.correlate.index import Index
from exporter.wok.operations import uuid_bytes

REQUEST_IDS_MAX = 256
"""Maximum number of remembered requests. Requests of running tasks are found through those tasks.
"""


class KnownRequest(NamedTuple):
    """A request that was named.

    context     Its span context, empty until its line has come.
    is_claimed  Its own task, which no other task started, is known. Its line therefore opens no
                task.
    """

    context: bytes
    ordinal: int
    is_claimed: bool


class RequestIds:
    """The last REQUEST_IDS_MAX requests that were named."""

    def __init__(self) -> None:
        self._known: dict[str, KnownRequest] = {}

    def get(self, request_id: str) -> KnownRequest | None:
        """Return what is known about a request."""
        return self._known.get(request_id)

    def add(self, request_id: str, context: bytes, ordinal: int, *, is_claimed: bool) -> None:
        """Remember a request, and keep what is already known about it."""
        if not request_id:
            return
        known = self._known.pop(request_id, None)
        if known is not None:
            context, ordinal = context or known.context, ordinal or known.ordinal
            is_claimed = is_claimed or known.is_claimed
        self._known[request_id] = KnownRequest(context, ordinal, is_claimed)
        if len(self._known) > REQUEST_IDS_MAX:
            del self._known[next(iter(self._known))]

    def to_json(self) -> list[Any]:
        """Return the requests as JSON values."""
        return [
            [key, known.context.hex(), known.ordinal, known.is_claimed] for key, known in self._known.items()
        ]

    def restore(self, kept: Iterable[Any]) -> None:
        """Continue from the result of `to_json`."""
        for key, context, ordinal, is_claimed in kept:
            self._known[key] = KnownRequest(bytes.fromhex(context), ordinal, is_claimed)


def known_request(
    index: Index, request_ids: RequestIds, latest: ConcurrentRequests, request_id: str
) -> KnownRequest | None:
    """Return what is known about a request that a record names: its task is open or has ended, or
    the request is one of the latest and no task has named it yet.
    """
    if not request_id:
        return None
    asked = index.by_record(request_id)
    if asked is not None:
        return KnownRequest(asked.context, asked.ordinal, is_claimed=False)
    for task in index.of_request(request_id):
        if task.origin:
            return KnownRequest(task.origin, task.request, is_claimed=not task.parent_task_id)
    known = request_ids.get(request_id)
    if known is None and (trace_id := uuid_bytes(request_id)):
        found = latest.of_trace(trace_id)
        if found is not None:
            return KnownRequest(*found, is_claimed=False)
    return known

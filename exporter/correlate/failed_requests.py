"""Requests that failed with status 500 and no error, but may have started a task.

Wok 3.0.0's clean-up of old tasks raises after the thread of a task has started. Such a request
opens no task, but a final record may belong to it. Until wokd is restarted, it competes with every
other request that has the same forms.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from exporter.correlate.error_evidence import ErrorEvidence
from exporter.correlate.index import Index
from exporter.correlate.stored import from_json, to_json
from exporter.correlate.task_state import PendingRequest

FAILED_MAX = 64
"""Maximum number of remembered requests. They are rare, and each makes other matches ambiguous."""


class FailedRequests:
    """The failed requests in `index`.

    They are kept for `expiry` nanoseconds and reported to `errors`.
    """

    def __init__(self, index: Index, errors: ErrorEvidence, expiry: int) -> None:
        self._index = index
        self._errors = errors
        self._expiry = expiry
        self._requests: dict[int, PendingRequest] = {}

    def add(self, request: PendingRequest) -> None:
        """Remember a request. If there are too many, forget the oldest."""
        self._requests[request.seq] = request
        if len(self._requests) > 1:
            self._requests = dict(sorted(self._requests.items()))
        self._index.add_request(request)
        self._errors.asked(request)
        if len(self._requests) > FAILED_MAX:
            self.remove(next(iter(self._requests.values())))

    def remove(self, request: PendingRequest) -> None:
        """Forget a request, if it is remembered."""
        if self._requests.pop(request.seq, None) is not None:
            self._index.remove_request(request)
            self._errors.over(request, is_sure=False)

    def expire(self, now: int) -> None:
        """Forget requests that are too old."""
        self.forget(now - self._expiry)

    def forget(self, time: int) -> None:
        """Forget requests made up to this time: that wokd has stopped, and its tasks with it."""
        for request in [each for each in self._requests.values() if each.time <= time]:
            self.remove(request)

    def to_json(self) -> list[dict[str, Any]]:
        """Return the requests as JSON values."""
        return [to_json(request) for request in self._requests.values()]

    @staticmethod
    def from_json(kept: Iterable[dict[str, Any]]) -> list[PendingRequest]:
        """Recreate the requests from the result of `to_json`.

        Then `add` them in the order of the log.
        """
        return [from_json(PendingRequest, fields) for fields in kept]

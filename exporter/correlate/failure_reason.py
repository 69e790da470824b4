"""Why a task failed, as wok-error.log says it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class FailureReason(NamedTuple):
    """Why a task failed, for certain: `exception` is the class as Python prints it, `text` and `stack` are redacted.

    `task_id` is Wok's own, `start` when it was made, in nanoseconds; both are empty where only the text is certain.
    `requests` are the contexts of the requests that can have started the task: a single one has.
    """

    exception: str
    text: str
    stack: str
    task_id: str = ""
    start: int = 0
    requests: Sequence[bytes] = ()


NO_REASON = FailureReason("", "", "")

"""The reason of a failed task, from wok-error.log."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class FailureReason(NamedTuple):
    """The certain reason of a failed task.

    exception  The class of the exception as Python prints it.
    text       The text of the exception, redacted.
    stack      The stack of the exception, redacted.
    task_id    Wok's own id of the task. Empty if only the text is certain.
    start      When the id was created, in nanoseconds. 0 if only the text is certain.
    requests   Span contexts of the requests that can have started the task. If there is one, it
               has.
    """

    exception: str
    text: str
    stack: str
    task_id: str = ""
    start: int = 0
    requests: Sequence[bytes] = ()


NO_REASON = FailureReason("", "", "")

"""Returns the reason why a task failed or was lost, for its span and its history row."""

from __future__ import annotations

from typing import Final

from exporter.records import TaskEnded
from exporter.wok.sentences import Sentences

LOST: Final = "lost: wokd was restarted before the task ended"
EXPIRED: Final = "unknown: the log never told the end of the task"
_NO_REASON: Final = "failed without a reason in the log"


def failure_of(event: TaskEnded, sentences: Sentences) -> str:
    """Return the reason of a failed or lost task; empty for a task that succeeded or is unknown."""
    if event.outcome == "failure":
        if event.exception:
            # Wok wrote it in the requester's language.
            return event.exception_text.partition("\n")[0] or event.exception
        return (event.record and sentences.of(event.record).error) or _NO_REASON
    return LOST if event.outcome == "lost" else ""


def unreported(event: TaskEnded) -> str:
    """Return the sentence of an end that no record reports: a lost or an expired task."""
    what = f"Task {event.operation} of {event.app} ({event.target_uri})"
    return f"{what} is {LOST if event.outcome == 'lost' else EXPIRED}"

"""One line of status for `systemctl status`: problems and remedies first, or what the daemon
follows.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from exporter.records import Live, Signal
from exporter.store.reader import Overview

ITEMS: tuple[tuple[Signal, str], ...] = (("traces", "span"), ("logs", "log record"))


def status_line(log: Path, live: Live, overview: Overview | None) -> str:
    """Return what an administrator wants to know first; times are in this host's zone.

    `overview` is None if the store cannot be read; the line then has only what is known without it.
    """
    parts = [problem.sentence for problem in live.problems] or [f"following {log}"]
    if overview is None:
        return "; ".join(parts)
    parts.append("1 running task" if overview.running == 1 else f"{overview.running:,} running tasks")
    if overview.last_record_seconds is not None:
        last = datetime.fromtimestamp(overview.last_record_seconds, UTC).astimezone()
        parts.append(f"last record {last:%Y-%m-%d %H:%M:%S}")
    if live.deliveries:
        queued = [
            f"{status.records:,} {item}{'' if status.records == 1 else 's'}"
            for signal, item in ITEMS
            if (status := overview.journal.get(signal)) and status.records
        ]
        parts.append(f"queued: {' and '.join(queued)}" if queued else "nothing queued")
    return "; ".join(parts)

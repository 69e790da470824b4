"""One line on how the daemon stands, for `systemctl status`: what is wrong and what to do, or what it follows."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from exporter.store.reader import Overview
from exporter.web.api import Live


def status_line(log: Path, live: Live, overview: Overview | None) -> str:
    """Return what an administrator wants to know first; times are in this host's zone.

    `overview` is None when the store cannot be read; then only what is known without it is said.
    """
    parts = [problem.sentence for problem in live.problems] or [f"following {log}"]
    if overview is None:
        return "; ".join(parts)
    parts.append("1 task runs" if overview.running == 1 else f"{overview.running:,} tasks run")
    if overview.last_record_seconds is not None:
        last = datetime.fromtimestamp(overview.last_record_seconds, UTC).astimezone()
        parts.append(f"last record of {last:%Y-%m-%d %H:%M:%S}")
    if live.deliveries:
        waiting = [
            f"{status.records:,} {signal}" for signal, status in overview.journal.items() if status.records
        ]
        parts.append(f"{' and '.join(waiting)} wait to be sent" if waiting else "all is sent")
    return "; ".join(parts)

"""Decides whether what was read of the log is what an administrator expects; pure."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

from exporter.config.values import StartAt
from exporter.pipeline.batch_processor import InputFacts
from exporter.records import Problem

UNPARSED_MAX = 20
"""Wok writes no line that cannot be parsed. A few are an accident, this many are another format."""


def input_problem(facts: InputFacts, log: Path, start_at: StartAt) -> Problem | None:
    """Return what is wrong with the records of a log that was read to its end,
    None if nothing is.
    """
    if facts.unparsed and not facts.records:
        return Problem(
            f"none of the {facts.unparsed:,} lines read from {log} can be parsed",
            f"Is it Wok's user request log? Run `wok-exporter check {log}` to see why, and set log to the right file.",
        )
    if facts.unparsed >= UNPARSED_MAX:
        return Problem(
            f"the last {facts.unparsed:,} lines of {log} cannot be parsed",
            f"Was Wok upgraded, or does another program write to the log? Run `wok-exporter check {log}` to see why.",
        )
    if facts.skipped and facts.skipped == facts.records:
        return Problem(
            f"all {facts.records:,} records of {log} are older than start_at ({_shown(start_at)}) and were skipped",
            "New records will be read. To add the old ones to the page, `tasks` and `trace`, stop wok-exporter and run"
            f" `wok-exporter backfill`. To send them, run `wok-exporter replay {log}`.",
        )
    return None


def _shown(start_at: StartAt) -> str:
    if isinstance(start_at, timedelta):
        hours = start_at / timedelta(hours=1)
        return f"{hours:g} h before the first start"
    return start_at.isoformat(" ") if isinstance(start_at, datetime) else start_at

"""Simulated request logs, damaged in many ways: exact matches must be right."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence

import pytest

from exporter.correlate.correlator import Correlator
from exporter.parse.parser import Parser
from exporter.parse.timezone import Zones
from exporter.records import Event, Line, OpenTask, Record, TaskRow
from exporter.wok.operations import Operations

from .mutate import mutated
from .request_simulation import EXPIRY, HAZARDS, ZONE, score, story_of
from .test_correlate import ends, row_of_end

STORIES = 60
CERTAIN = ("calm", "step", "hour", "summer")
"""The hazards that no exact match may suffer from. The others lose lines or mix them up: then the
evidence itself can be missing."""


@pytest.mark.parametrize(
    ("hazard", "wrong_max"), [*((name, 0) for name in CERTAIN), ("lost", 3), ("disorder", 2)]
)
def test_exact_matches_of_simulated_logs_are_right(hazard: str, wrong_max: int) -> None:
    """No exact match is wrong in a complete log; few are if lines are missing or late by most of a second."""
    total: Counter[str] = Counter()
    for seed in range(STORIES):
        found, _ = score(story_of(seed, HAZARDS[hazard]))
        total += found

    assert total["exact"] > 400
    assert total["wrong"] <= wrong_max


def _events(lines: Sequence[Line], chance: random.Random, restarts: float) -> list[Event]:
    """Parse and correlate; the exporter is restarted after this share of the lines."""
    operations, zones = Operations.load(), Zones(ZONE)
    parser, correlator = Parser("x", zones), Correlator(operations, expiry=EXPIRY)
    rows: dict[bytes, OpenTask] = {}
    ended: list[TaskRow] = []
    events: list[Event] = []
    for line in lines:
        for item in parser.feed(line):
            if isinstance(item, Record):
                new = correlator.feed(item)
                events += new
                ended += [row_of_end(end) for end in ends(new) if end.outcome in ("success", "failure")]
        if chance.random() < restarts:
            changes = correlator.changes()
            rows |= {task.key: task for task in changes.opened}
            for key in changes.closed:
                rows.pop(key, None)
            parser = Parser("x", zones, parser.state)
            correlator = Correlator(
                operations, expiry=EXPIRY, state=changes.state, open_tasks=rows.values(), ended=ended
            )
    return events + correlator.finish()


@pytest.mark.parametrize("hazard", HAZARDS)
def test_restarts_change_nothing_in_damaged_logs(hazard: str) -> None:
    """Logs of every dialect, damaged and with changed fields: a restart after any line gives the same events."""
    for seed in range(8):
        chance = random.Random(seed)
        lines = mutated(story_of(seed, HAZARDS[hazard]).lines(), chance)

        assert _events(lines, chance, 0.3) == _events(lines, chance, 0.0)

"""Simulated request logs, damaged in many ways: exact matches must be right."""

from __future__ import annotations

from collections import Counter

import pytest

from .request_simulation import HAZARDS, score, story_of

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

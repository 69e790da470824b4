"""How long to wait after a failed request: pure functions of the number of failures."""

from __future__ import annotations

BACKOFF_SECONDS_MIN = 1.0
BACKOFF_SECONDS_MAX = 60.0
BACKOFF_SECONDS_FLOOR = 0.1  # full jitter may draw 0
RETRY_AFTER_SECONDS_MAX = 3600  # a typing error in a backend must not silence a host for a week
HOLD_SECONDS = 30.0  # a repair should show soon, and a login page must not be flooded


def outage_seconds(failures: int, draw: float, retry_after_seconds: float | None = None) -> float:
    """Return the wait after the `failures`-th failure in a row: exponential, with full jitter.

    `draw` is a random number from 0 to 1. A server's Retry-After can only make the wait longer.
    """
    ceiling = _doubled(failures, BACKOFF_SECONDS_MAX)
    seconds = max(draw * ceiling, BACKOFF_SECONDS_FLOOR)
    return max(seconds, min(retry_after_seconds or 0, RETRY_AFTER_SECONDS_MAX))


def rejection_seconds(rounds: int) -> float:
    """Return the wait after the `rounds`-th fruitless search for an item that
    the backend accepts.
    """
    return _doubled(rounds, HOLD_SECONDS)


def _doubled(times: int, ceiling: float) -> float:
    return min(BACKOFF_SECONDS_MIN * 2.0 ** min(times - 1, 16), ceiling)

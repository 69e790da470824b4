"""The filters of `tasks`, with the meaning that they have in the API (`store/search.py`)."""

from __future__ import annotations

import argparse
from datetime import datetime, timedelta, tzinfo
from typing import NamedTuple

from exporter.config.values import Moment, as_start_at, in_zone, nanos_of
from exporter.records import OUTCOMES
from exporter.store.search import Sought

VALUES_MAX = 50
"""Of one filter, as in the API."""


class TaskFilters(NamedTuple):
    """What tasks must have; an empty filter accepts every task."""

    apps: tuple[str, ...] = ()
    operations: tuple[str, ...] = ()
    outcomes: tuple[str, ...] = ()
    users: tuple[str, ...] = ()
    text: str = ""
    since: Moment | None = None
    until: Moment | None = None

    def sought(self, now: int, zone: tzinfo | None) -> Sought:
        """Return the filters for a search; `now` is in nanoseconds, `zone` that of times without
        one (None: that of this host).
        """
        return Sought(
            self.apps,
            self.operations,
            self.outcomes,
            self.users,
            self.text,
            nanos_at(self.since, now, zone),
            nanos_at(self.until, now, zone),
        )


NO_FILTERS = TaskFilters()


def add_filters(sub: argparse.ArgumentParser) -> None:
    """Add the flags of the filters."""
    group = sub.add_argument_group(
        "Filters",
        "A task must pass all of them. A flag that is given several times accepts any of its values.",
    )
    for name, text in (
        ("user", "of these users"),
        ("operation", "of these operations, such as vms.clone"),
        ("app", "of these applications, such as kimchi"),
    ):
        group.add_argument(f"--{name}", action="append", default=[], metavar=name.upper(), help=text)
    group.add_argument(
        "--outcome",
        action="append",
        default=[],
        choices=OUTCOMES,
        help="that ended so: success, failure, lost (wokd restarted) or unknown (no end within task_expiry)",
    )
    group.add_argument(
        "--since",
        type=moment,
        metavar="WHEN",
        help="that ended at this time or later, or are running: 2026-11-23T08:00, or 24h before now",
    )
    group.add_argument("--until", type=moment, metavar="WHEN", help="that started before this time")
    group.add_argument(
        "--text",
        default="",
        help="with this text in the resource, operation, error or user, or in the sentence of the request",
    )


def filters_of(args: argparse.Namespace) -> TaskFilters:
    """Return the filters that were given. Raises ValueError for more values than a search takes."""
    for name in ("app", "operation", "user"):
        if len(getattr(args, name)) > VALUES_MAX:
            raise ValueError(
                f"--{name} is given {len(getattr(args, name))} times: give it at most {VALUES_MAX} times"
            )
    return TaskFilters(
        tuple(args.app),
        tuple(args.operation),
        tuple(args.outcome),
        tuple(args.user),
        args.text,
        args.since,
        args.until,
    )


def moment(text: str) -> Moment:
    """Return a time, or how long ago; the type of a flag."""
    try:
        found = as_start_at(text)
    except ValueError:
        found = "end"
    if isinstance(found, (datetime, timedelta)):
        return found
    raise argparse.ArgumentTypeError(
        f"{text!a} is no time: write one such as 2026-11-23T08:00 or 2026-11-23T08:00:00Z, or how long ago,"
        " such as 24h or 7d"
    )


def nanos_at(when: Moment | None, now: int, zone: tzinfo | None) -> int | None:
    """Return a time in nanoseconds; `zone` is that of times without one (None: this host's)."""
    if when is None:
        return None
    return nanos_of(in_zone(when, zone) if isinstance(when, datetime) else when, now)

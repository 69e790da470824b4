"""Limits the series of a family, because labels come from a log that anybody can write to.

A family has at most 1,000 series, including those at 0. Operations in the table always have their
own series. Of unknown applications, operations and error codes, the first ones get a series, and
the rest is counted under `other`. So a flood of made-up names can hide other made-up names, but
never the tasks of Kimchi, Ginger and Gingerbase. The limits hold across restarts, because the
series in the store are loaded at the start.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence

from exporter.records import OUTCOMES, Series

SERIES_MAX = 1000
"""Series of one family. A host with every plug-in has about 100 operations."""
TASKS_MAX = SERIES_MAX // len(OUTCOMES)
"""Pairs of application and operation, `other` included: each has a series for every outcome."""
METHODS = ("POST", "PUT", "DELETE")
OTHER = "other"
NO_CODE = "none"

_OTHER_TASK = (OTHER, OTHER)
_TABLE_TASKS_MAX = 100
"""Room for the pairs of the table of operations (fewer than 50 today; a test compares)."""
_REQUESTS_MAX = 450
"""Series of requests to known applications, and again as many to all others."""
_FAILURES_MAX = SERIES_MAX - TASKS_MAX
"""Series with an error code. Beyond the limit, a failure keeps its operation and gets the code
`other`.
"""
EXCEPTIONS = frozenset(
    {
        "AttributeError",
        "IOError",
        "IndexError",
        "KeyError",
        "OSError",
        "RuntimeError",
        "TypeError",
        "UnicodeDecodeError",
        "ValueError",
        "libvirt.libvirtError",
        "libvirtError",
    }
)
"""Exception classes with a series of their own if there is no error code; all
others are `other`.
"""
_ERROR_CODE = re.compile(r"[A-Z][A-Z0-9]{1,40}")


class SeriesLimits:
    """Chooses the series under which something is counted.

    `series` are all series in the store. `tasks_of` returns the operations of an application that
    start tasks, and nothing for an application that is not in the table.
    """

    def __init__(self, series: Iterable[Series], tasks_of: Callable[[str], Sequence[str]]) -> None:
        self._tasks_of = tasks_of
        self._tasks: set[tuple[str, str]] = set()
        self._requests: set[Series] = set()
        self._unknown_requests: set[Series] = set()
        self._failures: set[Series] = set()
        for known in series:
            if known[0] == "wok_tasks_started_total" and not self._is_of_table(*known[1:3]):
                self._tasks.add((known[1], known[2]))
            elif known[0] == "wok_requests_total":
                (self._requests if self._is_known(known[1]) else self._unknown_requests).add(known)
            elif known[0] == "wok_task_failures_total":
                self._failures.add(known)
        self._tasks.discard(_OTHER_TASK)

    def task(self, app: str, operation: str) -> tuple[str, str]:
        """Return the application and operation under which a task is counted in every family."""
        pair = (app, operation)
        if pair in self._tasks or self._is_of_table(app, operation):
            return pair
        if len(self._tasks) >= TASKS_MAX - 1 - _TABLE_TASKS_MAX:
            return _OTHER_TASK
        self._tasks.add(pair)
        return pair

    def request(self, app: str, method: str, status: int | None) -> Series:
        """Return the series of `wok_requests_total` for a request; `status` may be any number."""
        series = ("wok_requests_total", app, method if method in METHODS else OTHER, _code(status))
        if self._is_known(app):
            admitted, instead = self._requests, (*series[:3], OTHER)
        else:
            admitted, instead = self._unknown_requests, (series[0], OTHER, series[2], OTHER)
        if series not in admitted:
            if len(admitted) >= _REQUESTS_MAX:
                return instead
            admitted.add(series)
        return series

    def failure(self, app: str, operation: str, error_code: str, exception: str = "") -> Series:
        """Return the series of `wok_task_failures_total`; `task` returned the pair.

        Without an error code, the label is the class of the exception, if it is one of
        `EXCEPTIONS`.
        """
        if not error_code and exception in EXCEPTIONS:
            return ("wok_task_failures_total", app, operation, exception)
        error_code = error_code or (OTHER if exception else "")
        if not _ERROR_CODE.fullmatch(error_code):
            error_code = OTHER if error_code else NO_CODE
        series = ("wok_task_failures_total", app, operation, error_code)
        if error_code == OTHER or series in self._failures:
            return series
        if len(self._failures) >= _FAILURES_MAX:
            return (*series[:3], OTHER)
        self._failures.add(series)
        return series

    def _is_of_table(self, app: str, operation: str) -> bool:
        return operation in self._tasks_of(app)

    def _is_known(self, app: str) -> bool:
        return app == "wok" or bool(self._tasks_of(app))


def _code(status: int | None) -> str:
    if status is None:
        return "unknown"
    return str(status) if 100 <= status <= 599 else OTHER

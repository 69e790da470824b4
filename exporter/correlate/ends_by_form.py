"""The waiting final records by the forms of their target_uri: how many tasks with a form have just
ended?

Only a failure asks, when it is decided with the help of wok-error.log. A final record is therefore
entered when the next failure asks, and not at all if it leaves before.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from exporter.correlate.end_candidates import targets_of_end
from exporter.correlate.evidence import general_targets, is_general
from exporter.correlate.task_state import PendingEnd
from exporter.records import NANOS
from exporter.wok.operations import Operations, Target


class EndsByForm:
    """The waiting final records by application and form."""

    def __init__(self, operations: Operations) -> None:
        self._named = _Entered(partial(targets_of_end, operations))
        # These are asked for only if requests of unknown operations are known.
        self._general = _Entered(partial(_general_of, operations))

    def add(self, final: PendingEnd) -> None:
        """Add a final record."""
        self._named.new[final] = None
        self._general.new[final] = None

    def remove(self, final: PendingEnd) -> None:
        """Remove a final record. Call this before its record changes."""
        self._named.remove(final)
        self._general.remove(final)

    def of(self, app: str, form: str) -> Sequence[tuple[int, int]]:
        """Return the time of each final record with a form, and the start time in its target_uri
        (or 0). Possible repeats are excluded.
        """
        found = (self._general if is_general(form) else self._named).of(app, form)
        repeated = {final.earlier for final in found}
        return [(final.record.time, epoch) for final, epoch in found.items() if final not in repeated]


class _Entered:
    """Final records by one kind of forms. `new` are those that are not entered yet."""

    def __init__(self, forms_of: Callable[[PendingEnd], Sequence[Target]]) -> None:
        self._forms_of = forms_of
        self.new: dict[PendingEnd, None] = {}
        self._by_form: dict[tuple[str, str], dict[PendingEnd, int]] = {}

    def remove(self, final: PendingEnd) -> None:
        """Remove a final record."""
        if final in self.new:
            del self.new[final]
            return
        app = final.record.app
        for target in self._forms_of(final):
            # Two forms may be equal.
            key = app, target.text
            alike = self._by_form.get(key)
            if alike is not None:
                alike.pop(final, None)
                if not alike:
                    del self._by_form[key]

    def of(self, app: str, form: str) -> Mapping[PendingEnd, int]:
        """Return the final records with a form and their start times."""
        for final in self.new:
            known = final.record.app
            for target in self._forms_of(final):
                self._by_form.setdefault((known, target.text), {})[final] = target.epoch
        self.new.clear()
        return self._by_form.get((app, form), {})


def _general_of(operations: Operations, final: PendingEnd) -> Sequence[Target]:
    texts = general_targets(operations, final.record.app, final.record.target_uri)
    return [Target(text) for text in dict.fromkeys(texts)]


class EndingTasks:
    """Counts the tasks that have just ended, for the decision about a failure at `time`."""

    def __init__(self, time: int, ends: EndsByForm) -> None:
        self._time = time
        self._ends = ends
        self._known: dict[tuple[str, str], Sequence[tuple[int, int]]] = {}

    @property
    def time(self) -> int:
        """When the failure was logged."""
        return self._time

    def count(self, app: str, form: str, until: int) -> int:
        """Return how many waiting final records with a form were logged up to this time."""
        return sum([time <= until for time, _ in self._of(app, form)])

    def count_of_second(self, app: str, form: str, second: int) -> int:
        """Return how many waiting final records with a form have a start time in this second, or
        just before.
        """
        return sum([second - NANOS <= epoch < second + NANOS for _, epoch in self._of(app, form) if epoch])

    def _of(self, app: str, form: str) -> Sequence[tuple[int, int]]:
        # The same forms are asked for many times.
        key = app, form
        known = self._known.get(key)
        if known is None:
            known = self._known[key] = self._ends.of(app, form)
        return known

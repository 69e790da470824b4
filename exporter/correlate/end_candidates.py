"""Which tasks a final record may end, and how the evidence narrows them.

Everything here is a function of what the index finds: nothing is changed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from exporter.correlate.evidence import general_targets
from exporter.correlate.index import CANDIDATES_MAX, Index
from exporter.correlate.task_state import PendingEnd, PendingRequest, Task
from exporter.records import NANOS
from exporter.wok.operations import Form, Operations

NEAR_SECONDS = 2
NEAR_NANOS = NEAR_SECONDS * NANOS
"""How long after the start of its task a request's line is written, at most: the gap was always under a second,
and the log has whole seconds."""
FAR_SECONDS = 10
"""A request's line that is later than that behind the start of a task is not its request's: it would take an end from
the task of the request that is."""
COARSE_NANOS = 10_000_000
"""How far the second of a line may be behind: Wok takes it from the coarse clock, which is up to 4 ms late."""


class Candidate(NamedTuple):
    """A task that a final record may end, or a request that may have started one without saying so.

    `seq` and `time` are its record's, `context` is its request's. `task` is None for a request whose status was
    500. `request` is None for a task that a start record has opened.
    """

    seq: int
    time: int
    context: bytes
    task: Task | None
    request: PendingRequest | None
    form: Form

    @property
    def expects_nested(self) -> bool:
        """Whether a nested task with the same target_uri reports before this one."""
        return self.form.nests and self.task is not None and not self.task.nested


class Candidates(NamedTuple):
    """The candidates, oldest first.

    `epoch` is the start that the target_uri tells, in nanoseconds, or 0. `is_sure` is False when something speaks against all of them.
    `is_quoted` when the error quotes a value of one request and of no other.
    """

    found: Sequence[Candidate] = ()
    epoch: int = 0
    is_sure: bool = True
    is_quoted: bool = False

    @property
    def capacity(self) -> int:
        """How many ends are still to come of these tasks: a nested task reports before its parent."""
        return sum(2 if each.expects_nested else 1 for each in self.found)


NONE = Candidates()


def candidates_of(operations: Operations, index: Index, final: PendingEnd, *, expiry: int) -> Candidates:
    """Return what a final record may end, by its target_uri alone.

    A task that has been open for `expiry` is too old. So is, but for the settling window, one whose request came
    after the record, unless a clock was set back between them.
    """
    record = final.record
    app, target_uri = record.app, record.target_uri
    earliest, latest = record.time - expiry, record.time + NEAR_NANOS
    named: dict[int, Candidate] = {}
    timed: dict[int, Candidate] = {}
    plain: dict[int, Candidate] = {}
    epoch = 0
    for target in operations.targets(app, target_uri):
        is_told = bool(target.epoch) and earliest <= target.epoch <= latest
        if is_told:
            epoch = target.epoch
            requests = _requests_near(index, app, target.text, epoch // NANOS)
        else:
            requests = index.requests(app, target.text)
        for request in requests:
            if _may_end(request, final, earliest, latest):
                form = request.form_of(target.text)
                # Digits that cannot be a time are only a name.
                is_named = form.named and (is_told or not form.timed)
                # A clock may have been set back: a rival all the same, but never sure.
                form = form._replace(named=is_named and request.time < latest)
                candidate = _candidate(request, form)
                if is_told:
                    timed[request.seq] = candidate
                elif is_named:
                    named[request.seq] = candidate
                else:
                    plain.setdefault(request.seq, candidate)
    for task in index.running_at(app, target_uri):
        # A record with an id ends no task that has another, or a request's that was not named.
        is_free = not record.task_id or not task.task_id
        if is_free and earliest < task.start and task.seq < final.seq and task.end is None:
            form = Form(target_uri, named=True)
            named[task.seq] = Candidate(task.seq, task.start, task.parent, task, None, form)
    if epoch:
        # The start in the target_uri speaks against all requests that cannot have had it.
        chosen = started_at(Candidates(_in_order(timed)), epoch)
        if not named:
            return chosen
        found = [*chosen.found, *_in_order(named)]
        return chosen._replace(found=found, is_sure=chosen.is_sure or not chosen.found)
    if named:
        return Candidates(_in_order(named))
    if plain:
        return Candidates(_in_order(plain))
    return _general_candidates(operations, index, final, earliest, latest) if index.has_general(app) else NONE


def _general_candidates(
    operations: Operations, index: Index, final: PendingEnd, earliest: int, latest: int
) -> Candidates:
    """Return the requests of unknown operations that have a value in common with the target_uri."""
    record = final.record
    # Where the table knows an operation with such target_uris, another one's is no more than a guess.
    is_guess = operations.shape_of(record.app, record.target_uri) is not None
    found: dict[int, Candidate] = {}
    for text in general_targets(operations, record.app, record.target_uri):
        for request in index.requests(record.app, text):
            if _may_end(request, final, earliest, latest):
                form = request.form_of(text)
                if is_guess or request.time >= latest:
                    form = form._replace(named=False)
                known = found.get(request.seq)
                if known is None or (form.named and not known.form.named):
                    found[request.seq] = _candidate(request, form)
    telling = {seq: each for seq, each in found.items() if each.form.named}
    if len(telling) == 1 and len(found) > 1:
        return Candidates(_in_order(telling), is_sure=False)
    return Candidates(_in_order(found))


def _requests_near(index: Index, app: str, text: str, second: int) -> list[PendingRequest]:
    """Return the requests whose task may have started in this second: those within moments, else later ones."""
    near = index.requests_at(app, text, range(second - 1, second + NEAR_SECONDS + 1))
    if any(request.time // NANOS >= second for request in near):
        return near
    return near + index.requests_at(app, text, range(second + NEAR_SECONDS + 1, second + FAR_SECONDS + 1))


def _may_end(request: PendingRequest, final: PendingEnd, earliest: int, latest: int) -> bool:
    """Tell whether a final record may be that of a request's task, by their times and places."""
    # In the RFC's dialect a start record would claim it: there it waits for no final record.
    if request.task is None and not (request.failed and request.record_id):
        return False
    return earliest < request.time and (request.time < latest or request.seq < final.seq)


def _candidate(request: PendingRequest, form: Form) -> Candidate:
    return Candidate(request.seq, request.time, request.context, request.task, request, form)


def started_at(candidates: Candidates, epoch: int) -> Candidates:
    """Keep the requests whose task can have started at this time, in nanoseconds.

    A request's line is written just after its task has started, so the first request at or behind the start is
    the likeliest, and with no other near it is the only one. One that is far behind is no more than possible.
    """
    second = epoch // NANOS
    if len(candidates.found) == 1 and second <= candidates.found[0].time // NANOS < second + NEAR_SECONDS:
        return candidates._replace(epoch=epoch)
    behind = [each for each in candidates.found if each.time // NANOS >= second]
    near = [each for each in behind if each.time < epoch + NEAR_NANOS]
    is_sure = False
    if near:
        first = min(each.time // NANOS for each in near)
        chosen = [each for each in near if each.time // NANOS == first]
        # Its neighbour's line may be just a second late.
        is_sure = candidates.is_sure and len(chosen) == len(near)
    elif epoch % NANOS < COARSE_NANOS and len(behind) < len(candidates.found):
        chosen = [each for each in candidates.found if each.time // NANOS == second - 1]
    else:
        chosen = behind
    return candidates._replace(found=chosen, epoch=epoch if chosen else 0, is_sure=is_sure)


def likeliest(found: Sequence[Candidate], *, epoch: int, seq: int) -> Candidate:
    """Return the likeliest of several: by the start that the target_uri tells, or by the record's place `seq`."""
    if epoch:
        # All are of one second: their lines stand in the order of their starts, as far as a fraction can tell.
        return found[epoch % NANOS * len(found) // NANOS]
    # The newest that stands before: most tasks are short, and one that has been open for long has more likely
    # ended in silence than just now. What stands after is taken only where nothing stands before.
    return min(found, key=lambda each: (each.seq > seq, abs(seq - each.seq)))


def _in_order(found: dict[int, Candidate]) -> list[Candidate]:
    if len(found) <= 1:
        return list(found.values())
    return [found[seq] for seq in sorted(found)][-CANDIDATES_MAX:]


def quoted_by(candidates: Candidates, error: Iterable[str], target_uri: str) -> Candidates:
    """Prefer the one request of which the error quotes a value that the target_uri does not have.

    `/swaps/file_loc/` is the same for every swap file, but a failure may name the file.
    """
    quotes = {value for value in error if len(value) > 3 and value not in target_uri}
    if not quotes:
        return candidates
    quoted = [
        each for each in candidates.found if each.request and not quotes.isdisjoint(each.request.values)
    ]
    return candidates._replace(found=quoted, is_quoted=True) if len(quoted) == 1 else candidates

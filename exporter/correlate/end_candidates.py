"""The tasks that a final record may end, and how evidence narrows the list.

All functions here only read what the index finds. They change nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from exporter.correlate.evidence import general_targets
from exporter.correlate.index import CANDIDATES_MAX, Index
from exporter.correlate.task_state import PendingEnd, PendingRequest, Task
from exporter.records import NANOS
from exporter.wok.operations import Form, Operations, Target

NEAR_SECONDS = 2
NEAR_NANOS = NEAR_SECONDS * NANOS
"""Maximum delay between the start of a task and the line of its request. The gap was always under a
second, and the log has whole seconds."""
PROMPT_NANOS = NANOS // 2
"""A line that is later than this after the start of a task may be another request's, if the right
line is missing."""
FAR_SECONDS = 10
"""A request line that is later than this after the start of a task belongs to another task. As a
candidate, it would take an end from the task of the right request."""
COARSE_NANOS = 10_000_000
"""How late the second of a line may be: Wok reads the coarse clock, which is up to 4 ms behind."""


class Candidate(NamedTuple):
    """A task that a final record may end, or a failed request that may have started one.

    seq      Position of its record in the log.
    time     Time of its record.
    context  Span context of its request.
    task     None for a request with status 500.
    request  None for a task that a start record opened.
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

    epoch      The start time in the target_uri in nanoseconds, or 0.
    is_sure    False if something speaks against all candidates.
    is_quoted  The error quotes a value of one request and of no other.
    neighbours Requests of a later second, which may have started the task too.
    """

    found: Sequence[Candidate] = ()
    epoch: int = 0
    is_sure: bool = True
    is_quoted: bool = False
    neighbours: Sequence[Candidate] = ()

    @property
    def capacity(self) -> int:
        """Number of final records that these tasks will still have: a nested task reports before
        its parent.
        """
        return sum(2 if each.expects_nested else 1 for each in self.found)


NONE = Candidates()


def targets_of_end(operations: Operations, final: PendingEnd) -> Sequence[Target]:
    """Return the forms of a final record's target_uri, without general ones."""
    if not final.targets:
        final.targets = tuple(operations.targets(final.record.app, final.record.target_uri))
    return final.targets


def candidates_of(operations: Operations, index: Index, final: PendingEnd, *, expiry: int) -> Candidates:
    """Return the candidates for a final record by its target_uri alone.

    A task that has been open for `expiry` is too old. A request that came after the final record,
    beyond the settling window, is no candidate either, unless a clock was set back in between.
    """
    record = final.record
    app, target_uri = record.app, record.target_uri
    earliest, latest = record.time - expiry, record.time + NEAR_NANOS
    named: dict[int, Candidate] = {}
    timed: dict[int, Candidate] = {}
    plain: dict[int, Candidate] = {}
    fits: Counter[int] = Counter()
    epoch = 0
    for target in targets_of_end(operations, final):
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
                # A clock may have been set back. The request remains a rival, but is never certain.
                form = form._replace(named=is_named and request.time < latest)
                candidate = _candidate(request, form)
                if is_told:
                    timed[request.seq] = candidate
                elif is_named:
                    named[request.seq] = candidate
                else:
                    plain.setdefault(request.seq, candidate)
                    fits[request.seq] += 1
    for task in index.running_at(app, target_uri):
        # A record with an id cannot end a task with another id, or the task of another request.
        is_free = not record.task_id or not task.task_id
        # The final record of a very short task may stand before its start.
        is_before = task.seq < final.seq or (task.start <= record.time and not task.waiting)
        if is_free and is_before and earliest < task.start and task.end is None:
            form = Form(target_uri, named=True)
            named[task.seq] = Candidate(task.seq, task.start, task.parent, task, None, form)
    if epoch:
        # The start time in the target_uri excludes the requests that do not fit it.
        chosen = started_at(Candidates(_in_order(timed)), epoch)
        if not named:
            return chosen
        found = [*chosen.found, *_in_order(named)]
        return chosen._replace(found=found, is_sure=chosen.is_sure or not chosen.found)
    if named:
        return Candidates(_in_order(named))
    if plain:
        # A request with a special form (`<its template>-vm-1`) has the general one (`*-vm-1`) too.
        most = max(fits.values())
        return Candidates(_in_order({seq: each for seq, each in plain.items() if fits[seq] == most}))
    return _general_candidates(operations, index, final, earliest, latest) if index.has_general(app) else NONE


def _general_candidates(
    operations: Operations, index: Index, final: PendingEnd, earliest: int, latest: int
) -> Candidates:
    """Return the requests of unknown operations that share a value with the target_uri."""
    record = final.record
    # If the table has an operation with such target_uris, a match with another one is a guess.
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
    """Return the requests whose task may have started in this second: the closest ones, or later
    ones if there are none.
    """
    near = index.requests_at(app, text, range(second - 1, second + NEAR_SECONDS + 1))
    if any(request.time // NANOS >= second for request in near):
        return near
    return near + index.requests_at(app, text, range(second + NEAR_SECONDS + 1, second + FAR_SECONDS + 1))


def _may_end(request: PendingRequest, final: PendingEnd, earliest: int, latest: int) -> bool:
    """Return whether a final record can belong to a request's task, by time and position."""
    # In the RFC's dialect a start record claims the request, so it waits for no final record.
    if request.task is None and not (request.failed and request.record_id):
        return False
    return earliest < request.time and (request.time < latest or request.seq < final.seq)


def _candidate(request: PendingRequest, form: Form) -> Candidate:
    return Candidate(request.seq, request.time, request.context, request.task, request, form)


def started_at(candidates: Candidates, epoch: int) -> Candidates:
    """Keep the requests whose task can have started at this time, in nanoseconds.

    Wok writes the line of a request just after its task has started. The first request at or after
    the start is therefore the likeliest. If no other request is near, it is the only one. A request
    that is far behind is only possible.
    """
    second = epoch // NANOS
    if len(candidates.found) == 1 and second <= candidates.found[0].time // NANOS < second + NEAR_SECONDS:
        only = candidates.found[0]
        is_sure = candidates.is_sure and not _is_doubtful(only, epoch)
        return candidates._replace(epoch=epoch, is_sure=is_sure)
    behind = [each for each in candidates.found if each.time // NANOS >= second]
    near = [each for each in behind if each.time < epoch + NEAR_NANOS]
    is_sure = False
    neighbours: list[Candidate] = []
    if near:
        first = min(each.time // NANOS for each in near)
        chosen = [each for each in near if each.time // NANOS == first]
        # The line of a neighbour may be a second late.
        neighbours = [each for each in near if each.time // NANOS != first]
        is_sure = candidates.is_sure and not neighbours
        is_sure = is_sure and not any(_is_doubtful(each, epoch) for each in chosen)
    elif epoch % NANOS < COARSE_NANOS and len(behind) < len(candidates.found):
        chosen = [each for each in candidates.found if each.time // NANOS == second - 1]
    else:
        chosen = behind
    return candidates._replace(
        found=chosen, epoch=epoch if chosen else 0, is_sure=is_sure, neighbours=neighbours
    )


def _is_doubtful(candidate: Candidate, epoch: int) -> bool:
    """Return whether a request may not be the one that has started a task at this time.

    Its line is late, so the right line may be missing. Or another task may be this request's, that
    was matched elsewhere, if so may one that started in this second.
    """
    if candidate.time > epoch + PROMPT_NANOS:
        return True
    request = candidate.request
    return request is not None and request.neighbour and epoch // NANOS < candidate.time // NANOS


def likeliest(found: Sequence[Candidate], *, epoch: int, seq: int) -> Candidate:
    """Return the likeliest candidate, by the start time in the target_uri or by the record's
    position `seq`.
    """
    if epoch:
        # All are in the same second, and their lines are in the order of their starts. The fraction
        # of the second gives the likely position.
        return found[epoch % NANOS * len(found) // NANOS]
    # The newest one before the record: most tasks are short, and a task that has been open for long
    # has more likely ended without a record. A later one is taken only if there is no earlier one.
    return min(found, key=lambda each: (each.seq > seq, abs(seq - each.seq)))


def _in_order(found: dict[int, Candidate]) -> list[Candidate]:
    if len(found) <= 1:
        return list(found.values())
    return [found[seq] for seq in sorted(found)][-CANDIDATES_MAX:]


def quoted_by(candidates: Candidates, error: Iterable[str], target_uri: str) -> Candidates:
    """Prefer the one request with a value that the error quotes and the target_uri does not
    contain.

    `/swaps/file_loc/` is the same for every swap file, but a failure may name the file.
    """
    quotes = {value for value in error if len(value) > 3 and value not in target_uri}
    if not quotes:
        return candidates
    quoted = [
        each for each in candidates.found if each.request and not quotes.isdisjoint(each.request.values)
    ]
    if len(quoted) != 1:
        return candidates
    request = quoted[0].request
    # Another request with the same value may still wait, although an end was assigned to its task.
    shared = {value for each in candidates.found if each.request for value in each.request.shared}
    is_quoted = request is not None and not quotes.isdisjoint({*request.values} - shared)
    return candidates._replace(found=quoted, is_quoted=is_quoted)

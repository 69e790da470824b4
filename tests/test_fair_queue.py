"""The queue that gives every address its share."""

from __future__ import annotations

import threading

from exporter.http.fair_queue import FairQueue, Job, Workers


def job(name: str, done: list[str]) -> Job:
    """A job that notes what became of it."""
    return Job(lambda: done.append(name), lambda: done.append(f"-{name}"))


def test_addresses_take_turns() -> None:
    """The one job of a quiet address does not wait for the many of a busy one."""
    queue, done = FairQueue(100), list[str]()
    for name in ("a1", "a2", "a3", "b1", "c1", "a4"):
        assert queue.push(name[0], job(name, done)) is None
    while len(queue):
        queue.pop().run()

    assert done == ["a1", "b1", "c1", "a2", "a3", "a4"]


def test_a_full_queue_refuses_the_busiest() -> None:
    """When it is full, the busiest address loses its newest job, also to an address that has none yet."""
    queue, done = FairQueue(3), list[str]()
    for name in ("a1", "a2", "a3", "a4", "b1", "b2", "b3"):
        refused = queue.push(name[0], job(name, done))
        if refused:
            refused.refuse()
    while len(queue):
        queue.pop().run()

    assert done == ["-a4", "-a3", "-b2", "-b3", "a1", "b1", "a2"]


def test_closed_workers_refuse() -> None:
    """What waits when the workers are closed is refused, and so is what comes later; nothing is forgotten."""
    workers = Workers("test", threads_max=1, waiting_max=10)
    done: list[str] = []
    entered, leave = threading.Event(), threading.Event()

    def wait() -> None:
        entered.set()
        leave.wait(10)

    workers.submit("a", Job(wait, lambda: None))
    entered.wait(10)
    workers.submit("a", job("waiting", done))
    workers.close()
    workers.submit("b", job("late", done))
    leave.set()

    assert done == ["-waiting", "-late"]

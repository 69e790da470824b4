"""Threads that run jobs for clients, and a bounded queue that gives every address its share.

One client that sends many requests must not keep the others waiting. Each address has a queue of
its own, and the queues take turns. When the whole is full, the address with the most waiting jobs
loses its newest.
"""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple


class Job(NamedTuple):
    """Either `run` or `refuse` is called, once, without the queue's lock."""

    run: Callable[[], None]
    refuse: Callable[[], None]


class FairQueue:
    """Waiting jobs by address; not safe for threads by itself."""

    def __init__(self, size_max: int) -> None:
        self._size_max = size_max
        self._by_address: OrderedDict[str, deque[Job]] = OrderedDict()
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def push(self, address: str, job: Job) -> Job | None:
        """Add a job. When the queue is full, return the job to refuse, which may be this one."""
        refused = None
        if self._size >= self._size_max:
            if not self._by_address:
                return job
            heaviest = max(self._by_address, key=lambda each: len(self._by_address[each]))
            if len(self._by_address[heaviest]) <= len(self._by_address.get(address, ())) + 1:
                return job
            refused = self._by_address[heaviest].pop()
            self._size -= 1
        self._by_address.setdefault(address, deque()).append(job)
        self._size += 1
        return refused

    def pop(self) -> Job:
        """Take the next job; the addresses take turns."""
        address, jobs = self._by_address.popitem(last=False)
        job = jobs.popleft()
        if jobs:
            self._by_address[address] = jobs  # at the end: the others are next
        self._size -= 1
        return job


class Workers:
    """At most `threads_max` threads, started as needed, and at most `waiting_max` waiting jobs."""

    def __init__(self, name: str, *, threads_max: int, waiting_max: int) -> None:
        self._name = name
        self._threads_max = threads_max
        self._waiting = FairQueue(waiting_max)
        self._changed = threading.Condition()
        self._threads = 0
        self._idle = 0
        self._is_closed = False

    def submit(self, address: str, job: Job) -> None:
        """Run the job in a thread. When the queue is full, refuse this job or
        another waiting one.
        """
        with self._changed:
            refused = job if self._is_closed else self._add(address, job)
        if refused is not None:
            refused.refuse()

    def _add(self, address: str, job: Job) -> Job | None:
        is_free = self._idle > len(self._waiting)
        if not is_free and self._threads < self._threads_max:
            # The system may have no thread for us; those that run take the job then.
            with suppress(RuntimeError):
                threading.Thread(target=self._run, name=self._name, daemon=True).start()
                self._threads += 1
        if self._threads == 0:
            return job
        refused = self._waiting.push(address, job)
        self._changed.notify()
        return refused

    def _run(self) -> None:
        while True:
            with self._changed:
                self._idle += 1
                self._changed.wait_for(lambda: self._is_closed or len(self._waiting))
                self._idle -= 1
                if not len(self._waiting):
                    return
                job = self._waiting.pop()
            job.run()

    def close(self) -> None:
        """Refuse all waiting jobs and let the threads end, without waiting for running jobs."""
        with self._changed:
            self._is_closed = True
            waiting = [self._waiting.pop() for _ in range(len(self._waiting))]
            self._changed.notify_all()
        for job in waiting:
            job.refuse()

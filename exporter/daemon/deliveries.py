"""The threads that deliver, one for each signal that has an endpoint."""

from __future__ import annotations

import time
from collections.abc import Mapping
from threading import Event, Thread

from exporter.deliver import otlp_env
from exporter.deliver.remedies import symptom_of
from exporter.deliver.sender import make_sender
from exporter.deliver.worker import DeliveryWorker
from exporter.records import Problem, Signal
from exporter.store.writer import Store
from exporter.telemetry import mapping as telemetry

STOP_SECONDS = 5.0
"""How long a request in flight may still take at a stop; its data is sent again after the next
start.
"""


class Deliveries:
    """The threads that deliver, one for each configured signal; `wake` them after a commit."""

    def __init__(self, store: Store, environ: Mapping[str, str]) -> None:
        self.endpoints = otlp_env.configured(environ)
        self.by_signal: dict[Signal, DeliveryWorker] = {
            signal: DeliveryWorker(
                signal,
                make_sender(signal, environ),
                store,
                scope=telemetry.SCOPE,
                schema_url=telemetry.SCHEMA_URL,
            )
            for signal in self.endpoints
        }
        store.set_signals(self.signals)
        self._stopped = Event()
        self._work = {signal: Event() for signal in self.by_signal}
        self._threads = [
            Thread(
                target=delivery.run,
                args=(self._stopped, self._work[signal]),
                name=f"deliver-{signal}",
                daemon=True,
            )
            for signal, delivery in self.by_signal.items()
        ]

    @property
    def signals(self) -> frozenset[Signal]:
        """The signals that have an endpoint."""
        return frozenset(self.by_signal)

    def start(self) -> None:
        """Start to deliver what the journal contains."""
        for thread in self._threads:
            thread.start()

    def wake(self) -> None:
        """Tell the threads that there are new rows."""
        for work in self._work.values():
            work.set()

    def stop(self) -> None:
        """Stop, with a short wait for requests in flight."""
        self._stopped.set()
        self.wake()
        end = time.monotonic() + STOP_SECONDS
        for thread in self._threads:
            thread.join(max(0.0, end - time.monotonic()))

    def problems(self) -> list[Problem]:
        """Return which backend does not accept data, and what to do."""
        return [
            Problem(
                f"{signal}: {status.endpoint} {symptom_of(status.reason)} ({status.reason})", status.remedy
            )
            for signal, delivery in self.by_signal.items()
            if (status := delivery.status).failing_since is not None
        ]

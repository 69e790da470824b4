"""What a line costs at each stage of `run`, in one thread, by its own accounting: `make bench` (`--only stages`).

The parts are those of the daemon. Each call across a boundary is timed with the processor time of the thread; what a
nested call takes is subtracted from its caller. Delivery happens after each batch instead of beside it.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from exporter.deliver.sender import make_sender
from exporter.deliver.worker import DeliveryWorker
from exporter.parse.timezone import Zones
from exporter.pipeline.batch_processor import ProcessingConfig
from exporter.pipeline.commit_builder import CommitBuilder
from exporter.pipeline.cycles import collect_seldom
from exporter.pipeline.reader import InProcessReader
from exporter.records import NANOS, SIGNALS, Signal
from exporter.source.tail import Tail
from exporter.store.writer import Store
from exporter.telemetry.mapping import SCHEMA_URL, SCOPE, Telemetry
from exporter.telemetry.resource import Identity
from exporter.wok.messages import Messages
from exporter.wok.operations import Operations

STAGES = {
    "read": "read the log, split it into lines",
    "parse": "parse, redact, find the time",
    "correlate": "match tasks and requests, count",
    "encode": "encode spans, log records and rows of the history",
    "write": "write the transaction (SQLite)",
    "queue": "read the delivery queue, move its cursor (SQLite)",
    "send": "wrap and send requests (HTTP)",
}


class Accounts:
    """Processor seconds by stage."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(STAGES, 0.0)
        self._nested = [0.0]

    def timed(self, stage: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """Return the call, which adds its processor time to a stage."""

        def timed(*args: Any, **named: Any) -> Any:
            began = time.thread_time()
            self._nested.append(0.0)
            try:
                return call(*args, **named)
            finally:
                took = time.thread_time() - began
                self.seconds[stage] += took - self._nested.pop()
                self._nested[-1] += took

        return timed


class Timed:
    """Another object, some of whose methods are timed."""

    def __init__(self, of: Any, accounts: Accounts, stages: Mapping[str, str]) -> None:
        self._of = of
        for method, stage in stages.items():
            setattr(self, method, accounts.timed(stage, getattr(of, method)))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._of, name)


def measure(log: Path, environ: Mapping[str, str], signals: frozenset[Signal]) -> dict[str, float]:
    """Take a log through all stages; return processor seconds by stage."""
    accounts = Accounts()
    config = ProcessingConfig("bench", Zones("UTC"), Operations.load(), 24 * 3600 * NANOS)
    telemetry = Telemetry(
        Identity("bench", "host", "h", {}),
        log_file_name=log.name,
        privacy="plain",
        messages=Messages({}),
        operations=Operations.load(),
    )
    with tempfile.TemporaryDirectory() as folder, closing(Store(Path(folder))) as store:
        store.set_signals(signals)
        reader = InProcessReader(
            config, store.load(), log=lambda at: Tail(log, at), errors=None, wall=time.time_ns
        )
        parts: Any = reader
        parts._log = Timed(parts._log, accounts, {"read": "read"})
        parts._processor = Timed(parts._processor, accounts, {"parse": "parse", "advance": "correlate"})
        build = accounts.timed("encode", CommitBuilder(telemetry, signals=signals).commit)
        commit = accounts.timed("write", store.commit)
        queue: Any = Timed(store, accounts, {"journal_read": "queue", "journal_advance": "queue"})
        workers = [
            DeliveryWorker(signal, make_sender(signal, environ), queue, scope=SCOPE, schema_url=SCHEMA_URL)
            for signal in SIGNALS
            if signal in signals
        ]
        steps = [accounts.timed("send", worker.step) for worker in workers]
        collect_seldom()
        with closing(reader):
            while (result := reader.step()) is not None:
                commit(build(result), time.time())
                for step in steps:
                    while step() == 0:
                        pass
                if result.caught_up:
                    break
    return accounts.seconds


def main() -> None:
    """Measure, and print the seconds as JSON."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("log", type=Path)
    parser.add_argument("--signals", nargs="*", choices=SIGNALS, default=[])
    chosen = parser.parse_args()
    print(json.dumps(measure(chosen.log, os.environ, frozenset(chosen.signals))))


if __name__ == "__main__":
    main()

"""A Wok that works now: it writes requests and tasks into a log with the time of the moment, as its dialect has them."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

from exporter.simulate.records import ADA, FAILED, FINISHED, STARTED, Dialect, Failure, record, task_record

NO_SPACE = "no space is left in the pool default"


class Clone(NamedTuple):
    """A clone that runs: what its task will be found by, and the id of its request's trace, where the dialect has ids."""

    guest: str
    target_uri: str
    task_id: int
    began: float
    trace_id: str


class Wok:
    """Writes one log, line by line, in UTC (the exporter must be told: `--timezone UTC`)."""

    def __init__(self, log: Path, dialect: Dialect = "json") -> None:
        self.log = log
        self._dialect: Dialect = dialect
        self._task_ids = count(1)
        log.touch()

    def request(
        self,
        code: str,
        params: Mapping[str, Any],
        *,
        method: str = "POST",
        status: int = 200,
        app: str = "kimchi",
    ) -> str:
        """Write a request that ends now; return its record's id as hexadecimal digits."""
        stamp = self._stamp()
        self._write(
            record(self._dialect, stamp, app, method, status, ADA, code, dict(params), f"{method} {code}")
        )
        return uuid.UUID(stamp["id"]).hex

    def start_guest(self, name: str) -> str:
        return self.request("KCHVM0004L", {"ident": name, "remote_host": ""})

    def clone(self, guest: str) -> Clone:
        """Write the request for a clone and, where the dialect has it, the start of its task."""
        began = time.time()
        target_uri = f"/plugins/kimchi/vms/{guest}-clone-{int(began * 1_000_000)}/clone"
        task_id = next(self._task_ids)
        if self._dialect == "rfc":
            self._write(task_record("rfc", self._stamp(), "kimchi", STARTED, target_uri, task_id))
        trace_id = self.request("KCHVM0009L", {"ident": guest, "remote_host": ""}, status=202)
        return Clone(guest, target_uri, task_id, began, trace_id)

    def end(self, clone: Clone, *, failed: bool = False) -> float:
        """Write the end of a clone; return the moment at which its line was on disk."""
        why = {"name": clone.guest, "err": NO_SPACE}
        error = (
            Failure("KCHVM0035E", why, f"{clone.guest} could not be cloned: {NO_SPACE}") if failed else None
        )
        status = FAILED if failed else FINISHED
        self._write(
            task_record(
                self._dialect, self._stamp(), "kimchi", status, clone.target_uri, clone.task_id, error
            )
        )
        return time.time()

    def garbage(self, text: str = "this is no record of any Wok") -> None:
        self._write(text.encode())

    def _write(self, line: bytes) -> None:
        with self.log.open("ab", buffering=0) as stream:
            stream.write(line + b"\n")

    def _stamp(self) -> dict[str, str]:
        when = datetime.now(UTC)
        return {
            "date": f"{when:%Y-%m-%d}",
            "time": f"{when:%H:%M:%S}",
            "zone": "UTC",
            "id": str(uuid.uuid4()),
        }

"""Records as the parser makes them, for the tests of what comes after it: short to write, whole to compare."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Mapping
from itertools import count
from typing import Any

from exporter.records import NANOS, Dialect, Record

FILE = b"f" * 16
EPOCH = 1_470_000_000
"""Second 0 of the tests' logs."""


class Log:
    """Makes records in the order of a log: every call is the next line, 100 bytes after the last."""

    def __init__(self, dialect: Dialect = "json", *, start: int = 0) -> None:
        self.dialect: Dialect = dialect
        self._offsets = count(start, 100)

    def request(
        self,
        at: float,
        code: str,
        params: Mapping[str, Any] | None = None,
        *,
        status: int | None = 202,
        app: str = "kimchi",
        method: str = "POST",
        error_code: str = "",
    ) -> Record:
        """A request record, `at` seconds after EPOCH."""
        dialect: Dialect = "coded" if self.dialect == "rfc" else self.dialect
        return self._record("request", dialect, at, app, method, status, code, params or {}, error_code)

    def started(
        self,
        at: float,
        target_uri: str,
        task_id: str = "",
        *,
        app: str = "kimchi",
        request_id: str = "",
        parent: str = "",
    ) -> Record:
        """A start record (status 1000)."""
        record = self._record("started", self.dialect, at, app, "TASK", 1000, "WOKASYNC0000L", {}, "")
        return record._replace(
            target_uri=target_uri, task_id=task_id, request_id=request_id, parent_task_id=parent
        )

    def finished(
        self,
        at: float,
        target_uri: str,
        task_id: str = "",
        *,
        app: str = "kimchi",
        failed: bool = False,
        error_code: str = "",
        request_id: str = "",
        parent: str = "",
    ) -> Record:
        """A final record, of a success or a failure."""
        status = (1002 if failed else 1001) if task_id else (400 if failed else 200)
        code = "WOKASYNC0002L" if failed else "WOKASYNC0001L"
        record = self._record("finished", self.dialect, at, app, "TASK", status, code, {}, error_code)
        return record._replace(
            target_uri=target_uri,
            task_id=task_id,
            request_id=request_id,
            parent_task_id=parent,
            failed=failed,
        )

    def _record(
        self,
        kind: Any,
        dialect: Dialect,
        at: float,
        app: str,
        method: str,
        status: int | None,
        code: str,
        params: Mapping[str, Any],
        error_code: str,
    ) -> Record:
        offset = next(self._offsets)
        trace_id = hashlib.sha256(b"%d" % offset).digest()[:16]
        return Record(
            kind=kind,
            dialect=dialect,
            time=int((EPOCH + at) * NANOS),
            app=app,
            method=method,
            status=status,
            user="" if method == "TASK" else "admin",
            address="" if method == "TASK" else "192.0.2.1",
            code=code,
            params=params,
            error_code=error_code,
            error_params={},
            text="",
            trace_id=trace_id,
            record_id=str(uuid.UUID(bytes=trace_id)) if dialect == "json" else "",
            file=FILE,
            offset=offset,
        )

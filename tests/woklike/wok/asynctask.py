"""Tasks: functions that run in threads of their own, and one line in the log for each end that they report."""

from __future__ import annotations

import threading
import time
import traceback
import uuid
from collections.abc import Callable
from typing import Any

import cherrypy

from .exception import InvalidOperation, OperationFailed, WokException
from .reqlogger import ASYNCTASK_REQUEST_METHOD, log_request

MSG_FAILED = "WOKASYNC0002L"
MSG_SUCCESS = "WOKASYNC0001L"
tasks_queue: dict[str, AsyncTask] = {}


def save_request_log_id(log_id: str, task_id: str) -> None:
    """Keep the id of a request's line at its task; nothing in Wok reads it."""
    tasks_queue[task_id].log_id = log_id


class AsyncTask:
    """A task. Its thread is started by the constructor."""

    def __init__(
        self,
        target_uri: str,
        fn: Callable[[Any, Any], object],
        opaque: Any = None,
        kill_cb: Callable[[], object] | None = None,
    ) -> None:
        self.id = str(uuid.uuid1())
        self.target_uri = target_uri
        self.fn = fn
        self.kill_cb = kill_cb
        self.log_id: str | None = None
        self.timestamp = time.time()
        self.app = cherrypy.request.app.script_name if cherrypy.request.app else ""
        self.status = "running"
        self.message = "not yet done"
        self._cp_request = cherrypy.serving.request
        self.thread = threading.Thread(target=self._run_helper, args=(opaque, self._status_cb), daemon=True)
        self.thread.start()
        tasks_queue[self.id] = self

    def _log(self, code: str, status: int, exception: Any = None) -> None:
        log_request(
            code,
            {"target_uri": self.target_uri},
            exception,
            ASYNCTASK_REQUEST_METHOD,
            status,
            app=self.app,
            user="",
            ip="",
        )

    def _status_cb(self, message: str, success: bool | None = None, exception: Any = None) -> None:
        # First the line, then the state: a line that fails leaves the task running.
        if success:
            self._log(MSG_SUCCESS, 200)
            self.status = "finished"
        elif success is not None:
            self._log(MSG_FAILED, 400, exception)
            self.status = "failed"
        if message.strip():
            self.message = message

    def _run_helper(self, opaque: Any, cb: Callable[..., None]) -> None:
        cherrypy.serving.request = self._cp_request
        try:
            self.fn(cb, opaque)
        except Exception as error:  # noqa: BLE001 - as Wok does
            cherrypy.log.error_log.error(f"Error in async_task {self.id}")
            cherrypy.log.error_log.error(traceback.format_exc())
            if isinstance(error, WokException):
                cb(str(error), success=False, exception=error)
            else:
                cb(str(error), success=False)

    def kill(self) -> None:
        if self.kill_cb is None:
            raise InvalidOperation("WOKASYNC0002E")
        try:
            self.kill_cb()
            self.status, self.message = "killed", "stopped by a user"
        except Exception as error:
            self.message = str(error)
            raise OperationFailed("WOKASYNC0004E", {"err": str(error)}) from error

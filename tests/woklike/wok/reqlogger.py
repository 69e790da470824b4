"""The user request log: one JSON object a line, through Python's logging."""

from __future__ import annotations

import json
import logging
import logging.handlers
import time
import uuid
from typing import Any

import cherrypy

from .config import paths

TS_DATE_FORMAT = "%Y-%m-%d"
TS_TIME_FORMAT = "%H:%M:%S"
TS_ZONE_FORMAT = "%Z"
ASYNCTASK_REQUEST_METHOD = "TASK"
LOGGER = "wok_request_logger"

notified: list[tuple[str, ...]] = []
"""What open pages would have been told."""


def send_wok_notification(*what: str) -> None:
    """Stand for the socket of Wok's push server."""
    notified.append(what)


def log_request(
    code: str,
    params: dict[str, Any],
    exception: Any,
    method: str,
    status: int,
    app: str | None = None,
    user: str | None = None,
    ip: str | None = None,
    class_name: str | None = None,
    action_name: str | None = None,
) -> str:
    """Write one line and return its id."""
    where = cherrypy.request.app.script_name if app is None else app
    message = {"code": code, "params": params}
    record = RequestRecord(message, exception, app=where, req=method, status=status, user=user, ip=ip)
    record.log()
    if class_name:
        send_wok_notification(where, class_name, method, str(action_name))
    send_wok_notification("", "logs", "POST")
    return record.id


class RequestLogger:
    """Opens the log."""

    def __init__(self) -> None:
        self.handler = logging.handlers.WatchedFileHandler(f"{paths.state_dir}/user-requests.data", "a")
        self.handler.setFormatter(logging.Formatter("%(message)s"))
        logger = logging.getLogger(LOGGER)
        logger.setLevel(logging.INFO)
        logger.addHandler(self.handler)


class RequestRecord:
    """One line. What JSON cannot encode fails inside logging, which only prints a traceback."""

    def __init__(self, message: dict[str, Any], error: Any, id: str | None = None, **kwargs: Any) -> None:  # noqa: A002
        safe = {key: value for key, value in message["params"].items() if key not in ("password", "passwd")}
        self.message = {"code": message["code"], "params": safe}
        self.error = {"code": error.code, "params": error.params} if error else None
        self.id = id or str(uuid.uuid4())
        now = time.localtime()
        formats = (("date", TS_DATE_FORMAT), ("time", TS_TIME_FORMAT), ("zone", TS_ZONE_FORMAT))
        self.info = dict(kwargs, **{name: time.strftime(form, now) for name, form in formats})

    def __str__(self) -> str:
        return json.dumps({"id": self.id, "message": self.message, "error": self.error, "info": self.info})

    def log(self) -> str:
        logging.getLogger(LOGGER).info(self)
        return self.id

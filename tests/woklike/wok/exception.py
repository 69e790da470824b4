"""Errors with a code and parameters. Making one writes its text to the error log, as in Wok."""

from __future__ import annotations

from typing import Any

import cherrypy


class WokException(Exception):  # noqa: N818 - Wok has named it
    """What Wok and its plug-ins raise on purpose."""

    def __init__(self, code: str = "", args: dict[str, Any] | None = None) -> None:
        self.code = code
        self.params = {} if args is None else args
        # Wok turns every value into text for the message, but not in what it logs.
        for value in self.params.values():
            str(value)
        text = f"{code}: {code}"
        cherrypy.log.error_log.error(text)
        super().__init__(text)


class OperationFailed(WokException):
    """Something went wrong while it was done."""


class InvalidOperation(WokException):
    """Something cannot be done."""


class NotFoundError(WokException):
    """Something is not there."""

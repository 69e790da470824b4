"""Why a server cannot start."""

from __future__ import annotations


class ServerError(Exception):
    """The server cannot start; the message names the setting to change."""

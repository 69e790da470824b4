"""Temporary directories for states that a command needs only while it runs."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from pathlib import Path

from exporter.store.database import StoreError


def temporary_directory(resources: ExitStack, prefix: str = "wok-exporter-") -> Path:
    """Return a new directory that exists until `resources` are closed; raises StoreError."""
    try:
        return Path(resources.enter_context(tempfile.TemporaryDirectory(prefix=prefix)))
    except OSError as error:
        raise StoreError(
            f"cannot create a temporary directory ({error.strerror}): set TMPDIR to a writable directory"
        ) from error

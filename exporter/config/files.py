"""Looks at files that a configuration names: never raises, never waits for a writer."""

from __future__ import annotations

import os
import stat
from pathlib import Path

NULL_DEVICE = os.makedev(1, 3)


def may_exist(path: Path) -> bool:
    """Return whether there is a file, or may be one that this user cannot see."""
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    return True


def why_unreadable(path: Path, *, may_be_directory: bool = False) -> str:
    """Return why a file cannot be read, empty if it can.

    A FIFO is not opened: without a writer that would wait for ever. /dev/null counts as an empty
    file.
    """
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode) and may_be_directory:
            os.scandir(path).close()
            return ""
        is_null = stat.S_ISCHR(status.st_mode) and status.st_rdev == NULL_DEVICE
        if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode) or is_null):
            return "not a regular file"
        with path.open("rb") as file:
            file.read(1)
    except OSError as error:
        return error.strerror or str(error)
    except ValueError as error:
        return str(error)
    return ""

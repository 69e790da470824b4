"""Looks at files as the user of the service does, which root can do in a child process."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

from exporter.config.files import why_unreadable

REASON_BYTES = 4096


def user_to_check(name: str) -> str:
    """Return the user to look at files as: `name` if this is root and there is such a user, else
    empty.
    """
    if os.geteuid() != 0:
        return ""
    try:
        pwd.getpwnam(name)
    except KeyError:
        return ""
    return name


def why_unreadable_as(user: str, path: Path, *, may_be_directory: bool = False) -> str:
    """Return why `user` (empty: this process's) cannot read a file; empty if they can."""
    if not user:
        return why_unreadable(path, may_be_directory=may_be_directory)
    account = pwd.getpwnam(user)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.initgroups(user, account.pw_gid)
            os.setresgid(account.pw_gid, account.pw_gid, account.pw_gid)
            os.setresuid(account.pw_uid, account.pw_uid, account.pw_uid)
            os.write(writing, why_unreadable(path, may_be_directory=may_be_directory).encode()[:REASON_BYTES])
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        reason = pipe.read().decode()
    os.waitpid(child, 0)
    return reason

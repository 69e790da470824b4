"""A limit of memory that the kernel enforces, as `MemoryMax` of a unit and `--memory` of a container do.

It needs root and a writable control group, of version 2 or 1. What a process has allocated before it
is put into the group is not counted, so put it in right after its start.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
MIB = 1024 * 1024


def limit_file() -> Path | None:
    """Return the name, relative to a group, of the file with its limit, below the folder of all
    groups; None where no group can be made.
    """
    version_2 = ROOT / "cgroup.subtree_control"
    if version_2.is_file() and "memory" in version_2.read_text("ascii").split() and os.access(ROOT, os.W_OK):
        return ROOT / "memory.max"
    version_1 = ROOT / "memory"
    if (
        (version_1 / "memory.limit_in_bytes").is_file()
        and os.access(version_1, os.W_OK)
        and os.geteuid() == 0
    ):
        return version_1 / "memory.limit_in_bytes"
    return None


@contextmanager
def limited(pid: int, mebibytes: int) -> Iterator[None]:
    """Hold a process, and what it starts, to so much memory. The kernel kills it if it needs more.

    The process must have ended before the block does.
    """
    file = limit_file()
    assert file is not None, "no control group can be made"
    group = file.parent / f"wok-exporter-bounds-{os.getpid()}-{pid}"
    group.mkdir()
    try:
        (group / file.name).write_text(str(mebibytes * MIB))
        (group / "cgroup.procs").write_text(str(pid))
        yield
    finally:
        group.rmdir()

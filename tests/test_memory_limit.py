"""The limit of memory that `make bounds` sets."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.memory_limit import limit_file, limited

needs_group = pytest.mark.skipif(limit_file() is None, reason="no control group can be made")


@needs_group
@pytest.mark.parametrize(("mebibytes", "is_killed"), [(16, False), (256, True)])
def test_the_kernel_enforces_the_limit(mebibytes: int, is_killed: bool) -> None:
    """A process that needs more than its limit of 64 MiB is killed, another one ends by itself."""
    code = f"input(); held = bytearray(b'x') * ({mebibytes} << 20); print(len(held))"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        with limited(process.pid, 64):
            said, _ = process.communicate(b"\n")
        assert (process.returncode == -9, bool(said)) == (is_killed, not is_killed)

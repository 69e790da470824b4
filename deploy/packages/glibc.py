"""Which C library a directory of programs needs: the newest version that any of
its files requires.
"""

from __future__ import annotations

import re
from pathlib import Path

_VERSION = re.compile(rb"\0GLIBC_(\d+)\.(\d+)(?:\.\d+)?(?=\0)")
"""As in the dynamic symbol names of an ELF file."""


def glibc_needed(tree: Path) -> str:
    """Return a version such as `2.36`. Raises ValueError if no file needs a C library."""
    needed = max(
        (int(major), int(minor))
        for path in tree.rglob("*")
        if path.is_file() and (data := path.read_bytes()).startswith(b"\x7fELF")
        for major, minor in _VERSION.findall(data)
    )
    return f"{needed[0]}.{needed[1]}"

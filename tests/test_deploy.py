"""The table in deploy/README.md names the program and the test for every file;
it must be complete.
"""

from __future__ import annotations

import re
import subprocess
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"
ROW = re.compile(r"^\| `([^|]+)` \|([^|]*)\|([^|]*)\|$", re.MULTILINE)


def rows() -> list[tuple[list[str], list[Path]]]:
    """Return the table: patterns of files, and the tests that run them."""
    text = (DEPLOY / "README.md").read_text(encoding="utf-8")
    return [
        (
            [pattern.strip("` ") for pattern in files.split(",")],
            [ROOT / name for name in re.findall(r"`(tests/[\w/]+\.py)`", tests)],
        )
        for files, _, tests in ROW.findall(text)
    ]


def shipped() -> list[str]:
    """Return the files of deploy/ that are, or will be, under version control."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "deploy"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode != 0:
        pytest.skip("not a git checkout: the files of deploy/ cannot be listed")
    return [name.removeprefix("deploy/") for name in listed.stdout.split()]


def test_every_file_is_in_the_table() -> None:
    """Every file of deploy/ has a row in the table, and every row a file."""
    patterns = [pattern for row, _ in rows() for pattern in row]
    files = [name for name in shipped() if not name.endswith("README.md")]
    assert [name for name in files if not any(fnmatch(name, pattern) for pattern in patterns)] == []
    assert [pattern for pattern in patterns if not any(fnmatch(name, pattern) for name in files)] == []


def test_every_row_names_a_test_that_exists() -> None:
    """Each row of the table names at least one test that exists."""
    assert [files for files, tests in rows() if not tests or not all(test.exists() for test in tests)] == []

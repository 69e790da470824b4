"""The table of faults names tests that there are."""

from __future__ import annotations

import re
from pathlib import Path

TESTS = Path(__file__).parent
PAGES = [TESTS.parent / "docs" / name for name in ("reliability.md", "security.md")]
FAULTS = 36


def test_every_fault_has_a_test() -> None:
    """All faults that must be survived are in the table, in order, each with a test or a make target."""
    rows = re.findall(r"^\| (\d+) \|.*\| ([^|]*) \|$", PAGES[0].read_text("utf-8"), re.MULTILINE)

    assert [int(number) for number, _ in rows] == list(range(1, FAULTS + 1))
    assert all("::test_" in tests or "make " in tests for _, tests in rows)


def test_named_tests_exist() -> None:
    """Each test that a page names as the proof of a promise is there under that name."""
    missing = []
    for page in PAGES:
        if page.exists():
            for file, name in re.findall(r"`([\w/]+\.py)::(test_\w+)`", page.read_text("utf-8")):
                path = TESTS / file
                if not path.exists() or f"def {name}(" not in path.read_text("utf-8"):
                    missing.append(f"{page.name}: {file}::{name}")

    assert missing == []

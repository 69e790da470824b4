"""The page of what the exporter costs: each measurement of `make bench` has its place there, and is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.bench import NAMES, put

PAGE = Path(__file__).parents[1] / "docs" / "performance.md"


def test_every_measurement_is_on_the_page() -> None:
    """The page has the result of each measurement between its markers, in the order of `make bench`."""
    found = re.findall(r"<!-- (\w+) -->\n(.*?)<!-- end of \1 -->", PAGE.read_text("utf-8"), re.DOTALL)

    assert {name for name, _ in found} == set(NAMES)
    assert [name for name, text in found if not text.strip()] == []


def test_a_measurement_replaces_its_former_result(tmp_path: Path) -> None:
    """Writing a result again changes nothing else on the page, and a page without its place is not written."""
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- idle -->\n<!-- end of idle -->\nafter\n")
    put(page, "idle", "0.1 %")
    once = page.read_text()
    put(page, "idle", "0.1 %")

    assert page.read_text() == once == "before\n<!-- idle -->\n\n0.1 %\n\n<!-- end of idle -->\nafter\n"
    with pytest.raises(AssertionError, match="no markers of start"):
        put(page, "start", "1 s")

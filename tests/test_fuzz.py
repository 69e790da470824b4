"""What the fuzzer has found and reached is replayed: see `tests/fuzz_run.py`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz_run import CORPUS
from tests.fuzz_targets import TARGETS, Target, check_linear, work

LINEAR_FILES = 15


def inputs(name: str) -> list[Path]:
    """The kept inputs of a target."""
    return sorted((CORPUS / name).iterdir())


@pytest.mark.parametrize("name", sorted(TARGETS))
def test_corpus(name: str) -> None:
    """No input that has ever reached new code breaks an invariant of its target."""
    paths = inputs(name)
    assert paths
    for path in paths:
        try:
            TARGETS[name].check(path.read_bytes())
        except Exception as error:
            error.add_note(f"input: {path}")
            raise


@pytest.mark.parametrize("name", sorted(name for name, target in TARGETS.items() if target.scaled))
def test_work_is_linear(name: str) -> None:
    """Four times the input makes about four times the work, counted in lines of Python."""
    for path in inputs(name)[-LINEAR_FILES:]:
        check_linear(TARGETS[name], path.read_bytes())


def test_work_that_is_not_linear_is_found() -> None:
    """The count of work tells a loop in a loop from a loop."""

    def square(data: bytes) -> None:
        for _ in data:
            for _ in data[::64]:
                pass

    assert work(lambda: square(b"x" * 64)) < work(lambda: square(b"x" * 128))
    with pytest.raises(AssertionError):
        check_linear(Target(lambda _: None, (), square), b"x")

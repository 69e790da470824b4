"""What a check of the doctor finds, for people and for programs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple

from exporter.terminal.task_table import hanging

Level = Literal["ok", "warning", "problem"]

NAME_CELLS = 14


class Finding(NamedTuple):
    """One fact about `check`: what is so, and for a warning or a problem what to do."""

    check: str
    level: Level
    what: str
    remedy: str = ""


def ok(check: str, what: str) -> Finding:
    """Return a fact that is as it should be."""
    return Finding(check, "ok", what)


def warning(check: str, what: str, remedy: str) -> Finding:
    """Return something that may be intended."""
    return Finding(check, "warning", what, remedy)


def problem(check: str, what: str, remedy: str) -> Finding:
    """Return something that keeps data from arriving, or makes it wrong."""
    return Finding(check, "problem", what, remedy)


def as_object(findings: Sequence[Finding]) -> dict[str, Any]:
    """Return everything for JSON."""
    return {
        "is_healthy": not any(finding.level == "problem" for finding in findings),
        "findings": [finding._asdict() for finding in findings],
    }


def report(findings: Sequence[Finding], width: int | None = None) -> Iterator[str]:
    """Yield the lines for people: each finding, with its remedy below, and a summary.

    `width` is the terminal's in cells, None for no limit.
    """
    for finding in findings:
        yield from hanging(f"{finding.level:<8} {finding.check:<{NAME_CELLS}} ", finding.what, width)
        if finding.remedy:
            yield from hanging(f"{'':<8} {'':<{NAME_CELLS}} -> ", finding.remedy, width)
    counts = [
        (level, sum(finding.level == level for finding in findings)) for level in ("problem", "warning")
    ]
    said = ", ".join(f"{count} {level}{'' if count == 1 else 's'}" for level, count in counts if count)
    yield ""
    yield f"{said[0].upper()}{said[1:]}." if said else "No problems found."

"""Writes the generated pages of docs/ and the example file of deploy/: `make docs`.

A test checks that the committed files are current.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from exporter.cli import COMMANDS
from exporter.config.reference import configuration_page, example_file
from exporter.metrics.definitions import FAMILIES

DOCS = Path(__file__).parent


def metrics_page() -> str:
    """Return docs/metrics.md, from the table that the scrape is made of."""
    lines = [
        "# Metrics",
        "",
        "What `/metrics` serves, in Prometheus' text format and as OpenMetrics (with exemplars that carry the trace id of a task).",
        "Labels are from finite sets; a family has at most 1,000 series, the rest is counted under `other`. The `wok_*` families are withheld on a first start until the",
        'backlog has been read, so that history does not look like a burst. Alert on `wok_tasks_finished_total{outcome="failure"}`: it is there, at 0, before the first failure.',
        "",
        "| name | type | labels | what |",
        "|---|---|---|---|",
    ]
    for doc in FAMILIES:
        labels = ", ".join(f"`{label}`" for label in doc.labels)
        lines.append(f"| `{doc.name}` | {doc.type} | {labels} | {doc.help} |")
    return "\n".join(lines) + "\n"


def commands_page() -> str:
    """Return docs/commands.md: every command's own help."""
    lines = [
        "# Commands",
        "",
        "Data goes to stdout, everything else to stderr. Exit codes: 0 done; 1 done, but something is wrong with what was looked at or sent; 2 the command, the configuration or the state",
        "does not allow it; 130 interrupted.",
    ]
    for command in ("", *COMMANDS):
        arguments = [command, "--help"] if command else ["--help"]
        answer = subprocess.run(
            [sys.executable, "-m", "exporter", *arguments],
            env={**os.environ, "COLUMNS": "100", "NO_COLOR": "1"},
            check=True,
            capture_output=True,
            text=True,
        )
        lines += ["", f"## wok-exporter {command}".rstrip(), "", "```", answer.stdout.rstrip(), "```"]
    return "\n".join(lines) + "\n"


PAGES = {
    "configuration.md": configuration_page,
    "metrics.md": metrics_page,
    "commands.md": commands_page,
    "../deploy/wok-exporter.toml": example_file,
}
"""By their names as seen from docs/."""


def main() -> None:
    """Write all pages."""
    for name, page in PAGES.items():
        (DOCS / name).write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()

"""Writes the generated pages of docs/ and the example file of deploy/: `make docs`.

A test checks that the committed files are current.
"""

from __future__ import annotations

from pathlib import Path

from docs.console import refreshed
from exporter.cli import COMMANDS
from exporter.config.reference import configuration_page, example_file
from exporter.metrics.definitions import FAMILIES

DOCS = Path(__file__).parent


METRICS_HEAD = """\
The metrics that `/metrics` serves, in Prometheus' text format and as OpenMetrics. OpenMetrics also
has exemplars with the trace id of a task. The `process_*` metrics of the exporter (CPU time,
memory, open files, start) are there, too.

Alert on `wok_tasks_finished_total{outcome="failure"}`: it exists at 0 before the first failure.
[deploy/prometheus](../deploy/prometheus/README.md) has ready-made alerts.

Labels have finite sets of values. A family has at most 1,000 series, and the rest is counted under
`other`. At the first start, the `wok_*` families are withheld until the backlog has been read, so
that old records do not look like a burst.
"""


def metrics_page() -> str:
    """Return docs/metrics.md, from the table that the scrape is made of."""
    lines = [
        "# Metrics",
        "",
        *METRICS_HEAD.splitlines(),
        "",
        "| name | type | labels | meaning |",
        "|---|---|---|---|",
    ]
    for doc in FAMILIES:
        labels = ", ".join(f"`{label}`" for label in doc.labels)
        lines.append(f"| `{doc.name}` | {doc.type} | {labels} | {doc.help} |")
    return "\n".join(lines) + "\n"


def commands_page() -> str:
    """Return docs/commands.md with the current output of its examples; the rest is written by hand.

    A command that has no section yet gets one with its help.
    """
    page = (DOCS / "commands.md").read_text("utf-8")
    for command in COMMANDS:
        if f"\n## wok-exporter {command}\n" not in page:
            page += f"\n## wok-exporter {command}\n\n```console\n$ wok-exporter {command} --help\n```\n"
    return refreshed(page)


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

"""Writes the dashboards as files for Grafana: `python -m deploy.grafana`, or `make dashboards`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from deploy.grafana import health, overview, task

FOLDER = Path(__file__).parent / "dashboards"
DASHBOARDS: dict[str, Callable[[], str]] = {
    "wok-overview.json": overview.dashboard,
    "wok-task.json": task.dashboard,
    "wok-exporter-health.json": health.dashboard,
}


def main() -> None:
    """Write every dashboard, replacing the previous file."""
    for name, dashboard in DASHBOARDS.items():
        (FOLDER / name).write_text(dashboard(), encoding="utf-8")


if __name__ == "__main__":
    main()

"""Every configuration of a collector that deploy/ ships, before the collector's own judge."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import yaml

DEPLOY = Path(__file__).parents[2] / "deploy"


def configurations() -> list[Path]:
    """Return every file of deploy/ that has the form of a collector's configuration, but not Jaeger's own."""
    found = []
    for path in sorted(DEPLOY.rglob("*.y*ml")):
        text = path.read_text(encoding="utf-8")
        if "\nservice:" not in f"\n{text}":
            continue
        content = yaml.safe_load(text)
        if "pipelines" in content["service"] and "jaeger_query" not in content.get("extensions", {}):
            found.append(path)
    return found


@pytest.mark.parametrize("path", configurations(), ids=lambda path: str(path.relative_to(DEPLOY)))
def test_the_collector_accepts_it(collector_program: Path, path: Path) -> None:
    """`otelcol validate` takes the file as it is, with no variable set."""
    done = subprocess.run(
        [collector_program, "validate", f"--config={path}"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_there_are_some() -> None:
    """The configurations are found: those of the stack and of the fleet's gateways."""
    folders = {path.parent.name for path in configurations()}
    assert {"compose", "collector"} <= folders

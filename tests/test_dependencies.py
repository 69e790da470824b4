"""The packages that an installation pulls in: bounded, and as few as the program uses."""

from __future__ import annotations

import ast
import os
import re
import tomllib
from pathlib import Path

import pytest

from tests import newest

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
LOCKED = {
    p["name"]: p.get("version", "") for p in tomllib.loads((ROOT / "uv.lock").read_text("utf-8"))["package"]
}


@pytest.mark.parametrize("requirement", [r for r in PROJECT["dependencies"] if not r.startswith("tzdata")])
def test_a_next_major_release_is_not_installed_before_it_was_tested(requirement: str) -> None:
    """Each dependency stops below the major release after the one in the lock."""
    name, bound = re.fullmatch(r"([\w-]+)>=[\d.]+,<(\d+)(?:;.*)?", requirement.replace(" ", "")).groups()  # type: ignore[union-attr]

    assert int(bound) == int(LOCKED[name].split(".")[0]) + 1


def test_only_public_names_of_opentelemetry_are_used() -> None:
    """No module and no name that begins with an underscore is imported: a minor release may remove those."""
    private = [
        f"{path.name}: {node.module}.{alias.name}"
        for path in (ROOT / "exporter").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("opentelemetry")
        for alias in node.names
        if any(part.startswith("_") for part in (*(node.module or "").split("."), alias.name))
    ]

    assert private == []


def test_an_unreachable_registry_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without the registry `make newest` says that it has tested nothing, and does not fail."""
    for name in [name for name in os.environ if name.startswith("UV_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("UV_DEFAULT_INDEX", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("UV_NO_CONFIG", "1")
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(newest, "VENV", tmp_path / "venv")
    monkeypatch.setattr(newest, "PYTHON", tmp_path / "venv" / "bin" / "python")

    assert newest.main() == 0
    assert "SKIPPED" in capsys.readouterr().out

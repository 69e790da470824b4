"""Reads the files of deploy/compose, for tests that check them and tests that run them.

It interprets a file as its program does: merged keys, `$$`, `${env:NAME:-default}`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "deploy/compose"
COMPOSE = FOLDER / "compose.yaml"
DATA_SOURCES = FOLDER / "grafana/provisioning/datasources/wok.yaml"
DASHBOARDS = FOLDER / "grafana/provisioning/dashboards/wok.yaml"
PASSWORD = "WOK_GRAFANA_PASSWORD"
"""The only required variable."""
_DEFAULT = re.compile(r"\$\{env:(\w+):-([^}]*)\}")


def read(path: Path) -> Any:
    """Return the content of a YAML file."""
    return yaml.safe_load(path.read_text("utf-8"))


def services() -> dict[str, dict[str, Any]]:
    """Return the services of the stack by name."""
    found: dict[str, dict[str, Any]] = read(COMPOSE)["services"]
    return found


def collector_text(path: Path) -> str:
    """Return a configuration of the collector or Jaeger with the default of every variable."""
    return _DEFAULT.sub(r"\2", path.read_text("utf-8"))


def variables(path: Path) -> dict[str, str]:
    """Return the variables of a configuration of the collector or Jaeger with their defaults."""
    return dict(_DEFAULT.findall(path.read_text("utf-8")))


def arguments(service: str, elsewhere: dict[str, str]) -> list[str]:
    """Return a service's command with some paths (values of flags) replaced."""
    found = []
    for argument in services()[service]["command"]:
        flag, equals, value = argument.partition("=")
        found.append(flag + equals + elsewhere.get(value, value))
    return found


def expanded(value: Any) -> Any:
    """Return a value of a provisioning file after Grafana has replaced variables (none are set)."""
    if isinstance(value, str):
        parts = [re.sub(r"\$(\w+|\{[^}]*\})", "", part) for part in value.split("$$")]
        return "$".join(parts)
    if isinstance(value, dict):
        return {key: expanded(item) for key, item in value.items()}
    return [expanded(item) for item in value] if isinstance(value, list) else value


def data_sources() -> dict[str, dict[str, Any]]:
    """Return the provisioned data sources by uid."""
    return {source["uid"]: source for source in expanded(read(DATA_SOURCES))["datasources"]}


def host_example() -> list[dict[str, Any]]:
    """Return the example in the comment of targets/hosts.yaml."""
    lines = (FOLDER / "targets/hosts.yaml").read_text("utf-8").splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith("# - targets:"))
    found: list[dict[str, Any]] = yaml.safe_load(
        "\n".join(line.removeprefix("# ") for line in lines[first:-1])
    )
    return found


def strings(value: Any) -> list[str]:
    """Return all strings in a value, at any depth."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return [text for item in value.values() for text in strings(item)]
    if isinstance(value, list):
        return [text for item in value for text in strings(item)]
    return []


def prometheus_folder(folder: Path, texts: dict[str, str]) -> Path:
    """Lay out the mounts below /etc/prometheus with some addresses replaced; return the
    configuration.

    The rules are the committed ones. The caller writes `targets`.
    """
    content = (FOLDER / "prometheus.yml").read_text("utf-8")
    for old, new in texts.items():
        assert old in content, f"prometheus.yml does not name {old}"
        content = content.replace(old, new)
    (folder / "targets").mkdir(parents=True)
    (folder / "rules").symlink_to(ROOT / "deploy/prometheus")
    path = folder / "prometheus.yml"
    path.write_text(content, "utf-8")
    return path

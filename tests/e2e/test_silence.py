"""A known maintenance: the script and the commands of the pages, on a real Alertmanager with the configuration that deploy/ ships."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.servers import Server, alertmanager, until

ALERTMANAGER = Path(__file__).parents[2] / "deploy/alertmanager"
SETTLED_SECONDS = 30.0


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Server]:
    with alertmanager(tmp_path, ALERTMANAGER / "alertmanager.yml") as started:
        yield started


def run(manager: Server, *command: object) -> str:
    """Run a command against the Alertmanager and return what it prints; it must succeed."""
    done = subprocess.run(
        [*map(str, command)],
        env={**os.environ, "ALERTMANAGER_URL": manager.url, "SILENCE_AUTHOR": "ada", "NO_PROXY": "127.0.0.1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def post(manager: Server, *alerts: dict[str, str]) -> None:
    """Tell of alerts as Prometheus does; they end in ten minutes."""
    until_time = (datetime.now(UTC) + timedelta(minutes=10)).isoformat()
    body = json.dumps([{"labels": {"job": "wok", **labels}, "endsAt": until_time} for labels in alerts])
    request = urllib.request.Request(
        f"{manager.url}/api/v2/alerts", body.encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=30) as answer:
        assert answer.status == 200


def states(manager: Server) -> dict[tuple[str, str], str]:
    """Return whether each alert is active or suppressed, by name and instance."""
    alerts: list[dict[str, Any]] = manager.get("/api/v2/alerts")
    return {
        (alert["labels"]["alertname"], alert["labels"]["instance"]): alert["status"]["state"]
        for alert in alerts
    }


def test_a_maintenance_silences_what_it_causes_on_its_host(manager: Server) -> None:
    """The script silences the restart of one host, but no failed task and no other host, and says who and why."""
    silence = run(manager, ALERTMANAGER / "silence-maintenance", "kvm01:10965", "2h", "kernel update").strip()
    post(
        manager,
        {"alertname": "WokTasksLost", "instance": "kvm01:10965"},
        {"alertname": "WokExporterDown", "instance": "kvm01:10965"},
        {"alertname": "WokTaskFailed", "instance": "kvm01:10965"},
        {"alertname": "WokTasksLost", "instance": "kvm02:10965"},
    )
    expected = {
        ("WokTasksLost", "kvm01:10965"): "suppressed",
        ("WokExporterDown", "kvm01:10965"): "suppressed",
        ("WokTaskFailed", "kvm01:10965"): "active",
        ("WokTasksLost", "kvm02:10965"): "active",
    }
    until(lambda: states(manager) == expected, SETTLED_SECONDS, lambda: states(manager))
    kept = manager.get(f"/api/v2/silence/{silence}")
    lasts = datetime.fromisoformat(kept["endsAt"]) - datetime.fromisoformat(kept["startsAt"])

    assert (kept["createdBy"], kept["comment"]) == ("ada", "kernel update")
    assert abs(lasts - timedelta(hours=2)) < timedelta(minutes=1)


def test_the_commands_of_the_page_work(manager: Server) -> None:
    """Every command line on the page beside the configuration is accepted: a silence is made, shown, and ended."""
    page = (ALERTMANAGER / "README.md").read_text("utf-8")
    lines = "".join(re.findall(r"^```sh\n(.*?)^```", page, re.MULTILINE | re.DOTALL)).splitlines()
    silence = ""
    for line in lines:
        here = line.replace("http://127.0.0.1:9093", manager.url).replace("ID", silence)
        here = here.replace("./", f"{ALERTMANAGER}/").replace(
            " alertmanager.yml", f" {ALERTMANAGER}/alertmanager.yml"
        )
        words = shlex.split(here)
        said = run(manager, *words)
        if "silence-maintenance" in line:
            silence = said.strip()
        if "query" in words:
            assert silence in said

    assert len(lines) == 4
    assert manager.get(f"/api/v2/silence/{silence}")["status"]["state"] == "expired"


def test_an_exporter_that_is_down_keeps_the_rest_of_its_host_back(manager: Server) -> None:
    """Of a host that does not answer one alert is told, and its failed and lost tasks; other hosts are told of in full."""
    post(
        manager,
        {"alertname": "WokExporterDown", "instance": "kvm01:10965"},
        {"alertname": "WokExporterBackendNotTaking", "instance": "kvm01:10965", "signal": "traces"},
        {"alertname": "WokLogFormatNotUnderstood", "instance": "kvm01:10965"},
        {"alertname": "WokTaskRunningLong", "instance": "kvm01:10965"},
        {"alertname": "WokTaskFailed", "instance": "kvm01:10965"},
        {"alertname": "WokTasksLost", "instance": "kvm01:10965"},
        {"alertname": "WokExporterBackendNotTaking", "instance": "kvm02:10965", "signal": "traces"},
        {"alertname": "WokExporterJournalFilling", "instance": "kvm02:10965"},
        {"alertname": "WokExporterLogNotRead", "instance": "kvm03:10965"},
        {"alertname": "WokTaskRunningLong", "instance": "kvm03:10965"},
    )
    told = {
        ("WokExporterDown", "kvm01:10965"),
        ("WokTaskFailed", "kvm01:10965"),
        ("WokTasksLost", "kvm01:10965"),
        ("WokExporterJournalFilling", "kvm02:10965"),
        ("WokExporterLogNotRead", "kvm03:10965"),
    }

    def settled() -> bool:
        return {key for key, state in states(manager).items() if state == "active"} == told

    until(lambda: len(states(manager)) == 10 and settled(), SETTLED_SECONDS, lambda: states(manager))

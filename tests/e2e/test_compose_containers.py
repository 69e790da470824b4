"""The stack of deploy/compose in containers: a real Docker engine and a real Docker Compose start compose.yaml as it stands.

The images are made here (stand_in_images.py says of what), so this shows what compose.yaml itself does: users, volumes, read-only roots, mounts,
names, ports, health checks, profiles; and the real programs in them at work.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests import compose_files
from tests.e2e import docker_compose, servers, stand_in_images, tools
from tests.e2e.docker_engine import Engine, engine
from tests.e2e.packaged import Packages, output
from tests.program import request_line

UP_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Containers:
    """The stack that was started, with both profiles."""

    engine: Engine
    compose: tuple[str, ...]

    def run(self, *words: str) -> str:
        return self.engine.run(*self.compose, *words, more={compose_files.PASSWORD: "secret"})

    def states(self) -> dict[str, dict[str, Any]]:
        """Return what Compose tells of each service."""
        lines = self.run("ps", "--all", "--format", "json").splitlines()
        return {one["Service"]: one for one in map(json.loads, lines)}

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Return what Prometheus answers now."""
        url = f"http://127.0.0.1:9090/api/v1/query?query={quote(expression)}"
        found: list[dict[str, Any]] = self.ask("prometheus", url)["data"]["result"]
        return found

    def ask(self, service: str, url: str) -> Any:
        """Return the JSON of a page, asked for inside a container that has wget."""
        return json.loads(self.run("exec", "--no-TTY", service, "wget", "-q", "-O", "-", url))


@pytest.fixture(scope="module", name="containers")
def _containers(
    collector_program: Path,
    jaeger_program: Path,
    packages: Packages,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Containers]:
    """Start all of compose.yaml, both profiles, on a host whose Wok has written three lines."""
    command = docker_compose.command()
    if command is None:
        pytest.skip(tools.docker_compose().missing() or "")
    exporter = tmp_path_factory.mktemp("package")
    output("dpkg-deb", "--extract", packages.deb, exporter)
    with engine() as docker:
        stand_in_images.load(docker, collector_program, jaeger_program, exporter)
        (docker.log / "wok-req.log").write_bytes(
            b"".join(request_line(seconds, f"guest{seconds}") for seconds in recent())
        )
        profiles = ("--profile", "exporter", "--profile", "demo")
        stack = Containers(docker, (*command, "--file", str(compose_files.COMPOSE), *profiles))
        stack.run("up", "--detach", "--no-build", "--pull", "never")
        yield stack
        stack.run("down", "--volumes", "--timeout", "5")


def recent() -> list[float]:
    """Return three moments of this hour, within what the exporter reads at a first start."""
    return [time.time() - minutes * 60 for minutes in (3, 2, 1)]


def until(containers: Containers, holds: Callable[[], bool]) -> None:
    """Wait until something of the stack holds; tell the states and the last words of all services if it does not."""

    def tell() -> str:
        return f"{containers.run('ps', '--all')}\n{containers.run('logs', '--tail', '8')}"[-6000:]

    servers.until(holds, UP_SECONDS, tell)


def test_every_service_comes_up(containers: Containers) -> None:
    """Every service runs, as unprivileged as it is meant to be, and those with a health check become healthy."""
    checked = {name for name, service in compose_files.services().items() if "healthcheck" in service}

    def health() -> dict[str, tuple[str, str]]:
        return {name: (one["State"], one["Health"]) for name, one in containers.states().items()}

    wanted = {
        name: ("running", "healthy" if name in checked else "") for name in compose_files.services()
    } | {"ownership": ("exited", "")}
    until(containers, lambda: health() == wanted)

    assert containers.states()["ownership"]["ExitCode"] == 0


def test_prometheus_finds_the_containers(containers: Containers) -> None:
    """Prometheus scrapes both exporters by their names, and the rest of the stack by its."""

    def up() -> set[str]:
        return {one["metric"]["instance"] for one in containers.query("up == 1")}

    names = {"localhost:9090", "alertmanager:9093", "otelcol:8888", "jaeger:8888"}
    until(containers, lambda: up() == names | {"wok-exporter", "wok-demo"})


def test_the_exporter_tells_of_its_host(containers: Containers) -> None:
    """What the exporter in a container has read in the host's log is in Jaeger, under the host's name and not the container's."""

    def hosts() -> set[str]:
        traces = containers.ask(
            "jaeger", "http://127.0.0.1:16686/api/traces?service=kimchi&limit=100&lookback=1d"
        )
        return {
            tag["value"]
            for trace in traces["data"]
            for process in trace["processes"].values()
            for tag in process["tags"]
            if tag["key"] == "host.name"
        }

    until(containers, lambda: hosts() == {socket.gethostname(), "kvm-demo"})


def test_tempo_and_loki_are_sent_to(containers: Containers) -> None:
    """The collector in its container reaches the addresses of Tempo and Loki, and both take what it sends."""

    def sent(exporter: str, metric: str) -> float:
        found = containers.query(f'{metric}{{exporter="{exporter}"}}')
        return sum(float(one["value"][1]) for one in found)

    until(containers, lambda: sent("otlp_http/tempo", "otelcol_exporter_sent_spans") > 0)
    until(containers, lambda: sent("otlp_http/loki", "otelcol_exporter_sent_log_records") > 0)


def test_a_failed_task_of_the_demo_is_an_alert(containers: Containers) -> None:
    """The demo's failed clone is an alert in the Alertmanager of the stack."""

    def alerts() -> list[dict[str, Any]]:
        said = containers.run(
            *("exec", "--no-TTY", "alertmanager", "amtool", "--alertmanager.url=http://127.0.0.1:9093"),
            *("--output=json", "alert", "query", "alertname=WokTaskFailed", "operation=vms.clone"),
        )
        found: list[dict[str, Any]] = json.loads(said)
        return found

    until(containers, lambda: bool(alerts()))

    assert {alert["labels"]["instance"] for alert in alerts()} == {"wok-demo"}


def test_what_was_stored_survives(containers: Containers) -> None:
    """Jaeger made anew still has the traces: they lie in its volume."""
    services = "http://127.0.0.1:16686/api/services"
    until(containers, lambda: "kimchi" in (containers.ask("jaeger", services)["data"] or ()))
    containers.run(
        "up", "--detach", "--no-build", "--pull", "never", "--force-recreate", "--no-deps", "jaeger"
    )
    until(containers, lambda: containers.states()["jaeger"]["Health"] == "healthy")

    assert "kimchi" in containers.ask("jaeger", services)["data"]

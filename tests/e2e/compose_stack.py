"""The stack of deploy/compose as processes of a test: the committed configurations and command lines, real programs.

What differs from the stack in containers is where things are: addresses by the variables that the files have for it, paths in flags,
host names in a copy of prometheus.yml. For Tempo and Loki, which cannot be had, stand receivers that take OTLP as they do.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml

from tests import compose_files, program
from tests.e2e import servers
from tests.e2e.servers import Server
from tests.program import free_port
from tests.sink import Sink

HOST = "127.0.0.1"
INSTANCE = "kvm01.example.com"
"""How targets/hosts.yaml calls the host of its example."""


@dataclass(frozen=True, slots=True)
class Places:
    """Where the collector's three backends are: host and port of each."""

    tempo: str
    jaeger: str
    loki: str


@dataclass(frozen=True, slots=True)
class Collector:
    """A collector of the stack: where it takes OTLP, and where it tells its health and its metrics."""

    server: Server
    grpc: str
    http: str
    metrics: str


@dataclass(frozen=True, slots=True)
class Jaeger:
    """A Jaeger of the stack: `server` is its API."""

    server: Server
    grpc: str
    health: str
    metrics: str


@dataclass(frozen=True, slots=True)
class Stack:
    """All of it; `exporter` is the address at which Prometheus expects the exporter."""

    collector: Collector
    jaeger: Jaeger
    prometheus: Server
    alertmanager: Server
    tempo: Sink
    loki: Sink
    exporter: str


def address() -> str:
    return f"{HOST}:{free_port()}"


@contextmanager
def collector(executable: Path, folder: Path, places: Places) -> Iterator[Collector]:
    """Run the collector with otelcol.yaml; its queue is in `folder`, and what an earlier one left there goes on."""
    path = compose_files.FOLDER / "otelcol.yaml"
    defaults = compose_files.variables(path)
    grpc, http, metrics, health = address(), address(), address(), address()
    environ = {
        "WOK_OTLP_GRPC": grpc,
        "WOK_OTLP_HTTP": http,
        "WOK_TEMPO": defaults["WOK_TEMPO"].replace("tempo:4318", places.tempo),
        "WOK_JAEGER": defaults["WOK_JAEGER"].replace("jaeger:4317", places.jaeger),
        "WOK_LOKI": defaults["WOK_LOKI"].replace("loki:3100", places.loki),
        "WOK_QUEUE": str(folder / "queue"),
        "WOK_OTELCOL_HEALTH": health,
        "WOK_OTELCOL_METRICS_HOST": HOST,
        "WOK_OTELCOL_METRICS_PORT": metrics.rpartition(":")[2],
    }
    assert set(environ) == set(defaults)
    arguments = compose_files.arguments("otelcol", {"/etc/otelcol/config.yaml": str(path)})
    with servers.served(
        [str(executable), *arguments],
        f"http://{health}",
        folder / "otelcol.log",
        ready="/",
        environ={**environ, **plain()},
    ) as server:
        yield Collector(server, grpc, http, metrics)


@contextmanager
def jaeger(executable: Path, folder: Path) -> Iterator[Jaeger]:
    """Run Jaeger with jaeger.yaml; its traces are in `folder`."""
    grpc, api, health, metrics = address(), address(), address(), address()
    environ = {
        "WOK_JAEGER_GRPC": grpc,
        "WOK_JAEGER_UI": api,
        "WOK_JAEGER_UI_GRPC": address(),
        "WOK_JAEGER_HEALTH": health,
        "WOK_JAEGER_DATA": str(folder / "badger"),
        "WOK_JAEGER_METRICS_HOST": HOST,
        "WOK_JAEGER_METRICS_PORT": metrics.rpartition(":")[2],
    }
    path = compose_files.FOLDER / "jaeger.yaml"
    assert set(environ) == set(compose_files.variables(path))
    arguments = compose_files.arguments("jaeger", {"/etc/jaeger/config.yaml": str(path)})
    with servers.served(
        [str(executable), *arguments],
        f"http://{api}",
        folder / "jaeger.log",
        ready="/api/services",
        environ={**environ, **plain()},
    ) as server:
        yield Jaeger(server, grpc, f"http://{health}", metrics)


@contextmanager
def _composed(name: str, service: str, elsewhere: dict[str, str], url: str, folder: Path) -> Iterator[Server]:
    """Run a program of Prometheus' family with a service's command line, in which `elsewhere` is in other places."""
    command = [
        program.installed(name),
        *compose_files.arguments(service, elsewhere),
        f"--web.listen-address={url.removeprefix('http://')}",
    ]
    with servers.served(command, url, folder / f"{service}.log", ready="/-/ready") as server:
        yield server


@contextmanager
def alertmanager(folder: Path) -> Iterator[Server]:
    """Run Alertmanager with the command line of compose.yaml and deploy/alertmanager."""
    url = f"http://{address()}"
    elsewhere = {
        "/etc/alertmanager/alertmanager.yml": str(
            compose_files.ROOT / "deploy/alertmanager/alertmanager.yml"
        ),
        "/alertmanager": str(folder / "alertmanager"),
        "http://127.0.0.1:9093/": f"{url}/",
    }
    with _composed("prometheus-alertmanager", "alertmanager", elsewhere, url, folder) as server:
        yield server


@contextmanager
def prometheus(folder: Path, hosts: Mapping[str, str]) -> Iterator[Server]:
    """Run Prometheus with the command line of compose.yaml and a copy of prometheus.yml in which `hosts` are elsewhere.

    The exporter is the example of targets/hosts.yaml.
    """
    url = f"http://{address()}"
    others = {name: there for name, there in hosts.items() if name != "exporter"}
    path = compose_files.prometheus_folder(
        folder / "etc", {**others, "localhost:9090": url.removeprefix("http://")}
    )
    targets = compose_files.host_example()
    targets[0]["targets"] = [hosts["exporter"]]
    (path.parent / "targets/hosts.yaml").write_text(yaml.safe_dump(targets), "utf-8")
    elsewhere = {
        "/etc/prometheus/prometheus.yml": str(path),
        "/prometheus": str(folder / "tsdb"),
        "http://127.0.0.1:9090/": f"{url}/",
    }
    with _composed("prometheus", "prometheus", elsewhere, url, folder) as server:
        yield server


@contextmanager
def stack(collector_program: Path, jaeger_program: Path, folder: Path) -> Iterator[Stack]:
    """Run all of it; nothing is scraped or sent until an exporter listens at `exporter`."""
    with ExitStack() as running:
        tempo = running.enter_context(Sink())
        loki = running.enter_context(Sink())
        traces = running.enter_context(jaeger(jaeger_program, folder))
        gateway = running.enter_context(
            collector(
                collector_program, folder, Places(f"{HOST}:{tempo.port}", traces.grpc, f"{HOST}:{loki.port}")
            )
        )
        alerts = running.enter_context(alertmanager(folder))
        exporter = address()
        metrics = running.enter_context(
            prometheus(
                folder,
                {
                    "exporter": exporter,
                    "alertmanager:9093": alerts.url.removeprefix("http://"),
                    "otelcol:8888": gateway.metrics,
                    "jaeger:8888": traces.metrics,
                    # not to be had: nobody is there
                    "tempo:3200": address(),
                    "loki:3100": address(),
                    "grafana:3000": address(),
                },
            )
        )
        yield Stack(gateway, traces, metrics, alerts, tempo, loki, exporter)


def exporter_environ(service: str, *, endpoint: str, listen: str) -> dict[str, str]:
    """Return the environment that compose.yaml gives an exporter, with its two addresses elsewhere."""
    environment = dict(compose_files.services()[service]["environment"])
    assert environment["OTEL_EXPORTER_OTLP_ENDPOINT"] == "http://otelcol:4318"
    return program.environ(
        **environment | {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "WOK_EXPORTER_LISTEN": listen}
    )


def health_check(service: str, url: str) -> subprocess.CompletedProcess[bytes]:
    """Run the health check of a service as compose.yaml has it, at another URL."""
    test = compose_files.services()[service]["healthcheck"]["test"]
    assert test[0] == "CMD"
    command = []
    for word in test[1:]:
        before, found, _ = word.partition("http://127.0.0.1:")
        path = word.split("/", 3)[3] if found and word.count("/") > 2 else ""
        command.append(f"{before}{url}/{path}".rstrip("/") if found else word)
    return subprocess.run(
        [program.installed(command[0]), *command[1:]], capture_output=True, check=False, timeout=60
    )


def plain() -> dict[str, str]:
    """Return variables that keep proxies of this machine away from loopback."""
    return {"NO_PROXY": HOST, "no_proxy": HOST}

"""The two tiers of collectors of deploy/fleet/collector, as processes of a test: its committed files, with their environment alone.

with sampler(program, folder, certificates, to=backend.port) as first:
    with gateway(program, folder, certificates, samplers=[first], loki=loki.endpoint) as entrance:
        run("replay", log, env=environ(**entrance.environ()))
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tests.e2e.servers import Server, fetch, served
from tests.program import ROOT, free_port
from tests.sink import Certificates

CONFIGS = ROOT / "deploy/fleet/collector"
TOKEN = "a-token-of-the-hosts"
DECISION_SECONDS = 1
"""The only thing that is shorter here than in the committed file."""


@dataclass(frozen=True, slots=True)
class Sampler:
    """A sampler: its process, and where it takes OTLP over gRPC."""

    server: Server
    port: int
    metrics_port: int


@dataclass(frozen=True, slots=True)
class Gateway:
    """A gateway: its process, and where it takes OTLP."""

    server: Server
    grpc: int
    http: int
    metrics_port: int
    ca: str

    def environ(
        self, *, protocol: Literal["http/protobuf", "grpc"] = "http/protobuf", token: str = TOKEN
    ) -> dict[str, str]:
        """Return the variables that make the exporter send here."""
        port = self.grpc if protocol == "grpc" else self.http
        return {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"https://127.0.0.1:{port}",
            "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
            "OTEL_EXPORTER_OTLP_CERTIFICATE": self.ca,
            "OTEL_EXPORTER_OTLP_HEADERS": f"authorization=Bearer%20{token}",
        }


@contextmanager
def sampler(
    program: Path,
    folder: Path,
    certificates: Certificates,
    *,
    to: int,
    port: int | None = None,
    queue_bytes: int | None = None,
) -> Iterator[Sampler]:
    """Run a sampler that sends to a gRPC receiver at port `to`; its queue stays in `folder`."""
    folder.mkdir(exist_ok=True)
    port = port or free_port()
    metrics, health = free_port(), free_port()
    environ = {
        "SAMPLER_GRPC": f"127.0.0.1:{port}",
        "SAMPLER_CERTIFICATE": certificates.server,
        "SAMPLER_KEY": certificates.server_key,
        "SAMPLER_CLIENT_CA": certificates.ca,
        "SAMPLER_QUEUE": str(folder / "queue"),
        "SAMPLER_HEALTH": f"127.0.0.1:{health}",
        "SAMPLER_METRICS_PORT": str(metrics),
        "TEMPO_OTLP": f"127.0.0.1:{to}",
    }
    if queue_bytes is not None:
        environ["SAMPLER_QUEUE_BYTES"] = str(queue_bytes)
    command = [
        str(program),
        f"--config={CONFIGS / 'sampler.yaml'}",
        f"--set=processors.tail_sampling.decision_wait={DECISION_SECONDS}s",
    ]
    url = f"http://127.0.0.1:{health}"
    with served(command, url, folder / "sampler.log", ready="/", environ=environ) as server:
        yield Sampler(server, port, metrics)


@contextmanager
def gateway(
    program: Path,
    folder: Path,
    certificates: Certificates,
    *,
    samplers: Sequence[int],
    loki: str,
    memory_mib: int | None = None,
) -> Iterator[Gateway]:
    """Run a gateway before the samplers at these ports and a receiver of log records; its queue stays in `folder`."""
    folder.mkdir(exist_ok=True)
    grpc, http, metrics, health = free_port(), free_port(), free_port(), free_port()
    tokens = folder / "tokens"
    tokens.write_text(f"another-token # of a host that is gone\n{TOKEN} # of these hosts\n")
    addresses = ", ".join(f'"127.0.0.1:{port}"' for port in samplers)
    environ = {
        "GATEWAY_GRPC": f"127.0.0.1:{grpc}",
        "GATEWAY_HTTP": f"127.0.0.1:{http}",
        "GATEWAY_CERTIFICATE": certificates.server,
        "GATEWAY_KEY": certificates.server_key,
        "GATEWAY_TOKENS": str(tokens),
        "GATEWAY_SAMPLERS": f"[{addresses}]",
        "GATEWAY_SAMPLER_CA": certificates.ca,
        "GATEWAY_CLIENT_CERTIFICATE": certificates.client,
        "GATEWAY_CLIENT_KEY": certificates.client_key,
        "GATEWAY_QUEUE": str(folder / "queue"),
        "GATEWAY_HEALTH": f"127.0.0.1:{health}",
        "GATEWAY_METRICS_PORT": str(metrics),
        "LOKI_OTLP": loki,
    }
    if memory_mib is not None:
        environ |= {"GATEWAY_MEMORY_MIB": str(memory_mib), "GATEWAY_MEMORY_SPIKE_MIB": "1"}
    command = [str(program), f"--config={CONFIGS / 'gateway.yaml'}"]
    url = f"http://127.0.0.1:{health}"
    with served(command, url, folder / "gateway.log", ready="/", environ=environ) as server:
        yield Gateway(server, grpc, http, metrics, certificates.ca)


def measured(port: int, name: str) -> float:
    """Return the sum of one metric of a collector over its labels; 0 while it is not there."""
    _, page = fetch(f"http://127.0.0.1:{port}/metrics")
    return sum(float(value) for value in re.findall(rf"^{name}(?:{{.*}})? (\S+)$", page, re.MULTILINE))

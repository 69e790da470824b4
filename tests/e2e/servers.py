"""Prometheus, Alertmanager, Jaeger, VictoriaLogs and the OpenTelemetry Collector as processes of a test, on loopback, stopped by their pid.

    with prometheus(tmp_path, config) as server:
        server.get("/api/v1/query", query="up")

What is missing on a machine is a skipped test with a sentence that says how to get it.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.tools import Tool
from tests.program import free_port, installed

START_SECONDS = 60.0
ANSWER_SECONDS = 30.0
JAEGER = """\
service:
  extensions: [jaeger_storage, jaeger_query]
  pipelines:
    traces: {{receivers: [otlp], exporters: [jaeger_storage_exporter]}}
  telemetry: {{metrics: {{level: none}}}}
extensions:
  jaeger_storage: {{backends: {{memory: {{memory: {{max_traces: 100000}}}}}}}}
  jaeger_query:
    storage: {{traces: memory}}
    http: {{endpoint: "127.0.0.1:{api}"}}
    grpc: {{endpoint: "127.0.0.1:{api_grpc}"}}
receivers:
  otlp: {{protocols: {{grpc: {{endpoint: "127.0.0.1:{grpc}"}}, http: {{endpoint: "127.0.0.1:{http}"}}}}}}
exporters:
  jaeger_storage_exporter: {{trace_storage: memory}}
"""


@dataclass(frozen=True, slots=True)
class Server:
    """A program that answers: its process, where its API is, and what it has written so far."""

    process: subprocess.Popen[bytes]
    url: str
    log: Path

    def get(self, path: str, **parameters: str) -> Any:
        """Return a JSON answer; AssertionError tells status and body of any other."""
        query = f"?{urllib.parse.urlencode(parameters)}" if parameters else ""
        status, body = fetch(f"{self.url}{path}{query}")
        assert status == 200, f"{path} answered {status}: {body[:2000]}"
        return json.loads(body)

    @property
    def said(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")


def fetch(url: str) -> tuple[int, str]:
    """Return the status and the body of a page on loopback; (0, reason) if nobody answers."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=ANSWER_SECONDS) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()
    except OSError as error:
        return 0, str(error)


def built(tool: Tool) -> Path:
    """Return where a tool is that was built (tests/e2e/tools.py), or skip the test with how to build it."""
    if (sentence := tool.missing()) is not None:
        pytest.skip(sentence)
    return tool.path


@contextmanager
def served(
    command: list[str], url: str, log: Path, *, ready: str, environ: Mapping[str, str] | None = None
) -> Iterator[Server]:
    """Start a server, wait until its page `ready` (below `url`) answers 200, and stop it at the end."""
    with log.open("ab") as written:
        process = subprocess.Popen(
            command,
            cwd=log.parent,
            env={**os.environ, **(environ or {})},
            stdin=subprocess.DEVNULL,
            stdout=written,
            stderr=subprocess.STDOUT,
        )
    server = Server(process, url, log)
    try:
        until(
            lambda: process.poll() is not None or fetch(f"{url}{ready}")[0] == 200,
            START_SECONDS,
            lambda: server.said[-3000:],
        )
        assert process.poll() is None, f"{command[0]} ended with {process.returncode}:\n{server.said[-3000:]}"
        yield server
    finally:
        process.terminate()
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def until(
    holds: Callable[[], bool], seconds: float, tell: Callable[[], object] = lambda: "it has not happened"
) -> float:
    """Wait until something holds; return the seconds it took. AssertionError says what `tell` says if it does not."""
    began = time.monotonic()
    while not holds():
        assert time.monotonic() - began < seconds, f"not within {seconds} s: {tell()}"
        time.sleep(0.1)
    return time.monotonic() - began


@contextmanager
def prometheus(folder: Path, config: Path, *flags: str) -> Iterator[Server]:
    """Run a Prometheus with a configuration file; its data are in `folder`."""
    port = free_port()
    command = [
        installed("prometheus"),
        f"--config.file={config}",
        f"--storage.tsdb.path={folder / 'tsdb'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--enable-feature=exemplar-storage",
        *flags,
    ]
    with served(command, f"http://127.0.0.1:{port}", folder / "prometheus.log", ready="/-/ready") as server:
        yield server


@contextmanager
def alertmanager(folder: Path, config: Path) -> Iterator[Server]:
    """Run an Alertmanager of one node with a configuration file."""
    port = free_port()
    command = [
        installed("prometheus-alertmanager"),
        f"--config.file={config}",
        f"--storage.path={folder / 'alertmanager'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--cluster.listen-address=",
    ]
    with served(command, f"http://127.0.0.1:{port}", folder / "alertmanager.log", ready="/-/ready") as server:
        yield server


@dataclass(frozen=True, slots=True)
class Jaeger:
    """A Jaeger: its query API, and the ports at which it takes OTLP."""

    api: Server
    grpc: int
    http: int


@contextmanager
def jaeger(folder: Path, executable: Path) -> Iterator[Jaeger]:
    """Run a Jaeger that keeps its traces in memory."""
    api, api_grpc, grpc, http = free_port(), free_port(), free_port(), free_port()
    config = folder / "jaeger.yaml"
    config.write_text(JAEGER.format(api=api, api_grpc=api_grpc, grpc=grpc, http=http))
    command = [str(executable), f"--config={config}"]
    with served(command, f"http://127.0.0.1:{api}", folder / "jaeger.log", ready="/api/services") as server:
        yield Jaeger(server, grpc, http)


@contextmanager
def victoria_logs(folder: Path, executable: Path) -> Iterator[Server]:
    """Run a VictoriaLogs that keeps its data below `folder`, and log records of any age."""
    port = free_port()
    command = [
        str(executable),
        f"-storageDataPath={folder / 'victoria-logs'}",
        f"-httpListenAddr=127.0.0.1:{port}",
        "-retentionPeriod=100y",
    ]
    with served(command, f"http://127.0.0.1:{port}", folder / "victoria-logs.log", ready="/health") as server:
        yield server

"""The real programs that no Debian package brings: built once, kept by version, found again.

    python -m tests.e2e.tools         builds what is missing (`make e2e-tools`)

Jaeger, VictoriaLogs, the OpenTelemetry Collector and Docker Compose are built from their Go modules; the system of a test host is made with debootstrap. All of it lies under
`$XDG_CACHE_HOME/wok-exporter-e2e` (`~/.cache/...`), each under a name that says its version, so that a new version is a new build.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "wok-exporter-e2e"
JAEGER_MODULE = "github.com/jaegertracing/jaeger"
JAEGER_VERSION = "v1.76.0"
"""The last version whose module path says what it is: the program is Jaeger v2's all the same."""
VICTORIA_LOGS_MODULE = "github.com/VictoriaMetrics/VictoriaLogs"
VICTORIA_LOGS_VERSION = "v1.52.1"
GRAFANA_PARTS = ROOT / "tests/e2e/grafana"
BUILDER = "go.opentelemetry.io/collector/cmd/builder"
BUILDER_VERSION = "v0.161.0"
MANIFEST = ROOT / "deploy/fleet/collector/builder.yaml"
COMPOSE_MODULE = "github.com/docker/compose/v2"
COMPOSE_VERSION = "v2.40.3"
"""The last version of the module that older Go can build."""
DOCKER_PACKAGES = ("docker.io", "containerd", "runc", "busybox-static")
SUITE = "bookworm"
INCLUDE = "systemd,systemd-sysv,dbus,procps"
"""No Python: the packages bring their own, and a host without one is the proof."""


@dataclass(frozen=True, slots=True)
class Tool:
    """One thing to be had: where it lies once it is built, and what builds it."""

    name: str
    path: Path
    build: Callable[[Path, Path], None]
    """Takes an empty folder to work in and the place where the result shall be."""
    needs: tuple[str, ...]

    def missing(self) -> str | None:
        """Return how to get it, as a sentence, if it is not there."""
        return (
            None
            if self.path.exists()
            else f"{self.name} is not built: make e2e-tools builds it (it needs {', '.join(self.needs)})"
        )


def _go_program(module: str, package: str, version: str) -> Callable[[Path, Path], None]:
    """Return what builds a program of a Go module."""

    def build(work: Path, result: Path) -> None:
        # `go install` refuses a module with replace lines; as a dependency of a module of ours they do not count.
        (work / "go.mod").write_text("module tool.invalid/tool\n")
        _go("get", "-tool", f"{module}/{package}@{version}", cwd=work)
        _go("build", "-trimpath", "-ldflags=-s -w", "-o", str(result), f"{module}/{package}", cwd=work)

    return build


def _collector(work: Path, result: Path) -> None:
    _go("install", f"{BUILDER}@{BUILDER_VERSION}", cwd=work, GOBIN=str(work))
    shutil.copy(MANIFEST, work / "builder.yaml")
    environ = {**os.environ, "CGO_ENABLED": "0"}
    subprocess.run(
        [work / "builder", "--config", "builder.yaml", "--skip-compilation"],
        cwd=work,
        env=environ,
        check=True,
    )
    (sources,) = (path.parent for path in work.rglob("main.go"))
    _go("build", "-trimpath", "-ldflags=-s -w", "-o", str(result), ".", cwd=sources)


def _grafana_parts(work: Path, result: Path) -> None:
    for name in ("package.json", "package-lock.json", ".npmrc"):
        shutil.copy(GRAFANA_PARTS / name, work / name)
    subprocess.run(["npm", "ci", "--ignore-scripts", "--silent"], cwd=work, check=True)
    work.rename(result)
    work.mkdir()


def _debian(_: Path, result: Path) -> None:
    subprocess.run(
        ["debootstrap", "--variant=minbase", f"--include={INCLUDE}", SUITE, result],
        check=True,
        stdout=subprocess.DEVNULL,
    )


def _docker_engine(work: Path, result: Path) -> None:
    # Unpacked, not installed: an installed one would be started on this machine.
    subprocess.run(
        ["apt-get", "download", "--quiet", "--option=APT::Sandbox::User=root", *DOCKER_PACKAGES],
        cwd=work,
        check=True,
    )
    for package in work.glob("*.deb"):
        subprocess.run(["dpkg", "-x", package, result], check=True)


def _go(*arguments: str, cwd: Path, **environ: str) -> None:
    subprocess.run(["go", *arguments], cwd=cwd, env={**os.environ, "CGO_ENABLED": "0", **environ}, check=True)


def jaeger() -> Tool:
    """Jaeger, all in one program: its version 2, which is a collector with a storage and a query API."""
    build = _go_program(JAEGER_MODULE, "cmd/jaeger", JAEGER_VERSION)
    return Tool(f"Jaeger {JAEGER_VERSION}", CACHE / f"jaeger-{JAEGER_VERSION}", build, ("Go 1.25",))


def victoria_logs() -> Tool:
    """VictoriaLogs: the log backend of the tests. It takes OTLP and has a query API."""
    build = _go_program(VICTORIA_LOGS_MODULE, "app/victoria-logs", VICTORIA_LOGS_VERSION)
    path = CACHE / f"victoria-logs-{VICTORIA_LOGS_VERSION}"
    return Tool(f"VictoriaLogs {VICTORIA_LOGS_VERSION}", path, build, ("Go 1.25",))


def grafana_parts() -> Tool:
    """Grafana's published grammars and transformations: a folder with their node_modules."""
    digest = hashlib.sha256((GRAFANA_PARTS / "package-lock.json").read_bytes()).hexdigest()[:12]
    return Tool(
        "Grafana's published parts", CACHE / f"grafana-parts-{digest}", _grafana_parts, ("Node.js 20", "npm")
    )


def collector() -> Tool:
    """The OpenTelemetry Collector with just the components that deploy/ names."""
    digest = hashlib.sha256(MANIFEST.read_bytes() + BUILDER_VERSION.encode()).hexdigest()[:12]
    return Tool("the OpenTelemetry Collector", CACHE / f"otelcol-{digest}", _collector, ("Go 1.25",))


def debian() -> Tool:
    """The files of a Debian host that has systemd and no Python, to be copied and booted (tests/e2e/host.py)."""
    digest = hashlib.sha256(f"{SUITE} {INCLUDE}".encode()).hexdigest()[:12]
    return Tool(
        f"a Debian {SUITE} to boot", CACHE / f"debian-{SUITE}-{digest}", _debian, ("root", "debootstrap")
    )


def docker_compose() -> Tool:
    """Docker Compose, as a program of its own."""
    build = _go_program(COMPOSE_MODULE, "cmd", COMPOSE_VERSION)
    return Tool(
        f"Docker Compose {COMPOSE_VERSION}", CACHE / f"docker-compose-{COMPOSE_VERSION}", build, ("Go 1.25",)
    )


def docker_engine() -> Tool:
    """The files of Debian's Docker and busybox (tests/e2e/docker_engine.py)."""
    return Tool("a Docker engine", CACHE / "docker-engine", _docker_engine, ("apt-get", "dpkg"))


def main() -> int:
    """Build what is missing, telling what and how long; return the exit code."""
    CACHE.mkdir(parents=True, exist_ok=True)
    for tool in (
        debian(),
        jaeger(),
        victoria_logs(),
        grafana_parts(),
        collector(),
        docker_compose(),
        docker_engine(),
    ):
        if tool.missing() is None:
            print(f"{tool.name}: there ({tool.path.name})", flush=True)
            continue
        print(f"{tool.name}: building ...", flush=True)
        began = time.monotonic()
        # beside the result, so that it is put in place whole or not at all
        with tempfile.TemporaryDirectory(dir=CACHE, prefix="building-") as work:
            made = Path(work) / "result"
            (Path(work) / "work").mkdir()
            try:
                tool.build(Path(work) / "work", made)
            except (OSError, subprocess.CalledProcessError) as error:
                print(
                    f"{tool.name} could not be built, which needs {', '.join(tool.needs)}: {error}",
                    file=sys.stderr,
                )
                return 1
            made.replace(tool.path)
        print(f"{tool.name}: built in {time.monotonic() - began:.0f} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())

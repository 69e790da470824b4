"""The Dockerfile, built by buildah and run by Docker as an operator runs it: nobody's user, a read-only root, the health check at work.

The image that it begins with cannot be fetched by a test; in its place stands a Debian with this machine's own Python in /usr/local, where
the real one has its own.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e import docker_engine
from tests.e2e.docker_engine import Engine
from tests.e2e.packaged import needs_root, output
from tests.program import ROOT, request_line, wait_until

DOCKERFILE = "deploy/container/Dockerfile"
IMAGE = "localhost/wok-exporter"
BASE = "localhost/python"
USER = "65532"
BUILD_SECONDS = 600
CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"
HARDENED = ("--read-only", "--tmpfs=/tmp", "--cap-drop=ALL", "--security-opt=no-new-privileges:true")
QUICK = ("--health-interval=1s", "--health-timeout=3s", "--health-retries=1")
"""What the image says of its health check, for people in a hurry."""
UNUSED = ("usr/share/doc", "usr/share/locale", "usr/share/man", "var/lib/apt", "var/cache")


class Buildah:
    """The builder, with a storage of its own."""

    def __init__(self, folder: Path) -> None:
        self._storage = (f"--root={folder / 'storage'}", f"--runroot={folder / 'run'}")

    def __call__(self, *arguments: object) -> str:
        """Run it in the checkout and return what it prints."""
        done = subprocess.run(
            ["buildah", *self._storage, *map(str, arguments)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
            timeout=BUILD_SECONDS,
        )
        assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
        return done.stdout.strip()


@pytest.fixture(name="buildah", scope="module")
def _buildah(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Buildah]:
    if shutil.which("buildah") is None:
        pytest.skip("buildah is not installed: apt install buildah")
    needs_root()
    buildah = Buildah(tmp_path_factory.mktemp("buildah"))
    yield buildah
    buildah("rm", "--all")


def put_python(root: Path) -> None:
    """Put this machine's Python into a root as Python's own images have it: below /usr/local, as `python3`, with `pip`."""
    local = root / "usr/local"
    name = f"python{sysconfig.get_python_version()}"
    interpreter = Path(sys.base_prefix, "bin", name).resolve()
    shutil.copy(interpreter, local / "bin" / name)
    for link in ("python3", "python"):
        (local / "bin" / link).symlink_to(name)
    without = shutil.ignore_patterns(
        "__pycache__", "test", "site-packages", "dist-packages", "EXTERNALLY-MANAGED"
    )
    library = local / "lib" / name
    shutil.copytree(sysconfig.get_path("stdlib"), library, ignore=without, symlinks=False)
    linked = {
        found
        for program in (interpreter, *library.rglob("*.so"))
        for found in re.findall(r"=> (/\S+) \(", output("ldd", program))
    }
    for found in linked:
        if not (
            root / found.relative_to("/") if isinstance(found, Path) else root / found.lstrip("/")
        ).exists():
            shutil.copy(found, local / "lib")
    shutil.copytree(Path(sysconfig.get_path("purelib"), "pip"), root / "opt/pip/pip")
    pip = local / "bin/pip"
    pip.write_text('#!/bin/sh\nPYTHONPATH=/opt/pip exec python3 -m pip "$@"\n')
    pip.chmod(0o755)
    output("chroot", root, "/sbin/ldconfig")


@pytest.fixture(name="base", scope="module")
def _base(buildah: Buildah, debian: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    root = tmp_path_factory.mktemp("base")
    output("cp", "-a", f"{debian}/.", root)
    for unused in UNUSED:
        shutil.rmtree(root / unused, ignore_errors=True)
    put_python(root)
    # companies have certificates of their own, and a build has to trust what the machine does
    (root / "etc/ssl/certs").mkdir(parents=True, exist_ok=True)
    if Path(CERTIFICATES).exists():
        shutil.copy(CERTIFICATES, root / CERTIFICATES.lstrip("/"))
    container = buildah("from", "scratch")
    buildah("copy", "--quiet", container, root, "/")
    trust = {"PIP_CERT": CERTIFICATES, "SSL_CERT_FILE": CERTIFICATES, "UV_SYSTEM_CERTS": "1"}
    search = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    buildah(
        "config", f"--env={search}", *(f"--env={name}={value}" for name, value in trust.items()), container
    )
    buildah("commit", "--quiet", "--rm", container, BASE)
    shutil.rmtree(root)
    return BASE


@pytest.fixture(name="archive", scope="module")
def _archive(buildah: Buildah, base: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The image as a file, as the Dockerfile makes it."""
    buildah(
        *("bud", "--quiet", "--isolation=chroot", "--format=docker", "--pull=never"),
        *(f"--build-arg=PYTHON={base}", f"--file={DOCKERFILE}", f"--tag={IMAGE}", "."),
    )
    archive = tmp_path_factory.mktemp("image") / "wok-exporter.tar"
    buildah("push", "--quiet", IMAGE, f"docker-archive:{archive}:{IMAGE}:latest")
    return archive


@pytest.fixture(name="engine", scope="module")
def _engine(archive: Path) -> Iterator[Engine]:
    with docker_engine.engine() as engine:
        engine.run("docker", "load", "--quiet", f"--input={archive}")
        yield engine


class Container:
    """A container of the image at work."""

    def __init__(self, engine: Engine, volume: str) -> None:
        self._engine = engine
        mounts = (f"--volume={engine.log}:/var/log/wok:ro", f"--volume={volume}:/var/lib/wok-exporter")
        options = (*HARDENED, *QUICK, "--env=WOK_EXPORTER_TIMEZONE=UTC", *mounts)
        self.id = engine.run("docker", "run", "--detach", *options, IMAGE).strip()

    def inside(self, *command: str) -> str:
        """Run a command in the container, as its user."""
        return self._engine.run("docker", "exec", self.id, *command)

    def signal(self, name: str) -> None:
        self._engine.run("docker", "kill", f"--signal={name}", self.id)

    def state(self) -> dict[str, object]:
        """Return the container's state as Docker knows it."""
        state: dict[str, object] = json.loads(
            self._engine.run("docker", "inspect", "--format={{json .State}}", self.id)
        )
        return state

    def health(self) -> str:
        """Return what the health check has found."""
        health = self.state()["Health"]
        assert isinstance(health, dict)
        return str(health["Status"])

    def requests(self) -> float:
        """Return how many requests a scrape shows."""
        read = (
            "import urllib.request as r; print(r.urlopen('http://127.0.0.1:10965/metrics').read().decode())"
        )
        counts = re.findall(
            r"^wok_requests_total\{.*\} (\S+)$", self.inside("python", "-c", read), re.MULTILINE
        )
        return sum(map(float, counts))

    def stop(self) -> object:
        """Stop it as Docker does and return its exit code."""
        self._engine.run("docker", "stop", "--time=20", self.id)
        return self.state()["ExitCode"]


def test_only_what_is_copied_reaches_the_builder(buildah: Buildah, tmp_path: Path) -> None:
    """The build context holds what the Dockerfile copies, and nothing else of the checkout."""
    everything = tmp_path / "Dockerfile"
    everything.write_text("FROM scratch\nCOPY . /\n")
    ignored = f"--ignorefile={DOCKERFILE}.dockerignore"
    buildah(
        "bud",
        "--quiet",
        "--isolation=chroot",
        ignored,
        f"--file={everything}",
        "--tag=localhost/context",
        ".",
    )
    container = buildah("from", "localhost/context")
    context = Path(buildah("mount", container))

    copied = {"LICENSE", "README.md", "docs", "exporter", "pyproject.toml", "uv.lock"}
    assert [path.name for path in (context / "docs").iterdir()] == ["runbooks"]
    assert {path.name for path in context.iterdir()} == copied
    assert list(context.rglob("__pycache__")) == []
    dockerfile = (ROOT / DOCKERFILE).read_text("utf-8")
    assert [
        name for name in copied if not re.search(rf"^COPY .*{re.escape(name)}", dockerfile, re.MULTILINE)
    ] == []


def test_it_works_without_privileges_and_is_seen_to(engine: Engine) -> None:
    """Nobody's user on a read-only root counts what Wok logs; Docker sees it healthy, sees it hang, and sees it heal; it ends at once."""
    (engine.log / "wok-req.log").write_bytes(request_line(time.time(), "web01"))
    container = Container(engine, "first")
    wait_until(lambda: container.health() == "healthy")
    wait_until(lambda: container.requests() == 1)

    assert container.inside("id", "-u").strip() == USER
    for place in ("/", "/opt/wok-exporter", "/var/log/wok"):
        with pytest.raises(AssertionError, match="Read-only file system"):
            container.inside("touch", f"{place}/written")

    container.signal("STOP")
    wait_until(lambda: container.health() == "unhealthy")
    container.signal("CONT")
    wait_until(lambda: container.health() == "healthy")

    began = time.monotonic()
    assert container.stop() == 0
    assert time.monotonic() - began < 10


def test_a_new_container_goes_on_with_the_state(engine: Engine) -> None:
    """What one container has counted, the next one on the same volume counts no second time."""
    log = engine.log / "wok-req.log"
    log.write_bytes(request_line(time.time(), "web02"))
    first = Container(engine, "second")
    wait_until(lambda: first.health() == "healthy" and first.requests() == 1)
    first.stop()
    with log.open("ab") as stream:
        stream.write(request_line(time.time(), "web03"))
    second = Container(engine, "second")
    wait_until(lambda: second.health() == "healthy" and second.requests() == 2)

    assert second.requests() == 2


def test_what_the_image_says_of_itself(engine: Engine) -> None:
    """The image names its user by number, its health check, its volume and its licence."""
    config = json.loads(engine.run("docker", "inspect", "--format={{json .Config}}", IMAGE))

    assert config["User"] == f"{USER}:{USER}"
    assert config["Healthcheck"]["Retries"] == 3
    assert config["Volumes"] == {"/var/lib/wok-exporter": {}}
    assert config["Labels"]["org.opencontainers.image.licenses"] == "Apache-2.0"
    assert config["Entrypoint"] == ["wok-exporter"]

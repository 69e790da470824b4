"""A Docker engine of a test's own: in namespaces of its own, so that its network, its mounts and its processes go when it goes.

    with engine() as docker:
        docker.run("docker", "info")

It needs root. Nothing it serves can be reached from this machine: look from inside, with `docker exec`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e import servers, tools
from tests.e2e.host import remove_group
from tests.program import installed

RUN_SECONDS = 300.0
# A host with a Wok: only the engine sees it. `$1` is the engine's folder.
START = """\
set -e
ip link set lo up
mount -t tmpfs tmpfs /var/log
mkdir /var/log/wok
mount --bind "$1/log" /var/log/wok
mount -t tmpfs tmpfs /var/lib
mkdir /var/lib/wok
exec dockerd --host "unix://$1/socket" --data-root "$1/data" --exec-root "$1/exec" --pidfile "$1/pid" \
  --storage-driver vfs --cgroup-parent "$(basename "$1")" --bip 10.99.0.1/24 --default-address-pool base=10.98.0.0/16,size=24
"""


@dataclass(frozen=True, slots=True)
class Engine:
    """A running engine: `log` is what its containers see as /var/log/wok."""

    environ: dict[str, str]
    log: Path

    def run(self, *command: str, given: bytes = b"", more: Mapping[str, str] | None = None) -> str:
        """Run a client of the engine to its end and return what it printed; AssertionError tells what went wrong."""
        done = subprocess.run(
            command,
            input=given,
            env={**self.environ, **(more or {})},
            capture_output=True,
            check=False,
            timeout=RUN_SECONDS,
        )
        assert done.returncode == 0, f"{' '.join(command)}: {(done.stdout + done.stderr).decode()[-3000:]}"
        return done.stdout.decode()


@contextmanager
def engine() -> Iterator[Engine]:
    """Start an engine, wait until it answers, and end it with all that it has started."""
    files = servers.built(tools.docker_engine())
    installed("iptables")
    if os.geteuid():
        pytest.skip("a Docker engine needs root: run the tests as root")
    # not pytest's folder: the path of a socket has 107 characters at most
    folder = Path(tempfile.mkdtemp(prefix="wok-docker-"))
    (folder / "log").mkdir()
    log = folder / "engine.log"
    search = f"{files}/usr/bin:{files}/usr/sbin:{os.environ['PATH']}"
    environ = {
        **os.environ,
        "PATH": search,
        "DOCKER_HOST": f"unix://{folder}/socket",
        "DOCKER_CONFIG": str(folder),
    }
    spaces = ["--net", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child"]
    with log.open("wb") as written:
        process = subprocess.Popen(
            ["unshare", *spaces, "sh", "-c", START, "start", str(folder)],
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=written,
            stderr=subprocess.STDOUT,
        )

    def answers() -> bool:
        asked = subprocess.run(["docker", "version"], env=environ, capture_output=True, check=False)
        return process.poll() is not None or asked.returncode == 0

    try:
        servers.until(answers, servers.START_SECONDS, lambda: log.read_text()[-3000:])
        assert process.poll() is None, log.read_text()[-3000:]
        yield Engine(environ, folder / "log")
    finally:
        process.kill()
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)
        for group in Path("/sys/fs/cgroup").glob(f"*/{folder.name}"):
            remove_group(group)

"""The program as others start it: processes of their own, that know nothing of the configuration of whoever tests.

    done = run("check", log)
    with running("run", "--log", log, "--state", state, said=tmp_path / "said") as daemon:
        daemon.wait_for("backlog read")
        status, page = daemon.get("/metrics")
        assert daemon.stop() == 0

Every process carries a mark in its environment, which its children inherit: `left_behind` finds them by it.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from exporter.simulate.records import ADA, record

ROOT = Path(__file__).parents[1]
DEADLINE_SECONDS = 60.0
"""For anything that must happen: many times what it takes, so that a busy machine fails no test."""
SAME = (
    "--timezone",
    "UTC",
    "--instance",
    "test",
    "--host-name",
    "host",
    "--host-id",
    "h",
    "--messages",
    "off",
)
"""What makes the bytes of two runs comparable."""
FOREIGN = ("OTEL_", "WOK_EXPORTER_", "PYTHONUNBUFFERED")
"""Variables of whoever tests that change what the program does; the last one, when its output is written."""
MARK = "PROGRAM_OF_A_TEST"


def environ(**more: str) -> dict[str, str]:
    """Return this process' environment without what configures the program, and `more`."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
    return {**kept, "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1", **more}


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "exporter", *map(str, arguments)]


def run(
    *arguments: object, env: Mapping[str, str] | None = None, stdin: str = "", cwd: Path = ROOT
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(
        command(*arguments),
        env=env if env is not None else environ(),
        input=stdin,
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        timeout=DEADLINE_SECONDS,
    )


class Running:
    """A program at work: `said` is what it has written to stderr so far."""

    def __init__(self, process: subprocess.Popen[bytes], path: Path, mark: str) -> None:
        self.process = process
        self.mark = mark
        self._path = path

    @property
    def said(self) -> str:
        return self._path.read_text(encoding="utf-8")

    @property
    def port(self) -> int:
        """The port of its HTTP server, as it says it."""
        self.wait_for("/metrics, /healthz and /readyz")
        found = re.search(r"serving https?://[^ ]*:(\d+)/metrics", self.said)
        assert found, self.said
        return int(found[1])

    def wait_for(self, text: str) -> None:
        """Wait until it has said something."""
        wait_until(lambda: text in self.said or self.process.poll() is not None)
        assert text in self.said, self.said

    def get(self, path: str, headers: Mapping[str, str] | None = None) -> tuple[int, str]:
        """Return the status and the body of one of its pages."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", headers=dict(headers or {}))
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=DEADLINE_SECONDS) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal and return the exit code."""
        self.process.send_signal(number)
        return self.process.wait(DEADLINE_SECONDS)


@contextmanager
def running(*arguments: object, said: Path, env: Mapping[str, str] | None = None) -> Iterator[Running]:
    """Start a command that is to be watched; kill it at the end if it still runs. `said` takes its stderr."""
    mark = uuid.uuid4().hex
    with said.open("wb") as stderr:
        process = subprocess.Popen(
            command(*arguments),
            env={**(env if env is not None else environ()), MARK: mark},
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
        )
    try:
        yield Running(process, said, mark)
    finally:
        process.kill()
        process.wait()


def left_behind(mark: str) -> list[int]:
    """Return the processes that carry a mark, as Linux knows them; the dead that wait to be reaped carry none."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if f"{MARK}={mark}".encode() in path.read_bytes():
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


def wait_until(is_true: Callable[[], bool]) -> None:
    """Wait for something that must happen."""
    end = time.monotonic() + DEADLINE_SECONDS
    while not is_true():
        assert time.monotonic() < end, "it has not happened"
        time.sleep(0.02)


PACKAGES = {
    "promtool": "prometheus",
    "amtool": "prometheus-alertmanager",
    "ssh-keygen": "openssh-client",
    "systemd-analyze": "systemd",
    "systemd-sysusers": "systemd",
}
"""The packages of Debian and Ubuntu that bring a program, where they are not called as it is."""


def installed(name: str) -> str:
    """Return where a program of a Debian package is, or skip the test with how to install it."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed (Debian, Ubuntu: apt install {PACKAGES.get(name, name)})")
    return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def request_line(seconds: float, name: str) -> bytes:
    """Return the line of a request of the JSON dialect at a time, about a guest; its id is made from the name."""
    when = datetime.fromtimestamp(seconds, UTC)
    stamp = {
        "date": f"{when:%Y-%m-%d}",
        "time": f"{when:%H:%M:%S}",
        "zone": "UTC",
        "id": str(uuid.uuid5(uuid.NAMESPACE_URL, name)),
    }
    params = {"ident": name, "remote_host": ""}
    return record("json", stamp, "kimchi", "POST", 200, ADA, "KCHVM0004L", params, "") + b"\n"


def ids(*logs: Path) -> set[str]:
    """Return the ids of all records of logs of the JSON dialect."""
    return {json.loads(line)["id"] for log in logs for line in log.read_bytes().splitlines()}

"""A release of the real Wok, installed below a directory of the test's own, and its wokd on loopback.

Wok is in no package registry. Where WOK_SOURCE names a git checkout of it (a bare one will do), its releases are laid
out from there as its `make install` does; elsewhere these tests are skipped, in CI too. WOK_PYTHON3 and WOK_PYTHON2 name
interpreters that have what Wok needs; without the first an environment is made with this Python if Wok runs on it.
"""

from __future__ import annotations

import base64
import http.client
import io
import json
import os
import re
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.program import free_port
from tests.woklike.proof import PYTHON2

START_SECONDS = 60.0
STOP_SECONDS = 20.0
ANSWER_SECONDS = 30.0
PYTHON3_MAX = (3, 11)
"""Wok uses names of configparser that Python 3.12 has no more."""
REQUIREMENTS = (
    "CherryPy==18.8.0",
    "CT3==3.4.0",
    "jsonschema<4",
    "lxml",
    "psutil",
    "pyOpenSSL",
    "python-dateutil",
    "setuptools<80",
    "websockify<0.14",
)
EMPTY_MODULES = {
    "PAM.py": "class error(Exception):\n    pass\n",
    "ldap.py": "class LDAPError(Exception):\n    pass\n",
    "M2Crypto.py": "ASN1 = EVP = RSA = X509 = None\n",
}
FONTS = (
    "fontawesome/fontawesome-webfont.ttf",
    *(
        f"open-sans/OpenSans-{kind}.ttf"
        for kind in (
            "ExtraBoldItalic",
            "ExtraBold",
            "LightItalic",
            "Light",
            "SemiboldItalic",
            "BoldItalic",
            "Italic",
        )
    ),
    *(f"open-sans/OpenSans-{kind}.ttf" for kind in ("Bold", "Semibold", "Regular")),
)
"""Releases of 2.x do not start without these files, whatever is in them."""


def source() -> Path:
    """Return the checkout of Wok; skip the test without one."""
    named = os.environ.get("WOK_SOURCE")
    if not named:
        pytest.skip("WOK_SOURCE names no git checkout of Wok, and no package registry has it")
    return Path(named)


def python3(folder: Path) -> Path:
    """Return a Python 3 with what Wok needs: the one that is named, else one that is made in this folder."""
    if named := os.environ.get("WOK_PYTHON3"):
        return Path(named)
    if sys.version_info[:2] > PYTHON3_MAX:
        pytest.skip(
            "Wok does not run on this Python: WOK_PYTHON3 must name one of at most 3.11 with what Wok needs"
        )
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    python = folder / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", *REQUIREMENTS], check=True)
    return python


def python2() -> Path:
    """Return a Python 2.7 with what Wok needs; skip the test without one."""
    named = os.environ.get("WOK_PYTHON2")
    if not named:
        pytest.skip("WOK_PYTHON2 names no Python 2.7 with what Wok needs")
    return Path(named)


def lay_out(release: str, prefix: Path) -> Path:
    """Install a release below the prefix, wokd in bin/ and the package in lib/; return the prefix."""
    checkout = source()
    for name in (
        "etc/wok/plugins.d",
        "etc/nginx/conf.d",
        "etc/logrotate.d",
        "var/lib/wok/logs",
        "var/log/wok",
        "run",
        "bin",
        "lib",
    ):
        (prefix / name).mkdir(parents=True)
    with tarfile.open(
        fileobj=io.BytesIO(_git(checkout, "archive", "--format=tar", _commit(checkout, release), "src", "ui"))
    ) as tar:
        tar.extractall(prefix / "share" / "wok", filter="data")
    package = prefix / "share" / "wok" / "src" / "wok"
    package.rename(prefix / "lib" / "wok")
    _substitute(
        prefix / "lib" / "wok" / "config.py.in", prefix / "lib" / "wok" / "config.py", prefix, release
    )
    _substitute(prefix / "share" / "wok" / "src" / "wokd.in", prefix / "bin" / "wokd", prefix, release)
    for font in FONTS:
        path = prefix / "fonts" / font
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    for name, text in EMPTY_MODULES.items():
        (prefix / "lib" / name).write_text(text, encoding="utf-8")
    return prefix


def _git(checkout: Path, *args: str) -> bytes:
    return subprocess.run(["git", "-C", checkout, *args], stdout=subprocess.PIPE, check=True).stdout


def _commit(checkout: Path, release: str) -> str:
    for name in (release, f"v{release}", f"origin/{release}"):
        asked = subprocess.run(
            ["git", "-C", checkout, "rev-parse", "-q", "--verify", f"{name}^{{commit}}"],
            capture_output=True,
            text=True,
            check=False,
        )
        if asked.returncode == 0:
            return asked.stdout.strip()
    pytest.skip(f"{checkout} has no Wok {release}")


def _substitute(template: Path, path: Path, prefix: Path, release: str) -> None:
    words = {
        "prefix": prefix,
        "datadir": prefix / "share",
        "sysconfdir": prefix / "etc",
        "localstatedir": prefix / "var",
        "runstatedir": prefix / "run",
        "pkgdatadir": prefix / "share" / "wok",
        "wokdir": prefix / "lib" / "wok",
        "pythondir": prefix / "lib",
        "wokversion": release,
        "wokrelease": "0",
        "withspice": prefix,
    }
    text = template.read_text("utf-8").replace("/usr/share/fonts", f"{prefix}/fonts")
    path.write_text(
        re.sub("@([a-z]+)@", lambda word: str(words.get(word[1], word[0])), text), encoding="utf-8"
    )


def add_jobs(prefix: Path) -> None:
    """Install the plug-in that makes tasks."""
    folder = prefix / "lib" / "wok" / "plugins" / "jobs"
    folder.mkdir()
    for path in (PYTHON2 / "jobs").glob("*.py"):
        (folder / path.name).write_text(path.read_text("utf-8"), encoding="utf-8")
    conf = (PYTHON2 / "jobs" / "jobs.conf").read_text("utf-8")
    (prefix / "etc" / "wok" / "plugins.d" / "jobs.conf").write_text(conf, encoding="utf-8")


@dataclass
class Wok:
    """A wokd that runs."""

    prefix: Path
    port: int

    @property
    def log(self) -> Path:
        return self.prefix / "var" / "lib" / "wok" / "user-requests.data"

    @property
    def error_log(self) -> Path:
        return self.prefix / "var" / "log" / "wok" / "wok-error.log"

    def send(self, method: str, path: str, body: Any = None) -> tuple[int, bytes]:
        """Send a request as a client of Wok's API; return status and body."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=ANSWER_SECONDS)
        headers = {
            "Accept": "application/json",
            "Authorization": "Basic " + base64.b64encode(b"ada:pw").decode(),
        }
        if body is not None:
            headers["Content-Type"] = "application/json"
        try:
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def records(self) -> list[dict[str, Any]]:
        """Return all records of the user request log."""
        return [json.loads(line) for line in self.log.read_text("utf-8").splitlines()]

    def wait(self, count: int) -> list[dict[str, Any]]:
        """Wait until that many tasks have ended; return all records."""
        end = time.monotonic() + ANSWER_SECONDS
        while time.monotonic() < end:
            records = self.records()
            if sum(r["info"]["req"] == "TASK" and r["info"]["status"] != 1000 for r in records) >= count:
                return records
            time.sleep(0.05)
        raise AssertionError(f"not {count} ends after {ANSWER_SECONDS} s: {self.records()[-5:]}")


@contextmanager
def running(prefix: Path, python: Path) -> Iterator[Wok]:
    """Run the wokd of this prefix; at the end it, and the proxy of websockets that it starts, are stopped."""
    port = free_port()
    environ = {**os.environ, "TZ": "UTC", "LC_ALL": "C.UTF-8", "PYTHONDONTWRITEBYTECODE": "1"}
    with (prefix / "wokd.out").open("ab") as out:
        process = subprocess.Popen(
            [python, "-W", "ignore", PYTHON2 / "serve.py", prefix, str(port), str(free_port())],
            stdout=out,
            stderr=subprocess.STDOUT,
            env=environ,
            start_new_session=True,
        )
    wok = Wok(prefix, port)
    try:
        _until_it_answers(wok, process)
        yield wok
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        with suppress(ProcessLookupError):
            # Its session is its own: what it has started is in there.
            os.killpg(process.pid, signal.SIGKILL)


def _until_it_answers(wok: Wok, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end and process.poll() is None:
        try:
            wok.send("GET", "/plugins/jobs/work")
        except (OSError, http.client.HTTPException):
            time.sleep(0.1)
        else:
            return
    raise AssertionError(
        f"wokd does not answer: {(wok.prefix / 'wokd.out').read_text('utf-8', 'replace')[-3000:]}"
    )

"""The unit under a real systemd, on a Debian that has no Python: the package of `make packages`, installed and started."""

from __future__ import annotations

import re
import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Literal

import pytest

from tests import crash
from tests.e2e.host import Host
from tests.e2e.packaged import Packages
from tests.e2e.servers import fetch
from tests.program import ROOT, environ, free_port, request_line, run, wait_until
from tests.sink import Sink

UNIT = "wok-exporter"
LOG = "/var/lib/wok/user-requests.data"
CONFIG = "/etc/wok-exporter.toml"
VARIABLES = "/etc/default/wok-exporter"
DROP_INS = f"/etc/systemd/system/{UNIT}.service.d"
STATE = "/var/lib/wok-exporter/state.db"
WATCHDOG = "[Service]\nWatchdogSec=4s\nRestartSec=1s\nTimeoutAbortSec=5s\n"
"""A watchdog for people in a hurry: what it does is the same."""


class Installed:
    """The exporter on a host: what an administrator does to it, and what they see."""

    def __init__(self, host: Host, port: int) -> None:
        self.host = host
        self.port = port
        self.lines = 0
        self._since = ""

    def reset(self) -> None:
        """Make it as after an installation, with one request in the log and a port that is free."""
        self.host.run("systemctl", "stop", UNIT)
        self.host.run("systemctl", "reset-failed", UNIT, check=False)
        self.host.run("rm", "-rf", DROP_INS, "/var/lib/wok-exporter")
        self.host.run("systemctl", "daemon-reload")
        self.configure()
        self.variables({})
        self.lines = 0
        self.host.path(LOG).unlink(missing_ok=True)
        self.write()
        self._since = self.host.run("date", "+%s.%N").stdout.strip()

    def configure(self, more: str = "") -> None:
        """Write the configuration."""
        text = f'listen = "127.0.0.1:{self.port}"\nstart_at = "beginning"\ntimezone = "UTC"\n{more}\n'
        self.host.path(CONFIG).write_text(text)

    def variables(self, variables: Mapping[str, str]) -> None:
        """Write the file of variables."""
        text = "".join(f"{name}={value}\n" for name, value in variables.items())
        self.host.path(VARIABLES).write_text(text)

    def drop_in(self, text: str) -> None:
        """Change the unit as `systemctl edit` does."""
        self.host.run("mkdir", "-p", DROP_INS)
        self.host.path(f"{DROP_INS}/test.conf").write_text(text)
        self.host.run("systemctl", "daemon-reload")

    def write(self, count: int = 1) -> None:
        """Let Wok write some requests."""
        with self.host.path(LOG).open("ab") as stream:
            for _ in range(count):
                self.lines += 1
                stream.write(request_line(time.time(), f"web{self.lines}"))

    def systemctl(self, verb: str, *, check: bool = True) -> int:
        return self.host.run("systemctl", verb, UNIT, check=check).returncode

    def show(self, name: str) -> str:
        """Return what systemd knows of the unit."""
        return self.host.run("systemctl", "show", f"--property={name}", "--value", UNIT).stdout.strip()

    def journal(self) -> str:
        """Return what was said since the last reset."""
        return self.host.run(
            "journalctl", "--no-pager", "--output=cat", f"--unit={UNIT}", f"--since=@{self._since}"
        ).stdout

    def requests(self) -> float:
        """Return how many requests a scrape shows."""
        counts = crash.scrape(self.port)
        return sum(value for series, value in counts.items() if series[0] == "wok_requests_total")

    def status_of(self, path: str) -> int:
        """Return the status of a page."""
        return fetch(f"http://127.0.0.1:{self.port}{path}")[0]

    def until_counted(self) -> None:
        """Wait until a scrape shows all that was written."""

        def is_counted() -> bool:
            try:
                return self.requests() == self.lines
            except OSError:
                return False

        wait_until(is_counted)


@pytest.fixture(name="booted", scope="module")
def _booted(debian: Path, packages: Packages, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    folder = tmp_path_factory.mktemp("systemd")
    with Host.boot(debian, folder / "host", binds=(f"{packages.deb}:/opt/wok-exporter.deb",)) as host:
        # Started by the tests, on a port of their own.
        host.path("/usr/sbin/policy-rc.d").write_text("#!/bin/sh\nexit 101\n")
        host.path("/usr/sbin/policy-rc.d").chmod(0o755)
        host.run("mkdir", "-p", "/var/lib/wok", "/var/log/wok")
        host.run("dpkg", "--install", "/opt/wok-exporter.deb")
        yield host


@pytest.fixture(name="installed")
def _installed(booted: Host) -> Iterator[Installed]:
    installed = Installed(booted, free_port())
    installed.reset()
    yield installed
    installed.systemctl("stop")


def test_the_package_is_of_this_checkout(installed: Installed) -> None:
    """The unit, its user and the program in the package are those of this checkout: the other tests are about them."""
    for inside, committed in {
        "/usr/lib/systemd/system/wok-exporter.service": "systemd/wok-exporter.service",
        "/usr/lib/sysusers.d/wok-exporter.conf": "systemd/wok-exporter.sysusers",
    }.items():
        assert installed.host.path(inside).read_bytes() == (ROOT / "deploy" / committed).read_bytes()
    theirs = installed.host.run("env", "COLUMNS=100", "wok-exporter", "run", "--help").stdout
    assert theirs == run("run", "--help", env=environ(COLUMNS="100")).stdout


def test_it_starts_when_it_is_ready(installed: Installed) -> None:
    """When `systemctl start` returns, the exporter answers and has read the log; `systemctl status` shows its line."""
    installed.systemctl("start")

    assert installed.status_of("/healthz") == 200
    assert installed.requests() == 1
    assert installed.show("ActiveState") == "active"
    status = installed.host.run("systemctl", "status", UNIT).stdout
    assert f'Status: "following {LOG}; 0 running tasks; last record 20' in status
    assert installed.show("User") == "wok-exporter"


def test_it_is_not_active_before_it_is_ready(installed: Installed) -> None:
    """While the first commit cannot be made, the unit is activating; once it is made, active."""
    installed.systemctl("start")
    installed.systemctl("stop")
    with closing(sqlite3.connect(installed.host.path(STATE), isolation_level=None)) as db:
        db.execute("BEGIN IMMEDIATE")
        installed.write()
        installed.host.run("systemctl", "start", "--no-block", UNIT)
        wait_until(lambda: installed.show("SubState") == "start")
        time.sleep(2)
        during = installed.show("ActiveState")
        db.execute("ROLLBACK")
    wait_until(lambda: installed.show("ActiveState") == "active")

    assert during == "activating"
    installed.until_counted()


def test_a_bad_configuration_does_not_start(installed: Installed) -> None:
    """The start fails at the check, each mistake is in the journal with its remedy, and nothing tries again."""
    installed.configure('poll_interval = "soon"\ncolour = "red"')
    code = installed.systemctl("start", check=False)

    assert code != 0
    assert (installed.show("ActiveState"), installed.show("SubState")) == ("failed", "failed")
    assert installed.show("NRestarts") == "0"
    assert f"error: {CONFIG}: poll_interval: 'soon' is not a duration: write a number" in installed.journal()
    assert f"error: {CONFIG}: colour: unknown key: remove it" in installed.journal()


def test_a_port_that_is_taken_is_tried_again(installed: Installed) -> None:
    """A start that fails for another reason than the configuration is repeated, and succeeds when the reason is gone."""
    installed.drop_in("[Service]\nRestartSec=1s\n")
    with Sink(port=installed.port):
        assert installed.systemctl("start", check=False) != 0
        wait_until(lambda: int(installed.show("NRestarts")) >= 1)
    wait_until(lambda: installed.show("ActiveState") == "active")

    assert f"error: cannot listen on 127.0.0.1:{installed.port}" in installed.journal()


def test_a_reload(installed: Installed) -> None:
    """`systemctl reload` takes up a good file in the same process; for a bad one it fails, says why in the journal,
    and the exporter goes on as before.
    """
    installed.systemctl("start")
    pid = installed.show("MainPID")
    installed.configure("ui = false")
    installed.systemctl("reload")
    wait_until(lambda: "reloaded; changed settings: ui" in installed.journal())
    wait_until(lambda: installed.show("ActiveState") == "active")
    good = installed.status_of("/")
    installed.configure('colour = "red"')
    code = installed.systemctl("reload", check=False)
    installed.write()
    installed.until_counted()

    assert good == 404
    assert code != 0
    assert f"{CONFIG}: colour: unknown key: remove it" in installed.journal()
    assert installed.status_of("/") == 404
    assert installed.show("MainPID") == pid
    assert installed.show("ActiveState") == "active"


def test_a_kill(installed: Installed) -> None:
    """Killed while the log grows, the exporter is started again, and has counted every request once."""
    installed.drop_in("[Service]\nRestartSec=1s\n")
    installed.systemctl("start")
    for _ in range(3):
        installed.write(200)
        pid = installed.show("MainPID")
        installed.host.run("kill", "-KILL", pid)
        installed.write(100)
        wait_until(lambda pid=pid: installed.show("MainPID") not in {pid, "0"})  # type: ignore[misc]
        installed.until_counted()

    assert installed.show("NRestarts") == "3"
    assert installed.requests() == 901


@pytest.mark.parametrize("how", ["stopped", "locked"])
def test_what_hangs_is_started_again(installed: Installed, how: Literal["stopped", "locked"]) -> None:
    """A process that is stopped, and one whose commit waits for a lock, are ended by the watchdog and started again;
    nothing is lost or counted twice.
    """
    installed.drop_in(WATCHDOG)
    installed.systemctl("start")
    pid = installed.show("MainPID")
    with closing(sqlite3.connect(installed.host.path(STATE), isolation_level=None)) as db:
        if how == "locked":
            db.execute("BEGIN IMMEDIATE")
        else:
            installed.host.run("kill", "-STOP", pid)
        installed.write()
        wait_until(lambda: "Watchdog timeout" in installed.journal())
        if how == "locked":
            db.execute("ROLLBACK")
    wait_until(lambda: installed.show("MainPID") not in {pid, "0"})
    installed.until_counted()

    assert int(installed.show("NRestarts")) >= 1


def test_what_is_well_is_left_alone(installed: Installed) -> None:
    """With nothing to read for many times the watchdog's time, the exporter is not restarted."""
    installed.drop_in(WATCHDOG)
    installed.systemctl("start")
    pid = installed.show("MainPID")
    time.sleep(13)

    assert (installed.show("MainPID"), installed.show("NRestarts")) == (pid, "0")


PROBE = """\
#!/bin/sh
can() { if sh -c "$2" >/dev/null 2>&1; then echo "can $1"; else echo "cannot $1"; fi; }
can "write its state" "touch /var/lib/wok-exporter/probe && rm /var/lib/wok-exporter/probe"
can "read the log" "cat /var/lib/wok/user-requests.data"
can "write the log" "echo >> /var/lib/wok/user-requests.data"
can "write beside the log" "touch /var/lib/wok/probe"
can "write to etc" "touch /etc/probe"
can "see homes" "cat /home/ada/secret"
can "see root's home" "cat ~root/secret"
can "see guests" "cat /var/lib/libvirt/images/guest"
can "see the first process" "cat /proc/1/status"
can "see a file in tmp" "cat /tmp/of-another"
can "make a namespace" "unshare --user true"
can "become root" "su root -c true"
can "set the host's name" "hostname probe"
can "see a disk" "ls /dev/*da /dev/loop* /dev/kvm"
id -un
"""


def test_the_hardening_is_in_force(installed: Installed) -> None:
    """From inside the unit everything is read-only but the state; homes, guests' disks, devices and other processes are
    not seen; and there is no way to more rights.
    """
    host = installed.host
    host.run(
        "sh",
        "-c",
        "mkdir -p /home/ada /var/lib/libvirt/images && for file in /home/ada/secret ~root/secret /tmp/of-another"
        " /var/lib/libvirt/images/guest; do echo x > $file; chmod 644 $file; done; chmod 755 /root /home/ada; echo >> /etc/hosts",
    )
    probe = host.path("/usr/local/bin/probe")
    probe.write_text(PROBE)
    probe.chmod(0o755)
    # Wok's directory is open to all, so that the read-only mount is what refuses.
    host.run("sh", "-c", f"chmod 777 /var/lib/wok /etc; chmod 666 {LOG}")
    installed.drop_in("[Service]\nExecStartPre=/usr/local/bin/probe\n")
    installed.systemctl("start")
    host.run("sh", "-c", f"chmod 755 /var/lib/wok /etc; chmod 644 {LOG}")
    said = installed.journal().splitlines()

    assert "wok-exporter" in said
    assert [line for line in said if line.startswith("can ")] == ["can write its state", "can read the log"]
    assert len([line for line in said if line.startswith("cannot ")]) == PROBE.count('\ncan "') - 2


def peak_bytes(installed: Installed) -> int:
    """Return the most memory that the process has had."""
    status = installed.host.run("cat", f"/proc/{installed.show('MainPID')}/status").stdout
    found = re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_it_works_inside_the_hardening(installed: Installed, protocol: Literal["http", "grpc"]) -> None:
    """In its sandbox the exporter sends spans and log records over either protocol, to the backend that the file of
    variables names, and is scraped; it ends within seconds.
    """
    with Sink(protocol) as sink:
        installed.variables(sink.environ())
        installed.systemctl("start")
        installed.write(50)
        wait_until(lambda: len(sink.logs()) == len(sink.spans()) == installed.lines)
        wait_until(lambda: "nothing queued" in installed.show("StatusText"))
        installed.until_counted()
        memory = peak_bytes(installed)
        began = time.monotonic()
        installed.systemctl("stop")
        seconds = time.monotonic() - began

    assert seconds < 10
    assert installed.show("Result") == "success"
    assert "Traceback" not in installed.journal()
    assert memory < 192 * 1024 * 1024, "half of the unit's MemoryHigh"


def test_a_log_that_only_a_group_may_read(installed: Installed) -> None:
    """Where Wok's log is not for all, the status says so; with the group in a drop-in, as the unit's comment has it, the
    log is read.
    """
    installed.host.run("chown", "root:adm", LOG)
    installed.host.run("chmod", "640", LOG)
    installed.systemctl("start")
    refused = installed.show("StatusText")
    installed.drop_in("[Service]\nSupplementaryGroups=adm\n")
    installed.systemctl("restart")
    installed.until_counted()

    assert f"cannot read {LOG}: Permission denied; give the exporter's user read access" in refused


def test_the_first_start_of_a_host_without_wok(installed: Installed) -> None:
    """Where there is no log yet the start succeeds, the status says what is waited for, and the first line is read."""
    installed.host.path(LOG).unlink()
    installed.lines = 0
    installed.systemctl("start")
    waiting = installed.show("StatusText")
    installed.write()
    installed.until_counted()

    assert f"{LOG} does not exist; check the configured path, or start wokd" in waiting

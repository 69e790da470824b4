"""The packages in the hands of dpkg and rpm, on a Debian under a real systemd: installed, upgraded, removed, with a service at work.

rpm is this machine's, carried into the host with the libraries it is linked to; its scripts run in the host, under the host's systemd. What
a package of a Red Hat would bring beside (its own names of the C library) is not there, so that rpm is told not to ask for it.
"""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests import crash
from tests.e2e.host import Host
from tests.e2e.packaged import Packages, build, output
from tests.program import free_port, request_line, wait_until

UNIT = "wok-exporter.service"
CONFIG = "/etc/wok-exporter.toml"
VARIABLES = "/etc/default/wok-exporter"
STATE = "/var/lib/wok-exporter/state.db"
LOG = "/var/lib/wok/user-requests.data"
EDITED = 'instance = "edited"\n'


@pytest.fixture(name="newer", scope="module")
def _newer(tmp_path_factory: pytest.TempPathFactory) -> Packages:
    return build(tmp_path_factory.mktemp("newer"), 2)


class Serving:
    """A host with Wok's log, on which the service will listen on a port that is free."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.port = free_port()
        drop_ins = host.path(f"/etc/systemd/system/{UNIT}.d")
        drop_ins.mkdir(parents=True)
        listen = f"Environment=WOK_EXPORTER_LISTEN=127.0.0.1:{self.port} WOK_EXPORTER_START_AT=beginning"
        (drop_ins / "port.conf").write_text(f"[Service]\n{listen} WOK_EXPORTER_TIMEZONE=UTC\n")
        host.path("/var/lib/wok").mkdir()
        host.path("/var/log/wok").mkdir()
        self.write("web01")

    def write(self, name: str) -> None:
        """Let Wok log a request."""
        with self.host.path(LOG).open("ab") as log:
            log.write(request_line(time.time(), name))

    def wait_for(self, requests: int) -> None:
        """Wait until a scrape shows so many requests."""

        def is_counted() -> bool:
            try:
                counts = crash.scrape(self.port)
            except OSError:
                return False
            return requests == sum(
                value for series, value in counts.items() if series[0] == "wok_requests_total"
            )

        wait_until(is_counted)

    def show(self, name: str) -> str:
        """Return what systemd knows of the service."""
        return self.host.run("systemctl", "show", f"--property={name}", "--value", UNIT).stdout.strip()

    def is_enabled(self) -> bool:
        return self.host.run("systemctl", "--quiet", "is-enabled", UNIT, check=False).returncode == 0

    def edit(self) -> None:
        """Change the configuration, as an administrator does."""
        self.host.path(CONFIG).write_text(EDITED)


@contextmanager
def booted(debian: Path, folder: Path, *packages: Path) -> Iterator[Serving]:
    """Boot a host that has the packages as /srv/1, /srv/2, ..."""
    binds = tuple(f"{package}:/srv/{number}" for number, package in enumerate(packages, 1))
    with Host.boot(debian, folder / "host", binds=binds) as host:
        yield Serving(host)


def test_the_life_of_a_deb(debian: Path, packages: Packages, newer: Packages, tmp_path: Path) -> None:
    """Installed, it serves; upgraded, it goes on with its configuration and state; removed, both are kept; purged, neither, only the user."""
    with booted(debian, tmp_path, packages.deb, newer.deb) as serving:
        host = serving.host
        host.run("dpkg", "--install", "/srv/1")
        serving.wait_for(1)
        assert serving.is_enabled()
        assert serving.show("User") == "wok-exporter"
        account = host.run("getent", "passwd", "wok-exporter").stdout
        assert re.fullmatch(r"wok-exporter:[^:]*:\d{3}:\d{3}:wok-exporter:/:\S*/nologin\n", account)
        assert host.run("stat", "--format=%U %a", "/var/lib/wok-exporter").stdout == "wok-exporter 700\n"
        assert host.run("stat", "--format=%U:%G %a", VARIABLES).stdout == "root:root 600\n"
        assert not host.path("/usr/bin/python3").exists()
        for name in ("bash-completion/completions/wok-exporter", "zsh/vendor-completions/_wok-exporter"):
            assert "_wok_exporter" in host.path(f"/usr/share/{name}").read_text()
        assert host.path("/usr/share/fish/vendor_completions.d/wok-exporter.fish").exists()

        serving.edit()
        before = serving.show("MainPID")
        host.run("dpkg", "--install", "/srv/2")
        serving.write("web02")
        serving.wait_for(2)
        assert serving.show("MainPID") not in {before, "0"}
        assert host.path(CONFIG).read_text() == EDITED

        host.run("dpkg", "--remove", "wok-exporter")
        assert not host.path("/usr/bin/wok-exporter").is_symlink()
        assert not host.path("/usr/libexec/wok-exporter").exists()
        assert serving.show("LoadState") == "not-found"
        assert "wok-exporter" not in host.run("ps", "-e", "-o", "args=").stdout
        assert host.path(CONFIG).read_text() == EDITED
        assert host.path(STATE).exists()

        host.run("dpkg", "--install", "/srv/2")
        serving.write("web03")
        serving.wait_for(3)

        host.run("dpkg", "--purge", "wok-exporter")
        gone = (
            CONFIG,
            VARIABLES,
            "/var/lib/wok-exporter",
            f"/etc/systemd/system/multi-user.target.wants/{UNIT}",
        )
        assert [path for path in gone if host.path(path).exists() or host.path(path).is_symlink()] == []
        assert host.run("getent", "passwd", "wok-exporter").stdout == account


def test_a_deb_leaves_alone_what_was_switched_off(
    debian: Path, packages: Packages, newer: Packages, tmp_path: Path
) -> None:
    """A service that an administrator has disabled and stopped is not started by an upgrade."""
    with booted(debian, tmp_path, packages.deb, newer.deb) as serving:
        serving.host.run("dpkg", "--install", "/srv/1")
        serving.wait_for(1)
        serving.host.run("systemctl", "disable", "--now", UNIT)
        serving.host.run("dpkg", "--install", "/srv/2")

        assert not serving.is_enabled()
        assert serving.show("ActiveState") == "inactive"


def test_a_broken_configuration_breaks_no_installation(
    debian: Path, packages: Packages, newer: Packages, tmp_path: Path
) -> None:
    """An upgrade over a configuration that is refused ends well for dpkg, and the service says what is wrong with it."""
    with booted(debian, tmp_path, packages.deb, newer.deb) as serving:
        serving.host.run("dpkg", "--install", "/srv/1")
        serving.wait_for(1)
        serving.host.path(CONFIG).write_text('poll_interval = "soon"\n')
        serving.host.run("dpkg", "--install", "/srv/2")

        assert "ii " in serving.host.run("dpkg", "--list", "wok-exporter").stdout
        assert serving.show("ActiveState") == "failed"
        assert "poll_interval" in serving.host.journal(UNIT)


class Rpm:
    """The rpm of this machine in a host: the program, its libraries and its macros, in a folder of their own."""

    PLACE = "/opt/rpm"

    def __init__(self, host: Host) -> None:
        self._host = host
        place = host.path(self.PLACE)
        (place / "lib").mkdir(parents=True)
        program = shutil.which("rpm")
        assert program is not None
        shutil.copy(program, place / "rpm")
        for library in re.findall(r"(/\S+) \(0x", output("ldd", program)):
            shutil.copy(library, place / "lib")
        (self._loader,) = (path.name for path in (place / "lib").glob("ld*.so*"))
        shutil.copytree("/usr/lib/rpm", place / "config", symlinks=True)

    def __call__(self, *arguments: str, check: bool = True) -> str:
        """Run rpm in the host and return what it prints."""
        lib = f"{self.PLACE}/lib"
        command = [f"{lib}/{self._loader}", "--library-path", lib, f"{self.PLACE}/rpm", *arguments]
        done = self._host.run("env", f"RPM_CONFIGDIR={self.PLACE}/config", *command, check=check)
        return done.stdout + done.stderr


def test_the_life_of_an_rpm(debian: Path, packages: Packages, newer: Packages, tmp_path: Path) -> None:
    """Installed, it waits to be enabled, as the host's policy has it; upgraded, it goes on; erased, what was edited and the state are kept."""
    with booted(debian, tmp_path, packages.rpm, newer.rpm) as serving:
        host = serving.host
        rpm = Rpm(host)
        # as the relatives of Red Hat have it
        presets = host.path("/etc/systemd/system-preset")
        presets.mkdir(parents=True)
        (presets / "99-default.preset").write_text("disable *\n")
        rpm("--install", "--nodeps", "/srv/1")
        assert not serving.is_enabled()
        assert serving.show("ActiveState") == "inactive"
        assert host.run("getent", "passwd", "wok-exporter").stdout
        assert rpm("--verify", "--nodeps", "wok-exporter") == ""
        for name in ("bash-completion/completions/wok-exporter", "zsh/site-functions/_wok-exporter"):
            assert "_wok_exporter" in host.path(f"/usr/share/{name}").read_text()

        host.run("systemctl", "enable", "--now", UNIT)
        serving.wait_for(1)
        serving.edit()
        before = serving.show("MainPID")
        rpm("--upgrade", "--nodeps", "/srv/2")
        serving.write("web02")
        serving.wait_for(2)
        assert serving.is_enabled()
        assert serving.show("MainPID") not in {before, "0"}
        assert host.path(CONFIG).read_text() == EDITED
        verified = rpm("--verify", "--nodeps", "wok-exporter", check=False)
        assert re.fullmatch(rf"S\S+ +c {CONFIG}\n", verified), verified

        rpm("--erase", "wok-exporter")
        assert not host.path("/usr/libexec/wok-exporter").exists()
        assert serving.show("LoadState") == "not-found"
        assert not serving.is_enabled()
        assert "wok-exporter" not in host.run("ps", "-e", "-o", "args=").stdout
        assert not host.path(CONFIG).exists()
        assert host.path(f"{CONFIG}.rpmsave").read_text() == EDITED
        assert host.path(STATE).exists()
        assert host.run("getent", "passwd", "wok-exporter").stdout


def test_an_rpm_is_started_where_policy_says_so(debian: Path, packages: Packages, tmp_path: Path) -> None:
    """Where the host's presets enable the service, installing the .rpm starts it."""
    with booted(debian, tmp_path, packages.rpm) as serving:
        Rpm(serving.host)("--install", "--nodeps", "/srv/1")

        serving.wait_for(1)
        assert serving.is_enabled()

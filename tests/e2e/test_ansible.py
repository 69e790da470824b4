"""The Ansible role, for real: ansible-playbook over SSH to a Debian host that was booted for it, with the package that `make packages` built."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import yaml

from exporter.http.auth import hash_password
from tests.e2e.host import Host
from tests.e2e.packaged import Packages
from tests.e2e.servers import until
from tests.e2e.wok import Wok
from tests.program import ROOT, free_port, installed
from tests.sink import Certificates, Sink, make_certificates

ROOT_HOME = "/root"
ANSIBLE = ROOT / "deploy/fleet/ansible"
SECONDS = 60.0
PASSWORD = "a password of the scrapes"
TOKEN = "a-token\"of$the`host'\\"
"""With what a shell or systemd might take for its own."""


@dataclass
class Site:
    """A host, what Ansible knows of it, and where the Prometheus of the site would look for target files."""

    host: Host
    folder: Path
    port: int
    targets: Path
    certificates: Certificates
    sink: Sink
    variables: dict[str, Any] = field(default_factory=dict)

    def play(self, *flags: str, **changed: Any) -> tuple[int, dict[str, int], str]:
        """Run the committed playbook; return the exit code, the recap's counts, and all that was said."""
        inventory = {
            "all": {
                "hosts": {
                    "monitor": {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
                },
                "children": {"wok": {"hosts": {"kvm01": None}, "vars": self.variables | changed}},
            }
        }
        path = self.folder / "inventory.yml"
        path.write_text(yaml.safe_dump(inventory))
        done = playbook("-i", str(path), *flags, str(ANSIBLE / "playbook.yml"), home=self.folder)
        said = done.stdout + done.stderr
        recap = re.search(r"^kvm01 +: (.*)$", said, re.MULTILINE)
        assert recap, said
        counts = {name: int(count) for name, count in re.findall(r"(\w+)=(\d+)", recap[1])}
        return done.returncode, counts, said

    def main_pid(self) -> str:
        return self.host.run(
            "systemctl", "show", "--property=MainPID", "--value", "wok-exporter"
        ).stdout.strip()

    def state(self) -> str:
        return self.host.run("systemctl", "is-active", "wok-exporter", check=False).stdout.strip()


def playbook(*arguments: str, home: Path) -> subprocess.CompletedProcess[str]:
    found = Path(sys.executable).with_name("ansible-playbook")
    if not found.exists():
        pytest.skip("ansible-playbook is not installed: make e2e installs it, or uv sync --group e2e")
    environ = {
        **os.environ,
        "ANSIBLE_HOME": str(home / "ansible"),
        "ANSIBLE_NOCOLOR": "1",
        "LC_ALL": "C.UTF-8",
    }
    environ |= {
        "ANSIBLE_PIPELINING": "True",
        "ANSIBLE_HOST_KEY_CHECKING": "False",
        "ANSIBLE_LOCALHOST_WARNING": "False",
    }
    return subprocess.run(
        [found, *arguments],
        cwd=ANSIBLE,
        env=environ,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


@pytest.fixture(scope="module")
def site(debian: Path, packages: Packages, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A host with SSH and a Python, as Ansible needs them, that knows a new key; a Wok writes on it."""
    folder = tmp_path_factory.mktemp("ansible")
    key = folder / "key"
    subprocess.run([installed("ssh-keygen"), "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    port = free_port()
    (folder / "host").mkdir()
    certificates = make_certificates(folder / "tls")
    with Host.boot(debian, folder / "host") as host, Sink(certificates=certificates) as sink:
        for path, text in (
            ("/etc/ssh/sshd_config.d/test.conf", f"Port {port}\nListenAddress 127.0.0.1\n"),
            (f"{ROOT_HOME}/.ssh/authorized_keys", key.with_suffix(".pub").read_text()),
        ):
            host.path(path).parent.mkdir(parents=True, exist_ok=True)
            host.path(path).write_text(text)
        host.run("apt-get", "-qq", "update")
        host.run(
            *(
                "env",
                "DEBIAN_FRONTEND=noninteractive",
                "apt-get",
                "-qq",
                "install",
                "--no-install-recommends",
            ),
            *("python3", "openssh-server"),
        )
        (folder / "targets").mkdir()
        host.path("/var/lib/wok").mkdir(parents=True)
        variables = {
            "ansible_host": "127.0.0.1",
            "ansible_port": port,
            "ansible_user": "root",
            "ansible_ssh_private_key_file": str(key),
            "ansible_ssh_common_args": "-o UserKnownHostsFile=/dev/null -o LogLevel=ERROR",
            "ansible_python_interpreter": "/usr/bin/python3",
            "ansible_become": False,
            "wok_exporter_package": str(packages.deb),
            "wok_exporter_config": {
                "listen": f"127.0.0.1:{free_port()}",
                "timezone": "UTC",
                "apps": ["kimchi", "ginger"],
                "ui": False,
                "tls_certificate": "/etc/wok-exporter/server.pem",
                "tls_key": "/etc/wok-exporter/server.key",
                "auth_file": "/etc/wok-exporter/auth",
            },
            "wok_exporter_environment": {
                "OTEL_EXPORTER_OTLP_ENDPOINT": sink.endpoint,
                "OTEL_EXPORTER_OTLP_CERTIFICATE": "/etc/wok-exporter/ca.pem",
                "OTEL_EXPORTER_OTLP_HEADERS": f"x-token={quote(TOKEN, safe='')}",
                "OTEL_UNKNOWN": TOKEN,
            },
            "wok_exporter_files": {
                "ca.pem": Path(certificates.ca).read_text(),
                "server.pem": Path(certificates.server).read_text(),
                "server.key": Path(certificates.server_key).read_text(),
                "auth": f"prometheus:{hash_password(PASSWORD)}\n",
            },
            "wok_exporter_prometheus_host": "monitor",
            "wok_exporter_targets_directory": str(folder / "targets"),
            "wok_exporter_target_labels": {"site": "here"},
        }
        yield Site(host, folder, port, folder / "targets", certificates, sink, variables)


def test_the_example_of_an_inventory_is_understood(tmp_path: Path) -> None:
    """Ansible's own syntax check takes the playbook, the role and the example of an inventory as they are committed."""
    done = playbook("--syntax-check", "-i", "inventory.example.yml", "playbook.yml", home=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_role_on_a_host(site: Site) -> None:
    """A dry run changes nothing; a run installs a service that works; a second one changes nothing; what changes is taken up by a reload
    or a restart; a bad configuration is refused while the old one goes on; removed, configuration and state stay.
    """
    installs_and_is_idempotent(site)
    takes_up_changes(site)
    refuses_a_bad_configuration(site)
    removes(site)


def installs_and_is_idempotent(site: Site) -> None:
    code, counts, said = site.play("--check", "--diff")
    assert (code, counts["failed"]) == (0, 0), said
    assert not site.host.path("/usr/bin/wok-exporter").is_symlink()
    assert not list(site.targets.iterdir())
    code, counts, said = site.play("--diff")
    assert (code, counts["failed"]) == (0, 0), said
    assert counts["changed"] > 3
    for secret in (TOKEN, "scrypt$", "PRIVATE KEY"):
        assert secret not in said
    assert site.state() == "active"
    # It has never run with anything but its configuration.
    ports = set(re.findall(r"serving \S*?:(\d+)/metrics", site.host.journal("wok-exporter")))
    assert ports == {site.variables["wok_exporter_config"]["listen"].rpartition(":")[2]}
    environment = site.host.path("/etc/default/wok-exporter").stat()
    assert (environment.st_mode & 0o777, environment.st_uid) == (0o600, 0)
    address = site.variables["wok_exporter_config"]["listen"]

    def metrics() -> str:
        return curl(site, f"https://{address}/metrics", "--user", f"prometheus:{PASSWORD}")

    assert "wok_exporter_build_info" in metrics()
    wok = Wok(site.host.path("/var/lib/wok/user-requests.data"))
    wok.end(wok.clone("web1"), failed=True)
    until(lambda: len(site.sink.spans()) == 2, SECONDS, lambda: site.host.journal("wok-exporter"))
    inner = site.host.run("cat", f"/proc/{site.main_pid()}/environ").stdout
    assert f"OTEL_UNKNOWN={TOKEN}" in inner.split("\0")
    until(lambda: 'wok_tasks_finished_total{app="ginger"' in metrics(), SECONDS, metrics)
    assert {one.headers["x-token"] for one in site.sink.requests} == {TOKEN}
    (target,) = json.loads((site.targets / "kvm01.json").read_text())
    assert target == {"targets": ["kvm01:10965"], "labels": {"site": "here"}}
    # The same package from a URL: fetched, since it is not there any more, and found to be installed already.
    package = Path(site.variables["wok_exporter_package"])
    site.host.path(f"/var/cache/wok-exporter/{package.name}").unlink()
    digest = hashlib.sha256(package.read_bytes()).hexdigest()
    with offered(package.parent) as url:
        where = {
            "wok_exporter_package": f"{url}/{package.name}",
            "wok_exporter_package_checksum": f"sha256:{digest}",
        }
        code, counts, said = site.play(**where)
        assert (code, counts["changed"]) == (0, 1), said
    for flags in ((), ("--check",)):
        code, counts, said = site.play(*flags)
        assert (code, counts["changed"], counts["failed"]) == (0, 0, 0), said


def takes_up_changes(site: Site) -> None:
    before = site.main_pid()
    config = site.variables["wok_exporter_config"] | {"ui": True}
    site.variables["wok_exporter_config"] = config
    code, counts, said = site.play()
    assert (code, counts["changed"]) == (0, 2), said
    assert site.main_pid() == before
    page = f"https://{config['listen']}/"
    until(lambda: "<html" in curl(site, page, "--user", f"prometheus:{PASSWORD}"), SECONDS)
    variables: Mapping[str, str] = site.variables["wok_exporter_environment"]
    site.variables["wok_exporter_environment"] = {**variables, "OTEL_RESOURCE_ATTRIBUTES": "rack=7"}
    code, counts, said = site.play()
    assert (code, counts["changed"]) == (0, 2), said
    assert site.main_pid() not in {before, "0"}
    assert site.state() == "active"


def refuses_a_bad_configuration(site: Site) -> None:
    before = site.host.path("/etc/wok-exporter.toml").read_text()
    running = site.main_pid()
    bad = site.variables["wok_exporter_config"] | {"poll_interval": "soon"}
    code, counts, said = site.play(wok_exporter_config=bad)
    assert (code, counts["failed"]) == (2, 1), said
    assert "poll_interval" in said
    assert site.host.path("/etc/wok-exporter.toml").read_text() == before
    assert (site.main_pid(), site.state()) == (running, "active")


def removes(site: Site) -> None:
    code, counts, said = site.play(wok_exporter_state="absent")
    assert (code, counts["failed"]) == (0, 0), said
    assert site.state() == "inactive"
    assert not site.host.path("/usr/bin/wok-exporter").is_symlink()
    assert not list(site.targets.iterdir())
    for kept in ("/etc/wok-exporter.toml", "/etc/default/wok-exporter", "/var/lib/wok-exporter"):
        assert site.host.path(kept).exists()
    code, counts, said = site.play(wok_exporter_state="absent")
    assert (code, counts["changed"]) == (0, 0), said


@contextmanager
def offered(folder: Path) -> Iterator[str]:
    """Serve the files of a folder over HTTP; yield the URL."""
    handler = partial(SimpleHTTPRequestHandler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


def curl(site: Site, url: str, *flags: str) -> str:
    """Return what a page of the host says, or the empty string; its certificate is held to the CA."""
    done = subprocess.run(
        [installed("curl"), "--silent", "--noproxy", "*", "--cacert", site.certificates.ca, *flags, url],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    return done.stdout

"""The files of deploy/systemd, checked with systemd's own tools and with the exporter."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from exporter.config.options import OPTIONS
from tests.program import environ, installed, run
from tests.sink import make_certificates

DEPLOY = Path(__file__).parents[1] / "deploy"
UNIT = DEPLOY / "systemd" / "wok-exporter.service"
EXPOSURE_MAX = 2.0
"""Of 10, by `systemd-analyze security`."""


def tool(name: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a tool of systemd, or skip the test and say how to get it."""
    done = subprocess.run(
        [installed(name), *map(str, arguments)],
        env=environ(SYSTEMD_PAGER="", SYSTEMD_COLORS="0"),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    if name == "systemd-analyze" and "security" in arguments and "unrecognized option" in done.stderr:
        pytest.skip("this systemd-analyze looks at no files (--offline): install systemd 250 or later")
    return done


def settings(name: str) -> list[str]:
    """Return all values of a setting of the unit, in order."""
    return re.findall(rf"^{name}=(.*)$", UNIT.read_text(), re.MULTILINE)


def verified(unit: str, folder: Path) -> list[str]:
    """Return what `systemd-analyze verify` finds wrong with a unit, with a
    program that is there.
    """
    folder.mkdir(exist_ok=True)
    copy = folder / UNIT.name
    copy.write_text(unit.replace("/usr/bin/wok-exporter", sys.executable))
    done = tool("systemd-analyze", "verify", "--man=no", copy)
    # Other units of this machine may have faults of their own.
    return [line for line in (done.stdout + done.stderr).splitlines() if "wok-exporter" in line]


def test_systemd_understands_the_unit(tmp_path: Path) -> None:
    """`systemd-analyze verify` accepts the unit, and would detect a mistake."""
    text = UNIT.read_text()
    slip = text.replace("WatchdogSec=", "WatchdogSecs=")

    assert verified(text, tmp_path / "whole") == []
    assert any("WatchdogSecs" in line for line in verified(slip, tmp_path / "slip"))


def test_the_unit_is_hardened() -> None:
    """`systemd-analyze security` gives the unit an exposure of at most 2.0 of 10."""
    done = tool("systemd-analyze", "security", "--offline=true", f"--threshold={EXPOSURE_MAX * 10:.0f}", UNIT)
    exposure = re.search(r"exposure level for wok-exporter\.service: ([0-9.]+)", done.stdout)

    assert done.returncode == 0, done.stdout
    assert exposure is not None
    assert float(exposure[1]) <= EXPOSURE_MAX


def test_the_unit_runs_commands_that_there_are(tmp_path: Path) -> None:
    """The program accepts every command line in the unit."""
    commands = [line for name in ("ExecStartPre", "ExecStart", "ExecReload") for line in settings(name)]
    ours = {tuple(line.split()[1:]) for line in commands if line.startswith("/usr/bin/wok-exporter ")}
    (tmp_path / "no directory").touch()
    env = environ(WOK_EXPORTER_STATE=str(tmp_path / "no directory"), WOK_EXPORTER_INSTANCE="x")
    env["WOK_EXPORTER_LISTEN"] = "off"
    done = {arguments: run(*arguments, env=env) for arguments in ours}

    assert ours == {("run",), ("run", "--check-config")}
    assert done["run", "--check-config"].returncode == 0, done["run", "--check-config"].stderr
    assert "is not a directory; name another one for the state" in done["run",].stderr


def test_a_user_is_made(tmp_path: Path) -> None:
    """`systemd-sysusers` creates the unit's user and group, without a shell."""
    done = tool(
        "systemd-sysusers", "--dry-run", f"--root={tmp_path}", DEPLOY / "systemd" / "wok-exporter.sysusers"
    )

    assert done.returncode == 0, done.stderr
    assert f"Creating user '{settings('User')[0]}'" in done.stderr
    assert f"Creating group '{settings('Group')[0]}'" in done.stderr


def uncommented(text: str, pattern: str) -> list[str]:
    """Return the commented settings of a file."""
    return re.findall(rf"^#({pattern}.*)$", text, re.MULTILINE)


def test_the_configuration_file_as_it_comes(tmp_path: Path) -> None:
    """The file sets nothing. With every line uncommented, it is valid, complete, and changes
    nothing.
    """
    shipped = DEPLOY / "wok-exporter.toml"
    lines = uncommented(shipped.read_text(), "[a-z_]+ = ")
    whole = tmp_path / "whole.toml"
    whole.write_text("\n".join(lines))
    (tmp_path / "empty.toml").touch()
    shown = {
        path.name: run("run", "--check-config", "--config", path)
        for path in (shipped, whole, tmp_path / "empty.toml")
    }

    assert [line.split(" = ")[0] for line in lines] == list(OPTIONS)
    assert {name: done.returncode for name, done in shown.items()} == dict.fromkeys(shown, 0)
    assert shown[shipped.name].stdout == shown["empty.toml"].stdout
    assert values(shown["whole.toml"].stdout) == values(shown["empty.toml"].stdout)
    assert shown["whole.toml"].stdout.count("(default)") == 0


def values(effective: str) -> list[str]:
    return [line.rpartition("  (")[0] for line in effective.splitlines()]


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_the_variables_as_they_come(tmp_path: Path, protocol: str) -> None:
    """The file of variables sets nothing. With every line uncommented, it is valid."""
    text = (DEPLOY / "systemd" / "wok-exporter.env").read_text()
    certificates = make_certificates(tmp_path)
    files = {
        "ca.pem": certificates.ca,
        "client.pem": certificates.client,
        "client.key": certificates.client_key,
    }
    for name, path in files.items():
        text = text.replace(f"/etc/wok-exporter/{name}", str(path))
    variables = dict(line.split("=", 1) for line in uncommented(text, "OTEL_"))
    env = environ(**variables | {"OTEL_EXPORTER_OTLP_PROTOCOL": protocol, "WOK_EXPORTER_INSTANCE": "x"})
    done = run("run", "--check-config", env=env)
    wrong = run("run", "--check-config", env=env | {"OTEL_EXPORTER_OTLP_TIMEOUT": "soon"})

    assert [line for line in text.splitlines() if line and not line.startswith("#")] == []
    assert len(variables) == 11
    assert done.returncode == 0, done.stderr
    assert (wrong.returncode, "OTEL_EXPORTER_OTLP_TIMEOUT" in wrong.stderr) == (2, True)


def words(lines: Sequence[str]) -> set[str]:
    return {word for line in lines for word in line.split()}


def test_the_unit_lets_it_do_its_work() -> None:
    """The unit uses the installed files, the default state directory, and its own user."""
    assert settings("EnvironmentFile") == ["-/etc/default/wok-exporter"]
    assert f"/var/lib/{settings('StateDirectory')[0]}" == OPTIONS["state"].default
    assert settings("StateDirectoryMode") == ["0700"]
    assert settings("Type") == ["notify"]
    assert words(settings("RestartForceExitStatus")) == {"1", "2"}

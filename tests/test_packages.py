"""The packages without building them: scripts, files, C library, manual page, licenses."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
import yaml

from deploy.packages import frozen
from deploy.packages.copyright import copyright_page
from deploy.packages.glibc import glibc_needed
from deploy.packages.manual import manual_page
from exporter import __version__
from tests.program import ROOT, run

PACKAGES = ROOT / "deploy" / "packages"
SCRIPTS = sorted((PACKAGES / "scripts").glob("*.sh"))
BUILT = {
    *("program", "copyright", "wok-exporter.1.gz"),
    *("completion.bash", "completion.fish", "completion.zsh"),
}
"""Build results that build.py adds to the files of the checkout."""


def tool(name: str) -> str:
    """Return a program that is installed with the tests."""
    return str(Path(sys.executable).with_name(name))


def test_the_scripts_are_sound() -> None:
    """Shellcheck accepts the scripts that dpkg and rpm run as root."""
    told = subprocess.run([tool("shellcheck"), *SCRIPTS], capture_output=True, text=True, check=False)

    assert len(SCRIPTS) == 3
    assert told.stdout == ""


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
@pytest.mark.parametrize(
    "argument", ["configure", "remove", "upgrade", "abort-remove", "failed-upgrade", "0", "1", "2"]
)
def test_without_systemd_there_is_nothing_to_do(path: Path, argument: str, tmp_path: Path) -> None:
    """Without systemd (container, chroot), the scripts succeed for every caller."""
    done = subprocess.run(
        ["/bin/sh", path, argument], env={"PATH": str(tmp_path)}, capture_output=True, text=True, check=False
    )

    assert (done.returncode, done.stderr) == (0, "")


def test_every_file_of_the_packages_is_in_the_checkout() -> None:
    """Each source that nfpm.yaml names is in the checkout or is a build result."""
    described = yaml.safe_load((PACKAGES / "nfpm.yaml").read_text("utf-8"))
    sources = {entry["src"] for entry in described["contents"] if entry.get("type") != "symlink"}
    sources |= set(described["scripts"].values())

    assert [source for source in sources - BUILT if not (ROOT / source).exists()] == []
    assert sources >= BUILT


def test_what_an_administrator_edits_is_kept() -> None:
    """Exactly the files below /etc are configuration files."""
    described = yaml.safe_load((PACKAGES / "nfpm.yaml").read_text("utf-8"))

    for entry in described["contents"]:
        is_kept = entry.get("type") == "config|noreplace"
        assert is_kept == entry["dst"].startswith("/etc/"), entry["dst"]


def test_the_c_library_is_the_newest_that_is_asked_for(tmp_path: Path) -> None:
    """The required version is the newest that binutils finds in any file."""
    if shutil.which("readelf") is None:
        pytest.skip("readelf is not installed: apt install binutils")
    modules = sorted(Path(sysconfig.get_path("stdlib"), "lib-dynload").glob("_s*.so"))[:5]
    versions = set()
    for module in modules:
        shutil.copy(module, tmp_path)
        told = subprocess.run(["readelf", "-V", module], capture_output=True, text=True, check=True).stdout
        versions |= {tuple(map(int, found)) for found in re.findall(r"GLIBC_(\d+)\.(\d+)", told)}
    (tmp_path / "text").write_bytes(b"\0GLIBC_9.9\0")

    assert glibc_needed(tmp_path) == ".".join(map(str, max(versions)))


@pytest.fixture(name="manual", scope="module")
def _manual() -> str:
    return manual_page(Path(tool("wok-exporter")), __version__, "2026-11-25")


def test_the_manual_page_has_every_command(manual: str) -> None:
    """Every command has a section with its options in the manual page."""
    commands = re.findall(
        r"^## wok-exporter ([a-z-]+)$", (ROOT / "docs" / "commands.md").read_text("utf-8"), re.MULTILINE
    )

    assert len(commands) > 5
    assert re.findall(r"^\.SS (.+)$", manual, re.MULTILINE) == [name.replace("-", "\\-") for name in commands]
    assert "\\-\\-check\\-config" in manual


def test_the_manual_page_is_good_roff(manual: str) -> None:
    """The program man shows the program's help without a warning."""
    if shutil.which("man") is None or shutil.which("groff") is None:
        pytest.skip("man is not installed: apt install man-db groff-base")
    shown = subprocess.run(
        ["man", "--warnings", "--local-file", "-"],
        input=manual,
        env={"PATH": "/usr/bin:/bin", "MANWIDTH": "100", "LC_ALL": "C.UTF-8", "MAN_KEEP_FORMATTING": ""},
        capture_output=True,
        text=True,
        check=True,
    )

    assert shown.stderr == ""
    for line in run("--help").stdout.splitlines()[3:6]:
        assert line.strip() in shown.stdout


def test_a_license_that_is_missing_is_noticed(tmp_path: Path) -> None:
    """A package without a license text is an error; one with a text is listed with it."""
    metadata = tmp_path / "thing-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: thing\nVersion: 1.0\n")
    with pytest.raises(FileNotFoundError, match=r"thing 1\.0: .*no license text"):
        copyright_page(tmp_path)
    (metadata / "LICENSE").write_text("Do as you like.\n")

    assert re.search(r"^thing 1\.0\n=+\n\nDo as you like\.$", copyright_page(tmp_path), re.MULTILINE)


def test_a_package_starts_its_modules_as_an_interpreter_does() -> None:
    """The packaged program runs a module if it is called like `python -P -m`, else the command
    line.
    """
    program = [sys.executable, str(PACKAGES / "frozen.py")]
    version = subprocess.run([*program, "--version"], capture_output=True, text=True, check=False)
    # a second process whose parent has gone before it said anything
    ahead = subprocess.run(
        [*program, "-P", "-m", "exporter.pipeline.reader_process"],
        input=b"",
        capture_output=True,
        check=False,
    )

    assert version.stdout == f"wok-exporter {__version__}\n"
    assert b"EOFError" in ahead.stderr


@pytest.mark.parametrize("original", [None, "/opt/their/lib"])
def test_children_have_the_hosts_libraries(original: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loader's library path is removed for other programs, and set again for our own."""
    monkeypatch.setenv("LD_LIBRARY_PATH", "/usr/libexec/wok-exporter/lib")
    monkeypatch.delenv("LD_LIBRARY_PATH_ORIG", raising=False)
    monkeypatch.delenv("PYINSTALLER_RESET_ENVIRONMENT", raising=False)
    if original:
        monkeypatch.setenv("LD_LIBRARY_PATH_ORIG", original)
    frozen.give_back_library_path()

    assert os.environ.get("LD_LIBRARY_PATH") == original
    assert os.environ["PYINSTALLER_RESET_ENVIRONMENT"] == "1"

"""The wheel and the source distribution of `make dist`: what is in them, and that they work where nothing of the checkout is."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tarfile
import zipfile
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from exporter import __version__
from exporter.simulate.story import story
from tests.program import ROOT, environ

UV = Path(sys.executable).with_name("uv")
BUILD_SECONDS = 300


@dataclass(frozen=True, slots=True)
class Distributions:
    """What `make dist` has made."""

    wheel: Path
    sdist: Path


def done(*command: object, cwd: Path) -> str:
    """Run a program to its end and return what it prints."""
    ended = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**environ(), "PYTHONPATH": ""},
        capture_output=True,
        text=True,
        check=False,
        timeout=BUILD_SECONDS,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def built(source: Path, folder: Path, *which: str) -> None:
    """Build distributions of a source tree as `make dist` does."""
    done(UV, "build", "--quiet", *which, "--out-dir", folder, source, cwd=folder.parent)


@pytest.fixture(name="distributions", scope="module")
def _distributions(tmp_path_factory: pytest.TempPathFactory) -> Distributions:
    folder = tmp_path_factory.mktemp("dist")
    built(ROOT, folder)
    (wheel,) = folder.glob("*.whl")
    (sdist,) = folder.glob("*.tar.gz")
    return Distributions(wheel, sdist)


def test_their_names_say_what_they_are(distributions: Distributions) -> None:
    """Both carry the program's version, and the wheel is for every machine."""
    assert distributions.wheel.name == f"wok_exporter-{__version__}-py3-none-any.whl"
    assert distributions.sdist.name == f"wok_exporter-{__version__}.tar.gz"


def test_the_wheel_is_the_package_and_nothing_else(distributions: Distributions) -> None:
    """The wheel holds every file of the package and the runbooks, byte for byte, and beside them its metadata alone."""
    package = {
        str(path.relative_to(ROOT)): path.read_bytes()
        for path in (ROOT / "exporter").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    package |= {
        f"exporter/web/runbooks/{path.name}": path.read_bytes()
        for path in (ROOT / "docs" / "runbooks").iterdir()
    }
    with zipfile.ZipFile(distributions.wheel) as wheel:
        held = {name: wheel.read(name) for name in wheel.namelist() if ".dist-info/" not in name}

    assert held == package


def test_the_source_distribution_is_whole(distributions: Distributions) -> None:
    """The source distribution holds what is deployed, the documentation and the tests, and builds the very same wheel."""
    folder = distributions.sdist.parent
    with tarfile.open(distributions.sdist) as sdist:
        sdist.extractall(folder / "sources", filter="data")
    (source,) = (folder / "sources").iterdir()
    for part in ("deploy", "docs", "tests", "exporter"):
        ours = {
            str(path.relative_to(ROOT))
            for path in (ROOT / part).rglob("*")
            if path.is_file() and "__pycache__" not in path.parts
        }
        theirs = {str(path.relative_to(source)) for path in (source / part).rglob("*") if path.is_file()}
        assert ours - theirs == set()
    for name in ("Makefile", "README.md", "LICENSE", "CHANGELOG.md", "pyproject.toml", "uv.lock"):
        assert (source / name).read_bytes() == (ROOT / name).read_bytes()

    built(source, folder / "again", "--wheel")
    (again,) = (folder / "again").glob("*.whl")
    assert (
        hashlib.sha256(again.read_bytes()).digest()
        == hashlib.sha256(distributions.wheel.read_bytes()).digest()
    )


def test_the_wheel_works_in_an_environment_of_its_own(distributions: Distributions, tmp_path: Path) -> None:
    """Installed with nothing but what it asks for, it understands a log, and the demo runs to its end."""
    home = tmp_path / "home"
    done(UV, "venv", "--quiet", "--python", sys.executable, home, cwd=tmp_path)
    constraints = tmp_path / "constraints.txt"
    exported = done(
        *(UV, "export", "--quiet", "--frozen", "--no-dev", "--no-emit-project", "--no-hashes"),
        *("--project", ROOT),
        cwd=tmp_path,
    )
    constraints.write_text(exported)
    install = (UV, "pip", "install", "--quiet", "--python", home, "--constraints", constraints)
    done(*install, distributions.wheel, cwd=tmp_path)
    program = home / "bin" / "wok-exporter"
    begin = datetime(2026, 11, 25, 9, 0, 0, tzinfo=UTC)
    log = tmp_path / "user-requests.data"
    log.write_bytes(
        b"".join(line.data + b"\n" for line in story("json", start=begin) if line.log == "requests")
    )

    assert done(program, "--version", cwd=tmp_path) == f"wok-exporter {__version__}\n"
    assert "can be parsed" in done(program, "check", log, "--timezone", "UTC", cwd=tmp_path)
    assert "failed" in done(program, "tasks", log, "--timezone", "UTC", cwd=tmp_path)
    assert "vms.clone" in done(program, "demo", cwd=tmp_path)

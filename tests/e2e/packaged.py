"""The packages as tests take them: built anew by `make packages`, unpacked on a host with nothing but a C library, inspected."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.program import ROOT, Running, environ

NEEDED = {"make": "make", "readelf": "binutils", "dpkg-deb": "dpkg", "rpm": "rpm"}
"""What builds and inspects the packages, and the Debian packages that bring it."""
C_LIBRARY = re.compile(r"(lib(c|m|dl|pthread|rt|util|resolv)|ld-linux[-\w]*|ld64)\.so\.\d+")
SOURCE_DATE_EPOCH = "1790000000"
"""Else it is the time of the last commit, and a source distribution has none."""
BUILD_SECONDS = 600
RUN_SECONDS = 120


@dataclass(frozen=True, slots=True)
class Packages:
    """What one `make packages` has made."""

    deb: Path
    rpm: Path


def build(folder: Path, release: int) -> Packages:
    """Build both packages into a folder; skip the test if a tool is missing."""
    absent = [package for program, package in NEEDED.items() if shutil.which(program) is None]
    if absent:
        pytest.skip(f"what packages are built and inspected with is missing: apt install {' '.join(absent)}")
    done = subprocess.run(
        ["make", "packages", f"RELEASE={release}", f"DIST={folder}"],
        cwd=ROOT,
        env={**os.environ, "SOURCE_DATE_EPOCH": SOURCE_DATE_EPOCH},
        capture_output=True,
        text=True,
        check=False,
        timeout=BUILD_SECONDS,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (deb,) = folder.glob("*.deb")
    (rpm,) = folder.glob("*.rpm")
    return Packages(deb, rpm)


def output(*command: object) -> str:
    """Run a program to its end and return what it prints."""
    done = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, check=True, timeout=RUN_SECONDS
    )
    return done.stdout


def programs(tree: Path) -> list[Path]:
    """Return the ELF files below a directory."""
    return [
        path
        for path in sorted(tree.rglob("*"))
        if path.is_file() and not path.is_symlink() and path.read_bytes().startswith(b"\x7fELF")
    ]


class Bare:
    """A root with what a package holds, the libraries it depends on, and nothing else: no Python, not even a shell."""

    def __init__(self, root: Path, deb: Path) -> None:
        self.root = root
        output("dpkg-deb", "--extract", deb, root)
        self.unpacked = sorted(root.rglob("*"))
        for folder in ("dev", "proc", "tmp"):
            (root / folder).mkdir()
        output("mknod", "-m", "666", root / "dev" / "null", "c", "1", "3")
        output("mknod", "-m", "666", root / "dev" / "urandom", "c", "1", "9")
        for library in self._libraries():
            copy = root / library.relative_to("/")
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(library, copy)

    def _libraries(self) -> set[Path]:
        """Return the files of libc6 and zlib1g that a program finds on this machine, and the loader by its fixed path."""
        found = set()
        for line in output("ldconfig", "-p").splitlines():
            name, _, where = line.partition(" => ")
            soname = name.split()[0] if name.split() else ""
            if where and (C_LIBRARY.fullmatch(soname) or soname == "libz.so.1"):
                found.add(Path(where))
        loader = re.search(
            r"interpreter: ([^]]+)\]",
            output("readelf", "--program-headers", self.root / "usr/libexec/wok-exporter/wok-exporter"),
        )
        assert loader is not None
        return found | {Path(loader[1])}

    def command(self, *arguments: object) -> list[str]:
        """Return how the packaged program is started in this root."""
        return ["chroot", str(self.root), "/usr/bin/wok-exporter", *map(str, arguments)]

    def run(self, *arguments: object, env: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
        """Run the packaged program to its end."""
        return subprocess.run(
            self.command(*arguments),
            env=env,
            capture_output=True,
            text=True,
            check=False,
            timeout=RUN_SECONDS,
        )

    @contextmanager
    def running(self, *arguments: object, said: Path) -> Iterator[Running]:
        """Start the packaged program, to be watched, and kill it at the end if it still runs; `said` takes its stderr."""
        with (
            said.open("wb") as stderr,
            subprocess.Popen(
                self.command(*arguments),
                env=environ(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
            ) as process,
        ):
            try:
                yield Running(process, said, "")
            finally:
                process.kill()


def needs_root() -> None:
    """Skip the test unless it runs as root, who alone may change its root directory."""
    if os.geteuid() != 0:
        pytest.skip("a root directory of its own needs root: sudo make e2e")

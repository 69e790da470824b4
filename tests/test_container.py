"""The Dockerfile, checked without building it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from tests.program import ROOT

DOCKERFILE = ROOT / "deploy" / "container" / "Dockerfile"


def test_hadolint_finds_nothing() -> None:
    """Hadolint, with shellcheck for its commands, accepts the Dockerfile."""
    hadolint = Path(sys.executable).with_name("hadolint")
    told = subprocess.run([hadolint, DOCKERFILE], capture_output=True, text=True, check=False)

    assert (told.returncode, told.stdout) == (0, "")


def test_it_is_built_with_the_checkouts_own_tool() -> None:
    """The image uses the same version of uv as the Makefile, because it reads the same lock."""
    (made,) = re.findall(r"^UV_VERSION := (\S+)$", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)

    assert f'"uv=={made}"' in DOCKERFILE.read_text("utf-8")

"""Compiles the modules that every line passes through, with mypyc: a build hook for wheels.

    HATCH_BUILD_HOOK_ENABLE_CUSTOM=1 uv build --wheel    a wheel for this platform and this Python
    python -m deploy.packages.compiled DIRECTORY         compile in place, in a copy of the checkout

The source is the same: mypyc compiles the typed modules that `pyproject.toml` names. A compiled
wheel also has their sources. An interpreter that the compiled modules do not fit uses these. The
output is byte-identical either way: `make test-compiled` runs all tests on compiled modules.

Without the variable, a wheel is pure Python and fits every platform.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import tomllib
from collections.abc import Iterable
from contextlib import chdir
from importlib.metadata import files
from pathlib import Path
from typing import Any

from hatchling.builders.config import BuilderConfig
from hatchling.builders.hooks.plugin.interface import BuildHookInterface

GROUP = "exporter"
"""The name of the library that the compiled modules share: exporter__mypyc."""


class CompileHook(BuildHookInterface[BuilderConfig]):
    """The hook that hatchling calls. It is off by default."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Add compiled modules to a wheel."""
        if version == "editable":
            return
        self._folder = tempfile.TemporaryDirectory()
        libraries = compiled(Path(self.root), self.config["modules"], Path(self._folder.name))
        build_data["force_include"] |= {str(path): str(name) for name, path in libraries.items()}
        # The libraries contain mypyc's runtime.
        text = next(file for file in files("mypy") or () if file.match("*.dist-info/licenses/LICENSE"))
        build_data["extra_metadata"][str(text.locate())] = "LICENSE.mypyc"
        build_data["pure_python"] = False
        build_data["infer_tag"] = True

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:  # noqa: ARG002
        """Remove what was compiled."""
        if version != "editable":
            self._folder.cleanup()


def compiled(root: Path, patterns: Iterable[str], folder: Path) -> dict[Path, Path]:
    """Compile the modules below `root` that match a pattern, into `folder`.

    Return the libraries by their path in a wheel.
    """
    # Both are only installed where something is compiled.
    from mypyc.build import mypycify  # noqa: PLC0415
    from setuptools import Distribution  # noqa: PLC0415

    found = sorted({path for pattern in patterns for path in root.glob(pattern)})
    modules = [str(path.relative_to(root)) for path in found if path.name != "__init__.py"]
    output = folder / "libraries"
    with chdir(root):
        options = ["--config-file=", f"--cache-dir={os.devnull}"]
        extensions = mypycify(
            [*options, *modules],
            opt_level="2",
            debug_level="0",
            group_name=GROUP,
            target_dir=str(folder / "sources"),
        )
        distribution = Distribution({"name": GROUP, "ext_modules": extensions})
        command: Any = distribution.get_command_obj("build_ext")
        command.build_lib, command.build_temp = str(output), str(folder / "objects")
        distribution.run_command("build_ext")
    return {path.relative_to(output): path for path in sorted(output.rglob("*.so"))}


def main() -> None:
    """Compile in place."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("directory", type=Path, help="a copy of the checkout")
    root = parser.parse_args().directory.absolute()
    settings = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))
    hook = settings["tool"]["hatch"]["build"]["targets"]["wheel"]["hooks"]["custom"]
    with tempfile.TemporaryDirectory() as folder:
        for name, path in compiled(root, hook["modules"], Path(folder)).items():
            shutil.copy(path, root / name)
            sys.stdout.write(f"{name}\n")


if __name__ == "__main__":
    main()

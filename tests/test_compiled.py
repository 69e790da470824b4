"""The modules that packages compile: named, built by the locked mypyc, and without what it translates differently.

`make test-compiled` runs all other tests on compiled modules.
"""

from __future__ import annotations

import ast
import tomllib
from pathlib import Path

from deploy.packages.compiled import GROUP

ROOT = Path(__file__).parents[1]
HOOK = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["hatch"]["build"]["targets"][
    "wheel"
]["hooks"]["custom"]
MODULES = sorted(path for pattern in HOOK["modules"] for path in ROOT.glob(pattern))


def test_every_pattern_names_a_module() -> None:
    """A module that was renamed is compiled under its new name, or removed from the list."""
    assert [pattern for pattern in HOOK["modules"] if not any(ROOT.glob(pattern))] == []


def test_the_tested_compiler_builds_the_packages() -> None:
    """The version of mypyc that builds wheels is the locked one, which the tests of compiled modules run with."""
    packages = tomllib.loads((ROOT / "uv.lock").read_text("utf-8"))["package"]
    locked = next(package["version"] for package in packages if package["name"] == "mypy")

    assert f"mypy=={locked}" in HOOK["dependencies"]


def test_the_library_has_a_name_of_its_own() -> None:
    """The copyright page and PyInstaller know the shared library of compiled modules by its name."""
    for name in ("copyright.py", "wok-exporter.spec"):
        assert f'"{GROUP}__mypyc"' in (ROOT / "deploy" / "packages" / name).read_text("utf-8")


def test_no_integer_is_divided() -> None:
    """Compiled modules do not divide by `/`, other than paths: compiled, it rounds large integers to floats first."""
    divided = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.BinOp | ast.AugAssign)
        and isinstance(node.op, ast.Div)
        and not (
            isinstance(node, ast.BinOp)
            and isinstance(node.right, ast.Constant)
            and isinstance(node.right.value, str)
        )
    ]

    assert divided == []


def test_a_slice_of_bytes_does_not_end_before_it_begins() -> None:
    """Slices of bytes with an end that is computed have this end after the beginning: others raise an error when
    compiled.
    """
    known = {
        "data[start:max(proved, start)]",
        "data[at:at + CONTEXT_BYTES]",
        "encoded[at:found]",  # `found` is searched from `at` on
    }
    found = {
        ast.unparse(node)
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Subscript)
        and isinstance(node.slice, ast.Slice)
        and node.slice.lower is not None
        and node.slice.upper is not None
        and not isinstance(node.slice.upper, ast.Constant)
        and ast.unparse(node.value) in {"data", "encoded", "message", "context", "line", "payload", "rest"}
    }

    assert found <= known, found - known

"""The house rules that a machine can check: the arrows, the lock, the docs, and what must never be committed."""

from __future__ import annotations

import ast
import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from docs.pages import DOCS, PAGES
from exporter.telemetry.mapping import SCOPE_NAME

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "exporter"

# What each part may import of the others: the data flows one way (DESIGN.md). `records` are the values that
# pass between the parts, `ids` the ids, `otlp_encoding` the wire format, `wok` the facts about Wok.
ARROWS: dict[str, set[str]] = {
    "records": set(),
    "ids": set(),
    "otlp_encoding": set(),
    "source": {"records"},
    "parse": {"records"},
    "wok": {"records", "parse", "otlp_encoding"},
    "correlate": {"records", "ids", "wok"},
    "telemetry": {"records", "ids", "otlp_encoding", "wok"},
    "store": {"records"},
    "config": {"records", "parse"},
    "metrics": {"records", "store", "http"},
    "pipeline": {"records", "config", "source", "parse", "wok", "correlate", "telemetry", "metrics", "store"},
    "deliver": {"records", "store", "otlp_encoding"},
    "http": set(),
    "web": {"records", "store", "http"},
    "terminal": {"records", "store"},
    "simulate": {"records"},
    "daemon": {
        "records",
        "config",
        "source",
        "wok",
        "telemetry",
        "pipeline",
        "store",
        "deliver",
        "metrics",
        "http",
        "web",
    },
}


def sources() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def part_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(path: Path) -> Iterator[str]:
    """All modules that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{name.name}" for name in node.names)


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_the_arrows_point_one_way(path: Path) -> None:
    """No part imports one that is downstream of it, or beside it."""
    part = part_of(path)
    if part not in ARROWS:
        assert part in {"command", "cli", "__init__", "__main__"}
        return
    used = {name.split(".")[1] for name in imported(path) if re.match(r"exporter\.\w", name)}

    assert used - {part, "__version__"} <= ARROWS[part]


@pytest.mark.parametrize(
    ("package", "only"),
    [
        ("opentelemetry", {"config/otel_names.py", "deliver/otlp_env.py", "deliver/responses.py"}),
        ("prometheus_client", {"metrics/scrape.py"}),
        (
            "sqlite3",
            {
                "store/database.py",
                "store/writer.py",
                "store/history.py",
                "store/journal.py",
                "store/migrations.py",
                "store/older.py",
                "store/repair.py",
                "store/salvage.py",
                "store/reader.py",
                "store/search.py",
            },
        ),
    ],
)
def test_packages_stay_where_they_are_used(package: str, only: set[str]) -> None:
    """Each outer package is known to the part whose business it is, and to no other."""
    users = {
        str(path.relative_to(PACKAGE))
        for path in sources()
        if any(name == package or name.startswith(package + ".") for name in imported(path))
    }

    assert users <= only


def test_every_test_says_what_it_proves() -> None:
    """Every test function has a docstring of one sentence."""
    silent = []
    for path in sorted((ROOT / "tests").glob("test_*.py")):
        silent += [
            f"{path.name}:{node.lineno} {node.name}"
            for node in ast.walk(ast.parse(path.read_text("utf-8")))
            if isinstance(node, ast.FunctionDef)
            and node.name.startswith("test_")
            and not ast.get_docstring(node)
        ]

    assert silent == []


def test_the_lock_names_public_hosts_alone() -> None:
    """Whoever locks, with whatever index, the lock names pypi.org and files.pythonhosted.org."""
    hosts = set(re.findall(r"https?://[^/\"]+", (ROOT / "uv.lock").read_text("utf-8")))

    assert hosts == {"https://pypi.org", "https://files.pythonhosted.org"}


def tracked() -> list[Path]:
    answer = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if answer.returncode:
        pytest.skip("not a git checkout")
    return [ROOT / name for name in answer.stdout.split("\0") if name and (ROOT / name).is_file()]


def test_no_path_of_a_machine_is_committed() -> None:
    """Nothing tracked names a directory of whoever wrote it."""
    pattern = re.compile(r"(^|[^\w.-])/(work|farm|root)/", re.MULTILINE)
    found = [
        f"{path.relative_to(ROOT)}: {match[0]}"
        for path in tracked()
        if path.suffix != ".lock" and (match := pattern.search(path.read_text("utf-8", "replace")))
    ]

    assert found == []


@pytest.mark.parametrize("name", sorted(PAGES))
def test_generated_pages_are_current(name: str) -> None:
    """docs/ says what the program says of itself; `make docs` writes it anew."""
    assert (DOCS / name).read_text("utf-8") == PAGES[name]()


def test_links_in_the_docs_lead_somewhere() -> None:
    """Every relative link in README, DESIGN and docs/ names a file that is there."""
    pages = [ROOT / "README.md", ROOT / "DESIGN.md", *DOCS.glob("*.md")]
    broken = [
        f"{page.name}: {target}"
        for page in pages
        for target in re.findall(r"\]\((?!https?://|#)([^)#]+)", page.read_text("utf-8"))
        if not (page.parent / target).exists()
    ]

    assert broken == []


def test_files_named_in_the_docs_exist() -> None:
    """Where DESIGN.md or CONTRIBUTING.md names a module of the package, there is one."""
    text = (ROOT / "DESIGN.md").read_text("utf-8") + (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    names = set(re.findall(r"`(\w+\.(?:py|tsv))`", text))
    there = {path.name for path in (*PACKAGE.rglob("*"), *(ROOT / "tests").glob("*.py"))}

    assert names - there == set()


def test_distribution_command_and_package_have_their_names() -> None:
    """The distribution and the command are `wok-exporter`, the package is `exporter`."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]

    assert (project["name"], project["scripts"]) == (SCOPE_NAME, {SCOPE_NAME: "exporter.__main__:main"})

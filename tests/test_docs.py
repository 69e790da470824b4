"""The documentation: readable, with names that exist and commands that are accepted."""

from __future__ import annotations

import json
import re
import shlex
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from docs.console import ENVIRON, EXAMPLE, output
from exporter.cli import COMMANDS
from exporter.command.parser import parse
from exporter.config.options import OPTIONS
from exporter.deliver.remedies import _REMEDIES as REMEDIES
from exporter.metrics.definitions import FAMILIES

ROOT = Path(__file__).parents[1]
COLUMNS_MAX = 100
SCREEN_LINES = 60
README_LINES_MAX = 150
IMAGE_BYTES_MAX = 200_000
COMMENTED = (".yaml", ".yml", ".toml", ".service", ".env", ".sysusers", "Dockerfile", ".j2")
"""Files in whose comments operators read; generated and locked ones included."""
KEPT_LONG = re.compile(r"https?://\S+|\]\([^)]*\)")


def tracked(pattern: str) -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", pattern],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if listed.returncode != 0:
        pytest.skip("not a git checkout: the pages cannot be listed")
    return [ROOT / name for name in listed.stdout.splitlines() if (ROOT / name).is_file()]


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


PAGES = sorted({*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "deploy").rglob("*.md")})


def prose(text: str) -> Iterator[tuple[int, str]]:
    """Yield the numbered lines of a page that are neither code nor a table."""
    is_code = False
    for number, line in enumerate(text.splitlines(), 1):
        if line.lstrip().startswith("```"):
            is_code = not is_code
        elif not is_code and not line.startswith("|"):
            yield number, line


def headings(text: str) -> list[str]:
    return [line for _, line in prose(text) if line.startswith("#")]


def anchor(heading: str) -> str:
    """Return the fragment that GitHub gives a heading."""
    title = heading.lstrip("#").strip().lower().replace(" ", "-")
    return "".join(c for c in title if c.isalnum() or c in "-_")


def commands_of(text: str) -> Iterator[str]:
    """Yield the command lines of a page's shell and console blocks, continuation lines joined."""
    for block in re.findall(r"^ *```(?:sh|console)\n(.*?)^ *```", text, re.MULTILINE | re.DOTALL):
        lines = block.replace("\\\n", " ").splitlines()
        if lines and lines[0].startswith("$ "):
            yield lines[0][2:]
        else:
            yield from map(str.strip, lines)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_prose_wraps(page: Path) -> None:
    """Prose has at most 100 columns; tables, code and the targets of links may be longer."""
    long = [
        f"{number}: {line}"
        for number, line in prose(page.read_text("utf-8"))
        if len(KEPT_LONG.sub("", line)) > COLUMNS_MAX
    ]

    assert long == []


def test_comments_of_configuration_files_wrap() -> None:
    """Comments in YAML, TOML, units and the like have at most 100 columns,
    unless a URL is longer.
    """
    long = [
        f"{name_of(path)}:{number}"
        for path in (*tracked("deploy"), *tracked(".ci"))
        if path.name.endswith(COMMENTED)
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1)
        if line.lstrip().startswith("# ") and len(KEPT_LONG.sub("", line)) > COLUMNS_MAX
    ]

    assert long == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_long_pages_have_contents(page: Path) -> None:
    """A page with more than a screen of prose lists all sections before the first one."""
    text = page.read_text("utf-8")
    sections = [line for line in headings(text) if re.match("## [^#]", line)]
    if len(list(prose(text))) <= SCREEN_LINES or len(sections) < 3:
        return
    before = text.partition(f"\n{sections[0]}\n")[0]

    assert [one for one in sections if f"](#{anchor(one)})" not in before] == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    """Every relative link names a file that exists, and its fragment a heading of that page."""
    broken = []
    for target in re.findall(r"\]\((?!https?://)([^)]+)\)", page.read_text("utf-8")):
        path, _, fragment = target.partition("#")
        other = page.parent / path if path else page
        if not other.exists() or (
            fragment and fragment not in map(anchor, headings(other.read_text("utf-8")))
        ):
            broken.append(target)

    assert broken == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_our_commands_are_accepted(page: Path) -> None:
    """Every wok-exporter command in the docs parses, and every make target exists."""
    makefile = (ROOT / "Makefile").read_text("utf-8")
    targets = set(re.findall(r"^([a-z0-9-]+):", makefile, re.MULTILINE))
    text = page.read_text("utf-8")
    for line in commands_of(text):
        words = shlex.split(line.partition(" | ")[0], comments=True)
        while words and re.match(r"[A-Z_]+=", words[0]):
            words.pop(0)
        if words[:1] == ["wok-exporter"] and "--help" not in words and "--version" not in words:
            parse(COMMANDS, words[1:])
        if words[:1] == ["make"]:
            assert {word for word in words[1:] if "=" not in word} <= targets, line
    for target in re.findall(r"`make ([a-z0-9-]+)", text):
        assert target in targets


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_names_in_the_docs_exist(page: Path) -> None:
    """Every WOK_EXPORTER_ variable, setting of an example, and metric exists."""
    text = page.read_text("utf-8")
    known = {option.variable for option in OPTIONS.values()} | {"WOK_EXPORTER_CONFIG"}
    metrics = {family.name for family in FAMILIES}
    metrics |= {f"{name}_{part}" for name in metrics for part in ("bucket", "sum", "count")}
    settings = {
        line.partition("=")[0].strip()
        for block in re.findall(r"^```toml\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
        for line in block.splitlines()
    }

    assert set(re.findall(r"\bWOK_EXPORTER_[A-Z_]+[A-Z]\b", text)) <= known
    assert (
        set(re.findall(r"(?<![\w:-])wok_(?:exporter|task|tasks|requests)_[a-z_]+\b(?![:*])", text)) <= metrics
    )
    assert settings <= OPTIONS.keys()


def test_the_readme_is_short_and_in_order() -> None:
    """The README fits on a few screens, and goes from installing over a first
    look to many hosts.
    """
    text = (ROOT / "README.md").read_text("utf-8")
    sections = [line.removeprefix("## ") for line in headings(text) if line.startswith("## ")]
    order = ["Install", "First look", "Run", "Jaeger", "Prometheus", "Many hosts"]

    assert len(text.splitlines()) <= README_LINES_MAX
    assert all(section.startswith(start) for section, start in zip(sections, order, strict=False))
    # what CI runs
    assert "`make test`" in text


def test_the_screenshots_are_small_images() -> None:
    """The README shows one image of the page and one of the terminal, as PNG files of a readable
    size.
    """
    names = re.findall(r"!\[[^\]]+\]\((docs/images/[^)]+)\)", (ROOT / "README.md").read_text("utf-8"))

    assert names == ["docs/images/page.png", "docs/images/terminal.png"]
    for name in names:
        data = (ROOT / name).read_bytes()
        width, height = struct.unpack(">II", data[16:24])
        assert data.startswith(b"\x89PNG")
        assert len(data) <= IMAGE_BYTES_MAX
        assert 600 <= width <= 1600
        assert height <= 1000


def test_the_index_has_every_page() -> None:
    """docs/README.md links to every page of docs/, and to every README of deploy/."""
    index = (ROOT / "docs/README.md").read_text("utf-8")
    pages = {page.name for page in (ROOT / "docs").glob("*.md")} - {"README.md"}
    readmes = {f"../{name_of(page)}" for page in (ROOT / "deploy").rglob("README.md")}

    assert {name for name in pages | readmes if f"]({name})" not in index} == set()


def keys_of(value: object) -> set[str]:
    """Return the keys at the upper two levels of what a command prints as JSON."""
    found: set[str] = set()
    for one in value if isinstance(value, list) else [value]:
        assert isinstance(one, dict)
        found |= one.keys()
    return found


@pytest.mark.parametrize(
    ("section", "command"),
    [
        ("check", "wok-exporter check docs/sample/user-requests.data --json"),
        ("tasks", "wok-exporter tasks docs/sample/user-requests.data --json"),
        ("doctor", "wok-exporter doctor --log docs/sample/user-requests.data --listen off --json"),
        ("trace", "wok-exporter trace /plugins/kimchi/vms/db01/migrate --file docs/sample/user-requests.data --json"),
    ],
)  # fmt: skip
def test_every_field_of_the_json_is_described(section: str, command: str) -> None:
    """docs/commands.md explains every field that a command prints with --json."""
    text = (ROOT / "docs/commands.md").read_text("utf-8")
    part = text.partition(f"\n## wok-exporter {section}\n")[2].partition("\n## ")[0]
    described = set(re.findall(r"`([a-z_]+)`", EXAMPLE.sub("", part)))

    assert keys_of(json.loads(output(command))) <= described


def test_examples_do_not_depend_on_this_host() -> None:
    """The examples run without the environment and the settings of this host."""
    assert ENVIRON["WOK_EXPORTER_CONFIG"] == "/dev/null"
    assert output("wok-exporter --version | tr a-z A-Z").startswith("WOK-EXPORTER ")
    assert "HOME" not in ENVIRON


def places() -> list[tuple[str, str, str]]:
    """Return the rows of CONTRIBUTING.md that name a place: what to change, the file, what to look
    for.
    """
    text = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    rows = re.findall(r"^\| ([^|]*) \| \[[^\]]+\]\(([^)]+)\)[^|]* \| `([^`]+)` \|$", text, re.MULTILINE)
    found: list[tuple[str, str, str]] = []
    for change, file, symbol in rows:
        found.append((change.strip() or found[-1][0], file, symbol))
    return found


def test_the_places_of_changes_are_few() -> None:
    """CONTRIBUTING.md names at most two files for each of the ten common changes."""
    files: dict[str, list[str]] = {}
    for change, file, _ in places():
        files.setdefault(change, []).append(file)

    assert len(files) == 10
    assert max(map(len, files.values())) <= 2


@pytest.mark.parametrize(("change", "file", "symbol"), places())
def test_the_places_of_changes_exist(change: str, file: str, symbol: str) -> None:
    """Every file that CONTRIBUTING.md names exists and contains the name in the last column."""
    assert re.search(rf"\b{re.escape(symbol)}\b", (ROOT / file).read_text("utf-8")), f"{change}: {symbol}"


def test_every_delivery_problem_has_a_remedy_in_the_docs() -> None:
    """The runbook and the troubleshooting page name every reason that has a remedy of its own."""
    for page in ("docs/runbooks/WokExporterBackendNotTaking.md", "docs/troubleshooting.md"):
        text = (ROOT / page).read_text("utf-8")
        assert {reason for reason in REMEDIES if f"`{reason}`" not in text} == set(), page


@pytest.mark.parametrize(
    ("metric", "page"),
    [
        ("wok_exporter_rejected_lines_total", "WokLogFormatNotUnderstood"),
        ("wok_exporter_lost_records_total", "WokExporterRecordsGivenUp"),
        ("wok_exporter_reading_problem", "WokExporterLogNotRead"),
        ("wok_exporter_rejected_by_backend_total", "WokExporterRecordsRejected"),
    ],
)
def test_the_runbook_names_every_reason(metric: str, page: str) -> None:
    """A runbook explains every known value of the label that says what is wrong."""
    text = (ROOT / f"docs/runbooks/{page}.md").read_text("utf-8")
    (family,) = (family for family in FAMILIES if family.name == metric)

    assert family.known
    assert {values[-1] for values in family.known if f"`{values[-1]}`" not in text} == set()

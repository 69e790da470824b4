"""Reads the message tables of the host's Wok and plug-ins: the file `i18n.py` of each.

These files can be of any age, for Python 2 or 3. They belong to the host, so they are parsed as
data, never executed or imported. Python 3 can parse every revision of these files in the history of
Wok and its plug-ins. A file that cannot be parsed is skipped, with the reason.
"""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

from exporter.wok.operations import CODE

TEXT_CHARS = 4096
"""The longest sentence. The longest real ones contain the output of a package manager."""

FILE_BYTES = 1 << 20
"""The largest file that is read. The largest table of Wok has 60 kB."""

FILES = 100
"""How many files are read. A host has about five."""

TABLE_PATTERNS = ("i18n.py", "*/i18n.py", "plugins/*/i18n.py", "wok/plugins/*/i18n.py")
"""Tables in the directory of a plug-in, of Wok, of a source tree, or of Python packages."""

PREFIXES = (Path("/usr/local"), Path("/usr"))
"""The prefixes of manual installations and of packages."""

DIGITS = re.compile(r"[0-9]+")


def tables_in(paths: Sequence[Path]) -> tuple[dict[str, str], list[str]]:
    """Return the templates in these files, and in directories that contain Wok or a plug-in.

    They are by code. If several files contain a code, the first one is used. Files that are
    missing, unreadable, too large or not Python do not raise an exception: they are skipped. The
    second value has a sentence for each.
    """
    templates: dict[str, str] = {}
    problems: list[str] = []

    files: list[Path] = []
    for path in paths:
        try:
            files += _tables(path)
        except OSError as e:
            problems.append(f"{path}: cannot look for message tables: {e.strerror}")
    if len(files) > FILES:
        problems.append(f"{len(files) - FILES} message tables more than {FILES} are left out")

    for file in files[:FILES]:
        try:
            for code, text in _entries(file):
                templates.setdefault(code, text)
        except (OSError, SyntaxError, ValueError, RecursionError, MemoryError) as e:
            reason = e.strerror if isinstance(e, OSError) else e
            problems.append(f"{file}: no message table: {reason or type(e).__name__}")
    return templates, problems


def default_paths(prefixes: Sequence[Path] = PREFIXES) -> list[Path]:
    """Return the tables of the installed Wok, those of the newest Python first."""
    libraries = [
        library
        for prefix in prefixes
        for pattern in ("lib/python*/dist-packages", "lib/python*/site-packages")
        for library in _found(prefix, pattern)
    ]
    libraries.sort(key=_python_version, reverse=True)

    return [
        table
        for library in libraries
        for pattern in ("wok/i18n.py", "wok/plugins/*/i18n.py")
        for table in _found(library, pattern)
    ]


def _found(folder: Path, pattern: str) -> list[Path]:
    """Return the matching files in a folder; empty if the folder cannot be read."""
    try:
        return sorted(folder.glob(pattern))
    except OSError:
        return []


def _tables(path: Path) -> Iterator[Path]:
    if not path.is_dir():
        yield path
        return

    found = False
    for pattern in TABLE_PATTERNS:
        for table in sorted(path.glob(pattern)):
            found = True
            yield table

    if not found:
        # Reading the missing file reports it.
        yield path / "i18n.py"


def _entries(path: Path) -> Iterator[tuple[str, str]]:
    if path.exists() and not path.is_file():
        # Opening a pipe would block until somebody writes to it.
        raise ValueError("not a regular file")

    with path.open("rb") as file:
        source = file.read(FILE_BYTES + 1)
    if len(source) > FILE_BYTES:
        raise ValueError(f"larger than {FILE_BYTES} bytes")

    with warnings.catch_warnings():
        # The strings may contain invalid escapes.
        warnings.simplefilter("ignore")
        tree = ast.parse(source)

    for node in ast.walk(tree):
        if isinstance(node, ast.Dict):
            for key, value in zip(node.keys, node.values, strict=True):
                code, text = _constant(key), _constant(value)
                if code is not None and text is not None and CODE.fullmatch(code):
                    yield code, text[:TEXT_CHARS]


def _constant(node: ast.expr | None) -> str | None:
    # A text, `_("text")` with any function name, "text" + "text", or "text %s" % "word".
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.Call(args=[argument, *_]):
            return _constant(argument)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            head, tail = _constant(left), _constant(right)
            return None if head is None or tail is None else head + tail
        case ast.BinOp(left=left, op=ast.Mod(), right=right):
            return _filled(_constant(left), right.elts if isinstance(right, ast.Tuple) else [right])
        case _:
            return None


def _filled(text: str | None, nodes: Sequence[ast.expr]) -> str | None:
    words = [word for word in map(_constant, nodes) if word is not None]
    literals = [] if text is None else text.split("%s")
    if len(words) != len(nodes) or len(literals) != len(words) + 1:
        return None

    return "".join(literal + word for literal, word in zip(literals, [*words, ""], strict=True))


def _python_version(library: Path) -> list[int]:
    return [int(digits) for digits in DIGITS.findall(library.parent.name)]

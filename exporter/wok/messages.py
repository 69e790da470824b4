"""Renders the English sentences of Wok's log, from the message tables of the host's Wok and
plug-ins.

Since September 2016, the log contains only message codes and parameters. The sentences are in the
file `i18n.py` of Wok and of each plug-in: one dictionary of `"CODE": _("text with %(name)s")`.
These files can be of any age, for Python 2 or 3. They belong to the host, so they are parsed as
data, never executed or imported. Python 3 can parse every revision of these files in the history of
Wok and its plug-ins. A file that cannot be parsed is skipped, and `problems` has the reason.

The oldest logs (Wok 2.1 and 2.2) contain a sentence without a code. `code_of` finds its code. It
compares only the literal parts of the templates, in order, so that no name can make it slow.

Parameters contain whatever somebody has sent to Wok. They are inserted into the templates
unchanged, and are never treated as templates. Only control characters and lone surrogates are
removed.
"""

from __future__ import annotations

import ast
import hashlib
import json
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from json.encoder import encode_basestring
from pathlib import Path
from typing import Any, NamedTuple

from exporter.wok.english import English

TEXT_CHARS = 4096
"""The longest sentence. The longest real ones contain the output of a package manager."""

PLAIN_CHARS = 1024
"""The longest text of a code without a template."""

FILE_BYTES = 1 << 20
"""The largest file that is read. The largest table of Wok has 60 kB."""

FILES = 100
"""How many files are read. A host has about five."""

TABLE_PATTERNS = ("i18n.py", "*/i18n.py", "plugins/*/i18n.py", "wok/plugins/*/i18n.py")
"""Tables in the directory of a plug-in, of Wok, of a source tree, or of Python packages."""

PREFIXES = (Path("/usr/local"), Path("/usr"))
"""The prefixes of manual installations and of packages."""

CODE = re.compile(r"[A-Z][A-Z0-9]{2,40}")
PLACE = re.compile(r"%\(([^()]{1,64})\)[sdri]|%%")
DIGITS = re.compile(r"[0-9]+")

UNSEEN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
HALVES = re.compile(r"[\ud800-\udfff]")

HEAD_CHARS = 5
"""Templates are grouped by this many characters of their beginning."""

LITERAL_CHARS = 6
"""A template with fewer literal letters could match many sentences, so it is not used."""


class _Template(NamedTuple):
    """A parsed template: literals and names alternate, with one literal more than names."""

    literals: tuple[str, ...]
    names: tuple[str, ...]

    def made(self, text: str) -> bool:
        """Return whether this template may have made the text; takes linear time."""
        first, last = self.literals[0], self.literals[-1]
        if not self.names:
            return text == first

        if not (text.startswith(first) and text.endswith(last)):
            return False

        start, end = len(first), len(text) - len(last)
        for literal in self.literals[1:-1]:
            at = text.find(literal, start, end)
            if at < 0:
                return False
            start = at + len(literal)

        return start <= end


class Messages:
    """The message tables of Wok and its plug-ins. They do not change after loading.

    `digest` is a SHA-256 of all codes and templates, in hex: tables with the same digest give the
    same sentences. `problems` has a sentence for each file that cannot be read.
    """

    def __init__(self, templates: Mapping[str, str], problems: Sequence[str] = ()) -> None:
        content = json.dumps(sorted(templates.items())).encode()
        self.digest = hashlib.sha256(content).hexdigest()
        self.problems = list(problems)
        self._templates = {code: _split(text) for code, text in templates.items()}
        self._english = English.load()
        self._encode = json.JSONEncoder(ensure_ascii=False, sort_keys=True).encode
        self._by_head: dict[str, list[tuple[str, _Template]]] = {}
        for code, template in self._templates.items():
            # All other codes are errors. The text of a record never begins with an error.
            if code.endswith("L") and sum(map(str.isalpha, "".join(template.literals))) >= LITERAL_CHARS:
                head = template.literals[0][:HEAD_CHARS]
                key = head if len(head) == HEAD_CHARS or not template.names else ""
                self._by_head.setdefault(key, []).append((code, template))

    @classmethod
    def load(cls, paths: Sequence[Path]) -> Messages:
        """Read the tables in these files, and in directories that contain Wok or a plug-in.

        If several files contain a code, the first one is used. Files that are missing, unreadable,
        too large or not Python do not raise an exception: they are skipped, with a sentence in
        `problems`.
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

        return cls(templates, problems)

    @staticmethod
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

    def render(self, code: str, params: Mapping[str, Any]) -> str:
        """Return the sentence of this code with these parameters, at most TEXT_CHARS characters.

        In a template of Wok, a missing parameter stays as `%(name)s`. Newlines and tabs are kept.
        Without a template, the sentence comes from `english.tsv`. If that has none for this code
        and these parameters, the text is `CODE key=value key=value`, sorted by key, with values as
        JSON, at most PLAIN_CHARS.
        """
        template = self._templates.get(code) or self._english.of(code, params)
        if template is None:
            return self._plain(code, params)

        literals, names = template
        pieces = [literals[0]]
        for name, literal in zip(names, literals[1:], strict=True):
            value = params.get(name, f"%({name})s")
            pieces.append(value[: TEXT_CHARS + 1] if isinstance(value, str) else self._shown(value))
            pieces.append(literal)

        return _cleaned("".join(pieces), TEXT_CHARS)

    def code_of(self, text: str) -> str:
        """Return the code of the only template that may have made this sentence, or nothing.

        The result is empty if no template or several templates match. This is for records of Wok
        2.1 and 2.2, which have no codes. Sentences that have changed since then, or that are not in
        English, stay unknown.
        """
        if len(text) > TEXT_CHARS:
            return ""

        candidates = (*self._by_head.get(text[:HEAD_CHARS], ()), *self._by_head.get("", ()))
        codes = [code for code, template in candidates if template.made(text)]

        return codes[0] if len(codes) == 1 else ""

    def _plain(self, code: str, params: Mapping[str, Any]) -> str:
        words = [code[: PLAIN_CHARS + 1]]
        for key in sorted(params):
            name = key if key.isidentifier() else encode_basestring(key[:PLAIN_CHARS])
            value = params[key]
            # Nearly all values are texts. For them, this is what the encoder does.
            shown = (
                encode_basestring(value[:PLAIN_CHARS])
                if isinstance(value, str)
                else self._shown(value, as_json=True)
            )
            words.append(f"{name}={shown}")

        return _cleaned(" ".join(words).strip(), PLAIN_CHARS)

    def _shown(self, value: Any, *, as_json: bool = False) -> str:
        # Wok formats None and booleans as Python does.
        is_scalar = value is None or isinstance(value, bool | int | float)
        try:
            return str(value) if is_scalar and not as_json else self._encode(value)
        except (ValueError, TypeError, RecursionError):
            # An integer with thousands of digits, or deeply nested lists.
            return "..."


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


def _split(text: str) -> _Template:
    literals, names = [""], []
    at = 0
    for place in PLACE.finditer(text):
        literals[-1] += text[at : place.start()]
        at = place.end()
        if place[1] is None:
            literals[-1] += "%"
        else:
            names.append(place[1])
            literals.append("")
    literals[-1] += text[at:]

    return _Template(tuple(literals), tuple(names))


def _cleaned(text: str, limit: int) -> str:
    if len(text) > limit:
        text = text[: limit - 3] + "..."
    if text.isprintable():
        return text

    return HALVES.sub("\ufffd", UNSEEN.sub("", text))


def _python_version(library: Path) -> list[int]:
    return [int(digits) for digits in DIGITS.findall(library.parent.name)]

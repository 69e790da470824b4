"""The English sentences of Wok's log, from the tables of the Wok and the plug-ins that this host has.

Since September 2016 the log holds no sentences, only message codes and parameters. The sentences are in the
file `i18n.py` of Wok and of each plug-in: one dictionary of `"CODE": _("text with %(name)s")`. Those files
are of any age, for Python 2 or 3, and they are the host's, not ours: they are parsed and read as data, never
executed or imported. Every revision of every such file that Wok and its plug-ins ever had is accepted by the
parser of Python 3; one that is not is left out, and `problems` says why.

The oldest logs (Wok 2.1 and 2.2) are the other way round: a sentence without a code. `code_of` turns the
sentences back. It looks at the literal parts of the templates only, in order, so that nothing a name may
hold can make it slow.

Parameters are whatever anybody has sent to Wok. They are put into the templates as they are, never read as
templates themselves; only control characters and halves of surrogate pairs are taken out.
"""

from __future__ import annotations

import ast
import hashlib
import json
import re
import warnings
from json.encoder import encode_basestring
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from exporter.wok.english import English

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

TEXT_CHARS = 4096
"""The longest sentence; the longest honest ones are the output of a package manager."""

PLAIN_CHARS = 1024
"""The longest stand-in for a sentence whose code has no template."""

FILE_BYTES = 1 << 20
"""The largest table that is read; the largest that exists has 60 kB."""

FILES = 100
"""How many tables are read; a host has about five."""

TABLE_PATTERNS = ("i18n.py", "*/i18n.py", "plugins/*/i18n.py", "wok/plugins/*/i18n.py")
"""Where a directory has its tables: a plug-in's, Wok's own, a source tree's, or one of Python packages."""

PREFIXES = (Path("/usr/local"), Path("/usr"))
"""Where Wok is installed, by hand and by packages."""

CODE = re.compile(r"[A-Z][A-Z0-9]{2,40}")
PLACE = re.compile(r"%\(([^()]{1,64})\)[sdri]|%%")
DIGITS = re.compile(r"[0-9]+")

UNSEEN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
HALVES = re.compile(r"[\ud800-\udfff]")

HEAD_CHARS = 5
"""How much of the beginning of a sentence the templates are sorted by."""

LITERAL_CHARS = 6
"""A template with fewer letters of its own says too little to know a sentence by."""


class _Template(NamedTuple):
    """A template taken apart: one literal more than names, alternating."""

    literals: tuple[str, ...]
    names: tuple[str, ...]

    def made(self, text: str) -> bool:
        """Tell whether the text can be this template with values in it; linear in the text's length."""
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
    """The message tables of Wok and its plug-ins, as loaded; they do not change after that.

    `digest` is a SHA-256 of all codes and templates, in hex: equal tables, equal sentences. `problems` are
    sentences about what could not be read.
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
            # the other codes are of errors, which never stand at the beginning of a record's text
            if code.endswith("L") and sum(map(str.isalpha, "".join(template.literals))) >= LITERAL_CHARS:
                head = template.literals[0][:HEAD_CHARS]
                key = head if len(head) == HEAD_CHARS or not template.names else ""
                self._by_head.setdefault(key, []).append((code, template))

    @classmethod
    def load(cls, paths: Sequence[Path]) -> Messages:
        """Read the tables in these files, and in directories that hold a Wok or a plug-in.

        Of a code that stands in several files the first counts. Never raises for what it finds: a file that
        is missing, unreadable, too large or not Python is left out with a sentence in `problems`.
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
        """Return the tables of the Wok that is installed, those of the newest Python first; maybe none."""
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

        A parameter that is missing in a template of Wok stays as `%(name)s`. Newlines and tabs are kept.
        Without a template, our own English says it. A code that it does not have, or not with these
        parameters, gives `CODE key=value key=value`, sorted by key, the values as JSON, at most
        PLAIN_CHARS.
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
        """Return the code of the one template that can have made this sentence; nothing if none or several can.

        For records of Wok 2.1 and 2.2, which have no codes. Sentences that have changed since, or that were
        logged in another language than English, stay unknown.
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
            # nearly all are texts, for which an encoder does nothing but this
            shown = (
                encode_basestring(value[:PLAIN_CHARS])
                if isinstance(value, str)
                else self._shown(value, as_json=True)
            )
            words.append(f"{name}={shown}")

        return _cleaned(" ".join(words).strip(), PLAIN_CHARS)

    def _shown(self, value: Any, *, as_json: bool = False) -> str:
        # Wok shows None and booleans as Python does
        is_scalar = value is None or isinstance(value, bool | int | float)
        try:
            return str(value) if is_scalar and not as_json else self._encode(value)
        except (ValueError, TypeError, RecursionError):
            # an integer of thousands of digits, or lists in lists without end
            return "..."


def _found(folder: Path, pattern: str) -> list[Path]:
    """Return what matches below a folder; nothing where it may not be searched."""
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
        # reading the missing file is what reports it
        yield path / "i18n.py"


def _entries(path: Path) -> Iterator[tuple[str, str]]:
    if path.exists() and not path.is_file():
        # opening a pipe would wait for somebody to write
        raise ValueError("not a regular file")

    with path.open("rb") as file:
        source = file.read(FILE_BYTES + 1)
    if len(source) > FILE_BYTES:
        raise ValueError(f"larger than {FILE_BYTES} bytes")

    with warnings.catch_warnings():
        # invalid escapes in other people's strings
        warnings.simplefilter("ignore")
        tree = ast.parse(source)

    for node in ast.walk(tree):
        if isinstance(node, ast.Dict):
            for key, value in zip(node.keys, node.values, strict=True):
                code, text = _constant(key), _constant(value)
                if code is not None and text is not None and CODE.fullmatch(code):
                    yield code, text[:TEXT_CHARS]


def _constant(node: ast.expr | None) -> str | None:
    # a text, `_("text")` whatever the function's name, "text" + "text", "text %s" % "word"
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

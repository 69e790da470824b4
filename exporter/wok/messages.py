"""Renders the English sentences of Wok's log, from the message tables of the host's Wok and
plug-ins.

Since September 2016, the log contains only message codes and parameters. The sentences are in the
file `i18n.py` of Wok and of each plug-in: one dictionary of `"CODE": _("text with %(name)s")`.
`message_tables.py` reads these files, and `problems` says which ones could not be read.

The oldest logs (Wok 2.1 and 2.2) contain a sentence without a code. `code_of` finds its code. It
compares only the literal parts of the templates, in order, so that no name can make it slow.

Parameters contain whatever somebody has sent to Wok. They are inserted into the templates
unchanged, and are never treated as templates. Only control characters and lone surrogates are
removed.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from json.encoder import encode_basestring
from pathlib import Path
from typing import Any, NamedTuple

from exporter.wok.english import English
from exporter.wok.message_tables import TEXT_CHARS, tables_in

PLAIN_CHARS = 1024
"""The longest text of a code without a template."""

PLACE = re.compile(r"%\(([^()]{1,64})\)[sdri]|%%")
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
        """Read the tables in these files and directories (see `message_tables`)."""
        return cls(*tables_in(paths))

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

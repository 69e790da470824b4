"""English sentences for message codes, for hosts and containers without Wok's message tables.

`english.tsv` has a sentence for every operation and for every error that a task can raise. The
message tables of an installed Wok take precedence (`messages.py`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any, NamedTuple, Self

_PLACE = re.compile(r"\{([a-z_]+)\}")


class Sentence(NamedTuple):
    """A sentence with placeholders for parameters. It has one literal more than names."""

    literals: tuple[str, ...]
    names: tuple[str, ...]


class English:
    """The sentences of `english.tsv` by code, in the order of the file."""

    def __init__(self, sentences: Mapping[str, Sequence[Sentence]]) -> None:
        self._sentences = sentences

    @classmethod
    def load(cls) -> Self:
        """Read `english.tsv` from the package."""
        return cls.parse(resources.files("exporter.wok").joinpath("english.tsv").read_text("utf-8"))

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the sentences of a table; raise ValueError for a malformed row."""
        rows = [line for line in text.splitlines() if not line.startswith("#")]
        sentences: dict[str, list[Sentence]] = {}
        for row in rows[1:]:
            code, sentence = row.split("\t")
            pieces = _PLACE.split(sentence)
            sentences.setdefault(code, []).append(Sentence(tuple(pieces[::2]), tuple(pieces[1::2])))
        return cls(sentences)

    def of(self, code: str, params: Mapping[str, Any]) -> Sentence | None:
        """Return the first sentence of a code whose parameters all exist and are not empty."""
        for sentence in self._sentences.get(code, ()):
            if all(params.get(name) not in (None, "") for name in sentence.names):
                return sentence
        return None

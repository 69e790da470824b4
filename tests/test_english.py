"""Our own sentences: one for every operation, and only where the parameters are there."""

from __future__ import annotations

import re
from importlib import resources
from typing import Any

import pytest

from exporter.wok.english import English
from exporter.wok.messages import Messages
from exporter.wok.operations import CODE

TABLE = resources.files("exporter.wok").joinpath("english.tsv").read_text("utf-8")
ROWS = [tuple(line.split("\t")) for line in TABLE.splitlines() if not line.startswith("#")][1:]


def operation_codes() -> set[str]:
    """All message codes of the table of operations."""
    text = resources.files("exporter.wok").joinpath("operations.tsv").read_text("utf-8")
    rows = [line.split("\t") for line in text.splitlines() if not line.startswith("#")]
    at = rows[0].index("code")
    return {row[at] for row in rows[1:] if row[at]}


def test_every_operation_has_a_sentence() -> None:
    """There is a sentence of our own for each code of a request, and for the three records of a task."""
    codes = {code for code, _ in ROWS}

    assert operation_codes() - codes == set()
    assert {"WOKASYNC0000L", "WOKASYNC0001L", "WOKASYNC0002L"} <= codes


@pytest.mark.parametrize(("code", "sentence"), ROWS)
def test_sentences_are_whole(code: str, sentence: str) -> None:
    """Each row has a code, its places are names of parameters, and it ends without a full stop, so that a reason can follow."""
    names = re.findall(r"\{([^}]*)\}", sentence)

    assert CODE.fullmatch(code.rstrip(","))
    assert all(re.fullmatch(r"[a-z_]+", name) for name in names)
    assert not sentence.endswith((".", ":", " "))
    assert Messages({}).render(code, dict.fromkeys(names, "x"))
    if code.endswith("E"):
        # a reason follows a colon, and begins with an abbreviation or in lower case
        assert re.match(r"[a-z{]|[A-Z]{2}", sentence)


@pytest.mark.parametrize(
    ("code", "params", "text"),
    [
        ("KCHVM0009L", {"ident": "web01", "remote_host": ""}, "Start to clone guest web01"),
        ("KCHSNAP0001L", {"vm": "web01", "name": "s1"}, "Start to take snapshot s1 of guest web01"),
        ("KCHSNAP0001L", {"vm": "web01", "name": ""}, "Start to take a snapshot of guest web01"),
        ("KCHSNAP0001L", {"name": "s1"}, 'KCHSNAP0001L name="s1"'),
        ("KCHVM9999L", {"ident": "web01"}, 'KCHVM9999L ident="web01"'),
        ("KCHVM0009L", {"ident": ["a", 1]}, 'Start to clone guest ["a", 1]'),
        ("KCHVM0009L", {"ident": "{ident}%(ident)s"}, "Start to clone guest {ident}%(ident)s"),
    ],
)
def test_a_sentence_needs_its_parameters(code: str, params: dict[str, Any], text: str) -> None:
    """The first row whose parameters are there counts; without one, code and parameters are shown as they are."""
    assert Messages({}).render(code, params) == text


def test_the_tables_of_an_installed_wok_come_first() -> None:
    """Where the host has Wok's own sentence, ours is not used, nor is it taken for the origin of an old text."""
    tables = Messages({"KCHVM0009L": "Copie de %(ident)s"})

    assert tables.render("KCHVM0009L", {"ident": "web01"}) == "Copie de web01"
    assert Messages({}).code_of("Start to clone guest web01") == ""


def test_a_broken_row_is_an_error() -> None:
    """The table is read as a whole: what is no row of two columns is not passed over."""
    assert English.load().of("KCHVM0009L", {"ident": "web01"}) is not None
    with pytest.raises(ValueError, match="unpack"):
        English.parse("code\tsentence\nKCHVM0009L\n")

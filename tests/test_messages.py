"""The sentences of the log, from the tables that a host has."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.wok.message_tables import FILE_BYTES, FILES, TEXT_CHARS, default_paths
from exporter.wok.messages import PLAIN_CHARS, Messages

if TYPE_CHECKING:
    from pathlib import Path

WAXES = {
    "WAX0001L": "Melt candle '%(name)s'",
    "WAX0002L": "Melt candle '%(name)s' in pot '%(pot)s'",
    "WAX0003L": "Blow out all the candles",
    "WAX0004L": "%(user)s has lit candle '%(name)s'",
    "WAX0005L": "Pour '%(name)s': %(percent)s%% of '%(pot)s'",
    "WAX0006L": "%(err)s",
    "WAX0007E": "The wick of '%(name)s' is missing",
}


def table(path: Path, source: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(source.encode() if isinstance(source, str) else source)
    return path


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


def test_load(tmp_path: Path) -> None:
    """Entries of every form that a table may have are read, for Python 2 and 3; what is no entry is not."""
    source = r'''
# -*- coding: utf-8 -*-
import gettext
_ = gettext.gettext
raise SystemExit("nobody may execute this")
messages = {
    "WAX0001L": _("Melt candle '%(name)s'"),
    'WAX0002L': "plain",
    "WAX0003L": _("two "
                  "parts"),
    u"WAX0004L": _(u"caf\u00e9 \d"),
    "WAX0005L": gettext.gettext("""three
lines"""),
    "WAX0006L": _("one" + ", " + "two"),
    "WAX0007L": "at most %s of %s" % ("ten", "all"),
    "WAX0008L": _("by %s" % "hand"),
    "WAX0009L": "too %s few" % (),
    "WAX0010L": "a number %s" % 1,
    "WAX0011L": 1,
    "WAX0012L": _(),
    "WAX0013L": _("unfinished") + name,
    "WAX0014L": b"bytes",
    "lower0001L": "no code",
    1: "no text",
    **others,
}
if True:
    messages.update({"WAX0020E": _("and later")})
'''
    messages = Messages.load([table(tmp_path / "i18n.py", source)])

    expected = Messages(
        {
            "WAX0001L": "Melt candle '%(name)s'",
            "WAX0002L": "plain",
            "WAX0003L": "two parts",
            "WAX0004L": "café \\d",
            "WAX0005L": "three\nlines",
            "WAX0006L": "one, two",
            "WAX0007L": "at most ten of all",
            "WAX0008L": "by hand",
            "WAX0020E": "and later",
        }
    )
    assert messages.problems == []
    assert expected.digest == messages.digest
    assert messages.render("WAX0004L", {}) == "café \\d"


def test_directories(tmp_path: Path) -> None:
    """A directory stands for the tables in it, of a plug-in, of Wok and of Python's packages; the first counts."""
    table(tmp_path / "a" / "i18n.py", '{"WAX0001L": "a"}')
    table(tmp_path / "b" / "wok" / "i18n.py", '{"WAX0001L": "b", "WAX0002L": "b"}')
    table(tmp_path / "b" / "wok" / "plugins" / "candle" / "i18n.py", '{"WAX0003L": "c"}')
    table(tmp_path / "b" / "deep" / "er" / "i18n.py", '{"WAX0004L": "d"}')

    messages = Messages.load([tmp_path / "a", tmp_path / "b"])

    assert messages.problems == []
    assert messages.digest == Messages({"WAX0001L": "a", "WAX0002L": "b", "WAX0003L": "c"}).digest


def test_damaged_tables(tmp_path: Path) -> None:
    """A table that cannot be read is told of, each with its reason, and does no harm to the others."""
    good = table(tmp_path / "good.py", '{"WAX0001L": "a"}')
    bad = [
        tmp_path / "missing.py",
        table(tmp_path / "print.py", 'print "a"\n{"WAX0002L": "b"}'),
        table(tmp_path / "nul.py", b"\0"),
        table(tmp_path / "latin.py", b'{"WAX0003L": "\xe9"}'),
        table(tmp_path / "deep.py", "(" * 100_000),
        table(tmp_path / "sum.py", '{"WAX0004L": ' + '"a" + ' * 2500 + '"a"}'),
        table(tmp_path / "large.py", "#" * (FILE_BYTES + 1)),
    ]
    (tmp_path / "empty").mkdir()

    messages = Messages.load([*bad, tmp_path / "empty", good])

    assert [str(path) for path in [*bad, tmp_path / "empty" / "i18n.py"]] == [
        problem.partition(": no message table: ")[0] for problem in messages.problems
    ]
    assert all(problem.partition(": no message table: ")[2] for problem in messages.problems)
    assert messages.digest == Messages({"WAX0001L": "a"}).digest


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_pipe_for_a_table(tmp_path: Path) -> None:
    """What is no regular file is never waited for."""
    os.mkfifo(tmp_path / "i18n.py")

    messages = Messages.load([tmp_path / "i18n.py"])

    assert messages.problems == [f"{tmp_path / 'i18n.py'}: no message table: not a regular file"]


def test_too_many_tables(tmp_path: Path) -> None:
    """The number of tables is limited, and the rest is told of."""
    paths = [table(tmp_path / f"{i}.py", f'{{"WAX{i:04}L": "x"}}') for i in range(FILES + 2)]

    messages = Messages.load(paths)

    assert messages.problems == [f"2 message tables more than {FILES} are left out"]
    assert messages.render(f"WAX{FILES:04}L", {}) == f"WAX{FILES:04}L"


def test_default_paths(tmp_path: Path) -> None:
    """The tables of Wok and its plug-ins are found below all prefixes, those of the newest Python first."""
    places = [
        "usr/local/lib/python3.11/site-packages/wok/i18n.py",
        "usr/lib/python3.9/site-packages/wok/i18n.py",
        "usr/lib/python3.9/site-packages/wok/plugins/ginger/i18n.py",
        "usr/lib/python3.9/site-packages/wok/plugins/kimchi/i18n.py",
        "usr/lib/python3/dist-packages/wok/i18n.py",
        "usr/local/lib/python2.7/dist-packages/wok/i18n.py",
        "usr/lib/python2.7/site-packages/wok/plugins/kimchi/i18n.py",
    ]
    for place in [*places, "usr/lib/python3.9/site-packages/other/i18n.py", "usr/lib/wok/i18n.py"]:
        table(tmp_path / place, "{}")

    actual = default_paths([tmp_path / "usr/local", tmp_path / "usr", tmp_path / "none"])

    assert [tmp_path / place for place in places] == actual


def test_no_tables() -> None:
    """A host without a Wok is no problem: codes stay codes."""
    messages = Messages.load([])

    assert messages.problems == []
    assert messages.render("WAX0001L", {"b": 1, "a": "x"}) == 'WAX0001L a="x" b=1'
    assert messages.code_of("Melt candle 'x'") == ""


def test_digest() -> None:
    """The digest depends on codes and templates, and not on their order."""
    turned = dict(reversed(WAXES.items()))
    digests = [Messages(t).digest for t in (WAXES, turned, {**WAXES, "WAX0003L": "."}, {})]

    assert digests[0] == digests[1]
    assert len(set(digests)) == 3


@pytest.mark.parametrize(
    ("code", "params", "expected"),
    [
        ("WAX0001L", {"name": "tall"}, "Melt candle 'tall'"),
        ("WAX0001L", {"name": "tall", "pot": "unused"}, "Melt candle 'tall'"),
        ("WAX0001L", {}, "Melt candle '%(name)s'"),
        ("WAX0001L", {"name": "%(name)s %s %(pot)s {0} %"}, "Melt candle '%(name)s %s %(pot)s {0} %'"),
        ("WAX0001L", {"name": "a\nb\tc"}, "Melt candle 'a\nb\tc'"),
        ("WAX0001L", {"name": "\x1b[31m\x07a\r\x85b\x7f\0"}, "Melt candle '[31mab'"),
        ("WAX0001L", {"name": "\ud800é\u2028"}, "Melt candle '\ufffdé\u2028'"),
        ("WAX0001L", {"name": None}, "Melt candle 'None'"),
        ("WAX0001L", {"name": True}, "Melt candle 'True'"),
        ("WAX0001L", {"name": 1.5}, "Melt candle '1.5'"),
        ("WAX0001L", {"name": {"b": [1, None], "a": "é"}}, """Melt candle '{"a": "é", "b": [1, null]}'"""),
        ("WAX0001L", {"name": 10**5000}, "Melt candle '...'"),
        ("WAX0001L", {"name": [10**5000]}, "Melt candle '...'"),
        ("WAX0001L", {"name": nested(100_000)}, "Melt candle '...'"),
        ("WAX0001L", {"name": object()}, "Melt candle '...'"),
        ("WAX0005L", {"name": "a", "percent": 5, "pot": "b"}, "Pour 'a': 5% of 'b'"),
        ("WAX0006L", {"err": "x" * 5000}, "x" * (TEXT_CHARS - 3) + "..."),
        ("WAX0009L", {}, "WAX0009L"),
        (
            "WAX0009L",
            {"b": "two\nlines", "a": [1, {"x": None}]},
            r'WAX0009L a=[1, {"x": null}] b="two\nlines"',
        ),
        ("WAX0009L", {"b": True, "a=b c": None}, 'WAX0009L "a=b c"=null b=true'),
        ("WAX0009L", {"a": 10**5000, "b": nested(100_000)}, "WAX0009L a=... b=..."),
        ("WAX0009L", {"a": "\x7f\ud800"}, 'WAX0009L a="\ufffd"'),
        ("WAX0009L", {"a": "x" * 5000}, 'WAX0009L a="' + "x" * (PLAIN_CHARS - 15) + "..."),
        ("", {"a": 1}, "a=1"),
        ("\x1b[2J", {}, "[2J"),
    ],
)
def test_render(code: str, params: dict[str, Any], expected: str) -> None:
    """Parameters are put in as they are, bounded and without control characters; unknown codes stay codes."""
    assert expected == Messages(WAXES).render(code, params)


@given(
    st.sampled_from([*WAXES, "WAX0099L", ""]),
    st.dictionaries(
        st.one_of(st.text(), st.sampled_from(["name", "pot", "err", "percent"])),
        st.recursive(
            st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text()),
            lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
            max_leaves=8,
        ),
    ),
)
def test_any_parameters(code: str, params: dict[str, Any]) -> None:
    """Whatever the parameters, the sentence is short, can be encoded, and moves no cursor."""
    text = Messages(WAXES).render(code, params)

    assert len(text.encode()) <= 4 * TEXT_CHARS
    assert not {c for c in text if c < " " or "\x7f" <= c <= "\x9f"} - {"\n", "\t"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Melt candle 'tall'", "WAX0001L"),
        ("Melt candle ''", "WAX0001L"),
        ("Melt candle 'x >>> 'y''", "WAX0001L"),
        ("Melt candle 'tall' in pot 'blue'", ""),
        ("Melt candle '", ""),
        ("Melt candle 'tall' now", ""),
        ("Blow out all the candles", "WAX0003L"),
        ("Blow out all the candles again", ""),
        ("ada has lit candle 'tall'", "WAX0004L"),
        ("Pour 'a': 5% of 'b'", "WAX0005L"),
        ("Pour 'a': 5% of", ""),
        ("The wick of 'tall' is missing", ""),
        ("Die Kerze schmilzt", ""),
        ("", ""),
        ("Melt candle '" + "x" * TEXT_CHARS + "'", ""),
    ],
)
def test_code_of(text: str, expected: str) -> None:
    """A sentence has the code of the one template that fits it; none if two do, or none of a request does."""
    assert expected == Messages(WAXES).code_of(text)


@given(st.text(max_size=60), st.text(max_size=60))
def test_code_of_is_the_reverse(name: str, pot: str) -> None:
    """What a template has rendered is known by its code, whatever the names, unless another fits as well."""
    messages = Messages({code: WAXES[code] for code in ("WAX0003L", "WAX0005L")})

    text = messages.render("WAX0005L", {"name": name, "pot": pot, "percent": 7})

    assert messages.code_of(text) == "WAX0005L"


def test_code_of_looks_for_every_part() -> None:
    """Literal parts that are alike must all be in the sentence, one behind the other."""
    messages = Messages({"WAX0001L": "Carry %(a)s, %(b)s, %(c)s home"})
    texts = ["Carry x home", "Carry x, home", "Carry x, y home", "Carry x, y, z home"]

    assert [messages.code_of(text) for text in texts] == ["", "", "", "WAX0001L"]


def test_code_of_hostile_text() -> None:
    """A sentence that nearly fits everywhere is answered as any other.

    No clock is read: a pattern that backtracked would not come back.
    """
    many = "".join(f"%(p{i})s, " for i in range(300))
    messages = Messages({"WAX0001L": f"Please melt: {many}."})

    assert messages.code_of("Please melt: " + ", " * 2000) == ""
    assert messages.code_of("Please melt: " + ", " * 2000 + ".") == "WAX0001L"

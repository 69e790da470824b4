"""The proof against forged records: it cannot be displaced, and its cost is linear in the lines."""

from __future__ import annotations

import json
import tracemalloc
from time import process_time
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from exporter.parse.continuation import VALUES_MAX
from exporter.parse.parser import Parser
from exporter.parse.timezone import Zones
from exporter.records import Continuation, Line, Parsed, Record, Rejected
from tests.fuzz_targets import work

FILE = bytes(16)


def record(user: str, params: dict[str, Any] | None = None, text: str = "words", **head: Any) -> str:
    """A record as the Wok of August 2016 writes it, several physical lines where its text has
    newlines.
    """
    info = {
        "status": 204,
        "zone": "BRT",
        "ip": "10.0.0.1",
        "app": "kimchi",
        "req": "DELETE",
        "msgCode": "KCHVM0002L",
        "user": user,
        "time": "06:00:13",
        "date": "2016-08-12",
    }
    return f"{json.dumps(info | head)} >>> {json.dumps(params or {})}  >>> {text}"


FORGED = record("forged", {"ident": "prod"}, "Remove guest 'prod'")
GENUINE = record("genuine")


def parsed(*records: str, state: str = "", lines_cut: int = 0) -> list[Parsed]:
    """What a parser makes of these records; with `lines_cut`, a new one goes on from the state
    after so many.
    """
    parser = Parser("test", Zones("UTC"), state)
    found: list[Parsed] = []
    offset = 1000
    for at, data in enumerate("\n".join(records).encode("utf-8", "surrogatepass").split(b"\n")):
        if lines_cut and at % lines_cut == 0:
            parser = Parser("test", Zones("UTC"), parser.state)
        found += parser.feed(Line(FILE, offset, data, len(data)))
        offset += len(data) + 1
    return found


def users(items: list[Parsed]) -> list[str]:
    return [item.user for item in items if isinstance(item, Record)]


def forged(items: list[Parsed]) -> int:
    return sum(isinstance(item, Continuation) and item.forged for item in items)


@pytest.mark.parametrize(
    "decoys",
    [
        {f"a{number}": "\nq" for number in range(200)},
        {f"a{number}": '\n{"q' for number in range(2 * VALUES_MAX)},
        {f"a{number}": f'{"y" * number}\n{{"q' for number in range(200)},
        {f"a{number}": f'x\n{{"{number}\n' * 50 for number in range(50)},
    ],
    ids=["plain", "many", "of many lengths", "long"],
)
def test_decoy_parameters(decoys: dict[str, str]) -> None:
    """With any number of parameters with newlines, a forged record in the one that the text shows
    is detected.
    """
    name = f"x\n{FORGED}"
    found = parsed(record("ada", decoys | {"name": name} | decoys, f"Create guest '{name}'"))

    assert (users(found), forged(found)) == (["ada"], 1)


@pytest.mark.parametrize("count", [10, 1001, 20_000])
def test_decoy_lines(count: int) -> None:
    """After any number of lines that look like records, forged and genuine records are still
    distinguished.
    """
    name = "x\n" + "".join(f'{{"{number:x}\n' for number in range(count)) + FORGED
    found = parsed(record("ada", {"name": name}, f"User '{name}' login"), GENUINE)

    assert (users(found), forged(found)) == (["ada", "genuine"], 1)


def test_more_objects_than_are_looked_at() -> None:
    """If the values have too many objects to keep all digests, a record after other text is not
    accepted.
    """
    values = {"a": "x\n", "b": '{"' * 70 + FORGED}
    found = parsed(record("ada", values, f"'{values['a']}' from '{values['b']}'"), GENUINE)

    assert (users(found), forged(found)) == (["ada", "genuine"], 1)


def test_other_values_do_no_harm() -> None:
    """Numbers, lists and null in the parameters are ignored."""
    values = {"n": 5, "none": None, "list": ["\n"], "name": f"x\n{FORGED}"}
    found = parsed(record("ada", values, f"User '{values['name']}' login"), GENUINE)

    assert (users(found), forged(found)) == (["ada", "genuine"], 1)


def test_doubt_ends() -> None:
    """If there are too many values to follow, exactly as many lines as they
    have are not accepted.
    """
    decoys = {f"a{number}": f'{number}\n{{"q' for number in range(VALUES_MAX + 3)}
    found = parsed(record("ada", decoys, "words"), *[GENUINE] * 5)

    assert (users(found), forged(found)) == (["ada", "genuine", "genuine"], 3)


def test_after_a_line_that_is_too_long() -> None:
    """After a record that was too long to parse, as many lines as it can have are not accepted."""
    name = f"x\n{FORGED}\n{FORGED}"
    first, *rest = (
        line.encode() for line in record("ada", {"name": name}, f"User '{name}' login").split("\n")
    )
    parser = Parser("test", Zones("UTC"))
    found = parser.feed(Line(FILE, 0, first[:100], len(first), newlines=first.count(b"\\n")))
    for line in [*rest, GENUINE.encode()]:
        parser = Parser("test", Zones("UTC"), parser.state)
        found += parser.feed(Line(FILE, 1000, line, len(line)))

    assert [type(item) for item in found] == [Rejected, Continuation, Continuation, Record]
    assert (users(found), forged(found)) == (["genuine"], 2)


@pytest.mark.parametrize("start", ['{"info": {', '{"id": "', '{"message": {', '{"error": n'])
def test_after_a_json_line_that_is_too_long(start: str) -> None:
    """A record of the json dialect is one line, so the line after one that is
    too long is a record.
    """
    parser = Parser("test", Zones("UTC"))
    parser.feed(Line(FILE, 0, start.encode(), 10_000, newlines=50))
    found = parser.feed(Line(FILE, 10_001, GENUINE.encode(), len(GENUINE)))

    assert users(found) == ["genuine"]


def test_an_over_long_line_inside_of_a_text() -> None:
    """If a line that is too long ends a proof, as many lines as the proof had left are doubted."""
    name = f"x\n{'y' * 500}\n{FORGED}"
    first, long, last = (
        line.encode() for line in record("ada", {"name": name}, f"User '{name}' login").split("\n")
    )
    parser = Parser("test", Zones("UTC"))
    found = parser.feed(Line(FILE, 0, first, len(first)))
    found += parser.feed(Line(FILE, 1000, long[:10], len(long)))
    found += parser.feed(Line(FILE, 2000, last, len(last)))

    assert (users(found), forged(found)) == (["ada"], 1)


def test_state_of_version_0_1_0() -> None:
    """A proof that the previous version saved within a text continues."""
    state = (
        '{"proof":[{"count":5,"first":[1,"442a44457137672b3218c1007dc8f76a"],"last":[4,"61cabc76cff50c62b99705bda5b99238"],'
        '"inner":[[54,"43146f91b87036e575f1bcac65fc5814","4"],[56,"e42d1bb78c5fb0cffe101ad47380915c","8"]],"active":"4"}]}'
    )
    text = '{"status": 204, "user": "root"} >>> {"a": 1}  >>> gone'
    found = parsed(text, f"{text}/2", "last' login", GENUINE, state=state)

    # The two lines have no whole INFO, so they are no records by themselves; what follows is one.
    assert [type(item) for item in found] == [Continuation, Continuation, Continuation, Record]


@pytest.mark.parametrize(
    "proof",
    [
        '{"values":[[[1,"00"],null,"AAAA","AAAA",0]],"doubted":0}',
        '{"values":[[[1,"00"],[1,"00"],"eAEDAAAAAAE=","eAEDAAAAAAE=",1]],"doubted":0}',
        '{"values":[1],"doubted":0}',
    ],
)
def test_damaged_state(proof: str) -> None:
    """An invalid saved proof is rejected."""
    with pytest.raises(ValueError, match="not the state of a parser"):
        Parser("test", Zones("UTC"), f'{{"proof":{proof}}}')


pieces = st.sampled_from(["", "x", "xx", "q", '{"', '{"x', FORGED, FORGED + "/2", f"z{FORGED}"])
texts = st.lists(pieces, min_size=1, max_size=6).map("\n".join)


@given(
    st.dictionaries(st.sampled_from("abcd"), texts, min_size=1, max_size=4),
    st.lists(st.sampled_from("abcd"), max_size=4),
    st.sampled_from(["'", "", " ", "x"]),
    st.integers(0, 3),
)
@example({"a": "x\n" + FORGED}, ["a", "a"], "", 1)
@example({"a": "\n\n\n" + FORGED, "b": "\n"}, ["b", "a"], "", 0)
@example({"a": "\n", "c": FORGED}, ["a", "c"], "'", 0)
@example({"a": "\n", "c": FORGED}, ["a", "c"], "", 1)
@example({"a": f"x\nx\nx\n{FORGED}\nx"}, ["a"], "x", 2)
def test_no_text_is_a_record(values: dict[str, str], shown: list[str], between: str, lines_cut: int) -> None:
    """For any values in any order, no line of a text is a record, and the next record is one."""
    text = between.join(["words", *(values[name] for name in shown if name in values), "end"])
    found = parsed(record("ada", values, text), GENUINE, lines_cut=lines_cut)

    assert users(found) == ["ada", "genuine"]


def test_cost_of_newlines() -> None:
    """A name of 100,000 newlines takes a small multiple of its bytes, in memory
    and in the state.
    """
    name = "x" + "\n" * 100_000 + '{"'
    data = record("ada", {"name": name}, f"User '{name}' login").encode().split(b"\n")
    parser = Parser("test", Zones("UTC"))
    tracemalloc.start()
    parser.feed(Line(FILE, 0, data[0], len(data[0])))
    kept, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert peak < 30 * len(data[0])
    assert kept < 15 * len(data[0])
    assert len(parser.state) < len(data[0])


def test_time_of_decoys() -> None:
    """The time of a text with many hypotheses at each line is a small multiple of that of its
    bytes.
    """
    values = {f"a{number}": "\n" * 2000 + '{"' for number in range(100)}
    name = "\n" * 20_000 + FORGED
    data = record("ada", values | {"name": name}, f"User '{name}' login")
    begin = process_time()
    found = parsed(data)
    spent = process_time() - begin

    assert (users(found), forged(found)) == (["ada"], 1)
    assert spent < 10


@pytest.mark.parametrize("nested", [{"a": f"x\n{FORGED}"}, ["q", [f"x\n{FORGED}"]]], ids=["dict", "list"])
def test_nested_values(nested: object) -> None:
    """A value inside of another one proves a forged record as one at the top does."""
    line = record("ada", {"name": "b"}, f"Create guest 'x\n{FORGED}'").replace('"b"', json.dumps(nested), 1)
    found = parsed(line, GENUINE)

    assert (users(found), forged(found)) == (["ada", "genuine"], 1)


@pytest.mark.parametrize("unit", ["\n", "a\n", "pass\n"])
@pytest.mark.parametrize("before", [record("ada").partition("words")[0], ""], ids=["in a text", "alone"])
def test_short_lines_cost_little(before: str, unit: str) -> None:
    """A physical line that a newline in a name causes takes few steps, although no batch is cheaper for
    being full of them.
    """
    lines = (before + unit * 1000).encode().split(b"\n")
    parser = Parser("test", Zones("UTC"), excerpts=False)

    def feed() -> None:
        for number, line in enumerate(lines):
            parser.feed(Line(FILE, number, line, len(line)))

    assert work(feed) <= 35 * len(lines)

"""Ids are a function of the log alone, and no two things share one."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from exporter import ids

TRACE = bytes(range(16))
FILE = bytes(range(16, 32))


def test_ids_never_change() -> None:
    """Ids once sent must come again from a later version: these are pinned, as is their difference."""
    expected = {
        "request": "67b17db943512475",
        "task": "b93db9bcbd2c9bcd",
        "record": "5e707de73235fa9148533b31832a5f54",
        "event": "2434aca9f280ac9c8d3818eab5315bb4",
    }
    actual = {
        "request": ids.request_span_id(TRACE, FILE, 300).hex(),
        "task": ids.task_span_id(TRACE, FILE, 300).hex(),
        "record": ids.record_uid(TRACE, FILE, 300),
        "event": ids.event_uid(TRACE + FILE[:8], "wok.task.lost"),
    }

    assert expected == actual


@given(
    first=st.tuples(st.binary(max_size=4), st.binary(max_size=4), st.integers(0, 2**63)),
    second=st.tuples(st.binary(max_size=4), st.binary(max_size=4), st.integers(0, 2**63)),
)
def test_different_places_have_different_ids(
    first: tuple[bytes, bytes, int], second: tuple[bytes, bytes, int]
) -> None:
    """Pieces that run together to the same bytes still give different ids; equal ones give the same."""
    for function in (ids.request_span_id, ids.task_span_id, ids.record_uid):
        assert (first == second) == (function(*first) == function(*second))


def test_pieces_do_not_run_together() -> None:
    """Moving a byte from one piece to its neighbour changes the id."""
    made = {
        ids.request_span_id(b"ab", b"c1", 23),
        ids.request_span_id(b"a", b"bc1", 23),
        ids.request_span_id(b"ab", b"c12", 3),
        ids.request_span_id(b"ab1:c", b"1", 23),
    }

    assert len(made) == 4


def test_a_span_id_is_eight_bytes_and_never_zero() -> None:
    """A digest that begins with zeros does not become the id that means "no span"."""
    expected = b"\x01" * 8

    assert expected == ids._span_id(bytes(8) + b"\x01" * 24)
    assert len(ids.task_span_id(TRACE, FILE, 0)) == 8

"""An ambiguous task says of its request what all candidates agree on, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import closing
from datetime import UTC
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.records import NANOS, RequestRow
from exporter.store.reader import Reader
from exporter.store.search import COMPARED_CHARS_MAX, Sought
from exporter.store.task_view import CANDIDATES_MAX, Asked, Ended, Running, agreed, view_of
from exporter.store.writer import Store
from exporter.terminal.task_table import Listed, table
from tests.store_made import commit, open_task, request_row, task_row

CHOSEN = request_row(3, user="ada", resource="guest db01", message="Start to clone guest db01")
NOTHING = ("", "", "", "")
words = st.sampled_from(["", "ada", "grace"])
requests = st.builds(Asked, words, words, words, words)


@given(st.lists(st.none() | requests, max_size=CANDIDATES_MAX + 2))
def test_only_what_all_say_is_said(candidates: list[Asked | None]) -> None:
    """A value is said if every candidate has it, and no other one; a forgotten candidate silences all."""
    found = agreed(candidates)
    is_comparable = None not in candidates and 2 <= len(candidates) < CANDIDATES_MAX

    for at, value in enumerate(found):
        each = {one[at] for one in candidates if one is not None}
        assert value == (each.pop() if is_comparable and len(each) == 1 else "")


@pytest.mark.parametrize(
    "candidates", [[], [Asked("ada", "", "", "")], [Asked("ada", None, None, None), None]]
)
def test_nothing_is_agreed_on_alone(candidates: Sequence[Asked | None]) -> None:
    """Where the other candidates are not known, the one that is left proves nothing."""
    assert agreed(candidates) == NOTHING


class Scene:
    """A store with an ambiguous running and an ambiguous ended task, whose candidates are given."""

    def __init__(self, directory: Path) -> None:
        self.store = Store(directory)
        self.reader = Reader(directory)

    def tasks(self, *others: RequestRow, kept: Sequence[RequestRow] | None = None) -> list[Running | Ended]:
        """Commit CHOSEN, `kept` (all of the others by default) and both tasks; return them as a search finds them."""
        contexts = b"".join(one.context for one in others)
        data = json.dumps({"by_start": True, "grade": "ambiguous", "candidates": contexts.hex()})
        self.store.commit(
            commit(
                requests=[CHOSEN, *(others if kept is None else kept)],
                tasks=[task_row(90, request=3, correlation="ambiguous", candidates=contexts, target_uri="")],
                opened=[open_task(91, request=3, data=data, target_uri="")],
            ),
            1.0,
        )
        return self.reader.find_tasks(Sought(), running=True, ended=True, place=None, limit=9).tasks


@pytest.fixture(name="scene")
def _scene(tmp_path: Path) -> Iterator[Scene]:
    scene = Scene(tmp_path)
    with closing(scene.store), closing(scene.reader):
        yield scene


def said(task: Running | Ended) -> dict[str, Any]:
    view = view_of(task, now=99 * NANOS, requests=3)
    return {"user": view.user, "resource": view.resource, "message": task.message, "grade": view.correlation}


def test_what_all_candidates_say_is_a_fact(scene: Scene) -> None:
    """The same user on the same guest is named, whichever request it was; the match is as ambiguous as before."""
    tasks = scene.tasks(
        CHOSEN._replace(ordinal=4, context=request_row(4).context, message="Another sentence")
    )

    assert [said(one) for one in tasks] == [
        {"user": "ada", "resource": "guest db01", "message": "", "grade": "ambiguous"}
    ] * 2


def test_what_they_do_not_agree_on_is_not_said(scene: Scene) -> None:
    """Another user and another guest: nobody is named, in the list and in the terminal."""
    other = request_row(4, user="grace", resource="guest web01")
    tasks = scene.tasks(other)
    views = [view_of(one, now=99 * NANOS, requests=4) for one in tasks]
    listed = [Listed(view, CHOSEN, []) for view in views]
    shown = "\n".join(table(listed, zone=UTC, width=200, is_coloured=False))
    story = scene.reader.story(views[1].context, meanwhile_max=1, durations_max=1)

    assert [said(one) for one in tasks] == [
        {"user": "", "resource": "", "message": "", "grade": "ambiguous"}
    ] * 2
    assert "ada" not in shown
    assert "db01" not in shown
    # the task alone shows both requests, and which one was chosen
    assert story is not None
    assert story.request == CHOSEN
    assert story.candidates == [other]


def test_a_forgotten_candidate_may_have_said_anything(scene: Scene) -> None:
    """Where the history has lost one of the candidates, the others prove nothing."""
    tasks = scene.tasks(CHOSEN._replace(ordinal=4, context=request_row(4).context), request_row(5), kept=())

    assert {said(one)["user"] for one in tasks} == {""}


def test_long_texts_are_not_compared(scene: Scene) -> None:
    """A text that is too long to be read for thousands of candidates is left out; the others are still said."""
    long = "x" * (COMPARED_CHARS_MAX + 1)
    tasks = scene.tasks(CHOSEN._replace(ordinal=4, context=request_row(4).context, message=long))

    assert {said(one)["message"] for one in tasks} == {""}
    assert {said(one)["user"] for one in tasks} == {"ada"}

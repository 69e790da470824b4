"""Which English a record gets, in every dialect and under every privacy setting."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from exporter.records import Record
from exporter.wok.sentences import People, Privacy, Sentences, Texts


class Tables:
    """Message tables with sentences of their own, and the form of a real one for codes they lack."""

    def __init__(self, **templates: str) -> None:
        self.templates = templates

    def render(self, code: str, params: Mapping[str, Any]) -> str:
        """Return the sentence, or the code and the parameters."""
        if code in self.templates:
            return self.templates[code].format_map(params)
        return " ".join([code, *(f"{key}={json.dumps(params[key])}" for key in sorted(params))])


TABLES = Tables(
    KCHVM0009L="Copy {ident}", KCHVM0035E="No copy of {name}: {err}", WOKROOT0001L="Hello {username}"
)


def a_record(**changes: Any) -> Record:
    """Return a request of the JSON dialect, changed as asked."""
    plain = Record(
        kind="request",
        dialect="json",
        time=1_479_000_000_000_000_000,
        app="kimchi",
        method="POST",
        status=202,
        user="ada",
        address="192.0.2.7",
        code="KCHVM0009L",
        params={"ident": "web"},
        error_code="",
        error_params={},
        text="",
        trace_id=bytes(range(16)),
        record_id="",
        file=bytes(16),
        offset=0,
    )
    return plain._replace(**changes)


def texts(record: Record, privacy: Privacy = "plain") -> Texts:
    return Sentences(TABLES, People("instance", privacy)).of(record)


RFC = {"kind": "finished", "dialect": "rfc", "method": "TASK", "code": "WOKASYNC0002L", "failed": True}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        pytest.param({}, Texts("Copy web", ""), id="rendered"),
        pytest.param({"code": "KCHX0001L"}, Texts('KCHX0001L ident="web"', ""), id="no table"),
        pytest.param({"code": ""}, Texts("POST kimchi", ""), id="nothing to render"),
        pytest.param({"text": "Clone it", "dialect": "coded"}, Texts("Clone it", ""), id="from the line"),
        pytest.param(
            {"text": "Copy a", "params": {"ident": "a\nb"}}, Texts("Copy a\nb", ""), id="many lines, rendered"
        ),
        pytest.param(
            {"text": "Clone a", "params": {"ident": "a\nb"}},
            Texts("Clone a", ""),
            id="many lines, no such table",
        ),
        pytest.param(
            {"status": 400, "error_code": "KCHVM0035E", "error_params": {"name": "web", "err": "full"}},
            Texts("Copy web (KCHVM0035E: No copy of web: full)", "No copy of web: full"),
            id="reason rendered",
        ),
        pytest.param(
            {"status": 500, "error_code": "KCHX0001E", "error_params": {"err": "full"}},
            Texts('Copy web (KCHX0001E err="full")', 'KCHX0001E err="full"'),
            id="reason without a table",
        ),
        pytest.param({"status": 500}, Texts("Copy web", ""), id="no reason"),
        pytest.param(
            {**RFC, "error_code": "KCHVM0035E", "text": "Failure on 8: /x (KCHVM0035E busy (now))"},
            Texts("Failure on 8: /x (KCHVM0035E busy (now))", "busy (now)"),
            id="reason in the line",
        ),
        pytest.param(
            {**RFC, "error_code": "KCHVM00001E", "text": "Failure on 8: /x (KCHVM0001E failed ...)"},
            Texts("Failure on 8: /x (KCHVM0001E failed ...)", "failed ..."),
            id="reason under another code, as in the RFC",
        ),
        pytest.param(
            {
                **RFC,
                "error_code": "KCHVM0035E",
                "error_params": {"name": "web", "err": "one\ntwo"},
                "text": "Failure on 8: /x (KCHVM0035E No copy of web: one",
            },
            Texts("Failure on 8: /x (KCHVM0035E No copy of web: one\ntwo)", "No copy of web: one\ntwo"),
            id="reason of many lines",
        ),
        pytest.param(
            {**RFC, "text": "Failure on 8: /x"}, Texts("Failure on 8: /x", ""), id="failed without a reason"
        ),
        pytest.param(
            {
                "dialect": "coded",
                "text": "Remove (KCHVM0035E x)",
                "status": 400,
                "error_code": "KCHVM0035E",
                "error_params": {"name": "web", "err": "full"},
            },
            Texts("Remove (KCHVM0035E x) (KCHVM0035E: No copy of web: full)", "No copy of web: full"),
            id="a guest's name that looks like a reason",
        ),
    ],
)
def test_the_sentence_and_the_reason(changes: dict[str, Any], expected: Texts) -> None:
    """Every way in which a record can say what happened gives the one sentence and the one reason."""
    assert expected == texts(a_record(**changes))


@pytest.mark.parametrize("privacy", ["hash", "drop"])
@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"code": "WOKROOT0001L", "params": {"username": "ada"}}, id="rendered"),
        pytest.param({"code": "WOKX0001L", "params": {"username": "ada\nx"}}, id="no table"),
        pytest.param({"text": "Hello ada from 192.0.2.7", "dialect": "coded"}, id="user and address"),
        pytest.param(
            {
                "text": "Hello ada",
                "user": "",
                "dialect": "coded",
                "code": "WOKROOT0001L",
                "params": {"username": "ada\n{}"},
            },
            id="beginning of a name",
        ),
        pytest.param(
            {"app": "wok", "dialect": "text", "user": "", "text": "Usu\u00e1rio 'ada' entrou"}, id="quoted"
        ),
        pytest.param({"app": "wok", "dialect": "text", "user": "", "text": "User 'ada"}, id="half quoted"),
        pytest.param(
            {"status": 401, "error_code": "WOKAUTH0001E", "error_params": {"username": "ada"}},
            id="in the reason",
        ),
        pytest.param({"params": {"ident": "web", "username": ["ada"]}, "code": "WOKX0001L"}, id="not a text"),
    ],
)
def test_people_are_kept_out_of_sentences(privacy: Privacy, changes: dict[str, Any]) -> None:
    """With privacy asked for, neither names nor addresses are in what a record says; without, they are."""
    record = a_record(**changes)
    told = "".join(texts(record, privacy))

    assert "ada" in "".join(texts(record))
    assert "ada" not in told
    assert "192.0.2.7" not in told


def test_the_same_stand_in_everywhere() -> None:
    """A hashed name in a sentence is the one that the user attribute shows."""
    people = People("instance", "hash")
    record = a_record(text="Hello ada, not adam", dialect="coded")

    assert f"Hello {people.user('ada')}, not adam" == texts(record, "hash").message


def test_hashes_differ_between_instances() -> None:
    """The same name on another Wok is another pseudonym, of sixteen hex digits; no name has none."""
    one, other = People("one", "hash").user("ada"), People("other", "hash").user("ada")

    assert one != other
    assert len(bytes.fromhex(one)) == 8
    assert People("one", "hash").user("") == ""

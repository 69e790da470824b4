"""The parser: lines of all releases of Wok, torn, forged and hostile lines, and the corpus."""

from __future__ import annotations

import hashlib
import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.metrics.definitions import FAMILIES
from exporter.parse import parser as parse
from exporter.parse.dialects import MAX_SALVAGE_TRIES
from exporter.parse.parser import Parser
from exporter.parse.timezone import Zones
from exporter.records import NANOS, REJECT_REASONS, Continuation, Line, Parsed, Record, Rejected

CORPUS = Path(__file__).parents[2] / "shared" / "corpus"
FILE = bytes(range(16))
SECRETS = ("S3cret", "LeakedPW", "chap-secret", "chapsecret", "'chap'")

E1 = b'{"date": "2026-11-23", "app": "kimchi", "req": "POST", "user": "root", "time": "04:21:40"} >>> Clone guest \'v\''
E2 = (
    b'{"zone": "IST", "ip": "127.0.0.1", "app": "wok", "req": "POST", "user": null, "time": "08:49:57", '
    b'"date": "2026-11-23"} >>> {"a": 1} >>> b'
)
E2B = (
    b'{"status": 202, "zone": "BRT", "ip": "evil >>> x", "app": "kimchi", "req": "POST", "user": "None", '
    b'"time": "08:49:57", "date": "2016-07-23"} >>> Clone'
)
E3 = (
    b'{"status": 202, "zone": "BRST", "ip": "127.0.0.1", "app": "kimchi", "req": "POST", "msgCode": "KCHVM0009L", '
    b'"user": "root", "time": "01:20:26", "date": "2016-08-09"} >>> {"ident": "vm38", "remote_host": ""} >>> '
    b"Clone guest 'vm38'"
)
E4_ERROR = (
    b'{"status": 500, "detCode": "KCHVM0021E", "zone": "BRT", "ip": "::1", "app": "kimchi", "req": "DELETE", '
    b'"msgCode": "KCHVM0002L", "user": "N/A", "time": "00:17:47", "date": "2016-08-12"} >>> {"ident": "a >>> b"} >>> '
    b'{"name": "a >>> b", "err": "busy"} >>> Remove guest \'a >>> b\''
)
RFC_START = (
    b'{"status": 1000, "zone": "BRT", "ip": "", "app": "kimchi", "req": "TASK", "msgCode": "WOKASYNC0000L", "user": "", '
    b'"time": "06:00:27", "date": "2016-08-12"} >>> {"target_uri": "/plugins/kimchi/vms/name/clone", "task_id": 100}  >>> '
    b"Started Kimchi task ID 100: /plugins/kimchi/vms/name/clone"
)
RFC_FAILURE = (
    b'{"status": 1002, "detCode": "KCHVM0001E", "zone": "BRT", "ip": "", "app": "kimchi", "req": "TASK", '
    b'"msgCode": "WOKASYNC0002L", "user": "", "time": "06:00:28", "date": "2016-08-12"} >>> '
    b'{"target_uri": "/plugins/kimchi/vms/name/clone", "task_id": "100"} >>> {"vm": "name"} >>> Failure on Kimchi task'
)
E5 = (
    b'{"info": {"status": 202, "zone": "BRT", "ip": "127.0.0.1", "app": "/plugins/kimchi", "req": "POST", "user": "root", '
    b'"time": "00:22:19", "date": "2026-11-23"}, "message": {"code": "KCHVM0001L", "params": {"name": "vm6", "graphics": '
    b"\"{u'passwd': u'S3cret', u'type': u'vnc'}\"}}, \"id\": \"5afaf8a7-0dc6-4ccb-8e31-85120e102ec7\", \"error\": null}"
)
E5_TASK = (
    b'{"info": {"status": 400, "zone": "BRT", "ip": "", "app": "/plugins/kimchi", "req": "TASK", "user": "", '
    b'"time": "00:22:19", "date": "2026-11-23"}, "message": {"code": "WOKASYNC0002L", "params": {"target_uri": '
    b'"/plugins/kimchi/vms/vm3/clone"}}, "id": "e984055a-0dc6-4ccb-8e31-85120e102ec7", "error": {"code": "KCHVM0035E", '
    b'"params": {"name": "vm3", "err": "internal error"}}}'
)
E6 = (
    b'{"id": "eacf4137-7850-44ac-9326-984c85b6bd96", "message": {"code": "KCHVM0009L", "params": {"ident": "vm19", "n": NaN, '
    b'"big": 10737418240}}, "error": null, "info": {"app": "/wok/plugins/kimchi", "req": "POST", "status": 202, "user": '
    b'"jos\\u00e9", "ip": "127.0.0.1", "date": "2026-11-23", "time": "00:17:29", "zone": "-03"}}'
)
ERAS = [E1, E2, E2B, E3, E4_ERROR, RFC_START, RFC_FAILURE, E5, E5_TASK, E6]


def new_parser(state: str = "") -> Parser:
    """A parser in the zone of Wok's authors."""
    return Parser("test", Zones("America/Sao_Paulo"), state)


def lines_of(*data: bytes) -> list[Line]:
    """Consecutive lines of a file, from offset 1000 on."""
    lines = []
    offset = 1000
    for line in data:
        lines.append(Line(FILE, offset, line, len(line)))
        offset += len(line) + 1
    return lines


def fed(*data: bytes) -> list[Parsed]:
    """Parse lines with a new parser."""
    parser = new_parser()
    return [parsed for line in lines_of(*data) for parsed in parser.feed(line)]


def one(data: bytes) -> Record:
    """Parse a line that is exactly one record."""
    (parsed,) = fed(data)
    assert isinstance(parsed, Record), parsed
    return parsed


def outline(parsed: list[Parsed]) -> list[Any]:
    """A short form of parsed items: method and user of records, `forged` of
    continuations, reasons.
    """
    short: list[Any] = []
    for item in parsed:
        if isinstance(item, Record):
            short.append((item.dialect, item.method, item.offset))
        else:
            short.append(item.forged if isinstance(item, Continuation) else item.reason)
    return short


def coded(
    params: dict[str, Any], text: str, error: dict[str, Any] | None = None, head: dict[str, Any] | None = None
) -> list[bytes]:
    """The physical lines of a record as the Wok of August 2016 writes it."""
    info = {
        "status": 401,
        "zone": "BRT",
        "ip": "10.0.0.1",
        "app": "wok",
        "req": "POST",
        "msgCode": "WOKROOT0001L",
    }
    info |= {"user": "N/A", "time": "06:00:13", "date": "2016-08-12", **(head or {})}
    if error is not None:
        info["detCode"] = "WOKAUTH0001E"
    middle = "" if error is None else json.dumps(error)
    line = f"{json.dumps(info)} >>> {json.dumps(params)} {middle and '>>> ' + middle} >>> {text}"
    return line.encode("utf-8", "surrogatepass").split(b"\n")


def login(name: str) -> list[bytes]:
    """The physical lines of a failed login with any user name."""
    return coded({"username": name}, f"User '{name}' login")


def as_json(params: Any = None, **info: Any) -> bytes:
    """A record of Wok 3 with any parameters and fields."""
    fields = {
        "app": "/plugins/kimchi",
        "req": "POST",
        "status": 200,
        "user": "u",
        "ip": "i",
        "date": "2026-11-23",
    }
    fields |= {"time": "00:17:29", "zone": "-03"}
    record = {"id": "x", "message": {"code": "C", "params": {} if params is None else params}, "error": None}
    return json.dumps(record | {"info": fields | info}).encode()


def expected(**fields: Any) -> Record:
    """A record with the fields that most of them share."""
    common: dict[str, Any] = {
        "kind": "request",
        "app": "kimchi",
        "method": "POST",
        "status": 202,
        "user": "root",
    }
    common |= {
        "address": "127.0.0.1",
        "code": "",
        "params": {},
        "error_code": "",
        "error_params": {},
        "text": "",
    }
    common |= {"trace_id": b"", "record_id": "", "file": FILE, "offset": 1000}
    return Record(**(common | fields))


def derived(line: bytes) -> bytes:
    """The documented trace id of a record without a uuid."""
    parts = (b"test", FILE, b"1000", line)
    return hashlib.sha256(b"".join(len(part).to_bytes(8, "big") + part for part in parts)).digest()[:16]


@pytest.mark.parametrize(
    ("line", "record"),
    [
        (E1, expected(dialect="text", time=1795418500, status=None, address="", text="Clone guest 'v'")),
        (E2, expected(dialect="text", time=1795434597, status=None, app="wok", user="", text='{"a": 1} >>> b')),
        (E2B, expected(dialect="text", time=1469274597, user="", address="evil >>> x", text="Clone")),
        (
            E3,
            expected(dialect="coded", time=1470712826, code="KCHVM0009L", text="Clone guest 'vm38'",
                     params={"ident": "vm38", "remote_host": ""}),
        ),
        (
            E4_ERROR,
            expected(dialect="coded", time=1470971867, method="DELETE", status=500, user="", address="::1",
                     code="KCHVM0002L", params={"ident": "a >>> b"}, error_code="KCHVM0021E",
                     error_params={"name": "a >>> b", "err": "busy"}, text="Remove guest 'a >>> b'"),
        ),
        (
            RFC_START,
            expected(kind="started", dialect="rfc", time=1470992427, method="TASK", status=1000, user="", address="",
                     code="WOKASYNC0000L", params={"target_uri": "/plugins/kimchi/vms/name/clone", "task_id": 100},
                     text="Started Kimchi task ID 100: /plugins/kimchi/vms/name/clone",
                     target_uri="/plugins/kimchi/vms/name/clone", task_id="100"),
        ),
        (
            RFC_FAILURE,
            expected(kind="finished", dialect="rfc", time=1470992428, method="TASK", status=1002, user="", address="",
                     code="WOKASYNC0002L", params={"target_uri": "/plugins/kimchi/vms/name/clone", "task_id": "100"},
                     error_code="KCHVM0001E", error_params={"vm": "name"}, text="Failure on Kimchi task",
                     target_uri="/plugins/kimchi/vms/name/clone", task_id="100", failed=True),
        ),
        (
            E5,
            expected(dialect="json", time=1795404139, code="KCHVM0001L",
                     params={"name": "vm6", "graphics": "{u'passwd': u'[redacted]', u'type': u'vnc'}"},
                     trace_id=bytes.fromhex("5afaf8a70dc64ccb8e3185120e102ec7"),
                     record_id="5afaf8a7-0dc6-4ccb-8e31-85120e102ec7"),
        ),
        (
            E5_TASK,
            expected(kind="finished", dialect="json", time=1795404139, method="TASK", status=400, user="", address="",
                     code="WOKASYNC0002L", params={"target_uri": "/plugins/kimchi/vms/vm3/clone"},
                     error_code="KCHVM0035E", error_params={"name": "vm3", "err": "internal error"},
                     trace_id=bytes.fromhex("e984055a0dc64ccb8e3185120e102ec7"),
                     record_id="e984055a-0dc6-4ccb-8e31-85120e102ec7", target_uri="/plugins/kimchi/vms/vm3/clone",
                     failed=True),
        ),
    ],
    ids=["2.1", "2.2", "June 2016", "9 August 2016", "12 August 2016", "rfc 1000", "rfc 1002", "2.3", "2.3 task"],
)  # fmt: skip
def test_eras(line: bytes, record: Record) -> None:
    """For a record of each dialect, all fields are parsed."""
    whole = record._replace(time=record.time * NANOS, trace_id=record.trace_id or derived(line))

    assert whole == one(line)


def test_wok_3() -> None:
    """A record of Wok 3 keeps native values, a numeric zone is an offset, and a
    NaN does no harm.
    """
    record = one(E6)

    assert str(record.params) == "{'ident': 'vm19', 'n': nan, 'big': 10737418240}"
    assert (record.app, record.user, record.time) == ("kimchi", "josé", 1795403849 * NANOS)


@pytest.mark.parametrize(
    ("path", "app"),
    [("/plugins/kimchi", "kimchi"), ("/wok/plugins/kimchi", "kimchi"), ("/my/root/plugins/ginger", "ginger"),
     ("kimchi", "kimchi"), ("", "wok"), ("/wok", "wok"),
     ("/mgmt", "wok"), ("/mgmt/", "wok"), ("/a/b", "wok"), ("/plugins", "wok"), ("/mgmt/plugins", "wok"),
     ("/mgmt/plugins/kimchi", "kimchi"), ("/plugins/x/plugins/Ginger", "ginger"), ("/" + "r" * 999, "wok"),
     ("/" + "r" * 999 + "/plugins/kimchi", "kimchi"), ("wok", "wok"), ("/", "wok"), ("Kim Chi<b>", "kim_chi_b_"),
     ("a" * 500, "a" * 64), (None, "wok"), (["x"], "wok"), (7, "wok")],
)  # fmt: skip
def test_app(path: Any, app: str) -> None:
    """One application has one name in every release, and a hostile one has a harmless name."""
    assert app == one(as_json(app=path)).app


@pytest.mark.parametrize(
    ("written", "status"),
    [(200, 200), ("200 OK", 200), ("404", 404), ("", None), (None, None), (True, None), ([200], None), (2**70, None),
     (-1, None), (201.0, 201), ("9" * 5000, None), (float("inf"), None), ("\u0662\u0660\u0660", None)],
)  # fmt: skip
def test_status(written: Any, status: int | None) -> None:
    """A status is a number, text that begins with one, or missing."""
    assert status == one(as_json(status=written)).status


@pytest.mark.parametrize(
    ("status", "kind", "failed"),
    [(200, "finished", False), (400, "finished", True), (500, "finished", True), (1000, "started", False),
     (1001, "finished", False), (1002, "finished", True), ("1001", "finished", False)],
)  # fmt: skip
def test_json_tasks(status: Any, kind: str, failed: bool) -> None:
    """A released Wok ends tasks with 200 and 400; an extended one may write the RFC's statuses and
    ids as JSON.
    """
    record = one(
        as_json({"target_uri": ["/x"], "task_id": 7, "request_id": "abc"}, req="TASK", status=status)
    )

    assert (record.kind, record.failed, record.dialect) == (kind, failed, "json")
    assert (record.target_uri, record.task_id, record.request_id) == ("['/x']", "7", "abc")


def test_request_has_no_task() -> None:
    """`target_uri` and `task_id` in a request come from the user's body, so they are ignored."""
    record = one(as_json({"target_uri": "/x", "task_id": 7, "request_id": "abc"}))

    assert (record.target_uri, record.task_id, record.request_id) == ("", "", "")


@pytest.mark.parametrize("user", [None, "None", "N/A", ""])
def test_nobody(user: Any) -> None:
    """All names that Wok writes for no user become the empty name."""
    assert one(as_json(user=user)).user == ""


@pytest.mark.parametrize(
    "written",
    ["5AFAF8A7-0DC6-4CCB-8E31-85120E102EC7", "00000000-0000-0000-0000-000000000000", "5afaf8a70dc64ccb8e3185120e102ec7",
     "5afaf8a7-0dc6-4ccb-8e31-85120e102e 7", "{5afaf8a7-0dc6-4ccb-8e31-85120e102ec", "", None, 7, ["x"]],
)  # fmt: skip
def test_no_uuid(written: Any) -> None:
    """An id that is not a canonical uuid is ignored: the trace id is derived from the position of
    the line.
    """
    line = json.dumps(json.loads(as_json()) | {"id": written}).encode()
    record = one(line)

    assert (record.record_id, record.trace_id) == ("", derived(line))


def test_derived_ids_differ() -> None:
    """Equal lines at other offsets, in other files and of other instances have other trace ids."""
    line = lines_of(E1)[0]
    parsers = [new_parser(), Parser("tes", Zones("UTC"))]
    variants = [line, line._replace(offset=1001), line._replace(file=FILE[::-1])]
    ids = {
        item.trace_id
        for parser in parsers
        for each in variants
        for item in parser.feed(each)
        if isinstance(item, Record)
    }

    assert len(ids) == 6


def test_bounds() -> None:
    """All output is within its limits of length, depth and entries, without lone surrogates."""
    deep: Any = 1
    for _ in range(60):
        deep = {"d": deep}
    record = one(
        as_json(
            {"s": "x" * 9000, "l": list(range(300)), "deep": deep, "u": "a\ud800b", "\udfff": 1, "i": 2**64, "j": 2**63 - 1,
             "target_uri": "y" * 9000, "task_id": "z" * 90},
            req="TASK", user="u" * 900, ip="\ud800" * 900,
        )
    )  # fmt: skip

    assert [len(record.user), len(record.address), len(record.target_uri), len(record.task_id)] == [
        256,
        256,
        4096,
        64,
    ]
    assert (len(record.params["s"]), record.params["s"][-2:], len(record.params["l"])) == (8192, "x…", 200)
    assert "[too deep]" in str(record.params["deep"])
    assert (record.params["u"], record.params["\ufffd"]) == ("a\ufffdb", 1)
    assert (record.params["i"], record.params["j"]) == (str(2**64), 2**63 - 1)
    assert repr(record).encode()
    assert len(one(E1 + b"x" * 5000).text) == 1024


def test_crowded_info() -> None:
    """Unknown fields do not displace known ones."""
    record = json.loads(as_json())
    record["info"] = {f"x{number}": number for number in range(300)} | record["info"]

    assert one(json.dumps(record).encode()).app == "kimchi"


@pytest.mark.parametrize("junk", [None, 1, "x", [], {}, [[]], {"a": 1}, True, 1.5, "\ud800", "x" * 9000])
@pytest.mark.parametrize(
    "place", ["message", "error", "id", "code", "params", "user", "ip", "zone", "app", "status"]
)
def test_hostile_types(place: str, junk: Any) -> None:
    """A value of any type in any place but date, time and method still gives a record."""
    record = json.loads(as_json())
    if place in {"code", "params"}:
        record["message"][place] = junk
        record["error"] = {place: junk}
    elif place in record:
        record[place] = junk
    else:
        record["info"][place] = junk

    assert isinstance(one(json.dumps(record).encode()), Record)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"hello", "shape"), (b"", "shape"), (b"{}", "shape"), (b'{"a": 1}', "shape"), (b'{"info": 1}', "shape"),
        (b"[1]", "shape"), (b"{'a': 1}", "shape"), (E3.replace(b'"POST"', b"7"), "shape"),
        (as_json(date="2026-02-30"), "time"), (as_json(time="x"), "time"), (as_json(date=None), "shape"),
        (as_json(req="post"), "shape"), (as_json(req="A" * 17), "shape"), (as_json(req="TASK", status=None), "shape"),
        (as_json(req="TASK", status=100), "shape"), (E5[:-1], "json"), (E5 + b"x", "json"), (E3[:-30], "json"),
        (E3.replace(b'{"ident"', b'["ident"'), "json"), (b'{"a": 1} >>> {"b": 2} >>> c', "shape"),
        (b'{"info": ' + b"[" * 60000, "json"), (b'{"info": ' + b"[" * 100000, "unsafe"), (b'{"a": ' + b"\xff", "encoding"), (b"\xff\xfe{\x00", "encoding"),
    ],
)  # fmt: skip
def test_rejected(line: bytes, reason: str) -> None:
    """A line that is not a record is rejected with the first reason that applies."""
    (rejected,) = fed(line)

    assert isinstance(rejected, Rejected)
    assert (rejected.reason, rejected.file, rejected.offset) == (reason, FILE, 1000)


def test_each_reason_has_lines_and_a_series() -> None:
    """The parser rejects lines for each of the declared reasons, and the metric has exactly these
    at 0.
    """
    whole = (
        b"hello",
        E5[:-1],
        as_json(time="x"),
        b'{"info": ' + b"[" * 100_000,
        b'{"a": ' + b"\xff",
        bytes(5),
    )
    lines = [
        *lines_of(*whole),
        Line(FILE, 7, b"{", 1 << 30),
        Line(FILE, 9, E5[:-9], len(E5) - 9, ended=False),
    ]
    items = [item for line in lines for item in new_parser().feed(line)]
    metric = next(family for family in FAMILIES if family.name == "wok_exporter_rejected_lines_total")

    reasons = {item.reason for item in items if isinstance(item, Rejected)}
    assert reasons == set(REJECT_REASONS)
    assert {label for (label,) in metric.known} == reasons


def test_excerpt_of_a_fragment() -> None:
    """A line without its beginning may start within a secret, so its excerpt is omitted."""
    (rejected,) = fed(b"""edPW!', u'type': u'vnc'}"}}, "id": "x"}""")

    assert rejected == Rejected("shape", FILE, 1000, "(left out: it may be the middle of a record)")


@pytest.mark.parametrize("line", ERAS)
def test_windows_line_end(line: bytes) -> None:
    """A carriage return at the end of a line, as converted files have it, is not part of it."""
    assert repr(fed(line)) == repr(fed(line + b"\r"))


def test_byte_order_mark() -> None:
    """A byte order mark at the beginning of the file is skipped; anywhere else it is rejected as
    torn.
    """
    mark = b"\xef\xbb\xbf"
    first, second = (Line(FILE, offset, mark + E5, len(E5) + 3) for offset in (0, 1000))

    parsed = new_parser().feed(first) + new_parser().feed(second)

    assert outline(parsed) == [("json", "POST", 3), "torn", ("json", "POST", 1003)]


def test_invalid_utf8() -> None:
    """Bytes that are no UTF-8 are replaced, in the text and in JSON, and the record is kept."""
    text = one(E3 + b"\xff\xed\xa0\x80")
    value = one(E5.replace(b'"vm6"', b'"vm\xff6"'))

    assert (text.text, value.params["name"]) == ("Clone guest 'vm38'" + "\ufffd" * 4, "vm\ufffd6")


def test_too_long() -> None:
    """A line that is too long is rejected without parsing; its excerpt is redacted even where it
    was cut.
    """
    line = Line(FILE, 7, b'{"info": {"passwd": "LeakedPW', 1 << 30)

    assert new_parser().feed(line) == [Rejected("too_long", FILE, 7, '{"info": {"passwd": "[redacted]')]


def test_unfinished() -> None:
    """The last line of a finished file is parsed if it is complete, and
    otherwise rejected as torn.
    """
    whole, torn = (Line(FILE, 1000, data, len(data), ended=False) for data in (E5, E5[:-9]))

    assert outline(new_parser().feed(whole) + new_parser().feed(torn)) == [("json", "POST", 1000), "torn"]


@pytest.mark.parametrize("line", ERAS)
def test_hole(line: bytes) -> None:
    """The record after a hole of NUL bytes from copytruncate is found, with its own offset."""
    hole, record = fed(bytes(4096) + line)

    assert hole == Rejected("nul", FILE, 1000, "4096 NUL bytes")
    assert isinstance(record, Record)
    assert record.offset == 1000 + 4096
    assert fed(bytes(5)) == [Rejected("nul", FILE, 1000, "5 NUL bytes")]


@pytest.mark.parametrize("next_line", ERAS[2:])
@pytest.mark.parametrize("torn", [E3, E4_ERROR, RFC_START, E5, E5_TASK, E6])
def test_torn(torn: bytes, next_line: bytes) -> None:
    """Wherever a line was torn, the record that was appended to it is recovered, with its own
    offset.

    Where all but the text was written, the torn record is one as well.
    """
    text_at = max(torn.rfind(b"} >>> ") + 5, torn.rfind(b"}  >>> ") + 6) if b">>>" in torn else len(torn)
    for cut in range(2, len(torn)):
        first, last = fed(torn[:cut] + next_line)

        assert isinstance(last, Record), cut
        assert (
            last == one(next_line)._replace(offset=1000 + cut, trace_id=last.trace_id) or b"NaN" in next_line
        )
        assert isinstance(first, Record if cut >= text_at else Rejected), cut


def test_torn_many_times() -> None:
    """Several torn lines before one record are one rejection; beyond a limit the record is not
    searched.
    """
    few = fed(b'{"info": {' * 5 + E5)
    many = fed(b'{"info": {"status": 1' * MAX_SALVAGE_TRIES + E5)

    assert outline(few) == ["torn", ("json", "POST", 1050)]
    assert outline(many) == ["json"]
    assert len(fed(E3 * 20)) == MAX_SALVAGE_TRIES + 1


def test_continuations() -> None:
    """Lines without a header belong to a record with a text, but never to a record of Wok 2.3 or
    later.
    """
    assert outline(fed(E1, b"more", b"", b"{'x'}", E5, b"more", b"")) == [
        ("text", "POST", 1000), False, False, False, ("json", "POST", 1000 + len(E1) + 13), "shape", "shape",
    ]  # fmt: skip
    assert outline(fed(E3, b'{"torn', b"more")) == [("coded", "POST", 1000), "json", False]


FORGED = RFC_START.decode()


@pytest.mark.parametrize(
    ("lines", "following"),
    [
        (login(f"x\n{FORGED}"), [True]),
        (login(f"\n{FORGED}"), [True]),
        (login(f"x\n{FORGED}\n{E5.decode()}\ny"), [True, True, False]),
        (login(f"x\n\n\r\n{FORGED}\r\n{FORGED}\n"), [False, False, True, True, False]),
        (login(f"x\nfoo{FORGED}"), [True]),
        (login(f"x\n\0\0{FORGED}"), [True]),
        (login(f"x\u2028\ud800\n{FORGED}"), [True]),
        (login(f"x\n{E5.decode()}"), [False]),  # with the rest of the sentence it is no record
        (login("x\n" * 1500 + FORGED + "\n" + FORGED), [False] * 1499 + [True, True]),
        (coded({"a": "x\ny", "b": f"p\n{FORGED}"}, f"From 'x\ny' to 'p\n{FORGED}'"), [False, True]),
        (coded({"a": "x\ny"}, f"From 'x\ny' (E: no\n{FORGED})", {"err": f"no\n{FORGED}"}), [False, True]),
        (coded({"a": f"x\n{FORGED}"}, f"From 'x\n{FORGED}' to 'x\n{FORGED}'"), [True, True]),
    ],
)  # fmt: skip
def test_forged(lines: list[bytes], following: list[bool]) -> None:
    """A line that the parameters prove to be text is a continuation, even if it looks like a
    record.
    """
    parsed = fed(*lines, E3)

    assert [following, "E3"] == [outline(parsed[1:-1]), "E3" if isinstance(parsed[-1], Record) else ""]
    assert isinstance(parsed[0], Record)


@pytest.mark.parametrize(
    "name",
    [
        "' login\n{",
        '\' login\n{"status": ',
        "' login\n" + RFC_START[:150].decode(),
        "x\n{",
        "' login\n" + "z" * 200,
        "\n",
        "x\n\n",
        "' login\n",
    ],
)
def test_nobody_hides_a_record(name: str) -> None:
    """A value with the beginning of the next record does not turn that record
    into a continuation.
    """
    assert outline(fed(*login(name), RFC_START))[-1][:2] == ("rfc", "TASK")


def test_value_outside_of_the_text() -> None:
    """A parameter that is not in the sentence proves nothing, even if it equals the whole next
    record.
    """
    lines = coded(
        {"username": "v", "note": f"q\n{FORGED}", "more": f"x\nv' login\n{FORGED}"}, "User 'v' login"
    )

    assert [item for item in fed(*lines, RFC_START) if not isinstance(item, Record)] == []


def test_many_forgeries() -> None:
    """All forged records in a value are detected, however many, and the line
    after them is not one.
    """
    records = "\n".join(f"{FORGED}/{number}" for number in range(5000))
    parsed = fed(*login(f"x\n{records}\n"), E3)

    assert outline(parsed[1:5001]) == [True] * 5000
    assert isinstance(parsed[-1], Record)


def test_too_long_ends_a_proof() -> None:
    """A line that is too long ends a proof."""
    parser = new_parser()
    first, _ = lines_of(*login("x\ny"))
    parser.feed(first)
    parser.feed(Line(FILE, 5000, b"{", 9000))

    assert parser.state == "{}"


@pytest.mark.parametrize("line", [b"", b"\0", b"\0\0{", b"\r", b"{", b'{"'])
def test_small_lines(line: bytes) -> None:
    """The smallest lines are rejected, or continue a text."""
    assert all(isinstance(item, (Rejected, Continuation)) for item in fed(line) + fed(E1, line)[1:])


@pytest.mark.parametrize(
    "state",
    [
        "x",
        "[1]",
        "7",
        '{"proof": 1}',
        '{"proof": {"values": []}}',
        '{"proof": {"values": [], "active": [[0, 1]]}}',
    ],
)
def test_foreign_state(state: str) -> None:
    """An invalid state is rejected, and the error quotes it."""
    with pytest.raises(ValueError, match="not the state of a parser"):
        new_parser(state)


def test_state_is_small() -> None:
    """The state has no text of the log, and is empty if the next line needs no context."""
    parser = new_parser()
    states = []
    for line in lines_of(E5, E1, *login("x\n" + "secret name\n" * 5000), E5):
        parser.feed(line)
        states.append(parser.state)

    assert (states[0], states[1], states[-1]) == ("", "{}", "")
    assert max(map(len, states)) < 60_000
    assert "secret" not in "".join(states)


ingredients = st.sampled_from(
    [
        *ERAS,
        b"more",
        b"",
        b"x\r",
        b"\0\0" + E5,
        E3[:90] + E6,
        b'{"x',
        *login(f"x\n{FORGED}"),
        *login("a\nb\nc"),
        *login("\n"),
    ]
)


@given(st.lists(ingredients, max_size=12))
def test_batches(data: list[bytes]) -> None:
    """A parser that is rebuilt from its state after every line gives the same items."""
    state = ""
    cut: list[Parsed] = []
    for line in lines_of(*data):
        parser = new_parser(state)
        cut += parser.feed(line)
        state = parser.state

    assert repr(fed(*data)) == repr(cut)


@given(st.lists(st.binary(max_size=60) | st.sampled_from([E1, E3, E5]), max_size=5))
def test_any_bytes(data: list[bytes]) -> None:
    """For any bytes, every line gives an item, and its texts are valid UTF-8 and safe for a
    terminal.
    """
    parser = new_parser()
    for line in lines_of(*data):
        parsed = parser.feed(line)

        assert parsed
        assert repr(parsed).encode()


@settings(max_examples=300)
@given(
    st.sampled_from(ERAS),
    st.lists(
        st.tuples(st.integers(0, 600), st.integers(0, 5), st.binary(max_size=4)), min_size=1, max_size=4
    ),
)
def test_mutations(line: bytes, edits: list[tuple[int, int, bytes]]) -> None:
    """A valid line with bytes replaced, removed or added never raises, and keeps its secret."""
    data = line
    for at, removed, added in edits:
        data = data[:at] + added + data[at + removed :]
    is_planted = b"passwd': u'S3cret'" in data
    shown = repr(fed(data))

    assert not is_planted or "S3cret" not in shown


@given(
    st.text(st.characters(codec="utf-8"), max_size=10), st.sampled_from(["text", "coded", "json", "old json"])
)
def test_secrets_stay(middle: str, dialect: str) -> None:
    """A password of any characters, in any dialect, is not in any output."""
    secret = f"cAnArY{middle}cAnArY"
    body: dict[str, Any] = {
        "graphics": {"passwd": secret, "type": "vnc"},
        "auth": {"username": "u", "password": secret},
    }
    quoted = {key: repr(value) for key, value in body.items()}
    error = {"err": f"bad\n\nOn instance['vm_migrate']:\n    {body!r}"}
    if dialect == "text":
        lines = (E1 + repr(body).encode()).split(b"\n")
    elif dialect == "coded":
        lines = coded(quoted, "Create", error)
    else:
        record = json.loads(as_json(body if dialect == "json" else quoted)) | {
            "error": {"code": "E", "params": error}
        }
        lines = [json.dumps(record).encode()]
    parsed = fed(*lines, *(line[: len(line) * 2 // 3] for line in lines))

    assert isinstance(parsed[0], Record)
    assert "cAnArY" not in repr(parsed)


def read_corpus(path: Path) -> list[Line]:
    """The lines of a log of the corpus, as the tail would give them."""
    data = path.read_bytes().split(b"\n")[:-1]
    file = hashlib.sha256(data[0]).digest()[:16]
    lines = []
    offset = 0
    for line in data:
        lines.append(Line(file, offset, line, len(line)))
        offset += len(line) + 1
    return lines


@pytest.mark.parametrize(
    "name",
    ["rfc-default", "rfc-calm", "wok-2.1.0", "wok-2.2.0", "wok-2016-08-09", "wok-2.3.0", "wok-3.0.0-calm",
     "kimchi-3.0.0-first"],
)  # fmt: skip
def test_corpus(name: str) -> None:
    """Every line of the corpus is parsed, exactly the forged lines are detected, and no secret
    remains.
    """
    logs = [CORPUS / name / "wok-req.log", CORPUS / name / "user-requests.data"]
    log = next((path for path in logs if path.exists()), None)
    if log is None:
        pytest.skip("the corpus is not here")
    truth = log.parent / "truth.jsonl"
    events = [json.loads(line) for line in truth.read_text("utf-8").splitlines()] if truth.exists() else []
    parser = new_parser()
    parsed = [parser.feed(line) for line in read_corpus(log)]
    forged = [
        number
        for number, items in enumerate(parsed, 1)
        if items[0] == Continuation(forged=True, offset=items[0].offset)
    ]

    assert [event["line"] for event in events if event["type"] == "forged"] == forged
    assert [items for items in parsed if len(items) != 1 or isinstance(items[0], Rejected)] == []
    assert [secret for secret in SECRETS if secret in repr(parsed)] == []


def test_corpus_cut_anywhere() -> None:
    """A log whose lines were cut at random, as by power cuts, loses only what was cut."""
    log = CORPUS / "wok-3.0.0-calm" / "user-requests.data"
    if not log.exists():
        pytest.skip("the corpus is not here")
    lines = log.read_bytes().split(b"\n")[:-1]
    chance = random.Random(7)
    broken = [
        line[: chance.randrange(2, len(line) - 1)] + later
        for line, later in zip(lines[::2], lines[1::2], strict=False)
    ]
    ids = [item.record_id for item in fed(*broken) if isinstance(item, Record)]

    assert [json.loads(line)["id"] for line in lines[1::2]] == ids


def test_apps_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """An attacker who invents applications does not fill the memory."""
    monkeypatch.setattr(parse, "MAX_CACHED_APPS", 3)
    parser = new_parser()
    for number in range(10):
        parser.feed(lines_of(as_json(app=f"a{number}"))[0])

    assert len(parser._apps) <= 3

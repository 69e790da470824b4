"""The JSON API: every parameter, pages that stay whole while the log goes on, and texts of anybody's making."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from docs.pages import DOCS
from exporter.http.routes import JSON, Request, Response
from exporter.records import NANOS, DeliveryStatus, Live, OpenTask, Problem, RequestRow, TaskRow
from exporter.store import reader as reader_module
from exporter.store import search
from exporter.store.history import LONG_TEXT_BYTES_MAX, TEXT_BYTES_MAX, clipped
from exporter.store.reader import Reader
from exporter.store.task_view import Usual, of_ended, of_running, usual
from exporter.store.writer import Store
from exporter.web.api import About, api_routes
from tests.store_made import commit, context, journal_row, open_task, request_row, task_row

CORPUS = Path(__file__).parents[2] / "shared" / "corpus"

START = 1_772_442_000
"""2026-03-02 09:00 UTC; the texts of the documentation are of that morning."""
NOW = (START + 600) * NANOS
ABOUT = About(
    version="1.2.3",
    host="kvm01",
    zone="America/Sao_Paulo",
    log_path="/var/lib/wok/user-requests.data",
    trace_url="https://jaeger.example/trace/{trace_id}",
)
FAILING = DeliveryStatus(
    endpoint="http://collector.example:4318/v1/traces",
    last_success=START + 100.0,
    failing_since=START + 130.5,
    reason="http_401",
    message="no such tenant",
    held=True,
    remedy="check the credentials in OTEL_EXPORTER_OTLP_HEADERS",
)
LIVE = Live(
    behind_bytes=0,
    deliveries={"traces": FAILING},
    problems=[Problem("The backend does not take spans (http_401).", FAILING.remedy)],
)
NASTY = [
    "</script><script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "\"'`${7*7}{{7*7}}",
    "a\u2028b\u2029c\x00d\x1b[31me\r\nf",
    "\u202ekcab \U0001f4a5 \ufeff \ufffd",
    "%00 %27 ' OR 1=1 -- \\ _ %",
    "../../etc/passwd",
]


def at(second: float) -> int:
    """Nanoseconds of a second of the morning."""
    return int((START + second) * NANOS)


REQUESTS = [
    request_row(1, time=at(0), method="POST", status=202, message="A clone of web01", record_id="1" * 8),
    request_row(2, time=at(10), method="PUT", operation="vms.update", status=200, user="bob"),
    request_row(3, time=at(20), app="ginger", operation="backup.create", message="A backup of /etc"),
    request_row(4, time=at(30), method="DELETE", operation="vms.delete", status=None, user="Ädä"),
    request_row(5, time=at(40), operation="snapshots.create", user="bob"),
]
TASKS = [
    task_row(1, start=at(0), end=at(25), request=1, since=0, until=3, concurrent=2),
    task_row(
        2,
        start=at(20),
        end=at(35),
        app="ginger",
        operation="backup.create",
        target_uri="/plugins/ginger/backup",
        outcome="failure",
        request=3,
        error_code="GINHBK0009E",
        message="No space is left: 100% of /var_x",
        since=2,
        until=4,
        concurrent=1,
    ),
    task_row(3, start=at(5), end=at(45), outcome="lost", request=0, message="wokd was restarted", task_id=""),
    task_row(4, start=at(50), end=at(50), outcome="unknown", request=77),
    task_row(5, start=at(60), end=at(60), request=0, message="it was done", correlation="none"),
]
RUNNING = [
    open_task(12, start=at(40), operation="snapshots.create", request=5, since=4),
    open_task(11, start=at(2), request=0, since=1, data='{"by_start": true, "grade": "likely"}'),
]


class Api:
    """The API without sockets: `ask` gives what it answers."""

    def __init__(self, reader: Reader, live: Live = LIVE) -> None:
        self._handler = api_routes(reader, ABOUT, lambda: live, now=lambda: NOW)["/api/*"]

    def response(self, path: str) -> Response:
        """The answer as it leaves the handler."""
        bare, _, query = path.partition("?")
        return self._handler(Request("GET", bare, parse_qs(query, keep_blank_values=True), {}))

    def ask(self, path: str, status: int = 200, **parameters: Any) -> Any:
        """The answer's value; it must have the status."""
        query = urlencode(parameters, doseq=True)
        response = self.response(f"{path}?{query}" if query else path)
        assert (status, JSON) == (response.status, response.content_type), response.body
        return json.loads(response.body.decode("ascii"))

    def ids(self, **parameters: Any) -> list[int]:
        """The numbers of the tasks that are found."""
        return [number_of(task) for task in self.ask("/api/tasks", **parameters)["tasks"]]

    def ordinals(self, **parameters: Any) -> list[int]:
        """The ordinals of the requests that are found."""
        return [request["ordinal"] for request in self.ask("/api/requests", **parameters)["requests"]]


def number_of(task: Mapping[str, Any]) -> int:
    return int(task["id"], 16)


def ident(number: int) -> str:
    return context(number).hex()


@pytest.fixture(name="store")
def _store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path)
    store.set_signals(frozenset(["traces"]))
    store.commit(
        commit(
            requests=REQUESTS,
            tasks=TASKS,
            opened=RUNNING,
            journal=[journal_row("traces", START, items=3)],
            counters={
                ("wok_requests_total", "kimchi", "POST", "202"): 3.0,
                ("wok_requests_total", "wok", "POST", "200"): 3.0,
                ("wok_tasks_started_total", "kimchi", "vms.clone"): 4.0,
                ("wok_tasks_started_total", "ginger", "backup.create"): 1.0,
                ("wok_tasks_finished_total", "kimchi", "vms.clone", "success"): 2.0,
                ("wok_tasks_finished_total", "kimchi", "vms.clone", "lost"): 1.0,
                ("wok_tasks_finished_total", "kimchi", "vms.clone", "unknown"): 1.0,
                ("wok_tasks_finished_total", "ginger", "backup.create", "failure"): 1.0,
                ("wok_exporter_lines_total", "record"): 11.0,
                ("wok_exporter_lines_total", "rejected"): 2.0,
                ("wok_exporter_lines_total", "forged"): 1.0,
                ("wok_exporter_log_gaps_total",): 4.0,
                ("wok_exporter_lost_records_total", "journal_full"): 5.0,
                ("wok_exporter_rejected_by_backend_total", "traces", "partial"): 6.0,
            },
            gauges={("wok_exporter_last_record_timestamp_seconds",): START + 60.0},
        ),
        1.0,
    )
    yield store
    store.close()


@pytest.fixture(name="reader")
def _reader(store: Store) -> Iterator[Reader]:
    reader = store.reader()
    yield reader
    reader.close()


@pytest.fixture(name="api")
def _api(reader: Reader) -> Api:
    return Api(reader)


# --- the values


def test_status_tells_all_there_is_to_tell(store: Store, api: Api) -> None:
    """The status has the log, the deliveries with what waits, the counts, the problems and what to filter by."""
    before = api.ask("/api/status")
    store.mark_ready()
    after = api.ask("/api/status")

    assert before["revision"] != after.pop("revision")
    assert before.pop("ready") is False
    assert after == {
        "now": NOW // 1_000_000,
        "version": "1.2.3",
        "host": "kvm01",
        "zone": "America/Sao_Paulo",
        "ready": True,
        "log": {
            "path": "/var/lib/wok/user-requests.data",
            "behind_bytes": 0,
            "last_record": (START + 60) * 1000,
        },
        "delivery": [
            {
                "signal": "traces",
                "endpoint": "http://collector.example:4318/v1/traces",
                "waiting": 3,
                "oldest": START * 1000,
                "last_success": (START + 100) * 1000,
                "failing_since": START * 1000 + 130_500,
                "reason": "http_401",
                "message": "no such tenant",
                "held": True,
                "rejection": "",
                "remedy": "check the credentials in OTEL_EXPORTER_OTLP_HEADERS",
            }
        ],
        "counts": {
            "running": 2,
            "success": 2,
            "failure": 1,
            "lost": 1,
            "unknown": 1,
            "rejected_lines": 2,
            "forged_lines": 1,
            "lost_records": 5,
            "log_gaps": 4,
            "refused_items": 6,
        },
        "problems": [{"what": "The backend does not take spans (http_401).", "remedy": FAILING.remedy}],
        "apps": ["ginger", "kimchi", "wok"],
        "operations": ["backup.create", "vms.clone"],
        "trace_url": "https://jaeger.example/trace/{trace_id}",
    }


def test_status_of_a_state_in_which_nothing_has_happened(tmp_path: Path) -> None:
    """What is not known yet is null, nothing is counted, and nothing is sent."""
    store = Store(tmp_path)
    reader = store.reader()
    status = Api(reader, Live(7, {}, ())).ask("/api/status")
    empty = (
        Api(reader).ask("/api/tasks")["tasks"],
        Api(reader).ask("/api/requests")["requests"],
    )
    reader.close()
    store.close()

    assert status["log"] == {"path": ABOUT.log_path, "behind_bytes": 7, "last_record": None}
    assert (status["delivery"], status["problems"], status["apps"], status["operations"]) == ([], [], [], [])
    assert set(status["counts"].values()) == {0}
    assert empty == ([], [])


def test_revision_changes_with_every_commit_and_with_nothing_else(store: Store, api: Api) -> None:
    """A page may trust it: no commit goes unnoticed, and a look changes nothing; a new reader has another one."""
    seen = [api.ask("/api/status")["revision"] for _ in range(2)]
    for second in range(2, 5):
        store.commit(commit(), second)
        seen.append(api.ask("/api/status")["revision"])
    store.journal_advance("traces", 1, 3, {})
    seen.append(api.ask("/api/status")["revision"])
    other = store.reader()
    seen.append(Api(other).ask("/api/status")["revision"])
    other.close()

    assert (seen[0], len(set(seen))) == (seen[1], len(seen) - 1)


def test_tasks_as_they_are(api: Api) -> None:
    """Running tasks come first, the oldest in front, then ended ones, the newest in front; each is whole."""
    answer = api.ask("/api/tasks")
    found = {number_of(task): task for task in answer["tasks"]}

    assert list(found) == [11, 12, 5, 4, 3, 2, 1]
    assert (answer["before"], answer["truncated"], answer["now"]) == (None, False, NOW // 1_000_000)
    assert found[2] == {
        "id": ident(2),
        "trace_id": ident(2)[:32],
        "span_id": ident(2)[32:],
        "state": "failed",
        "app": "ginger",
        "operation": "backup.create",
        "resource": "",
        "target_uri": "/plugins/ginger/backup",
        "task_id": "2",
        "start": (START + 20) * 1000,
        "end": (START + 35) * 1000,
        "duration": 15_000,
        "correlation": "exact",
        "user": "ada",
        "address": "192.0.2.7",
        "request_message": "A backup of /etc",
        "error_code": "GINHBK0009E",
        "exception": "",
        "why": "No space is left: 100% of /var_x",
        "concurrent": 1,
        "request": 3,
        "usual": None,
    }
    shared = ("state", "end", "duration", "correlation", "user", "why", "concurrent", "request")
    assert {number: tuple(task[name] for name in shared) for number, task in found.items()} == {
        11: ("running", None, 598_000, "likely", "", "", 4, 0),
        12: ("running", None, 560_000, "exact", "bob", "", 0, 5),
        5: ("done", (START + 60) * 1000, None, "none", "", "", 0, 0),
        4: ("unknown", None, None, "exact", "", "", 0, 77),
        3: ("lost", (START + 45) * 1000, 40_000, "exact", "", "wokd was restarted", 0, 0),
        2: tuple(found[2][name] for name in shared),
        1: ("done", (START + 25) * 1000, 25_000, "exact", "ada", "", 2, 1),
    }


def test_one_task_with_what_stands_around_it(api: Api) -> None:
    """A task has its request, what is usual for its kind, and what else was requested, also while it runs."""
    listed = {task["id"]: task for task in api.ask("/api/tasks")["tasks"]}
    requests = {request["ordinal"]: request for request in api.ask("/api/requests")["requests"]}
    clones = {"count": 1, "median": 25_000, "p90": 25_000}
    for number, own, often, meanwhile in [
        (1, 1, clones, [2, 3]),
        (2, 3, None, [4]),
        (3, None, clones, [4, 5]),
        (11, None, clones, [2, 3, 4, 5]),
        (12, 5, None, []),
    ]:
        expected = {
            **listed[ident(number)],
            "stack": "",
            "request": requests[own] if own else None,
            "usual": often,
            "candidates": [],
            "meanwhile": [requests[ordinal] for ordinal in meanwhile],
            "now": NOW // 1_000_000,
        }

        assert expected == api.ask(f"/api/tasks/{ident(number)}")


def test_requests_as_they_are(api: Api) -> None:
    """Requests come newest first, each whole; a dialect without status codes has null."""
    answer = api.ask("/api/requests")

    assert [request["ordinal"] for request in answer["requests"]] == [5, 4, 3, 2, 1]
    assert [answer["requests"][n]["status"] for n in (3, 1)] == [200, None]
    assert (answer["before"], answer["truncated"], answer["now"]) == (None, False, NOW // 1_000_000)
    assert answer["requests"][4] == {
        "ordinal": 1,
        "time": START * 1000,
        "trace_id": ident(1)[:32],
        "span_id": ident(1)[32:],
        "app": "kimchi",
        "method": "POST",
        "operation": "vms.clone",
        "status": 202,
        "user": "ada",
        "address": "192.0.2.7",
        "record_id": "11111111",
        "message": "A clone of web01",
        "resource": "",
    }


def test_what_is_around_a_task_is_bounded(store: Store, api: Api) -> None:
    """Of thousands of requests made meanwhile 200 are told, and of thousands of durations the newest 1,000 count."""
    many = [request_row(n, time=at(n)) for n in range(6, 3006)]
    slow = [task_row(10_000 + n, start=0, end=NANOS, app="wok", operation="x") for n in range(500)]
    fast = [task_row(20_000 + n, start=0, end=n * NANOS, app="wok", operation="x") for n in range(1000)]
    store.commit(commit(requests=many, tasks=slow + fast), 1.0)

    running = api.ask(f"/api/tasks/{ident(11)}")
    assert [*range(2, 202)] == [request["ordinal"] for request in running["meanwhile"]]
    assert running["concurrent"] == 3004
    assert api.ask(f"/api/tasks/{ident(20_005)}")["usual"] == {
        "count": 1000,
        "median": 499_500,
        "p90": 899_000,
    }


@given(st.lists(st.integers(0, 10**15), max_size=50))
def test_what_is_usual(durations: list[int]) -> None:
    """At least nine tenths take no longer than the 90th percentile, and it is one of the durations."""
    often = usual(durations)
    if often is None:
        assert durations == []
        return
    within = sum(duration <= often.p90 for duration in durations)
    below = sum(duration < often.p90 for duration in durations)

    assert often.p90 in durations
    assert below * 10 < 9 * len(durations) <= within * 10
    assert Usual(len(durations), often.median, often.p90) == often
    assert min(durations) <= often.median <= often.p90 or len(durations) < 2


def test_views_of_what_the_clock_and_the_history_do_not_fit() -> None:
    """A task that starts in the clock's future has run for no time; a forgotten request takes nothing away."""
    seen = of_running(open_task(9, since=20, request=20), now=0, requests=10)

    assert (seen.duration, seen.concurrent) == (0, 0)
    assert of_ended(task_row(1, outcome="success", message="all is well")).why == ""


# --- the parameters


@pytest.mark.parametrize(
    ("parameters", "numbers"),
    [
        ({"state": "all"}, [11, 12, 5, 4, 3, 2, 1]),
        ({"state": "running"}, [11, 12]),
        ({"state": "ended"}, [5, 4, 3, 2, 1]),
        ({"state": "failed"}, [3, 2]),
        ({"state": "failed", "outcome": ["lost", "success"]}, [3]),
        ({"state": "failed", "outcome": "success"}, []),
        ({"state": "running", "outcome": "success"}, []),
        ({"outcome": "success"}, [5, 1]),
        ({"outcome": ["unknown", "lost"]}, [4, 3]),
        ({"app": "ginger"}, [2]),
        ({"app": ["ginger", "kimchi"]}, [11, 12, 5, 4, 3, 2, 1]),
        ({"app": "KIMCHI"}, []),
        ({"operation": "snapshots.create"}, [12]),
        ({"operation": ["backup.create", "snapshots.create"]}, [12, 2]),
        ({"user": "ada"}, [2, 1]),
        ({"user": ["bob", "nobody"]}, [12]),
        ({"user": "bob", "app": "ginger"}, []),
        ({"text": "BACKUP"}, [2]),
        ({"text": "is left"}, [2]),
        ({"text": "100%"}, [2]),
        ({"text": "%"}, [2]),
        ({"text": "var_x"}, [2]),
        ({"text": "varax"}, []),
        ({"text": "gINhbk"}, [2]),
        ({"text": "restarted"}, [3]),
        ({"text": "it was done"}, []),
        ({"text": "clone OF web01"}, [1]),
        ({"text": "web-12"}, [12]),
        ({"text": "Bob"}, [12]),
        ({"text": "' OR 1=1 --"}, []),
        ({"since": (START + 45) * 1000}, [11, 12, 5, 4, 3]),
        ({"since": (START + 45) * 1000 + 1}, [11, 12, 5, 4]),
        ({"until": (START + 5) * 1000}, [11, 1]),
        ({"until": f"{(START + 5) * 1000}.5"}, [11, 3, 1]),
        ({"since": (START + 26) * 1000, "until": (START + 40) * 1000}, [11, 3, 2]),
        ({"since": START * 1000, "until": START * 1000}, []),
        ({"since": "-1", "until": "0"}, []),
        (
            {"app": "", "text": "", "since": "", "until": "", "limit": "", "before": "", "state": ""},
            [11, 12, 5, 4, 3, 2, 1],
        ),
    ],
    ids=str,
)
def test_tasks_are_filtered(api: Api, parameters: dict[str, Any], numbers: list[int]) -> None:
    """Each parameter, alone and with others, finds what the documentation says."""
    assert numbers == api.ids(**parameters)


@pytest.mark.parametrize(
    ("parameters", "ordinals"),
    [
        ({"app": "ginger"}, [3]),
        ({"operation": ["vms.clone", "vms.delete"]}, [4, 1]),
        ({"user": "bob"}, [5, 2]),
        ({"user": "bob", "operation": "vms.update"}, [2]),
        ({"text": "a BACKUP"}, [3]),
        ({"text": "SNAPSHOTS."}, [5]),
        ({"text": "ädä"}, [4]),
        ({"text": "ÄDÄ"}, [4]),
        ({"text": "BOB"}, [5, 2]),
        ({"since": (START + 20) * 1000, "until": (START + 40) * 1000}, [4, 3]),
        ({"since": (START + 41) * 1000}, []),
    ],
    ids=str,
)
def test_requests_are_filtered(api: Api, parameters: dict[str, Any], ordinals: list[int]) -> None:
    """Each parameter finds what the documentation says."""
    assert ordinals == api.ordinals(**parameters)


@pytest.mark.parametrize(
    ("path", "parameters", "error"),
    [
        (
            "tasks",
            {"since": "x"},
            "since: 'x' is not a number of milliseconds: leave it out, or write the milliseconds since the epoch, such as 1718000000000",
        ),
        ("tasks", {"until": "1e9"}, "until: '1e9' is not a number"),
        ("requests", {"since": "9" * 16}, "since: '9999999999999999' is not a number"),
        ("requests", {"since": "nan"}, "since: 'nan' is not a number"),
        ("requests", {"since": "\u0661"}, "since: '\\\\u0661' is not a number"),
        ("tasks", {"limit": "501"}, "limit: '501' is not a number from 1 to 500: leave it out for 100"),
        ("tasks", {"limit": "0"}, "limit: '0' is not"),
        ("tasks", {"limit": "-1"}, "limit: '-1' is not"),
        ("requests", {"limit": "2001"}, "limit: '2001' is not a number from 1 to 2000: leave it out for 500"),
        ("requests", {"limit": "9" * 200}, "limit: '9999"),
        ("tasks", {"state": "done"}, "state: 'done' is none of running, ended, failed or all: write one of"),
        ("tasks", {"state": ["all", "all"]}, "state: is given 2 times: give it once"),
        ("tasks", {"outcome": "failed"}, "outcome: 'failed' is none of success, failure, lost or unknown"),
        ("tasks", {"before": "7"}, "before: '7' is not from an answer: leave it out for the first page"),
        ("tasks", {"before": "r1.9223372036854775808.00"}, "before: 'r1.92"),
        ("tasks", {"before": "e1.1; DROP TABLE task"}, "before: 'e1.1; DROP"),
        ("requests", {"before": "e1.1"}, "before: 'e1.1' is not from an answer"),
        ("requests", {"before": "9" * 19}, "before: '99"),
        (
            "requests",
            {"outcome": "lost"},
            "'outcome' is not a parameter of /api/requests: leave it out; use app, ",
        ),
        (
            "tasks",
            {"colour": "red"},
            "'colour' is not a parameter of /api/tasks: leave it out; use state, app, ",
        ),
        ("tasks", {"<script>": ""}, "'<script>' is not a parameter of /api/tasks"),
        ("status", {"app": "x"}, "'app' is not a parameter of /api/status: leave it out; there are none"),
        ("", {"app": "x"}, "'app' is not a parameter of /api/: leave"),
        (f"tasks/{'0' * 48}", {"x": ""}, "'x' is not a parameter of /api/tasks/ID"),
        ("tasks", {"text": "x" * 301}, f"text: '{'x' * 60}...' has 301 characters: write at most 300"),
        ("tasks", {"text": ["a", "b"]}, "text: is given 2 times: give it once"),
        ("tasks", {"app": ["a"] * 51}, "app: is given 51 times: give it at most 50 times"),
    ],
    ids=str,
)
def test_wrong_parameters_are_refused(api: Api, path: str, parameters: dict[str, Any], error: str) -> None:
    """The answer is 400, names the parameter, what was wrong with it, and the remedy."""
    answer = api.ask(f"/api/{path}", 400, **parameters)

    assert set(answer) == {"error"}
    assert answer["error"].startswith(error.replace("\\\\", "\\"))


@pytest.mark.parametrize(
    "path",
    [
        "x",
        "tasks/",
        "tasks/1",
        f"tasks/{'0' * 47}",
        f"tasks/{'A' * 48}",
        "Status",
        "status/",
        "tasks/../status",
    ],
)
def test_other_paths_are_not_there(api: Api, path: str) -> None:
    """What is no path of the API is answered with 404 and where to look."""
    assert api.ask(f"/api/{path}", 404) == {"error": "unknown path; /api/ lists the paths"}


def test_a_task_that_is_not_known(api: Api) -> None:
    """An id that the history does not have is answered with 404 and the likely reason."""
    error = "no task with this id; it may be too old for the history"

    assert api.ask(f"/api/tasks/{ident(999)}", 404) == {"error": error}


def test_a_state_that_cannot_be_read(reader: Reader) -> None:
    """While the state fails, the answer is 503 and says why; nothing is raised."""
    api = Api(reader)
    reader.close()

    for path in ("status", "tasks", "requests", f"tasks/{ident(1)}"):
        assert "closed database" in api.ask(f"/api/{path}", 503)["error"]


def test_bounds_of_an_answer(store: Store, api: Api) -> None:
    """Without a limit an answer has 100 tasks or 500 requests; with the largest one 500 and 2,000."""
    many = [request_row(n) for n in range(6, 2506)]
    store.commit(commit(requests=many, tasks=[task_row(100 + n) for n in range(600)]), 1.0)

    assert [len(api.ids(**limit)) for limit in ({}, {"limit": 500})] == [100, 500]
    assert [len(api.ordinals(**limit)) for limit in ({}, {"limit": 2000})] == [500, 2000]


# --- pages


def pages(api: Api, path: str, *, between: Any = lambda: None, **parameters: Any) -> list[dict[str, Any]]:
    """All items of all pages; `between` is called after each."""
    found: list[dict[str, Any]] = []
    before = None
    while True:
        answer = api.ask(f"/api/{path}", **parameters, **({"before": before} if before else {}))
        found += answer[path]
        before = answer["before"]
        if before is None:
            return found
        assert len(found) < 1000, "pages without end"
        between()


@given(data=st.data())
@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_pages_of_tasks_stay_whole_while_the_log_goes_on(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Whatever starts and ends between two pages: what was there at the first one is listed once, in whichever state."""
    store = Store(tmp_path_factory.mktemp("state"))
    running: dict[int, OpenTask] = {}
    news = iter(range(1, 10_000))

    def opened() -> OpenTask:
        number = next(news)
        # starts are not in the order of opening, and several are equal
        task = open_task(number, start=data.draw(st.integers(0, 5)) * NANOS)
        running[number] = task
        return task

    def ended(number: int) -> TaskRow:
        return task_row(number, start=running[number].start, end=data.draw(st.integers(0, 20)) * NANOS)

    def go_on() -> None:
        over = data.draw(st.lists(st.sampled_from(sorted(running)), unique=True)) if running else []
        rows = [ended(number) for number in over]
        closed = [running.pop(number).key for number in over]
        new = [opened() for _ in range(data.draw(st.integers(0, 2)))]
        store.commit(commit(opened=new, closed=closed, tasks=rows), 1.0)

    first = [opened() for _ in range(data.draw(st.integers(0, 6)))]
    store.commit(commit(opened=first), 1.0)
    go_on()
    go_on()
    there = set(range(1, next(news)))
    limit = data.draw(st.integers(1, 5))
    reader = store.reader()
    found = [number_of(task) for task in pages(Api(reader), "tasks", between=go_on, limit=limit)]
    reader.close()
    store.close()

    assert len(found) == len(set(found))
    assert there <= set(found) | {next(news)}


def test_pages_of_any_size_join(api: Api) -> None:
    """For each size of a page and each state the pages give every task once, in the order of the whole."""
    for state in ("all", "running", "ended", "failed"):
        whole = api.ask("/api/tasks", state=state)["tasks"]
        for limit in range(1, 9):
            assert whole == pages(api, "tasks", state=state, limit=limit)


def test_pages_of_requests_join_while_new_ones_come(store: Store, api: Api) -> None:
    """Pages of any size give every request once, and none that is newer than the first page."""
    news = iter(range(6, 1000))
    for limit in range(1, 7):
        whole = api.ask("/api/requests")["requests"]
        found = pages(
            api,
            "requests",
            between=lambda: store.commit(commit(requests=[request_row(next(news))]), 1.0),
            limit=limit,
        )

        assert whole == found


def test_a_search_through_texts_is_bounded_and_goes_on(
    store: Store, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the bound is reached the answer says so, and the next page goes on from there, to the end."""
    monkeypatch.setattr(search, "TEXT_ROWS_MAX", 2)
    answers = [api.ask("/api/tasks", text="clone", state="ended")]
    while answers[-1]["before"]:
        answers.append(api.ask("/api/tasks", text="clone", state="ended", before=answers[-1]["before"]))

    assert [[number_of(task) for task in answer["tasks"]] for answer in answers] == [[5, 4], [3], [1]]
    assert [answer["truncated"] for answer in answers] == [True, True, False]
    assert [request["ordinal"] for request in pages(api, "requests", text="clone of")] == [1]
    assert api.ask("/api/requests", text="clone of")["truncated"] is True
    assert api.ask("/api/tasks", state="ended")["truncated"] is False


# --- texts of anybody's making


def hostile() -> list[str]:
    """Nasty texts, and lines of real logs that have some, where those are."""
    lines: list[str] = []
    for path in sorted(CORPUS.glob("*/*req*")):
        with path.open(encoding="utf-8", errors="replace") as log:
            lines += [line for line in log if "<script" in line or "\\u" in line][:50]
    return NASTY + lines


def test_hostile_texts_survive_and_do_nothing(store: Store, api: Api) -> None:
    """Whatever stands in a text arrives as it is, in ASCII: no line's end of JavaScript, no raw control character."""
    texts = hostile()
    for number, text in enumerate(texts, start=100):
        row: dict[str, Any] = {
            "target_uri": text,
            "operation": text,
            "app": text,
            "task_id": text,
            "error_code": text,
        }
        store.commit(
            commit(
                requests=[
                    RequestRow(number, 0, context(number), text, text, text, 200, text, text, text, text)
                ],
                tasks=[task_row(number, message=text, outcome="failure", **row)],
                counters={("wok_tasks_started_total", text, text): 1.0},
            ),
            1.0,
        )
        answer = api.ask(f"/api/tasks/{ident(number)}")

        task = ("target_uri", "operation", "app", "task_id", "error_code", "why", "user", "address")
        request = ("app", "method", "operation", "user", "address", "record_id", "message")
        own = [(name, answer[name]) for name in task]
        own += [(name, answer["request"][name]) for name in request]
        for name, value in own:
            column = "message" if name == "why" else name
            assert value == clipped(text, LONG_TEXT_BYTES_MAX.get(column, TEXT_BYTES_MAX))
        short = text[:50]
        assert number in api.ids(text=short)
        assert number in api.ids(user=[short]) or short != text
    assert set(texts) <= set(api.ask("/api/status")["apps"])
    body = api.response("/api/tasks").body
    assert re.findall(rb"[^\x20-\x7e]", body) == []


# --- the documentation

EXAMPLES = {
    "/api/": "/api/",
    "/api/status": "/api/status",
    "/api/tasks": "/api/tasks?state=failed&app=ginger",
    "/api/tasks/ID": f"/api/tasks/{ident(2)}",
    "/api/requests": "/api/requests?until=1772442001000",
}
"""The request that each example of the documentation answers."""

DOCUMENTED = re.findall(
    r"^## `GET (\S+)`$.*?^```json\n(.*?)^```$", (DOCS / "api.md").read_text("utf-8"), re.MULTILINE | re.DOTALL
)


def test_the_documentation_has_every_path(api: Api) -> None:
    """What the API says that it has is what the documentation describes."""
    assert {path for path, _ in DOCUMENTED} == {"/api/", *api.ask("/api/")["paths"]}


@pytest.mark.parametrize(("path", "example"), DOCUMENTED, ids=lambda text: text[:15])
def test_the_examples_of_the_documentation_are_true(store: Store, api: Api, path: str, example: str) -> None:
    """Every example is the answer of this test's state to the request that stands above it, word for word."""
    store.mark_ready()
    backups = [(11, 12), (12, 14), (13, 41)]
    store.commit(
        commit(
            tasks=[
                task_row(n, start=0, end=seconds * NANOS, app="ginger", operation="backup.create")
                for n, seconds in backups
            ]
        ),
        2.0,
    )
    answer = json.loads(api.response(EXAMPLES[path]).body)
    if "revision" in answer:
        answer["revision"] = "5f0c2d1e-7"

    assert f"`{EXAMPLES[path]}`" in (DOCS / "api.md").read_text("utf-8")
    assert answer == json.loads(example)


@pytest.mark.parametrize(("path", "example"), DOCUMENTED, ids=lambda text: text[:15])
def test_the_documentation_explains_every_field_and_parameter(api: Api, path: str, example: str) -> None:
    """Each name in an answer, and each parameter, is explained in the documentation."""
    page = (DOCS / "api.md").read_text("utf-8")
    explained = set(re.findall(r"`(\w+)`", page))
    names = set(re.findall(r'"(\w+)":', example)) if path != "/api/" else {"version", "paths"}
    parameters = {name for entry in api.ask("/api/")["paths"].values() for name in entry["parameters"]}

    assert (names | parameters) - explained == set()


def test_answers_are_bounded_in_bytes(store: Store, api: Api) -> None:
    """Rows with long texts make more pages, not larger ones, and all rows are on one of them, once."""
    text = "\U0001f600" * 1000
    store.commit(
        commit(
            requests=[request_row(n, user=text, message=text) for n in range(100, 1100)],
            tasks=[task_row(n, target_uri=text, message=text, outcome="failure") for n in range(100, 1100)],
            opened=[open_task(n, target_uri=text) for n in range(5000, 6000)],
        ),
        1.0,
    )
    for path, name, key, most in (
        ("/api/requests?limit=2000", "requests", "ordinal", 1000),
        ("/api/tasks?limit=500", "tasks", "id", 2000),
    ):
        seen: list[object] = []
        before = ""
        while True:
            response = api.response(f"{path}{before}")
            assert len(response.body) < 6 * search.PAGE_BYTES_MAX
            answer = json.loads(response.body)
            seen += [row[key] for row in answer[name]]
            if answer["before"] is None:
                break
            before = f"&before={answer['before']}"
        assert len(seen) == len(set(seen)) >= most


def test_other_candidates_of_an_ambiguous_task(store: Store, api: Api) -> None:
    """A task whose request is in doubt names the other requests, ended or running, as far as they are known."""
    others = [request_row(n, user=f"user{n}") for n in (201, 202, 203)]
    of_others = [context(n) for n in (201, 203, 999)]
    store.commit(
        commit(
            requests=others,
            tasks=[task_row(50, correlation="ambiguous", candidates=b"".join(of_others))],
            opened=[
                open_task(
                    60,
                    data=json.dumps(
                        {"by_start": True, "grade": "ambiguous", "candidates": b"".join(of_others).hex()}
                    ),
                ),
                open_task(61, data=json.dumps({"by_start": True, "grade": "ambiguous", "candidates": []})),
            ],
        ),
        1.0,
    )
    found = {n: api.ask(f"/api/tasks/{ident(n)}") for n in (50, 60, 61)}

    assert [[one["user"] for one in found[n]["candidates"]] for n in (50, 60, 61)] == [
        ["user201", "user203"],
        ["user201", "user203"],
        [],
    ]


def test_usual_durations_in_the_list(store: Store, api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each task of the list has what is usual for its operation, which follows new tasks after some seconds."""
    kind = {"app": "kimchi", "operation": "vms.snapshot"}
    running = open_task(70, operation="vms.snapshot")
    tasks = [task_row(n, start=(n - 5) * NANOS, **kind) for n in range(80, 90)]
    store.commit(commit(tasks=tasks, opened=[running]), 1.0)

    def usual_of_running() -> Any:
        answer = api.ask("/api/tasks", state="running", operation="vms.snapshot")
        return answer["tasks"][0]["usual"]

    assert usual_of_running() == {"count": 10, "median": 5000, "p90": 5000}

    more = [task_row(n, start=(n - 50) * NANOS, **kind) for n in range(100, 120)]
    store.commit(commit(tasks=more), 2.0)

    assert usual_of_running()["count"] == 10
    monkeypatch.setattr(reader_module, "USUAL_SECONDS", 0.0)
    assert usual_of_running() == {"count": 30, "median": 50_000, "p90": 50_000}

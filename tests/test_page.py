"""The page, in a real browser, on the real API over a real store.

The screenshots of the themes lie in pytest's temporary directory, for people to look at.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode

import pytest

from exporter.records import NANOS, Live, Problem, RequestRow, TaskRow
from exporter.store.writer import Store
from tests.alert_links import link_of
from tests.browser import Browser, Tab, chromium
from tests.served import ABOUT, WELL, served
from tests.store_made import commit, open_task, request_row, task_row

STATIC = Path(__file__).parents[1] / "exporter" / "web" / "static"
CORPUS = Path(__file__).parents[2] / "shared" / "corpus"

NOON = 1_785_585_600
"""1 August 2026, 12:00 UTC: now. The page shows it as 09:00, São Paulo's time."""

WEIGHT_MAX_BYTES = 130_000
ELEMENTS_MAX = 5_000
"""Of a page with any number of tasks: it lists them by the hundred."""

NASTY = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(2)>',
    "<svg onload=alert(3)>",
    "javascript:alert(4)",
    "</textarea><iframe srcdoc='<script>alert(5)</script>'>",
    "{{constructor.constructor('alert(6)')()}}",
    "`${alert(7)}`",
    "a\u202egpj.exe",
    "\x1b[31mred",
    "line\u2028separator",
)


def request(ordinal: int, before_seconds: int, **changed: Any) -> RequestRow:
    """A request so long before noon."""
    return request_row(ordinal, time=(NOON - before_seconds) * NANOS, operation="vms.start", **changed)


def task(number: int, from_seconds: int, to_seconds: int, **changed: Any) -> TaskRow:
    """A task between two times before noon; its request has the ordinal `number`."""
    return task_row(number, **{
        "start": (NOON - from_seconds) * NANOS,
        "end": (NOON - to_seconds) * NANOS,
        "since": number - 1,
        "until": number,
        **changed,
    })  # fmt: skip


REQUESTS = (
    request(1, 3600, status=202, message="clones web-1", address="192.0.2.44"),
    request(2, 3590, user="grace", app="ginger", message="makes a backup", status=400),
    request(3, 3580, user="josé", message="starts db-1"),
    request(4, 1800, status=202, app="ginger", message="backs up"),
    request(5, 600, status=202, message="clones mail-1"),
)
TASKS = (
    task(1, 3600, 3570, outcome="failure", error_code="KCHVM0035E", until=3, concurrent=2,
         message="web-1 could not be cloned: no space is left in the pool default"),
    task(4, 1800, 1700, app="ginger", operation="backup.create", target_uri="/backup/create/1"),
    task(5, 600, 590),
)  # fmt: skip
FAILED = TASKS[0].context.hex()
COUNTERS = {
    ("wok_tasks_started_total", "kimchi", "vms.clone"): 2.0,
    ("wok_tasks_started_total", "ginger", "backup.create"): 1.0,
}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One Chromium for all tests."""
    with chromium() as found:
        yield found


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """A store with three ended tasks and their requests."""
    with closing(Store(tmp_path / "state")) as made:
        write(made, requests=REQUESTS, tasks=TASKS, counters=COUNTERS)
        yield made


@pytest.fixture
def url(store: Store) -> Iterator[str]:
    """The page over the store, at noon."""
    with served(store.directory, now=clock()) as found:
        yield found


def write(store: Store, **changed: Any) -> None:
    """Let the store learn something, as the pipeline does."""
    store.commit(commit(**changed), NOON)


def clock(began: float = NOON) -> Any:
    """A clock in nanoseconds that goes on from a time."""
    offset = int(began * NANOS) - time.time_ns()
    return lambda: time.time_ns() + offset


def wait_loaded(tab: Tab) -> None:
    """Wait until the page shows what there is."""
    tab.wait_for(
        "document.readyState === 'complete' && document.getElementById('table').dataset.shows"
        " && document.getElementById('table-note').textContent !== 'reading…'"
    )


def operations(tab: Tab) -> list[str]:
    """The tasks of the table, by what they work on."""
    return [text.split("\n")[1] for text in tab.texts("#table tbody .main")]


def search(tab: Tab) -> str:
    return str(tab.evaluate("location.search"))


def test_loads_and_shows_what_there_is(browser: Browser, url: str) -> None:
    """A page that is opened shows health, failures and tasks, in the host's time, without an error in the console."""
    with browser.tab(url) as tab:
        wait_loaded(tab)
        rows = [re.sub(r"\s+", " ", text) for text in tab.texts("#table tbody tr")]

        assert tab.evaluate("document.title") == "Wok tasks · kvm01"
        assert tab.text("#verdict") == "Exporter OK"
        assert tab.text("#running-note") == "Nothing is running."
        assert tab.text("#failures-count") == "1 in the last 6 hours"
        assert rows == [
            "✓ done 08:50:00 10 min ago 08:50:10 9 min ago 10s vms.clone /plugins/kimchi/vms/web-5/clone kimchi ada 0",
            "✓ done 08:30:00 30 min ago 08:31:40 28 min ago 1m 40s backup.create /backup/create/1 ginger ada 0",
            (
                "✕ failed 08:00:00 1 h ago 08:00:30 59 min ago 30s 3.0\u00d7 usual vms.clone /plugins/kimchi/vms/web-1/clone"
                " KCHVM0035E: web-1 could not be cloned: no space is left in the pool default kimchi ada 2"
            ),
        ]
        assert tab.evaluate("document.querySelector('#table time').title") == "2026-08-01T11:50:00.000Z"
        assert tab.complaints == []


def test_filters(browser: Browser, url: str) -> None:
    """Application, outcome and text each leave what they name, and can be cleared."""
    with browser.tab(url) as tab:
        wait_loaded(tab)
        tab.evaluate(
            "(() => { const box = document.getElementById('app'); box.value = 'ginger';"
            " box.dispatchEvent(new Event('change', {bubbles: true})); })()"
        )
        tab.wait_for("document.querySelectorAll('#table tbody tr').length === 1")
        by_app = operations(tab)
        tab.click("#clear")
        tab.wait_for("document.querySelectorAll('#table tbody tr').length === 3")
        tab.click("#states [value=failed]")
        tab.wait_for("document.querySelectorAll('#table tbody tr').length === 1")
        by_outcome = operations(tab)
        tab.click("#clear")
        tab.wait_for("document.querySelectorAll('#table tbody tr').length === 3")
        tab.click("#text")
        tab.write("WEB-5")
        tab.wait_for("document.querySelectorAll('#table tbody tr').length === 1")
        tab.wait_for("location.search === '?text=WEB-5'")

        assert by_app == ["/backup/create/1"]
        assert by_outcome == ["/plugins/kimchi/vms/web-1/clone"]
        assert operations(tab) == ["/plugins/kimchi/vms/web-5/clone"]
        assert search(tab) == "?text=WEB-5"
        assert tab.complaints == []


def test_a_failed_task_tells_its_story(browser: Browser, url: str) -> None:
    """A click on a failure shows why, who asked from where, what is usual, and what was requested meanwhile."""
    with browser.tab(url) as tab:
        wait_loaded(tab)
        unlit = tab.evaluate(ACCENT_PIXELS)
        tab.click("#failures a")
        tab.wait_for("document.querySelector('.meanwhile')")
        told = tab.text("#detail")
        meanwhile = [re.sub(r"\s+", " ", text) for text in tab.texts(".meanwhile tbody tr")]

        assert "KCHVM0035E: web-1 could not be cloned: no space is left in the pool default" in told
        assert re.search(r"User\s+ada\s+Address\s+192\.0\.2\.44\s+Time\s+08:00:00", told)
        assert "Usually 10s; 9 of 10 take at most 10s (1 successful task)" in told
        assert "2 other requests between its start and its end" in told
        assert meanwhile == [
            "08:00:10 POST ginger vms.start makes a backup grace 400",
            "08:00:20 POST kimchi vms.start starts db-1 josé 202",
        ]
        assert tab.evaluate("document.activeElement.id") == "detail-title"
        tab.wait_for(f"{ACCENT_PIXELS} > {unlit} + 20")
        assert tab.complaints == []


ACCENT_PIXELS = """(() => {
  const canvas = document.getElementById("timeline");
  const { data } = canvas.getContext("2d").getImageData(0, 24, canvas.width, 20);
  let count = 0;
  for (let at = 0; at < data.length; at += 4) count += data[at] === 11 && data[at + 1] === 92 && data[at + 2] === 173;
  return count;
})()"""
"""What is drawn in the accent's colour where the first lane, ginger's, has its requests: the line of now, and marks."""


SHARE_OF_FAILED = """(() => {
  const canvas = document.getElementById("timeline");
  const { data } = canvas.getContext("2d").getImageData(0, 44, canvas.width, canvas.height - 44);
  const is = (at, [r, g, b]) => data[at] === r && data[at + 1] === g && data[at + 2] === b;
  let failed = 0;
  let done = 0;
  for (let at = 0; at < data.length; at += 4) {
    failed += is(at, [184, 50, 26]);
    done += is(at, [91, 140, 123]);
  }
  return failed + done < 500 ? -1 : failed / (failed + done);
})()"""
"""The failures' share of what is drawn of done and failed tasks; -1 where next to nothing is drawn."""


def test_a_month_in_true_proportion(browser: Browser, url: str, store: Store) -> None:
    """Where tasks are drawn on top of each other, failures have about the share of the picture that they have of the tasks."""
    month = 30 * 24 * 3600
    tasks = [
        task(
            10 + number,
            month - number * 600,
            month - number * 600 - 30,
            outcome="failure" if number % 14 == 0 else "success",
        )
        for number in range(4000)
    ]
    write(store, tasks=tasks)
    with browser.tab(f"{url}?last=30d") as tab:
        wait_loaded(tab)
        tab.wait_for(f"{SHARE_OF_FAILED} > 0")
        share = tab.evaluate(SHARE_OF_FAILED)

        assert 0.04 < share < 0.12
        assert tab.complaints == []


def test_grows_with_the_log(browser: Browser, url: str, store: Store) -> None:
    """What the store learns is shown without reloading: a task runs, its clock goes on, it fails, it is announced."""
    with browser.tab(url) as tab:
        wait_loaded(tab)
        tab.evaluate("window.isSame = true")
        running = open_task(6, start=(NOON - 61) * NANOS, request=6, since=5)
        write(store, requests=[request(6, 61, status=202, user="grace")], opened=[running])
        tab.wait_for("document.querySelector('#running .clock')")
        first = tab.text("#running .clock")
        tab.wait_for(f"document.querySelector('#running .clock').textContent !== {json.dumps(first)}")
        ended = task(
            6,
            61,
            0,
            outcome="failure",
            error_code="KCHVM0058E",
            message="it is gone",
            context=running.context,
        )
        write(store, closed=[running.key], tasks=[ended])
        tab.wait_for("document.querySelectorAll('#failures li').length === 2")

        assert re.fullmatch(r"0[1-9]:\d\d", first)
        assert tab.text("#running-note") == "Nothing is running."
        assert "KCHVM0058E: it is gone" in tab.texts("#failures li")[0]
        assert "New failure: kimchi vms.clone" in tab.evaluate(
            "document.getElementById('announce').textContent"
        )
        assert tab.evaluate("window.isSame") is True
        assert tab.complaints == []


def test_an_open_task_that_runs_is_followed_to_its_end(browser: Browser, url: str, store: Store) -> None:
    """The panel of a running task says so, and says that it is done when it is."""
    running = open_task(6, start=(NOON - 61) * NANOS, request=6, since=5)
    write(store, requests=[request(6, 61, status=202)], opened=[running])
    with browser.tab(f"{url}/?task={running.context.hex()}") as tab:
        tab.wait_for("/running\\s+for\\s+\\d+:\\d\\d/.test(document.getElementById('detail').innerText)")
        write(store, closed=[running.key], tasks=[task(6, 61, 1, context=running.context)])
        tab.wait_for("/done\\s+after 1m 00s/.test(document.getElementById('detail').innerText)")

        assert tab.complaints == []


def test_the_address_keeps_the_view(browser: Browser, url: str) -> None:
    """Filters, range, table and the open task stand in the address; it shows the same elsewhere, and back goes back."""
    with browser.tab(url) as tab:
        wait_loaded(tab)
        # The answer to each moves what stands below: the next click must find it where it then is.
        for selector, kept in (
            ("[data-last='24h']", "last=24h"),
            ("#states [value=failed]", "state=failed"),
            ("[data-table=requests]", "table=requests"),
        ):
            tab.click(selector)
            tab.wait_for(f"location.search.includes('{kept}')")
            wait_loaded(tab)
        tab.click("#failures a")
        tab.wait_for("document.querySelector('.meanwhile')")
        address = search(tab)
        shown = (tab.text("#detail"), tab.texts("#table tbody tr"))
        tab.evaluate("history.back()")
        tab.wait_for("document.getElementById('detail').hidden")
        before = search(tab)
        tab.evaluate("history.forward()")
        tab.wait_for("document.querySelector('.meanwhile')")

    with browser.tab(url + "/" + address) as other:
        other.wait_for("document.querySelector('.meanwhile')")
        wait_loaded(other)

        assert address == f"?last=24h&state=failed&table=requests&task={FAILED}"
        assert before == "?last=24h&state=failed&table=requests"
        assert (other.text("#detail"), other.texts("#table tbody tr")) == shown
        assert search(other) == address


def test_a_range_is_kept_in_utc_and_shown_in_the_hosts_time(browser: Browser, url: str) -> None:
    """A fixed range shows what lies in it, whatever the browser's own zone is; zooming out is in the address."""
    with browser.tab(f"{url}/?from=2026-08-01T11:20:00Z&to=2026-08-01T11:40:00Z") as tab:
        wait_loaded(tab)
        shown = operations(tab)
        inputs = [tab.evaluate(f"document.getElementById('{name}').value") for name in ("from", "to")]
        tab.click("#wider")
        tab.wait_for("location.search.includes('11%3A10')")
        tab.wait_for("document.querySelectorAll('#table tbody tr').length === 1")

        assert shown == ["/backup/create/1"]
        assert inputs == ["2026-08-01T08:20", "2026-08-01T08:40"]
        assert search(tab) == "?from=2026-08-01T11%3A10%3A00Z&to=2026-08-01T11%3A50%3A00Z"


def test_the_keyboard_alone_is_enough(browser: Browser, url: str) -> None:
    """On the timeline keys step, open, close, move and zoom, and what has the focus can be seen everywhere."""
    with browser.tab(url) as tab:
        wait_loaded(tab)
        visited = []
        for _ in range(40):
            tab.press("Tab")
            visited.append(tab.evaluate(
                "(() => { const element = document.activeElement; const style = getComputedStyle(element);"
                " return [element.id || element.className || element.textContent.trim(),"
                " style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) > 0]; })()"
            ))  # fmt: skip
            if visited[-1][0] == "timeline":
                break
        tab.press("ArrowDown")
        tab.press("ArrowDown")
        said = tab.evaluate("document.getElementById('timeline-says').textContent")
        tab.press("Enter")
        tab.wait_for("document.querySelector('#detail .lead')")
        opened = tab.text("#detail .resource")
        tab.press("Escape")
        tab.wait_for("document.getElementById('detail').hidden")
        returned = tab.evaluate("document.activeElement.id")
        tab.press("-")
        tab.wait_for("location.search === '?last=12h'")
        tab.press("ArrowLeft")
        tab.wait_for("location.search.startsWith('?from=')")

        assert visited[0] == ["skip", True]
        assert visited[-1][0] == "timeline"
        assert [name for name, is_visible in visited if not is_visible] == []
        assert said.startswith("ginger backup.create, /backup/create/1, done after 1m 40s, started 08:30:00")
        assert opened == "/backup/create/1"
        assert returned == "timeline"
        assert tab.complaints == []


def names_of_the_corpus() -> set[str]:
    """Names from the logs that look like markup."""
    found = set()
    for path in (CORPUS / "wok-3.0.0-calm").glob("user-requests.data"):
        found |= set(re.findall(r'<script>[^"/]*</script>[^"/]*', path.read_text("utf-8")))
    return set(sorted(found)[:5])


def test_nothing_from_the_log_becomes_markup(browser: Browser, store: Store) -> None:
    """Every field of a request and of a task may be markup, a script or a trick of Unicode: all is shown as it is."""
    names = [*NASTY, *names_of_the_corpus()]
    first = 10
    write(
        store,
        requests=[
            request(first + at, 300 - at, app=name, user=name, address=name, method=name, message=name, record_id=name)
            ._replace(operation=name)
            for at, name in enumerate(names)
        ],
        tasks=[
            task(
                first + at, 300 - at, 200, app=name, operation=name, target_uri=name, task_id=name,
                outcome="failure", error_code=name, message=name, request=first + at, since=first - 1, until=first + len(names),
                concurrent=len(names) - 1,
            )
            for at, name in enumerate(names)
        ],
    )  # fmt: skip
    live = Live(
        0, {"traces": WELL._replace(message=NASTY[0], reason=NASTY[1])}, [Problem(NASTY[0], NASTY[1])]
    )
    about = ABOUT._replace(host=NASTY[0], trace_url="javascript:alert('{trace_id}')", log_path=NASTY[1])
    with served(store.directory, now=clock(), about=about, live=lambda: live) as url, browser.tab(url) as tab:
        wait_loaded(tab)
        made = "document.querySelectorAll('#table *, #failures *, #health *').length"
        assert tab.evaluate(made) > 100
        for at in range(len(names)):
            tab.evaluate(f'document.querySelector("#failures li:nth-child({at + 1}) a").click()')
            tab.wait_for("document.querySelector('#detail .meanwhile')")
            shown = tab.evaluate("document.getElementById('detail-title').textContent")
            assert shown in {visible(name) for name in names}
        tasks = tab.evaluate("document.getElementById('table').textContent")
        tab.click("[data-table=requests]")
        tab.wait_for("document.querySelector('#table').dataset.shows === 'requests'")
        requests = tab.evaluate("document.getElementById('table').textContent")

        assert [name for name in names if visible(name) not in tasks] == []
        assert [name for name in names if visible(name) not in requests] == []
        assert tab.evaluate(
            "[...document.querySelectorAll('script, img, iframe, svg, style')].map((element) => element.tagName)"
        ) == ["SCRIPT", "SCRIPT"]
        assert tab.evaluate("[...document.querySelectorAll('a')].every((link) => link.protocol === 'http:')")
        assert tab.texts("a[target]") == []
        assert tab.complaints == []


def visible(text: str) -> str:
    """A text as the page shows it: what a browser would obey becomes its code."""
    return re.sub("[\x1b\u202e\u2028]", lambda found: f"\\u{ord(found[0]):04x}", text)


def test_a_trace_is_copied_and_linked(browser: Browser, store: Store) -> None:
    """The id of a trace can be copied, and leads to the tracing backend when there is one."""
    about = ABOUT._replace(trace_url="https://jaeger.example/trace/{trace_id}")
    with (
        served(store.directory, now=clock(), about=about) as url,
        browser.tab(f"{url}/?task={FAILED}") as tab,
    ):
        tab.wait_for("document.querySelector('#detail .id a')")
        link = tab.evaluate(
            "(({href, rel, target}) => [href, rel, target])(document.querySelector('#detail .id a'))"
        )
        tab.evaluate("navigator.clipboard.writeText = async (text) => { window.copied = text; }")
        tab.click("#detail .id button")

        tab.wait_for("window.copied")

        assert tab.evaluate("window.copied") == FAILED[:32]
        assert link == [f"https://jaeger.example/trace/{FAILED[:32]}", "noopener noreferrer", "_blank"]
        assert tab.complaints == []


def test_health_says_what_to_do(browser: Browser, store: Store) -> None:
    """Problems stand at the top with their remedies, commands in them as such."""
    failing = WELL._replace(failing_since=NOON - 60.0, reason="connection refused", remedy="start it")
    problem = Problem("traces: nothing is taken", "run `collector` on this host")
    live = Live(2048, {"traces": failing}, [problem])
    with served(store.directory, now=clock(), live=lambda: live) as url, browser.tab(url) as tab:
        wait_loaded(tab)
        tab.click("#health summary")

        assert tab.text("#verdict") == "1 problem"
        assert tab.text("#facts") == "2 KiB of the log unread · traces not delivered, 0 queued"
        assert tab.texts("#problems li") == ["traces: nothing is taken\nrun collector on this host"]
        assert tab.texts("#problems code") == ["collector"]
        assert "failing since 08:59:00; connection refused; start it" in tab.text("#numbers")


def test_an_exporter_that_does_not_answer_is_said(browser: Browser, store: Store) -> None:
    """When the API fails the page says so and keeps what it shows; when it answers again that is over."""
    broken: list[str] = []

    def live() -> Live:
        if broken:
            raise RuntimeError(broken[0])
        return Live(0, {}, ())

    with served(store.directory, now=clock(), live=live) as url, browser.tab(url) as tab:
        wait_loaded(tab)
        broken.append("out of order")
        tab.wait_for("!document.getElementById('trouble').hidden")
        said, rows = tab.text("#trouble"), operations(tab)
        verdict, level = tab.text("#verdict"), tab.evaluate("document.getElementById('health').dataset.level")
        broken.clear()
        tab.wait_for("document.getElementById('trouble').hidden")

        assert (verdict, level) == ("Exporter unreachable", "trouble")
        assert tab.text("#verdict") == "Exporter OK"
        assert said.startswith("The exporter answers with status 500. The page shows the state of 09:00:")
        assert len(rows) == 3


def test_an_empty_history_is_said_in_words(browser: Browser, tmp_path: Path) -> None:
    """Before the first record the page explains itself instead of being blank."""
    with closing(Store(tmp_path)) as store:
        write(store)
        with served(tmp_path, now=clock()) as url, browser.tab(url) as tab:
            wait_loaded(tab)

            assert tab.text("#timeline-empty") == "No records yet. Wok writes one for every change."
            assert tab.text("#table-empty") == "No records yet."
            assert tab.text("#failures-note") == "No records yet."
            assert tab.text("#running-note") == "No records yet."
            assert tab.text("#facts").startswith("no records yet")
            assert tab.complaints == []


def test_a_log_that_is_not_read_is_no_empty_one(browser: Browser, tmp_path: Path) -> None:
    """While nothing was read because of a problem, the page says nothing of what Wok did, and points to the problem."""
    live = Live(0, {}, [Problem("/var/log/wok.log does not exist", "start wokd")])
    with closing(Store(tmp_path)) as store:
        write(store)
        with served(tmp_path, now=clock(), live=lambda: live) as url, browser.tab(url) as tab:
            wait_loaded(tab)
            page = tab.text("body")

            assert tab.text("#timeline-empty") == "No records yet. The problem at the top may be the reason."
            # a path is shown as it is written
            assert tab.texts("#problems strong") == ["/var/log/wok.log does not exist"]
            assert [lie for lie in ("Nothing is running", "None in", "read to its end") if lie in page] == []


def test_a_task_that_is_not_there_is_said(browser: Browser, url: str) -> None:
    """A link to a task that has been forgotten says so."""
    with browser.tab(f"{url}/?task={'0' * 47}f") as tab:
        tab.wait_for("document.getElementById('detail').innerText.includes('too old to keep')")

        assert [text for text in tab.complaints if "404" not in text] == []


def test_the_table_is_sorted_by_any_column(browser: Browser, url: str) -> None:
    """A click on a title sorts downwards, another one upwards, a third as before; the address keeps it."""
    with browser.tab(url) as tab:
        wait_loaded(tab)
        orders = [operations(tab)]
        for address in ("?sort=-took", "?sort=took", ""):
            tab.click("[data-sort=took]")
            tab.wait_for(f"location.search === '{address}' || location.search === '?' && !'{address}'")
            tab.wait_for(
                "document.querySelector('th.c-took').getAttribute('aria-sort') === "
                f"'{ {'?sort=-took': 'descending', '?sort=took': 'ascending', '': 'none'}[address] }'"
            )
            tab.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
            orders.append(operations(tab))

        web1, web5 = "/plugins/kimchi/vms/web-1/clone", "/plugins/kimchi/vms/web-5/clone"
        assert orders[1] == ["/backup/create/1", web1, web5]
        assert orders[2] == orders[1][::-1]
        assert orders[3] == orders[0]
        assert tab.complaints == []


def test_the_table_is_saved(browser: Browser, store: Store, url: str) -> None:
    """CSV and JSON have all rows of the table with their reasons; a text is no formula for a spreadsheet."""
    write(store, tasks=[task(9, 100, 90, target_uri="=HYPERLINK(1)", operation='a"b', request=0)])
    with browser.tab(url) as tab:
        wait_loaded(tab)
        tab.wait_for("document.querySelectorAll('#table tbody tr').length === 4")
        tab.evaluate(
            "window.saved = []; URL.createObjectURL = (blob) => { blob.text().then((text) => saved.push(text));"
            " return 'blob:none'; }; HTMLAnchorElement.prototype.click = function () { saved.push(this.download); };"
        )
        for name in ("csv", "json"):
            tab.click(f"#{name}")
        tab.wait_for("saved.length === 4")
        saved = tab.evaluate("saved")
        (table,) = (text for text in saved if text.startswith('"State"'))
        (whole,) = (text for text in saved if text.startswith("["))
        lines = table.split("\r\n")

        assert {"wok-tasks.csv", "wok-tasks.json"} <= set(saved)
        assert lines[0].startswith('"State","Started","Ended","Took","Task","Resource","Reason"')
        assert len(lines) == 5
        assert '"a""b","\'=HYPERLINK(1)"' in lines[1]
        assert "no space is left in the pool default" in lines[4]
        assert len(json.loads(whole)) == 4


def test_an_ambiguous_task_shows_the_other_candidates(browser: Browser, store: Store, url: str) -> None:
    """A task whose request is in doubt says so, which one was chosen, and shows the others."""
    contexts = b"".join(REQUESTS[n].context for n in (0, 1))
    doubtful = task(20, 1800, 1790, request=3, correlation="ambiguous", candidates=contexts)
    write(store, tasks=[doubtful])
    with browser.tab(f"{url}/?task={doubtful.context.hex()}") as tab:
        tab.wait_for("document.querySelector('.candidates')")
        told = tab.text("#detail")
        others = [re.sub(r"\s+", " ", text) for text in tab.texts(".candidates tbody tr")]

        assert "Several requests may have started the task. This is the newest of them." in told
        assert others == [
            "08:00:00 POST kimchi vms.start clones web-1 ada 202",
            "08:00:10 POST ginger vms.start makes a backup grace 400",
        ]
        assert tab.complaints == []


def test_an_alert_leads_to_the_reason(browser: Browser, url: str) -> None:
    """The link of an alert shows the reason, the resource and the user without a click, and with one the requests meanwhile."""
    link = link_of("WokTaskFailed", "page_url")
    query = dict(parse_qsl(link.removeprefix("/?"), keep_blank_values=True))
    ended = NOON - 3570
    query |= {"app": "kimchi", "operation": "vms.clone"}
    query |= {name: f"{datetime.fromtimestamp(at, UTC):%Y-%m-%dT%H:%M:%SZ}"
              for name, at in (("from", ended - 21600), ("to", ended + 600))}  # fmt: skip
    with browser.tab(f"{url}/?{urlencode(query)}") as tab:
        wait_loaded(tab)
        listed, failures, address = operations(tab), tab.texts("#failures li"), search(tab)
        tab.click("#failures li a")
        tab.wait_for("document.querySelector('#detail .meanwhile')")

        assert query.keys() == {"app", "operation", "state", "from", "to"}
        assert dict(parse_qsl(address.removeprefix("?"))) == query
        assert listed == ["/plugins/kimchi/vms/web-1/clone"]
        assert len(failures) == 1
        assert "no space is left in the pool default" in failures[0]
        assert "/plugins/kimchi/vms/web-1/clone, by ada" in failures[0]
        assert len(tab.texts("#detail .meanwhile tbody tr")) == 2
        assert tab.complaints == []


def test_a_stuck_task_comes_first(browser: Browser, store: Store, url: str) -> None:
    """Of running tasks the one that takes longest for its kind is in front, coloured, with how many times the usual."""
    stuck = open_task(31, start=(NOON - 300) * NANOS, request=5, target_uri="")
    older = open_task(30, start=(NOON - 900) * NANOS, operation="vms.migrate", request=0)
    write(store, opened=[older, stuck])
    with browser.tab(url) as tab:
        tab.wait_for("document.querySelectorAll('#running li').length === 2")
        wait_loaded(tab)
        first = tab.texts("#running li")[0]

        assert re.search("(30|31)[.][0-9]\u00d7 usual", first)
        assert "clones mail-1" in first
        assert tab.evaluate("document.querySelector('#running .slow') !== null")
        assert "\u00d7 usual" in tab.texts("#table tbody tr")[0]
        assert tab.complaints == []


def test_tasks_come_first_on_a_phone(browser: Browser, url: str) -> None:
    """On a narrow screen the lists and the table are above the filters and the timeline."""
    with browser.tab(url, width=360) as tab:
        wait_loaded(tab)
        tops = tab.evaluate(
            "['failures-card', 'tasks', 'filters', 'timeline'].map((id) =>"
            " document.getElementById(id).getBoundingClientRect().top)"
        )

        assert tops == sorted(tops)
        assert tab.evaluate("document.documentElement.scrollWidth") <= 360


def test_ten_thousand_tasks_are_loaded_but_not_listed(browser: Browser, tmp_path: Path) -> None:
    """All tasks of a day are counted and drawn; the page lists a hundred, and a hundred more when asked."""
    many = [task(at, 80_000 - 7 * at, 80_000 - 7 * at - 30) for at in range(1, 10_001)]
    with closing(Store(tmp_path)) as store:
        write(store, requests=[request(at, 80_000 - 7 * at) for at in range(1, 10_001)], tasks=many)
        with served(tmp_path, now=clock()) as url, browser.tab(f"{url}/?last=24h") as tab:
            tab.wait_for(
                "document.getElementById('table-note').textContent === '10,000 in the last 24 hours'"
            )
            wait_loaded(tab)
            listed = tab.evaluate("document.querySelectorAll('#table tbody tr').length")
            elements = tab.evaluate("document.querySelectorAll('*').length")
            tab.click("#more")
            tab.wait_for("document.querySelectorAll('#table tbody tr').length === 200")

            assert listed == 100
            assert elements < ELEMENTS_MAX
            assert tab.complaints == []


@pytest.mark.parametrize(
    ("name", "width", "scheme"),
    [("light", 1280, "light"), ("dark", 1280, "dark"), ("phone", 360, "light"), ("phone-dark", 360, "dark")],
)
def test_both_themes_and_a_phone(
    browser: Browser, url: str, tmp_path: Path, name: str, width: int, scheme: str
) -> None:
    """In both themes and at 360 pixels nothing is wider than the window."""
    address = f"{url}/?task={FAILED}"
    with browser.tab(address, width=width, prefers_color_scheme=scheme) as tab:
        tab.wait_for("document.querySelector('.meanwhile')")
        wait_loaded(tab)
        tab.screenshot(tmp_path / f"{name}.png")

        assert tab.evaluate("document.documentElement.scrollWidth") <= width


def test_the_theme_can_be_chosen_and_stays(browser: Browser, url: str) -> None:
    """The button changes the theme, also against the system's, and a reload keeps it."""
    background = "getComputedStyle(document.body).backgroundColor"
    with browser.tab(url, prefers_color_scheme="light") as tab:
        wait_loaded(tab)
        light = tab.evaluate(background)
        tab.click("#theme")
        tab.click("#theme")
        dark = tab.evaluate(background)
        tab.go(url)
        wait_loaded(tab)

        assert light != dark
        assert tab.evaluate(background) == dark
        assert tab.text("#theme") == "Theme: dark"


def test_nothing_moves_for_those_who_want_it_still(browser: Browser, url: str, store: Store) -> None:
    """With reduced motion no animation runs, not even that of a running task."""
    write(store, opened=[open_task(6, start=(NOON - 61) * NANOS, request=0)])
    still = {}
    for wish in ("no-preference", "reduce"):
        with browser.tab(url, prefers_reduced_motion=wish) as tab:
            tab.wait_for("document.querySelector('#running li')")
            still[wish] = tab.evaluate("document.getAnimations().length")

    assert still == {"no-preference": 1, "reduce": 0}


def test_the_page_is_light_and_needs_nobody() -> None:
    """All files together are small, name no other host, and have neither inline code nor a way to make markup."""
    files = sorted(STATIC.iterdir())
    texts = {path.name: path.read_text("utf-8") for path in files}
    makers = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|DOMParser|srcdoc"
    inline = r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son[a-z]+="

    assert sum(path.stat().st_size for path in files) < WEIGHT_MAX_BYTES
    assert [name for name, text in texts.items() if re.search(makers, text)] == []
    assert re.findall(inline, texts["index.html"]) == []
    assert [
        name
        for name, text in texts.items()
        if re.search(r"https?://", text.replace('xmlns="http://www.w3.org/2000/svg"', ""))
    ] == []

"""The page for people who use a keyboard, a screen reader, large text or their own colours: walked in a real browser.

Chromium's accessibility tree is what a screen reader gets. The limits are those of WCAG 2.2 (AA): contrast 4.5 for
text and 3 for what else must be seen, targets of 24 pixels, no scrolling sideways at 320 pixels.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from exporter.records import NANOS, Live, Problem
from exporter.store.writer import Store
from tests.browser import Browser, Tab, chromium
from tests.served import ABOUT, WELL, served
from tests.store_made import commit, open_task, request_row, task_row

NOON = 1_785_585_600
TAB_STOPS_MAX = 120
SMALL_PHONE = 320
"""What 1280 pixels become at a zoom of 400 %; at 200 % they become 640."""
TEXT_CONTRAST_MIN = 4.5
SIGN_CONTRAST_MIN = 3.0
TARGET_PIXELS_MIN = 24
LONG = "web-" + "x" * 200
RTL = "\u05e9\u05e8\u05ea-\u05d1\u05d3\u05d9\u05e7\u05d4"
CJK = "\u4eee\u60f3\u30b5\u30fc\u30d0\u30fc\u958b\u767a\u74b0\u5883" * 8


@pytest.fixture(scope="module", name="browser")
def _browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


class Scene(NamedTuple):
    """A page with a task of every kind: `url`, the store to go on with, the ids of tasks by name."""

    url: str
    store: Store
    ids: dict[str, str]


@pytest.fixture(name="scene")
def _scene(tmp_path: Path) -> Iterator[Scene]:
    requests = [
        request_row(number, time=(NOON - 4000 + 10 * number) * NANOS, message=f"Start to clone guest {name}",
                    user=user, status=status, resource=f"guest {name}")
        for number, (name, user, status) in enumerate(
            [("web01", "ada", 202), ("db01", "grace", 400), ("mail", "jos\u00e9", 202), (LONG, "ada", 500), (RTL, RTL, 202), (CJK, CJK, 202)],
            1,
        )
    ]  # fmt: skip

    def ended(number: int, **changed: Any) -> Any:
        times = {"start": (NOON - 3900 + 60 * number) * NANOS, "end": (NOON - 3870 + 60 * number) * NANOS}
        return task_row(number, **{**times, "since": 1, "until": 6, "concurrent": 5, **changed})

    candidates = requests[0].context + requests[1].context
    tasks = {
        "failed": ended(1, outcome="failure", error_code="KCHVM0035E", message="no space is left"),
        "done": ended(2),
        "lost": ended(3, outcome="lost"),
        "unknown": ended(4, outcome="unknown"),
        "ambiguous": ended(20, request=6, correlation="ambiguous", candidates=candidates),
        "long": ended(5, target_uri=f"/plugins/kimchi/vms/{LONG}/clone", outcome="failure", message=LONG * 4),
    }
    with closing(Store(tmp_path / "state")) as store:
        running = open_task(31, start=(NOON - 300) * NANOS, request=3, target_uri="")
        store.commit(commit(requests=requests, tasks=list(tasks.values()), opened=[running]), NOON)
        offset = NOON * NANOS - time.time_ns()
        problem = Problem("traces: nothing is taken", "run `collector` on this host")
        failing = WELL._replace(failing_since=NOON - 60.0, reason="connection refused", remedy="start it")
        with served(
            store.directory,
            now=lambda: time.time_ns() + offset,
            about=ABOUT._replace(trace_url="https://jaeger.example/trace/{trace_id}"),
            live=lambda: Live(2048, {"traces": failing}, [problem]),
        ) as url:
            ids = {name: task.context.hex() for name, task in tasks.items()}
            yield Scene(url, store, ids | {"running": running.context.hex()})


def wait_loaded(tab: Tab, task: str = "") -> None:
    tab.wait_for(
        "document.getElementById('table').dataset.shows"
        " && document.getElementById('table-note').textContent !== 'reading…'"
        " && document.querySelector('#running li')"
    )
    if task:
        tab.wait_for("document.querySelector('#detail .lead')")


class Stop(NamedTuple):
    """Where the focus was: what a screen reader says there, and what can be seen of it."""

    role: str
    name: str
    what: str
    is_marked: bool
    is_uncovered: bool
    top: float
    size: float


STOP = """(() => {
  const element = document.activeElement, style = getComputedStyle(element);
  const box = element.getBoundingClientRect();
  const isSeenAt = (y) => {
    const over = document.elementFromPoint(box.left + box.width / 2, y);
    return Boolean(over && (element.contains(over) || over.contains(element)));
  };
  const own = element.closest("label")?.getBoundingClientRect() ?? box;
  return [
    element === document.body ? "" : element.id || element.dataset.sort || element.dataset.last || element.className || element.tagName,
    style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2,
    [box.top + Math.min(box.height / 2, 12), box.top + box.height / 2, box.bottom - 12].some(isSeenAt),
    box.top + scrollY,
    Math.min(Math.max(box.height, own.height), Math.max(box.width, own.width)),
  ];
})()"""


def walked(tab: Tab) -> list[Stop]:
    """Press Tab from the top of the page to its end. The parts of a date are one stop here."""
    tab.call("Accessibility.enable")
    stops: list[Stop] = []
    for _ in range(TAB_STOPS_MAX):
        tab.press("Tab")
        what, *seen = tab.evaluate(STOP)
        if not what:
            return stops
        found = tab.call("Runtime.evaluate", expression="document.activeElement")["result"]["objectId"]
        (node,) = tab.call("Accessibility.getPartialAXTree", objectId=found, fetchRelatives=False)["nodes"]
        stop = Stop(node["role"]["value"], node["name"]["value"], what, *seen)
        if not (stops and stops[-1].role == stop.role == "DateTime" and stops[-1].name == stop.name):
            stops.append(stop)
    raise AssertionError(f"a trap for the keyboard, or too many stops: {stops[-3:]}")


@pytest.mark.parametrize("width", [1280, SMALL_PHONE])
@pytest.mark.parametrize(
    ("table", "task"), [("tasks", ""), ("tasks", "failed"), ("tasks", "ambiguous"), ("requests", "")]
)
def test_every_control_is_reached_named_and_seen(
    browser: Browser, scene: Scene, width: int, table: str, task: str
) -> None:
    """Tab alone reaches every control once, each has a role, a name and a focus that is seen and not covered."""
    address = f"{scene.url}/?table={table}&task={scene.ids.get(task, '')}"
    with browser.tab(address, width=width) as tab:
        wait_loaded(tab, task)
        controls = tab.evaluate(
            "[...document.querySelectorAll('a[href], button, input, select, summary, canvas')].filter((element) =>"
            " !element.disabled && element.checkVisibility({visibilityProperty: true})).length"
        )
        stops = walked(tab)

    assert len(stops) == controls
    assert [stop for stop in stops if not stop.name.strip() or stop.role in ("generic", "none")] == []
    assert [stop for stop in stops if not stop.is_marked] == []
    assert [stop for stop in stops if not stop.is_uncovered] == []
    assert [stop for stop in stops if stop.size < TARGET_PIXELS_MIN and stop.role != "link"] == []


def test_the_focus_goes_as_the_page_is_read(browser: Browser, scene: Scene) -> None:
    """The order of the focus is the one that is seen: health, failures, and on a phone the tasks before the filters."""
    first = ["skip", "theme", "SUMMARY"]
    order = {}
    for width in (1280, SMALL_PHONE):
        with browser.tab(scene.url, width=width) as tab:
            wait_loaded(tab)
            stops = walked(tab)
        order[width] = [stop.what for stop in stops]
        tops = [stop.top for stop in stops if stop.what in ("text", "timeline", "csv", "SUMMARY")]

        assert order[width][:3] == first
        assert tops == sorted(tops)

    assert order[1280].index("text") < order[1280].index("timeline") < order[1280].index("csv")
    assert order[SMALL_PHONE].index("csv") < order[SMALL_PHONE].index("text")


def test_the_first_link_skips_to_the_tasks(browser: Browser, scene: Scene) -> None:
    """The skip link is seen when it has the focus, and the next stop after it is in the table's part."""
    with browser.tab(scene.url) as tab:
        wait_loaded(tab)
        tab.press("Tab")
        top = tab.evaluate("document.activeElement.getBoundingClientRect().top")
        tab.press("Enter")
        tab.press("Tab")

        assert top >= 0
        assert tab.evaluate("document.activeElement.closest('section').id") == "tasks"


def test_a_task_takes_the_focus_and_gives_it_back(browser: Browser, scene: Scene) -> None:
    """Enter on a task in the table moves the focus to its title, Escape moves it back to the task."""
    with browser.tab(scene.url) as tab:
        wait_loaded(tab)
        tab.evaluate("document.querySelector('#table tbody a').focus()")
        tab.press("Enter")
        tab.wait_for("document.activeElement.id === 'detail-title'")
        tab.press("Escape")
        tab.wait_for("document.getElementById('detail').hidden")

        assert tab.evaluate("document.activeElement.matches('#table tbody a')")


def tree(tab: Tab) -> list[tuple[str, str, dict[str, Any]]]:
    """The role, name and properties of each node that a screen reader knows."""
    tab.call("Accessibility.enable")
    return [
        (
            node["role"]["value"],
            node.get("name", {}).get("value", ""),
            {each["name"]: each["value"].get("value") for each in node.get("properties", ())},
        )
        for node in tab.call("Accessibility.getFullAXTree")["nodes"]
        if not node["ignored"]
    ]


@pytest.mark.parametrize("width", [1280, SMALL_PHONE])
def test_a_screen_reader_finds_its_way(browser: Browser, scene: Scene, width: int) -> None:
    """Landmarks have names, headings skip no level, and tables are tables with headers, also on a phone."""
    with browser.tab(f"{scene.url}/?task={scene.ids['ambiguous']}", width=width) as tab:
        wait_loaded(tab, "ambiguous")
        nodes = tree(tab)
        headers = tab.evaluate("[...document.querySelectorAll('#table th')].filter((cell) => cell.checkVisibility()).length")  # fmt: skip
    roles = [role for role, _, _ in nodes]
    levels = [properties["level"] for role, _, properties in nodes if role == "heading"]
    landmarks = {(role, name) for role, name, _ in nodes if role in ("banner", "main", "complementary", "search", "region", "form")}  # fmt: skip

    assert {role for role, _ in landmarks} >= {"main", "complementary", "search", "region"}
    assert [role for role, name in landmarks if not name and role not in ("banner", "main")] == []
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert [pair for pair in pairwise(levels) if pair[1] > pair[0] + 1] == []
    # the table of tasks, the other candidates, and the requests meanwhile
    assert roles.count("table") == 3
    assert roles.count("columnheader") == headers + 4 + 4
    # the failures, the running tasks, the problems, the legend
    assert roles.count("list") >= 4


def test_nobody_is_told_what_does_not_concern_them(browser: Browser, scene: Scene) -> None:
    """What arrives while nothing fails is not announced, a new failure once, a filter's result once it is there."""
    with browser.tab(scene.url) as tab:
        wait_loaded(tab)
        tab.evaluate(
            "(() => { window.said = []; const look = new MutationObserver((changes) => changes.forEach(({target}) =>"
            " window.said.push((target.nodeType === 3 ? target.parentElement : target).textContent)));"
            " for (const each of document.querySelectorAll('[role=status], [role=alert], [aria-live]'))"
            " look.observe(each, {childList: true, characterData: true, subtree: true}); })()"
        )
        fine = task_row(40, start=(NOON - 20) * NANOS, end=(NOON - 10) * NANOS)
        scene.store.commit(commit(tasks=[fine]), NOON)
        tab.wait_for(f"document.querySelector('#table [data-task=\"{fine.context.hex()}\"]')")
        quiet = tab.evaluate("window.said")
        bad = task_row(41, start=(NOON - 5) * NANOS, end=NOON * NANOS, outcome="failure", message="no space")
        scene.store.commit(commit(tasks=[bad]), NOON)
        tab.wait_for("window.said.length")
        tab.click("#states [value=lost]")
        tab.wait_for("document.getElementById('announce').textContent.includes('1 task in')")
        said = tab.evaluate("window.said")

    assert quiet == []
    assert len(said) == 2
    assert said[0].startswith("New failure: kimchi vms.clone")
    assert said[1] == "1 task in the last 6 hours"


TEXTS = """(() => {
  const rgb = (text) => {
    const [, body] = text.match(/^rgba?\\(([^)]+)\\)$/);
    const [r, g, b, a = 1] = body.split(/[\\s,\\/]+/).map(Number);
    return [r, g, b, a];
  };
  const over = ([r, g, b, a], below) => [r, g, b].map((part, at) => part * a + below[at] * (1 - a));
  const groundOf = (element) => {
    const colours = [];
    for (let at = element; at; at = at.parentElement) colours.unshift(rgb(getComputedStyle(at).backgroundColor));
    return colours.reduce((below, colour) => over(colour, below), [255, 255, 255]);
  };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    const element = node.parentElement;
    if (!node.textContent.trim() || !element.checkVisibility({visibilityProperty: true})) continue;
    if (element.closest("noscript, option, :disabled")) continue;
    const ground = groundOf(element);
    found.push([node.textContent.trim().slice(0, 40), over(rgb(getComputedStyle(element).color), ground), ground]);
  }
  for (const field of document.querySelectorAll("[placeholder]")) {
    const ground = groundOf(field);
    found.push([field.placeholder, over(rgb(getComputedStyle(field, "::placeholder").color), ground), ground]);
  }
  return found;
})()"""
SIGNS = ("strong", "accent", "done", "failed", "lost", "unknown", "running", "tick")
"""Colours of edges, bars and marks, in which a control or a task is seen."""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("task", ["failed", "lost", "ambiguous", "running"])
def test_everything_stands_out_from_its_ground(
    browser: Browser, scene: Scene, scheme: str, task: str
) -> None:
    """Every text has the contrast that WCAG asks for, in both themes; so have edges, bars and marks."""
    address = f"{scene.url}/?task={scene.ids[task]}"
    with browser.tab(address, prefers_color_scheme=scheme) as tab:
        wait_loaded(tab, task)
        tab.click("#health summary")
        texts = tab.evaluate(TEXTS)
        signs = tab.evaluate(
            f"{json.dumps(SIGNS)}.map((name) => {{ const probe = document.createElement('i'); document.body.append(probe);"
            " const found = [name, 'panel'].map((each) => { probe.style.color = `var(--${each})`;"
            " return getComputedStyle(probe).color.match(/[\\d.]+/g).map(Number); });"
            " probe.remove(); return [name, ...found]; })"
        )

    assert len(texts) > 50
    assert [(text, contrast(*pair)) for text, *pair in texts if contrast(*pair) < TEXT_CONTRAST_MIN] == []
    assert [(name, contrast(*pair)) for name, *pair in signs if contrast(*pair) < SIGN_CONTRAST_MIN] == []


def contrast(one: list[float], other: list[float]) -> float:
    """The contrast of two colours, 1 to 21, as WCAG 2.2 defines it."""

    def luminance(colour: list[float]) -> float:
        linear = [
            part / 255 / 12.92 if part <= 10 else ((part / 255 + 0.055) / 1.055) ** 2.4 for part in colour
        ]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    dark, bright = sorted((luminance(one), luminance(other)))
    return (bright + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("width", [1280, 1024, 960, 640, SMALL_PHONE])
@pytest.mark.parametrize("task", ["", "long", "ambiguous"])
def test_large_text_and_long_names_fit(browser: Browser, scene: Scene, width: int, task: str) -> None:
    """At any zoom nothing scrolls sideways, and the names of tasks and requests have room, beside an open task too."""
    for table in ("tasks", "requests"):
        address = f"{scene.url}/?table={table}&task={scene.ids.get(task, '')}"
        with browser.tab(address, width=width) as tab:
            wait_loaded(tab, task)
            wide = tab.evaluate("document.documentElement.scrollWidth")
            narrowest = tab.evaluate(
                "Math.min(...[...document.querySelectorAll('#table td.main')].map((cell) => cell.clientWidth))"
            )

        assert wide <= width, table
        assert narrowest >= 150, table


def test_the_readers_own_colours_are_kept(browser: Browser, scene: Scene) -> None:
    """With forced colours each state is still told by a word and a mark, and what is pressed by more than its ground."""
    with browser.tab(scene.url, forced_colors="active") as tab:
        wait_loaded(tab)
        marks = tab.evaluate("[...document.querySelectorAll('#table .state')].map((each) => each.innerText.replace(/\\s+/g, ' '))")  # fmt: skip
        looks = tab.evaluate(
            "['true', 'false'].map((pressed) => { const style = getComputedStyle(document.querySelector("
            "`#ranges [aria-pressed=${pressed}]`)); return [style.backgroundColor, style.color, style.textDecorationLine,"
            " style.borderStyle].join(); })"
        )
        canvas = tab.evaluate("getComputedStyle(document.getElementById('timeline')).forcedColorAdjust")

    assert set(marks) == {"▸ running", "✓ done", "✕ failed", "◌ lost", "? unknown"}
    assert looks[0] != looks[1]
    assert canvas == "auto"

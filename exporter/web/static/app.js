// The page's events: the address has the view, the exporter has the data, and every change of either is drawn. The
// clock is the exporter's; this machine's is only read for the time since the last answer.

import { Data, get } from "./data.js";
import { Detail } from "./detail.js";
import { fill, h, say } from "./dom.js";
import { Zone, shortened, spanMilliseconds, visible } from "./format.js";
import { Health } from "./health.js";
import { describe, told } from "./rows.js";
import { Screen } from "./screen.js";
import { Timeline } from "./timeline.js";
import { STATES, formatView, isFiltered, isLive, parseView, rangeOf, withRange } from "./view.js";

const POLL = 2000;
const POLL_HIDDEN = 10000;
const TYPING = 300; // milliseconds until a typed text is taken
const SETTLING = 250; // until a moved range is fetched
const ROWS = 100;
const THEMES = ["system", "light", "dark"];

const $ = (id) => document.getElementById(id);
const once = (wait, act) => {
  let timer = 0;
  return () => { clearTimeout(timer); timer = setTimeout(act, wait); };
};

class Page {
  constructor() {
    this.view = parseView(location.search);
    this.data = new Data();
    this.status = null;
    this.zone = new Zone("");
    this.ahead = 0; // of the exporter's clock before this machine's
    this.rows = ROWS; // of the table
    this.task = null; // the open one, as the API gives it
    this.known = null; // ids of failures that need no announcement
    this.error = "";
    this.opener = null;
    this.health = new Health({
      strip: $("health"), verdict: $("verdict"), facts: $("facts"), problems: $("problems"), numbers: $("numbers"), freshness: $("freshness"),
    });
    this.timeline = new Timeline($("timeline"), $("tip"), {
      opened: (task) => this.open(task.id, $("timeline")),
      moved: (since, until) => this.move(since, until),
      told: (task) => say($("timeline-says"), task ? told(task, this.zone, this.now()) : "No tasks here"),
      describe: (task, tip) => describe(tip, task, this.zone, this.now()),
    });
    this.detail = new Detail($("detail"), {
      closed: () => this.open(""),
      zoomed: (task) => this.zoomTo(task),
      said: (text) => say($("announce"), text),
    });
    this.settle = once(SETTLING, () => this.settled());
    this.screen = new Screen(this.timeline, this.detail, {
      wentTo: (range) => this.go(range, { isStep: true }),
      said: (text) => say($("announce"), text),
    });
    this.listen();
    this.controls();
  }

  now() {
    return Date.now() + this.ahead;
  }

  async start() {
    setInterval(() => this.second(), 1000);
    document.addEventListener("visibilitychange", () => { if (!document.hidden) this.poll(); });
    await this.poll();
  }

  /** Ask how things are, fetch what has changed, and come again. */
  async poll() {
    clearTimeout(this.timer);
    if (this.polling) return;
    this.polling = true;
    try {
      const status = await get("status");
      this.ahead = status.now - Date.now();
      const isFirst = this.status === null;
      const isNew = status.revision !== this.status?.revision;
      this.status = status;
      if (isFirst) this.begin();
      this.health.show(status, this.zone, this.now());
      if (isFirst || !this.data.holds(this.view, this.now())) {
        if (!this.data.loading) await this.load();
      } else if (isNew || this.isBehind) {
        this.isBehind = true;
        await this.data.news(this.view, this.now(), undefined, () => this.changed());
        if (this.view.task && (!this.task || this.task.state === "running")) await this.fetchTask();
        this.isBehind = false;
      }
      this.fine();
    } catch (error) {
      this.failed(error);
    } finally {
      this.polling = false;
      this.timer = setTimeout(() => this.poll(), document.hidden ? POLL_HIDDEN : POLL);
    }
  }

  begin() {
    this.zone = new Zone(this.status.zone);
    say($("host"), this.status.host);
    document.title = `Wok tasks · ${visible(this.status.host)}`;
    say($("about"), `wok-exporter ${this.status.version} · times of ${this.zone.name} · ${this.status.log.path}`);
    this.controls();
    if (this.view.task) { this.detail.wait(); this.fetchTask().catch((error) => this.failed(error)); }
  }

  async load() {
    try {
      await this.data.load(this.view, this.now(), () => this.changed());
      this.fine();
    } catch (error) {
      if (error.name !== "AbortError") throw error;
    }
  }

  /** Something has arrived: draw it, in the next frame. */
  changed() {
    this.screen.isStale = true;
    this.announce();
    this.draw();
  }

  fine() {
    if (this.error && this.status) this.health.show(this.status, this.zone, this.now());
    this.error = "";
    $("trouble").hidden = true;
  }

  failed(error) {
    if (error.name === "AbortError") return;
    const sentence = error.status === 401 ? "The exporter requires a user and a password. Reload the page." : `${visible(error.message)}. `;
    if (this.error === sentence) return;
    this.error = sentence;
    fill($("trouble"), sentence, error.status === 401 || error.status === 400 ? "" : `The page shows the state of ${this.zone.short(this.now(), this.now())}. It retries every few seconds.`);
    $("trouble").hidden = false;
    if (this.status && error.status !== 400) this.health.lost(this.zone.short(this.now(), this.now()));
  }

  // --- what a person does

  /** Look at something else. A `step` can be gone back over; moving and typing are not steps. */
  go(change, { isStep = false } = {}) {
    const next = { ...this.view, ...change };
    const address = formatView(next);
    if (isStep) {
      this.keepAddress();
      if (address !== (location.search || "?")) history.pushState(null, "", address);
    }
    this.view = next;
    this.arrive();
  }

  /** Browsers take a change of the address only so often: those of moving and typing wait until they settle. */
  keepAddress() {
    const address = formatView(this.view);
    if (address !== (location.search || "?")) history.replaceState(null, "", address);
  }

  arrive() {
    this.rows = ROWS;
    this.controls();
    this.draw();
    this.settle();
  }

  settled() {
    this.keepAddress();
    if (this.status && !this.data.holds(this.view, this.now())) this.load().catch((error) => this.failed(error));
    else if (this.status) this.data.news(this.view, this.now(), undefined, () => this.changed()).catch((error) => this.failed(error));
  }

  move(since, until) {
    const { from, to, last } = withRange(this.view, since, until, this.now());
    this.go({ from, to, last });
  }

  shift(share, factor) {
    const { since, until } = rangeOf(this.view, this.now());
    const by = (until - since) * share;
    const at = isLive(this.view) && factor !== 1 ? until : (since + until) / 2;
    this.move(at - (at - since) * factor + by, at + (until - at) * factor + by);
  }

  zoomTo(task) {
    const end = task.state === "running" ? this.now() : task.end ?? task.start;
    const room = Math.max(60000, (end - task.start) * 0.5);
    this.go(withRange(this.view, task.start - room, end + room, this.now()), { isStep: true });
    $("timeline").closest(".canvas").scrollIntoView({ block: matchMedia("(min-width: 75rem)").matches ? "nearest" : "start" });
  }

  open(id, opener = null) {
    if (id === this.view.task) return id && this.detail.focus();
    if (id) this.opener = opener ?? document.activeElement;
    this.go({ task: id }, { isStep: true });
    return this.opened(true);
  }

  opened(isAsked) {
    this.task = null;
    if (!this.view.task) {
      this.detail.hide();
      this.draw();
      // Where it came from may have left the page meanwhile.
      if (isAsked) (this.opener?.isConnected ? this.opener : $("tasks")).focus({ preventScroll: true });
      return;
    }
    this.detail.wait();
    if (isAsked) this.detail.focus();
    this.fetchTask().catch((error) => this.failed(error));
  }

  async fetchTask() {
    const id = this.view.task;
    try {
      const task = await get(`tasks/${id}`);
      if (id !== this.view.task) return;
      this.task = task;
      this.lit = lit(task);
      this.draw();
    } catch (error) {
      if (id !== this.view.task) return;
      if (error.status !== 404) throw error;
      this.detail.fail("The history has no such task. It may have been too old to keep.");
    }
  }

  listen() {
    window.addEventListener("popstate", () => {
      const before = this.view.task;
      this.view = parseView(location.search);
      this.arrive();
      if (before !== this.view.task) this.opened(false);
    });
    document.addEventListener("click", (event) => {
      // Links to other states of the page are real ones: they can be opened elsewhere and copied.
      const link = event.target.closest("a[href^='?']");
      const row = event.target.closest("tr[data-key]");
      if (event.defaultPrevented || event.button || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
      if (link) {
        event.preventDefault();
        this.open(parseView(link.search).task, link);
      } else if (row && !event.target.closest("a, button") && !String(getSelection())) {
        const inside = row.querySelector("a[href^='?']");
        if (inside) this.open(parseView(inside.search).task, inside);
      }
    });
    document.addEventListener("keydown", (event) => {
      if (event.key === "Escape" && this.view.task && !event.target.closest("input, select")) this.open("");
    });
    for (const name of ["app", "operation"]) $(name).addEventListener("change", () => this.go({ [name]: $(name).value }, { isStep: true }));
    $("text").addEventListener("input", once(TYPING, () => this.go({ text: $("text").value.trim() })));
    $("user").addEventListener("change", () => this.go({ user: $("user").value.trim() }, { isStep: true }));
    $("user").addEventListener("search", () => this.go({ user: $("user").value.trim() }));
    $("filters").addEventListener("submit", (event) => {
      event.preventDefault();
      this.go({ text: $("text").value.trim(), user: $("user").value.trim() }, { isStep: true });
    });
    $("states").addEventListener("change", () => {
      const states = [...$("states").querySelectorAll("input")].filter((box) => box.checked).map((box) => box.value);
      this.go({ states: STATES.filter((state) => states.includes(state)) }, { isStep: true });
    });
    $("clear").addEventListener("click", () => this.go({ app: "", operation: "", user: "", text: "", states: [] }, { isStep: true }));
    $("ranges").addEventListener("click", (event) => {
      const last = event.target.dataset.last;
      if (last) this.go({ last, from: null, to: null }, { isStep: true });
    });
    $("earlier").addEventListener("click", () => this.shift(-0.5, 1));
    $("later").addEventListener("click", () => this.shift(0.5, 1));
    $("wider").addEventListener("click", () => this.shift(0, 2));
    $("closer").addEventListener("click", () => this.shift(0, 0.5));
    $("range").addEventListener("submit", (event) => {
      event.preventDefault();
      const from = this.zone.fromInput($("from").value);
      const to = this.zone.fromInput($("to").value);
      const isRange = from !== null && to !== null && from < to;
      $("to").setCustomValidity(isRange ? "" : "The end must be later than the beginning");
      if (isRange) this.go({ ...withRange(this.view, from, to, Infinity) }, { isStep: true });
      else $("to").reportValidity();
    });
    $("range").addEventListener("input", () => $("to").setCustomValidity(""));
    $("table").tHead.addEventListener("click", (event) => {
      const key = event.target.closest("button[data-sort]")?.dataset.sort;
      // Down, up, and as it was.
      if (key) this.go({ sort: this.view.sort === `-${key}` ? key : this.view.sort === key ? "" : `-${key}` }, { isStep: true });
    });
    for (const format of ["csv", "json"]) $(format).addEventListener("click", () => save(this.screen.file(format)));
    $("tables").addEventListener("click", (event) => {
      const table = event.target.dataset.table;
      if (table) this.go({ table, sort: "" }, { isStep: true });
    });
    $("more").addEventListener("click", () => {
      const at = $("table").tBodies[0].rows.length;
      this.rows += ROWS;
      this.draw();
      requestAnimationFrame(() => $("table").tBodies[0].rows[at]?.querySelector("a, button")?.focus());
    });
    $("theme").addEventListener("click", () => {
      const theme = THEMES[(THEMES.indexOf(document.documentElement.dataset.theme ?? "system") + 1) % THEMES.length];
      if (theme === "system") delete document.documentElement.dataset.theme;
      else document.documentElement.dataset.theme = theme;
      try {
        if (theme === "system") localStorage.removeItem("theme");
        else localStorage.setItem("theme", theme);
      } catch {
        // for as long as the page is open, then
      }
      this.controls();
      this.timeline.redraw();
    });
    // On a phone the tasks come first; filters and timeline are for those who look further. They are moved, not only
    // painted there: the focus goes in the order that is seen.
    const phone = matchMedia("(max-width: 40rem)");
    const place = () => $("tasks").parentElement.insertBefore($("tasks"), phone.matches ? $("filters") : null);
    phone.addEventListener("change", place);
    place();
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.timeline.redraw());
  }

  /** Draw all of it, in the next frame. */
  draw() {
    if (!this.status) return;
    const { view, status, zone, data, task, lit, rows } = this;
    this.screen.show({ view, status, zone, data, task, lit, rows, isKnown: this.known !== null, now: () => this.now() });
  }

  /** What changes by itself: the clocks, and where now is. */
  second() {
    // Clocks that went on without the exporter would tell more than is known.
    if (!this.status || document.hidden || this.error) return;
    this.screen.tick();
    if (isLive(this.view)) this.rangeInputs();
  }

  /** Let the controls say what the view is. */
  controls() {
    const { view } = this;
    say($("theme"), `Theme: ${document.documentElement.dataset.theme ?? "system"}`);
    options($("app"), this.status?.apps ?? [], view.app);
    options($("operation"), this.status?.operations ?? [], view.operation);
    for (const name of ["text", "user"]) if ($(name).value.trim() !== view[name]) $(name).value = view[name];
    for (const box of $("states").querySelectorAll("input")) box.checked = view.states.includes(box.value);
    for (const button of $("ranges").children) button.setAttribute("aria-pressed", String(isLive(view) && spanMilliseconds(button.dataset.last) === spanMilliseconds(view.last)));
    for (const button of $("tables").children) button.setAttribute("aria-pressed", String(button.dataset.table === view.table));
    $("clear").disabled = !isFiltered(view);
    this.rangeInputs();
  }

  rangeInputs() {
    if ($("range").contains(document.activeElement)) return;
    const now = this.now();
    const { since, until } = rangeOf(this.view, now);
    $("from").value = this.zone.toInput(since);
    $("to").value = this.zone.toInput(isLive(this.view) ? now : until);
  }

  /** Say new failures to those who do not see the list; those of before are no news. */
  announce() {
    const { tasks } = this.data.failures;
    if (this.known) {
      const fresh = tasks.filter((task) => !this.known.has(task.id) && task.end > this.opened_at);
      if (fresh.length) say($("announce"), fresh.length === 1 ? `New failure: ${told(fresh[0], this.zone, this.now())}` : `${fresh.length} new failures`);
    } else {
      this.known = new Set();
      this.opened_at = this.now() - 60000;
    }
    for (const task of tasks) this.known.add(task.id);
  }
}

/** Let the browser save a file. */
function save({ name, type, text }) {
  const link = h("a", {});
  link.href = URL.createObjectURL(new Blob([text], { type }));
  link.download = `wok-${name}`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

/** The requests of a task's time: those the API lists, and those after them up to its end. */
function lit(task) {
  const requests = task.meanwhile ?? [];
  const listed = new Set(requests.map(({ ordinal }) => ordinal));
  const last = requests.at(-1)?.ordinal ?? Infinity;
  const isMore = task.concurrent > requests.length;
  const own = task.request?.ordinal ?? 0;
  const end = task.end ?? Infinity;
  return {
    requests,
    has: ({ ordinal, time: at }) => listed.has(ordinal) || (isMore && ordinal > last && at <= end && ordinal !== own),
  };
}

function options(select, names, chosen) {
  const all = chosen && !names.includes(chosen) ? [...names, chosen] : names;
  const version = JSON.stringify(all);
  if (select.dataset.version !== version) {
    select.dataset.version = version;
    const given = all.map((name) => {
      const option = h("option", {}, shortened(name, 60));
      option.value = name;
      return option;
    });
    select.replaceChildren(select.options[0], ...given);
  }
  select.value = chosen;
}

new Page().start();

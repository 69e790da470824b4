// Draws the page from the data: the two lists, the timeline, the table, the open task. Nothing is fetched here and
// nothing is decided.

import { FAILURES_MAX } from "./data.js";
import { fill, h, keyed, pointLinks, say } from "./dom.js";
import { REQUEST_COLUMNS, TASK_COLUMNS, asCsv, bodyRow, headRow, sorted } from "./columns.js";
import { ago, clock, number, plural, spanWords } from "./format.js";
import { failureItem, runningItem } from "./rows.js";
import { isSlow, slowestFirst } from "./tasks.js";
import { formatView, isFiltered, isLive, rangeOf, withRange } from "./view.js";

const USERS_MAX = 100; // that are offered
const READING = "Reading the history…";
const $ = (id) => document.getElementById(id);

export class Screen {
  /** `wentTo(range)` is called when a person asks for another time, `said(text)` with what happened. */
  constructor(timeline, detail, { wentTo, said }) {
    Object.assign(this, { timeline, detail, wentTo, said });
    this.state = null;
    this.held = { tasks: [], requests: [] }; // all there is, in order
    this.isStale = true; // the data has changed since it was put in order
    this.isDue = false;
  }

  /** Show `{view, status, zone, data, task, lit, rows, isKnown, now}` in the next frame. */
  show(state) {
    this.state = state;
    if (this.isDue) return;
    this.isDue = true;
    requestAnimationFrame(() => {
      this.isDue = false;
      this.draw();
    });
  }

  draw() {
    const { view, data } = this.state;
    if (this.isStale || this.states !== String(view.states)) {
      this.held = { tasks: data.tasks(view), requests: data.requestsInOrder() };
      this.states = String(view.states);
      this.isStale = false;
      this.drawUsers();
    }
    this.within();
    this.drawFailures();
    this.drawRunning();
    this.drawTimeline();
    this.drawTable();
    this.drawDetail();
    const keep = formatView({ ...view, task: "" });
    pointLinks((id) => `${keep}${keep === "?" ? "" : "&"}task=${id}`, view.task);
  }

  /** What changes by itself. */
  tick() {
    if (!this.state) return;
    const now = this.state.now();
    for (const element of document.querySelectorAll("[data-ago]")) say(element, ago(now - Number(element.dataset.ago)));
    for (const element of document.querySelectorAll("[data-since]")) say(element, clock(now - Number(element.dataset.since)));
    this.detail.tick(now);
    if (isLive(this.state.view)) this.drawTimeline();
  }

  /** Of what is held, what lies in the range. */
  within() {
    const { since, until } = rangeOf(this.state.view, this.state.now());
    this.tasks = this.held.tasks.filter((task) => task.start < until && (task.state === "running" || (task.end ?? task.start) >= since));
    this.requests = this.held.requests.filter((request) => request.time >= since && request.time < until);
  }

  inWords() {
    const { view } = this.state;
    return isLive(view) ? `in the last ${spanWords(view.last)}` : "in this time";
  }

  /** What a list says that shows nothing. */
  nothing(sentence) {
    const { isKnown, view } = this.state;
    if (!isKnown) return READING;
    if (this.isBlind()) return "No records yet.";
    return isFiltered(view) ? `${sentence} with these filters.` : `${sentence}.`;
  }

  /** Whether nothing has been read, so that nothing can be said to be absent. */
  isBlind() {
    return this.state.status.log.last_record === null && !this.held.tasks.length && !this.held.requests.length;
  }

  drawFailures() {
    const { data, zone } = this.state;
    const { tasks, more } = data.failures;
    const now = this.state.now();
    keyed($("failures"), tasks, (task) => task.id, (task) => zone.short(task.end, now), (task) => failureItem(task, zone, now));
    say($("failures-count"), tasks.length ? `${tasks.length}${more ? "+" : ""} ${this.inWords()}` : "");
    $("failures-card").classList.toggle("bad", tasks.length > 0);
    const rest = more ? `The newest ${FAILURES_MAX}; the table has all of them.` : "";
    say($("failures-note"), tasks.length ? rest : this.nothing(`None ${this.inWords()}`));
  }

  drawRunning() {
    const { data, zone } = this.state;
    const now = this.state.now();
    const version = (task) => JSON.stringify([task.user, task.resource, task.target_uri, task.operation, task.request_message, task.usual, isSlow(task, now)]);
    keyed($("running"), slowestFirst(data.running, now), (task) => task.id, version, (task) => runningItem(task, zone, now));
    say($("running-count"), data.running.length ? number(data.running.length) : "");
    say($("running-note"), data.running.length ? "" : this.nothing("Nothing is running"));
  }

  drawTimeline() {
    const { view, zone, data, task, lit } = this.state;
    const now = this.state.now();
    const { since, until } = rangeOf(view, now);
    this.timeline.show({ ...this.held, since, until, now, zone, isLive: isLive(view), selected: task, marked: task ? lit : null });
    const oldest = this.held.requests.at(-1);
    const isCut = data.isComplete && data.requestsCut && oldest?.time > since;
    say($("timeline-note"), isCut ? `Requests are shown from ${zone.short(oldest.time, now)}. Zoom in to see earlier ones.` : "");
    const empty = $("timeline-empty");
    empty.hidden = this.tasks.length > 0 || this.requests.length > 0;
    if (!empty.hidden) this.drawEmpty(empty, since, until, now);
  }

  drawEmpty(empty, since, until, now) {
    const { view, zone, data, status } = this.state;
    const last = status.log.last_record;
    let sentence = `Nothing ${this.inWords()}.`;
    let isElsewhere = false;
    if (!data.isComplete) sentence = READING;
    else if (isFiltered(view)) sentence = `Nothing ${this.inWords()} matches the filters.`;
    else if (last === null) sentence = status.problems.length ? "No records yet. The problem at the top may be the reason." : "No records yet. Wok writes one for every change.";
    else if (last < since || last > until) {
      sentence += ` The newest record: ${zone.full(last)}.`;
      isElsewhere = true;
    }
    if (empty.dataset.sentence === sentence) return;
    empty.dataset.sentence = sentence;
    fill(empty, sentence);
    if (!isElsewhere) return;
    const button = h("button", { type: "button" }, "Show that time");
    const length = until - since;
    button.addEventListener("click", () => this.wentTo(withRange(view, last - length * 0.9, last + length * 0.1, now)));
    empty.append(button);
  }

  drawTable() {
    const { view, zone, data, status, rows } = this.state;
    const isTasks = view.table === "tasks";
    const columns = isTasks ? TASK_COLUMNS : REQUEST_COLUMNS;
    const items = this.inOrder();
    const table = $("table");
    say($("tasks-title"), isTasks ? "Tasks" : "Requests");
    if (table.dataset.shows !== view.table || this.sort !== view.sort) {
      const focused = table.tHead.contains(document.activeElement) ? document.activeElement.dataset.sort : "";
      if (table.dataset.shows !== view.table) fill(table.tBodies[0]);
      table.dataset.shows = view.table;
      this.sort = view.sort;
      fill(table.tHead, headRow(columns, view.sort));
      if (focused) table.tHead.querySelector(`[data-sort="${focused}"]`)?.focus();
    }
    const now = this.state.now();
    const cells = { zone, now, traceUrl: status.trace_url, said: this.said };
    const shown = items.slice(0, rows);
    if (isTasks) {
      const version = (task) => [task.state, task.end, task.concurrent, task.usual?.p90, isSlow(task, now), zone.short(task.start, now)].join();
      keyed(table.tBodies[0], shown, (task) => task.id, version, (task) => bodyRow(columns, task, cells));
    } else {
      keyed(table.tBodies[0], shown, (request) => request.ordinal, (request) => zone.short(request.time, now), (request) => bodyRow(columns, request, cells));
    }
    for (const id of ["csv", "json"]) $(id).disabled = !items.length;
    const isCut = isTasks ? data.tasksCut : data.requestsCut;
    let note = items.length ? `${number(items.length)} ${this.inWords()}` : "";
    if (!data.isComplete) note = "reading…";
    else if (isCut) note = `the newest ${number(items.length)}: zoom in to see all`;
    say($("table-note"), note);
    const empty = this.isBlind() ? "No records yet." : isFiltered(view) ? `No ${view.table} ${this.inWords()} match the filters.` : `No ${view.table} ${this.inWords()}.`;
    say($("table-empty"), data.isComplete ? empty : READING);
    $("table-empty").hidden = items.length > 0;
    table.hidden = items.length === 0;
    $("more").hidden = items.length <= rows;
    if (data.holds(view, now)) this.tell(`${plural(items.length, view.table.slice(0, -1))} ${this.inWords()}`);
  }

  /** Say how many there are to those who do not see it, once a person has asked for something else. */
  tell(sentence) {
    const { app, operation, user, text, states, table, last } = this.state.view;
    const asked = JSON.stringify([app, operation, user, text, states, table, last]);
    if (this.asked !== undefined && this.asked !== asked) this.said(sentence);
    this.asked = asked;
  }

  /** What the table lists, in its order. */
  inOrder() {
    const { view } = this.state;
    const now = this.state.now();
    if (view.table !== "tasks") return sorted(REQUEST_COLUMNS, this.requests, view.sort, now);
    if (view.sort) return sorted(TASK_COLUMNS, this.tasks, view.sort, now);
    const running = this.tasks.filter(({ state }) => state === "running");
    return [...slowestFirst(running, now), ...this.tasks.filter(({ state }) => state !== "running")];
  }

  /** What the table lists, all of it, as a file: `{name, type, text}`. */
  file(format) {
    const { view } = this.state;
    const items = this.inOrder();
    if (format === "json") return { name: `${view.table}.json`, type: "application/json", text: JSON.stringify(items, null, 1) };
    return { name: `${view.table}.csv`, type: "text/csv", text: asCsv(view.table === "tasks" ? TASK_COLUMNS : REQUEST_COLUMNS, items) };
  }

  drawDetail() {
    const { task, zone, status } = this.state;
    if (task) this.detail.show(task, { zone, now: this.state.now(), traceUrl: status.trace_url });
  }

  /** Offer the users that are in the picture. */
  drawUsers() {
    const users = [...new Set([...this.held.requests, ...this.held.tasks].map(({ user }) => user).filter(Boolean))].sort().slice(0, USERS_MAX);
    const version = JSON.stringify(users);
    if (version === this.usersVersion) return;
    this.usersVersion = version;
    fill($("users"), ...users.map((user) => {
      const option = h("option");
      option.value = user;
      return option;
    }));
  }
}

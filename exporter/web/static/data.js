// The data of the page, and how it is fetched: one time range, with some room on both sides, for one set of filters.
// When the store has committed something, only new items are fetched. The server answers pages, newest first; their
// number is bounded, and the page says when it has not fetched all.

import { OUTCOMES, filtersOf, isLive, rangeOf } from "./view.js";

const TASKS_MAX = 10000;
const REQUESTS_MAX = 10000;
const TASKS_PAGE = 500;
const REQUESTS_PAGE = 2000;
const NEWS_PAGE = 200; // what comes between two polls fits into one page
export const FAILURES_MAX = 50;
const MARGIN = 0.25; // of the range, on both sides: room to move without waiting
const ANSWER_TIMEOUT = 15000; // milliseconds; the server gives up after 10 seconds

/** Get an answer of the API; raises an Error with a sentence. */
export async function get(path, query, signal) {
  const limit = AbortSignal.timeout(ANSWER_TIMEOUT);
  const address = query && String(query) ? `api/${path}?${query}` : `api/${path}`;
  let answer;
  try {
    answer = await fetch(address, { signal: signal ? AbortSignal.any([signal, limit]) : limit });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new Error("The exporter is unreachable", { cause: error });
  }
  let body = null;
  try {
    body = await answer.json();
  } catch {
    // said below
  }
  if (answer.ok && body) return body;
  const error = new Error(typeof body?.error === "string" ? body.error : `The exporter answers with status ${answer.status}`);
  error.status = answer.status;
  throw error;
}

export class Data {
  constructor() {
    this.running = [];
    this.failures = { tasks: [], more: false };
    this.loading = null;
    this.turn = 0; // of asking for news: an answer to an older question is dropped
    this.ended = new Map(); // id -> task
    this.requests = new Map(); // ordinal -> request
    this.filters = null; // for which filters, and
    this.since = this.until = 0; // for which range this is
    this.tasksCut = this.requestsCut = false; // only the newest were taken
    this.isComplete = false;
  }

  /** Whether all that a view shows is here. */
  holds(view, now) {
    const { since, until } = rangeOf(view, now);
    if (!this.isComplete || this.filters !== keyOf(view) || since < this.since) return false;
    if (!isLive(view) && until > this.until) return false;
    const narrower = (until - since) * (1 + 2 * MARGIN) < (this.until - this.since) * 0.8;
    return !((this.tasksCut || this.requestsCut) && narrower);
  }

  /** Fetch all that a view shows; `changed` is called after every page. A later call ends this one. */
  async load(view, now, changed) {
    this.loading?.abort();
    const stop = new AbortController();
    this.loading = stop;
    const { since, until } = rangeOf(view, now);
    const room = (until - since) * MARGIN;
    const range = { since: Math.floor(since - room), until: isLive(view) ? null : Math.ceil(until + room) };
    const isSame = this.filters === keyOf(view);
    this.isComplete = false;
    this.filters = keyOf(view);
    // What is in the picture stays until its place is taken: neither a filter nor a zoom makes the page blink.
    const collect = (name, id) => {
      const found = new Map();
      return [found, (page) => {
        for (const item of page) found.set(item[id], item);
        if (isSame) for (const item of page) this[name].set(item[id], item);
        else this[name] = found;
        changed();
      }];
    };
    try {
      await this.news(view, now, stop.signal, changed);
      const [tasks, addTasks] = collect("ended", "id");
      const query = endedQuery(view, range);
      if (query === null) addTasks([]);
      this.tasksCut = query !== null && await this.pages("tasks", query, TASKS_PAGE, TASKS_MAX, stop.signal, addTasks);
      const [requests, addRequests] = collect("requests", "ordinal");
      this.requestsCut = await this.pages("requests", requestQuery(view, range), REQUESTS_PAGE, REQUESTS_MAX, stop.signal, addRequests);
      this.ended = tasks;
      this.requests = requests;
      this.since = range.since;
      this.until = range.until ?? now;
      this.isComplete = true;
    } finally {
      if (this.loading === stop) this.loading = null;
    }
    changed();
  }

  /** Fetch what is new since the last time: what runs, what failed, and what a held range has got. */
  async news(view, now, signal, changed) {
    const turn = (this.turn += 1);
    const { since, until } = rangeOf(view, now);
    const filters = filtersOf(view);
    const running = new URLSearchParams(filters);
    running.set("state", "running");
    running.set("limit", String(TASKS_PAGE));
    const ran = await get("tasks", running, signal);
    if (turn !== this.turn) return;
    this.running = ran.tasks;
    const failures = new URLSearchParams(filters);
    failures.set("state", "ended");
    failures.append("outcome", "failure");
    failures.append("outcome", "lost");
    failures.set("since", String(Math.floor(since)));
    if (!isLive(view)) failures.set("until", String(Math.ceil(until)));
    const tasks = [];
    const more = await this.pages("tasks", failures, FAILURES_MAX, FAILURES_MAX, signal, (page) => tasks.push(...page));
    if (turn !== this.turn) return;
    this.failures = { tasks: tasks.slice(0, FAILURES_MAX), more };
    if (this.isComplete && this.filters === keyOf(view)) {
      const range = { since: Math.floor(this.since), until: isLive(view) ? null : Math.ceil(this.until) };
      const query = endedQuery(view, range);
      if (query) await this.newest("tasks", query, this.ended, "id", signal, TASKS_MAX);
      await this.newest("requests", requestQuery(view, range), this.requests, "ordinal", signal, REQUESTS_MAX);
      if (isLive(view)) this.until = Math.max(this.until, now);
    }
    changed();
  }

  /** Fetch pages until one has nothing new. */
  async newest(path, query, known, id, signal, most) {
    query.set("limit", String(NEWS_PAGE));
    for (let taken = 0; taken < most; taken += NEWS_PAGE) {
      const page = await get(path, query, signal);
      const isNew = page[path].filter((item) => !known.has(item[id]));
      for (const item of isNew) known.set(item[id], item);
      if (isNew.length < page[path].length || !page[path].length || page.before === null) break;
      query.set("before", page.before);
    }
    // A page that stands open for weeks does not grow: the oldest leave.
    if (known.size <= most * 1.1) return;
    const order = path === "tasks" ? (task) => task.end ?? task.start : (request) => request.ordinal;
    const kept = [...known.values()].sort((a, b) => order(b) - order(a)).slice(0, most);
    known.clear();
    for (const item of kept) known.set(item[id], item);
    if (path === "tasks") this.tasksCut = true; else this.requestsCut = true;
  }

  /** Fetch pages to the end, or to `most`; true when there is more. A search for a text may give empty pages. */
  async pages(path, query, size, most, signal, add) {
    query.set("limit", String(size));
    for (let taken = 0; ;) {
      const page = await get(path, query, signal);
      taken += page[path].length;
      add(page[path]);
      if (page.before === null) return false;
      if (taken >= most) return true;
      query.set("before", page.before);
    }
  }

  /** All tasks that are held and wanted, in the order of the table: running ones first, then the newest. */
  tasks(view) {
    const isWanted = (task) => !view.states.length || view.states.includes(task.state);
    const running = this.running.filter((task) => isWanted(task) && !this.ended.has(task.id));
    const ended = [...this.ended.values()].filter(isWanted);
    ended.sort((a, b) => (b.end ?? b.start) - (a.end ?? a.start) || b.start - a.start);
    return [...running, ...ended];
  }

  /** All requests that are held, the newest first. */
  requestsInOrder() {
    return [...this.requests.values()].sort((a, b) => b.ordinal - a.ordinal);
  }
}

const keyOf = (view) => `${filtersOf(view)}&${view.states}`;

function ranged(query, { since, until }) {
  query.set("since", String(since));
  if (until !== null) query.set("until", String(until));
  return query;
}

const requestQuery = (view, range) => ranged(filtersOf(view), range);

/** What ended tasks are asked for; null when the view wants running ones alone. */
function endedQuery(view, range) {
  const query = ranged(filtersOf(view), range);
  query.set("state", "ended");
  const outcomes = view.states.filter((state) => state in OUTCOMES).map((state) => OUTCOMES[state]);
  if (view.states.length && !outcomes.length) return null;
  for (const outcome of outcomes) query.append("outcome", outcome);
  return query;
}

// The columns of the two tables, each in one place: its title, its cell, what it is sorted by, and its value in an
// exported file. `kind` is the class of its cells: `num` is right-aligned, `wide` and
// `wider` are hidden where the table has little room.

import { badge, copyButton, h, taskLink, time, traceLink } from "./dom.js";
import { ago, clock, duration, iso, number, shortened } from "./format.js";
import { endOf, isBad, isSlow, nameOf, reason, timesUsual, whatOf } from "./tasks.js";

const NAME = 60; // characters; longer ones are nobody's, or somebody's joke
const TEXT = 120;
const SENTENCE = 200;

/** A relative time: the page looks for `data-ago` every second. */
function relative(ms, now) {
  const element = h("span", { class: "sub" }, ago(now - ms));
  element.dataset.ago = String(ms);
  return element;
}

/** A clock that goes on by itself: the page looks for `data-since` every second. */
export function ticking(element, task, now) {
  element.textContent = clock(now - task.start);
  element.dataset.since = String(task.start);
  return element;
}

/** How often a task has taken its usual time, where that says something. */
export function usualNote(task, now) {
  const times = timesUsual(task, now);
  if (times === null || (times < 1.5 && !isSlow(task, now))) return null;
  return h("span", { class: isSlow(task, now) ? "sub slow" : "sub" }, `${times.toFixed(1)}× usual`);
}

const when = (ms, { zone, now }) => [time(ms, zone.short(ms, now)), relative(ms, now)];

export const TASK_COLUMNS = [
  {
    key: "state", title: "State", kind: "",
    cell: (task) => badge(task.state), by: (task) => task.state, value: (task) => task.state,
  },
  {
    key: "started", title: "Started", kind: "when",
    cell: (task, view) => when(task.start, view), by: (task) => task.start, value: (task) => iso(task.start),
  },
  {
    key: "ended", title: "Ended", kind: "when wider",
    cell: (task, view) => (endOf(task) === null ? "–" : when(task.end, view)), by: (task) => endOf(task) ?? Infinity, value: (task) => iso(endOf(task)),
  },
  {
    key: "took", title: "Took", kind: "num",
    cell: (task, { now }) => [task.state === "running" ? ticking(h("span", {}), task, now) : duration(task.duration), usualNote(task, now)],
    by: (task, now) => (task.state === "running" ? now - task.start : task.duration ?? -1), value: (task) => (task.duration === null ? "" : task.duration / 1000),
  },
  {
    key: "task", title: "Task", kind: "main",
    cell: (task) => [
      taskLink(task.id, { class: "what" }, nameOf(task)),
      h("span", { class: "sub", title: whatOf(task) }, shortened(whatOf(task), TEXT)),
      isBad(task) ? h("span", { class: "error" }, shortened(reason(task), SENTENCE)) : null,
    ],
    by: (task) => task.operation, value: (task) => task.operation,
  },
  { key: "resource", title: "Resource", value: (task) => task.resource || task.target_uri },
  { key: "reason", title: "Reason", value: (task) => (isBad(task) ? reason(task) : "") },
  {
    key: "app", title: "Application", kind: "wide",
    cell: (task) => shortened(task.app, NAME), by: (task) => task.app, value: (task) => task.app,
  },
  {
    key: "user", title: "User", kind: "wide",
    cell: (task) => shortened(task.user, NAME), by: (task) => task.user, value: (task) => task.user,
  },
  {
    key: "meanwhile", title: "Meanwhile", kind: "num wider",
    cell: (task) => number(task.concurrent), by: (task) => task.concurrent, value: (task) => task.concurrent,
  },
  { key: "correlation", title: "Correlation", value: (task) => task.correlation },
  { key: "trace", title: "Trace", value: (task) => task.trace_id },
];

export const REQUEST_COLUMNS = [
  {
    key: "time", title: "Time", kind: "when",
    cell: (request, view) => when(request.time, view), by: (request) => request.time, value: (request) => iso(request.time),
  },
  {
    key: "request", title: "Request", kind: "main",
    cell: (request) => [
      h("span", { class: "what" }, `${request.method} ${shortened(request.operation, NAME)}`),
      h("span", { class: "sub", title: request.message }, shortened(request.message, SENTENCE)),
    ],
    by: (request) => request.operation, value: (request) => `${request.method} ${request.operation}`,
  },
  { key: "message", title: "Message", value: (request) => request.message },
  {
    key: "app", title: "Application", kind: "wide",
    cell: (request) => shortened(request.app, NAME), by: (request) => request.app, value: (request) => request.app,
  },
  {
    key: "user", title: "User", kind: "",
    cell: (request) => shortened(request.user, NAME), by: (request) => request.user, value: (request) => request.user,
  },
  {
    key: "address", title: "Address", kind: "wide",
    cell: (request) => shortened(request.address, NAME), by: (request) => request.address, value: (request) => request.address,
  },
  {
    key: "status", title: "Status", kind: "num",
    cell: (request) => h("span", { class: request.status >= 400 ? "refused" : "" }, request.status === null ? "–" : String(request.status)),
    by: (request) => request.status ?? 0, value: (request) => request.status ?? "",
  },
  {
    key: "trace", title: "Trace", kind: "wider",
    cell: (request, { traceUrl, said }) => {
      const id = request.trace_id;
      return h("span", { class: "id" }, h("code", { title: id }, id.slice(0, 8)), copyButton(id, "the trace id", said), traceLink(traceUrl, id));
    },
    value: (request) => request.trace_id,
  },
];

/** The columns of a table that are shown; the others are for exported files. */
const shownOf = (columns) => columns.filter(({ cell }) => cell);

/** The head of a table; a title that sorts is a button, `sort` is the key it is sorted by, `-key` downwards. */
export function headRow(columns, sort) {
  return h("tr", { role: "row" }, ...shownOf(columns).map(({ key, title, kind, by }) => {
    const cell = h("th", { scope: "col", role: "columnheader", class: `c-${key} ${kind}` });
    if (!by) { cell.append(title); return cell; }
    const is = sort === key ? "ascending" : sort === `-${key}` ? "descending" : "none";
    const mark = { ascending: " ▴", descending: " ▾", none: "" }[is];
    const button = h("button", { type: "button", class: "sort" }, title, mark ? h("span", { "aria-hidden": "true" }, mark) : null);
    button.dataset.sort = key;
    cell.setAttribute("aria-sort", is);
    cell.append(button);
    return cell;
  }));
}

/** The row of a task or request; `view` is `{zone, now, traceUrl, said}`. */
export const bodyRow = (columns, item, view) =>
  h("tr", { role: "row" }, ...shownOf(columns).map(({ key, kind, cell }) => h("td", { role: "cell", class: `c-${key} ${kind}` }, cell(item, view))));

/** The items in the order of a column; equal ones stay as they are. */
export function sorted(columns, items, sort, now) {
  const column = columns.find(({ key, by }) => by && key === sort.replace(/^-/, ""));
  if (!column) return items;
  const order = sort.startsWith("-") ? -1 : 1;
  return [...items].sort((one, other) => {
    const [a, b] = [column.by(one, now), column.by(other, now)];
    return a < b ? -order : a > b ? order : 0;
  });
}

/** A file for spreadsheets. A text that one would take for a formula gets an apostrophe: anybody may have typed it. */
export function asCsv(columns, items) {
  const field = (value) => {
    const text = typeof value === "string" && /^[=+\-@\t\r]/.test(value) ? `'${value}` : String(value);
    return `"${text.replaceAll('"', '""')}"`;
  };
  return [columns.map(({ title }) => field(title)), ...items.map((item) => columns.map(({ value }) => field(value(item))))]
    .map((row) => row.join(",")).join("\r\n");
}

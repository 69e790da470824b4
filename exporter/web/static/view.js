// The view: the time range, the filters, the order, the open task. The address has all of it, so that a link shows
// the same and the back button works.

import { iso, span, spanMilliseconds } from "./format.js";

export const STATES = ["running", "failed", "lost", "unknown", "done"];
export const OUTCOMES = { failed: "failure", lost: "lost", unknown: "unknown", done: "success" };
const LAST = "6h";
const SPAN_MIN = 10 * 1000; // the log has whole seconds
const SPAN_MAX = 400 * 86400 * 1000;
const TEXT_MAX = 200;

/** The view of an address' query; what is not understood is left out. */
export function parseView(search) {
  const query = new URLSearchParams(search);
  const text = (name) => (query.get(name) ?? "").slice(0, TEXT_MAX);
  const moment = (name) => {
    const value = Date.parse(query.get(name) ?? "");
    return Number.isFinite(value) ? value : null;
  };
  const view = {
    last: LAST, from: moment("from"), to: moment("to"),
    app: text("app"), operation: text("operation"), user: text("user"), text: text("text"),
    states: STATES.filter((state) => query.getAll("state").includes(state)),
    table: query.get("table") === "requests" ? "requests" : "tasks",
    sort: /^-?[a-z]{1,20}$/.test(query.get("sort") ?? "") ? query.get("sort") : "",
    task: /^[0-9a-f]{48}$/.test(query.get("task") ?? "") ? query.get("task") : "",
  };
  if (view.from === null || view.to === null || view.to - view.from < SPAN_MIN || view.to - view.from > SPAN_MAX) {
    view.from = view.to = null;
  }
  const asked = spanMilliseconds(query.get("last") ?? "");
  if (asked && asked >= SPAN_MIN && asked <= SPAN_MAX) view.last = query.get("last");
  if (view.from !== null) view.last = "";
  return view;
}

/** The query of a view, beginning with "?"; what is as usual is left out. */
export function formatView(view) {
  const query = new URLSearchParams();
  if (view.from !== null) {
    query.set("from", iso(view.from).replace(/\.\d+Z$/, "Z"));
    query.set("to", iso(view.to).replace(/\.\d+Z$/, "Z"));
  } else if (view.last !== LAST) query.set("last", view.last);
  for (const name of ["app", "operation", "user", "text"]) if (view[name]) query.set(name, view[name]);
  for (const state of view.states) query.append("state", state);
  if (view.table !== "tasks") query.set("table", view.table);
  if (view.sort) query.set("sort", view.sort);
  if (view.task) query.set("task", view.task);
  return `?${query}`;
}

export const isLive = (view) => view.from === null;

/** The range that is shown; a live one ends a little after now, so that what runs has an end to see. */
export function rangeOf(view, now) {
  if (!isLive(view)) return { since: view.from, until: view.to };
  const length = spanMilliseconds(view.last);
  return { since: now - length, until: now + length * 0.03 };
}

/** The view with another range. One that reaches past now follows it from then on. */
export function withRange(view, since, until, now) {
  const length = Math.min(SPAN_MAX, Math.max(SPAN_MIN, until - since));
  if (until >= now) return { ...view, from: null, to: null, last: span(Math.min(SPAN_MAX, Math.max(SPAN_MIN, length / 1.03))) };
  const from = Math.round(since / 1000) * 1000;
  return { ...view, from, to: from + Math.round(length / 1000) * 1000, last: "" };
}

/** What the API is asked for: the filters that tasks and requests have in common. */
export function filtersOf(view) {
  const query = new URLSearchParams();
  for (const name of ["app", "operation", "user", "text"]) if (view[name]) query.set(name, view[name]);
  return query;
}

export const isFiltered = (view) => Boolean(view.app || view.operation || view.user || view.text || view.states.length);

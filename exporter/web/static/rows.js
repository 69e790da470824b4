// One task or one request as a line of a list, a row of a table, a tooltip, a sentence for a screen reader.

import { badge, copyButton, fill, h, taskLink, time, traceLink } from "./dom.js";
import { clock, duration, number, shortened } from "./format.js";

const NAME = 60; // characters; longer ones are nobody's, or somebody's joke
const URI = 120;
const SENTENCE = 200;

export const TASK_COLUMNS = [["State", ""], ["Started", ""], ["Took", "num"], ["Task", ""], ["Application", "wide"], ["User", "wide"], ["Meanwhile", "num wide"]];
export const REQUEST_COLUMNS = [["When", ""], ["Request", ""], ["Application", "wide"], ["User", ""], ["From", "wide"], ["Answer", "num"], ["Trace", "wide"]];

const cell = (kind, ...children) => h("td", { role: "cell", class: kind }, ...children);
const nameOf = (task) => shortened(task.operation || "task", NAME);
const together = (...texts) => texts.filter(Boolean).map((text) => shortened(text, URI)).join(", ");

/** The error in plain words, its code once. */
export function reason(task) {
  const why = task.why || (task.state === "failed" ? "The log does not say why." : "");
  return !task.error_code || why.startsWith(task.error_code) ? why : `${task.error_code}: ${why}`;
}

/** A clock that goes on by itself: the page looks for `data-since` every second. */
function ticking(element, task, now) {
  element.textContent = clock(now - task.start);
  element.dataset.since = String(task.start);
  return element;
}

export const columnRow = (columns) =>
  h("tr", { role: "row" }, ...columns.map(([name, kind]) => h("th", { scope: "col", role: "columnheader", class: kind }, name)));

export function failureItem(task, zone, now) {
  return h("li", {}, taskLink(task.id, {},
    h("span", { class: "row" }, badge(task.state), h("strong", {}, nameOf(task)), time(task.end, zone.short(task.end, now))),
    h("span", { class: "error" }, shortened(reason(task), SENTENCE)),
    h("span", { class: "sub" }, together(task.target_uri, task.user && `by ${task.user}`))));
}

export function runningItem(task, zone, now) {
  return h("li", {}, taskLink(task.id, {},
    h("span", { class: "row" }, badge("running"), h("strong", {}, nameOf(task)), ticking(h("span", { class: "clock" }), task, now)),
    h("span", { class: "sub" }, together(task.target_uri, task.user && `by ${task.user}`, `since ${zone.short(task.start, now)}`))));
}

export function taskRow(task, zone, now) {
  const isBad = task.state === "failed" || task.state === "lost";
  return h("tr", { role: "row" },
    cell("", badge(task.state)),
    cell("when", time(task.start, zone.short(task.start, now))),
    task.state === "running" ? ticking(cell("num"), task, now) : cell("num", duration(task.duration)),
    cell("main",
      taskLink(task.id, { class: "what" }, nameOf(task)),
      h("span", { class: "sub", title: task.target_uri }, shortened(task.target_uri, URI)),
      isBad ? h("span", { class: "error" }, shortened(reason(task), SENTENCE)) : null),
    cell("wide", shortened(task.app, NAME)),
    cell("wide", shortened(task.user, NAME)),
    cell("num wide", number(task.concurrent)));
}

/** The row of a request; `said` is told when its trace id has been copied. */
export function requestRow(request, zone, now, traceUrl, said) {
  const id = request.trace_id;
  return h("tr", { role: "row" },
    cell("when", time(request.time, zone.short(request.time, now))),
    cell("main",
      h("span", { class: "what" }, `${request.method} ${shortened(request.operation, NAME)}`),
      h("span", { class: "sub", title: request.message }, shortened(request.message, SENTENCE))),
    cell("wide", shortened(request.app, NAME)),
    cell("", shortened(request.user, NAME)),
    cell("wide", shortened(request.address, NAME)),
    cell(request.status >= 400 ? "num refused" : "num", request.status === null ? "–" : String(request.status)),
    cell("wide", h("span", { class: "id" }, h("code", { title: id }, id.slice(0, 8)), copyButton(id, "the trace id", said), traceLink(traceUrl, id))));
}

/** Fill the tooltip of a task. */
export function describe(tip, task, zone, now) {
  const took = task.state === "running" ? clock(now - task.start) : duration(task.duration);
  fill(tip,
    h("span", { class: "row" }, badge(task.state), h("strong", {}, nameOf(task)), h("span", { class: "clock" }, took)),
    h("span", { class: "sub" }, shortened(task.target_uri, URI)),
    h("span", { class: "sub" }, together(zone.short(task.start, now), task.user)),
    task.why ? h("span", { class: "error" }, shortened(reason(task), SENTENCE)) : null);
}

/** A task as a sentence. */
export function told(task, zone, now) {
  let took = "";
  if (task.state === "running") took = ` for ${duration(now - task.start)}`;
  else if (task.duration !== null) took = ` after ${duration(task.duration)}`;
  return together(`${task.app} ${task.operation}`, task.target_uri, `${task.state}${took}`, `started ${zone.short(task.start, now)}`, task.user && `by ${task.user}`, task.state === "failed" ? reason(task) : "");
}

// One task as an item of a list, a tooltip, or a sentence for a screen reader. Tables: see columns.js.

import { ticking, usualNote } from "./columns.js";
import { badge, fill, h, taskLink, time } from "./dom.js";
import { ago, clock, duration, shortened } from "./format.js";
import { nameOf, reason, whatOf } from "./tasks.js";

const TEXT = 120;
const SENTENCE = 200;

const together = (...texts) => texts.filter(Boolean).map((text) => shortened(text, TEXT)).join(", ");

export function failureItem(task, zone, now) {
  const old = h("span", {}, ago(now - task.end));
  old.dataset.ago = String(task.end);
  return h("li", {}, taskLink(task.id, {},
    h("span", { class: "row" }, badge(task.state), h("strong", {}, nameOf(task)), h("span", {}, time(task.end, zone.short(task.end, now)), " · ", old)),
    h("span", { class: "error" }, shortened(reason(task), SENTENCE)),
    h("span", { class: "sub" }, together(whatOf(task), task.user && `by ${task.user}`))));
}

export function runningItem(task, zone, now) {
  return h("li", {}, taskLink(task.id, {},
    h("span", { class: "row" }, badge("running"), h("strong", {}, nameOf(task)), usualNote(task, now), ticking(h("span", { class: "clock" }), task, now)),
    h("span", { class: "sub" }, together(whatOf(task), task.user && `by ${task.user}`, `since ${zone.short(task.start, now)}`))));
}

/** Fill the tooltip of a task. */
export function describe(tip, task, zone, now) {
  const took = task.state === "running" ? clock(now - task.start) : duration(task.duration);
  fill(tip,
    h("span", { class: "row" }, badge(task.state), h("strong", {}, nameOf(task)), h("span", { class: "clock" }, took)),
    h("span", { class: "sub" }, shortened(whatOf(task), TEXT)),
    h("span", { class: "sub" }, together(zone.short(task.start, now), task.user)),
    task.why ? h("span", { class: "error" }, shortened(reason(task), SENTENCE)) : null);
}

/** A task as a sentence. */
export function told(task, zone, now) {
  let took = "";
  if (task.state === "running") took = ` for ${duration(now - task.start)}`;
  else if (task.duration !== null) took = ` after ${duration(task.duration)}`;
  return together(`${task.app} ${task.operation}`, whatOf(task), `${task.state}${took}`, `started ${zone.short(task.start, now)}`, task.user && `by ${task.user}`, task.state === "failed" ? reason(task) : "");
}

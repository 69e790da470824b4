// What a task is in words: its name, what it works on, why it failed, and whether it takes long.

import { shortened } from "./format.js";

const NAME = 60;

export const nameOf = (task) => shortened(task.operation || "task", NAME);

export const isBad = (task) => task.state === "failed" || task.state === "lost";

/** When a task ended, null while it runs and where that is unknown. */
export const endOf = (task) => (task.state === "running" || task.state === "unknown" ? null : task.end);

/** What it works on, in words, else the path of its resource, else the sentence of its request. */
export const whatOf = (task) => task.resource || task.target_uri || task.request_message || "";

/** The error in plain words, its code once. */
export function reason(task) {
  const why = task.why || (task.state === "failed" ? "The log gives no reason." : "");
  const kind = task.error_code || task.exception;
  return !kind || why.startsWith(kind) ? why : `${kind}: ${why}`;
}

const tookOf = (task, now) => (task.state === "running" ? now - task.start : task.duration);

/** How many times the usual a task has taken, null where that is unknown or shorter than the log can tell. */
export function timesUsual(task, now) {
  const took = tookOf(task, now);
  return took === null || !task.usual || task.usual.median < 1000 ? null : took / task.usual.median;
}

/** Whether it takes longer than nine of ten of its kind. */
export const isSlow = (task, now) => timesUsual(task, now) !== null && tookOf(task, now) > Math.max(task.usual.p90, task.usual.median * 1.1);

/** Running tasks, those first that take longest for their kind. */
export const slowestFirst = (tasks, now) =>
  [...tasks].sort((one, other) => (isSlow(other, now) ? timesUsual(other, now) : 0) - (isSlow(one, now) ? timesUsual(one, now) : 0));

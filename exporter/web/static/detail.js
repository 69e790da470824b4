// One task: what it is, why it failed, whether it takes long, who requested it, and the other requests meanwhile.

import { badge, copyButton, fill, h, keyed, say, time, traceLink } from "./dom.js";
import { clock, duration, number, plural, shortened } from "./format.js";
import { reason, whatOf } from "./tasks.js";

const GRADES = {
  exact: "Only this request can have started the task.",
  likely: "This request most likely started the task; the log does not prove it.",
  ambiguous: "Several requests may have started the task.",
  none: "The log shows no request that started this task.",
};
const SOME_MAX = 20; // requests that are shown at once; the others on demand

export class Detail {
  constructor(panel, { closed, zoomed, said }) {
    this.panel = panel;
    this.said = said;
    this.zoomed = zoomed;
    this.task = null;
    this.version = "";
    panel.querySelector(".close").addEventListener("click", closed);
    panel.addEventListener("keydown", (event) => { if (event.key === "Escape") { event.stopPropagation(); closed(); } });
    this.title = panel.querySelector("h2");
    this.body = panel.querySelector(".detail-body");
  }

  hide() {
    this.task = null;
    this.version = "";
    this.panel.hidden = true;
    fill(this.body);
  }

  wait() {
    this.task = null;
    this.version = "";
    this.panel.hidden = false;
    say(this.title, "Task");
    fill(this.body, h("p", { class: "note" }, "Reading the task…"));
  }

  fail(sentence) {
    this.version = "";
    fill(this.body, h("p", { class: "note" }, sentence));
  }

  focus() {
    this.title.focus({ preventScroll: true });
  }

  /** Show a task with `zone`, `now` and the template of its trace's address. */
  show(task, { zone, now, traceUrl }) {
    this.panel.hidden = false;
    const version = JSON.stringify([task, zone.name, traceUrl]);
    const isSame = version === this.version;
    this.task = task;
    this.version = version;
    if (isSame) return;
    const isOther = !this.title.textContent.startsWith(task.operation);
    say(this.title, task.operation || "Task");
    this.took = null;
    const parts = [
      h("p", { class: "lead" }, badge(task.state), " ", this.sentence(task)),
      whatOf(task) ? h("p", { class: "resource" }, whatOf(task)) : null,
      task.why || task.error_code ? h("div", { class: "why", "data-state": task.state }, h("h3", {}, "Why"), h("p", {}, reason(task)),
        task.stack ? h("details", {}, h("summary", {}, "Stack"), h("pre", {}, task.stack)) : null) : null,
      this.usual(task),
      this.facts(task, zone, now),
      this.request(task, zone, now),
      this.ids(task, traceUrl),
      this.meanwhile(task, zone, now),
    ];
    fill(this.body, ...parts);
    if (isOther) this.panel.scrollTop = 0;
    this.tick(now);
  }

  /** Let the clock of a running task go on. */
  tick(now) {
    if (this.task?.state === "running" && this.took) say(this.took, clock(now - this.task.start));
  }

  sentence(task) {
    if (task.state === "running") {
      this.took = h("span", { class: "clock" });
      return h("span", {}, "for ", this.took);
    }
    if (task.state === "unknown") return "The log does not show its end.";
    return task.duration === null ? "The log does not show its start." : `after ${duration(task.duration)}`;
  }

  usual(task) {
    const usual = task.usual;
    if (!usual?.count) return task.state === "unknown" ? null : h("p", { class: "note" }, `No ${task.operation || "such"} task has succeeded yet, so there is no usual duration.`);
    const took = task.duration;
    const most = Math.max(usual.p90, usual.median, took ?? 0, 1);
    const row = (name, ms, kind) => {
      const fillBar = h("span", { class: `bar ${kind}` });
      fillBar.style.width = `${Math.max(0.5, (ms / most) * 100)}%`;
      return h("div", { class: "scale" }, h("span", {}, name), h("span", { class: "track", "aria-hidden": "true" }, fillBar), h("span", { class: "value" }, duration(ms)));
    };
    return h("section", {}, h("h3", {}, "Compared with usual"),
      h("p", {}, compared(task, usual)),
      took === null ? null : row("This one", took, "this"),
      row("Median", usual.median, "usual"),
      row("9 of 10", usual.p90, "usual"));
  }

  facts(task, zone, now) {
    const show = h("button", { type: "button", class: "quiet" }, "Show on the timeline");
    show.addEventListener("click", () => this.zoomed(this.task));
    return h("section", {}, h("h3", {}, "When"), list(
      ["Started", time(task.start, zone.full(task.start))],
      task.end !== null && task.state !== "unknown" ? ["Ended", time(task.end, zone.full(task.end))] : null,
      task.state === "running" && now < task.start ? ["Clock", "The log's time is ahead of the exporter's clock. Set `timezone`."] : null,
    ), show);
  }

  request(task, zone, now) {
    const request = task.request;
    const grade = GRADES[Object.hasOwn(GRADES, task.correlation) ? task.correlation : "none"];
    if (!request) return h("section", {}, h("h3", {}, "Request"), h("p", { class: "note" }, GRADES.none));
    return h("section", {}, h("h3", {}, "Request"), request.message ? h("p", {}, request.message) : null, list(
      ["User", request.user || "not in the log"],
      ["Address", request.address || "not in the log"],
      ["Time", time(request.time, zone.short(request.time, now))],
      ["Request", `${request.method} ${request.app} ${request.operation}`],
      ["Status", request.status === null ? "not in the log" : String(request.status)],
      request.record_id ? ["Record", h("code", {}, request.record_id)] : null,
    ), h("p", { class: "note" }, grade, this.choice(task)), this.candidates(task, zone, now));
  }

  /** Which of several requests this is. */
  choice(task) {
    const others = task.candidates ?? [];
    if (task.correlation !== "ambiguous" || !others.length) return "";
    const isNewest = others.every(({ ordinal }) => ordinal < task.request.ordinal);
    return isNewest ? " This is the newest of them." : " This one is next to the start of the task.";
  }

  candidates(task, zone, now) {
    const others = task.candidates ?? [];
    if (!others.length) return null;
    const rows = others.map((request) => requestLine(request, zone, now));
    return h("div", {}, h("h3", {}, "Other candidates"), h("table", { class: "meanwhile candidates" }, requestHead(), h("tbody", {}, ...rows)));
  }

  ids(task, traceUrl) {
    return h("section", {}, h("h3", {}, "Trace"), list(
      ["Trace", h("span", { class: "id" }, h("code", {}, task.trace_id), copyButton(task.trace_id, "the trace id", this.said), traceLink(traceUrl, task.trace_id))],
      ["Span", h("span", { class: "id" }, h("code", {}, task.span_id), copyButton(task.span_id, "the span id", this.said))],
      task.task_id ? ["Task", h("code", {}, task.task_id)] : null,
      task.resource && task.target_uri ? ["Path", h("code", {}, task.target_uri)] : null,
    ));
  }

  meanwhile(task, zone, now) {
    const requests = task.meanwhile ?? [];
    const heading = h("h3", {}, "Meanwhile");
    if (!requests.length) {
      const nothing = task.state === "running" ? "No other request since it started." : "No other request between its start and its end.";
      return h("section", {}, heading, h("p", { class: "note" }, nothing));
    }
    const count = Math.max(task.concurrent, requests.length);
    const body = h("tbody", { role: "rowgroup" });
    const table = h("table", { class: "meanwhile" }, requestHead(), body);
    const section = h("section", {}, heading, h("p", {}, `${plural(count, "other request")} between its start and ${task.state === "running" ? "now" : "its end"}, marked on the timeline.`), table);
    const rows = (some) => keyed(body, some, (request) => request.ordinal, () => "", (request) => requestLine(request, zone, now));
    rows(requests.slice(0, SOME_MAX));
    if (requests.length > SOME_MAX) {
      const more = h("button", { type: "button", class: "quiet" }, `Show all ${number(requests.length)}`);
      more.addEventListener("click", () => { rows(requests); more.remove(); });
      section.append(more);
    }
    if (count > requests.length) section.append(h("p", { class: "note" }, `The first ${number(requests.length)} are listed.`));
    return section;
  }
}

const requestHead = () => h("thead", {}, h("tr", {}, ...["Time", "Request", "User", "Status"].map((name) => h("th", { scope: "col" }, name))));

/** A request in a line of a small table. */
function requestLine(request, zone, now) {
  return h("tr", {},
    h("td", { class: "when" }, time(request.time, zone.short(request.time, now))),
    h("td", { title: request.message }, `${request.method} ${request.app} ${request.operation}`, h("span", { class: "sub" }, shortened(request.message, 120))),
    h("td", {}, shortened(request.user, 60)),
    h("td", { class: request.status >= 400 ? "refused" : "" }, request.status === null ? "–" : String(request.status)));
}

function list(...pairs) {
  return h("dl", {}, ...pairs.filter(Boolean).flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]));
}

function compared(task, usual) {
  const took = task.duration;
  const base = `Usually ${duration(usual.median)}; 9 of 10 take at most ${duration(usual.p90)} (${plural(usual.count, "successful task")}).`;
  if (took === null || usual.median < 1000) return base;
  if (took > usual.p90) return `${base} This one ${task.state === "running" ? "is already at" : "took"} ${(took / usual.median).toFixed(1)} times the usual.`;
  if (task.state === "failed" && took < usual.median / 2) return `${base} This one failed early.`;
  return base;
}

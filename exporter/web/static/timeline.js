// The waterfall: a lane for each application, requests as ticks at its top, tasks as bars below. A canvas, redrawn
// when something changes, on which only what is visible is drawn: 10,000 tasks stay smooth.
//
// Outcomes differ in shape as well as in colour: done is plain, failed is hatched and ends in a cross, lost is an
// outline of dashes, running is open to the right, unknown (no end in the log) is a diamond at the start.
// Where several tasks of a row have no room beside each other, they share a column, in true proportion.
// The table below has the same data.

import { shortened, visible } from "./format.js";

const AXIS = 24;
const TICKS = 20; // pixels of a lane for its requests
const LANE_GAP = 10;
const ROW_MIN = 5;
const ROW_MAX = 20;
const ROWS_MAX = 400; // of one lane; more at once lie on top of each other
const BAR_MIN = 3;
const REACH = 5; // pixels a pointer may miss by
const LABEL_MIN = 70; // pixels of a bar that say something
const STEPS = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400, 172800, 604800, 2592000];
const ORDER = { done: 0, unknown: 1, running: 2, lost: 3, failed: 4 }; // what is worse is drawn later, on top
const COLOURS = ["text", "muted", "line", "panel", "accent", "band", "done", "failed", "lost", "unknown", "running", "tick"];

const endOf = (task, now) => (task.state === "running" ? now : task.end ?? task.start);

/** Give every task a row of its lane in which nothing else lies. The order is that of starts: what comes later
 *  moves nothing that is already there. */
function packed(tasks, now) {
  const lanes = new Map();
  for (const task of [...tasks].sort((a, b) => a.start - b.start || (a.id < b.id ? -1 : 1))) {
    let lane = lanes.get(task.app);
    if (!lane) lanes.set(task.app, (lane = { free: [], bars: [] }));
    let row = lane.free.findIndex((free) => free <= task.start);
    if (row < 0) row = lane.free.length < ROWS_MAX ? lane.free.length : ROWS_MAX - 1;
    lane.free[row] = task.state === "running" ? Infinity : endOf(task, now);
    lane.bars.push({ task, row });
  }
  for (const lane of lanes.values()) lane.bars.sort((a, b) => ORDER[a.task.state] - ORDER[b.task.state]);
  return lanes;
}

export class Timeline {
  /** `opened(task)`, `moved(since, until)` and `told(task)` are called for what a person does. */
  constructor(canvas, tip, { opened, moved, told, describe }) {
    Object.assign(this, { canvas, tip, opened, moved, told, describe });
    this.context = canvas.getContext("2d");
    this.scroller = canvas.parentElement;
    this.shown = null;
    this.lanes = new Map();
    this.ticks = new Map();
    this.drawn = [];
    this.cursor = "";
    this.pointers = new Map();
    this.isDue = false;
    new ResizeObserver(() => this.redraw()).observe(this.scroller);
    this.listen();
  }

  /** Show `{tasks, requests, since, until, now, zone, selected, marked, filled}`; `filled` changes with the tasks. */
  show(shown) {
    const isNew = this.shown?.tasks !== shown.tasks;
    const isOther = this.shown?.requests !== shown.requests || this.shown?.marked !== shown.marked;
    this.shown = shown;
    if (isNew) this.lanes = packed(shown.tasks, shown.now);
    if (isNew || isOther) this.sort();
    this.redraw();
  }

  sort() {
    this.ticks = new Map();
    const { requests, marked } = this.shown;
    const known = new Set();
    for (const request of [...(marked?.requests ?? []), ...requests]) {
      if (known.has(request.ordinal)) continue;
      known.add(request.ordinal);
      if (!this.ticks.has(request.app)) this.ticks.set(request.app, []);
      this.ticks.get(request.app).push(request);
    }
    this.apps = [...new Set([...this.lanes.keys(), ...this.ticks.keys()])].sort();
  }

  redraw() {
    if (this.isDue) return;
    this.isDue = true;
    requestAnimationFrame(() => { this.isDue = false; if (this.shown) this.draw(); });
  }

  /** The colours of the page, as the theme has them now. */
  palette() {
    const style = getComputedStyle(this.canvas);
    const dark = matchMedia("(prefers-color-scheme: dark)").matches;
    const key = `${document.documentElement.dataset.theme}${dark}${matchMedia("(forced-colors: active)").matches}`;
    if (this.paletteKey !== key) {
      this.paletteKey = key;
      const probe = document.createElement("i");
      this.scroller.append(probe);
      this.colours = Object.fromEntries(COLOURS.map((name) => {
        probe.style.color = `var(--${name})`;
        return [name, getComputedStyle(probe).color];
      }));
      probe.remove();
      this.font = style.fontFamily;
    }
    return this.colours;
  }

  x(ms) {
    const { since, until } = this.shown;
    return this.gutter + ((ms - since) / (until - since)) * (this.width - this.gutter);
  }

  ms(x) {
    const { since, until } = this.shown;
    return since + ((x - this.gutter) / (this.width - this.gutter)) * (until - since);
  }

  draw() {
    const { canvas, context: c, scroller } = this;
    const width = scroller.clientWidth;
    const room = scroller.clientHeight;
    if (!width || !room) return;
    this.width = width;
    this.gutter = width < 560 ? 0 : 96;
    this.head = this.gutter ? 0 : 15; // without a gutter, a lane's name stands above it
    const rows = this.apps.map((app) => Math.max(1, this.lanes.get(app)?.free.length ?? 0));
    const all = rows.reduce((sum, count) => sum + count, 0);
    const fixed = AXIS + this.apps.length * (TICKS + LANE_GAP + this.head);
    this.row = Math.max(ROW_MIN, Math.min(ROW_MAX, Math.floor((room - fixed) / Math.max(1, all))));
    const height = Math.max(room, fixed + all * this.row);
    const ratio = Math.min(3, window.devicePixelRatio || 1);
    if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
      canvas.width = Math.round(width * ratio);
      canvas.height = Math.round(height * ratio);
      canvas.style.height = `${height}px`;
    }
    c.setTransform(ratio, 0, 0, ratio, 0, 0);
    c.clearRect(0, 0, width, height);
    const colours = this.palette();
    this.small = `11px ${this.font}`;
    c.textBaseline = "middle";
    this.drawGrid(c, colours, height);
    this.drawBand(c, colours, height);
    this.drawn = [];
    let y = AXIS;
    this.apps.forEach((app, index) => {
      y = this.drawLane(c, colours, app, rows[index], y);
    });
    this.drawNow(c, colours, height);
    this.drawMarks(c, colours);
  }

  drawGrid(c, colours, height) {
    const { since, until, zone, now } = this.shown;
    const wide = (this.width - this.gutter) / (until - since);
    const step = (STEPS.find((seconds) => seconds * 1000 * wide >= 84) ?? STEPS.at(-1)) * 1000;
    const offset = zone.offset(since);
    c.font = this.small;
    c.lineWidth = 1;
    for (let wall = Math.ceil((since + offset) / step) * step; ; wall += step) {
      const ms = wall - zone.offset(wall - offset);
      if (ms > until) break;
      const x = Math.round(this.x(ms)) + 0.5;
      if (x < this.gutter) continue;
      c.strokeStyle = colours.line;
      c.beginPath();
      c.moveTo(x, AXIS - 6);
      c.lineTo(x, height);
      c.stroke();
      const { date, time } = zone.at(ms);
      const isMidnight = time === "00:00:00";
      const label = isMidnight || step >= 86400000 ? date.slice(5) : time.slice(0, step < 60000 ? 8 : 5);
      c.fillStyle = isMidnight && date !== zone.at(now).date ? colours.text : colours.muted;
      if (x + c.measureText(label).width + 4 < this.width) c.fillText(label, x + 4, AXIS / 2);
    }
  }

  /** The time of the open task, over all lanes: what happened meanwhile lies in it. */
  drawBand(c, colours, height) {
    const { selected, now } = this.shown;
    if (!selected) return;
    const from = Math.max(this.gutter, this.x(selected.start));
    const to = Math.min(this.width, Math.max(this.x(endOf(selected, now)), this.x(selected.start) + 2));
    if (to <= from) return;
    c.fillStyle = colours.band;
    c.fillRect(from, AXIS, to - from, height - AXIS);
  }

  drawLane(c, colours, app, rows, top) {
    const { width, gutter } = this;
    const y = top + this.head;
    c.font = `600 ${this.small}`;
    c.fillStyle = colours.text;
    const label = this.cut(c, app || "–", (gutter || width) - 12);
    if (gutter) c.fillText(label, 2, y + TICKS / 2);
    else c.fillText(label, 2, top + this.head / 2 + 2);
    this.drawTicks(c, colours, app, y);
    const bars = y + TICKS;
    c.save();
    c.beginPath();
    c.rect(gutter, bars - 2, width - gutter, rows * this.row + 4);
    c.clip();
    for (const column of this.columns(app)) {
      if (column.length > 1) this.drawColumn(c, colours, column, bars);
      else this.drawBar(c, colours, column[0], bars);
    }
    c.restore();
    const bottom = bars + rows * this.row + LANE_GAP;
    c.strokeStyle = colours.line;
    c.beginPath();
    c.moveTo(0, Math.round(bottom - LANE_GAP / 2) + 0.5);
    c.lineTo(width, Math.round(bottom - LANE_GAP / 2) + 0.5);
    c.stroke();
    return bottom;
  }

  drawTicks(c, colours, app, y) {
    const { since, until, marked } = this.shown;
    const lit = [];
    const taken = new Set();
    c.fillStyle = colours.tick;
    for (const request of this.ticks.get(app) ?? []) {
      if (request.time < since || request.time > until) continue;
      const x = Math.round(this.x(request.time));
      if (marked?.has(request)) { lit.push(x); continue; }
      const isRefused = request.status >= 400;
      const spot = isRefused ? x + 0.5 : x;
      if (taken.has(spot)) continue;
      taken.add(spot);
      // A refused request has a foot.
      c.fillRect(x, y + 6, 1, 8);
      if (isRefused) c.fillRect(x - 1, y + 12, 3, 2);
    }
    c.fillStyle = colours.accent;
    for (const x of lit) c.fillRect(x - 1, y + 2, 2.5, 14);
  }

  /** The bars that are visible, each alone, or with those of its row that are as narrow and in the same place. */
  columns(app) {
    const { since, until, now } = this.shown;
    const columns = new Map();
    for (const bar of this.lanes.get(app)?.bars ?? []) {
      const { task, row } = bar;
      const end = endOf(task, now);
      if (end < since || task.start > until) continue;
      const x = this.x(task.start);
      const isNarrow = task.state === "unknown" || this.x(end) - x < BAR_MIN;
      const key = isNarrow ? `${row} ${Math.floor(x / BAR_MIN)}` : task;
      if (columns.has(key)) columns.get(key).push(bar);
      else columns.set(key, [bar]);
    }
    return columns.values();
  }

  /** Several tasks in one place: the area of each outcome is its share of them, at least a pixel. */
  drawColumn(c, colours, column, top) {
    const { row } = column[0];
    const { y, high } = this.across(row, top);
    const x = Math.floor(this.x(column[0].task.start) / BAR_MIN) * BAR_MIN;
    const counts = new Map();
    for (const { task } of column) {
      counts.set(task.state, (counts.get(task.state) ?? 0) + 1);
      this.drawn.push({ x, y, wide: BAR_MIN, high, task });
    }
    // Whole pixels, so that one pixel of a colour is that colour. What is worse is lower.
    const upper = Math.round(y);
    const most = [...counts].sort(([, one], [, other]) => other - one)[0][0];
    c.fillStyle = colours[most];
    c.fillRect(x, upper, BAR_MIN, Math.round(high));
    let bottom = upper + Math.round(high);
    for (const [state, count] of [...counts].sort(([one], [other]) => ORDER[other] - ORDER[one])) {
      if (state === most || bottom <= upper) continue;
      const part = (high * count) / column.length;
      const wide = part < 1 ? Math.max(1, Math.round(BAR_MIN * part)) : BAR_MIN;
      c.fillStyle = colours[state];
      bottom -= Math.max(1, Math.round(part));
      c.fillRect(x, bottom, wide, Math.max(1, Math.round(part)));
    }
  }

  /** Where the bars of a row are, from top to bottom. */
  across(row, top) {
    const high = Math.max(3, this.row - (this.row > 8 ? 3 : 1));
    return { y: top + row * this.row + (this.row - high) / 2, high };
  }

  drawBar(c, colours, { task, row }, top) {
    const isPoint = task.state === "unknown";
    const x = Math.max(this.gutter - 20, this.x(task.start));
    const end = endOf(task, this.shown.now);
    const wide = isPoint ? BAR_MIN : Math.max(BAR_MIN, Math.min(this.width + 20, this.x(end)) - x);
    const { y, high } = this.across(row, top);
    this.drawn.push({ x, y, wide, high, task });
    c.fillStyle = c.strokeStyle = colours[task.state];
    c.lineWidth = 1;
    if (task.state === "lost") {
      c.setLineDash([4, 3]);
      c.strokeRect(x + 0.5, y + 0.5, wide - 1, high - 1);
      c.setLineDash([]);
      c.globalAlpha = 0.18;
      c.fillRect(x, y, wide, high);
      c.globalAlpha = 1;
    } else if (isPoint) {
      const half = Math.min(5, high / 2 + 1);
      c.beginPath();
      c.moveTo(x, y + high / 2 - half);
      c.lineTo(x + half, y + high / 2);
      c.lineTo(x, y + high / 2 + half);
      c.lineTo(x - half, y + high / 2);
      c.closePath();
      c.stroke();
    } else {
      c.fillRect(x, y, wide, high);
      if (task.state === "failed" && high > 4) this.hatch(c, colours, x, y, wide, high);
      if (task.state === "running") {
        // Open to the right: its end is not there yet.
        c.beginPath();
        c.moveTo(x + wide, y);
        c.lineTo(x + wide + high / 2, y + high / 2);
        c.lineTo(x + wide, y + high);
        c.fill();
      }
    }
    if (task.state === "failed" && high > 4) {
      const cross = Math.min(4, high / 2 - 0.5);
      const cx = x + wide + cross + 3;
      const cy = y + high / 2;
      c.lineWidth = 1.6;
      c.beginPath();
      c.moveTo(cx - cross, cy - cross);
      c.lineTo(cx + cross, cy + cross);
      c.moveTo(cx + cross, cy - cross);
      c.lineTo(cx - cross, cy + cross);
      c.stroke();
    }
    const from = Math.max(x, this.gutter);
    if (high >= 11 && x + wide - from > LABEL_MIN && !isPoint) {
      c.font = this.small;
      c.fillStyle = task.state === "lost" ? colours.text : colours.panel;
      c.fillText(this.cut(c, label(task), x + wide - from - 10), from + 5, y + high / 2 + 0.5);
    }
  }

  hatch(c, colours, x, y, wide, high) {
    const from = Math.max(x, 0);
    const to = Math.min(x + wide, this.width);
    c.save();
    c.beginPath();
    c.rect(from, y, to - from, high);
    c.clip();
    c.strokeStyle = colours.panel;
    c.globalAlpha = 0.28;
    c.lineWidth = 1.5;
    c.beginPath();
    for (let at = from - high - (from % 6); at < to; at += 6) {
      c.moveTo(at, y + high);
      c.lineTo(at + high, y);
    }
    c.stroke();
    c.restore();
  }

  drawNow(c, colours, height) {
    const { now, since, until } = this.shown;
    if (now < since || now > until) return;
    const x = Math.round(this.x(now)) + 0.5;
    c.strokeStyle = colours.accent;
    c.lineWidth = 1;
    c.beginPath();
    c.moveTo(x, AXIS - 6);
    c.lineTo(x, height);
    c.stroke();
  }

  /** The open task and the one under the keyboard's cursor. */
  drawMarks(c, colours) {
    for (const { x, y, wide, high, task } of this.drawn) {
      const isSelected = task.id === this.shown.selected?.id;
      if (!isSelected && task.id !== this.cursor) continue;
      c.strokeStyle = isSelected ? colours.accent : colours.text;
      c.lineWidth = 2;
      c.strokeRect(Math.max(x, this.gutter) - 2, y - 2, Math.min(x + wide, this.width) - Math.max(x, this.gutter) + 4, high + 4);
    }
  }

  cut(c, text, wide) {
    let shown = visible(shortened(text, 80));
    if (c.measureText(shown).width <= wide) return shown;
    while (shown.length > 1 && c.measureText(`${shown}…`).width > wide) shown = shown.slice(0, Math.floor(shown.length * 0.9));
    return shown.length > 1 ? `${shown}…` : "";
  }

  taskAt(x, y) {
    let best = null;
    let miss = REACH;
    for (let at = this.drawn.length - 1; at >= 0; at -= 1) {
      const bar = this.drawn[at];
      const aside = Math.max(bar.x - x, x - bar.x - bar.wide, 0);
      const above = Math.max(bar.y - y, y - bar.y - bar.high, 0);
      const distance = Math.max(aside, above);
      if (distance < miss) { best = bar.task; miss = distance; }
      if (miss === 0) break;
    }
    return best;
  }

  listen() {
    const { canvas } = this;
    let moved = 0; // pixels since a button went down: less than a few is a click
    const place = (event) => {
      const box = canvas.getBoundingClientRect();
      return [event.clientX - box.left, event.clientY - box.top];
    };
    canvas.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      canvas.setPointerCapture(event.pointerId);
      this.pointers.set(event.pointerId, place(event)[0]);
      moved = 0;
    });
    canvas.addEventListener("pointermove", (event) => {
      if (!this.shown || !this.width) return;
      const [x, y] = place(event);
      const before = this.pointers.get(event.pointerId);
      if (before === undefined) return this.hover(x, y);
      this.tip.hidden = true;
      moved += Math.abs(x - before);
      if (moved < 4) return undefined;
      const others = [...this.pointers].filter(([id]) => id !== event.pointerId).map(([, at]) => at);
      this.pointers.set(event.pointerId, x);
      if (others.length) this.pinch(others[0], before, x);
      else this.pan((before - x) / (this.width - this.gutter));
      return undefined;
    });
    const release = (event) => {
      if (!this.pointers.delete(event.pointerId) || event.type !== "pointerup" || moved >= 4 || !this.shown) return;
      const task = this.taskAt(...place(event));
      if (task) this.opened(task);
    };
    canvas.addEventListener("pointerup", release);
    canvas.addEventListener("pointercancel", release);
    canvas.addEventListener("pointerleave", () => { this.tip.hidden = true; });
    canvas.addEventListener("wheel", (event) => {
      if (!this.shown || !this.width) return;
      // The wheel alone scrolls the page, as everywhere.
      if (event.ctrlKey || event.metaKey) {
        event.preventDefault();
        this.zoom(Math.exp(Math.max(-1, Math.min(1, event.deltaY / 200))), this.ms(Math.max(this.gutter, place(event)[0])));
      } else if (event.shiftKey || Math.abs(event.deltaX) > Math.abs(event.deltaY)) {
        event.preventDefault();
        this.pan((event.deltaX || event.deltaY) / (this.width - this.gutter));
      }
    }, { passive: false });
    canvas.addEventListener("dblclick", (event) => this.zoom(0.5, this.ms(place(event)[0])));
    canvas.addEventListener("keydown", (event) => this.key(event));
    canvas.addEventListener("blur", () => { this.cursor = ""; this.redraw(); });
  }

  hover(x, y) {
    const task = this.taskAt(x, y);
    this.canvas.style.cursor = task ? "pointer" : "grab";
    this.tip.hidden = !task;
    if (!task) return;
    this.describe(task, this.tip);
    const left = Math.max(0, Math.min(x + 14, this.width - this.tip.offsetWidth));
    const down = y - this.scroller.scrollTop + 18;
    const fits = down + this.tip.offsetHeight < this.scroller.clientHeight + 40;
    this.tip.style.transform = `translate(${left}px, ${fits ? down : Math.max(0, down - this.tip.offsetHeight - 32)}px)`;
  }

  pan(share) {
    const { since, until } = this.shown;
    const by = (until - since) * share;
    this.moved(since + by, until + by);
  }

  pinch(other, before, x) {
    const was = Math.abs(before - other);
    const is = Math.abs(x - other);
    if (was > 10 && is > 10) this.zoom(was / is, this.ms((other + x) / 2));
  }

  /** Show `factor` times as much, with `around` staying where it is. */
  zoom(factor, around) {
    const { since, until } = this.shown;
    const at = around ?? (this.shown.isLive ? until : (since + until) / 2);
    this.moved(at - (at - since) * factor, at + (until - at) * factor);
  }

  key(event) {
    if (!this.shown || event.altKey || event.ctrlKey || event.metaKey) return;
    const acts = {
      ArrowLeft: () => this.pan(-0.2), ArrowRight: () => this.pan(0.2),
      "+": () => this.zoom(0.5), "=": () => this.zoom(0.5), "-": () => this.zoom(2),
      ArrowDown: () => this.step(1), ArrowUp: () => this.step(-1),
      Enter: () => this.openCursor(), " ": () => this.openCursor(),
    };
    const act = acts[event.key];
    if (!act) return;
    event.preventDefault();
    act();
  }

  /** Move the cursor to the next task in the order of starts. */
  step(by) {
    const { tasks, since, until, now } = this.shown;
    const there = tasks.filter((task) => task.start <= until && endOf(task, now) >= since);
    there.sort((a, b) => a.start - b.start || (a.id < b.id ? -1 : 1));
    if (!there.length) return this.told(null);
    const at = there.findIndex((task) => task.id === (this.cursor || this.shown.selected?.id));
    const next = there[at < 0 ? (by > 0 ? 0 : there.length - 1) : Math.max(0, Math.min(there.length - 1, at + by))];
    this.cursor = next.id;
    this.told(next);
    const bar = this.drawn.find(({ task }) => task.id === next.id);
    if (bar && (bar.y < this.scroller.scrollTop || bar.y + 20 > this.scroller.scrollTop + this.scroller.clientHeight)) {
      this.scroller.scrollTop = bar.y - this.scroller.clientHeight / 2;
    }
    return this.redraw();
  }

  openCursor() {
    const task = this.shown.tasks.find(({ id }) => id === this.cursor);
    if (task) this.opened(task);
  }
}

const label = (task) => `${task.operation || "task"}  ${shortened(task.resource || task.target_uri.split("/").filter(Boolean).slice(-2).join("/"), 40)}`;

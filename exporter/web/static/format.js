// Times, durations and texts as people read them. Times are milliseconds since the epoch, shown in the zone of the
// host, wherever the browser is.

const SECOND = 1000;
const MINUTE = 60 * SECOND;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;

// What a browser would obey or hide instead of showing it: controls, what turns the direction of writing,
// what has no width, line separators, lone surrogates. Newlines and tabs are layout and stay.
const INVISIBLE =
  /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]|[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/g;

const escaped = (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`;

/** A text of the log with everything in it visible. */
export const visible = (text) => String(text).replace(INVISIBLE, escaped);

/** At most `length` characters, with an ellipsis in the middle: names differ at their ends. */
export function shortened(text, length) {
  if (text.length <= length) return text;
  const half = (length - 1) >> 1;
  return `${text.slice(0, half)}…${text.slice(text.length - half)}`;
}

/** `12s`, `4m 07s`, `1h 02m`, `3d 04h`: at most two units; the log has whole seconds. */
export function duration(milliseconds) {
  if (milliseconds === null || milliseconds === undefined) return "–";
  const two = (value) => String(Math.floor(value)).padStart(2, "0");
  const ms = Math.max(0, milliseconds);
  if (ms < SECOND) return "< 1s";
  if (ms < MINUTE) return `${Math.floor(ms / SECOND)}s`;
  if (ms < HOUR) return `${Math.floor(ms / MINUTE)}m ${two((ms % MINUTE) / SECOND)}s`;
  if (ms < DAY) return `${Math.floor(ms / HOUR)}h ${two((ms % HOUR) / MINUTE)}m`;
  return `${Math.floor(ms / DAY)}d ${two((ms % DAY) / HOUR)}h`;
}

/** `just now`, `4 min ago`, `3 h ago`, `2 d ago`. */
export function ago(milliseconds) {
  if (milliseconds < MINUTE) return milliseconds < 0 ? "in the future" : "just now";
  if (milliseconds < HOUR) return `${Math.floor(milliseconds / MINUTE)} min ago`;
  return milliseconds < 2 * DAY ? `${Math.floor(milliseconds / HOUR)} h ago` : `${Math.floor(milliseconds / DAY)} d ago`;
}

/** `1:02:07`: the running clock, whose width does not change every second. */
export function clock(milliseconds) {
  const seconds = Math.max(0, Math.floor(milliseconds / SECOND));
  const two = (value) => String(value).padStart(2, "0");
  const hours = Math.floor(seconds / 3600);
  const rest = `${two(Math.floor(seconds / 60) % 60)}:${two(seconds % 60)}`;
  return hours ? `${hours}:${rest}` : rest;
}

/** `90m` for a range in the address: the largest unit that says it exactly. */
export function span(milliseconds) {
  const seconds = Math.max(1, Math.round(milliseconds / SECOND));
  if (seconds % 86400 === 0) return `${seconds / 86400}d`;
  if (seconds % 3600 === 0) return `${seconds / 3600}h`;
  return seconds % 60 === 0 ? `${seconds / 60}m` : `${seconds}s`;
}

/** The milliseconds of a `span`, or null. */
export function spanMilliseconds(text) {
  const found = /^([1-9]\d{0,8})([smhd])$/.exec(text);
  return found && Number(found[1]) * { s: SECOND, m: MINUTE, h: HOUR, d: DAY }[found[2]];
}

/** The `span` in words: `6 hours`. */
export function spanWords(text) {
  const [, count, unit] = /^(\d+)([smhd])$/.exec(text) ?? [null, "", ""];
  const word = { s: "second", m: "minute", h: "hour", d: "day" }[unit];
  return count === "1" ? word : `${count} ${word}s`;
}

export function bytes(count) {
  if (count < 1024) return `${count} bytes`;
  if (count < 2 ** 20) return `${(count / 1024).toFixed(0)} KiB`;
  return count < 2 ** 30 ? `${(count / 2 ** 20).toFixed(1)} MiB` : `${(count / 2 ** 30).toFixed(1)} GiB`;
}

export const number = (value) => Number(value).toLocaleString("en");

export const plural = (count, one, many = `${one}s`) => `${number(count)} ${count === 1 ? one : many}`;

/** ISO 8601 in UTC, for tooltips and `datetime`; a time that no calendar has gives nothing. */
export const iso = (ms) => (Number.isFinite(ms) && Math.abs(ms) < 8.64e15 ? new Date(ms).toISOString() : "");

/** Local times of one zone; an empty or unknown name is the browser's own zone. */
export class Zone {
  constructor(name) {
    const options = {
      calendar: "iso8601", numberingSystem: "latn", hourCycle: "h23",
      year: "numeric", month: "2-digit", day: "2-digit", hour: "2-digit", minute: "2-digit", second: "2-digit",
    };
    try {
      this.format = new Intl.DateTimeFormat("en", { ...options, timeZone: name || undefined });
    } catch {
      this.format = new Intl.DateTimeFormat("en", options);
    }
    this.name = this.format.resolvedOptions().timeZone;
  }

  /** The local date and time: `{date: "2026-11-24", time: "08:12:31"}`. */
  at(ms) {
    if (!iso(ms)) return { date: "", time: "–" };
    const parts = Object.fromEntries(this.format.formatToParts(ms).map((part) => [part.type, part.value]));
    return {
      date: `${parts.year.padStart(4, "0")}-${parts.month}-${parts.day}`,
      time: `${parts.hour}:${parts.minute}:${parts.second}`,
    };
  }

  /** Local time minus UTC at a moment, in milliseconds. */
  offset(ms) {
    const { date, time } = this.at(ms);
    return Date.parse(`${date}T${time}Z`) - Math.floor(ms / SECOND) * SECOND;
  }

  /** `08:12:31`, with the date before it where that is not the date of `now`. */
  short(ms, now) {
    const { date, time } = this.at(ms);
    return date === this.at(now).date ? time : `${date.slice(5)} ${time}`;
  }

  /** `2026-11-28 00:12:30 -03:00` */
  full(ms) {
    const { date, time } = this.at(ms);
    if (!date) return time;
    const minutes = Math.round(this.offset(ms) / MINUTE);
    const two = (value) => String(value).padStart(2, "0");
    return `${date} ${time} ${minutes < 0 ? "-" : "+"}${two(Math.floor(Math.abs(minutes) / 60))}:${two(Math.abs(minutes) % 60)}`;
  }

  /** The value of an `<input type=datetime-local>`, and back: null for what is no time. */
  toInput(ms) {
    const { date, time } = this.at(ms);
    return `${date}T${time}`;
  }

  fromInput(text) {
    const wall = Date.parse(`${text}Z`);
    if (!Number.isFinite(wall)) return null;
    // The offset is known for a moment, not for a wall clock: the second guess is right on both sides of a change.
    const first = wall - this.offset(wall);
    return wall - this.offset(first);
  }
}

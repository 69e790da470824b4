// The strip at the top: is the exporter well, and if not, what to do about it. One line of facts, the problems with
// their remedies below it, and all the numbers for those who open it.

import { fill, h, keyed, prose, say } from "./dom.js";
import { bytes, number, plural, shortened } from "./format.js";

export class Health {
  /** `parts` are the elements of the strip: `{strip, verdict, facts, problems, numbers, freshness}`. */
  constructor(parts) {
    Object.assign(this, parts);
    this.version = "";
  }

  show(status, zone, now) {
    const { problems, log, delivery, counts } = status;
    const level = problems.length ? "trouble" : "well";
    if (this.strip.dataset.level !== level) this.strip.dataset.level = level;
    say(this.verdict, problems.length ? plural(problems.length, "problem") : "All is well");
    const behind = log.behind_bytes ? `${bytes(log.behind_bytes)} of the log unread` : "log read to its end";
    const sent = delivery.length ? delivery.map((each) => `${each.signal} ${sentFact(each)}`) : ["nothing is sent to a backend"];
    const counted = [[counts.rejected_lines, "rejected line"], [counts.lost_records, "lost record"], [counts.refused_items, "refused item"]];
    const bad = counted.filter(([count]) => count).map(([count, name]) => plural(count, name));
    say(this.facts, [behind, ...sent, ...bad].join(" · "));
    keyed(this.problems, problems.map((problem, at) => [at, problem]), ([at]) => at, ([, { what, remedy }]) => JSON.stringify([what, remedy]),
      ([, { what, remedy }]) => h("li", {}, h("strong", {}, prose(what)), remedy ? h("span", {}, prose(remedy)) : null));
    this.showNumbers(status, (ms) => (ms === null ? "never" : zone.short(ms, now)));
    if (!status.ready && log.behind_bytes) say(this.freshness, `reading: ${bytes(log.behind_bytes)} of the log are still to come`);
    else say(this.freshness, log.last_record === null ? "no records yet" : `newest record ${zone.short(log.last_record, now)}`);
  }

  showNumbers({ log, delivery, counts }, when) {
    const pairs = [
      ["Log", `${log.path}, ${bytes(log.behind_bytes)} unread, newest record ${when(log.last_record)}`],
      ...delivery.map((each) => [each.signal, deliverySentence(each, when)]),
      ["Tasks", `${number(counts.running)} running, ${number(counts.success)} done, ${number(counts.failure)} failed, ${number(counts.lost)} lost, ${number(counts.unknown)} with an unknown end`],
      ["Lines", `${number(counts.rejected_lines)} could not be understood, ${number(counts.forged_lines)} posed as records`],
      ["Losses", `${number(counts.lost_records)} records lost, ${number(counts.refused_items)} items refused by a backend`],
    ];
    const version = JSON.stringify(pairs);
    if (version === this.version) return;
    this.version = version;
    fill(this.numbers, ...pairs.flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]));
  }
}

function sentFact({ failing_since: failing, held, waiting }) {
  if (held) return `held, ${number(waiting)} waiting`;
  if (failing !== null) return `not taken, ${number(waiting)} waiting`;
  return waiting ? `${number(waiting)} waiting` : "delivered";
}

function deliverySentence(each, when) {
  return [
    `to ${each.endpoint}: ${number(each.waiting)} waiting`,
    each.oldest === null ? "" : `the oldest of ${when(each.oldest)}`,
    `last taken ${when(each.last_success)}`,
    each.failing_since === null ? "" : `failing since ${when(each.failing_since)}`,
    each.held ? "held until it is put right" : "",
    each.reason,
    each.message && `the backend says “${shortened(each.message, 300)}”`,
    each.rejection,
    each.remedy,
  ].filter(Boolean).join("; ");
}

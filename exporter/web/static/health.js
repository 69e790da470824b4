// The strip at the top: the state of the exporter. One line of facts, the problems with their remedies below it, and
// all numbers when it is opened.

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
    say(this.verdict, problems.length ? plural(problems.length, "problem") : "Exporter OK");
    // Of a log without a record nobody knows yet whether it is the right one, or whether it is there.
    const read = log.last_record === null ? "no records yet" : "log read to its end";
    const behind = log.behind_bytes ? `${bytes(log.behind_bytes)} of the log unread` : read;
    const sent = delivery.length ? delivery.map((each) => `${each.signal} ${sentFact(each)}`) : ["no backend configured"];
    const counted = [[counts.rejected_lines, "rejected line"], [counts.lost_records, "lost record"], [counts.log_gaps, "gap in the log", "gaps in the log"], [counts.refused_items, "rejected item"]];
    const bad = counted.filter(([count]) => count).map(([count, one, many]) => plural(count, one, many));
    say(this.facts, [behind, ...sent, ...bad].join(" · "));
    keyed(this.problems, problems.map((problem, at) => [at, problem]), ([at]) => at, ([, { what, remedy }]) => JSON.stringify([what, remedy]),
      ([, { what, remedy }]) => h("li", {}, h("strong", {}, prose(what)), remedy ? h("span", {}, prose(remedy)) : null));
    this.showNumbers(status, (ms) => (ms === null ? "never" : zone.short(ms, now)));
    if (!status.ready && log.behind_bytes) say(this.freshness, `reading the log: ${bytes(log.behind_bytes)} left`);
    else say(this.freshness, log.last_record === null ? "no records yet" : `newest record ${zone.short(log.last_record, now)}`);
  }

  /** Say that nothing here is known to be true any more. */
  lost(since) {
    this.strip.dataset.level = "trouble";
    say(this.verdict, "Exporter unreachable");
    say(this.facts, `the page shows the state of ${since}`);
    say(this.freshness, "");
    this.version = "";
  }

  showNumbers({ log, delivery, counts }, when) {
    const pairs = [
      ["Log", `${log.path}, ${bytes(log.behind_bytes)} unread, newest record ${when(log.last_record)}`],
      ...delivery.map((each) => [each.signal, deliverySentence(each, when)]),
      ["Tasks", `${number(counts.running)} running, ${number(counts.success)} done, ${number(counts.failure)} failed, ${number(counts.lost)} lost, ${number(counts.unknown)} with an unknown end`],
      ["Lines", `${number(counts.rejected_lines)} rejected, ${number(counts.forged_lines)} that imitate records`],
      ["Losses", `${number(counts.lost_records)} records dropped, ${number(counts.log_gaps)} gaps in the log, ${number(counts.refused_items)} items rejected by a backend`],
    ];
    const version = JSON.stringify(pairs);
    if (version === this.version) return;
    this.version = version;
    fill(this.numbers, ...pairs.flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]));
  }
}

function sentFact({ failing_since: failing, held, waiting }) {
  if (held) return `paused, ${number(waiting)} queued`;
  if (failing !== null) return `not delivered, ${number(waiting)} queued`;
  return waiting ? `${number(waiting)} queued` : "delivered";
}

function deliverySentence(each, when) {
  return [
    `to ${each.endpoint}: ${number(each.waiting)} queued`,
    each.oldest === null ? "" : `oldest ${when(each.oldest)}`,
    `last delivered ${when(each.last_success)}`,
    each.failing_since === null ? "" : `failing since ${when(each.failing_since)}`,
    each.held ? "paused until the cause is fixed" : "",
    each.reason,
    each.message && `the backend says “${shortened(each.message, 300)}”`,
    each.rejection,
    each.remedy,
  ].filter(Boolean).join("; ");
}

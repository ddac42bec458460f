// What the ledger has of a call → the timeline's bars and points. Plain values in and out, no document.

import { duration, recordingSentence, turnName } from "./labels.js";

/** All times are epoch seconds. `now` is the end of what has not ended yet. */
export function timelineOf(call, timeline, notifications, now, turns = []) {
  const begin = call.invited_at;
  const times = [...timeline.map((fact) => fact.at), ...notifications.map((one) => one.began_at)];
  const live = call.ended_at == null && call.stage !== "refused";
  const end = Math.max(begin, live ? now : (call.ended_at ?? begin), ...times);
  const facts = [...timeline].sort((a, b) => a.at - b.at);
  return {
    begin,
    end,
    live,
    stages: stages(call, facts, end),
    bot: spans(facts, "speech_began", "speech_ended", end),
    caller: spans(facts.map(asSpeech), "caller_began", "caller_ended", end),
    points: facts.filter((fact) => Object.hasOwn(POINTS, fact.what)).map((fact) => ({ at: fact.at, ...POINTS[fact.what], text: pointText(fact) })),
    away: facts.filter((fact) => fact.what === "switch_restarted" && fact.facts?.gap > 0).map((fact) => ({ from: Math.max(begin, fact.at - fact.facts.gap), to: fact.at })),
    turns: turns.map((one) => ({ from: Math.max(begin, one.at - one.seconds), to: one.at, kind: one.kind, text: turnText(one) })),
    attempts: notifications.map((one) => ({
      from: one.began_at,
      to: Math.min(end, one.began_at + (one.seconds ?? (one.verdict == null && live ? end : 0))),
      verdict: one.verdict ?? "unknown",
      number: one.number,
    })),
  };
}

function turnText(one) {
  const bot = one.bot == null ? "" : `, of it the bot ${duration(one.bot)}`;
  return `${turnName(one)}${bot}`;
}

const POINTS = {
  mark: { lane: "marks", kind: "mark" },
  cleared: { lane: "caller", kind: "cleared" },
  key: { lane: "caller", kind: "key" },
  taken_over: { lane: "service", kind: "taken_over" },
  left: { lane: "service", kind: "left" },
  switch_restarted: { lane: "service", kind: "switch_restarted" },
  bot_reconnected: { lane: "service", kind: "bot_reconnected" },
  not_verified: { lane: "service", kind: "not_verified" },
  bye_overdue: { lane: "service", kind: "bye_overdue" },
  recording_begun: { lane: "service", kind: "recording_begun" },
  recording_failed: { lane: "service", kind: "recording_failed" },
};

function pointText(fact) {
  const of = fact.facts ?? {};
  switch (fact.what) {
    case "mark":
      return `mark ${of.name ?? ""}${of.cleared ? " (cleared)" : ""}`;
    case "cleared":
      return "the caller broke in";
    case "hold":
      return of.on ? "the PBX puts the caller on hold" : "the caller is back from hold";
    case "key":
      return "the caller pressed a key";
    case "taken_over":
      return `taken over${of.stage ? ` while ${of.stage}` : ""}`;
    case "left":
      return `left by its worker${of.why ? `: ${of.why}` : ""}`;
    case "not_verified":
      return "identity not verified: nothing is done with it";
    case "switch_restarted":
      return "FreeSWITCH has restarted and is back";
    case "bot_reconnected":
      return `bot connected again${of.why ? `: ${of.why}` : ""}`;
    case "recording_begun":
    case "recording_failed":
      return recordingSentence(fact);
    default:
      return "BYE overdue";
  }
}

function asSpeech(fact) {
  if (fact.what !== "caller_speaks") return fact;
  return { ...fact, what: fact.facts?.speaking ? "caller_began" : "caller_ended" };
}

/**
 * From each beginning to its end. Without an end of its own it ends with the bot's part (whose last words may be heard
 * after that, and then have an end), or with the call.
 */
function spans(facts, began, ended, end) {
  const found = [];
  let open = null;
  const close = (at, cut) => {
    if (open !== null) found.push({ from: open, to: Math.max(open, at), cut });
    open = null;
  };
  for (const fact of facts) {
    if (fact.what === began) {
      if (open === null) open = fact.at;
    } else if (fact.what === ended) close(fact.at, Boolean(fact.facts?.cut));
    else if (fact.what === "ended" || (fact.what === "bot_ended" && !facts.some((later) => later.what === ended && later.at >= fact.at))) close(fact.at, false);
  }
  close(end, false);
  return found;
}

/** The stages in their order, by the call's row; only the timeline knows when the bot was dialled. */
function stages(call, facts, end) {
  if (call.stage === "refused") return [{ stage: "refused", from: call.invited_at, to: end }];
  const connecting = facts.find((fact) => fact.what === "bot_connecting")?.at;
  const starts = [
    ["admitted", call.invited_at],
    ["answered", call.answered_at],
    ["connecting", connecting],
    ["talking", call.bot_connected_at],
    ["ended", call.bot_ended_at],
    ["handing_off", call.notified_at],
    ["held", call.handed_off_at],
  ].filter(([, at]) => at != null);
  const last = call.ended_at ?? end;
  return starts.map(([stage, from], index) => ({
    stage,
    from,
    to: Math.max(from, Math.min(last, starts[index + 1]?.[1] ?? last)),
  }));
}

/** The ticks of an axis over `seconds`: at most about `most`, at round times. */
export function ticks(seconds, most) {
  const steps = [0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 21600, 86400];
  const step = steps.find((one) => seconds / one <= most) ?? steps.at(-1) * Math.ceil(seconds / most / steps.at(-1));
  return Array.from({ length: Math.floor(seconds / step + 1e-9) + 1 }, (_, index) => Math.round(index * step * 10) / 10);
}

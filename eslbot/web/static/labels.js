// The labels of the ledger's words, and the formats of times.

const STAGES = {
  admitted: "Ringing",
  answered: "Answered",
  connecting: "Connecting bot",
  talking: "Talking",
  ended: "Last words",
  handing_off: "Handing off",
  held: "On hold",
  refused: "Refused",
};
const OUTCOMES = {
  bot_ended: "Bot ended",
  bot_closed: "Bot closed",
  bot_unreachable: "Bot unreachable",
  bot_failed: "Bot failed",
  bot_silent: "Bot silent",
  relay_lost: "Relay lost",
  switch_lost: "FreeSWITCH lost",
  max_duration: "Longest duration",
  controller_lost: "Worker lost",
  internal_error: "Fault of eslbot",
  caller_hangup: "Caller hung up",
  media_timeout: "PBX vanished",
  our_bye: "Our BYE",
};
const FAULTS = { none: "nobody", bot: "the bot", ameyo: "Ameyo", pbx: "the PBX", eslbot: "eslbot" };

const COMPONENTS = {
  freeswitch: "FreeSWITCH",
  event_socket: "Event socket",
  workers: "Workers",
  relays: "Relays",
  ledger: "Ledger",
  bot: "Bot",
  ameyo: "Ameyo",
};
const COLOURS = { green: "well", amber: "impaired", red: "failing", unknown: "not known" };
const NEEDS = {
  not_verified: "Identity not verified",
  hand_off_failing: "Hand-off failing",
  bye_overdue: "BYE overdue",
  bot_silent: "Bot silent",
};

const label = (words, word) => (Object.hasOwn(words, word) ? words[word] : word ? String(word).replaceAll("_", " ") : "");
export const stageName = (stage) => label(STAGES, stage);
export const outcomeName = (outcome) => label(OUTCOMES, outcome);
export const faultName = (fault) => label(FAULTS, fault);
export const componentName = (component) => label(COMPONENTS, component);
export const colourName = (colour) => label(COLOURS, colour);
export const needName = (need) => label(NEEDS, need);
export const stageOrder = Object.keys(STAGES).filter((stage) => stage !== "refused");

/** What a call came to, in a word. */
export function endLabel(row) {
  if (row.stage === "refused") return `Refused ${row.refusal_status ?? ""}`.trim();
  if (row.ended_at == null) return stageName(row.stage);
  return outcomeName(row.outcome) || "Ended";
}

/** good, bad, odd or plain: for a colour besides the words, never instead of them. */
export function tone(row) {
  if (row.stage === "refused") return "odd";
  if (row.fault && row.fault !== "none") return "bad";
  if (row.byes_overdue > 0 || row.end_unseen) return "odd";
  return row.handed_off_at != null ? "good" : "plain";
}

/** That FreeSWITCH died during a call and came back with it. */
export function restartText(row) {
  const gap = row.restart_gap == null ? "" : `, ${row.restarts > 1 ? "up to " : ""}${duration(row.restart_gap)} without it`;
  return `FreeSWITCH restarted${row.restarts > 1 ? ` ${row.restarts}×` : ""}${gap}`;
}

/** Whether the customer waits for an Ameyo that has not accepted the notification. */
function waitsForAmeyo(row) {
  return row.ended_at == null && row.handed_off_at == null && (row.attempt_verdict === "failed" || row.attempt_verdict === "rejected");
}

/** Whether a live call needs somebody. (That its bot is silent is known to the service alone.) */
export const needsSomebody = (row) => row.unverified_at != null || waitsForAmeyo(row) || (row.ended_at == null && row.byes_overdue > 0);

const STAGE_COLUMNS = {
  admitted: "invited_at",
  answered: "answered_at",
  connecting: "answered_at",
  talking: "bot_connected_at",
  ended: "bot_ended_at",
  handing_off: "notified_at",
  held: "handed_off_at",
};

/** When a live call came to its stage. */
export const stageBegan = (row) => row[STAGE_COLUMNS[row.stage]] ?? row.invited_at;

/** How long it has been in its stage, and up in all: `0:12 of 3:20`. */
export function durations(row, now) {
  const stage = clock(now - stageBegan(row));
  const all = clock(now - row.invited_at);
  return stage === all ? all : `${stage} of ${all}`;
}

/** A turn, in a word. */
export function turnName(turn) {
  if (turn.kind === "answer") return "The bot answers";
  if (turn.kind === "barge_in") return "The caller breaks in, the bot falls silent";
  return turn.by === "bot" ? "The bot speaks over the caller" : "The caller speaks over the bot";
}

const NOT_RECORDED = {
  full: "The recording ends here, since the disk is full; the call goes on.",
  slow: "The recording ends here, since its disk does not keep up; the call goes on.",
  failed: "The recording ends here, by an error of its disk or a fault of eslbot; the call goes on.",
  unannounced: "The call is not recorded, since its announcement cannot be played.",
};

/** A fact about the call's recording as a sentence; empty for other facts. */
export function recordingSentence(fact) {
  if (fact.what === "recording_begun") return "The call is recorded from here on.";
  if (fact.what !== "recording_failed") return "";
  const why = fact.facts?.why;
  return Object.hasOwn(NOT_RECORDED, why) ? NOT_RECORDED[why] : `The recording ends here${why ? ` (${why})` : ""}; the call goes on.`;
}

/** How long the caller waited for the bot's answers. */
export function answerTimes(row) {
  if (!row.answers) return "";
  return `${row.answers}: half within ${duration(row.answer_p50)}, 95 % within ${duration(row.answer_p95)}, at worst ${duration(row.answer_worst)}`;
}

/** What an operator should notice about a call. */
export function notes(row) {
  const parts = [];
  if (row.restarts > 0) parts.push(row.restarts > 1 ? `↻ recovered ${row.restarts}×` : "↻ recovered");
  if (row.refusal) parts.push(String(row.refusal).replaceAll("_", " "));
  if (row.fault && row.fault !== "none") parts.push(`fault: ${faultName(row.fault)}`);
  if (row.unverified_at != null) parts.push("identity not verified");
  if (waitsForAmeyo(row)) parts.push(`Ameyo: ${row.attempt_status ?? "no answer"}, attempt ${row.attempts}`);
  else if (row.stage === "handing_off" && row.attempts > 1) parts.push(`attempt ${row.attempts}`);
  else if (row.attempts > 1) parts.push(`${row.attempts} attempts`);
  if (row.byes_overdue > 0) parts.push("BYE overdue");
  if (row.take_overs > 0) parts.push(row.take_overs > 1 ? `taken over ${row.take_overs}×` : "taken over");
  if (row.sip_hangup_disposition === "send_bye") parts.push("we sent BYE");
  if (row.end_unseen) parts.push("end not seen");
  return parts.join(" · ");
}

/** Seconds as a clock: 7 → 0:07, 3725 → 1:02:05. */
export function clock(seconds) {
  const all = Math.max(0, Math.floor(seconds));
  const two = (number) => String(number).padStart(2, "0");
  const minutes = Math.floor(all / 60);
  return minutes < 60 ? `${minutes}:${two(all % 60)}` : `${Math.floor(minutes / 60)}:${two(minutes % 60)}:${two(all % 60)}`;
}

/** Seconds for people: 250 ms, 3.50 s, 1:02:05. */
export function duration(seconds) {
  if (seconds == null || !Number.isFinite(seconds)) return "";
  if (seconds < 1) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 10) return `${seconds.toFixed(2)} s`;
  return seconds < 60 ? `${seconds.toFixed(1)} s` : clock(seconds);
}

const TIME = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false });
const DAY = new Intl.DateTimeFormat(undefined, { year: "numeric", month: "short", day: "numeric" });
const SHORT_DAY = new Intl.DateTimeFormat(undefined, { month: "short", day: "numeric" });

/** The zone in which times are shown: `Asia/Kolkata (GMT+05:30)`. */
export function zone() {
  const name = new Intl.DateTimeFormat().resolvedOptions().timeZone;
  const parts = new Intl.DateTimeFormat("en", { timeZoneName: "longOffset" }).formatToParts(new Date());
  const offset = parts.find((part) => part.type === "timeZoneName")?.value;
  return offset && offset !== name ? `${name} (${offset})` : name;
}

const date = (seconds) => new Date(seconds * 1000);
export const timeOf = (seconds) => (seconds == null ? "" : TIME.format(date(seconds)));
export const dayAndTime = (seconds) => (seconds == null ? "" : `${DAY.format(date(seconds))}, ${TIME.format(date(seconds))}`);

/** The time, with the day where it is not today. */
export function recentTime(seconds) {
  if (seconds == null) return "";
  const today = new Date().toDateString() === date(seconds).toDateString();
  return today ? timeOf(seconds) : `${SHORT_DAY.format(date(seconds))} ${timeOf(seconds)}`;
}

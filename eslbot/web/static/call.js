// The view of one call: its facts, its timeline, its recording, the notifications, and every fact as a table.

import { getJson } from "./api.js";
import { byId, el, setChildren } from "./dom.js";
import { Player } from "./player.js";
import { ticks, timelineOf } from "./timeline.js";
import { clock, dayAndTime, endLabel, faultName, duration, notes, outcomeName, recordingSentence, restartText, stageName, timeOf, tone, answerTimes, turnName } from "./labels.js";

/** Milliseconds from a change of the call until it is loaded again, and between two requests while it is recorded. */
const RELOAD_DELAY_MS = 1000;
const RECORDING_INTERVAL_MS = 3000;
const ZOOMS = [1, 2, 4, 8, 16];
const LANES = [
  ["stages", "Stage"],
  ["bot", "Bot speaks"],
  ["caller", "Caller"],
  ["turns", "Turns"],
  ["marks", "Marks"],
  ["ameyo", "Ameyo"],
  ["service", "Service"],
];

export class CallView {
  constructor(now, onError) {
    this.now = now;
    this.onError = onError;
    this.id = null;
    this.zoom = 0;
    this.timer = 0;
    this.mayHear = false;
    this.clearRecording();
  }

  setSession(session) {
    this.mayHear = session.recordings === true;
  }

  show(id) {
    if (id !== this.id) {
      this.zoom = 0;
      this.clearRecording();
      byId("call").replaceChildren(el("p", { class: "quiet" }, "…"));
    }
    this.id = id;
    return this.load();
  }

  hide() {
    this.id = null;
    this.clearRecording();
  }

  clearRecording() {
    this.player?.close();
    clearTimeout(this.recordingTimer);
    this.player = null;
    this.recordingProblem = null;
    this.recordingRequested = false;
  }

  /** Loads the call again, after a delay, if it is one of these. */
  scheduleLoad(ids) {
    if (this.id === null || this.timer || !ids.includes(this.id)) return;
    this.timer = setTimeout(() => {
      this.timer = 0;
      if (this.id !== null) this.load();
    }, RELOAD_DELAY_MS);
  }

  async load() {
    const id = this.id;
    try {
      const details = await getJson(`calls/${encodeURIComponent(id)}`);
      if (id !== this.id) return;
      this.details = details;
      this.draw();
      this.onError(null);
      if (this.mayHear && !this.recordingRequested && (details.timeline ?? []).some((fact) => fact.what === "recording_begun")) this.loadRecording();
    } catch (error) {
      if (id !== this.id) return;
      if (error.error === "unknown_call") byId("call").replaceChildren(back(), el("p", { class: "quiet" }, error.message));
      else this.onError(error);
    }
  }

  /** Loads the recording; again and again while the call is recorded. */
  async loadRecording() {
    const id = this.id;
    this.recordingRequested = true;
    let repeat = true;
    try {
      const recording = await getJson(`calls/${encodeURIComponent(id)}/recording`);
      if (id !== this.id) return;
      this.player ??= new Player(() => this.loadRecording());
      this.player.setRecording(recording);
      this.recordingProblem = recording.problem;
      repeat = recording.state === "recording";
    } catch (error) {
      if (id !== this.id) return;
      this.recordingProblem = [error.message, error.remedy].filter(Boolean).join(" ");
      repeat = error.error === "no_answer" || error.error === "busy";
    }
    this.draw();
    clearTimeout(this.recordingTimer);
    if (repeat) this.recordingTimer = setTimeout(() => this.id === id && this.loadRecording(), RECORDING_INTERVAL_MS);
  }

  draw() {
    const { call } = this.details;
    const timeline = this.details.timeline ?? [];
    const notifications = this.details.notifications ?? [];
    const focused = document.activeElement?.closest("#call [data-keep]")?.dataset.keep;
    const scrolled = byId("call").querySelector(".scroll")?.scrollLeft ?? 0;
    const open = (part) => byId("call").querySelector(`[data-keep="${part}"]`)?.parentElement.open ?? false;
    const [turnsOpen, eventsOpen] = [open("turns"), open("events")];
    const turns = this.details.turns ?? [];
    const picture = timelineOf(call, timeline, notifications, this.now(), turns);
    setChildren(
      byId("call"),
      back(),
      el(
        "header",
        { class: "call-head", "data-tone": tone(call) },
        el("h2", {}, call.crt_object_id ?? call.call_id),
        el("p", {}, el("span", { class: "stage", id: "call-ending" }, endLabel(call)), " ", el("span", {}, notes(call))),
        this.details.ended_because ? el("p", { id: "call-why" }, this.details.ended_because) : null,
        call.reason ? el("p", { class: "reason" }, el("b", {}, "Reason: "), el("q", {}, call.reason)) : null,
      ),
      this.figure(picture, call, notifications),
      this.player?.controls,
      this.recordingProblem ? el("p", { class: "quiet", id: "recording-problem" }, `Recording: ${this.recordingProblem}`) : null,
      factsOf(call, picture, this.details.quality),
      turnsOf(turns, call, turnsOpen),
      attemptsOf(notifications, call),
      eventsOf(timeline, call, eventsOpen),
    );
    byId("call").querySelector(".scroll").scrollLeft = scrolled;
    if (focused) byId("call").querySelector(`[data-keep="${CSS.escape(focused)}"]`)?.focus();
  }

  figure(picture, call, notifications) {
    const took = picture.end - picture.begin;
    const seconds = Math.max(took, 0.001); // the width of the picture
    const width = ZOOMS[this.zoom];
    const place = (node, from, to) => {
      node.style.left = `${(100 * (from - picture.begin)) / seconds}%`;
      if (to !== undefined) node.style.width = `${(100 * (to - from)) / seconds}%`;
      return node;
    };
    const at = (time) => `+${duration(time - picture.begin)}`;
    const bar = (kind, { from, to }, text) =>
      place(el("span", { class: `bar ${kind}`, title: `${text}, ${at(from)}, for ${duration(to - from)}` }), from, to);
    const tracks = {
      stages: picture.stages.map((one) => {
        const node = bar("stage-bar", one, stageName(one.stage));
        node.dataset.stage = one.stage;
        if ((one.to - one.from) / seconds > 0.09 / width) node.append(el("span", {}, stageName(one.stage)));
        return node;
      }),
      bot: picture.bot.map((one) => bar(one.cut ? "bot cut" : "bot", one, one.cut ? "Bot speaks, cut off" : "Bot speaks")),
      caller: picture.caller.map((one) => bar("caller", one, "Caller speaks")),
      turns: picture.turns.map((one) => {
        const node = bar(`turn ${one.kind}`, one, one.text);
        if ((one.to - one.from) / seconds > 0.05 / width) node.append(el("span", {}, duration(one.to - one.from)));
        return node;
      }),
      marks: [],
      ameyo: picture.attempts.map((one) => {
        const node = bar("attempt", one, `Attempt ${one.number}: ${one.verdict}`);
        node.dataset.verdict = one.verdict;
        return node;
      }),
      service: picture.away.map((one) => bar("away", one, "Without FreeSWITCH")),
    };
    for (const point of picture.points) {
      tracks[point.lane].push(place(el("span", { class: "point", "data-kind": point.kind, title: `${point.text}, ${at(point.at)}` }), point.at));
    }
    const axis = ticks(seconds, 8 * width).filter((tick) => tick < 0.95 * seconds || tick === 0).map((tick) => place(el("span", { class: "tick" }, tick < 10 && seconds < 10 ? `${tick} s` : clock(tick)), picture.begin + tick));
    const lanes = el(
      "div",
      { class: "lanes", role: "img", "aria-label": textOf(picture, notifications) },
      ...LANES.filter(([lane]) => lane === "stages" || tracks[lane].length > 0).map(([lane, name]) =>
        el("div", { class: `lane lane-${lane}` }, el("span", { class: "lane-name" }, name), el("div", { class: "track" }, ...tracks[lane])),
      ),
      el("div", { class: "lane lane-axis" }, el("span", { class: "lane-name" }), el("div", { class: "track" }, ...axis)),
    );
    this.player?.place(picture.begin, picture.begin + seconds);
    const strip = el("div", { class: "strip" }, lanes, this.player?.lanes, this.player?.cursor);
    strip.style.minWidth = `${100 * width}%`;
    const zoom = (by) => () => {
      this.zoom = Math.min(ZOOMS.length - 1, Math.max(0, this.zoom + by));
      this.draw();
    };
    return el(
      "figure",
      { class: "timeline" },
      el(
        "figcaption",
        {},
        `INVITE ${timeOf(call.invited_at)} → ${picture.live ? "now" : call.stage === "refused" ? "refused" : `BYE ${timeOf(call.ended_at)}`}, ${duration(took)} `,
        el("span", { class: "zoom" },
          el("button", { type: "button", class: "plain", "data-keep": "out", "aria-label": "Zoom out", onclick: zoom(-1), "aria-disabled": this.zoom === 0 ? "true" : null }, "−"),
          el("button", { type: "button", class: "plain", "data-keep": "in", "aria-label": "Zoom in", onclick: zoom(1), "aria-disabled": this.zoom === ZOOMS.length - 1 ? "true" : null }, "+"),
        ),
      ),
      el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Timeline", "data-keep": "scroll" }, strip),
      picture.points.some((point) => point.lane === "caller")
        ? el("p", { class: "key" }, el("span", { "data-kind": "cleared" }, "the caller broke in"), el("span", { "data-kind": "key" }, "a key was pressed"))
        : null,
    );
  }
}

const back = () => el("p", {}, el("a", { href: "#/", onclick: goBack }, "← Back"));

function goBack(event) {
  if (history.length > 1 && document.body.dataset.came) {
    event.preventDefault();
    history.back();
  }
}

/** The picture in a sentence, for screen readers. */
function textOf(picture, notifications) {
  const parts = picture.stages.map((one) => `${stageName(one.stage)} ${duration(one.to - one.from)}`);
  if (picture.bot.length > 0) parts.push(`the bot spoke ${picture.bot.length} times`);
  if (picture.turns.length > 0) parts.push(`${picture.turns.length} turns`);
  const restarts = picture.points.filter((point) => point.kind === "switch_restarted").length;
  if (restarts > 0) parts.push(`FreeSWITCH restarted ${restarts === 1 ? "once" : `${restarts} times`}`);
  if (picture.points.some((point) => point.kind === "recording_begun")) parts.push("recorded");
  if (notifications.length > 0) parts.push(`${notifications.length} notifications`);
  return `${parts.join(", ")}. Everything is in the table below.`;
}

function factsOf(call, picture, quality) {
  const since = (time) => (time == null ? null : `${timeOf(time)} (+${duration(time - call.invited_at)})`);
  const stages = picture.stages.filter((one) => one.to > one.from).map((one) => `${stageName(one.stage)} ${duration(one.to - one.from)}`);
  const facts = [
    ["Tenant", call.workspace],
    ["DID", call.did],
    ["Caller", call.caller],
    ["Called", call.called],
    ["PBX's address", call.source],
    ["SIP Call-ID", call.sip_call_id],
    ["Began", dayAndTime(call.invited_at)],
    ["Answered", since(call.answered_at)],
    ["Bot connected", since(call.bot_connected_at)],
    ["Bot first heard", since(call.first_audio_at)],
    ["Bot ended", since(call.bot_ended_at)],
    ["Answers", answerTimes(call) || null],
    ["Barge-ins", call.barge_ins || null],
    ["Ameyo accepted", since(call.handed_off_at)],
    ["Stages", stages.join(", ") || null],
    ["Held until BYE", call.handed_off_at == null ? null : duration((call.ended_at ?? picture.end) - call.handed_off_at)],
    ["Ended", since(call.ended_at)],
    ["Outcome", call.outcome ? outcomeName(call.outcome) : null],
    ["Fault", call.fault ? faultName(call.fault) : null],
    ["Refused", call.refusal ? `${call.refusal_status ?? ""} ${call.refusal}` : null],
    ["Hang-up", [call.sip_hangup_disposition, call.hangup_cause].filter(Boolean).join(", ") || null],
    ["Take-overs", call.take_overs || null],
    ["Recovered", call.restarts > 0 ? restartText(call) : null],
    ["BYE overdue", call.byes_overdue ? `${call.byes_overdue}×` : null],
    ["Audio", quality ? `${quality.word}: ${quality.figures}` : null],
    ["Media", call.media ? pairs(call.media, " ") : null],
    ["Host", call.host],
    ["Call id", call.call_id],
  ];
  return el("dl", { class: "facts" }, ...facts.filter(([, value]) => value != null && value !== "").map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value))));
}

/** Names and values, without those that are not known. */
function pairs(values, between) {
  const known = Object.entries(values ?? {}).filter(([, value]) => value != null && value !== "");
  return known.map(([name, value]) => `${name}${between}${typeof value === "object" ? JSON.stringify(value) : value}`).join(", ");
}

function table(caption, heads, rows) {
  return el(
    "table",
    { class: "plain-table" },
    el("caption", {}, caption),
    el("thead", {}, el("tr", {}, ...heads.map((head) => el("th", { scope: "col" }, head)))),
    el("tbody", {}, ...rows.map((row) => el("tr", {}, ...row.map((value) => el("td", {}, value))))),
  );
}

function turnsOf(turns, call, opened) {
  if (turns.length === 0) return null;
  return el(
    "details",
    { open: opened },
    el("summary", { "data-keep": "turns" }, `Turns (${turns.length})`),
    table(
      "Who waited for whom, measured by eslbot",
      ["After", "Turn", "Took", "Of it the bot"],
      turns.map((one) => [`+${duration(one.at - one.seconds - call.invited_at)}`, turnName(one), duration(one.seconds), duration(one.bot) || "–"]),
    ),
  );
}

function attemptsOf(notifications, call) {
  if (notifications.length === 0) return null;
  return table(
    "Notifications to Ameyo",
    ["#", "After", "Verdict", "Status", "Took", "Answer"],
    notifications.map((one) => [
      String(one.number),
      `+${duration(one.began_at - call.invited_at)}`,
      el("span", { class: "verdict", "data-verdict": one.verdict ?? "unknown" }, one.verdict ?? "not known"),
      one.status ?? "–",
      duration(one.seconds) || "–",
      [one.detail, one.sent_by ? `sent by ${one.sent_by}` : null].filter(Boolean).join(" · "),
    ]),
  );
}

function eventsOf(timeline, call, opened) {
  const rows = timeline.map((fact) => [`+${duration(fact.at - call.invited_at)}`, recordingSentence(fact) || String(fact.what).replaceAll("_", " "), pairs(fact.facts, ": ")]);
  return el("details", { open: opened }, el("summary", { "data-keep": "events" }, `Everything that happened (${rows.length})`), table("Facts", ["After", "What", ""], rows));
}

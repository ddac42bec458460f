// One call: its facts, its timeline drawn, the notifications, and every fact as a table.

import { ask } from "./api.js";
import { byId, el, fill } from "./dom.js";
import { Player } from "./player.js";
import { story, ticks } from "./story.js";
import { clock, dayAndTime, ending, faultName, lasting, notes, outcomeName, recordingSentence, restarted, stageName, timeOf, tone, answers, turnName } from "./words.js";

/** Milliseconds between two askings because the call changed; and whether its recording is over. */
const PATIENCE = 1000;
const RECORDED = 3000;
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
  constructor(now, failed) {
    this.now = now;
    this.failed = failed;
    this.id = null;
    this.zoom = 0;
    this.timer = 0;
    this.mayHear = false;
    this.forget();
  }

  /** What this session may do. */
  offer(session) {
    this.mayHear = session.recordings === true;
  }

  show(id) {
    if (id !== this.id) {
      this.zoom = 0;
      this.forget();
      byId("call").replaceChildren(el("p", { class: "quiet" }, "…"));
    }
    this.id = id;
    return this.load();
  }

  hide() {
    this.id = null;
    this.forget();
  }

  /** Of the recording. */
  forget() {
    this.player?.close();
    clearTimeout(this.recordingTimer);
    this.player = null;
    this.recordingProblem = null;
    this.asked = false;
  }

  /** It changed. */
  soon(ids) {
    if (this.id === null || this.timer || !ids.includes(this.id)) return;
    this.timer = setTimeout(() => {
      this.timer = 0;
      if (this.id !== null) this.load();
    }, PATIENCE);
  }

  async load() {
    const id = this.id;
    try {
      const told = await ask(`calls/${encodeURIComponent(id)}`);
      if (id !== this.id) return;
      this.told = told;
      this.draw();
      this.failed(null);
      if (this.mayHear && !this.asked && (told.timeline ?? []).some((fact) => fact.what === "recording_begun")) this.loadRecording();
    } catch (error) {
      if (id !== this.id) return;
      if (error.error === "unknown_call") byId("call").replaceChildren(back(), el("p", { class: "quiet" }, error.message));
      else this.failed(error);
    }
  }

  /** What there is to be heard; while it is being recorded, again and again. */
  async loadRecording() {
    const id = this.id;
    this.asked = true;
    let again = true;
    try {
      const recording = await ask(`calls/${encodeURIComponent(id)}/recording`);
      if (id !== this.id) return;
      this.player ??= new Player(() => this.loadRecording());
      this.player.take(recording);
      this.recordingProblem = recording.problem;
      again = recording.state === "recording";
    } catch (error) {
      if (id !== this.id) return;
      this.recordingProblem = [error.message, error.remedy].filter(Boolean).join(" ");
      again = error.error === "no_answer" || error.error === "busy";
    }
    this.draw();
    clearTimeout(this.recordingTimer);
    if (again) this.recordingTimer = setTimeout(() => this.id === id && this.loadRecording(), RECORDED);
  }

  draw() {
    const { call } = this.told;
    const timeline = this.told.timeline ?? [];
    const notifications = this.told.notifications ?? [];
    const held = document.activeElement?.closest("#call [data-keep]")?.dataset.keep;
    const scrolled = byId("call").querySelector(".scroll")?.scrollLeft ?? 0;
    const open = (part) => byId("call").querySelector(`[data-keep="${part}"]`)?.parentElement.open ?? false;
    const [turnsOpen, eventsOpen] = [open("turns"), open("events")];
    const turns = this.told.turns ?? [];
    const told = story(call, timeline, notifications, this.now(), turns);
    fill(
      byId("call"),
      back(),
      el(
        "header",
        { class: "call-head", "data-tone": tone(call) },
        el("h2", {}, call.crt_object_id ?? call.call_id),
        el("p", {}, el("span", { class: "stage", id: "call-ending" }, ending(call)), " ", el("span", {}, notes(call))),
        this.told.ended_because ? el("p", { id: "call-why" }, this.told.ended_because) : null,
        call.reason ? el("p", { class: "reason" }, el("b", {}, "Reason: "), el("q", {}, call.reason)) : null,
      ),
      this.figure(told, call, notifications),
      this.player?.controls,
      this.recordingProblem ? el("p", { class: "quiet", id: "recording-problem" }, `Recording: ${this.recordingProblem}`) : null,
      factsOf(call, told, this.told.quality),
      turnsOf(turns, call, turnsOpen),
      attemptsOf(notifications, call),
      eventsOf(timeline, call, eventsOpen),
    );
    byId("call").querySelector(".scroll").scrollLeft = scrolled;
    if (held) byId("call").querySelector(`[data-keep="${CSS.escape(held)}"]`)?.focus();
  }

  figure(told, call, notifications) {
    const took = told.end - told.begin;
    const seconds = Math.max(took, 0.001); // what the picture is as wide as
    const width = ZOOMS[this.zoom];
    const place = (node, from, to) => {
      node.style.left = `${(100 * (from - told.begin)) / seconds}%`;
      if (to !== undefined) node.style.width = `${(100 * (to - from)) / seconds}%`;
      return node;
    };
    const at = (time) => `+${lasting(time - told.begin)}`;
    const bar = (kind, { from, to }, text) =>
      place(el("span", { class: `bar ${kind}`, title: `${text}, ${at(from)}, for ${lasting(to - from)}` }), from, to);
    const tracks = {
      stages: told.stages.map((one) => {
        const node = bar("stage-bar", one, stageName(one.stage));
        node.dataset.stage = one.stage;
        if ((one.to - one.from) / seconds > 0.09 / width) node.append(el("span", {}, stageName(one.stage)));
        return node;
      }),
      bot: told.bot.map((one) => bar(one.cut ? "bot cut" : "bot", one, one.cut ? "Bot speaks, cut off" : "Bot speaks")),
      caller: told.caller.map((one) => bar("caller", one, "Caller speaks")),
      turns: told.turns.map((one) => {
        const node = bar(`turn ${one.kind}`, one, one.text);
        if ((one.to - one.from) / seconds > 0.05 / width) node.append(el("span", {}, lasting(one.to - one.from)));
        return node;
      }),
      marks: [],
      ameyo: told.attempts.map((one) => {
        const node = bar("attempt", one, `Attempt ${one.number}: ${one.verdict}`);
        node.dataset.verdict = one.verdict;
        return node;
      }),
      service: told.away.map((one) => bar("away", one, "Without FreeSWITCH")),
    };
    for (const point of told.points) {
      tracks[point.lane].push(place(el("span", { class: "point", "data-kind": point.kind, title: `${point.text}, ${at(point.at)}` }), point.at));
    }
    const axis = ticks(seconds, 8 * width).filter((tick) => tick < 0.95 * seconds || tick === 0).map((tick) => place(el("span", { class: "tick" }, tick < 10 && seconds < 10 ? `${tick} s` : clock(tick)), told.begin + tick));
    const lanes = el(
      "div",
      { class: "lanes", role: "img", "aria-label": saidOf(told, notifications) },
      ...LANES.filter(([lane]) => lane === "stages" || tracks[lane].length > 0).map(([lane, name]) =>
        el("div", { class: `lane lane-${lane}` }, el("span", { class: "lane-name" }, name), el("div", { class: "track" }, ...tracks[lane])),
      ),
      el("div", { class: "lane lane-axis" }, el("span", { class: "lane-name" }), el("div", { class: "track" }, ...axis)),
    );
    this.player?.place(told.begin, told.begin + seconds);
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
        `INVITE ${timeOf(call.invited_at)} → ${told.live ? "now" : call.stage === "refused" ? "refused" : `BYE ${timeOf(call.ended_at)}`}, ${lasting(took)} `,
        el("span", { class: "zoom" },
          el("button", { type: "button", class: "plain", "data-keep": "out", "aria-label": "Zoom out", onclick: zoom(-1), "aria-disabled": this.zoom === 0 ? "true" : null }, "−"),
          el("button", { type: "button", class: "plain", "data-keep": "in", "aria-label": "Zoom in", onclick: zoom(1), "aria-disabled": this.zoom === ZOOMS.length - 1 ? "true" : null }, "+"),
        ),
      ),
      el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Timeline", "data-keep": "scroll" }, strip),
      told.points.some((point) => point.lane === "caller")
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

/** The picture in a sentence, for who does not see it. */
function saidOf(told, notifications) {
  const parts = told.stages.map((one) => `${stageName(one.stage)} ${lasting(one.to - one.from)}`);
  if (told.bot.length > 0) parts.push(`the bot spoke ${told.bot.length} times`);
  if (told.turns.length > 0) parts.push(`${told.turns.length} turns`);
  const restarts = told.points.filter((point) => point.kind === "switch_restarted").length;
  if (restarts > 0) parts.push(`FreeSWITCH restarted ${restarts === 1 ? "once" : `${restarts} times`}`);
  if (told.points.some((point) => point.kind === "recording_begun")) parts.push("recorded");
  if (notifications.length > 0) parts.push(`${notifications.length} notifications`);
  return `${parts.join(", ")}. Everything is in the table below.`;
}

function factsOf(call, told, quality) {
  const since = (time) => (time == null ? null : `${timeOf(time)} (+${lasting(time - call.invited_at)})`);
  const stages = told.stages.filter((one) => one.to > one.from).map((one) => `${stageName(one.stage)} ${lasting(one.to - one.from)}`);
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
    ["Answers", answers(call) || null],
    ["Barge-ins", call.barge_ins || null],
    ["Ameyo accepted", since(call.handed_off_at)],
    ["Stages", stages.join(", ") || null],
    ["Held until BYE", call.handed_off_at == null ? null : lasting((call.ended_at ?? told.end) - call.handed_off_at)],
    ["Ended", since(call.ended_at)],
    ["Outcome", call.outcome ? outcomeName(call.outcome) : null],
    ["Fault", call.fault ? faultName(call.fault) : null],
    ["Refused", call.refusal ? `${call.refusal_status ?? ""} ${call.refusal}` : null],
    ["Hang-up", [call.sip_hangup_disposition, call.hangup_cause].filter(Boolean).join(", ") || null],
    ["Take-overs", call.take_overs || null],
    ["Recovered", call.restarts > 0 ? restarted(call) : null],
    ["BYE overdue", call.byes_overdue ? `${call.byes_overdue}×` : null],
    ["Audio", quality ? `${quality.word}: ${quality.figures}` : null],
    ["Media", call.media ? said(call.media, " ") : null],
    ["Host", call.host],
    ["Call id", call.call_id],
  ];
  return el("dl", { class: "facts" }, ...facts.filter(([, value]) => value != null && value !== "").map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value))));
}

/** Names and values; what is not known is not said. */
function said(values, between) {
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
      turns.map((one) => [`+${lasting(one.at - one.seconds - call.invited_at)}`, turnName(one), lasting(one.seconds), lasting(one.bot) || "–"]),
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
      `+${lasting(one.began_at - call.invited_at)}`,
      el("span", { class: "verdict", "data-verdict": one.verdict ?? "unknown" }, one.verdict ?? "not known"),
      one.status ?? "–",
      lasting(one.seconds) || "–",
      [one.detail, one.sent_by ? `sent by ${one.sent_by}` : null].filter(Boolean).join(" · "),
    ]),
  );
}

function eventsOf(timeline, call, opened) {
  const rows = timeline.map((fact) => [`+${lasting(fact.at - call.invited_at)}`, recordingSentence(fact) || String(fact.what).replaceAll("_", " "), said(fact.facts, ": ")]);
  return el("details", { open: opened }, el("summary", { "data-keep": "events" }, `Everything that happened (${rows.length})`), table("Facts", ["After", "What", ""], rows));
}

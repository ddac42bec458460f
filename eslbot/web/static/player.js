// A call's recording: heard part by part, and seen on the axis of the call's timeline.
//
// A moment is epoch seconds, as on the timeline. Each part has an <audio>, which asks for its sound piece by piece; what
// lies between two parts is silence, for as long as it was, or GAP. The nodes outlive each drawing of the call: it changes
// while somebody listens.

import { el, fill, mark, write } from "./dom.js";
import { clock, lasting } from "./words.js";
import { waveform } from "./waveform.js";

/** Seconds that a silence between two parts lasts at most; what was skipped is seen. */
const GAP = 5;
/** Milliseconds between two movements of the cursor. */
const PACE = 50;
/** Seconds that a key goes on or back. */
const STEPS = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1, PageUp: 10, PageDown: -10 };
const SIDES = [
  ["caller", "Sound: caller"],
  ["bot", "Sound: bot"],
];

export class Player {
  /** `failed(part)`: its sound could not be had, or is none. */
  constructor(failed) {
    this.failed = failed;
    this.parts = [];
    this.at = null;
    this.playing = false;
    this.dragging = false;
    this.active = null;
    this.timer = 0;
    this.button = el("button", { type: "button", "data-keep": "play", onclick: () => this.toggle() }, "Play");
    this.where = el("span", { class: "player-where" });
    this.says = el("p", { class: "player-says", role: "status" });
    this.refused = el("ul", { class: "player-refused" });
    this.audios = el("div", { hidden: true });
    this.controls = el("div", { class: "player", role: "group", "aria-label": "Recording" }, this.button, this.where, this.says, this.refused, this.audios);
    this.tracks = Object.fromEntries(SIDES.map(([side]) => [side, el("div", { class: "track" })]));
    this.slider = el("div", {
      class: "track slider",
      role: "slider",
      tabindex: "0",
      "aria-label": "Place in the recording",
      "data-keep": "slider",
      onkeydown: (event) => this.key(event),
      onpointerdown: (event) => this.grab(event),
    });
    this.lanes = el(
      "div",
      { class: "sound" },
      ...SIDES.map(([side, name]) => el("div", { class: "lane lane-sound" }, el("span", { class: "lane-name" }, name), this.tracks[side])),
      el("div", { class: "lane over" }, el("span"), this.slider),
    );
    this.line = el("span", { class: "cursor" });
    this.cursor = el("div", { class: "lane over", "aria-hidden": "true" }, el("span"), el("div", { class: "track" }, this.line));
  }

  /** What there is, as the service has told it; where it is the same as before nothing is begun anew. */
  take(recording) {
    const known = JSON.stringify(recording.parts.map((part) => [part.number, part.began_at, part.seconds, part.sound]));
    this.recording = recording;
    fill(this.refused, ...recording.parts.filter((part) => part.refused).map((part) => this.refusal(part)));
    if (known === this.known) return;
    this.known = known;
    this.close();
    this.at = null;
    this.active = null;
    this.parts = recording.parts.map((part) => ({ ...part, from: part.began_at, audio: null }));
    this.heard = this.parts.filter((part) => part.sound !== null);
    this.audios.replaceChildren();
    for (const part of this.heard) {
      part.audio = el("audio", { preload: "none", src: part.sound, "data-part": part.number });
      part.audio.addEventListener("ended", () => this.over(part));
      part.audio.addEventListener("error", () => this.broken(part));
      this.audios.append(part.audio);
    }
    if (this.heard.length > 0) this.heard[0].audio.preload = "metadata";
    for (const [side] of SIDES) {
      for (const part of this.parts) if (part.peaks) part[side] = waveform(part.peaks[side], side);
      this.tracks[side].replaceChildren(...this.parts.map((part) => part[side] ?? (part[side] = el("span", { class: "wave none" }))));
      for (const part of this.parts) part[side].toggleAttribute("data-silent", part.sound === null);
    }
    this.button.disabled = this.heard.length === 0;
    mark(this.slider, "aria-disabled", this.heard.length === 0 ? "true" : null);
  }

  refusal(part) {
    const { problem, remedy } = part.refused;
    return el("li", {}, this.recording.parts.length > 1 ? el("b", {}, `Part ${part.number}: `) : null, problem, remedy ? ` ${remedy}` : null);
  }

  /** On an axis from `begin` to `end`. */
  place(begin, end) {
    [this.begin, this.end] = [begin, end];
    const seconds = Math.max(end - begin, 0.001);
    this.parts.forEach((part, index) => {
      const next = this.parts[index + 1]?.from ?? Math.max(end, part.from);
      part.to = part.seconds === null ? Math.max(part.from, next) : part.from + part.seconds;
      for (const [side] of SIDES) {
        part[side].style.left = `${(100 * (part.from - begin)) / seconds}%`;
        part[side].style.width = `${(100 * (part.to - part.from)) / seconds}%`;
      }
    });
    if (this.at === null && this.heard.length > 0) this.at = this.heard[0].from;
    this.show();
  }

  // -- playing --------------------------------------------------------------------------------------------------------------

  toggle() {
    if (this.playing) this.stop();
    else this.play();
  }

  play() {
    if (this.heard.length === 0) return;
    if (this.at >= this.heard.at(-1).to - 0.05) this.at = this.heard[0].from;
    this.playing = true;
    write(this.button, "Pause");
    write(this.says, "");
    this.goTo(this.at);
    this.ticked = performance.now();
    clearInterval(this.timer);
    this.timer = setInterval(() => this.tick(), PACE);
  }

  stop() {
    this.playing = false;
    clearInterval(this.timer);
    write(this.button, "Play");
    this.active?.audio.pause();
  }

  /** It is not looked at any more. */
  close() {
    this.stop();
    for (const audio of this.audios.children) {
      audio.removeAttribute("src");
      audio.load();
    }
  }

  /** To a moment: within a part, or in the silence before one. */
  goTo(moment) {
    if (this.heard.length === 0) return;
    this.at = Math.min(Math.max(moment, this.heard[0].from), this.heard.at(-1).to);
    const part = this.heard.findLast((one) => one.from <= this.at && this.at < one.to) ?? null;
    if (part !== this.active) this.active?.audio.pause();
    this.active = part;
    if (part !== null) {
      if (part.audio.error) part.audio.load();
      if (Math.abs(part.audio.currentTime - (this.at - part.from)) > 0.01) part.audio.currentTime = this.at - part.from;
      const next = this.heard[this.heard.indexOf(part) + 1];
      if (next && this.playing) next.audio.preload = "auto";
      // It rejects where it is paused before it has begun, which is no fault; what is one comes as an event.
      if (this.playing) part.audio.play().catch((error) => (error.name === "NotAllowedError" ? this.stop() : null));
    }
    this.show();
  }

  /** A part has ended: what comes is the silence behind it, or nothing. */
  over(part) {
    if (part !== this.active) return;
    if (part.seconds === null) part.to = part.from + part.audio.currentTime;
    this.active = null;
    const next = this.heard[this.heard.indexOf(part) + 1];
    this.at = Math.min(part.to, next?.from ?? part.to); // parts of two relays may overlap by milliseconds
    if (next === undefined) this.stop();
    this.show();
  }

  broken(part) {
    this.stop();
    if (part === this.active) this.active = null;
    write(this.says, `The sound of part ${part.number} cannot be had, or not be played (${part.audio.error?.message || "no reason is told"}).`);
    this.failed(part);
  }

  tick() {
    const now = performance.now();
    const passed = (now - this.ticked) / 1000;
    this.ticked = now;
    if (this.dragging) return;
    if (this.active !== null) {
      this.at = this.active.from + this.active.audio.currentTime;
      this.follow();
    } else {
      const next = this.heard.find((part) => part.from >= this.at);
      if (next === undefined) {
        this.stop();
        return;
      }
      this.at = Math.max(this.at + passed, next.from - GAP);
      if (this.at >= next.from) this.goTo(next.from);
    }
    this.show();
  }

  // -- where it is ----------------------------------------------------------------------------------------------------------

  show() {
    this.line.hidden = this.at === null;
    if (this.at === null) {
      write(this.where, "");
      return;
    }
    const seconds = Math.max(this.end - this.begin, 0.001);
    this.line.style.left = `${(100 * (this.at - this.begin)) / seconds}%`;
    const first = this.heard[0];
    const last = this.heard.at(-1);
    const of = (moment) => Math.max(0, Math.round(100 * (moment - this.begin)) / 100);
    const parts = this.heard.length > 1 ? `, ${this.heard.length} parts` : "";
    write(this.where, `at +${clock(this.at - this.begin)}; recorded from +${clock(first.from - this.begin)} to +${clock(last.to - this.begin)}${parts}`);
    mark(this.slider, "aria-valuemin", String(of(first.from)));
    mark(this.slider, "aria-valuemax", String(of(last.to)));
    mark(this.slider, "aria-valuenow", String(of(this.at)));
    const part = this.heard.findLast((one) => one.from <= this.at && this.at <= one.to);
    mark(this.slider, "aria-valuetext", `${lasting(of(this.at))} after the INVITE${part ? (parts ? `, part ${part.number}` : "") : ", between two parts"}`);
  }

  /** Have the cursor in sight where the timeline is wider than its place. */
  follow() {
    const box = this.lanes.closest(".scroll");
    if (box === null || box.scrollWidth <= box.clientWidth) return;
    const line = this.line.getBoundingClientRect();
    const seen = box.getBoundingClientRect();
    if (line.left > seen.right - 20 || line.left < seen.left + 100) box.scrollLeft += line.left - seen.left - 120;
  }

  key(event) {
    if (event.ctrlKey || event.altKey || event.metaKey || this.heard.length === 0) return;
    if (event.key === " " || event.key === "Enter") this.toggle();
    else if (Object.hasOwn(STEPS, event.key)) this.goTo(this.at + STEPS[event.key]);
    else if (event.key === "Home") this.goTo(this.heard[0].from);
    else if (event.key === "End") this.goTo(this.heard.at(-1).to);
    else return;
    event.preventDefault();
  }

  /** The cursor goes with the pointer; where that is let go, one listens. */
  grab(event) {
    if (event.button !== 0 || this.heard.length === 0) return;
    const box = this.slider.getBoundingClientRect();
    const moment = (one) => this.begin + ((one.clientX - box.left) / Math.max(1, box.width)) * (this.end - this.begin);
    const move = (one) => {
      this.at = Math.min(Math.max(moment(one), this.heard[0].from), this.heard.at(-1).to);
      this.show();
    };
    const over = new AbortController();
    const letGo = (one) => {
      over.abort();
      this.dragging = false;
      if (one.type === "pointerup") this.goTo(moment(one));
    };
    this.dragging = true;
    this.slider.setPointerCapture(event.pointerId);
    this.slider.addEventListener("pointermove", move, { signal: over.signal });
    for (const end of ["pointerup", "pointercancel"]) this.slider.addEventListener(end, letGo, { signal: over.signal });
    move(event);
  }
}

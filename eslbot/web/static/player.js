// Plays a call's recording part by part, and shows it on the axis of the call's timeline.
//
// Times are epoch seconds, as on the timeline. Each part has an <audio>, which loads its sound by ranges. Between two parts
// there is silence, for as long as it was or MAX_GAP_S. The nodes are kept when the call is drawn again: it changes while
// somebody listens.

import { el, setChildren, setAttr, setText } from "./dom.js";
import { clock, duration } from "./labels.js";
import { waveform } from "./waveform.js";

/** Seconds of silence between two parts that are played at most; the rest is skipped. */
const MAX_GAP_S = 5;
/** Milliseconds between two movements of the cursor. */
const CURSOR_INTERVAL_MS = 50;
/** Seconds by which a key moves the cursor. */
const KEY_STEPS_S = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1, PageUp: 10, PageDown: -10 };
const SIDES = [
  ["caller", "Sound: caller"],
  ["bot", "Sound: bot"],
];

export class Player {
  /** `onBroken()`: a part's sound could not be loaded or played. */
  constructor(onBroken) {
    this.onBroken = onBroken;
    this.parts = [];
    this.at = null;
    this.playing = false;
    this.dragging = false;
    this.active = null;
    this.timer = 0;
    this.button = el("button", { type: "button", "data-keep": "play", onclick: () => this.toggle() }, "Play");
    this.position = el("span", { class: "player-where" });
    this.status = el("p", { class: "player-says", role: "status" });
    this.refused = el("ul", { class: "player-refused" });
    this.audios = el("div", { hidden: true });
    this.controls = el("div", { class: "player", role: "group", "aria-label": "Recording" }, this.button, this.position, this.status, this.refused, this.audios);
    this.tracks = Object.fromEntries(SIDES.map(([side]) => [side, el("div", { class: "track" })]));
    this.slider = el("div", {
      class: "track slider",
      role: "slider",
      tabindex: "0",
      "aria-label": "Place in the recording",
      "data-keep": "slider",
      onkeydown: (event) => this.key(event),
      onpointerdown: (event) => this.drag(event),
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

  /** Shows a recording; nothing starts anew where it is the same as before. */
  setRecording(recording) {
    const key = JSON.stringify(recording.parts.map((part) => [part.number, part.began_at, part.seconds, part.sound]));
    this.recording = recording;
    setChildren(this.refused, ...recording.parts.filter((part) => part.refused).map((part) => this.refusal(part)));
    if (key === this.shownKey) return;
    this.shownKey = key;
    this.close();
    this.at = null;
    this.active = null;
    this.parts = recording.parts.map((part) => ({ ...part, from: part.began_at, audio: null }));
    this.playable = this.parts.filter((part) => part.sound !== null);
    this.audios.replaceChildren();
    for (const part of this.playable) {
      part.audio = el("audio", { preload: "none", src: part.sound, "data-part": part.number });
      part.audio.addEventListener("ended", () => this.partEnded(part));
      part.audio.addEventListener("error", () => this.broken(part));
      this.audios.append(part.audio);
    }
    if (this.playable.length > 0) this.playable[0].audio.preload = "metadata";
    for (const [side] of SIDES) {
      for (const part of this.parts) if (part.peaks) part[side] = waveform(part.peaks[side], side);
      this.tracks[side].replaceChildren(...this.parts.map((part) => part[side] ?? (part[side] = el("span", { class: "wave none" }))));
      for (const part of this.parts) part[side].toggleAttribute("data-silent", part.sound === null);
    }
    this.button.disabled = this.playable.length === 0;
    setAttr(this.slider, "aria-disabled", this.playable.length === 0 ? "true" : null);
  }

  refusal(part) {
    const { problem, remedy } = part.refused;
    return el("li", {}, this.recording.parts.length > 1 ? el("b", {}, `Part ${part.number}: `) : null, problem, remedy ? ` ${remedy}` : null);
  }

  /** Places the parts on an axis from `begin` to `end`. */
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
    if (this.at === null && this.playable.length > 0) this.at = this.playable[0].from;
    this.show();
  }

  // -- playing --------------------------------------------------------------------------------------------------------------

  toggle() {
    if (this.playing) this.stop();
    else this.play();
  }

  play() {
    if (this.playable.length === 0) return;
    if (this.at >= this.playable.at(-1).to - 0.05) this.at = this.playable[0].from;
    this.playing = true;
    setText(this.button, "Pause");
    setText(this.status, "");
    this.goTo(this.at);
    this.ticked = performance.now();
    clearInterval(this.timer);
    this.timer = setInterval(() => this.tick(), CURSOR_INTERVAL_MS);
  }

  stop() {
    this.playing = false;
    clearInterval(this.timer);
    setText(this.button, "Play");
    this.active?.audio.pause();
  }

  /** Stops, and loads nothing more. */
  close() {
    this.stop();
    for (const audio of this.audios.children) {
      audio.removeAttribute("src");
      audio.load();
    }
  }

  /** Goes to a time: within a part, or in the silence before one. */
  goTo(time) {
    if (this.playable.length === 0) return;
    this.at = Math.min(Math.max(time, this.playable[0].from), this.playable.at(-1).to);
    const part = this.playable.findLast((one) => one.from <= this.at && this.at < one.to) ?? null;
    if (part !== this.active) this.active?.audio.pause();
    this.active = part;
    if (part !== null) {
      if (part.audio.error) part.audio.load();
      if (Math.abs(part.audio.currentTime - (this.at - part.from)) > 0.01) part.audio.currentTime = this.at - part.from;
      const next = this.playable[this.playable.indexOf(part) + 1];
      if (next && this.playing) next.audio.preload = "auto";
      // It rejects when it is paused before it has begun, which is no error; errors come as events.
      if (this.playing) part.audio.play().catch((error) => (error.name === "NotAllowedError" ? this.stop() : null));
    }
    this.show();
  }

  /** A part has ended: now comes the silence after it, or nothing. */
  partEnded(part) {
    if (part !== this.active) return;
    if (part.seconds === null) part.to = part.from + part.audio.currentTime;
    this.active = null;
    const next = this.playable[this.playable.indexOf(part) + 1];
    this.at = Math.min(part.to, next?.from ?? part.to); // parts of two relays may overlap by milliseconds
    if (next === undefined) this.stop();
    this.show();
  }

  broken(part) {
    this.stop();
    if (part === this.active) this.active = null;
    setText(this.status, `The sound of part ${part.number} cannot be had, or not be played (${part.audio.error?.message || "no reason is told"}).`);
    this.onBroken();
  }

  tick() {
    const now = performance.now();
    const passed = (now - this.ticked) / 1000;
    this.ticked = now;
    if (this.dragging) return;
    if (this.active !== null) {
      this.at = this.active.from + this.active.audio.currentTime;
      this.scrollToCursor();
    } else {
      const next = this.playable.find((part) => part.from >= this.at);
      if (next === undefined) {
        this.stop();
        return;
      }
      this.at = Math.max(this.at + passed, next.from - MAX_GAP_S);
      if (this.at >= next.from) this.goTo(next.from);
    }
    this.show();
  }

  // -- where it is ----------------------------------------------------------------------------------------------------------

  show() {
    this.line.hidden = this.at === null;
    if (this.at === null) {
      setText(this.position, "");
      return;
    }
    const seconds = Math.max(this.end - this.begin, 0.001);
    this.line.style.left = `${(100 * (this.at - this.begin)) / seconds}%`;
    const first = this.playable[0];
    const last = this.playable.at(-1);
    const of = (time) => Math.max(0, Math.round(100 * (time - this.begin)) / 100);
    const parts = this.playable.length > 1 ? `, ${this.playable.length} parts` : "";
    setText(this.position, `at +${clock(this.at - this.begin)}; recorded from +${clock(first.from - this.begin)} to +${clock(last.to - this.begin)}${parts}`);
    setAttr(this.slider, "aria-valuemin", String(of(first.from)));
    setAttr(this.slider, "aria-valuemax", String(of(last.to)));
    setAttr(this.slider, "aria-valuenow", String(of(this.at)));
    const part = this.playable.findLast((one) => one.from <= this.at && this.at <= one.to);
    setAttr(this.slider, "aria-valuetext", `${duration(of(this.at))} after the INVITE${part ? (parts ? `, part ${part.number}` : "") : ", between two parts"}`);
  }

  /** Scrolls to the cursor where the timeline is wider than its place. */
  scrollToCursor() {
    const box = this.lanes.closest(".scroll");
    if (box === null || box.scrollWidth <= box.clientWidth) return;
    const line = this.line.getBoundingClientRect();
    const seen = box.getBoundingClientRect();
    if (line.left > seen.right - 20 || line.left < seen.left + 100) box.scrollLeft += line.left - seen.left - 120;
  }

  key(event) {
    if (event.ctrlKey || event.altKey || event.metaKey || this.playable.length === 0) return;
    if (event.key === " " || event.key === "Enter") this.toggle();
    else if (Object.hasOwn(KEY_STEPS_S, event.key)) this.goTo(this.at + KEY_STEPS_S[event.key]);
    else if (event.key === "Home") this.goTo(this.playable[0].from);
    else if (event.key === "End") this.goTo(this.playable.at(-1).to);
    else return;
    event.preventDefault();
  }

  /** The cursor follows the pointer, and the sound goes on where that is released. */
  drag(event) {
    if (event.button !== 0 || this.playable.length === 0) return;
    const box = this.slider.getBoundingClientRect();
    const timeAt = (one) => this.begin + ((one.clientX - box.left) / Math.max(1, box.width)) * (this.end - this.begin);
    const move = (one) => {
      this.at = Math.min(Math.max(timeAt(one), this.playable[0].from), this.playable.at(-1).to);
      this.show();
    };
    const released = new AbortController();
    const release = (one) => {
      released.abort();
      this.dragging = false;
      if (one.type === "pointerup") this.goTo(timeAt(one));
    };
    this.dragging = true;
    this.slider.setPointerCapture(event.pointerId);
    this.slider.addEventListener("pointermove", move, { signal: released.signal });
    for (const end of ["pointerup", "pointercancel"]) this.slider.addEventListener(end, release, { signal: released.signal });
    move(event);
  }
}

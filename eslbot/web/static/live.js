// The live calls. An event only puts its rows into a queue; they are drawn in place, within a frame's budget.

import { byId, el, setAttr, setText } from "./dom.js";
import { RowGroups } from "./row-groups.js";
import { needsSomebody, notes, stageName, stageOrder, durations } from "./labels.js";

/** Milliseconds of a frame for drawing rows, and how many may change (layout comes later); the others wait. */
const FRAME_BUDGET_MS = 6;
const MAX_CHANGES_PER_FRAME = 20;
/** Milliseconds of a frame while the list is still being filled. */
const FIRST_FILL_BUDGET_MS = 24;
/** Milliseconds until a refused stream is tried again, at first and at most. */
const RETRY_MIN_MS = 1000;
const RETRY_MAX_MS = 10000;
/** Milliseconds without any event; the page process sends one every 5 s. */
const SILENCE_TIMEOUT_MS = 15000;
/** Milliseconds for which a hidden page keeps its stream. */
const HIDDEN_TIMEOUT_MS = 10000;

export class LiveView {
  /** `onChange(ids, ended)` gets the ids of calls that changed and whether one ended; `onLink(state, ledger)` the stream's state. */
  constructor(onChange, onLink) {
    this.onChange = onChange;
    this.onLink = onLink;
    /** By call id; `list` has them in the order of their INVITEs, newest first. */
    this.rows = new Map();
    this.list = new RowGroups(byId("live-rows"), (tr) => this.rows.get(tr.dataset.call).row.invited_at, () => this.updateTimes());
    /** Server time less our own, in seconds. */
    this.offset = 0;
    this.pending = new Map();
    this.firstFill = true;
    this.frame = 0;
    this.retry = RETRY_MIN_MS;
    this.source = null;
    this.timer = 0;
    this.counts = new Map();
    for (const stage of stageOrder) {
      const count = el("dd", {}, "0");
      byId("stages").append(el("div", { "data-stage": stage }, el("dt", {}, stageName(stage)), count));
      this.counts.set(stage, count);
    }
    setInterval(() => this.updateTimes(), 1000);
    document.addEventListener("visibilitychange", () => {
      clearTimeout(this.hiding);
      if (!document.hidden) this.open();
      else this.hiding = setTimeout(() => this.close("paused"), HIDDEN_TIMEOUT_MS);
    });
  }

  /** All calls that are up; null while that is not known. */
  calls() {
    return this.source === null || this.firstFill ? null : [...this.rows.values()].map((line) => line.row);
  }

  now() {
    return Date.now() / 1000 + this.offset;
  }

  // -- the stream ----------------------------------------------------------------------------------------

  open() {
    if (this.source !== null) return;
    clearTimeout(this.timer);
    const source = new EventSource("/api/live");
    this.source = source;
    const handler = (apply) => (event) => {
      this.restartSilenceTimer();
      this.retry = RETRY_MIN_MS;
      const message = JSON.parse(event.data);
      this.offset = message.now - Date.now() / 1000;
      apply(message);
      this.onLink(message.ledger.up === false ? "ledger" : "live", message.ledger);
    };
    source.addEventListener("open", () => this.restartSilenceTimer());
    source.addEventListener("live", handler((message) => this.replaceAll(message.live)));
    source.addEventListener("change", handler((message) => this.enqueue(message.changed, message.ended)));
    source.addEventListener("error", () => {
      this.onLink("waiting", null);
      if (source.readyState === EventSource.CLOSED) this.reconnect(); // an answer that was no stream
    });
    this.restartSilenceTimer();
  }

  close(state) {
    this.source?.close();
    this.source = null;
    clearTimeout(this.timer);
    clearTimeout(this.silence);
    this.onLink(state, null);
  }

  reconnect() {
    this.close("waiting");
    this.timer = setTimeout(() => this.open(), this.retry * (0.75 + Math.random() / 2));
    this.retry = Math.min(2 * this.retry, RETRY_MAX_MS);
  }

  /** A connection that died is noticed by its silence. */
  restartSilenceTimer() {
    clearTimeout(this.silence);
    this.silence = setTimeout(() => this.reconnect(), SILENCE_TIMEOUT_MS);
  }

  replaceAll(live) {
    const known = new Set(live.map((row) => row.call_id));
    const gone = [...this.rows.keys()].filter((id) => !known.has(id));
    for (const id of this.pending.keys()) if (!known.has(id)) this.pending.set(id, null);
    live.sort((a, b) => a.invited_at - b.invited_at);
    this.enqueue(live, gone.map((call_id) => ({ call_id })));
    if (this.pending.size === 0) {
      this.firstFill = false; // there are no calls
      this.updateCounts();
    }
  }

  enqueue(changed, ended) {
    for (const row of changed) this.pending.set(row.call_id, row);
    for (const row of ended) this.pending.set(row.call_id, null);
    if (this.pending.size > 0 && this.frame === 0) this.frame = requestAnimationFrame(() => this.draw());
    const ids = [...changed, ...ended].map((row) => row.call_id);
    if (ids.length > 0) this.onChange(ids, ended.length > 0);
  }

  // -- the rows ------------------------------------------------------------------------------------------

  draw() {
    this.frame = 0;
    const until = performance.now() + (this.firstFill ? FIRST_FILL_BUDGET_MS : FRAME_BUDGET_MS);
    let left = MAX_CHANGES_PER_FRAME;
    for (const [id, row] of this.pending) {
      this.pending.delete(id);
      if (this.rows.has(id)) left -= 1;
      if (row === null) this.removeRow(id);
      else this.showRow(row);
      if (left === 0 || performance.now() > until) break;
    }
    if (this.pending.size > 0) this.frame = requestAnimationFrame(() => this.draw());
    else this.firstFill = false;
    this.updateCounts();
  }

  showRow(row) {
    let line = this.rows.get(row.call_id);
    if (line === undefined) {
      line = createRow(row);
      this.rows.set(row.call_id, line);
      this.list.insert(line.tr);
    }
    line.row = row;
    setAttr(line.tr, "data-stage", String(row.stage));
    setText(line.stage, stageName(row.stage));
    setText(line.tenant, row.workspace ?? "");
    setText(line.crt, row.crt_object_id ?? row.call_id);
    setText(line.did, row.did ?? "");
    setText(line.caller, row.caller ?? "");
    setText(line.notes, notes(row));
    setAttr(line.tr, "data-need", needsSomebody(row) ? "" : null);
    setText(line.time, durations(row, this.now()));
  }

  removeRow(id) {
    const line = this.rows.get(id);
    if (line === undefined) return;
    this.list.remove(line.tr);
    this.rows.delete(id);
  }

  updateCounts() {
    const counts = new Map();
    for (const { row } of this.rows.values()) counts.set(row.stage, (counts.get(row.stage) ?? 0) + 1);
    for (const [stage, node] of this.counts) {
      setText(node, String(counts.get(stage) ?? 0));
      setAttr(node.parentElement, "data-none", counts.has(stage) ? null : "");
    }
    setText(byId("live-count"), String(this.rows.size));
    byId("live-none").hidden = this.rows.size > 0 || this.pending.size > 0;
  }

  updateTimes() {
    const now = this.now();
    for (const tr of this.list.inSight()) {
      const line = this.rows.get(tr.dataset.call);
      if (line !== undefined) setText(line.time, durations(line.row, now));
    }
  }
}

function createRow(row) {
  const cell = (name, ...children) => el("td", { role: "cell", class: `c-${name}` }, ...children);
  const stage = el("span", { class: "stage" });
  const crt = el("a", { href: `#/call/${encodeURIComponent(row.call_id)}` });
  const [time, tenant, did, caller, notesCell] = ["time", "tenant", "did", "caller", "notes"].map((name) => cell(name));
  const tr = el("tr", { role: "row", "data-call": row.call_id }, cell("stage", stage), time, tenant, cell("crt", crt), did, caller, notesCell);
  return { row, tr, stage, time, tenant, crt, did, caller, notes: notesCell };
}

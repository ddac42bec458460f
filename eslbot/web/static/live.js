// The live calls. Events only note what changed; rows are changed in place, within a frame's budget.

import { byId, el, mark, write } from "./dom.js";
import { Rows } from "./rows.js";
import { needsSomebody, notes, stageName, stageOrder, upFor } from "./words.js";

/** Milliseconds of a frame that rows may take, and how many may change (their layout comes behind); the others wait. */
const BUDGET = 6;
const ROWS = 20;
/** Milliseconds of a frame where there is nothing to see yet. */
const FILLING = 24;
/** Milliseconds until a stream that was refused is asked for again, at first and at most. */
const RETRY = 1000;
const RETRY_CAP = 10000;
/** Milliseconds without any event or life sign; the worker sends one each 5 s. */
const SILENCE = 15000;
/** Milliseconds that a page nobody looks at keeps its stream. */
const HIDDEN = 10000;

export class Live {
  /** `heard(ended)` is called after a change, with the ids of calls that ended; `linked(state, ledger)` when the link does. */
  constructor(heard, linked) {
    this.heard = heard;
    this.linked = linked;
    /** By call; `list` has them in the order of their INVITEs, the newest first. */
    this.rows = new Map();
    this.list = new Rows(byId("live-rows"), (tr) => this.rows.get(tr.dataset.call).row.invited_at, () => this.tick());
    /** Server time less our own, in seconds. */
    this.offset = 0;
    this.waiting = new Map();
    this.filling = true;
    this.frame = 0;
    this.retry = RETRY;
    this.source = null;
    this.timer = 0;
    this.counts = new Map();
    for (const stage of stageOrder) {
      const count = el("dd", {}, "0");
      byId("stages").append(el("div", { "data-stage": stage }, el("dt", {}, stageName(stage)), count));
      this.counts.set(stage, count);
    }
    setInterval(() => this.tick(), 1000);
    document.addEventListener("visibilitychange", () => {
      clearTimeout(this.hiding);
      if (!document.hidden) this.open();
      else this.hiding = setTimeout(() => this.close("paused"), HIDDEN);
    });
  }

  /** All that are up; null as long as nobody tells. */
  calls() {
    return this.source === null || this.filling ? null : [...this.rows.values()].map((line) => line.row);
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
    const read = (use) => (event) => {
      this.alive();
      this.retry = RETRY;
      const told = JSON.parse(event.data);
      this.offset = told.now - Date.now() / 1000;
      use(told);
      this.linked(told.ledger.up === false ? "ledger" : "live", told.ledger);
    };
    source.addEventListener("open", () => this.alive());
    source.addEventListener("live", read((told) => this.begin(told.live)));
    source.addEventListener("change", read((told) => this.change(told.changed, told.ended)));
    source.addEventListener("error", () => {
      this.linked("waiting", null);
      if (source.readyState === EventSource.CLOSED) this.again(); // an answer that was no stream
    });
    this.alive();
  }

  close(state) {
    this.source?.close();
    this.source = null;
    clearTimeout(this.timer);
    clearTimeout(this.silence);
    this.linked(state, null);
  }

  again() {
    this.close("waiting");
    this.timer = setTimeout(() => this.open(), this.retry * (0.75 + Math.random() / 2));
    this.retry = Math.min(2 * this.retry, RETRY_CAP);
  }

  /** A connection that died without a word is noticed by its silence. */
  alive() {
    clearTimeout(this.silence);
    this.silence = setTimeout(() => this.again(), SILENCE);
  }

  begin(live) {
    const there = new Set(live.map((row) => row.call_id));
    const gone = [...this.rows.keys()].filter((id) => !there.has(id));
    for (const id of this.waiting.keys()) if (!there.has(id)) this.waiting.set(id, null);
    live.sort((a, b) => a.invited_at - b.invited_at);
    this.change(live, gone.map((call_id) => ({ call_id })));
    if (this.waiting.size === 0) {
      this.filling = false; // there is nothing to fill
      this.count();
    }
  }

  change(changed, ended) {
    for (const row of changed) this.waiting.set(row.call_id, row);
    for (const row of ended) this.waiting.set(row.call_id, null);
    if (this.waiting.size > 0 && this.frame === 0) this.frame = requestAnimationFrame(() => this.draw());
    const ids = [...changed, ...ended].map((row) => row.call_id);
    if (ids.length > 0) this.heard(ids, ended.length > 0);
  }

  // -- the rows ------------------------------------------------------------------------------------------

  draw() {
    this.frame = 0;
    const until = performance.now() + (this.filling ? FILLING : BUDGET);
    let left = ROWS;
    for (const [id, row] of this.waiting) {
      this.waiting.delete(id);
      if (this.rows.has(id)) left -= 1;
      if (row === null) this.remove(id);
      else this.put(row);
      if (left === 0 || performance.now() > until) break;
    }
    if (this.waiting.size > 0) this.frame = requestAnimationFrame(() => this.draw());
    else this.filling = false;
    this.count();
  }

  put(row) {
    let line = this.rows.get(row.call_id);
    if (line === undefined) {
      line = makeLine(row);
      this.rows.set(row.call_id, line);
      this.list.insert(line.tr);
    }
    line.row = row;
    mark(line.tr, "data-stage", String(row.stage));
    write(line.stage, stageName(row.stage));
    write(line.tenant, row.workspace ?? "");
    write(line.crt, row.crt_object_id ?? row.call_id);
    write(line.did, row.did ?? "");
    write(line.caller, row.caller ?? "");
    write(line.notes, notes(row));
    mark(line.tr, "data-need", needsSomebody(row) ? "" : null);
    write(line.time, upFor(row, this.now()));
  }

  remove(id) {
    const line = this.rows.get(id);
    if (line === undefined) return;
    this.list.remove(line.tr);
    this.rows.delete(id);
  }

  count() {
    const counts = new Map();
    for (const { row } of this.rows.values()) counts.set(row.stage, (counts.get(row.stage) ?? 0) + 1);
    for (const [stage, node] of this.counts) {
      write(node, String(counts.get(stage) ?? 0));
      mark(node.parentElement, "data-none", counts.has(stage) ? null : "");
    }
    write(byId("live-count"), String(this.rows.size));
    byId("live-none").hidden = this.rows.size > 0 || this.waiting.size > 0;
  }

  tick() {
    const now = this.now();
    for (const tr of this.list.inSight()) {
      const line = this.rows.get(tr.dataset.call);
      if (line !== undefined) write(line.time, upFor(line.row, now));
    }
  }
}

function makeLine(row) {
  const cell = (name, ...children) => el("td", { role: "cell", class: `c-${name}` }, ...children);
  const stage = el("span", { class: "stage" });
  const crt = el("a", { href: `#/call/${encodeURIComponent(row.call_id)}` });
  const [time, tenant, did, caller, noted] = ["time", "tenant", "did", "caller", "notes"].map((name) => cell(name));
  const tr = el("tr", { role: "row", "data-call": row.call_id }, cell("stage", stage), time, tenant, cell("crt", crt), did, caller, noted);
  return { row, tr, stage, time, tenant, crt, did, caller, notes: noted };
}

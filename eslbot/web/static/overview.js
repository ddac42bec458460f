// The first view: how the service is, which calls need somebody, and figures. It is asked every two seconds
// whatever view is shown; where no word comes, the page says so and looks it.

import { Problem, ask } from "./api.js";
import { byId, el, fill, mark, write } from "./dom.js";
import { clock, colourName, componentName, needName, timeOf } from "./words.js";

/** Milliseconds between two askings, for an answer, and without one until what is shown counts as old. */
const EVERY = 2000;
const PATIENCE = 3000;
const STALE = 6000;
/** Milliseconds between two askings for figures. */
const FIGURES = 10000;

export class Overview {
  /** `live()` are the calls that are up, null where nobody tells; `heard()` is called with each answer. */
  constructor(live, heard) {
    this.live = live;
    this.heard = heard;
    this.told = null;
    this.problem = null;
    this.wordAt = performance.now();
    this.figuresAt = -Infinity;
    this.drawn = "";
  }

  begin() {
    this.ask();
    setInterval(() => {
      if (!document.hidden) this.ask();
    }, EVERY);
    setInterval(() => this.tick(), 1000);
    document.addEventListener("visibilitychange", () => {
      if (document.hidden) return;
      this.wordAt = performance.now(); // nobody was asked meanwhile
      this.ask();
    });
  }

  /** The states of one tenant's bot and Ameyo, as far as they are known. */
  of(workspaceId) {
    return (this.told?.components ?? []).filter((state) => state.workspace_id === workspaceId);
  }

  async ask() {
    if (this.asking) return;
    this.asking = true;
    try {
      this.told = await ask("health", {}, AbortSignal.timeout(PATIENCE));
      this.offset = this.told.now - Date.now() / 1000;
      this.problem = null;
      this.wordAt = performance.now();
      this.heard();
    } catch (error) {
      this.problem = error instanceof Problem && error.error !== "no_answer" ? error : null;
    } finally {
      this.asking = false;
    }
    this.draw();
  }

  show() {
    this.figuresAt = -Infinity;
    this.draw();
    this.tick();
  }

  get stale() {
    return performance.now() - this.wordAt > STALE;
  }

  draw() {
    const stale = this.stale;
    mark(document.body, "data-stale", stale ? "" : null);
    const said = stale ? this.noWord() : "";
    const banner = byId("stale");
    banner.hidden = !stale;
    write(banner, said);
    if (this.told === null) return;
    const key = JSON.stringify([stale, this.told.components, this.told.calls]);
    if (key !== this.drawn) {
      this.drawn = key;
      this.drawHealth(stale);
      this.drawNeeds();
    }
    this.tickAges();
  }

  noWord() {
    const since = this.told === null ? "" : ` since ${timeOf(this.told.now)}`;
    const why = this.problem === null ? "The service does not answer" : this.problem.message;
    return `No word of the service's health${since}. ${why}. What is shown is old.`;
  }

  drawHealth(stale) {
    const colour = (state) => (stale ? "unknown" : state.colour);
    const lamp = (state) =>
      el("li", { "data-colour": colour(state), class: "lamp" }, el("span", {}, componentName(state.component)), " ", el("b", {}, stale ? "no word" : colourName(state.colour)));
    const own = this.told.components.filter((state) => state.workspace_id === undefined);
    const tenants = new Map();
    for (const state of this.told.components) {
      if (state.workspace_id === undefined) continue;
      tenants.set(state.workspace_id, [...(tenants.get(state.workspace_id) ?? []), state]);
    }
    fill(byId("health"), ...own.map(lamp));
    fill(
      byId("health-tenants"),
      ...[...tenants.values()].map((states) =>
        el("li", {}, el("span", { class: "tenant" }, states[0].workspace ?? states[0].workspace_id), el("ul", { class: "lamps" }, ...states.map(lamp))),
      ),
    );
    const wrong = this.told.components.filter((state) => state.why && state.colour !== "green" && !(state.colour === "unknown" && state.workspace_id));
    wrong.sort((a, b) => ORDER.indexOf(a.colour) - ORDER.indexOf(b.colour) || a.since - b.since);
    fill(byId("health-wrong"), ...wrong.map((state) => wrongLine(state, stale)));
  }

  drawNeeds() {
    const { calls } = this.told;
    write(byId("needs-count"), calls.length === 0 ? "" : String(calls.length));
    byId("needs-none").hidden = calls.length > 0;
    mark(byId("needs-box"), "data-some", calls.length > 0 ? "" : null);
    const held = document.activeElement?.closest("#needs [data-call]")?.dataset.call;
    fill(byId("needs"), ...calls.map(needLine));
    if (held) byId("needs").querySelector(`[data-call="${CSS.escape(held)}"] a`)?.focus();
  }

  tick() {
    this.draw();
    if (byId("overview").hidden || document.hidden) return;
    this.drawLive();
    if (performance.now() - this.figuresAt > FIGURES) this.askFigures();
  }

  /** How long each has been so, and each customer waits. */
  tickAges() {
    const now = Date.now() / 1000 + (this.offset ?? 0);
    for (const node of document.querySelectorAll("#overview [data-since]")) write(node, clock(now - Number(node.dataset.since)));
  }

  drawLive() {
    const rows = this.live();
    write(byId("figure-live"), rows === null ? "–" : String(rows.length));
    write(byId("figure-waiting"), rows === null ? "–" : String(rows.filter((row) => row.stage === "handing_off" || row.stage === "held").length));
  }

  async askFigures() {
    this.figuresAt = performance.now();
    const told = await ask("tenants").catch(() => null); // who has no ledger reads that elsewhere
    const sums = { ended: 0, wrong: 0, refused: 0, lost: 0 };
    for (const tenant of told?.tenants ?? []) {
      for (const [outcome, count] of Object.entries(tenant.last_hour ?? {})) {
        if (outcome === "refused") sums.refused += count;
        else sums.ended += count;
      }
      for (const [fault, count] of Object.entries(tenant.faults ?? {})) if (fault !== "none") sums.wrong += count;
      sums.lost += tenant.not_handed_off ?? 0;
    }
    for (const [name, value] of Object.entries(sums)) write(byId(`figure-${name}`), told === null ? "–" : String(value));
  }
}

const ORDER = ["red", "amber", "unknown"];

function since(seconds) {
  return el("span", { class: "since" }, ` since ${timeOf(seconds)}, for `, el("span", { "data-since": seconds }));
}

function wrongLine(state, stale) {
  const whose = state.workspace ? `${state.workspace}: ` : "";
  return el(
    "li",
    { "data-colour": stale ? "unknown" : state.colour },
    el("p", {}, el("b", {}, `${whose}${componentName(state.component)} ${colourName(state.colour)}`), since(state.since)),
    el("p", {}, state.why),
    state.remedy ? el("p", { class: "remedy" }, state.remedy) : null,
  );
}

function needLine(call) {
  return el(
    "li",
    { "data-call": call.call_id, "data-need": call.need },
    el(
      "p",
      {},
      el("a", { href: `#/call/${encodeURIComponent(call.call_id)}` }, call.crt_object_id ?? call.call_id),
      " ",
      el("b", {}, needName(call.need)),
      call.workspace ? ` · ${call.workspace}` : null,
      since(call.since),
    ),
    el("p", {}, call.why),
    call.remedy ? el("p", { class: "remedy" }, call.remedy) : null,
  );
}

// The first view: the service's health, the calls that need somebody, and figures. The health is loaded every two
// seconds whatever view is shown; without an answer the page says so, and turns grey.

import { Problem, getJson } from "./api.js";
import { byId, el, setChildren, setAttr, setText } from "./dom.js";
import { clock, colourName, componentName, needName, timeOf } from "./labels.js";

/** Milliseconds between two requests for the health, for an answer, and without one until what is shown is stale. */
const HEALTH_INTERVAL_MS = 2000;
const HEALTH_TIMEOUT_MS = 3000;
const STALE_AFTER_MS = 6000;
/** Milliseconds between two requests for the figures. */
const FIGURES_INTERVAL_MS = 10000;

export class Overview {
  /** `live()` are the calls that are up, null where that is not known; `onHealth()` is called with each answer. */
  constructor(live, onHealth) {
    this.live = live;
    this.onHealth = onHealth;
    this.health = null;
    this.problem = null;
    this.answeredAt = performance.now();
    this.figuresAt = -Infinity;
    this.drawn = "";
  }

  start() {
    this.loadHealth();
    setInterval(() => {
      if (!document.hidden) this.loadHealth();
    }, HEALTH_INTERVAL_MS);
    setInterval(() => this.tick(), 1000);
    document.addEventListener("visibilitychange", () => {
      if (document.hidden) return;
      this.answeredAt = performance.now(); // there were no requests meanwhile
      this.loadHealth();
    });
  }

  /** The states of one tenant's bot and Ameyo, as far as they are known. */
  statesOf(workspaceId) {
    return (this.health?.components ?? []).filter((state) => state.workspace_id === workspaceId);
  }

  async loadHealth() {
    if (this.loading) return;
    this.loading = true;
    try {
      this.health = await getJson("health", {}, AbortSignal.timeout(HEALTH_TIMEOUT_MS));
      this.offset = this.health.now - Date.now() / 1000;
      this.problem = null;
      this.answeredAt = performance.now();
      this.onHealth();
    } catch (error) {
      this.problem = error instanceof Problem && error.error !== "no_answer" ? error : null;
    } finally {
      this.loading = false;
    }
    this.draw();
  }

  show() {
    this.figuresAt = -Infinity;
    this.draw();
    this.tick();
  }

  get stale() {
    return performance.now() - this.answeredAt > STALE_AFTER_MS;
  }

  draw() {
    const stale = this.stale;
    setAttr(document.body, "data-stale", stale ? "" : null);
    const text = stale ? this.staleText() : "";
    const banner = byId("stale");
    banner.hidden = !stale;
    setText(banner, text);
    if (this.health === null) return;
    const key = JSON.stringify([stale, this.health.components, this.health.calls]);
    if (key !== this.drawn) {
      this.drawn = key;
      this.drawHealth(stale);
      this.drawNeeds();
    }
    this.tickAges();
  }

  staleText() {
    const since = this.health === null ? "" : ` since ${timeOf(this.health.now)}`;
    const why = this.problem === null ? "The service does not answer" : this.problem.message;
    return `No word of the service's health${since}. ${why}. What is shown is old.`;
  }

  drawHealth(stale) {
    const colour = (state) => (stale ? "unknown" : state.colour);
    const lamp = (state) =>
      el("li", { "data-colour": colour(state), class: "lamp" }, el("span", {}, componentName(state.component)), " ", el("b", {}, stale ? "no word" : colourName(state.colour)));
    const own = this.health.components.filter((state) => state.workspace_id === undefined);
    const tenants = new Map();
    for (const state of this.health.components) {
      if (state.workspace_id === undefined) continue;
      tenants.set(state.workspace_id, [...(tenants.get(state.workspace_id) ?? []), state]);
    }
    setChildren(byId("health"), ...own.map(lamp));
    setChildren(
      byId("health-tenants"),
      ...[...tenants.values()].map((states) =>
        el("li", {}, el("span", { class: "tenant" }, states[0].workspace ?? states[0].workspace_id), el("ul", { class: "lamps" }, ...states.map(lamp))),
      ),
    );
    const wrong = this.health.components.filter((state) => state.why && state.colour !== "green" && !(state.colour === "unknown" && state.workspace_id));
    wrong.sort((a, b) => COLOUR_ORDER.indexOf(a.colour) - COLOUR_ORDER.indexOf(b.colour) || a.since - b.since);
    setChildren(byId("health-wrong"), ...wrong.map((state) => problemItem(state, stale)));
  }

  drawNeeds() {
    const { calls } = this.health;
    setText(byId("needs-count"), calls.length === 0 ? "" : String(calls.length));
    byId("needs-none").hidden = calls.length > 0;
    setAttr(byId("needs-box"), "data-some", calls.length > 0 ? "" : null);
    const focused = document.activeElement?.closest("#needs [data-call]")?.dataset.call;
    setChildren(byId("needs"), ...calls.map(needItem));
    if (focused) byId("needs").querySelector(`[data-call="${CSS.escape(focused)}"] a`)?.focus();
  }

  tick() {
    this.draw();
    if (byId("overview").hidden || document.hidden) return;
    this.drawLive();
    if (performance.now() - this.figuresAt > FIGURES_INTERVAL_MS) this.loadFigures();
  }

  /** How long each state has lasted, and each call has waited. */
  tickAges() {
    const now = Date.now() / 1000 + (this.offset ?? 0);
    for (const node of document.querySelectorAll("#overview [data-since]")) setText(node, clock(now - Number(node.dataset.since)));
  }

  drawLive() {
    const rows = this.live();
    setText(byId("figure-live"), rows === null ? "–" : String(rows.length));
    setText(byId("figure-waiting"), rows === null ? "–" : String(rows.filter((row) => row.stage === "handing_off" || row.stage === "held").length));
  }

  async loadFigures() {
    this.figuresAt = performance.now();
    const answer = await getJson("tenants").catch(() => null); // another notice says why there is no ledger
    const sums = { ended: 0, wrong: 0, refused: 0, lost: 0 };
    for (const tenant of answer?.tenants ?? []) {
      for (const [outcome, count] of Object.entries(tenant.last_hour ?? {})) {
        if (outcome === "refused") sums.refused += count;
        else sums.ended += count;
      }
      for (const [fault, count] of Object.entries(tenant.faults ?? {})) if (fault !== "none") sums.wrong += count;
      sums.lost += tenant.not_handed_off ?? 0;
    }
    for (const [name, value] of Object.entries(sums)) setText(byId(`figure-${name}`), answer === null ? "–" : String(value));
  }
}

const COLOUR_ORDER = ["red", "amber", "unknown"];

function since(seconds) {
  return el("span", { class: "since" }, ` since ${timeOf(seconds)}, for `, el("span", { "data-since": seconds }));
}

function problemItem(state, stale) {
  const tenant = state.workspace ? `${state.workspace}: ` : "";
  return el(
    "li",
    { "data-colour": stale ? "unknown" : state.colour },
    el("p", {}, el("b", {}, `${tenant}${componentName(state.component)} ${colourName(state.colour)}`), since(state.since)),
    el("p", {}, state.why),
    state.remedy ? el("p", { class: "remedy" }, state.remedy) : null,
  );
}

function needItem(call) {
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

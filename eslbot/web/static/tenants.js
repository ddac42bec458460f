// A card for each tenant: its health and its last hour.

import { getJson } from "./api.js";
import { byId, el } from "./dom.js";
import { recentTime, colourName, componentName, faultName, duration, outcomeName } from "./labels.js";

const RELOAD_INTERVAL_MS = 10000;
/** Seconds of a notification from which on Ameyo counts as slow. */
const SLOW_ANSWER_S = 3;

export class Tenants {
  /** `health(id)` are the states of that tenant's bot and Ameyo. */
  constructor(onError, health) {
    this.onError = onError;
    this.health = health;
    this.tenants = null;
    this.drawn = "";
    setInterval(() => {
      if (!byId("tenants").hidden && !document.hidden) this.show();
    }, RELOAD_INTERVAL_MS);
  }

  async show() {
    try {
      const { tenants } = await getJson("tenants");
      this.tenants = tenants;
      this.draw();
      this.onError(null);
    } catch (error) {
      this.onError(error);
    }
  }

  /** Draws again with the health that is known now. */
  healthChanged() {
    if (this.tenants !== null && !byId("tenants").hidden) this.draw();
  }

  draw() {
    const all = this.tenants.map((tenant) => [tenant, this.health(tenant.workspace_id)]);
    const key = JSON.stringify(all);
    if (key === this.drawn) return;
    this.drawn = key;
    byId("tenant-cards").replaceChildren(...all.map(([tenant, states]) => card(tenant, states)));
    if (all.length === 0) byId("tenant-cards").append(el("p", { class: "quiet" }, "No call of any tenant is recorded yet."));
  }
}

/** What is wrong with a tenant, in words; `states` are those of its bot and Ameyo now. */
export function problems(tenant, states) {
  const faults = Object.entries(tenant.faults ?? {}).filter(([fault, count]) => fault !== "none" && count > 0);
  const texts = faults.map(([fault, count]) => `${count} ${count === 1 ? "call" : "calls"} went wrong: ${faultName(fault)}`);
  const now = states.filter((state) => state.colour === "red" || state.colour === "amber");
  texts.unshift(...now.map((state) => `${componentName(state.component)} ${colourName(state.colour)}: ${state.why}`));
  if (tenant.post_seconds_p95 > SLOW_ANSWER_S) texts.push(`Ameyo is slow: ${duration(tenant.post_seconds_p95)}`);
  return texts;
}

function card(tenant, states) {
  const wrong = problems(tenant, states);
  const outcomes = Object.entries(tenant.last_hour ?? {}).sort((a, b) => b[1] - a[1]);
  const all = outcomes.reduce((sum, [, count]) => sum + count, 0);
  const health = wrong.length > 0 ? "bad" : all + (tenant.active ?? 0) > 0 ? "good" : "plain";
  const facts = [
    ["Live now", tenant.active ?? 0],
    ["Ended", all],
    ["Not handed off", tenant.not_handed_off ?? 0],
    ["Last hand-off", recentTime(tenant.last_handed_off_at) || "none"],
    ["Ameyo answers in", tenant.post_seconds_p50 == null ? "–" : `${duration(tenant.post_seconds_p50)} (p95 ${duration(tenant.post_seconds_p95)})`],
  ];
  return el(
    "article",
    { class: "card", "data-tone": health },
    el("h3", {}, tenant.workspace ?? tenant.workspace_id, " ", el("span", { class: "stage" }, { bad: "look here", good: "well", plain: "quiet" }[health])),
    wrong.length > 0 ? el("ul", { class: "wrong" }, ...wrong.map((text) => el("li", {}, text))) : null,
    el("dl", {}, ...facts.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value)))),
    outcomes.length > 0
      ? el("ul", { class: "outcomes", "aria-label": "Outcomes" }, ...outcomes.map(([outcome, count]) => el("li", {}, el("b", {}, count), ` ${outcomeName(outcome)}`)))
      : null,
  );
}

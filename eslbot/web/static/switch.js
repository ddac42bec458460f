// What FreeSWITCH has been through: its restarts of the last hour, and calls that it could not bring back.

import { ask } from "./api.js";
import { byId, el, mark } from "./dom.js";
import { began, lasting } from "./words.js";

const EVERY = 10000;
/** Seconds for which it is told that calls were dropped: a day, so that who comes in the morning reads it. */
const TOLD_FOR = 86400;

export class Switch {
  constructor() {
    setInterval(() => {
      if (!document.hidden) this.load();
    }, EVERY);
  }

  /** What was known stays where nobody answers: others say that. */
  async load() {
    const told = await ask("switch").catch(() => null);
    if (told !== null) this.show(told);
  }

  show(told) {
    const dropped = told.flushed && told.now - told.flushed.at < TOLD_FOR ? told.flushed : null;
    const lines = said(told.restarts, dropped);
    const place = byId("switch");
    const text = lines.join("\n");
    if (place.dataset.text === text) return;
    place.dataset.text = text;
    place.hidden = lines.length === 0;
    mark(place, "data-dropped", dropped ? "" : null);
    place.replaceChildren(...lines.map((line) => el("p", {}, line)));
  }
}

/** In sentences; none where there is nothing to tell. */
function said(restarts, dropped) {
  const lines = [];
  if (dropped) {
    lines.push(`FreeSWITCH died again and again, and started without its calls, last at ${began(dropped.at)}: ${calls(dropped.calls)} dropped since this host's boot.`);
  }
  if (restarts?.calls > 0) {
    const gap = restarts.gap == null ? "" : `, ${lasting(restarts.gap)} without it at most`;
    lines.push(`FreeSWITCH restarted in the last hour, last at ${began(restarts.last)}: ${calls(restarts.calls)} recovered${gap}.`);
  }
  return lines;
}

const calls = (count) => `${count} ${count === 1 ? "call" : "calls"}`;

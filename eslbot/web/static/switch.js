// What FreeSWITCH has been through: its restarts of the last hour, and calls that it could not bring back.

import { ask } from "./api.js";
import { byId, el } from "./dom.js";
import { began, lasting } from "./words.js";

const EVERY = 10000;

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
    const lines = said(told);
    const place = byId("switch");
    const text = lines.join("\n");
    if (place.dataset.text === text) return;
    place.dataset.text = text;
    place.hidden = lines.length === 0;
    place.replaceChildren(...lines.map((line) => el("p", {}, line)));
  }
}

/** In sentences; none where there is nothing to tell. */
function said({ restarts, flushed }) {
  const lines = [];
  if (flushed) lines.push(`FreeSWITCH died again and again, so that its calls were not brought back at ${began(flushed.at)}: ${calls(flushed.calls)} dropped.`);
  if (restarts?.calls > 0) {
    const gap = restarts.gap == null ? "" : `, ${lasting(restarts.gap)} without it at most`;
    lines.push(`FreeSWITCH restarted in the last hour, last at ${began(restarts.last)}: ${calls(restarts.calls)} recovered${gap}.`);
  }
  return lines;
}

const calls = (count) => (count == null ? "calls" : `${count} ${count === 1 ? "call" : "calls"}`);

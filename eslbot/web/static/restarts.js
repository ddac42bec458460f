// FreeSWITCH's restarts of the last hour, and the calls that it lost.

import { getJson } from "./api.js";
import { byId, el, setAttr } from "./dom.js";
import { recentTime, duration } from "./labels.js";

const RELOAD_INTERVAL_MS = 10000;
/** Seconds for which lost calls are shown: a day, so that somebody reads it in the morning. */
const SHOWN_FOR_S = 86400;

export class Restarts {
  constructor() {
    setInterval(() => {
      if (!document.hidden) this.load();
    }, RELOAD_INTERVAL_MS);
  }

  /** Without an answer what is shown stays: other parts of the page say that the service is away. */
  async load() {
    const answer = await getJson("switch").catch(() => null);
    if (answer !== null) this.show(answer);
  }

  show(answer) {
    const dropped = answer.flushed && answer.now - answer.flushed.at < SHOWN_FOR_S ? answer.flushed : null;
    const lines = sentences(answer.restarts, dropped);
    const place = byId("switch");
    const text = lines.join("\n");
    if (place.dataset.text === text) return;
    place.dataset.text = text;
    place.hidden = lines.length === 0;
    setAttr(place, "data-dropped", dropped ? "" : null);
    place.replaceChildren(...lines.map((line) => el("p", {}, line)));
  }
}

/** None where nothing happened. */
function sentences(restarts, dropped) {
  const lines = [];
  if (dropped) {
    lines.push(`FreeSWITCH died again and again, and started without its calls, last at ${recentTime(dropped.at)}: ${calls(dropped.calls)} dropped since this host's boot.`);
  }
  if (restarts?.calls > 0) {
    const gap = restarts.gap == null ? "" : `, ${duration(restarts.gap)} without it at most`;
    lines.push(`FreeSWITCH restarted in the last hour, last at ${recentTime(restarts.last)}: ${calls(restarts.calls)} recovered${gap}.`);
  }
  return lines;
}

const calls = (count) => `${count} ${count === 1 ? "call" : "calls"}`;

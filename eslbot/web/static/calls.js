// Recent calls, and those one searches for.

import { ask } from "./api.js";
import { byId, el } from "./dom.js";
import { began, ending, faultName, lasting, notes, outcomeName, tone } from "./words.js";

const PAGE = 50;
/** Milliseconds between two askings because a call ended. */
const PATIENCE = 2000;

export class Calls {
  constructor(failed) {
    this.failed = failed;
    this.text = "";
    this.asking = null;
    this.timer = 0;
    this.last = null;
    byId("filter").addEventListener("change", () => this.load());
    byId("more").addEventListener("click", () => this.load(this.last));
  }

  /** What one can choose from. */
  offer(session) {
    const choice = (values, name) => [el("option", { value: "" }, "all"), ...values.map((value) => el("option", { value }, name(value)))];
    const fields = byId("filter").elements;
    fields.workspace.replaceChildren(...choice(session.workspaces, (value) => value));
    fields.outcome.replaceChildren(...choice(session.outcomes, outcomeName));
    fields.fault.replaceChildren(...choice(session.faults, faultName));
  }

  show(text) {
    this.text = text;
    byId("recent-title").textContent = text ? `Calls with “${text}”` : "Recent calls";
    this.load();
  }

  /** Something ended: the list is another one. Not each time at once, and not while older calls are shown. */
  soon() {
    if (this.timer || byId("recent").hidden || this.older) return;
    this.timer = setTimeout(() => {
      this.timer = 0;
      if (!byId("recent").hidden && !this.older) this.load();
    }, PATIENCE);
  }

  async load(before = undefined) {
    this.asking?.abort();
    const asking = new AbortController();
    this.asking = asking;
    const filter = Object.fromEntries(new FormData(byId("filter")));
    try {
      const { calls } = await ask("calls", { ...filter, text: this.text, before, limit: PAGE }, asking.signal);
      const rows = calls.map(line);
      if (before === undefined) byId("recent-rows").replaceChildren(...rows);
      else byId("recent-rows").append(...rows);
      this.older = before !== undefined;
      this.last = calls.at(-1)?.invited_at;
      byId("more").hidden = calls.length < PAGE;
      byId("recent-none").hidden = byId("recent-rows").childElementCount > 0;
      this.failed(null);
    } catch (error) {
      if (!asking.signal.aborted) this.failed(error);
    }
  }
}

function line(row) {
  const cell = (name, ...children) => el("td", { role: "cell", class: `c-${name}` }, ...children);
  const took = row.ended_at != null ? lasting(row.ended_at - row.invited_at) : "";
  return el(
    "tr",
    { role: "row", "data-call": row.call_id, "data-tone": tone(row) },
    cell("stage", el("span", { class: "stage" }, ending(row))),
    cell("time", began(row.invited_at), took ? el("small", {}, ` ${took}`) : null),
    cell("tenant", row.workspace ?? ""),
    cell("crt", el("a", { href: `#/call/${encodeURIComponent(row.call_id)}` }, row.crt_object_id ?? row.call_id)),
    cell("did", row.did ?? ""),
    cell("caller", row.caller ?? ""),
    cell("notes", notes(row)),
  );
}

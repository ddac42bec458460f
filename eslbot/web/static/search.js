// Searching for calls. What is looked for stands in the address, so that it can be sent to somebody else.

import { ask } from "./api.js";
import { byId, el, fill, mark } from "./dom.js";
import { began, ending, faultName, lasting, notes, outcomeName, tone } from "./words.js";

const PAGE = 50;
/** Milliseconds between two askings because a call ended. */
const PATIENCE = 2000;
const FIELDS = ["prefix", "workspace", "outcome", "fault", "since", "until", "attention"];
const SPANS = [["", "any time"], ["1h", "the last hour"], ["24h", "the last 24 hours"], ["7d", "the last 7 days"], ["30d", "the last 30 days"], ["between", "from … to …"]];
const HEADS = [["stage", "Outcome"], ["time", "Began"], ["tenant", "Tenant"], ["crt", "CRT Object ID"], ["did", "DID"], ["caller", "Caller"], ["notes", "Notes"]];

export class Search {
  constructor(failed) {
    this.failed = failed;
    this.wanted = {};
    this.asking = null;
    this.timer = 0;
    this.next = null;
  }

  /** What one can choose from; and the view, which is empty until then. */
  offer(session) {
    const choice = (name, values, word) => el("select", { name }, el("option", { value: "" }, "all"), ...values.map((value) => el("option", { value }, word(value))));
    const field = (name, label, input) => {
      input.setAttribute("aria-describedby", `error-${name}`);
      return el("div", { class: "field", "data-field": name }, el("label", {}, `${label} `, input), problem(name));
    };
    this.when = el("select", { name: "when" }, ...SPANS.map(([value, text]) => el("option", { value }, text)));
    this.between = el("div", { class: "between" }, field("since", "From", el("input", { type: "datetime-local", name: "since" })), field("until", "To", el("input", { type: "datetime-local", name: "until" })));
    this.form = el(
      "form",
      { class: "filter", "aria-label": "Filter" },
      field("workspace", "Tenant", choice("workspace", session.workspaces, (value) => value)),
      field("outcome", "Outcome", choice("outcome", session.outcomes, outcomeName)),
      field("fault", "Fault", choice("fault", session.faults, faultName)),
      el("label", {}, "When ", this.when),
      this.between,
      el("div", { class: "field" }, el("label", {}, el("input", { type: "checkbox", name: "attention", value: "true" }), " needs attention")),
    );
    this.form.addEventListener("submit", (event) => event.preventDefault());
    this.form.addEventListener("change", (event) => {
      this.between.hidden = this.when.value !== "between";
      if (event.target === this.when && this.when.value === "between") return; // there is no time in it yet
      this.go();
    });
    this.title = el("h2", { id: "calls-title" }, "Calls");
    this.rows = el("tbody", { role: "rowgroup", id: "calls-rows" });
    this.none = el("p", { class: "quiet", role: "status", hidden: true }, "No such call.");
    this.more = el("button", { type: "button", id: "more", hidden: true, onclick: () => this.load(this.next) }, "Older calls");
    const file = (kind) => el("a", { "data-kind": kind, download: "" }, kind === "csv" ? "CSV" : "JSON lines");
    this.files = ["csv", "jsonl"].map(file);
    byId("text").setAttribute("aria-describedby", "error-prefix");
    byId("search").addEventListener("submit", (event) => {
      event.preventDefault();
      this.go();
    });
    fill(
      byId("calls"),
      this.title,
      problem("prefix"),
      this.form,
      session.numbers ? null : el("p", { class: "quiet", id: "masked" }, "Numbers are masked for this token: it finds a DID or a caller by the whole number only."),
      el("p", { class: "files" }, "What is found, as a file: ", this.files[0], ", ", this.files[1]),
      this.none,
      el(
        "table",
        { class: "calls", role: "table", "aria-labelledby": "calls-title" },
        el("thead", { role: "rowgroup" }, el("tr", { role: "row" }, ...HEADS.map(([name, text]) => el("th", { role: "columnheader", scope: "col", class: `c-${name}` }, text)))),
        this.rows,
      ),
      this.more,
    );
  }

  /** What the address says: the part behind its `?`. */
  show(query) {
    const said = new URLSearchParams(query);
    this.wanted = Object.fromEntries(FIELDS.map((name) => [name, said.get(name) ?? ""]).filter(([, value]) => value !== ""));
    const { prefix = "", since = "", until = "" } = this.wanted;
    byId("text").value = prefix;
    this.title.textContent = prefix ? `Calls that begin with “${prefix}”` : "Calls";
    const fields = this.form.elements;
    for (const name of ["workspace", "outcome", "fault"]) fields[name].value = this.wanted[name] ?? "";
    fields.attention.checked = this.wanted.attention === "true";
    const span = !until && SPANS.some(([value]) => value === since);
    this.when.value = span ? since : "between";
    this.between.hidden = span;
    fields.since.value = span ? "" : local(since);
    fields.until.value = local(until);
    for (const link of this.files) link.href = `/api/calls.${link.dataset.kind}?${new URLSearchParams(this.wanted)}`;
    this.load();
  }

  /** To the address of what the form says now. */
  go() {
    const wanted = { prefix: byId("text").value.trim() };
    const fields = this.form.elements;
    for (const name of ["workspace", "outcome", "fault"]) wanted[name] = fields[name].value;
    if (this.when.value === "between") Object.assign(wanted, { since: instant(fields.since.value), until: instant(fields.until.value) });
    else wanted.since = this.when.value;
    if (fields.attention.checked) wanted.attention = "true";
    const hash = address(wanted);
    if (location.hash === hash) this.load();
    else location.hash = hash;
  }

  /** Something ended: the list is another one. Not each time at once, and not while older calls are shown. */
  soon() {
    const shown = () => !byId("calls").hidden && !this.older;
    if (this.timer || !shown()) return;
    this.timer = setTimeout(() => {
      this.timer = 0;
      if (shown()) this.load();
    }, PATIENCE);
  }

  async load(before = undefined) {
    this.asking?.abort();
    const asking = new AbortController();
    this.asking = asking;
    try {
      const { calls, next } = await ask("calls", { ...this.wanted, before, limit: PAGE }, asking.signal);
      if (before === undefined) this.rows.replaceChildren(...calls.map(line));
      else this.rows.append(...calls.map(line));
      this.older = before !== undefined;
      this.next = next;
      this.more.hidden = next === null;
      this.none.hidden = this.rows.childElementCount > 0;
      this.complain({});
      this.failed(null);
    } catch (error) {
      if (asking.signal.aborted) return;
      this.complain(error.fields ?? {});
      if (error.fields === undefined) this.failed(error);
      else {
        this.failed(null);
        this.rows.replaceChildren();
        this.more.hidden = this.none.hidden = true;
      }
    }
  }

  /** What is wrong with each field, beside it. */
  complain(fields) {
    for (const name of FIELDS) {
      const place = byId(`error-${name}`);
      const input = name === "prefix" ? byId("text") : this.form.elements[name];
      if (place === null) continue;
      place.textContent = fields[name] ?? "";
      place.hidden = fields[name] === undefined;
      mark(input, "aria-invalid", fields[name] === undefined ? null : "true");
    }
    if (fields.since !== undefined || fields.until !== undefined) this.between.hidden = false;
  }
}

/** The hash of a search. */
export function address(wanted) {
  const query = new URLSearchParams(Object.entries(wanted).filter(([, value]) => value));
  return query.size ? `#/calls?${query}` : "#/calls";
}

const problem = (name) => el("p", { class: "field-error", id: `error-${name}`, role: "alert", hidden: true });

/** A field's local time as an instant that is the same for everybody; and back. */
function instant(text) {
  const at = new Date(text);
  return text === "" || Number.isNaN(at.getTime()) ? "" : `${at.toISOString().slice(0, 16)}Z`;
}

function local(text) {
  const at = new Date(/^\d+(\.\d+)?$/.test(text) ? Number(text) * 1000 : text);
  if (text === "" || Number.isNaN(at.getTime())) return "";
  return new Date(at.getTime() - at.getTimezoneOffset() * 60000).toISOString().slice(0, 16);
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

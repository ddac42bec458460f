// The search for calls. The address has what is looked for, so that it can be sent to somebody else.

import { getJson } from "./api.js";
import { byId, el, setChildren, setAttr } from "./dom.js";
import { recentTime, endLabel, faultName, duration, notes, outcomeName, tone } from "./labels.js";

const PAGE_SIZE = 50;
/** Milliseconds from the end of a call until the list is loaded again. */
const RELOAD_DELAY_MS = 2000;
const FIELDS = ["prefix", "workspace", "outcome", "fault", "since", "until", "attention"];
const SPANS = [["", "any time"], ["1h", "the last hour"], ["24h", "the last 24 hours"], ["7d", "the last 7 days"], ["30d", "the last 30 days"], ["between", "from … to …"]];
const HEADINGS = [["stage", "Outcome"], ["time", "Began"], ["tenant", "Tenant"], ["crt", "CRT Object ID"], ["did", "DID"], ["caller", "Caller"], ["notes", "Notes"]];

export class Search {
  constructor(onError) {
    this.onError = onError;
    this.wanted = {};
    this.request = null;
    this.timer = 0;
    this.next = null;
  }

  /** Builds the view, with the choices that the session has. */
  setSession(session) {
    const choice = (name, values, word) => el("select", { name }, el("option", { value: "" }, "all"), ...values.map((value) => el("option", { value }, word(value))));
    const field = (name, label, input) => {
      input.setAttribute("aria-describedby", `error-${name}`);
      return el("div", { class: "field", "data-field": name }, el("label", {}, `${label} `, input), errorPlace(name));
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
      if (event.target === this.when && this.when.value === "between") return; // no time is chosen yet
      this.navigate();
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
      this.navigate();
    });
    setChildren(
      byId("calls"),
      this.title,
      errorPlace("prefix"),
      this.form,
      session.numbers ? null : el("p", { class: "quiet", id: "masked" }, "Numbers are masked for this token: it finds a DID or a caller by the whole number only."),
      el("p", { class: "files" }, "What is found, as a file: ", this.files[0], ", ", this.files[1]),
      this.none,
      el(
        "table",
        { class: "calls", role: "table", "aria-labelledby": "calls-title" },
        el("thead", { role: "rowgroup" }, el("tr", { role: "row" }, ...HEADINGS.map(([name, text]) => el("th", { role: "columnheader", scope: "col", class: `c-${name}` }, text)))),
        this.rows,
      ),
      this.more,
    );
  }

  /** Shows the search of the address; `query` is the part behind its `?`. */
  show(query) {
    const given = new URLSearchParams(query);
    this.wanted = Object.fromEntries(FIELDS.map((name) => [name, given.get(name) ?? ""]).filter(([, value]) => value !== ""));
    const { prefix = "", since = "", until = "" } = this.wanted;
    byId("text").value = prefix;
    this.title.textContent = prefix ? `Calls that begin with “${prefix}”` : "Calls";
    const fields = this.form.elements;
    for (const name of ["workspace", "outcome", "fault"]) fields[name].value = this.wanted[name] ?? "";
    fields.attention.checked = this.wanted.attention === "true";
    const span = !until && SPANS.some(([value]) => value === since);
    this.when.value = span ? since : "between";
    this.between.hidden = span;
    fields.since.value = span ? "" : toLocal(since);
    fields.until.value = toLocal(until);
    for (const link of this.files) link.href = `/api/calls.${link.dataset.kind}?${new URLSearchParams(this.wanted)}`;
    this.load();
  }

  /** Goes to the address of the search in the form. */
  navigate() {
    const wanted = { prefix: byId("text").value.trim() };
    const fields = this.form.elements;
    for (const name of ["workspace", "outcome", "fault"]) wanted[name] = fields[name].value;
    if (this.when.value === "between") Object.assign(wanted, { since: toUtc(fields.since.value), until: toUtc(fields.until.value) });
    else wanted.since = this.when.value;
    if (fields.attention.checked) wanted.attention = "true";
    const hash = hashOf(wanted);
    if (location.hash === hash) this.load();
    else location.hash = hash;
  }

  /** A call has ended: loads the list again, after a delay, and not while older calls are shown. */
  scheduleLoad() {
    const shown = () => !byId("calls").hidden && !this.older;
    if (this.timer || !shown()) return;
    this.timer = setTimeout(() => {
      this.timer = 0;
      if (shown()) this.load();
    }, RELOAD_DELAY_MS);
  }

  async load(before = undefined) {
    this.request?.abort();
    const request = new AbortController();
    this.request = request;
    try {
      const { calls, next } = await getJson("calls", { ...this.wanted, before, limit: PAGE_SIZE }, request.signal);
      if (before === undefined) this.rows.replaceChildren(...calls.map(rowOf));
      else this.rows.append(...calls.map(rowOf));
      this.older = before !== undefined;
      this.next = next;
      this.more.hidden = next === null;
      this.none.hidden = this.rows.childElementCount > 0;
      this.showFieldErrors({});
      this.onError(null);
    } catch (error) {
      if (request.signal.aborted) return;
      this.showFieldErrors(error.fields ?? {});
      if (error.fields === undefined) this.onError(error);
      else {
        this.onError(null);
        this.rows.replaceChildren();
        this.more.hidden = this.none.hidden = true;
      }
    }
  }

  /** Shows each field's error beside it. */
  showFieldErrors(fields) {
    for (const name of FIELDS) {
      const place = byId(`error-${name}`);
      const input = name === "prefix" ? byId("text") : this.form.elements[name];
      if (place === null) continue;
      place.textContent = fields[name] ?? "";
      place.hidden = fields[name] === undefined;
      setAttr(input, "aria-invalid", fields[name] === undefined ? null : "true");
    }
    if (fields.since !== undefined || fields.until !== undefined) this.between.hidden = false;
  }
}

/** The address's hash of a search. */
export function hashOf(wanted) {
  const query = new URLSearchParams(Object.entries(wanted).filter(([, value]) => value));
  return query.size ? `#/calls?${query}` : "#/calls";
}

const errorPlace = (name) => el("p", { class: "field-error", id: `error-${name}`, role: "alert", hidden: true });

/** A form field's local time in UTC; and back. */
function toUtc(text) {
  const at = new Date(text);
  return text === "" || Number.isNaN(at.getTime()) ? "" : `${at.toISOString().slice(0, 16)}Z`;
}

function toLocal(text) {
  const at = new Date(/^\d+(\.\d+)?$/.test(text) ? Number(text) * 1000 : text);
  if (text === "" || Number.isNaN(at.getTime())) return "";
  return new Date(at.getTime() - at.getTimezoneOffset() * 60000).toISOString().slice(0, 16);
}

function rowOf(row) {
  const cell = (name, ...children) => el("td", { role: "cell", class: `c-${name}` }, ...children);
  const took = row.ended_at != null ? duration(row.ended_at - row.invited_at) : "";
  return el(
    "tr",
    { role: "row", "data-call": row.call_id, "data-tone": tone(row) },
    cell("stage", el("span", { class: "stage" }, endLabel(row))),
    cell("time", recentTime(row.invited_at), took ? el("small", {}, ` ${took}`) : null),
    cell("tenant", row.workspace ?? ""),
    cell("crt", el("a", { href: `#/call/${encodeURIComponent(row.call_id)}` }, row.crt_object_id ?? row.call_id)),
    cell("did", row.did ?? ""),
    cell("caller", row.caller ?? ""),
    cell("notes", notes(row)),
  );
}

// Starts the page: who looks, which view, and what is wrong.

import { Problem, ask } from "./api.js";
import { CallView } from "./call.js";
import { Charts } from "./charts.js";
import { byId, el, mark, write } from "./dom.js";
import { Live } from "./live.js";
import { Overview } from "./overview.js";
import { Search, address } from "./search.js";
import { Switch } from "./switch.js";
import { Tenants } from "./tenants.js";
import { zone } from "./words.js";

const LINKS = { live: "live", waiting: "connecting again", paused: "paused", ledger: "no ledger" };

/** One notice a source: null takes it away. */
const notices = new Map();
function notice(source, problem) {
  if (problem === null) notices.delete(source);
  else notices.set(source, problem);
  const [first] = notices.values();
  const place = byId("notice");
  const text = first === undefined ? "" : `${first.message}\n${first.remedy ?? ""}`;
  if (place.dataset.text === text) return;
  place.dataset.text = text;
  place.hidden = first === undefined;
  place.replaceChildren();
  if (first !== undefined) place.append(el("p", {}, first.message), first.remedy ? el("pre", {}, first.remedy) : "");
}

const asked = (error) => notice("asked", error);
const search = new Search(asked);
const charts = new Charts(asked);
const tenants = new Tenants(asked, (id) => overview.of(id));
const switch_ = new Switch();
const live = new Live(
  (ids, ended) => {
    call.soon(ids);
    if (ended) search.soon();
  },
  (state, ledger) => {
    mark(byId("link"), "data-state", state);
    write(byId("link"), LINKS[state]);
    if (ledger === null) return;
    if (ledger.up === false && ledger.problem) notice("ledger", new Problem(ledger.error, ledger.problem, ledger.remedy));
    else if (ledger.up === false && ledger.error === undefined) {
      notice("ledger", new Problem("database_down", "The call ledger's database is down: older calls cannot be shown.", "Calls go on, and are recorded later."));
    } else notice("ledger", null);
  },
);
const call = new CallView(() => live.now(), asked);
const overview = new Overview(() => live.calls(), () => tenants.soon());

function route() {
  const hash = location.hash;
  if (hash !== "" && !hash.startsWith("#/")) return; // a place within the view
  const [way, query] = hash.slice(2).split(/\?(.*)/s);
  const [view, ...rest] = way.split("/");
  const name = ["live", "calls", "charts", "tenants", "call"].includes(view) ? view : "overview";
  for (const section of document.querySelectorAll("main > section")) section.hidden = section.id !== name;
  for (const link of document.querySelectorAll("nav a")) mark(link, "aria-current", link.dataset.view === name ? "page" : null);
  asked(null);
  if (name !== "call") call.hide();
  if (name === "call") call.show(decode(rest.join("/")));
  if (name === "overview") overview.show();
  if (name === "tenants") tenants.show();
  if (name === "calls") search.show(query);
  if (name === "charts") charts.show(query);
}

function decode(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return "";
  }
}

// Who searches before this script is here has sent the form itself.
const early = new URLSearchParams(location.search).get("prefix");
if (early !== null) history.replaceState(null, "", `/${address({ prefix: early.trim() })}`);

async function begin() {
  try {
    const session = await ask("session");
    byId("viewer").textContent = session.name;
    search.offer(session);
    charts.offer(session);
    call.offer(session);
    notice("begin", null);
    addEventListener("hashchange", () => {
      document.body.dataset.came = "here";
      route();
    });
    route();
    switch_.load();
    overview.begin();
    if (session.ledger) live.open();
    else {
      const without = await ask("tenants").catch((error) => error);
      notice("ledger", without);
      byId("link").hidden = true;
    }
  } catch (error) {
    notice("begin", error instanceof Problem ? error : new Problem("fault", String(error)));
    if (error.error === "no_answer") setTimeout(begin, 2000);
  }
}

byId("zone").textContent = `Times are those of ${zone()}.`;
begin();

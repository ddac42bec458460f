// Starts the page: the session, the view by the address, and the notices.

import { Problem, getJson } from "./api.js";
import { CallView } from "./call.js";
import { Charts } from "./charts.js";
import { byId, el, setAttr, setText } from "./dom.js";
import { LiveView } from "./live.js";
import { Overview } from "./overview.js";
import { Search, hashOf } from "./search.js";
import { Restarts } from "./restarts.js";
import { Tenants } from "./tenants.js";
import { zone } from "./labels.js";

const LINK_LABELS = { live: "live", waiting: "connecting again", paused: "paused", ledger: "no ledger" };

/** Problems by their source. The first one is shown. */
const notices = new Map();
/** Shows a problem; null removes it. */
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

const showError = (error) => notice("request", error);
const search = new Search(showError);
const charts = new Charts(showError);
const tenants = new Tenants(showError, (id) => overview.statesOf(id));
const restarts = new Restarts();
const live = new LiveView(
  (ids, ended) => {
    call.scheduleLoad(ids);
    if (ended) search.scheduleLoad();
  },
  (state, ledger) => {
    setAttr(byId("link"), "data-state", state);
    setText(byId("link"), LINK_LABELS[state]);
    if (ledger === null) return;
    if (ledger.up === false && ledger.problem) notice("ledger", new Problem(ledger.error, ledger.problem, ledger.remedy));
    else if (ledger.up === false && ledger.error === undefined) {
      notice("ledger", new Problem("database_down", "The call ledger's database is down: older calls cannot be shown.", "Calls go on, and are recorded later."));
    } else notice("ledger", null);
  },
);
const call = new CallView(() => live.now(), showError);
const overview = new Overview(() => live.calls(), () => tenants.healthChanged());

function route() {
  const hash = location.hash;
  if (hash !== "" && !hash.startsWith("#/")) return; // an anchor within the view
  const [path, query] = hash.slice(2).split(/\?(.*)/s);
  const [view, ...rest] = path.split("/");
  const name = ["live", "calls", "charts", "tenants", "call"].includes(view) ? view : "overview";
  for (const section of document.querySelectorAll("main > section")) section.hidden = section.id !== name;
  for (const link of document.querySelectorAll("nav a")) setAttr(link, "aria-current", link.dataset.view === name ? "page" : null);
  showError(null);
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

// A search from before this script was loaded: the browser has sent the form.
const earlySearch = new URLSearchParams(location.search).get("prefix");
if (earlySearch !== null) history.replaceState(null, "", `/${hashOf({ prefix: earlySearch.trim() })}`);

async function start() {
  try {
    const session = await getJson("session");
    byId("viewer").textContent = session.name;
    search.setSession(session);
    charts.setSession(session);
    call.setSession(session);
    notice("start", null);
    addEventListener("hashchange", () => {
      document.body.dataset.came = "here";
      route();
    });
    route();
    restarts.load();
    overview.start();
    if (session.ledger) live.open();
    else {
      const problem = await getJson("tenants").catch((error) => error);
      notice("ledger", problem);
      byId("link").hidden = true;
    }
  } catch (error) {
    notice("start", error instanceof Problem ? error : new Problem("fault", String(error)));
    if (error.error === "no_answer") setTimeout(start, 2000);
  }
}

byId("zone").textContent = `Times are those of ${zone()}.`;
start();

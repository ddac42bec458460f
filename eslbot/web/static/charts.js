// The calls of a day or of a week in pictures: SVG of our own, with every value also in words and in a table.

import { ask } from "./api.js";
import { byId, el, fill, write } from "./dom.js";
import { lasting, timeOf } from "./words.js";

const EVERY = 60000;
const SPANS = { "24h": "24 hours", "7d": "7 days" };
/** The picture's own measures; it is scaled to its place. */
const WIDE = 600;
const HIGH = 180;
const LEFT = 68;
const BOTTOM = 28;
const TOP = 10;
/** Causes of refusals that have a colour of their own. */
const CAUSES = 5;
const SVG = "http://www.w3.org/2000/svg";

const percent = (share) => (share == null ? "–" : `${(100 * share).toFixed(share === 1 ? 0 : 1)} %`);
const count = (number) => (number == null ? "–" : String(number));
const seconds = (value) => (value == null ? "–" : lasting(value));
const cause = (word) => String(word).replaceAll("_", " ");

/** A latency's two lines. */
const latency = (name, title) => ({
  id: name,
  title,
  say: seconds,
  kind: "lines",
  has: (total) => total[name] !== undefined,
  series: () => [
    { name: "p50", of: (point) => point[name].p50 },
    { name: "p95", of: (point) => point[name].p95 },
  ],
});

const CHARTS = [
  {
    id: "calls",
    title: "Calls",
    say: count,
    kind: "bars",
    series: () => [
      { name: "taken", of: (point) => point.calls },
      { name: "refused", of: (point) => sum(Object.values(point.refused)) },
    ],
  },
  { id: "success", title: "Success rate", say: percent, kind: "lines", most: 1, series: () => [{ name: "of those that ended", of: (point) => point.success }] },
  {
    id: "refused",
    title: "Refusals by cause",
    say: count,
    kind: "bars",
    series: (total) => {
      const causes = Object.keys(total.refused);
      const own = causes.slice(0, causes.length > CAUSES + 1 ? CAUSES : CAUSES + 1);
      const found = own.map((name) => ({ name: cause(name), of: (point) => point.refused[name] ?? 0 }));
      if (own.length < causes.length) found.push({ name: "others", of: (point) => sum(Object.entries(point.refused).filter(([name]) => !own.includes(name)).map(([, number]) => number)) });
      return found;
    },
  },
  latency("set_up", "Set-up, INVITE to 200"),
  latency("first_audio", "First audio, from the answer"),
  latency("turn", "Turn, caller stops to bot is heard (a call's median)"),
  latency("hand_off", "Hand-off, bot's end to Ameyo's acceptance"),
  { id: "take_overs", title: "Take-overs", say: count, kind: "bars", series: () => [{ name: "take-overs", of: (point) => point.take_overs }] },
];

const sum = (numbers) => numbers.reduce((all, number) => all + number, 0);

export class Charts {
  constructor(failed) {
    this.failed = failed;
    /** The point that is told of, by chart: it stays where charts are drawn again. */
    this.chosen = new Map();
    setInterval(() => {
      if (!byId("charts").hidden && !document.hidden) this.load();
    }, EVERY);
  }

  offer(session) {
    this.span = el("select", { name: "span" }, ...Object.entries(SPANS).map(([value, text]) => el("option", { value }, `the last ${text}`)));
    this.workspace = el("select", { name: "workspace" }, el("option", { value: "" }, "all together"), ...session.workspaces.map((value) => el("option", { value }, value)));
    const form = el("form", { class: "filter", "aria-label": "Of which calls" }, el("label", {}, "Of ", this.span), el("label", {}, "Tenant ", this.workspace));
    form.addEventListener("submit", (event) => event.preventDefault());
    form.addEventListener("change", () => {
      const query = new URLSearchParams({ span: this.span.value, ...(this.workspace.value ? { workspace: this.workspace.value } : {}) });
      location.hash = `#/charts?${query}`;
    });
    this.place = el("div", { class: "charts" });
    fill(
      byId("charts"),
      el("h2", { id: "charts-title" }, "Charts"),
      form,
      el("p", { class: "quiet" }, "A call counts when its INVITE came. In a chart, the arrow keys go from point to point."),
      this.place,
    );
  }

  show(query) {
    const said = new URLSearchParams(query);
    this.span.value = said.get("span") in SPANS ? said.get("span") : "24h";
    this.workspace.value = said.get("workspace") ?? "";
    if (this.workspace.selectedIndex < 0) this.workspace.value = "";
    this.load();
  }

  async load() {
    const asked = { span: this.span.value, workspace: this.workspace.value };
    try {
      const told = await ask("charts", asked);
      if (asked.span !== this.span.value || asked.workspace !== this.workspace.value) return;
      this.draw(told);
      this.failed(null);
    } catch (error) {
      this.failed(error);
    }
  }

  draw(told) {
    const held = document.activeElement?.closest("#charts figure")?.dataset.chart;
    const open = new Set([...this.place.querySelectorAll("details[open]")].map((one) => one.closest("figure").dataset.chart));
    const shown = CHARTS.filter((chart) => chart.has?.(told.total) ?? true);
    fill(this.place, ...shown.map((chart) => this.figure(chart, told, open.has(chart.id))));
    if (held) this.place.querySelector(`figure[data-chart="${held}"] .picture`)?.focus({ preventScroll: true });
  }

  figure(chart, told, open) {
    const { points, total, step } = told;
    const series = chart.series(total);
    const saying = (point) => series.map((one) => `${one.name} ${chart.say(one.of(point))}`).join(", ");
    const something = series.some((one) => points.some((point) => one.of(point)));
    const said = el("p", { class: "said" });
    const picture = el("div", {
      class: "picture", tabindex: "0", role: "slider", "aria-label": chart.title, "aria-valuemin": 0, "aria-valuemax": points.length - 1,
    });
    const { svg, choose } = drawn(chart, series, told);
    picture.append(svg);
    const tell = (place) => {
      const at = Math.max(0, Math.min(points.length - 1, place));
      this.chosen.set(chart.id, at);
      const text = `${when(points[at].at, step)}: ${saying(points[at])}`;
      picture.setAttribute("aria-valuenow", at);
      picture.setAttribute("aria-valuetext", text);
      write(said, text);
      choose(at);
    };
    tell(this.chosen.get(chart.id) ?? points.length - 1);
    const moves = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageUp: -4, PageDown: 4, Home: -points.length, End: points.length };
    picture.addEventListener("keydown", (event) => {
      if (!(event.key in moves) || event.ctrlKey || event.altKey || event.metaKey) return;
      event.preventDefault();
      tell(this.chosen.get(chart.id) + moves[event.key]);
    });
    picture.addEventListener("pointermove", (event) => {
      const box = svg.getBoundingClientRect();
      const x = ((event.clientX - box.left) / box.width) * WIDE;
      tell(Math.floor(((x - LEFT) / (WIDE - LEFT)) * points.length));
    });
    const legend = el("ul", { class: "legend" }, ...series.map((one, number) => el("li", { "data-series": number }, key(chart.kind, number), one.name)));
    const whole = something ? `In all: ${saying(total)}.` : "Nothing of it in this time.";
    return el(
      "figure",
      { class: "chart", "data-chart": chart.id },
      el("figcaption", {}, el("h3", {}, chart.title), el("p", { class: "quiet" }, whole)),
      something ? picture : null,
      something ? said : null,
      something && series.length > 1 ? legend : null,
      something ? el("details", { open }, el("summary", {}, "As a table"), tableOf(chart, series, told)) : null,
    );
  }
}

/** Behind a picture, for who reads a table better; empty times are left out. */
function tableOf(chart, series, { points, step }) {
  const rows = points.filter((point) => series.some((one) => one.of(point)));
  return el(
    "div",
    { class: "scroll", tabindex: "0", role: "region", "aria-label": `${chart.title}, table` },
    el(
      "table",
      { class: "plain-table" },
      el("caption", {}, chart.title),
      el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "From"), ...series.map((one) => el("th", { scope: "col" }, one.name)))),
      el("tbody", {}, ...rows.map((point) => el("tr", {}, el("th", { scope: "row" }, when(point.at, step)), ...series.map((one) => el("td", {}, chart.say(one.of(point))))))),
    ),
  );
}

const DAY = new Intl.DateTimeFormat(undefined, { weekday: "short", day: "numeric", month: "short" });
const minutesOf = (at) => timeOf(at).slice(0, 5);

/** A point's time, from and to. */
function when(at, step) {
  return `${DAY.format(new Date(at * 1000))} ${minutesOf(at)}–${minutesOf(at + step)}`;
}

// -- SVG ------------------------------------------------------------------------------------------------

function shape(name, properties) {
  const node = document.createElementNS(SVG, name);
  for (const [property, value] of Object.entries(properties)) node.setAttribute(property, value);
  return node;
}

function words(x, y, text, properties = {}) {
  const node = shape("text", { x, y, ...properties });
  node.textContent = text;
  return node;
}

/** A series' sign in the legend, the same as in the picture. */
function key(kind, number) {
  const svg = shape("svg", { width: 22, height: 10, "aria-hidden": "true", "data-series": number });
  svg.append(kind === "bars" ? shape("rect", { class: "bar-part", width: 22, height: 10 }) : shape("path", { class: "line-part", d: "M0 5H22" }));
  return svg;
}

/** The picture, and how a point of it is chosen. */
function drawn(chart, series, { points, begin, end, step }) {
  const svg = shape("svg", { viewBox: `0 0 ${WIDE} ${HIGH}`, "aria-hidden": "true", focusable: "false" });
  const values = series.map((one) => points.map((point) => one.of(point)));
  const tops = points.map((_, at) => (chart.kind === "bars" ? sum(values.map((row) => row[at] ?? 0)) : Math.max(0, ...values.map((row) => row[at] ?? 0))));
  const rungs = ladder(chart.most ?? Math.max(...tops), chart.say === count);
  const most = rungs.at(-1);
  const wide = (WIDE - LEFT) / points.length;
  const x = (at) => LEFT + at * wide;
  const y = (value) => HIGH - BOTTOM - (value / most) * (HIGH - BOTTOM - TOP);
  for (const rung of rungs) {
    svg.append(shape("path", { class: "rung", d: `M${LEFT} ${y(rung)}H${WIDE}` }));
    svg.append(words(LEFT - 6, y(rung) + 4, chart.say(rung), { "text-anchor": "end" }));
  }
  for (const [at, text] of times(begin, end, step)) {
    const place = LEFT + ((at - begin) / (end - begin)) * (WIDE - LEFT);
    svg.append(shape("path", { class: "rung", d: `M${place} ${HIGH - BOTTOM}v4` }));
    svg.append(words(place, HIGH - 6, text, { "text-anchor": place > WIDE - 40 ? "end" : "middle" }));
  }
  values.forEach((row, number) => {
    const part = shape("g", { "data-series": number });
    if (chart.kind === "bars") {
      row.forEach((value, at) => {
        if (!value) return;
        const below = sum(values.slice(0, number).map((other) => other[at] ?? 0));
        part.append(shape("rect", { class: "bar-part", x: x(at) + wide * 0.1, width: wide * 0.8, y: y(below + value), height: Math.max(1, y(below) - y(below + value)) }));
      });
    } else {
      part.append(shape("path", { class: "line-part", d: path(row, (at) => x(at) + wide / 2, y) }));
      row.forEach((value, at) => {
        const alone = value != null && row[at - 1] == null && row[at + 1] == null;
        if (alone) part.append(shape("circle", { class: "dot", cx: x(at) + wide / 2, cy: y(value), r: 2.5 }));
      });
    }
    svg.append(part);
  });
  const mark = shape("rect", { class: "chosen", y: TOP, width: Math.max(wide, 2), height: HIGH - BOTTOM - TOP });
  svg.append(mark);
  return { svg, choose: (at) => mark.setAttribute("x", x(at)) };
}

/** A line with a gap where nothing is known. */
function path(row, x, y) {
  let pen = "M";
  const parts = [];
  row.forEach((value, at) => {
    if (value == null) pen = "M";
    else {
      parts.push(`${pen}${x(at).toFixed(1)} ${y(value).toFixed(1)}`);
      pen = "L";
    }
  });
  return parts.join("");
}

/** From nothing to the highest value in a few round steps. */
function ladder(highest, whole) {
  const top = highest > 0 ? highest : 1;
  const size = 10 ** Math.floor(Math.log10(top / 3));
  const steps = [1, 2, 2.5, 5, 10].map((factor) => factor * size).filter((step) => !whole || Number.isInteger(step));
  const step = steps.find((one) => top / one <= 4) ?? (whole ? Math.max(1, Math.ceil(top / 4)) : top / 4);
  const rungs = [];
  for (let rung = 0; rung < Math.ceil(top / step - 1e-9) + 0.5; rung += 1) rungs.push(Number((rung * step).toPrecision(6)));
  return rungs;
}

/** The times below: each six hours of a day, each midnight of a week. */
function times(begin, end, step) {
  const found = [];
  const week = end - begin > 2 * 86400;
  for (let at = begin; at < end; at += Math.min(step, 900)) {
    const date = new Date(at * 1000);
    if (date.getMinutes() !== 0 || date.getHours() % (week ? 24 : 6) !== 0) continue;
    found.push([at, date.getHours() === 0 ? DAY.format(date) : minutesOf(at)]);
  }
  return found;
}

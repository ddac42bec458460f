// Charts of the calls of a day or of a week: SVG of our own, with every value also in words and in a table.

import { getJson } from "./api.js";
import { byId, el, setChildren, setText } from "./dom.js";
import { duration, timeOf } from "./labels.js";

const RELOAD_INTERVAL_MS = 60000;
const SPANS = { "24h": "24 hours", "7d": "7 days" };
/** A picture's size and margins; it is scaled to its place. */
const WIDTH = 600;
const HEIGHT = 180;
const LEFT = 68;
const BOTTOM = 28;
const TOP = 10;
/** Causes of refusals with a colour of their own. */
const MAX_CAUSES = 5;
const SVG = "http://www.w3.org/2000/svg";

const percent = (share) => (share == null ? "–" : `${(100 * share).toFixed(share === 1 ? 0 : 1)} %`);
const count = (number) => (number == null ? "–" : String(number));
const seconds = (value) => (value == null ? "–" : duration(value));
const cause = (word) => String(word).replaceAll("_", " ");

/** A latency's two lines: its median and its 95th percentile. */
const latency = (name, title) => ({
  id: name,
  title,
  format: seconds,
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
    format: count,
    kind: "bars",
    series: () => [
      { name: "taken", of: (point) => point.calls },
      { name: "refused", of: (point) => sum(Object.values(point.refused)) },
    ],
  },
  { id: "success", title: "Success rate", format: percent, kind: "lines", most: 1, series: () => [{ name: "of those that ended", of: (point) => point.success }] },
  {
    id: "refused",
    title: "Refusals by cause",
    format: count,
    kind: "bars",
    series: (total) => {
      const causes = Object.keys(total.refused);
      const own = causes.slice(0, causes.length > MAX_CAUSES + 1 ? MAX_CAUSES : MAX_CAUSES + 1);
      const found = own.map((name) => ({ name: cause(name), of: (point) => point.refused[name] ?? 0 }));
      if (own.length < causes.length) found.push({ name: "others", of: (point) => sum(Object.entries(point.refused).filter(([name]) => !own.includes(name)).map(([, number]) => number)) });
      return found;
    },
  },
  latency("set_up", "Set-up, INVITE to 200"),
  latency("first_audio", "First audio, from the answer"),
  latency("turn", "Turn, caller stops to bot is heard (a call's median)"),
  latency("hand_off", "Hand-off, bot's end to Ameyo's acceptance"),
  { id: "take_overs", title: "Take-overs", format: count, kind: "bars", series: () => [{ name: "take-overs", of: (point) => point.take_overs }] },
];

const sum = (numbers) => numbers.reduce((all, number) => all + number, 0);

export class Charts {
  constructor(onError) {
    this.onError = onError;
    /** The chosen point of each chart; it stays when charts are drawn again. */
    this.chosen = new Map();
    setInterval(() => {
      if (!byId("charts").hidden && !document.hidden) this.load();
    }, RELOAD_INTERVAL_MS);
  }

  setSession(session) {
    this.span = el("select", { name: "span" }, ...Object.entries(SPANS).map(([value, text]) => el("option", { value }, `the last ${text}`)));
    this.workspace = el("select", { name: "workspace" }, el("option", { value: "" }, "all together"), ...session.workspaces.map((value) => el("option", { value }, value)));
    const form = el("form", { class: "filter", "aria-label": "Of which calls" }, el("label", {}, "Of ", this.span), el("label", {}, "Tenant ", this.workspace));
    form.addEventListener("submit", (event) => event.preventDefault());
    form.addEventListener("change", () => {
      const query = new URLSearchParams({ span: this.span.value, ...(this.workspace.value ? { workspace: this.workspace.value } : {}) });
      location.hash = `#/charts?${query}`;
    });
    this.place = el("div", { class: "charts" });
    setChildren(
      byId("charts"),
      el("h2", { id: "charts-title" }, "Charts"),
      form,
      el("p", { class: "quiet" }, "A call counts when its INVITE came. In a chart, the arrow keys go from point to point."),
      this.place,
    );
  }

  show(query) {
    const given = new URLSearchParams(query);
    this.span.value = given.get("span") in SPANS ? given.get("span") : "24h";
    this.workspace.value = given.get("workspace") ?? "";
    if (this.workspace.selectedIndex < 0) this.workspace.value = "";
    this.load();
  }

  async load() {
    const wanted = { span: this.span.value, workspace: this.workspace.value };
    try {
      const answer = await getJson("charts", wanted);
      if (wanted.span !== this.span.value || wanted.workspace !== this.workspace.value) return;
      this.draw(answer);
      this.onError(null);
    } catch (error) {
      this.onError(error);
    }
  }

  draw(answer) {
    const focused = document.activeElement?.closest("#charts figure")?.dataset.chart;
    const open = new Set([...this.place.querySelectorAll("details[open]")].map((one) => one.closest("figure").dataset.chart));
    const shown = CHARTS.filter((chart) => chart.has?.(answer.total) ?? true);
    setChildren(this.place, ...shown.map((chart) => this.figure(chart, answer, open.has(chart.id))));
    if (focused) this.place.querySelector(`figure[data-chart="${focused}"] .picture`)?.focus({ preventScroll: true });
  }

  figure(chart, answer, open) {
    const { points, total, step } = answer;
    const series = chart.series(total);
    const describe = (point) => series.map((one) => `${one.name} ${chart.format(one.of(point))}`).join(", ");
    const something = series.some((one) => points.some((point) => one.of(point)));
    const text = el("p", { class: "said" });
    const picture = el("div", {
      class: "picture", tabindex: "0", role: "slider", "aria-label": chart.title, "aria-valuemin": 0, "aria-valuemax": points.length - 1,
    });
    const { svg, choose } = drawChart(chart, series, answer);
    picture.append(svg);
    const choosePoint = (place) => {
      const at = Math.max(0, Math.min(points.length - 1, place));
      this.chosen.set(chart.id, at);
      const description = `${period(points[at].at, step)}: ${describe(points[at])}`;
      picture.setAttribute("aria-valuenow", at);
      picture.setAttribute("aria-valuetext", description);
      setText(text, description);
      choose(at);
    };
    choosePoint(this.chosen.get(chart.id) ?? points.length - 1);
    const moves = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageUp: -4, PageDown: 4, Home: -points.length, End: points.length };
    picture.addEventListener("keydown", (event) => {
      if (!(event.key in moves) || event.ctrlKey || event.altKey || event.metaKey) return;
      event.preventDefault();
      choosePoint(this.chosen.get(chart.id) + moves[event.key]);
    });
    picture.addEventListener("pointermove", (event) => {
      const box = svg.getBoundingClientRect();
      const x = ((event.clientX - box.left) / box.width) * WIDTH;
      choosePoint(Math.floor(((x - LEFT) / (WIDTH - LEFT)) * points.length));
    });
    const legend = el("ul", { class: "legend" }, ...series.map((one, number) => el("li", { "data-series": number }, legendSign(chart.kind, number), one.name)));
    const whole = something ? `In all: ${describe(total)}.` : "Nothing of it in this time.";
    return el(
      "figure",
      { class: "chart", "data-chart": chart.id },
      el("figcaption", {}, el("h3", {}, chart.title), el("p", { class: "quiet" }, whole)),
      something ? picture : null,
      something ? text : null,
      something && series.length > 1 ? legend : null,
      something ? el("details", { open }, el("summary", {}, "As a table"), tableOf(chart, series, answer)) : null,
    );
  }
}

/** The same as a table; times without any value are left out. */
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
      el("tbody", {}, ...rows.map((point) => el("tr", {}, el("th", { scope: "row" }, period(point.at, step)), ...series.map((one) => el("td", {}, chart.format(one.of(point))))))),
    ),
  );
}

const DAY = new Intl.DateTimeFormat(undefined, { weekday: "short", day: "numeric", month: "short" });
const minutesOf = (at) => timeOf(at).slice(0, 5);

/** A point's time, from and to. */
function period(at, step) {
  return `${DAY.format(new Date(at * 1000))} ${minutesOf(at)}–${minutesOf(at + step)}`;
}

// -- SVG ------------------------------------------------------------------------------------------------

function shape(name, properties) {
  const node = document.createElementNS(SVG, name);
  for (const [property, value] of Object.entries(properties)) node.setAttribute(property, value);
  return node;
}

function label(x, y, text, properties = {}) {
  const node = shape("text", { x, y, ...properties });
  node.textContent = text;
  return node;
}

/** A series' sign in the legend. */
function legendSign(kind, number) {
  const svg = shape("svg", { width: 22, height: 10, "aria-hidden": "true", "data-series": number });
  svg.append(kind === "bars" ? shape("rect", { class: "bar-part", width: 22, height: 10 }) : shape("path", { class: "line-part", d: "M0 5H22" }));
  return svg;
}

/** The picture, and a function that marks a point of it. */
function drawChart(chart, series, { points, begin, end, step }) {
  const svg = shape("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, "aria-hidden": "true", focusable: "false" });
  const values = series.map((one) => points.map((point) => one.of(point)));
  const tops = points.map((_, at) => (chart.kind === "bars" ? sum(values.map((row) => row[at] ?? 0)) : Math.max(0, ...values.map((row) => row[at] ?? 0))));
  const axisValues = axisSteps(chart.most ?? Math.max(...tops), chart.format === count);
  const most = axisValues.at(-1);
  const wide = (WIDTH - LEFT) / points.length;
  const x = (at) => LEFT + at * wide;
  const y = (value) => HEIGHT - BOTTOM - (value / most) * (HEIGHT - BOTTOM - TOP);
  for (const value of axisValues) {
    svg.append(shape("path", { class: "rung", d: `M${LEFT} ${y(value)}H${WIDTH}` }));
    svg.append(label(LEFT - 6, y(value) + 4, chart.format(value), { "text-anchor": "end" }));
  }
  for (const [at, text] of timeLabels(begin, end, step)) {
    const place = LEFT + ((at - begin) / (end - begin)) * (WIDTH - LEFT);
    svg.append(shape("path", { class: "rung", d: `M${place} ${HEIGHT - BOTTOM}v4` }));
    svg.append(label(place, HEIGHT - 6, text, { "text-anchor": place > WIDTH - 40 ? "end" : "middle" }));
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
  const mark = shape("rect", { class: "chosen", y: TOP, width: Math.max(wide, 2), height: HEIGHT - BOTTOM - TOP });
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

/** The steps of the value axis: a few round ones, from 0 to beyond the highest value. */
function axisSteps(highest, whole) {
  const top = highest > 0 ? highest : 1;
  const size = 10 ** Math.floor(Math.log10(top / 3));
  const steps = [1, 2, 2.5, 5, 10].map((factor) => factor * size).filter((step) => !whole || Number.isInteger(step));
  const step = steps.find((one) => top / one <= 4) ?? (whole ? Math.max(1, Math.ceil(top / 4)) : top / 4);
  const axisValues = [];
  for (let index = 0; index < Math.ceil(top / step - 1e-9) + 0.5; index += 1) axisValues.push(Number((index * step).toPrecision(6)));
  return axisValues;
}

/** The labels of the time axis: every six hours of a day, every midnight of a week. */
function timeLabels(begin, end, step) {
  const found = [];
  const week = end - begin > 2 * 86400;
  for (let at = begin; at < end; at += Math.min(step, 900)) {
    const date = new Date(at * 1000);
    if (date.getMinutes() !== 0 || date.getHours() % (week ? 24 : 6) !== 0) continue;
    found.push([at, date.getHours() === 0 ? DAY.format(date) : minutesOf(at)]);
  }
  return found;
}

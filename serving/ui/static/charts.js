// Small SVG drawings: the probability on its scale, lines over slices or epochs, and shares of time.
import { draw, isNumber, make, percent, round } from "./dom.js";

const SERIES = ["s0", "s1", "s2", "s3"];

/** A line's colour: its own place among all there could be, or its place among those drawn. */
const kindOf = (one, i) => SERIES[(one.place ?? i) % SERIES.length];

const words = (x, y, text, anchor = "middle", more = {}) => draw("text", { x, y, "text-anchor": anchor, ...more }, text);

/** The probability between 0 and 1, the threshold, and the band of doubt where there is one. */
export function scale(probability, threshold, band) {
  const [left, width, top, high] = [14, 472, 26, 18];
  const x = value => left + width * value;
  const [low, up] = band ?? [threshold, threshold];
  const zones = [["zone-no", 0, low], ["zone-unsure", low, up], ["zone-yes", up, 1]]
    .map(([kind, from, to]) => draw("rect", { class: kind, x: x(from), y: top, width: Math.max(0, x(to) - x(from)), height: high }));
  const ticks = [0, 0.25, 0.5, 0.75, 1].map(value => words(x(value), top + high + 14, percent(value, 0), value === 0 ? "start" : value === 1 ? "end" : "middle", { class: "faint" }));
  const flag = Math.min(Math.max(x(threshold), 60), 440);
  const label = `Probability of tumour ${percent(probability)}; threshold ${percent(threshold)}${band ? `; band of doubt from ${percent(low)} to ${percent(up)}` : ""}`;
  const parts = [zones, draw("line", { class: "threshold", x1: x(threshold), x2: x(threshold), y1: top - 6, y2: top + high + 4 }),
    words(flag, top - 11, `threshold ${percent(threshold)}`), ticks,
    draw("circle", { class: "marker", cx: x(probability), cy: top + high / 2, r: 8 })];
  if (band && up - low > 0.001) parts.push(words(Math.min(Math.max(x((low + up) / 2), 90), 400), top + high + 33, `band of doubt ${percent(low)} to ${percent(up)}`));
  return draw("svg", { class: "scale", viewBox: `0 0 500 ${band ? 84 : 64}`, role: "img", "aria-label": label }, parts);
}

function ends(series, fixed) {
  const points = series.flatMap(one => one.points).filter(([x, y]) => isNumber(x) && isNumber(y));
  const xs = points.map(p => p[0]);
  return {
    none: !points.length,
    low: fixed ? 0 : Math.min(...xs), high: fixed ? 1 : Math.max(...xs),
    top: fixed ? 1 : Math.max(...points.map(p => p[1]), 1e-6),
  };
}

function axes(frame, { low, high, top }, units) {
  const { left, right, up, down } = frame;
  const grid = [0, 0.5, 1].map(share => {
    const y = down - share * (down - up);
    return [draw("line", { class: "grid", x1: left, x2: right, y1: y, y2: y }), words(left - 6, y + 4, short(share * top), "end", { class: "faint" })];
  });
  return [grid, words(left, down + 15, short(low), "start", { class: "faint" }), words(right, down + 15, short(high), "end", { class: "faint" }),
    words((left + right) / 2, down + 15, units.x, "middle", { class: "faint" })];
}

const short = value => (Math.abs(value) >= 100 || Number.isInteger(value) ? value.toFixed(0) : value.toPrecision(2));

/**
 * Lines over one axis; `series` are `{ name, points: [[x, y], …], place, told }`, `told` where a single line is to be named too.
 * `pick` is called with the x that was clicked; `mark` moves a line to an x.
 */
export function lines(title, series, { x = "", fixed = false, most = null, level = null, dots = false, pick = null } = {}) {
  const frame = fixed ? { left: 46, right: 346, up: 12, down: 312 } : { left: 46, right: 488, up: 12, down: 150 };
  const range = ends(series, fixed);
  if (most !== null) range.top = most;
  if (range.none) return make("figure", { className: "chart" }, make("figcaption", {}, title), make("p", { className: "small" }, "No figures for this."));
  const at = ([px, py]) => [
    frame.left + (frame.right - frame.left) * (range.high > range.low ? (px - range.low) / (range.high - range.low) : 0.5),
    frame.down - (frame.down - frame.up) * py / range.top,
  ];
  const svg = draw("svg", { viewBox: `0 0 ${frame.right + 12} ${frame.down + 22}`, role: "img", "aria-label": title }, axes(frame, range, { x }));
  if (fixed) svg.append(draw("line", { class: "ideal", x1: frame.left, y1: frame.down, x2: frame.right, y2: frame.up }));
  if (level !== null) { const y = at([range.low, level])[1]; svg.append(draw("line", { class: "ideal", x1: frame.left, x2: frame.right, y1: y, y2: y })); }
  series.forEach((one, i) => svg.append(...curve(one, kindOf(one, i), at, dots)));
  const marker = draw("line", { class: "here", x1: -9, x2: -9, y1: frame.up, y2: frame.down });
  svg.append(marker);
  if (pick) listen(svg, frame, range, pick);
  const mark = value => { const to = at([value, 0])[0]; marker.setAttribute("x1", to); marker.setAttribute("x2", to); };
  const figure = make("figure", { className: `chart${pick ? " picks" : ""}${fixed ? " square" : ""}` }, make("figcaption", {}, title), svg, legend(series));
  return Object.assign(figure, { mark });
}

function curve({ points }, kind, at, dots) {
  const there = points.filter(([px, py]) => isNumber(px) && isNumber(py));
  const marks = dots || there.length < 3 ? there.map(p => draw("circle", { class: kind, cx: at(p)[0], cy: at(p)[1], r: 3.5 })) : [];
  return [draw("polyline", { class: kind, points: there.map(p => at(p).map(v => v.toFixed(1)).join(",")).join(" ") }), ...marks];
}

function legend(series) {
  if (!series.some(one => one.name) || (series.length < 2 && !series[0].told)) return null;
  return make("p", { className: "legend" }, series.map((one, i) => make("span", {}, make("i", { className: `key ${kindOf(one, i)}`, "aria-hidden": "true" }), one.name)));
}

function listen(svg, frame, range, pick) {
  svg.addEventListener("pointerdown", event => {
    const box = svg.getBoundingClientRect();
    const x = (event.clientX - box.left) / box.width * (frame.right + 12);
    const share = Math.min(1, Math.max(0, (x - frame.left) / (frame.right - frame.left)));
    pick(Math.round(range.low + share * (range.high - range.low)));
  });
}

/** Times as bars, longest phase at full width. */
export function bars(title, values) {
  const most = Math.max(...values.map(([, value]) => value), 1e-9);
  const rows = values.map(([name, value]) => {
    const bar = make("span", { className: "bar" });
    bar.style.width = `${Math.max(1, 100 * value / most)}%`;
    return make("tr", {}, make("th", { scope: "row" }, name), make("td", { className: "number" }, `${round(value)} ms`), make("td", { className: "bars" }, bar));
  });
  return make("table", { className: "times" }, make("caption", {}, title), make("tbody", {}, rows));
}

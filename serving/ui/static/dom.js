// Small helpers to build the page; text is always set as text, never as HTML.

export function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name in node && name !== "list" && !name.includes("-")) node[name] = value;
    else node.setAttribute(name, value);
  }
  node.append(...children.flat(Infinity).filter(child => child !== null && child !== undefined && child !== false));
  return node;
}

const SVG = "http://www.w3.org/2000/svg";

export function draw(tag, attributes = {}, ...children) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value);
  }
  node.append(...children.flat(Infinity).filter(Boolean));
  return node;
}

// Not by fetch of a data: address: the page's content policy allows its own server only.
export const fromBase64 = text => Uint8Array.from(atob(text), letter => letter.charCodeAt(0));

export const isNumber = value => typeof value === "number" && Number.isFinite(value);
export const round = (value, digits = 1) => (isNumber(value) ? value.toFixed(digits) : "–");
export const precise = value => (isNumber(value) ? Number(value.toPrecision(2)).toString() : "–");
export const percent = (value, digits = 1) => (isNumber(value) ? `${(100 * value).toFixed(digits)} %` : "–");

/** A table; a number's column is aligned to the right by its position in `numeric`. */
export function table(caption, heads, rows, numeric = []) {
  const side = at => (numeric.includes(at) ? "number" : "");
  const head = make("tr", {}, heads.map((text, at) => make("th", { scope: "col", className: side(at) }, text)));
  const line = cells => make("tr", {}, cells.map((cell, at) => (at === 0
    ? make("th", { scope: "row" }, cell)
    : make("td", { className: side(at) }, cell))));
  return make("div", { className: "wide", tabindex: "0", role: "region", "aria-label": caption },
    make("table", {}, make("caption", {}, caption), make("thead", {}, head), make("tbody", {}, rows.map(line))));
}

export function download(name, content, kind) {
  const address = URL.createObjectURL(content instanceof Blob ? content : new Blob([content], { type: kind }));
  make("a", { href: address, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(address), 10_000);
}

export const button = (text, onclick, className = "") => make("button", { type: "button", className, onclick }, text);

export function slider(label, value, attributes = {}) {
  const input = make("input", { type: "range", min: 0, max: 1, step: 0.05, ...attributes, value });
  return { input, node: make("label", { className: "slider" }, make("span", {}, label), input), get value() { return Number(input.value); } };
}

export const brightness = () => slider("Brightness", 1, { min: 0.4, max: 3, step: 0.1 });

/** The colours of a map, from little to much. */
export const ramp = (kind, low, high) => make("p", { className: "ramp" }, make("span", {}, low), make("i", { className: kind, "aria-hidden": "true" }), make("span", {}, high));

export function check(label, checked, ...before) {
  const input = make("input", { type: "checkbox", checked });
  return { input, node: make("label", { className: "check" }, input, before, label), get on() { return input.checked; } };
}

export function choice(label, options, value) {
  const input = make("select", {}, options.map(([id, text]) => make("option", { value: id }, text)));
  if (value !== undefined) input.value = value;
  return { input, node: make("label", {}, label, " ", input), get value() { return input.value; } };
}

export const note = (text, kind = "quiet") => make("p", { className: kind }, text);

/**
 * A task with its states: working, done, failed with the reason and a way to try again.
 * `place` is told apart by aria-busy, so that a reader and a test know when it is done.
 */
export async function withStates(place, task, working = "Working …") {
  const status = make("p", { className: "working", role: "status" }, make("span", { className: "spinner", "aria-hidden": "true" }), make("span", {}, working));
  place.setAttribute("aria-busy", "true");
  place.replaceChildren(status);
  const tell = text => { status.lastChild.textContent = text; };
  try {
    place.replaceChildren(...(await task(tell)).filter(Boolean));
  } catch (problem) {
    if (!(problem instanceof Error)) throw problem;
    place.replaceChildren(make("div", { className: "error", role: "alert" },
      make("strong", {}, "That did not work"), make("p", {}, problem.message),
      button("Try again", () => withStates(place, task, working))));
  }
  place.removeAttribute("aria-busy");
}

// Many slices, each its own request: one bad file stops nothing.
import { send, sendJson } from "./api.js";
import { button, download, isNumber, make, note, percent, round } from "./dom.js";
import { sliceSettings } from "./settings.js";

const TOGETHER = 4;
const THUMB = 96; // twice what is shown, for dense screens
const WORDS = { tumour: "tumour", no_tumour: "no tumour", unsure: "unsure", failed: "failed" };
const COLUMNS = [
  ["at", "No."], ["name", "File"], ["decision", "Decision"], ["probability", "Probability"], ["ood", "Unlike training"], ["error", "What is wrong"],
];

async function thumbnail(file, parameters) {
  const picture = await (await send("/ui/api/preview", [file], { modalities: parameters.modalities, most: THUMB })).blob();
  return picture.size ? picture : null;
}

/** One file's row: what the model says, or why not. */
async function judge(file, at, signal) {
  const parameters = sliceSettings(), row = { at: at + 1, name: file.name, label: "", decision: "failed", probability: null, threshold: null, ood: null, error: "" };
  try {
    const answer = await sendJson("/classify", [file], parameters, { signal });
    Object.assign(row, { label: answer.predicted_label, decision: answer.decision, probability: answer.tumor_probability, threshold: answer.threshold, ood: answer.ood_score, foreign: answer.ood_flag });
    row.picture = await thumbnail(file, parameters);
  } catch (problem) {
    if (problem.name === "AbortError") throw problem;
    row.error = problem.message;
  }
  return row;
}

function line(row) {
  const address = row.picture ? URL.createObjectURL(row.picture) : null;
  const image = address ? make("img", { className: "thumb", src: address, alt: "", width: 48, height: 48, decoding: "async" }) : "";
  const cells = [
    make("td", { className: "number" }, String(row.at)), make("th", { scope: "row" }, row.name),
    make("td", {}, make("span", { className: `tag ${row.decision}` }, WORDS[row.decision])),
    make("td", { className: "number" }, percent(row.probability)),
    make("td", { className: "number" }, isNumber(row.ood) ? `${round(row.ood, 2)}${row.foreign ? " (flagged)" : ""}` : "–"), make("td", {}, row.error),
  ];
  return Object.assign(make("tr", {}, make("td", {}, image), cells), { free: () => address && URL.revokeObjectURL(address) });
}

// A spreadsheet takes what begins with one of these for a formula.
const cell = value => `"${String(value ?? "").replace(/^[=+\-@\t\r]/, "'$&").replaceAll('"', '""')}"`;
const KEPT = ["name", "label", "decision", "probability", "threshold", "ood", "error"];
const plain = rows => rows.map(row => Object.fromEntries(KEPT.map(key => [key, row[key]])));
export const csv = rows => [KEPT.join(","), ...plain(rows).map(row => KEPT.map(key => cell(row[key])).join(","))].join("\r\n");

class Rows {
  constructor(place) {
    Object.assign(this, { all: [], order: ["at", 1], body: make("tbody") });
    this.heads = COLUMNS.map(([key, title]) => make("th", { scope: "col", "aria-sort": "none" }, button(title, () => this.sort(key))));
    const head = make("thead", {}, make("tr", {}, make("td", {}, make("span", { className: "hidden" }, "Picture")), this.heads));
    this.table = make("div", { className: "rows", tabindex: "0", role: "region", "aria-label": "Results by file" }, make("table", {}, head, this.body));
    this.summary = make("p", { role: "status" });
    this.failures = make("div", { className: "warn", hidden: true });
    const actions = make("p", { className: "actions" }, button("Download CSV", () => download("slicewise.csv", csv(this.all), "text/csv")),
      button("Download JSON", () => download("slicewise.json", JSON.stringify(plain(this.all), null, 1), "application/json")));
    place.replaceChildren(this.summary, this.failures, actions, this.table);
  }

  add(row) {
    row.line = line(row);
    this.all.push(row);
    this.body.append(row.line);
    const failed = this.all.filter(one => one.error);
    this.summary.textContent = `${this.all.length} files: ${["tumour", "no_tumour", "unsure"].map(kind => `${this.all.filter(one => one.decision === kind).length} ${WORDS[kind]}`).join(", ")}, ${failed.length} failed.`;
    this.failures.hidden = !failed.length;
    this.failures.replaceChildren(make("strong", {}, "Not analysed: "), failed.map(one => one.name).join(", "));
  }

  /** By a column; by the same one again, the other way round. */
  sort(key) {
    this.order = [key, this.order[0] === key ? -this.order[1] : 1];
    this.settle();
  }

  settle() {
    const [key, way] = this.order, value = row => row[key];
    const empty = row => value(row) === null || value(row) === undefined || value(row) === "";
    this.all.sort((a, b) => {
      if (empty(a) || empty(b)) return empty(a) - empty(b); // empty ones last, whichever way
      return way * (isNumber(value(a)) ? value(a) - value(b) : String(value(a)).localeCompare(String(value(b)), undefined, { numeric: true }));
    });
    this.heads.forEach((head, at) => head.setAttribute("aria-sort", COLUMNS[at][0] !== key ? "none" : way > 0 ? "ascending" : "descending"));
    this.body.append(...this.all.map(row => row.line));
  }

  free() { this.all.forEach(row => row.line.free()); }
}

export function build(panel) {
  const input = make("input", { type: "file", multiple: true });
  const bar = make("progress", { "aria-label": "Files done", value: 0, max: 1 }), count = make("span", { className: "small" });
  const stop = button("Stop", () => running?.abort()), progress = make("p", { className: "actions", hidden: true }, bar, count, stop);
  const place = make("div", { className: "result" }, note("No files yet. Choose many slices at once: the table below fills as they are done.", "empty"));
  let running = null, rows = null;
  const go = async files => {
    running?.abort();
    rows?.free();
    const mine = running = new AbortController(), list = rows = new Rows(place), queue = [...files.entries()];
    Object.assign(bar, { value: 0, max: files.length });
    progress.hidden = false;
    const work = async () => {
      for (let next = queue.shift(); next && !mine.signal.aborted; next = queue.shift()) {
        const row = await judge(next[1], next[0], mine.signal);
        if (!mine.signal.aborted) list.add(row);
        bar.value = list.all.length;
        count.textContent = `${list.all.length} of ${files.length}`;
      }
    };
    await Promise.allSettled(Array.from({ length: TOGETHER }, work));
    if (running === mine) { progress.hidden = true; list.settle(); }
  };
  const take = files => { if (files.length) go(files); };
  input.addEventListener("change", () => take([...input.files]));
  const zone = make("div", { className: "drop" }, make("label", {}, make("strong", {}, "Choose many slices"), input), note("or drop them here", "small"));
  zone.addEventListener("dragover", event => { event.preventDefault(); zone.classList.add("over"); });
  zone.addEventListener("dragleave", () => zone.classList.remove("over"));
  zone.addEventListener("drop", event => { event.preventDefault(); zone.classList.remove("over"); take([...event.dataTransfer.files]); });
  panel.append(make("div", { className: "picker" }, zone), note("Each file is judged by itself, with the settings chosen. A file that cannot be read is named and stops nothing.", "small"), progress, place);
}

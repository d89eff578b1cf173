// Choosing a scan: drop it, choose it, or take a sample; the result's place below says what goes on.
import { ask, askJson } from "./api.js";
import { button, make, note, withStates } from "./dom.js";
import { known, onceUp } from "./server.js";

async function sampleFile(name) {
  return new File([await (await ask(`/ui/api/samples/${name}`)).blob()], name);
}

function dropZone(input, text, take) {
  const zone = make("div", { className: "drop" }, make("label", {}, make("strong", {}, text), input), note("or drop it here", "small"));
  const mark = on => zone.classList.toggle("over", on);
  zone.addEventListener("dragover", event => { event.preventDefault(); mark(true); });
  zone.addEventListener("dragleave", () => mark(false));
  zone.addEventListener("drop", event => { event.preventDefault(); mark(false); take([...event.dataTransfer.files]); });
  return zone;
}

function sampleList(kind, take) {
  const list = make("div", { className: "samples", role: "group", "aria-label": "Samples: phantoms, no patients" });
  let filled = false;
  onceUp(async () => {
    if (filled) return;
    filled = true;
    try {
      for (const one of await askJson("/ui/api/samples")) {
        const picture = make("img", { src: `/ui/api/samples/${one.picture}`, alt: "", width: 46, height: 46, loading: "lazy" });
        list.append(make("button", { type: "button", className: "sample", onclick: () => take(one) }, picture, make("span", {}, one.title, make("small", {}, one.shows))));
      }
    } catch { filled = false; }
  });
  return make("div", {}, note(`Samples: phantoms, no patients${kind === "study" ? "; four sequences each" : ""}`, "small"), list);
}

/**
 * The input part of a tab, and the place for its result.
 * `analyse(files, sample, tell)` gives the result's nodes; `extra` stands beside the file.
 */
export function picker({ kind, text, hint, many = false, extra = null, analyse }) {
  const input = make("input", { type: "file", multiple: many });
  const place = make("div", { className: "result" }, note("Nothing chosen yet.", "empty"));
  let last = null;
  const again = button("Analyse again", () => run(), "main");
  again.hidden = true;
  const run = async () => {
    again.disabled = true;
    await withStates(place, tell => work(tell), "Working …");
    Object.assign(again, { disabled: false, hidden: false });
  };
  const work = async tell => {
    const { files, sample } = last;
    await known();
    return analyse(sample ? [await sampleFile(sample[kind])] : files, sample, tell);
  };
  const take = files => { if (files.length) { last = { files: many ? files : files.slice(0, 1), sample: null }; run(); } };
  input.addEventListener("change", () => take([...input.files]));
  const samples = sampleList(kind, sample => { input.value = ""; last = { files: [], sample }; run(); });
  const bar = make("div", { className: "picker" }, dropZone(input, text, take), samples, extra, again);
  return { nodes: [bar, note(hint, "small"), place], rerun: () => last && run(), sampleFile };
}

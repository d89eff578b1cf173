// The page's frame: tabs, and what is shown first.
import { build as batch } from "./batch.js";
import { build as classification } from "./classification.js";
import { make } from "./dom.js";
import { build as patient } from "./patient.js";
import { build as runs } from "./runs.js";
import { buildMultitask, buildSegmentation } from "./segmentation.js";
import { watch } from "./server.js";
import { recall, remember, setUp } from "./settings.js";

const TABS = [
  { id: "classification", title: "Classification", fill: classification },
  { id: "segmentation", title: "Segmentation", fill: buildSegmentation },
  { id: "multitask", title: "Multi-task", fill: buildMultitask },
  { id: "batch", title: "Batch", fill: batch },
  { id: "patient", title: "Patient", fill: patient },
  { id: "runs", title: "Runs", fill: runs },
];
const NARROW = matchMedia("(max-width: 56rem)");

function show(id, focus = false) {
  for (const tab of TABS) {
    const chosen = tab.id === id;
    if (chosen && !tab.filled) { tab.fill(tab.panel); tab.filled = true; }
    tab.head.setAttribute("aria-selected", chosen);
    tab.head.tabIndex = chosen ? 0 : -1;
    tab.panel.hidden = !chosen;
    if (chosen && focus) tab.head.focus();
  }
  remember("tab", id);
}

function keys(event) {
  const at = TABS.findIndex(tab => tab.head === event.target);
  const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: TABS.length - 1 }[event.key];
  if (to === undefined) return;
  event.preventDefault();
  show(TABS[(to + TABS.length) % TABS.length].id, true);
}

function build() {
  setUp();
  for (const tab of TABS) {
    const [head, panel] = [`tab-${tab.id}`, `panel-${tab.id}`];
    tab.head = make("button", { id: head, type: "button", role: "tab", "aria-controls": panel, onclick: () => show(tab.id), onkeydown: keys }, tab.title);
    tab.panel = make("section", { id: panel, role: "tabpanel", "aria-labelledby": head, hidden: true });
    document.getElementById("tabs").append(tab.head);
    document.getElementById("panels").append(tab.panel);
  }
  const asked = recall("tab");
  show(TABS.some(tab => tab.id === asked) ? asked : TABS[0].id);
  const side = document.getElementById("side");
  const fold = () => { side.open = !NARROW.matches; };
  NARROW.addEventListener("change", fold);
  fold();
}

build();
watch();

// The two tabs that draw regions: segmentation with maps, and both tasks at once.
import { sendJson } from "./api.js";
import { bars } from "./charts.js";
import { parametersOf } from "./classification.js";
import { make, note, precise, table } from "./dom.js";
import { picker } from "./picker.js";
import { regionView, truthOf } from "./regions.js";
import { given } from "./settings.js";
import { foreign, verdict } from "./verdict.js";

const HINT = "One axial slice: PNG, JPEG, TIFF, npy, npz, or a NIfTI or DICOM file of a single slice.";
const PHASES = [
  ["read", "receiving"], ["preprocess", "preprocessing"], ["network", "network"], ["postprocess", "calibration, masks"],
  ["backend", "model server, in all"], ["encode", "pictures"], ["total", "in all"],
];

function doubt(uncertainty) {
  if (!uncertainty) return null;
  const rows = [["all (predictive entropy)", uncertainty.mean], ["of the model (mutual information)", uncertainty.epistemic],
    ["of the image (expected entropy)", uncertainty.aleatoric], ["spread of the probability (σ)", uncertainty.tumor_probability_std]];
  return table("Uncertainty, mean over the head in nats", ["Kind", "Value"], rows.map(([name, value]) => [name, precise(value)]), [1]);
}

export function buildSegmentation(panel) {
  const truth = make("input", { type: "file" });
  const extra = make("div", { className: "drop slim" }, make("label", {}, make("strong", {}, "Ground truth"), " (if there is one) ", truth));
  const chosen = picker({
    kind: "slice", text: "Choose a slice", hint: `${HINT} The ground truth: a mask of the same size, 0 and 255, 0 and 1, or BraTS's labels.`, extra,
    analyse: async ([file], sample) => {
      const parameters = parametersOf(sample);
      const query = { ...parameters, ...given("n_mc_samples"), probability_map: "true" };
      const [answer, mask] = await Promise.all([sendJson("/segment/uncertainty", [file], query), truthOf(truth, sample, chosen.sampleFile)]);
      const view = await regionView(file, answer, parameters, mask);
      return [foreign(answer), make("div", { className: "columns" }, make("div", {}, view.figure, view.below), make("div", {}, verdict(answer), view.side, doubt(answer.uncertainty)))];
    },
  });
  truth.addEventListener("change", chosen.rerun);
  panel.append(...chosen.nodes);
}

export function buildMultitask(panel) {
  const { nodes } = picker({
    kind: "slice", text: "Choose a slice", hint: HINT,
    analyse: async ([file], sample) => {
      const parameters = parametersOf(sample);
      const answer = await sendJson("/predict_multitask", [file], { ...parameters, overlay: "false" });
      const view = await regionView(file, answer, parameters, null);
      const times = PHASES.filter(([name]) => name in answer.timings_ms).map(([name, title]) => [title, answer.timings_ms[name]]);
      return [foreign(answer), make("div", { className: "columns" }, make("div", {}, view.figure, view.below), make("div", {}, verdict(answer),
        make("blockquote", { className: "advice" }, answer.recommendation),
        answer.segmented ? null : note("Below the threshold the decoder does not run: there are no regions.", "small"),
        view.side, bars("Time by phase", times)))];
    },
  });
  panel.append(...nodes);
}

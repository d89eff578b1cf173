// What the model says of one scan, and where that lies on the scale.
import { scale } from "./charts.js";
import { make, note, percent, round } from "./dom.js";
import { modelInfo } from "./server.js";

const WORDS = {
  tumour: ["Tumour likely", "The probability lies above the threshold."],
  no_tumour: ["No tumour seen", "The probability lies below the threshold. That does not rule a tumour out."],
  unsure: ["Unsure", "The probability lies in the band of doubt around the threshold: the model abstains."],
};

/** The band of doubt that the decision was made with: the calibration's, widened to hold the threshold. */
function band(threshold) {
  const { low, high } = modelInfo()?.calibration?.abstain ?? {};
  return typeof low === "number" && typeof high === "number" ? [Math.min(low, threshold), Math.max(high, threshold)] : null;
}

export function foreign(answer) {
  const flagged = answer.ood_flag ?? (answer.ood_share > 0.5);
  if (!flagged) return null;
  const score = answer.ood_score ?? answer.ood_share;
  const parts = Object.entries(answer.ood_parts ?? {}).filter(([, value]) => value > 0.5).map(([name]) => name.replaceAll("_", " "));
  return make("div", { className: "warn", role: "alert" }, make("strong", {}, "Unlike the training scans: do not rely on this result."),
    note(`Out-of-distribution ${answer.ood_score === undefined ? "share of slices" : "score"} ${round(score, 2)}${parts.length ? `; unusual: ${parts.join(", ")}` : ""}. Is it an upright axial brain MRI of the sequence named?`, ""));
}

export function verdict(answer) {
  const [title, why] = WORDS[answer.decision];
  const shown = band(answer.threshold);
  return make("section", { className: `verdict ${answer.decision}`, "aria-label": "What the model says" },
    make("p", { className: "title" }, title),
    make("p", { className: "figure" }, make("strong", {}, percent(answer.tumor_probability)), " calibrated probability of tumour"),
    scale(answer.tumor_probability, answer.threshold, shown),
    note(why, "small"),
    shown ? null : note("This model has no band of doubt.", "small"));
}

// A study's figures: what was measured, how it runs through the slices, and the one-page summary.
import { lines } from "./charts.js";
import { isNumber, make, note, percent, round, table } from "./dom.js";
import { COLOURS, NAMES, REGIONS } from "./layers.js";

const SIDES = { left: "left", right: "right", both: "both sides", midline: "midline" };

export function measures(answer) {
  const rows = answer.trained_regions.map(name => {
    const found = answer.measures?.regions?.[name] ?? {}, touched = answer.affected_slices[name];
    const swatch = make("i", { className: "swatch", "aria-hidden": "true" });
    swatch.style.background = COLOURS[name];
    return [
      make("span", {}, swatch, `${name}, ${NAMES[name]}`), round(answer.volumes_ml[name], 2),
      found.diameters_mm ? found.diameters_mm.map(side => round(side)).join(" × ") : "–",
      touched.length ? `${touched.length} (${touched[0] + 1} to ${touched.at(-1) + 1})` : "none", String(found.components ?? "–"),
    ];
  });
  return table("Measured on the mask (diameters as in RANO)", ["Region", "ml", "Diameters, mm", "Slices", "Pieces"], rows, [1, 2, 3, 4]);
}

export function side(answer) {
  const found = answer.measures?.laterality;
  const word = typeof found === "string" ? found : found?.side;
  return word ? `Side of the whole tumour: ${SIDES[word] ?? word}.` : null;
}

/** Probability and areas from the lowest slice to the highest; a press goes to that slice. */
export function profile(answer, pick) {
  const there = answer.slices.filter(one => isNumber(one.tumor_probability));
  const axis = { x: "slice, from below", pick: x => pick(x - 1) };
  const probability = lines("Probability of tumour by slice (dashed: threshold)", [{ name: "probability", points: there.map(one => [one.index + 1, one.tumor_probability]) }], { ...axis, level: answer.threshold, most: 1 });
  const known = there.some(one => one.area_mm2);
  const areas = known ? lines("Area by slice, mm²", REGIONS.filter(name => answer.trained_regions.includes(name)).map(name => ({ name, points: there.map(one => [one.index + 1, one.area_mm2[name]]) })), axis) : note("Areas need the voxel's size.", "small");
  const mark = index => [probability, areas].forEach(chart => chart.mark?.(index + 1));
  return { node: make("div", { className: "two" }, probability, areas), mark };
}

/** How sure the model is of the study as a whole. */
export function doubts(answer) {
  const there = answer.slices.filter(one => one.decision), unsure = there.filter(one => one.decision === "unsure").length;
  const rows = [
    ["Slices in the band of doubt", `${unsure} of ${there.length}`],
    ["Slices unlike the training scans", isNumber(answer.ood_share) ? percent(answer.ood_share, 0) : "not told by this model"],
    ["Slices that failed", answer.failed_slices.length ? answer.failed_slices.map(at => at + 1).join(", ") : "none"],
  ];
  return table("How sure the model is", ["What", "Value"], rows);
}

const STYLE = `body{font:14px/1.45 system-ui,sans-serif;max-width:48rem;margin:1.5rem auto;padding:0 1rem;color:#111;background:#fff}
h1{font-size:1.4rem;margin:0}.w{font-weight:700;color:#7a4b00}table{border-collapse:collapse;margin:.6rem 0}caption{text-align:left;font-weight:700}
th,td{text-align:left;font-weight:400;padding:.15rem .8rem .15rem 0;border-bottom:1px solid #ccc}thead th{font-weight:700}
.p{display:flex;gap:.5rem;background:#000;padding:.5rem}.p figure{margin:0;flex:1;color:#fff;font-size:.8rem}.p img{width:100%;height:11rem;object-fit:contain}
.swatch{display:inline-block;width:.8em;height:.8em;margin-right:.4em;border:1px solid #0006;-webkit-print-color-adjust:exact;print-color-adjust:exact}
.p{-webkit-print-color-adjust:exact;print-color-adjust:exact}@page{size:A4;margin:14mm}`;

/** One page that stands alone, to be read or printed (as PDF, by the browser); it names no file and no patient. */
export function summary(answer, pictures) {
  const shots = pictures.map(({ title, address }) => make("figure", {}, make("img", { src: address, alt: title }), make("figcaption", {}, title)));
  const body = make("body", {},
    make("h1", {}, "SliceWise: summary of a study"), make("p", { className: "w" }, answer.research_use),
    make("p", {}, make("strong", {}, `${answer.decision === "unsure" ? "Unsure" : answer.predicted_label}`), `: calibrated probability of tumour ${percent(answer.tumor_probability)}, threshold ${percent(answer.threshold)}.`),
    make("p", {}, answer.recommendation), make("div", { className: "p" }, shots), measures(answer), side(answer) ? make("p", {}, side(answer)) : null, doubts(answer),
    answer.warnings.map(text => make("p", {}, `Note: ${text}`)),
    make("p", {}, make("small", {}, `Sequences: ${answer.modalities.join(", ")}. Voxels: ${answer.shape.join(" × ")}${answer.spacing_mm ? `, ${answer.spacing_mm.map(v => round(v, 2)).join(" × ")} mm` : ", size unknown"}. Model ${answer.model.name} ${answer.model.version}, ${answer.model.digest.slice(0, 16)}. Made ${new Date().toISOString().slice(0, 16).replace("T", " ")} UTC.`)));
  const page = make("html", { lang: "en" }, make("head", {}, make("meta", { charset: "utf-8" }), make("title", {}, "SliceWise: summary of a study"), make("style", {}, STYLE)), body);
  return `<!doctype html>${page.outerHTML}`;
}

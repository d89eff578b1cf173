// One slice with the regions, maps and the ground truth, and the table of areas.
import { send, told } from "./api.js";
import { brightness, check, choice, make, note, ramp, round, slider, table } from "./dom.js";
import { COLOURS, NAMES, REGIONS, SHADES, fillRegions, heatTable, outline, paint, pixels, stroke } from "./layers.js";
import { firstShown, listen, preview, stage } from "./stage.js";

const TRUTH = { WT: [1, 2, 4], TC: [1, 4], ET: [4] };

export async function readTruth(file) {
  if (!file) return null;
  const response = await send("/ui/api/labels", [file]);
  return { ...(await pixels(await response.blob())), readAs: told(response).read_as };
}

/** The regions that a mask tells apart: one that holds a single value says nothing of the tumour's parts. */
const known = (truth, region) => truth && (truth.readAs === "BraTS labels" || region === "WT");
const inTruth = (truth, region) => at => TRUTH[region].includes(truth.values[at]);

/** Dice as evaluation has it: undefined where the truth is empty, and the false positives counted instead. */
export function dice(mask, truth, region) {
  if (!truth) return "–";
  if (!known(truth, region)) return "not told";
  const inside = inTruth(truth, region);
  let [both, ours, theirs] = [0, 0, 0];
  for (let i = 0; i < mask.values.length; i++) {
    const [a, b] = [mask.values[i] > 127, inside(i)];
    both += a && b; ours += a; theirs += b;
  }
  if (theirs === 0) return ours ? `undefined: ${ours} false pixels` : "undefined: both empty";
  return (2 * both / (ours + theirs)).toFixed(3);
}

async function allMaps(answer) {
  const found = {};
  for (const region of answer.trained_regions) {
    const map = answer.probability_maps?.[region];
    if (map) found[`Probability of ${region}`] = { picture: await pixels(map), shades: SHADES.heat, ramp: ["inferno", "0", "1"] };
  }
  const kinds = { map: "Uncertainty, all", epistemic_map: "Uncertainty of the model", aleatoric_map: "Uncertainty of the image" };
  for (const [key, title] of Object.entries(kinds)) {
    if (answer.uncertainty?.[key]) found[title] = { picture: await pixels(answer.uncertainty[key]), shades: SHADES.cool, ramp: ["viridis", "sure", "unsure (ln 2 nats)"] };
  }
  return found;
}

const swatch = colour => { const node = make("i", { className: "swatch", "aria-hidden": "true" }); node.style.background = colour; return node; };

function controlsOf(answer, maps, view, truth) {
  const toggles = Object.fromEntries(REGIONS.map(name => [name, check(`${name}, ${NAMES[name]}`, answer.trained_regions.includes(name), swatch(COLOURS[name]))]));
  return {
    toggles,
    fill: slider("Fill", 0.35),
    map: choice("Map", [["", "none"], ...Object.keys(maps).map(name => [name, name])]),
    strength: slider("Map strength", 0.7),
    legend: make("div"),
    bright: brightness(),
    shown: choice("Sequence shown", view.names.map((name, at) => [at, name]), firstShown(view.names)),
    truth: truth ? choice("Ground truth (white dashes)", [...REGIONS.filter(name => known(truth, name)), ""].map(name => [name, name || "none"])) : null,
  };
}

function painter({ view, masks, maps, truth, controls }) {
  const { width, height } = view.channels[0];
  const paths = Object.fromEntries(REGIONS.map(name => [name, outline(at => masks[name].values[at] > 127, width, height)]));
  const borders = truth ? Object.fromEntries(REGIONS.map(name => [name, outline(inTruth(truth, name), width, height)])) : {};
  return context => {
    const map = maps[controls.map.value];
    if (map) paint(context, map.picture, heatTable(map.shades, controls.strength.value), true);
    const shown = REGIONS.filter(name => controls.toggles[name].on);
    if (!map) fillRegions(context, width, height, Object.fromEntries(shown.map(name => [name, at => masks[name].values[at] > 127])), controls.fill.value);
    shown.forEach(name => stroke(context, paths[name], width, height, COLOURS[name]));
    const border = borders[controls.truth?.value];
    if (border) stroke(context, border, width, height, COLOURS.truth, { dashed: true });
  };
}

function areas(answer, masks, truth) {
  const rows = answer.trained_regions.map(name => [
    make("span", {}, swatch(COLOURS[name]), `${name}, ${NAMES[name]}`), String(answer.tumor_area_pixels[name]), round(answer.tumor_area_mm2[name], 0),
    String(answer.components?.[name]?.count ?? "–"), ...(truth ? [dice(masks[name], truth, name)] : []),
  ]);
  return table("Area by region", ["Region", "Pixels", "mm²", "Pieces", ...(truth ? ["Dice"] : [])], rows, [1, 2, 3, 4]);
}

/** The view of one segmented slice. */
export async function regionView(file, answer, parameters, truth) {
  const view = await preview(file, parameters), masks = {};
  const [{ width, height }] = view.channels;
  if (truth && (truth.width !== width || truth.height !== height)) throw new Error(`The ground truth is ${truth.width}×${truth.height} pixels, the slice ${width}×${height}: send the mask of this slice.`);
  for (const name of REGIONS) masks[name] = await pixels(answer.masks[name]);
  const maps = await allMaps(answer), controls = controlsOf(answer, maps, view, truth);
  const shown = stage("The slice with the regions that the model sees"), over = painter({ view, masks, maps, truth, controls });
  const redraw = () => {
    const map = maps[controls.map.value];
    controls.legend.replaceChildren(...(map ? [ramp(...map.ramp)] : []));
    controls.strength.node.hidden = !map;
    shown.show(view.channels[Number(controls.shown.value)], view.pixel, over, controls.bright.value);
  };
  const toggles = answer.trained_regions.map(name => controls.toggles[name]);
  listen([...toggles, controls.fill, controls.map, controls.strength, controls.bright, controls.shown, controls.truth].filter(Boolean).map(one => one.input), redraw);
  redraw();
  return { figure: shown.figure, side: [
    make("fieldset", { className: "controls" }, make("legend", {}, "Shown"), toggles.map(one => one.node), controls.truth?.node,
      controls.fill.node, Object.keys(maps).length ? [controls.map.node, controls.legend, controls.strength.node] : null,
      controls.bright.node, view.channels.length > 1 ? controls.shown.node : null),
  ], below: [
    areas(answer, masks, truth),
    answer.tumor_area_mm2.WT === null ? note("Areas in mm² need the pixel's side: set it in the settings.", "small") : null,
    truth ? note(`Ground truth read as ${truth.readAs === "BraTS labels" ? "BraTS's labels (1, 2, 4)" : "one region, the whole tumour"}.`, "small") : null,
  ] };
}

/** A sample's own ground truth, or the file chosen. */
export async function truthOf(input, sample, sampleFile) {
  return readTruth(input.files[0] ?? (sample ? await sampleFile(sample.mask) : null));
}

// Is there a tumour on this slice, and what speaks for it.
import { sendJson } from "./api.js";
import { brightness, choice, make, note, ramp, slider } from "./dom.js";
import { SHADES, heatTable, paint, pixels } from "./layers.js";
import { picker } from "./picker.js";
import { sliceSettings } from "./settings.js";
import { firstShown, listen, preview, stage } from "./stage.js";
import { foreign, verdict } from "./verdict.js";

/** The settings, and what a sample brings along. */
export function parametersOf(sample) {
  const own = sliceSettings();
  return sample ? { ...own, modalities: "", pixel_mm: own.pixel_mm || sample.pixel_mm } : own;
}

async function analyse([file], sample) {
  const parameters = parametersOf(sample);
  const [answer, view] = await Promise.all([sendJson("/classify/gradcam", [file], parameters), preview(file, parameters)]);
  const map = await pixels(answer.gradcam_base64), shown = stage("The slice with the evidence for tumour");
  const opacity = slider("Grad-CAM opacity", 0.6), bright = brightness();
  const which = choice("Sequence shown", view.names.map((name, at) => [at, name]), firstShown(view.names));
  const redraw = () => shown.show(view.channels[Number(which.value)], view.pixel, context => paint(context, map, heatTable(SHADES.heat, opacity.value), true), bright.value);
  listen([opacity.input, bright.input, which.input], redraw);
  redraw();
  return [foreign(answer), make("div", { className: "columns" }, shown.figure, make("div", {},
    verdict(answer),
    make("fieldset", { className: "controls" }, make("legend", {}, "Shown"), opacity.node, ramp("inferno", "little", "much evidence"), bright.node, view.channels.length > 1 ? which.node : null),
    note("Grad-CAM shows which parts of the slice raised the probability. It is no outline of a tumour.", "small")))];
}

export function build(panel) {
  const { nodes } = picker({
    kind: "slice", text: "Choose a slice", analyse,
    hint: "One axial slice: PNG, JPEG, TIFF, npy, npz, or a NIfTI or DICOM file of a single slice.",
  });
  panel.append(...nodes);
}

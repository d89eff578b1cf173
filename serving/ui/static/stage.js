// The slice on a canvas, as large as there is room, in true proportions, with what is laid over it.
import { send, told } from "./api.js";
import { make } from "./dom.js";
import { GREYS, greyTable, paint, pixels } from "./layers.js";

const MAX_SIDE = 1024;

/** The slice's channels as the server reads them, and what its file tells. */
export async function preview(file, parameters) {
  const response = await send("/ui/api/preview", [file], { modalities: parameters.modalities, pixel_mm: parameters.pixel_mm });
  const facts = told(response), all = await pixels(await response.blob());
  const height = all.height / facts.channels, size = all.width * height;
  const channels = Array.from({ length: facts.channels }, (_, at) => ({ width: all.width, height, values: all.values.subarray(at * size, (at + 1) * size) }));
  const names = facts.modalities.length ? facts.modalities : channels.map((_, at) => `channel ${at + 1}`);
  return { channels, names, pixel: facts.pixel_mm ?? [1, 1] };
}

/** Where to begin: FLAIR shows most. */
export const firstShown = names => Math.max(0, names.indexOf("flair"));

export function stage(label) {
  const canvas = make("canvas", { className: "slice", role: "img", "aria-label": label });
  const figure = make("figure", { className: "stage" }, canvas);
  const show = (grey, pixel, over, gain = 1) => {
    const [wide, high] = [grey.width * pixel[1], grey.height * pixel[0]], zoom = MAX_SIDE / Math.max(wide, high);
    canvas.width = Math.max(1, Math.round(wide * zoom));
    canvas.height = Math.max(1, Math.round(high * zoom));
    const context = canvas.getContext("2d");
    context.clearRect(0, 0, canvas.width, canvas.height);
    paint(context, grey, gain === 1 ? GREYS : greyTable(gain), true);
    over(context);
  };
  return { figure, show };
}

export const listen = (controls, call) => controls.forEach(control => control.addEventListener("input", call));

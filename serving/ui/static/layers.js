// What lies over a grey picture: regions as fills and sharp outlines, heat maps, the ground truth.
import { fromBase64 } from "./dom.js";

// As in the report: told apart in all common kinds of colour blindness; the innermost region is the strongest.
export const REGIONS = ["WT", "TC", "ET"];
export const NAMES = { WT: "whole tumour", TC: "tumour core", ET: "enhancing tumour" };
export const COLOURS = { WT: "#2ab7a4", TC: "#f2a900", ET: "#ff4d5e", truth: "#ffffff" };
// Anchors of matplotlib's inferno and viridis.
const HEAT = [[0, 0, 4], [87, 16, 110], [188, 55, 84], [249, 142, 9], [252, 255, 164]];
const COOL = [[68, 1, 84], [59, 82, 139], [33, 145, 140], [94, 201, 98], [253, 231, 37]];
export const SHADES = { heat: HEAT, cool: COOL };
const FAINT = 0.06;
const SHOWN = 560;

/** A picture's first channel as bytes; masks and maps keep their values. */
export async function pixels(source) {
  const blob = typeof source === "string" ? new Blob([fromBase64(source)], { type: "image/png" }) : source;
  const bitmap = await createImageBitmap(blob, { colorSpaceConversion: "none", premultiplyAlpha: "none" });
  const context = new OffscreenCanvas(bitmap.width, bitmap.height).getContext("2d", { willReadFrequently: true });
  context.drawImage(bitmap, 0, 0);
  const { data } = context.getImageData(0, 0, bitmap.width, bitmap.height);
  const values = new Uint8Array(data.length / 4);
  for (let i = 0; i < values.length; i++) values[i] = data[4 * i];
  return { width: bitmap.width, height: bitmap.height, values };
}

export const rgb = colour => [1, 3, 5].map(at => parseInt(colour.slice(at, at + 2), 16));

/** A byte's colour as RGBA in one number, for a 32-bit view of a canvas's pixels. */
const packed = ([r, g, b], alpha) => ((alpha << 24) | (b << 16) | (g << 8) | r) >>> 0;
export const GREYS = Uint32Array.from({ length: 256 }, (_, v) => packed([v, v, v], 255));

export function greyTable(gain) {
  return Uint32Array.from({ length: 256 }, (_, v) => GREYS[Math.min(255, Math.round(v * gain))]);
}

/** Nothing where there is nothing: the scan must stay readable. */
export function heatTable(shades, opacity) {
  return Uint32Array.from({ length: 256 }, (_, v) => {
    const share = v / 255, place = share * (shades.length - 1), low = Math.min(Math.floor(place), shades.length - 2);
    const colour = shades[low].map((c, i) => Math.round(c + (place - low) * (shades[low + 1][i] - c)));
    return share < FAINT ? 0 : packed(colour, Math.round(255 * opacity * Math.min(1, 1.5 * share)));
  });
}

const sheets = new Map();

/** A scratch canvas of a size, kept. */
function sheet(width, height) {
  const key = `${width}×${height}`;
  if (!sheets.has(key)) sheets.set(key, new OffscreenCanvas(width, height));
  return sheets.get(key);
}

/** Paint one value per pixel by a table of 256 colours, stretched over the canvas. */
export function paint(context, { width, height, values }, table, smooth) {
  const scratch = sheet(width, height), inner = scratch.getContext("2d"), image = inner.createImageData(width, height);
  const out = new Uint32Array(image.data.buffer);
  for (let i = 0; i < out.length; i++) out[i] = table[values[i]];
  inner.putImageData(image, 0, 0);
  context.imageSmoothingEnabled = smooth;
  context.imageSmoothingQuality = "high";
  context.drawImage(scratch, 0, 0, context.canvas.width, context.canvas.height);
}

/** Colours for bytes of three flags (1 WT, 2 TC, 4 ET): the innermost region shown counts. */
export function fillTable(shown, opacity) {
  return Uint32Array.from({ length: 256 }, (_, bits) => {
    const inner = REGIONS.filter((name, at) => bits & (1 << at) && shown.includes(name)).at(-1);
    return inner ? packed(rgb(COLOURS[inner]), Math.round(255 * opacity)) : 0;
  });
}

/** Fill regions, the innermost on top; `inside` are functions of the pixel's place, by region. */
export function fillRegions(context, width, height, inside, opacity) {
  const values = new Uint8Array(width * height), names = REGIONS.filter(name => inside[name]);
  for (const name of names) for (let i = 0, flag = 1 << REGIONS.indexOf(name); i < values.length; i++) if (inside[name](i)) values[i] |= flag;
  paint(context, { width, height, values }, fillTable(names, opacity), false);
}

/** The border of a mask along the pixels' edges as closed loops, in pixel coordinates. */
export function outline(inside, width, height) {
  const next = edges(inside, width, height), path = new Path2D(), row = width + 1;
  for (const [start, ends] of next) {
    while (ends.length) {
      let [from, at, first] = [-1, start, true];
      do {
        const to = next.get(at).pop();
        // A corner, not each step along a straight edge: dashes and joints come out even.
        if (first) path.moveTo(at % row, Math.floor(at / row));
        else if (to - at !== at - from) path.lineTo(at % row, Math.floor(at / row));
        [from, at, first] = [at, to, false];
      } while (at !== start);
      path.closePath();
    }
  }
  return path;
}

/** From each corner on the border to the next ones, with the mask on the right hand. */
function edges(inside, width, height) {
  const next = new Map(), row = width + 1;
  const on = (x, y) => x >= 0 && y >= 0 && x < width && y < height && inside(y * width + x);
  const add = (from, to) => { if (next.has(from)) next.get(from).push(to); else next.set(from, [to]); };
  for (let y = 0; y < height; y++) for (let x = 0; x < width; x++) {
    if (!inside(y * width + x)) continue;
    const corner = y * row + x;
    if (!on(x, y - 1)) add(corner, corner + 1);
    if (!on(x + 1, y)) add(corner + 1, corner + 1 + row);
    if (!on(x, y + 1)) add(corner + 1 + row, corner + row);
    if (!on(x - 1, y)) add(corner + row, corner);
  }
  return next;
}

export function stroke(context, path, width, height, colour, { dashed = false, thick = 1.8 } = {}) {
  // A canvas is shown at about half its own pixels: lines are as thick as the eye needs, not as the canvas.
  const { width: wide, height: high } = context.canvas, ratio = Math.max(wide, high) / SHOWN;
  const placed = new Path2D();
  placed.addPath(path, new DOMMatrix([wide / width, 0, 0, high / height, 0, 0]));
  context.lineJoin = "round";
  context.setLineDash(dashed ? [9 * ratio, 6 * ratio] : []);
  for (const [style, lineWidth] of [["#000a", thick + 1.4], [colour, thick]]) {
    Object.assign(context, { strokeStyle: style, lineWidth: lineWidth * ratio });
    context.stroke(placed);
  }
  context.setLineDash([]);
}

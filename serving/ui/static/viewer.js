// Three orthogonal planes of a volume in display orientation: slices upwards, rows to the back, columns to the left.
import { check, choice, make, slider } from "./dom.js";
import { COLOURS, NAMES, REGIONS, SHADES, fillTable, greyTable, heatTable, outline, paint, stroke } from "./layers.js";
import { firstShown } from "./stage.js";

// `down` and `across` are the axes of the picture; `flip`: the head is up.
const PLANES = [
  { name: "Axial", fixed: 0, down: 1, across: 2, flip: false, words: ["R", "L", "A", "P"] },
  { name: "Coronal", fixed: 1, down: 0, across: 2, flip: true, words: ["R", "L", "S", "I"] },
  { name: "Sagittal", fixed: 2, down: 0, across: 1, flip: true, words: ["A", "P", "S", "I"] },
];
const FLAGS = { WT: 1, TC: 2, ET: 4 };
const SIDE = 512; // of the longer side of a plane's canvas, in its own pixels
const WHEEL_STEP = 40; // of a wheel's or a touchpad's way, for one slice

const swatch = name => { const node = make("i", { className: "swatch", "aria-hidden": "true" }); node.style.background = COLOURS[name]; return node; };

export class Viewer {
  /** `channels` are bytes `[Z, H, W]`, as `bits` are: 1 for WT, 2 for TC, 4 for ET; `moved` hears of a new slice. */
  constructor({ channels, names, bits, trained, shape, spacing, start, moved }) {
    Object.assign(this, { channels, bits, shape, spacing, moved, at: [...start], doubt: null, look: 0 });
    this.strides = [shape[1] * shape[2], shape[2], 1];
    this.regions = REGIONS.filter(name => trained.includes(name));
    this.toggles = Object.fromEntries(this.regions.map(name => [name, check(`${name}, ${NAMES[name]}`, true, swatch(name))]));
    this.shown = choice("Sequence shown", names.map((name, at) => [at, name]), firstShown(names));
    this.bright = slider("Brightness", 1, { min: 0.4, max: 2.5, step: 0.1 });
    this.fill = slider("Fill", 0.3);
    this.cross = check("Cross-hair", true);
    const controls = [...Object.values(this.toggles), this.shown, this.bright, this.fill, this.cross];
    controls.forEach(one => one.input.addEventListener("input", () => { this.look++; this.draw(); }));
    this.planes = PLANES.map(plane => this.plane(plane));
    this.node = make("div", { className: "views" }, this.planes.map(plane => plane.node));
    this.controls = make("fieldset", { className: "controls row" }, make("legend", {}, "Shown"), Object.values(this.toggles).map(one => one.node),
      this.fill.node, this.bright.node, names.length > 1 ? this.shown.node : null, this.cross.node);
    this.draw();
  }

  plane(plane) {
    const { shape, spacing } = this, [w, h] = [shape[plane.across], shape[plane.down]];
    const [wide, high] = [w * spacing[plane.across], h * spacing[plane.down]], zoom = SIDE / Math.max(wide, high);
    const canvas = make("canvas", { width: Math.max(1, Math.round(wide * zoom)), height: Math.max(1, Math.round(high * zoom)), role: "img" });
    const range = make("input", { type: "range", min: 0, max: shape[plane.fixed] - 1, step: 1 }), caption = make("span");
    range.addEventListener("input", () => this.go(plane.fixed, Number(range.value)));
    const marks = ["w", "e", "n", "s"].map((side, i) => make("span", { className: side, "aria-hidden": "true" }, plane.words[i]));
    const node = make("div", { className: "view" }, make("div", { className: "frame" }, canvas, marks), make("label", {}, caption, range));
    const base = new OffscreenCanvas(canvas.width, canvas.height);
    const made = { ...plane, w, h, canvas, base, range, caption, node, painted: "", grey: new Uint8Array(w * h), inside: new Uint8Array(w * h) };
    this.listen(made);
    return made;
  }

  /** The wheel walks through the slices; a press or a drag moves the other two planes. */
  listen(plane) {
    let way = 0;
    plane.canvas.addEventListener("wheel", event => {
      event.preventDefault();
      way += event.deltaMode === 0 ? event.deltaY : event.deltaY * WHEEL_STEP;
      const steps = Math.trunc(way / WHEEL_STEP);
      way -= steps * WHEEL_STEP;
      if (steps) this.go(plane.fixed, this.at[plane.fixed] + (plane.fixed === 0 ? -steps : steps));
    }, { passive: false });
    const point = event => {
      const box = plane.canvas.getBoundingClientRect();
      const [x, y] = [Math.floor((event.clientX - box.left) / box.width * plane.w), Math.floor((event.clientY - box.top) / box.height * plane.h)];
      this.at[plane.across] = this.inside(plane.across, x);
      this.go(plane.down, plane.flip ? plane.h - 1 - y : y);
    };
    plane.canvas.addEventListener("pointerdown", event => { plane.canvas.setPointerCapture(event.pointerId); point(event); });
    plane.canvas.addEventListener("pointermove", event => { if (event.buttons & 1) point(event); });
  }

  inside(axis, to) { return Math.max(0, Math.min(this.shape[axis] - 1, to)); }

  go(axis, to) {
    const before = this.at[0];
    this.at[axis] = this.inside(axis, to);
    this.draw();
    if (this.at[0] !== before || axis === 0) this.moved?.(this.at[0]);
  }

  /** The uncertainty of one axial slice, bytes `[H, W]`, shown while that slice is. */
  setDoubt(index, values) { this.doubt = { index, values }; this.look++; this.draw(); }

  /** At most once per frame, however fast the wheel turns. */
  draw() {
    if (this.waiting) return;
    this.waiting = requestAnimationFrame(() => {
      this.waiting = 0;
      for (const plane of this.planes) this.paint(plane);
    });
  }

  /** A plane is made anew only when its own slice or the controls changed; else just the cross-hair moves. */
  paint(plane) {
    const wanted = `${this.at[plane.fixed]} ${this.look}`, context = plane.canvas.getContext("2d");
    if (plane.painted !== wanted) this.render(plane);
    plane.painted = wanted;
    context.drawImage(plane.base, 0, 0);
    if (this.cross.on) this.hair(context, plane);
    this.tell(plane);
  }

  render(plane) {
    const { w, h, grey, inside, base } = plane, context = base.getContext("2d"), place = this.placer(plane);
    const volume = this.channels[Number(this.shown.value)], step = this.strides[plane.across];
    let any = 0;
    for (let y = 0, i = 0; y < h; y++) for (let x = 0, at = place(y); x < w; x++, i++, at += step) {
      grey[i] = volume[at];
      any |= inside[i] = this.bits[at];
    }
    paint(context, { width: w, height: h, values: grey }, greyTable(this.bright.value), true);
    if (plane.fixed === 0 && this.doubt?.index === this.at[0]) paint(context, { width: w, height: h, values: this.doubt.values }, heatTable(SHADES.cool, 0.75), true);
    else if (any) this.over(context, plane, any);
  }

  over(context, { w, h, inside }, any) {
    const shown = this.regions.filter(name => this.toggles[name].on && any & FLAGS[name]);
    paint(context, { width: w, height: h, values: inside }, fillTable(shown, this.fill.value), false);
    for (const name of shown) stroke(context, outline(i => (inside[i] & FLAGS[name]) !== 0, w, h), w, h, COLOURS[name], { thick: 1.2 });
  }

  /** Where in the volume a row of a plane's picture begins. */
  placer({ fixed, down, h, flip }) {
    const start = this.at[fixed] * this.strides[fixed];
    return y => start + (flip ? h - 1 - y : y) * this.strides[down];
  }

  hair(context, { across, down, w, h, flip, canvas }) {
    const x = (this.at[across] + 0.5) / w * canvas.width, row = flip ? h - 1 - this.at[down] : this.at[down], y = (row + 0.5) / h * canvas.height;
    context.fillStyle = "#ffe08a88";
    context.fillRect(x - 0.5, 0, 1, canvas.height);
    context.fillRect(0, y - 0.5, canvas.width, 1);
  }

  tell({ name, fixed, range, caption, canvas }) {
    range.value = this.at[fixed];
    caption.textContent = `${name}, slice ${this.at[fixed] + 1} of ${this.shape[fixed]}`;
    canvas.setAttribute("aria-label", `${caption.textContent} with the regions that the model sees`);
  }

  /** The three planes as they are, for the summary. */
  pictures() { return this.planes.map(plane => ({ title: plane.caption.textContent, address: plane.canvas.toDataURL("image/png") })); }
}

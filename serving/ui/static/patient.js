// A whole study: a job at the server, its progress, the volume, the profile, the measures and the downloads.
import { ask, askJson, send, sendJson, told } from "./api.js";
import { button, download, fromBase64, make, note, ramp, withStates } from "./dom.js";
import { picker } from "./picker.js";
import { studySettings } from "./settings.js";
import { doubts, measures, profile, side, summary } from "./study.js";
import { foreign, verdict } from "./verdict.js";
import { Viewer } from "./viewer.js";

const POLL_MS = 200;
const NPY_HEAD = 10;
let kept = null; // the job whose results the downloads come from

/** Results need not wait for their hour: they go with the next study, or with the page. */
function forget() {
  if (kept) fetch(`/jobs/${kept.job_id}`, { method: "DELETE", keepalive: true }).catch(() => {});
  kept = null;
}

async function finished(job, tell) {
  while (job.state === "queued" || job.state === "running") {
    await new Promise(done => setTimeout(done, POLL_MS));
    job = await askJson(`/jobs/${job.job_id}`);
    const { slices_done: done, slices: all } = job.progress;
    tell(job.state === "queued" ? "Waiting for a turn …" : all ? `Looking at slice ${done} of ${all} …` : "Reading the study …");
  }
  performance.mark("answer");
  if (job.state !== "done") throw new Error(`${job.error.message}. ${job.error.cure}.`);
  return job;
}

async function unpack(text) {
  const stream = new Blob([fromBase64(text)]).stream().pipeThrough(new DecompressionStream("gzip"));
  const bytes = new Uint8Array(await new Response(stream).arrayBuffer());
  return bytes.subarray(NPY_HEAD + bytes[8] + 256 * bytes[9]);
}

/** The three regions in one byte per voxel: 1 for WT, 2 for TC, 4 for ET. */
async function bitsOf(answer) {
  const size = answer.shape.reduce((a, b) => a * b, 1), bits = new Uint8Array(size);
  if (!answer.mask) return bits;
  const all = await unpack(answer.mask);
  for (let i = 0; i < size; i++) bits[i] = all[i] | (all[i + size] << 1) | (all[i + 2 * size] << 2);
  return bits;
}

async function volumeOf(files, parameters) {
  const response = await send("/ui/api/volume", files, parameters, { field: "files" });
  const facts = told(response), bytes = new Uint8Array(await response.arrayBuffer());
  const size = bytes.length / facts.modalities.length;
  return { ...facts, channels: facts.modalities.map((_, at) => bytes.subarray(at * size, (at + 1) * size)) };
}

/** Where most is to be seen: the slice with the most tumour, and the middle of it there. */
function start(answer, bits, shape) {
  const areas = answer.affected_slices.WT.map(z => [z, count(bits, z, shape)]);
  const best = areas.sort((a, b) => b[1].n - a[1].n)[0];
  if (best) return [best[0], Math.round(best[1].y / best[1].n), Math.round(best[1].x / best[1].n)];
  const likely = answer.slices.filter(one => one.tumor_probability !== null).sort((a, b) => b.tumor_probability - a.tumor_probability)[0];
  return [answer.tumor_label && likely ? likely.index : shape[0] >> 1, shape[1] >> 1, shape[2] >> 1];
}

function count(bits, z, [, h, w]) {
  const found = { n: 0, y: 0, x: 0 };
  for (let i = 0, at = z * h * w; i < h * w; i++) if (bits[at + i] & 1) { found.n++; found.y += Math.floor(i / w); found.x += i % w; }
  return found;
}

function downloads(job, answer, viewer) {
  const fetched = (text, what, name) => button(text, async event => {
    const failed = event.target.parentNode.querySelector("[role=alert]");
    failed.textContent = "";
    try { download(name, await (await ask(job.files[what])).blob()); } catch (problem) { failed.textContent = problem.message; }
  });
  const { mask: _, ...figures } = answer;
  return make("p", { className: "actions" },
    fetched("Mask as NIfTI", "mask", "slicewise-mask.nii.gz"),
    job.files.seg ? fetched("Mask as DICOM-SEG", "seg", "slicewise-seg.dcm") : null,
    button("One-page summary (to read, or to print as PDF)", () => download("slicewise-summary.html", summary(answer, viewer.pictures()), "text/html")),
    button("Figures as JSON", () => download("slicewise-study.json", JSON.stringify(figures, null, 1), "application/json")),
    job.files.seg ? null : make("span", { className: "small" }, "DICOM-SEG: only for studies sent as DICOM."),
    make("span", { className: "bad", role: "alert" }));
}

/** Monte-Carlo dropout of one slice: asked for one at a time, as it takes many passes through the network. */
function uncertainty(files, parameters, viewer) {
  const place = make("div", { className: "small" });
  const go = button("Uncertainty of this slice", () => withStates(place, async () => {
    const index = viewer.at[0], response = await send("/ui/api/doubt", files, { ...parameters, index }, { field: "files" });
    viewer.setDoubt(index, new Uint8Array(await response.arrayBuffer()));
    return [ramp("viridis", `Slice ${index + 1}: mean ${told(response).mean_nats.toPrecision(2)} nats; sure`, "unsure"),
      button("Back to the regions", () => { viewer.setDoubt(-1, null); place.replaceChildren(); })];
  }, "Sampling the network …"));
  return make("div", { className: "actions" }, go, place);
}

async function analyse(files, sample, tell) {
  forget();
  const parameters = sample ? { ...studySettings(), modalities: "" } : studySettings();
  tell("Sending the study …");
  const job = await sendJson("/predict/async", files, { ...parameters, mask_format: "npy_gz" }, { field: "files" });
  kept = job;
  const [done, volume] = await Promise.all([finished(job, tell), volumeOf(files, parameters)]);
  kept = done;
  const answer = await askJson(done.files.result), bits = await bitsOf(answer);
  let chart = null;
  const viewer = new Viewer({
    channels: volume.channels, names: volume.modalities, bits, trained: answer.trained_regions, shape: volume.shape, spacing: volume.spacing_mm,
    start: start(answer, bits, volume.shape), moved: z => chart?.mark(z),
  });
  chart = profile(answer, z => viewer.go(0, z));
  chart.mark(viewer.at[0]);
  requestAnimationFrame(() => requestAnimationFrame(() => performance.mark("viewable")));
  return [foreign(answer), viewer.node, viewer.controls,
    note(`The patient's right is on the left of axial and coronal planes. Turn the wheel over a plane, press into it, or use the sliders.${volume.spacing_known ? "" : " The voxel's size is unknown: proportions are not to scale."}`, "small"),
    uncertainty(files, parameters, viewer),
    make("div", { className: "two uneven" }, make("div", {}, verdict(answer), make("blockquote", { className: "advice" }, answer.recommendation)), make("div", {}, measures(answer), side(answer) ? note(side(answer), "") : null, doubts(answer))),
    answer.warnings.map(text => note(`Note: ${text}`, "small")), chart.node, downloads(done, answer, viewer)].flat();
}

export function build(panel) {
  addEventListener("pagehide", forget);
  const { nodes } = picker({
    kind: "study", text: "Choose a study", many: true, analyse,
    hint: "NIfTI files, one per sequence (x_flair.nii.gz, x_t1.nii.gz …); DICOM files or a zip of them; the TIFF slices of an LGG patient; or a stack of pictures, from below upwards. For TIFF and pictures set the sizes, and for pictures the sequence, in the settings.",
  });
  panel.append(...nodes);
}

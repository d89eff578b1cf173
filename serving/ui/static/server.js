// Whether the server and its model answer, and what they say of themselves.
import { askJson } from "./api.js";
import { make, round } from "./dom.js";

const POLL_MS = 3000;
const SAYS = {
  up: "server and model answer",
  model: "the model does not answer",
  down: "the server does not answer",
};
const server = { info: null, state: "", waiting: [] };

/** The model's own words; null until it has answered. */
export const modelInfo = () => server.info;

/** Ask the model for them, if it has not said them yet. */
export async function known() {
  if (!server.info) describe(await askJson("/model/info"));
}

/** Called each time the server is there (again). */
export const onceUp = call => { server.waiting.push(call); if (server.state === "up") call(); };

export async function watch() {
  if (!document.hidden) show(await state());
  setTimeout(watch, POLL_MS);
}

async function state() {
  try {
    const response = await fetch("/healthz", { cache: "no-store" });
    if (!response.ok) return "model";
    if (server.state !== "up" || !server.info) describe(await askJson("/model/info"));
    return "up";
  } catch {
    return "down";
  }
}

function show(found) {
  if (found === server.state) return;
  server.state = found;
  document.getElementById("status").dataset.state = found;
  document.getElementById("status-text").textContent = SAYS[found];
  const banner = document.getElementById("down");
  banner.hidden = found === "up";
  if (found !== "up") banner.textContent = `${SAYS[found][0].toUpperCase()}${SAYS[found].slice(1)}. The page keeps asking; what you see stays.`;
  if (found === "up") server.waiting.forEach(call => call());
}

function describe(info) {
  server.info = info;
  const band = info.calibration?.abstain;
  const rows = [
    ["Name", info.name], ["Version", info.version],
    ["Digest", make("code", { title: info.digest }, String(info.digest).slice(0, 12))],
    ["Sequences", info.modalities.join(", ")],
    ["Regions", info.trained_regions.join(", ") || "none"],
    ["Threshold", round(info.calibration?.threshold?.value, 3)],
    ["Band of doubt", typeof band?.low === "number" ? `${round(band.low, 2)} to ${round(band.high, 2)}` : "none"],
  ];
  document.getElementById("model").replaceChildren(...rows.flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value ?? "–")]));
}

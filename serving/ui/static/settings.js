// Settings live in the address, so that a link holds them.

const FIELDS = ["modalities", "pixel_mm", "slice_mm", "threshold", "n_mc_samples"];
const get = id => document.getElementById(id);

export function setUp() {
  for (const name of FIELDS) {
    get(name).value = recall(name) ?? "";
    get(name).addEventListener("change", () => remember(name, get(name).value.trim()));
  }
  get("theme").value = recall("theme") ?? "";
  get("theme").addEventListener("change", () => { remember("theme", get("theme").value); paint(); });
  paint();
}

/** Style sheets follow the attribute; without it, the system. */
function paint() {
  const chosen = get("theme").value;
  if (chosen) document.documentElement.dataset.theme = chosen;
  else delete document.documentElement.dataset.theme;
}

export function remember(name, value) {
  const query = new URLSearchParams(location.search);
  if (value) query.set(name, value); else query.delete(name);
  history.replaceState(null, "", `?${query}`);
}

export const recall = name => new URLSearchParams(location.search).get(name);

/** The settings that a route takes. */
export const given = (...names) => Object.fromEntries(names.map(name => [name, get(name).value.trim()]));
export const sliceSettings = () => given("modalities", "pixel_mm", "threshold");
export const studySettings = () => given("modalities", "pixel_mm", "slice_mm", "threshold");

// The one way to the server: same origin only.

export const AWAY = "The server does not answer. The page keeps asking: try again once it is back.";

export async function ask(path, options = {}) {
  let response;
  try {
    response = await fetch(path, { ...options, cache: "no-store" });
  } catch (problem) {
    if (problem.name === "AbortError") throw problem;
    throw new Error(AWAY);
  }
  if (response.ok) return response;
  const told = (await response.json().catch(() => null))?.error;
  throw new Error(told?.message ? `${sentence(named(told.message))} ${sentence(told.cure ?? "")}`.trim() : `The server answered ${response.status}.`);
}

// The model server knows a file by its place in the request only.
const named = text => text.replace(/^image(_bytes)?(\[0\])?(?= )/, "the file");
const sentence = text => (text ? `${text[0].toUpperCase()}${text.slice(1)}${/[.!?]$/.test(text) ? "" : "."}` : "");

export const askJson = async (path, options) => (await ask(path, options)).json();

/** Post files as a form; empty parameters are left out. */
export function send(path, files, parameters = {}, { field = "file", signal } = {}) {
  const body = new FormData();
  for (const file of files) body.append(field, file, file.name);
  const given = Object.entries(parameters).filter(([, value]) => value !== "" && value !== undefined && value !== null);
  const query = given.length ? `?${new URLSearchParams(given)}` : "";
  return ask(`${path}${query}`, { method: "POST", body, signal });
}

export const sendJson = async (...given) => (await send(...given)).json();

/** What the page's own routes say beside the bytes. */
export const told = response => JSON.parse(response.headers.get("x-told"));

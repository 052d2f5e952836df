/** The server: requests with the key of this tab, errors as the API words them, and streams of events. */

const KEY = "sglang-api-key";

/** What the server answered instead of what was asked for. */
export class ApiError extends Error {
  constructor(message, { status = 0, code = null, param = null } = {}) {
    super(message);
    this.status = status;
    this.code = code;
    this.param = param;
  }
}

export function apiKey() {
  return sessionStorage.getItem(KEY);
}

export function setApiKey(key) {
  if (key) sessionStorage.setItem(KEY, key);
  else sessionStorage.removeItem(KEY);
}

/** Send a request and return the answer as it comes; a status that is no success is thrown. */
async function send(path, { method = "GET", body = null, signal = null } = {}) {
  const headers = {};
  if (apiKey()) headers.Authorization = `Bearer ${apiKey()}`;
  if (body !== null) headers["Content-Type"] = "application/json";
  let answer;
  try {
    answer = await fetch(path, { method, headers, body, signal, credentials: "same-origin" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError("the server can not be reached; is it still running?", { code: "unreachable" });
  }
  if (answer.ok) return answer;
  const error = await errorOf(answer);
  if (error.status === 401) window.dispatchEvent(new CustomEvent("key-needed", { detail: error }));
  throw error;
}

async function errorOf(answer) {
  const fallback = `the server answered with status ${answer.status}`;
  try {
    const { error } = await answer.json();
    return new ApiError(error.message || fallback, { status: answer.status, code: error.code, param: error.param });
  } catch {
    return new ApiError(fallback, { status: answer.status });
  }
}

/** Send a request and return the JSON of the answer. `body` is JSON text. */
export async function call(path, options = {}) {
  const answer = await send(path, options);
  return parse(await answer.text());
}

/** Return the content of an address as a blob. */
export async function download(path, signal = null) {
  const answer = await send(path, { signal });
  return answer.blob();
}

/** Read JSON. Whole numbers that are too large for a number here, as seeds can be, come as text. */
export function parse(text) {
  return JSON.parse(text, (_, value, context) =>
    typeof value === "number" && Number.isInteger(value) && !Number.isSafeInteger(value) && context?.source
      ? context.source
      : value,
  );
}

/** Yield the server-sent events of an address: their data, read as JSON. */
export async function* events(path, signal) {
  const answer = await send(path, { signal });
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const blocks = (rest + value).split("\n\n");
    rest = blocks.pop();
    for (const block of blocks) {
      const data = block
        .split("\n")
        .filter((line) => line.startsWith("data:"))
        .map((line) => line.slice(5).trimStart())
        .join("\n");
      if (data) yield parse(data);
    }
  }
}

/* The server: its answers, its streams, and what is wrong with it in plain words. Nothing here
   knows the page. */

import { keep, read } from "./kept.js";

const KEY = "llm-tiny.key";

/** What went wrong. kind: "away" (no server), "key" (it asks for one), "refused" (all else). */
export class Trouble extends Error {
  constructor(kind, message, { code = null, param = null } = {}) {
    super(message);
    Object.assign(this, { kind, code, param });
  }
}

/** Use an API key from now on; it is kept as long as the tab. */
export function useKey(key) {
  keep(KEY, key, "sessionStorage");
}

function headers() {
  const key = read(KEY, null, "sessionStorage");
  const bytes = new TextEncoder().encode(key ?? ""); // a header has bytes, not letters
  const authorization = key ? { Authorization: `Bearer ${String.fromCharCode(...bytes)}` } : {};
  return { "Content-Type": "application/json", ...authorization };
}

/** An answer that is an error, as Trouble. */
function trouble(status, error, wait) {
  const said = error?.message ?? `status ${status}`;
  const words = {
    401: "The API key is missing or wrong.",
    413: "That is too long for this server to take.",
    429: `The server is busy: as many texts as it takes are being written. Try again in ${wait} s.`,
    500: `Something went wrong inside the server: ${said}.`,
    503: "The server is stopping.",
    504: "The server gave up: the answer took too long. Ask for fewer tokens.",
  };
  const kind = { 401: "key", 503: "away" }[status] ?? "refused";
  return new Trouble(kind, words[status] ?? `The server says: ${said}.`, error ?? {});
}

const lost = () => new Trouble("away", "The connection broke off. What came is kept.");

/** Fetch; raises Trouble, or an AbortError where `signal` says so. */
async function ask(path, options) {
  let answer;
  try {
    answer = await fetch(path, { headers: headers(), cache: "no-store", ...options });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Trouble("away", "The server does not answer.");
  }
  if (answer.ok) return answer;
  const { error } = await answer.json().catch(() => ({}));
  throw trouble(answer.status, error, answer.headers.get("Retry-After") ?? "a few");
}

const posted = (body, signal) => ({ method: "POST", body: JSON.stringify(body), signal });

/** What is served: [{id, max_model_len, chat, parameters}]. */
export const models = async () => (await (await ask("/v1/models")).json()).data;

/** Raises Trouble where the server is away. */
export const health = () => ask("/health");

/** A text as tokens: {tokens, count, pieces: [{id, bytes}] of the first, max_model_len}. */
export const tokenize = async (prompt, model, signal) =>
  (await ask("/tokenize", posted({ prompt, model }, signal))).json();

/** The chunks of a stream, as they come. Leaving it early ends it at the server, too. */
export async function* stream(path, body, signal) {
  const answer = await ask(path, posted({ ...body, stream: true }, signal));
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) throw lost();
      const events = (rest + value).split("\n\n");
      rest = events.pop();
      for (const event of events) {
        const data = event.replace(/^data: /, "");
        if (data === "[DONE]") return;
        const chunk = JSON.parse(data);
        if (chunk.error) throw trouble(chunk.error.code === "stopping" ? 503 : 0, chunk.error);
        yield chunk;
      }
    }
  } catch (error) {
    if (error.name === "AbortError" || error instanceof Trouble) throw error;
    throw lost();
  } finally {
    reader.cancel().catch(() => {});
  }
}

// Asking the server: one function for answers, one for the stream of events. Paths are relative to `/ui/`,
// so that the page also works behind a proxy that puts emberd below another path.

import { signal } from "./lib/preact.js";

const KEPT = "emberd-token"; // in this tab's session, never in an address

export const token = signal(sessionStorage.getItem(KEPT) ?? "");
export const needsToken = signal(false);
export const refused = signal(false); // the token that was given is none of the server's

/** What the server says has gone wrong, and what to do. */
export class Problem extends Error {
  constructor(status, { message, hint, code } = {}) {
    super(message ?? `The server answered ${status}.`);
    this.status = status;
    this.hint = hint ?? "";
    this.code = code ?? "";
  }
}

export function useToken(given) {
  token.value = given.trim();
  sessionStorage.setItem(KEPT, token.value);
  needsToken.value = false;
}

function headers(more) {
  return token.value ? { ...more, authorization: `Bearer ${token.value}` } : more;
}

async function problemOf(response) {
  let said = {};
  try {
    const body = await response.json();
    said = body.error && typeof body.error === "object" ? body.error : body;
    said = { ...said, message: said.message ?? said.detail ?? said.error }; // each dialect has its own word
  } catch {
    // not JSON: the status has to do
  }
  return new Problem(response.status, said);
}

/** Ask for a path, such as "models"; `body` is sent as JSON. Returns the response, or throws a Problem. */
export async function fetchFrom(path, { body, accept = "application/json", signal } = {}) {
  const asked = {
    method: body === undefined ? "GET" : "POST",
    headers: headers(body === undefined ? { accept } : { accept, "content-type": "application/json" }),
    body: body === undefined ? undefined : JSON.stringify(body),
    signal,
  };
  let response;
  try {
    response = await fetch(`../${path}`, asked);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem(0, { message: "emberd does not answer.", hint: "Start it with `emberd serve`." });
  }
  if (response.status === 401) {
    refused.value = Boolean(token.value);
    needsToken.value = true;
  }
  if (!response.ok) throw await problemOf(response);
  return response;
}

/** As `fetchFrom`; returns the JSON. */
export async function ask(path, options) {
  return (await fetchFrom(path, options)).json();
}

/** Read a stream of Server-Sent Events for as long as the page is open. */
export async function listen(path, heard, connected) {
  for (let wait = 250; ; wait = Math.min(wait * 2, 4000)) {
    try {
      const response = await fetchFrom(path, { accept: "text/event-stream" });
      connected(true);
      wait = 250;
      await readEvents(response.body.pipeThrough(new TextDecoderStream()).getReader(), heard);
    } catch (error) {
      if (!(error instanceof Problem) && error.name !== "TypeError") console.warn(error);
    }
    connected(false);
    await (needsToken.value ? untilToken() : new Promise((done) => setTimeout(done, wait)));
  }
}

async function readEvents(reader, heard) {
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const blocks = (rest + value).split("\n\n");
    rest = blocks.pop();
    for (const block of blocks) {
      const lines = block.split("\n");
      const name = lines.find((line) => line.startsWith("event: "))?.slice(7);
      const data = lines.filter((line) => line.startsWith("data: ")).map((line) => line.slice(6));
      if (name) heard(name, JSON.parse(data.join("\n")));
    }
  }
}

function untilToken() {
  return new Promise((done) => {
    const end = needsToken.subscribe((needed) => {
      if (!needed) {
        queueMicrotask(() => end());
        done();
      }
    });
  });
}

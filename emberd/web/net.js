// Asking the server: one function for answers, one for the stream of events. Paths are relative to `/ui/`,
// so that the page also works behind a proxy that puts emberd below another path.

import { signal } from "./lib/preact.js";

const KEPT = "emberd-token"; // in this tab's session, never in an address
const TOKEN = /^[\w.~+/=-]+$/; // what one consists of; fetch would fail on some other characters
const SILENT_MS = 5000; // there is a sample each second, so the connection is dead
const NO_ANSWER = { message: "emberd does not answer.", hint: "Start it with `emberd serve`; if it runs, `emberd doctor` says what is wrong." };

export const token = signal(sessionStorage.getItem(KEPT) ?? "");
export const needsToken = signal(false);
export const refused = signal(false); // the token that was given is none of the server's

/** What the server says has gone wrong, and what to do. */
class Problem extends Error {
  constructor(status, { message, hint, code } = {}) {
    super(message ?? `The server answered ${status}.`);
    this.status = status;
    this.hint = hint ?? "";
    this.code = code ?? "";
  }
}

/** Send this token from now on; false if it cannot be one. */
export function useToken(given) {
  if (!TOKEN.test(given.trim())) return false;
  token.value = given.trim();
  sessionStorage.setItem(KEPT, token.value);
  needsToken.value = false;
  return true;
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
  const sent = token.value;
  try {
    response = await fetch(`../${path}`, asked);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem(0, NO_ANSWER);
  }
  if (response.status === 401 && sent === token.value) {
    refused.value = Boolean(sent);
    needsToken.value = true;
  }
  if (!response.ok) throw await problemOf(response);
  return response;
}

/** As `fetchFrom`; returns the JSON. */
export async function ask(path, options) {
  return (await fetchFrom(path, options)).json();
}

/** Read a stream of Server-Sent Events for as long as the page is open; `connected` is told whether, and which Problem there is. */
export async function listen(path, heard, connected) {
  for (let wait = 250; ; wait = Math.min(wait * 2, 4000)) {
    const silence = new AbortController();
    let problem = new Problem(0, NO_ANSWER);
    try {
      const response = await unlessSilent(fetchFrom(path, { accept: "text/event-stream", signal: silence.signal }), silence);
      connected(true, null);
      wait = 250;
      await readEvents(response.body.pipeThrough(new TextDecoderStream()).getReader(), heard, silence);
    } catch (error) {
      if (error.status) problem = error;
    }
    silence.abort();
    connected(false, problem);
    await (needsToken.value ? untilToken() : new Promise((done) => setTimeout(done, wait)));
  }
}

/** What was promised; if nothing comes of it for too long, `silence` is aborted, which ends it. */
function unlessSilent(promised, silence) {
  const alarm = setTimeout(() => silence.abort(), SILENT_MS);
  return promised.finally(() => clearTimeout(alarm));
}

async function readEvents(reader, heard, silence) {
  let rest = "";
  for (;;) {
    const { value, done } = await unlessSilent(reader.read(), silence);
    if (done) return;
    const blocks = (rest + value).split("\n\n");
    rest = blocks.pop();
    for (const block of blocks) tell(block, heard);
  }
}

function tell(block, heard) {
  const lines = block.split("\n");
  const name = lines.find((line) => line.startsWith("event: "))?.slice(7);
  const data = lines.filter((line) => line.startsWith("data: ")).map((line) => line.slice(6));
  try {
    if (name) heard(name, JSON.parse(data.join("\n")));
  } catch (error) {
    reportError(error); // what shows it is wrong; the stream is not
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

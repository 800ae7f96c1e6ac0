// One loaded model: its state, the parts of a start as they happen, its memory, its queue, when it leaves.

import { html, useState } from "../../lib/preact.js";
import { Swatch, lookOf } from "../../looks.js";
import { ask } from "../../net.js";
import { Bar, Failed, number, seconds, size } from "../../parts.js";
import { server } from "../../state.js";
import { Wait } from "../../waiting.js";
import { Verify } from "../jobs.js";
import { phaseOf } from "../phases.js";

const LOOKS = { ready: "ready", starting: "busy", draining: "busy", failed: "bad", cold: "" };
export function ModelCard({ row, now_s }) {
  const asking = useAsking();
  const { send, sending, problem } = asking;
  const isLoaded = row.state === "ready" || row.state === "draining";
  return html`
    <article class="card model" aria-label=${row.name}>
      <div class="row spread">
        <h3 class="row">
          <${Swatch} look=${lookOf(row.name)} />
          <span class="wrap">${row.name}</span>
        </h3>
        <${State} row=${row} />
      </div>
      <${Tags} row=${row} />
      ${row.state === "starting" && html`<${Start} row=${row} />`}
      ${row.last_error && html`<p class="notice bad" role="status">${row.last_error}</p>`}
      ${row.notes.map((note) => html`<p class="notice" key=${note}>${note}</p>`)}
      <dl class="num">
        <div><dt>Memory</dt><dd>${row.memory_bytes ? size(row.memory_bytes) : "–"}</dd></div>
        <div><dt>Requests</dt><dd>${number(row.in_flight)} at work, ${number(row.queued)} waiting</dd></div>
        ${isLoaded && html`<div><dt>Unloads</dt><dd>${leaves(row, now_s)}</dd></div>`}
        ${row.last_load_s != null && row.state !== "starting" && html`<div><dt>Started in</dt><dd><${Phases} row=${row} /></dd></div>`}
        <div><dt>Gives</dt><dd>${gives(row)}</dd></div>
        ${row.replicas > 1 && html`<div><dt>Workers</dt><dd>${row.replicas}</dd></div>`}
      </dl>
      <div class="jobs">
        ${isLoaded || row.state === "starting"
          ? html`<button type="button" disabled=${sending === "unload"} onClick=${() => send("unload", { model: row.name })}>Unload</button>`
          : html`<button type="button" disabled=${sending === "load"} onClick=${() => send("load", { model: row.name })}>Load again</button>`}
        <${Pin} row=${row} asking=${asking} />
        <${Verify} model=${row.name} />
      </div>
      <p class="soft small">${row.pinned ? "Stays loaded" : "Pin it to have it stay loaded"} until emberd restarts; then its entry in the config file decides (<code>pinned: true</code>).</p>
      <${Sending} asking=${asking} row=${row} />
      ${problem && html`<${Failed} problem=${problem} />`}
    </article>
  `;
}

const SENDING = {
  load: ["Asking for a start", "The server may have much to do, or wait for what this model still does."],
  unload: ["Asking it to unload", "It answers the requests that it has first."],
  pin: ["Asking for that"],
};

/** What the server was asked for with a button, until it answers; a start says by itself how far it is. */
export function Sending({ asking: { sending }, row }) {
  if (!sending || (sending === "load" && row.state === "starting")) return null;
  const [what, why] = SENDING[sending];
  return html`<${Wait} key=${sending} what=${what} why=${why} />`;
}

export function Pin({ row, asking: { send, sending } }) {
  return html`
    <button type="button" aria-pressed=${String(row.pinned)} disabled=${sending === "pin"}
      onClick=${() => send("pin", { model: row.name, pinned: !row.pinned })}>${row.pinned ? "Pinned" : "Pin"}</button>
  `;
}

function State({ row }) {
  return html`<span class=${`state ${LOOKS[row.state]}`}>${row.state}</span>`;
}

function Tags({ row }) {
  const { default: first, default_reranker, default_sparse } = server.value;
  const isDefault = [first, default_reranker, default_sparse].includes(row.name);
  const kinds = { rerank: "re-ranker", sparse: "sparse vectors" };
  return html`
    <p class="row tags">
      ${isDefault && html`<span class="tag">default</span>`}
      ${row.pinned && html`<span class="tag">pinned</span>`}
      ${kinds[row.kind] && html`<span class="tag">${kinds[row.kind]}</span>`}
      <span class="tag">${row.backend}, ${row.compute}</span>
    </p>
  `;
}

/** What a start is doing, and how far a download is. */
function Start({ row }) {
  const { what, why, done, total } = phaseOf(row);
  return html`
    <div class="stack">
      <${Wait} what=${`${what}${total > 0 ? `, ${size(done)} of ${size(total)}` : ""}`} why=${why} />
      <${Bar} done=${done} total=${total} label=${what} />
    </div>
  `;
}

function Phases({ row }) {
  const phases = Object.entries(row.phases_s ?? {});
  if (phases.length === 0) return seconds(row.last_load_s);
  return html`
    <details>
      <summary>${seconds(row.last_load_s)}</summary>
      <ul class="phases">
        ${phases.map(([phase, spent_s]) => html`<li key=${phase} class="row spread"><span>${phase}</span><span>${seconds(spent_s)}</span></li>`)}
      </ul>
    </details>
  `;
}

function leaves(row, now_s) {
  if (row.state === "draining") return "now, once it has answered what it has";
  if (row.pinned) return "never: it is pinned";
  if (row.unloads_in_s == null) return row.in_flight + row.queued > 0 ? "not while it works" : "never: limits.idle_unload is off";
  const left_s = row.unloads_in_s - (now_s - row.told_s);
  return left_s < 1 ? "now" : `in ${countdown(left_s)}, unless it is asked`;
}

function countdown(left_s) {
  const whole_s = Math.floor(left_s);
  const minutes = Math.floor(whole_s / 60);
  if (minutes >= 120) return `${Math.round(minutes / 60)} h`;
  return minutes > 0 ? `${minutes} min ${String(whole_s % 60).padStart(2, "0")} s` : `${whole_s} s`;
}

function gives(row) {
  if (row.kind === "rerank") return `scores, of at most ${number(row.max_tokens)} tokens`;
  return `${number(row.dimensions)} dimensions, of at most ${number(row.max_tokens)} tokens`;
}

/** Ask the server to change something: {send, sending, problem}; `sending` is the path that has not answered. */
export function useAsking() {
  const [sending, setSending] = useState("");
  const [problem, setProblem] = useState(null);
  const send = async (path, body) => {
    setSending(path);
    setProblem(null);
    try {
      await ask(path, { body });
    } catch (error) {
      setProblem(error);
    }
    setSending("");
  };
  return { send, sending, problem };
}

// What every question to a model needs: which model, which role with which prompt, and what one sees while it starts.

import { html, useEffect, useRef, useState } from "../../lib/preact.js";
import { ask } from "../../net.js";
import { Select } from "../../select.js";
import { modelNamed, models, server } from "../../state.js";
import { Bar, number, seconds, size } from "../../parts.js";
import { Wait } from "../../waiting.js";
import { phaseOf } from "../phases.js";

/** The models of a kind: those that are here first, the default before the others. */
export function offered(kind) {
  const first = [server.value?.default, server.value?.default_reranker];
  const place = (row) => (row.pulled ? 0 : 2) + (first.includes(row.name) ? 0 : 1);
  return models.value.filter((row) => row.kind === kind).sort((a, b) => place(a) - place(b) || order(a.name, b.name));
}

const order = new Intl.Collator("en", { numeric: true }).compare;

export function ModelField({ id, label, kind = "embed", value, none, onChange }) {
  const rows = offered(kind);
  const options = (here) =>
    rows
      .filter((row) => row.pulled === here)
      .map((row) => html`<option key=${row.name} value=${row.name}>${row.name}</option>`);
  const [here, elsewhere] = [options(true), options(false)];
  return html`
    <div class="field">
      <label for=${id}>${label}</label>
      <${Select} id=${id} value=${value} onChange=${(event) => onChange(event.target.value)}>
        ${none && html`<option value="">${none}</option>`}
        ${here.length > 0 && html`<optgroup label="On this machine">${here}</optgroup>`}
        ${elsewhere.length > 0 && html`<optgroup label="Downloaded at their first use">${elsewhere}</optgroup>`}
      <//>
      ${value && modelNamed(value)?.pulled === false && html`
        <p class="small hint">It is not on this machine: the first answer has to wait for its download.</p>
      `}
    </div>
  `;
}

/** Which prompt a model puts before a text of some role, in words; a space at its end is part of it. */
export function PromptOf({ model, role }) {
  const prompt = modelNamed(model)?.prompts?.[role];
  if (!role) return html`<p class="small soft"><b>${model}</b> gets the text alone.</p>`;
  if (!prompt) return html`<p class="small soft"><b>${model}</b> has no prompt for a ${role}: it gets the text alone.</p>`;
  return html`<p class="small soft wrap"><b>${model}</b> gets <code class="prompt">${prompt}</code> before it.</p>`;
}

/** Vectors of texts: [Float32Array], and what the answer says beside them. */
export async function embed(model, texts, role, signal) {
  const began = performance.now();
  const body = { model, texts, input_type: role || null, encoding: "base64", kind: "embed" };
  const answer = await ask("embed", { body, signal });
  return { ...answer, vectors: answer.embeddings.map(floats), ms: performance.now() - began };
}

function floats(base64) {
  return new Float32Array(Uint8Array.from(atob(base64), (each) => each.charCodeAt(0)).buffer);
}

/** Asks when told to: {asking, found, problem, start, stop}. A new question ends the one before. */
export function useAsked() {
  const [state, setState] = useState({});
  const stopping = useRef(null);
  useEffect(() => () => stopping.current?.abort(), []);
  const start = async (names, question) => {
    stopping.current?.abort();
    const mine = (stopping.current = new AbortController());
    setState({ asking: names });
    try {
      const found = await question(mine.signal);
      if (!mine.signal.aborted) setState({ found });
    } catch (problem) {
      if (!mine.signal.aborted) setState({ problem });
    }
  };
  const stop = () => {
    stopping.current?.abort();
    setState({});
  };
  return { ...state, start, stop };
}

/** What the models that were asked are doing, as the server tells it, until they answer. */
export function Waiting({ names, onStop }) {
  const [began] = useState(() => performance.now());
  const [now, setNow] = useState(began);
  useEffect(() => {
    const timer = setInterval(() => setNow(performance.now()), 500);
    return () => clearInterval(timer);
  }, []);
  const past = (now - began) / 1000;
  return html`
    <section class="card" aria-label="Under way">
      ${names.map((name) => html`<${Doing} key=${name} name=${name} />`)}
      <div class="row">
        <button type="button" onClick=${onStop}>Stop</button>
        <span class="small soft num">${past >= 2 && `${seconds(Math.floor(past))} so far`}</span>
      </div>
    </section>
  `;
}

function Doing({ name }) {
  const row = modelNamed(name) ?? {};
  const { state, queued } = row;
  if (state === "starting") {
    const { what, why, done, total } = phaseOf(row);
    return html`
      <${Wait} what=${`${name} starts. ${what}${total ? `, ${size(done)} of ${size(total)}` : ""}`} why=${why} />
      ${total > 0 && html`<${Bar} done=${done} total=${total} label=${`Download of ${name}`} />`}
    `;
  }
  if (state === "draining") return html`<${Wait} what=${`${name} is being unloaded, and starts again`} why="It answers the requests that it has first." />`;
  if (state === "cold") return html`<${Wait} what=${`${name} is about to start`} />`;
  const what = queued ? `${name} computes; ${number(queued)} requests wait for it` : `${name} computes`;
  return html`<${Wait} what=${what} why="The more and the longer the texts are, the longer it takes; requests of others may come first. Stop ends the question." />`;
}

/** What an answer cost, and in which space its vectors are. */
export function Cost({ answer }) {
  const { dimensions, usage, ms, cached, fingerprint } = answer;
  return html`
    <p class="small soft num wrap">
      ${number(dimensions)} dimensions, ${number(usage.tokens)} tokens, ${seconds(ms / 1000)}${cached > 0 && `, ${number(cached)} from the cache`},
      space <code>${fingerprint}</code>
    </p>
  `;
}

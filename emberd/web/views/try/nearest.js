// Passages sorted by how near they are to a question; beside it, the order of a re-ranker.

import { html, signal, useState } from "../../lib/preact.js";
import { ask } from "../../net.js";
import { server } from "../../state.js";
import { Failed, number, seconds } from "../../parts.js";
import { Cost, ModelField, PromptOf, Waiting, embed, offered, useAsked } from "./asking.js";
import { textsOf } from "./compare.js";
import { dot, unit } from "./cosines.js";

const MOST = 200;
const EXAMPLE = {
  question: "When does the boat leave?",
  text: `The ferry leaves at seven.
Tickets are sold on board.
In winter the harbour is closed to small boats.
The kettle is on, and tea will be ready soon.
A second crossing follows in the afternoon, if the weather allows it.`,
};

// Kept while the tab is open; never stored. `reranker` null: whichever is here.
const given = signal({ ...EXAMPLE, by: "lines", model: "", reranker: null });

export default function Nearest() {
  const { question, text, by } = given.value;
  const set = (change) => (given.value = { ...given.value, ...change });
  const model = given.value.model || offered("embed")[0].name;
  const here = offered("rerank").find((row) => row.pulled);
  const reranker = given.value.reranker ?? here?.name ?? "";
  const passages = textsOf(text, by);
  const { asking, found, problem, start, stop } = useAsked();

  const submit = (event) => {
    event?.preventDefault();
    const asked = passages.slice(0, MOST);
    start([model, ...(reranker ? [reranker] : [])], async (signal) => {
      const [near, ranked] = await Promise.all([
        byCosine(model, question, asked, signal),
        reranker ? byReranker(reranker, question, asked, signal) : null,
      ]);
      return { passages: asked, near, ranked };
    });
  };
  const isBlocks = by === "blocks";
  return html`
    <form class="card asked" onSubmit=${submit}>
      <div class="stack">
        <div class="field">
          <label for="question">Question</label>
          <input id="question" type="text" dir="auto" required autocomplete="off" value=${question}
            onInput=${(event) => set({ question: event.target.value })} />
        </div>
        <div class="field">
          <label for="passages">Passages</label>
          <textarea id="passages" dir="auto" value=${text} onInput=${(event) => set({ text: event.target.value })}></textarea>
          <label class="choice small">
            <input type="checkbox" checked=${isBlocks} onChange=${() => set({ by: isBlocks ? "lines" : "blocks" })} />
            with empty lines between them, not one on each line
          </label>
          <p class="small soft">
            ${number(passages.length)} ${passages.length === 1 ? "passage" : "passages"}${passages.length > MOST && `; the first ${MOST} are sorted`}.
          </p>
        </div>
      </div>
      <div class="stack">
        <${ModelField} id="model" label="Model" value=${model} onChange=${(model) => set({ model })} />
        <div>
          <p class="small soft">The question is a query, the passages are documents.</p>
          <${PromptOf} model=${model} role="query" />
          <${PromptOf} model=${model} role="document" />
        </div>
        <${ModelField} id="reranker" label="Re-ranker" kind="rerank" value=${reranker} none="no re-ranker"
          onChange=${(reranker) => set({ reranker })} />
        ${!here && html`
          <p class="small hint">No re-ranker is on this machine yet; <code>emberd pull ${server.value?.default_reranker ?? "NAME"}</code> gets one.</p>
        `}
        <div><button class="primary" type="submit" disabled=${!passages.length || !question.trim()}>Sort</button></div>
      </div>
    </form>
    ${asking && html`<${Waiting} names=${asking} onStop=${stop} />`}
    ${problem && html`<${Failed} problem=${problem} again=${submit} />`}
    ${found && html`<${Orders} ...${found} />`}
  `;
}

/** Passages by their cosine with the question, the nearest first. */
async function byCosine(model, question, passages, signal) {
  const [asked, answer] = await Promise.all([
    embed(model, [question], "query", signal),
    embed(model, passages, "document", signal),
  ]);
  const target = unit(asked.vectors[0]);
  const rows = answer.vectors.map((vector, index) => ({ index, score: dot(unit(vector), target) }));
  rows.sort((a, b) => b.score - a.score);
  const usage = { tokens: asked.usage.tokens + answer.usage.tokens };
  return { answer: { ...answer, usage, ms: Math.max(asked.ms, answer.ms) }, rows, cut: new Set(answer.truncated) };
}

async function byReranker(model, query, documents, signal) {
  const began = performance.now();
  const answer = await ask("v1/rerank", { body: { model, query, documents, return_documents: false }, signal });
  const rows = answer.results.map(({ index, relevance_score: score }) => ({ index, score }));
  return { answer, rows, cut: new Set(answer.truncated), ms: performance.now() - began };
}

function Orders({ passages, near, ranked }) {
  const [looked, setLooked] = useState(null);
  const shared = { passages, looked, onLook: setLooked };
  const before = new Map(near.rows.map(({ index }, place) => [index, place]));
  return html`
    <div class=${ranked ? "beside" : "stack"}>
      <section class="card" aria-label="By cosine">
        <h2 class="wrap">By cosine: ${near.answer.model}</h2>
        <${Cost} answer=${near.answer} />
        <${Order} ...${shared} rows=${near.rows} cut=${near.cut} measure="cosine" />
      </section>
      ${ranked && html`
        <section class="card" aria-label="By the re-ranker">
          <h2 class="wrap">Re-ranked: ${ranked.answer.model}</h2>
          <p class="small soft num">${number(ranked.answer.usage.total_tokens)} tokens, ${seconds(ranked.ms / 1000)}; scores from 0 to 1</p>
          <${Order} ...${shared} rows=${ranked.rows} cut=${ranked.cut} measure="score" before=${before} />
        </section>
      `}
    </div>
  `;
}

/** One order as a table; `before` has the places of the other one, from which the moves are told. */
function Order({ passages, rows, cut, measure, before, looked, onLook }) {
  return html`
    <div class="scroll" tabindex="0" role="group" aria-label=${`Passages by ${measure}`}>
      <table class="order">
        <thead>
          <tr>
            <th class="num">place</th>${before && html`<th class="num">moved</th>`}<th>passage</th><th class="num">${measure}</th>
          </tr>
        </thead>
        <tbody>
          ${rows.map(
            ({ index, score }, place) => html`
              <tr key=${index} class=${looked === index ? "at" : null} onPointerEnter=${() => onLook(index)} onPointerLeave=${() => onLook(null)}>
                <td class="num">${place + 1}</td>
                ${before && html`<td class="num soft">${moved(before.get(index) - place)}</td>`}
                <td><p class="excerpt" dir="auto">${passages[index]}</p>${cut.has(index) && html`<span class="tag">its end was cut</span>`}</td>
                <td class="num">${score.toFixed(4)}</td>
              </tr>
            `,
          )}
        </tbody>
      </table>
    </div>
  `;
}

function moved(by) {
  if (!by) return "–";
  return by > 0 ? `up ${by}` : `down ${-by}`;
}

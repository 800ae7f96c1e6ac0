// Activity: the last 200 requests, what each was about and where its time went. Never their texts.

import { html, useState } from "../lib/preact.js";
import { Swatch, areaOf, plain } from "../looks.js";
import { Command, Empty, clock, number, seconds } from "../parts.js";
import { Select } from "../select.js";
import { requests, server } from "../state.js";
import { Wait } from "../waiting.js";

const STAGES = [
  ["wait_ms", "waiting for the model", 3],
  ["queue_ms", "in the queue", 4],
  ["tokenize_ms", "tokenizing", 2],
  ["model_ms", "in the model", 0],
  ["encode_ms", "writing the answer", 1],
];

export default function Activity() {
  const [onlyErrors, setOnlyErrors] = useState(false);
  const [model, setModel] = useState("");
  const names = [...new Set(requests.value.map((row) => row.model).filter(Boolean))].sort();
  const shown = requests.value.filter((row) => (!onlyErrors || isError(row)) && (!model || row.model === model));
  if (!server.value) return html`<h1>Activity</h1><${Wait} what="Connecting to emberd" />`;
  return html`
    <h1>Activity</h1>
    <p class="soft">The last 200 requests that did something or failed. Their texts are not kept: neither here nor in the log.</p>
    ${requests.value.length === 0
      ? html`
          <${Empty} title="Nothing has been asked yet">
            <p>Send a request, and it appears here at once:</p>
            <${Command} line=${example()} />
          <//>
        `
      : html`
          <div class="row filters">
            <label class="choice"><input type="checkbox" checked=${onlyErrors} onChange=${(event) => setOnlyErrors(event.target.checked)} /> Only errors</label>
            <label for="of-model">Model</label>
            <${Select} id="of-model" value=${model} onChange=${(event) => setModel(event.target.value)}>
              <option value="">all</option>
              ${names.map((name) => html`<option key=${name} value=${name}>${name}</option>`)}
            <//>
            <span class="soft num" role="status">${number(shown.length)} of ${number(requests.value.length)} requests</span>
          </div>
          ${shown.length === 0
            ? html`<${Empty} title="None of them"><p>No request ${onlyErrors ? "failed" : "was of that kind"}${model && ` with ${model}`}.</p><//>`
            : html`<${Legend} /><${Table} rows=${shown} />`}
        `}
  `;
}

const isError = ({ status }) => typeof status === "string" || status >= 400;

function example() {
  const address = new URL("..", location.href).href;
  const token = server.value?.needs_token ? " -H 'Authorization: Bearer TOKEN'" : "";
  return `curl ${address}embed -H 'Content-Type: application/json'${token} -d '{"texts": ["The kettle is on."]}'`;
}

function Legend() {
  return html`
    <ul class="legend-list small" aria-label="Where the time of a request went">
      ${STAGES.map(
        ([stage, label, hue]) => html`
          <li key=${stage}><${Swatch} look=${plain(hue)} />${label}</li>
        `,
      )}
      <li><span class="swatch rest" aria-hidden="true"></span>the rest</li>
    </ul>
  `;
}

function Table({ rows }) {
  return html`
    <div class="scroll activity" tabindex="0" role="region" aria-label="Requests, newest first">
      <table>
        <thead>
          <tr>
            <th scope="col">Ended</th><th scope="col">Route</th><th scope="col">Dialect</th><th scope="col">Model</th><th scope="col">Status</th>
            <th scope="col" class="num">Texts</th><th scope="col" class="num">Tokens</th><th scope="col" class="num">Took</th><th scope="col">Where the time went</th>
          </tr>
        </thead>
        <tbody>${rows.map((row) => html`<${Row} key=${row.id} row=${row} />`)}</tbody>
      </table>
    </div>
  `;
}

function Row({ row }) {
  const texts = [number(row.texts), row.cached && `${number(row.cached)} cached`, row.truncated && `${number(row.truncated)} cut`];
  return html`
    <tr>
      <td><span class="num">${clock(row.at_s)}</span></td>
      <td><code>${row.method} ${row.route}</code></td>
      <td>${row.dialect}</td>
      <td class="wrap">${row.model ?? "–"}</td>
      <td><span class=${`state ${isError(row) ? "bad" : "ready"}`}>${row.status === "hung_up" ? "hung up" : row.status}</span></td>
      <td class="num">${row.texts ? texts.filter(Boolean).join(", ") : "–"}</td>
      <td class="num">${row.tokens ? number(row.tokens) : "–"}</td>
      <td class="num">${row.ms < 1000 ? `${number(row.ms, 1)} ms` : seconds(row.ms / 1000)}</td>
      <td><${Stages} row=${row} /></td>
    </tr>
  `;
}

/** The parts of a request's time; the model's counts every batch with one of its texts, so parts can be more than the whole. */
function Stages({ row }) {
  const parts = STAGES.filter(([stage]) => row.stages[stage] > 0);
  if (parts.length === 0) return html`<span class="soft">–</span>`;
  const sum = parts.reduce((ms, [stage]) => ms + row.stages[stage], 0);
  const whole = Math.max(row.ms, sum, 0.1);
  const said = parts.map(([stage, label]) => `${number(row.stages[stage], 1)} ms ${label}`).join(", ");
  return html`
    <div class="stages" title=${said} aria-hidden="true">
      ${parts.map(([stage, , hue]) => html`<span key=${stage} ...${areaOf(plain(hue), { width: `${(100 * row.stages[stage]) / whole}%` })}></span>`)}
    </div>
    <span class="unseen">${said}</span>
  `;
}

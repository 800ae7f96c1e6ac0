// Every model that is not loaded: those that are here, then those that could be fetched; found by typing.

import { html, useState } from "../../lib/preact.js";
import { Failed, number, size } from "../../parts.js";
import { models } from "../../state.js";
import { Pull, Verify, lastJob } from "../jobs.js";
import { Pin, Sending, useAsking } from "./model.js";

export function Others() {
  const [filter, setFilter] = useState("");
  const [isOpen, setOpen] = useState(false);
  const cold = models.value.filter((row) => row.state === "cold");
  const here = cold.filter((row) => row.pulled);
  const wanted = cold.filter((row) => matches(row, filter)).sort((a, b) => b.pulled - a.pulled);
  if (cold.length === 0) return null;
  return html`
    <details class="card others" open=${isOpen} onToggle=${(event) => setOpen(event.target.open)}>
      <summary><h2>${number(cold.length)} more models</h2> <span class="soft">${number(here.length)} of them on this machine</span></summary>
      ${isOpen &&
      html`
        <div class="field narrow">
          <label for="filter">Filter</label>
          <input id="filter" type="search" value=${filter} placeholder="a name, a kind, or “here”" onInput=${(event) => setFilter(event.target.value)} />
        </div>
        ${wanted.length === 0
          ? html`<p class="soft" role="status">No model has “${filter}” in its name, kind or aliases. Yours go under <code>models:</code> in the config file, or <code>emberd add</code> proposes an entry.</p>`
          : html`<${Table} rows=${wanted} />`}
      `}
    </details>
  `;
}

function matches(row, filter) {
  const text = [row.name, row.kind, row.pulled ? "here" : "", ...row.aliases].join(" ").toLowerCase();
  return filter.toLowerCase().split(/\s+/).every((word) => text.includes(word));
}

function Table({ rows }) {
  return html`
    <div class="scroll" tabindex="0" role="region" aria-label="Models that are not loaded">
      <table>
        <thead>
          <tr>
            <th scope="col">Model</th><th scope="col">Kind</th><th scope="col" class="num">Dimensions</th>
            <th scope="col" class="num">Tokens</th><th scope="col">Files</th><th scope="col"></th>
          </tr>
        </thead>
        <tbody>${rows.map((row) => html`<${Row} key=${row.name} row=${row} />`)}</tbody>
      </table>
    </div>
  `;
}

function Row({ row }) {
  const asking = useAsking();
  const { send, sending, problem } = asking;
  return html`
    <tr>
      <th scope="row" class="wrap name">
        ${row.name} ${row.pinned && html`<span class="tag">pinned</span>`}
        ${row.last_error && html`<p class="notice bad">${row.last_error}</p>`}
        <${Sending} asking=${asking} row=${row} />
        ${problem && html`<${Failed} problem=${problem} />`}
      </th>
      <td>${row.kind}</td>
      <td class="num">${row.kind === "rerank" ? "–" : number(row.dimensions)}</td>
      <td class="num">${number(row.max_tokens)}</td>
      <td>${row.pulled ? `here${row.files_bytes ? `, ${size(row.files_bytes)}` : ""}` : "not here"}</td>
      <td>
        <div class="jobs">
          ${row.pulled && html`<button type="button" disabled=${sending === "load"} aria-label=${`Load ${row.name}`} onClick=${() => send("load", { model: row.name })}>${sending === "load" ? "Loading" : "Load"}</button>`}
          ${row.pulled && html`<${Pin} row=${row} asking=${asking} /><${Verify} model=${row.name} />`}
          ${(!row.pulled || lastJob(row.name, "pull")) && html`<${Pull} model=${row.name} />`}
        </div>
      </td>
    </tr>
  `;
}


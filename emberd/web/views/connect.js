// Connect: what to type into a client, with this server's address and a model of one's choice.

import { html, useState } from "../lib/preact.js";
import { token } from "../net.js";
import { Command } from "../parts.js";
import { Select } from "../select.js";
import { models, server } from "../state.js";
import { Wait } from "../waiting.js";
import { CLIENTS, isTested } from "./connect/clients.js";

const KINDS = { embed: "Vectors", rerank: "Re-rankers", sparse: "Sparse vectors" };
const address = new URL("..", location.href).href.replace(/\/$/, "");

export default function Connect({ rest: [id] }) {
  const [chosen, setChosen] = useState(null);
  const [showToken, setShowToken] = useState(false);
  if (!server.value) return html`<h1>Connect</h1><${Wait} what="Connecting to emberd" />`;
  const model = models.value.find((row) => row.name === (chosen ?? server.value.default)) ?? models.value[0];
  const { needs_token: needsToken } = server.value;
  const clients = CLIENTS.filter(({ kinds }) => kinds.includes(model.kind));
  const client = clients.find((each) => each.id === id) ?? clients[0];
  const stand_in = needsToken ? "YOUR_TOKEN" : "any";
  const key = needsToken && showToken && token.value ? token.value : stand_in;
  return html`
    <h1>Connect</h1>
    <div class="row connecting">
      <div class="field">
        <label for="model">Model</label>
        <${Select} id="model" value=${model.name} onChange=${(event) => setChosen(event.target.value)}>
          ${Object.entries(KINDS).map(
            ([kind, title]) => html`
              <optgroup key=${kind} label=${title}>
                ${models.value.filter((row) => row.kind === kind).map((row) => html`<option key=${row.name} value=${row.name}>${row.name}${row.pulled ? "" : " (not here yet)"}</option>`)}
              </optgroup>
            `,
          )}
        <//>
      </div>
      <dl><dt>Address</dt><dd><code>${address}</code></dd></dl>
      ${needsToken &&
      token.value &&
      html`<label class="choice"><input type="checkbox" checked=${showToken} onChange=${(event) => setShowToken(event.target.checked)} /> Show my token in the text to copy</label>`}
    </div>
    ${!model.pulled && html`<p class="notice">The first request will download ${model.name}, which takes a while. To fetch it now, pull it under <a href="#/now">Now</a>.</p>`}
    <div class="clients">
      <nav class="card" aria-label="Clients">
        ${clients.map((each) => html`<a key=${each.id} href=${`#/connect/${each.id}`} aria-current=${each === client ? "true" : null}>${each.title}</a>`)}
      </nav>
      <section class="card" aria-labelledby="client">
        <div class="row spread">
          <h2 id="client">${client.title}</h2>
          <span class="tag">${isTested(client, model.kind) ? "tested by emberd’s tests" : "from its documentation, not tested"}</span>
        </div>
        <${Command} key=${client.id + model.name + key} line=${client.code({ address, model: model.name, kind: model.kind, key, needsToken })} />
        ${client.note && html`<p class="soft">${client.note}</p>`}
        <p class="soft small">${needsToken ? "This server asks for a token: it goes where others want an API key." : "Where a client wants an API key, any will do: this server asks for none."}</p>
      </section>
    </div>
    <${Roles} model=${model} />
  `;
}

/** Names that state which side of a search a text is on, for clients that can send only a name. */
function Roles({ model }) {
  const roles = Object.entries(model.roles);
  if (roles.length === 0) return null;
  return html`
    <section class="card" aria-labelledby="roles">
      <h2 id="roles">Questions and passages</h2>
      <p>${model.name} treats a question and a passage differently. A client that can send only a model’s name says which by one of these:</p>
      <dl>${roles.map(([name, role]) => html`<dt key=${name} class="wrap"><code>${name}</code></dt><dd>${role}</dd>`)}</dl>
    </section>
  `;
}

// Memory of the loaded models beside the budget, as one bar with a part for each.

import { html } from "../../lib/preact.js";
import { size } from "../../parts.js";
import { loaded, server } from "../../state.js";
import { hueOf } from "./hues.js";

export function Memory() {
  const budget = server.value.budget_bytes;
  const rows = loaded.value.filter((row) => row.memory_bytes > 0);
  const taken = rows.reduce((sum, row) => sum + row.memory_bytes, 0);
  const whole = Math.max(budget, taken, 1);
  return html`
    <section class="card" aria-labelledby="memory">
      <div class="row spread">
        <h2 id="memory">Memory</h2>
        <p class="num">${size(taken)} <span class="soft">of ${size(budget)} for models</span></p>
      </div>
      <div class="memory" aria-hidden="true">
        ${rows.map((row) => html`<span key=${row.name} style=${{ width: `${(100 * row.memory_bytes) / whole}%`, background: `var(--hue-${hueOf(row.name)})` }}></span>`)}
      </div>
      ${rows.length > 0 &&
      html`
        <ul class="legend-list">
          ${rows.map(
            (row) => html`
              <li key=${row.name}>
                <span class="swatch" aria-hidden="true" style=${{ background: `var(--hue-${hueOf(row.name)})` }}></span>
                <span class="wrap">${row.name}</span> <span class="soft num">${size(row.memory_bytes)}</span>
              </li>
            `,
          )}
        </ul>
      `}
      ${taken > budget && html`<p class="notice warn">The models take more than the budget: limits.memory_budget counts when one is loaded, and a model that works may grow.</p>`}
    </section>
  `;
}

// Memory of the loaded models beside the budget, as one bar with a part for each.

import { html } from "../../lib/preact.js";
import { OTHERS, Swatch, areaOf, lookOf, parted } from "../../looks.js";
import { size } from "../../parts.js";
import { loaded, server } from "../../state.js";

const sumOf = (rows) => rows.reduce((sum, row) => sum + row.memory_bytes, 0);

export function Memory() {
  const budget = server.value.budget_bytes;
  const rows = loaded.value.filter((row) => row.memory_bytes > 0);
  const taken = sumOf(rows);
  const whole = Math.max(budget, taken, 1);
  const { own, others } = parted(rows);
  const parts = own.map((row) => ({ name: row.name, look: lookOf(row.name), bytes: row.memory_bytes }));
  if (others.length) parts.push({ name: `${others.length} others: ${others.map(({ name }) => name).join(", ")}`, look: OTHERS, bytes: sumOf(others) });
  return html`
    <section class="card" aria-labelledby="memory">
      <div class="row spread">
        <h2 id="memory">Memory</h2>
        <p class="num">${size(taken)} <span class="soft">of ${size(budget)} for models</span></p>
      </div>
      <div class="memory" aria-hidden="true">
        ${parts.map(({ name, look, bytes }) => html`<span key=${name} ...${areaOf(look, { width: `${(100 * bytes) / whole}%` })}></span>`)}
      </div>
      ${parts.length > 0 &&
      html`
        <ul class="legend-list">
          ${parts.map(
            ({ name, look, bytes }) => html`
              <li key=${name}><${Swatch} look=${look} /><span class="wrap">${name}</span> <span class="soft num">${size(bytes)}</span></li>
            `,
          )}
        </ul>
      `}
      ${taken > budget && html`<p class="notice warn">The models take more than the budget: limits.memory_budget counts when one is loaded, and a model that works may grow.</p>`}
    </section>
  `;
}

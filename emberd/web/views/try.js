// Try: what a model makes of one's own texts. Two ways in: compare texts with each other, or find what is near a question.

import { html } from "../lib/preact.js";
import { models } from "../state.js";
import { Empty } from "../parts.js";
import { Wait } from "../waiting.js";
import { offered } from "./try/asking.js";
import Compare from "./try/compare.js";
import Nearest from "./try/nearest.js";

const WAYS = [
  { id: "", title: "Compare texts", Way: Compare },
  { id: "nearest", title: "Nearest to a question", Way: Nearest },
];

export default function Try({ rest }) {
  const { id, Way } = WAYS.find((each) => each.id === (rest[0] ?? "")) ?? WAYS[0];
  return html`
    <div class="stack">
      <h1>Try</h1>
      <nav class="ways" aria-label="Ways to try a model">
        ${WAYS.map(
          (each) => html`
            <a key=${each.id} href="#/try${each.id && `/${each.id}`}" aria-current=${each.id === id ? "page" : null}>
              ${each.title}
            </a>
          `,
        )}
      </nav>
    </div>
    <${Ready}><${Way} key=${id} /><//>
  `;
}

function Ready({ children }) {
  if (!models.value.length) return html`<${Wait} what="Asking which models there are" />`;
  if (!offered("embed").length) {
    return html`
      <${Empty} title="No model gives vectors">
        <p>The registry has none of kind embed. Add one with <code>emberd add</code>.</p>
      <//>
    `;
  }
  return children;
}

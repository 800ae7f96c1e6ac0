// Now: what is loaded and what it costs, how busy it is, and the last 15 minutes.

import { html, useEffect, useState } from "../lib/preact.js";
import { Empty, number, size } from "../parts.js";
import { loaded, models, samples, server } from "../state.js";
import { Wait } from "../waiting.js";
import { Charts } from "./now/charts.js";
import { Memory } from "./now/memory.js";
import { ModelCard } from "./now/model.js";
import { Others } from "./now/others.js";

export default function Now() {
  const now_s = useSeconds();
  if (!server.value) return html`<h1>Now</h1><${Wait} what="Connecting to emberd" />`;
  return html`
    <div class="row spread">
      <h1>Now</h1>
      <p class="soft num">${summary()}</p>
    </div>
    <${Memory} />
    ${loaded.value.length === 0
      ? html`
          <${Empty} title="No model is loaded">
            <p>That costs nothing: a model is loaded by its first request, and unloaded when it is idle. Load one below, or try one under <a href="#/try">Try</a>.</p>
          <//>
        `
      : html`
          <section class="stack" aria-labelledby="in-use">
            <h2 id="in-use" class="unseen">Models in use</h2>
            <div class="models">${loaded.value.map((row) => html`<${ModelCard} key=${row.name} row=${row} now_s=${now_s} />`)}</div>
          </section>
        `}
    <${Others} />
    <${Charts} />
  `;
}

function summary() {
  const last = samples.value.at(-1);
  const busy = loaded.value.reduce((sum, row) => sum + row.in_flight + row.queued, 0);
  const parts = [
    `${loaded.value.length} of ${number(models.value.length)} models loaded`,
    `${number(busy)} request${busy === 1 ? "" : "s"} under way`,
    `the server itself takes ${size(last?.server_bytes ?? server.value.memory_bytes)}`,
  ];
  return parts.join(" · ");
}

/** The page's clock, for countdowns; it runs only while this view is shown. */
function useSeconds() {
  const [now_s, setNow] = useState(performance.now() / 1000);
  useEffect(() => {
    const ticking = setInterval(() => setNow(performance.now() / 1000), 1000);
    return () => clearInterval(ticking);
  }, []);
  return now_s;
}

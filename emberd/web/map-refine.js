// "Refine": UMAP of a sample of a map's rows, computed in a worker of this page.

import { html, useEffect, useRef, useState } from "./lib/preact.js";
import { fetchFrom } from "./net.js";
import { Bar, Failed, number } from "./parts.js";
import { Wait } from "./waiting.js";

const SAMPLES = [2000, 5000, 20_000];

/**
 * `onLayout({rows, xy} | null)`; null: back to all rows. `refined` is the layout's number of rows.
 * `onOther(size)` is called when this `map` is held no longer: the store has to be read anew, and `resumed` (a ref)
 * says then that a sample of that size had been asked for.
 */
export function Refine({ store, map, points, refined, resumed, onLayout, onOther }) {
  const [wanted, setWanted] = useState(resumed.current ?? SAMPLES[0]);
  const [doing, setDoing] = useState(null); // {what, done, total}
  const [problem, setProblem] = useState(null);
  const running = useRef(null); // an AbortController: it ends the fetch and the worker
  const choices = SAMPLES.filter((size, at) => !at || SAMPLES[at - 1] < points);

  const stop = () => {
    running.current?.abort();
    setDoing(null);
  };
  useEffect(() => {
    if (resumed.current) start();
    resumed.current = null;
    return stop;
  }, []);

  const start = async (event) => {
    event?.preventDefault();
    running.current = new AbortController();
    const { signal } = running.current;
    setProblem(null);
    setDoing({ what: "Fetching the sample", done: 0, total: 0 });
    try {
      const path = `map/components?store=${encodeURIComponent(store)}&rows=${wanted}`;
      const response = await fetchFrom(path, { accept: "application/octet-stream", signal });
      if (response.headers.get("x-emberd-map") !== map) {
        stop();
        onOther(wanted);
        return;
      }
      const [count, size] = ["rows", "components"].map((name) => Number(response.headers.get(`x-emberd-${name}`)));
      const raw = await response.arrayBuffer();
      const rows = new Uint32Array(raw, 0, count);
      const components = new Float32Array(raw.slice(4 * count));
      signal.throwIfAborted();
      const worker = new Worker(new URL("./umap-worker.js", import.meta.url), { type: "module" });
      signal.addEventListener("abort", () => worker.terminate());
      worker.onmessage = ({ data }) => {
        if (signal.aborted) return;
        if (data.what === "neighbours") {
          setDoing({ what: `Looking for the neighbours of ${number(count)} rows; that says nothing until it is done`, done: 0, total: 0 });
          return;
        }
        onLayout({ rows, xy: data.xy });
        setDoing({ what: "Placing the rows", done: data.done, total: data.total });
        if (data.done === data.total) stop();
      };
      worker.onerror = (event) => {
        stop();
        setProblem({ message: `UMAP failed: ${event.message ?? "the worker could not be started"}.`, hint: "Try a smaller sample." });
      };
      worker.postMessage({ components, rows: count, count: size }, [components.buffer]);
    } catch (error) {
      if (signal.aborted) return;
      stop();
      if (error.status === 404) onOther(wanted); // nobody has asked for a while, so its process has ended
      else setProblem(error);
    }
  };

  return html`
    <section class="card" aria-labelledby="map-refine">
      <h2 id="map-refine">Refine</h2>
      ${problem && html`<${Failed} problem=${problem} />`}
      ${doing
        ? html`
            <${Wait} what=${doing.what} why="This browser computes it, and the map can be used meanwhile. A smaller sample is faster." />
            <${Bar} done=${doing.done} total=${doing.total} label=${doing.what} />
            <div class="row"><button type="button" onClick=${stop}>Stop here</button></div>
          `
        : html`
            <p class="soft small">UMAP shows neighbourhoods better than two principal components, but only of a sample, and
              distances between groups then mean little. It runs in this browser.</p>
            <form class="row" onSubmit=${start}>
              <label class="field">Rows of the sample
                <select value=${wanted} onChange=${(event) => setWanted(Number(event.target.value))}>
                  ${choices.map((size) => html`<option value=${size}>${number(Math.min(size, points))}</option>`)}
                </select>
              </label>
              <button type="submit">Refine by UMAP</button>
            </form>
          `}
      ${refined > 0 &&
      html`
        <p>The map shows a sample of <strong class="num">${number(refined)}</strong> of ${number(points)} points, by UMAP.</p>
        <div class="row"><button type="button" onClick=${() => (stop(), onLayout(null))}>Show all points again</button></div>
      `}
    </section>
  `;
}

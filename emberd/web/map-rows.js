// Rows of a map in words: a list that can be read and pressed, and the text under the pointer.

import { html, useEffect, useState } from "./lib/preact.js";
import { ask } from "./net.js";
import { Failed, number } from "./parts.js";
import { Wait } from "./waiting.js";

const FIRST = 50; // rows of a list that are shown at once

/** Texts of a map's rows, each asked for once. `onOther(map)` is called when the store was read anew. */
export class RowTexts {
  constructor(store, map, onOther) {
    Object.assign(this, { store, map, onOther });
    this.known = new Map();
  }

  /** Learn rows {row, key, text} that came with another answer. */
  learn(rows, map) {
    if (map !== this.map) this.onOther(map);
    for (const row of rows) this.known.set(row.row, row);
  }

  /** The rows of these numbers, in order. */
  async of(rows, signal) {
    const wanted = rows.filter((row) => !this.known.has(row));
    if (wanted.length) {
      const { rows: found, map } = await ask("map/texts", { body: { store: this.store, rows: wanted }, signal });
      this.learn(found, map);
    }
    return rows.map((row) => this.known.get(row)).filter(Boolean);
  }
}

/** The text of the row under the pointer; `hovered` is a signal of {row, at: [x, y]} or null. */
export function Tip({ hovered, texts, plane }) {
  const now = hovered.value;
  const [row, setRow] = useState(null);
  useEffect(() => {
    if (!now) return setRow(null);
    const stopping = new AbortController();
    texts.of([now.row], stopping.signal).then(
      ([found]) => setRow(found),
      () => setRow(null), // the pointer has gone on, or the list below says what is wrong
    );
    return () => stopping.abort();
  }, [now?.row, texts]);
  if (!now || row?.row !== now.row) return null;
  const [x, y] = now.at;
  const { width, height } = plane; // it lies on the side where there is room
  const across = x > width / 2 ? { right: `${width - x + 14}px` } : { left: `${x + 14}px` };
  const along = y > height / 2 ? { bottom: `${height - y + 14}px` } : { top: `${y + 14}px` };
  return html`
    <div class="tip" style=${{ ...across, ...along }}>
      <p dir="auto">${row.text || "(no text)"}</p>
      <p class="soft small">${row.key}</p>
    </div>
  `;
}

/** `list`: {title, rows, cosines?, empty?}. `onShow(row)` shows one on the map. */
export function RowList({ list, texts, chosen, onShow, onClear }) {
  const [most, setMost] = useState(FIRST);
  const [found, setFound] = useState({ rows: [] });
  useEffect(() => setMost(FIRST), [list]);
  useEffect(() => {
    const stopping = new AbortController();
    texts.of(list.rows.slice(0, most), stopping.signal).then(
      (rows) => setFound({ rows, list }),
      (problem) => problem.name === "AbortError" || setFound({ rows: [], list, problem }),
    );
    return () => stopping.abort();
  }, [list, most, texts]);
  const here = found.list === list;
  return html`
    <section class="card" aria-labelledby="map-list">
      <div class="title">
        <h2 id="map-list" class="wrap" dir="auto" role="status">${list.title}</h2>
        <button type="button" class="quiet" onClick=${onClear}>Clear</button>
      </div>
      ${found.problem && here && html`<${Failed} problem=${found.problem} />`}
      ${!here && html`<${Wait} what="Reading the texts" />`}
      ${!list.rows.length && html`<p class="soft">There are no points there. Zoom out, or show more groups.</p>`}
      <ul class="hits">
        ${here &&
        found.rows.map(
          (row) => html`
            <li key=${row.row}>
              <button type="button" aria-pressed=${row.row === chosen} onClick=${() => onShow(row.row)}>
                <span class="wrap" dir="auto">${row.text || "(no text)"}</span>
                <span class="soft small row spread">
                  <span class="wrap">${row.key}</span>
                  ${list.cosines && html`<span class="num" title="cosine">${list.cosines.get(row.row).toFixed(3)}</span>`}
                </span>
              </button>
            </li>
          `,
        )}
      </ul>
      ${here &&
      list.rows.length > most &&
      html`
        <button type="button" onClick=${() => setMost(most + FIRST)}>
          Show more (${number(list.rows.length - most)} are left)
        </button>
      `}
    </section>
  `;
}

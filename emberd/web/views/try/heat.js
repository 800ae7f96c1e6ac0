// A heat map of cosines that is a table: every cell has its number, also where there is no room to show it.

import { effect, html, useEffect, useRef } from "../../lib/preact.js";

const ROOM = 12; // texts, up to which numbers fit
const STEPS = 10; // of colour; between the 7th and the 8th, ink and paper change places (style.css)
const MOVES = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };

/**
 * `pair` is a signal of the cell that is looked at, [row, column]; all maps beside each other share it. It is marked
 * without rendering anything again, because there are thousands of cells.
 */
export function HeatMap({ model, cosines, pair }) {
  const table = useRef(null);
  const last = cosines.length - 1;
  useEffect(() => effect(() => mark(table.current, pair.value)), [cosines, pair]);

  const move = (event) => {
    const by = MOVES[event.key];
    if (!by) return;
    event.preventDefault();
    pair.value = (pair.value ?? [0, 0]).map((each, axis) => Math.min(Math.max(each + by[axis], 0), last));
    table.current.querySelector("td.at")?.scrollIntoView({ block: "nearest", inline: "nearest" });
  };
  const point = (event) => {
    const cell = event.target.closest("tbody td");
    if (cell) pair.value = [cell.parentNode.sectionRowIndex, cell.cellIndex - 1];
  };
  return html`
    <div class="scroll heat" role="group" tabindex="0" aria-label=${`Cosines by ${model}; arrow keys choose a pair`}
      onKeyDown=${move} onPointerOver=${point} onClick=${point}>
      <table ref=${table} ...${last < ROOM ? {} : { class: "dense", style: { maxWidth: `${2 + 1.7 * cosines.length}rem` } }}>
        <caption class="unseen">Cosines of all pairs by ${model}</caption>
        ${cellsOf(cosines)}
      </table>
    </div>
    <${Legend} cosines=${cosines} />
  `;
}

function cellsOf(cosines) {
  const [low, high] = ends(cosines);
  const step = (value) => (high > low ? Math.round(((value - low) / (high - low)) * STEPS) : STEPS / 2);
  const fits = cosines.length <= ROOM;
  const name = (index) => (fits || index === 0 || index % 5 === 4 ? index + 1 : html`<span class="unseen">${index + 1}</span>`);
  return html`
    <thead>
      <tr><td></td>${cosines.map((_, b) => html`<th key=${b} scope="col">${name(b)}</th>`)}</tr>
    </thead>
    <tbody>
      ${cosines.map(
        (row, a) => html`
          <tr key=${a}>
            <th scope="row">${name(a)}</th>
            ${row.map((value, b) => {
              const [kind, told] = [a === b ? "self" : `step-${step(value)}`, value.toFixed(2)];
              return html`<td key=${b} class=${kind} title=${fits ? null : told}>${fits && told}</td>`;
            })}
          </tr>
        `,
      )}
    </tbody>
  `;
}

/** The lowest and the highest cosine of two different texts. */
function ends(cosines) {
  const others = cosines.flatMap((row, a) => row.filter((_, b) => a !== b));
  return [Math.min(...others), Math.max(...others)];
}

function mark(table, pair) {
  for (const each of table.querySelectorAll(".at")) each.classList.remove("at");
  if (!pair) return;
  const row = table.tBodies[0].rows[pair[0]];
  for (const each of [row.cells[0], row.cells[pair[1] + 1], table.tHead.rows[0].cells[pair[1] + 1]]) each.classList.add("at");
}

function Legend({ cosines }) {
  const [low, high] = ends(cosines);
  return html`
    <p class="legend small soft num" aria-hidden="true">
      <span>${low.toFixed(2)}</span><span class="ramp"></span><span>${high.toFixed(2)}</span>
    </p>
  `;
}

// A heat map of cosines that is a table: every cell has its number, also where there is no room to show it.

import { html } from "../../lib/preact.js";

const ROOM = 12; // texts, up to which numbers fit
const STEPS = 10; // of colour; between the 7th and the 8th, ink and paper change places (style.css)
const MOVES = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };

/** `pair` is the cell that is looked at, [row, column]; all maps beside each other share it. */
export function HeatMap({ model, cosines, pair, onPair }) {
  const count = cosines.length;
  const others = cosines.flatMap((row, a) => row.filter((_, b) => a !== b));
  const [low, high] = [Math.min(...others), Math.max(...others)];
  const step = (value) => (high > low ? Math.round(((value - low) / (high - low)) * STEPS) : STEPS / 2);
  const isAt = (a, b) => pair && pair[0] === a && pair[1] === b;

  const move = (event) => {
    const by = MOVES[event.key];
    if (!by) return;
    event.preventDefault();
    const [a, b] = pair ?? [0, 0];
    onPair([a, b].map((each, axis) => Math.min(Math.max(each + by[axis], 0), count - 1)));
  };
  const numbers = cosines.map((_, index) => index);
  return html`
    <div class="scroll heat" role="group" tabindex="0" aria-label=${`Cosines by ${model}; arrow keys choose a pair`} onKeyDown=${move}>
      <table class=${count > ROOM ? "dense" : null}>
        <caption class="unseen">Cosines of all pairs by ${model}</caption>
        <thead>
          <tr><td></td>${numbers.map((b) => html`<th key=${b} scope="col" class=${pair?.[1] === b ? "at" : null}>${b + 1}</th>`)}</tr>
        </thead>
        <tbody>
          ${numbers.map(
            (a) => html`
              <tr key=${a}>
                <th scope="row" class=${pair?.[0] === a ? "at" : null}>${a + 1}</th>
                ${numbers.map((b) => {
                  const value = cosines[a][b];
                  const kind = a === b ? "self" : `step-${step(value)}`;
                  return html`
                    <td key=${b} class=${`${kind}${isAt(a, b) ? " at" : ""}`}
                      onPointerEnter=${() => onPair([a, b])} onClick=${() => onPair([a, b])}>
                      <span class=${count > ROOM ? "unseen" : null}>${value.toFixed(2)}</span>
                    </td>
                  `;
                })}
              </tr>
            `,
          )}
        </tbody>
      </table>
    </div>
    <p class="legend small soft num" aria-hidden="true">
      <span>${low.toFixed(2)}</span><span class="ramp"></span><span>${high.toFixed(2)}</span>
    </p>
  `;
}

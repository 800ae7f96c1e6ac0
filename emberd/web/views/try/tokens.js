// A text as the model sees it: its tokens drawn over it, and where it is cut.

import { html, useState } from "../../lib/preact.js";
import { number } from "../../parts.js";

const DRAWN = 600; // tokens of a text, one by one; what follows is drawn in one piece
const OPEN = 6; // texts whose tokens are drawn at once

/**
 * Where the tokens of a text lie, and which of them the model takes.
 *
 * Offsets count code points, and JavaScript's strings UTF-16 units: so the text is a list of code points here. Several
 * tokens can lie within one character (an emoji is four bytes to some tokenizers); they are one piece.
 */
function layOut(text, prompt, tokens, most) {
  const chars = Array.from(prompt + text);
  const promptEnds = Array.from(prompt).length;
  const words = tokens.filter((token) => !token.special);
  const special = tokens.length - words.length;
  const room = most == null ? Infinity : Math.max(most - special, 0);
  const pieces = [];
  words.forEach((token, index) => {
    const last = pieces.at(-1);
    if (last && token.start < last.stop) {
      last.stop = Math.max(last.stop, token.stop);
      last.ids.push(token.id);
    } else if (token.stop > token.start) {
      pieces.push({ start: token.start, stop: token.stop, ids: [token.id], lost: index >= room });
    }
  });
  return { chars, promptEnds, pieces, special, count: tokens.length, lost: Math.max(words.length - room, 0) };
}

export function Tokens({ texts, prompt, tokens, most }) {
  return html`
    <ol class="texts">
      ${texts.map((text, index) => html`
        <${Text} key=${index} place=${index} laid=${layOut(text, prompt, tokens[index], most)} most=${most} />
      `)}
    </ol>
  `;
}

function Text({ place, laid, most }) {
  const [open, setOpen] = useState(place < OPEN);
  const { count, lost } = laid;
  return html`
    <li>
      <details open=${open} onToggle=${(event) => setOpen(event.target.open)}>
        <summary class="small soft num">
          Text ${place + 1}: ${number(count)} ${count === 1 ? "token" : "tokens"}${lost > 0 && html`, ${""}
          <strong class="lost-count">${number(lost)} lost</strong>: the model takes ${number(most)}`}
        </summary>
        ${open && html`<p class="tokens" dir="auto">${drawn(laid)}</p>`}
      </details>
    </li>
  `;
}

function drawn({ chars, promptEnds, pieces }) {
  const parts = [];
  const slice = (from, to) => chars.slice(from, to).join("");
  let at = 0;
  const one = pieces.slice(0, DRAWN);
  one.forEach((piece, index) => {
    if (piece.start > at) parts.push(slice(at, piece.start));
    if (piece.lost && !one[index - 1]?.lost) parts.push(html`<span class="cut">cut here</span>`);
    const kind = `token ${index % 2 ? "odd" : ""} ${piece.lost ? "lost" : ""} ${piece.stop <= promptEnds ? "of-prompt" : ""}`;
    parts.push(html`
      <span class=${kind} title=${piece.ids.length > 1 ? `tokens ${piece.ids.join(", ")}` : `token ${piece.ids[0]}`}>${slice(piece.start, piece.stop)}${
        piece.ids.length > 1 && html`<sub>${piece.ids.length}</sub>`
      }</span>
    `);
    at = piece.stop;
  });
  const rest = pieces.slice(DRAWN);
  const cut = rest.findIndex((piece) => piece.lost);
  if (cut >= 0 && !one.at(-1)?.lost) {
    parts.push(slice(at, rest[cut].start), html`<span class="cut">cut here</span>`);
    at = rest[cut].start;
  }
  parts.push(cut >= 0 ? html`<span class="lost">${slice(at)}</span>` : slice(at));
  return parts;
}

// Looks: the colour and the pattern of a model, the same in the bar, in its card and in the charts.
//
// The first five models have a hue each, the next five the same hues in dashes, the next five in dots. Whatever comes on top
// of these fifteen shares one look, and is drawn as one: "others". What is no model, the server itself, is neutral.

import { computed, html } from "./lib/preact.js";
import { loaded, samples } from "./state.js";

export const HUES = 5;
const DASHES = [[], [7, 4], [2, 3]]; // of lines, in pixels; `.pattern-N` of style.css has the same for areas
const MOST = HUES * DASHES.length;

export const SERVER = { colour: "--neutral", pattern: 0, dash: [] };
export const OTHERS = { colour: "--neutral", pattern: 1, dash: DASHES[1] };

/** The look of a series that is no model's: one of the five hues. */
export const plain = (hue) => ({ colour: `--hue-${hue}`, pattern: 0, dash: [] });

const order = []; // names, each at the place of its look
const shown = computed(() => new Set([...loaded.value.map(({ name }) => name), ...samples.value.flatMap(({ memory }) => Object.keys(memory))]));

/** The look of a model: {colour, pattern, dash}. It keeps it for as long as it is shown anywhere. */
export function lookOf(name) {
  if (!order.includes(name)) {
    const free = order.findIndex((each) => !shown.value.has(each));
    order[free < 0 ? order.length : free] = name;
  }
  const place = order.indexOf(name);
  if (place >= MOST) return OTHERS;
  const pattern = Math.floor(place / HUES);
  return { ...plain(place % HUES), pattern, dash: DASHES[pattern] };
}

/** Parts of rows, each with a name: those with a look of their own, and the others. */
export function parted(rows) {
  const [own, others] = [[], []];
  for (const row of rows) (lookOf(row.name) === OTHERS ? others : own).push(row);
  return { own, others };
}

/** What an area of a look needs: `<span ...${areaOf(look)}>`. */
export function areaOf({ colour, pattern }, style = {}) {
  return { class: `pattern-${pattern}`, style: { "--hue": `var(${colour})`, ...style } };
}

export function Swatch({ look }) {
  const { class: pattern, style } = areaOf(look);
  return html`<span class=${`swatch ${pattern}`} aria-hidden="true" style=${style}></span>`;
}

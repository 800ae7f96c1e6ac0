// A chart of the last 15 minutes: uPlot draws it, and a sentence beside it says the same.

import { colourOf } from "./colour.js";
import { html, useEffect, useRef, useState } from "./lib/preact.js";
import uPlot from "./lib/uplot.js";
import { Swatch } from "./looks.js";
import { clock } from "./parts.js";

const HEIGHT = 150;
const dark = matchMedia("(prefers-color-scheme: dark)");

/**
 * `at` are seconds since 1970; each of `series` is {label, look, values} (looks.js), with null where there is nothing.
 * `marks` are {at_s, label}: dashed lines. `show` makes a value readable; the axis
 * has lines at multiples of one of `steps`.
 */
export function Chart({ title, at, series, marks = [], show, steps }) {
  const place = useRef(null);
  const plot = useRef(null);
  const drawn = useRef({});
  const [pointed, setPointed] = useState(null);
  const [scheme, setScheme] = useState(dark.matches);
  const kinds = series.map(({ label, look }) => `${label}:${look.colour}:${look.pattern}`).join();
  drawn.current = { marks, show };

  useEffect(() => {
    const change = () => setScheme(dark.matches);
    dark.addEventListener("change", change);
    return () => dark.removeEventListener("change", change);
  }, []);

  useEffect(() => {
    const element = place.current;
    const made = new uPlot(options(element, { series, steps }, drawn, setPointed), [at, ...series.map(({ values }) => values)], element);
    const sized = new ResizeObserver(() => made.setSize({ width: element.clientWidth, height: HEIGHT }));
    sized.observe(element);
    plot.current = made;
    return () => {
      sized.disconnect();
      made.destroy();
    };
  }, [kinds, scheme]);

  useEffect(() => plot.current.setData([at, ...series.map(({ values }) => values)]), [at]);

  const index = pointed != null && pointed < at.length ? pointed : at.length - 1;
  const said = `${title}: ${series.map(({ label, values }) => sentence(label, values, show)).join("; ")}.`;
  return html`
    <figure class="chart card">
      <figcaption>
        <h3>${title}</h3>
        <ul class="legend-list small">
          ${series.map(
            ({ label, look, values }) => html`
              <li key=${label}>
                ${label && html`<${Swatch} look=${look} /><span class="wrap">${label}</span>`}
                ${pointed == null && html`<span class="soft">now</span>`}
                <strong class="num">${show(values[index])}</strong>
                ${pointed == null && html`<span class="soft num">at most ${show(highest(values))}</span>`}
              </li>
            `,
          )}
          ${pointed != null && html`<li class="soft num">${clock(at[index])}</li>`}
        </ul>
      </figcaption>
      <div class="plot" ref=${place} role="img" aria-label=${said}></div>
      ${marks.length > 0 &&
      html`
        <details class="small">
          <summary>${marks.length === 1 ? "1 model was unloaded" : `${marks.length} models were unloaded`}</summary>
          <ul class="marks num">${marks.map(({ at_s, label }, number) => html`<li key=${`${at_s} ${number}`}>${clock(at_s)} ${label}</li>`)}</ul>
        </details>
      `}
    </figure>
  `;
}

function highest(values) {
  return values.reduce((most, value) => (value != null && (most == null || value > most) ? value : most), null);
}

function sentence(label, values, show) {
  const now = values.at(-1);
  return `${label ? `${label} ` : ""}now ${show(now)}, at most ${show(highest(values))} in the last 15 minutes`;
}

function options(element, { series, steps }, drawn, setPointed) {
  const ink = colourOf(element, "--soft");
  const line = colourOf(element, "--line");
  const font = "11px system-ui, sans-serif";
  const axis = { stroke: ink, font, grid: { stroke: line, width: 1 }, ticks: { show: false } };
  return {
    width: element.clientWidth || 300,
    height: HEIGHT,
    padding: [8, 20, 0, 0],
    legend: { show: false },
    cursor: { y: false, drag: { x: false, y: false }, points: { size: 6 } },
    scales: { x: { time: true }, y: { range: (_, __, most) => [0, most > 0 ? most * 1.1 : 1] } },
    axes: [
      { ...axis, size: 24, space: 70, values: (_, times) => times.map((time) => clock(time).slice(0, 5)) },
      { ...axis, size: 58, space: 32, ...(steps && { incrs: steps }), values: (_, values) => values.map((value) => drawn.current.show(value)) },
    ],
    series: [
      {},
      ...series.map(({ label, look }) => ({ label, stroke: colourOf(element, look.colour), dash: look.dash, width: 1.5, spanGaps: false, points: { size: 3 } })),
    ],
    hooks: {
      setCursor: [(plot) => setPointed(plot.cursor.idx ?? null)],
      draw: [(plot) => drawMarks(plot, drawn.current.marks, colourOf(element, "--accent"))],
    },
  };
}

function drawMarks(plot, marks, stroke) {
  const { ctx, bbox } = plot;
  ctx.save();
  ctx.strokeStyle = stroke;
  ctx.setLineDash([4, 4]);
  for (const { at_s } of marks) {
    const x = Math.round(plot.valToPos(at_s, "x", true));
    if (x < bbox.left || x > bbox.left + bbox.width) continue;
    ctx.beginPath();
    ctx.moveTo(x, bbox.top);
    ctx.lineTo(x, bbox.top + bbox.height);
    ctx.stroke();
  }
  ctx.restore();
}

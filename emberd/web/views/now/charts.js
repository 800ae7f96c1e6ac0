// The last 15 minutes as charts. The server keeps no second in which nothing happened and nobody watched: those are filled in.

import { html, useMemo } from "../../lib/preact.js";
import { Chart } from "../../chart.js";
import { OTHERS, SERVER, lookOf, parted, plain } from "../../looks.js";
import { number, size } from "../../parts.js";
import { samples } from "../../state.js";

const SECONDS = 900;
const FEWEST = 120; // on the axis, also when the server has just begun
const REASONS = {
  idle: "it was idle", lru: "another model needed the room", asked: "somebody asked for it", crash: "its worker died",
  reload: "its entry changed", shutdown: "the server ended",
};
const milliseconds = (value) => (value == null ? "–" : value < 1000 ? `${number(value, value < 10 ? 1 : 0)} ms` : `${number(value / 1000, 1)} s`);
const WHOLE_MIB = Array.from({ length: 20 }, (_, power) => 2 ** (20 + power));
const count = (value) => (value == null ? "–" : number(value, value < 10 ? 1 : 0));

export function Charts() {
  const found = useMemo(() => filled(samples.value), [samples.value]);
  if (!found) return null;
  const { at, lines, models, marks } = found;
  return html`
    <section class="stack" aria-labelledby="charts">
      <h2 id="charts">The last 15 minutes</h2>
      <div class="charts">
        <${Chart} title="Texts per second" at=${at} show=${count} series=${[{ label: "", look: plain(0), values: lines.texts }]} />
        <${Chart} title="Tokens per second" at=${at} show=${count} series=${[{ label: "", look: plain(2), values: lines.tokens }]} />
        <${Chart} title="Time to answer" at=${at} show=${milliseconds} series=${[
          { label: "median", look: plain(0), values: lines.p50_ms }, { label: "slowest 1 %", look: plain(1), values: lines.p99_ms },
        ]} />
        <${Chart} title="Texts waiting" at=${at} show=${count} series=${[{ label: "", look: plain(3), values: lines.queued }]} />
        <${Chart} title="Memory by model" at=${at} show=${size} steps=${WHOLE_MIB} marks=${marks} series=${[
          ...models,
          { label: "the server itself", look: SERVER, values: lines.server_bytes },
        ]} />
      </div>
    </section>
  `;
}

/** Put the samples on a grid of seconds; memory stays what it was until a sample says something else. */
function filled(kept) {
  if (kept.length === 0) return null;
  const last_s = kept.at(-1).at_s;
  const bySecond = new Map(kept.map((sample) => [sample.at_s, sample]));
  const names = [...new Set(kept.flatMap((sample) => Object.keys(sample.memory)))];
  const first_s = Math.max(last_s - SECONDS + 1, Math.min(kept[0].at_s, last_s - FEWEST + 1));
  const at = Array.from({ length: last_s - first_s + 1 }, (_, index) => first_s + index);
  const lines = { texts: [], tokens: [], queued: [], p50_ms: [], p99_ms: [], server_bytes: [] };
  const models = names.map((name) => ({ name, values: [] }));
  let before = null;
  for (const at_s of at) {
    const sample = bySecond.get(at_s);
    before = sample ?? before;
    for (const name of ["texts", "tokens", "queued"]) lines[name].push(sample?.[name] ?? 0);
    for (const name of ["p50_ms", "p99_ms"]) lines[name].push(sample?.[name] ?? null);
    lines.server_bytes.push(before?.server_bytes ?? null);
    for (const { name, values } of models) values.push(before?.memory[name] ?? null);
  }
  const marks = kept
    .filter(({ at_s }) => at_s >= at[0])
    .flatMap(({ at_s, left }) => left.map(({ model, reason }) => ({ at_s, label: `${model}: ${REASONS[reason] ?? reason}` })));
  return { at, lines, models: seriesOf(models), marks };
}

/** A series for each model that has a look of its own, and one for all others together. */
function seriesOf(models) {
  const { own, others } = parted(models);
  const series = own.map(({ name, values }) => ({ label: name, look: lookOf(name), values }));
  if (!others.length) return series;
  const add = (one, other) => (one == null ? other : other == null ? one : one + other);
  const values = others.map((each) => each.values).reduce((sum, more) => sum.map((value, at) => add(value, more[at])));
  return [...series, { label: `${others.length} others`, look: OTHERS, values }];
}

// Map: a store's rows in two dimensions. What is alike is near; several models in one store are seen.

import { html, signal, useEffect, useMemo, useRef, useState } from "../lib/preact.js";
import { MapCanvas } from "../map-canvas.js";
import { Refine } from "../map-refine.js";
import { RowList, RowTexts, Tip } from "../map-rows.js";
import { ask, fetchFrom } from "../net.js";
import { Bar, Command, Empty, Failed, number } from "../parts.js";
import { Plane } from "../plane.js";
import { canDraw } from "../points.js";
import { Select } from "../select.js";
import { server } from "../state.js";
import { Wait, useReturn } from "../waiting.js";
import { lineOf } from "./jobs.js";

const AGAIN_MS = 500; // between two looks at a check
const HUES = 10; // of groups; of more, some have to be hidden to be told apart
const SURE = 0.99; // see `agreement` in MapState
const NOBODY = new Set();

export default function MapView({ rest: [asked] }) {
  const stores = server.value?.stores;
  const name = asked || stores?.[0];
  return html`
    <div class="row spread">
      <h1>Map</h1>
      ${stores?.length > 0 &&
      html`
        <label class="row"><span>Store</span>
          <${Select} class="fit" value=${name} onChange=${(event) => (location.hash = `#/map/${encodeURIComponent(event.target.value)}`)}>
            ${stores.map((each) => html`<option value=${each}>${each}</option>`)}
          <//>
        </label>
      `}
    </div>
    ${!stores && html`<${Wait} what="Asking which stores there are" />`}
    ${stores && !name && html`<${NoStores} />`}
    ${stores && name && html`<${StoreMap} key=${name} store=${name} />`}
  `;
}

function NoStores() {
  return html`
    <${Empty} title="No store is configured">
      <p>A map shows the vectors of a store. Name yours in the config file, and it appears here:</p>
      <${Command} line=${"stores:\n  notes: {path: ~/notes/memories.db}"} />
    <//>
  `;
}

/** Reads a store, and shows how far that is. */
function StoreMap({ store }) {
  const [turn, setTurn] = useState({ again: false });
  const [{ state, points }, setFound] = useState({}); // together: points have the groups that the state names
  const [problem, setProblem] = useState(null);
  const resumed = useRef(null); // the size of a sample that is refined once the store has been read anew

  useEffect(() => {
    const stopping = new AbortController();
    const follow = async () => {
      let { again } = turn;
      let points = null;
      for (;;) {
        const state = await ask("map", { body: { store, again }, signal: stopping.signal });
        again = false;
        if (state.state === "reading") {
          setFound({ state });
          continue;
        }
        if (!state.check || points?.map !== state.map) points = await pointsOf(store, stopping.signal);
        if (!belong(points, state)) continue; // the store was read or checked in between
        setFound({ state, points });
        if (!state.check) return;
        await new Promise((done) => setTimeout(done, AGAIN_MS));
      }
    };
    follow().catch((error) => error.name === "AbortError" || setProblem(error));
    return () => stopping.abort();
  }, [store, turn]);

  const read = (again) => {
    setProblem(null);
    if (again) setFound({});
    setTurn({ again });
  };
  useReturn(() => problem?.status === 0 && read(false));
  const check = async () => {
    try {
      await ask("map/check", { body: { store } });
      setTurn({ again: false });
    } catch (error) {
      setProblem(error);
    }
  };
  if (problem) return html`<${Failed} problem=${problem} again=${() => read(false)} />`;
  if (!points) return html`<${Reading} store=${store} progress=${state?.progress} />`;
  if (!state.points) {
    return html`<${Empty} title="${store} has no vectors to show"><p>It has ${number(state.rows)} rows with text and
      vector${state.unusable ? `; the vectors of ${number(state.unusable)} are zero, not finite, or of another size` : ""}.</p>
      <button type="button" onClick=${() => read(true)}>Read it again</button><//>`;
  }
  return html`<${Chart} key=${state.map} state=${state} points=${points} onCheck=${check} onRead=${read} resumed=${resumed} />`;
}

/** Whether these are the points of that map, each of a group that it names. */
function belong(points, state) {
  return points.map === state.map && points.groups.every((group) => group <= state.groups.length);
}

async function pointsOf(store, signal) {
  const path = `map/points?store=${encodeURIComponent(store)}`;
  const response = await fetchFrom(path, { accept: "application/octet-stream", signal });
  const raw = await response.arrayBuffer();
  const count = raw.byteLength / 10;
  return {
    map: response.headers.get("x-emberd-map"),
    kind: "components",
    xy: new Float32Array(raw, 0, 2 * count),
    rows: Uint32Array.from({ length: count }, (_, row) => row),
    groups: new Uint8Array(raw, 8 * count, count),
    checked: new Uint8Array(raw, 9 * count, count),
  };
}

const DOING = {
  starting: ["Starting a process that reads the store", "It reads its libraries from the disk first, and then opens the store; that takes long on a busy machine."],
  "reading rows": ["Reading the rows", "All vectors are read once. A slow disk makes that long, and so do programs that write to the store."],
  "computing principal components": ["Computing principal components", "The more rows and dimensions there are, the longer it takes."],
};

function Reading({ store, progress }) {
  const [what, why] = DOING[progress?.what] ?? [progress?.what ?? `Asking for the map of ${store}`];
  const far = progress?.total ? ` (${number(progress.done)} of ${number(progress.total)})` : "";
  return html`
    <div class="card">
      <${Wait} what=${`${what}${far}`} why=${why} />
      <${Bar} done=${progress?.done} total=${progress?.total} label=${what} />
    </div>
  `;
}

/** The part of a layout with all points that belongs to these rows, at other places. */
function sampleOf(all, { rows, xy }) {
  const of = (values) => Uint8Array.from(rows, (row) => values[row]);
  return { map: all.map, kind: `sample of ${rows.length}`, xy, rows, groups: of(all.groups), checked: of(all.checked) };
}

function Chart({ state, points, onCheck, onRead, resumed }) {
  const { store } = state;
  const [refined, setRefined] = useState(null); // {rows, xy}
  const [hidden, setHidden] = useState(NOBODY);
  const [list, setList] = useState(null);
  const [chosen, setChosen] = useState(null);
  const [tool, setTool] = useState("move");
  const [away, setAway] = useState(false); // the chosen row is not in the sample
  const plane = useMemo(() => new Plane(), []);
  const hovered = useMemo(() => signal(null), []);
  const texts = useMemo(() => new RowTexts(store, state.map, () => onRead(false)), [store, state.map]);
  const drawn = useMemo(canDraw, []);
  const layout = useMemo(() => (refined ? sampleOf(points, refined) : points), [points, refined]);
  const lit = useMemo(() => (list?.lights ? new Set(list.rows) : NOBODY), [list]);
  const hues = useMemo(
    () => ["--neutral", ...state.groups.map(({ model }, at) => (model ? `--hue-${at % HUES}` : "--bad"))],
    [state.groups],
  );

  const show = (row) => {
    const at = refined ? layout.rows.indexOf(row) : row;
    setChosen(row);
    setAway(at < 0);
    if (at < 0) return;
    plane.show(layout.xy[2 * at], layout.xy[2 * at + 1]);
    plane.redraw?.();
  };
  const choose = (row) => {
    setChosen(row);
    setAway(false);
    if (row !== null && !list?.rows.includes(row)) setList({ title: "The chosen row", rows: [row], lights: false });
  };
  const area = (rows, how) => {
    setList({ title: `${number(rows.length)} rows ${how}`, rows, lights: how === "enclosed" && rows.length > 0 });
    setTool("move");
  };
  const move = (act) => () => {
    act();
    plane.redraw?.();
  };
  return html`
    <p class="soft"><${Facts} state=${state} refined=${refined} /></p>
    <${Verdict} state=${state} />
    <div class="map">
      <div class="stack">
        ${drawn
          ? html`
              <div class="picture">
                <${MapCanvas} layout=${layout} hues=${hues} hidden=${hidden} lit=${lit} chosen=${chosen} tool=${tool}
                  plane=${plane} label=${`Map of ${store}: ${number(layout.rows.length)} points`}
                  onHover=${(row, at) => (hovered.value = row === null ? null : { row, at })}
                  onChoose=${choose} onArea=${area} />
                <${Tip} hovered=${hovered} texts=${texts} plane=${plane} />
              </div>
              <div class="row" role="group" aria-label="The picture">
                <button type="button" onClick=${move(() => plane.zoom(1.6))}>Closer</button>
                <button type="button" onClick=${move(() => plane.zoom(1 / 1.6))}>Farther</button>
                <button type="button" onClick=${move(() => plane.reset())}>Whole map</button>
                <button type="button" aria-pressed=${tool === "lasso"} onClick=${() => setTool(tool === "lasso" ? "move" : "lasso")}>Lasso</button>
                <button type="button" onClick=${() => plane.list()}>List what is in view</button>
              </div>
              <p id="map-keys" class="hint small">Drag to move; wheel, two fingers, + and − to come closer; arrow keys to move, 0 for
                the whole map, Enter to list what is in view. With Lasso, drag around points to list them.</p>
            `
          : html`
              <div class="notice warn">
                <p>This browser cannot draw the map: it offers no WebGL.</p>
                <p class="hint">Turn on hardware acceleration or WebGL in its settings, or use another one. The search and the
                  list work without.</p>
              </div>
            `}
      </div>
      <div class="stack">
        <${Legend} state=${state} layout=${layout} hues=${hues} hidden=${hidden} onHide=${setHidden} onCheck=${onCheck} />
        <${Search} store=${store} onFound=${(found, title) => {
          texts.learn(found.rows, found.map);
          const cosines = new Map(found.rows.map(({ row, cosine }) => [row, cosine]));
          setList({ title, rows: found.rows.map(({ row }) => row), cosines, lights: true });
        }} />
        ${away && html`<p class="notice">This row is not in the sample that the map shows.</p>`}
        ${list && html`<${RowList} list=${list} texts=${texts} chosen=${chosen} onShow=${show} onClear=${() => (setList(null), setChosen(null), setAway(false))} />`}
        ${drawn && html`<${Refine} store=${store} map=${state.map} points=${state.points} refined=${refined?.rows.length ?? 0}
          onLayout=${setRefined} resumed=${resumed} onOther=${(size) => ((resumed.current = size), onRead(false))} />`}
        <${Export} store=${store} onRead=${onRead} />
      </div>
    </div>
  `;
}

function Facts({ state, refined }) {
  const share = state.shares.reduce((sum, each) => sum + each, 0);
  const rows = state.sampled
    ? `${number(state.points)} of ${number(state.rows)} rows, an evenly spread sample,`
    : `${number(state.points)} rows`;
  const bad = state.unusable ? ` ${number(state.unusable)} rows are not shown: their vectors are zero, not finite, or of another size.` : "";
  const how = refined
    ? `UMAP of ${number(refined.rows.length)} of them, a sample.`
    : `Placed by two principal components, which have ${number(100 * share, 1)} % of the variance.`;
  return `${rows} of ${number(state.dimensions)} dimensions. ${how}${bad}`;
}

/** What a check has found, in a sentence. */
function Verdict({ state }) {
  const checked = state.groups.reduce((sum, each) => sum + each.checked, 0);
  if (!checked || state.check) return null;
  const shares = state.groups.map(
    ({ model, checked: of }) => `${model ?? "none of the models here"} (${number((100 * of) / checked, 1)} %)`,
  );
  if (state.groups.length === 1) {
    const [{ model }] = state.groups;
    return model
      ? html`<p class="notice">All of the ${number(checked)} rows that were embedded again were made by ${model}.</p>`
      : html`<div class="notice warn"><p>None of the models here made these rows: ${state.candidates.join(", ")}.</p>
          <p class="hint">Pull the model that made them, or migrate the store.</p></div>`;
  }
  return html`
    <div class="notice warn">
      <p><strong>The store is mixed.</strong> Of ${number(checked)} rows that were embedded again, these made them: ${shares.join(", ")}.
        A search finds only what the model that is asked for made.</p>
      <p class="hint">Move all of it to one model: <a href="#/stores/${encodeURIComponent(state.store)}">Stores</a>,
        or${" "}<code>${lineOf("migrate run", state.store)}</code>.</p>
    </div>
  `;
}

function Legend({ state, layout, hues, hidden, onHide, onCheck }) {
  const counts = new Array(hues.length).fill(0);
  for (const group of layout.groups) counts[group]++;
  const names = [state.groups.length ? "not checked" : "not known yet", ...state.groups.map(({ model }) => model ?? "none of the models here")];
  const toggle = (group) => {
    const now = new Set(hidden);
    if (!now.delete(group)) now.add(group);
    onHide(now);
  };
  const spread = state.agreement !== null && state.agreement >= SURE;
  return html`
    <section class="card" aria-labelledby="map-models">
      <h2 id="map-models">Made by</h2>
      ${state.stamp && html`<p class="small">By the stamp that a migration left in the store: ${state.stamp}.</p>`}
      <ul class="groups">
        ${names.map(
          (name, group) =>
            (counts[group] > 0 || group > 0) &&
            html`
              <li key=${group}>
                <button type="button" aria-pressed=${!hidden.has(group)} onClick=${() => toggle(group)}>
                  <span class="dot" style=${{ color: `var(${hues[group]})` }}></span>
                  <span class="wrap">${name}</span>
                  <span class="num soft">${number(counts[group])}</span>
                </button>
              </li>
            `,
        )}
      </ul>
      ${state.groups.length > 0 &&
      html`<p class="soft small">${spread
        ? `Large points were embedded again. Each of the others has the colour of the nearest of them, which is right for ${number(100 * state.agreement, 1)} % of these.`
        : "Large points were embedded again. Those near them are not always of the same model, so nothing is said of the others."}</p>`}
      ${state.check_error && html`<${Failed} problem=${state.check_error} />`}
      ${state.check
        ? html`
            <${Wait} what=${state.check.model
              ? `${state.check.model} embeds ${number(state.checkable)} rows (model ${state.check.done + 1} of ${state.check.total})`
              : "Asking which models there are"} why="A model that is not loaded is started first. The map can be used meanwhile." />
            <${Bar} done=${state.check.done} total=${state.check.total} label="Models that have embedded the rows" />
          `
        : html`
            <p class="soft small">${state.candidates.length
              ? `A check embeds ${number(state.checkable)} rows again with every model here that has vectors of this size: ${state.candidates.join(", ")}. A model that was not loaded is unloaded afterwards.`
              : `No model on this machine has vectors of ${state.dimensions} dimensions, so nobody can tell who made these.`}</p>
            ${state.candidates.length > 0 &&
            html`<div class="row"><button type="button" onClick=${onCheck}>${state.groups.length ? "Check again" : "Find out which model made them"}</button></div>`}
          `}
    </section>
  `;
}

function Search({ store, onFound }) {
  const [text, setText] = useState("");
  const [doing, setDoing] = useState(false);
  const [problem, setProblem] = useState(null);
  const [model, setModel] = useState(null);
  const search = async (event) => {
    event.preventDefault();
    setDoing(true);
    setProblem(null);
    try {
      const found = await ask("map/search", { body: { store, text } });
      setModel(found.model);
      onFound(found, `Nearest to “${text}”`);
    } catch (error) {
      setProblem(error);
    }
    setDoing(false);
  };
  return html`
    <section class="card" aria-labelledby="map-search">
      <h2 id="map-search">Search</h2>
      <form class="stack" onSubmit=${search}>
        <label class="field">A text, whose neighbours light up
          <input value=${text} required dir="auto" onInput=${(event) => setText(event.target.value)} /></label>
        <div class="row"><button type="submit" disabled=${doing}>Search</button></div>
      </form>
      ${doing && html`<${Wait} what="Embedding the text" why="If the model is not loaded, it is started first; Now shows how far that is." />`}
      ${problem && html`<${Failed} problem=${problem} />`}
      ${model && !problem && !doing && html`<p class="soft small">Embedded as a query by ${model}.</p>`}
    </section>
  `;
}

function Export({ store, onRead }) {
  return html`
    <section class="card" aria-labelledby="map-export">
      <h2 id="map-export">Take it along</h2>
      <p class="soft small">Texts, vectors and places as Parquet, for Embedding Atlas and others:</p>
      <${Command} line=${lineOf("map", store, "--out", "map.parquet")} />
      <div class="row"><button type="button" onClick=${() => onRead(true)}>Read the store again</button></div>
    </section>
  `;
}

// Stores: whose vectors each configured store holds, and moving one to another model and back.

import { html, useState } from "../lib/preact.js";
import { HUES, areaOf, plain } from "../looks.js";
import { ask } from "../net.js";
import { Command, Empty, Failed, number, seconds, size } from "../parts.js";
import { Select } from "../select.js";
import { jobs, models, server, warnings } from "../state.js";
import { Wait, useLoaded } from "../waiting.js";
import { NoResult, Running, Start, When, isRunning, lastJob, lineOf } from "./jobs.js";

const SNIPPET = `stores:
  notes:
    path: ~/notes.db              # a database of sqlite-vec, or cmem's folder
    options: {text: notes.body}   # where its texts are, if they are elsewhere
`;
const FOUND = {
  "re-embed": ["bad", "does not fit"],
  compatible: ["ready", "fits"],
  mixed: ["bad", "several models"],
  unknown: ["busy", "unknown"],
};

export default function Stores() {
  const ended = jobs.value.filter((job) => !isRunning(job)).length;
  const { data, problem, again } = useLoaded((signal) => ask("stores", { signal }), [ended, server.value, warnings.value]);
  return html`
    <h1>Stores</h1>
    <p class="soft">Whose vectors each store under <code>stores:</code> in the config file holds, and whether they fit the model that its users
      get. Nothing is changed before you have seen what it takes and said yes.</p>
    ${problem && html`<${Failed} problem=${problem} again=${again} />`}
    ${!data && !problem && html`<${Wait} what="Asking the server which stores there are" />`}
    ${data?.stores.length === 0 && html`<${Nothing} />`}
    ${data?.stores.map((store) => html`<${Store} key=${store.name} store=${store} />`)}
  `;
}

function Nothing() {
  return html`
    <${Empty} title="No store is configured">
      <p>Add one to ${server.value?.config ?? "the config file"}; a running server reads the file at once:</p>
      <${Command} line=${SNIPPET} />
      <p>To look at a database without that:</p>
      <${Command} line=${lineOf("migrate check", "notes.db")} />
    <//>
  `;
}

function Store({ store }) {
  const { name, path, kind, model, follows_default: follows, holds, chunk } = store;
  const [look, word] = stateOf(store);
  return html`
    <section class="card" aria-label=${name}>
      <div class="row spread">
        <h2 class="wrap">${name}</h2>
        <span class=${`state ${look}`}>${word}</span>
      </div>
      <dl>
        <dt>File</dt><dd class="mono">${path}</dd>
        ${kind && html`<dt>Kind</dt><dd>${kind}</dd>`}
        <dt>Users get</dt><dd>${model}${follows && ", the default"}</dd>
        <dt>Holds</dt><dd>${holdsOf(holds)}</dd>
        ${chunk && html`<dt>Chunks</dt><dd>its rows are parts of longer texts${chunk.size ? `, of up to ${number(chunk.size)} tokens` : ""}</dd>`}
      </dl>
      ${store.is_there ? html`<${Work} store=${store} />` : html`<${Missing} store=${store} />`}
    </section>
  `;
}

function stateOf({ is_there: there, holds, fits }) {
  if (!there) return ["bad", "not there"];
  if (!holds) return ["", "not checked yet"];
  if (!holds.model) return FOUND.mixed;
  return fits ? FOUND.compatible : FOUND["re-embed"];
}

function holdsOf(holds) {
  if (!holds) return html`<span class="soft">not known: check it</span>`;
  if (!holds.model) return "vectors of more than one model";
  const small = holds.dtype === "float" ? "" : `, as ${holds.dtype}`;
  return html`vectors of ${holds.model}${small}, space <span class="mono">${holds.fingerprint}</span>`;
}

function Missing({ store: { name, path } }) {
  return html`
    <div class="notice bad">
      <p>There is nothing at ${path}.</p>
      <p class="hint">Put the file back, or correct stores.${name}.path in ${server.value?.config ?? "the config file"}.</p>
    </div>
  `;
}

/** What can be done with a store that is there; one command at a time. */
function Work({ store }) {
  const { name, backups } = store;
  const check = lastJob(name, "check");
  const move = lastJob(name, "plan", "migrate", "undo");
  const busy = isRunning(check) || isRunning(move);
  const changed = move?.state === "done" && move.kind !== "plan" && move.ended_s > check?.ended_s;
  return html`
    <div class="jobs">
      <${Start} label="Check" disabled=${busy} body=${{ kind: "check", store: name }} />
      <${Plan} store=${store} last=${move} busy=${busy} />
      ${backups > 0 && html`
        <${Start} label="Undo" disabled=${busy} body=${{ kind: "undo", store: name }}
          confirm=${{
            title: `Restore ${name} as it was?`,
            line: lineOf("migrate undo", name, "--yes"),
            text: "It takes back the last migration, from its backup. The store as it is now is copied first.",
          }} />
      `}
      <${Running} job=${check} />
      ${check?.state === "done" && !changed && html`<${Report} job=${check} />`}
      <${NoResult} job=${check} />
      ${check?.error?.hint?.includes("--option") && html`<${Options} name=${name} />`}
      <${Running} job=${move} />
      <${NoResult} job=${move} />
      ${!busy && move?.state !== "done" && html`<${Continue} store=${store} last=${move} />`}
      ${move?.state === "done" && html`<${Outcome} store=${store} job=${move} busy=${busy} />`}
    </div>
  `;
}

function Options({ name }) {
  return html`
    <p class="outcome">For a store in the config file, options stand below it, such as
      <code>options: {text: notes.body}</code> under <code>stores.${name}</code>.</p>
  `;
}

function Plan({ store: { name, model, fits }, last, busy }) {
  const able = models.value.filter(({ kind, pulled }) => kind === "embed" && pulled).map((row) => row.name);
  const [to, setTo] = useState(null);
  const others = able.filter((each) => each !== model);
  const chosen = to ?? last?.to ?? (fits ? others[0] : model) ?? model;
  const known = able.includes(chosen) ? able : [chosen, ...able];
  return html`
    <span class="row">
      <label for=${`to-${name}`}>Move to</label>
      <${Select} id=${`to-${name}`} class="short" value=${chosen} onChange=${(event) => setTo(event.target.value)}>
        ${known.map((each) => html`<option key=${each} value=${each}>${each}</option>`)}
      <//>
      <${Start} label="Plan" disabled=${busy} body=${{ kind: "plan", store: name, to: chosen }} />
    </span>
  `;
}

function Migrate({ name, to, label }) {
  return html`
    <${Start} primary label=${label} body=${{ kind: "migrate", store: name, to }}
      confirm=${{
        title: `Embed ${name} again with ${to}?`,
        line: lineOf("migrate run", name, "--to", to, "--yes"),
        text: "The store keeps all of its old vectors until the new ones replace them, all at once. The old ones are kept as a backup. It can be stopped at any moment, and goes on when this page is closed.",
      }} />
  `;
}

/** What to do after a migration that did not come to its end, in this run of the server or before. */
function Continue({ store: { name, staged }, last }) {
  if (last?.kind === "migrate") {
    const label = staged || last.state === "stopped" ? "Continue" : "Try again";
    return html`<div class="outcome"><${Migrate} name=${name} to=${last.to} label=${label} /></div>`;
  }
  if (!staged) return null;
  return html`
    <div class="notice warn outcome">
      <p>A migration of this store was begun elsewhere, and has not ended. The rows that it embedded are kept beside the store.</p>
      <p class="hint">Plan it with the same model to continue; with another, it begins anew.</p>
    </div>
  `;
}

function Outcome({ store, job, busy }) {
  const { kind, result } = job;
  if (kind === "undo") return html`<${Restored} job=${job} />`;
  if (result.status === "there") {
    return html`<p class="outcome" role="status">It is already in the space of ${result.model}: nothing to do. <${When} job=${job} /></p>`;
  }
  if (kind === "plan") return html`<${Planned} store=${store} job=${job} busy=${busy} />`;
  return html`<${Moved} store=${store} job=${job} />`;
}

function Planned({ store, job, busy }) {
  const { model, rows, plan, dimensions, dimensions_before: before, sampled, truncated, max_tokens: most, staged } = job.result;
  return html`
    <div class="stack outcome" role="status">
      <h3>What moving it to ${model} takes</h3>
      <dl class="figures">
        <dt>Rows</dt><dd class="num">${number(rows)}${staged ? `, of which ${number(staged)} are ready from a run that was stopped` : ""}</dd>
        <dt>Time</dt><dd class="num">${duration(plan.minutes)}</dd>
        <dt>Disk</dt><dd class="num">${size(plan.disk_bytes)}, ${size(plan.backup_bytes)} of it for the backup</dd>
        <dt>Writers wait</dt><dd class="num">about ${seconds(plan.locked_s)} at the end</dd>
        <dt>Dimensions</dt><dd class="num">${before === dimensions ? dimensions : `${before} → ${dimensions}`}</dd>
      </dl>
      ${truncated > 0 && html`
        <p>${number(truncated)} of ${number(sampled)} rows that were tried have more than ${number(most)} tokens. The model would cut them.</p>
      `}
      <div class="row">
        ${!busy && html`<${Migrate} name=${store.name} to=${job.to ?? model} label="Migrate" />`}
        <${When} job=${job} />
      </div>
    </div>
  `;
}

function Moved({ store, job }) {
  const { model, rows, embedded, staged, lowest_cosine: lowest, locked_s: locked, strays, default_fits: fits } = job.result;
  const own = store.follows_default;
  return html`
    <div class="notice stretch outcome" role="status">
      <p><strong>Moved to ${model}.</strong> ${number(rows)} rows, ${number(embedded)} of them embedded now${staged ? ` and ${number(staged)} before it was stopped` : ""};
        writers waited ${seconds(locked)}. ${lowest == null ? "No row was embedded again to compare." : `Rows embedded again agree: lowest cosine ${lowest.toFixed(4)}.`}${" "}
        <${When} job=${job} /></p>
      ${strays > 0 && html`<p>${number(strays)} rows have been written since, with another model's vectors: once its users get ${model}, migrate it again.</p>`}
      ${!fits && html`
        <p>Its users still get ${store.model}. Queries must be in the same space as the store:${own ? " this changes the default." : ""}</p>
        ${own
          ? html`<${Command} line=${lineOf("use", model)} />`
          : html`<p class="hint">Set stores.${store.name}.model to ${model} in ${server.value?.config ?? "the config file"}.</p>`}
      `}
      <p class="hint">Restart the programs that use the store, so that they read its new settings.</p>
    </div>
  `;
}

function Restored({ job }) {
  const { from, copy, changed } = job.result;
  return html`
    <div class="notice stretch outcome" role="status">
      <p><strong>Restored</strong> as it was before it was moved to ${from}. <${When} job=${job} /></p>
      ${copy && html`<p>As it was until now${changed ? ", with what was written since the migration" : ""}: <span class="mono">${copy}</span></p>`}
      <p class="hint">Restart the programs that use the store.</p>
    </div>
  `;
}

const duration = (minutes) => (minutes * 60 < 1 ? "less than a second" : `about ${seconds(minutes * 60)}`);

/** What a check found: whose rows these are, and what is wrong with some. */
function Report({ job }) {
  const { verdict, rows, sampled, judged_by: by, made_by: made, model, health, work } = job.result;
  const counts = Object.entries(made).map(([name, keys]) => [name, keys.length]);
  const shares = counts.length ? counts : model ? [[model, sampled || rows]] : [];
  const whole = shares.reduce((sum, [, count]) => sum + count, 0) || 1;
  return html`
    <div class="stack outcome" role="status">
      <h3>What the check found</h3>
      <p>${sentenceOf(job.result)} <${When} job=${job} /></p>
      ${shares.length > 0 && html`
        <table class="shares">
          <caption class="soft small">${by === "stamp" ? `By its stamp; no row was embedded again. ${number(rows)} rows.` : `${number(sampled)} of ${number(rows)} rows, evenly spread, were embedded again.`}</caption>
          <thead><tr><th scope="col">Made by</th><th scope="col" class="num">Rows</th><th scope="col" class="num">Share</th><td></td></tr></thead>
          <tbody>
            ${shares.map(([name, count], place) => html`
              <tr key=${name}>
                <td class="wrap">${name || "no model here"}</td>
                <td class="num">${count === whole || sampled === rows ? "" : "about "}${number(Math.round((count / whole) * rows))}</td>
                <td class="num">${number((count / whole) * 100, 1)} %</td>
                <td class="bar"><span ...${areaOf(plain(place % HUES), { width: `${(count / whole) * 100}%` })}></span></td>
              </tr>
            `)}
          </tbody>
        </table>
      `}
      ${healthOf(health).map((line) => html`<p key=${line}>${line}</p>`)}
      ${work && verdict !== "compatible" && html`
        <p>Embedding it again with ${work.model} takes ${duration(work.minutes)} and ${number(work.megabytes)} MB: plan it to see more.</p>
      `}
    </div>
  `;
}

function sentenceOf({ verdict, model, default: users, why, rows, candidates }) {
  if (!rows) return "The store is empty.";
  const near = candidates.filter(({ mean_cosine: cosine }) => cosine >= 0.9).map(({ model: name, mean_cosine: cosine }) => `${name} (cosine ${cosine.toFixed(3)})`);
  return {
    compatible: `Its vectors were made by ${model}, which fits what its users get.`,
    "re-embed": `Its vectors were made by ${model}. Its users get ${users}, another space${why ? `: ${why}` : ""}.`,
    mixed: "Its vectors were made by several models. Searches mix what does not compare.",
    unknown: `No model on this machine made these vectors.${near.length ? ` Near to them: ${near.join(", ")}.` : ""}`,
  }[verdict];
}

function healthOf(health) {
  return [
    [health.without_vector, "texts have no vector."],
    [health.without_text, "vectors have no text."],
    [health.empty_text, "texts are empty."],
    [health.bad_vector, "vectors are zero or not finite."],
    [health.not_unit, "vectors do not have length 1."],
    [health.duplicates, "rows repeat another row's text."],
  ].filter(([count]) => count).map(([count, what]) => `${number(count)} ${what}`);
}

// Trust: what each model that was used here is made of, whether that has changed, and what to do then.

import { html, useState } from "../lib/preact.js";
import { ask } from "../net.js";
import { Command, Copy, Empty, Failed, number, size } from "../parts.js";
import { jobs, models, warnings } from "../state.js";
import { Wait, useLoaded } from "../waiting.js";
import { ModelJobs, isRunning, lineOf } from "./jobs.js";

const OPEN = 3; // so many models are shown whole without being asked for

export default function Trust({ rest: [wanted] }) {
  const ended = jobs.value.filter((job) => !isRunning(job)).length;
  const known = models.value.map(({ name, fingerprint }) => `${name} ${fingerprint}`).join();
  const { data, problem, again } = useLoaded((signal) => ask("trust", { signal }), [ended, known, warnings.value]);
  return html`
    <h1>Trust</h1>
    <p class="soft">What each model that was used on this machine is made of. Two vectors compare only if they are of one space, which a
      fingerprint names: of the model's files, its pooling, its precision and its options.</p>
    ${problem && html`<${Failed} problem=${problem} again=${again} />`}
    ${!data && !problem && html`<${Wait} what="Asking the server what it knows of the models" />`}
    ${data?.models.length === 0 && html`<${Nothing} />`}
    ${data?.models.toSorted((one, other) => !!other.changed - !!one.changed).map((model) => html`
      <${Model} key=${model.name} model=${model}
        open=${model.changed || model.name === wanted || data.models.length <= OPEN} />
    `)}
  `;
}

function Nothing() {
  return html`
    <${Empty} title="No model has been used here yet">
      <p>Once one is loaded or pulled, its files and their hashes are remembered. This pulls the default model:</p>
      <${Command} line=${lineOf("pull", models.value[0]?.name ?? "minilm")} />
    <//>
  `;
}

function Model({ model, open }) {
  const { name, fingerprint, changed, backend } = model;
  const [look, word] = changed ? ["bad", "changed"] : backend ? ["ready", "as accepted"] : ["", "not loaded yet"];
  return html`
    <details class="card trusted" open=${open} id=${`trust-${name}`}>
      <summary>
        <h2 class="wrap">${name}</h2>
        <span class="mono soft wrap">${fingerprint ?? "no fingerprint yet"}</span>
        <span class=${`state ${look}`}>${word}</span>
      </summary>
      <div class="stack">
        ${changed && html`<${Changed} name=${name} now=${fingerprint} changed=${changed} />`}
        <${Facts} model=${model} />
        <${Files} model=${model} />
        <${ModelJobs} model=${name} />
      </div>
    </details>
  `;
}

function Changed({ name, now, changed }) {
  return html`
    <div class="notice warn stretch">
      <p>Its vectors are not those that were accepted: ${changed.reasons}. Its space is now <span class="mono">${now}</span>; it was${" "}
        <span class="mono">${changed.fingerprint}</span>.</p>
      <p class="hint">${changed.advice}</p>
      <p>This page does not accept it for you. Once what is stored has been embedded again, this does:</p>
      <${Command} line=${lineOf("verify --accept", name)} />
    </div>
  `;
}

function Facts({ model }) {
  const { kind, source, folder, dimensions, pooling, precision, backend, compute, engine, options } = model;
  const prompts = Object.entries(options.prompts ?? {}).filter(([, prompt]) => prompt);
  const facts = [
    ["Source", source],
    ["Folder", html`<span class="mono">${folder}</span>`],
    ["Vectors", kind === "rerank" ? "none: it scores texts for a query" : `${number(dimensions)} dimensions, pooling ${pooling}, weights ${precision}`],
    ["Computed by", backend && `${backend} in ${compute} (${engine})`],
    ["Texts are cut", options.max_tokens && `after ${number(options.max_tokens)} tokens`],
    ["Length of a vector", options.normalize == null ? null : options.normalize ? "1: normalized" : "as the model gives it"],
    ...prompts.map(([role, prompt]) => [`Prompt of a ${role}`, html`<q class="mono">${prompt}</q>`]),
    ["Case", options.lower_case && "texts are lower-cased"],
    ["Normalizer", options.normalizer && html`<span class="mono">${options.normalizer}</span>`],
  ];
  return html`
    <dl>
      ${facts.filter(([, value]) => value).map(([what, value]) => html`<dt key=${what}>${what}</dt><dd>${value}</dd>`)}
    </dl>
  `;
}

function Files({ model: { name, files } }) {
  const [open, setOpen] = useState(false);
  const bytes = files.reduce((sum, file) => sum + file.bytes, 0);
  return html`
    <details onToggle=${(event) => setOpen(event.target.open)}>
      <summary>${files.length} ${files.length === 1 ? "file" : "files"}, ${size(bytes)}, with their hashes</summary>
      ${open &&
      html`
        <div class="scroll" tabindex="0" role="region" aria-label=${`Files of ${name}`}>
          <table>
            <thead><tr><th scope="col">File</th><th scope="col" class="num">Size</th><th scope="col">SHA-256</th></tr></thead>
            <tbody>
              ${files.map(
                (file) => html`
                  <tr key=${file.name}>
                    <td class="wrap">${file.name}</td>
                    <td class="num">${size(file.bytes)}</td>
                    <td><span class="hash"><code>${file.sha256}</code><${Copy} text=${file.sha256} what=${`the hash of ${file.name}`} /></span></td>
                  </tr>
                `,
              )}
            </tbody>
          </table>
        </div>
      `}
    </details>
  `;
}

// Texts compared with each other: cosines of all pairs as a heat map, by one model or by two beside each other.

import { html, signal, useMemo } from "../../lib/preact.js";
import { ask } from "../../net.js";
import { modelNamed } from "../../state.js";
import { Failed, number } from "../../parts.js";
import { Cost, ModelField, PromptOf, Waiting, embed, offered, useAsked } from "./asking.js";
import { cosinesOf, differences } from "./cosines.js";
import { HeatMap } from "./heat.js";
import { Tokens } from "./tokens.js";

const MOST = 50;
const SHOWN = 5; // pairs that two models see most differently
const EXAMPLE = `The kettle is on.
Tea will be ready soon.
The ferry leaves at seven.
When does the boat depart?
Tickets are sold on board.`;

// Kept while the tab is open, so that another view can be looked at in between; never stored.
const given = signal({ text: EXAMPLE, by: "lines", role: "", model: "", other: "" });

export function textsOf(text, by) {
  const parts = by === "lines" ? text.split("\n") : text.split(/\n\s*\n/);
  return parts.map((each) => each.trim()).filter(Boolean);
}

export default function Compare() {
  const { text, by, role, other } = given.value;
  const model = given.value.model || offered("embed")[0].name;
  const set = (change) => (given.value = { ...given.value, ...change });
  const texts = textsOf(text, by);
  const names = [model, ...(other && other !== model ? [other] : [])];
  const { asking, found, problem, start, stop } = useAsked();

  const shown = useMemo(() => found && html`<${Found} ...${found} />`, [found]); // typing draws no cells again
  const submit = (event) => {
    event?.preventDefault();
    const asked = texts.slice(0, MOST);
    start(names, async (signal) => ({
      texts: asked,
      answers: await Promise.all(names.map((name) => seenBy(name, asked, role, signal))),
    }));
  };
  return html`
    <form class="card asked" onSubmit=${submit}>
      <div class="field">
        <label for="texts">Texts</label>
        <textarea id="texts" dir="auto" value=${text} onInput=${(event) => set({ text: event.target.value })}
          aria-describedby="how-many"></textarea>
        <div class="row small">
          <${Choice} name="by" value="lines" now=${by} onChange=${(by) => set({ by })}>one on each line<//>
          <${Choice} name="by" value="blocks" now=${by} onChange=${(by) => set({ by })}>with empty lines between them<//>
        </div>
        <p id="how-many" class="small soft">${howMany(texts.length)}</p>
      </div>
      <div class="stack">
        <${ModelField} id="model" label="Model" value=${model} onChange=${(model) => set({ model })} />
        <${ModelField} id="other" label="Beside it" value=${other} none="no other model" onChange=${(other) => set({ other })} />
        <${RoleField} value=${role} onChange=${(role) => set({ role })} />
        ${names.map((name) => html`<${PromptOf} key=${name} model=${name} role=${role} />`)}
        <div><button class="primary" type="submit" disabled=${texts.length < 2}>Compare</button></div>
      </div>
    </form>
    ${asking && html`<${Waiting} names=${asking} onStop=${stop} />`}
    ${problem && html`<${Failed} problem=${problem} again=${submit} />`}
    ${shown}
  `;
}

function howMany(count) {
  if (count > MOST) return `${number(count)} texts; the first ${MOST} are compared.`;
  if (count < 2) return "Two texts at least: there has to be a pair.";
  return `${count} texts, ${number((count * (count - 1)) / 2)} ${count === 2 ? "pair" : "pairs"}.`;
}

function Choice({ name, value, now, onChange, children }) {
  return html`
    <label class="choice">
      <input type="radio" name=${name} value=${value} checked=${value === now} onChange=${() => onChange(value)} />${children}
    </label>
  `;
}

function RoleField({ value, onChange }) {
  return html`
    <div class="field">
      <label for="role">Role of the texts</label>
      <select id="role" value=${value} onChange=${(event) => onChange(event.target.value)}>
        <option value="">none</option>
        <option value="query">query: a question</option>
        <option value="document">document: a text to be found</option>
      </select>
    </div>
  `;
}

/** What one model makes of the texts: its cosines, and their tokens with the prompt before them. */
async function seenBy(model, texts, role, signal) {
  const answer = await embed(model, texts, role, signal);
  const tokens = await ask("tokenize", { body: { model, inputs: texts, prompt_name: role || null }, signal });
  const row = modelNamed(model);
  return { ...answer, cosines: cosinesOf(answer.vectors), prompt: row?.prompts?.[role] ?? "", tokens };
}

function Found({ texts, answers }) {
  const pair = useMemo(() => signal(null), [answers]);
  return html`
    <div class=${answers.length > 1 ? "beside" : "stack"}>
      ${answers.map(
        (answer) => html`
          <section class="card" key=${answer.model} aria-label=${`By ${answer.model}`}>
            <h2 class="wrap">${answer.model}</h2>
            <${Cost} answer=${answer} />
            <${HeatMap} model=${answer.model} cosines=${answer.cosines} pair=${pair} />
          </section>
        `,
      )}
    </div>
    <${Pair} texts=${texts} answers=${answers} pair=${pair} />
    ${answers.length > 1 && html`<${Differences} texts=${texts} answers=${answers} pair=${pair} />`}
    <div class=${answers.length > 1 ? "beside" : "stack"}>
      ${answers.map(
        (answer) => html`
          <section class="card" key=${answer.model} aria-label=${`Tokens of ${answer.model}`}>
            <h2 class="wrap">${answers.length > 1 ? `Tokens of ${answer.model}` : "Tokens"}</h2>
            <${Tokens} texts=${texts} prompt=${answer.prompt} tokens=${answer.tokens} most=${modelNamed(answer.model)?.max_tokens} />
          </section>
        `,
      )}
    </div>
  `;
}

function Pair({ texts, answers, pair: looked }) {
  const pair = looked.value;
  return html`
    <section class="card pair" aria-label="The pair that is looked at" aria-live="polite">
      ${pair
        ? html`
            <p class="num">
              ${answers.map(
                ({ model, cosines }, index) =>
                  html`${index > 0 && ", "}${answers.length > 1 && `${model} `}<strong>${cosines[pair[0]][pair[1]].toFixed(4)}</strong>`,
              )}
            </p>
            <ol class="two">
              ${pair.map((each, index) => html`<li key=${index} value=${each + 1}><p dir="auto" class="excerpt">${texts[each]}</p></li>`)}
            </ol>
          `
        : html`<p class="soft">Point at a cell, or choose one with the arrow keys, to read its two texts.</p>`}
    </section>
  `;
}

function Differences({ texts, answers, pair: looked }) {
  const [one, other] = answers;
  const { rows, count, correlation } = differences(one.cosines, other.cosines);
  if (!rows.length) {
    return html`<p class="notice">Both models put the ${number(count)} ${count === 1 ? "pair" : "pairs"} in the same order.</p>`;
  }
  const told = (answer, at, [a, b]) => html`<td class="num">${number(at, 1)}</td><td class="num">${answer.cosines[a][b].toFixed(3)}</td>`;
  return html`
    <section class="card">
      <h2>Where they differ most</h2>
      <p class="small soft">
        Cosines of two models do not compare, but the order of the pairs does. The places of these are furthest apart, of ${number(count)}.
        ${correlation !== null && html` Over all of them the orders correlate by <span class="num">${correlation.toFixed(2)}</span> (Spearman).`}
      </p>
      <div class="scroll" tabindex="0" role="group" aria-label="Pairs that the models see most differently">
        <table>
          <thead>
            <tr>
              <th rowspan="2">Pair</th>
              ${answers.map((each) => html`<th key=${each.model} colspan="2" scope="colgroup" class="num">${each.model}</th>`)}
            </tr>
            <tr>${answers.map((each) => html`<th key=${`${each.model} at`} class="num">place</th><th key=${each.model} class="num">cosine</th>`)}</tr>
          </thead>
          <tbody>
            ${rows.slice(0, SHOWN).map(
              ({ pair, places }) => html`
                <tr key=${pair.join()}>
                  <td>
                    <button type="button" class="quiet pick" onClick=${() => (looked.value = pair)}>
                      ${pair.map((each) => html`<span class="excerpt" dir="auto" key=${each}>${each + 1}. ${texts[each]}</span>`)}
                    </button>
                  </td>
                  ${told(one, places[0], pair)}${told(other, places[1], pair)}
                </tr>
              `,
            )}
          </tbody>
        </table>
      </div>
    </section>
  `;
}

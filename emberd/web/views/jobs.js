// Jobs: what a button starts as a command on the server. A button, how far it is, and what came of it.
//
//   <ModelJobs model=${name} />      or, inside of <div class="jobs">:  <Pull model=${name} /> <Verify model=${name} />
//
// The buttons stand side by side, and what comes of them below. Whatever writes asks first. A job goes on when the page is closed, and shows again when it is opened.

import { html, useState } from "../lib/preact.js";
import { ask } from "../net.js";
import { Bar, Confirm, Failed, clock, number, seconds, size } from "../parts.js";
import { jobs, server, showStarted } from "../state.js";
import { Wait } from "../waiting.js";

const VERDICTS = {
  ok: ["ready", "ok"], note: ["", "note"], skipped: ["", "skipped"], warning: ["busy", "warning"], failed: ["bad", "failed"],
};

/** The last job of a kind about a model or store, if there was one; `kinds` may be several. */
export function lastJob(subject, ...kinds) {
  return jobs.value.find((job) => job.subject === subject && kinds.includes(job.kind));
}

export const isRunning = (job) => job?.state === "running";

/** The line that somebody would type in a terminal: a command about a model or store, with options. */
export function lineOf(command, subject, ...options) {
  const words = subject.startsWith("-") ? [...options, "--", subject] : [subject, ...options];
  const quoted = words.map((word) => (/^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", `'"'"'`)}'`));
  return [server.value?.command ?? "emberd", command, ...quoted].join(" ");
}

/** Start and stop jobs: {start, stop, sending, problem}. */
function useJobs() {
  const [sending, setSending] = useState(false);
  const [problem, setProblem] = useState(null);
  const send = async (path, body, then = () => {}) => {
    setSending(true);
    setProblem(null);
    await ask(path, { body }).then(then, setProblem);
    setSending(false);
  };
  // A job is shown before its button can be pressed again.
  return { start: (body) => send("jobs", body, showStarted), stop: (job) => send("jobs/stop", { id: job.id }), sending, problem };
}

/** A button that starts a job; with `confirm` ({title, line, text}) it asks first. */
export function Start({ body, label, confirm, disabled, primary }) {
  const [asking, setAsking] = useState(false);
  const { start, sending, problem } = useJobs();
  const go = () => {
    setAsking(false);
    return start(body);
  };
  return html`
    <button type="button" class=${primary ? "primary" : ""} disabled=${disabled || sending} onClick=${confirm ? () => setAsking(true) : go}>${label}</button>
    ${sending && html`<div class="outcome"><${Wait} what="Asking for the command to start" /></div>`}
    ${problem && html`<div class="outcome"><${Failed} problem=${problem} /></div>`}
    ${asking &&
    html`
      <${Confirm} title=${confirm.title} command=${confirm.line} action=${label} onDone=${go} onCancel=${() => setAsking(false)}>
        ${confirm.text && html`<p>${confirm.text}</p>`}
      <//>
    `}
  `;
}

/** How far a job is, with a button that stops it; nothing once it has ended. */
export function Running({ job }) {
  const { stop, sending, problem } = useJobs();
  const [asked, setAsked] = useState(null); // the job that was asked to end
  if (!isRunning(job)) return null;
  return html`
    <div class="stack outcome">
      <${Wait} what=${stepOf(job)} why=${job.progress ? GOES_ON : STARTING} />
      <${Bar} done=${job.progress?.done} total=${job.progress?.total} label=${stepOf(job)} />
      <div class="row spread">
        <span class="soft small num">${amountOf(job.progress)}</span>
        <button type="button" onClick=${() => (setAsked(job.id), stop(job))}>${asked === job.id ? "Stop now" : "Stop"}</button>
      </div>
      ${sending && html`<${Wait} what="Asking it to stop" />`}
      ${problem && asked === job.id && html`<${Failed} problem=${problem} />`}
    </div>
  `;
}

const STARTING = "The command is a process of its own, which reads its libraries from the disk first; that takes long on a busy machine. Stop ends it.";
const GOES_ON = "It goes on when this page is closed.";

function stepOf({ progress, kind }) {
  if (!progress) return "Starting the command";
  if (kind === "migrate" && progress.total && progress.done >= progress.total) {
    return "Putting the new vectors in place, all at once, and checking them";
  }
  return `${progress.what[0].toUpperCase()}${progress.what.slice(1)}`;
}

function amountOf(progress) {
  if (!progress?.total) return "";
  const shown = progress.unit === "bytes" ? size : number;
  return `${shown(progress.done)} of ${shown(progress.total)}${progress.unit === "bytes" ? "" : ` ${progress.unit}`}`;
}

/** Why a job has no result. */
export function NoResult({ job }) {
  if (!job?.error || isRunning(job)) return null;
  return html`
    <div class=${`notice outcome ${job.state === "stopped" ? "warn" : "bad"}`} role="status">
      <p>${job.error.message}</p>
      ${job.error.hint && html`<p class="hint">${job.error.hint}</p>`}
    </div>
  `;
}

/** When a job ended, and how long it took. */
export function When({ job }) {
  return html`<span class="soft small num">${clock(job.ended_s)}, took ${seconds(job.ended_s - job.began_s)}</span>`;
}

/** Both buttons of a model. */
export function ModelJobs({ model }) {
  return html`<div class="jobs"><${Verify} model=${model} /><${Pull} model=${model} /></div>`;
}

/** Fetch a model, or check one that is here. */
export function Pull({ model }) {
  const job = lastJob(model, "pull");
  const result = job?.result?.models?.[0];
  return html`
    <${Start} label="Pull" disabled=${isRunning(job)} body=${{ kind: "pull", model }}
      confirm=${{
        title: `Pull ${model}?`,
        line: lineOf("pull", model),
        text: "It downloads the model's files if they are not here, or checks those that are, and compiles them for this machine.",
      }} />
    <${Running} job=${job} />
    ${job?.state === "done" && result && html`<p class="small outcome wrap" role="status">${pulled(result)} <${When} job=${job} /></p>`}
    <${NoResult} job=${job} />
  `;
}

function pulled({ status, source, size_bytes, notes, checked_by, damaged }) {
  const checked = checked_by === "hub" ? ", checked against the Hub" : checked_by === "kept" ? ", unchanged since it was last used" : "";
  const done = {
    pulled: "Pulled from",
    updated: "Updated from",
    repaired: `Fetched again: ${damaged.join(", ")}, from`,
    changed: `${damaged.join(", ")} changed since it was last used:`,
    here: `Here${checked}:`,
  }[status];
  return [`${done} ${source}, ${size(size_bytes)}.`, ...notes].join(" ");
}

/** Check a model's files and vectors in a fresh worker; its checks come one by one. */
export function Verify({ model }) {
  const job = lastJob(model, "verify");
  return html`
    <${Start} label="Verify" disabled=${isRunning(job)} body=${{ kind: "verify", model }} />
    <${Running} job=${job} />
    ${job?.steps.length > 0 && html`<${Checks} job=${job} />`}
    <${NoResult} job=${job} />
  `;
}

function Checks({ job }) {
  const wrong = job.steps.filter(({ verdict }) => verdict === "failed" || verdict === "warning");
  const open = isRunning(job) || wrong.length > 0;
  return html`
    <details class="outcome" open=${open}>
      <summary>${isRunning(job) ? `${job.steps.length} checks so far` : html`${verdictOf(job, wrong)} <${When} job=${job} />`}</summary>
      <div class="scroll" tabindex="0" role="region" aria-label=${`Checks of ${job.subject}`}>
        <table>
          <thead><tr><th scope="col">Check</th><th scope="col">Result</th><th scope="col">What was seen</th></tr></thead>
          <tbody>
            ${job.steps.map(
              (step) => html`
                <tr key=${step.name}>
                  <td>${step.name}</td>
                  <td><${Verdict} verdict=${step.verdict} /></td>
                  <td class="wrap">${step.message}${step.advice && html`<br /><span class="soft">${step.advice}</span>`}</td>
                </tr>
              `,
            )}
          </tbody>
        </table>
      </div>
    </details>
  `;
}

function verdictOf({ steps, state }, wrong) {
  if (state !== "done") return `${steps.length} checks, then it ended.`;
  const failed = wrong.filter(({ verdict }) => verdict === "failed").length;
  if (failed) return `${failed} of ${steps.length} checks failed.`;
  return wrong.length ? `No check failed; ${wrong.length} with a warning.` : `All is well: ${steps.length} checks.`;
}

function Verdict({ verdict }) {
  const [look, word] = VERDICTS[verdict] ?? ["", verdict];
  return html`<span class=${`state ${look}`}>${word}</span>`;
}

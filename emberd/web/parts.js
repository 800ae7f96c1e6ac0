// Small parts that all views share: numbers in words, what one copies or confirms, and how it looks when there is nothing or something fails.

import { html, useEffect, useRef, useState } from "./lib/preact.js";

export const number = (value, digits = 0) =>
  value == null ? "–" : value.toLocaleString("en", { maximumFractionDigits: digits });

export function size(bytes) {
  if (bytes == null) return "–";
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  const power = bytes < 1024 ? 0 : Math.min(Math.floor(Math.log2(bytes) / 10), units.length - 1);
  const value = bytes / 1024 ** power;
  return `${value.toFixed(power && value < 10 ? 1 : 0)} ${units[power]}`;
}

export function seconds(value) {
  if (value == null) return "–";
  if (value < 1) return `${Math.round(value * 1000)} ms`;
  if (value < 120) return `${value.toFixed(value < 10 ? 1 : 0)} s`;
  if (value < 7200) return `${Math.round(value / 60)} min`;
  return `${(value / 3600).toFixed(1)} h`;
}

export function clock(sinceEpoch) {
  const then = new Date(sinceEpoch * 1000);
  const time = then.toLocaleTimeString("en", { hourCycle: "h23" });
  if (then.toDateString() === new Date().toDateString()) return time;
  return `${then.toLocaleDateString("en", { month: "short", day: "numeric" })}, ${time}`;
}

/** What the server says: a command in it stands between backticks. */
export function Said({ text }) {
  const parts = text.split("`");
  if (parts.length % 2 === 0) return text;
  return parts.map((part, index) => (index % 2 ? html`<code>${part}</code>` : part));
}

export function Failed({ problem, again }) {
  return html`
    <div class="notice bad" role="alert">
      <p><${Said} text=${problem.message} /></p>
      ${problem.hint && html`<p class="hint"><${Said} text=${problem.hint} /></p>`}
      ${again && html`<button type="button" onClick=${again}>Try again</button>`}
    </div>
  `;
}

export function Empty({ title, children }) {
  return html`<div class="empty"><h2>${title}</h2>${children}</div>`;
}

export function Bar({ done, total, label }) {
  return html`<progress max=${total || 1} value=${total ? done : null} aria-label=${label}></progress>`;
}

/** A button that copies a text; `what` says to a screen reader which. */
export function Copy({ text, what }) {
  const [done, setDone] = useState("");
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(text);
      setDone("Copied");
    } catch {
      setDone("Select it by hand"); // browsers let a page copy only over https, or from this machine
    }
    setTimeout(() => setDone(""), 1500);
  };
  return html`
    <button type="button" class="quiet" onClick=${copy}>
      ${done || "Copy"}${what && html`<span class="unseen"> ${what}</span>`}
    </button>
  `;
}

/** A command line to copy. */
export function Command({ line }) {
  return html`<div class="command"><pre tabindex="0"><code>${line}</code></pre><${Copy} text=${line} /></div>`;
}

/** Asks before something is written, and shows the command line that it stands for. */
export function Confirm({ title, command, action, onDone, onCancel, children }) {
  const dialog = useRef(null);
  useEffect(() => dialog.current.showModal(), []);
  const go = () => {
    dialog.current.close(); // the focus goes back to the button that asked
    onDone();
  };
  return html`
    <dialog ref=${dialog} onClose=${onCancel} aria-labelledby="confirm-title">
      <h2 id="confirm-title">${title}</h2>
      ${children}
      ${command && html`<p>It is the same as:</p><${Command} line=${command} />`}
      <div class="row end">
        <button type="button" onClick=${() => dialog.current.close()}>Cancel</button>
        <button type="button" class="primary" onClick=${go}>${action}</button>
      </div>
    </dialog>
  `;
}

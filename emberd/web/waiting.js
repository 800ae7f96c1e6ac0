// Waiting: what is under way and, once that has taken 2 s, why it may and what to do. Every view that waits uses it.

import { html, useEffect, useRef, useState } from "./lib/preact.js";
import { Said } from "./parts.js";
import { connected } from "./state.js";

const SOON_MS = 400; // what is over by then need not be said
const LONG_MS = 2000;
const BUSY = "The server has not answered this yet. It may have much to do; if that goes on, `emberd doctor` says what is wrong.";
const NOT_YET = "There is no answer yet: the server may be starting, or have much to do. If that goes on, `emberd doctor` says what is wrong.";
const GONE = "It goes on by itself once the server answers.";

/** How far a wait is: 0, then 1 after `SOON_MS`, then 2 after `LONG_MS`. */
function usePatience() {
  const [stage, setStage] = useState(0);
  useEffect(() => {
    const timers = [SOON_MS, LONG_MS].map((after, at) => setTimeout(() => setStage(at + 1), after));
    return () => timers.forEach(clearTimeout);
  }, []);
  return stage;
}

/** `what` is under way. `why`: why that may take, and what one can do; by default that the server has to answer. */
export function Wait({ what, why = BUSY }) {
  const stage = usePatience();
  const reason = connected.value ? why : connected.value === null ? NOT_YET : GONE;
  return html`
    <div class="wait" role="status">
      ${stage > 0 && html`<p>${what} …</p>`}${stage > 1 && html`<p class="small"><${Said} text=${reason} /></p>`}
    </div>
  `;
}

/** Calls `act` when the server answers again after it did not. */
export function useReturn(act) {
  const before = useRef(connected.value);
  useEffect(() => {
    if (connected.value && before.current === false) act();
    before.current = connected.value;
  }, [connected.value]);
}

/** Load something when a view opens: {data, problem, again}. */
export function useLoaded(load, keys) {
  const [found, setFound] = useState({});
  const [turn, setTurn] = useState(0);
  const again = () => setTurn((before) => before + 1);
  useEffect(() => {
    const stopping = new AbortController();
    load(stopping.signal).then(
      (data) => setFound({ data }),
      (problem) => problem.name === "AbortError" || setFound({ problem }),
    );
    return () => stopping.abort();
  }, [...keys, turn]);
  useReturn(() => found.problem && again());
  return { ...found, again };
}

// What a model that starts is doing, in words.

const PHASES = {
  room: ["Waiting for room in memory", "Other models answer what they have first. With a higher limits.memory_budget or limits.max_loaded more models have room."],
  process: ["Starting its worker", "A process of its own has to start, and to load what it computes with."],
  files: ["Looking for its files", "Those that have changed since the last start are hashed: that reads them whole."],
  download: ["Downloading its files", "That takes as long as the connection needs. If it is stopped, it goes on from there the next time."],
  load: ["Loading it; the first time on this machine, compiling it", "A large model takes a minute or two to compile; that is kept, so the next start is faster."],
};

/** Return the phase of a row of /models that is starting: {what, why it may take, done, total}, in bytes of a download. */
export function phaseOf({ progress, pid }) {
  const { phase, done, total } = progress ?? { phase: pid ? "process" : "room", done: 0, total: 0 };
  const [what, why] = PHASES[phase] ?? [phase];
  return { what, why, done, total };
}

// What a model that starts is doing, in words.

const PHASES = {
  room: "Waiting for room in memory", process: "Starting its worker", files: "Looking for its files",
  download: "Downloading its files", load: "Loading it; the first time on this machine, compiling it",
};

/** Return the phase of a row of /models that is starting: {what, done, total}, in bytes of a download. */
export function phaseOf({ progress, pid }) {
  const { phase, done, total } = progress ?? { phase: pid ? "process" : "room", done: 0, total: 0 };
  return { what: PHASES[phase] ?? phase, done, total };
}

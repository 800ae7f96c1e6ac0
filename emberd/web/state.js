// What the server has told: every view reads these signals, and only `follow` writes them.

import { batch, computed, signal } from "./lib/preact.js";
import { listen } from "./net.js";

const SAMPLES = 900; // one a second: 15 minutes
const REQUESTS = 200;

export const connected = signal(null); // null: not yet
export const lost = signal(null); // why not: a Problem
export const server = signal(null); // {version, instance, default, pid, budget_bytes, ...}
export const models = signal([]); // rows of /models
export const warnings = signal([]);
export const samples = signal([]); // of the last 15 minutes
export const requests = signal([]); // newest first
export const jobs = signal([]); // newest first

export const loaded = computed(() => models.value.filter((row) => row.state !== "cold"));

export function modelNamed(name) {
  return models.value.find((row) => row.name === name);
}

/** Times in a row count from when it was told. */
function told(rows) {
  const told_s = performance.now() / 1000;
  return rows.map((row) => ({ ...row, told_s }));
}

const heard = {
  // The state at the moment of connecting; everything else is a change of it.
  hello(data) {
    server.value = data.server;
    models.value = told(data.models);
    warnings.value = data.warnings;
    samples.value = data.samples;
    requests.value = data.requests;
    jobs.value = data.jobs;
  },
  models(some) {
    const rows = told(some);
    const changed = new Map(rows.map((row) => [row.name, row]));
    const known = models.value.map((row) => changed.get(row.name) ?? row);
    const more = rows.filter((row) => !models.value.some(({ name }) => name === row.name));
    models.value = [...known, ...more];
  },
  server(data) {
    server.value = data;
  },
  gone(names) {
    models.value = models.value.filter(({ name }) => !names.includes(name));
  },
  warnings(rows) {
    warnings.value = rows;
  },
  sample(sample) {
    samples.value = [...samples.value, sample].slice(-SAMPLES);
  },
  requests(rows) {
    requests.value = [...rows, ...requests.value].slice(0, REQUESTS);
  },
  job: showJob,
};

function showJob(job) {
  const others = jobs.value.filter(({ id }) => id !== job.id);
  jobs.value = [job, ...others].sort((a, b) => b.began_s - a.began_s);
}

/** Show a job that has just been started; the stream may have said it already, and more. */
export function showStarted(job) {
  if (!jobs.value.some(({ id }) => id === job.id)) showJob(job);
}

export function follow() {
  return listen(
    "events",
    (name, data) => batch(() => heard[name]?.(data)),
    (is, problem) =>
      batch(() => {
        connected.value = is;
        lost.value = problem;
      }),
  );
}

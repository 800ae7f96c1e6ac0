// UMAP of a sample, beside the page: {components, rows, count} -> {what, done, total}, then {xy} now and then.

import { UMAP } from "./lib/umap.js";

const EVERY_MS = 300;

/** Numbers that look drawn by chance, the same ones every time (mulberry32). */
function random(seed) {
  return () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let mixed = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

onmessage = ({ data: { components, rows, count } }) => {
  const vectors = [];
  for (let row = 0; row < rows; row++) {
    vectors.push(Array.from(components.subarray(row * count, (row + 1) * count)));
  }
  const umap = new UMAP({ nNeighbors: Math.min(15, rows - 1), minDist: 0.1, random: random(1) });
  postMessage({ what: "neighbours" });
  const total = umap.initializeFit(vectors);
  let told = 0;
  for (let done = 1; done <= total; done++) {
    umap.step();
    if (done === total || performance.now() - told > EVERY_MS) {
      told = performance.now();
      postMessage({ what: "layout", done, total, xy: Float32Array.from(umap.getEmbedding().flat()) });
    }
  }
};

// The arithmetic of Try: cosines, the order of pairs, and where two orders differ.

/** All cosines of some vectors among themselves, as rows. */
export function cosinesOf(vectors) {
  const units = vectors.map(unit);
  return units.map((a) => units.map((b) => dot(a, b)));
}

export function unit(vector) {
  const length = Math.sqrt(dot(vector, vector));
  return length ? vector.map((each) => each / length) : vector;
}

export function dot(a, b) {
  let sum = 0;
  for (let at = 0; at < a.length; at++) sum += a[at] * b[at];
  return sum;
}

/** The pairs of n texts, each once: [[0, 1], [0, 2], ...]. */
function pairsOf(count) {
  const pairs = [];
  for (let a = 0; a < count; a++) for (let b = a + 1; b < count; b++) pairs.push([a, b]);
  return pairs;
}

/** The places that values have when sorted, the largest first, from 1; equals share the middle one. */
export function places(values) {
  const sorted = values.map((_, index) => index).sort((a, b) => values[b] - values[a]);
  const found = new Array(values.length);
  for (let from = 0, to; from < sorted.length; from = to) {
    for (to = from; to < sorted.length && values[sorted[to]] === values[sorted[from]]; ) to++;
    for (let at = from; at < to; at++) found[sorted[at]] = (from + 1 + to) / 2;
  }
  return found;
}

/** The pairs whose places in two models' orders are furthest apart, and Spearman's correlation of the orders. */
export function differences(one, other) {
  const pairs = pairsOf(one.length);
  const [here, there] = [one, other].map((cosines) => places(pairs.map(([a, b]) => cosines[a][b])));
  const rows = pairs.map((pair, index) => ({ pair, places: [here[index], there[index]] }));
  rows.sort((a, b) => apart(b) - apart(a));
  return { rows: rows.filter((row) => apart(row) > 0), count: pairs.length, correlation: correlation(here, there) };
}

const apart = ({ places: [here, there] }) => Math.abs(here - there);

function correlation(a, b) {
  const mean = (a.length + 1) / 2; // of places from 1
  let [both, ofA, ofB] = [0, 0, 0];
  for (let at = 0; at < a.length; at++) {
    both += (a[at] - mean) * (b[at] - mean);
    ofA += (a[at] - mean) ** 2;
    ofB += (b[at] - mean) ** 2;
  }
  return ofA && ofB ? both / Math.sqrt(ofA * ofB) : null;
}

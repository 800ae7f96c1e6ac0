// The colour of a model: the same in the bar, in its card and in the charts, in the order in which models came.

const HUES = 6;
const order = [];

/** Return which of the six hues of style.css a model has. */
export function hueOf(name) {
  if (!order.includes(name)) order.push(name);
  return order.indexOf(name) % HUES;
}

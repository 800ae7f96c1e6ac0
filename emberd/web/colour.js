// Colours of style.css for a canvas, which does not know its variables.

/** Return the colour that a variable has now, as an element sees it: "rgb(...)". */
export function colourOf(element, name) {
  const before = element.style.color;
  element.style.color = `var(${name})`;
  const found = getComputedStyle(element).color;
  element.style.color = before;
  return found;
}

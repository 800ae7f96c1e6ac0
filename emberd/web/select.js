// A choice from a list. Browsers cut the chosen name where the box is narrow: then it also stands below, whole.

import { html, useEffect, useLayoutEffect, useRef, useState } from "./lib/preact.js";

const ARROW = 16; // pixels that the arrow takes
const pen = document.createElement("canvas").getContext("2d"); // measures texts

/** As <select>; `children` are its options. */
export function Select({ children, ...more }) {
  const place = useRef(null);
  const [cut, setCut] = useState("");
  const look = () => place.current && setCut(cutOf(place.current));
  useLayoutEffect(look);
  useEffect(() => {
    const watch = new ResizeObserver(look);
    watch.observe(place.current);
    return () => watch.disconnect();
  }, []);
  return html`
    <select ref=${place} ...${more}>${children}</select>
    ${cut && html`<span class="chosen small wrap" aria-hidden="true">${cut}</span>`}
  `;
}

/** The chosen option's text, if it does not fit. */
function cutOf(select) {
  const text = select.selectedOptions[0]?.text ?? "";
  const style = getComputedStyle(select);
  const room = select.clientWidth - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight) - ARROW;
  pen.font = style.font;
  return pen.measureText(text).width > room ? text : "";
}

// The picture of a map: moved by pointer, wheel, fingers and keys; says what is pointed at and what was enclosed.

import { colourOf } from "./colour.js";
import { html, useLayoutEffect, useMemo, useRef, useState } from "./lib/preact.js";
import { Grid, inside, Plane } from "./plane.js";
import { Points } from "./points.js";

const REACH = 14; // pixels from the pointer to a point that it means
const STEP = 60; // pixels by which a key moves
const CLOSER = 1.35; // by which a key or button zooms
const SIZES = { plain: 4, many: 3, checked: 8, lit: 10, chosen: 15 }; // pixels
const MANY = 20_000;
const FRAME_MS = 34; // what a frame may take while the map moves; then fewer points are drawn
const LEAST = 0.04; // of the points
const REST_MS = 160; // without a movement, until all are drawn again

/** Where points are and how they look, for `Points`. */
function looksOf({ groups }, own, hidden, lit, paper) {
  const looks = new Uint8Array(groups.length * 4);
  const size = groups.length > MANY ? SIZES.many : SIZES.plain;
  // Beside rows that are lit, the others are pale.
  const colours = lit.size ? own.map((colour) => colour.map((part, at) => (part + 2 * paper[at]) / 3)) : own;
  for (let index = 0; index < groups.length; index++) {
    const [red, green, blue] = colours[groups[index]];
    looks[4 * index] = red;
    looks[4 * index + 1] = green;
    looks[4 * index + 2] = blue;
    looks[4 * index + 3] = hidden.has(groups[index]) ? 0 : size;
  }
  return looks;
}

/**
 * `layout`: {xy, rows, groups, checked}, `rows` being the number of each point's row. `hidden`: groups.
 * `lit`: a Set of rows; `chosen`: a row. `onHover(row | null, pixel)`, `onChoose(row)`, `onArea(rows, how)`.
 */
export function MapCanvas({ layout, hues, hidden, lit, chosen, tool, label, plane, ...tell }) {
  const told = useRef(tell); // the listeners outlive a rendering
  told.current = tell;
  const canvas = useRef(null);
  const points = useRef(null);
  const [lasso, setLasso] = useState([]);
  const hand = useRef({ fingers: new Map(), outline: null, moved: 0 }); // it may hold on while the layout changes
  const [turn, setTurn] = useState(0); // of colours, and of what draws
  const grid = useMemo(() => new Grid(layout.xy), [layout]);
  const shown = (index) => !hidden.has(layout.groups[index]);
  const frame = useRef(0);
  const pace = useRef({ share: 1, wanted: null, rest: 0 }); // of drawing while it moves
  const fitted = useRef(null); // the kind of layout that is shown
  const ringColour = useRef([0, 0, 0]);

  /** Draw soon; while it moves, only as many points as can be drawn smoothly. */
  const draw = (moving = false) => {
    const now = pace.current;
    if (moving) {
      clearTimeout(now.rest);
      now.rest = setTimeout(() => {
        now.share = Math.min(1, 2 * now.share);
        draw();
      }, REST_MS);
    }
    now.wanted = moving ? (now.wanted ?? "some") : "all";
    frame.current ||= requestAnimationFrame(paint);
  };
  const paint = (began) => {
    const now = pace.current;
    const { wanted } = now;
    now.wanted = null;
    points.current.draw(plane, ringColour.current, wanted === "all" ? 1 : now.share);
    frame.current = requestAnimationFrame((ended) => {
      frame.current = 0;
      const factor = FRAME_MS / (ended - began);
      if (wanted === "some" && factor < 1) now.share = Math.max(LEAST, now.share * Math.max(factor, 0.25));
      if (now.wanted) paint(ended);
    });
  };

  useLayoutEffect(() => {
    const element = canvas.current;
    const resize = () => {
      const { width, height } = element.parentElement.getBoundingClientRect();
      points.current.resize(width, height);
      plane.resize(width, height);
      draw();
    };
    const anew = () => setTurn((before) => before + 1);
    const lost = (event) => event.preventDefault();
    const restored = () => {
      points.current = new Points(element); // its programs and buffers were lost, too
      resize();
      anew();
    };
    element.addEventListener("webglcontextlost", lost);
    element.addEventListener("webglcontextrestored", restored);
    points.current = new Points(element);
    const watch = new ResizeObserver(resize);
    watch.observe(element.parentElement);
    const scheme = matchMedia("(prefers-color-scheme: dark)");
    scheme.addEventListener("change", anew);
    return () => {
      watch.disconnect();
      scheme.removeEventListener("change", anew);
      element.removeEventListener("webglcontextlost", lost);
      element.removeEventListener("webglcontextrestored", restored);
      cancelAnimationFrame(frame.current);
      clearTimeout(pace.current.rest);
      points.current.end();
      points.current = null;
    };
  }, []);

  useLayoutEffect(() => {
    const { width, height } = canvas.current.parentElement.getBoundingClientRect();
    points.current.resize(width, height);
    const kind = `${layout.kind} ${layout.map}`;
    plane.fit(layout.xy, width, height, kind !== fitted.current);
    fitted.current = kind;
  }, [layout.xy]);

  useLayoutEffect(() => {
    const named = (name) => colourOf(canvas.current, name).match(/[\d.]+/g).slice(0, 3).map(Number);
    const colours = hues.map(named);
    const accent = named("--accent");
    ringColour.current = named("--ink").map((each) => each / 255);
    points.current.setAll(layout.xy, looksOf(layout, colours, hidden, lit, named("--card")));
    const top = [];
    for (let index = 0; index < layout.rows.length; index++) {
      const row = layout.rows[index];
      const size = row === chosen ? SIZES.chosen : lit.has(row) ? SIZES.lit : 0;
      if (size || (layout.checked[index] && !lit.size && shown(index))) top.push([index, size || SIZES.checked]);
    }
    top.sort(([, one], [, other]) => one - other);
    const xy = new Float32Array(top.length * 2);
    const looks = new Uint8Array(top.length * 4);
    top.forEach(([index, size], at) => {
      xy.set([layout.xy[2 * index], layout.xy[2 * index + 1]], 2 * at);
      const group = layout.groups[index];
      looks.set([...(group || size === SIZES.checked ? colours[group] : accent), size], 4 * at);
    });
    points.current.setTop(xy, looks);
    draw();
  }, [layout, hues, hidden, lit, chosen, turn]);

  // Changed with the plane, before a paint: a lasso that ends in between would enclose old places by the new scale.
  useLayoutEffect(() => {
    const element = canvas.current;
    const held = hand.current;
    const { fingers } = held;
    const place = (event) => {
      const box = element.getBoundingClientRect();
      return [event.clientX - box.left, event.clientY - box.top];
    };
    const under = ([px, py]) => grid.nearest(...plane.at(px, py), REACH / plane.scale, shown);
    const down = (event) => {
      if (event.button) return; // not the main one
      element.setPointerCapture(event.pointerId);
      fingers.set(event.pointerId, place(event));
      held.moved = 0;
      held.outline = tool === "lasso" && fingers.size === 1 ? [place(event)] : null;
      setLasso([]);
    };
    const move = (event) => {
      const now = place(event);
      if (!fingers.has(event.pointerId)) {
        const index = under(now);
        told.current.onHover(index < 0 ? null : layout.rows[index], now);
        return;
      }
      const before = fingers.get(event.pointerId);
      fingers.set(event.pointerId, now);
      held.moved += Math.abs(now[0] - before[0]) + Math.abs(now[1] - before[1]);
      if (held.outline) {
        held.outline.push(now);
        setLasso([...held.outline]);
        return;
      }
      if (fingers.size === 1) {
        plane.pan(now[0] - before[0], now[1] - before[1]);
      } else {
        const other = [...fingers].find(([id]) => id !== event.pointerId)[1];
        const far = (one) => Math.hypot(one[0] - other[0], one[1] - other[1]) || 1;
        plane.zoom(far(now) / far(before), (now[0] + other[0]) / 2, (now[1] + other[1]) / 2);
        plane.pan((now[0] - before[0]) / 2, (now[1] - before[1]) / 2);
      }
      told.current.onHover(null);
      draw(true);
    };
    const drop = () => {
      held.outline = null;
      setLasso([]);
    };
    const up = (event) => {
      if (!fingers.delete(event.pointerId) || fingers.size) return;
      const { outline, moved } = held;
      drop();
      if (outline && outline.length > 2) {
        const polygon = outline.map(([px, py]) => plane.at(px, py));
        told.current.onArea(inside(layout.xy, polygon, shown).map((index) => layout.rows[index]), "enclosed");
      } else if (moved < 5) {
        const index = under(place(event));
        told.current.onChoose(index < 0 ? null : layout.rows[index]);
      }
    };
    const cancel = (event) => {
      fingers.delete(event.pointerId);
      drop();
    };
    const leave = () => told.current.onHover(null);
    const wheel = (event) => {
      event.preventDefault();
      const lines = event.deltaMode === 1 ? 16 : 1;
      plane.zoom(Math.exp(-event.deltaY * lines * (event.ctrlKey ? 0.01 : 0.0018)), ...place(event));
      told.current.onHover(null);
      draw(true);
    };
    const keys = {
      ArrowLeft: () => plane.pan(STEP, 0),
      ArrowRight: () => plane.pan(-STEP, 0),
      ArrowUp: () => plane.pan(0, STEP),
      ArrowDown: () => plane.pan(0, -STEP),
      "+": () => plane.zoom(CLOSER),
      "=": () => plane.zoom(CLOSER),
      "-": () => plane.zoom(1 / CLOSER),
      0: () => plane.reset(),
      Enter: () => area(),
    };
    const key = (event) => {
      if (!keys[event.key] || event.ctrlKey || event.metaKey || event.altKey) return;
      event.preventDefault();
      keys[event.key]();
      draw(true);
    };
    const area = () =>
      told.current.onArea(inside(layout.xy, plane.corners(), shown).map((index) => layout.rows[index]), "in view");
    plane.redraw = draw;
    plane.list = area;
    const listeners = { pointerdown: down, pointermove: move, pointerup: up, pointercancel: cancel, keydown: key };
    Object.assign(listeners, { pointerleave: leave });
    for (const [name, listener] of Object.entries(listeners)) element.addEventListener(name, listener);
    element.addEventListener("wheel", wheel, { passive: false });
    return () => {
      for (const [name, listener] of Object.entries(listeners)) element.removeEventListener(name, listener);
      element.removeEventListener("wheel", wheel);
    };
  }, [grid, hidden, tool]);

  return html`
    <canvas ref=${canvas} class=${tool} tabindex="0" role="application" aria-label=${label}
      aria-describedby="map-keys"></canvas>
    ${lasso.length > 1 &&
    html`<svg class="lasso" aria-hidden="true"><polygon points=${lasso.map((each) => each.join()).join(" ")} /></svg>`}
  `;
}

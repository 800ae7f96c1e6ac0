// Draws points by WebGL: one buffer for all of them, and a small one for those that lie on top.
// The first of the large buffer stand for all: they are drawn by chance, so that a part can be shown while it moves.

import { Geometry, Mesh, Program, Renderer } from "./lib/ogl.js";

const VERTEX = `
attribute vec2 position;
attribute vec4 look; // red, green, blue, and the size in pixels / 255
uniform vec2 centre;
uniform vec2 scale; // from places to the window's -1 ... 1
uniform float zoom; // how much larger points are, because one has come closer
uniform float ratio; // of device pixels
varying vec3 colour;
void main() {
  colour = look.rgb;
  float size = look.a * 255.0;
  gl_PointSize = size * zoom * ratio;
  gl_Position = size > 0.0 ? vec4((position - centre) * scale, 0.0, 1.0) : vec4(2.0, 2.0, 2.0, 1.0);
}`;
const FRAGMENT = `
precision mediump float;
uniform float ring;
uniform vec3 ringColour;
varying vec3 colour;
void main() {
  float away = length(gl_PointCoord - 0.5);
  if (away > 0.5) discard;
  gl_FragColor = vec4(away > 0.5 - ring ? ringColour : colour, 1.0);
}`;

/** The numbers below `count` in an order by chance, always the same one. */
function mixed(count) {
  const order = Uint32Array.from({ length: count }, (_, at) => at);
  let seed = 1;
  for (let at = count - 1; at > 0; at--) {
    seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0; // Numerical Recipes' constants
    const other = Math.floor((seed / 2 ** 32) * (at + 1));
    [order[at], order[other]] = [order[other], order[at]];
  }
  return order;
}

/** Whether this browser can draw here at all. */
export function canDraw() {
  const canvas = document.createElement("canvas");
  const context = canvas.getContext("webgl2") ?? canvas.getContext("webgl");
  context?.getExtension("WEBGL_lose_context")?.loseContext();
  return Boolean(context);
}

export class Points {
  constructor(canvas) {
    this.renderer = new Renderer({ canvas, alpha: true, antialias: false, depth: false, dpr: 1 });
    this.gl = this.renderer.gl;
    this.gl.clearColor(0, 0, 0, 0);
    this.all = this.layer(0);
    this.top = this.layer(0.17);
  }

  layer(ring) {
    const program = new Program(this.gl, {
      vertex: VERTEX,
      fragment: FRAGMENT,
      depthTest: false,
      depthWrite: false,
      uniforms: {
        centre: { value: [0, 0] },
        scale: { value: [1, 1] },
        zoom: { value: 1 },
        ratio: { value: 1 },
        ring: { value: ring },
        ringColour: { value: [0, 0, 0] },
      },
    });
    return { program, mesh: null };
  }

  /** Give all points: places (x, y, ...) and looks (red, green, blue, size, ...: bytes). */
  setAll(xy, looks) {
    const count = xy.length / 2;
    if (this.order?.length !== count) this.order = mixed(count);
    const [places, bytes] = [new Float32Array(2 * count), new Uint32Array(count)];
    const four = new Uint32Array(looks.buffer);
    this.order.forEach((from, at) => {
      places[2 * at] = xy[2 * from];
      places[2 * at + 1] = xy[2 * from + 1];
      bytes[at] = four[from];
    });
    this.set(this.all, places, new Uint8Array(bytes.buffer));
  }

  setTop(xy, looks) {
    this.set(this.top, xy, looks);
  }

  set(layer, xy, looks) {
    layer.mesh?.geometry.remove();
    const geometry = new Geometry(this.gl, {
      position: { size: 2, data: xy },
      look: { size: 4, data: looks, type: this.gl.UNSIGNED_BYTE, normalized: true },
    });
    const { program } = layer;
    layer.mesh = xy.length
      ? new Mesh(this.gl, { geometry, program, mode: this.gl.POINTS, frustumCulled: false })
      : null;
  }

  resize(width, height) {
    this.renderer.dpr = Math.min(devicePixelRatio, 2);
    this.renderer.setSize(width, height);
  }

  /** Draw a share of the points, and those on top. */
  draw(plane, ringColour, share = 1) {
    this.all.mesh?.geometry.setDrawRange(0, Math.ceil(this.order.length * share));
    const scale = [(2 * plane.scale) / plane.width, (2 * plane.scale) / plane.height];
    const zoom = Math.min(Math.max((plane.scale / plane.whole.scale) ** 0.3, 1), 3);
    let clear = true;
    for (const { program, mesh } of [this.all, this.top]) {
      if (!mesh) continue;
      const { uniforms } = program;
      uniforms.centre.value = [plane.x, plane.y];
      uniforms.scale.value = scale;
      uniforms.zoom.value = zoom;
      uniforms.ratio.value = this.renderer.dpr;
      uniforms.ringColour.value = ringColour;
      this.renderer.render({ scene: mesh, clear });
      clear = false;
    }
    if (clear) this.gl.clear(this.gl.COLOR_BUFFER_BIT);
  }

  end() {
    this.gl.getExtension("WEBGL_lose_context")?.loseContext();
  }
}

// Where points are on the screen, which one is under the pointer, and which are inside a shape. Draws nothing.

const CLOSEST = 2000; // times the scale at which everything is seen

/** The lowest and highest x, then y, of points; zeros if there are none. */
function boundsOf(xy) {
  if (!xy.length) return [0, 0, 0, 0];
  let [left, right, low, high] = [Infinity, -Infinity, Infinity, -Infinity];
  for (let at = 0; at < xy.length; at += 2) {
    left = Math.min(left, xy[at]);
    right = Math.max(right, xy[at]);
    low = Math.min(low, xy[at + 1]);
    high = Math.max(high, xy[at + 1]);
  }
  return [left, right, low, high];
}

/** What is seen: the place in the middle, and how many pixels a unit is. */
export class Plane {
  x = 0;
  y = 0;
  scale = 1;
  width = 1;
  height = 1;
  whole = { x: 0, y: 0, scale: 1 };
  bounds = [0, 0, 0, 0];

  /** Know points `xy` (x, y, x, y, ...); show all, unless only a part was seen, or `anew`. */
  fit(xy, width, height, anew) {
    this.bounds = boundsOf(xy);
    this.resize(width, height, anew);
  }

  resize(width, height, anew = false) {
    const saw = anew || ["x", "y", "scale"].every((each) => this[each] === this.whole[each]);
    const [left, right, low, high] = this.bounds;
    const fits = 0.92 * Math.min(width / (right - left || 1), height / (high - low || 1));
    const before = this.whole.scale;
    this.width = Math.max(width, 1); // before the page has its style, there may be no room at all
    this.height = Math.max(height, 1);
    this.whole = { x: (left + right) / 2, y: (low + high) / 2, scale: fits || before };
    if (saw) this.reset();
    else this.scale *= this.whole.scale / before;
  }

  reset() {
    Object.assign(this, this.whole);
  }

  pan(dx, dy) {
    this.x -= dx / this.scale;
    this.y += dy / this.scale;
  }

  /** Zoom by a factor, such that what is at this pixel stays there. */
  zoom(factor, px = this.width / 2, py = this.height / 2) {
    const [x, y] = this.at(px, py);
    const least = this.whole.scale;
    this.scale = Math.min(Math.max(this.scale * factor, least / 2), least * CLOSEST);
    const [movedX, movedY] = this.at(px, py);
    this.x += x - movedX;
    this.y += y - movedY;
  }

  /** Move to a place; come so close that its surroundings can be told apart. */
  show(x, y) {
    this.scale = Math.max(this.scale, this.whole.scale * 4);
    this.x = x;
    this.y = y;
  }

  /** The place at a pixel. */
  at(px, py) {
    return [this.x + (px - this.width / 2) / this.scale, this.y - (py - this.height / 2) / this.scale];
  }

  /** The pixel of a place. */
  pixel(x, y) {
    return [(x - this.x) * this.scale + this.width / 2, (this.y - y) * this.scale + this.height / 2];
  }

  /** The corners of what is seen. */
  corners() {
    const [left, high] = this.at(0, 0);
    const [right, low] = this.at(this.width, this.height);
    return [[left, low], [right, low], [right, high], [left, high]];
  }
}

/** Points sorted into the squares of a grid. */
export class Grid {
  constructor(xy) {
    this.xy = xy;
    const count = xy.length / 2;
    this.side = Math.max(1, Math.ceil(Math.sqrt(count) / 2));
    const [left, right, low, high] = boundsOf(xy);
    [this.left, this.low] = [left, low];
    this.cell = Math.max(right - left, high - low) / this.side || 1;
    this.starts = new Uint32Array(this.side * this.side + 1);
    const squares = new Uint32Array(count);
    for (let index = 0; index < count; index++) {
      squares[index] = this.square(this.column(xy[2 * index]), this.line(xy[2 * index + 1]));
      this.starts[squares[index] + 1]++;
    }
    for (let at = 1; at < this.starts.length; at++) this.starts[at] += this.starts[at - 1];
    this.sorted = new Uint32Array(count);
    const next = this.starts.slice();
    for (let index = 0; index < count; index++) this.sorted[next[squares[index]]++] = index;
  }

  column(x) {
    return Math.min(Math.max(Math.floor((x - this.left) / this.cell), 0), this.side - 1);
  }

  line(y) {
    return Math.min(Math.max(Math.floor((y - this.low) / this.cell), 0), this.side - 1);
  }

  square(column, line) {
    return line * this.side + column;
  }

  /** The nearest point to a place, at most so far away, of those that are shown; or -1. */
  nearest(x, y, radius, shown) {
    let [found, best] = [-1, radius * radius];
    for (let line = this.line(y - radius); line <= this.line(y + radius); line++) {
      for (let column = this.column(x - radius); column <= this.column(x + radius); column++) {
        const square = this.square(column, line);
        for (let at = this.starts[square]; at < this.starts[square + 1]; at++) {
          const index = this.sorted[at];
          const distance = (this.xy[2 * index] - x) ** 2 + (this.xy[2 * index + 1] - y) ** 2;
          if (distance <= best && shown(index)) [found, best] = [index, distance];
        }
      }
    }
    return found;
  }
}

/** The points inside a polygon [[x, y], ...], of those that are shown. */
export function inside(xy, polygon, shown) {
  const xs = polygon.map(([x]) => x);
  const ys = polygon.map(([, y]) => y);
  const [left, right, low, high] = [Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys)];
  const found = [];
  for (let index = 0; 2 * index < xy.length; index++) {
    const [x, y] = [xy[2 * index], xy[2 * index + 1]];
    if (x < left || x > right || y < low || y > high || !shown(index)) continue;
    let is = false;
    for (let one = 0, other = xs.length - 1; one < xs.length; other = one++) {
      const crosses = ys[one] > y !== ys[other] > y;
      if (crosses && x < ((xs[other] - xs[one]) * (y - ys[one])) / (ys[other] - ys[one]) + xs[one]) is = !is;
    }
    if (is) found.push(index);
  }
  return found;
}

// Charts of the last two minutes, drawn as SVG: lines, or areas on top of one another.

import { make, makeSvg, setText } from '../demo/dom.js';
import { kept, roundUp } from './series.js';
import { short3 } from './words.js';

/**
 * @typedef {object} Line
 * @property {string} name
 * @property {string} tone   a class, which has the colour
 * @property {(number|null)[]} values  the newest last
 *
 * @typedef {object} Manner
 * @property {string} title
 * @property {string} unit       behind each value
 * @property {boolean} [stacked] areas on top of one another, in place of lines
 * @property {(value: number) => string} [write]
 */

const height = 132;
const pad = { top: 10, right: 8, bottom: 6, left: 40 };
/** A newest value may be missing; this is what is said then. */
const nothing = '–';

export class Chart {
  #manner;
  #svg = makeSvg('svg', { role: 'img' });
  #legend = make('ul', { class: 'legend' });
  #total = make('span', { class: 'chart-total' });
  /** @type {Line[]} */
  #lines = [];
  /** Where the pointer is, as a place among the values from the newest; null while it is elsewhere. @type {number|null} */
  #pointed = null;
  #width = 0;

  /** @param {HTMLElement} figure @param {Manner} manner */
  constructor(figure, manner) {
    this.#manner = manner;
    figure.append(make('figcaption', {}, make('span', {}, manner.title), this.#total), this.#svg, this.#legend);
    new ResizeObserver(([entry]) => {
      const width = Math.round(entry.contentRect.width);
      if (width === this.#width) return;
      this.#width = width;
      this.#draw();
    }).observe(figure);
    this.#svg.addEventListener('pointermove', (event) => this.#point(event));
    this.#svg.addEventListener('pointerleave', () => {
      this.#pointed = null;
      this.#draw();
    });
  }

  /** @param {Line[]} lines */
  show(lines) {
    this.#lines = lines;
    this.#draw();
  }

  /** @param {PointerEvent} event */
  #point(event) {
    const { left } = this.#svg.getBoundingClientRect();
    const inner = this.#width - pad.left - pad.right;
    const back = (1 - (event.clientX - left - pad.left) / inner) * (kept - 1);
    const most = Math.max(0, (this.#lines[0]?.values.length ?? 1) - 1);
    this.#pointed = Math.min(most, Math.max(0, Math.round(back)));
    this.#draw();
  }

  #draw() {
    if (this.#width === 0) return;
    const lines = this.#manner.stacked ? stack(this.#lines) : this.#lines.map((line) => ({ ...line, base: null }));
    const top = roundUp(Math.max(0, ...lines.flatMap(({ values }) => values.map((value) => value ?? 0))));
    const inner = { width: this.#width - pad.left - pad.right, height: height - pad.top - pad.bottom };
    const x = (/** @type {number} */ at, /** @type {number} */ count) => pad.left + inner.width * (1 - (count - 1 - at) / (kept - 1));
    const y = (/** @type {number} */ value) => pad.top + inner.height * (1 - value / top);
    const parts = [0, top / 2, top].flatMap((value) => [
      makeSvg('line', { class: 'grid', x1: pad.left, x2: this.#width - pad.right, y1: y(value), y2: y(value) }),
      makeSvg('text', { class: 'tick', x: pad.left - 6, y: y(value) + 4, 'text-anchor': 'end' }, short3(value)),
    ]);
    // The uppermost area first, so that those below cover it.
    for (const { values, base, tone } of [...lines].reverse()) parts.push(...shapes(values, base, tone, x, y));
    if (this.#pointed !== null) {
      const count = this.#lines[0]?.values.length ?? 0;
      const at = x(count - 1 - this.#pointed, count);
      parts.push(makeSvg('line', { class: 'cursor', x1: at, x2: at, y1: pad.top, y2: height - pad.bottom }));
    }
    this.#svg.setAttribute('viewBox', `0 0 ${this.#width} ${height}`);
    this.#svg.setAttribute('height', String(height));
    this.#svg.setAttribute('aria-label', this.#tell());
    this.#svg.replaceChildren(...parts);
    this.#drawLegend();
  }

  /** @param {Line} line @returns {number|null} its value now, or where the pointer is */
  #value({ values }) {
    return values.at(-1 - (this.#pointed ?? 0)) ?? null;
  }

  /** @param {number|null} value */
  #write(value) {
    return value === null ? nothing : `${(this.#manner.write ?? short3)(value)}${this.#manner.unit}`;
  }

  #drawLegend() {
    const shown = this.#manner.stacked ? this.#lines.filter(({ values }) => values.some((value) => value)) : this.#lines;
    this.#legend.replaceChildren(...shown.map((line) => make('li', { class: line.tone }, make('i'), `${line.name} `, make('b', {}, this.#write(this.#value(line))))));
    const total = this.#manner.stacked ? this.#lines.reduce((sum, line) => sum + (this.#value(line) ?? 0), 0) : null;
    setText(this.#total, total === null ? this.#when() : `${this.#write(total)}${this.#when()}`);
  }

  #when() {
    return this.#pointed === null || this.#pointed === 0 ? '' : ` ${this.#pointed} s ago`;
  }

  #tell() {
    const told = this.#lines.map((line) => `${line.name} ${this.#write(line.values.at(-1) ?? null)}`);
    return `${this.#manner.title}: ${told.join(', ')}`;
  }
}

/** Each line above the ones before it. @param {Line[]} lines */
function stack(lines) {
  /** @type {number[]} */
  let base = lines[0]?.values.map(() => 0) ?? [];
  return lines.map((line) => {
    const below = base;
    base = line.values.map((value, at) => below[at] + (value ?? 0));
    return { ...line, values: base, base: below };
  });
}

/**
 * @param {(number|null)[]} values
 * @param {number[]|null} base
 * @param {string} tone
 * @param {(at: number, count: number) => number} x
 * @param {(value: number) => number} y
 */
function shapes(values, base, tone, x, y) {
  const point = (/** @type {number} */ at, /** @type {number} */ value) => `${x(at, values.length).toFixed(1)} ${y(value).toFixed(1)}`;
  if (base) {
    if (!values.some((value, at) => (value ?? 0) > base[at])) return [];
    const above = values.map((value, at) => point(at, value ?? 0));
    const below = base.map((value, at) => point(at, value)).reverse();
    return [makeSvg('path', { class: `area ${tone}`, d: `M${[...above, ...below].join('L')}Z` })];
  }
  // A gap where nothing was measured.
  let d = '';
  values.forEach((value, at) => {
    if (value === null) return;
    const isFirst = at === 0 || values[at - 1] === null;
    d += `${isFirst ? 'M' : 'L'}${point(at, value)}`;
    // By itself it is a dot.
    if (isFirst && (values[at + 1] ?? null) === null) d += `L${point(at, value)}`;
  });
  return d === '' ? [] : [makeSvg('path', { class: `line ${tone}`, d })];
}

// Bars as SVG, in the style of benches/peers: panels with groups of bars, wide for pages and narrow for telephones. Lengths are in pixels.

/**
 * @typedef {'page' | 'track' | 'raw' | 'wigwag' | 'other' | 'ok' | 'durable'} Kind what a part of a bar stands for, by its colour
 * @typedef {{ kind: Kind, value: number, below?: string }} Part below: stands under its end
 * @typedef {{ name?: string, parts: Part[], figure?: string }} Bar parts from left to right; the figure stands behind them
 * @typedef {{ head?: string, bars: Bar[] }} Group
 * @typedef {{ head: string, measured: string, groups: Group[], whole?: number }} Panel whole: what a bar can be at most, where that is to be seen
 * @typedef {{ title: string, legend: [Kind, string][], panels: Panel[], foot: string }} Picture
 * @typedef {{ width: number, columns: number }} Layout
 */

/** Two panels side by side. @type {Layout} */
export const WIDE = { width: 1000, columns: 2 };
/** One below the other. @type {Layout} */
export const NARROW = { width: 390, columns: 1 };

const MARGIN = 16;
const LINE = 16;
const TITLE_LINE = 20;
/** From one bar to the next. */
const ROW = 18;
const BAR = 12;
/** For the names of bars. */
const NAMES = 146;
/** For figures behind the longest bar. */
const FIGURES = 62;
/** Of each class of text, on average. */
const CHARACTER = { title: 10, head: 8.4, small: 6.4 };

/** Own background: a page may be dark where its reader's system is light. */
const STYLE = `
    text { font: 12px system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif; fill: #1f2328 }
    .title { font-size: 16px; font-weight: 600 } .head { font-size: 13px; font-weight: 600 }
    .small { font-size: 11px; fill: #59636e } .figure { font-variant-numeric: tabular-nums }
    .page { fill: #fff } .track { fill: #eaeef2 } .raw { fill: #818b98 } .wigwag { fill: #0969da } .other { fill: #c27c1c }
    .ok { fill: #8250df } .durable { fill: #1a7f37 } .below { text-anchor: end }
    @media (prefers-color-scheme: dark) {
      text { fill: #e6edf3 } .small { fill: #9198a1 } .page { fill: #0d1117 } .track { fill: #21262d }
      .raw { fill: #7d8590 } .wigwag { fill: #4493f8 } .other { fill: #d29922 }
      .ok { fill: #a371f7 } .durable { fill: #3fb950 }
    }
`;

/** @param {string} words */
const escaped = (words) => words.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;');

/** @param {number} x @param {number} y @param {string} kind @param {string} words */
const text = (x, y, kind, words) => `<text class="${kind}" x="${x.toFixed(1)}" y="${y.toFixed(1)}">${escaped(words)}</text>\n`;

/** @param {number} x @param {number} y @param {Kind} kind @param {number} length */
const box = (x, y, kind, length) => `<rect class="${kind}" x="${x.toFixed(1)}" y="${y.toFixed(1)}" width="${length.toFixed(1)}" height="${BAR}"/>\n`;

/** Lines of no more than so many characters, where no word is longer. @param {string} paragraph @param {number} most @returns {string[]} */
function wrapped(paragraph, most) {
  /** @type {string[]} */
  const lines = [];
  for (const word of paragraph.split(' ')) {
    const longer = `${lines.at(-1)} ${word}`;
    if (lines.length > 0 && longer.length <= most) lines[lines.length - 1] = longer;
    else lines.push(word);
  }
  return lines;
}

/** What is drawn from top to bottom. */
class Column {
  svg = '';

  /** @param {number} left @param {number} top @param {number} width */
  constructor(left, top, width) {
    this.left = left;
    this.bottom = top;
    this.width = width;
  }

  /** @param {keyof typeof CHARACTER} kind @param {string} words */
  paragraph(kind, words) {
    for (const line of wrapped(words, Math.floor(this.width / CHARACTER[kind]))) {
      this.bottom += kind === 'title' ? TITLE_LINE : LINE;
      this.svg += text(this.left, this.bottom, kind, line);
    }
  }

  /** @param {[Kind, string][]} entries */
  legend(entries) {
    const end = this.left + this.width;
    let x = end;
    for (const [kind, words] of entries) {
      const width = BAR + 6 + words.length * CHARACTER.small;
      if (x + width > end) {
        x = this.left;
        this.bottom += LINE;
      }
      this.svg += box(x, this.bottom - 10, kind, BAR) + text(x + BAR + 6, this.bottom, 'small', words);
      x += width + MARGIN;
    }
  }

  /** @param {Bar} bar @param {number} longest what one over the whole space stands for @param {boolean} track whether the space is to be seen */
  bar({ name, parts, figure }, longest, track) {
    const start = this.left + (name === undefined ? 0 : NAMES);
    const space = this.left + this.width - FIGURES - start;
    const y = this.bottom + 6;
    if (name) this.svg += text(this.left, y + 10, '', name);
    if (track) this.svg += box(start, y, 'track', space);
    let x = start;
    for (const { kind, value, below } of parts.filter(({ value }) => value > 0)) {
      const length = Math.max(space * value / longest, 1);
      this.svg += box(x, y, kind, length);
      x += length;
      if (below) this.svg += text(x, y + BAR + 12, 'figure below', below);
    }
    const end = track ? start + space : x;
    if (figure) this.svg += text(end === start ? end : end + 6, y + 10, 'figure', figure);
    this.bottom += ROW + (parts.some(({ below }) => below) ? LINE : 0);
  }

  /** @param {Panel} panel */
  panel({ head, measured, groups, whole }) {
    this.paragraph('head', head);
    this.paragraph('small', measured);
    const sums = groups.flatMap(({ bars }) => bars).map(({ parts }) => parts.reduce((sum, { value }) => sum + value, 0));
    for (const { head, bars } of groups) {
      this.bottom += 6;
      if (head) this.paragraph('small', head);
      for (const bar of bars) this.bar(bar, whole ?? Math.max(...sums), whole !== undefined);
    }
  }
}

/** @param {Picture} picture @param {Layout} layout @returns {string} SVG */
export function draw({ title, legend, panels, foot }, { width, columns }) {
  const whole = new Column(MARGIN, 6, width - 2 * MARGIN);
  whole.paragraph('title', title);
  whole.bottom += 6;
  whole.legend(legend);
  const panelWidth = (width - MARGIN * (columns + 1)) / columns;
  for (let first = 0; first < panels.length; first += columns) {
    const row = panels.slice(first, first + columns).map((panel, at) => {
      const column = new Column(MARGIN + at * (panelWidth + MARGIN), whole.bottom + 12, panelWidth);
      column.panel(panel);
      return column;
    });
    whole.svg += row.map(({ svg }) => svg).join('');
    whole.bottom = Math.max(...row.map(({ bottom }) => bottom));
  }
  whole.bottom += 12;
  whole.paragraph('small', foot);
  const size = `width="${width}" height="${whole.bottom + MARGIN}"`;
  return `<svg xmlns="http://www.w3.org/2000/svg" ${size} viewBox="0 0 ${width} ${whole.bottom + MARGIN}" role="img" aria-labelledby="title">`
    + `<title id="title">${escaped(title)}</title><style>${STYLE}</style>\n<rect class="page" ${size}/>\n${whole.svg}</svg>\n`;
}

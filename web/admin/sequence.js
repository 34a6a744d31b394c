// The sequence diagram of a pair: who sent what when, and what is missing.

/** @import { Happening, Pair } from './api.js' */

import { make, makeSvg } from '../demo/dom.js';
import { after, ofMilestone, outcomes, short, size } from './words.js';

/**
 * A row of the diagram. Sides: 0 is the impolite peer at the left, 1 the polite one at the right.
 * @typedef {{atMs: number, offset: number}} When  `offset`: since the pair's first event
 * @typedef {{kind: 'arrow', side: 0|1, label: string, span: string, tone: string, lost: string|null} & When} Arrow  `span`: how long a bundle took
 * @typedef {{kind: 'state', side: 0|1, label: string, life: 'here'|'away'|'gone'} & When} Change
 * @typedef {{kind: 'note', side: 0|1, label: string} & When} Note
 * @typedef {{kind: 'missing', side: 0|1, label: string}} Missing
 * @typedef {Arrow|Change|Note|Missing} Row
 */

/** @type {Readonly<Record<string, {label: string, tone: string}>>} */
const steps = Object.freeze({
  offer: { label: 'offer', tone: 'offer' },
  answer: { label: 'answer', tone: 'answer' },
  pranswer: { label: 'provisional answer', tone: 'answer' },
  rollback: { label: 'rollback', tone: 'rollback' },
  candidate: { label: 'candidate', tone: 'candidate' },
  endOfCandidates: { label: 'end of candidates', tone: 'candidate' },
});

/** @type {Readonly<Record<string, 'here'|'away'|'gone'>>} */
const lives = Object.freeze({ joined: 'here', admitted: 'here', back: 'here', moved: 'here', away: 'away', left: 'gone' });

/** @type {Readonly<Record<string, string>>} */
const changes = Object.freeze({ joined: 'joins', admitted: 'is let in', back: 'is back', away: 'away', left: 'left' });

/** Rows above which the earliest are left out: a diagram is to be read. */
const mostRows = 80;

/**
 * What the diagram shows, from top to bottom.
 * @param {Happening[]} events
 * @param {Pair} pair
 * @returns {Row[]}
 */
export function rows(events, pair) {
  const peers = [pair.impolite, pair.polite];
  const own = lastLife(events).filter(({ peer, to }) => (
    peers.includes(peer ?? '') && (to === undefined || peers.includes(to))
  ));
  const begun = own[0]?.atMs ?? 0;
  const told = own.flatMap((happening) => row(happening, /** @type {0|1} */ (peers.indexOf(happening.peer ?? '')), begun));
  return [...told.slice(-mostRows), ...missing(own, pair)];
}

/** Of a room that ended and was opened again, what came since. @param {Happening[]} events */
function lastLife(events) {
  const ended = events.slice(0, -1).findLastIndex(({ event }) => event === 'ended');
  return events.slice(ended + 1);
}

/** @param {Happening} happening @param {0|1} side @param {number} begun @returns {Row[]} */
function row(happening, side, begun) {
  const { event, to, atMs, untilMs, count, bytes, outcome, transport, code, reason } = happening;
  const when = { atMs, offset: atMs - begun };
  const milestone = ofMilestone(happening);
  if (milestone !== null) return [{ kind: 'note', side, label: milestone, ...when }];
  if (to !== undefined) {
    const { label, tone } = steps[event] ?? { label: event, tone: 'candidate' };
    const many = count === undefined ? label : `${count} ${label}s`;
    const span = untilMs !== undefined && untilMs - atMs >= 10 ? ` in ${after(untilMs - atMs).slice(1)}` : '';
    const lost = outcome === 'delivered' ? null : outcomes[outcome ?? ''] ?? outcome ?? null;
    const weight = event === 'endOfCandidates' ? '' : `, ${size(bytes ?? 0)}`;
    return [{ kind: 'arrow', side, label: `${many}${weight}`, span, tone, lost: arrives(outcome) ? null : lost, ...when },
      ...(arrives(outcome) && lost !== null ? [/** @type {Note} */ ({ kind: 'note', side: 1 - side, label: lost, ...when })] : [])];
  }
  if (event === 'refused') return [{ kind: 'note', side, label: `refused: ${code}${count === undefined ? '' : ` ×${count}`}`, ...when }];
  const life = lives[event];
  if (life === undefined) return [];
  if (event === 'moved') return [{ kind: 'note', side, label: `now by ${transport}`, ...when }];
  const why = code ?? (reason === 'left' ? undefined : reason);
  const way = event === 'joined' && transport !== undefined ? ` by ${transport}` : '';
  return [{ kind: 'state', side, label: `${changes[event]}${way}${why === undefined ? '' : ` (${why})`}`, life, ...when }];
}

/** @param {string|undefined} outcome */
function arrives(outcome) {
  return outcome === 'delivered' || outcome === 'kept' || outcome === 'elsewhere';
}

/** @param {Happening[]} events @param {Pair} pair @returns {Missing[]} */
function missing(events, { state, impolite }) {
  /** @param {0|1} side @param {string} label @returns {Missing} */
  const row = (side, label) => ({ kind: 'missing', side, label });
  const offerer = events.findLast(({ event }) => event === 'offer')?.peer;
  const sent = (/** @type {string} */ peer) => events.some(({ event, peer: from, outcome }) => event === 'candidate' && from === peer && arrives(outcome));
  switch (state) {
    case 'noOffer': return [row(1, 'an offer never came')];
    case 'rolledBack': return [row(1, 'no other offer came')];
    case 'noAnswer': return [row(offerer === impolite ? 1 : 0, 'the answer never came')];
    case 'glare': return [row(1, 'no answer: neither gave way')];
    case 'leftDuring': return [row(offerer === impolite ? 1 : 0, 'no answer any more')];
    case 'noCandidates': return [row(0, 'no candidates'), row(1, 'no candidates')];
    case 'oneSidedCandidates': return [row(sent(impolite) ? 1 : 0, 'no candidates')];
    case 'iceFailed': return [row(events.findLast(({ event }) => event === 'failed')?.peer === impolite ? 0 : 1, 'no path')];
    default: return [];
  }
}

const rowHeight = 46;
const headHeight = 64;

/**
 * Draws it.
 * @param {Row[]} rows
 * @param {[string, string]} names  of the impolite and of the polite peer
 * @param {number} width
 * @param {Pair} pair
 * @returns {SVGElement}
 */
export function draw(rows, names, width, pair) {
  const isNarrow = width < 520;
  const gutter = isNarrow ? 62 : 76;
  const side = isNarrow ? 50 : Math.min(120, (width - gutter) / 4);
  const lines = [gutter + side, width - side];
  const height = headHeight + rows.length * rowHeight + 18;
  const middle = (/** @type {number} */ at) => headHeight + at * rowHeight + rowHeight / 2;
  const parts = [arrowHeads(), ...lifelines(rows, lines, middle, height)];
  ['impolite', 'polite'].forEach((role, at) => parts.push(...head(lines[at], side, names[at], role)));
  /** @type {number|null} */
  let last = null;
  rows.forEach((row, at) => {
    const y = middle(at);
    if (row.kind !== 'missing') {
      const text = after(row.offset);
      if (row.offset !== last) parts.push(makeSvg('text', { class: 'seq-time', x: gutter - 8, y: y + 4, 'text-anchor': 'end' }, text));
      last = row.offset;
    }
    parts.push(...shape(row, lines, y, isNarrow));
  });
  const title = `Between ${short(pair.impolite)} and ${short(pair.polite)}: ${pair.text}`;
  return makeSvg('svg', { role: 'img', 'aria-label': title, viewBox: `0 0 ${width} ${height}`, width, height }, ...parts);
}

/** The same in words, for whoever cannot see it. @param {Row[]} rows @param {[string, string]} names */
export function describe(rows, names) {
  return make('ol', { class: 'visually-hidden' }, ...rows.map((row) => make('li', {}, row.kind === 'arrow'
    ? `${names[row.side]} to ${names[1 - row.side]}: ${row.label}${row.span}${row.lost === null ? '' : `, ${row.lost}`}`
    : `${names[row.side]}: ${row.label}`)));
}

function arrowHeads() {
  const marker = (/** @type {string} */ tone) => makeSvg('marker', { id: `head-${tone}`, viewBox: '0 0 10 10', refX: 9, refY: 5, markerWidth: 8, markerHeight: 8, orient: 'auto-start-reverse', class: `fill ${tone}` }, makeSvg('path', { d: 'M0 0L10 5L0 10Z' }));
  return makeSvg('defs', {}, ...['offer', 'answer', 'candidate', 'rollback'].map(marker));
}

/** @param {number} x @param {number} side @param {string} name @param {string} role */
function head(x, side, name, role) {
  const width = Math.min(2 * side - 2, 150);
  return [
    makeSvg('rect', { class: 'seq-head', x: x - width / 2, y: 4, width, height: 44, rx: 9 }),
    makeSvg('text', { class: 'seq-name', x, y: 23, 'text-anchor': 'middle' }, name),
    makeSvg('text', { class: 'seq-role', x, y: 39, 'text-anchor': 'middle' }, role),
  ];
}

/**
 * @param {Row[]} rows
 * @param {number[]} lines
 * @param {(at: number) => number} middle
 * @param {number} height
 */
function lifelines(rows, lines, middle, height) {
  return lines.flatMap((x, side) => {
    const parts = [];
    // Who was there before what is kept has been there from the beginning.
    let [life, from] = [/** @type {string} */ ('here'), 48];
    const first = rows.findIndex((row) => row.kind === 'state' && row.side === side);
    const opening = rows[first];
    if (opening?.kind === 'state' && opening.life === 'here') life = 'before';
    rows.forEach((row, at) => {
      if (row.kind !== 'state' || row.side !== side) return;
      parts.push(makeSvg('line', { class: `seq-life ${life}`, x1: x, x2: x, y1: from, y2: middle(at) }));
      [life, from] = [row.life, middle(at)];
    });
    parts.push(makeSvg('line', { class: `seq-life ${life}`, x1: x, x2: x, y1: from, y2: height - 4 }));
    return parts;
  });
}

/** @param {Row} row @param {number[]} lines @param {number} y @param {boolean} isNarrow @returns {SVGElement[]} */
function shape(row, lines, y, isNarrow) {
  const [from, to] = [lines[row.side], lines[1 - row.side]];
  const toward = Math.sign(to - from);
  const middle = (from + to) / 2;
  const label = (/** @type {string} */ text, /** @type {string} */ tone) => makeSvg('text', { class: `seq-label ${tone}`, x: middle, y: y - 6, 'text-anchor': 'middle' }, text);
  switch (row.kind) {
    case 'arrow': {
      const told = isNarrow ? row.label : `${row.label}${row.span}`;
      if (row.lost === null) {
        return [makeSvg('line', { class: `seq-arrow ${row.tone}`, x1: from, x2: to - toward * 3, y1: y, y2: y, 'marker-end': `url(#head-${row.tone})` }), label(told, row.tone)];
      }
      const end = from + (to - from) * 0.62;
      return [
        makeSvg('line', { class: `seq-arrow ${row.tone}`, x1: from, x2: end, y1: y, y2: y }), ...cross(end, y), label(told, row.tone),
        makeSvg('text', { class: 'seq-label missing', x: middle, y: y + 16, 'text-anchor': 'middle' }, row.lost),
      ];
    }
    case 'missing': return [
      makeSvg('line', { class: 'seq-arrow missing', x1: from, x2: to - toward * 12, y1: y, y2: y }), ...cross(to - toward * 8, y), label(row.label, 'missing'),
    ];
    default: {
      const anchor = row.side === 0 ? 'start' : 'end';
      const life = row.kind === 'state' ? row.life : 'note';
      return [
        makeSvg('circle', { class: `seq-dot ${life}`, cx: from, cy: y, r: 5 }),
        makeSvg('text', { class: `seq-label ${life}`, x: from + toward * 12, y: y + 4, 'text-anchor': anchor }, row.label),
      ];
    }
  }
}

/** @param {number} x @param {number} y */
function cross(x, y) {
  return [makeSvg('path', { class: 'seq-cross', d: `M${x - 5} ${y - 5}L${x + 5} ${y + 5}M${x + 5} ${y - 5}L${x - 5} ${y + 5}` })];
}

// Draws docs/images/scale-*.svg from the figures in docs/scale.md:
//
//     node benches/scale/picture.mjs
//
// web/test/pictures.test.js fails where they are not what comes out, or where the page tells something else of them to those who do not see them.

import { readFileSync, realpathSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

import { NARROW, WIDE, draw } from './plot.mjs';

/** @typedef {import('./plot.mjs').Picture} Picture */
/** @typedef {import('./plot.mjs').Panel} Panel */
/** @typedef {import('./plot.mjs').Group} Group */
/** @typedef {import('./plot.mjs').Bar} Bar */
/** @typedef {import('./plot.mjs').Kind} Kind */

const docs = new URL('../../docs/', import.meta.url);

/** How many sessions there are for each that leaves in a second. */
const RATE = /one in (\d+) a second/;

/** How a page says none. */
const NONE = '–';

/** The cells of the first table below a heading, that of column names first. @param {string} page @param {string} heading @returns {string[][]} */
function table(page, heading) {
  const section = page.split(/^## /m).find((section) => section.startsWith(`${heading}\n`));
  const lines = section?.match(/^\|.*\|$(?:\n\|.*\|$)*/m)?.[0].split('\n');
  if (!lines) throw new Error(`docs/scale.md has no table below "## ${heading}"`);
  const rows = lines.map((line) => line.slice(1, -1).split('|').map((cell) => cell.trim()));
  return rows.filter((_, at) => at !== 1);
}

/** The cells of the row of that name. @param {string[][]} rows @param {string} name */
function row(rows, name) {
  const found = rows.find(([first]) => first === name);
  if (!found) throw new Error(`docs/scale.md has no row "${name}"`);
  return found.slice(1);
}

/** What the sentences say. @param {string} page @param {RegExp} pattern @returns {number[]} */
function said(page, pattern) {
  const found = page.match(pattern);
  if (!found) throw new Error(`docs/scale.md says nothing like ${pattern}`);
  return found.slice(1).map((figure) => number(figure));
}

/** @param {string} figure such as "47,485" or "1 node" */
function number(figure) {
  const value = Number.parseFloat(figure.replaceAll(',', ''));
  if (Number.isNaN(value)) throw new Error(`docs/scale.md has "${figure}" where a number should be`);
  return value;
}

/** Every unit with its number. @param {string} cell such as "2.0 s, 69,000, 27 MB" @returns {string[]} */
const figures = (cell) => cell.split(', ');

const MICROSECONDS = { 'µs': 1, ms: 1000, s: 1_000_000 };

/** @param {string} figure such as "129 µs CPU" or "2.0 s" */
function microseconds(figure) {
  const unit = /** @type {keyof typeof MICROSECONDS | undefined} */ (figure.match(/^[\d.,]+ (µs|ms|s)(?= |$)/)?.[1]);
  if (!unit) throw new Error(`docs/scale.md has "${figure}" where a time in µs, ms or s should be`);
  return number(figure) * MICROSECONDS[unit];
}

/** With so many digits that say something. @param {number} value */
const short = (value) => value < 1 ? String(Number(value.toPrecision(1))) : Number(value.toPrecision(2)).toLocaleString('en');

/** @param {number[]} values */
const range = (values) => `${Math.min(...values)} to ${Math.max(...values)}`;

/** What each step takes beside the one before, in the order in which they stand in the table. @type {[string, Kind, string][]} */
const STEPS = [
  ['between two members at one node', 'wigwag', 'a message between two at one node'],
  ['between two at two nodes', 'other', 'more at two nodes'],
  ['… until `ok`', 'ok', 'more until ok is back'],
  ['… until `ok`, with `--cluster-durable`', 'durable', 'more with --cluster-durable'],
];
const BARE = 'a bare NATS request';

/** @param {string} name @param {number} total @param {number} before of the step before */
function more(name, total, before) {
  if (total < before) throw new Error(`docs/scale.md has "${name}" take less than the step before, which the picture cannot show`);
  return total - before;
}

/** What the steps of a message cost over each transport. @param {string} page @returns {{ picture: Picture, alt: string }} */
export function message(page) {
  const heading = 'What a message costs between two nodes';
  const rows = table(page, heading);
  /** The figures of each transport. @param {string} name @param {number} at */
  const costs = (name, at) => row(rows, name).map((cell) => microseconds(figures(cell)[at]));
  /** @param {number} at @returns {Group[]} */
  const groups = (at) => rows[0].slice(1).map((head, transport) => {
    const totals = STEPS.map(([name]) => costs(name, at)[transport]);
    const parts = STEPS.map(([name, kind], step) => ({ kind, value: more(name, totals[step], totals[step - 1] ?? 0), below: `${totals[step]}` }));
    const bare = costs(BARE, at)[transport];
    return { head: `${head}, µs`, bars: [{ parts }, { parts: [{ kind: 'raw', value: bare }], figure: `${bare}` }] };
  });
  const [alone, apart, accepted, stored] = STEPS.map(([name]) => range(costs(name, 0)));
  return {
    picture: {
      title: heading,
      legend: [...STEPS.map(([, kind, words]) => /** @type {[Kind, string]} */ ([kind, words])), ['raw', `beside it, ${BARE}`]],
      panels: [
        { head: 'Time', measured: 'until the message has come, or until its sender has ok', groups: groups(0) },
        { head: 'Processor time', measured: 'of all servers together, NATS among them', groups: groups(1) },
      ],
      foot: 'Less is better. Figures add up from left to right. Medians, one message in flight.',
    },
    alt: `Bars for three transports: a message takes ${alone} µs between two at one node, ${apart} at two nodes, ${accepted} until ok, `
      + `${stored} until ok of a durable session; ${BARE} takes ${range(costs(BARE, 0))} µs`,
  };
}

/**
 * A column of the simulation's table, of which the figures are those of members who leave and come.
 * @typedef {{ name: string, nodes: number, memory: number[], packets: number, processor: number }} Cluster
 * memory: KiB of a session, before the bus comes and after; packets: a second, of all nodes; processor: of a node, in percent
 */

/** @param {string} page @returns {Cluster[]} */
function clusters(page) {
  const rows = table(page, 'A cluster simulated');
  const [rate] = said(page, RATE);
  const cells = {
    memory: row(rows, 'resident memory a session: before the bus comes, after'),
    changes: row(rows, 'members leave and come: how many in all'),
    cost: row(rows, '… CPU, texts, bytes'),
  };
  const sessions = row(rows, 'sessions').map(number);
  return rows[0].slice(1).map((name, at) => {
    const [processor, texts = '0'] = figures(cells.cost[at]);
    const nodes = number(name);
    // As long as so many take at that rate: the simulation rounds it, and takes somewhat longer.
    const seconds = number(cells.changes[at]) * rate / sessions[at];
    const memory = cells.memory[at] === NONE ? [] : figures(cells.memory[at]).map(number);
    return {
      name: `${name}, ${short(sessions[at])}`, nodes, memory,
      packets: number(texts) * nodes / seconds, processor: microseconds(processor) / seconds / 10_000,
    };
  });
}

/** How many it takes to open a room: every other node is asked, and answers. @param {number} nodes */
const notes = (nodes) => 2 * (nodes - 1);

/** @param {string} name @param {number} value @param {string} figure @param {Kind} kind @returns {Bar} */
const bar = (name, value, figure, kind = 'wigwag') => ({ name, parts: [{ kind, value }], figure });

/** @param {Cluster[]} joined those of several nodes @param {number} least @param {number} most @returns {Panel} */
function memoryPanel(joined, least, most) {
  const alone = joined[0].memory[0];
  const hub = joined.map(({ name, memory: [, after] }) => bar(name, after, `${after}`));
  return {
    head: 'One node, or ten: memory of transports, and TLS',
    measured: 'memory of a session, KiB',
    groups: [
      { head: 'for its transport', bars: [bar('the least', least, `${least}`, 'other'), bar('the most', most, `${most}`, 'other')] },
      { head: 'in the hub, by nodes and sessions', bars: [bar('alone', alone, `${alone}`), ...hub] },
    ],
  };
}

/** @param {Cluster[]} all @param {Cluster} largest @param {number} rate @returns {Panel} */
function packetsPanel(all, largest, rate) {
  const bars = all.map((each) => bar(each.name, each.packets, short(each.packets), each === largest ? 'other' : 'wigwag'));
  return {
    head: 'A hundred: packets through NATS',
    measured: `in a second, in which one of ${rate} sessions leaves and one comes`,
    groups: [{ head: 'by nodes and sessions', bars }],
  };
}

/** @param {Cluster[]} all @returns {Panel} */
function notesPanel(all) {
  const sizes = [...new Set(all.map(({ nodes }) => nodes))];
  return {
    head: 'Why: a room that is opened asks all nodes',
    measured: 'notes for each, there and back',
    groups: [{ bars: sizes.map((nodes) => bar(nodes === 1 ? '1 node' : `${nodes} nodes`, notes(nodes), `${notes(nodes)}`)) }],
  };
}

/** @param {Cluster[]} all @returns {Panel} */
function processorPanel(all) {
  return {
    head: 'A node’s own processor has time left',
    measured: 'at the same load, % of one processor, without sockets, TLS and NATS client',
    whole: 100,
    groups: [{ head: 'by nodes and sessions', bars: all.map(({ name, processor }) => bar(name, processor, short(processor))) }],
  };
}

/** What gives way first, by number of nodes. @param {string} page @returns {{ picture: Picture, alt: string }} */
export function limits(page) {
  const all = clusters(page);
  const joined = all.filter(({ memory }) => memory.length > 0);
  const [first, largest] = [joined[0], joined[joined.length - 1]];
  const [rate] = said(page, RATE);
  const [least, most] = said(page, /\((\d+) to (\d+) KiB against \d+\)/);
  const [asked] = said(page, /(\d+) notes, some \d+ packets/);
  if (asked !== notes(largest.nodes)) throw new Error(`docs/scale.md says ${asked} notes where ${largest.nodes} nodes make ${notes(largest.nodes)}`);
  return {
    picture: {
      title: 'What gives way first',
      legend: [['other', 'what gives way first'], ['wigwag', 'what does not']],
      panels: [memoryPanel(joined, least, most), packetsPanel(all, largest, rate), notesPanel(all), processorPanel(all)],
      foot: 'Simulated, but for the memory of transports, which is measured. Rooms of four, each member at another node. '
        + 'Acknowledgements and beats are among the packets.',
    },
    alt: `Bars: a session takes ${least} to ${most} KiB for its transport, and ${range(joined.flatMap(({ memory }) => memory))} in the hub; `
      + `packets through NATS grow from ${short(first.packets)} a second (${first.name} sessions) to ${short(largest.packets)} (${largest.name}), `
      + `as a room that is opened takes ${notes(first.nodes)} notes or ${notes(largest.nodes)}; `
      + `a node’s processor is busy with them for ${short(largest.processor)} % at most`,
  };
}

/** All files, by name. @param {string} page @returns {Map<string, string>} */
export function pictures(page) {
  const drawn = Object.entries({ 'scale-message': message(page).picture, 'scale-limits': limits(page).picture });
  return new Map(drawn.flatMap(([name, picture]) => [
    [`${name}.svg`, draw(picture, WIDE)],
    [`${name}-narrow.svg`, draw(picture, NARROW)],
  ]));
}

if (process.argv[1] && realpathSync(process.argv[1]) === fileURLToPath(import.meta.url)) {
  const page = readFileSync(new URL('scale.md', docs), 'utf8');
  for (const [name, svg] of pictures(page)) writeFileSync(new URL(`images/${name}`, docs), svg);
}

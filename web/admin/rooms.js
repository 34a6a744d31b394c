// The list of rooms, as a table that goes on living while it is read.

/** @import { Ended, Rooms } from './api.js' */

import { byId, make, setText } from '../demo/dom.js';
import { reconcile } from './dom.js';
import { lasted, ofState, size } from './words.js';

/** Rooms on a page of the list. */
export const pageSize = 50;

/** @typedef {{name: string, members: string, state: import('./api.js').State|null, unread: string, age: string, locked: boolean}} Line */

const body = byId('rooms-body', HTMLTableSectionElement);

/** @param {Rooms} rooms @param {number} nowMs  by the server's clock */
export function showRooms(rooms, nowMs) {
  show(rooms.rooms.map((room) => ({
    name: room.room, state: room.negotiation, locked: room.locked, age: lasted(nowMs - room.openedMs),
    members: members(room), unread: room.queuedMessages === 0 ? '–' : `${room.queuedMessages}, ${size(room.queuedBytes)}`,
  })), rooms, rooms.total === 0 ? 'Nobody is in a room.' : 'No open room has such a name.');
}

/** @param {Ended} ended */
export function showEnded(ended) {
  show(ended.rooms.map(({ room, endedSecondsAgo }) => ({
    name: room, state: null, locked: false, age: `${lasted(endedSecondsAgo * 1000)} ago`, members: '–', unread: '–',
  })), ended, ended.total === 0 ? 'No room has ended lately.' : 'No room of such a name has ended lately.');
}

/** @param {Line[]} lines @param {{offset: number, matching: number}} part @param {string} nothing */
function show(lines, { offset, matching }, nothing) {
  reconcile(body, lines, (line) => line.name, create, update);
  const empty = byId('rooms-empty', HTMLElement);
  empty.hidden = lines.length > 0;
  setText(empty, nothing);
  setText(byId('page-text', HTMLElement), lines.length === 0 ? `0 of ${matching}` : `${offset + 1}–${offset + lines.length} of ${matching}`);
  byId('page-back', HTMLButtonElement).disabled = offset === 0;
  byId('page-on', HTMLButtonElement).disabled = offset + lines.length >= matching;
}

/** @param {Line} line */
function create({ name }) {
  return make('tr', {},
    make('th', { scope: 'row' }, make('a', { href: `#room=${name}` }, name), make('span', { class: 'chip', hidden: true }, 'locked')),
    make('td', { class: 'number' }), make('td', {}, make('span', { class: 'chip' })), make('td', { class: 'number' }), make('td', { class: 'number' }));
}

/** @param {HTMLElement} row @param {Line} line */
function update(row, { members: count, state, unread, age, locked }) {
  const [name, first, second, third, fourth] = [...row.children];
  /** @type {HTMLElement} */ (name.lastElementChild).hidden = !locked;
  setText(first, count);
  const chip = /** @type {HTMLElement} */ (second.firstElementChild);
  const { label, tone } = ofState(state);
  chip.dataset.tone = tone;
  setText(chip, label);
  setText(third, unread);
  setText(fourth, age);
}

/** @param {import('./api.js').Room} room */
function members({ here, away, waiting }) {
  const more = [away > 0 ? `${away} away` : '', waiting > 0 ? `${waiting} waiting` : ''].filter((text) => text !== '');
  return more.length === 0 ? String(here) : `${here} (${more.join(', ')})`;
}

// The view of everybody: one tile each, laid out anew whenever people or sizes change.

import { byId } from './dom.js';
import { duet, grid, spotlight } from './layout.js';
import { Tile } from './tile.js';

/** @import { Participant } from './meeting.js' */

export class Stage {
  #stage = byId('stage', HTMLElement);
  #list = byId('tiles', HTMLElement);
  /** @type {Map<string, Tile>} */
  #tiles = new Map();
  /** @type {Participant[]} */
  #participants = [];
  /** Who is shown large by choice. @type {string|null} */
  #pinned = null;
  #speakerId = '';
  /** The one who looks may remove the others. */
  #moderates = false;
  #calls;

  /**
   * @param {object} calls
   * @param {() => void} calls.blocked  the browser lets nothing sound before a click
   * @param {(participant: Participant) => void} calls.remove  a moderator wants somebody out
   */
  constructor(calls) {
    this.#calls = calls;
    new ResizeObserver(() => this.#arrange()).observe(this.#stage);
  }

  /** @param {Participant[]} participants oneself last @param {{moderates: boolean}} viewer */
  show(participants, { moderates }) {
    this.#participants = participants;
    this.#moderates = moderates;
    this.#removeTheGone();
    const large = this.#large();
    for (const participant of participants) {
      this.#tileOf(participant).show(participant, {
        isPinned: large?.id === participant.id, isRemovable: moderates && !participant.self,
      });
    }
    this.#arrange();
  }

  /** Plays what the browser had held back; to be called from a click. */
  play() {
    for (const tile of this.#tiles.values()) tile.play();
  }

  /** @param {string} id of a loudspeaker, '' for the default */
  setSpeaker(id) {
    this.#speakerId = id;
    for (const tile of this.#tiles.values()) tile.setSpeaker(id);
  }

  clear() {
    this.#pinned = null;
    this.show([], { moderates: false });
  }

  #removeTheGone() {
    // Oneself is known by another id once the server has given one, and keeps the tile.
    const present = new Set(this.#participants.map(keyOf));
    for (const [key, tile] of this.#tiles) {
      if (present.has(key)) continue;
      tile.remove();
      this.#tiles.delete(key);
      if (key === this.#pinned) this.#pinned = null;
    }
  }

  /** @param {Participant} participant */
  #tileOf(participant) {
    const key = keyOf(participant);
    const known = this.#tiles.get(key);
    if (known) return known;
    const tile = new Tile(participant, {
      pin: () => this.#togglePin(key),
      remove: () => this.#removeByHand(key),
      blocked: this.#calls.blocked,
    });
    if (this.#speakerId) tile.setSpeaker(this.#speakerId);
    this.#tiles.set(key, tile);
    this.#list.append(tile.element);
    return tile;
  }

  /** @param {string} key */
  #togglePin(key) {
    this.#pinned = this.#pinned === key ? null : key;
    this.show(this.#participants, { moderates: this.#moderates });
  }

  /** @param {string} key */
  #removeByHand(key) {
    const participant = this.#participants.find((one) => keyOf(one) === key);
    if (participant) this.#calls.remove(participant);
  }

  /** Who is shown large: by choice, or as the first of the others who shows a screen. */
  #large() {
    return this.#participants.find((participant) => keyOf(participant) === this.#pinned)
      ?? this.#participants.find(({ screen, self }) => screen && !self);
  }

  #arrange() {
    const { clientWidth: width, clientHeight: height } = this.#stage;
    const count = this.#participants.length;
    if (count === 0 || width === 0 || height === 0) return;
    const large = this.#large();
    const isDuet = count === 2 && (large === undefined || !large.self);
    const ordered = large ? [large, ...this.#participants.filter((participant) => participant !== large)] : this.#participants;
    const places = isDuet ? duet({ width, height }) : (large ? spotlight : grid)(count, { width, height });
    ordered.forEach((participant, index) => this.#tileOf(participant).place(places[index], isDuet && participant.self));
    this.#stage.classList.toggle('scrolls', Math.max(...places.map(({ y, height: own }) => y + own)) > height + 1);
  }
}

/** @param {Participant} participant */
function keyOf({ id, self }) {
  return self ? 'self' : id;
}

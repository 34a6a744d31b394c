// What worked on this network and what did not: for the page's life, and for the tab's where there is a store.

import { transportTypes } from './discovery.js';

/** @import { TransportType } from './discovery.js' */

export class TransportMemory {
  #storage;
  #demotedMs;
  /** @type {Map<string, TransportType>} */
  #winners = new Map();
  /** When each was demoted. @type {Map<string, number>} */
  #demotions = new Map();

  /**
   * @param {Pick<Storage, 'getItem'|'setItem'>|null} storage
   * @param {number} demotedMs how long a demotion holds
   */
  constructor(storage, demotedMs) {
    this.#storage = storage;
    this.#demotedMs = demotedMs;
  }

  /** @param {string} place network and origin @returns {TransportType|null} */
  winner(place) {
    return this.#winners.get(place) ?? this.#stored(place);
  }

  /** @param {string} place @param {TransportType} type */
  remember(place, type) {
    this.#winners.set(place, type);
    try {
      this.#storage?.setItem(keyOf(place), type);
    } catch {
      // A full or forbidden store costs the memory beyond this page, nothing else.
    }
  }

  /** @param {string} place @param {TransportType} type */
  demote(place, type) {
    this.#demotions.set(`${place} ${type}`, Date.now());
  }

  /** @param {string} place @returns {Set<TransportType>} */
  demoted(place) {
    return new Set(transportTypes.filter((type) => {
      const since = this.#demotions.get(`${place} ${type}`);
      return since !== undefined && Date.now() - since < this.#demotedMs;
    }));
  }

  /** @param {string} place @returns {TransportType|null} */
  #stored(place) {
    try {
      const type = this.#storage?.getItem(keyOf(place));
      return transportTypes.find((known) => known === type) ?? null;
    } catch {
      return null;
    }
  }
}

/** @param {string} place */
const keyOf = (place) => `wigwag transport ${place}`;

// The promises of what the application has asked: one an id.

import { WigwagError } from './errors.js';

/** @typedef {{resolve: (answer: any) => void, reject: (error: WigwagError) => void}} Caller */
/** @typedef {{sentAt: number, resolve: (ms: number) => void, reject: (error: WigwagError) => void}} Ping */

export class Calls {
  /** @type {Map<number, Caller>} */
  #requests = new Map();
  /** @type {Map<number, Ping>} */
  #pings = new Map();

  /** @param {number} id @param {Caller} caller */
  addRequest(id, caller) {
    this.#requests.set(id, caller);
  }

  /**
   * @param {number} id
   * @param {{answer?: any, error?: WigwagError|null}} outcome  `answer`: the `ok`, which some requests are told more by
   * @returns {boolean} whether a call waited for it
   */
  settle(id, { answer, error }) {
    const caller = this.#requests.get(id);
    this.#requests.delete(id);
    if (error) caller?.reject(error);
    else caller?.resolve(answer);
    return caller !== undefined;
  }

  get pingCount() {
    return this.#pings.size;
  }

  /** @param {number} id @returns {Promise<number>} the round trip in milliseconds */
  addPing(id) {
    return new Promise((resolve, reject) => {
      this.#pings.set(id, { sentAt: performance.now(), resolve, reject });
    });
  }

  /** @param {number} id @returns {number|null} the round trip, where a ping of this id waited */
  pong(id) {
    const ping = this.#pings.get(id);
    if (ping === undefined) return null;
    this.#pings.delete(id);
    const ms = performance.now() - ping.sentAt;
    ping.resolve(ms);
    return ms;
  }

  /** A ping does not outlive its link. */
  rejectPings() {
    const error = new WigwagError('unreachable', 'the connection was lost');
    for (const { reject } of this.#pings.values()) reject(error);
    this.#pings.clear();
  }

  /** @param {WigwagError} error */
  rejectAll(error) {
    this.rejectPings();
    for (const { reject } of this.#requests.values()) reject(error);
    this.#requests.clear();
  }
}

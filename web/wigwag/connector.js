// Finds the ways to the server: discovery, ladder, what has worked here before, and the waits between tries.

import { backoff, politeDelay } from './backoff.js';
import { discover } from './discovery.js';
import { WigwagError } from './errors.js';
import { ladder, rungsAbove } from './ladder.js';
import { TransportMemory } from './memory.js';

/**
 * @import { Offer, TransportType } from './discovery.js'
 * @import { Environment } from './environment.js'
 * @import { Rung } from './ladder.js'
 * @import { Timing } from './timing.js'
 */

/** One memory for the page: what one session has found out helps the next. @type {TransportMemory|undefined} */
let pageMemory;

export class Connector {
  #origin;
  #room;
  #order;
  #environment;
  #timing;
  #memory;
  /** What the server offered last. @type {Offer[]} */
  #offers = [];
  /** What the discovery took when it last came, in milliseconds. */
  #discoveryMs = Infinity;
  /** Ends the wait in progress. @type {(force: boolean) => void} */
  #endWait = () => {};
  /** The next wait is left out: somebody has asked to connect now. */
  #hurry = false;

  /**
   * @param {{origin: string, room: string, order?: readonly TransportType[]}} target
   * @param {Environment & {memory?: TransportMemory}} environment
   * @param {Timing} timing
   */
  constructor({ origin, room, order }, environment, timing) {
    this.#origin = origin;
    this.#room = room;
    this.#order = order;
    this.#environment = environment;
    this.#timing = timing;
    this.#memory = environment.memory ?? (pageMemory ??= new TransportMemory(environment.storage, timing.demotedMs));
  }

  /**
   * Asks the server anew.
   * @returns {Promise<Rung[]>} at least one; what won here before goes first
   * @throws {WigwagError} `unreachable`, `unsupported`
   */
  async rungs() {
    this.#hurry = false;
    const rungs = await this.#ladder(this.#memory.winner(this.#place()));
    if (rungs.length > 0) return rungs;
    const offered = this.#offers.map(({ type }) => type).join(', ') || 'nothing';
    throw new WigwagError('unsupported', `no transport is left to try: the server offers ${offered}`);
  }

  /**
   * The same for a session that has a link: what won before has no advantage.
   * @param {TransportType} [current] only what stands above it
   * @returns {Promise<Rung[]>}
   */
  async rungsToMove(current) {
    const rungs = await this.#ladder(null);
    return current === undefined ? rungs : rungsAbove(rungs, current, this.#memory.demoted(this.#place()));
  }

  /**
   * All ways that the server offered last, at once: for when the network is doubtful, and so would be another question.
   * @returns {Rung[]}
   */
  knownRungs() {
    return this.#sort(null);
  }

  /** @param {TransportType|null} winner */
  async #ladder(winner) {
    this.#offers = await this.#latestOffers();
    return this.#sort(winner);
  }

  /** @param {TransportType|null} winner */
  #sort(winner) {
    const { supports, secure } = this.#environment;
    return ladder(this.#offers, {
      order: this.#order,
      supported: supports,
      secure,
      winner,
      demoted: this.#memory.demoted(this.#place()),
      headStartMs: this.#timing.headStartMs,
      streamPatienceMs: this.#streamPatienceMs(),
    });
  }

  #streamPatienceMs() {
    const { patienceMs, streamPatienceMs } = this.#timing;
    return Math.min(patienceMs, Math.max(streamPatienceMs, 4 * this.#discoveryMs));
  }

  /**
   * A browser keeps sending requests into an HTTP connection that has died without a word, for a minute or more; new
   * transports open connections of their own. So when the discovery is slow to come again, what it said last must do.
   * @returns {Promise<Offer[]>}
   */
  async #latestOffers() {
    const known = this.#offers;
    const { discoveryMs, rediscoveryMs } = this.#timing;
    const patienceMs = known.length > 0 ? rediscoveryMs : discoveryMs;
    const startedAt = performance.now();
    try {
      const offers = await discover(this.#environment.fetch, this.#origin, this.#room, patienceMs);
      this.#discoveryMs = performance.now() - startedAt;
      return offers;
    } catch (error) {
      const isLate = /** @type {any} */ (error)?.cause?.name === 'TimeoutError';
      if (isLate && known.length > 0) return known;
      throw error;
    }
  }

  /** Where transports work or do not: the server's origin and the kind of network. */
  #place() {
    return `${this.#origin} ${this.#environment.network()}`;
  }

  /** @param {TransportType} type that has just worked */
  remember(type) {
    this.#memory.remember(this.#place(), type);
  }

  /** @param {TransportType} type that worked and died soon: it goes to the end for a while */
  demote(type) {
    this.#memory.demote(this.#place(), type);
  }

  /**
   * Waits before the next try.
   * @param {number} attempt tries that have failed in a row before this one
   * @param {number} [retryAfterMs] what the server has asked for
   */
  wait(attempt, retryAfterMs) {
    const isAsked = retryAfterMs !== undefined;
    if (this.#hurry && !isAsked) return Promise.resolve();
    const { backoffBaseMs: baseMs, backoffCapMs: capMs } = this.#timing;
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, isAsked ? politeDelay(retryAfterMs) : backoff(attempt, { baseMs, capMs }));
      this.#endWait = (force) => {
        // What the server has asked for holds, whoever is in a hurry.
        if (isAsked && !force) return;
        clearTimeout(timer);
        resolve(undefined);
      };
    });
  }

  /** Lets the wait in progress, or else the next one, end at once. */
  hurry() {
    this.#hurry = true;
    this.#endWait(false);
  }

  /** Ends the wait in progress for good. */
  stop() {
    this.#endWait(true);
  }

  /**
   * What the server has noted of the seat.
   * @param {string} ticket
   * @returns {Promise<string>}
   */
  async fetchLog(ticket) {
    const offer = this.#plainOffer();
    if (offer === undefined) throw new WigwagError('unreachable', 'the server has not told where its log is');
    const answer = await this.#environment.fetch(`${offer.url}/log`, { headers: { 'wigwag-ticket': ticket } });
    if (!answer.ok) throw new WigwagError('unreachable', `the server answered ${answer.status}`);
    return answer.text();
  }

  /** A transport that plain requests go to. */
  #plainOffer() {
    return this.#offers.find(({ type }) => type === 'event-stream' || type === 'long-poll');
  }

  /**
   * Says `leave` by a request that outlives its page: what a page writes on a link as it goes may go with it. Said twice
   * under one id, it is done once.
   * @param {string} line
   * @param {{ticket: string|null, knock: string|null}} seat  `knock`: the `join` of one who waits to be let in, and has no
   *   ticket yet; with neither there is nothing to leave
   */
  postLeave(line, { ticket, knock }) {
    const offer = this.#plainOffer();
    if (offer === undefined) return;
    const type = 'application/x-ndjson';
    /** @type {[string, Record<string, string>, string]|null} */
    const request = ticket !== null ? ['/messages', { 'wigwag-ticket': ticket }, line]
      : knock !== null ? ['', { accept: type, prefer: 'wait=0' }, `${knock}\n${line}`] : null;
    if (request === null) return;
    const [path, headers, body] = request;
    this.#environment.fetch(`${offer.url}${path}`, {
      method: 'POST', headers: { 'content-type': type, ...headers }, body: `${body}\n`, keepalive: true,
    }).catch(() => {}); // Then the seat is freed when its resume window ends.
  }
}

// This side's half of a session that outlives its transports: ids, pending requests, sequence numbers, acknowledgements
// and tickets. Pure: no clock, no I/O.

import { WigwagError } from './errors.js';

/** An acknowledgement is due after this many messages; the protocol wants one at least every 32. */
const ackEvery = 16;

/** What may wait for an answer, or for a link while there is none. */
const maxPending = 1024;
const maxPendingBytes = 1024 * 1024;

/** A frame's limit until `joined` has told the server's. */
const defaultFrameBytes = 160 * 1024;

/** @typedef {{id: number, line: string, bytes: number}} Request */

export class Seat {
  /** @type {string|null} */
  #ticket = null;
  #key;
  #makeKey;
  #lastSeq = 0;
  #ackedSeq = 0;
  #lastId = 0;
  /** Answers to requests up to here may be among what was lost in a hole: no replay brings them. */
  #unsureTo = 0;
  #frameBytes = defaultFrameBytes;
  /** In the order of their ids. @type {Map<number, Request>} */
  #pending = new Map();
  #pendingBytes = 0;

  /** @param {() => string} [makeKey] 128 random bits as text */
  constructor(makeKey = randomKey) {
    this.#makeKey = makeKey;
    this.#key = makeKey();
  }

  get ticket() {
    return this.#ticket;
  }

  get lastSeq() {
    return this.#lastSeq;
  }

  get pendingCount() {
    return this.#pending.size;
  }

  /**
   * The first line of a link: `resume` where there is a seat, `join` where there is none.
   * @param {{metadata?: object, token?: string}} member `token` in a `resume` renews the session's
   * @returns {string}
   */
  greeting({ metadata, token }) {
    return JSON.stringify(this.#ticket === null
      ? { type: 'join', token, metadata, key: this.#key }
      : { type: 'resume', ticket: this.#ticket, seq: this.#lastSeq, token });
  }

  /** The next free id, for a request or a `ping`. */
  takeId() {
    this.#lastId += 1;
    return this.#lastId;
  }

  /**
   * Enters a request, to be kept until it is answered.
   * @param {object} message without `id`
   * @returns {Request}
   * @throws {WigwagError} `tooLarge`, `queueFull`
   */
  request(message) {
    const id = this.takeId();
    const line = JSON.stringify({ ...message, id });
    const bytes = byteLength(line);
    if (bytes > this.#frameBytes) {
      throw new WigwagError('tooLarge', `the message has ${bytes} bytes, the server takes ${this.#frameBytes}`);
    }
    if (this.#pending.size >= maxPending || this.#pendingBytes + bytes > maxPendingBytes) {
      throw new WigwagError('queueFull', 'too many requests wait for an answer or for a connection');
    }
    const request = { id, line, bytes };
    this.#pending.set(id, request);
    this.#pendingBytes += bytes;
    return request;
  }

  /**
   * Takes a request out, as it has been answered or given up.
   * @param {number} id
   * @returns {boolean} false where none waits under this id
   */
  settle(id) {
    const request = this.#pending.get(id);
    if (request === undefined) return false;
    this.#pending.delete(id);
    this.#pendingBytes -= request.bytes;
    return true;
  }

  /**
   * @param {any} message
   * @returns {'new'|'old'|'gap'} `old`: handled before, ignore it; `gap`: something is missing, resume
   */
  receive({ seq }) {
    if (seq === undefined) return 'new';
    if (seq <= this.#lastSeq) return 'old';
    if (seq > this.#lastSeq + 1) return 'gap';
    this.#lastSeq = seq;
    return 'new';
  }

  /** Whether anything is not yet acknowledged, and whether so much that it must not wait. */
  get ack() {
    const open = this.#lastSeq - this.#ackedSeq;
    return open === 0 ? 'none' : open < ackEvery ? 'some' : 'due';
  }

  /** @returns {string} the acknowledgement's line; what it names counts as acknowledged from now on */
  takeAck() {
    this.#ackedSeq = this.#lastSeq;
    return JSON.stringify({ type: 'ack', seq: this.#lastSeq });
  }

  /**
   * The seat was taken up again with nothing lost.
   * @param {any} message
   * @returns {string[]} the lines to send again: what the server has not handled, and what was asked before a hole.
   *   Answers to the rest come by replay
   */
  resumed({ ticket, lastId }) {
    this.#ticket = ticket;
    this.#ackedSeq = this.#lastSeq;
    return [...this.#pending.values()].filter(({ id }) => id > lastId || id <= this.#unsureTo)
      .map(({ line }) => line);
  }

  /** A poll's answer names the next ticket; nothing else has changed. @param {any} message */
  renew({ ticket }) {
    this.#ticket = ticket;
  }

  /**
   * A whole picture came: first, after a hole, or for a new seat.
   * @param {any} message
   * @param {'first'|'same'|'new'} seat
   * @returns {{resend: string[], abandoned: number[]}} lines to send again, and ids whose fate nobody can tell any more.
   *   On the same seat all go again, as answers may be among what was lost: what was handled is only answered
   */
  joined({ ticket, replayFrom, limits }, seat) {
    this.#ticket = ticket;
    // An earlier link may have brought, meanwhile, what this picture was to make up for.
    this.#lastSeq = seat === 'same' ? Math.max(this.#lastSeq, replayFrom - 1) : replayFrom - 1;
    this.#ackedSeq = replayFrom - 1;
    this.#frameBytes = limits?.frameBytes ?? defaultFrameBytes;
    if (seat === 'new') return { resend: [], abandoned: [...this.#pending.keys()] };
    this.#unsureTo = this.#lastId;
    return { resend: [...this.#pending.values()].map(({ line }) => line), abandoned: [] };
  }

  /** The seat is gone; the next greeting asks for a new one. */
  forget() {
    this.#ticket = null;
    this.#key = this.#makeKey();
    this.#lastSeq = 0;
    this.#ackedSeq = 0;
  }
}

function randomKey() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return btoa(String.fromCharCode(...bytes)).replaceAll('+', '-').replaceAll('/', '_').replaceAll('=', '');
}

/** @param {string} text @returns {number} its length in UTF-8 */
export function byteLength(text) {
  return new TextEncoder().encode(text).length;
}

// The way up for transports whose way down is the answer to a POST: lines go by POSTs of their own, one at a time.

import { retryAfterOf } from '../discovery.js';
import { closeCodes } from '../errors.js';
import { byteLength } from '../seat.js';

/** @import { Closing } from '../errors.js' */

/** What one POST carries at most. */
const maxBatchLines = 64;
const maxBatchBytes = 128 * 1024;
/** The Fetch Standard's limit for requests that outlive their page. */
const maxKeepaliveBytes = 60 * 1024;
const postDeadlineMs = 15_000;
/** Refusals by 429 or 503 in a row before the link is given up. */
const maxRefusals = 4;

export class Uplink {
  #url;
  #ticket;
  #fetch;
  #failed;
  #isRetired;
  /** @type {string[]} */
  #waiting = [];
  #busy = false;
  #refusals = 0;

  /**
   * @param {string} roomUrl
   * @param {() => string|null} ticket  the present one
   * @param {typeof globalThis.fetch} fetch
   * @param {(closing: Closing) => void} failed
   * @param {() => boolean} isRetired  whether another link sends what still waits
   */
  constructor(roomUrl, ticket, fetch, failed, isRetired) {
    this.#url = `${roomUrl}/messages`;
    this.#ticket = ticket;
    this.#fetch = fetch;
    this.#failed = failed;
    this.#isRetired = isRetired;
  }

  /** @param {string} line */
  send(line) {
    this.#waiting.push(line);
    if (!this.#busy) this.#drain();
  }

  async #drain() {
    this.#busy = true;
    try {
      while (this.#waiting.length > 0 && !this.#isRetired()) await this.#post(this.#takeBatch());
    } catch (error) {
      // What was not answered goes again, under its ids, when the session resumes.
      this.#waiting = [];
      this.#failed({ error });
    }
    this.#busy = false;
  }

  #takeBatch() {
    let bytes = 0;
    let count = 0;
    for (const line of this.#waiting.slice(0, maxBatchLines)) {
      bytes += byteLength(line) + 1;
      if (count > 0 && bytes > maxBatchBytes) break;
      count += 1;
    }
    return this.#waiting.splice(0, count);
  }

  /** @param {string[]} lines */
  async #post(lines) {
    const body = `${lines.join('\n')}\n`;
    const ticket = this.#ticket();
    const response = await this.#fetch(this.#url, {
      method: 'POST',
      headers: { 'content-type': 'application/x-ndjson', 'wigwag-ticket': ticket ?? '' },
      body,
      keepalive: body.length * 3 <= maxKeepaliveBytes,
      signal: AbortSignal.timeout(postDeadlineMs),
    });
    // An unread body would hold its HTTP/1.1 connection.
    await response.arrayBuffer();
    if (response.status === 429 || response.status === 503) return this.#retry(lines, response);
    // While it was on its way, two polls or more have been answered, each with a new ticket.
    if (response.status === 401 && ticket !== this.#ticket()) return void this.#waiting.unshift(...lines);
    if (!response.ok) throw new Error(`the server answered lines with status ${response.status}`);
    this.#refusals = 0;
  }

  /** @param {string[]} lines @param {Response} response */
  async #retry(lines, response) {
    this.#refusals += 1;
    if (this.#refusals > maxRefusals) throw new Error('the server refuses lines again and again');
    this.#waiting.unshift(...lines);
    await new Promise((resolve) => setTimeout(resolve, retryAfterOf(response) ?? 1_000));
  }
}

/**
 * Reads why a POST was refused (RFC 9457).
 * @param {Response} response not ok
 * @returns {Promise<Closing>} without a `closeCode` where the refusal is not the protocol's, but a proxy's
 */
export async function closingOfResponse(response) {
  const error = new Error(`the server answered with status ${response.status}`);
  if (!response.headers.get('content-type')?.startsWith('application/problem+json')) {
    return { error, retryAfterMs: retryAfterOf(response) };
  }
  const problem = await response.json().catch(() => ({}));
  return {
    code: problem.code,
    closeCode: problem.closeCode ?? closeCodes[problem.code],
    message: problem.detail ?? problem.title,
    retryAfterMs: problem.retryAfterMs ?? retryAfterOf(response),
    error,
  };
}

// Long poll: the last resort, for networks that hold an answer back until it is complete. Each poll is a `resume` whose
// answer is short.

import { LineDecoder } from '../ndjson.js';
import { traceHeaders } from '../traceparent.js';
import { Link } from './link.js';
import { Uplink, closingOfResponse } from './uplink.js';

/** @import { LinkContext } from '../environment.js' */

const waitSeconds = 25;
/**
 * A `resume` on the seat's own transport is answered only when a message waits; the first one must be answered at once,
 * to show that the transport works.
 */
const firstResumeWaitSeconds = 0;
/** An empty answer that comes at once must not make a tight loop. */
const minPollMs = 500;

export class LongPollLink extends Link {
  #url;
  #context;
  #fetch;
  #uplink;
  #stop = new AbortController();
  #isGreeted = false;

  /**
   * @param {string} url
   * @param {LinkContext} context
   * @param {{fetch?: typeof globalThis.fetch}} [environment]
   */
  constructor(url, context, { fetch = (...request) => globalThis.fetch(...request) } = {}) {
    super('long-poll');
    this.quietMs = waitSeconds * 1000;
    this.needsAck = false;
    this.#url = url;
    this.#context = context;
    this.#fetch = fetch;
    this.#uplink = new Uplink(url, context.ticket, fetch, (closing) => this.end(closing), () => this.isRetired);
  }

  /** There is nothing to open before the greeting, which is the first poll. @override */
  async open() {}

  /** @override @param {string} line */
  send(line) {
    if (this.#isGreeted) return this.#uplink.send(line);
    this.#isGreeted = true;
    this.#pollOn(line).catch((error) => this.end({ error }));
  }

  /** @param {string} greeting */
  async #pollOn(greeting) {
    let wait = JSON.parse(greeting).type === 'resume' ? firstResumeWaitSeconds : waitSeconds;
    let trace = traceHeaders(this.#context.traceparent());
    // A poll of one that is left would take the seat back.
    while (!this.isOver && !this.isRetired) {
      const startedAt = Date.now();
      const count = await this.#poll(greeting, wait, trace);
      wait = waitSeconds;
      trace = {};
      if (count === 0) await new Promise((resolve) => setTimeout(resolve, startedAt + minPollMs - Date.now()));
      greeting = this.#context.greeting();
    }
  }

  /**
   * @param {string} greeting
   * @param {number} wait in seconds
   * @param {Record<string, string>} trace  headers of the poll that opens
   * @returns {Promise<number>} how many messages came
   */
  async #poll(greeting, wait, trace) {
    const response = await this.#fetch(this.#url, {
      method: 'POST',
      headers: { 'content-type': 'application/x-ndjson', accept: 'application/x-ndjson', prefer: `wait=${wait}`, ...trace },
      body: `${greeting}\n`,
      cache: 'no-store',
      signal: this.#stop.signal,
    });
    if (!response.ok) {
      this.end(await closingOfResponse(response));
      return 0;
    }
    const decoder = new LineDecoder();
    const lines = [...decoder.push(new Uint8Array(await response.arrayBuffer())), ...decoder.end()];
    this.handlers.heard();
    for (const line of lines) this.handlers.message(line);
    return lines.length;
  }

  /** @override @param {string} [reason] */
  close(reason) {
    super.close(reason);
    this.#stop.abort();
  }
}

// Event stream: a POST whose answer never ends, for networks that let nothing but plain HTTPS through.

import { EventStreamDecoder } from '../sse.js';
import { traceHeaders } from '../traceparent.js';
import { Link } from './link.js';
import { Uplink, closingOfResponse } from './uplink.js';

/** @import { LinkContext } from '../environment.js' */

export class EventStreamLink extends Link {
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
    super('event-stream');
    this.#url = url;
    this.#context = context;
    this.#fetch = fetch;
    this.#uplink = new Uplink(url, context.ticket, fetch, (closing) => this.end(closing), () => this.isRetired);
  }

  /** There is nothing to open before the greeting, which opens the stream. @override */
  async open() {}

  /** @override @param {string} line */
  send(line) {
    if (this.#isGreeted) return this.#uplink.send(line);
    this.#isGreeted = true;
    this.#stream(line).catch((error) => this.end({ error }));
  }

  /** @param {string} greeting */
  async #stream(greeting) {
    const trace = traceHeaders(this.#context.traceparent());
    const response = await this.#fetch(this.#url, {
      method: 'POST',
      headers: { 'content-type': 'application/x-ndjson', accept: 'text/event-stream', ...trace },
      body: `${greeting}\n`,
      cache: 'no-store',
      signal: this.#stop.signal,
    });
    if (!response.ok) return this.end(await closingOfResponse(response));
    if (response.body === null) throw new Error('the server answered without a body');
    const reader = response.body.getReader();
    const decoder = new EventStreamDecoder();
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return this.end({ error: new Error('the event stream ended') });
      this.handlers.heard();
      for (const data of decoder.push(value)) this.handlers.message(data);
    }
  }

  /** @override @param {string} [reason] */
  close(reason) {
    super.close(reason);
    this.#stop.abort();
  }
}

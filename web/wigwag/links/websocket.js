// WebSocket, over HTTP/2 (RFC 8441) or HTTP/1.1 (RFC 6455) as the browser decides: one JSON object a text frame.

import { Link } from './link.js';

/** @import { Closing } from '../errors.js' */

/** How long the first step waits for the HTTP/2 connection. */
const warmUpMs = 2_000;

export class WebSocketLink extends Link {
  #url;
  #fetch;
  /** @type {WebSocket|null} */
  #socket = null;

  /**
   * @param {string} url
   * @param {{fetch?: typeof globalThis.fetch}} [environment]
   */
  constructor(url, { fetch = globalThis.fetch } = {}) {
    super('websocket');
    this.#url = url;
    this.#fetch = fetch;
  }

  /** @override */
  async open() {
    await this.#warmUp();
    if (this.isOver) return;
    const socket = new WebSocket(this.#url, 'wigwag.v1');
    this.#socket = socket;
    socket.onmessage = ({ data }) => this.handlers.message(data);
    await new Promise((resolve, reject) => {
      socket.onopen = resolve;
      socket.onclose = (event) => {
        reject(new Error(`the WebSocket closed with ${event.code} ${event.reason}`.trim()));
        this.end(closingOfEvent(event));
      };
    });
  }

  /**
   * Chromium takes HTTP/2 for a WebSocket only where a credentialed connection to that origin is open already. The
   * discovery is such a one for the page's own origin; for another this request is, whatever it is answered.
   */
  async #warmUp() {
    const url = new URL(this.#url);
    if (url.protocol !== 'wss:' || url.host === globalThis.location?.host) return;
    try {
      await this.#fetch(`https://${url.host}/v1/discovery`, {
        mode: 'no-cors',
        credentials: 'include',
        cache: 'no-store',
        signal: AbortSignal.timeout(warmUpMs),
      });
    } catch {
      // Without it the WebSocket opens over HTTP/1.1.
    }
  }

  /** @override @param {string} line */
  send(line) {
    // On a socket that is closing, send() does nothing; its close event is on the way.
    if (this.#socket?.readyState !== undefined && this.#socket.readyState !== 0) this.#socket.send(line);
  }

  /** @override @param {string} [reason] */
  close(reason) {
    super.close(reason);
    this.#socket?.close(1000, reason);
  }
}

/** @param {CloseEvent} event @returns {Closing} */
function closingOfEvent({ code, reason }) {
  return code >= 4000 ? { closeCode: code, message: reason } : { error: new Error(`the WebSocket closed with ${code}`) };
}

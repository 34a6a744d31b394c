// A client that shares no code with the project: WebSockets over HTTP/2 (RFC 8441) by Node's own HTTP/2.

import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import http2 from 'node:http2';

import { within } from './deadline.js';
import { FrameReader, closeFrame, textFrame } from './websocket-frames.js';

/** One HTTP/2 connection. */
export class Http2Connection {
  /** @param {http2.ClientHttp2Session} session */
  constructor(session) {
    this.session = session;
  }

  /** @param {{secure: string, ca: string}} server */
  static async open({ secure, ca }) {
    const session = http2.connect(secure, { ca: await readFile(ca) });
    const [settings] = await within(once(session, 'remoteSettings'), 'the server\'s HTTP/2 SETTINGS');
    if (!settings.enableConnectProtocol) throw new Error('the server offers no extended CONNECT');
    return new Http2Connection(session);
  }

  /** @param {string} room @returns {Promise<Http2WebSocket>} */
  async webSocket(room) {
    const stream = this.session.request({
      ':method': 'CONNECT',
      ':protocol': 'websocket',
      ':path': `/v1/rooms/${room}`,
      'sec-websocket-version': '13',
      'sec-websocket-protocol': 'wigwag.v1',
    }, { endStream: false });
    const [headers] = await within(once(stream, 'response'), 'the answer to CONNECT');
    return new Http2WebSocket(stream, headers);
  }

  async close() {
    this.session.close();
    await within(once(this.session, 'close'), 'the HTTP/2 connection ends');
  }
}

/** One WebSocket on it, speaking JSON. */
export class Http2WebSocket {
  #reader = new FrameReader();
  /** @type {any[]} */
  #arrived = [];
  #wake = () => {};

  /** @param {http2.ClientHttp2Stream} stream @param {http2.IncomingHttpHeaders} headers */
  constructor(stream, headers) {
    this.stream = stream;
    this.status = headers[':status'];
    this.protocol = headers['sec-websocket-protocol'];
    /** Resolves with the server's close code. @type {Promise<number>} */
    this.closed = new Promise((resolve, reject) => {
      stream.on('error', reject);
      stream.on('data', (bytes) => {
        for (const { text, closeCode } of this.#reader.push(bytes)) {
          if (closeCode !== undefined) resolve(closeCode);
          else this.#arrived.push(JSON.parse(text));
        }
        this.#wake();
      });
    });
    this.closed.catch(() => {}); // Told by whoever waits for it.
  }

  /** @param {object} message @returns {Promise<void>} resolves when it has gone, in a DATA frame of its own */
  send(message) {
    return new Promise((resolve, reject) => {
      this.stream.write(textFrame(JSON.stringify(message)), (error) => (error ? reject(error) : resolve()));
    });
  }

  /** @param {string} type @returns {Promise<any>} the next message of that type; those before it are passed over */
  async next(type) {
    const arriving = (async () => {
      for (;;) {
        while (this.#arrived.length > 0) {
          const message = this.#arrived.shift();
          if (message.type === type) return message;
        }
        await new Promise((resolve) => {
          this.#wake = resolve;
        });
      }
    })();
    return within(arriving, `a message of type ${type}`);
  }

  /** Closes as RFC 6455, section 7, has it. @param {number} code */
  async close(code) {
    this.stream.write(closeFrame(code));
    await within(this.closed, 'the server\'s close frame');
    this.stream.end();
  }
}

// Proxies between browser and server, as companies and hotels have them: what they let through, hold back or cut.
//
// Each listens where browsers look for `localhost`, under the port that the server names in its discovery; the server
// listens at another loopback address. Datagrams are taken and dropped without a word, as firewalls do.

import { readFile } from 'node:fs/promises';
import http2 from 'node:http2';
import https from 'node:https';
import net from 'node:net';
import path from 'node:path';
import { Transform } from 'node:stream';
import { pipeline } from 'node:stream/promises';

import { bindUdp, listenTcp } from './ports.js';
import { loopback } from './server.js';
import { behind } from './stage.js';

/**
 * @import { Server } from './server.js'
 *
 * How a proxy that ends TLS handles what comes.
 * @typedef {object} Manner
 * @property {boolean} [http2]  offers HTTP/2 beside HTTP/1.1
 * @property {'unknown'|'refused'|'reset'} [connect]  extended CONNECT over HTTP/2 (RFC 8441): not announced; or announced,
 *   and each one answered 403, or its stream reset
 * @property {'refused'|'hanging'|'passed'} [upgrade]  of HTTP/1.1 to WebSocket; `hanging`: never answered
 * @property {boolean} [holds]  keeps each answer back until it is complete, as virus scanners do
 */

/** Belong to one HTTP/1.1 connection and are forbidden in HTTP/2 (RFC 9113, 8.2.2). */
const connectionHeaders = ['connection', 'keep-alive', 'proxy-connection', 'transfer-encoding', 'upgrade'];

export class Proxy {
  /** Answers are kept back until they are complete, those under way included. */
  #isHolding = false;
  #listeners;
  /** @type {Set<net.Socket>} */
  #sockets = new Set();

  /** @param {net.Server[]} tcp @param {import('node:dgram').Socket[]} udp */
  constructor(tcp, udp) {
    this.#listeners = [...tcp, ...udp];
  }

  /**
   * Ends TLS and passes requests and answers on.
   * @param {Server} server
   * @param {Manner} [manner]
   */
  static async ending(server, { http2: speaksHttp2 = false, connect = 'unknown', upgrade = 'refused', holds = false } = {}) {
    const { ca, ports: { secure: port } } = server;
    // One file holds the server's certificate and its key.
    const [own, trusted] = await Promise.all([readFile(path.join(path.dirname(ca), 'localhost.pem')), readFile(ca)]);
    const upstream = { host: behind, port, servername: 'localhost', ca: trusted };
    const identity = { cert: own, key: own };
    const front = speaksHttp2
      ? http2.createSecureServer({ ...identity, allowHTTP1: true, settings: { enableConnectProtocol: connect !== 'unknown' } })
      : https.createServer({ ...identity, ALPNProtocols: ['http/1.1'] });
    const proxy = await Proxy.#listen(port, (socket) => {
      proxy.#sockets.add(socket);
      socket.on('error', () => {}).once('close', () => proxy.#sockets.delete(socket));
      front.emit('connection', socket);
    });
    proxy.#isHolding = holds;
    front.on('request', (request, response) => proxy.#forward(upstream, request, response));
    front.on('connect', (_request, response) => refuseConnect[connect](response));
    front.on('upgrade', (request, socket) => upgrades[upgrade](upstream, request, socket));
    return proxy;
  }

  /** From now on answers are held until they are complete. */
  beginToHold() {
    this.#isHolding = true;
  }

  /**
   * Passes bytes on, and resets each connection when it is so old.
   * @param {Server} server
   * @param {number} ageMs
   */
  static async cutting(server, ageMs) {
    const port = server.ports.secure;
    const accept = (client) => {
      const upstream = net.connect({ host: behind, port, noDelay: true });
      const timer = setTimeout(() => {
        for (const socket of [client, upstream]) socket.resetAndDestroy();
      }, ageMs);
      client.once('close', () => clearTimeout(timer));
      for (const [from, to] of [[client, upstream], [upstream, client]]) {
        proxy.#sockets.add(from);
        // What became of one side, the other learns by its end.
        from.on('error', () => {}).once('close', () => {
          proxy.#sockets.delete(from);
          to.destroy();
        });
        from.pipe(to);
      }
    };
    const proxy = await Proxy.#listen(port, accept);
    return proxy;
  }

  /**
   * @param {https.RequestOptions} upstream
   * @param {import('node:http').IncomingMessage | http2.Http2ServerRequest} request
   * @param {any} response
   */
  #forward(upstream, request, response) {
    const headers = plainHeaders(request);
    const forwarded = https.request({ ...upstream, method: request.method, path: request.url, headers }, (answer) => {
      this.#passOn(answer, response).catch(() => response.destroy());
    });
    forwarded.on('error', () => response.destroy());
    response.once('close', () => forwarded.destroy());
    request.pipe(forwarded);
  }

  /** @param {import('node:http').IncomingMessage} answer @param {any} response */
  async #passOn(answer, response) {
    const headers = without(connectionHeaders, answer.headers);
    if (this.#isHolding) {
      const chunks = [];
      for await (const chunk of answer) chunks.push(chunk);
      response.writeHead(answer.statusCode, headers);
      response.end(Buffer.concat(chunks));
      return;
    }
    response.writeHead(answer.statusCode, headers);
    response.flushHeaders();
    await pipeline(answer, holder(() => this.#isHolding), response);
  }

  /** @param {number} port @param {(socket: net.Socket) => void} accept */
  static async #listen(port, accept) {
    const tcp = await Promise.all(loopback.map((host) => listenTcp(port, host, accept)));
    const udp = await Promise.all(loopback.map((host) => bindUdp(port, host)));
    return new Proxy(tcp, udp);
  }

  async close() {
    const closing = this.#listeners.map((listener) => new Promise((done) => listener.close(done)));
    for (const socket of this.#sockets) socket.destroy();
    await Promise.all(closing);
  }
}

/** How extended CONNECT is refused. @type {Record<string, (response: http2.Http2ServerResponse) => void>} */
const refuseConnect = {
  unknown: (response) => response.stream.close(http2.constants.NGHTTP2_PROTOCOL_ERROR),
  refused: (response) => response.writeHead(403).end(),
  reset: (response) => response.stream.close(http2.constants.NGHTTP2_INTERNAL_ERROR),
};

/** What becomes of an Upgrade. @type {Record<string, (upstream: https.RequestOptions, request: any, socket: net.Socket) => void>} */
const upgrades = {
  refused: (_upstream, _request, socket) => socket.end('HTTP/1.1 403 Forbidden\r\nConnection: close\r\n\r\n'),
  hanging() {},
  passed: passUpgrade,
};

/**
 * @param {https.RequestOptions} upstream
 * @param {import('node:http').IncomingMessage} request
 * @param {net.Socket} socket
 */
function passUpgrade(upstream, { method, url, headers }, socket) {
  const forwarded = https.request({ ...upstream, method, path: url, headers });
  forwarded.on('error', () => socket.destroy());
  forwarded.on('response', () => socket.destroy());
  forwarded.on('upgrade', ({ statusCode, statusMessage, rawHeaders }, far, head) => {
    const lines = [`HTTP/1.1 ${statusCode} ${statusMessage}`];
    for (let at = 0; at < rawHeaders.length; at += 2) lines.push(`${rawHeaders[at]}: ${rawHeaders[at + 1]}`);
    socket.write(`${lines.join('\r\n')}\r\n\r\n`);
    socket.write(head);
    for (const [from, to] of [[socket, far], [far, socket]]) {
      from.on('error', () => {}).once('close', () => to.destroy());
      from.pipe(to);
    }
  });
  forwarded.end();
}

/** @param {any} request @returns {Record<string, any>} its headers as HTTP/1.1 has them */
function plainHeaders({ headers }) {
  const host = headers[':authority'];
  const plain = without(connectionHeaders, Object.fromEntries(Object.entries(headers).filter(([name]) => !name.startsWith(':'))));
  return { ...plain, ...(host !== undefined && { host }) };
}

/** @param {string[]} names @param {Record<string, any>} headers */
function without(names, headers) {
  return Object.fromEntries(Object.entries(headers).filter(([name]) => !names.includes(name)));
}

/**
 * Passes on what comes, but while it is to hold keeps it until the end.
 * @param {() => boolean} isHolding
 */
function holder(isHolding) {
  /** @type {Buffer[]} */
  const held = [];
  return new Transform({
    transform(chunk, _encoding, done) {
      if (isHolding()) held.push(chunk);
      else this.push(chunk);
      done();
    },
    flush(done) {
      for (const one of held) this.push(one);
      done();
    },
  });
}

// Proxies between browser and server, as companies and hotels have them: what they let through, hold back or cut.
//
// Each listens where browsers look for `localhost`, under the port that the server names in its discovery; the server
// listens at another loopback address. Datagrams are taken and dropped without a word, as firewalls do.

import { readFile } from 'node:fs/promises';
import https from 'node:https';
import net from 'node:net';
import path from 'node:path';
import { pipeline } from 'node:stream/promises';

import { bindUdp, listenTcp } from './ports.js';
import { loopback } from './server.js';
import { behind } from './stage.js';

/** @import { Server } from './server.js' */

export class Proxy {
  #listeners;
  /** @type {Set<net.Socket>} */
  #sockets = new Set();

  /** @param {net.Server[]} tcp @param {import('node:dgram').Socket[]} udp */
  constructor(tcp, udp) {
    this.#listeners = [...tcp, ...udp];
  }

  /**
   * Ends TLS and holds each answer until it is complete, as virus scanners do. Upgrades are refused.
   * @param {Server} server
   */
  static buffering(server) {
    return Proxy.#reverse(server, async (answer, response) => {
      const chunks = [];
      for await (const chunk of answer) chunks.push(chunk);
      response.writeHead(answer.statusCode, answer.headers);
      response.end(Buffer.concat(chunks));
    });
  }

  /**
   * Ends TLS and passes requests and answers on as they come. Upgrades are refused.
   * @param {Server} server
   */
  static refusing(server) {
    return Proxy.#reverse(server, async (answer, response) => {
      response.writeHead(answer.statusCode, answer.headers);
      response.flushHeaders();
      await pipeline(answer, response);
    });
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
   * @param {Server} server
   * @param {(answer: import('node:http').IncomingMessage, response: import('node:http').ServerResponse) => Promise<void>} passOn
   */
  static async #reverse(server, passOn) {
    const { ca, ports: { secure: port } } = server;
    // One file holds the server's certificate and its key.
    const [own, trusted] = await Promise.all([readFile(path.join(path.dirname(ca), 'localhost.pem')), readFile(ca)]);
    const upstream = { host: behind, port, servername: 'localhost', ca: trusted };
    const front = https.createServer({ cert: own, key: own, ALPNProtocols: ['http/1.1'] }, (request, response) => {
      const { method, url: target, headers } = request;
      const forwarded = https.request({ ...upstream, method, path: target, headers }, (answer) => {
        passOn(answer, response).catch(() => response.destroy());
      });
      forwarded.on('error', () => response.destroy());
      response.once('close', () => forwarded.destroy());
      request.pipe(forwarded);
    });
    front.on('upgrade', (request, socket) => socket.end('HTTP/1.1 403 Forbidden\r\nConnection: close\r\n\r\n'));
    const proxy = await Proxy.#listen(port, (socket) => {
      proxy.#sockets.add(socket);
      socket.on('error', () => {}).once('close', () => proxy.#sockets.delete(socket));
      front.emit('connection', socket);
    });
    return proxy;
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

// A load balancer that knows no better: it passes each connection on to the node at which it was pointed last.

import net from 'node:net';

import { listenTcp } from './ports.js';
import { loopback } from './server.js';

export class Front {
  /** @type {net.Server[]} */
  #listeners = [];
  /** @type {Set<net.Socket>} */
  #sockets = new Set();

  /** @param {number} port  where browsers come, and the nodes listen, too @param {string} host  of the first node */
  constructor(port, host) {
    this.port = port;
    this.host = host;
  }

  /** @param {number} port @param {string} host @returns {Promise<Front>} */
  static async start(port, host) {
    const front = new Front(port, host);
    const accept = (socket) => front.#pass(socket);
    front.#listeners = await Promise.all(loopback.map((own) => listenTcp(port, own, accept)));
    return front;
  }

  /** @param {net.Socket} socket */
  #pass(socket) {
    const onward = net.connect({ port: this.port, host: this.host, noDelay: true });
    for (const [one, other] of [[socket, onward], [onward, socket]]) {
      this.#sockets.add(one);
      // A broken connection is closed, too.
      one.on('error', () => {}).on('close', () => {
        this.#sockets.delete(one);
        other.destroy();
      });
      one.pipe(other);
    }
  }

  async stop() {
    for (const socket of this.#sockets) socket.destroy();
    await Promise.all(this.#listeners.map((listener) => new Promise((done) => listener.close(done))));
  }
}

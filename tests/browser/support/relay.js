// The network between browser and server, for TCP and UDP, with the faults that networks have.
//
// It listens where browsers look for `localhost`, under the very ports that the server names in its discovery; the server
// itself listens at another loopback address.

import net from 'node:net';

import { bindUdp, listenTcp } from './ports.js';

/** How long bytes are on their way, in each direction: what is under way when a connection is lost is lost with it. */
const delayMs = 10;

export class Relay {
  #port;
  #target;
  /** @type {(net.Server | import('node:dgram').Socket)[]} */
  #listeners = [];
  /** TCP connections being relayed. @type {Set<TcpFlow>} */
  #connections = new Set();
  /** UDP flows by the client's address. @type {Map<string, UdpFlow>} */
  #flows = new Map();
  #passesUdp = true;

  /** @param {number} port @param {string} target */
  constructor(port, target) {
    this.#port = port;
    this.#target = target;
  }

  /**
   * @param {number} port      to listen on, and to relay to
   * @param {string[]} hosts   to listen on
   * @param {string} target    the server's address
   */
  static async start(port, hosts, target) {
    const relay = new Relay(port, target);
    for (const host of hosts) {
      relay.#listeners.push(await listenTcp(port, host, (socket) => relay.#accept(socket)), await relay.#listenUdp(host));
    }
    return relay;
  }

  /** Every connection is reset. A UDP flow, which cannot be, falls silent. */
  cut() {
    for (const connection of this.#connections) connection.reset();
    this.#silenceUdp();
  }

  /** Every connection is closed tidily, as by a proxy that restarts. A UDP flow falls silent. */
  close() {
    for (const connection of this.#connections) connection.end();
    this.#silenceUdp();
  }

  /** Nothing more comes through on the present connections, and nobody is told. New ones work. */
  silence() {
    for (const connection of this.#connections) connection.isSilent = true;
    this.#silenceUdp();
  }

  #silenceUdp() {
    for (const flow of this.#flows.values()) flow.isSilent = true;
  }

  /** As when a router forgets its table: the server sees every UDP flow go on from another port. */
  async rebindUdp() {
    for (const flow of this.#flows.values()) await flow.rebind();
  }

  /** As where only TCP is allowed: every datagram is dropped. */
  blockUdp() {
    this.#passesUdp = false;
  }

  unblockUdp() {
    this.#passesUdp = true;
  }

  async stop() {
    this.cut();
    for (const flow of this.#flows.values()) flow.close();
    await Promise.all(this.#listeners.map((listener) => new Promise((done) => listener.close(done))));
  }

  /** @param {net.Socket} client */
  #accept(client) {
    const server = net.connect({ host: this.#target, port: this.#port, noDelay: true });
    const flow = new TcpFlow(client, server, () => this.#connections.delete(flow));
    this.#connections.add(flow);
  }

  /** @param {string} host */
  async #listenUdp(host) {
    const socket = await bindUdp(this.#port, host);
    socket.on('message', async (datagram, { address, port }) => {
      if (!this.#passesUdp) return;
      const key = `${address} ${port}`;
      let flow = this.#flows.get(key);
      if (flow === undefined) {
        flow = new UdpFlow({ host: this.#target, port: this.#port }, (answer) => {
          if (this.#passesUdp) socket.send(answer, port, address);
        });
        this.#flows.set(key, flow);
        await flow.rebind();
      }
      flow.send(datagram);
    });
    return socket;
  }
}

class TcpFlow {
  isSilent = false;
  #sockets;

  /** @param {net.Socket} client @param {net.Socket} server @param {() => void} ended */
  constructor(client, server, ended) {
    this.#sockets = [client, server];
    this.#carry(client, server);
    this.#carry(server, client);
    client.once('close', ended);
  }

  /** @param {net.Socket} from @param {net.Socket} to */
  #carry(from, to) {
    from.on('data', (bytes) => later(() => this.isSilent || to.destroyed || to.write(bytes)));
    from.on('end', () => later(() => this.isSilent || to.end()));
    // How one side ends, the other is told; how it failed is its own affair.
    from.on('error', () => {});
    from.on('close', (failed) => later(() => this.isSilent || (failed ? to.resetAndDestroy() : to.end())));
  }

  end() {
    for (const socket of this.#sockets) socket.end();
  }

  reset() {
    for (const socket of this.#sockets) socket.resetAndDestroy();
  }
}

class UdpFlow {
  isSilent = false;
  #target;
  #answer;
  /** @type {import('node:dgram').Socket|null} */
  #socket = null;

  /** @param {{host: string, port: number}} target @param {(datagram: Buffer) => void} answer */
  constructor(target, answer) {
    this.#target = target;
    this.#answer = answer;
  }

  async rebind() {
    const socket = await bindUdp(0, '127.0.0.1');
    socket.on('message', (datagram) => later(() => this.isSilent || this.#answer(datagram)));
    this.#socket?.close();
    this.#socket = socket;
  }

  /** @param {Buffer} datagram */
  send(datagram) {
    later(() => this.isSilent || this.#socket?.send(datagram, this.#target.port, this.#target.host));
  }

  close() {
    this.isSilent = true;
    this.#socket?.close();
  }
}

/** @param {() => unknown} deliver */
function later(deliver) {
  setTimeout(deliver, delayMs);
}

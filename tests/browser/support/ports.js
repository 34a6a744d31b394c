// Ports for a test's own servers.

import dgram from 'node:dgram';
import net from 'node:net';

/** Below the range that systems hand out to sockets without a wish, so that no browser's socket takes one meanwhile. */
const lowest = 20_000;
const count = 12_000;

/** @type {Set<number>} */
const given = new Set();

/**
 * @param {string[]} hosts
 * @returns {Promise<number>} a port that is free for TCP and UDP on all of them
 */
export async function freePort(hosts) {
  const start = Math.floor(Math.random() * count);
  for (let step = 0; step < count; step += 1) {
    const port = lowest + ((start + step) % count);
    if (given.has(port) || !(await isFree(port, hosts))) continue;
    given.add(port);
    return port;
  }
  throw new Error(`no port from ${lowest} to ${lowest + count - 1} is free on ${hosts.join(', ')}`);
}

/** @param {number} port @param {string[]} hosts */
async function isFree(port, hosts) {
  for (const host of hosts) {
    if (!(await binds(listenTcp, port, host)) || !(await binds(bindUdp, port, host))) return false;
  }
  return true;
}

/** @param {(port: number, host: string) => Promise<{close: (done: () => void) => void}>} bind @param {number} port @param {string} host */
async function binds(bind, port, host) {
  try {
    const socket = await bind(port, host);
    await new Promise((done) => socket.close(done));
    return true;
  } catch (error) {
    if (error.code === 'EADDRINUSE') return false;
    throw error;
  }
}

/**
 * @param {number} port
 * @param {string} host
 * @param {(socket: net.Socket) => void} [accept]
 * @returns {Promise<net.Server>}
 */
export function listenTcp(port, host, accept = (socket) => socket.destroy()) {
  return new Promise((resolve, reject) => {
    const server = net.createServer({ noDelay: true }, accept).once('error', reject);
    server.listen({ port, host, ipv6Only: true }, () => resolve(server));
  });
}

/**
 * @param {number} port
 * @param {string} host
 * @returns {Promise<dgram.Socket>}
 */
export function bindUdp(port, host) {
  return new Promise((resolve, reject) => {
    const type = host.includes(':') ? 'udp6' : 'udp4';
    const socket = dgram.createSocket({ type, ipv6Only: type === 'udp6' }).once('error', reject);
    socket.bind(port, host, () => resolve(socket));
  });
}

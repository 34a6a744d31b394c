// The real server, as a process of its own, and its counters.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

import { within } from './deadline.js';
import { freePort } from './ports.js';

/** What is under test. */
export const binary = process.env.WIGWAG_BIN ?? fileURLToPath(new URL('../../../target/release/wigwag', import.meta.url));

/** Loopback as browsers know it: Chromium takes `localhost` for ::1, Firefox for 127.0.0.1. */
export const loopback = ['127.0.0.1', '::1'];

const maxLogLines = 1_000;

export class Server {
  /** Lines of its output, the last ones. @type {string[]} */
  log = [];
  #process;
  #directory;

  constructor(process, directory, ports) {
    this.#process = process;
    this.#directory = directory;
    this.ports = ports;
    this.exit = once(process, 'exit');
  }

  /**
   * @param {object} [options]
   * @param {string[]} [options.hosts]  where it listens; `localhost` is where browsers look for it
   * @param {string[]} [options.args]   further arguments
   * @param {{secure: number, plain: number}} [options.at]  these ports, as another one has them at other hosts
   */
  static async start({ hosts = loopback, args = [], at } = {}) {
    const directory = await mkdtemp(path.join(tmpdir(), 'wigwag-browser-'));
    const everywhere = [...new Set([...hosts, ...loopback])];
    const ports = {
      secure: at?.secure ?? await freePort(everywhere), plain: at?.plain ?? await freePort(everywhere), admin: await freePort(['127.0.0.1']),
    };
    const listeners = hosts.flatMap((host) => [
      '--listen', authority(host, ports.secure), '--plain', authority(host, ports.plain),
    ]);
    const child = spawn(binary, [
      'serve', ...listeners, '--admin', authority('127.0.0.1', ports.admin), '--certs-dir', path.join(directory, 'certs'), ...args,
    ], { cwd: directory, stdio: ['ignore', 'pipe', 'pipe'] });
    const server = new Server(child, directory, ports);
    await within(server.#ready(), `${binary} is ready`, 15_000).catch(async (error) => {
      await server.stop().catch(() => {}); // The reason is the one below.
      throw new Error(`${error.message}\n${server.log.join('\n')}`);
    });
    return server;
  }

  /** The origin of pages over TLS. */
  get secure() {
    return `https://localhost:${this.ports.secure}`;
  }

  /** The origin of pages without TLS, over HTTP/1.1. */
  get plain() {
    return `http://localhost:${this.ports.plain}`;
  }

  /** The certificate of the CA that signed the one of `secure`. */
  get ca() {
    return path.join(this.#directory, 'certs', 'ca.pem');
  }

  #ready() {
    return new Promise((resolve, reject) => {
      this.#process.once('error', reject);
      this.#process.once('exit', (code, signal) => reject(new Error(`the server ended with ${code ?? signal}`)));
      for (const stream of [this.#process.stdout, this.#process.stderr]) {
        let rest = '';
        stream.setEncoding('utf8').on('data', (text) => {
          const lines = (rest + text).split('\n');
          rest = lines.pop() ?? '';
          this.log.push(...lines);
          this.log.splice(0, this.log.length - maxLogLines);
          if (lines.some((line) => line.includes('is ready'))) resolve(undefined);
        });
      }
    });
  }

  /** @returns {Promise<Counters>} as they are now */
  async counters() {
    const response = await fetch(`http://127.0.0.1:${this.ports.admin}/metrics`);
    if (!response.ok) throw new Error(`/metrics answered with status ${response.status}`);
    return new Counters(await response.text());
  }

  /** It stands still, and what is sent to it waits in the system's buffers. */
  freeze() {
    this.#process.kill('SIGSTOP');
  }

  /** It goes on, and finds all that waits at once. */
  thaw() {
    this.#process.kill('SIGCONT');
  }

  /**
   * Ends it as an operator would.
   * @throws where it does not end well
   */
  async stop() {
    if (this.#process.exitCode === null && this.#process.signalCode === null) this.#process.kill('SIGTERM');
    try {
      const [code, signal] = await within(this.exit, 'the server ends after SIGTERM');
      if (code !== 0) throw new Error(`the server ended with ${code ?? signal}`);
    } finally {
      this.#process.kill('SIGKILL');
      await rm(this.#directory, { recursive: true, force: true });
    }
    const panic = this.log.find((line) => line.includes('panicked'));
    if (panic) throw new Error(`the server: ${panic}`);
  }
}

/** What the server has counted, at one moment. */
export class Counters {
  /** @type {Map<string, number>} */
  #values = new Map();

  /** @param {string} text in the Prometheus or OpenMetrics format */
  constructor(text) {
    for (const [, name, labels = '', value] of text.matchAll(/^([a-z0-9_]+)(?:\{(.*)\})? (\S+)$/gm)) {
      this.#values.set(`${name}{${labels}}`, Number(value));
    }
  }

  /** Sessions joined or resumed so far, over this transport. @param {string} transport */
  sessions(transport) {
    return this.#value('wigwag_sessions_total', { transport });
  }

  /** Sessions over this transport that are open now. @param {string} transport */
  openSessions(transport) {
    return this.#value('wigwag_open_sessions', { transport });
  }

  /** Connections so far. @param {'h3'|'h2'|'http/1.1'|'plain http/1.1'} protocol */
  connections(protocol) {
    return this.#value('wigwag_connections_total', { protocol });
  }

  /** Connections that are open now. @param {'h3'|'h2'|'http/1.1'|'plain http/1.1'} protocol */
  openConnections(protocol) {
    return this.#value('wigwag_open_connections', { protocol });
  }

  /**
   * First media between peers that clients have told of.
   * @param {string} transport  of the one that tells
   * @param {string} candidateType
   */
  firstMedia(transport, candidateType) {
    return this.#value('wigwag_time_to_first_media_seconds_count', { transport, candidate_type: candidateType });
  }

  /** Links with other nodes that are up. */
  links() {
    return this.#value('wigwag_cluster_links', {});
  }

  /** @param {string} name @param {Record<string, string>} labels */
  #value(name, labels) {
    const text = Object.entries(labels).map(([label, value]) => `${label}="${value}"`).join(',');
    return this.#values.get(`${name}{${text}}`) ?? 0;
  }
}

/** @param {string} host @param {number} port */
export function authority(host, port) {
  return host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`;
}

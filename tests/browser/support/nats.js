// A NATS server, over which servers are nodes of one cluster.

import { spawn } from 'node:child_process';
import { once } from 'node:events';

import { within } from './deadline.js';
import { freePort } from './ports.js';

export class Nats {
  #process;

  constructor(process, port) {
    this.#process = process;
    this.port = port;
  }

  /** @returns {Promise<Nats>} */
  static async start() {
    const port = await freePort(['127.0.0.1']);
    // Debian keeps it where only root looks for programs.
    const env = { ...process.env, PATH: `${process.env.PATH}:/usr/sbin` };
    const child = spawn('nats-server', ['--addr', '127.0.0.1', '--port', String(port)], { env, stdio: ['ignore', 'ignore', 'pipe'] });
    const nats = new Nats(child, port);
    await within(nats.#ready(), 'nats-server is ready', 15_000);
    return nats;
  }

  /** The argument of `--cluster`. */
  get url() {
    return `nats://127.0.0.1:${this.port}`;
  }

  #ready() {
    return new Promise((resolve, reject) => {
      this.#process.once('error', reject);
      this.#process.once('exit', (code, signal) => reject(new Error(`nats-server ended with ${code ?? signal}`)));
      let said = '';
      this.#process.stderr.setEncoding('utf8').on('data', (text) => {
        said = (said + text).slice(-1_000);
        if (said.includes('Server is ready')) resolve(undefined);
      });
    });
  }

  async stop() {
    const exit = once(this.#process, 'exit');
    this.#process.kill('SIGKILL');
    await exit;
  }
}

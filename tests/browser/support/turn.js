// A real TURN server, which knows the secret that wigwag makes credentials with.

import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';

import { within } from './deadline.js';
import { freePort } from './ports.js';

export class TurnServer {
  #process;
  #directory;

  constructor(process, directory, port) {
    this.#process = process;
    this.#directory = directory;
    this.port = port;
    this.exit = once(process, 'exit');
  }

  /** coturn on loopback, for UDP. */
  static async start() {
    const directory = await mkdtemp(path.join(tmpdir(), 'wigwag-turn-'));
    const port = await freePort(['127.0.0.1']);
    const secret = randomBytes(16).toString('hex');
    await writeFile(path.join(directory, 'secret'), `${secret}\n`, { mode: 0o600 });
    const child = spawn('turnserver', [
      '-n', '--no-cli', '--no-tls', '--no-dtls', '--no-tcp', '--listening-ip=127.0.0.1', '--relay-ip=127.0.0.1',
      `--listening-port=${port}`, '--allow-loopback-peers', '--realm=wigwag.test', '--use-auth-secret',
      `--static-auth-secret=${secret}`, `--pidfile=${path.join(directory, 'pid')}`, '--log-file=stdout', '--verbose',
      `--userdb=${path.join(directory, 'users')}`,
    ], { cwd: directory, stdio: ['ignore', 'pipe', 'pipe'] });
    // Whatever becomes of the tests, it does not stay behind.
    process.once('exit', () => child.kill('SIGKILL'));
    const server = new TurnServer(child, directory, port);
    await within(server.#ready(), 'coturn is ready');
    return server;
  }

  /** What tells wigwag of it. */
  get serverArgs() {
    return ['--ice-server', `turn:127.0.0.1:${this.port}?transport=udp`, '--turn-secret', path.join(this.#directory, 'secret')];
  }

  #ready() {
    return new Promise((resolve, reject) => {
      let said = '';
      this.#process.once('error', reject);
      this.#process.once('exit', (code, signal) => reject(new Error(`coturn ended with ${code ?? signal}\n${said}`)));
      for (const stream of [this.#process.stdout, this.#process.stderr]) {
        stream.setEncoding('utf8').on('data', (text) => {
          said += text;
          if (said.includes(`listener opened on: 127.0.0.1:${this.port}`)) resolve(undefined);
          said = said.slice(-100_000);
        });
      }
    });
  }

  async stop() {
    this.#process.kill('SIGKILL');
    await this.exit;
    await rm(this.#directory, { recursive: true, force: true });
  }
}

// Access tokens, as an operator makes them: by the commands of the binary.

import { execFile } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { promisify } from 'node:util';

import { binary } from './server.js';

const run = promisify(execFile);

export class TokenMaker {
  #directory;

  /** @param {string} directory with the keys */
  constructor(directory) {
    this.#directory = directory;
  }

  /** Makes keys of its own. */
  static async create() {
    const directory = await mkdtemp(path.join(tmpdir(), 'wigwag-tokens-'));
    await run(binary, ['keys', '--out', directory]);
    return new TokenMaker(directory);
  }

  /** What the server verifies the tokens by. */
  get keys() {
    return path.join(this.#directory, 'token-keys.json');
  }

  /** What they are signed with. */
  get signingKey() {
    return path.join(this.#directory, 'token-signing.pem');
  }

  /**
   * @param {{room: string, user: string, grants?: string[], time?: string}} claims  `time`: how long it is good, as `1h`
   * @returns {Promise<string>}
   */
  async make({ room, user, grants = [], time = '1h' }) {
    const { stdout } = await run(binary, [
      'token', '--key', this.signingKey, '--room', room, '--user', user, '--for', time,
      ...grants.flatMap((grant) => ['--grant', grant]),
    ]);
    return stdout.trim();
  }

  remove() {
    return rm(this.#directory, { recursive: true, force: true });
  }
}

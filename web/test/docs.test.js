// What docs/migrating.md says to write is right by the library's types.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

const web = fileURLToPath(new URL('..', import.meta.url));

/** What the page's code takes for granted. */
const surroundings = `
declare const stream: MediaStream;
declare function show(peer: string, stream: MediaStream): void;
declare function hide(peer: string): void;
declare class SimplePeer {
  constructor(options: { initiator: boolean, stream: MediaStream, config: RTCConfiguration });
  on(name: 'signal', listener: (signal: object) => void): void;
  on(name: 'stream', listener: (stream: MediaStream) => void): void;
  signal(signal: object): void;
  destroy(): void;
}
`;

/** The blocks that use this library. @param {string} page */
function snippets(page) {
  return [...page.matchAll(/^```js\n(.*?)^```$/gms)].map(([, code]) => code).filter((code) => code.includes("from '/wigwag.js'"));
}

/** @param {string[]} codes @returns {Promise<string>} what the compiler says of them */
async function check(codes) {
  const dir = await mkdtemp(join(tmpdir(), 'wigwag-docs-'));
  try {
    const imports = (/** @type {string} */ code) => code.replaceAll(/from '\/(\w+\.js)'/g, (_, name) => `from '${join(web, name)}'`);
    await Promise.all(codes.map((code, at) => writeFile(join(dir, `${at}.js`), imports(code))));
    await writeFile(join(dir, 'surroundings.d.ts'), surroundings);
    // As short as pages are, they do not say what their parameters are.
    const compilerOptions = { noImplicitAny: false };
    await writeFile(join(dir, 'tsconfig.json'), JSON.stringify({ extends: join(web, 'tsconfig.json'), compilerOptions, include: ['*'] }));
    return await promisify(execFile)(join(web, 'node_modules/.bin/tsc'), ['--project', dir]).then(() => '', ({ stdout }) => stdout);
  } finally {
    await rm(dir, { recursive: true });
  }
}

test('the code of the page on migrating is right by the types', async () => {
  const codes = snippets(await readFile(join(web, '../docs/migrating.md'), 'utf8'));
  assert.equal(codes.length, 2);
  assert.equal(await check(codes), '');
});

test('code that is not right is found', async () => {
  const wrong = "import { connect } from '/wigwag.js';\nconnect({ room: 'demo' }).addEventListener('peergone', () => {});\n";
  assert.match(await check([wrong]), /peergone/);
});

// The pictures of docs/scale.md show what stands there.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { cp, mkdir, mkdtemp, readFile, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

import { limits, message, pictures } from '../../benches/scale/picture.mjs';
import { NARROW, WIDE, draw } from '../../benches/scale/plot.mjs';

const root = fileURLToPath(new URL('../..', import.meta.url));
const page = await readFile(join(root, 'docs/scale.md'), 'utf8');
const command = 'node benches/scale/picture.mjs';

/** The files that the command makes of the page, by name. */
async function drawn() {
  const dir = await mkdtemp(join(tmpdir(), 'wigwag-pictures-'));
  try {
    await mkdir(join(dir, 'docs/images'), { recursive: true });
    for (const name of ['benches/scale', 'docs/scale.md']) await cp(join(root, name), join(dir, name), { recursive: true });
    const [program, ...args] = command.split(' ');
    await promisify(execFile)(program, args, { cwd: dir });
    return await images(dir);
  } finally {
    await rm(dir, { recursive: true });
  }
}

/** @param {string} dir */
async function images(dir) {
  const names = (await readdir(join(dir, 'docs/images'))).filter((name) => name.startsWith('scale-')).sort();
  return Promise.all(names.map(async (name) => [name, await readFile(join(dir, 'docs/images', name), 'utf8')]));
}

/** The bars of a kind. @param {string} svg @param {string} kind */
function bars(svg, kind) {
  const found = svg.matchAll(new RegExp(`<rect class="${kind}" x="([\\d.]+)" y="([\\d.]+)" width="([\\d.]+)" height="12"/>`, 'g'));
  return [...found].map(([, x, y, width]) => ({ x: Number(x), y: Number(y), width: Number(width) }));
}

test('the pictures are what the command makes of the page', async () => {
  assert.ok(page.includes(`\`${command}\``), 'the page tells the command');
  const committed = await images(root);
  assert.equal(committed.length, 4);
  assert.ok(JSON.stringify(committed) === JSON.stringify(await drawn()), `docs/scale.md has other figures than its pictures: run ${command}`);
});

test('the page shows each picture, and tells in words what it shows', () => {
  for (const [name, { alt }] of Object.entries({ 'scale-message': message(page), 'scale-limits': limits(page) })) {
    assert.ok(page.includes(`srcset="images/${name}-narrow.svg"`));
    assert.ok(page.includes(`src="images/${name}.svg" alt="${alt}"`), `the alt text of ${name}.svg has to be: ${alt}`);
  }
});

/** The page with something else in one place. @param {RegExp} place @param {string} other */
function changed(place, other) {
  assert.match(page, place);
  return page.replace(place, other);
}

test('another figure makes another picture', () => {
  for (const [place, other, name] of /** @type {[RegExp, string, string][]} */ ([
    [/^\| … until `ok` \| \d+/m, '$&.5', 'scale-message'],
    [/^(\| … until `ok` \| .*?, \d+)/m, '$1.5', 'scale-message'],
    [/^(\| … CPU, texts, bytes .*,) [\d,]+(, \S+ MB \|)$/m, '$1 999,999$2', 'scale-limits'],
    [/^(\| … CPU, texts, bytes .*\|) [^,|]+(,[^|]* \|)$/m, '$1 5.0 s$2', 'scale-limits'],
    [/\((\d+) to \d+ KiB/, '($1 to 99 KiB', 'scale-limits'],
  ])) {
    const [before, after] = [pictures(page), pictures(changed(place, other))];
    assert.deepEqual([...before.keys()].filter((file) => before.get(file) !== after.get(file)), [`${name}.svg`, `${name}-narrow.svg`], `${place}`);
  }
});

test('what is missing in the page, or cannot be shown, is named', () => {
  for (const [place, other, error] of /** @type {[RegExp, string, RegExp][]} */ ([
    [/^## A cluster simulated$/m, '## A cluster', /no table below "## A cluster simulated"/],
    [/^\| between two at two nodes \|/m, '| between two |', /no row "between two at two nodes"/],
    [/^(\| between two at two nodes \|) [^,]+/m, '$1 –', /"–" where a time in µs, ms or s should be/],
    [/^(\| between two at two nodes \|) [^,]+/m, '$1 1 µs', /"between two at two nodes" take less than the step before/],
    [/^(\| sessions \|) [^|]+/m, '$1 many ', /"many" where a number should be/],
    [/one in \d+ a second/, 'some', /says nothing like/],
    [/\d+ notes, some/, '7 notes, some', /says 7 notes where 100 nodes make 198/],
  ])) {
    assert.throws(() => pictures(changed(place, other)), error);
  }
});

test('bars are as long as what they stand for, and leave room for their figures', () => {
  const parts = [{ kind: 'wigwag', value: 10 }, { kind: 'other', value: 30 }];
  const group = { bars: [{ name: 'both', parts, figure: '40' }, { name: 'one', parts: [parts[0]], figure: '10' }] };
  const panel = { head: 'Head', measured: 'words', groups: [group] };
  for (const layout of [WIDE, NARROW]) {
    const svg = draw({ title: 'Title', legend: [], panels: [panel], foot: 'foot' }, layout);
    const [[first, second], [longest]] = [bars(svg, 'wigwag'), bars(svg, 'other')];
    assert.equal(first.width, second.width);
    assert.ok(Math.abs(longest.width - 3 * first.width) < 0.2);
    assert.ok(Math.abs(first.x + first.width - longest.x) < 0.2 && first.y === longest.y && first.y < second.y);
    assert.ok(longest.x + longest.width + 60 < layout.width / layout.columns);
  }
});

test('words that are long are broken, and none is markup', () => {
  const foot = 'a <b> & c '.repeat(30).trim();
  const svg = draw({ title: 'Title', legend: [], panels: [], foot }, NARROW);
  const lines = [...svg.matchAll(/<text class="small"[^>]*>(.*?)<\/text>/g)].map(([, line]) => line);
  assert.equal(lines.join(' '), foot.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;'));
  assert.ok(lines.length > 4);
});

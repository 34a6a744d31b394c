// The operator's page: 200 rooms live, a failed call explained, and what is done about it; each browser, at a desk and on a phone.

import assert from 'node:assert/strict';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';

import { browserNames } from './support/browsers.js';
import { Guest, crowd } from './support/crowd.js';
import { patienceMs } from './support/deadline.js';
import { Server } from './support/server.js';
import { useStage } from './support/stage.js';

const { stage, scenario } = useStage();
const sizes = { desk: { width: 1280, height: 900 }, phone: { width: 390, height: 844 } };

for (const browser of browserNames) {
  scenario(`an operator watches 200 rooms, in ${browser}`, () => watch(browser));
  scenario(`a failed call is explained, and its room closed, in ${browser}`, () => explain(browser));
  scenario(`a call between browsers is told whole, in ${browser}`, () => tellWhole(browser));
}
scenario('a call that finds no path is told to have failed', tellFailure);
scenario('a token is asked for, kept for the tab, and needed for everything', () => askForToken('chromium'));

/** @param {string} browser */
async function watch(browser) {
  const pairs = await crowd(stage.server, `standup-${browser}`, 200);
  stage.afterwards(async () => pairs.flat().forEach((guest) => guest.vanish()));
  for (const [at, [ada, bob]] of pairs.entries()) if (at % 9 !== 4) await call(ada, bob, at % 9 !== 7);
  pairs[2][0].vanish();
  const page = await open(browser, '', sizes.desk);
  await until(page, '50 of 200 rooms', () => document.querySelectorAll('#rooms-body tr').length === 50 && document.querySelector('[data-testid=page]').textContent === '1–50 of 200');
  await until(page, 'the numbers', () => document.querySelector('#n-rooms').textContent === '200' && document.querySelector('#n-away').textContent === '1');
  // The charts have something to show when time has passed and something was said meanwhile.
  const talking = talk(pairs);
  await until(page, 'lines in the charts', () => document.querySelector('#chart-messages .line')?.getAttribute('d').split('L').length > 8
    && /\d/.test(document.querySelector('#chart-latency .legend b').textContent));
  await photograph(page, browser, '1 rooms');
  await page.emulateMediaFeatures([{ name: 'prefers-color-scheme', value: 'dark' }]).catch(() => {}); // Firefox cannot be told.
  await photograph(page, browser, '2 rooms dark');
  await page.emulateMediaFeatures([]).catch(() => {});
  await page.click('#page-on');
  await until(page, 'the next part', () => document.querySelector('[data-testid=page]').textContent === '51–100 of 200');
  await page.type('#filter', '-07');
  await until(page, 'ten rooms', () => document.querySelector('[data-testid=page]').textContent === '1–10 of 10');
  // A room that comes to be is in the list without a reload, and one that ends no more.
  const late = await Guest.join(stage.server, `late-${browser}-07`);
  await until(page, 'eleven rooms', () => document.querySelectorAll('#rooms-body tr').length === 11);
  await late.leave();
  await until(page, 'ten rooms again', () => document.querySelectorAll('#rooms-body tr').length === 10);
  await page.click('#show-ended');
  await until(page, 'the room that ended', () => /^late-/.test(document.querySelector('#rooms-body a')?.textContent ?? ''));
  await page.setViewport(sizes.phone);
  await page.click('#show-open');
  await page.evaluate(() => {
    const filter = document.querySelector('#filter');
    filter.value = '';
    filter.dispatchEvent(new Event('input'));
  });
  await until(page, 'all rooms', () => document.querySelector('[data-testid=page]').textContent === '1–50 of 200');
  await fits(page);
  await photograph(page, browser, '3 rooms phone');
  await talking.end();
}

/** @param {string} browser */
async function explain(browser) {
  const room = stage.newRoom();
  const [ada, bob] = [await Guest.join(stage.server, room), await Guest.join(stage.server, room)];
  stage.afterwards(async () => [ada, bob].forEach((guest) => guest.vanish()));
  await bob.describe(ada, 'offer');
  for (const port of [5000, 5001, 5002, 5003, 5004]) await bob.candidate(ada, port);
  ada.vanish();
  const page = await open(browser, `#room=${room}`, { width: 1280, height: 700 });
  const verdict = () => /which it did not answer.*has not come back/.test(document.querySelector('#verdict-text').textContent);
  await until(page, 'the verdict', verdict);
  await until(page, 'the diagram', () => {
    const told = [...document.querySelectorAll('#sequence li')].map(({ textContent }) => textContent);
    return told.some((text) => /: offer, \d+ B$/.test(text)) && told.some((text) => /: 5 candidates/.test(text))
      && told.some((text) => /: away/.test(text)) && told.at(-1).endsWith(': the answer never came');
  });
  assert.match(await page.$eval('#members', ({ textContent }) => textContent), /away.*event-stream · loopback/s);
  await photograph(page, browser, '4 explained');
  await page.setViewport(sizes.phone);
  await until(page, 'the diagram in the new width', () => document.querySelector('#sequence svg').getAttribute('width') < 390);
  await fits(page);
  await photograph(page, browser, '5 explained phone');
  await page.setViewport(sizes.desk);

  await page.click('#room-lock');
  await until(page, 'the lock', () => /locked/.test(document.querySelector('#room-chips').textContent));
  await page.click('#room-close');
  await until(page, 'the question', () => document.querySelector('#confirm').open);
  await photograph(page, browser, '6 question');
  await page.click('#confirm-no');
  assert.equal(await page.$eval('#members', ({ children }) => children.length), 2, 'nothing has happened');
  await page.click('#room-close');
  await page.type('#confirm-reason', 'maintenance');
  await page.click('#confirm-yes');
  await until(page, 'the end', () => /^ended/.test(document.querySelector('#room-chips').textContent) && document.querySelector('#members').children.length === 0);
  // What has happened is still explained.
  await until(page, 'the verdict of the past', () => /was removed before the offer was answered/.test(document.querySelector('#verdict-text').textContent));
}

/** @param {string} browser */
async function tellWhole(browser) {
  const room = stage.newRoom();
  const members = await Promise.all(['websocket-h1', 'websocket-h2'].map((transport, at) => stage.member(browser, transport, { room, name: ['Ada', 'Bob'][at] })));
  await Promise.all([members[0].hears(members[1]), members[1].hears(members[0])]);
  const page = await open(browser, `#room=${room}`, sizes.desk);
  // What only the browsers know, by which kind of candidate and after how long.
  await until(page, 'the verdict', () => /^Media have arrived both ways: at …\w+ after [\d.]+ m?s by host, at …\w+ after [\d.]+ m?s by host\./.test(document.querySelector('#verdict-text').textContent));
  await until(page, 'the diagram', () => document.querySelectorAll('#sequence .seq-arrow.answer').length > 0 && !document.querySelector('#sequence .missing'));
  const told = await page.$$eval('#sequence li', (rows) => rows.map(({ textContent }) => textContent.replace(/^.*?: /, '').replace(/ [\d.]+ m?s$/, '')));
  for (const milestone of ['ICE connected by host after', 'first media by host after']) assert.equal(told.filter((row) => row === milestone).length, 2, `${milestone}: ${told.join('; ')}`);
  const counters = await stage.server.counters();
  const timed = members.map(({ transport }) => counters.firstMedia(transport, 'host'));
  assert.ok(timed.every((count) => count > 0), `${timed}`);
  await photograph(page, browser, '7 complete');
  const removed = members[0].id;
  const button = await page.waitForSelector(`[data-key="${removed}"] button`);
  await button.click();
  await page.click('#confirm-yes');
  await until(page, 'one member', () => document.querySelectorAll('#members > li').length === 1);
}

async function tellFailure() {
  const room = stage.newRoom();
  // There is no TURN server, and so nothing by which Ada may be reached.
  const rtcConfig = /** @type {RTCConfiguration} */ ({ iceTransportPolicy: 'relay' });
  await stage.member('chromium', 'websocket-h2', { room, name: 'Ada', rtcConfig });
  const bob = await stage.member('firefox', 'websocket-h1', { room, name: 'Bob' });
  const page = await open('chromium', `#room=${room}`, sizes.desk);
  await until(page, 'the verdict', () => /no candidates.* ICE failed on …\w+'s side, [\d.]+ s after .* host candidates alone/.test(document.querySelector('#verdict-text').textContent));
  await until(page, 'the diagram', () => {
    const told = [...document.querySelectorAll('#sequence li')].map(({ textContent }) => textContent);
    return told.some((text) => /: ICE failed with host at best after [\d.]+ s$/.test(text)) && told.at(-1).endsWith(': no path');
  });
  const again = (await bob.record()).connections.filter(({ state }) => state === 'failed').length;
  const { events } = await (await fetch(`http://127.0.0.1:${stage.server.ports.admin}/api/rooms/${room}/timeline`)).json();
  assert.equal(events.filter(({ event, peer }) => event === 'failed' && peer === bob.id).length, 1, `told once, though it failed ${again} times`);
}

/** @param {string} browser */
async function askForToken(browser) {
  const directory = await mkdtemp(path.join(tmpdir(), 'wigwag-admin-'));
  const file = path.join(directory, 'token');
  await writeFile(file, 'long-and-random\n', { mode: 0o600 });
  const server = await Server.start({ args: ['--admin-token', file] });
  stage.afterwards(async () => {
    await server.stop();
    await rm(directory, { recursive: true });
  });
  const page = await stage.page(browser, `http://127.0.0.1:${server.ports.admin}/`, sizes.desk);
  const asked = () => document.querySelector('#token').open;
  await until(page, 'the question', asked);
  await photograph(page, browser, '8 token');
  await page.type('#token-field', 'guessed');
  await page.keyboard.press('Enter');
  await until(page, 'the refusal', () => document.querySelector('#token').open && /does not accept/.test(document.querySelector('#token-problem').textContent));
  await page.type('#token-field', 'long-and-random');
  await page.keyboard.press('Enter');
  const live = () => document.documentElement.dataset.state === 'live';
  await until(page, 'the live view', live);
  await page.reload();
  await until(page, 'the live view again', live);
  assert.deepEqual(await page.evaluate(() => [document.cookie, localStorage.length]), ['', 0], 'it is nowhere but in the tab');
  await page.click('#drain');
  await page.click('#confirm-yes');
  // It has nobody to wait for.
  const [code] = await server.exit;
  assert.equal(code, 0);
}

/** Offer, answer and candidates. @param {Guest} ada @param {Guest} bob @param {boolean} answers */
async function call(ada, bob, answers) {
  await bob.describe(ada, 'offer');
  await bob.candidate(ada, 5000);
  if (!answers) return;
  await ada.describe(bob, 'answer');
  await ada.candidate(bob, 5001);
}

/** Some talk until it is ended. @param {Guest[][]} pairs */
function talk(pairs) {
  let goesOn = true;
  const talking = (async () => {
    for (let at = 0; goesOn; at = (at + 1) % pairs.length) await pairs[at][1].say({ type: 'message', data: at });
  })();
  return { end: () => { goesOn = false; return talking; } };
}

/** @param {string} browser @param {string} hash @param {import('puppeteer-core').Viewport} viewport */
function open(browser, hash, viewport) {
  return stage.page(browser, `http://127.0.0.1:${stage.server.ports.admin}/admin${hash}`, viewport);
}

/** @param {import('puppeteer-core').Page} page @param {string} what @param {() => boolean} holds */
async function until(page, what, holds) {
  await page.waitForFunction(holds, { timeout: patienceMs, polling: 100 }).catch((error) => { throw new Error(`${what}: ${error.message}`); });
}

/** Nothing is wider than the window. @param {import('puppeteer-core').Page} page */
async function fits(page) {
  assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth), 'it scrolls sideways');
}

/** @param {import('puppeteer-core').Page} page @param {string} browser @param {string} name */
function photograph(page, browser, name) {
  return stage.screenshot(page, `admin ${browser} ${name}`);
}

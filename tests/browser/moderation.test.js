// The demo page on a server that wants tokens: what a moderator sees and does, and what becomes of the others.

import assert from 'node:assert/strict';
import { after } from 'node:test';

import { browserNames } from './support/browsers.js';
import { useStage } from './support/stage.js';
import { TokenMaker } from './support/tokens.js';
import { Visitor } from './support/visitor.js';

const tokens = await TokenMaker.create();
after(() => tokens.remove());
const { stage, scenario } = useStage({ serverArgs: ['--token-keys', tokens.keys] });

const moderator = ['join', 'publish', 'message', 'moderate'];
/** Without `join` one waits to be admitted. */
const guest = ['publish', 'message'];
const sizes = { desk: { width: 1280, height: 800 }, phone: { width: 390, height: 844 } };

for (const browser of browserNames) {
  for (const [size, viewport] of Object.entries(sizes)) {
    scenario(`a moderator locks the room and removes somebody, in ${browser}, ${size} size`, () => moderate(browser, size, viewport));
  }
  for (const [size, viewport] of Object.entries(sizes)) {
    scenario(`a moderator lets in and refuses those who wait, in ${browser}, ${size} size`, () => answerKnocks(browser, size, viewport));
  }
  scenario(`the page asks for a token that is missing, refused or about to end, in ${browser}`, () => enterToken(browser));
}

/** @param {string} browser @param {string} size @param {import('puppeteer-core').Viewport} viewport */
async function moderate(browser, size, viewport) {
  const photograph = (visitor, name) => stage.screenshot(visitor.page, `${browser} ${size} moderation ${name}`);
  const room = stage.newRoom();
  const open = async (name, grants) => visit(await stage.page(browser, await linkFor(room, name, grants), viewport), name);

  const [ada, bob] = await Promise.all([open('Ada', moderator), open('Bob')]);
  for (const visitor of [ada, bob]) {
    await visitor.join();
    assert.equal(new URL(visitor.page.url()).hash, '', 'no token stays in the address');
  }
  await Promise.all([ada.sees(1), bob.sees(1)]);
  assert.deepEqual(await Promise.all([ada, bob].map(tools)), [{ lock: true, remove: true }, { lock: false, remove: false }]);
  await photograph(ada, '1 tools');

  await ada.click('lock');
  await Promise.all([ada, bob].map((visitor) => visitor.until('the lock', () => !document.querySelector('#room-lock').hidden)));
  await photograph(ada, '2 locked');
  const eve = await open('Eve');
  await eve.type('name', 'Eve');
  await eve.click('join');
  await eve.until('the locked door', () => /is locked/.test(document.querySelector('#joining-text').textContent));
  await photograph(eve, '3 before a locked door');
  await ada.click('lock');
  await eve.until('the call', () => document.documentElement.dataset.state === 'incall');
  await Promise.all([ada, bob, eve].map((visitor) => visitor.sees(2)));
  await photograph(ada, '4 three');

  await ada.removes('Eve', () => photograph(ada, '5 question'));
  await eve.until('the end', () => document.querySelector('[data-testid=over-title]').textContent === 'You were removed from the room');
  await photograph(eve, '6 removed');
  await Promise.all([ada.sees(1), bob.sees(1)]);
  await ada.until('the lock', () => !document.querySelector('#room-lock').hidden);
}

/** @param {string} browser @param {string} size @param {import('puppeteer-core').Viewport} viewport */
async function answerKnocks(browser, size, viewport) {
  const photograph = (visitor, name) => stage.screenshot(visitor.page, `${browser} ${size} waiting ${name}`);
  const room = stage.newRoom();
  const open = async (name, grants, more = '') => (
    visit(await stage.page(browser, (await linkFor(room, name, grants)).replace('#', `${more}#`), viewport), name)
  );
  const ada = await open('Ada', moderator);
  await ada.join();
  await photograph(ada, '1 alone');

  const ways = Object.entries({ Gina: 'long-poll', Eve: 'webtransport', Ivo: 'event-stream' });
  const guests = await Promise.all(ways.map(([name, transport]) => open(name, guest, `&transport=${transport}`)));
  for (const one of guests) {
    await one.type('name', one.name);
    await one.click('join');
    await one.until('the door', () => document.querySelector('#joining-title').textContent === 'Waiting to be let in');
  }
  const [gina, eve, ivo] = guests;
  await photograph(gina, '2 before the door');
  await ada.until('three at the door', () => document.querySelectorAll('[data-testid=knocks] > li').length === 3);
  await photograph(ada, '3 at the door');

  await ada.press('Let Gina in');
  await gina.until('the call', () => document.documentElement.dataset.state === 'incall');
  await Promise.all([ada.sees(1), gina.sees(1)]);
  await ada.press('Refuse Eve');
  await eve.until('the refusal', () => document.querySelector('[data-testid=over-title]').textContent === 'You were not let in');
  await photograph(eve, '4 refused');
  // Who tires of waiting is gone from the list at once.
  await ivo.click('cancel');
  await ada.until('nobody at the door', () => document.querySelector('#door').hidden);
  assert.deepEqual(await tools(gina), { lock: false, remove: false });
}

/** @param {string} browser */
async function enterToken(browser) {
  const room = stage.newRoom();
  const [good, short, foreign] = await Promise.all([
    tokens.make({ room, user: 'ada' }), tokens.make({ room, user: 'ada', time: '20s' }), tokens.make({ room: 'another', user: 'ada' }),
  ]);
  const ada = await visit(await stage.page(browser, `${stage.server.plain}/?room=${room}`), 'Ada');
  await ada.type('name', 'Ada');
  await ada.click('join');
  await ada.until('the question', () => document.activeElement?.id === 'token' && /asks for/.test(document.querySelector('#token-problem').textContent));
  await stage.screenshot(ada.page, `${browser} desk moderation 7 asked for a token`);
  await ada.type('token', foreign);
  await ada.click('join');
  await ada.until('the refusal', () => /did not accept/.test(document.querySelector('#token-problem').textContent));
  await ada.type('token', short);
  await ada.click('join');
  await ada.until('the warning', () => /ends at/.test(document.querySelector('[data-testid=banner]').textContent));
  await ada.page.click('#banner-action');
  await ada.type('renew-token', good);
  await ada.click('renew');
  await ada.until('the warning’s end', () => document.querySelector('[data-testid=banner]').hidden);
  // A reload finds the token that the tab keeps.
  await ada.page.reload();
  await ada.join();
}

/** @param {import('puppeteer-core').Page} page @param {string} name */
async function visit(page, name) {
  const visitor = new Visitor(page, name);
  await visitor.arrives();
  return visitor;
}

/** What the page offers. @param {Visitor} visitor */
function tools({ page }) {
  return page.evaluate(() => ({
    lock: !document.querySelector('[data-testid=lock]').hidden,
    remove: !document.querySelector('[data-testid=tile] [data-testid=remove]').hidden,
  }));
}

/** A link that lets somebody in. @param {string} room @param {string} user @param {string[]} [grants] */
async function linkFor(room, user, grants) {
  return `${stage.server.plain}/?room=${room}#token=${await tokens.make({ room, user: user.toLowerCase(), grants })}`;
}

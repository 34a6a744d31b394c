// The demo page, visited by people: each browser, at a desk and on a phone.

import assert from 'node:assert/strict';

import { browserNames } from './support/browsers.js';
import { useStage } from './support/stage.js';
import { Visitor } from './support/visitor.js';

const { stage, scenario } = useStage();

const desk = { width: 1280, height: 800 };
const phone = { width: 390, height: 844, hasTouch: true, isMobile: true };

/** Firefox can be made as small as a phone, but not to take itself for one. */
const sizes = {
  chromium: { desk, phone },
  firefox: { desk, phone: { width: phone.width, height: phone.height } },
};

for (const browser of browserNames) {
  for (const [size, viewport] of Object.entries(sizes[browser])) {
    scenario(`two people meet, talk, leave and come back, in ${browser}, ${size} size`, () => meet(browser, size, viewport));
  }
}

/** @param {string} browser @param {string} size @param {import('puppeteer-core').Viewport} viewport */
async function meet(browser, size, viewport) {
  const photograph = (visitor, name) => stage.screenshot(visitor.page, `${browser} ${size} ${name}`);
  const room = stage.newRoom();
  const before = await stage.server.counters();

  const ada = new Visitor(await stage.page(browser, `${stage.server.plain}/`, viewport), 'Ada');
  await ada.until('her own picture', () => document.querySelector('#preview-video').videoWidth > 0);
  await photograph(ada, '1 before');
  await ada.join(room);
  await photograph(ada, '2 alone');

  await ada.click('invite');
  const link = await ada.read('invite-link');
  await photograph(ada, '3 invitation');
  await ada.page.keyboard.press('Escape');
  const bob = new Visitor(await stage.page(browser, link, viewport), 'Bob');
  await bob.until('the room of the link', (name) => document.querySelector('[data-testid=room]').value === name, room);
  await bob.join();
  await Promise.all([ada.sees(1), bob.sees(1)]);
  await photograph(bob, '4 call');
  await showsWebTransport(ada, before);

  await chat(ada, bob);
  await photograph(ada, '5 chat');
  await ada.click('chat-toggle');
  await silenceAndHide(ada, bob, () => photograph(bob, '6 muted'));

  await ada.click('status');
  await ada.until('the path of the media', () => /direct/.test(document.querySelector('#details-peers').textContent));
  await photograph(ada, '7 details');
  await ada.page.keyboard.press('Escape');

  await ada.click('leave');
  await ada.until('the end', () => document.documentElement.dataset.state === 'left');
  await photograph(ada, '8 left');
  await bob.sees(0);
  await ada.click('rejoin');
  await Promise.all([ada.sees(1), bob.sees(1)]);

  // Who goes to another page is gone at once, and not when the seat's time is over.
  await bob.page.goto('about:blank');
  await ada.sees(0);
  await ada.click('leave');
}

/** @param {Visitor} visitor @param {import('./support/server.js').Counters} before */
async function showsWebTransport(visitor, before) {
  await visitor.until('the transport', () => document.querySelector('#status').dataset.transport === 'webtransport');
  const after = await stage.server.counters();
  assert.equal(after.sessions('webtransport') - before.sessions('webtransport'), 2);
}

/** @param {Visitor} ada @param {Visitor} bob */
async function chat(ada, bob) {
  await say(bob, 'Good morning, Ada! Notes: https://example.org/notes');
  await ada.until('one unread message', () => {
    const badge = document.querySelector('[data-testid=unread]');
    return !badge.hidden && badge.textContent === '1';
  });
  await say(ada, 'Thank you, I am reading them now.');
  await Promise.all([ada, bob].map((visitor) => visitor.until('both messages', () => {
    const texts = [...document.querySelectorAll('[data-testid=chat-list] .message-text')].map(({ textContent }) => textContent);
    return texts.join('|') === 'Good morning, Ada! Notes: https://example.org/notes|Thank you, I am reading them now.';
  })));
  await bob.click('chat-toggle');
}

/** @param {Visitor} visitor @param {string} text */
async function say(visitor, text) {
  await visitor.click('chat-toggle');
  await visitor.type('chat-input', text);
  await visitor.click('chat-send');
}

/** @param {Visitor} ada @param {Visitor} bob @param {() => Promise<void>} meanwhile */
async function silenceAndHide(ada, bob, meanwhile) {
  await ada.click('mute');
  await ada.click('camera');
  await bob.seesPeerWith('audio', false);
  await bob.seesPeerWith('video', false);
  await meanwhile();
  await ada.click('mute');
  await ada.click('camera');
  await bob.seesPeerWith('audio', true);
  await bob.sees(1);
}

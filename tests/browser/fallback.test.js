// Networks that let only some of it through: the library finds what works, and leaves it when something better does.

import assert from 'node:assert/strict';

import { browserNames } from './support/browsers.js';
import { useStage } from './support/stage.js';

/** @import { Member } from './support/member.js' */

const { stage, scenario } = useStage({ relayed: true });

/** How long a person may be kept waiting by a network without UDP. In milliseconds. */
const soonMs = 3_000;

for (const { origin, expected } of /** @type {const} */ ([
  { origin: 'plain', expected: 'websocket-h1' }, { origin: 'secure', expected: 'websocket-h2' },
])) {
  scenario(`where UDP is blocked both browsers soon call over ${expected}, and over WebTransport when it is not`, () => (
    blockAndUnblock(origin, expected)
  ));
}

for (const transport of ['event-stream', 'long-poll']) {
  scenario(`where only plain requests come through both browsers call over ${transport}`, async () => {
    const members = await enter({ origin: 'secure', types: [transport] });
    assert.deepEqual(members.map((member) => member.transport), [transport, transport]);
    await talk(members);
    await Promise.all(members.map((member) => member.leave()));
  });
}

/** @param {'plain'|'secure'} origin @param {string} expected */
async function blockAndUnblock(origin, expected) {
  for (const relay of stage.relays) relay.blockUdp();
  const before = await stage.server.counters();
  const members = await enter({ origin });
  assert.deepEqual(members.map((member) => member.transport), [expected, expected]);
  for (const { name, joinMs } of members) assert.ok(joinMs < soonMs, `${name} joined after ${joinMs} ms`);
  await talk(members);
  const during = await stage.server.counters();
  assert.equal(during.sessions(expected) - before.sessions(expected), 2);
  assert.equal(during.sessions('webtransport') - before.sessions('webtransport'), 0);

  for (const relay of stage.relays) relay.unblockUdp();
  await Promise.all(members.map((member) => (
    member.until('the better transport', () => globalThis.member.session.transport === 'webtransport')
  )));
  for (const member of members) {
    const { joined, presence } = await member.record();
    assert.equal(joined, 1, 'the seat was kept');
    assert.deepEqual(presence.filter(({ event }) => event === 'peerleft'), []);
  }
  await talk(members);
  await Promise.all(members.map((member) => member.leave()));
}

/** @param {{origin: 'plain'|'secure', types?: string[]}} transport */
function enter(transport) {
  const room = stage.newRoom();
  return Promise.all(browserNames.map((browser) => stage.member(browser, transport, { room, name: browser })));
}

/** @param {Member[]} members */
async function talk([alice, bob]) {
  await Promise.all([alice.hears(bob), bob.hears(alice)]);
  const words = `word ${Math.random()}`;
  await Promise.all([alice.page, bob.page].map((page) => page.evaluate((data) => globalThis.member.session.send(data), words)));
  await Promise.all([alice, bob].map((member) => (
    member.until('the word', (data) => globalThis.member.messages.some((message) => message.data === data), words)
  )));
}

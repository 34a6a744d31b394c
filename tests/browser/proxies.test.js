// Proxies that buffer, cut or refuse: the library finds what works, and a person does not wait long for it.

import assert from 'node:assert/strict';

import { browserNames } from './support/browsers.js';
import { Member } from './support/member.js';
import { Proxy } from './support/proxy.js';
import { useStage } from './support/stage.js';

const { stage, scenario } = useStage({ proxied: true });

/** How long a person may be kept waiting behind such a proxy. In milliseconds. */
const soonMs = 5_000;
/** How long a session under way may be without an answer. In milliseconds. */
const gapMs = 8_000;
const cutAgeMs = 10_000;
/** What has lived so long is tried again after a loss. In milliseconds. */
const grownUpMs = 6_000;
/** How often each member loses its transport in the scenario that cuts. */
const cuts = 3;

/** @type {{kind: string, manner: import('./support/proxy.js').Manner, expected: string}[]} */
const ladders = [
  { kind: 'one that buffers', manner: { holds: true }, expected: 'long-poll' },
  { kind: 'one that refuses upgrades', manner: {}, expected: 'event-stream' },
  { kind: 'one of HTTP/2 without extended CONNECT', manner: { http2: true, upgrade: 'passed' }, expected: 'websocket-h1' },
  { kind: 'one of HTTP/2 that refuses extended CONNECT', manner: { http2: true, connect: 'refused' }, expected: 'event-stream' },
  { kind: 'one of HTTP/2 that resets extended CONNECT', manner: { http2: true, connect: 'reset' }, expected: 'event-stream' },
  { kind: 'one of HTTP/2 that never answers upgrades', manner: { http2: true, upgrade: 'hanging' }, expected: 'event-stream' },
  { kind: 'one of HTTP/2 that buffers', manner: { http2: true, holds: true }, expected: 'long-poll' },
];

for (const { kind, manner, expected } of ladders) {
  scenario(`behind a proxy, ${kind}, both browsers call over ${expected}, and at once when they come again`, () => (
    throughProxy(kind, () => Proxy.ending(stage.server, manner), async (members, room) => {
      const [alice, bob] = members;
      assert.deepEqual(members.map((member) => member.transport), [expected, expected]);
      await Promise.all([alice.hears(bob), bob.hears(alice)]);
      for (const member of members) await comeAgain(kind, member, room);
    })
  ));
}

scenario('a proxy that begins to buffer in mid-session takes neither the call nor a message', () => (
  throughProxy('one that begins to buffer', () => Proxy.ending(stage.server, { http2: true }), async (members, _room, proxy) => {
    const [alice, bob] = members;
    assert.deepEqual(members.map((member) => member.transport), ['event-stream', 'event-stream']);
    await Promise.all([alice.hears(bob), bob.hears(alice)]);
    // By then the event stream counts as one that has worked.
    await Promise.all(members.map((member) => member.until('a grown-up link', (old) => (
      Date.now() - globalThis.member.record.joinedAt > old
    ), grownUpMs)));
    await Promise.all(members.map((member) => member.page.evaluate(startCounting)));
    const startedAt = performance.now();
    proxy.beginToHold();
    await Promise.all(members.map(async (member) => {
      await member.until('the long poll', () => globalThis.member.session.transport === 'long-poll');
      tellMove('left the event stream', member, startedAt);
      const { states } = await member.record();
      // The try for something better finds that it is held back still, and costs little.
      await member.until('the loss', (known) => (
        globalThis.member.record.states.slice(known).includes('reconnecting')
      ), states.length);
      const lostAt = performance.now();
      await member.until('the long poll', () => globalThis.member.session.state === 'open');
      tellMove('came back from a try for a better one', member, lostAt);
      assert.equal(await member.page.evaluate(() => globalThis.member.session.transport), 'long-poll');
    }));
    await arriveInOrder(members);
    await Promise.all([alice.goesOnHearing(bob), bob.goesOnHearing(alice)]);
  })
));

scenario(`a proxy that cuts every connection after ${cutAgeMs} ms takes neither the call nor a message`, () => (
  throughProxy('one that cuts', () => Proxy.cutting(stage.server, cutAgeMs), async (members) => {
    const [alice, bob] = members;
    await Promise.all([alice.hears(bob), bob.hears(alice)]);
    await Promise.all(members.map((member) => member.page.evaluate(startCounting)));
    for (let cut = 1; cut <= cuts; cut += 1) {
      await Promise.all(members.map((member) => (
        member.until(`resume ${cut}`, (count) => globalThis.member.record.resumedAt.length >= count, cut)
      )));
    }
    await arriveInOrder(members);
    await Promise.all([alice.goesOnHearing(bob), bob.goesOnHearing(alice)]);
  })
));

/** What each has counted, the other has read, in the seats in which they began. @param {Member[]} members */
async function arriveInOrder([alice, bob]) {
  const sent = await Promise.all([alice, bob].map((member) => member.page.evaluate(() => globalThis.stopCounting())));
  for (const [reader, count] of [[alice, sent[1]], [bob, sent[0]]]) {
    await reader.until('the last number', (last) => globalThis.member.messages.at(-1)?.data === last, count);
    const numbers = await reader.page.evaluate(() => globalThis.member.messages.map(({ data }) => data));
    assert.deepEqual(numbers, Array.from({ length: count }, (_, index) => index + 1), 'each once and in order');
    const { joined, presence, connections } = await reader.record();
    assert.equal(joined, 1, 'the seat was kept');
    assert.deepEqual(presence.filter(({ event }) => event === 'peerleft'), []);
    assert.deepEqual(connections.filter(({ state }) => state === 'failed'), []);
  }
}

/** @param {string} what @param {Member} member @param {number} startedAt */
function tellMove(what, member, startedAt) {
  const ms = Math.round(performance.now() - startedAt);
  console.log(`proxy, one that begins to buffer, ${member.name}: ${what} after ${ms} ms`);
  assert.ok(ms < gapMs, `${member.name} ${what} after ${ms} ms`);
}

/**
 * In the same tab, which remembers what has worked: that is the first thing tried, and no other is waited for.
 * @param {string} kind
 * @param {Member} before
 * @param {string} room
 */
async function comeAgain(kind, before, room) {
  await before.leave();
  await before.page.reload();
  const again = await Member.join(before.page, { room, name: before.name });
  await tell(`${kind}, again`, again);
  assert.equal(again.transport, before.transport);
  const { attempts } = await again.record();
  assert.deepEqual(attempts.map(({ outcome }) => outcome), ['won'], 'nothing else was tried');
}

/**
 * @param {string} kind
 * @param {() => Promise<Proxy>} start
 * @param {(members: Member[], room: string, proxy: Proxy) => Promise<void>} play
 */
async function throughProxy(kind, start, play) {
  const proxy = await start();
  stage.afterwards(() => proxy.close());
  const room = stage.newRoom();
  const members = await Promise.all(browserNames.map((browser) => stage.member(browser, { origin: 'secure' }, { room })));
  for (const member of members) await tell(kind, member);
  await play(members, room, proxy);
}

/** Prints how the way was found. @param {string} kind @param {Member} member */
async function tell(kind, member) {
  const { attempts } = await member.record();
  const rungs = attempts.map(({ transport, outcome, ms }) => `${transport} ${outcome} ${ms} ms`).join(', ');
  console.log(`proxy, ${kind}, ${member.name}: joined over ${member.transport} after ${Math.round(member.joinMs)} ms (${rungs})`);
  assert.ok(member.joinMs < soonMs, `${member.name} joined after ${member.joinMs} ms`);
}

/** Runs in the page: sends 1, 2, 3 … until it is told to stop, which says how far it came. */
function startCounting() {
  let count = 0;
  const timer = setInterval(() => globalThis.member.session.send(count += 1), 100);
  globalThis.stopCounting = () => {
    clearInterval(timer);
    return count;
  };
}

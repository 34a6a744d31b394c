// Proxies that buffer, cut or refuse: the library finds what works, and a person does not wait long for it.

import assert from 'node:assert/strict';

import { browserNames } from './support/browsers.js';
import { Proxy } from './support/proxy.js';
import { useStage } from './support/stage.js';

/** @import { Member } from './support/member.js' */

const { stage, scenario } = useStage({ proxied: true });

/** How long a person may be kept waiting behind such a proxy. In milliseconds. */
const soonMs = 8_000;
const cutAgeMs = 10_000;
/** How often each member loses its transport in the scenario that cuts. */
const cuts = 3;

for (const { kind, expected } of /** @type {const} */ ([
  { kind: 'buffering', expected: 'long-poll' }, { kind: 'refusing', expected: 'event-stream' },
])) {
  scenario(`behind a ${kind} proxy both browsers call over ${expected}`, () => (
    throughProxy(kind, () => Proxy[kind](stage.server), async (members) => {
      const [alice, bob] = members;
      assert.deepEqual(members.map((member) => member.transport), [expected, expected]);
      await Promise.all([alice.hears(bob), bob.hears(alice)]);
    })
  ));
}

scenario(`a proxy that cuts every connection after ${cutAgeMs} ms takes neither the call nor a message`, () => (
  throughProxy('cutting', () => Proxy.cutting(stage.server, cutAgeMs), async (members) => {
    const [alice, bob] = members;
    await Promise.all([alice.hears(bob), bob.hears(alice)]);
    await Promise.all(members.map((member) => member.page.evaluate(startCounting)));
    for (let cut = 1; cut <= cuts; cut += 1) {
      await Promise.all(members.map((member) => (
        member.until(`resume ${cut}`, (count) => globalThis.member.record.resumedAt.length >= count, cut)
      )));
    }
    const sent = await Promise.all(members.map((member) => member.page.evaluate(() => globalThis.stopCounting())));
    for (const [reader, count] of [[alice, sent[1]], [bob, sent[0]]]) {
      await reader.until('the last number', (last) => globalThis.member.messages.at(-1)?.data === last, count);
      const numbers = await reader.page.evaluate(() => globalThis.member.messages.map(({ data }) => data));
      assert.deepEqual(numbers, Array.from({ length: count }, (_, index) => index + 1), 'each once and in order');
      const { joined, presence, connections } = await reader.record();
      assert.equal(joined, 1, 'the seat was kept');
      assert.deepEqual(presence.filter(({ event }) => event === 'peerleft'), []);
      assert.deepEqual(connections.filter(({ state }) => state === 'failed'), []);
    }
  })
));

/**
 * @param {string} kind
 * @param {() => Promise<Proxy>} start
 * @param {(members: Member[]) => Promise<void>} play
 */
async function throughProxy(kind, start, play) {
  const proxy = await start();
  try {
    const room = stage.newRoom();
    const members = await Promise.all(browserNames.map((browser) => stage.member(browser, { origin: 'secure' }, { room })));
    for (const member of members) await tell(kind, member);
    await play(members);
    await Promise.all(members.map((member) => member.leave()));
  } finally {
    await stage.clear();
    await proxy.close();
  }
}

/** Prints how the way was found. @param {string} kind @param {Member} member */
async function tell(kind, member) {
  const { attempts } = await member.record();
  const rungs = attempts.map(({ transport, outcome, ms }) => `${transport} ${outcome} ${ms} ms`).join(', ');
  console.log(`${kind} proxy, ${member.name}: joined over ${member.transport} after ${Math.round(member.joinMs)} ms (${rungs})`);
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

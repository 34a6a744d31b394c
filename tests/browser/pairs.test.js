// Everybody with everybody: each of the two browsers over each of the three transports calls each, itself included.

import assert from 'node:assert/strict';

import { browserNames } from './support/browsers.js';
import { transports } from './support/member.js';
import { useStage } from './support/stage.js';

const { stage, scenario } = useStage();

const kinds = browserNames.flatMap((browser) => Object.keys(transports).map((transport) => ({ browser, transport })));

kinds.forEach((one, index) => {
  for (const other of kinds.slice(index)) {
    scenario(`${one.browser} over ${one.transport} calls ${other.browser} over ${other.transport}`, () => call(one, other));
  }
});

async function call(one, other) {
  const room = stage.newRoom();
  const before = await stage.server.counters();
  const [alice, bob] = await Promise.all([one, other].map(({ browser, transport }, index) => (
    stage.member(browser, transport, { room, name: ['Alice', 'Bob'][index] })
  )));
  assert.deepEqual([alice.transport, bob.transport], [one.transport, other.transport]);

  await Promise.all([alice.hears(bob), bob.hears(alice)]);
  await Promise.all([alice.chat('to Bob'), bob.chat('to Alice')]);
  await Promise.all([alice.reads(bob, 'to Alice'), bob.reads(alice, 'to Bob')]);

  const after = await stage.server.counters();
  for (const transport of Object.keys(transports)) {
    const expected = [one, other].filter((kind) => kind.transport === transport).length;
    assert.equal(after.sessions(transport) - before.sessions(transport), expected, `sessions over ${transport}`);
    assert.equal(after.openSessions(transport), expected, `open sessions over ${transport}`);
  }
  await Promise.all([alice.leave(), bob.leave()]);
}

// What signaling promises and media must not feel: the transport dies again and again in the middle of a call.

import assert from 'node:assert/strict';

import { transports } from './support/member.js';
import { useStage } from './support/stage.js';
import { Traffic } from './support/traffic.js';

// A silent connection is given up after two heartbeats.
const { stage, scenario } = useStage({ serverArgs: ['--heartbeat', '1s'], relayed: true });

const losses = 10;
/** Of each side; some go before a loss, some into it, some while there is no connection. */
const messagesPerLoss = 100;
const messagesBefore = 70;

const each = (harm) => () => stage.relays.forEach(harm);
/** Ways in which a network ends a transport. On UDP nothing tells of an end: there, all of the first three are silence. */
const harms = {
  reset: each((relay) => relay.cut()),
  close: each((relay) => relay.close()),
  silence: each((relay) => relay.silence()),
  /** Until both have noticed. */
  blockade: async (members) => {
    for (const relay of stage.relays) relay.blockUdp();
    await Promise.all(members.map((member) => (
      member.until('the loss', () => globalThis.member.session.state === 'reconnecting')
    )));
    for (const relay of stage.relays) relay.unblockUdp();
  },
};

// Browsers put every request to the server on the HTTP/2 connection that they have, and do not notice for a minute that
// nothing comes back on it: with nothing else to try, silence there ends no sooner.
for (const { name, transport, ways } of /** @type {const} */ ([
  { name: 'webtransport', transport: transports.webtransport, ways: ['silence', 'blockade', 'silence'] },
  { name: 'websocket-h2', transport: transports['websocket-h2'], ways: ['reset', 'close'] },
  { name: 'websocket-h1', transport: transports['websocket-h1'], ways: ['reset', 'silence', 'close'] },
  { name: 'event-stream over HTTP/2', transport: { origin: 'secure', types: ['event-stream'] }, ways: ['reset', 'close'] },
  { name: 'event-stream', transport: { origin: 'plain', types: ['event-stream'] }, ways: ['reset', 'silence', 'close'] },
  { name: 'long-poll', transport: { origin: 'plain', types: ['long-poll'] }, ways: ['reset', 'silence', 'close'] },
])) {
  scenario(`a call over ${name} outlives ${losses} losses of its signaling, and each message arrives once and in order`, async () => {
    const traffic = await Traffic.start(stage, transport);
    for (let loss = 0; loss < losses; loss += 1) {
      const way = ways[loss % ways.length];
      await Promise.all([
        traffic.exchange(messagesPerLoss), traffic.suffer(way, () => harms[way](traffic.members), messagesBefore),
      ]);
    }
    const gapMs = await traffic.check();
    const resumes = await Promise.all(traffic.members.map(async (member) => (await member.record()).resumedAt.length));
    // A poll need not be resumed where the browser repeats it by itself.
    if (name !== 'long-poll') assert.ok(Math.min(...resumes) >= losses, `resumed ${resumes} times`);
    console.log(`${name}: ${losses} losses (${ways.join(', ')}), ${traffic.sent} messages each way, `
      + `longest gap in media ${gapMs} ms, longest time until resumed ${traffic.longestOutageMs} ms`);
  });
}

scenario('a call moves to WebTransport when its HTTP/2 connection dies without a word', async () => {
  const traffic = await Traffic.start(stage, { origin: 'secure', types: ['websocket', 'webtransport'] });
  assert.deepEqual(traffic.members.map(({ transport }) => transport), ['websocket-h2', 'websocket-h2']);
  await Promise.all([traffic.exchange(messagesPerLoss), traffic.suffer('silence', harms.silence, messagesBefore)]);
  for (const member of traffic.members) assert.deepEqual((await member.record()).transports, ['webtransport']);
  await traffic.check();
});

// Firefox has no second pool, and its session ends where nothing else is to be had for longer than the resume window.
scenario('a call in Chromium goes on by another connection when its HTTP/2 connection dies without a word and UDP is blocked', async () => {
  for (const relay of stage.relays) relay.blockUdp();
  const traffic = await Traffic.start(stage, { origin: 'secure' }, ['chromium', 'chromium']);
  assert.deepEqual(traffic.members.map(({ transport }) => transport), ['websocket-h2', 'websocket-h2']);
  await Promise.all([traffic.exchange(messagesPerLoss), traffic.suffer('silence', harms.silence, messagesBefore)]);
  for (const relay of stage.relays) relay.unblockUdp();
  await traffic.check();
  console.log(`HTTP/2 dead and UDP blocked, in Chromium: resumed after ${traffic.longestOutageMs} ms`);
});

scenario('a WebTransport session goes on when the network gives it another address', async () => {
  const traffic = await Traffic.start(stage, transports.webtransport);
  const before = await stage.server.counters();
  for (const relay of stage.relays) await relay.rebindUdp();
  await traffic.exchange(messagesPerLoss);
  await traffic.check();

  const after = await stage.server.counters();
  assert.equal(after.sessions('webtransport') - before.sessions('webtransport'), 0, 'sessions resumed');
  assert.equal(after.connections('h3') - before.connections('h3'), 0, 'new connections');
});

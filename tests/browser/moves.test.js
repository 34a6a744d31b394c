// A session goes where the network lets it: from a WebSocket to WebTransport when UDP opens, and back when it is blocked.

import assert from 'node:assert/strict';

import { useStage } from './support/stage.js';
import { Traffic } from './support/traffic.js';

// Heartbeats as by default: two of them would be far too long to wait for.
const { stage, scenario } = useStage({ relayed: true });

/** From the blockade until traffic flows again. In milliseconds. */
const soonMs = 5_000;

const blockUdp = () => stage.relays.forEach((relay) => relay.blockUdp());
const unblockUdp = () => stage.relays.forEach((relay) => relay.unblockUdp());

for (const { origin, websocket } of /** @type {const} */ ([
  { origin: 'plain', websocket: 'websocket-h1' }, { origin: 'secure', websocket: 'websocket-h2' },
])) {
  scenario(`a call moves from WebTransport to ${websocket} when UDP is blocked, and back when it opens`, async () => {
    const traffic = await Traffic.start(stage, { origin });
    const { members } = traffic;
    assert.deepEqual(members.map(({ transport }) => transport), ['webtransport', 'webtransport']);
    // A transport that is left in its first seconds is not tried again soon.
    await traffic.exchange(200);

    const exchange = traffic.exchange(200);
    await traffic.underWay(70);
    const talking = await arrive(members, websocket, blockUdp);
    await exchange;
    const back = await arrive(members, 'webtransport', unblockUdp);
    await traffic.exchange(200);
    // With nothing to say, only the library's own pings can tell.
    const silent = await arrive(members, websocket, blockUdp);
    await traffic.exchange(100);
    unblockUdp();

    console.log(`${websocket}: ${talking} ms after UDP was blocked with messages under way, ${silent} ms with nothing said; `
      + `back on WebTransport ${back} ms after it opened`);
    for (const ms of [talking, silent]) assert.ok(ms < soonMs, `on ${websocket} after ${ms} ms`);
    await traffic.check();
    for (const member of members) {
      const { transports, states } = await member.record();
      assert.deepEqual(transports, [websocket, 'webtransport', websocket], 'one event a move');
      assert.deepEqual(states, ['open'], 'the application never saw it away');
    }
  });
}

/**
 * Changes the network, and waits until both have resumed over that transport.
 * @param {import('./support/member.js').Member[]} members
 * @param {string} transport
 * @param {() => void} change
 * @returns {Promise<number>} how long it took the slower one, in milliseconds
 */
async function arrive(members, transport, change) {
  const since = Date.now();
  change();
  const times = await Promise.all(members.map(async (member) => {
    await member.until(transport, (name, time) => {
      const { session, record } = globalThis.member;
      return session.transport === name && record.resumedAt.at(-1) >= time;
    }, transport, since);
    return (await member.record()).resumedAt.at(-1) - since;
  }));
  return Math.max(...times);
}

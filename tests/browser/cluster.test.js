// A call between two nodes of a cluster, one of which is then stopped.

import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { after } from 'node:test';

import { within } from './support/deadline.js';
import { Front } from './support/front.js';
import { Member, blankPath } from './support/member.js';
import { Nats } from './support/nats.js';
import { Server } from './support/server.js';
import { behind, useStage } from './support/stage.js';
import { Traffic } from './support/traffic.js';

process.env.KEY_OF_CLUSTER = randomBytes(32).toString('hex');

const nats = await Nats.start();
const serverArgs = ['--cluster', nats.url, '--cluster-key', 'env:KEY_OF_CLUSTER', '--drain', '3s'];
const { stage, scenario } = useStage({ serverArgs, proxied: true });
/** Where the node listens that Alice is to go to, under the ports of the one that she comes from. */
const beside = '127.0.0.3';
// After the stage, whose server is one of the nodes.
after(() => nats.stop());

scenario('a call between Chromium at one node and Firefox at another goes on when the node of one is stopped', async () => {
  const first = stage.server;
  const [second, third] = await Promise.all([
    Server.start({ args: serverArgs }), Server.start({ args: serverArgs, hosts: [beside], at: first.ports }),
  ]);
  const front = await Front.start(first.ports.plain, behind);
  stage.afterwards(() => front.stop());
  for (const node of [second, third]) stage.afterwards(() => node.stop());
  await Promise.all([first, second, third].map((node) => linked(node, 2)));

  const room = stage.newRoom();
  const [alice, bob] = await Promise.all([enter('chromium', 'Alice', first, room), enter('firefox', 'Bob', second, room)]);
  assert.deepEqual(await sessions([first, second, third]), [1, 1, 0]);
  const traffic = await Traffic.between([alice, bob]);
  await traffic.exchange(30);

  front.host = beside;
  const since = Date.now();
  // Nothing is sent meanwhile: of what comes for a seat on its way, its sender is told that it has not arrived (docs/protocol.md).
  const [movedMs] = await Promise.all([moved(alice, since), first.stop()]);
  assert.deepEqual(await sessions([second, third]), [1, 1]);
  await traffic.exchange(30);
  await Promise.all([alice.goesOnHearing(bob), bob.goesOnHearing(alice)]);
  const gapMs = await traffic.check();
  console.log(`${traffic.sent} messages each way between nodes, one of which was stopped; the session had moved after ${movedMs} ms, `
    + `longest gap in media ${gapMs} ms`);
});

/** @param {Server} node @param {number} links */
async function linked(node, links) {
  const look = async () => {
    while ((await node.counters()).links() !== links) await sleep(20);
  };
  await within(look(), `${links} links of a node`);
}

/**
 * @param {string} browser
 * @param {string} name
 * @param {Server} node
 * @param {string} room
 */
async function enter(browser, name, node, room) {
  const page = await stage.page(browser, `${node.plain}${blankPath}`);
  return Member.join(page, { room, name, types: ['websocket'] });
}

/** @param {Server[]} nodes */
async function sessions(nodes) {
  const counters = await Promise.all(nodes.map((node) => node.counters()));
  return counters.map((of) => of.openSessions('websocket-h1'));
}

/** @param {Member} member @param {number} since @returns {Promise<number>} after how long it had resumed, in milliseconds */
async function moved(member, since) {
  await member.until('another node', (time) => globalThis.member.record.resumedAt.at(-1) >= time, since);
  return (await member.record()).resumedAt.at(-1) - since;
}

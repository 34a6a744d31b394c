// What signaling promises and media must not feel: the transport dies again and again in the middle of a call.

import assert from 'node:assert/strict';

import { within } from './support/deadline.js';
import { transports } from './support/member.js';
import { useStage } from './support/stage.js';

/** @import { Member } from './support/member.js' */

// A silent connection is given up after two heartbeats.
const { stage, scenario } = useStage({ serverArgs: ['--heartbeat', '1s'], relayed: true });

/** Longer than any wait of a working media path, shorter than the loss of any connection below. In milliseconds. */
const mediaGapMs = 1_000;

scenario('a call over webtransport outlives the loss of its signaling, and each message arrives once and in order', async () => {
  const members = await startCall(transports.webtransport);
  for (const loss of /** @type {const} */ (['silence', 'silence', 'silence'])) await loseSignaling(members, loss);
  await checkCall(members);
});

scenario('a call over websocket-h2 outlives the loss of its signaling, and each message arrives once and in order', async () => {
  const members = await startCall(transports['websocket-h2']);
  for (const loss of /** @type {const} */ (['cut', 'cut', 'cut'])) await loseSignaling(members, loss);
  await checkCall(members);
});

scenario('a call over websocket-h1 outlives the loss of its signaling, and each message arrives once and in order', async () => {
  const members = await startCall(transports['websocket-h1']);
  for (const loss of /** @type {const} */ (['cut', 'silence', 'cut'])) await loseSignaling(members, loss);
  await checkCall(members);
});

// Browsers put every request to the server on the HTTP/2 connection that they have, and do not notice for a minute that
// nothing comes back on it.
scenario('a call moves to WebTransport when its HTTP/2 connection dies without a word', async () => {
  const members = await startCall({ origin: 'secure', types: ['websocket', 'webtransport'] });
  assert.deepEqual(members.map(({ transport }) => transport), ['websocket-h2', 'websocket-h2']);
  await loseSignaling(members, 'silence');
  for (const member of members) assert.deepEqual((await member.record()).transports, ['webtransport']);
  await checkCall(members);
});

scenario('a WebTransport session goes on when the network gives it another address', async () => {
  const members = await startCall(transports.webtransport);
  const before = await stage.server.counters();
  for (const relay of stage.relays) await relay.rebindUdp();
  await Promise.all(members.map((member) => hearsMore(member)));
  await checkCall(members);

  const after = await stage.server.counters();
  assert.equal(after.sessions('webtransport') - before.sessions('webtransport'), 0, 'sessions resumed');
  assert.equal(after.connections('h3') - before.connections('h3'), 0, 'new connections');
});

/** @param {Member[]} members @param {'cut'|'silence'} loss */
async function loseSignaling(members, loss) {
  const resumes = await Promise.all(members.map(async (member) => (await member.record()).resumed));
  for (const relay of stage.relays) relay[loss]();
  await Promise.all(members.map((member, index) => (
    member.until(`resumption after ${loss}`, (before) => globalThis.member.record.resumed > before, resumes[index])
  )));
  await Promise.all(members.map((member) => hearsMore(member)));
}

/** A second's worth of messages arrives from now on. @param {Member} member */
async function hearsMore(member) {
  const heard = await member.page.evaluate(() => globalThis.member.messages.length);
  await member.until('more messages', (enough) => globalThis.member.messages.length >= enough, heard + 50);
}

/**
 * Two who hear and see each other, each sending the other numbers without a pause.
 * @param {{origin: 'secure'|'plain', types: string[]}} transport
 */
async function startCall(transport) {
  const room = stage.newRoom();
  const members = await Promise.all([
    stage.member('chromium', transport, { room, name: 'Alice' }), stage.member('firefox', transport, { room, name: 'Bob' }),
  ]);
  const [alice, bob] = members;
  await Promise.all([alice.hears(bob), bob.hears(alice)]);
  await Promise.all([alice.page.evaluate(startTraffic, bob.id), bob.page.evaluate(startTraffic, alice.id)]);
  return members;
}

/** Ends the traffic and looks at what has come of it. @param {Member[]} members */
async function checkCall([alice, bob]) {
  await Promise.all([checkReceiver(alice, bob), checkReceiver(bob, alice)]);
}

/** @param {Member} receiver @param {Member} sender */
async function checkReceiver(receiver, sender) {
  const sent = await within(sender.page.evaluate(() => globalThis.traffic.stop()), `answers to all that ${sender.name} sent`);
  await receiver.until(`${sent} messages`, (count) => globalThis.member.messages.length >= count, sent);
  const numbers = await receiver.page.evaluate(() => globalThis.member.messages.map(({ data }) => data));
  assert.deepEqual(numbers, [...Array(sent).keys()]);

  const { joined, presence, connections, errors } = await receiver.record();
  assert.equal(joined, 1, 'the seat was kept');
  assert.deepEqual(presence.filter(({ event }) => event === 'peerleft'), []);
  assert.deepEqual(connections.filter(({ state }) => !['connecting', 'connected'].includes(state)), []);
  assert.deepEqual(errors, []);
  const { audio, video } = await receiver.page.evaluate(() => globalThis.traffic.longestGaps());
  assert.ok(audio < mediaGapMs && video < mediaGapMs, `media stood still for ${audio} ms (audio) and ${video} ms (video)`);
}

/**
 * Runs in the page: sends the numbers from 0, and watches the media of the other.
 * @param {string} to
 */
function startTraffic(to) {
  const { session, call } = globalThis.member;
  const { pc } = call.peers.get(to);
  const answers = [];
  const sending = setInterval(() => answers.push(session.send(answers.length, { to })), 20);

  const media = {};
  const look = async () => {
    const now = performance.now();
    for (const { type, kind, packetsReceived } of (await pc.getStats()).values()) {
      if (type !== 'inbound-rtp') continue;
      const seen = media[kind] ??= { packets: packetsReceived, at: now, longestGap: 0 };
      seen.longestGap = Math.max(seen.longestGap, Math.round(now - seen.at));
      if (packetsReceived > seen.packets) Object.assign(seen, { packets: packetsReceived, at: now });
    }
  };
  const watching = setInterval(look, 100);
  globalThis.traffic = {
    stop: async () => {
      clearInterval(sending);
      await Promise.all(answers);
      return answers.length;
    },
    longestGaps: async () => {
      clearInterval(watching);
      await look();
      return { audio: media.audio.longestGap, video: media.video.longestGap };
    },
  };
}

// What signaling promises and media must not feel: the transport dies again and again in the middle of a call.

import assert from 'node:assert/strict';

import { within } from './support/deadline.js';
import { transports } from './support/member.js';
import { useStage } from './support/stage.js';

// A silent connection is given up after two heartbeats.
const { stage, scenario } = useStage({ serverArgs: ['--heartbeat', '1s'], relayed: true });

/** Longer than any wait of a working media path, shorter than the loss of any connection below. In milliseconds. */
const mediaGapMs = 1_000;

for (const transport of Object.keys(transports)) {
  scenario(`a call over ${transport} outlives the loss of its signaling, and each message arrives once and in order`, () => (
    loseSignaling(/** @type {keyof typeof transports} */ (transport))
  ));
}

scenario('a WebTransport session goes on when the network gives it another address', changeAddress);

/** @param {keyof typeof transports} transport */
async function loseSignaling(transport) {
  const [alice, bob] = await startCall(transport);
  for (const loss of /** @type {const} */ (['cut', 'silence', 'cut', 'silence'])) {
    const resumes = await Promise.all([alice, bob].map(async (member) => (await member.record()).resumed));
    for (const relay of stage.relays) relay[loss]();
    await Promise.all([alice, bob].map((member, index) => (
      member.until(`resumption after ${loss}`, (least) => globalThis.member.record.resumed > least, resumes[index])
    )));
  }
  await Promise.all([checkCall(alice, bob), checkCall(bob, alice)]);
}

async function changeAddress() {
  const [alice, bob] = await startCall('webtransport');
  const before = await stage.server.counters();
  for (const relay of stage.relays) await relay.rebindUdp();
  await Promise.all([alice, bob].map((member) => (
    within(member.page.evaluate(() => globalThis.member.session.ping()), `${member.name} hears from the server again`)
  )));
  await Promise.all([checkCall(alice, bob), checkCall(bob, alice)]);

  const after = await stage.server.counters();
  assert.equal(after.sessions('webtransport') - before.sessions('webtransport'), 0, 'sessions resumed');
  assert.equal(after.connections('h3') - before.connections('h3'), 0, 'new connections');
}

/**
 * Two who hear and see each other, each sending the other numbers without a pause.
 * @param {keyof typeof transports} transport
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

/**
 * @param {import('./support/member.js').Member} receiver
 * @param {import('./support/member.js').Member} sender
 */
async function checkCall(receiver, sender) {
  const sent = await within(sender.page.evaluate(() => globalThis.traffic.stop()), `answers to all that ${sender.name} sent`);
  await receiver.until(`${sent} messages`, (count) => globalThis.member.messages.length >= count, sent);
  const numbers = await receiver.page.evaluate(() => globalThis.member.messages.map(({ data }) => data));
  assert.ok(sent > 50, `${sender.name} sent only ${sent} messages`);
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

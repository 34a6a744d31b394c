// Calls that can go by relay only, with the credentials that the server makes: through a real coturn.

import assert from 'node:assert/strict';
import { after } from 'node:test';

import { browserNames } from './support/browsers.js';
import { within } from './support/deadline.js';
import { useStage } from './support/stage.js';
import { TurnServer } from './support/turn.js';

/** @import { Member } from './support/member.js' */

/** The shortest that the server gives; fresh ones come after three quarters of it. */
const lifetime = '1m';
const renewedMs = 60_000;

const turn = await TurnServer.start();
after(() => turn.stop());
const { stage, scenario } = useStage({ serverArgs: [...turn.serverArgs, '--turn-lifetime', lifetime] });

scenario('a call by relay alone connects, and outlives its credentials with media unbroken', async () => {
  const room = stage.newRoom();
  const rtcConfig = /** @type {RTCConfiguration} */ ({ iceTransportPolicy: 'relay' });
  const members = await Promise.all(browserNames.map((browser) => (
    stage.member(browser, 'webtransport', { room, name: browser, rtcConfig })
  )));
  const [alice, bob] = members;
  await Promise.all([alice.hears(bob), bob.hears(alice)]);
  const before = await Promise.all(members.map((member) => member.page.evaluate(path)));
  assert.deepEqual(before.map(({ type }) => type), ['relay', 'relay']);
  const told = async () => { while ((await stage.server.counters()).firstMedia('webtransport', 'relay') < 2); };
  await within(told(), 'the operator is told that media go by relay');

  await Promise.all(members.map((member) => member.page.evaluate(watchMedia)));
  await Promise.all(members.map(({ page }, index) => page.waitForFunction(async (old) => {
    const { type, fragment, username } = await globalThis.member.path();
    return type === 'relay' && username !== old.username && fragment !== old.fragment;
  }, { polling: 200, timeout: renewedMs }, before[index])));
  for (const member of members) {
    const { longestGapMs, samples } = await member.page.evaluate(() => globalThis.member.media);
    console.log(`    ${member.name}: longest gap in the media ${Math.round(longestGapMs)} ms, looked ${samples} times`);
    assert.ok(samples > 100, `media was looked at ${samples} times`);
    assert.ok(longestGapMs < 2_000, `${member.name} got no media for ${longestGapMs} ms`);
    const { joined, presence, errors } = await member.record();
    assert.deepEqual({ joined, errors, left: presence.filter(({ event }) => event === 'peerleft') }, { joined: 1, errors: [], left: [] });
  }
});

/** Runs in the page: how the media travel, and with which credentials. */
async function path() {
  const { chosenPath } = await import(`${location.origin}/call/path.js`);
  const ask = async () => {
    const [peer] = globalThis.member.call.peers.values();
    const { local } = await chosenPath(peer.pc);
    const fragment = /a=ice-ufrag:(\S+)/.exec(peer.pc.localDescription.sdp)?.[1];
    const { username } = globalThis.member.session.iceServers.at(-1);
    return { type: local?.candidateType, fragment, username };
  };
  globalThis.member.path = ask;
  return ask();
}

/** Runs in the page: notes the longest time in which no packet came. */
function watchMedia() {
  const media = { longestGapMs: 0, samples: 0 };
  globalThis.member.media = media;
  let [packets, heardAt] = [-1, performance.now()];
  setInterval(async () => {
    const [peer] = globalThis.member.call.peers.values();
    const inbound = [...(await peer.pc.getStats()).values()].filter(({ type }) => type === 'inbound-rtp');
    const received = inbound.reduce((sum, { packetsReceived }) => sum + packetsReceived, 0);
    const now = performance.now();
    media.longestGapMs = Math.max(media.longestGapMs, now - heardAt);
    if (received !== packets) [packets, heardAt] = [received, now];
    media.samples += 1;
  }, 100);
}

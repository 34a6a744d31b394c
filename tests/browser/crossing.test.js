// What restarts of ICE can do to a connection: offers cross, and Firefox's DTLS may end for good.

import assert from 'node:assert/strict';

import { browserNames } from './support/browsers.js';
import { useStage } from './support/stage.js';

const { stage, scenario } = useStage();

const rounds = 3;
/** How many more there may be until two offers have crossed, which the pages' timers do not promise of any one round. */
const moreRounds = 7;

for (const names of [browserNames, [...browserNames].reverse()]) {
  scenario(`a call between ${names.join(' and ')} goes on when both restart ICE at once`, async () => {
    const room = stage.newRoom();
    const members = [];
    for (const browser of names) members.push(await stage.member(browser, 'webtransport', { room }));
    const [alice, bob] = members;
    await Promise.all([alice.hears(bob), bob.hears(alice)]);
    await Promise.all(members.map((member) => member.page.evaluate(countCrossings)));
    let crossed = 0;
    for (let round = 1; round <= rounds || (crossed === 0 && round <= rounds + moreRounds); round += 1) {
      const before = await Promise.all(members.map((member) => member.page.evaluate(fragments)));
      // A little ahead, so that both pages have been told by then.
      await Promise.all(members.map((member) => member.page.evaluate(restartAt, Date.now() + 500)));
      await Promise.all(members.map((member, index) => member.until('new credentials of both sides', (old) => (
        globalThis.fragments().every((fragment, side) => fragment !== old[side])
      ), before[index])));
      await Promise.all([alice.goesOnHearing(bob), bob.goesOnHearing(alice)]);
      const counts = await Promise.all(members.map((member) => member.page.evaluate(() => globalThis.crossings)));
      crossed = counts[0] + counts[1];
    }
    assert.ok(crossed > 0, `no offers have crossed in ${rounds + moreRounds} rounds`);
    for (const member of members) assert.deepEqual((await member.record()).errors, []);
  });
}

for (const [index, name] of browserNames.entries()) {
  scenario(`a call goes on over another connection when that of ${name} is dead`, async () => {
    const room = stage.newRoom();
    const members = [];
    for (const browser of browserNames) members.push(await stage.member(browser, 'webtransport', { room }));
    const [alice, bob] = members;
    await Promise.all([alice.hears(bob), bob.hears(alice)]);
    await Promise.all(members.map((member) => member.page.evaluate(rememberConnection)));
    await members[index].page.evaluate(die);
    await Promise.all(members.map((member) => member.until('another connection', () => globalThis.connection() !== globalThis.former)));
    await Promise.all([alice.hears(bob), bob.hears(alice)]);
    for (const member of members) assert.deepEqual((await member.record()).errors, []);
  });
}

/** Runs in the page. */
function rememberConnection() {
  globalThis.connection = () => [...globalThis.member.call.peers.values()][0].pc;
  globalThis.former = globalThis.connection();
}

/** Runs in the page: tells what a connection tells whose DTLS has failed, which no script can bring about. */
function die() {
  Object.defineProperty(globalThis.former, 'connectionState', { value: 'failed' });
  Object.defineProperty(globalThis.former.sctp.transport, 'state', { value: 'failed' });
  globalThis.former.dispatchEvent(new Event('connectionstatechange'));
}

/** Runs in the page. @param {number} at a time of the clock that both browsers share */
async function restartAt(at) {
  await new Promise((resolve) => setTimeout(resolve, at - Date.now()));
  for (const { pc } of globalThis.member.call.peers.values()) pc.restartIce();
}

/** Runs in the page: counts offers that come while its own has no answer. */
function countCrossings() {
  globalThis.crossings = 0;
  const { session, call } = globalThis.member;
  session.addEventListener('description', ({ detail: { from, description } }) => {
    const isOffering = call.peers.get(from).pc.signalingState === 'have-local-offer';
    if (description.type === 'offer' && isOffering) globalThis.crossings += 1;
  });
}

/** Runs in the page: the ICE user name fragments that both sides use (RFC 8839, 5.4). */
function fragments() {
  globalThis.fragments = () => {
    const [{ pc }] = globalThis.member.call.peers.values();
    return [pc.currentLocalDescription, pc.currentRemoteDescription].map(({ sdp }) => /^a=ice-ufrag:(\S+)/m.exec(sdp)?.[1]);
  };
  return globalThis.fragments();
}

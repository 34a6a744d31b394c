import assert from 'node:assert/strict';
import { describe, test } from 'node:test';

import { Call } from '../call.js';
import { Negotiation } from '../call/negotiation.js';
import { Recovery } from '../call/recovery.js';
import { withAgreedRole } from '../call/sdp.js';
import { WigwagError } from '../wigwag/errors.js';
import { Session } from '../wigwag/session.js';
import { FakePeerConnection, FakeStream, FakeTrack, installFakeRtc } from './fake-rtc.js';
import { FakeServer, next } from './fake-server.js';

installFakeRtc();
const options = { timeout: 10_000 };

/** A member of the room with a call; its errors fail the test. */
async function enter(t, server, callOptions = { stream: new FakeStream([new FakeTrack('audio')]) }) {
  const environment = server.environment();
  const session = new Session({ url: 'https://fake.test', room: 'demo' }, environment);
  const call = new Call(session, callOptions);
  const errors = [];
  call.addEventListener('error', ({ detail }) => errors.push(detail.error));
  t.after(() => {
    call.close();
    session.close();
    assert.deepEqual(errors, []);
  });
  await session.joined;
  return { session, call, environment };
}

/** Resolves when the condition holds; looked at after every turn of the event loop, for which no real time is needed. */
async function until(condition) {
  while (!condition()) await new Promise(setImmediate);
}

/** Resolves when this many peers are connected and nothing is being negotiated. */
const settled = ({ call }, count) => until(() => call.peers.size === count
  && [...call.peers.values()].every(({ pc, state }) => state === 'connected' && pc.signalingState === 'stable'));

/** Numbers from 0 to 1, the same for the same seed. */
function randomFrom(seed) {
  let state = seed;
  return () => {
    state = (state * 48_271) % 2_147_483_647;
    return state / 2_147_483_647;
  };
}

/** Moves the library's timers on, and takes those that are set later for real ones again. */
function pass(t, ms, act) {
  t.mock.timers.enable({ apis: ['setTimeout'] });
  act();
  t.mock.timers.tick(ms);
  t.mock.timers.reset();
}

const only = ({ call }) => [...call.peers.values()][0];
const kindsOf = (stream) => stream.getTracks().map(({ kind }) => kind).sort();

describe('a call', options, () => {
  test('is offered by the newcomer alone', async (t) => {
    const server = new FakeServer();
    const alice = await enter(t, server);
    const bob = await enter(t, server);
    await Promise.all([settled(alice, 1), settled(bob, 1)]);
    assert.deepEqual([only(alice).pc.offers, only(bob).pc.offers], [0, 1]);
    assert.deepEqual(kindsOf(only(alice).remoteStream), ['audio']);
    assert.deepEqual(kindsOf(only(bob).remoteStream), ['audio']);
    await until(() => only(alice).pc.ended === 1 && only(bob).pc.ended === 1);
  });

  test('joins several peers, each with each', async (t) => {
    const server = new FakeServer();
    const members = [];
    for (let count = 0; count < 5; count += 1) members.push(await enter(t, server));
    await Promise.all(members.map((member) => settled(member, 4)));
  });

  test('of both sides offering at once ends with both changes', async (t) => {
    const server = new FakeServer();
    const [alice, bob] = [await enter(t, server), await enter(t, server)];
    await Promise.all([settled(alice, 1), settled(bob, 1)]);
    for (const { call } of [alice, bob]) call.replaceTrack('video', new FakeTrack('video'));
    await until(() => [alice, bob].every((member) => kindsOf(only(member).remoteStream).includes('video')));
    await Promise.all([settled(alice, 1), settled(bob, 1)]);
    assert.equal(only(bob).pc.rollbacks, 1, 'the polite side gives way');
    assert.equal(only(alice).pc.rollbacks, 0);
  });

  test('changes and mutes a track without negotiation', async (t) => {
    const server = new FakeServer();
    const [alice, bob] = [await enter(t, server), await enter(t, server)];
    await Promise.all([settled(alice, 1), settled(bob, 1)]);
    alice.call.replaceTrack('audio', null);
    alice.call.replaceTrack('audio', new FakeTrack('audio'));
    await alice.session.send('after everything else');
    assert.deepEqual([only(alice).pc.offers, only(bob).pc.offers], [0, 1]);
    assert.throws(() => alice.call.replaceTrack('audio', new FakeTrack('video')), TypeError);
  });

  test('outlives the signaling, and ends only when the peer leaves', async (t) => {
    const server = new FakeServer({ transports: ['websocket'] });
    const [alice, bob] = [await enter(t, server), await enter(t, server)];
    await Promise.all([settled(alice, 1), settled(bob, 1)]);
    const { pc } = only(alice);
    const back = next(alice.session, 'peerback');
    server.seatOf(bob.session.self.peer).link.break();
    await back;
    assert.equal(only(alice).pc, pc);
    assert.equal(pc.signalingState, 'stable');
    const gone = next(alice.call, 'peergone');
    await bob.session.leave();
    assert.equal((await gone).pc, pc);
    assert.equal(pc.signalingState, 'closed');
    assert.equal(alice.call.peers.size, 0);
  });

  test('begun while the peer is away is answered when it is back', async (t) => {
    const server = new FakeServer({ transports: ['websocket'] });
    const alice = await enter(t, server);
    let mayResume = false;
    server.intercept = (link, { type }) => {
      if (type !== 'resume' || mayResume) return false;
      link.break();
      return true;
    };
    server.seatOf(alice.session.self.peer).link.break();
    const bob = await enter(t, server);
    await until(() => only(bob)?.pc.signalingState === 'have-local-offer');
    mayResume = true;
    await Promise.all([settled(alice, 1), settled(bob, 1)]);
  });

  test('restarts ICE when it has failed', async (t) => {
    const server = new FakeServer();
    const [alice, bob] = [await enter(t, server), await enter(t, server)];
    await Promise.all([settled(alice, 1), settled(bob, 1)]);
    const before = only(bob).pc.localDescription.sdp;
    only(alice).pc.setIce('failed');
    only(bob).pc.setIce('failed');
    await Promise.all([settled(alice, 1), settled(bob, 1)]);
    assert.notEqual(only(bob).pc.localDescription.sdp, before);
    assert.deepEqual([only(alice).pc.offers, only(bob).pc.offers], [0, 2], 'the polite side restarts');
  });

  test('restarts ICE when signaling is back and media is not', async (t) => {
    const server = new FakeServer({ transports: ['websocket'] });
    const [alice, bob] = [await enter(t, server), await enter(t, server)];
    await Promise.all([settled(alice, 1), settled(bob, 1)]);
    // Long enough for the restart to be tried in vain while the peer cannot be reached.
    let refusals = 10;
    server.intercept = (link, { type }) => {
      if (type !== 'resume' || refusals === 0) return false;
      refusals -= 1;
      link.break();
      return true;
    };
    const reconnecting = next(bob.session, 'statechange');
    server.seatOf(bob.session.self.peer).link.break();
    await reconnecting;
    only(bob).pc.setIce('failed');
    await settled(bob, 1);
    assert.equal(only(bob).pc.offers, 2);
  });

  test('restarts ICE at once when the peer or the network is back, and leaves alone what is healthy', async (t) => {
    const server = new FakeServer({ transports: ['websocket'] });
    const [alice, bob] = [await enter(t, server), await enter(t, server)];
    await Promise.all([settled(alice, 1), settled(bob, 1)]);
    const wake = () => bob.environment.wakes.forEach((call) => call());
    wake();
    await bob.session.send('after everything else');
    assert.equal(only(bob).pc.offers, 1);

    const startedAt = performance.now();
    only(bob).pc.setIce('disconnected');
    wake();
    await until(() => only(bob).pc.offers === 2);
    await settled(bob, 1);

    only(bob).pc.setIce('disconnected');
    const back = next(bob.session, 'peerback');
    server.seatOf(alice.session.self.peer).link.break();
    await back;
    await until(() => only(bob).pc.offers === 3);
    assert.ok(performance.now() - startedAt < 3_000, 'sooner than a connection is given to come back by itself');
  });

  test('begins anew with everybody when the seat was lost', async (t) => {
    const server = new FakeServer({ transports: ['websocket'] });
    const [alice, bob] = [await enter(t, server), await enter(t, server)];
    await Promise.all([settled(alice, 1), settled(bob, 1)]);
    const [before, seat] = [only(alice).pc, server.seatOf(alice.session.self.peer)];
    const { link } = seat;
    seat.link = null;
    server.remove(seat, 'timeout');
    link.break();
    await next(alice.call, 'peer');
    await Promise.all([settled(alice, 1), settled(bob, 1)]);
    assert.notEqual(only(alice).pc, before);
    assert.equal(before.signalingState, 'closed');
    assert.equal(only(bob).id, alice.session.self.peer);
  });

  for (const dying of ['the polite side', 'the impolite side', 'both sides']) {
    test(`goes on over another connection when that of ${dying} has died`, async (t) => {
      const server = new FakeServer();
      const enterWithChat = () => enter(t, server, { stream: new FakeStream([new FakeTrack('audio')]), dataChannel: 'chat' });
      const [alice, bob] = [await enterWithChat(), await enterWithChat()];
      await Promise.all([settled(alice, 1), settled(bob, 1)]);
      const before = [alice, bob].map((member) => only(member).pc);
      const heard = only(alice).remoteStream.getTracks();
      pass(t, 5_000, () => {
        if (dying !== 'the polite side') before[0].die();
        if (dying !== 'the impolite side') before[1].die();
      });
      await until(() => [alice, bob].every((member, index) => only(member).pc !== before[index]));
      await Promise.all([settled(alice, 1), settled(bob, 1)]);
      assert.deepEqual(before.map((pc) => pc.signalingState), ['closed', 'closed']);
      for (const member of [alice, bob]) assert.deepEqual(kindsOf(only(member).remoteStream), ['audio']);
      assert.equal(only(alice).remoteStream.getTracks().some((track) => heard.includes(track)), false, 'tracks of the dead connection');
      alice.call.sendChat('after it');
      only(alice).pc.openChannel();
      assert.deepEqual(only(alice).channel.sent, ['after it']);
    });
  }

  test('has nothing of a dead connection in the next one', async (t) => {
    const server = new FakeServer();
    const [alice, bob] = [await enter(t, server), await enter(t, server)];
    await Promise.all([settled(alice, 1), settled(bob, 1)]);
    const [peer, before] = [only(alice), only(bob).pc];
    const late = [before.localDescription.toJSON(), { ...before.localDescription.toJSON(), type: 'answer' }];
    pass(t, 5_000, () => peer.pc.die());
    const { pc } = peer;
    await until(() => pc.signalingState === 'have-local-offer');
    for (const description of late) peer.receiveDescription(description);
    peer.receiveCandidate(null);
    await settled(alice, 1);
    await until(() => pc.ended > 0);
    assert.equal(pc.rollbacks, 0);
    assert.notEqual(pc.remoteDescription.sdp, before.localDescription.sdp);
    assert.equal(pc.ended, 1, 'of the candidates that belong to it');
  });

  test('does not begin anew more often than every five seconds', async (t) => {
    const server = new FakeServer();
    const [alice, bob] = [await enter(t, server), await enter(t, server)];
    await Promise.all([settled(alice, 1), settled(bob, 1)]);
    const { pc } = only(alice);
    pass(t, 5_000, () => {
      pc.die();
      t.mock.timers.tick(2_000);
      assert.equal(only(alice).pc, pc);
    });
    assert.notEqual(only(alice).pc, pc);
  });

  test('repeats an offer that a full buffer has lost', async (t) => {
    const server = new FakeServer({ transports: ['websocket'] });
    const [alice, bob] = [await enter(t, server), await enter(t, server)];
    await Promise.all([settled(alice, 1), settled(bob, 1)]);
    const [aliceSeat, bobSeat] = [alice, bob].map(({ session }) => server.seatOf(session.self.peer));
    // Bob's next offer is answered `ok` and never delivered; then Bob himself is told of a loss.
    server.intercept = (link, message) => {
      if (link.seat !== bobSeat || message.type !== 'description') return false;
      server.intercept = () => false;
      bobSeat.lastId = message.id;
      bobSeat.push({ type: 'ok', id: message.id });
      return true;
    };
    bob.call.replaceTrack('video', new FakeTrack('video'));
    await until(() => only(bob).pc.signalingState === 'have-local-offer' && server.intercept.length === 0);
    await bob.session.send('so that all before is handled');
    const { link } = bobSeat;
    bobSeat.link = null;
    alice.session.send('lost', { to: bobSeat.peer });
    await until(() => aliceSeat.received.at(-1).data === 'lost');
    bobSeat.loseBuffer();
    bobSeat.link = link;
    link.break();
    await until(() => kindsOf(only(alice).remoteStream).includes('video'));
    await settled(bob, 1);
  });

  test('takes the server\'s and the application\'s ICE servers, and fresh ones', async (t) => {
    const server = new FakeServer();
    const own = { urls: 'stun:own.test' };
    const alice = await enter(t, server, { rtcConfig: { iceServers: [own], bundlePolicy: 'max-bundle' } });
    await enter(t, server);
    await until(() => alice.call.peers.size === 1);
    assert.deepEqual(only(alice).pc.configuration, { iceServers: [own], bundlePolicy: 'max-bundle' });
    const fresh = { urls: 'turn:fresh.test', username: 'u', credential: 'c' };
    const told = next(alice.session, 'iceservers');
    server.seatOf(alice.session.self.peer).push({ type: 'iceServers', iceServers: [fresh], expireMs: 1000 });
    await told;
    assert.deepEqual(only(alice).pc.configuration.iceServers, [own, fresh]);
  });

  test('gathers anew with fresh credentials where media go by relay, and only there', async (t) => {
    const server = new FakeServer();
    const [alice, bob] = [await enter(t, server), await enter(t, server)];
    await Promise.all([settled(alice, 1), settled(bob, 1)]);
    const path = (candidateType) => new Map([
      { id: 't', type: 'transport', selectedCandidatePairId: 'p' },
      { id: 'p', type: 'candidate-pair', localCandidateId: 'l' },
      { id: 'l', type: 'local-candidate', candidateType },
    ].map((stats) => [stats.id, stats]));
    only(alice).pc.stats = path('relay');
    only(bob).pc.stats = path('host');
    const before = only(alice).pc.localDescription.sdp;
    const iceServers = [{ urls: 'turn:fresh.test', username: 'u', credential: 'c' }];
    for (const { session } of [bob, alice]) {
      const told = next(session, 'iceservers');
      server.seatOf(session.self.peer).push({ type: 'iceServers', iceServers, expireMs: 1000 });
      await told;
    }
    await until(() => only(alice).pc.offers === 1);
    await Promise.all([settled(alice, 1), settled(bob, 1)]);
    assert.notEqual(only(alice).pc.localDescription.sdp, before);
    assert.equal(only(bob).pc.offers, 1, 'the one of the beginning');
  });

  test('carries chat by data channel, also what was said before it opened', async (t) => {
    const server = new FakeServer();
    const alice = await enter(t, server, { dataChannel: 'chat' });
    const bob = await enter(t, server, { dataChannel: 'chat' });
    await Promise.all([settled(alice, 1), settled(bob, 1)]);
    alice.call.sendChat('early');
    assert.deepEqual(only(alice).channel.sent, []);
    only(alice).pc.openChannel();
    alice.call.sendChat('late');
    assert.deepEqual(only(alice).channel.sent, ['early', 'late']);
    const heard = next(bob.call, 'chat');
    only(bob).channel.dispatchEvent(Object.assign(new Event('message'), { data: 'hello' }));
    const { peer, text, at } = await heard;
    assert.deepEqual([peer.id, text, at instanceof Date], [alice.session.self.peer, 'hello', true]);
  });
});

describe('negotiation', options, () => {
  const turn = () => new Promise(setImmediate);
  const turns = async (count = 20) => {
    for (let index = 0; index < count; index += 1) await turn();
  };

  function negotiate({ polite, refuse = () => {} }) {
    const pc = new FakePeerConnection({});
    const sent = [];
    const errors = [];
    const record = async (signal) => {
      refuse(signal);
      sent.push(signal);
    };
    const negotiation = new Negotiation(pc, { polite, mayOffer: polite }, {
      sendDescription: (description) => record(description),
      sendCandidate: (candidate) => record(candidate),
      reachable: () => true,
      failed: (error) => errors.push(error),
    });
    return { pc, negotiation, sent, errors, offers: () => sent.filter((signal) => signal?.type === 'offer').length };
  }

  const offer = (fragment) => ({ type: 'offer', sdp: `v=0\r\no=- ${fragment} 1 IN IP4 0.0.0.0\r\na=ice-ufrag:${fragment}\r\na=kinds:audio\r\n` });
  const candidate = (usernameFragment) => ({ candidate: 'candidate:1', sdpMid: '0', sdpMLineIndex: 0, usernameFragment });

  test('keeps candidates for a description that has not come, the first and a later one', async () => {
    const { pc, negotiation, errors } = negotiate({ polite: false });
    negotiation.receiveCandidate(candidate('a'));
    negotiation.receiveCandidate(null);
    await turns();
    negotiation.receiveDescription(offer('a'));
    await turns();
    assert.deepEqual(pc.candidates.map(({ usernameFragment }) => usernameFragment), ['a']);
    assert.equal(pc.ended, 1);
    negotiation.receiveCandidate(candidate('b'));
    await turns();
    negotiation.receiveDescription(offer('b'));
    await turns();
    assert.deepEqual(pc.candidates.map(({ usernameFragment }) => usernameFragment), ['b']);
    assert.deepEqual(errors, []);
    negotiation.close();
  });

  test('makes up for a restart that was rolled back, but not at once', async (t) => {
    const { pc, negotiation, errors } = negotiate({ polite: true });
    negotiation.receiveDescription(offer('a'));
    await turns();
    let restarts = 0;
    const restartIce = pc.restartIce.bind(pc);
    pc.restartIce = () => {
      restarts += 1;
      restartIce();
    };
    t.mock.timers.enable({ apis: ['setTimeout'] });
    pc.restartIce();
    await turns();
    negotiation.receiveDescription(offer('b'));
    await turns();
    assert.deepEqual([pc.rollbacks, pc.signalingState], [1, 'stable']);
    t.mock.timers.tick(1_999);
    assert.equal(restarts, 1);
    t.mock.timers.tick(1);
    assert.equal(restarts, 2);
    await turns();
    for (const fragment of ['c', 'd']) {
      negotiation.receiveDescription(offer(fragment));
      await turns();
    }
    assert.equal(pc.rollbacks, 2);
    t.mock.timers.tick(10_000);
    assert.equal(restarts, 2, 'none is due after one that was not rolled back');
    assert.deepEqual(errors, []);
    negotiation.close();
  });

  test('ignores a colliding offer and its candidates on the impolite side', async () => {
    const { pc, negotiation, sent, errors } = negotiate({ polite: false });
    negotiation.receiveDescription(offer('a'));
    await turns();
    pc.restartIce();
    await turns();
    assert.equal(pc.signalingState, 'have-local-offer');
    negotiation.receiveDescription(offer('b'));
    negotiation.receiveCandidate(candidate('b'));
    await turns();
    assert.equal(pc.signalingState, 'have-local-offer');
    negotiation.receiveDescription({ ...offer('c'), type: 'answer' });
    negotiation.receiveCandidate(candidate('c'));
    await turns();
    assert.equal(pc.signalingState, 'stable');
    assert.deepEqual(pc.candidates.map(({ usernameFragment }) => usernameFragment), ['c']);
    assert.deepEqual(sent.filter((signal) => signal?.type).map(({ type }) => type), ['answer', 'offer']);
    assert.deepEqual(errors, []);
    negotiation.close();
  });

  test('ignores what belongs to an offer that came before any other and was ignored', async (t) => {
    t.mock.timers.enable({ apis: ['setTimeout'] });
    const { pc, negotiation, errors } = negotiate({ polite: false });
    pc.addTrack(new FakeTrack('audio'));
    await turns();
    t.mock.timers.tick(3_000);
    await turns();
    negotiation.receiveDescription(offer('a'));
    negotiation.receiveCandidate(candidate('a'));
    negotiation.receiveCandidate(null);
    negotiation.receiveDescription({ ...offer('b'), type: 'answer' });
    await turns();
    assert.deepEqual([pc.signalingState, pc.candidates, pc.ended], ['stable', [], 0]);
    assert.deepEqual(errors, []);
    negotiation.close();
  });

  test('ends in agreement after glare, however signals are delayed and candidates overtake', async () => {
    for (let seed = 1; seed <= 100; seed += 1) {
      const random = randomFrom(seed);
      const errors = [];
      let underWay = 0;
      const carry = async (ready, deliver) => {
        underWay += 1;
        await ready;
        await turns(Math.floor(random() * 12));
        deliver();
        underWay -= 1;
      };
      const sides = [true, false].map((polite) => {
        const pc = new FakePeerConnection({});
        const side = { pc, other: null, descriptions: Promise.resolve(), negotiation: null };
        side.negotiation = new Negotiation(pc, { polite, mayOffer: polite }, {
          sendDescription: async (description) => {
            side.descriptions = carry(side.descriptions, () => side.other.negotiation.receiveDescription(description));
          },
          sendCandidate: async (end) => { carry(null, () => side.other.negotiation.receiveCandidate(end)); },
          reachable: () => true,
          failed: (error) => errors.push(error),
        });
        return side;
      });
      const [polite, impolite] = sides;
      Object.assign(polite, { other: impolite });
      Object.assign(impolite, { other: polite });
      polite.pc.addTrack(new FakeTrack('audio'));
      await until(() => polite.pc.candidates.length > 0);
      for (let change = 0; change < 4; change += 1) {
        sides[Math.floor(random() * 2)].pc.restartIce();
        await turns(Math.floor(random() * 10));
      }
      for (let quiet = 0; quiet < 20; await turn()) {
        quiet = underWay === 0 && sides.every(({ pc }) => pc.signalingState === 'stable') ? quiet + 1 : 0;
      }
      const fragmentOf = ({ sdp }) => sdp.match(/ice-ufrag:(.*)/)[1];
      for (const { pc, other, negotiation } of sides) {
        assert.equal(fragmentOf(pc.remoteDescription), fragmentOf(other.pc.localDescription), `seed ${seed}`);
        assert.deepEqual(pc.candidates.map(({ usernameFragment }) => usernameFragment), [fragmentOf(pc.remoteDescription).trim()], `seed ${seed}`);
        negotiation.close();
      }
      assert.deepEqual(errors, [], `seed ${seed}`);
    }
  });

  test('reads an offer with the DTLS role that its sender has already', () => {
    const sdp = (role, fingerprint = 'sha-256 AA') => [
      'v=0', `a=fingerprint:${fingerprint}`, 'm=audio 9 UDP/TLS/RTP/SAVPF 111', `a=setup:${role}`,
      'm=application 9 UDP/DTLS/SCTP webrtc-datachannel', `a=setup:${role}`, '',
    ].join('\r\n');
    const offer = (fingerprint) => ({ type: 'offer', sdp: sdp('actpass', fingerprint) });
    const answer = (role) => ({ type: 'answer', sdp: sdp(role) });
    const rolesIn = (description) => [...description.sdp.matchAll(/^a=setup:(\w+)\r$/gm)].map(([, role]) => role);
    for (const { agreed, role } of [
      { agreed: { local: null, remote: null }, role: 'actpass' },
      { agreed: { local: offer(), remote: answer('active') }, role: 'active' },
      { agreed: { local: offer(), remote: answer('passive') }, role: 'passive' },
      { agreed: { local: answer('active'), remote: offer() }, role: 'passive' },
      { agreed: { local: answer('passive'), remote: offer() }, role: 'active' },
      { agreed: { local: answer('passive'), remote: offer('sha-256 BB') }, role: 'actpass' },
    ]) {
      const read = withAgreedRole(offer(), agreed);
      assert.deepEqual(rolesIn(read), [role, role]);
      assert.equal(read.sdp.replaceAll(`a=setup:${role}`, 'a=setup:actpass'), offer().sdp, 'nothing else is touched');
    }
  });

  test('does not offer what an answer has settled meanwhile', async () => {
    const { pc, negotiation, sent } = negotiate({ polite: true });
    pc.addTrack(new FakeTrack('audio'));
    negotiation.receiveDescription(offer('a'));
    await turns();
    assert.deepEqual(sent.filter((signal) => signal?.type).map(({ type }) => type), ['answer']);
    negotiation.close();
  });

  test('takes an answer that nobody waits for as none', async () => {
    const { pc, negotiation, errors } = negotiate({ polite: true });
    negotiation.receiveDescription({ ...offer('a'), type: 'answer' });
    negotiation.receiveDescription({ type: 'rollback' });
    await turns();
    assert.equal(pc.signalingState, 'stable');
    assert.deepEqual(errors, []);
    negotiation.close();
  });

  test('leaves the first offer to the polite side, but not for ever', async (t) => {
    t.mock.timers.enable({ apis: ['setTimeout'] });
    const { pc, negotiation, offers } = negotiate({ polite: false });
    pc.addTrack(new FakeTrack('audio'));
    await turns();
    assert.equal(offers(), 0);
    t.mock.timers.tick(3_000);
    await turns();
    assert.equal(offers(), 1);
    negotiation.close();
  });

  test('says an offer again that has no answer', async (t) => {
    t.mock.timers.enable({ apis: ['setTimeout'] });
    const { pc, negotiation, offers } = negotiate({ polite: true });
    pc.addTrack(new FakeTrack('audio'));
    await turns();
    assert.equal(offers(), 1);
    t.mock.timers.tick(10_000);
    await turns();
    assert.equal(offers(), 2);
    t.mock.timers.tick(19_999);
    await turns();
    assert.equal(offers(), 2);
    t.mock.timers.tick(1);
    await turns();
    assert.equal(offers(), 3);
    negotiation.close();
    t.mock.timers.tick(1_000_000);
    await turns();
    assert.equal(offers(), 3);
  });

  test('tries again when the server refuses a signal for now, and tells when for good', async (t) => {
    t.mock.timers.enable({ apis: ['setTimeout'] });
    let code = 'rateLimited';
    const { pc, negotiation, sent, errors } = negotiate({
      polite: true,
      refuse: () => {
        if (code) throw new WigwagError(code, 'refused', { retryAfterMs: 100 });
      },
    });
    pc.addTrack(new FakeTrack('audio'));
    await turns();
    assert.deepEqual([sent, errors], [[], []]);
    code = null;
    t.mock.timers.tick(100);
    await turns();
    assert.deepEqual(sent.map((signal) => signal?.type ?? signal?.candidate ?? signal), ['offer', `candidate:1 of ${sent[1].usernameFragment}`, null]);

    code = 'invalidDescription';
    negotiation.repeat();
    await turns();
    assert.deepEqual(errors.map((error) => error.code), ['invalidDescription']);
    code = 'peerGone';
    negotiation.repeat();
    await turns();
    assert.equal(errors.length, 1);
    negotiation.close();
  });
});

describe('recovery', () => {
  function recover(t, { polite = true } = {}) {
    t.mock.timers.enable({ apis: ['setTimeout'] });
    const pc = Object.assign(new EventTarget(), {
      iceConnectionState: 'connected', signalingState: 'stable', remoteDescription: {}, restarts: 0, restartIce: () => { pc.restarts += 1; },
      getSenders: () => [], getReceivers: () => [], sctp: { transport: { state: 'connected' } },
    });
    const state = { isReachable: true, deaths: 0 };
    const recovery = new Recovery(pc, polite, { reachable: () => state.isReachable, died: () => { state.deaths += 1; } });
    const become = (iceConnectionState) => {
      pc.iceConnectionState = iceConnectionState;
      pc.dispatchEvent(new Event('iceconnectionstatechange'));
    };
    return { pc, recovery, become, state, tick: (ms) => t.mock.timers.tick(ms) };
  }

  test('gives a disconnected connection its time to come back', (t) => {
    const { pc, become, tick } = recover(t);
    become('disconnected');
    tick(2_999);
    become('connected');
    tick(60_000);
    assert.equal(pc.restarts, 0);
    become('disconnected');
    tick(3_000);
    assert.equal(pc.restarts, 1);
  });

  test('knows a dead connection by its DTLS', (t) => {
    const { pc, become, state } = recover(t);
    pc.connectionState = 'failed';
    become('failed');
    become('checking');
    assert.equal(state.deaths, 0);
    pc.sctp.transport.state = 'failed';
    pc.dispatchEvent(new Event('connectionstatechange'));
    assert.equal(state.deaths, 1);
  });

  test('restarts one whose checks have no end', (t) => {
    const { pc, become, tick } = recover(t);
    become('checking');
    tick(9_999);
    assert.equal(pc.restarts, 0);
    tick(1);
    assert.equal(pc.restarts, 1);
    become('checking');
    become('connected');
    tick(60_000);
    assert.equal(pc.restarts, 1);
  });

  test('restarts a failed one at once, and ever more seldom while it does not help', (t) => {
    const { pc, become, tick } = recover(t);
    become('failed');
    tick(0);
    assert.equal(pc.restarts, 1);
    const at = [];
    for (let second = 1; second <= 100; second += 1) {
      const before = pc.restarts;
      tick(1000);
      if (pc.restarts > before) at.push(second);
    }
    assert.deepEqual(at, [4, 12, 28, 58, 88]);
    become('connected');
    tick(60_000);
    assert.equal(pc.restarts, 6);
  });

  test('leaves the impolite side a little behind', (t) => {
    const { pc, become, tick } = recover(t, { polite: false });
    become('failed');
    tick(1_499);
    assert.equal(pc.restarts, 0);
    tick(1);
    assert.equal(pc.restarts, 1);
  });

  test('waits until signals reach the peer', (t) => {
    const { pc, recovery, become, state, tick } = recover(t);
    state.isReachable = false;
    become('failed');
    tick(60_000);
    assert.equal(pc.restarts, 0);
    state.isReachable = true;
    recovery.nudge();
    tick(0);
    assert.equal(pc.restarts, 1);
  });

  const described = (fragment) => ({ sdp: `v=0\r\na=ice-ufrag:${fragment}\r\n` });

  test('gathers with fresh credentials at once on the polite side', (t) => {
    const { pc, recovery, tick } = recover(t);
    pc.localDescription = described('a');
    recovery.renew();
    tick(0);
    assert.equal(pc.restarts, 1);
  });

  test('gathers with fresh credentials on the impolite side where the other has not restarted meanwhile', (t) => {
    const { pc, recovery, tick } = recover(t, { polite: false });
    pc.localDescription = described('a');
    recovery.renew();
    tick(4_999);
    assert.equal(pc.restarts, 0);
    tick(1);
    assert.equal(pc.restarts, 1);
    recovery.renew();
    pc.localDescription = described('b');
    tick(60_000);
    assert.equal(pc.restarts, 1);
    recovery.renew();
    recovery.close();
    tick(60_000);
    assert.equal(pc.restarts, 1);
  });

  test('leaves alone what works, what has not begun and what is closed', (t) => {
    const { pc, recovery, become, tick } = recover(t);
    recovery.nudge();
    become('new');
    pc.remoteDescription = null;
    recovery.nudge();
    become('failed');
    recovery.close();
    tick(60_000);
    assert.equal(pc.restarts, 0);
  });
});

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';

import { Call } from '../call.js';
import { Milestones } from '../call/milestones.js';
import { Session } from '../wigwag/session.js';
import { FakeStream, FakeTrack, installFakeRtc } from './fake-rtc.js';
import { FakeServer } from './fake-server.js';

installFakeRtc();
const options = { timeout: 10_000 };

/** What a connection by such a local candidate tells of itself. */
const by = (candidateType) => [
  { id: 't', type: 'transport', selectedCandidatePairId: 'p' },
  { id: 'p', type: 'candidate-pair', localCandidateId: 'l' },
  { id: 'l', type: 'local-candidate', candidateType },
];
const audio = { id: 'a', type: 'inbound-rtp', kind: 'audio', packetsReceived: 1 };
const video = { id: 'v', type: 'inbound-rtp', kind: 'video', packetsReceived: 9, framesDecoded: 0 };

/** A connection in the test's hands, and what is told of it. */
function watch(t, { reachable = true } = {}) {
  t.mock.timers.enable({ apis: ['setTimeout'] });
  const pc = Object.assign(new EventTarget(), { connectionState: 'new', stats: [], getStats: async () => new Map(pc.stats.map((stats) => [stats.id, stats])) });
  const state = { reachable };
  const told = [];
  const milestones = new Milestones({
    reachable: () => state.reachable,
    reached: ({ milestone, candidateType, afterMs }) => {
      assert.ok(Number.isInteger(afterMs) && afterMs >= 0, `${afterMs}`);
      told.push(candidateType === undefined ? milestone : `${milestone} ${candidateType}`);
    },
  });
  milestones.watch(/** @type {any} */ (pc));
  return {
    pc, milestones, state, told,
    /** @param {string} name @param {any[]} [stats] */
    become: async (name, stats = pc.stats) => {
      Object.assign(pc, { connectionState: name, stats });
      pc.dispatchEvent(new Event('connectionstatechange'));
      await settle();
    },
    gather: (type) => pc.dispatchEvent(Object.assign(new Event('icecandidate'), { candidate: type && { type } })),
    track: async () => {
      pc.dispatchEvent(new Event('track'));
      await settle();
    },
    pass: async (ms, stats = pc.stats) => {
      pc.stats = stats;
      t.mock.timers.tick(ms);
      await settle();
    },
  };
}

/** Lets what was asked for be answered. */
async function settle() {
  for (let turn = 0; turn < 5; turn += 1) await new Promise(setImmediate);
}

describe('milestones', options, () => {
  test('of a connection that works are told once each', async (t) => {
    const { become, track, pass, told } = watch(t);
    await become('connecting');
    await track();
    await become('connected', by('srflx'));
    assert.deepEqual(told, ['connected srflx']);
    await pass(10_000);
    await pass(10_000, [...by('srflx'), audio]);
    assert.deepEqual(told, ['connected srflx', 'media srflx']);
    await become('disconnected');
    await become('connected');
    await track();
    await pass(60_000);
    assert.equal(told.length, 2);
  });

  test('packets make no picture', async (t) => {
    const { become, track, pass, told } = watch(t);
    await track();
    await become('connected', [...by('host'), video]);
    await pass(100);
    assert.deepEqual(told, ['connected host']);
    await pass(100, [...by('host'), { ...video, framesDecoded: 1 }]);
    assert.deepEqual(told, ['connected host', 'media host']);
  });

  test('where nothing is to be received nobody looks for it, until something is', async (t) => {
    const { become, track, pass, told } = watch(t);
    await become('connected', [...by('host'), audio]);
    await pass(60_000);
    assert.deepEqual(told, ['connected host']);
    await track();
    assert.deepEqual(told, ['connected host', 'media host']);
  });

  test('a connection that finds no path fails, by the candidate that reaches farthest', async (t) => {
    const { become, gather, pass, told } = watch(t);
    await become('connecting');
    for (const type of ['host', 'srflx', 'host', null]) gather(type);
    await pass(14_999);
    assert.deepEqual(told, []);
    await pass(1);
    assert.deepEqual(told, ['failed srflx']);
    // That the browser has come to the same end is no news, nor is another try.
    await become('failed');
    await become('connecting');
    await pass(60_000);
    assert.deepEqual(told, ['failed srflx']);
  });

  test('a connection that comes back is told again, and its media are not', async (t) => {
    const { become, gather, track, told } = watch(t);
    await track();
    gather('relay');
    await become('connected', [...by('relay'), audio]);
    await become('failed');
    await become('connected');
    assert.deepEqual(told, ['connected relay', 'media relay', 'failed relay', 'connected relay']);
  });

  test('a connection in place of a dead one is the same for who waits for it', async (t) => {
    const { pc, become, milestones, told } = watch(t);
    await become('failed');
    const another = Object.assign(new EventTarget(), { connectionState: 'failed', getStats: async () => new Map(by('host').map((stats) => [stats.id, stats])) });
    milestones.watch(/** @type {any} */ (another));
    another.dispatchEvent(new Event('connectionstatechange'));
    assert.deepEqual(told, ['failed'], 'that it fails, too, is no news');
    // What the dead one may still say counts no more.
    await become('connected', by('relay'));
    assert.equal(pc.connectionState, 'connected');
    assert.deepEqual(told, ['failed']);
    another.connectionState = 'connected';
    another.dispatchEvent(new Event('connectionstatechange'));
    await settle();
    assert.deepEqual(told, ['failed', 'connected host']);
  });

  test('that the connection to one who has gone fails is no news', async (t) => {
    const { become, told, state } = watch(t, { reachable: false });
    await become('failed');
    assert.deepEqual(told, []);
    state.reachable = true;
    await become('failed');
    assert.deepEqual(told, ['failed']);
  });

  test('nothing is told of a connection that was closed', async (t) => {
    const { become, track, pass, told, milestones } = watch(t);
    await track();
    await become('connecting');
    const connected = become('connected', by('host'));
    milestones.close();
    await connected;
    await pass(60_000, [...by('host'), audio]);
    assert.deepEqual(told, []);
  });
});

describe('a call', options, () => {
  /** Two whose connection is by relay; resolves with the second one's session, and what it has told. */
  async function talk(t, server) {
    const [alice, bob] = [0, 1].map(() => new Session({ url: 'https://fake.test', room: 'demo' }, server.environment()));
    const errors = [];
    for (const session of [alice, bob]) {
      const call = new Call(session, { stream: new FakeStream([new FakeTrack('audio')]) });
      call.addEventListener('peer', ({ detail: { pc } }) => { pc.stats = new Map([...by('relay'), audio].map((stats) => [stats.id, stats])); });
      call.addEventListener('error', ({ detail: { error } }) => errors.push(error));
      await session.joined;
      t.after(() => {
        call.close();
        session.close();
        assert.deepEqual(errors, []);
      });
    }
    const told = () => server.seatOf(bob.self.peer).received.filter(({ type }) => type === 'milestone');
    const connected = () => server.seatOf(bob.self.peer).received.some(({ type, candidate }) => type === 'candidate' && candidate === null);
    return { alice, bob, told, connected };
  }

  test('tells the server of its milestones', async (t) => {
    const server = new FakeServer();
    const { alice, told } = await talk(t, server);
    while (told().length < 2) await new Promise(setImmediate);
    assert.deepEqual(told().map(({ peer, milestone, candidateType }) => [peer, milestone, candidateType]), [
      [alice.self.peer, 'connected', 'relay'], [alice.self.peer, 'media', 'relay'],
    ]);
  });

  test('tells nothing to a server that knows nothing of them', async (t) => {
    const server = new FakeServer({ milestones: false });
    const { bob, told, connected } = await talk(t, server);
    while (!connected()) await new Promise(setImmediate);
    await settle();
    await bob.send('after everything else');
    assert.deepEqual(told(), []);
  });
});

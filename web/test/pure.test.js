import assert from 'node:assert/strict';
import { describe, test } from 'node:test';

import { backoff, politeDelay } from '../wigwag/backoff.js';
import { readOffers, retryAfterOf } from '../wigwag/discovery.js';
import { comeBack, errorOf, isDecision } from '../wigwag/errors.js';
import { ladder, rungsAbove } from '../wigwag/ladder.js';
import { TransportMemory } from '../wigwag/memory.js';
import { LineDecoder } from '../wigwag/ndjson.js';
import { Roster } from '../wigwag/roster.js';
import { EventStreamDecoder } from '../wigwag/sse.js';
import { Seat } from '../wigwag/seat.js';

const bytes = (text) => new TextEncoder().encode(text);

/** Feeds the text cut at every possible place into two, and byte by byte; every way must give the same. */
function throughEveryCut(text, decode) {
  const all = bytes(text);
  const ways = Array.from({ length: all.length + 1 }, (_, cut) => [all.subarray(0, cut), all.subarray(cut)]);
  ways.push(Array.from(all, (byte) => Uint8Array.of(byte)));
  return ways.map(decode);
}

describe('backoff', () => {
  test('is spread over a span that doubles up to the cap', () => {
    const settings = { baseMs: 100, capMs: 1000 };
    const longest = [0, 1, 2, 3, 4, 1000].map((attempt) => backoff(attempt, { ...settings, random: () => 1 }));
    assert.deepEqual(longest, [100, 200, 400, 800, 1000, 1000]);
    assert.equal(backoff(5, { ...settings, random: () => 0 }), 0);
  });

  test('never comes sooner than the server has asked', () => {
    assert.equal(politeDelay(1000, () => 0), 1000);
    assert.ok(politeDelay(1000, () => 0.999) > 1000);
  });
});

describe('close codes', () => {
  test('say whether to come back, and how', () => {
    const decisions = [undefined, 1006, 4000, 4003, 4010, 4012, 4020, 4021, 4499, 4500, 4511].map(comeBack);
    assert.deepEqual(decisions, [
      'resume', 'resume', 'resume', 'resume', 'join', 'join', 'join', 'resume', 'resume', 'never', 'never',
    ]);
  });

  test('of one transport\'s trouble are no decision of the server', () => {
    assert.deepEqual([undefined, 1006, 4000, 4002, 4003, 4011, 4503].map((closeCode) => isDecision({ closeCode })), [
      false, false, true, false, false, true, true,
    ]);
  });

  test('give errors their names', () => {
    assert.deepEqual([{ closeCode: 4511 }, {}].map((closing) => errorOf(closing).code), ['kicked', 'unreachable']);
  });
});

describe('NDJSON', () => {
  test('is the same however the chunks are cut', () => {
    const text = '{"a":"ä€😀"}\n\n{"b":2}\r\n{"c":3}';
    for (const lines of throughEveryCut(text, (chunks) => {
      const decoder = new LineDecoder();
      return [...chunks.flatMap((chunk) => decoder.push(chunk)), ...decoder.end()];
    })) assert.deepEqual(lines, ['{"a":"ä€😀"}', '{"b":2}', '{"c":3}']);
  });

  test('that is no UTF-8 or has no end is refused', () => {
    assert.throws(() => new LineDecoder().push(Uint8Array.of(0xff, 0x0a)), TypeError);
    const decoder = new LineDecoder();
    assert.throws(() => {
      for (let count = 0; count < 20; count += 1) decoder.push(bytes('x'.repeat(1024 * 1024)));
    }, RangeError);
  });
});

describe('server-sent events', () => {
  test('are the same however the chunks are cut', () => {
    const text = '\ufeff: comment\n\nid: 1\ndata: {"a":"ä😀"}\n\nevent: x\rdata:two\rdata: lines\r\rid: 3\r\ndata: {"b":\r\ndata: 2}\r\n\r\ndata: unfinished\n';
    for (const events of throughEveryCut(text, (chunks) => {
      const decoder = new EventStreamDecoder();
      return chunks.flatMap((chunk) => decoder.push(chunk));
    })) assert.deepEqual(events, ['{"a":"ä😀"}', 'two\nlines', '{"b":\n2}']);
  });

  test('without end are refused', () => {
    const decoder = new EventStreamDecoder();
    assert.throws(() => {
      for (let count = 0; count < 20; count += 1) decoder.push(bytes(`data: ${'x'.repeat(1024 * 1024)}\n`));
    }, RangeError);
  });
});

describe('discovery', () => {
  test('keeps order and doubles, reads hashes, and leaves unknown types out', () => {
    const offers = readOffers({
      protocol: 'wigwag.v1',
      transports: [
        { type: 'webtransport', url: 'https://a.test/v1/rooms/{room}', certificateHashes: [{ algorithm: 'sha-256', value: 'AQL/' }] },
        { type: 'carrier-pigeon', url: 'coop:' },
        { type: 'websocket', url: 'wss://a.test/v1/rooms/{room}' },
        { type: 'websocket', url: 'wss://b.test/v1/rooms/{room}' },
      ],
    }, 'demo');
    assert.deepEqual(offers.map(({ url }) => url), [
      'https://a.test/v1/rooms/demo', 'wss://a.test/v1/rooms/demo', 'wss://b.test/v1/rooms/demo',
    ]);
    assert.deepEqual(offers[0].certificateHashes, [{ algorithm: 'sha-256', value: Uint8Array.of(1, 2, 255) }]);
  });

  test('of another protocol is refused', () => {
    assert.throws(() => readOffers({ protocol: 'wigwag.v9', transports: [] }, 'demo'), { code: 'unsupported' });
  });

  test('reads both forms of Retry-After', () => {
    const read = (value) => retryAfterOf(new Response(null, { headers: value === null ? {} : { 'retry-after': value } }));
    assert.equal(read('3'), 3000);
    assert.equal(read(new Date(Date.now() - 5000).toUTCString()), 0);
    assert.equal(read('soon'), undefined);
    assert.equal(read(null), undefined);
  });
});

describe('the ladder', () => {
  const headStartMs = { webtransport: 250, websocket: 250, 'event-stream': 1500, 'long-poll': 3000 };
  const offers = ['webtransport', 'websocket', 'event-stream', 'long-poll']
    .map((type) => ({ type, url: `https://a.test/${type}`, certificateHashes: [] }));
  const settings = { supported: () => true, secure: true, headStartMs };
  const types = (rungs) => rungs.map(({ type }) => type);

  test('follows the server and gives head starts', () => {
    const rungs = ladder(offers, settings);
    assert.deepEqual(types(rungs), ['webtransport', 'websocket', 'event-stream', 'long-poll']);
    assert.deepEqual(rungs.map((rung) => rung.headStartMs), [0, 250, 1500, 3000]);
  });

  test('follows the application and leaves out what it does not name', () => {
    assert.deepEqual(types(ladder(offers, { ...settings, order: ['long-poll', 'websocket'] })), ['long-poll', 'websocket']);
  });

  test('begins with what won here and ends with what died young', () => {
    const rungs = ladder(offers, { ...settings, winner: 'websocket', demoted: new Set(['webtransport']) });
    assert.deepEqual(types(rungs), ['websocket', 'event-stream', 'long-poll', 'webtransport']);
    const fallen = ladder(offers, { ...settings, winner: 'websocket', demoted: new Set(['websocket']) });
    assert.equal(types(fallen).at(-1), 'websocket');
  });

  test('leaves out what the browser has not or a secure page may not reach', () => {
    const plain = [{ type: 'websocket', url: 'ws://a.test/', certificateHashes: [] }, ...offers];
    assert.equal(ladder(plain, settings)[0].type, 'webtransport');
    assert.equal(ladder(plain, { ...settings, secure: false })[0].url, 'ws://a.test/');
    assert.deepEqual(types(ladder(offers, { ...settings, supported: (type) => type === 'websocket' })), ['websocket']);
  });

  test('has a long poll follow early an event stream that may be held back', () => {
    const waits = (rungs) => rungs.map(({ type, headStartMs: headStart, patienceMs }) => [type, headStart, patienceMs]);
    assert.deepEqual(waits(ladder(offers, { ...settings, streamPatienceMs: 1000 })), [
      ['webtransport', 0, undefined], ['websocket', 250, undefined], ['event-stream', 1500, 1000], ['long-poll', 1000, undefined],
    ]);
    const remembered = waits(ladder(offers, { ...settings, winner: 'event-stream', streamPatienceMs: 1000 }));
    assert.deepEqual(remembered[0], ['event-stream', 0, undefined], 'with another after it, it is a transport like others');
    assert.deepEqual(remembered.at(-1), ['long-poll', 3000, undefined]);
  });

  test('shows what is above a transport', () => {
    const rungs = ladder(offers, settings);
    assert.deepEqual(types(rungsAbove(rungs, 'event-stream', new Set())), ['webtransport', 'websocket']);
    assert.deepEqual(types(rungsAbove(rungs, 'event-stream', new Set(['webtransport']))), ['websocket']);
    assert.deepEqual(types(rungsAbove(rungs, 'webtransport', new Set())), []);
  });
});

describe('the memory', () => {
  test('is kept in the store by place, and survives a store that refuses', () => {
    const items = new Map();
    const storage = { getItem: (key) => items.get(key) ?? null, setItem: (key, value) => items.set(key, value) };
    new TransportMemory(storage, 1000).remember('here', 'websocket');
    assert.equal(new TransportMemory(storage, 1000).winner('here'), 'websocket');
    assert.equal(new TransportMemory(storage, 1000).winner('there'), null);
    items.forEach((_, key) => items.set(key, 'nonsense'));
    assert.equal(new TransportMemory(storage, 1000).winner('here'), null);

    const refusing = { getItem: () => { throw new Error('no'); }, setItem: () => { throw new Error('no'); } };
    const memory = new TransportMemory(refusing, 1000);
    memory.remember('here', 'webtransport');
    assert.equal(memory.winner('here'), 'webtransport');
    assert.equal(memory.winner('there'), null);
  });

  test('forgets a demotion after its time', (t) => {
    t.mock.timers.enable({ apis: ['Date'] });
    const memory = new TransportMemory(null, 1000);
    memory.demote('here', 'webtransport');
    assert.deepEqual([...memory.demoted('here')], ['webtransport']);
    assert.deepEqual([...memory.demoted('there')], []);
    t.mock.timers.tick(1001);
    assert.deepEqual([...memory.demoted('here')], []);
  });
});

describe('the roster', () => {
  const member = (peer, more) => ({ peer, metadata: {}, polite: true, ...more });
  const picture = (peers, more) => ({ self: { peer: 'me', metadata: {} }, room: { name: 'demo', locked: false, revision: 5 }, peers, ...more });

  const names = (happenings) => happenings.map(({ name }) => name);

  test('takes each revision once', () => {
    const roster = new Roster();
    assert.deepEqual(roster.apply({ type: 'peerLeft', peer: 'a', revision: 1 }), [], 'before there is a picture');
    assert.deepEqual(roster.replace(picture([member('a', { state: 'away' })])), []);
    assert.deepEqual(roster.apply({ type: 'peerLeft', peer: 'a', reason: 'left', revision: 5 }), []);
    assert.equal(roster.peers.get('a').state, 'away');
    assert.deepEqual(names(roster.apply({ type: 'peerBack', peer: 'a', revision: 6 })), ['peerback']);
    assert.deepEqual(roster.apply({ type: 'peerAway', peer: 'a', revision: 6 }), []);
    assert.equal(roster.peers.get('a').state, 'here');
    assert.deepEqual(names(roster.apply({ ...member('b', { user: 'bob' }), type: 'peerJoined', revision: 8 })), ['peerjoined']);
    assert.deepEqual(roster.peers.get('b'), { ...member('b'), user: 'bob', state: 'here' });
    assert.deepEqual(roster.apply({ type: 'peerLeft', peer: 'stranger', revision: 9 }), []);
    assert.deepEqual(names(roster.apply({ type: 'peerLeft', peer: 'a', revision: 10 })), ['peerleft']);
    assert.deepEqual([...roster.peers.keys()], ['b']);
  });

  test('knows who knocks until they are let in or gone, or a new picture comes', () => {
    const roster = new Roster();
    roster.replace(picture([]));
    const knock = (peer, revision) => roster.apply({ type: 'knock', peer, user: 'eve', metadata: { name: 'Eve' }, revision });
    assert.deepEqual(names(knock('k1', 6)), ['knock']);
    assert.deepEqual(knock('k1', 6), [], 'said again');
    assert.deepEqual(names(knock('k0', 6)), ['knock'], 'of the same picture');
    assert.deepEqual(knock('old', 5), [], 'of an older one');
    assert.deepEqual(roster.knocks.get('k1'), { peer: 'k1', user: 'eve', metadata: { name: 'Eve' } });
    knock('k2', 7);
    const admitted = roster.apply({ ...member('k1'), type: 'peerJoined', revision: 8 });
    assert.deepEqual(admitted.map(({ name, detail }) => [name, detail.peer, detail.reason]), [
      ['knockgone', 'k1', 'admitted'], ['peerjoined', 'k1', undefined],
    ]);
    assert.deepEqual(roster.apply({ type: 'peerLeft', peer: 'k2', reason: 'timeout', revision: 9 }), [
      { name: 'knockgone', detail: { peer: 'k2', reason: 'timeout' } },
    ]);
    assert.deepEqual([[...roster.peers.keys()], [...roster.knocks.keys()]], [['k1'], ['k0']]);
    knock('k3', 10);
    roster.replace(picture([member('k1')], { room: { name: 'demo', locked: false, revision: 11 } }));
    assert.equal(roster.knocks.size, 0);
  });

  test('keeps the object of a peer that changes', () => {
    const roster = new Roster();
    roster.replace(picture([member('a')]));
    const held = roster.peers.get('a');
    roster.apply({ ...member('a', { metadata: { name: 'A' } }), type: 'peerUpdated', revision: 6 });
    roster.apply({ type: 'peerAway', peer: 'a', revision: 7 });
    assert.deepEqual([held.metadata, held.state], [{ name: 'A' }, 'away']);
  });

  test('tells how a new picture differs', () => {
    const roster = new Roster();
    roster.replace(picture([member('gone'), member('same'), member('changed'), member('away')]));
    const told = roster.replace(picture([member('same'), member('changed', { metadata: { x: 1 } }), member('away', { state: 'away' }), member('new')]));
    assert.deepEqual(told.map(({ name, detail }) => `${name} ${detail.peer}`), [
      'peerleft gone', 'peerupdated changed', 'peeraway away', 'peerjoined new',
    ]);
    assert.ok(told.every(({ detail }) => detail.synthetic && detail.revision === 5));
    const anew = roster.replace(picture([member('same')], { self: { peer: 'me again', metadata: {} } }));
    assert.deepEqual(anew.map(({ name, detail }) => `${name} ${detail.peer}`).sort(), [
      'peerjoined same', 'peerleft away', 'peerleft changed', 'peerleft new', 'peerleft same',
    ]);
  });
});

describe('the seat', () => {
  const joined = { ticket: 't1', replayFrom: 1 };
  const parse = (lines) => lines.map((line) => JSON.parse(line));

  test('joins under a key, resumes with the newest ticket and seq, and joins anew under another key', () => {
    const seat = new Seat();
    const join = JSON.parse(seat.greeting({ metadata: { a: 1 }, token: 'x' }));
    assert.deepEqual({ ...join, key: '' }, { type: 'join', metadata: { a: 1 }, token: 'x', key: '' });
    assert.match(join.key, /^[A-Za-z0-9_-]{22}$/);
    seat.joined(joined, 'first');
    seat.receive({ seq: 1 });
    seat.renew({ ticket: 't2' });
    assert.deepEqual(JSON.parse(seat.greeting({ metadata: {} })), { type: 'resume', ticket: 't2', seq: 1 });
    seat.forget();
    assert.notEqual(JSON.parse(seat.greeting({})).key, join.key);
  });

  test('takes each seq once and sees a hole', () => {
    const seat = new Seat();
    seat.joined({ ...joined, replayFrom: 5 }, 'first');
    assert.deepEqual([5, 5, 4, 6, 8, undefined, 7].map((seq) => seat.receive({ seq })), [
      'new', 'old', 'old', 'new', 'gap', 'new', 'new',
    ]);
    assert.equal(seat.lastSeq, 7);
  });

  test('has ids that only grow, and sends again what the server has not handled', () => {
    const seat = new Seat();
    seat.joined(joined, 'first');
    const [one, two, three] = [1, 2, 3].map((data) => seat.request({ type: 'message', data }));
    const ping = seat.takeId();
    const five = seat.request({ type: 'lock', locked: true });
    assert.deepEqual([one.id, two.id, three.id, ping, five.id], [1, 2, 3, 4, 5]);
    assert.equal(seat.settle(1), true);
    assert.equal(seat.settle(1), false);
    assert.deepEqual(parse(seat.resumed({ ticket: 't2', lastId: 2 })).map(({ id }) => id), [3, 5]);
    // Two was handled: its answer comes by replay. Past a hole it may not, so it is asked again.
    assert.deepEqual(parse(seat.joined({ ...joined, lastId: 2 }, 'same').resend).map(({ id }) => id), [2, 3, 5]);
    // That link may have lost them: they go again until they are answered, whatever the server has handled.
    assert.deepEqual(parse(seat.resumed({ ticket: 't3', lastId: 5 })).map(({ id }) => id), [2, 3, 5]);
    assert.deepEqual(seat.joined(joined, 'new'), { resend: [], abandoned: [2, 3, 5] });
  });

  test('does not go back behind what an earlier link has brought when a picture comes', () => {
    const seat = new Seat();
    seat.joined(joined, 'first');
    [1, 2, 3].forEach((seq) => seat.receive({ seq }));
    seat.joined({ ...joined, replayFrom: 2 }, 'same');
    assert.deepEqual([2, 3, 4].map((seq) => seat.receive({ seq })), ['old', 'old', 'new']);
    seat.joined(joined, 'new');
    assert.equal(seat.receive({ seq: 1 }), 'new');
  });

  test('acknowledges in time, and a resume acknowledges too', () => {
    const seat = new Seat();
    seat.joined(joined, 'first');
    assert.equal(seat.ack, 'none');
    seat.receive({ seq: 1 });
    assert.equal(seat.ack, 'some');
    for (let seq = 2; seq <= 16; seq += 1) seat.receive({ seq });
    assert.equal(seat.ack, 'due');
    assert.deepEqual(JSON.parse(seat.takeAck()), { type: 'ack', seq: 16 });
    assert.equal(seat.ack, 'none');
    seat.receive({ seq: 17 });
    seat.resumed({ ticket: 't2', lastId: 0 });
    assert.equal(seat.ack, 'none');
  });

  test('bounds what waits by bytes', () => {
    const seat = new Seat();
    seat.joined(joined, 'first');
    const data = 'x'.repeat(128 * 1024);
    for (let count = 0; count < 7; count += 1) seat.request({ type: 'message', data });
    assert.throws(() => seat.request({ type: 'message', data }), { code: 'queueFull' });
    seat.settle(1);
    seat.request({ type: 'message', data });
  });
});

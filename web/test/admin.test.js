import assert from 'node:assert/strict';
import { test } from 'node:test';

import { rows } from '../admin/sequence.js';
import { Series, quantile, roundUp } from '../admin/series.js';
import { after, lasted, ofState, short3, size, tell } from '../admin/words.js';

const [a, b, c] = ['aaaa01', 'bbbb02', 'cccc03'].map((end) => `0197a000-0000-7000-8000-000000${end}`);

/** @param {string} state */
function pair(state) {
  return /** @type {any} */ ({ impolite: a, polite: b, state, text: '', over: false });
}

const joins = [{ atMs: 1000, event: 'joined', peer: a, transport: 'webtransport' }, { atMs: 1010, event: 'joined', peer: b }];
const offer = { atMs: 1020, event: 'offer', peer: b, to: a, bytes: 2048, outcome: 'delivered' };

/** @param {any[]} events @param {string} state */
function told(events, state) {
  return rows(events, pair(state)).map((row) => `${row.kind} ${row.side} ${row.label}${row.kind === 'arrow' ? row.span : ''}${row.kind === 'arrow' && row.lost ? ` / ${row.lost}` : ''}`);
}

test('a diagram shows who came, what went where, and what is missing', () => {
  assert.deepEqual(told([...joins, offer], 'noAnswer'), [
    'state 0 joins by webtransport', 'state 1 joins', 'arrow 1 offer, 2.0 KiB', 'missing 0 the answer never came',
  ]);
});

test('candidates are bundles with their time', () => {
  const bundle = { atMs: 1030, untilMs: 1180, count: 4, event: 'candidate', peer: a, to: b, bytes: 400, outcome: 'delivered' };
  assert.deepEqual(told([bundle], 'complete'), ['arrow 0 4 candidates, 400 B in 150 ms']);
});

test('what did not arrive says why, and what waits says for whom', () => {
  assert.deepEqual(told([{ ...offer, outcome: 'queueFull' }], 'offerLost'), ['arrow 1 offer, 2.0 KiB / queue full']);
  assert.deepEqual(told([{ ...offer, outcome: 'kept' }], 'noAnswer').slice(0, 2), ['arrow 1 offer, 2.0 KiB', 'note 0 waits, peer is away']);
});

test('each state that lacks something has a row that says so', () => {
  const answer = { ...offer, event: 'answer', peer: a, to: b };
  const candidate = { ...offer, event: 'candidate' };
  const expected = {
    noOffer: ['missing 1 an offer never came'], rolledBack: ['missing 1 no other offer came'], noAnswer: ['missing 0 the answer never came'],
    glare: ['missing 1 no answer: neither gave way'], leftDuring: ['missing 0 no answer any more'],
    noCandidates: ['missing 0 no candidates', 'missing 1 no candidates'], oneSidedCandidates: ['missing 0 no candidates'],
    complete: [], offerLost: [], answerLost: [],
  };
  for (const [state, missing] of Object.entries(expected)) {
    assert.deepEqual(told([offer, answer, candidate], state).filter((row) => row.startsWith('missing')), missing, state);
  }
});

test('what clients tell of the connection stands at their side, and where it failed there is no path', () => {
  const connected = { atMs: 1500, event: 'connected', peer: b, to: a, candidateType: 'relay', afterMs: 420 };
  const failed = { atMs: 9000, event: 'failed', peer: a, to: b, candidateType: 'host', afterMs: 15_240 };
  assert.deepEqual(told([offer, connected, failed], 'iceFailed'), [
    'arrow 1 offer, 2.0 KiB', 'note 1 ICE connected by relay after 420 ms', 'note 0 ICE failed with host at best after 15.24 s', 'missing 0 no path',
  ]);
  assert.deepEqual(told([offer, { ...connected, event: 'media', candidateType: undefined }], 'media').at(-1), 'note 1 first media after 420 ms');
});

test('others of the room, and its earlier lives, are left out', () => {
  const before = [...joins, offer, { atMs: 1100, event: 'ended' }];
  const strangers = [{ atMs: 1200, event: 'joined', peer: c }, { ...offer, to: c }];
  assert.deepEqual(told([...before, ...strangers, { ...offer, atMs: 1300 }, { atMs: 1400, event: 'ended' }], 'leftDuring').filter((row) => !row.startsWith('missing')), ['arrow 1 offer, 2.0 KiB']);
});

test('a long negotiation shows its end', () => {
  const many = Array.from({ length: 200 }, (_, at) => ({ ...offer, atMs: 1000 + at }));
  const shown = rows(many, pair('complete'));
  assert.equal(shown.length, 80);
  assert.equal(shown.at(-1)?.kind === 'arrow' && /** @type {any} */ (shown.at(-1)).offset, 199);
});

test('quantiles are of what was counted in between', () => {
  const before = /** @type {[string, number][]} */ ([['0.001', 10], ['0.01', 10], ['+Inf', 10]]);
  assert.equal(quantile(0.5, before, before), null);
  const later = /** @type {[string, number][]} */ ([['0.001', 20], ['0.01', 30], ['+Inf', 30]]);
  assert.equal(quantile(0.5, before, later), 1);
  assert.equal(quantile(0.75, before, later)?.toFixed(3), '5.500');
  // Above the last limit nothing is known but that.
  assert.equal(quantile(0.99, before, [['0.001', 10], ['0.01', 10], ['+Inf', 40]]), 10);
});

/** @param {number} atMs @param {number} messages */
function overview(atMs, messages, startedMs = 0) {
  return /** @type {any} */ ({ atMs, startedMs, messages, sessions: {}, relayed: { count: 0, buckets: [['+Inf', 0]] } });
}

test('messages a second are differences, and begin anew with the server', () => {
  const series = new Series();
  for (const [at, messages] of [[1000, 100], [2000, 150], [4000, 350]]) series.push(overview(at, messages));
  series.push(overview(5000, 3, 4500));
  series.push(overview(6000, 5, 4500));
  assert.deepEqual(series.points.map((point) => point.messages), [null, 50, 100, null, 2]);
});

test('the last two minutes are kept', () => {
  const series = new Series();
  for (let second = 0; second < 300; second += 1) series.push(overview(second * 1000, second));
  assert.deepEqual([series.points.length, series.points[0].atMs], [120, 180_000]);
});

test('scales are round', () => {
  assert.deepEqual([0, 0.3, 1, 3, 17, 200, 201].map(roundUp), [1, 0.5, 1, 5, 20, 200, 500]);
});

test('numbers and times are short', () => {
  assert.deepEqual([512, 2048, 20_480, 3 << 20].map(size), ['512 B', '2.0 KiB', '20 KiB', '3.0 MiB']);
  assert.deepEqual([-5, 59_999, 60_000, 3_700_000, 200_000_000].map(lasted), ['0 s', '59 s', '1 min', '1 h 1 min', '2 days']);
  assert.deepEqual([0, 999, 1500, 61_000].map(after), ['+0 ms', '+999 ms', '+1.50 s', '+1 min']);
  assert.deepEqual([0, 0.05, 0.5, 12, 1200, 12_000].map(short3), ['0', '0.05', '0.5', '12', '1.2k', '12k']);
});

test('each state has a name, and one that is not known its own', () => {
  assert.deepEqual(ofState(null), { label: '–', tone: 'none' });
  assert.deepEqual(ofState(/** @type {any} */ ('new')), { label: 'new', tone: 'none' });
  assert.equal(ofState('noAnswer').tone, 'bad');
});

test('events are sentences', () => {
  assert.equal(tell({ ...offer, outcome: 'kept' }), '…bbbb02 → …aaaa01: offer, 2.0 KiB, waits, peer is away');
  assert.equal(tell({ atMs: 0, event: 'joined', peer: a, transport: 'webtransport' }), '…aaaa01 joined by webtransport');
  assert.equal(tell({ atMs: 0, event: 'left', peer: a, reason: 'kicked' }), '…aaaa01 left (was removed)');
  assert.equal(tell({ atMs: 0, event: 'refused', code: 'roomLocked', count: 3 }), 'Somebody was refused ×3 (roomLocked)');
  assert.equal(tell({ atMs: 0, event: 'locked' }), 'The operator locked the room');
  assert.equal(tell({ atMs: 0, event: 'ended' }), 'The room ended');
  assert.equal(tell({ atMs: 0, event: 'media', peer: b, to: a, candidateType: 'host', afterMs: 812 }), '…bbbb02 with …aaaa01: first media by host after 812 ms');
});

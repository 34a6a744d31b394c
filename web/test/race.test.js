import assert from 'node:assert/strict';
import { describe, test } from 'node:test';

import { Link } from '../wigwag/links/link.js';
import { Race } from '../wigwag/race.js';

const headStartMs = 250;
const timing = { openMs: 8_000, patienceMs: 3_000, answerMs: 10_000 };

class TestLink extends Link {
  sent = [];

  open() {
    return new Promise((resolve, reject) => Object.assign(this, { opened: resolve, failed: reject }));
  }

  send(line) {
    this.sent.push(line);
  }

  answer(message) {
    this.handlers.message(JSON.stringify(message));
  }

  break() {
    this.end({ error: new Error('reset') });
  }
}

const turn = () => new Promise(setImmediate);

function race(t, types = ['webtransport', 'websocket', 'event-stream'], more = {}) {
  t.mock.timers.enable({ apis: ['setTimeout'] });
  const links = [];
  const log = [];
  const rungs = types.map((type, index) => ({ type, url: '', certificateHashes: [], headStartMs: index === 0 ? 0 : headStartMs, ...more[type] }));
  const running = new Race(rungs, {
    createLink: ({ type, anonymous }) => links[links.push(Object.assign(new TestLink(type), { anonymous })) - 1],
    greet: () => 'greeting',
    won: (link, text) => log.push(`${link.type} ${JSON.parse(text).type}`),
    lost: (closing) => log.push(`lost ${closing.closeCode ?? closing.error.message}`),
    abandoned: () => log.push('abandoned'),
    report: ({ transport, outcome }) => log.push(`${transport} ${outcome}`),
  }, timing);
  running.start();
  const open = async (link) => {
    link.opened();
    await turn();
  };
  // In steps, as a timer set during a tick counts from that tick's end.
  const tick = (ms) => {
    for (let left = ms; left > 0; left -= 250) t.mock.timers.tick(Math.min(250, left));
  };
  return { links, log, open, running, tick };
}

describe('a race', () => {
  test('has the patience of the rung with an answer, where that has its own', async (t) => {
    const { links, log, open, tick } = race(t, ['event-stream', 'long-poll'], { 'event-stream': { patienceMs: 1_000 } });
    await open(links[0]);
    tick(headStartMs);
    await open(links[1]);
    tick(1_000 - headStartMs - 1);
    assert.deepEqual(links[1].sent, []);
    tick(1);
    assert.deepEqual(links[1].sent, ['greeting']);
    assert.deepEqual(log, ['abandoned', 'event-stream failed']);
  });

  test('gives each a head start over the next', (t) => {
    const { links, tick } = race(t);
    assert.equal(links.length, 1);
    tick(249);
    assert.equal(links.length, 1);
    tick(1);
    assert.equal(links.length, 2);
    tick(250);
    assert.equal(links.length, 3);
  });

  test('starts the next at once when one fails', async (t) => {
    const { links, log } = race(t);
    links[0].failed(new Error('blocked'));
    await turn();
    assert.equal(links.length, 2);
    assert.deepEqual(log, ['webtransport failed']);
  });

  test('greets one at a time and closes the others unused', async (t) => {
    const { links, log, open, tick } = race(t);
    tick(500);
    await open(links[1]);
    await open(links[0]);
    assert.deepEqual(links.map(({ sent }) => sent.length), [0, 1, 0]);
    links[1].answer({ type: 'ping' });
    links[0].answer({ type: 'joined' });
    assert.deepEqual(log, []);
    links[1].answer({ type: 'joined' });
    assert.deepEqual(log, ['websocket won', 'webtransport unused', 'event-stream unused', 'websocket joined']);
    assert.deepEqual(links.map(({ isOver }) => isOver), [true, false, true]);
    tick(60_000);
    assert.equal(log.length, 4);
  });

  test('turns to the next when one opens and dies before its answer', async (t) => {
    const { links, log, open, tick } = race(t);
    tick(250);
    await open(links[0]);
    await open(links[1]);
    links[0].break();
    assert.deepEqual(links[1].sent, ['greeting']);
    links[1].answer({ type: 'resumed' });
    assert.deepEqual(log.slice(0, 2), ['abandoned', 'webtransport failed']);
    assert.equal(log.at(-1), 'websocket resumed');
  });

  test('loses patience with one that opens and is silent, when another is there', async (t) => {
    const { links, open, tick } = race(t, ['webtransport', 'websocket']);
    await open(links[0]);
    tick(3_000);
    assert.equal(links[0].isOver, false, 'alone, it has longer');
    await open(links[1]);
    assert.equal(links[0].isOver, true);
    assert.deepEqual(links[1].sent, ['greeting']);
  });

  test('is lost when all have failed, one by one in their own time', async (t) => {
    const { links, log, open, tick } = race(t, ['webtransport', 'websocket']);
    tick(250);
    await open(links[1]);
    tick(7_750);
    assert.deepEqual(log, ['webtransport failed']);
    tick(2_250);
    assert.deepEqual(log.slice(1), ['abandoned', 'websocket failed', 'lost did not answer within 10000 ms']);
  });

  test('sends a plain request once more, without credentials, when the last resort does not answer', async (t) => {
    const { links, log, open, tick } = race(t, ['long-poll']);
    await open(links[0]);
    tick(3_000);
    await open(links[1]);
    assert.deepEqual([links[0].isOver, links[1].sent, links[1].anonymous], [true, ['greeting'], true]);
    tick(9_999);
    assert.equal(links.length, 2);
    links[1].answer({ type: 'resumed' });
    assert.deepEqual(log, ['abandoned', 'long-poll failed', 'long-poll won', 'long-poll resumed']);
  });

  test('is over when the server has decided', async (t) => {
    const { links, log, open, tick } = race(t);
    tick(250);
    await open(links[0]);
    links[0].answer({ type: 'closed', code: 'roomFull', closeCode: 4011 });
    assert.deepEqual(log, ['abandoned', 'webtransport refused', 'websocket unused', 'lost 4011']);
    tick(60_000);
    assert.equal(links.length, 2);
  });

  test('goes on when the server only had trouble with the one', async (t) => {
    const { links, log, open, tick } = race(t);
    tick(250);
    await open(links[0]);
    await open(links[1]);
    links[0].answer({ type: 'closed', code: 'timeout', closeCode: 4003 });
    links[1].answer({ type: 'waiting' });
    assert.equal(log.at(-1), 'websocket waiting');
  });

  test('aborted closes everything and tells nobody', async (t) => {
    const { links, log, open, running, tick } = race(t);
    tick(250);
    await open(links[0]);
    running.abort();
    assert.deepEqual(log, ['abandoned', 'webtransport unused', 'websocket unused']);
    tick(60_000);
    await open(links[1]);
    assert.equal(links.length, 2);
    assert.deepEqual(links[1].sent, []);
  });
});

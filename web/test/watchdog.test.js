import assert from 'node:assert/strict';
import { describe, test } from 'node:test';

import { Watchdog } from '../wigwag/watchdog.js';

function start(t, limitMs) {
  t.mock.timers.enable({ apis: ['setTimeout', 'Date'] });
  const calls = [];
  const watchdog = new Watchdog({ onSilent: () => calls.push('silent'), onLate: () => calls.push('late') });
  watchdog.start(limitMs);
  return { watchdog, calls, tick: (ms) => t.mock.timers.tick(ms) };
}

describe('the watchdog', () => {
  test('is quiet while something is heard, and speaks once when nothing is', (t) => {
    const { watchdog, calls, tick } = start(t, 1000);
    for (let count = 0; count < 10; count += 1) {
      tick(900);
      watchdog.heard();
    }
    tick(999);
    assert.deepEqual(calls, []);
    tick(1);
    assert.deepEqual(calls, ['silent']);
    tick(10_000);
    assert.deepEqual(calls, ['silent']);
  });

  test('shortens the wait for a probe and lengthens it again when the answer comes', (t) => {
    const { watchdog, calls, tick } = start(t, 1000);
    watchdog.probe(100);
    tick(99);
    watchdog.heard();
    tick(999);
    assert.deepEqual(calls, []);
    watchdog.heard();
    watchdog.probe(100);
    tick(100);
    assert.deepEqual(calls, ['silent']);
  });

  test('does not take a page\'s sleep for the server\'s silence, but asks', (t) => {
    const { watchdog, calls, tick } = start(t, 1000);
    // A sleeping page's clock goes on while its timers stand still.
    t.mock.timers.setTime(60_000);
    tick(1);
    assert.deepEqual(calls, ['late']);
    watchdog.probe(100);
    tick(100);
    assert.deepEqual(calls, ['late', 'silent']);
  });

  test('gives a sleeping page one chance, not one after another', (t) => {
    const { watchdog, calls, tick } = start(t, 1000);
    t.mock.timers.setTime(60_000);
    tick(1);
    watchdog.probe(100);
    // The timers of a hidden page fire late every time.
    t.mock.timers.setTime(120_000);
    tick(1);
    assert.deepEqual(calls, ['late', 'silent']);
  });

  test('stopped says nothing, and a probe does not start it', (t) => {
    const { watchdog, calls, tick } = start(t, 1000);
    watchdog.stop();
    watchdog.probe(10);
    tick(10_000);
    assert.deepEqual(calls, []);
  });
});

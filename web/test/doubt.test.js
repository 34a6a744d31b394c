import assert from 'node:assert/strict';
import { describe, test } from 'node:test';

import { Doubt } from '../wigwag/doubt.js';

function start(t, { graceMs = 1000 } = {}) {
  t.mock.timers.enable({ apis: ['setTimeout', 'Date'] });
  const state = { waiting: 0, graceMs, doubts: 0 };
  const doubt = new Doubt({
    isWaiting: () => state.waiting > 0,
    graceMs: () => state.graceMs,
    onDoubt: () => { state.doubts += 1; },
  });
  const ask = () => {
    doubt.asked();
    state.waiting += 1;
  };
  const answer = () => {
    doubt.heard();
    state.waiting -= 1;
  };
  return { state, doubt, ask, answer, tick: (ms) => t.mock.timers.tick(ms) };
}

describe('doubt', () => {
  test('comes once when a question is left unanswered', (t) => {
    const { state, ask, tick } = start(t);
    ask();
    tick(999);
    assert.equal(state.doubts, 0);
    tick(1);
    assert.equal(state.doubts, 1);
    tick(60_000);
    assert.equal(state.doubts, 1);
    ask();
    tick(1000);
    assert.equal(state.doubts, 2, 'the next question is another chance');
  });

  test('is not put off by asking on', (t) => {
    const { state, ask, tick } = start(t);
    for (let count = 0; count < 10; count += 1) {
      ask();
      tick(100);
    }
    assert.equal(state.doubts, 1);
  });

  test('does not come while answers do, each in its own time', (t) => {
    const { state, ask, answer, tick } = start(t);
    for (let count = 0; count < 50; count += 1) {
      ask();
      tick(700);
      answer();
      tick(450);
    }
    assert.equal(state.doubts, 0);
  });

  test('is dispelled by any sign of life, and returns when silence does', (t) => {
    const { state, doubt, ask, tick } = start(t);
    ask();
    for (let count = 0; count < 5; count += 1) {
      tick(900);
      doubt.heard();
    }
    assert.equal(state.doubts, 0);
    tick(1000);
    assert.equal(state.doubts, 1);
  });

  test('gives a page that was asleep the time to hear what has come', (t) => {
    const { state, ask, tick } = start(t);
    ask();
    t.mock.timers.setTime(60_000);
    tick(1);
    assert.equal(state.doubts, 0);
    tick(1000);
    assert.equal(state.doubts, 1);
  });

  test('takes the grace as it is by then', (t) => {
    const { state, ask, tick } = start(t);
    ask();
    state.graceMs = 5000;
    tick(4999);
    assert.equal(state.doubts, 0);
    tick(1);
    assert.equal(state.doubts, 1);
  });

  test('stopped says nothing', (t) => {
    const { state, doubt, ask, tick } = start(t);
    ask();
    doubt.stop();
    tick(60_000);
    assert.equal(state.doubts, 0);
  });
});

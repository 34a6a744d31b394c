import assert from 'node:assert/strict';
import { test } from 'node:test';

import { factLines } from '../demo/details.js';

test('the node is shown where there is a cluster', () => {
  const meeting = /** @type {any} */ ({ phase: 'incall', room: 'demo', node: '00000000000000aa' });
  const status = { host: 'signal.example.org', transport: 'websocket-h2', rtt: '12' };
  assert.deepEqual(factLines(meeting, status).map(([term]) => term), ['State', 'Server', 'Node', 'Room', 'Transport', 'Round trip']);
  assert.deepEqual(factLines(meeting, status)[2], ['Node', '00000000000000aa']);
  assert.equal(factLines({ ...meeting, node: null }, status).some(([term]) => term === 'Node'), false);
});

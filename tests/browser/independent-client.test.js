// The wire as others would speak it: a client of Node's HTTP/2 and a few lines of WebSocket, in a room with a browser.

import assert from 'node:assert/strict';

import { browserNames } from './support/browsers.js';
import { within } from './support/deadline.js';
import { Http2Connection } from './support/http2-client.js';
import { useStage } from './support/stage.js';

const { stage, scenario } = useStage();

for (const browser of browserNames) {
  scenario(`a hand-made WebSocket over HTTP/2 talks to ${browser} over WebTransport`, () => talk(browser, 'webtransport'));
  scenario(`a hand-made WebSocket over HTTP/2 talks to ${browser} over a WebSocket`, () => talk(browser, 'websocket-h2'));
}

scenario('without the subprotocol there is no WebSocket', async () => {
  const connection = await Http2Connection.open(stage.server);
  const stream = connection.session.request({
    ':method': 'CONNECT', ':protocol': 'websocket', ':path': '/v1/rooms/demo', 'sec-websocket-version': '13',
  }, { endStream: false });
  const status = new Promise((resolve) => {
    stream.once('response', (headers) => resolve(headers[':status']));
  });
  assert.equal(await within(status, 'the refusal'), 400);
  stream.close();
  await connection.close();
});

/** @param {string} browser @param {'webtransport'|'websocket-h2'} transport */
async function talk(browser, transport) {
  const room = stage.newRoom();
  const alice = await stage.member(browser, transport, { room, name: 'Alice', media: false });

  const connection = await Http2Connection.open(stage.server);
  const bob = await connection.webSocket(room);
  assert.deepEqual([bob.status, bob.protocol], [200, 'wigwag.v1']);
  bob.send({ type: 'join', metadata: { name: 'Bob' } });
  const joined = await bob.next('joined');
  assert.equal(joined.transport, 'websocket-h2');
  assert.equal(joined.replayFrom, 1);
  assert.deepEqual(joined.peers, [{ peer: alice.id, metadata: { name: 'Alice' }, polite: true, state: 'here' }]);

  const { peer } = joined.self;
  await alice.until('Bob', (id) => globalThis.member.session.peers.get(id)?.metadata.name === 'Bob', peer);
  bob.send({ type: 'message', id: 1, to: alice.id, data: { from: 'Bob' } });
  assert.deepEqual(await bob.next('ok'), { type: 'ok', seq: 1, id: 1 });
  await alice.until('what Bob says', () => globalThis.member.messages.some(({ data }) => data.from === 'Bob'));

  await alice.page.evaluate((to) => globalThis.member.session.send({ from: 'Alice' }, { to }), peer);
  const message = await bob.next('message');
  assert.deepEqual([message.from, message.data], [alice.id, { from: 'Alice' }]);

  bob.send({ type: 'leave', id: 2 });
  assert.equal((await bob.next('ok')).id, 2);
  await within(bob.closed, 'the server\'s close frame');
  await alice.until('Bob\'s leaving', (id) => !globalThis.member.session.peers.has(id), peer);
  await connection.close();
}

// Many sessions on one connection, and much at once on each.

import assert from 'node:assert/strict';

import { browserNames } from './support/browsers.js';
import { within } from './support/deadline.js';
import { Http2Connection } from './support/http2-client.js';
import { blankPath } from './support/member.js';
import { useStage } from './support/stage.js';

const { stage, scenario } = useStage();

for (const browser of browserNames) {
  scenario(`${browser} has ten sessions as WebSockets on one HTTP/2 connection, and none over HTTP/1.1`, () => tenSessions(browser));
  scenario(`${browser} sends two hundred small messages in one burst, and all arrive in order`, () => burst(browser));
}

scenario('three hundred messages in as many DATA frames, found all at once, do not end an HTTP/2 connection', rawBurst);

/** @param {string} browser */
async function tenSessions(browser) {
  const before = await stage.server.counters();
  const page = await stage.page(browser, `${stage.server.secure}${blankPath}`);
  const joined = page.evaluate(joinTen, stage.newRoom());
  const sessions = await within(joined, 'ten sessions join');
  assert.deepEqual(sessions.map(({ transport }) => transport), Array(10).fill('websocket-h2'));
  assert.equal(new Set(sessions.map(({ peer }) => peer)).size, 10);

  const after = await stage.server.counters();
  assert.equal(after.openSessions('websocket-h2'), 10);
  assert.equal(after.sessions('websocket-h1') - before.sessions('websocket-h1'), 0);
  assert.equal(after.openConnections('h2'), 1, 'open HTTP/2 connections');
  assert.equal(after.connections('http/1.1') - before.connections('http/1.1'), 0, 'HTTP/1.1 connections');

  const heard = await within(page.evaluate(() => globalThis.everybodyHearsEverybody()), 'all hear all');
  assert.deepEqual(heard, Array(10).fill(9));
}

/** Runs in the page. @param {string} room */
async function joinTen(room) {
  const { connect } = await import(`${location.origin}/wigwag.js`);
  const sessions = [...Array(10).keys()].map((number) => connect({ room, metadata: { number }, transports: ['websocket'] }));
  globalThis.everybodyHearsEverybody = async () => {
    const hearing = sessions.map((session) => new Promise((resolve) => {
      const from = new Set();
      session.addEventListener('message', ({ detail }) => {
        if (from.add(detail.from).size === sessions.length - 1) resolve(from.size);
      });
    }));
    await Promise.all(sessions.map((session) => session.send('hello')));
    return Promise.all(hearing);
  };
  await Promise.all(sessions.map((session) => session.joined));
  return sessions.map(({ transport, self: { peer } }) => ({ transport, peer }));
}

/** @param {string} browser */
async function burst(browser) {
  const room = stage.newRoom();
  const [sender, receiver] = await Promise.all(['sender', 'receiver'].map((name) => (
    stage.member(browser, 'websocket-h2', { room, name, media: false })
  )));
  const before = await stage.server.counters();
  await within(sender.page.evaluate(sendAtOnce, 200, receiver.id), 'two hundred answers');
  await receiver.until('two hundred messages', () => globalThis.member.messages.length >= 200);
  const numbers = await receiver.page.evaluate(() => globalThis.member.messages.map(({ data }) => data));
  assert.deepEqual(numbers, [...Array(200).keys()]);

  const after = await stage.server.counters();
  assert.equal(after.connections('h2') - before.connections('h2'), 0, 'new connections');
  assert.equal(after.sessions('websocket-h2') - before.sessions('websocket-h2'), 0, 'resumed sessions');
}

/** Runs in the page. @param {number} count @param {string} to */
async function sendAtOnce(count, to) {
  await Promise.all([...Array(count).keys()].map((number) => globalThis.member.session.send(number, { to })));
}

async function rawBurst() {
  const count = 300;
  const connection = await Http2Connection.open(stage.server);
  const room = stage.newRoom();
  const [sender, receiver] = await Promise.all([connection.webSocket(room), connection.webSocket(room)]);
  sender.send({ type: 'join' });
  const { self } = await sender.next('joined');
  receiver.send({ type: 'join' });
  await receiver.next('joined');

  stage.server.freeze();
  try {
    for (let id = 1; id <= count; id += 1) {
      await within(sender.send({ type: 'message', id, data: id }), `message ${id} goes, within the stream's window`);
    }
  } finally {
    stage.server.thaw();
  }
  for (let id = 1; id <= count; id += 1) {
    const message = await receiver.next('message');
    assert.deepEqual([message.from, message.data], [self.peer, id]);
    assert.equal((await sender.next('ok')).id, id);
  }
  await Promise.all([sender.close(1000), receiver.close(1000)]);
  await connection.close();
}

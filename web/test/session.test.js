import assert from 'node:assert/strict';
import { describe, test } from 'node:test';

import { TransportMemory } from '../wigwag/memory.js';
import { Session } from '../wigwag/session.js';
import { FakeServer, next } from './fake-server.js';

const options = { timeout: 10_000 };

/** @returns a session on the server, closed when the test ends */
function connect(t, server, { environment = server.environment(), ...more } = {}) {
  const session = new Session({ url: 'https://fake.test', room: 'demo', ...more }, environment);
  t.after(() => session.close());
  return session;
}

function record(session, ...names) {
  const events = [];
  for (const name of names) session.addEventListener(name, ({ detail }) => events.push({ name, ...detail }));
  return events;
}

const linkOf = (server, session) => server.seatOf(session.self.peer).link;

describe('the log', options, () => {
  test('is fetched by the ticket of the session', async (t) => {
    const server = new FakeServer({ transports: ['websocket', 'long-poll'] });
    const environment = server.environment();
    const { fetch } = environment;
    const asked = [];
    environment.fetch = async (url, request) => {
      if (!url.endsWith('/log')) return fetch(url, request);
      asked.push({ url, headers: request.headers });
      return new Response('{"event":"log"}\n', { status: asked.length === 1 ? 200 : 401 });
    };
    const session = connect(t, server, { environment });
    await assert.rejects(session.fetchLog(), { code: 'left' });
    await session.joined;
    assert.equal(await session.fetchLog(), '{"event":"log"}\n');
    const ticket = server.seatOf(session.self.peer).tickets.at(-1);
    assert.deepEqual(asked, [{ url: 'https://fake.test/v1/rooms/demo/log', headers: { 'wigwag-ticket': ticket } }]);
    await assert.rejects(session.fetchLog(), { code: 'unreachable' });
  });
});

describe('the waiting room', options, () => {
  const holdsEve = ({ metadata }) => metadata.name === 'Eve';

  /** Alice inside, Eve at the door. */
  async function atTheDoor(t) {
    const server = new FakeServer({ transports: ['websocket'] });
    server.holds = holdsEve;
    const alice = connect(t, server, { metadata: { name: 'Alice' } });
    await alice.joined;
    const knock = next(alice, 'knock');
    const eve = connect(t, server, { metadata: { name: 'Eve' } });
    const waiting = await next(eve, 'waiting');
    return { server, alice, eve, waiting, knock: await knock };
  }

  test('lets in whom a moderator admits', async (t) => {
    const { alice, eve, waiting, knock } = await atTheDoor(t);
    assert.equal(waiting.expireMs, 60_000);
    assert.deepEqual([eve.state, eve.self], ['connecting', null]);
    assert.deepEqual([...alice.knocks.values()], [{ peer: knock.peer, user: undefined, metadata: { name: 'Eve' } }]);
    const gone = next(alice, 'knockgone');
    await alice.admit(knock.peer);
    await eve.joined;
    assert.deepEqual([eve.state, eve.self.peer], ['open', knock.peer]);
    assert.deepEqual(await gone, { peer: knock.peer, reason: 'admitted' });
    if (alice.peers.size === 0) await next(alice, 'peerjoined');
    assert.equal(alice.knocks.size, 0);
    await eve.send('hello');
  });

  test('turns away for good whom a moderator refuses', async (t) => {
    const { server, alice, eve, knock } = await atTheDoor(t);
    const closed = next(eve, 'closed');
    await alice.refuse(knock.peer);
    assert.equal((await closed).code, 'forbidden');
    assert.equal(alice.peers.size, 0);
    assert.equal(server.links.length, 2, 'it does not try again');
    await assert.rejects(alice.admit(knock.peer), { code: 'peerGone' });
  });

  test('is left by a request that says the join again, as there is no ticket', async (t) => {
    const server = new FakeServer({ transports: ['websocket', 'long-poll'] });
    server.holds = () => true;
    const environment = server.environment();
    const { fetch } = environment;
    const posts = [];
    environment.fetch = (url, request) => {
      if (request?.method === 'POST') posts.push({ url, ...request });
      return fetch(url, request);
    };
    const session = connect(t, server, { environment, token: 'a.b.c' });
    await next(session, 'waiting');
    session.close();
    const [{ url, headers, body, keepalive }] = posts;
    assert.deepEqual([url, keepalive, headers.prefer], ['https://fake.test/v1/rooms/demo', true, 'wait=0']);
    const [join, leave] = body.trimEnd().split('\n').map((line) => JSON.parse(line));
    assert.deepEqual(join, server.links[0].sent[0]);
    assert.deepEqual([join.token, leave.type], ['a.b.c', 'leave']);
  });

  test('keeps the place of whom the network drops meanwhile', async (t) => {
    const { server, alice, eve, knock } = await atTheDoor(t);
    const again = next(eve, 'waiting');
    server.links.at(-1).break();
    await again;
    await alice.admit(knock.peer);
    await eve.joined;
    assert.equal(eve.self.peer, knock.peer);
    assert.equal(alice.knocks.size, 0);
  });
});

describe('an invitation', options, () => {
  test('is a token that the server makes', async (t) => {
    const server = new FakeServer();
    const session = connect(t, server);
    await session.joined;
    assert.deepEqual(await session.invite({ expiresInMs: 5_000, uses: 3 }), { token: 'invitation for 3', expireMs: 5_000 });
  });

  test('whose answer was lost with the link is to be asked for again', async (t) => {
    const server = new FakeServer({ transports: ['websocket'] });
    const session = connect(t, server);
    await session.joined;
    server.intercept = (link, { type, id }) => {
      if (type !== 'invite') return false;
      server.intercept = () => false;
      link.seat.lastId = id;
      link.seat.push({ type: 'ok', id, token: 'lost', expireMs: 1 });
      link.seat.loseBuffer();
      link.isDead = true;
      link.break();
      return true;
    };
    await assert.rejects(session.invite(), { code: 'unreachable', message: /another/ });
  });
});

describe('joining', options, () => {
  test('gives the whole picture and then presence', async (t) => {
    const server = new FakeServer();
    const alice = connect(t, server, { metadata: { name: 'Alice' } });
    assert.equal(alice.state, 'connecting');
    await alice.joined;
    assert.equal(alice.state, 'open');
    assert.equal(alice.transport, 'webtransport');

    const arrival = next(alice, 'peerjoined');
    const bob = connect(t, server, { metadata: { name: 'Bob' } });
    await bob.joined;
    assert.deepEqual([...bob.peers.values()].map(({ metadata, polite }) => ({ metadata, polite })), [
      { metadata: { name: 'Alice' }, polite: true },
    ]);
    assert.equal((await arrival).polite, false);
    assert.equal(alice.peers.get(bob.self.peer).metadata.name, 'Bob');
  });

  test('asks the token function for the join', async (t) => {
    const server = new FakeServer();
    await connect(t, server, { token: async () => 'secret' }).joined;
    assert.equal(server.links[0].sent[0].token, 'secret');
  });

  test('joins under the same key when the answer was lost', async (t) => {
    const server = new FakeServer({ transports: ['websocket'] });
    const joins = [];
    server.intercept = (link, message) => {
      if (message.type !== 'join') return false;
      joins.push(message.key);
      if (joins.length > 1) return false;
      link.break();
      return true;
    };
    await connect(t, server).joined;
    assert.equal(joins.length, 2);
    assert.equal(joins[0], joins[1]);
  });

  test('is refused for good with the server\'s reason', async (t) => {
    const server = new FakeServer();
    server.intercept = (link) => {
      link.refuse('forbidden', 4503);
      return true;
    };
    const session = connect(t, server);
    const closed = next(session, 'closed');
    await assert.rejects(session.joined, { name: 'WigwagError', code: 'forbidden', closeCode: 4503 });
    assert.equal((await closed).code, 'forbidden');
    assert.equal(session.state, 'closed');
    // The server has decided: no other transport was asked.
    assert.deepEqual(server.links.map(({ type }) => type), ['webtransport']);
  });

  test('waits as long as a full room asks and then joins', async (t) => {
    const server = new FakeServer({ transports: ['websocket'] });
    let refusals = 0;
    server.intercept = (link, message) => {
      if (message.type !== 'join' || refusals === 2) return false;
      refusals += 1;
      link.deliver({ type: 'closed', code: 'roomFull', closeCode: 4011, message: 'full', retryAfterMs: 10 });
      return true;
    };
    const session = connect(t, server);
    const attempt = await next(session, 'attempt');
    assert.equal(attempt.outcome, 'refused');
    await session.joined;
    assert.equal(refusals, 2);
  });

  test('waits as long as it is asked to, whoever is in a hurry', async (t) => {
    const server = new FakeServer({ transports: ['websocket'] });
    let refusedAt = 0;
    server.intercept = (link, message) => {
      if (message.type !== 'join' || refusedAt > 0) return false;
      refusedAt = performance.now();
      link.deliver({ type: 'closed', code: 'goingAway', closeCode: 4000, message: 'busy', retryAfterMs: 200 });
      return true;
    };
    const environment = server.environment();
    const session = connect(t, server, { environment });
    const hurry = setInterval(() => environment.wakes.forEach((wake) => wake()), 10);
    t.after(() => clearInterval(hurry));
    await session.joined;
    assert.ok(performance.now() - refusedAt >= 195, 'timers may be a little early');
  });

  test('closes when there is no transport to try', async (t) => {
    const server = new FakeServer({ transports: ['websocket'] });
    const session = connect(t, server, { transports: ['webtransport'] });
    await assert.rejects(session.joined, { code: 'unsupported' });
  });

  test('refuses a room name that no server takes', () => {
    const environment = new FakeServer().environment();
    for (const room of ['', 'a b', 'a/b', '..', 'x'.repeat(129)]) {
      assert.throws(() => new Session({ url: 'https://fake.test', room }, environment), TypeError);
    }
  });
});

describe('the trace of an opening', options, () => {
  const parentOf = (span) => `00-0af7651916cd43dd8448eb211c80319c-${String(span).padStart(16, '0')}-01`;
  const malformed = ['', 'x', parentOf(0), parentOf(1).slice(1), `${parentOf(1)}-`, parentOf(1).toUpperCase(), `ff${parentOf(1).slice(2)}`,
    parentOf(1).replace('-0af7651916cd43dd8448eb211c80319c-', `-${'0'.repeat(32)}-`), 7, {}];

  test('is what the application says, and asked for anew at each', async (t) => {
    let asked = 0;
    for (const [traceparent, expected] of [
      [undefined, [null, null]],
      [parentOf(9), [parentOf(9), parentOf(9)]],
      [() => parentOf(asked += 1), [parentOf(1), parentOf(2)]],
      [() => undefined, [null, null]],
    ]) {
      const server = new FakeServer({ transports: ['websocket'] });
      const session = connect(t, server, { traceparent });
      await session.joined;
      linkOf(server, session).break();
      await next(session, 'resumed');
      assert.deepEqual(server.links.map((link) => link.traceparent), expected);
    }
  });

  test('is refused at once where it is none', () => {
    const environment = new FakeServer().environment();
    for (const traceparent of malformed) {
      const connecting = () => new Session({ url: 'https://fake.test', room: 'demo', traceparent }, environment);
      assert.throws(connecting, { name: 'TypeError', message: /00-TRACE-SPAN-FLAGS/ }, String(traceparent));
    }
  });

  test('is left out where the function gives none, which is told and costs no session', async (t) => {
    const fail = () => {
      throw new Error('no tracer');
    };
    for (const [traceparent, message] of [...malformed.map((value) => [() => value, /00-TRACE-SPAN-FLAGS/]), [fail, /no tracer/]]) {
      const server = new FakeServer({ transports: ['websocket'] });
      const session = connect(t, server, { traceparent });
      const error = next(session, 'protocolerror');
      await session.joined;
      assert.match((await error).message, message);
      assert.deepEqual(server.links.map((link) => link.traceparent), [null]);
    }
  });
});

describe('requests', options, () => {
  test('resolve at ok and reject at error', async (t) => {
    const server = new FakeServer();
    const session = connect(t, server);
    await session.joined;
    await session.send({ hello: 'all' });
    await assert.rejects(session.description('nobody', { type: 'offer', sdp: 'v=0' }), { code: 'peerGone' });
    assert.equal(server.seatOf(session.self.peer).received.length, 2);
  });

  test('made before joined go out after it', async (t) => {
    const server = new FakeServer();
    const session = connect(t, server);
    const sent = session.send('early');
    await session.joined;
    await sent;
    assert.deepEqual(server.seatOf(session.self.peer).received.map(({ data }) => data), ['early']);
  });

  test('too large for a frame fail at once', async (t) => {
    const server = new FakeServer({ limits: { frameBytes: 200 } });
    const session = connect(t, server);
    await session.joined;
    await assert.rejects(session.send('ä'.repeat(100)), { code: 'tooLarge' });
    await session.send('small');
  });

  test('without end fail when the queue is full', async (t) => {
    const session = connect(t, new FakeServer());
    const sends = Array.from({ length: 1024 }, (_, index) => session.send(index));
    await assert.rejects(session.send('one more'), { code: 'queueFull' });
    await Promise.all(sends);
  });

  test('made while away wait within the same limit, and are delivered once', async (t) => {
    const server = new FakeServer({ transports: ['websocket'] });
    const session = connect(t, server);
    await session.joined;
    const seat = server.seatOf(session.self.peer);
    let mayResume = false;
    server.intercept = (link, { type }) => {
      if (type !== 'resume' || mayResume) return false;
      link.break();
      return true;
    };
    seat.link.break();
    const sends = Array.from({ length: 1024 }, (_, index) => session.send(index));
    await assert.rejects(session.send('one more'), { code: 'queueFull' });
    mayResume = true;
    await Promise.all(sends);
    assert.deepEqual(seat.received.map(({ data }) => data), [...Array(1024).keys()]);
  });

  test('are rejected when the session closes', async () => {
    const session = new Session({ url: 'https://fake.test', room: 'demo' }, new FakeServer().environment());
    const sent = session.send('x');
    session.close();
    await assert.rejects(sent, { code: 'left' });
    await assert.rejects(session.send('y'), { code: 'left' });
    await assert.rejects(session.joined, { code: 'left' });
  });

  test('of a ping measure the round trip', async (t) => {
    const server = new FakeServer();
    const session = connect(t, server);
    await session.joined;
    const ms = await session.ping();
    assert.ok(ms >= 0);
    assert.equal(typeof session.roundTrip, 'number');
  });

  test('answered by an error that no call waits for are told', async (t) => {
    const server = new FakeServer();
    const session = connect(t, server);
    await session.joined;
    const told = next(session, 'protocolerror');
    server.seatOf(session.self.peer).push({ type: 'error', code: 'badRequest', message: 'odd' });
    assert.equal((await told).code, 'badRequest');
  });
});

describe('ephemeral messages', options, () => {
  test('go by datagram and resolve at once', async (t) => {
    const server = new FakeServer();
    const [alice, bob] = [connect(t, server), connect(t, server)];
    await Promise.all([alice.joined, bob.joined]);
    const heard = next(bob, 'message');
    await alice.send({ x: 1 }, { ephemeral: true });
    assert.deepEqual((await heard).data, { x: 1 });
    assert.equal(linkOf(server, alice).datagrams.length, 1);
    assert.equal(linkOf(server, alice).datagrams[0].id, undefined);
  });

  test('are dropped while away', async (t) => {
    const server = new FakeServer({ transports: ['websocket'] });
    const session = connect(t, server);
    await session.joined;
    const { peer } = session.self;
    linkOf(server, session).break();
    await session.send('lost', { ephemeral: true });
    await session.send('kept');
    assert.deepEqual(server.seatOf(peer).received.map(({ data }) => data), ['kept']);
  });
});

describe('resuming', options, () => {
  test('brings everything of both directions, once and in order', async (t) => {
    const server = new FakeServer({ transports: ['websocket'] });
    const [alice, bob] = [connect(t, server), connect(t, server)];
    await Promise.all([alice.joined, bob.joined]);
    const messages = record(bob, 'message');
    const { peer } = alice.self;

    for (let round = 0; round < 5; round += 1) {
      const sends = Array.from({ length: 20 }, (_, index) => alice.send(round * 20 + index));
      // The links break in mid-stream: some requests are handled and their answers lost, some never arrive.
      await new Promise(setImmediate);
      linkOf(server, alice)?.break();
      linkOf(server, bob)?.break();
      await Promise.all(sends);
    }
    await alice.send('end');
    if (messages.at(-1)?.data !== 'end') await next(bob, 'message', ({ data }) => data === 'end');

    const expected = [...Array(100).keys(), 'end'];
    assert.deepEqual(server.seatOf(peer).received.map(({ data }) => data), expected);
    assert.deepEqual(messages.map(({ data }) => data), expected);
    assert.equal(alice.self.peer, peer);
  });

  test('keeps the peers and tells of nothing twice', async (t) => {
    const server = new FakeServer({ transports: ['websocket'] });
    const [alice, bob] = [connect(t, server), connect(t, server)];
    await Promise.all([alice.joined, bob.joined]);
    if (alice.peers.size === 0) await next(alice, 'peerjoined');
    const events = record(alice, 'peerjoined', 'peerleft', 'peeraway', 'peerback', 'joined', 'resumed');
    const back = next(alice, 'peerback');
    linkOf(server, bob).break();
    await back;
    const resumed = next(alice, 'resumed');
    linkOf(server, alice).break();
    await resumed;
    assert.deepEqual(events.map(({ name }) => name), ['peeraway', 'peerback', 'resumed']);
    assert.equal(alice.peers.get(bob.self.peer).state, 'here');
  });

  test('past what was kept gives a new picture and the difference', async (t) => {
    const server = new FakeServer({ transports: ['websocket'] });
    const [alice, bob, carol] = [connect(t, server), connect(t, server), connect(t, server)];
    await Promise.all([alice.joined, bob.joined, carol.joined]);
    if (alice.peers.size < 2) await next(alice, 'peerjoined', () => alice.peers.size === 2);
    const { peer } = alice.self;
    const events = record(alice, 'joined', 'peerjoined', 'peerleft', 'peerupdated', 'roomupdated', 'message');

    const seat = server.seatOf(peer);
    let mayResume = false;
    server.intercept = (link, { type }) => {
      if (type !== 'resume' || mayResume) return false;
      link.break();
      return true;
    };
    seat.link.break();
    await bob.setMetadata({ name: 'Bob' });
    await bob.send('lost', { to: peer });
    await carol.leave();
    await bob.lock(true);
    seat.loseBuffer();
    await bob.send('kept', { to: peer });
    const joined = next(alice, 'joined');
    const kept = next(alice, 'message');
    mayResume = true;
    assert.equal((await joined).lost, 1);
    await kept;

    assert.equal(alice.self.peer, peer);
    assert.deepEqual(events.map(({ name, synthetic }) => [name, synthetic]), [
      ['joined', undefined], ['peerleft', true], ['peerupdated', true], ['roomupdated', true], ['message', undefined],
    ]);
    assert.deepEqual([...alice.peers.keys()], [bob.self.peer]);
    assert.deepEqual(alice.peers.get(bob.self.peer).metadata, { name: 'Bob' });
  });

  test('after the window joins anew: all pairs are new', async (t) => {
    const server = new FakeServer({ transports: ['websocket'] });
    const [alice, bob] = [connect(t, server), connect(t, server)];
    await Promise.all([alice.joined, bob.joined]);
    if (alice.peers.size === 0) await next(alice, 'peerjoined');
    const before = alice.self.peer;
    const events = record(alice, 'joined', 'peerjoined', 'peerleft');
    assert.equal(alice.peers.get(bob.self.peer).polite, alice.self.peer > bob.self.peer);

    const seat = server.seatOf(before);
    const { link } = seat;
    seat.link = null;
    server.remove(seat, 'timeout');
    link.break();
    const sent = alice.send('whose fate is unknown');
    await assert.rejects(sent, { code: 'resumeExpired' });
    assert.notEqual(alice.self.peer, before);
    assert.deepEqual(events.map(({ name }) => name), ['joined', 'peerleft', 'peerjoined']);
    assert.equal(alice.peers.get(bob.self.peer).polite, true);
    const [first, second] = server.links.filter(({ sent: lines }) => lines[0]?.type === 'join').slice(-2);
    assert.notEqual(first.sent[0].key, second.sent[0].key);
  });

  test('happens when a message is missing', async (t) => {
    const server = new FakeServer({ transports: ['websocket'] });
    const session = connect(t, server);
    await session.joined;
    const seat = server.seatOf(session.self.peer);
    const messages = record(session, 'message');
    const { link } = seat;
    seat.link = null; // The first message is lost on the way, which no transport may do.
    seat.push({ type: 'message', from: 'x', data: 1 });
    seat.link = link;
    const second = next(session, 'message', ({ data }) => data === 2);
    seat.push({ type: 'message', from: 'x', data: 2 });
    await second;
    assert.deepEqual(messages.map(({ data }) => data), [1, 2]);
  });

  test('happens at once when the server falls silent', async (t) => {
    const server = new FakeServer({ transports: ['websocket'] });
    server.heartbeatMs = 20;
    const session = connect(t, server, { environment: server.environment({ timing: { roundTripMs: 60_000 } }) });
    await session.joined;
    const resumed = next(session, 'resumed');
    linkOf(server, session).isDead = true;
    await resumed;
    assert.equal(session.state, 'open');
  });

  test('happens when a check after waking finds the link dead', async (t) => {
    const server = new FakeServer({ transports: ['websocket'] });
    const environment = server.environment({ timing: { probeMs: 20 } });
    const session = connect(t, server, { environment });
    await session.joined;
    await session.ping();
    const resumed = next(session, 'resumed');
    linkOf(server, session).isDead = true;
    for (const wake of environment.wakes) wake();
    await resumed;
  });

  test('is tried at once on reconnect() in the middle of a long wait', async (t) => {
    const server = new FakeServer({ transports: ['websocket'] });
    const environment = server.environment({ timing: { backoffBaseMs: 3_600_000, backoffCapMs: 3_600_000 } });
    const session = connect(t, server, { environment });
    await session.joined;
    const reconnecting = next(session, 'statechange', ({ state }) => state === 'reconnecting');
    const resumed = next(session, 'resumed');
    linkOf(server, session).break();
    await reconnecting;
    await new Promise(setImmediate); // The wait begins after the event.
    session.reconnect();
    await resumed;
  });

  test('is tried at once when woken while one side still waits for an answer', async (t) => {
    const server = new FakeServer({ transports: ['websocket'] });
    const environment = server.environment({ timing: { staleRaceMs: -1, backoffBaseMs: 3_600_000, backoffCapMs: 3_600_000 } });
    let isStuck = true;
    server.onOpen = () => (isStuck ? new Promise(() => {}) : Promise.resolve());
    const session = connect(t, server, { environment });
    while (server.links.length === 0) await new Promise(setImmediate);
    isStuck = false;
    for (const wake of environment.wakes) wake();
    await session.joined;
    assert.equal(server.links[0].isOver, true);
  });

  test('after one\'s own abandoned greeting has taken the seat back takes it again', async (t) => {
    const server = new FakeServer();
    const session = connect(t, server);
    server.intercept = (link, { type }) => {
      if (type !== 'join' || link.type !== 'webtransport') return false;
      link.break();
      return true;
    };
    await session.joined;
    assert.equal(session.transport, 'websocket');
    const resumed = next(session, 'resumed');
    linkOf(server, session).refuse('replaced', 4510);
    await resumed;
  });

  test('does not fight a session that holds the seat now', async (t) => {
    const server = new FakeServer({ transports: ['websocket'] });
    const session = connect(t, server);
    await session.joined;
    const closed = next(session, 'closed');
    linkOf(server, session).refuse('replaced', 4510);
    assert.equal((await closed).code, 'replaced');
  });

  test('renews a token that has run out, where the application can give one', async (t) => {
    const server = new FakeServer({ transports: ['websocket'] });
    let count = 0;
    const session = connect(t, server, { token: () => `token-${count += 1}` });
    await session.joined;
    const resumed = next(session, 'resumed');
    linkOf(server, session).refuse('tokenExpired', 4502);
    await resumed;
    assert.equal(server.links.at(-1).sent[0].token, 'token-2');
  });

  test('takes the way it knows when the discovery does not answer again', async (t) => {
    const server = new FakeServer();
    const environment = server.environment();
    const { fetch } = environment;
    environment.fetch = (...request) => environment.answer(...request);
    environment.answer = fetch;
    const session = connect(t, server, { environment });
    await session.joined;
    environment.answer = async () => {
      throw new DOMException('the deadline has passed', 'TimeoutError');
    };
    const resumed = next(session, 'resumed');
    linkOf(server, session).break();
    await resumed;
    assert.equal(session.state, 'open');
    assert.equal(server.discoveries, 1);
  });
});

describe('the node', options, () => {
  test('that has the session is named, another one after it has moved, none where there is no cluster', async (t) => {
    const server = new FakeServer({ transports: ['websocket'] });
    server.node = '00000000000000aa';
    const session = connect(t, server);
    await session.joined;
    assert.equal(session.node, '00000000000000aa');
    for (const node of ['00000000000000bb', undefined]) {
      server.node = node;
      const resumed = next(session, 'resumed');
      linkOf(server, session).break();
      await resumed;
      assert.equal(session.node, node ?? null);
    }
  });

  test('is told by each poll', async (t) => {
    const server = new FakeServer({ transports: ['long-poll'] });
    const session = connect(t, server);
    await session.joined;
    linkOf(server, session).deliver({ type: 'resumed', lastId: 0, replayFrom: 1, ticket: 'next', node: '00000000000000cc' });
    linkOf(server, session).deliver({ type: 'resumed', lastId: 0, replayFrom: 1, ticket: 'next', node: '00000000000000dd' });
    while (session.node !== '00000000000000dd') await new Promise(setImmediate);
  });
});

describe('acknowledgements', options, () => {
  test('come at least every 32 messages and for an idle tail', async (t) => {
    const server = new FakeServer({ transports: ['websocket'] });
    const session = connect(t, server);
    await session.joined;
    const seat = server.seatOf(session.self.peer);
    const { link } = seat;
    const allAcked = new Promise((resolve) => {
      server.intercept = (from, { type, seq }) => {
        if (from === link && type === 'ack' && seq === 100) resolve();
        return false;
      };
    });
    for (let index = 0; index < 100; index += 1) seat.push({ type: 'message', from: 'x', data: index });
    await allAcked;
    const acks = link.sent.filter(({ type }) => type === 'ack').map(({ seq }) => seq);
    const gaps = acks.map((seq, index) => seq - (acks[index - 1] ?? 0));
    assert.ok(gaps.every((gap) => gap > 0 && gap <= 32), `acknowledged at ${acks}`);
  });
});

describe('transports', options, () => {
  test('the next one wins when the first does not open', async (t) => {
    const server = new FakeServer();
    server.onOpen = async ({ type }) => {
      if (type === 'webtransport') await new Promise(() => {});
    };
    const headStartMs = { webtransport: 1, websocket: 1, 'event-stream': 1, 'long-poll': 1 };
    const session = connect(t, server, { environment: server.environment({ timing: { headStartMs } }) });
    await session.joined;
    assert.equal(session.transport, 'websocket');
  });

  test('the next one wins when the first opens and dies before joined', async (t) => {
    const server = new FakeServer();
    server.intercept = (link) => {
      if (link.type !== 'webtransport') return false;
      link.break();
      return true;
    };
    const session = connect(t, server);
    await session.joined;
    assert.equal(session.transport, 'websocket');
    assert.equal(server.seats.size, 1);
  });

  test('one that dies young goes last', async (t) => {
    const server = new FakeServer();
    const session = connect(t, server, { environment: server.environment({ timing: { youngMs: 60_000 } }) });
    await session.joined;
    assert.equal(session.transport, 'webtransport');
    const change = next(session, 'transportchange');
    linkOf(server, session).break();
    assert.deepEqual(await change, { from: 'webtransport', to: 'websocket' });
  });

  test('a better one is found in the background and the live session moves', async (t) => {
    const server = new FakeServer();
    let isBlocked = true;
    server.onOpen = async ({ type }) => {
      if (type === 'webtransport' && isBlocked) throw new Error('UDP is blocked');
    };
    const session = connect(t, server, { environment: server.environment({ timing: { betterMs: 5 } }) });
    const states = record(session, 'statechange', 'closed');
    await session.joined;
    assert.equal(session.transport, 'websocket');
    const { peer } = session.self;
    const change = next(session, 'transportchange');
    isBlocked = false;
    const sends = Array.from({ length: 50 }, (_, index) => session.send(index));
    assert.deepEqual(await change, { from: 'websocket', to: 'webtransport' });
    await Promise.all(sends);
    assert.equal(session.self.peer, peer);
    assert.deepEqual(states.map(({ state }) => state), ['open']);
    assert.deepEqual(server.seatOf(peer).received.map(({ data }) => data), [...Array(50).keys()]);
  });

  test('a better one that opens and says nothing is soon left again, and not tried again soon', async (t) => {
    const server = new FakeServer({ transports: ['event-stream', 'long-poll'] });
    server.onOpen = async ({ type }) => {
      if (type === 'event-stream') throw new Error('blocked');
    };
    const timing = { betterMs: 5, patienceMs: 20, answerMs: 60_000, demotedMs: 60_000 };
    const session = connect(t, server, { environment: server.environment({ timing }) });
    await session.joined;
    assert.equal(session.transport, 'long-poll');
    server.onOpen = async (link) => {
      link.isDead = link.type === 'event-stream';
    };
    const resumed = next(session, 'resumed');
    await resumed;
    assert.equal(session.transport, 'long-poll');
    const { length } = server.links;
    await session.send('x');
    await new Promise((resolve) => setTimeout(resolve, 50));
    assert.equal(server.links.length, length, 'it is not tried again');
  });

  for (const { way, discoveryMs, expected } of [
    { way: 'quick', discoveryMs: 0, expected: 'long-poll' }, { way: 'slow', discoveryMs: 300, expected: 'event-stream' },
  ]) {
    test(`an event stream that answers after 400 ms is given up where the way is quick, and not where it is slow: ${way}`, async (t) => {
      const server = new FakeServer({ transports: ['event-stream', 'long-poll'] });
      const environment = server.environment({ timing: { streamPatienceMs: 100 } });
      const { fetch } = environment;
      environment.fetch = async (...request) => {
        await new Promise((resolve) => setTimeout(resolve, discoveryMs));
        return fetch(...request);
      };
      server.onOpen = async (link) => {
        if (link.type === 'event-stream') link.delayMs = 400;
      };
      const session = connect(t, server, { environment });
      await session.joined;
      assert.equal(session.transport, expected);
    });
  }

  test('the winner of before goes first on the same network, and on no other', async (t) => {
    const server = new FakeServer();
    const memory = new TransportMemory(null, 60_000);
    const firstTried = async (network) => {
      const { length } = server.links;
      const environment = { ...server.environment({ memory }), network: () => network };
      await connect(t, server, { environment }).joined;
      return server.links[length].type;
    };
    server.onOpen = async ({ type }) => {
      if (type === 'webtransport') throw new Error('UDP is blocked');
    };
    assert.equal(await firstTried('wifi'), 'webtransport');
    assert.equal(await firstTried('wifi'), 'websocket');
    assert.equal(await firstTried('cellular'), 'webtransport');
  });

  test('a server that goes away is left in time', async (t) => {
    const server = new FakeServer({ transports: ['websocket'] });
    const session = connect(t, server);
    await session.joined;
    const first = linkOf(server, session);
    const states = record(session, 'statechange');
    const resumed = next(session, 'resumed');
    first.deliver({ type: 'goAway', afterMs: 20 });
    await resumed;
    assert.notEqual(linkOf(server, session), first);
    assert.deepEqual(states, []);
  });
});

describe('a link in doubt', options, () => {
  const timing = { doubtMs: 20, udpProbeMs: 60_000 };

  test('is left for another before the watchdog knows, with everything in order and one event', async (t) => {
    const server = new FakeServer();
    const [alice, bob] = [connect(t, server, { environment: server.environment({ timing }) }), connect(t, server)];
    await Promise.all([alice.joined, bob.joined]);
    await alice.ping();
    const events = record(alice, 'transportchange', 'statechange', 'peeraway');
    const messages = record(bob, 'message');
    const { peer } = alice.self;
    server.onOpen = async ({ type }) => {
      if (type === 'webtransport') throw new Error('UDP is blocked');
    };
    const sends = Array.from({ length: 20 }, (_, index) => alice.send(index));
    await new Promise(setImmediate);
    linkOf(server, alice).isDead = true;
    sends.push(...Array.from({ length: 20 }, (_, index) => alice.send(20 + index)));
    await Promise.all(sends);
    await alice.send('end');
    if (messages.at(-1)?.data !== 'end') await next(bob, 'message', ({ data }) => data === 'end');
    assert.deepEqual(events.map(({ name, from, to }) => [name, from, to]), [['transportchange', 'webtransport', 'websocket']]);
    assert.deepEqual(messages.map(({ data }) => data), [...Array(40).keys(), 'end']);
    assert.equal(alice.self.peer, peer);
    assert.equal(server.links[0].isOver, true, 'the former is closed');
  });

  test('is noticed by a ping where nothing is sent and UDP may be blocked', async (t) => {
    const server = new FakeServer();
    const session = connect(t, server, { environment: server.environment({ timing: { ...timing, udpProbeMs: 20 } }) });
    await session.joined;
    await session.ping();
    server.onOpen = async ({ type }) => {
      if (type === 'webtransport') throw new Error('UDP is blocked');
    };
    const change = next(session, 'transportchange');
    linkOf(server, session).isDead = true;
    assert.deepEqual(await change, { from: 'webtransport', to: 'websocket' });
  });

  test('that had opened a moment ago is not tried again soon', async (t) => {
    const server = new FakeServer();
    const environment = server.environment({ timing: { ...timing, youngMs: 60_000, betterMs: 5 } });
    const session = connect(t, server, { environment });
    await session.joined;
    await session.ping();
    server.onOpen = async ({ type }) => {
      if (type === 'webtransport') throw new Error('UDP is blocked');
    };
    const change = next(session, 'transportchange');
    linkOf(server, session).isDead = true;
    const sent = session.send('x');
    await change;
    await sent;
    server.onOpen = async () => {};
    const { length } = server.links;
    await new Promise((resolve) => setTimeout(resolve, 50));
    assert.equal(server.links.length, length, 'nothing better is looked for');
  });

  test('is kept when it speaks before another has opened', async (t) => {
    const server = new FakeServer();
    const session = connect(t, server, { environment: server.environment({ timing }) });
    await session.joined;
    await session.ping();
    const link = linkOf(server, session);
    const resumed = record(session, 'resumed', 'transportchange', 'statechange');
    server.onOpen = () => new Promise(() => {}); // The others need longer.
    link.delayMs = 100;
    const unused = next(session, 'attempt');
    await session.send('slow');
    assert.equal((await unused).outcome, 'unused');
    assert.equal(linkOf(server, session), link);
    assert.deepEqual(resumed, []);
  });

  test('is none that is hardly slower than the last round trip', async (t) => {
    const server = new FakeServer();
    const session = connect(t, server, { environment: server.environment({ timing: { ...timing, doubtMs: 60 } }) });
    await session.joined;
    const link = linkOf(server, session);
    link.delayMs = 40;
    await session.ping();
    link.delayMs = 100;
    for (let count = 0; count < 3; count += 1) await session.send(count);
    assert.deepEqual(server.links, [link], 'no other was tried');
  });

  test('that dies for good leaves the race for another to its end', async (t) => {
    const server = new FakeServer();
    const session = connect(t, server, { environment: server.environment({ timing }) });
    await session.joined;
    await session.ping();
    const { length } = server.links;
    let open;
    server.onOpen = () => new Promise((resolve) => { open = resolve; });
    const link = linkOf(server, session);
    link.isDead = true;
    const sent = session.send('x');
    while (server.links.length === length) await new Promise((resolve) => setTimeout(resolve, 1));
    const states = record(session, 'statechange');
    link.break();
    assert.equal(session.state, 'reconnecting');
    open();
    await sent;
    assert.deepEqual(states.map(({ state }) => state), ['reconnecting', 'open']);
    assert.equal(server.links.length, length + 1, 'it was not begun anew');
    assert.equal(server.discoveries, 1);
  });
});

describe('leaving', options, () => {
  test('frees the seat and closes', async (t) => {
    const server = new FakeServer();
    const [alice, bob] = [connect(t, server), connect(t, server)];
    await Promise.all([alice.joined, bob.joined]);
    if (bob.peers.size === 0) await next(bob, 'peerjoined');
    const left = next(bob, 'peerleft');
    await alice.leave('done');
    assert.equal(alice.state, 'closed');
    assert.equal((await left).reason, 'left');
    assert.equal(bob.peers.size, 0);
  });

  test('whose answer goes down with the link takes no new seat, and holds nothing against the transport', async (t) => {
    const server = new FakeServer({ transports: ['websocket', 'long-poll'] });
    const environment = server.environment({ timing: { youngMs: 60_000, leaveMs: 60_000 } });
    const alice = connect(t, server, { environment });
    await alice.joined;
    server.intercept = (link, { type }) => {
      if (type !== 'leave') return false;
      server.seats.delete(link.seat.peer);
      link.break();
      return true;
    };
    const closed = next(alice, 'closed');
    await alice.leave();
    assert.equal((await closed).code, 'left');
    const said = (messages) => messages.map(({ type }) => type).filter((type) => type !== 'ping');
    assert.deepEqual(server.links.map(({ type, sent }) => [type, ...said(sent)]), [
      ['websocket', 'join', 'leave'], ['websocket', 'resume'],
    ]);
    assert.equal(server.seats.size, 0);
  });

  test('that the link did not carry any more goes by the next', async (t) => {
    const server = new FakeServer({ transports: ['websocket'] });
    const [alice, bob] = [connect(t, server), connect(t, server)];
    await Promise.all([alice.joined, bob.joined]);
    if (bob.peers.size === 0) await next(bob, 'peerjoined');
    const left = next(bob, 'peerleft');
    const link = linkOf(server, alice);
    server.intercept = (from, { type }) => {
      if (from !== link || type !== 'leave') return false;
      link.break();
      return true;
    };
    await alice.leave();
    assert.equal((await left).reason, 'left');
    assert.equal(server.links.filter(({ sent }) => sent[0].type === 'join').length, 2);
  });

  test('without waiting sends the leave on its way', async (t) => {
    const server = new FakeServer();
    const [alice, bob] = [connect(t, server), connect(t, server)];
    await Promise.all([alice.joined, bob.joined]);
    if (bob.peers.size === 0) await next(bob, 'peerjoined');
    const left = next(bob, 'peerleft');
    alice.close();
    assert.equal(alice.state, 'closed');
    assert.equal((await left).reason, 'left');
  });

  test('while reconnecting frees the seat, too', async (t) => {
    const server = new FakeServer({ transports: ['websocket'] });
    const [alice, bob] = [connect(t, server), connect(t, server)];
    await Promise.all([alice.joined, bob.joined]);
    if (bob.peers.size === 0) await next(bob, 'peerjoined');
    const left = next(bob, 'peerleft');
    linkOf(server, alice).break();
    assert.equal(alice.state, 'reconnecting');
    await alice.leave();
    assert.equal((await left).reason, 'left');
  });

  test('with the page goes by a request that outlives it', async (t) => {
    const server = new FakeServer({ transports: ['webtransport', 'event-stream'] });
    const environment = server.environment();
    const { fetch } = environment;
    const posts = [];
    environment.fetch = (url, request) => {
      if (request?.method === 'POST') posts.push({ url, ...request });
      return fetch(url, request);
    };
    const session = connect(t, server, { environment });
    await session.joined;
    session.close();
    session.close();
    assert.equal(posts.length, 1);
    const [{ url, keepalive, headers, body }] = posts;
    assert.equal(url, 'https://fake.test/v1/rooms/demo/messages');
    assert.equal(keepalive, true);
    assert.equal(headers['wigwag-ticket'], server.seatOf(session.self.peer).tickets.at(-1));
    assert.deepEqual(JSON.parse(body), server.links[0].sent.at(-1));
  });

  test('by force is told and final', async (t) => {
    const server = new FakeServer();
    const session = connect(t, server);
    await session.joined;
    const closed = next(session, 'closed');
    server.remove(server.seatOf(session.self.peer), 'kicked');
    assert.equal((await closed).code, 'kicked');
  });
});

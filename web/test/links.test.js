import assert from 'node:assert/strict';
import { describe, test } from 'node:test';

import { EventStreamLink } from '../wigwag/links/eventstream.js';
import { LongPollLink } from '../wigwag/links/longpoll.js';
import { WebSocketLink } from '../wigwag/links/websocket.js';
import { WebTransportLink } from '../wigwag/links/webtransport.js';

const options = { timeout: 10_000 };
const url = 'https://fake.test/v1/rooms/demo';
/** The context of a link that belongs to no trace. */
const untraced = { traceparent: () => null };
const encode = (text) => new TextEncoder().encode(text);

/** Puts a fake under a global name for one test. */
function install(t, name, value) {
  const before = Object.getOwnPropertyDescriptor(globalThis, name);
  Object.defineProperty(globalThis, name, { value, configurable: true, writable: true });
  t.after(() => {
    if (before) Object.defineProperty(globalThis, name, before);
    else delete globalThis[name];
  });
}

/** Records what a link tells; `closed` resolves with how it ended. */
function listen(link) {
  const messages = [];
  let heard = 0;
  const closed = new Promise((resolve) => {
    link.handlers = { message: (text) => messages.push(text), heard: () => { heard += 1; }, closed: resolve };
  });
  return { messages, closed, get heard() { return heard; } };
}

async function until(condition) {
  while (!condition()) await new Promise(setImmediate);
}

describe('WebTransport', options, () => {
  class FakeWebTransport {
    constructor(address, settings) {
      FakeWebTransport.last = this;
      this.address = address;
      this.settings = settings;
      this.up = new TransformStream();
      this.down = new TransformStream();
      const datagramsUp = new TransformStream({}, {}, { highWaterMark: 8 });
      const datagramsDown = new TransformStream();
      this.datagramsUp = datagramsUp.readable.getReader();
      this.datagramsDown = datagramsDown.writable.getWriter();
      this.datagrams = { maxDatagramSize: 100, writable: datagramsUp.writable, readable: datagramsDown.readable };
      this.lines = this.up.readable.getReader();
      this.writer = this.down.writable.getWriter();
      this.ready = Promise.resolve();
      this.closed = new Promise((resolve, reject) => Object.assign(this, { resolveClosed: resolve, rejectClosed: reject }));
    }

    async createBidirectionalStream() {
      return { writable: this.up.writable, readable: this.down.readable };
    }

    close(info) {
      this.closedWith = info;
      this.resolveClosed({ closeCode: 0, reason: '' });
    }
  }

  async function open(t, certificateHashes = []) {
    install(t, 'WebTransport', FakeWebTransport);
    const link = new WebTransportLink({ url, certificateHashes });
    const told = listen(link);
    await link.open();
    t.after(() => link.close());
    return { link, told, server: FakeWebTransport.last };
  }

  test('is opened with hashes where there are some, and the protocol', async (t) => {
    const hashes = [{ algorithm: 'sha-256', value: Uint8Array.of(1) }];
    assert.deepEqual((await open(t, hashes)).server.settings, { serverCertificateHashes: hashes, protocols: ['wigwag.v1'] });
    assert.deepEqual((await open(t)).server.settings, { protocols: ['wigwag.v1'] });
  });

  test('carries lines both ways, whatever the chunks', async (t) => {
    const { link, told, server } = await open(t);
    link.send('{"a":1}');
    assert.equal(new TextDecoder().decode((await server.lines.read()).value), '{"a":1}\n');
    await server.writer.write(encode('{"b"'));
    await server.writer.write(encode(':2}\n{"c":3}\n'));
    await until(() => told.messages.length === 2);
    assert.deepEqual(told.messages, ['{"b":2}', '{"c":3}']);
    assert.equal(told.heard, 2);
  });

  test('carries by datagram what fits, the rest by the stream', async (t) => {
    const { link, told, server } = await open(t);
    link.sendDatagram('small');
    assert.equal(new TextDecoder().decode((await server.datagramsUp.read()).value), 'small');
    link.sendDatagram('x'.repeat(101));
    assert.equal((await server.lines.read()).value.length, 102);
    await server.datagramsDown.write(encode('{"type":"message"}'));
    await until(() => told.messages.length === 1);
  });

  test('tells the server\'s close code, or that it was lost', async (t) => {
    const first = await open(t);
    first.server.resolveClosed({ closeCode: 4001, reason: 'slow' });
    assert.deepEqual(await first.told.closed, { closeCode: 4001, message: 'slow' });
    const second = await open(t);
    second.server.rejectClosed(new Error('gone'));
    assert.equal((await second.told.closed).error.message, 'gone');
  });

  test('whose stream ends without a close is lost after a moment', async (t) => {
    t.mock.timers.enable({ apis: ['setTimeout'] });
    const { told, server } = await open(t);
    await server.writer.close();
    for (let count = 0; count < 10; count += 1) await new Promise(setImmediate);
    t.mock.timers.tick(1_000);
    assert.match((await told.closed).error.message, /ended the stream/);
    assert.equal(server.closedWith.closeCode, 0);
  });
});

describe('WebSocket', options, () => {
  class FakeWebSocket {
    constructor(address, protocol) {
      FakeWebSocket.last = this;
      Object.assign(this, { address, protocol, readyState: 0, sent: [] });
    }

    accept() {
      this.readyState = 1;
      this.onopen({});
    }

    send(text) {
      this.sent.push(text);
    }

    close(code, reason) {
      this.closedWith = [code, reason];
    }
  }

  function start(t, address = 'ws://localhost/v1/rooms/demo') {
    install(t, 'WebSocket', FakeWebSocket);
    const fetched = [];
    const link = new WebSocketLink(address, { fetch: async (...request) => fetched.push(request) });
    const told = listen(link);
    return { link, told, fetched, opened: link.open() };
  }

  test('is opened with its subprotocol and carries frames', async (t) => {
    const { link, told, fetched, opened } = start(t);
    await until(() => FakeWebSocket.last?.address === 'ws://localhost/v1/rooms/demo');
    const socket = FakeWebSocket.last;
    socket.accept();
    await opened;
    assert.equal(socket.protocol, 'wigwag.v1');
    link.send('up');
    socket.onmessage({ data: 'down' });
    assert.deepEqual([socket.sent, told.messages, fetched], [['up'], ['down'], []]);
    link.close('done');
    assert.deepEqual(socket.closedWith, [1000, 'done']);
  });

  test('to another origin is preceded by a credentialed request, whatever its answer', async (t) => {
    const { opened, fetched } = start(t, 'wss://other.test/v1/rooms/demo');
    await until(() => FakeWebSocket.last?.address === 'wss://other.test/v1/rooms/demo');
    FakeWebSocket.last.accept();
    await opened;
    assert.equal(fetched[0][0], 'https://other.test/v1/discovery');
    assert.equal(fetched[0][1].credentials, 'include');
  });

  test('tells the server\'s close code, and only that', async (t) => {
    for (const [code, expected] of [[4011, 4011], [1006, undefined]]) {
      const { told, opened } = start(t, `ws://localhost/${code}`);
      await until(() => FakeWebSocket.last?.address === `ws://localhost/${code}`);
      FakeWebSocket.last.onclose({ code, reason: 'why' });
      await assert.rejects(opened, /closed with/);
      assert.equal((await told.closed).closeCode, expected);
    }
  });
});

/** A server of POSTs: answers each with what the test says, and keeps what came. */
function postServer(answer) {
  const posts = [];
  const fetch = async (address, { headers, body, signal }) => {
    const post = { path: new URL(address).pathname, headers, lines: body.trim().split('\n').map((line) => JSON.parse(line)) };
    posts.push(post);
    return new Promise((resolve, reject) => {
      signal?.addEventListener('abort', () => reject(signal.reason));
      Promise.resolve(answer(post)).then(resolve, reject);
    });
  };
  return { posts, fetch };
}

const problem = (status, body) => new Response(JSON.stringify(body), { status, headers: { 'content-type': 'application/problem+json' } });

describe('event stream', options, () => {
  function start(answerMessages = () => new Response(null, { status: 202 }), ticket = () => 'the ticket') {
    const { readable, writable } = new TransformStream();
    const server = postServer((post) => (post.path.endsWith('/messages') ? answerMessages(post) : new Response(readable)));
    const link = new EventStreamLink(url, { ...untraced, ticket, greeting: () => '' }, server);
    return { link, told: listen(link), writer: writable.getWriter(), posts: server.posts };
  }

  test('is opened by its greeting and carries events', async () => {
    const { link, told, writer, posts } = start();
    await link.open();
    assert.equal(posts.length, 0);
    link.send('{"type":"join"}');
    await writer.write(encode('id: 1\ndata: {"type":"joined"}\n'));
    await writer.write(encode('\n'));
    await until(() => told.messages.length === 1);
    assert.deepEqual(told.messages, ['{"type":"joined"}']);
    assert.equal(posts[0].headers.accept, 'text/event-stream');
    await writer.close();
    assert.match((await told.closed).error.message, /ended/);
  });

  test('sends lines up in order, one request at a time, those that wait together', async () => {
    const waiting = [];
    const { link, posts } = start(() => new Promise((resolve) => waiting.push(resolve)));
    link.send('{"type":"join"}');
    for (const id of [1, 2, 3]) link.send(JSON.stringify({ id }));
    await until(() => waiting.length === 1);
    assert.deepEqual(posts.slice(1).map(({ lines }) => lines), [[{ id: 1 }]]);
    assert.equal(posts[1].headers['wigwag-ticket'], 'the ticket');
    waiting[0](new Response(null, { status: 202 }));
    await until(() => waiting.length === 2);
    assert.deepEqual(posts[2].lines, [{ id: 2 }, { id: 3 }]);
    link.close();
  });

  test('sends lines again that a busy server has refused for now', async (t) => {
    t.mock.timers.enable({ apis: ['setTimeout'] });
    let refusals = 1;
    const { link, posts } = start(() => {
      refusals -= 1;
      return new Response(null, refusals >= 0 ? { status: 429, headers: { 'retry-after': '2' } } : { status: 202 });
    });
    link.send('{"type":"join"}');
    link.send('{"id":1}');
    await until(() => posts.length === 2);
    for (let count = 0; count < 10; count += 1) await new Promise(setImmediate);
    t.mock.timers.tick(1_999);
    for (let count = 0; count < 10; count += 1) await new Promise(setImmediate);
    assert.equal(posts.length, 2);
    t.mock.timers.tick(1);
    await until(() => posts.length === 3);
    assert.deepEqual(posts[2].lines, [{ id: 1 }]);
    link.close();
  });

  test('sends lines again whose ticket was used up while they were on their way', async () => {
    let ticket = 'first';
    const { link, posts } = start(({ headers }) => {
      if (headers['wigwag-ticket'] !== 'first') return new Response(null, { status: 202 });
      ticket = 'third';
      return new Response(null, { status: 401 });
    }, () => ticket);
    link.send('{"type":"join"}');
    link.send('{"id":1}');
    link.send('{"id":2}');
    await until(() => posts.length === 3);
    assert.deepEqual(posts[2].lines, [{ id: 1 }, { id: 2 }]);
    assert.equal(link.isOver, false);
    link.close();
  });

  test('is lost when lines are refused', async () => {
    const { link, told } = start(() => new Response(null, { status: 401 }));
    link.send('{"type":"join"}');
    link.send('{"id":1}');
    const closing = await told.closed;
    assert.equal(closing.closeCode, undefined);
    assert.match(closing.error.message, /401/);
  });

  test('tells the protocol\'s refusals, and a proxy\'s as a loss', async () => {
    const cases = [
      [problem(503, { code: 'roomFull', closeCode: 4011, detail: 'full', retryAfterMs: 700 }), { code: 'roomFull', closeCode: 4011, retryAfterMs: 700 }],
      [problem(410, { code: 'resumeExpired' }), { code: 'resumeExpired', closeCode: 4020, retryAfterMs: undefined }],
      [new Response('<h1>Bad Gateway</h1>', { status: 502, headers: { 'retry-after': '3' } }), { code: undefined, closeCode: undefined, retryAfterMs: 3000 }],
    ];
    for (const [response, expected] of cases) {
      const link = new EventStreamLink(url, { ...untraced, ticket: () => null, greeting: () => '' }, postServer(() => response));
      const told = listen(link);
      link.send('{"type":"join"}');
      const { code, closeCode, retryAfterMs } = await told.closed;
      assert.deepEqual({ code, closeCode, retryAfterMs }, expected);
    }
  });
});

describe('long poll', options, () => {
  test('polls on with the newest greeting, and the first resume wants its answer at once', async () => {
    let count = 0;
    const answers = ['{"type":"resumed"}\n', '{"type":"resumed"}\n{"type":"message"}'];
    const server = postServer(() => (answers[count] ? new Response(answers[count += 1, count - 1]) : new Promise(() => {})));
    const link = new LongPollLink(url, { ...untraced, ticket: () => 't', greeting: () => JSON.stringify({ type: 'resume', seq: count }) }, server);
    const told = listen(link);
    link.send('{"type":"resume","seq":0}');
    await until(() => server.posts.length === 3);
    assert.deepEqual(told.messages, ['{"type":"resumed"}', '{"type":"resumed"}', '{"type":"message"}']);
    assert.deepEqual(server.posts.map(({ lines }) => lines[0].seq), [0, 1, 2]);
    assert.deepEqual(server.posts.map(({ headers }) => headers.prefer), ['wait=0', 'wait=25', 'wait=25']);
    assert.equal(told.heard, 2);
    link.close();
  });

  test('neither polls nor posts any more once another link takes the seat over', async () => {
    const answers = [];
    const server = postServer(() => new Promise((resolve) => {
      answers.push(resolve);
    }));
    const link = new LongPollLink(url, { ...untraced, ticket: () => 't', greeting: () => '{"type":"resume"}' }, server);
    const told = listen(link);
    link.send('{"type":"join"}');
    link.send('{"type":"message","id":1}');
    await until(() => answers.length === 2);
    link.send('{"type":"message","id":2}');
    link.retire();
    for (const answer of answers.splice(0)) answer(new Response('{"type":"joined"}\n', { status: 200 }));
    for (let count = 0; count < 50; count += 1) await new Promise(setImmediate);
    assert.equal(server.posts.length, 2);
    assert.deepEqual(told.messages, []);
    link.close();
  });

  test('does not spin on empty answers', async (t) => {
    t.mock.timers.enable({ apis: ['setTimeout', 'Date'] });
    const server = postServer(() => new Response(''));
    const link = new LongPollLink(url, { ...untraced, ticket: () => 't', greeting: () => '{"type":"resume"}' }, server);
    link.send('{"type":"join"}');
    for (let count = 0; count < 50; count += 1) await new Promise(setImmediate);
    assert.equal(server.posts.length, 1);
    t.mock.timers.tick(500);
    await until(() => server.posts.length === 2);
    link.close();
  });
});

describe('requests', options, () => {
  for (const [kind, LinkOfKind] of [['event stream', EventStreamLink], ['long poll', LongPollLink]]) {
    test(`name the trace as the ${kind} opens, and then no more`, async () => {
      const server = postServer(({ path }) => {
        if (path.endsWith('/messages')) return new Response(null, { status: 202 });
        return server.posts.length === 1 ? new Response('{"type":"joined"}\n') : new Promise(() => {});
      });
      const context = { ticket: () => 't', greeting: () => '{"type":"resume"}', traceparent: () => 'the trace' };
      const link = new LinkOfKind(url, context, server);
      link.send('{"type":"join"}');
      link.send('{"id":1}');
      await until(() => server.posts.length === (kind === 'long poll' ? 3 : 2));
      const [first, ...more] = server.posts.map(({ headers }) => headers.traceparent);
      assert.equal(first, 'the trace');
      assert.ok(more.every((traceparent) => traceparent === undefined));
      link.close();
    });
  }
});

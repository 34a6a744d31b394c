// A server of wigwag.v1 in memory, with as much of the protocol as a client can tell: seats, tickets, replay,
// acknowledgements, ids handled once, revisions, takeover. Tests reach into it to break links and to lose messages.

import { Link } from '../wigwag/links/link.js';
import { TransportMemory } from '../wigwag/memory.js';

const heartbeatMs = 10_000;

/** One peer's place, as the server keeps it. */
class FakeSeat {
  constructor(peer, metadata) {
    this.peer = peer;
    this.metadata = metadata;
    this.state = 'here';
    this.tickets = [];
    this.lastId = 0;
    this.nextSeq = 1;
    this.acked = 0;
    this.revision = 0;
    /** Written or waiting, not acknowledged. */
    this.buffer = [];
    /** Messages pushed out of the buffer since the last whole picture. */
    this.lost = 0;
    this.link = null;
    this.received = [];
  }

  /** Enters a message into the session, and sends it where there is a link. */
  push(message) {
    const numbered = { ...message, seq: this.nextSeq };
    this.nextSeq += 1;
    this.buffer.push(numbered);
    this.link?.deliver(numbered);
  }

  pushPresence(message) {
    this.revision += 1;
    this.push({ ...message, revision: this.revision });
  }

  /** Drops what is not acknowledged, as a full buffer would. */
  loseBuffer() {
    this.lost += this.buffer.filter(({ type }) => ['message', 'description', 'candidate'].includes(type)).length;
    this.buffer = [];
  }

  newTicket() {
    this.tickets.push(`${this.peer}-ticket-${this.tickets.length + 1}`);
    return this.tickets.at(-1);
  }
}

export class FakeServer {
  constructor({ transports = ['webtransport', 'websocket'], limits = {}, milestones = true } = {}) {
    /** Whether it takes them; an earlier version says nothing of it. */
    this.milestones = milestones || undefined;
    /** Which node of a cluster it is. */
    this.node = undefined;
    this.transports = transports;
    this.limits = limits;
    this.heartbeatMs = heartbeatMs;
    this.seats = new Map();
    this.keys = new Map();
    this.locked = false;
    /** Says of a `join` whether a moderator must admit it; every member is one. */
    this.holds = () => false;
    /** Who waits, by key. */
    this.waiting = new Map();
    this.count = 0;
    /** All links that were made, in order. */
    this.links = [];
    this.discoveries = 0;
    /** Called with (link, message) before a message is handled; true means that it was dealt with. */
    this.intercept = () => false;
    /** Called with (link) when it opens; may reject. */
    this.onOpen = async () => {};
  }

  /** What a session takes instead of the browser. */
  environment({ timing = {}, memory } = {}) {
    const wakes = new Set();
    return {
      fetch: async (url) => {
        this.discoveries += 1;
        if (!String(url).endsWith('/v1/discovery')) return new Response(null, { status: 404 });
        const transports = this.transports.map((type) => ({ type, url: 'https://fake.test/v1/rooms/{room}' }));
        return Response.json({ protocol: 'wigwag.v1', transports });
      },
      secure: true,
      storage: null,
      supports: () => true,
      createLink: (offer, { traceparent }) => {
        const link = new FakeLink(this, offer.type, traceparent());
        this.links.push(link);
        return link;
      },
      network: () => '',
      hidden: () => false,
      onWake: (wake) => {
        wakes.add(wake);
        return () => wakes.delete(wake);
      },
      wakes,
      memory: memory ?? new TransportMemory(null, 60_000),
      timing: {
        // Long, so that on a slow machine, too, the next starts only when the one before has failed.
        headStartMs: { webtransport: 60_000, websocket: 60_000, 'event-stream': 60_000, 'long-poll': 60_000 },
        backoffBaseMs: 1,
        backoffCapMs: 4,
        provenMs: 0,
        youngMs: 0,
        ackMs: 5,
        ...timing,
      },
    };
  }

  seatOf(peer) {
    return this.seats.get(peer);
  }

  handle(link, message) {
    if (this.intercept(link, message)) return;
    if (message.type === 'join') return this.join(link, message);
    if (message.type === 'resume') return this.resume(link, message);
    const { seat } = link;
    if (!seat || seat.link !== link) return;
    if (message.type === 'ack') return this.ack(seat, message);
    if (message.type === 'ping') return link.deliver({ type: 'pong', id: message.id });
    if (message.id !== undefined) {
      if (message.id <= seat.lastId) return seat.push({ type: 'ok', id: message.id });
      seat.lastId = message.id;
    }
    seat.received.push(message);
    this.execute(seat, message);
  }

  ack(seat, { seq }) {
    if (seq >= seat.nextSeq) throw new Error(`ack of ${seq}, which was never sent`);
    seat.acked = seq;
    seat.buffer = seat.buffer.filter((message) => message.seq > seq);
  }

  execute(seat, message) {
    const { type, id, to } = message;
    const answer = (body) => id !== undefined && seat.push({ ...body, id });
    if (to !== undefined && !this.seats.has(to)) {
      return answer({ type: 'error', code: 'peerGone', message: 'no such peer' });
    }
    const others = to === undefined ? [...this.seats.values()].filter((other) => other !== seat) : [this.seats.get(to)];
    switch (type) {
      case 'message':
      case 'description':
      case 'candidate': {
        const { id: _id, to: _to, ...body } = message;
        for (const other of others) {
          if (message.ephemeral) other.link?.deliver({ ...body, from: seat.peer });
          else other.push({ ...body, from: seat.peer });
        }
        return answer({ type: 'ok' });
      }
      case 'metadata':
        seat.metadata = message.metadata;
        for (const other of others) other.pushPresence({ type: 'peerUpdated', ...this.memberFor(other, seat) });
        return answer({ type: 'ok' });
      case 'lock':
        this.locked = message.locked;
        for (const other of this.seats.values()) other.pushPresence({ type: 'roomUpdated', locked: this.locked });
        return answer({ type: 'ok' });
      case 'admit':
      case 'refuse':
        return this.open(message.peer, type === 'admit') ? answer({ type: 'ok' })
          : answer({ type: 'error', code: 'peerGone', message: 'no such peer waits' });
      case 'invite':
        return answer({ type: 'ok', token: `invitation for ${message.uses}`, expireMs: message.expiresInMs });
      case 'leave':
        answer({ type: 'ok' });
        return this.remove(seat, 'left');
      case 'milestone':
        if (!this.milestones) return answer({ type: 'error', code: 'badRequest', message: 'unknown type' });
        return answer({ type: 'ok' });
      case 'token':
      case 'iceServers':
        return answer({ type: 'ok' });
      default:
        return answer({ type: 'error', code: 'badRequest', message: `unknown type ${type}` });
    }
  }

  join(link, { key, metadata = {} }) {
    const known = this.keys.get(key);
    if (known) return this.take(link, known, () => this.picture(known, { replayFrom: known.nextSeq }));
    if (this.holds({ key, metadata })) return this.knock(link, key, metadata);
    this.seatNew(link, key, new FakeSeat(this.newPeer(), metadata));
  }

  newPeer() {
    this.count += 1;
    return `peer-${String(this.count).padStart(3, '0')}`;
  }

  knock(link, key, metadata) {
    const known = this.waiting.get(key);
    const peer = known?.peer ?? this.newPeer();
    this.waiting.set(key, { peer, link, metadata });
    link.deliver({ type: 'waiting', heartbeatMs: this.heartbeatMs, expireMs: 60_000 });
    if (!known) for (const seat of this.seats.values()) seat.pushPresence({ type: 'knock', peer, metadata });
  }

  /** A moderator's answer at the door. Returns whether there was somebody. */
  open(peer, welcome) {
    const [key, visitor] = [...this.waiting].find(([, one]) => one.peer === peer) ?? [];
    if (!visitor) return false;
    this.waiting.delete(key);
    if (welcome) {
      this.seatNew(visitor.link, key, new FakeSeat(peer, visitor.metadata));
      return true;
    }
    for (const seat of this.seats.values()) seat.pushPresence({ type: 'peerLeft', peer, reason: 'kicked' });
    visitor.link.refuse('forbidden', 4503);
    return true;
  }

  seatNew(link, key, seat) {
    for (const other of this.seats.values()) other.pushPresence({ type: 'peerJoined', ...this.memberFor(other, seat) });
    this.seats.set(seat.peer, seat);
    this.keys.set(key, seat);
    this.take(link, seat, () => this.picture(seat, { replayFrom: 1 }));
  }

  resume(link, { ticket, seq }) {
    const seat = [...this.seats.values()].find(({ tickets }) => tickets.slice(-2).includes(ticket));
    if (!seat) return link.refuse('resumeExpired', 4020);
    if (seq >= seat.nextSeq) return link.refuse('badRequest', 4500);
    seat.buffer = seat.buffer.filter((message) => message.seq > seq);
    const hasHole = (seat.buffer[0]?.seq ?? seat.nextSeq) !== seq + 1;
    this.take(link, seat, () => (hasHole
      ? this.picture(seat, { replayFrom: seat.buffer[0]?.seq ?? seat.nextSeq, lastId: seat.lastId, lost: seat.lost })
      : { type: 'resumed', lastId: seat.lastId, replayFrom: seq + 1 }));
    seat.lost = 0;
    for (const message of seat.buffer) link.deliver(message);
  }

  take(link, seat, answer) {
    const former = seat.link;
    seat.link = link;
    link.seat = seat;
    if (former && former !== link) former.refuse('replaced', 4510);
    this.setState(seat, 'here');
    link.deliver({ ...answer(), ticket: seat.newTicket(), milestones: this.milestones, node: this.node });
  }

  picture(seat, more) {
    return {
      type: 'joined',
      ...more,
      self: { peer: seat.peer, metadata: seat.metadata },
      room: { name: 'demo', locked: this.locked, revision: seat.revision },
      peers: [...this.seats.values()].filter((other) => other !== seat)
        .map((other) => ({ ...this.memberFor(seat, other), state: other.state })),
      resumeWindowMs: 30_000,
      heartbeatMs: this.heartbeatMs,
      iceServers: [],
      limits: this.limits,
      transport: seat.link.type,
    };
  }

  /** How one seat is told of another. */
  memberFor(reader, { peer, metadata }) {
    return { peer, metadata, polite: reader.peer > peer };
  }

  setState(seat, state) {
    if (seat.state === state) return;
    seat.state = state;
    for (const other of this.seats.values()) {
      if (other !== seat) other.pushPresence({ type: state === 'away' ? 'peerAway' : 'peerBack', peer: seat.peer });
    }
  }

  remove(seat, reason) {
    this.seats.delete(seat.peer);
    for (const other of this.seats.values()) other.pushPresence({ type: 'peerLeft', peer: seat.peer, reason });
    seat.link?.refuse(reason === 'kicked' ? 'kicked' : 'left', reason === 'kicked' ? 4511 : 1000);
  }

  /** A link has gone; its seat is kept. */
  unlink(link) {
    if (link.seat?.link !== link) return;
    link.seat.link = null;
    this.setState(link.seat, 'away');
  }
}

/** Both ends of one transport. Deliveries take a turn of the event loop, in order, as a network's do. */
class FakeLink extends Link {
  constructor(server, type, traceparent) {
    super(type);
    this.server = server;
    this.traceparent = traceparent;
    this.seat = null;
    /** What the client has sent, parsed. */
    this.sent = [];
    this.datagrams = [];
    this.closed = false;
    /** While set, all is lost on the way without a sign. */
    this.isDead = false;
    /** How long the server's messages are on their way, beyond a turn of the event loop. */
    this.delayMs = 0;
  }

  async open() {
    await this.server.onOpen(this);
  }

  send(line) {
    const message = JSON.parse(line);
    this.sent.push(message);
    setImmediate(() => {
      if (!this.closed && !this.isDead) this.server.handle(this, message);
    });
  }

  sendDatagram(line) {
    this.datagrams.push(JSON.parse(line));
    this.send(line);
  }

  /** From the server to the client. */
  deliver(message) {
    const arrive = () => {
      if (!this.closed && !this.isDead) this.handlers.message(JSON.stringify(message));
    };
    if (this.delayMs > 0) setTimeout(arrive, this.delayMs);
    else setImmediate(arrive);
  }

  refuse(code, closeCode) {
    this.deliver({ type: 'closed', code, closeCode, message: code });
    setImmediate(() => this.break({ closeCode }));
  }

  /** The network ends it. */
  break(closing = { error: new Error('connection reset') }) {
    if (this.closed) return;
    this.closed = true;
    this.server.unlink(this);
    this.end(closing);
  }

  close(reason) {
    super.close(reason);
    if (this.closed) return;
    // What was sent before still arrives.
    setImmediate(() => {
      this.closed = true;
      this.server.unlink(this);
    });
  }
}

/** Resolves with the detail of the next such event; a test's own deadline ends a wait in vain. */
export function next(target, name, matches = () => true) {
  return new Promise((resolve) => {
    const listener = (event) => {
      if (!matches(event.detail)) return;
      target.removeEventListener(name, listener);
      resolve(event.detail);
    };
    target.addEventListener(name, listener);
  });
}

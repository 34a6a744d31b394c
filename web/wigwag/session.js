// One peer's place in one room, kept through the loss and the change of transports.
//
// The parts without I/O decide (seat, roster, ladder, backoff), the links carry; this file joins them. At any time there
// is at most one link in use, and at most one race that looks for one.

import { Calls } from './calls.js';
import { Connector } from './connector.js';
import { Doubt } from './doubt.js';
import { Emitter } from './emitter.js';
import { browserEnvironment } from './environment.js';
import { WigwagError, closeCodes, closingOf, comeBack, errorOf } from './errors.js';
import { Race } from './race.js';
import { Roster } from './roster.js';
import { Seat } from './seat.js';
import { timing as defaultTiming } from './timing.js';
import { checkTraceparent } from './traceparent.js';
import { Watchdog } from './watchdog.js';

/**
 * @import { TransportType } from './discovery.js'
 * @import { Environment } from './environment.js'
 * @import { Closing } from './errors.js'
 * @import { Rung } from './ladder.js'
 * @import { Link } from './links/link.js'
 * @import { TransportMemory } from './memory.js'
 * @import { Attempt } from './race.js'
 * @import { Metadata, Visitor } from './roster.js'
 * @import { Timing } from './timing.js'
 *
 * @typedef {object} SessionOptions
 * @property {string} [url]        the server's origin; default: the page's own
 * @property {string} room         1 to 128 of `A-Z a-z 0-9 - . _ ~`
 * @property {Metadata} [metadata] what others are told about this peer
 * @property {string | (() => string|Promise<string>)} [token]  a function is asked again when a token runs out
 * @property {TransportType[]} [transports]  the order to try them in, and no others; default: the server's
 * @property {string | (() => string|null|undefined)} [traceparent]  the span that each opening is a part of (W3C Trace
 *   Context); a function is asked anew at each, and `protocolerror` tells when what it gives is none
 *
 * @typedef {'connecting'|'open'|'reconnecting'|'closed'} SessionState
 *
 * The events by name, with what stands in their `detail`. Those named after a message carry it as it came;
 * `synthetic: true` marks presence events drawn from a whole new picture; `knockgone`: somebody no longer waits to be let
 * in, having been `admitted` or gone for one of the reasons of `peerleft`; `wake`: the network or the page has come back.
 * @typedef {{
 *   joined: any, resumed: any,
 *   waiting: {heartbeatMs: number, expireMs: number},
 *   knock: Visitor,
 *   knockgone: {peer: string, reason: string},
 *   peerjoined: any, peerupdated: any, peeraway: any, peerback: any, peerleft: any, roomupdated: any,
 *   description: {from: string, description: RTCSessionDescriptionInit},
 *   candidate: {from: string, candidate: RTCIceCandidateInit|null},
 *   message: {from: string, data: any},
 *   tokenexpiring: {expireMs: number},
 *   iceservers: {iceServers: RTCIceServer[], expireMs?: number},
 *   goaway: {afterMs: number},
 *   statechange: {state: SessionState},
 *   wake: {},
 *   transportchange: {from: string|null, to: string|null},
 *   roundtrip: {ms: number},
 *   attempt: Attempt,
 *   protocolerror: WigwagError,
 *   closed: WigwagError,
 * }} SessionEvents
 */

/** Presence messages, told only when they change the picture. */
const presence = new Set(['peerJoined', 'peerUpdated', 'peerAway', 'peerBack', 'peerLeft', 'roomUpdated', 'knock']);

/** Messages that the application is told as they are. */
const forwarded = new Set(['description', 'candidate', 'message']);

/** The least that a link is trusted to carry, in bytes a millisecond: a large request is not answered before it has arrived. */
const slowestRate = 16;

/** @extends {Emitter<SessionEvents>} */
export class Session extends Emitter {
  // Static after construction.
  #environment;
  #timing;
  #connector;
  #unlistenWake;

  // Who one is.
  /** @type {Metadata} */
  #metadata;
  #token;
  #traceparent;
  /** `leave` is on its way: a seat that is gone is what was wished for, and no new one is asked for. */
  #isLeaving = false;
  /** The line that asked to be let in, while a moderator has not answered. @type {string|null} */
  #knock = null;
  /** The next `resume` must carry a token, as the session's has run out. */
  #renewOnResume = false;

  // The session.
  #seat = new Seat();
  #roster = new Roster();
  /** @type {SessionState} */
  #state = 'connecting';
  #calls = new Calls();
  /** @type {RTCIceServer[]} */
  #iceServers = [];
  /** @type {Record<string, number>|null} */
  #limits = null;
  #heartbeatMs;
  /** The node of a cluster that has the seat. @type {string|null} */
  #node = null;
  /** Whether the server takes milestones. */
  #takesMilestones = false;

  // The link in use and what belongs to it.
  /** @type {Link|null} */
  #link = null;
  #linkedAt = 0;
  /** The server is about to close it, and the move away from it is planned. */
  #isDraining = false;
  /** The link whose `joined` or `resumed` came last. @type {Link|null} */
  #openLink = null;
  /** The earlier link, silent, while the seat is being taken over from it. @type {Link|null} */
  #former = null;
  /** @type {string|null} */
  #transport = null;
  /** @type {string|null} */
  #lastTransport = null;
  /** @type {number|null} */
  #roundTrip = null;
  #watchdog = new Watchdog({ onSilent: () => this.#giveUp('nothing was heard from the server'), onLate: () => this.#probe() });
  #doubt = new Doubt({
    isWaiting: () => this.#seat.pendingCount + this.#calls.pingCount > 0,
    graceMs: () => Math.max(this.#timing.doubtMs, 4 * (this.#roundTrip ?? 0)) + this.#seat.pendingBytes / slowestRate,
    onDoubt: () => this.#tryOthers(),
  });
  /** Told how the link ended. @type {(closing: Closing) => void} */
  #down = () => {};
  /** @type {Race|null} */
  #race = null;
  /** The line that opens a session now. */
  #greeting = () => '';
  /** The race is for all transports, as the link is in doubt: its next sign of life ends it. */
  #isInDoubt = false;
  /** When a greeting of one's own was last left unanswered: it may yet take the seat from its successor. */
  #abandonedAt = -Infinity;

  // Timers.
  /** @type {ReturnType<typeof setTimeout>|undefined} */
  #ackTimer;
  /** @type {ReturnType<typeof setTimeout>|undefined} */
  #roundTripTimer;
  /** @type {ReturnType<typeof setTimeout>|undefined} */
  #moveTimer;
  /** Tries for a better transport since the network last changed. */
  #moves = 0;

  /** @type {(self: any) => void} */
  #resolveJoined = () => {};
  /** @type {(error: WigwagError) => void} */
  #rejectJoined = () => {};

  /**
   * @param {SessionOptions} options
   * @param {Environment & {timing?: Partial<Timing>, memory?: TransportMemory}} [environment] for tests
   * @throws {TypeError} on a room name or an address that no server would take, and on a `traceparent` that is none
   */
  constructor(options, environment = browserEnvironment()) {
    super();
    const { url = globalThis.location?.origin, room, metadata = {}, token, transports, traceparent } = options;
    if (!/^[A-Za-z0-9._~-]{1,128}$/.test(room) || room === '.' || room === '..') {
      throw new TypeError('a room is named by 1 to 128 of A-Z a-z 0-9 - . _ ~');
    }
    if (typeof traceparent !== 'function') checkTraceparent(traceparent);
    this.#metadata = metadata;
    this.#token = token;
    this.#traceparent = traceparent;
    this.#environment = environment;
    this.#timing = { ...defaultTiming, ...environment.timing };
    this.#heartbeatMs = this.#timing.heartbeatMs;
    this.#connector = new Connector({ origin: new URL(url).origin, room, order: transports }, environment, this.#timing);
    /** Resolves with the first `joined`; rejects when the session closes before. @type {Promise<any>} */
    this.joined = new Promise((resolve, reject) => {
      this.#resolveJoined = resolve;
      this.#rejectJoined = reject;
    });
    this.joined.catch(() => {}); // An application may listen to `closed` instead.
    this.#unlistenWake = environment.onWake(() => this.#onWake());
    this.#run();
  }

  get state() {
    return this.#state;
  }

  get self() {
    return this.#roster.self;
  }

  get room() {
    return this.#roster.room;
  }

  /** The others in the room, by their ids. */
  get peers() {
    return this.#roster.peers;
  }

  /** Those who wait to be admitted, by their ids: for moderators, as nobody else is told. */
  get knocks() {
    return this.#roster.knocks;
  }

  /** The transport in use as the server names it, or null while there is none. */
  get transport() {
    return this.#transport;
  }

  /** The node of the server's cluster that has the seat, as its operator knows it, or null where there is no cluster. */
  get node() {
    return this.#node;
  }

  get iceServers() {
    return this.#iceServers;
  }

  /** The server's limits, or null before `joined`. */
  get limits() {
    return this.#limits;
  }

  /** The last measured round trip to the server in milliseconds, or null. */
  get roundTrip() {
    return this.#roundTrip;
  }

  // What the application asks. Each promise resolves at the server's `ok` and rejects with a WigwagError at its `error`.

  /**
   * Sends any JSON to one peer, or to the whole room.
   * @param {any} data
   * @param {{to?: string, ephemeral?: boolean}} [options] an ephemeral message may get lost, is dropped while there is
   *   no connection, and resolves at once
   * @returns {Promise<void>}
   */
  async send(data, { to, ephemeral = false } = {}) {
    const message = { type: 'message', to, data: data ?? null };
    if (!ephemeral) return this.#request(message);
    this.#link?.sendDatagram(JSON.stringify({ ...message, ephemeral }));
  }

  /** @param {string} to @param {RTCSessionDescriptionInit} description */
  description(to, { type, sdp }) {
    return this.#request({ type: 'description', to, description: { type, sdp } });
  }

  /** @param {string} to @param {RTCIceCandidateInit|null} candidate null: there are no more */
  candidate(to, candidate) {
    return this.#request({ type: 'candidate', to, candidate });
  }

  /**
   * Tells the server how far the connection with a peer has come, for its operator; `Call` does so by itself. Nothing is sent to a
   * server that knows nothing of it.
   * @param {string} peer
   * @param {{milestone: 'connected'|'media'|'failed', candidateType?: string, afterMs: number}} reached  `afterMs`: since this side began the connection
   */
  async milestone(peer, { milestone, candidateType, afterMs }) {
    if (this.#takesMilestones) await this.#request({ type: 'milestone', peer, milestone, candidateType, afterMs });
  }

  /** Replaces one's own metadata. @param {Metadata} metadata */
  async setMetadata(metadata) {
    this.#metadata = metadata;
    await this.#request({ type: 'metadata', metadata });
    if (this.#roster.self) this.#roster.self.metadata = metadata;
  }

  /** @param {string} peer @param {string} [reason] */
  kick(peer, reason) {
    return this.#request({ type: 'kick', peer, reason });
  }

  /** @param {boolean} locked */
  lock(locked) {
    return this.#request({ type: 'lock', locked });
  }

  /** @param {string} peer */
  admit(peer) {
    return this.#request({ type: 'admit', peer });
  }

  /** @param {string} peer */
  refuse(peer) {
    return this.#request({ type: 'refuse', peer });
  }

  /**
   * Has the server make a token for somebody else, with at most one's own grants; a moderator's right.
   * @param {{expiresInMs?: number, uses?: number, grants?: string[]}} [invitation]  `uses`: how many seats may be taken with
   *   it, 1 where nothing is said; `grants`: without `join` its bearer waits to be admitted
   * @returns {Promise<{token: string, expireMs: number}>}
   */
  async invite({ expiresInMs, uses, grants } = {}) {
    const { token, expireMs } = await this.#ask({ type: 'invite', expiresInMs, uses, grants });
    // What is asked again after a loss is answered without it, as it is not done again.
    if (token === undefined) throw new WigwagError('unreachable', 'the answer with the invitation was lost; ask for another');
    return { token, expireMs };
  }

  /** Asks for fresh TURN credentials; they come with the event `iceservers`. */
  requestIceServers() {
    return this.#request({ type: 'iceServers' });
  }

  /** @param {string} token */
  async renewToken(token) {
    await this.#request({ type: 'token', token });
    if (typeof this.#token !== 'function') this.#token = token;
  }

  /** @returns {Promise<number>} the round trip to the server in milliseconds */
  ping() {
    const link = this.#link;
    if (link === null) return Promise.reject(new WigwagError('unreachable', 'there is no connection to measure'));
    const id = this.#seat.takeId();
    this.#doubt.asked();
    const answer = this.#calls.addPing(id);
    link.send(JSON.stringify({ type: 'ping', id }));
    return answer;
  }

  /** Tries to connect now; where there is a connection, checks that it lives. */
  reconnect() {
    // What began to open on the network before may hang there.
    const isStale = this.#race !== null && this.#race.ageMs > this.#timing.staleRaceMs;
    if (isStale) this.#endRace();
    if (this.#link) {
      this.#planMove(this.#link);
      return this.#probe();
    }
    this.#connector.hurry();
    if (isStale) this.#fallBack({ local: true, error: new Error('the network has changed') });
  }

  /**
   * Leaves the room and closes the session; resolves when that is done.
   * @param {string} [reason]
   */
  async leave(reason) {
    if (this.#state === 'closed' || this.#state === 'connecting') return this.close(reason);
    this.#isLeaving = true;
    const left = this.#request({ type: 'leave', reason }).catch(() => {});
    /** @type {ReturnType<typeof setTimeout>|undefined} */
    let timer;
    const patience = new Promise((resolve) => {
      timer = setTimeout(resolve, this.#timing.leaveMs);
    });
    await Promise.race([left, patience]);
    clearTimeout(timer);
    this.#finish(leftError());
  }

  /**
   * What the server has noted of this session, as NDJSON for a person to read or to send with a report: transports, times and
   * counts, nothing of what was said. Rejects while there is no session, or the server cannot be reached.
   * @returns {Promise<string>}
   */
  async fetchLog() {
    const { ticket } = this.#seat;
    if (ticket === null) throw new WigwagError('left', 'there is no session whose log could be fetched');
    return this.#connector.fetchLog(ticket);
  }

  /** Leaves without waiting: for `pagehide`. @param {string} [reason] */
  close(reason) {
    const line = JSON.stringify({ type: 'leave', id: this.#seat.takeId(), reason });
    // Before all else: a closed tab of Firefox's comes no further than the beginning.
    if (!this.#isClosed()) this.#connector.postLeave(line, { ticket: this.#seat.ticket, knock: this.#knock });
    this.#link?.send(line);
    this.#finish(leftError());
  }

  /**
   * @param {object} message
   * @returns {Promise<void>}
   */
  async #request(message) {
    await this.#ask(message);
  }

  /**
   * @param {object} message
   * @returns {Promise<any>} the server's `ok`
   */
  #ask(message) {
    return new Promise((resolve, reject) => {
      if (this.#state === 'closed') throw new WigwagError('left', 'the session is closed');
      // Before the first `joined` and between two links it waits; the next link sends it.
      const link = this.#state === 'open' ? this.#link : null;
      if (link) this.#doubt.asked();
      const { id, line } = this.#seat.request(message);
      this.#calls.addRequest(id, { resolve, reject });
      link?.send(line);
    });
  }

  // Connecting.

  /** Connects, waits for the end, comes back: until the end is final. */
  async #run() {
    // The application gets the time to add its listeners.
    await Promise.resolve();
    for (let attempt = 0; ; attempt += 1) {
      const closing = await this.#connect();
      if (this.#isClosed()) return;
      if (this.#wasProven()) attempt = 0;
      const decision = this.#afterwards(closing);
      if (this.#isLeaving && decision !== 'resume') return this.#finish(leftError());
      if (decision === 'never') return this.#finish(errorOf(closing));
      if (decision === 'join') this.#seat.forget();
      // A link that this side gave up, as the network has changed: the new network gets its try at once.
      if (!closing.local || !this.#wasProven()) await this.#connector.wait(attempt, closing.retryAfterMs);
      if (this.#isClosed()) return;
    }
  }

  #isClosed() {
    return this.#state === 'closed';
  }

  /**
   * One connection from discovery to its end.
   * @returns {Promise<Closing>} how it ended; never rejects
   */
  async #connect() {
    this.#linkedAt = Infinity;
    try {
      const token = await this.#tokenForGreeting();
      const rungs = await this.#connector.rungs();
      if (this.#isClosed()) return {};
      return await new Promise((resolve) => {
        this.#down = resolve;
        this.#startRace(rungs, { token, lost: resolve });
      });
    } catch (error) {
      const { closeCode, retryAfterMs } = error instanceof WigwagError ? error : {};
      return { closeCode: closeCode ?? undefined, retryAfterMs, error };
    }
  }

  /** @returns {Promise<string|undefined>} */
  async #tokenForGreeting() {
    if (this.#seat.ticket !== null && !this.#renewOnResume) return undefined;
    try {
      return typeof this.#token === 'function' ? await this.#token() : this.#token;
    } catch (error) {
      throw new WigwagError('unreachable', 'the application gave no token', { cause: error });
    }
  }

  /** What is none costs the trace, not the session. @returns {string|null} */
  #traceparentForOpening() {
    try {
      return checkTraceparent(typeof this.#traceparent === 'function' ? this.#traceparent() : this.#traceparent);
    } catch (error) {
      const reason = new WigwagError('badRequest', `the application gave no traceparent: ${error}`, { cause: error });
      // Whoever hears of it may close the session, which must not happen while a link is being made.
      queueMicrotask(() => this.emit('protocolerror', reason));
      return null;
    }
  }

  /**
   * @param {Rung[]} rungs
   * @param {{token?: string, lost: (closing: Closing) => void, beforeGreeting?: (type: TransportType) => void, answerMs?: number}} options
   *   `answerMs`: the longest wait for an answer to the greeting, where not the usual one
   */
  #startRace(rungs, { token, lost, beforeGreeting, answerMs = this.#timing.answerMs }) {
    const greeting = () => this.#seat.greeting({ metadata: this.#metadata, token });
    const context = { greeting, ticket: () => this.#seat.ticket, traceparent: () => this.#traceparentForOpening() };
    this.#greeting = greeting;
    this.#race = new Race(rungs, {
      createLink: (rung) => this.#environment.createLink(rung, context),
      greet: (type) => {
        beforeGreeting?.(type);
        return greeting();
      },
      won: (link, text) => {
        this.#forgetRace();
        this.#use(link);
        this.#receive(link, text);
      },
      lost: (closing) => {
        this.#forgetRace();
        lost(closing);
      },
      abandoned: () => {
        this.#abandonedAt = Date.now();
      },
      report: (attempt) => this.emit('attempt', attempt),
    }, { ...this.#timing, answerMs });
    this.#race.start();
  }

  #forgetRace() {
    this.#race = null;
    this.#isInDoubt = false;
  }

  #endRace() {
    this.#race?.abort();
    this.#forgetRace();
  }

  /** @param {Link} link that has just answered the greeting */
  #use(link) {
    this.#former?.close('moved to another transport');
    this.#former = null;
    this.#link = link;
    this.#linkedAt = Date.now();
    this.#isDraining = false;
    link.handlers = {
      message: (text) => this.#receive(link, text),
      heard: () => this.#hear(),
      closed: (closing) => this.#lose(link, closing),
    };
    if (!this.#isLeaving) this.#connector.remember(link.type);
    this.#watch();
  }

  #watch() {
    if (this.#link) this.#watchdog.start(2 * this.#heartbeatMs + this.#link.quietMs);
  }

  // Losing the link, and what comes then.

  /** @param {string} why */
  #giveUp(why) {
    if (this.#link) this.#lose(this.#link, { local: true, error: new Error(why) });
  }

  /** @param {Link} link @param {Closing} closing */
  #lose(link, closing) {
    if (link !== this.#link) return;
    // A link may end before the answer to `leave` has been heard: the next one tells whether the seat is gone.
    if (this.#isLeaving) this.#connector.hurry();
    else if (!closing.local && this.#diedYoung(closing)) this.#connector.demote(link.type);
    this.#unlink();
    link.close('gave up');
    // Others are being tried already: one of them, or the end of the race, leads on.
    if (this.#isInDoubt && closing.closeCode === undefined) return this.#showLoss();
    this.#endRace();
    this.#fallBack(closing);
  }

  /** Without a link from here on; the loop in `run` takes over. @param {Closing} closing */
  #fallBack(closing) {
    this.#showLoss();
    this.#down(closing);
  }

  #showLoss() {
    this.#setTransport(null);
    this.#setState(this.self ? 'reconnecting' : 'connecting');
  }

  /** Takes the link out of use and ends what belongs to it. */
  #unlink() {
    this.#link = null;
    this.#watchdog.stop();
    this.#doubt.stop();
    for (const timer of [this.#ackTimer, this.#roundTripTimer, this.#moveTimer]) clearTimeout(timer);
    this.#ackTimer = undefined;
    this.#calls.rejectPings();
  }

  /** A proxy that lets a transport open and kills it soon after would do so for ever. @param {Closing} closing */
  #diedYoung({ closeCode }) {
    return closeCode === undefined && Date.now() - this.#linkedAt < this.#timing.youngMs;
  }

  #wasProven() {
    return Date.now() - this.#linkedAt >= this.#timing.provenMs;
  }

  /** @param {Closing} closing @returns {'resume'|'join'|'never'} */
  #afterwards({ closeCode, error }) {
    if (error instanceof WigwagError && error.code === 'unsupported') return 'never';
    const ownDoing = Date.now() - this.#abandonedAt < this.#timing.ownReplacedMs;
    if (closeCode === closeCodes.replaced && ownDoing) {
      this.#abandonedAt = -Infinity;
      return 'resume';
    }
    if (closeCode === closeCodes.tokenExpired && typeof this.#token === 'function' && !this.#renewOnResume) {
      this.#renewOnResume = true;
      return 'resume';
    }
    return comeBack(closeCode);
  }

  /** The network or the page is back. */
  #onWake() {
    this.#moves = 0;
    this.reconnect();
    this.emit('wake', {});
  }

  /** Wants a sign of life soon. */
  #probe() {
    if (this.#link === null) return;
    this.#measure();
    this.#watchdog.probe(this.#timing.probeMs);
  }

  #measure() {
    this.ping().catch(() => {}); // A lost link is told elsewhere.
  }

  // Receiving.

  /** A sign of life. */
  #hear() {
    this.#watchdog.heard();
    this.#doubt.heard();
    if (!this.#isInDoubt || this.#link === null) return;
    this.#endRace();
    this.#planMove(this.#link);
  }

  /** @param {Link} link @param {string} text */
  #receive(link, text) {
    if (link !== this.#link) return;
    this.#hear();
    let message;
    try {
      message = JSON.parse(text);
    } catch {
      return this.#giveUp('the server sent what is no JSON');
    }
    switch (this.#seat.receive(message)) {
      case 'old':
        return;
      case 'gap':
        return this.#giveUp('a message from the server is missing');
      default:
        this.#handle(link, message);
    }
    if (link === this.#link) this.#acknowledge(link);
  }

  /** @param {Link} link @param {any} message */
  #handle(link, message) {
    if (presence.has(message.type)) {
      for (const { name, detail } of this.#roster.apply(message)) this.emit(/** @type {any} */ (name), detail);
      return;
    }
    if (forwarded.has(message.type)) return this.#emitMessage(message);
    switch (message.type) {
      case 'waiting':
        return this.#onWaiting(message);
      case 'joined':
        return this.#onJoined(link, message);
      case 'resumed':
        return this.#onResumed(link, message);
      case 'ok':
      case 'error':
        return this.#onAnswer(message);
      case 'pong':
        return this.#onPong(message);
      case 'iceServers':
        this.#iceServers = message.iceServers;
        return this.#emitMessage(message);
      case 'tokenExpiring':
        return this.#onTokenExpiring(message);
      case 'goAway':
        return this.#onGoAway(message);
      case 'closed':
        return this.#lose(link, closingOf(message));
      default: // `ping` has been heard, which is all it asks; types of a later protocol are not for us.
    }
  }

  /** The event named after a message. @param {any} message */
  #emitMessage(message) {
    this.emit(message.type.toLowerCase(), message);
  }

  /** At the door, which a moderator opens or does not. @param {any} message */
  #onWaiting(message) {
    this.#knock = this.#greeting();
    this.#heartbeatMs = message.heartbeatMs ?? this.#heartbeatMs;
    this.#watch();
    this.#emitMessage(message);
  }

  /** @param {Link} link @param {any} message */
  #onJoined(link, message) {
    const before = this.self?.peer;
    const seat = before === undefined ? 'first' : before === message.self.peer ? 'same' : 'new';
    const { resend, abandoned } = this.#seat.joined(message, seat);
    this.#knock = null;
    const differences = this.#roster.replace(message);
    this.#iceServers = message.iceServers ?? [];
    this.#limits = message.limits ?? null;
    this.#heartbeatMs = message.heartbeatMs ?? this.#heartbeatMs;
    this.#watch();
    for (const id of abandoned) {
      this.#settle(id, { error: new WigwagError('resumeExpired', 'the seat was lost before this request was answered') });
    }
    for (const line of resend) link.send(line);
    this.#opened(link, message);
    this.emit('joined', message);
    for (const { name, detail } of differences) this.emit(/** @type {any} */ (name), detail);
    this.#resolveJoined(message);
  }

  /** @param {Link} link @param {any} message */
  #onResumed(link, message) {
    // Each poll is a `resume`: on a link that is open already it brings the next ticket and no more.
    if (this.#state === 'open' && this.#openLink === link) {
      this.#noteServer(message);
      return this.#seat.renew(message);
    }
    for (const line of this.#seat.resumed(message)) link.send(line);
    this.#opened(link, message);
    this.emit('resumed', message);
  }

  /** @param {Link} link @param {any} message */
  #opened(link, message) {
    this.#openLink = link;
    this.#renewOnResume = false;
    this.#noteServer(message);
    // A `resumed` need not name the transport; the kind is known in any case.
    this.#setTransport(message.transport ?? link.type);
    this.#setState('open');
    // What was sent again waits for its answers.
    this.#doubt.asked();
    clearTimeout(this.#roundTripTimer);
    this.#keepMeasuring(link);
    this.#planMove(link);
  }

  /** What is of the server that has the seat now, whichever it is. @param {any} message */
  #noteServer({ milestones, node }) {
    this.#takesMilestones = milestones === true;
    this.#node = node ?? null;
  }

  /** @param {string|null} transport */
  #setTransport(transport) {
    this.#transport = transport;
    const from = this.#lastTransport;
    if (transport === null || transport === from) return;
    this.#lastTransport = transport;
    if (from !== null) this.emit('transportchange', { from, to: transport });
  }

  /** @param {SessionState} state */
  #setState(state) {
    if (state === this.#state) return;
    this.#state = state;
    this.emit('statechange', { state });
  }

  /** @param {any} message `ok` or `error` */
  #onAnswer(message) {
    const error = message.type === 'ok' ? null : new WigwagError(message.code, message.message ?? message.code, message);
    if (!this.#settle(message.id, { answer: message, error }) && error) this.emit('protocolerror', error);
  }

  /**
   * @param {number} id
   * @param {{answer?: any, error?: WigwagError|null}} outcome
   * @returns {boolean} whether a call waited for it
   */
  #settle(id, outcome) {
    this.#seat.settle(id);
    return this.#calls.settle(id, outcome);
  }

  /** @param {any} message */
  #onPong({ id }) {
    const ms = this.#calls.pong(id);
    if (ms === null) return;
    this.#roundTrip = ms;
    this.emit('roundtrip', { ms });
  }

  /** @param {any} message */
  #onTokenExpiring(message) {
    this.#emitMessage(message);
    if (typeof this.#token === 'function') this.#renewByItself(this.#token);
  }

  /** @param {() => string|Promise<string>} ask */
  async #renewByItself(ask) {
    try {
      await this.renewToken(await ask());
    } catch (error) {
      const reason = error instanceof WigwagError ? error : new WigwagError('unauthorized', 'the application gave no token', { cause: error });
      this.emit('protocolerror', reason);
    }
  }

  /** @param {Link} link */
  #acknowledge(link) {
    if (!link.needsAck || this.#seat.ack === 'none') return;
    if (this.#seat.ack === 'due') return this.#sendAck();
    this.#ackTimer ??= setTimeout(() => this.#sendAck(), this.#timing.ackMs);
  }

  #sendAck() {
    clearTimeout(this.#ackTimer);
    this.#ackTimer = undefined;
    if (this.#seat.ack !== 'none') this.#link?.send(this.#seat.takeAck());
  }

  /** @param {Link} link */
  #keepMeasuring(link) {
    const { roundTripMs, udpProbeMs } = this.#timing;
    this.#roundTripTimer = setTimeout(() => this.#keepMeasuring(link), link.type === 'webtransport' ? udpProbeMs : roundTripMs);
    // A hidden page need not know, and has its watchdog; and a poll would be one more request.
    if (!this.#environment.hidden() && link.type !== 'long-poll') this.#measure();
  }

  // Moving the live session to another transport.

  /** Plans a try for a better transport than this one. @param {Link} link */
  #planMove(link) {
    if (this.#isDraining) return;
    const { betterMs, betterCapMs } = this.#timing;
    clearTimeout(this.#moveTimer);
    const waitMs = Math.min(betterCapMs, betterMs * 2 ** Math.min(this.#moves, 16));
    this.#moveTimer = setTimeout(() => {
      if (this.#environment.hidden()) return this.#planMove(link);
      this.#moves += 1;
      this.#move(() => this.#connector.rungsToMove(link.type));
    }, waitMs);
  }

  /** @param {any} message */
  #onGoAway(message) {
    this.#emitMessage(message);
    this.#isDraining = true;
    clearTimeout(this.#moveTimer);
    // The server has spread `afterMs` over its clients; a little earlier leaves time for the move itself.
    this.#moveTimer = setTimeout(() => this.#move(() => this.#connector.rungsToMove()), message.afterMs * (0.5 + Math.random() * 0.4));
  }

  /** @param {() => Promise<Rung[]>} choose */
  async #move(choose) {
    const link = this.#link;
    if (link === null || this.#race !== null) return;
    const rungs = await choose().catch(() => /** @type {Rung[]} */ ([]));
    // Meanwhile the link may have been lost, or another race begun.
    if (link !== this.#link || this.#race !== null) return;
    if (rungs.length === 0) return this.#planMove(link);
    this.#moveTo(rungs, link);
  }

  /** The link leaves something unanswered: the first other that works takes over, unless it speaks up before. */
  #tryOthers() {
    const link = this.#link;
    const rungs = this.#connector.knownRungs();
    if (link === null || rungs.length === 0 || this.#isInDoubt) return;
    // A race for something better gives way to one for anything that works.
    this.#endRace();
    this.#isInDoubt = true;
    this.#moveTo(rungs, link);
  }

  /**
   * Opens one of the chosen transports beside the link in use and takes the seat over to it. Until the `resume` is on its
   * way, failing costs nothing; from then on it keeps the session from a transport that worked, so it must answer soon.
   * @param {Rung[]} rungs
   * @param {Link} link
   */
  #moveTo(rungs, link) {
    const worked = !this.#isInDoubt;
    /** @type {TransportType|undefined} */
    let greeted;
    this.#startRace(rungs, {
      ...(worked && { answerMs: this.#timing.patienceMs }),
      beforeGreeting: (type) => {
        greeted = type;
        this.#setAside(link);
      },
      lost: (closing) => {
        if (this.#link === link) return this.#planMove(link);
        this.#former?.close('gave up');
        this.#former = null;
        if (worked && greeted && closing.closeCode === undefined) this.#connector.demote(greeted);
        this.#fallBack(closing);
      },
    });
  }

  /**
   * The server reads nothing more from the earlier link once it has the `resume`, and will close it with `replaced`: from
   * here on it is neither used nor heard. What it may still bring comes again by replay.
   * @param {Link} link
   */
  #setAside(link) {
    if (this.#link !== link) return;
    if (this.#isInDoubt) this.#judge(link);
    this.#unlink();
    this.#former = link;
    link.retire();
  }

  /**
   * A network may let UDP pass for a moment and no longer: what was left so soon is not tried again soon. After a longer
   * life a transport is worth the first try for a better one again.
   * @param {Link} link that left something unanswered
   */
  #judge(link) {
    if (this.#diedYoung({})) this.#connector.demote(link.type);
    else this.#moves = 0;
  }

  // The end.

  /** @param {WigwagError} error why */
  #finish(error) {
    if (this.#isClosed()) return;
    const link = this.#link;
    this.#unlink();
    link?.close(error.code);
    this.#former?.close(error.code);
    this.#endRace();
    this.#unlistenWake();
    this.#setTransport(null);
    this.#setState('closed');
    this.#connector.stop();
    this.#down({});
    this.#calls.rejectAll(error);
    this.#rejectJoined(error);
    this.emit('closed', error);
  }
}

function leftError() {
  return new WigwagError('left', 'left the room', { closeCode: 1000 });
}

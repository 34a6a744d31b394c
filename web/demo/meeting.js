// One visit to one room: the session with the server, the call with the peers, and what the page shows of both.
// It knows nothing of the page.

import { Call } from '../call.js';
import { connect } from '../wigwag.js';
import { watchSpeakers } from './level.js';
import { mayModerate } from './token.js';
import { hasLive, watchTracks } from './tracks.js';
import { explainModeration } from './words.js';

/**
 * @import { TransportType } from '../wigwag/discovery.js'
 * @import { Session } from '../wigwag.js'
 * @import { LocalMedia } from './media.js'
 *
 * @typedef {'joining'|'waiting'|'incall'|'reconnecting'|'over'} Phase  `waiting`: to be admitted by a moderator
 *
 * One in the call, oneself included.
 * @typedef {object} Participant
 * @property {string} id
 * @property {string} name
 * @property {boolean} self
 * @property {boolean} audio       whether the microphone is on
 * @property {boolean} video       whether there is a picture to show
 * @property {boolean} screen      whether the picture is a screen
 * @property {boolean} speaking
 * @property {'here'|'away'} presence
 * @property {string} connection   an RTCPeerConnectionState
 * @property {MediaStream|null} stream
 *
 * One try of the library to open a transport.
 * @typedef {{transport: string, outcome: string, ms: number, error: string, at: Date}} AttemptRecord
 *
 * Somebody who asks a moderator to be let in; `user` is vouched for by a token, the name is not.
 * @typedef {{id: string, name: string, user: string}} Knock
 *
 * @typedef {object} MeetingOptions
 * @property {string} room
 * @property {string} name
 * @property {string} [token]
 * @property {TransportType[]} [transports]
 * @property {LocalMedia} media
 *
 * @typedef {object} MeetingCalls
 * @property {() => void} changed                          something to show has changed
 * @property {(from: Participant, text: string, at: Date) => void} chat
 * @property {(knock: Knock) => void} knock                somebody new waits at the door
 * @property {(text: string) => void} notice               to be told once, such as who has come
 * @property {(error: Error & {code?: string}, phase: Phase) => void} over   the visit has ended in this phase, and not by `leave`
 */

/** Attempts kept for the details. */
const maxAttempts = 50;

export class Meeting {
  /** The room's name. @type {string} */
  room;
  /** @type {Phase} */
  phase = 'joining';
  /** @type {AttemptRecord[]} */
  attempts = [];
  /** How the server said no, while the library goes on trying. @type {{code?: string, message: string}|undefined} */
  refusal;
  /** When the access token ends, in milliseconds since 1970; null while that is long to go. @type {number|null} */
  tokenEndsAt = null;
  #name;
  #token;
  /** Knocks whose answer is on its way. @type {Set<string>} */
  #answered = new Set();
  #media;
  #calls;
  /** @type {Session} */
  #session;
  /** @type {Call} */
  #call;
  /** @type {Set<string>} */
  #speaking = new Set();
  #stopWatching = () => {};
  #isTold = false;
  /** @type {{audio: MediaStreamTrack|null, video: MediaStreamTrack|null}} */
  #sent = { audio: null, video: null };
  /** What the others were last told of oneself. */
  #toldMetadata = '';

  /**
   * @param {MeetingOptions} options
   * @param {MeetingCalls} calls
   * @throws {TypeError} on a room name that no server would take
   */
  constructor({ room, name, token, transports, media }, calls) {
    this.room = room;
    this.#name = name;
    this.#token = token;
    this.#media = media;
    this.#calls = calls;
    const metadata = this.#metadata();
    this.#toldMetadata = JSON.stringify(metadata);
    this.#session = connect({ room, metadata, token, transports });
    this.#call = new Call(this.#session, { stream: null, dataChannel: 'chat' });
    this.#listen();
    this.mediaChanged();
    this.#stopWatching = watchSpeakers(() => this.#connections(), (speaking) => {
      this.#speaking = speaking;
      this.#change();
    });
  }

  /** The node of a cluster that has the session, or null where there is no cluster. */
  get node() {
    return this.#session.node;
  }

  /** The transport in use as the server names it, or null. */
  get transport() {
    return this.#session.transport;
  }

  /** The round trip to the server in milliseconds, or null. */
  get roundTrip() {
    return this.#session.roundTrip;
  }

  get locked() {
    return this.#session.room?.locked ?? false;
  }

  /** Whether to offer what only moderators may do. */
  get moderates() {
    return mayModerate(this.#token);
  }

  /** Who waits for a moderator's answer. @returns {Knock[]} */
  get knocks() {
    return [...this.#session.knocks.values()].filter(({ peer }) => !this.#answered.has(peer))
      .map(({ peer, user = '', metadata }) => ({ id: peer, name: nameOf(metadata, user), user }));
  }

  /** Everybody in the call, oneself last. @returns {Participant[]} */
  get participants() {
    return [...[...this.#session.peers.keys()].map((id) => this.#participant(id)), this.#self()];
  }

  /** The media connections by peer, for the details. @returns {Iterable<[string, RTCPeerConnection]>} */
  #connections() {
    return [...this.#call.peers].map(([id, peer]) => [id, peer.pc]);
  }

  /** @returns {{name: string, pc: RTCPeerConnection}[]} */
  get connections() {
    return [...this.#connections()].map(([id, pc]) => ({ name: this.#participant(id).name, pc }));
  }

  /** To be called when one's own tracks have changed. */
  mediaChanged() {
    if (this.phase === 'over') return;
    this.#sendTrack('audio', this.#media.microphone);
    this.#sendTrack('video', this.#media.video);
    const metadata = this.#metadata();
    if (JSON.stringify(metadata) !== this.#toldMetadata) {
      this.#toldMetadata = JSON.stringify(metadata);
      // A refusal costs the others a mark on a tile, and comes again with the next change.
      this.#session.setMetadata(metadata).catch(() => {});
    }
    this.#change();
  }

  /** @param {'audio'|'video'} kind @param {MediaStreamTrack|null} track */
  #sendTrack(kind, track) {
    if (this.#sent[kind] === track) return;
    this.#sent[kind] = track;
    this.#call.replaceTrack(kind, track);
  }

  /** @param {string} text */
  sendChat(text) {
    this.#call.sendChat(text);
  }

  /** What the server has noted of the session; rejects while it cannot be asked. @returns {Promise<string>} */
  fetchLog() {
    return this.#session.fetchLog();
  }

  /** Tries at once to reach the server. */
  reconnect() {
    this.#session.reconnect();
  }

  // Moderating.

  /**
   * Answers a knock.
   * @param {string} id
   * @param {boolean} welcome
   */
  async answer(id, welcome) {
    const knock = this.knocks.find((one) => one.id === id);
    if (knock === undefined) return;
    this.#answered.add(id);
    this.#change();
    await this.#try(welcome ? this.#session.admit(id) : this.#session.refuse(id), knock.name);
    this.#answered.delete(id);
    this.#change();
  }

  /** Removes somebody from the room. @param {string} id */
  async kick(id) {
    await this.#try(this.#session.kick(id), this.#names.get(id));
  }

  /** Lets nobody else in, or everybody again. @param {boolean} locked */
  async setLocked(locked) {
    await this.#try(this.#session.lock(locked));
  }

  /**
   * Has the server make a token for others; rejects where it does not.
   * @param {{expiresInMs: number, uses: number, grants: string[]}} invitation
   * @returns {Promise<string>}
   */
  async invite(invitation) {
    const { token } = await this.#session.invite(invitation);
    return token;
  }

  /** @param {Promise<void>} wish @param {string} [name] of whom it is about */
  async #try(wish, name = 'That person') {
    try {
      await wish;
    } catch (/** @type {any} */ error) {
      // With the visit itself all wishes end.
      if (this.phase !== 'over') this.#calls.notice(explainModeration(error, name));
    }
  }

  /**
   * Goes on with a new access token.
   * @param {string} token
   * @throws {Error} where the server does not take it
   */
  async renewToken(token) {
    await this.#session.renewToken(token);
    this.#token = token;
    this.tokenEndsAt = null;
    this.#change();
  }

  /** Leaves, and resolves when the server knows. */
  async leave() {
    this.#finish();
    await this.#session.leave('left by the button');
  }

  /** Leaves without waiting, as the page is being closed. */
  close() {
    this.phase = 'over';
    // First, as the page may have only a moment left.
    this.#session.close();
    this.#finish();
  }

  #listen() {
    const session = this.#session;
    const change = () => this.#change();
    session.addEventListener('joined', () => this.#enter());
    session.addEventListener('statechange', () => this.#follow());
    session.addEventListener('waiting', () => this.#setPhase('waiting'));
    session.addEventListener('attempt', ({ detail }) => this.#record(detail));
    session.addEventListener('closed', ({ detail }) => this.#end(detail));
    session.addEventListener('peerjoined', ({ detail }) => this.#greet(detail));
    session.addEventListener('peerleft', ({ detail }) => this.#part(detail));
    session.addEventListener('roomupdated', ({ detail }) => this.#tellLock(detail));
    session.addEventListener('tokenexpiring', ({ detail }) => this.#awaitTokenEnd(detail));
    session.addEventListener('knock', ({ detail }) => this.#hearKnock(detail));
    for (const name of /** @type {const} */ (['resumed', 'knockgone', 'peerupdated', 'peeraway', 'peerback', 'transportchange', 'roundtrip'])) {
      session.addEventListener(name, change);
    }
    this.#call.addEventListener('peer', change);
    this.#call.addEventListener('peergone', change);
    this.#call.addEventListener('stream', ({ detail: { stream } }) => this.#watch(stream));
    this.#call.addEventListener('state', change);
    this.#call.addEventListener('chat', ({ detail: { peer, text, at } }) => this.#calls.chat(this.#participant(peer.id), text, at));
  }

  /** @param {MediaStream} stream */
  #watch(stream) {
    watchTracks(stream, () => this.#change());
    this.#change();
  }

  #enter() {
    this.refusal = undefined;
    this.#rememberNames();
    this.#setPhase('incall');
  }

  #follow() {
    const { state } = this.#session;
    if (state === 'open') this.#setPhase('incall');
    if (state === 'reconnecting' && this.phase === 'incall') this.#setPhase('reconnecting');
    this.#change();
  }

  /** @param {Phase} phase */
  #setPhase(phase) {
    if (this.phase === 'over') return;
    this.phase = phase;
    this.#change();
  }

  /** @param {{transport: string, outcome: string, ms: number, error?: Error & {code?: string}}} attempt */
  #record({ transport, outcome, ms, error }) {
    this.attempts.push({ transport, outcome, ms: Math.round(ms), error: error?.message ?? '', at: new Date() });
    if (this.attempts.length > maxAttempts) this.attempts.shift();
    if (outcome === 'refused' && error) this.refusal = error;
    this.#change();
  }

  /** @param {Error & {code?: string}} error */
  #end(error) {
    if (this.phase === 'over') return;
    const { phase } = this;
    this.#finish();
    this.#calls.over(error, phase);
  }

  #finish() {
    this.phase = 'over';
    this.#stopWatching();
    this.#call.close();
  }

  // Who is who.

  /** Names of those who were here, as a leaver's is asked for after it has gone. @type {Map<string, string>} */
  #names = new Map();

  #rememberNames() {
    for (const [id, { metadata, user }] of this.#session.peers) this.#names.set(id, nameOf(metadata, user));
  }

  /** @param {{peer: string}} message */
  #greet({ peer }) {
    this.#rememberNames();
    this.#calls.notice(`${this.#names.get(peer) ?? 'Somebody'} has joined`);
    this.#change();
  }

  /** @param {{peer: string, reason: string}} message */
  #part({ peer, reason }) {
    const name = this.#names.get(peer) ?? 'Somebody';
    this.#names.delete(peer);
    this.#calls.notice(reason === 'kicked' ? `${name} was removed` : `${name} has left`);
    this.#change();
  }

  /** @param {{locked: boolean}} message */
  #tellLock({ locked }) {
    this.#calls.notice(locked ? 'The room is locked now' : 'The room is open again');
    this.#change();
  }

  /** @param {{expireMs: number}} message */
  #awaitTokenEnd({ expireMs }) {
    this.tokenEndsAt = Date.now() + expireMs;
    this.#change();
  }

  /** @param {{peer: string, user?: string, metadata?: Record<string, any>}} knock */
  #hearKnock({ peer, user = '', metadata }) {
    this.#calls.knock({ id: peer, name: nameOf(metadata, user), user });
    this.#change();
  }

  /** @param {string} id @returns {Participant} */
  #participant(id) {
    const member = this.#session.peers.get(id);
    const peer = this.#call.peers.get(id);
    const stream = peer?.remoteStream ?? null;
    const { audio, video, screen } = member?.metadata ?? {};
    return {
      id,
      name: nameOf(member?.metadata, member?.user),
      self: false,
      // Other programs need not tell: then the tracks themselves do.
      audio: typeof audio === 'boolean' ? audio : hasLive(stream?.getAudioTracks()),
      video: video !== false && hasLive(stream?.getVideoTracks()),
      screen: screen === true,
      speaking: this.#speaking.has(id),
      presence: member?.state ?? 'away',
      connection: peer?.state ?? 'new',
      stream,
    };
  }

  /** @returns {Participant} */
  #self() {
    return {
      ...selfPicture(this.#media, this.#name),
      id: this.#session.self?.peer ?? 'self',
      presence: this.phase === 'incall' ? 'here' : 'away',
    };
  }

  #metadata() {
    const { microphoneOn, video, screen } = this.#media;
    return { name: this.#name, audio: microphoneOn, video: video !== null, screen: screen !== null };
  }

  /** Many changes at once are told once. */
  #change() {
    if (this.#isTold) return;
    this.#isTold = true;
    queueMicrotask(() => {
      this.#isTold = false;
      this.#calls.changed();
    });
  }
}

/** One stream for the self view, whose track is exchanged: a new one each time would make the picture flicker. */
const selfStream = new MediaStream();

/**
 * Oneself as a participant; the stream is silent.
 * @param {LocalMedia} media
 * @param {string} name
 * @returns {Participant}
 */
export function selfPicture(media, name) {
  const { video } = media;
  for (const track of selfStream.getTracks()) if (track !== video) selfStream.removeTrack(track);
  if (video) selfStream.addTrack(video);
  return {
    id: 'self', name, self: true, audio: media.microphoneOn, video: video !== null, screen: media.screen !== null,
    speaking: false, presence: 'here', connection: 'connected', stream: selfStream,
  };
}

/**
 * @param {Record<string, any>|undefined} metadata
 * @param {string|undefined} user  from the peer's token: more to be trusted than what it calls itself
 */
function nameOf(metadata, user) {
  const name = typeof metadata?.name === 'string' ? metadata.name.trim().slice(0, 80) : '';
  return name || user || 'Guest';
}

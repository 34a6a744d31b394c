// One peer of a call: the connection with it, and another one in its place where it has died.

import { Connection } from './connection.js';
import { Milestones } from './milestones.js';
import { fingerprintOf } from './sdp.js';

/**
 * @import { Milestone } from './milestones.js'
 * @import { NegotiationCalls } from './negotiation.js'
 * @import { ConnectionSettings } from './connection.js'
 *
 * @typedef {NegotiationCalls & {
 *   tookTrack: () => void,
 *   changedState: () => void,
 *   chatted: (text: string) => void,
 *   reached: (milestone: Milestone) => void,
 * }} PeerCalls
 */

/** Chat texts that wait for the channel to open. */
const maxEarlyTexts = 64;
/** From the beginning of one connection to that of the next, so that two who cannot agree do not do nothing else. */
const anewMs = 5_000;

export class CallPeer {
  /** The peer's id. @type {string} */
  id;
  /** What the peer sends: always the same stream, its tracks come and go. @type {MediaStream} */
  remoteStream = new MediaStream();
  #calls;
  #settings;
  #milestones;
  #connection;
  #begunAt = performance.now();
  /** @type {ReturnType<typeof setTimeout>|undefined} */
  #anewTimer;
  /** The peer's certificate in this connection, as soon as it is known, and in the one before. @type {{now?: string, before?: string}} */
  #certificate = {};
  /** What is sent, by kind. @type {Map<string, {track: MediaStreamTrack|null, stream: MediaStream|null}>} */
  #tracks = new Map();
  /** @type {string[]} */
  #earlyTexts = [];

  /**
   * @param {string} id
   * @param {Omit<ConnectionSettings, 'mayOffer'>} settings
   * @param {PeerCalls} calls
   */
  constructor(id, settings, calls) {
    this.id = id;
    this.#settings = settings;
    this.#calls = calls;
    this.#milestones = new Milestones(calls);
    this.#connection = this.#connect(settings.polite);
  }

  /** @param {boolean} mayOffer */
  #connect(mayOffer) {
    const connection = new Connection({ ...this.#settings, mayOffer }, {
      ...this.#calls,
      tookTrack: (track) => this.#take(track),
      died: () => this.#planAnew(),
      opened: () => this.#sendEarlyTexts(),
    });
    this.#milestones.watch(connection.pc);
    for (const [kind, { track, stream }] of this.#tracks) {
      connection.setTrack(kind, track, stream).catch(this.#calls.failed);
    }
    return connection;
  }

  /** The connection now. @returns {RTCPeerConnection} */
  get pc() {
    return this.#connection.pc;
  }

  /** Its data channel, or null where none was asked for. @returns {RTCDataChannel|null} */
  get channel() {
    return this.#connection.channel;
  }

  /** @returns {RTCPeerConnectionState} */
  get state() {
    return this.pc.connectionState;
  }

  /**
   * Each connection has a certificate of its own (if the application gives none to all), by which it is known: an offer with
   * another one is of a connection that the peer has begun in place of a dead one, and what still comes of that is nothing.
   * @param {RTCSessionDescriptionInit} description
   */
  receiveDescription(description) {
    const certificate = fingerprintOf(description);
    if (certificate !== undefined) {
      const { now, before } = this.#certificate;
      const isOther = now !== undefined && certificate !== now;
      if (certificate === before || (isOther && description.type !== 'offer')) return;
      if (isOther) this.#beginAnew({ mayOffer: false });
      this.#certificate.now = certificate;
    }
    this.#connection.receiveDescription(description);
  }

  /** @param {RTCIceCandidateInit|null} candidate */
  receiveCandidate(candidate) {
    // The end of the candidates of the connection before is not the end of this one's.
    const { now, before } = this.#certificate;
    if (candidate === null && now === undefined && before !== undefined) return;
    this.#connection.receiveCandidate(candidate);
  }

  /** Signals reach the peer again. @param {{lost: boolean}} how whether some may have been lost for good */
  nudge(how) {
    this.#connection.nudge(how);
  }

  /** The connection has died; the peer learns of the next one by its offer. */
  #planAnew() {
    clearTimeout(this.#anewTimer);
    const ms = Math.max(0, this.#begunAt + anewMs - performance.now());
    this.#anewTimer = setTimeout(() => this.#beginAnew({ mayOffer: true }), ms);
  }

  /** @param {{mayOffer: boolean}} how */
  #beginAnew({ mayOffer }) {
    this.#disconnect();
    this.#certificate = { before: this.#certificate.now };
    this.#begunAt = performance.now();
    this.#connection = this.#connect(mayOffer);
    this.#calls.changedState();
  }

  /**
   * Uses these from now on; a connection by relay gathers anew with them.
   * @param {RTCIceServer[]} iceServers
   */
  async setIceServers(iceServers) {
    this.#settings = { ...this.#settings, rtcConfig: { ...this.#settings.rtcConfig, iceServers } };
    await this.#connection.setIceServers(iceServers);
  }

  /**
   * Sends this track of its kind from now on; negotiates only where none of its kind was sent before.
   * @param {string} kind
   * @param {MediaStreamTrack|null} track
   * @param {MediaStream|null} stream  that it belongs to
   */
  async setTrack(kind, track, stream) {
    this.#tracks.set(kind, { track, stream });
    await this.#connection.setTrack(kind, track, stream);
  }

  /** @param {MediaStreamTrack} track */
  #take(track) {
    this.remoteStream.addTrack(track);
    track.addEventListener('ended', () => this.remoteStream.removeTrack(track));
    this.#calls.tookTrack();
  }

  /**
   * @param {string} text waits for the channel to open, where it is about to
   * @throws {Error} where there is no channel, it is closed, or too much waits
   */
  sendText(text) {
    const state = this.channel?.readyState;
    if (state === 'open') return this.channel?.send(text);
    if (state !== 'connecting' || this.#earlyTexts.length >= maxEarlyTexts) {
      throw new Error(`the data channel is ${state ?? 'not there'}`);
    }
    this.#earlyTexts.push(text);
  }

  #sendEarlyTexts() {
    for (const text of this.#earlyTexts.splice(0)) this.channel?.send(text);
  }

  close() {
    this.#milestones.close();
    this.#disconnect();
  }

  #disconnect() {
    clearTimeout(this.#anewTimer);
    this.#connection.close();
    // Tracks that end with their connection do not say so.
    for (const track of this.remoteStream.getTracks()) this.remoteStream.removeTrack(track);
  }
}

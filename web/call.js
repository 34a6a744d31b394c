/**
 * Calls over a wigwag session: one RTCPeerConnection with each peer in the room.
 *
 * ```js
 * import { connect } from '/wigwag.js';
 * import { Call } from '/call.js';
 * const session = connect({ room: 'demo' });
 * const call = new Call(session, { stream: await navigator.mediaDevices.getUserMedia({ audio: true, video: true }) });
 * call.addEventListener('stream', ({ detail: { peer, stream } }) => { videoOf(peer).srcObject = stream; });
 * ```
 *
 * The loss of the signaling connection never ends a media connection; only the peer's leaving does, or `close`.
 */

import { CallPeer } from './call/peer.js';
import { Emitter } from './wigwag/emitter.js';

/** @import { Session } from './wigwag/session.js' */

export { CallPeer };

/**
 * What a call uses of a session.
 * @typedef {Pick<Session, 'state'|'peers'|'iceServers'|'description'|'candidate'|'milestone'|'addEventListener'>} Signaling
 *
 * @typedef {object} CallOptions
 * @property {MediaStream|null} [stream]      what to send: its first audio and its first video track
 * @property {RTCConfiguration} [rtcConfig]   ICE servers in it are used beside the server's
 * @property {string|null} [dataChannel]      label of a data channel for `sendChat`; the peers must have one, too
 *
 * The events by name, with what stands in their `detail`.
 * @typedef {{
 *   peer: CallPeer,
 *   peergone: CallPeer,
 *   stream: {peer: CallPeer, stream: MediaStream},
 *   state: {peer: CallPeer, state: RTCPeerConnectionState},
 *   chat: {peer: CallPeer, text: string, at: Date},
 *   error: {peer: CallPeer, error: unknown},
 * }} CallEvents
 */

const kinds = ['audio', 'video'];

/** @extends {Emitter<CallEvents>} */
export class Call extends Emitter {
  /** By their ids. @type {Map<string, CallPeer>} */
  peers = new Map();
  #session;
  #rtcConfig;
  #dataChannel;
  /** What is sent, by kind. @type {Map<string, MediaStreamTrack>} */
  #tracks = new Map();
  /** The stream that the tracks are announced with, so that the other side plays them in step. @type {MediaStream} */
  #stream = new MediaStream();
  /** Ends the listening to the session. */
  #stop = new AbortController();

  /**
   * @param {Signaling} session
   * @param {CallOptions} [options]
   */
  constructor(session, { stream = null, rtcConfig = {}, dataChannel = null } = {}) {
    super();
    this.#session = session;
    this.#rtcConfig = rtcConfig;
    this.#dataChannel = dataChannel;
    this.setStream(stream);
    this.#listen();
    // The application gets the time to add its listeners.
    queueMicrotask(() => this.#meetAll());
  }

  #listen() {
    const { signal } = this.#stop;
    /** @type {Signaling['addEventListener']} */
    const on = (name, listener) => this.#session.addEventListener(name, listener, { signal });
    on('joined', ({ detail }) => {
      this.#meetAll();
      this.#nudgeAll({ lost: detail.lost > 0 });
    });
    on('resumed', () => this.#nudgeAll({ lost: false }));
    on('wake', () => this.#nudgeAll({ lost: false }));
    on('peerjoined', ({ detail }) => this.#meet(detail.peer));
    on('peerback', ({ detail }) => this.peers.get(detail.peer)?.nudge({ lost: false }));
    on('peerleft', ({ detail }) => this.#part(detail.peer));
    on('description', ({ detail }) => this.#meet(detail.from)?.receiveDescription(detail.description));
    on('candidate', ({ detail }) => this.#meet(detail.from)?.receiveCandidate(detail.candidate));
    on('iceservers', () => this.#renewIceServers());
  }

  /**
   * Sends this stream's first audio and first video track to everybody, from now on, instead of what was sent before.
   * @param {MediaStream|null} stream
   */
  setStream(stream) {
    const tracks = stream?.getTracks() ?? [];
    for (const kind of kinds) this.replaceTrack(kind, tracks.find((track) => track.kind === kind) ?? null);
  }

  /**
   * Sends this track to everybody instead of the one of its kind: without a new negotiation wherever one of its kind was
   * sent before.
   * @param {string} kind `audio` or `video`
   * @param {MediaStreamTrack|null} track null: nothing, until the next call
   */
  replaceTrack(kind, track) {
    if (track !== null && track.kind !== kind) throw new TypeError(`the track is ${track.kind}, not ${kind}`);
    const before = this.#tracks.get(kind);
    if (before) this.#stream.removeTrack(before);
    if (track) {
      this.#tracks.set(kind, track);
      this.#stream.addTrack(track);
    } else {
      this.#tracks.delete(kind);
    }
    for (const peer of this.peers.values()) this.#setTrack(peer, kind, track);
  }

  /** @param {CallPeer} peer @param {string} kind @param {MediaStreamTrack|null} track */
  #setTrack(peer, kind, track) {
    peer.setTrack(kind, track, this.#stream).catch((error) => this.emit('error', { peer, error }));
  }

  /**
   * Sends a text to all peers by data channel; to those whose channel is about to open, when it does.
   * @param {string} text
   */
  sendChat(text) {
    for (const peer of this.peers.values()) {
      try {
        peer.sendText(text);
      } catch (error) {
        this.emit('error', { peer, error });
      }
    }
  }

  /** Ends all connections. The session goes on. */
  close() {
    this.#stop.abort();
    for (const id of [...this.peers.keys()]) this.#part(id);
  }

  #meetAll() {
    for (const id of this.#session.peers.keys()) this.#meet(id);
  }

  /**
   * @param {string} id
   * @returns {CallPeer|undefined} nothing where no such peer is in the room
   */
  #meet(id) {
    const known = this.peers.get(id);
    const member = this.#session.peers.get(id);
    if (known || !member || this.#stop.signal.aborted) return known;
    const peer = new CallPeer(id, {
      polite: member.polite,
      rtcConfig: { ...this.#rtcConfig, iceServers: this.#iceServers() },
      dataChannel: this.#dataChannel,
    }, this.#callsOf(id));
    this.peers.set(id, peer);
    for (const [kind, track] of this.#tracks) this.#setTrack(peer, kind, track);
    this.emit('peer', peer);
    return peer;
  }

  /**
   * @param {string} id
   * @returns {import('./call/peer.js').PeerCalls}
   */
  #callsOf(id) {
    const withPeer = (/** @type {(peer: CallPeer) => void} */ call) => {
      const peer = this.peers.get(id);
      if (peer) call(peer);
    };
    return {
      sendDescription: (description) => this.#session.description(id, description),
      sendCandidate: (candidate) => this.#session.candidate(id, candidate),
      reachable: () => this.#session.state === 'open' && this.#session.peers.get(id)?.state === 'here',
      failed: (error) => withPeer((peer) => this.emit('error', { peer, error })),
      tookTrack: () => withPeer((peer) => this.emit('stream', { peer, stream: peer.remoteStream })),
      changedState: () => withPeer((peer) => this.emit('state', { peer, state: peer.state })),
      // For the operator alone: nothing depends on it, and nobody need hear that it was refused.
      reached: (milestone) => { this.#session.milestone(id, milestone).catch(() => {}); },
      chatted: (text) => withPeer((peer) => this.emit('chat', { peer, text, at: new Date() })),
    };
  }

  /** @param {string} id */
  #part(id) {
    const peer = this.peers.get(id);
    if (peer === undefined) return;
    this.peers.delete(id);
    peer.close();
    this.emit('peergone', peer);
  }

  /** @param {{lost: boolean}} how */
  #nudgeAll(how) {
    for (const peer of this.peers.values()) peer.nudge(how);
  }

  #iceServers() {
    return [...(this.#rtcConfig.iceServers ?? []), ...this.#session.iceServers];
  }

  #renewIceServers() {
    for (const peer of this.peers.values()) peer.setIceServers(this.#iceServers());
  }
}

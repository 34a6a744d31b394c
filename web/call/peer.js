// The connection with one peer: media, a data channel, negotiation and recovery.

import { chosenPath } from './path.js';
import { Negotiation } from './negotiation.js';
import { Recovery } from './recovery.js';

/**
 * @import { NegotiationCalls } from './negotiation.js'
 *
 * @typedef {NegotiationCalls & {
 *   tookTrack: () => void,
 *   changedState: () => void,
 *   chatted: (text: string) => void,
 * }} PeerCalls
 */

/** Both sides open the channel under this id, so that no side need be the one to open it. */
const channelId = 64;
/** Chat texts that wait for the channel to open. */
const maxEarlyTexts = 64;

export class CallPeer {
  /** The peer's id. @type {string} */
  id;
  /** @type {RTCPeerConnection} */
  pc;
  /** What the peer sends: always the same stream, its tracks come and go. @type {MediaStream} */
  remoteStream = new MediaStream();
  /** The data channel, or null where none was asked for. @type {RTCDataChannel|null} */
  channel = null;
  #calls;
  #negotiation;
  #recovery;
  /** @type {Map<string, RTCRtpSender>} */
  #senders = new Map();
  /** @type {string[]} */
  #earlyTexts = [];

  /**
   * @param {string} id
   * @param {object} settings
   * @param {boolean} settings.polite
   * @param {RTCConfiguration} settings.rtcConfig
   * @param {string|null} settings.dataChannel  its label
   * @param {PeerCalls} calls
   */
  constructor(id, { polite, rtcConfig, dataChannel }, calls) {
    this.id = id;
    this.#calls = calls;
    this.pc = new RTCPeerConnection(rtcConfig);
    this.#negotiation = new Negotiation(this.pc, polite, calls);
    this.#recovery = new Recovery(this.pc, polite, calls.reachable);
    this.pc.addEventListener('connectionstatechange', () => calls.changedState());
    this.pc.addEventListener('track', ({ track }) => this.#take(track));
    if (dataChannel !== null) this.#openChannel(dataChannel);
  }

  /** @returns {RTCPeerConnectionState} */
  get state() {
    return this.pc.connectionState;
  }

  /** @param {RTCSessionDescriptionInit} description */
  receiveDescription(description) {
    this.#negotiation.receiveDescription(description);
  }

  /** @param {RTCIceCandidateInit|null} candidate */
  receiveCandidate(candidate) {
    this.#negotiation.receiveCandidate(candidate);
  }

  /** Signals reach the peer again. @param {{lost: boolean}} how whether some may have been lost for good */
  nudge({ lost }) {
    if (lost) this.#negotiation.repeat();
    this.#recovery.nudge();
  }

  /**
   * Uses these from now on; a connection by relay gathers anew with them.
   * @param {RTCIceServer[]} iceServers
   */
  async setIceServers(iceServers) {
    this.pc.setConfiguration({ ...this.pc.getConfiguration(), iceServers });
    const { local } = await chosenPath(this.pc);
    if (local?.candidateType === 'relay' && this.pc.signalingState !== 'closed') this.#recovery.renew();
  }

  /**
   * Sends this track of its kind from now on; negotiates only where none of its kind was sent before.
   * @param {string} kind
   * @param {MediaStreamTrack|null} track
   * @param {MediaStream|null} stream  that it belongs to
   */
  async setTrack(kind, track, stream) {
    const sender = this.#senders.get(kind);
    if (sender === undefined) return this.#addTrack(track, stream);
    try {
      await sender.replaceTrack(track);
    } catch (error) {
      if (/** @type {any} */ (error)?.name !== 'InvalidModificationError') throw error;
      // Another codec or size than was negotiated: a new negotiation may agree on it.
      this.pc.removeTrack(sender);
      this.#addTrack(track, stream);
    }
  }

  /** @param {MediaStreamTrack|null} track @param {MediaStream|null} stream */
  #addTrack(track, stream) {
    if (track === null) return;
    this.#senders.set(track.kind, this.pc.addTrack(track, ...(stream ? [stream] : [])));
  }

  /** @param {MediaStreamTrack} track */
  #take(track) {
    this.remoteStream.addTrack(track);
    track.addEventListener('ended', () => this.remoteStream.removeTrack(track));
    this.#calls.tookTrack();
  }

  /** @param {string} label */
  #openChannel(label) {
    const channel = this.pc.createDataChannel(label, { negotiated: true, id: channelId });
    this.channel = channel;
    channel.addEventListener('open', () => {
      for (const text of this.#earlyTexts.splice(0)) channel.send(text);
    });
    channel.addEventListener('message', ({ data }) => {
      if (typeof data === 'string') this.#calls.chatted(data);
    });
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

  close() {
    this.#negotiation.close();
    this.#recovery.close();
    this.pc.close();
  }
}

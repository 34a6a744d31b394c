// One RTCPeerConnection with a peer: what is sent over it, its negotiation and its recovery.

import { chosenPath } from './path.js';
import { Negotiation } from './negotiation.js';
import { Recovery } from './recovery.js';

/**
 * @import { NegotiationCalls } from './negotiation.js'
 *
 * @typedef {NegotiationCalls & {
 *   tookTrack: (track: MediaStreamTrack) => void,
 *   changedState: () => void,
 *   died: () => void,
 *   opened: () => void,
 *   chatted: (text: string) => void,
 * }} ConnectionCalls
 *
 * @typedef {object} ConnectionSettings
 * @property {boolean} polite
 * @property {boolean} mayOffer            whether the first offer may be this side's at once
 * @property {RTCConfiguration} rtcConfig
 * @property {string|null} dataChannel     label of its data channel; null: it has none
 */

/** Both sides open the channel under this id, so that no side need be the one to open it. */
const channelId = 64;

export class Connection {
  pc;
  /** @type {RTCDataChannel|null} */
  channel;
  #negotiation;
  #recovery;
  /** @type {Map<string, RTCRtpSender>} */
  #senders = new Map();

  /** @param {ConnectionSettings} settings @param {ConnectionCalls} calls */
  constructor({ polite, mayOffer, rtcConfig, dataChannel }, calls) {
    this.pc = new RTCPeerConnection(rtcConfig);
    this.#negotiation = new Negotiation(this.pc, { polite, mayOffer }, calls);
    this.#recovery = new Recovery(this.pc, polite, calls);
    this.pc.addEventListener('connectionstatechange', () => calls.changedState());
    this.pc.addEventListener('track', ({ track }) => calls.tookTrack(track));
    this.channel = dataChannel === null ? null : this.#openChannel(dataChannel, calls);
  }

  /** @param {string} label @param {ConnectionCalls} calls */
  #openChannel(label, calls) {
    const channel = this.pc.createDataChannel(label, { negotiated: true, id: channelId });
    channel.addEventListener('open', () => calls.opened());
    channel.addEventListener('message', ({ data }) => {
      if (typeof data === 'string') calls.chatted(data);
    });
    return channel;
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

  /** @param {RTCIceServer[]} iceServers used from now on; a connection by relay gathers anew with them */
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

  close() {
    this.#negotiation.close();
    this.#recovery.close();
    this.pc.close();
  }
}

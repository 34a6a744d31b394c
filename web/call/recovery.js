// Decides when to restart ICE with one peer, and when only another connection helps.

import { fragmentOf } from './sdp.js';

/** ICE often recovers from `disconnected` by itself within this time. */
const graceMs = 3_000;
/** Checks that lead neither to a connection nor to a failure: Firefox may wait for a nomination for ever. */
const checkingMs = 10_000;
/** The polite side restarts first; the other only if that has not helped. */
const impoliteLagMs = 1_500;
/** With fresh credentials as well: long enough for the polite side's restart to have been answered. */
const impoliteRenewalMs = 5_000;
/** Between restarts that do not help: doubles up to the longest. */
const againMs = 4_000;
const againCapMs = 30_000;

export class Recovery {
  #pc;
  #polite;
  #reachable;
  #died;
  #restarts = 0;
  /** @type {ReturnType<typeof setTimeout>|undefined} */
  #timer;
  /** @type {ReturnType<typeof setTimeout>|undefined} */
  #renewalTimer;

  /**
   * @param {RTCPeerConnection} pc
   * @param {boolean} polite
   * @param {object} calls
   * @param {() => boolean} calls.reachable  whether signals reach the peer now: else a restart waits for `nudge`
   * @param {() => void} calls.died          the connection will not come back, whatever ICE does
   */
  constructor(pc, polite, { reachable, died }) {
    this.#pc = pc;
    this.#polite = polite;
    this.#reachable = reachable;
    this.#died = died;
    for (const change of ['iceconnectionstatechange', 'connectionstatechange']) pc.addEventListener(change, () => this.#look());
  }

  /** Signals reach the peer again, or the network has changed: looks at the connection now. */
  nudge() {
    if (this.#isHealthy() || this.#pc.remoteDescription === null) return;
    this.#restarts = 0;
    // Checks under way may yet succeed.
    this.#plan(this.#pc.iceConnectionState === 'checking' ? graceMs : 0);
  }

  /**
   * There are fresh credentials for the relay that media go by; it lets them go when the old ones end. A restart has both
   * sides gather anew, and both may be told at one moment, so the impolite side leaves it to the other for a while.
   */
  renew() {
    const before = fragmentOf(this.#pc.localDescription);
    clearTimeout(this.#renewalTimer);
    this.#renewalTimer = setTimeout(() => {
      if (fragmentOf(this.#pc.localDescription) === before) this.#pc.restartIce();
    }, this.#polite ? 0 : impoliteRenewalMs);
  }

  close() {
    clearTimeout(this.#timer);
    clearTimeout(this.#renewalTimer);
  }

  #isHealthy() {
    return ['connected', 'completed'].includes(this.#pc.iceConnectionState);
  }

  /** A failure of DTLS is final (WebRTC 1.0, 5.5.1). Firefox's fails, rarely, where a restart of ICE leaves it without a path. */
  #isDead() {
    const users = [...this.#pc.getSenders(), ...this.#pc.getReceivers(), this.#pc.sctp];
    return this.#pc.connectionState === 'failed' && users.some((user) => user?.transport?.state === 'failed');
  }

  #look() {
    if (this.#isDead()) return this.#died();
    switch (this.#pc.iceConnectionState) {
      case 'connected':
      case 'completed':
        this.#restarts = 0;
        return clearTimeout(this.#timer);
      case 'failed':
        return this.#plan(this.#restarts === 0 ? 0 : this.#pauseMs());
      case 'disconnected':
        return this.#plan(graceMs);
      case 'checking':
        return this.#plan(checkingMs);
      default: // `new` leads on, `closed` is the end.
    }
  }

  #pauseMs() {
    return Math.min(againCapMs, againMs * 2 ** (this.#restarts - 1));
  }

  /** @param {number} ms */
  #plan(ms) {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#restart(), ms + (this.#polite ? 0 : impoliteLagMs));
  }

  #restart() {
    const isOver = this.#isHealthy() || this.#pc.signalingState === 'closed';
    if (isOver || !this.#reachable()) return;
    this.#restarts += 1;
    this.#pc.restartIce();
    // In case that nothing comes of it, not even a change of state.
    this.#plan(this.#pauseMs());
  }
}

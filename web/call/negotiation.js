// W3C "perfect negotiation" (WebRTC 1.0, section 10.7) with one peer.
//
// Every step, own offers and received signals alike, runs after the one before it has ended. So what `signalingState`
// says at the start of a step holds, and the pattern's flags for steps that overlap are not needed: an offer that comes
// while one's own is unanswered is a collision, and there is no other kind.

import { fragmentOf, originOf, withAgreedRole } from './sdp.js';

/** Candidates kept for a description that has not come yet. */
const maxEarlyCandidates = 128;
/** The impolite side leaves the first offer to the polite one for this long. */
const firstOfferMs = 3_000;
/** From a restart of ICE that a crossing has rolled back to the next: what was agreed on instead has a path by then, if it ever has. */
const restartAgainMs = 2_000;
/** An offer is sent again when it has no answer after this long, which doubles each time up to the longest. */
const answerMs = 10_000;
const answerCapMs = 60_000;
/** Tries to send one signal, and the first wait between them where the server has asked for none. */
const maxSends = 5;
const resendMs = 500;

/** Refusals of a signal that may be over soon. */
const transient = new Set(['queueFull', 'rateLimited', 'internal', 'timeout', 'goingAway']);
/** Ends that the session tells on its own. */
const told = new Set(['peerGone', 'resumeExpired', 'left', 'kicked', 'replaced']);

/**
 * @typedef {object} NegotiationCalls
 * @property {(description: RTCSessionDescriptionInit) => Promise<void>} sendDescription
 * @property {(candidate: RTCIceCandidateInit|null) => Promise<void>} sendCandidate
 * @property {() => boolean} reachable   whether signals reach the peer now; else they wait for it in the server
 * @property {(error: unknown) => void} failed
 */

export class Negotiation {
  #pc;
  #polite;
  #calls;
  /** The steps so far. */
  #steps = Promise.resolve();
  /** The browser has asked for an offer since the last one. */
  #isNeeded = false;
  /** The first offer of all is the polite side's. */
  #mayOffer;
  /** The last offer received was ignored, and so its candidates fit nothing. */
  #isIgnoring = false;
  /** @type {(RTCIceCandidateInit|null)[]} */
  #early = [];
  #isClosed = false;
  /** @type {ReturnType<typeof setTimeout>|undefined} */
  #firstOfferTimer;
  /** @type {ReturnType<typeof setTimeout>|undefined} */
  #answerTimer;
  /** @type {ReturnType<typeof setTimeout>|undefined} */
  #restartTimer;

  /**
   * @param {RTCPeerConnection} pc
   * @param {{polite: boolean, mayOffer: boolean}} role  `mayOffer`: the first offer may be this side's at once
   * @param {NegotiationCalls} calls
   */
  constructor(pc, { polite, mayOffer }, calls) {
    this.#pc = pc;
    this.#polite = polite;
    this.#mayOffer = mayOffer;
    this.#calls = calls;
    pc.addEventListener('negotiationneeded', () => this.#onNeeded());
    pc.addEventListener('icecandidate', ({ candidate }) => this.#sendCandidate(candidate?.toJSON() ?? null));
  }

  /** @param {RTCSessionDescriptionInit} description that the peer has sent */
  receiveDescription(description) {
    this.#step(() => this.#takeDescription(description));
  }

  /** @param {RTCIceCandidateInit|null} candidate that the peer has sent; null: there are no more */
  receiveCandidate(candidate) {
    this.#step(() => this.#takeCandidate(candidate));
  }

  /** Something signaled may be lost for good: says again what awaits an answer. */
  repeat() {
    if (this.#pc.signalingState === 'have-local-offer') this.#step(() => this.#sendLocalDescription());
  }

  close() {
    this.#isClosed = true;
    clearTimeout(this.#firstOfferTimer);
    clearTimeout(this.#answerTimer);
    clearTimeout(this.#restartTimer);
  }

  /** @param {() => Promise<void>|void} run */
  #step(run) {
    this.#steps = this.#steps.then(async () => {
      if (this.#isClosed) return;
      try {
        await run();
      } catch (error) {
        if (!this.#isClosed) this.#calls.failed(error);
      }
    });
  }

  // One's own offers.

  #onNeeded() {
    this.#isNeeded = true;
    if (this.#mayOffer) this.#step(() => this.#offer());
    else this.#awaitFirstOffer();
  }

  /** A polite side that has nothing to send makes no offer: then this one does. */
  #awaitFirstOffer() {
    clearTimeout(this.#firstOfferTimer);
    this.#firstOfferTimer = setTimeout(() => {
      if (!this.#calls.reachable()) return this.#awaitFirstOffer();
      this.#mayOffer = true;
      this.#step(() => this.#offer());
    }, firstOfferMs);
  }

  async #offer() {
    // Outside `stable` the browser asks again as soon as it is back there.
    if (!this.#isNeeded || this.#pc.signalingState !== 'stable') return;
    this.#isNeeded = false;
    await this.#pc.setLocalDescription();
    this.#sendLocalDescription();
    this.#awaitAnswer(answerMs);
  }

  /** @param {number} ms */
  #awaitAnswer(ms) {
    clearTimeout(this.#answerTimer);
    this.#answerTimer = setTimeout(() => {
      if (this.#pc.signalingState !== 'have-local-offer') return;
      if (this.#calls.reachable()) this.repeat();
      this.#awaitAnswer(Math.min(2 * ms, answerCapMs));
    }, ms);
  }

  // What the peer sends.

  /** @param {RTCSessionDescriptionInit} description */
  async #takeDescription(description) {
    if (!this.#accepts(description)) return;
    this.#mayOffer = true;
    clearTimeout(this.#firstOfferTimer);
    if (description.type === 'offer') await this.#answer(description);
    else await this.#pc.setRemoteDescription(description);
    await this.#addEarly();
  }

  /** @param {RTCSessionDescriptionInit} description */
  #accepts({ type }) {
    const state = this.#pc.signalingState;
    switch (type) {
      case 'offer':
        this.#isIgnoring = state !== 'stable' && !this.#polite;
        return !this.#isIgnoring;
      case 'answer':
      case 'pranswer':
        // In any other state it answers an offer that has been rolled back, or answers again.
        if (state !== 'have-local-offer' && state !== 'have-remote-pranswer') return false;
        this.#isIgnoring = false;
        return true;
      default: // An offer is answered in the step that takes it, so none is left that the peer could take back.
        return false;
    }
  }

  /** @param {RTCSessionDescriptionInit} offer */
  async #answer(offer) {
    const { currentLocalDescription: local, currentRemoteDescription: remote, localDescription } = this.#pc;
    const isRestart = local !== null && fragmentOf(offer) !== fragmentOf(remote);
    const isCrossed = isRestart && fragmentOf(localDescription) !== fragmentOf(local);
    // From have-local-offer this rolls one's own offer back first.
    await this.#pc.setRemoteDescription(withAgreedRole(offer, { local, remote }));
    // What is still needed after the answer, the browser asks for anew.
    this.#isNeeded = false;
    try {
      await this.#pc.setLocalDescription();
    } catch (error) {
      await this.#pc.setRemoteDescription({ type: 'rollback' });
      throw error;
    }
    this.#sendLocalDescription();
    if (isCrossed) this.#restartAgain();
  }

  /**
   * The answer has restarted ICE for both, but Firefox, having rolled a restart of its own back, may never use what it agrees
   * on with Chromium. Another restart, with nothing to roll back, mends that. Not at once: a restart that comes before the last
   * one has found a path leaves Firefox without any, and the data channel's next packet then ends its DTLS for good.
   */
  #restartAgain() {
    const agreed = fragmentOf(this.#pc.localDescription);
    clearTimeout(this.#restartTimer);
    this.#restartTimer = setTimeout(() => {
      if (fragmentOf(this.#pc.localDescription) === agreed) this.#pc.restartIce();
    }, restartAgainMs);
  }

  /** @param {RTCIceCandidateInit|null} candidate */
  async #takeCandidate(candidate) {
    if (this.#isEarly(candidate)) {
      // Without a fragment it may belong to the offer that is ignored.
      if (!this.#isIgnoring || candidate?.usernameFragment) this.#early.push(candidate);
      if (this.#early.length > maxEarlyCandidates) this.#early.shift();
      return;
    }
    try {
      await this.#pc.addIceCandidate(candidate ?? undefined);
    } catch (error) {
      if (!this.#isIgnoring) throw error;
    }
  }

  /** Whether the description it belongs to has not come yet. @param {RTCIceCandidateInit|null} candidate */
  #isEarly(candidate) {
    const sdp = this.#pc.remoteDescription?.sdp;
    if (sdp === undefined) return true;
    const fragment = candidate?.usernameFragment;
    return Boolean(fragment) && !sdp.split(/\r?\n/).includes(`a=ice-ufrag:${fragment}`);
  }

  async #addEarly() {
    const candidates = this.#early;
    this.#early = candidates.filter((candidate) => this.#isEarly(candidate));
    for (const candidate of candidates) if (!this.#early.includes(candidate)) await this.#takeCandidate(candidate);
  }

  // Sending.

  #sendLocalDescription() {
    const origin = originOf(this.#pc.localDescription);
    this.#deliver(
      // Read at each try: by then it may hold candidates that went out before it.
      () => this.#calls.sendDescription(/** @type {RTCSessionDescription} */ (this.#pc.localDescription).toJSON()),
      () => originOf(this.#pc.localDescription) === origin,
    );
  }

  /** @param {RTCIceCandidateInit|null} candidate */
  #sendCandidate(candidate) {
    const origin = originOf(this.#pc.localDescription);
    this.#deliver(
      () => this.#calls.sendCandidate(candidate),
      () => originOf(this.#pc.localDescription) === origin,
    );
  }

  /**
   * @param {() => Promise<void>} send
   * @param {() => boolean} isCurrent whether it still makes sense
   */
  async #deliver(send, isCurrent) {
    for (let count = 1; ; count += 1) {
      try {
        return await send();
      } catch (/** @type {any} */ error) {
        if (this.#isClosed || told.has(error?.code)) return;
        if (count === maxSends || !transient.has(error?.code)) return this.#calls.failed(error);
        const waitMs = error.retryAfterMs ?? resendMs * 2 ** count;
        await new Promise((resolve) => setTimeout(resolve, waitMs));
        if (this.#isClosed || !isCurrent()) return;
      }
    }
  }
}

// What this side knows of its connection with a peer and the server cannot: that ICE has found a path, that media arrive, that it
// failed. Told for the operator, who is asked why a call has not come about.

import { chosenOf, statsOf } from './path.js';

/** A connection that has found no path for this long counts as failed, whatever ICE may still try. */
const patienceMs = 15_000;
/** From the connection to the second look for media. The waits grow with the time that has passed, and so does the error of what is told. */
const lookMs = 50;
const lookGrowth = 1.25;
const lookCapMs = 5_000;
/** The server takes no more, and nobody waits for as long. */
const mostMs = 24 * 3_600_000;

/** Of candidates, the one that reaches farthest first. */
const farthest = ['relay', 'srflx', 'prflx', 'host'];

/**
 * @typedef {object} Milestone
 * @property {'connected'|'media'|'failed'} milestone
 * @property {string} [candidateType]  of the local candidate in use; of a connection that failed the one that reaches farthest
 * @property {number} afterMs          since the first connection was begun, or since there was something to be received, if that came later
 */

export class Milestones {
  #calls;
  /** The connection now; in place of a dead one comes another. @type {RTCPeerConnection|null} */
  #pc = null;
  #begunAt = performance.now();
  /** From where the first media are counted. */
  #mediaSince = this.#begunAt;
  #hasTrack = false;
  /** It was told so, and not that it has failed since. */
  #isConnected = false;
  #hasFailed = false;
  /** The types of the candidates that this side has gathered. @type {Set<string|null>} */
  #gathered = new Set();
  #isLooking = false;
  #isClosed = false;
  /** @type {ReturnType<typeof setTimeout>|undefined} */
  #patience;
  /** @type {ReturnType<typeof setTimeout>|undefined} */
  #nextLook;

  /**
   * @param {object} calls
   * @param {(milestone: Milestone) => void} calls.reached  `connected` and `failed` in turns, `media` once
   * @param {() => boolean} calls.reachable                 whether the peer is there: that the connection to one who has gone fails is no news
   */
  constructor(calls) {
    this.#calls = calls;
  }

  /** @param {RTCPeerConnection} pc that has just been made, in place of the one before */
  watch(pc) {
    this.#pc = pc;
    pc.addEventListener('connectionstatechange', () => this.#onState(pc));
    pc.addEventListener('icecandidate', ({ candidate }) => this.#gathered.add(candidate?.type ?? null));
    pc.addEventListener('track', () => this.#onTrack());
  }

  close() {
    this.#isClosed = true;
    clearTimeout(this.#patience);
    clearTimeout(this.#nextLook);
  }

  /** @param {RTCPeerConnection} pc */
  #onState(pc) {
    if (pc !== this.#pc) return;
    switch (pc.connectionState) {
      case 'connecting':
        this.#patience ??= setTimeout(() => this.#fail(), patienceMs);
        return;
      case 'connected':
        this.#calmDown();
        return this.#connect();
      case 'failed':
        this.#calmDown();
        return this.#fail();
      default: // `disconnected` leads on to one of the others.
    }
  }

  #calmDown() {
    clearTimeout(this.#patience);
    this.#patience = undefined;
  }

  async #connect() {
    if (this.#isConnected) return;
    this.#isConnected = true;
    this.#hasFailed = false;
    const afterMs = this.#since(this.#begunAt);
    const { local } = chosenOf(await this.#stats());
    // It may have failed meanwhile, and that was told.
    if (!this.#isConnected) return;
    this.#tell({ milestone: 'connected', candidateType: local?.candidateType, afterMs });
    this.#lookOn();
  }

  #fail() {
    if (this.#hasFailed || this.#isClosed || !this.#calls.reachable()) return;
    this.#hasFailed = true;
    this.#isConnected = false;
    const candidateType = farthest.find((type) => this.#gathered.has(type));
    this.#tell({ milestone: 'failed', candidateType, afterMs: this.#since(this.#begunAt) });
  }

  #onTrack() {
    if (this.#hasTrack) return;
    this.#hasTrack = true;
    // What the peer begins to send later on, nobody has waited for until now.
    if (this.#isConnected) this.#mediaSince = performance.now();
    this.#lookOn();
  }

  #lookOn() {
    if (!this.#isConnected || !this.#hasTrack || this.#isLooking) return;
    this.#isLooking = true;
    this.#lookForMedia(lookMs);
  }

  /** No event tells of them in all browsers: `unmute` is of the first packet in some, and of the negotiation in others. @param {number} waitMs */
  async #lookForMedia(waitMs) {
    const all = await this.#stats();
    if (this.#isClosed) return;
    if (all.some(hasArrived)) {
      const candidateType = chosenOf(all).local?.candidateType;
      return this.#tell({ milestone: 'media', candidateType, afterMs: this.#since(this.#mediaSince) });
    }
    this.#nextLook = setTimeout(() => this.#lookForMedia(Math.min(lookCapMs, waitMs * lookGrowth)), waitMs);
  }

  /** @param {number} begunAt */
  #since(begunAt) {
    return Math.round(performance.now() - begunAt);
  }

  /** @returns {Promise<any[]>} nothing where the connection does not tell, as when it is closed */
  async #stats() {
    return this.#pc === null ? [] : statsOf(this.#pc).catch(() => []);
  }

  /** @param {Milestone} milestone */
  #tell(milestone) {
    if (!this.#isClosed && milestone.afterMs <= mostMs) this.#calls.reached(milestone);
  }
}

/** Video is there when there is a picture, which packets alone do not make. @param {any} stats */
function hasArrived({ type, kind, framesDecoded, packetsReceived }) {
  return type === 'inbound-rtp' && (kind === 'video' ? framesDecoded : packetsReceived) > 0;
}

// RTCPeerConnection as far as negotiation can tell: signaling states, the operations chain, implicit rollback, the
// negotiation-needed flag, ICE generations. Two of them are connected when each has the other's candidate of the
// generation that their descriptions name.

class DomError extends Error {
  constructor(name, message) {
    super(message);
    this.name = name;
  }
}

export class FakeTrack extends EventTarget {
  constructor(kind) {
    super();
    this.kind = kind;
  }
}

export class FakeStream {
  #tracks;

  constructor(tracks = []) {
    this.#tracks = new Set(tracks);
  }

  getTracks() {
    return [...this.#tracks];
  }

  addTrack(track) {
    this.#tracks.add(track);
  }

  removeTrack(track) {
    this.#tracks.delete(track);
  }
}

class FakeDescription {
  constructor(type, sdp) {
    this.type = type;
    this.sdp = sdp;
  }

  toJSON() {
    return { type: this.type, sdp: this.sdp };
  }
}

const lineOf = (sdp, name) => sdp.match(new RegExp(`^a=${name}:(.*)$`, 'm'))?.[1].trim() ?? '';
let connections = 0;

export class FakePeerConnection extends EventTarget {
  signalingState = 'stable';
  iceConnectionState = 'new';
  connectionState = 'new';
  localDescription = null;
  remoteDescription = null;
  currentLocalDescription = null;
  currentRemoteDescription = null;
  candidates = [];
  ended = 0;
  rollbacks = 0;
  offers = 0;
  channel = null;
  sctp = null;
  /** What `getStats` tells. */
  stats = new Map();
  #id = connections += 1;
  #version = 0;
  #generation = 1;
  #restarts = false;
  #isNeeded = false;
  #chain = Promise.resolve();
  #senders = [];
  #agreed = { local: null, remote: null, kinds: '' };
  #remoteKinds = new Set();
  #gathered = '';

  constructor(configuration) {
    super();
    this.configuration = configuration;
  }

  getConfiguration() {
    return this.configuration;
  }

  setConfiguration(configuration) {
    this.configuration = configuration;
  }

  async getStats() {
    return this.stats;
  }

  // What needs negotiation.

  addTrack(track) {
    const sender = { track, kind: track.kind, replaceTrack: async (next) => { sender.track = next; } };
    this.#senders.push(sender);
    this.#updateNeeded();
    return sender;
  }

  removeTrack(sender) {
    this.#senders.splice(this.#senders.indexOf(sender), 1);
    this.#updateNeeded();
  }

  createDataChannel(label, options) {
    this.channel = Object.assign(new EventTarget(), { label, ...options, readyState: 'connecting', sent: [] });
    this.channel.send = (text) => this.channel.sent.push(text);
    this.#updateNeeded();
    return this.channel;
  }

  restartIce() {
    this.#restarts = true;
    this.#updateNeeded();
  }

  #kinds() {
    return [...this.#senders.map(({ kind }) => kind), ...(this.channel ? ['application'] : [])].join(' ');
  }

  #updateNeeded() {
    const needed = this.#restarts || this.#kinds() !== this.#agreed.kinds;
    if (!needed || this.#isNeeded || this.signalingState !== 'stable') return;
    this.#isNeeded = true;
    setImmediate(() => {
      if (this.#isNeeded && this.signalingState === 'stable') this.dispatchEvent(new Event('negotiationneeded'));
    });
  }

  // The operations chain.

  #chained(operation) {
    const result = this.#chain.then(async () => {
      await new Promise(setImmediate);
      return operation();
    });
    this.#chain = result.catch(() => {});
    return result;
  }

  setLocalDescription() {
    return this.#chained(() => {
      if (this.signalingState === 'have-remote-offer') return this.#setLocal('answer');
      if (this.signalingState === 'stable') return this.#setLocal('offer');
      throw new DomError('InvalidStateError', `no local description in ${this.signalingState}`);
    });
  }

  #setLocal(type) {
    if (type === 'offer') {
      this.offers += 1;
      if (this.#restarts) this.#generation += 1;
      this.#restarts = false;
    } else if (this.#generationIsOld()) {
      this.#generation += 1;
    }
    this.#version += 1;
    const sdp = [
      'v=0', `o=- ${this.#id} ${this.#version} IN IP4 0.0.0.0`, `a=ice-ufrag:${this.#fragment()}`, `a=fingerprint:sha-256 ${this.#id}`, `a=kinds:${this.#kinds()}`, '',
    ].join('\r\n');
    this.localDescription = new FakeDescription(type, sdp);
    if (type === 'offer') this.signalingState = 'have-local-offer';
    else this.#agree();
    setImmediate(() => this.#gather());
  }

  /** An offer of a new generation wants an answer of a new one. */
  #generationIsOld() {
    return this.#agreed.remote !== null && this.#agreed.remote !== lineOf(this.remoteDescription.sdp, 'ice-ufrag')
      && this.#agreed.local === this.#fragment();
  }

  #fragment() {
    return `u${this.#id}g${this.#generation}`;
  }

  setRemoteDescription(description) {
    return this.#chained(() => {
      const { type } = description;
      if (type === 'rollback') {
        this.signalingState = 'stable';
        return;
      }
      if (type === 'offer') {
        if (this.signalingState === 'have-local-offer') this.rollbacks += 1;
        this.signalingState = 'have-remote-offer';
      } else if (this.signalingState !== 'have-local-offer') {
        throw new DomError('InvalidStateError', `no ${type} in ${this.signalingState}`);
      }
      this.remoteDescription = new FakeDescription(type, description.sdp);
      this.#takeTracks(lineOf(description.sdp, 'kinds').split(' '));
      if (type === 'answer') this.#agree();
    });
  }

  #takeTracks(kinds) {
    for (const kind of kinds) {
      if (!['audio', 'video'].includes(kind) || this.#remoteKinds.has(kind)) continue;
      this.#remoteKinds.add(kind);
      this.dispatchEvent(Object.assign(new Event('track'), { track: new FakeTrack(kind) }));
    }
  }

  #agree() {
    this.signalingState = 'stable';
    [this.currentLocalDescription, this.currentRemoteDescription] = [this.localDescription, this.remoteDescription];
    const remote = lineOf(this.remoteDescription.sdp, 'ice-ufrag');
    const local = lineOf(this.localDescription.sdp, 'ice-ufrag');
    if (remote !== this.#agreed.remote || local !== this.#agreed.local) this.candidates = [];
    // An own offer says all that is needed; an answer only what the offer has room for.
    const room = lineOf(this.remoteDescription.sdp, 'kinds').split(' ');
    const said = lineOf(this.localDescription.sdp, 'kinds').split(' ').filter(Boolean);
    const kinds = this.localDescription.type === 'offer' ? said : said.filter((kind) => room.includes(kind));
    this.#agreed = { local, remote, kinds: [...new Set([...this.#agreed.kinds.split(' ').filter(Boolean), ...kinds])].join(' ') };
    this.#agreed.kinds = this.#kinds().split(' ').filter((kind) => this.#agreed.kinds.split(' ').includes(kind)).join(' ');
    this.#isNeeded = false;
    this.#updateNeeded();
  }

  // ICE.

  #gather() {
    const fragment = lineOf(this.localDescription.sdp, 'ice-ufrag');
    if (this.signalingState === 'closed' || this.#gathered === fragment) return;
    this.#gathered = fragment;
    const candidate = { candidate: `candidate:1 of ${fragment}`, sdpMid: '0', sdpMLineIndex: 0, usernameFragment: fragment };
    this.dispatchEvent(Object.assign(new Event('icecandidate'), { candidate: { ...candidate, toJSON: () => candidate } }));
    this.dispatchEvent(Object.assign(new Event('icecandidate'), { candidate: null }));
  }

  addIceCandidate(candidate) {
    return this.#chained(() => {
      if (this.remoteDescription === null) throw new DomError('InvalidStateError', 'no remote description');
      if (candidate === undefined) {
        this.ended += 1;
        return;
      }
      const fragment = lineOf(this.remoteDescription.sdp, 'ice-ufrag');
      if (candidate.usernameFragment !== fragment) throw new DomError('OperationError', 'unknown ufrag');
      this.candidates.push(candidate);
      if (this.signalingState === 'stable') this.setIce('connected');
      else setImmediate(() => this.setIce('connected'));
    });
  }

  setIce(state) {
    if (this.signalingState === 'closed' || this.iceConnectionState === state) return;
    this.iceConnectionState = state;
    this.connectionState = state;
    this.dispatchEvent(new Event('iceconnectionstatechange'));
    this.dispatchEvent(new Event('connectionstatechange'));
  }

  getSenders() {
    return this.#senders;
  }

  getReceivers() {
    return [];
  }

  /** As after an error of DTLS, of which ICE knows nothing. */
  die() {
    this.sctp = { transport: { state: 'failed' } };
    this.connectionState = 'failed';
    this.dispatchEvent(new Event('connectionstatechange'));
  }

  openChannel() {
    this.channel.readyState = 'open';
    this.channel.dispatchEvent(new Event('open'));
  }

  close() {
    this.signalingState = 'closed';
    this.connectionState = 'closed';
  }
}

/** Puts the fakes where the library looks for the browser's. */
export function installFakeRtc() {
  Object.assign(globalThis, { RTCPeerConnection: FakePeerConnection, MediaStream: FakeStream });
}

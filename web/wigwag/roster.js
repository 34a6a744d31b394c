// The room as this session knows it. Pure: messages in, events out.

/**
 * @typedef {Record<string, any>} Metadata
 *
 * @typedef {object} Peer
 * @property {string} peer      the server's id for it
 * @property {string} [user]    from its token
 * @property {Metadata} metadata
 * @property {boolean} polite   one's own role toward this peer in perfect negotiation
 * @property {'here'|'away'} state
 *
 * @typedef {{peer: string, user?: string, metadata: Metadata}} Self
 * @typedef {Self} Visitor   one who waits to be admitted
 * @typedef {{name: string, locked: boolean, revision: number}} Room
 * @typedef {{name: string, detail: any}} Happening   an event to emit
 */

export class Roster {
  /** @type {Self|null} */
  self = null;
  /** @type {Room|null} */
  room = null;
  /** @type {Map<string, Peer>} */
  peers = new Map();
  /** Who waits to be admitted, as moderators are told. @type {Map<string, Visitor>} */
  knocks = new Map();

  /**
   * Takes a whole picture.
   * @param {any} joined
   * @returns {Happening[]} how it differs from the picture before; nothing for the first
   */
  replace(joined) {
    const before = this.self === null ? null : { peer: this.self.peer, room: this.room, peers: this.peers };
    this.self = joined.self;
    this.room = { ...joined.room };
    this.peers = new Map(joined.peers.map((/** @type {any} */ peer) => [peer.peer, peerOf(peer)]));
    // A picture has no knocks: a moderator is told of them anew.
    this.knocks = new Map();
    if (before === null) return [];
    // Under another id of one's own every pair is a new pair, with new roles: the old ones are over.
    const kept = before.peer === joined.self.peer ? before.peers : new Map();
    return [
      ...this.#departures(before.peers, kept),
      ...[...this.peers.values()].flatMap((peer) => this.#changes(kept.get(peer.peer), peer)),
      ...(before.room?.locked !== joined.room.locked ? [this.#synthetic('roomupdated', { locked: joined.room.locked })] : []),
    ];
  }

  /**
   * @param {Map<string, Peer>} before
   * @param {Map<string, Peer>} kept
   */
  #departures(before, kept) {
    return [...before.keys()]
      .filter((id) => !kept.has(id) || !this.peers.has(id))
      .map((peer) => this.#synthetic('peerleft', { peer, reason: 'timeout' }));
  }

  /**
   * @param {Peer|undefined} before
   * @param {Peer} now
   */
  #changes(before, now) {
    if (before === undefined) return [this.#synthetic('peerjoined', now)];
    const happenings = [];
    if (before.user !== now.user || JSON.stringify(before.metadata) !== JSON.stringify(now.metadata)) {
      happenings.push(this.#synthetic('peerupdated', now));
    }
    if (before.state !== now.state) {
      happenings.push(this.#synthetic(now.state === 'away' ? 'peeraway' : 'peerback', { peer: now.peer }));
    }
    return happenings;
  }

  /** @param {string} name @param {object} detail @returns {Happening} */
  #synthetic(name, detail) {
    return { name, detail: { ...detail, revision: this.room?.revision, synthetic: true } };
  }

  /**
   * Takes one change of the room.
   * @param {any} message
   * @returns {Happening[]} nothing where the picture has it already; else the message itself, named after its type, and
   *   before it what follows for one who has knocked
   */
  apply(message) {
    if (this.room === null || message.revision < this.room.revision) return [];
    // Those who wait are told with the revision of the picture they belong to; any other change has one of its own.
    if (message.revision === this.room.revision && message.type !== 'knock') return [];
    if (message.revision !== undefined) this.room.revision = message.revision;
    const happening = { name: message.type.toLowerCase(), detail: message };
    return [...this.#knockGone(message), ...(this.#change(message) ? [happening] : [])];
  }

  /** Who has knocked and is let in, or has gone. @param {any} message @returns {Happening[]} */
  #knockGone({ type, peer, reason }) {
    const isEnd = type === 'peerJoined' || type === 'peerLeft';
    if (!isEnd || !this.knocks.delete(peer)) return [];
    return [{ name: 'knockgone', detail: { peer, reason: type === 'peerJoined' ? 'admitted' : reason } }];
  }

  /** @param {any} message @returns {boolean} whether it changes the picture */
  #change(message) {
    const known = this.peers.get(message.peer);
    switch (message.type) {
      case 'knock': {
        const { peer, user, metadata = {} } = message;
        const isNew = !this.knocks.has(peer);
        this.knocks.set(peer, { peer, user, metadata });
        return isNew;
      }
      case 'peerJoined':
        this.peers.set(message.peer, peerOf(message));
        return true;
      case 'peerUpdated':
        if (known) Object.assign(known, { metadata: message.metadata ?? {}, user: message.user });
        return known !== undefined;
      case 'peerAway':
      case 'peerBack':
        if (known) known.state = message.type === 'peerAway' ? 'away' : 'here';
        return known !== undefined;
      case 'peerLeft':
        return this.peers.delete(message.peer);
      case 'roomUpdated':
        if (this.room) this.room.locked = message.locked;
        return true;
      default:
        return false;
    }
  }
}

/** @param {any} message @returns {Peer} */
function peerOf({ peer, user, metadata, polite, state }) {
  return { peer, user, metadata: metadata ?? {}, polite, state: state ?? 'here' };
}

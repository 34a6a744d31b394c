// One page in one room: the library as an application uses it, with a record of all that happens.

import { patienceMs, within } from './deadline.js';

/**
 * How each transport is had: the page's origin, and what the library is told to use.
 * @type {Readonly<Record<string, {origin: 'secure'|'plain', types: string[]}>>}
 */
export const transports = Object.freeze({
  webtransport: { origin: 'plain', types: ['webtransport'] },
  'websocket-h2': { origin: 'secure', types: ['websocket'] },
  'websocket-h1': { origin: 'plain', types: ['websocket'] },
});

/** A file of the server's that browsers show as text makes a page of its origin with nothing on it. */
export const blankPath = '/wigwag.js';

export class Member {
  /** The peer id. @type {string} */
  id = '';
  /** As the server names it. @type {string} */
  transport = '';

  /** @param {import('puppeteer-core').Page} page @param {string} name */
  constructor(page, name) {
    this.page = page;
    this.name = name;
  }

  /**
   * Joins from a page that is open already.
   * @param {import('puppeteer-core').Page} page
   * @param {{room: string, name: string, types?: string[], media?: boolean, rtcConfig?: RTCConfiguration}} options
   * @returns {Promise<Member>}
   */
  static async join(page, { room, name, types, media = true, rtcConfig }) {
    const member = new Member(page, name);
    const joining = page.evaluate(enter, { room, name, types, media, rtcConfig });
    const { id, transport, ms } = await within(joining, `${name} joins ${room}`);
    return Object.assign(member, { id, transport, joinMs: ms });
  }

  /** Media and data channel with that member are connected, and both kinds arrive and are decoded. @param {Member} other */
  async hears(other) {
    await this.until(`media of ${other.name}`, hearsAndSees, other.id);
  }

  /** More packets of both kinds arrive than have arrived by now. @param {Member} other */
  async goesOnHearing(other) {
    const before = await this.page.evaluate(packetsOf, other.id);
    await this.until(`more media of ${other.name}`, hearsMore, other.id, before);
  }

  /** @param {string} text */
  chat(text) {
    return this.page.evaluate((words) => globalThis.member.call.sendChat(words), text);
  }

  /** @param {Member} other @param {string} text */
  async reads(other, text) {
    await this.until(`“${text}” from ${other.name}`, (from, words) => (
      globalThis.member.chats.some((chat) => chat.from === from && chat.text === words)
    ), other.id, text);
  }

  /**
   * @param {string} what                      that is waited for
   * @param {(...values: any[]) => any} holds  asked in the page until it says yes
   * @param {...any} values                    that it is given
   */
  async until(what, holds, ...values) {
    const waiting = this.page.waitForFunction(holds, { polling: 50, timeout: patienceMs }, ...values);
    await waiting.catch((error) => {
      throw new Error(`${this.name} (${this.transport}) waits in vain for ${what}: ${error.message}`);
    });
  }

  /** @returns {Promise<any>} what has happened so far; see `enter` */
  record() {
    return this.page.evaluate(() => globalThis.member.record);
  }

  leave() {
    return within(this.page.evaluate(() => globalThis.member.leave()), `${this.name} leaves`);
  }
}

/**
 * Runs in the page.
 * @param {{room: string, name: string, types?: string[], media: boolean, rtcConfig?: RTCConfiguration}} options
 */
async function enter({ room, name, types, media, rtcConfig }) {
  const { connect } = await import(`${location.origin}/wigwag.js`);
  const { Call } = await import(`${location.origin}/call.js`);
  const stream = media
    ? await navigator.mediaDevices.getUserMedia({ audio: true, video: { width: 320, height: 240, frameRate: 10 } })
    : null;
  const startedAt = performance.now();
  const session = connect({ room, metadata: { name }, transports: types });
  const record = { attempts: [], states: [], presence: [], connections: [], errors: [], resumedAt: [], joined: 0, joinedAt: 0, transports: [] };
  const member = { session, call: null, chats: [], messages: [], record, leave: null };
  globalThis.member = member;
  const on = (event, note) => session.addEventListener(event, ({ detail }) => note(detail));
  on('attempt', ({ transport, outcome, ms, error }) => record.attempts.push({ transport, outcome, ms, error: error?.message }));
  on('statechange', ({ state }) => record.states.push(state));
  on('transportchange', ({ to }) => record.transports.push(to));
  on('joined', () => {
    record.joined += 1;
    record.joinedAt = Date.now();
  });
  on('resumed', () => { record.resumedAt.push(Date.now()); });
  on('message', ({ from, data }) => member.messages.push({ from, data }));
  on('protocolerror', (error) => record.errors.push(`${error.code}: ${error.message}`));
  for (const event of ['peerjoined', 'peeraway', 'peerback', 'peerleft']) {
    on(event, ({ peer }) => record.presence.push({ event, peer }));
  }
  if (media) {
    const call = new Call(session, { stream, dataChannel: 'chat', rtcConfig });
    member.call = call;
    call.addEventListener('chat', ({ detail: { peer, text } }) => member.chats.push({ from: peer.id, text }));
    call.addEventListener('state', ({ detail: { peer, state } }) => record.connections.push({ peer: peer.id, state, ice: peer.pc.iceConnectionState }));
    call.addEventListener('error', ({ detail: { error } }) => record.errors.push(String(error)));
  }
  member.leave = async () => {
    await session.leave();
    member.call?.close();
    for (const track of stream?.getTracks() ?? []) track.stop();
  };
  await session.joined;
  return { id: session.self.peer, transport: session.transport, ms: performance.now() - startedAt };
}

/** Runs in the page. @param {string} id @returns {Promise<boolean>} */
async function hearsAndSees(id) {
  const peer = globalThis.member.call.peers.get(id);
  if (peer?.state !== 'connected' || peer.channel?.readyState !== 'open') return false;
  const inbound = [...(await peer.pc.getStats()).values()].filter(({ type }) => type === 'inbound-rtp');
  const of = (kind) => inbound.find((stats) => stats.kind === kind);
  return of('audio')?.packetsReceived >= 10 && of('video')?.packetsReceived >= 3 && of('video')?.framesDecoded >= 3;
}

/** Runs in the page: how many have come by now. @param {string} id @returns {Promise<{audio: number, video: number}>} */
async function packetsOf(id) {
  const inbound = [...(await globalThis.member.call.peers.get(id).pc.getStats()).values()].filter(({ type }) => type === 'inbound-rtp');
  const [audio, video] = ['audio', 'video'].map((kind) => inbound.find((stats) => stats.kind === kind)?.packetsReceived ?? 0);
  return { audio, video };
}

/** Runs in the page. @param {string} id @param {{audio: number, video: number}} before @returns {Promise<boolean>} */
async function hearsMore(id, before) {
  const inbound = [...(await globalThis.member.call.peers.get(id).pc.getStats()).values()].filter(({ type }) => type === 'inbound-rtp');
  return ['audio', 'video'].every((kind) => inbound.find((stats) => stats.kind === kind)?.packetsReceived >= before[kind] + 10);
}

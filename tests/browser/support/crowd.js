// Many members without a browser: each holds an event stream, and speaks by requests beside it.

import { patienceMs, within } from './deadline.js';

const lines = { 'Content-Type': 'application/x-ndjson' };

export class Guest {
  /** The peer id. @type {string} */
  id = '';
  #ticket = '';
  #stream = new AbortController();
  #said = 0;
  #room;

  /** @param {string} room  its URL */
  constructor(room) {
    this.#room = room;
  }

  /**
   * @param {import('./server.js').Server} server
   * @param {string} room
   */
  static async join(server, room) {
    const guest = new Guest(`${server.plain}/v1/rooms/${room}`);
    await within(guest.#enter(), `somebody joins ${room}`, patienceMs);
    return guest;
  }

  async #enter() {
    const response = await fetch(this.#room, {
      method: 'POST', headers: { ...lines, Accept: 'text/event-stream' }, body: '{"type":"join"}\n', signal: this.#stream.signal,
    });
    let text = '';
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    while (!text.includes('\n\n')) text += (await reader.read()).value;
    const joined = JSON.parse(text.slice(text.indexOf('data: ') + 6, text.indexOf('\n\n')));
    if (joined.type !== 'joined') throw new Error(`instead of joined: ${text}`);
    this.id = joined.self.peer;
    this.#ticket = joined.ticket;
    this.#read(reader);
  }

  /** Whoever does not read is closed. @param {ReadableStreamDefaultReader<string>} reader */
  async #read(reader) {
    try {
      while (!(await reader.read()).done);
    } catch {
      // It was ended by the test.
    }
  }

  /** @param {object} message */
  async say(message) {
    this.#said += 1;
    const body = `${JSON.stringify({ id: this.#said, ...message })}\n`;
    const response = await fetch(`${this.#room}/messages`, { method: 'POST', headers: { ...lines, 'Wigwag-Ticket': this.#ticket }, body });
    if (response.status !== 202) throw new Error(`the server answered ${response.status}: ${await response.text()}`);
  }

  /** @param {Guest} to @param {'offer'|'answer'} type */
  describe(to, type) {
    return this.say({ type: 'description', to: to.id, description: { type, sdp: 'v=0\r\n' } });
  }

  /** @param {Guest} to @param {number} port */
  candidate(to, port) {
    const candidate = `candidate:1 1 udp 2130706431 127.0.0.1 ${port} typ host`;
    return this.say({ type: 'candidate', to: to.id, candidate: { candidate, sdpMid: '0', sdpMLineIndex: 0 } });
  }

  /** Its transport is lost, and its seat kept. */
  vanish() {
    this.#stream.abort();
  }

  leave() {
    return this.say({ type: 'leave' });
  }
}

/**
 * Two in each of so many rooms.
 * @param {import('./server.js').Server} server
 * @param {string} prefix
 * @param {number} rooms
 * @returns {Promise<Guest[][]>}
 */
export async function crowd(server, prefix, rooms) {
  const pairs = [];
  // In some parts: a machine has only so many connections to give at once.
  for (let first = 0; first < rooms; first += 50) {
    const names = Array.from({ length: Math.min(50, rooms - first) }, (_, at) => `${prefix}-${String(first + at + 1).padStart(3, '0')}`);
    pairs.push(...await Promise.all(names.map(async (name) => [await Guest.join(server, name), await Guest.join(server, name)])));
  }
  return pairs;
}

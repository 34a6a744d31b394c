// The admin API: requests with the token, and the live view.

/**
 * @typedef {'media'|'complete'|'connected'|'oneSidedCandidates'|'noCandidates'|'iceFailed'|'glare'|'rolledBack'|'answerLost'|'noAnswer'|'leftDuring'|'offerLost'|'noOffer'} State
 *
 * @typedef {object} Overview
 * @property {string} version
 * @property {number} atMs
 * @property {number} startedMs
 * @property {string|null} node
 * @property {boolean|null} clusterConnected
 * @property {boolean} draining
 * @property {boolean} recorded
 * @property {number} rooms
 * @property {number} endedRooms
 * @property {{here: number, away: number, waiting: number}} seats
 * @property {Record<string, number>} sessions
 * @property {number} messages
 * @property {{count: number, buckets: [string, number][]}} relayed
 * @property {number} queuedMessages
 * @property {number} queuedBytes
 *
 * @typedef {object} Room
 * @property {string} room
 * @property {number} openedMs
 * @property {number} here
 * @property {number} away
 * @property {number} waiting
 * @property {boolean} locked
 * @property {number} queuedMessages
 * @property {number} queuedBytes
 * @property {State|null} negotiation
 *
 * @typedef {{total: number, matching: number, offset: number, rooms: Room[]}} Rooms
 * @typedef {{total: number, matching: number, offset: number, rooms: {room: string, endedSecondsAgo: number}[]}} Ended
 *
 * @typedef {object} Member
 * @property {string} peer
 * @property {string|null} user
 * @property {'here'|'away'|'waiting'} state
 * @property {number|null} joinedMs
 * @property {string|null} node
 * @property {boolean} moderates
 * @property {string|null} transport
 * @property {string|null} addressKind
 * @property {string|null} address
 * @property {number} queuedMessages
 * @property {number} queuedBytes
 *
 * @typedef {object} Happening  an event of a timeline
 * @property {number} atMs
 * @property {number} [untilMs]
 * @property {number} [count]
 * @property {string} event
 * @property {string} [peer]
 * @property {string} [to]
 * @property {string} [transport]
 * @property {number} [bytes]
 * @property {string} [outcome]
 * @property {string} [candidateType]
 * @property {number} [afterMs]
 * @property {string} [code]
 * @property {string} [reason]
 *
 * @typedef {{impolite: string, polite: string, state: State, text: string, over: boolean}} Pair
 *
 * @typedef {object} Timeline
 * @property {string} room
 * @property {boolean} open
 * @property {number|null} endedMs
 * @property {boolean} recorded
 * @property {number} dropped
 * @property {Happening[]} events
 * @property {{state: State|null, text: string, pairs: Pair[], morePairs: number}} diagnosis
 *
 * @typedef {{room: (Room & {members: Member[]})|null, timeline: Timeline|null}} View
 *
 * @typedef {object} Live  what a live view tells
 * @property {(overview: Overview) => void} overview
 * @property {(rooms: Rooms) => void} rooms
 * @property {(view: View) => void} room
 */

const tokenKey = 'wigwag.admin.token';
const retryMs = [500, 1_000, 2_000, 5_000];

/** What the server refused, in its words. */
export class Refused extends Error {
  /** @param {number} status @param {string} message */
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** @returns {string} the tab's token, or nothing */
export function token() {
  return sessionStorage.getItem(tokenKey) ?? '';
}

/** @param {string} text nothing forgets it */
export function setToken(text) {
  if (text === '') sessionStorage.removeItem(tokenKey);
  else sessionStorage.setItem(tokenKey, text);
}

/**
 * @param {string} path
 * @param {RequestInit} [init]
 * @returns {Promise<Response>}
 * @throws {Refused}
 */
async function ask(path, init = {}) {
  const shown = token();
  const headers = { 'Wigwag-Admin': '1', ...(shown !== '' && { Authorization: `Bearer ${shown}` }), ...init.headers };
  const response = await fetch(path, { ...init, headers, cache: 'no-store', credentials: 'omit' });
  if (response.ok) return response;
  const problem = await response.json().catch(() => ({}));
  throw new Refused(response.status, problem.detail ?? `the server answered ${response.status}`);
}

/** @param {string} path @returns {Promise<any>} */
export async function read(path) {
  return (await ask(path)).json();
}

/** Has the server do something. @param {string} path @param {{reason?: string}} [body] */
export async function act(path, body) {
  const headers = { 'Content-Type': 'application/json' };
  await ask(path, { method: 'POST', ...(body && { headers, body: JSON.stringify(body) }) });
}

/** @param {string} room @param {...string} more */
export function roomPath(room, ...more) {
  return ['/api/rooms', room, ...more].join('/');
}

/**
 * Follows the server until `signal` ends it; looks for it again when it is lost.
 * @param {URLSearchParams} wanted
 * @param {Live} told
 * @param {(error: unknown) => void} lost
 * @param {AbortSignal} signal
 */
export async function follow(wanted, told, lost, signal) {
  for (let failures = 0; !signal.aborted; failures += 1) {
    try {
      const response = await ask(`/api/live?${wanted}`, { signal, headers: { Accept: 'text/event-stream' } });
      for await (const { event, data } of events(response.body)) {
        failures = 0;
        /** @type {any} */ (told)[event]?.(JSON.parse(data));
      }
      throw new Error('the server has ended the view');
    } catch (error) {
      if (signal.aborted) return;
      lost(error);
      // Until another token is there, asking again would change nothing.
      if (error instanceof Refused && error.status === 401) return;
    }
    await pause(retryMs[Math.min(failures, retryMs.length - 1)], signal);
  }
}

/** @param {number} ms @param {AbortSignal} signal @returns {Promise<void>} */
function pause(ms, signal) {
  return new Promise((done) => {
    const timer = setTimeout(done, ms);
    signal.addEventListener('abort', () => { clearTimeout(timer); done(); }, { once: true });
  });
}

/**
 * Server-sent events, of which the server writes each as one `event` and one `data`.
 * @param {ReadableStream<Uint8Array>|null} body
 */
async function* events(body) {
  if (!body) return;
  const reader = body.pipeThrough(/** @type {any} */ (new TextDecoderStream())).getReader();
  let rest = '';
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const parts = (rest + value).split('\n\n');
      rest = parts.pop() ?? '';
      for (const part of parts) {
        const fields = Object.fromEntries(part.split('\n').map((line) => [line.slice(0, line.indexOf(': ')), line.slice(line.indexOf(': ') + 2)]));
        yield { event: fields.event, data: fields.data };
      }
    }
  } finally {
    reader.cancel().catch(() => {}); // It may have ended by itself.
  }
}

// What the server offers, asked anew at each connect: addresses and certificate hashes change.

import { WigwagError } from './errors.js';

/**
 * @typedef {'webtransport'|'websocket'|'event-stream'|'long-poll'} TransportType
 *
 * One way to the room, as the server offers it.
 * @typedef {object} Offer
 * @property {TransportType} type
 * @property {string} url                           the room's own address
 * @property {WebTransportHash[]} certificateHashes empty unless the server's certificate is a self-made one
 */

/** @type {readonly TransportType[]} */
export const transportTypes = ['webtransport', 'websocket', 'event-stream', 'long-poll'];

/**
 * @param {typeof globalThis.fetch} fetch
 * @param {string} origin     of the server
 * @param {string} room
 * @param {number} deadlineMs
 * @returns {Promise<Offer[]>} best first; of unknown types none
 * @throws {WigwagError} `unreachable`, or what the server says where it says it
 */
export async function discover(fetch, origin, room, deadlineMs) {
  const url = `${origin}/v1/discovery`;
  try {
    const response = await fetch(url, { cache: 'no-store', signal: AbortSignal.timeout(deadlineMs) });
    if (!response.ok) throw refusalOf(url, response);
    return readOffers(await response.json(), room);
  } catch (error) {
    if (error instanceof WigwagError) throw error;
    throw new WigwagError('unreachable', `${url} did not answer as a wigwag server does`, { cause: error });
  }
}

/** @param {string} url @param {Response} response */
function refusalOf(url, response) {
  return new WigwagError('unreachable', `${url} answered with status ${response.status}`, {
    retryAfterMs: retryAfterOf(response),
  });
}

/**
 * @param {Response} response
 * @returns {number|undefined} milliseconds of `Retry-After` (RFC 9110, 10.2.3), in either of its two forms
 */
export function retryAfterOf(response) {
  const header = response.headers.get('retry-after')?.trim();
  if (!header) return undefined;
  const ms = /^\d+$/.test(header) ? Number(header) * 1000 : Date.parse(header) - Date.now();
  return Number.isFinite(ms) ? Math.max(0, ms) : undefined;
}

/**
 * @param {any} discovery the parsed answer
 * @param {string} room
 * @returns {Offer[]}
 */
export function readOffers(discovery, room) {
  if (discovery?.protocol !== 'wigwag.v1' || !Array.isArray(discovery.transports)) {
    throw new WigwagError('unsupported', `the server speaks ${JSON.stringify(discovery?.protocol)}, this library wigwag.v1`);
  }
  return discovery.transports
    .filter((/** @type {any} */ offer) => transportTypes.includes(offer?.type) && typeof offer.url === 'string')
    .map((/** @type {any} */ { type, url, certificateHashes = [] }) => ({
      type,
      url: url.replace('{room}', room),
      certificateHashes: certificateHashes.map((/** @type {any} */ { algorithm, value }) => ({
        algorithm,
        value: bytesOfBase64(value),
      })),
    }));
}

/** @param {string} base64 */
function bytesOfBase64(base64) {
  return Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
}

// Room names and the page's address. Pure but for the randomness.

/** @import { TransportType } from '../wigwag/discovery.js' */

/** @type {readonly TransportType[]} */
export const transportTypes = ['webtransport', 'websocket', 'event-stream', 'long-poll'];

/** What the protocol allows as a room's name: 1 to 128 of `A-Z a-z 0-9 - . _ ~`, but neither `.` nor `..`. */
const roomName = /^(?!\.{1,2}$)[A-Za-z0-9._~-]{1,128}$/;

// 64 words each and 32 letters: powers of two, so that a masked random byte picks without favour.
const manners = (
  'able airy amber apt blithe bold brave breezy bright brisk calm candid cheery clear clever cosy crisp daring deft '
  + 'eager early easy fair fleet fond frank free fresh gentle glad golden grand happy hardy hearty honest jolly jovial '
  + 'keen kind lively loyal lucky mellow merry mild neat nimble noble placid plucky proud quick quiet ready sage '
  + 'steady sunny swift tidy true upbeat warm witty'
).split(' ');
const signallers = (
  'anchor auk beacon bosun brig buoy canoe clipper cove curlew cutter dinghy dolphin dory dunlin eider ensign ferry '
  + 'fjord frigate gannet gull harbor heron island jetty kayak keel kestrel ketch lagoon lantern lugger marlin mast '
  + 'narwhal osprey otter oyster pelican pennant petrel pier pilot plover porpoise puffin quay raft reef sail schooner '
  + 'seal semaphore skiff skua sloop spar starling tern tide turnstone walrus yawl'
).split(' ');
/** Without letters that are taken for others. */
const letters = 'abcdefghijkmnpqrstuvwxyz23456789';

/**
 * A friendly name for a new room, such as `brisk-otter-7k2mt`: 37 random bits, so that nobody comes in by guessing.
 * @returns {string}
 */
export function randomRoomName() {
  const [manner, signaller, ...rest] = crypto.getRandomValues(new Uint8Array(7));
  const tail = rest.map((byte) => letters[byte & 31]).join('');
  return `${manners[manner & 63]}-${signallers[signaller & 63]}-${tail}`;
}

/**
 * The room's name that someone means who types a text: `Caffè Größe!` becomes `Caffe-Groe`.
 * @param {string} text
 * @returns {string} '' where nothing usable is left
 */
export function toRoomName(text) {
  const name = text.normalize('NFKD').replace(/\s+/gu, '-').replace(/[^A-Za-z0-9._~-]/gu, '')
    .replace(/-{2,}/g, '-').replace(/^-+|-+$/g, '').slice(0, 128);
  return roomName.test(name) ? name : '';
}

/**
 * What the page's address asks for.
 * @typedef {object} Request
 * @property {string} room       '' where it names none
 * @property {TransportType[]|undefined} transports  forced by `?transport=`; several are separated by commas
 * @property {string|undefined} token   from the fragment (`#token=…`), which browsers send to no server
 */

/**
 * @param {URL|Location} address
 * @returns {Request}
 */
export function readAddress({ search, hash }) {
  const query = new URLSearchParams(search);
  const asked = (query.get('transport') ?? '').split(',');
  const transports = transportTypes.filter((type) => asked.includes(type));
  return {
    room: toRoomName(query.get('room') ?? ''),
    transports: transports.length > 0 ? transports : undefined,
    token: new URLSearchParams(hash.slice(1)).get('token') ?? undefined,
  };
}

/**
 * The address of the page with this room in it; all else stays as it is.
 * @param {string} href  the page's present address
 * @param {string} room
 */
export function addressOf(href, room) {
  const address = new URL(href);
  address.searchParams.set('room', room);
  return address.href;
}

/**
 * The address without the token: it is a secret, and an address is shown, shared and remembered.
 * @param {string} href
 */
export function withoutToken(href) {
  const address = new URL(href);
  const fragment = new URLSearchParams(address.hash.slice(1));
  if (!fragment.has('token')) return href;
  fragment.delete('token');
  address.hash = fragment.toString();
  return address.href;
}

/**
 * The link to share: the room and nothing of one's own, neither a forced transport nor one's token.
 * @param {string} href  the page's present address
 * @param {string} room
 * @param {string} [invitation]  a token made for those who are invited
 */
export function inviteLink(href, room, invitation) {
  const { origin, pathname } = new URL(href);
  const link = `${origin}${pathname}?room=${encodeURIComponent(room)}`;
  return invitation === undefined ? link : `${link}#token=${encodeURIComponent(invitation)}`;
}

// Which transports to try, in which order, and how long after one another. Pure.

/** @import { Offer, TransportType } from './discovery.js' */

/**
 * An offer with its place in the race.
 * @typedef {Offer & {headStartMs: number, patienceMs?: number, anonymous?: boolean}} Rung   `headStartMs`: how long the one
 *   before has before this one starts; `patienceMs`: for its answer to the greeting, where not the usual; `anonymous`:
 *   without the page's credentials
 */

/**
 * @param {Offer[]} offers                       best first, as the server has it
 * @param {object} settings
 * @param {readonly TransportType[]} [settings.order]   the application's own order; what is not in it is not tried
 * @param {(type: TransportType) => boolean} settings.supported  whether this browser has it
 * @param {boolean} settings.secure              whether the page is https, from where ws: and http: are out of reach
 * @param {TransportType|null} [settings.winner] what won here before: goes first
 * @param {ReadonlySet<TransportType>} [settings.demoted]  what died young here: goes last
 * @param {Readonly<Record<TransportType, number>>} settings.headStartMs  by the type that has it
 * @param {number} [settings.streamPatienceMs]   for an event stream that a long poll follows: then it is held back
 * @returns {Rung[]}
 */
export function ladder(offers, { order, supported, secure, winner = null, demoted = new Set(), headStartMs, streamPatienceMs }) {
  const usable = offers.filter(({ type, url }) => (
    supported(type) && (!order || order.includes(type)) && !(secure && /^(ws|http):/.test(url))
  ));
  // The server's order stands among equals: sorting is stable.
  const placeOf = (/** @type {Offer} */ { type }) => {
    const place = order ? order.indexOf(type) : 0;
    if (demoted.has(type)) return place + 1000;
    return type === winner ? -1 : place;
  };
  const sorted = [...usable].sort((a, b) => placeOf(a) - placeOf(b));
  const rungs = sorted.map((offer, index) => ({
    ...offer,
    headStartMs: index === 0 ? 0 : waitBefore(offer.type, sorted[index - 1].type, headStartMs),
  }));
  return streamPatienceMs === undefined ? rungs : shortenStreams(rungs, streamPatienceMs);
}

/**
 * A long poll is there to follow an event stream that is held back, as soon as that is likely.
 * @param {Rung[]} rungs
 * @param {number} patienceMs
 */
function shortenStreams(rungs, patienceMs) {
  const follows = (/** @type {number} */ index) => (
    rungs[index]?.type === 'long-poll' && rungs[index - 1]?.type === 'event-stream'
  );
  return rungs.map((rung, index) => ({
    ...rung,
    ...(follows(index) && { headStartMs: Math.min(rung.headStartMs, patienceMs) }),
    ...(follows(index + 1) && { patienceMs }),
  }));
}

/**
 * The last resorts open at once, so their own long head start must also hold before them: or they would win wherever
 * a round trip is long.
 * @param {TransportType} type
 * @param {TransportType} previous
 * @param {Readonly<Record<TransportType, number>>} headStartMs
 */
function waitBefore(type, previous, headStartMs) {
  const isLastResort = type === 'event-stream' || type === 'long-poll';
  return isLastResort ? Math.max(headStartMs[type], headStartMs[previous]) : headStartMs[previous];
}

/**
 * The rungs worth leaving a working transport for.
 * @param {Rung[]} rungs      from a ladder without `winner`
 * @param {TransportType} current
 * @param {ReadonlySet<TransportType>} demoted
 */
export function rungsAbove(rungs, current, demoted) {
  const place = rungs.findIndex(({ type }) => type === current);
  const better = place < 0 ? rungs : rungs.slice(0, place);
  return better.filter(({ type }) => !demoted.has(type));
}

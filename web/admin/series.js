// From what the server has counted to what is drawn: rates and quantiles over time. Pure.

/**
 * @import { Overview } from './api.js'
 *
 * @typedef {object} Point
 * @property {number} atMs
 * @property {Record<string, number>} sessions
 * @property {number|null} messages   a second
 * @property {number|null} median     of relayed messages, in milliseconds
 * @property {number|null} slow       the 99th percentile
 */

/** Seconds that are kept. */
export const kept = 120;

/** Few messages are timed, so that quantiles are of more than the last second. */
const quantileWindow = 15;

export class Series {
  /** @type {Point[]} */
  points = [];
  /** @type {Overview[]} */
  #last = [];

  /** @param {Overview} overview */
  push(overview) {
    const before = this.#last.at(-1);
    // Another life of the server counts from the beginning.
    if (before && (overview.startedMs !== before.startedMs || overview.messages < before.messages)) this.#last = [];
    const previous = this.#last.at(-1);
    const seconds = previous ? (overview.atMs - previous.atMs) / 1000 : 0;
    const first = this.#last[0];
    this.points.push({
      atMs: overview.atMs,
      sessions: overview.sessions,
      messages: previous && seconds > 0 ? (overview.messages - previous.messages) / seconds : null,
      median: first ? quantile(0.5, first.relayed.buckets, overview.relayed.buckets) : null,
      slow: first ? quantile(0.99, first.relayed.buckets, overview.relayed.buckets) : null,
    });
    this.points.splice(0, this.points.length - kept);
    this.#last.push(overview);
    this.#last.splice(0, this.#last.length - quantileWindow);
  }
}

/**
 * The quantile of what was counted between two looks at a histogram, in milliseconds, by straight lines within buckets; null
 * where nothing was.
 * @param {number} wanted
 * @param {[string, number][]} before
 * @param {[string, number][]} after
 * @returns {number|null}
 */
export function quantile(wanted, before, after) {
  const earlier = new Map(before);
  const counts = after.map(([limit, count]) => /** @type {[number, number]} */ ([Number(limit.replace('+Inf', 'Infinity')), count - (earlier.get(limit) ?? 0)]));
  const all = counts.at(-1)?.[1] ?? 0;
  if (all === 0) return null;
  const rank = wanted * all;
  let [lower, below] = [0, 0];
  for (const [limit, count] of counts) {
    if (count >= rank) {
      // Above the last limit nothing is known but that.
      if (limit === Infinity) return lower * 1000;
      const share = count === below ? 1 : (rank - below) / (count - below);
      return (lower + (limit - lower) * share) * 1000;
    }
    [lower, below] = [limit, count];
  }
  return null;
}

/** The next round number at or above: 1, 2 or 5 times a power of ten. @param {number} value */
export function roundUp(value) {
  if (!(value > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((factor) => factor * power).find((round) => round >= value * 0.999) ?? 10 * power;
}

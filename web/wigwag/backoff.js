// How long to wait before the next try: full jitter, so that clients who were cut off together do not come back together.

/**
 * @param {number} attempt  tries that have failed since the last success; 0 for the first
 * @param {{baseMs: number, capMs: number, random?: () => number}} settings
 * @returns {number} milliseconds, evenly spread from 0 to `baseMs * 2 ** attempt`, at most `capMs`
 */
export function backoff(attempt, { baseMs, capMs, random = Math.random }) {
  // 2 ** 30 is far above any cap; beyond it the product would lose its meaning.
  return random() * Math.min(capMs, baseMs * 2 ** Math.min(attempt, 30));
}

/**
 * The wait that a server has asked for, never shorter, and spread a little as it may have told many the same.
 * @param {number} retryAfterMs
 * @param {() => number} [random]
 */
export function politeDelay(retryAfterMs, random = Math.random) {
  return retryAfterMs * (1 + random() / 4);
}

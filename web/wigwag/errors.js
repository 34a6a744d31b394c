// What can go wrong, and what it means for coming back.

/**
 * Close codes by the protocol's name for them. 4000 to 4499 mean "come back", from 4500 on "do not".
 * @type {Readonly<Record<string, number>>}
 */
export const closeCodes = Object.freeze({
  goingAway: 4000,
  slowConsumer: 4001,
  internal: 4002,
  timeout: 4003,
  rateLimited: 4010,
  roomFull: 4011,
  roomLocked: 4012,
  resumeExpired: 4020,
  badRequest: 4500,
  unauthorized: 4501,
  tokenExpired: 4502,
  forbidden: 4503,
  notFound: 4504,
  tooLarge: 4505,
  replaced: 4510,
  kicked: 4511,
});

/**
 * An error of the protocol or of this library.
 *
 * `code` is a name from the protocol (`roomFull`, `peerGone`, …) or one of the library's own: `left` (the session was
 * left by this side), `unsupported` (no transport that both sides have), `unreachable` (no transport got an answer).
 */
export class WigwagError extends Error {
  /**
   * @param {string} code
   * @param {string} message
   * @param {{closeCode?: number|null, retryAfterMs?: number, cause?: unknown}} [more]
   */
  constructor(code, message, { closeCode = closeCodes[code] ?? null, retryAfterMs, cause } = {}) {
    super(message, cause === undefined ? undefined : { cause });
    this.name = 'WigwagError';
    /** @type {string} */
    this.code = code;
    /** The close code that belongs to `code`, or null where there is none. @type {number|null} */
    this.closeCode = closeCode;
    /** How long to wait before trying again, in milliseconds, where the server has said so. @type {number|undefined} */
    this.retryAfterMs = retryAfterMs;
  }
}

/**
 * How a link to the server ended. `closeCode` is there when the server has said why; without it the link was lost.
 * @typedef {object} Closing
 * @property {number} [closeCode]
 * @property {string} [code]
 * @property {string} [message]
 * @property {number} [retryAfterMs]
 * @property {unknown} [error]    what the browser said
 * @property {boolean} [local]    this side gave the link up; the server is not known to be in trouble
 */

/**
 * What to do after a link has ended: take the seat up again, ask for a new one, or stay away.
 * @param {number|undefined} closeCode
 * @returns {'resume'|'join'|'never'}
 */
export function comeBack(closeCode) {
  if (closeCode === undefined || closeCode < 4000) return 'resume';
  if (closeCode >= 4500) return 'never';
  return closeCode >= 4010 && closeCode <= 4020 ? 'join' : 'resume';
}

/**
 * Whether the server itself has decided, so that another transport would get the same answer. `internal` and `timeout`
 * may be the fault of the one transport, so they are no decision.
 * @param {Closing} closing
 */
export function isDecision({ closeCode }) {
  return closeCode !== undefined && closeCode >= 4000 && closeCode < 5000
    && closeCode !== closeCodes.internal && closeCode !== closeCodes.timeout;
}

/** The protocol's name of a close code. @param {number|undefined} closeCode */
function nameOf(closeCode) {
  return Object.keys(closeCodes).find((name) => closeCodes[name] === closeCode);
}

/** @param {Closing} closing @returns {WigwagError} */
export function errorOf(closing) {
  if (closing.error instanceof WigwagError) return closing.error;
  const code = closing.code ?? nameOf(closing.closeCode) ?? 'unreachable';
  const cause = closing.error;
  const message = closing.message
    || (cause instanceof Error ? cause.message : '')
    || (code === 'unreachable' ? 'the connection was lost' : `closed by the server: ${code}`);
  return new WigwagError(code, message, { closeCode: closing.closeCode, retryAfterMs: closing.retryAfterMs, cause });
}

/**
 * The closing that a `closed` message tells.
 * @param {any} message
 * @returns {Closing}
 */
export function closingOf({ code, closeCode, message, retryAfterMs }) {
  return { code, closeCode: closeCode ?? closeCodes[code] ?? closeCodes.internal, message, retryAfterMs };
}

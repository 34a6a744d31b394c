/**
 * wigwag: the browser's side of the signaling protocol wigwag.v1.
 *
 * ```js
 * import { connect } from '/wigwag.js';
 * const session = connect({ room: 'demo', metadata: { name: 'Bob' } });
 * session.addEventListener('peerjoined', ({ detail }) => console.log(detail.peer));
 * await session.joined;
 * await session.send({ hello: 'room' });
 * ```
 */

import { Session } from './wigwag/session.js';

/** @import { SessionOptions } from './wigwag/session.js' */

export { Session };
export { WigwagError, closeCodes } from './wigwag/errors.js';

/**
 * Enters a room, and stays in it through network changes until `leave` or `close`.
 * @param {SessionOptions} options
 * @returns {Session} at once, connecting; `await session.joined` waits for the first `joined`
 * @throws {TypeError} on a room name or an address that no server would take, and on a `traceparent` that is none
 */
export function connect(options) {
  return new Session(options);
}

// What the library takes from the browser, behind one object: tests give another. Nothing here runs at import time.

import { LongPollLink } from './links/longpoll.js';
import { EventStreamLink } from './links/eventstream.js';
import { WebSocketLink } from './links/websocket.js';
import { WebTransportLink } from './links/webtransport.js';
import { withTraceparent } from './traceparent.js';

/**
 * @import { Offer, TransportType } from './discovery.js'
 * @import { Link } from './links/link.js'
 *
 * What a link may ask of its session; `traceparent`: which trace it belongs to, as it opens.
 * @typedef {{greeting: () => string, ticket: () => string|null, traceparent: () => string|null}} LinkContext
 *
 * @typedef {object} Environment
 * @property {typeof globalThis.fetch} fetch
 * @property {boolean} secure                        whether the page came over https
 * @property {Pick<Storage, 'getItem'|'setItem'>|null} storage
 * @property {(type: TransportType) => boolean} supports
 * @property {(rung: Offer & {anonymous?: boolean}, context: LinkContext) => Link} createLink
 * @property {() => string} network                  a name for the kind of network, '' where the browser tells none
 * @property {() => boolean} hidden                  whether nobody looks at the page
 * @property {(wake: () => void) => () => void} onWake  calls when the network or the page has come back; returns the way
 *   to end that
 */

/** @returns {Environment} */
export function browserEnvironment() {
  const connection = /** @type {any} */ (globalThis.navigator)?.connection;
  return {
    fetch: (...request) => fetch(...request),
    secure: globalThis.location?.protocol === 'https:',
    storage: sessionStorageOrNull(),
    supports: (type) => {
      if (type === 'webtransport') return typeof WebTransport === 'function';
      return type === 'websocket' ? typeof WebSocket === 'function' : true;
    },
    createLink,
    network: () => connection?.type ?? '',
    hidden: () => globalThis.document?.visibilityState === 'hidden',
    onWake,
  };
}

/** @type {Environment['createLink']} */
function createLink(offer, context) {
  switch (offer.type) {
    case 'webtransport':
      return new WebTransportLink({ ...offer, url: withTraceparent(offer.url, context.traceparent()) });
    case 'websocket':
      return new WebSocketLink(withTraceparent(offer.url, context.traceparent()));
    case 'event-stream':
      return new EventStreamLink(offer.url, context, { fetch: fetchFor(offer) });
    case 'long-poll':
      return new LongPollLink(offer.url, context, { fetch: fetchFor(offer) });
  }
}

/** @param {{anonymous?: boolean}} rung @returns {typeof globalThis.fetch} */
function fetchFor({ anonymous = false }) {
  return (url, options) => fetch(url, { ...options, credentials: anonymous ? 'omit' : 'same-origin' });
}

function sessionStorageOrNull() {
  try {
    return globalThis.sessionStorage ?? null;
  } catch {
    // A page may be forbidden to store anything.
    return null;
  }
}

/** @type {Environment['onWake']} */
function onWake(wake) {
  const onVisible = () => {
    if (document.visibilityState === 'visible') wake();
  };
  /** @type {[EventTarget|undefined, string, () => void][]} */
  const sources = [
    [globalThis.window, 'online', wake],
    [globalThis.window, 'pageshow', wake],
    [globalThis.document, 'visibilitychange', onVisible],
    [/** @type {any} */ (globalThis.navigator)?.connection, 'change', wake],
  ];
  for (const [target, name, listener] of sources) target?.addEventListener?.(name, listener);
  return () => {
    for (const [target, name, listener] of sources) target?.removeEventListener?.(name, listener);
  };
}

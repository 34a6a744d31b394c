// The trace of the application's that an opening belongs to (W3C Trace Context).

/** `version-trace-span-flags`, neither id all zeros (W3C Trace Context, 3.2.2). */
const form = /^00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}$/;

/**
 * @param {unknown} value  what the application says it is
 * @returns {string|null} null where it says nothing
 * @throws {TypeError} on anything else that is no `traceparent`
 */
export function checkTraceparent(value) {
  if (value === undefined || value === null) return null;
  if (typeof value === 'string' && form.test(value)) return value;
  throw new TypeError(`a traceparent is 00-TRACE-SPAN-FLAGS, of 32, 16 and 2 digits 0-9 a-f, not ${String(value)}`);
}

/**
 * Browsers set no headers on WebTransport and WebSockets: there it stands in the query.
 * @param {string} url
 * @param {string|null} traceparent
 */
export function withTraceparent(url, traceparent) {
  return traceparent === null ? url : `${url}?traceparent=${traceparent}`;
}

/** @param {string|null} traceparent @returns {Record<string, string>} of a request */
export function traceHeaders(traceparent) {
  return traceparent === null ? {} : { traceparent };
}

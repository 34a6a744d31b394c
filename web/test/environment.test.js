import assert from 'node:assert/strict';
import { describe, test } from 'node:test';

import { browserEnvironment } from '../wigwag/environment.js';

/** Puts fakes in the place of globals until the test ends. */
function pretend(t, globals) {
  for (const [name, value] of Object.entries(globals)) {
    const before = Object.getOwnPropertyDescriptor(globalThis, name);
    Object.defineProperty(globalThis, name, { value, configurable: true, writable: true });
    t.after(() => {
      if (before) Object.defineProperty(globalThis, name, before);
      else delete globalThis[name];
    });
  }
}

describe('the browser', () => {
  test('wakes the session when network or page come back, and no more once that is ended', (t) => {
    const window = new EventTarget();
    const document = Object.assign(new EventTarget(), { visibilityState: 'visible' });
    const connection = new EventTarget();
    pretend(t, { window, document, navigator: { connection } });
    let wakes = 0;
    const wakesBy = (target, name) => {
      const before = wakes;
      target.dispatchEvent(new Event(name));
      return wakes - before;
    };
    const unlisten = browserEnvironment().onWake(() => { wakes += 1; });
    assert.equal(wakesBy(window, 'online'), 1);
    assert.equal(wakesBy(window, 'pageshow'), 1);
    assert.equal(wakesBy(document, 'visibilitychange'), 1);
    assert.equal(wakesBy(connection, 'change'), 1);
    document.visibilityState = 'hidden';
    assert.equal(wakesBy(document, 'visibilitychange'), 0);
    unlisten();
    assert.equal(wakesBy(window, 'online') + wakesBy(connection, 'change'), 0);
  });

  test('sends requests of the last resort without credentials only where told to', (t) => {
    const credentials = [];
    pretend(t, { fetch: (_url, options) => {
      credentials.push(options.credentials);
      return new Promise(() => {});
    } });
    const { createLink } = browserEnvironment();
    for (const type of ['event-stream', 'long-poll']) {
      for (const anonymous of [undefined, true]) {
        const rung = { type, url: 'https://a.test/v1/rooms/demo', certificateHashes: [], anonymous };
        createLink(rung, { greeting: () => '', ticket: () => null, traceparent: () => null }).send('{"type":"join"}');
      }
    }
    assert.deepEqual(credentials, ['same-origin', 'omit', 'same-origin', 'omit']);
  });

  test('names the trace in the query where it sets no headers, and nothing where there is none', async (t) => {
    const addresses = [];
    class Opened {
      constructor(address) {
        addresses.push(address);
        this.closed = this.ready = new Promise(() => {});
      }
    }
    pretend(t, { WebTransport: Opened, WebSocket: Opened });
    const { createLink } = browserEnvironment();
    const [https, ws] = ['https://a.test/v1/rooms/demo', 'ws://a.test/v1/rooms/demo'];
    const parent = '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01';
    for (const traceparent of [() => parent, () => null]) {
      for (const [type, url] of [['webtransport', https], ['websocket', ws]]) {
        createLink({ type, url, certificateHashes: [] }, { greeting: () => '', ticket: () => null, traceparent }).open();
      }
      await new Promise(setImmediate);
    }
    assert.deepEqual(addresses, [`${https}?traceparent=${parent}`, `${ws}?traceparent=${parent}`, https, ws]);
  });

  test('names the kind of network, where it tells one', (t) => {
    pretend(t, { navigator: { connection: Object.assign(new EventTarget(), { type: 'wifi' }) } });
    assert.equal(browserEnvironment().network(), 'wifi');
    pretend(t, { navigator: {} });
    assert.equal(browserEnvironment().network(), '');
  });
});

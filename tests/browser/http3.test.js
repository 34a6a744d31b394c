// HTTP/3 for ordinary requests: found by Alt-Svc, with the certificate that WebTransport knows by its hash. Chromium takes no
// CA of a user's own for it.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';

import { launch } from './support/browsers.js';
import { within } from './support/deadline.js';
import { blankPath } from './support/member.js';
import { Server } from './support/server.js';

/** @type {Server} */
let server;
/** @type {Awaited<ReturnType<typeof launch>>} */
let firefox;

before(async () => {
  server = await Server.start();
  firefox = await launch('firefox', { ca: server.ca, http3: true });
});

after(async () => {
  await firefox?.close();
  await server?.stop();
});

test('firefox, told by Alt-Svc, asks over HTTP/3', async () => {
  const page = await firefox.browser.newPage();
  await page.goto(`${server.secure}${blankPath}`);
  const protocols = await within(page.evaluate(askUntilHttp3), 'an answer over HTTP/3');
  assert.equal(protocols[0], 'h2', 'nobody had told before the first answer');
  assert.equal(protocols.at(-1), 'h3');
});

/** Runs in the page: asks one request after the other until one goes over HTTP/3. */
async function askUntilHttp3() {
  const protocols = performance.getEntriesByType('navigation').map(({ nextHopProtocol }) => nextHopProtocol);
  for (let number = 0; protocols.at(-1) !== 'h3'; number += 1) {
    const url = new URL(`/favicon.svg?${number}`, location.href).href;
    const seen = new Promise((resolve) => {
      new PerformanceObserver((list, observer) => {
        const entry = list.getEntriesByName(url)[0];
        if (!entry) return;
        observer.disconnect();
        resolve(entry.nextHopProtocol);
      }).observe({ type: 'resource' });
    });
    await (await fetch(url, { cache: 'no-store' })).arrayBuffer();
    protocols.push(await seen);
  }
  return protocols;
}

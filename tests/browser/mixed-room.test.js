// Four people in one room of the demo page: each browser twice, on all three transports.

import { useStage } from './support/stage.js';
import { Visitor } from './support/visitor.js';

const { stage, scenario } = useStage();

/** @type {{browser: string, origin: 'secure'|'plain', transport: string, shown: string}[]} */
const kinds = [
  { browser: 'chromium', origin: 'plain', transport: 'webtransport', shown: 'webtransport' },
  { browser: 'chromium', origin: 'secure', transport: 'websocket', shown: 'websocket-h2' },
  { browser: 'firefox', origin: 'plain', transport: 'webtransport', shown: 'webtransport' },
  { browser: 'firefox', origin: 'plain', transport: 'websocket', shown: 'websocket-h1' },
];

scenario('four in a room, two browsers and three transports, all see all', async () => {
  const room = stage.newRoom();
  const visitors = [];
  for (const { browser, origin, transport, shown } of kinds) {
    const page = await stage.page(browser, `${stage.server[origin]}/?room=${room}&transport=${transport}`, { width: 960, height: 640 });
    const visitor = new Visitor(page, `${browser} ${shown}`);
    visitors.push(visitor);
    await visitor.join();
    await visitor.until(shown, (name) => document.querySelector('#status').dataset.transport === name, shown);
  }
  await Promise.all(visitors.map((visitor) => visitor.sees(3)));
  for (const visitor of visitors) await stage.screenshot(visitor.page, `four ${visitor.name}`);
  await Promise.all(visitors.map((visitor) => visitor.sees(3)));
});

// Links that the server makes for a moderator: for one, for several, and for those who are to wait.

import { after } from 'node:test';

import { browserNames } from './support/browsers.js';
import { useStage } from './support/stage.js';
import { TokenMaker } from './support/tokens.js';
import { Visitor } from './support/visitor.js';

const tokens = await TokenMaker.create();
after(() => tokens.remove());
const { stage, scenario } = useStage({ serverArgs: ['--token-keys', tokens.keys, '--invite-key', tokens.signingKey] });

const sizes = { desk: { width: 1280, height: 800 }, phone: { width: 390, height: 844 } };

for (const browser of browserNames) {
  for (const [size, viewport] of Object.entries(sizes)) {
    scenario(`a moderator invites by links, in ${browser}, ${size} size`, () => invite(browser, size, viewport));
  }
}

/** @param {string} browser @param {string} size @param {import('puppeteer-core').Viewport} viewport */
async function invite(browser, size, viewport) {
  const open = async (name, link) => {
    const visitor = new Visitor(await stage.page(browser, link, viewport), name);
    await visitor.arrives();
    return visitor;
  };
  const room = stage.newRoom();
  const token = await tokens.make({ room, user: 'ada', grants: ['join', 'publish', 'message', 'moderate'] });
  const ada = await open('Ada', `${stage.server.plain}/?room=${room}#token=${token}`);
  await ada.join();

  await ada.click('invite');
  const direct = await ada.makesInvitation();
  await ada.page.click('[data-testid=invite-waits]');
  await ada.until('a new choice', () => document.querySelector('#invite-row').hidden);
  await ada.page.select('#invite-uses', '10');
  const waiting = await ada.makesInvitation();
  await stage.screenshot(ada.page, `${browser} ${size} invitation`);
  await ada.page.keyboard.press('Escape');

  const gina = await open('Gina', waiting);
  await gina.type('name', 'Gina');
  await gina.click('join');
  await ada.press('Let Gina in');
  await gina.until('the call', () => document.documentElement.dataset.state === 'incall');

  const bob = await open('Bob', direct);
  await bob.join();
  await Promise.all([ada, gina, bob].map((visitor) => visitor.sees(2)));
  const late = await open('Late', direct);
  await late.type('name', 'Late');
  await late.click('join');
  await late.until('the refusal', () => document.querySelector('[data-testid=over-title]').textContent === 'You may not enter this room');
}

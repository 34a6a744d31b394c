// What a test plays on: a server, browsers, pages; and what it leaves behind when it fails.

import { mkdir, writeFile } from 'node:fs/promises';
import { after, before, test } from 'node:test';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

import { browserNames, launch } from './browsers.js';
import { Member, blankPath, transports } from './member.js';
import { Relay } from './relay.js';
import { Server, loopback } from './server.js';

const artifacts = fileURLToPath(new URL('../artifacts/', import.meta.url));

/** Where a server behind a relay or a proxy listens. */
export const behind = '127.0.0.2';

/** A scenario whose own deadlines all failed to end it. */
const hangMs = 180_000;
/** Firefox tells of lost connections in the words of an error that nothing caught. */
const lostConnection = /^The connection to wss?:\S+ was interrupted|can.t establish a connection to the server at wss?:|^WebRTC: ICE failed/;
const maxLines = 200;
const logTail = 40;

export class Stage {
  /** @type {Server} */
  server;
  /** The network before the server, where it has one. @type {Relay[]} */
  relays = [];
  /** @type {Map<string, {browser: import('puppeteer-core').Browser, close: () => Promise<void>}>} */
  #browsers = new Map();
  /** The pages of the present scenario. @type {Set<OpenPage>} */
  #pages = new Set();
  /** What else the present scenario has opened, and how that ends. @type {(() => Promise<void>)[]} */
  #closers = [];
  /** Rooms are never used twice. */
  #rooms = 0;

  /**
   * @param {{serverArgs?: string[], relayed?: boolean, proxied?: boolean}} options  `relayed`: the browsers reach the
   *   server by a relay; `proxied`: by a proxy, which the scenario starts
   */
  async open({ serverArgs = [], relayed = false, proxied = false }) {
    this.server = await Server.start({ args: serverArgs, ...((relayed || proxied) && { hosts: [behind] }) });
    if (relayed) {
      const { secure, plain } = this.server.ports;
      this.relays = await Promise.all([secure, plain].map((port) => Relay.start(port, loopback, behind)));
    }
    const launching = browserNames.map(async (name) => this.#browsers.set(name, await launch(name, this.server)));
    const failed = (await Promise.allSettled(launching)).find(({ status }) => status === 'rejected');
    if (!failed) return;
    await this.close();
    throw failed.reason;
  }

  async close() {
    await Promise.all([...this.#browsers.values()].map((one) => one.close()));
    await Promise.all(this.relays.map((relay) => relay.stop()));
    await this.server?.stop();
  }

  /** A room that nobody has been in. */
  newRoom() {
    this.#rooms += 1;
    return `room-${this.#rooms}`;
  }

  /**
   * A page with cookies, storage and connections of its own.
   * @param {string} browserName
   * @param {string} url
   * @param {import('puppeteer-core').Viewport} [viewport]
   * @returns {Promise<import('puppeteer-core').Page>}
   */
  async page(browserName, url, viewport) {
    const { browser } = this.#browsers.get(browserName);
    const context = await browser.createBrowserContext();
    const page = await context.newPage();
    this.#pages.add(new OpenPage(`${browserName} ${this.#pages.size + 1}`, page, context));
    if (viewport) await page.setViewport(viewport);
    await page.goto(url);
    return page;
  }

  /**
   * A member in a page of its own, over the given transport.
   * @param {string} browserName
   * @param {keyof typeof transports | {origin: 'secure'|'plain', types?: string[]}} transport  one, or what to try
   * @param {{room: string, name?: string, media?: boolean, rtcConfig?: RTCConfiguration}} options
   * @returns {Promise<Member>}
   */
  async member(browserName, transport, { room, name = browserName, media, rtcConfig }) {
    const { origin, types } = typeof transport === 'string' ? transports[transport] : transport;
    const page = await this.page(browserName, `${this.server[origin]}${blankPath}`);
    return Member.join(page, { room, name, types, media, rtcConfig });
  }

  /** @throws where a page has had an error that nothing caught, or did what its security policy forbids */
  checkPages() {
    const problems = [...this.#pages].flatMap(({ name, problems: own }) => own.map((problem) => `${name}: ${problem}`));
    if (problems.length > 0) throw new Error(problems.join('\n'));
  }

  /** After the scenario, and after its pages, this ends, too. @param {() => Promise<void>} close */
  afterwards(close) {
    this.#closers.push(close);
  }

  async clear() {
    const pages = [...this.#pages];
    this.#pages.clear();
    await Promise.all(pages.map((page) => page.close()));
    await Promise.all(this.#closers.splice(0).map((close) => close()));
  }

  /** Keeps a picture. @param {import('puppeteer-core').Page} page @param {string} name */
  async screenshot(page, name) {
    await mkdir(artifacts, { recursive: true });
    await page.screenshot({ path: path.join(artifacts, `${fileName(name)}.png`) });
  }

  /** Prints and keeps what helps to find out why. @param {string} scenario @param {unknown} error */
  async report(scenario, error) {
    const parts = [`# ${scenario}\n${error?.stack ?? error}`];
    for (const page of this.#pages) {
      parts.push(`# ${page.name}\n${await page.tell()}`);
      await this.screenshot(page.page, `failed ${scenario} ${page.name}`).catch(() => {}); // The page may be gone.
    }
    const { log } = this.server;
    await mkdir(artifacts, { recursive: true });
    await writeFile(path.join(artifacts, `failed-${fileName(scenario)}.log`), `${[...parts, '# server', ...log].join('\n')}\n`);
    console.error([...parts, '# server', ...log.slice(-logTail)].join('\n'));
  }
}

/** A page and what it has said. */
class OpenPage {
  /** @type {string[]} */
  console = [];
  /** What no page of ours may do. @type {string[]} */
  problems = [];

  /**
   * @param {string} name
   * @param {import('puppeteer-core').Page} page
   * @param {import('puppeteer-core').BrowserContext} context
   */
  constructor(name, page, context) {
    this.name = name;
    this.page = page;
    this.context = context;
    page.on('console', (message) => this.#hear(`${message.type()}: ${message.text()}`));
    page.on('pageerror', (error) => {
      if (lostConnection.test(error.message)) return this.#hear(`told: ${error.message}`);
      this.#hear(`uncaught: ${error.message}`);
      this.problems.push(`uncaught: ${error.stack ?? error.message}`);
    });
  }

  /** @param {string} line */
  #hear(line) {
    this.console.push(line);
    this.console.splice(0, this.console.length - maxLines);
    if (/content.security.policy/i.test(line)) this.problems.push(line);
  }

  /** @returns {Promise<string>} what the page has to say for itself */
  async tell() {
    const own = await this.page.evaluate(() => JSON.stringify({
      url: location.href, state: document.documentElement.dataset.state, session: globalThis.member?.session.state,
      ...globalThis.member?.record, tiles: [...document.querySelectorAll('[data-testid=tile]')].map((tile) => {
        const { videoWidth, currentTime, paused, readyState, srcObject } = tile.querySelector('video') ?? {};
        const tracks = srcObject?.getTracks().map(({ kind, muted, readyState: state }) => ({ kind, muted, state }));
        return { ...tile.dataset, videoWidth, currentTime, paused, readyState, tracks };
      }),
    }, null, 1)).catch((error) => `(${error.message})`);
    return [...this.console.slice(-logTail), own].join('\n');
  }

  close() {
    return this.context.close();
  }
}

/**
 * A stage for all scenarios of a file.
 * @param {Parameters<Stage['open']>[0]} [options]
 */
export function useStage(options = {}) {
  const stage = new Stage();
  before(() => stage.open(options), { timeout: hangMs });
  after(() => stage.close(), { timeout: hangMs });

  /**
   * A test on this stage, whose pages end with it.
   * @param {string} name
   * @param {() => Promise<void>} play
   */
  function scenario(name, play) {
    test(name, { timeout: hangMs }, async () => {
      try {
        await play();
        stage.checkPages();
      } catch (error) {
        await stage.report(name, error);
        throw error;
      } finally {
        await stage.clear();
      }
    });
  }
  return { stage, scenario };
}

/** @param {string} text */
function fileName(text) {
  return text.toLowerCase().replaceAll(/[^a-z0-9]+/g, '-').replaceAll(/^-|-$/g, '').slice(0, 120);
}

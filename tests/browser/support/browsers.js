// Chromium and Firefox, each with a fresh profile that trusts the server's CA and has a make-believe camera and microphone.

import { execFile } from 'node:child_process';
import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { promisify } from 'node:util';

import puppeteer from 'puppeteer-core';

/** @typedef {'chromium'|'firefox'} BrowserName */

/** @type {readonly BrowserName[]} */
export const browserNames = ['chromium', 'firefox'];

const run = promisify(execFile);

const launchers = { chromium: launchChromium, firefox: launchFirefox };

/**
 * @param {BrowserName} name
 * @param {{ca: string, http3?: boolean}} options  `ca`: a PEM file; `http3`: Firefox may use HTTP/3 although it trusts that CA
 * @returns {Promise<{browser: import('puppeteer-core').Browser, close: () => Promise<void>}>}
 */
export async function launch(name, { ca, http3 = false }) {
  const home = await mkdtemp(path.join(tmpdir(), `wigwag-${name}-`));
  const removeHome = () => rm(home, { recursive: true, force: true, maxRetries: 5 });
  try {
    const browser = await launchers[name](home, ca, http3);
    return {
      browser,
      close: async () => {
        await browser.close();
        await removeHome();
      },
    };
  } catch (error) {
    await removeHome();
    throw error;
  }
}

/** @param {string} home @param {string} ca */
async function launchChromium(home, ca) {
  await trust(path.join(home, '.pki', 'nssdb'), ca);
  return puppeteer.launch({
    executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
    userDataDir: path.join(home, 'profile'),
    env: { ...process.env, HOME: home },
    headless: true,
    args: [
      ...(process.getuid?.() === 0 ? ['--no-sandbox'] : []),
      '--disable-gpu', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync',
      // Ten pictures a second are enough to see that they move, and leave a small machine its breath.
      '--use-fake-device-for-media-stream=fps=10', '--use-fake-ui-for-media-stream',
      '--allow-loopback-in-peer-connection', '--autoplay-policy=no-user-gesture-required',
    ],
  });
}

/** @param {string} home @param {string} ca @param {boolean} http3 */
async function launchFirefox(home, ca, http3) {
  const profile = path.join(home, 'profile');
  await trust(profile, ca);
  return puppeteer.launch({
    browser: 'firefox',
    executablePath: process.env.FIREFOX ?? '/usr/bin/firefox-esr',
    userDataDir: profile,
    env: { ...process.env, HOME: home },
    headless: true,
    extraPrefsFirefox: {
      'media.navigator.streams.fake': true,
      'media.navigator.permission.disabled': true,
      // As many as Chromium's.
      'media.navigator.video.default_fps': 10,
      'media.autoplay.default': 0,
      'media.peerconnection.ice.loopback': true,
      // Names of local addresses need a multicast DNS that not every machine has.
      'media.peerconnection.ice.obfuscate_host_addresses': false,
      // HTTP/3 is otherwise off in a profile that trusts a CA of its own.
      'network.http.http3.disable_when_third_party_roots_found': !http3,
    },
  });
}

/**
 * Puts the CA into an NSS database, as both browsers have one.
 * @param {string} database
 * @param {string} ca
 */
async function trust(database, ca) {
  await mkdir(database, { recursive: true });
  await run('certutil', ['-N', '-d', `sql:${database}`, '--empty-password']);
  await run('certutil', ['-A', '-d', `sql:${database}`, '-n', 'wigwag', '-t', 'C,,', '-i', ca]);
}

// One page of the demo, used as a person uses it: by what is to be seen and clicked.

import { patienceMs } from './deadline.js';

/** @param {string} name @returns {string} the selector of a control */
const control = (name) => `[data-testid=${name}]`;

export class Visitor {
  /** @param {import('puppeteer-core').Page} page @param {string} name */
  constructor(page, name) {
    this.page = page;
    this.name = name;
  }

  /** The page is ready to be used. */
  arrives() {
    return this.until('the form', () => document.documentElement.dataset.state === 'prejoin');
  }

  /** Types name and room, where the address does not name the room, and joins. @param {string} [room] */
  async join(room) {
    await this.arrives();
    await this.type('name', this.name);
    if (room !== undefined) await this.type('room', room);
    await this.click('join');
    await this.until('the call', () => document.documentElement.dataset.state === 'incall');
  }

  /** @param {string} name of a control */
  async click(name) {
    // A person looks at the page that they click on; browsers hold back the others.
    await this.page.bringToFront();
    await this.page.locator(control(name)).setTimeout(patienceMs).click();
  }

  /** Replaces what stands in a field. @param {string} name of the field @param {string} text */
  async type(name, text) {
    await this.page.bringToFront();
    await this.page.locator(control(name)).setTimeout(patienceMs).fill(text);
  }

  /** The value or text of a control. @param {string} name */
  read(name) {
    return this.page.$eval(control(name), (element) => element.value ?? element.textContent);
  }

  /** So many others are connected, and each one's picture moves. @param {number} count */
  async sees(count) {
    await this.until(`${count} moving pictures`, (expected) => {
      const tiles = [...document.querySelectorAll('[data-testid=tile]')];
      const moves = (tile) => {
        const video = tile.querySelector('video');
        const { videoWidth, currentTime } = video;
        tile.firstTime ??= videoWidth > 0 ? currentTime : undefined;
        const isShown = tile.dataset.video === 'true' && getComputedStyle(video).visibility === 'visible';
        return tile.dataset.state === 'connected' && isShown && currentTime > tile.firstTime;
      };
      return tiles.map(moves).filter(Boolean).length === expected && tiles.length === expected;
    }, count);
  }

  /** Presses the button of this label. @param {string} label */
  async press(label) {
    await this.page.bringToFront();
    await this.page.locator(`button[aria-label="${label}"]`).setTimeout(patienceMs).click();
  }

  /** Has a link made in the open dialog. @returns {Promise<string>} it */
  async makesInvitation() {
    await this.click('invite-make');
    await this.until('the link', () => document.querySelector('[data-testid=invite-link]').value.includes('#token='));
    return this.read('invite-link');
  }

  /**
   * Removes somebody by their tile, and locks the room.
   * @param {string} name
   * @param {() => Promise<void>} meanwhile  while the page asks whether to do it
   */
  async removes(name, meanwhile) {
    await this.press(`Remove ${name} from the room`);
    await this.click('remove-lock');
    await meanwhile();
    await this.click('remove-confirm');
  }

  /** The one other is shown so. @param {'audio'|'video'} what @param {boolean} on */
  async seesPeerWith(what, on) {
    await this.until(`a peer with ${what} ${on ? 'on' : 'off'}`, (name, value) => {
      const tiles = document.querySelectorAll('[data-testid=tile]');
      return tiles.length === 1 && tiles[0].dataset[name] === value;
    }, what, String(on));
  }

  /**
   * @param {string} what                      that is waited for
   * @param {(...values: any[]) => any} holds  asked in the page until it says yes
   * @param {...any} values                    that it is given
   */
  async until(what, holds, ...values) {
    const waiting = this.page.waitForFunction(holds, { polling: 100, timeout: patienceMs }, ...values);
    await waiting.catch((error) => {
      throw new Error(`${this.name} waits in vain for ${what}: ${error.message}`);
    });
  }
}

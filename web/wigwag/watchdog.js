// Notices a link that has died without a word.

export class Watchdog {
  #onSilent;
  #onLate;
  #limitMs = 0;
  /** When silence becomes death; moved forward by every sign of life. */
  #deadline = 0;
  /** A sign of life has been asked for and has not come yet. */
  #probing = false;
  /** @type {ReturnType<typeof setTimeout>|undefined} */
  #timer;

  /**
   * @param {object} calls
   * @param {() => void} calls.onSilent  nothing was heard within the limit
   * @param {() => void} calls.onLate    the limit has passed, but so late that the page must have been asleep: what the
   *   server has sent may still wait in the browser, so ask for a sign of life and call `probe`
   */
  constructor({ onSilent, onLate }) {
    this.#onSilent = onSilent;
    this.#onLate = onLate;
  }

  /** @param {number} limitMs the silence that a living link never reaches */
  start(limitMs) {
    this.#limitMs = limitMs;
    this.heard();
    this.#arm();
  }

  stop() {
    clearTimeout(this.#timer);
    this.#timer = undefined;
  }

  /** Something came. Cheap, as it is called for every message: the timer looks at the clock only when it fires. */
  heard() {
    this.#deadline = Date.now() + this.#limitMs;
    this.#probing = false;
  }

  /** Something must come within `graceMs` from now. @param {number} graceMs */
  probe(graceMs) {
    if (this.#timer === undefined) return;
    this.#probing = true;
    this.#deadline = Math.min(this.#deadline, Date.now() + graceMs);
    this.#arm();
  }

  #arm() {
    clearTimeout(this.#timer);
    // A clock set back must not make the wait longer than the limit.
    const waitMs = Math.min(this.#limitMs, Math.max(0, this.#deadline - Date.now()));
    const dueAt = Date.now() + waitMs;
    this.#timer = setTimeout(() => this.#look(dueAt), waitMs);
  }

  /** @param {number} dueAt */
  #look(dueAt) {
    const now = Date.now();
    if (now < this.#deadline) return this.#arm();
    if (!this.#probing && now - dueAt > this.#limitMs / 2) {
      this.#deadline = now + this.#limitMs;
      this.#arm();
      return this.#onLate();
    }
    this.stop();
    this.#onSilent();
  }
}

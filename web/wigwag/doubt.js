// Notices early, long before the watchdog, that the server leaves something unanswered. To doubt a link costs no more
// than a try of others beside it, which its next sign of life ends: so the wait may be short.

export class Doubt {
  #isWaiting;
  #graceMs;
  #onDoubt;
  /** From when on silence counts: the first open question, or the last sign of life. */
  #since = 0;
  /** @type {ReturnType<typeof setTimeout>|undefined} */
  #timer;

  /**
   * @param {object} calls
   * @param {() => boolean} calls.isWaiting  whether an answer is due
   * @param {() => number} calls.graceMs     the silence before it that is nothing unusual
   * @param {() => void} calls.onDoubt       it has been silent for longer; said once, until something more is asked
   */
  constructor({ isWaiting, graceMs, onDoubt }) {
    this.#isWaiting = isWaiting;
    this.#graceMs = graceMs;
    this.#onDoubt = onDoubt;
  }

  /** Something that the server answers is about to go out, and does not count as waiting yet. */
  asked() {
    if (!this.#isWaiting()) this.#since = Date.now();
    if (this.#timer === undefined) this.#arm();
  }

  /** Something came. Cheap: the timer looks at the clock only when it fires. */
  heard() {
    this.#since = Date.now();
  }

  stop() {
    clearTimeout(this.#timer);
    this.#timer = undefined;
  }

  #arm() {
    const graceMs = this.#graceMs();
    // A clock set back must not make the wait longer.
    const waitMs = Math.min(graceMs, Math.max(0, this.#since + graceMs - Date.now()));
    const dueAt = Date.now() + waitMs;
    this.#timer = setTimeout(() => this.#look(dueAt), waitMs);
  }

  /** @param {number} dueAt */
  #look(dueAt) {
    this.#timer = undefined;
    if (!this.#isWaiting()) return;
    const now = Date.now();
    const graceMs = this.#graceMs();
    // A page that was asleep has yet to hear what came meanwhile.
    if (now - dueAt > graceMs) this.#since = now;
    if (now - this.#since < graceMs) return this.#arm();
    this.#onDoubt();
  }
}

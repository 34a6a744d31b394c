// Opens transports side by side and finds the first that works.
//
// A transport works when `joined` or `resumed` has come on it, not when it has opened: some middleboxes let it open and
// kill it at once. So the greeting goes out on one at a time, the first to open; the others wait, open, for it to fail.

import { closingOf, isDecision } from './errors.js';

/**
 * @import { Closing } from './errors.js'
 * @import { Rung } from './ladder.js'
 * @import { Link } from './links/link.js'
 * @import { TransportType } from './discovery.js'
 *
 * How one transport fared. `unused`: it opened or was about to, and another was quicker.
 * @typedef {{transport: TransportType, outcome: 'won'|'failed'|'refused'|'unused', ms: number, error?: Error}} Attempt
 *
 * @typedef {object} Runner
 * @property {Rung} rung
 * @property {Link} link
 * @property {'opening'|'open'|'greeted'|'over'} phase
 * @property {boolean} impatient   greeted long ago: any other that is open gets its turn
 * @property {number} startedAt
 * @property {ReturnType<typeof setTimeout>} [timer]
 */

/** What answers a greeting well; `waiting` comes where a moderator must admit one first. */
const answers = new Set(['joined', 'resumed', 'waiting']);

export class Race {
  #rungs;
  #calls;
  #timing;
  /** @type {Runner[]} */
  #runners = [];
  /** @type {ReturnType<typeof setTimeout>|undefined} */
  #headStart;
  #isOver = false;

  /**
   * @param {Rung[]} rungs  at least one
   * @param {object} calls
   * @param {(rung: Rung) => Link} calls.createLink
   * @param {(type: TransportType) => string} calls.greet   the greeting's line; called when it is about to be sent
   * @param {(link: Link, text: string) => void} calls.won  with the answer; set the link's handlers at once
   * @param {(closing: Closing) => void} calls.lost         all failed, or the server has decided
   * @param {() => void} [calls.abandoned]    a greeted link was given up; the greeting may yet be handled
   * @param {(attempt: Attempt) => void} [calls.report]
   * @param {Record<'openMs'|'patienceMs'|'answerMs', number>} timing
   */
  constructor(rungs, calls, timing) {
    this.#rungs = [...rungs];
    this.#calls = calls;
    this.#timing = timing;
  }

  start() {
    this.#startNext();
  }

  /** How long it has been running, in milliseconds. */
  get ageMs() {
    return this.#runners.length === 0 ? 0 : performance.now() - this.#runners[0].startedAt;
  }

  /** Ends the race without a result: nobody is told. */
  abort() {
    this.#stop('the attempt was given up');
  }

  #startNext() {
    clearTimeout(this.#headStart);
    const rung = this.#rungs.shift();
    if (rung === undefined || this.#isOver) return;
    const link = this.#calls.createLink(rung);
    /** @type {Runner} */
    const runner = { rung, link, phase: 'opening', impatient: false, startedAt: performance.now() };
    this.#runners.push(runner);
    runner.timer = setTimeout(() => this.#fail(runner, late('did not open', this.#timing.openMs)), this.#timing.openMs);
    link.handlers = {
      message: (text) => this.#hear(runner, text),
      heard() {},
      closed: (closing) => this.#fail(runner, closing),
    };
    link.open().then(() => this.#opened(runner), (error) => this.#fail(runner, { error }));
    if (this.#rungs.length > 0) {
      this.#headStart = setTimeout(() => this.#startNext(), this.#rungs[0].headStartMs);
    }
  }

  /** @param {Runner} runner */
  #opened(runner) {
    if (runner.phase !== 'opening') return;
    clearTimeout(runner.timer);
    runner.phase = 'open';
    const greeted = this.#inPhase('greeted');
    if (greeted === undefined) this.#greet(runner);
    else if (greeted.impatient) this.#fail(greeted, late('did not answer', this.#patienceWith(greeted)));
  }

  /** @param {Runner} runner */
  #greet(runner) {
    runner.phase = 'greeted';
    runner.timer = setTimeout(() => this.#losePatience(runner), this.#patienceWith(runner));
    runner.link.send(this.#calls.greet(runner.rung.type));
  }

  /** @param {Runner} runner */
  #patienceWith({ rung }) {
    return rung.patienceMs ?? this.#timing.patienceMs;
  }

  /** @param {Runner} runner */
  #losePatience(runner) {
    const { answerMs } = this.#timing;
    const patienceMs = this.#patienceWith(runner);
    if (this.#inPhase('open')) return this.#fail(runner, late('did not answer', patienceMs));
    runner.impatient = true;
    runner.timer = setTimeout(() => this.#fail(runner, late('did not answer', answerMs)), answerMs - patienceMs);
    this.#tryAgain(runner);
  }

  /**
   * The browser may have sent the request into a pooled connection that has died without a word, and would go on doing so
   * for a minute where that is HTTP/2. Requests without credentials have a pool of their own. The protocol needs none; a
   * proxy that does refuses, and nothing is lost.
   * @param {Runner} runner
   */
  #tryAgain({ rung }) {
    const isRequest = rung.type === 'event-stream' || rung.type === 'long-poll';
    if (!isRequest || rung.anonymous || this.#rungs.length > 0) return;
    this.#rungs.push({ ...rung, anonymous: true });
    this.#startNext();
  }

  /** @param {Runner} runner @param {string} text */
  #hear(runner, text) {
    const message = parse(text);
    if (message?.type === 'closed') return this.#fail(runner, closingOf(message));
    if (runner.phase !== 'greeted' || !answers.has(message?.type)) return;
    clearTimeout(runner.timer);
    runner.phase = 'over';
    this.#report(runner, 'won');
    this.#stop('another transport was quicker');
    this.#calls.won(runner.link, text);
  }

  /** @param {Runner} runner @param {Closing} closing */
  #fail(runner, closing) {
    if (runner.phase === 'over') return;
    if (runner.phase === 'greeted') this.#calls.abandoned?.();
    clearTimeout(runner.timer);
    runner.phase = 'over';
    runner.link.close('gave up');
    const decided = isDecision(closing);
    const error = closing.error instanceof Error ? closing.error : new Error(closing.message ?? 'the transport failed');
    this.#report(runner, decided ? 'refused' : 'failed', error);
    if (decided) return this.#lose(closing);

    const next = this.#inPhase('open');
    if (next !== undefined && this.#inPhase('greeted') === undefined) this.#greet(next);
    if (this.#rungs.length > 0) this.#startNext();
    else if (this.#runners.every(({ phase }) => phase === 'over')) this.#lose(closing);
  }

  /** @param {Closing} closing */
  #lose(closing) {
    if (this.#isOver) return;
    this.#stop('the server has refused');
    this.#calls.lost(closing);
  }

  /** @param {string} reason */
  #stop(reason) {
    this.#isOver = true;
    clearTimeout(this.#headStart);
    for (const runner of this.#runners) {
      if (runner.phase === 'over') continue;
      if (runner.phase === 'greeted') this.#calls.abandoned?.();
      clearTimeout(runner.timer);
      runner.phase = 'over';
      runner.link.close(reason);
      this.#report(runner, 'unused');
    }
  }

  /** @param {Runner['phase']} phase */
  #inPhase(phase) {
    return this.#runners.find((runner) => runner.phase === phase);
  }

  /** @param {Runner} runner @param {Attempt['outcome']} outcome @param {Error} [error] */
  #report(runner, outcome, error) {
    const ms = Math.round(performance.now() - runner.startedAt);
    this.#calls.report?.({ transport: runner.rung.type, outcome, ms, ...(error && { error }) });
  }
}

/** @param {string} what @param {number} ms @returns {Closing} */
function late(what, ms) {
  return { error: new Error(`${what} within ${ms} ms`) };
}

/** @param {string} text @returns {any} */
function parse(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

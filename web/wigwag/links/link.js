// What every transport looks like to the session.

/**
 * @import { Closing } from '../errors.js'
 * @import { TransportType } from '../discovery.js'
 *
 * @typedef {object} LinkHandlers
 * @property {(text: string) => void} message     one JSON object of the protocol, as text
 * @property {() => void} heard                   a sign of life that is no message
 * @property {(closing: Closing) => void} closed  the link is over; called once, nothing comes after it
 */

/** @type {LinkHandlers} */
const deaf = { message() {}, heard() {}, closed() {} };

/** @abstract */
export class Link {
  /** Who hears of what comes. May be set at any time; what came before is gone. @type {LinkHandlers} */
  handlers = deaf;
  /** Silence that is normal on this transport, beyond the two heartbeats, in milliseconds. */
  quietMs = 0;
  /** Whether what has come must be acknowledged by `ack`; a poll says in its `resume` how far it has got. */
  needsAck = true;
  /** Another link takes the seat over: what this one has not sent yet, it does not send. */
  isRetired = false;
  #over = false;

  /** @param {TransportType} type */
  constructor(type) {
    this.type = type;
  }

  get isOver() {
    return this.#over;
  }

  /**
   * Opens the transport. May wait long: the caller has a deadline and closes the link when it passes.
   * @abstract
   * @returns {Promise<void>} resolves when the first line may be sent
   */
  async open() {
    throw new Error('a link must say how it opens');
  }

  /**
   * Sends one line, in order and reliably for as long as the link lives. Fails only by `closed`.
   * @abstract
   * @param {string} _line without its line break
   */
  send(_line) {
    throw new Error('a link must say how it sends');
  }

  /**
   * Sends what may be lost, the quickest way.
   * @param {string} line
   */
  sendDatagram(line) {
    this.send(line);
  }

  /** Hears nothing more and sends nothing of its own accord, but what is on its way may arrive; then it is closed. */
  retire() {
    this.handlers = deaf;
    this.isRetired = true;
  }

  /**
   * Ends the link after what has been sent is on its way. Handlers hear nothing more.
   * @param {string} [_reason] for the server's log
   */
  close(_reason) {
    this.retire();
    this.#over = true;
  }

  /**
   * Tells the handlers, once, that the link is over.
   * @protected
   * @param {Closing} closing
   */
  end(closing) {
    if (this.#over) return;
    this.#over = true;
    const { closed } = this.handlers;
    this.handlers = deaf;
    closed(closing);
  }
}

// WebTransport over HTTP/3: NDJSON on the first bidirectional stream, ephemeral messages by datagram.

import { LineDecoder } from '../ndjson.js';
import { Link } from './link.js';

/** @import { Offer } from '../discovery.js' */

/** After the stream has ended, the close code is given this long to come. */
const closeInfoMs = 1_000;

export class WebTransportLink extends Link {
  #offer;
  #encoder = new TextEncoder();
  /** @type {WebTransport|null} */
  #session = null;
  /** @type {WritableStreamDefaultWriter<Uint8Array>|null} */
  #stream = null;
  /** @type {WritableStreamDefaultWriter<Uint8Array>|null} */
  #datagrams = null;

  /** @param {Pick<Offer, 'url'|'certificateHashes'>} offer */
  constructor(offer) {
    super('webtransport');
    this.#offer = offer;
  }

  /** @override */
  async open() {
    const { url, certificateHashes } = this.#offer;
    const session = new WebTransport(url, {
      ...(certificateHashes.length > 0 && { serverCertificateHashes: certificateHashes }),
      // Browsers that do not know it ignore it; the path names the version in any case.
      ...{ protocols: ['wigwag.v1'] },
    });
    this.#session = session;
    session.closed.then(
      ({ closeCode, reason }) => this.end(closeCode ? { closeCode, message: reason } : {}),
      (error) => this.end({ error }),
    );
    await session.ready;
    const stream = await session.createBidirectionalStream();
    this.#stream = stream.writable.getWriter();
    this.#datagrams = datagramWriter(session);
    this.#readLines(stream.readable);
    this.#readDatagrams(session.datagrams.readable);
  }

  /** @param {ReadableStream<Uint8Array>} readable */
  async #readLines(readable) {
    const reader = readable.getReader();
    const decoder = new LineDecoder();
    try {
      for (;;) {
        const { value, done } = await reader.read();
        if (done) break;
        this.handlers.heard();
        for (const line of decoder.push(value)) this.handlers.message(line);
      }
      setTimeout(() => this.#fail(new Error('the server ended the stream')), closeInfoMs);
    } catch (error) {
      // A session that closes fails its streams; why it closed is told by `closed` alone.
      setTimeout(() => this.#fail(error), closeInfoMs);
    }
  }

  /** @param {ReadableStream<Uint8Array>} readable */
  async #readDatagrams(readable) {
    const reader = readable.getReader();
    const decoder = new TextDecoder();
    try {
      for (;;) {
        const { value, done } = await reader.read();
        if (done) return;
        this.handlers.message(decoder.decode(value));
      }
    } catch {
      // Datagrams end with the session, whose end is told by `closed`.
    }
  }

  /** @override @param {string} line */
  send(line) {
    this.#stream?.write(this.#encoder.encode(`${line}\n`)).catch((error) => {
      setTimeout(() => this.#fail(error), closeInfoMs);
    });
  }

  /** @override @param {string} line */
  sendDatagram(line) {
    const bytes = this.#encoder.encode(line);
    const fits = bytes.length <= (this.#session?.datagrams.maxDatagramSize ?? 0);
    if (!fits || this.#datagrams === null) return this.send(line);
    // A full queue drops it, as the network might.
    if ((this.#datagrams.desiredSize ?? 0) > 0) this.#datagrams.write(bytes).catch(() => {});
  }

  /** @param {unknown} error */
  #fail(error) {
    this.end({ error });
    closeQuietly(this.#session, '');
  }

  /** @override @param {string} [reason] */
  close(reason = '') {
    super.close(reason);
    const session = this.#session;
    // Ending the stream first lets what was written go out before the session's end overtakes it.
    const flushed = this.#stream?.close() ?? Promise.resolve();
    flushed.catch(() => {}).then(() => closeQuietly(session, reason));
    setTimeout(() => closeQuietly(session, reason), closeInfoMs);
  }
}

/**
 * @param {WebTransport} session
 * @returns {WritableStreamDefaultWriter<Uint8Array>|null}
 */
function datagramWriter(session) {
  // The specification has moved from one `writable` to as many as one creates; browsers are on both sides of it.
  const datagrams = /** @type {any} */ (session.datagrams);
  const writable = datagrams.createWritable?.() ?? datagrams.writable;
  return writable?.getWriter() ?? null;
}

/** @param {WebTransport|null} session @param {string} reason */
function closeQuietly(session, reason) {
  try {
    session?.close({ closeCode: 0, reason });
  } catch {
    // Closed already, or never opened.
  }
}

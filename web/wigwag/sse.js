// Server-sent events (HTML Standard, 9.2.6) from a fetch body: EventSource can neither POST nor send a header.

/** As for a line of NDJSON: far above what a server sends. */
const maxEventLength = 16 * 1024 * 1024;

export class EventStreamDecoder {
  #decoder = new TextDecoder('utf-8', { fatal: true });
  #rest = '';
  #endedWithReturn = false;
  /** @type {string[]} */
  #data = [];
  #length = 0;

  /**
   * @param {Uint8Array} chunk
   * @returns {string[]} the `data` of each event that the chunk completes
   * @throws {TypeError} on bytes that are not UTF-8
   * @throws {RangeError} on an event without an end
   */
  push(chunk) {
    let text = this.#decoder.decode(chunk, { stream: true });
    if (text === '') return [];
    // A "\r\n" may be cut in two by a chunk's border; its "\r" has ended the line already.
    if (this.#endedWithReturn && text.startsWith('\n')) text = text.slice(1);
    this.#endedWithReturn = text === '' ? false : text.endsWith('\r');

    const lines = (this.#rest + text).split(/\r\n|\n|\r/);
    this.#rest = /** @type {string} */ (lines.pop());
    if (this.#rest.length + this.#length > maxEventLength) {
      throw new RangeError(`the server sent an event longer than ${maxEventLength} characters`);
    }
    return lines.map((line) => this.#line(line)).filter((data) => data !== null);
  }

  /**
   * @param {string} line
   * @returns {string|null} the data of the event that this line ends
   */
  #line(line) {
    if (line === '') {
      const data = this.#data.length > 0 ? this.#data.join('\n') : null;
      this.#data = [];
      this.#length = 0;
      return data;
    }
    // `id` repeats `seq`, which stands in the data; `event`, `retry` and comments carry nothing for us.
    if (line.startsWith('data:')) {
      const data = line.slice(line.startsWith('data: ') ? 6 : 5);
      this.#data.push(data);
      this.#length += data.length;
    }
    return null;
  }
}

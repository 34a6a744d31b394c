// Newline-delimited JSON: bytes in chunks of any size to whole lines.

/** A room's whole picture is the longest line a server sends; this is far above it. */
const maxLineLength = 16 * 1024 * 1024;

export class LineDecoder {
  #decoder = new TextDecoder('utf-8', { fatal: true });
  #rest = '';

  /**
   * @param {Uint8Array} chunk
   * @returns {string[]} the lines that the chunk completes, blank ones left out
   * @throws {TypeError} on bytes that are not UTF-8
   * @throws {RangeError} on a line without an end
   */
  push(chunk) {
    const pieces = this.#decoder.decode(chunk, { stream: true }).split('\n');
    if (this.#rest.length + pieces[0].length > maxLineLength) {
      throw new RangeError(`the server sent a line longer than ${maxLineLength} characters`);
    }
    pieces[0] = this.#rest + pieces[0];
    this.#rest = /** @type {string} */ (pieces.pop());
    return pieces.map((line) => line.trim()).filter((line) => line !== '');
  }

  /** @returns {string[]} what stood after the last line break, when the bytes have ended */
  end() {
    const line = (this.#rest + this.#decoder.decode()).trim();
    this.#rest = '';
    return line === '' ? [] : [line];
  }
}

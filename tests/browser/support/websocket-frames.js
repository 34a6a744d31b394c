// Just enough of RFC 6455, section 5, for a client: masked text frames out, unfragmented text and close frames in.

import { randomBytes } from 'node:crypto';

const opcodes = { text: 0x1, close: 0x8, ping: 0x9 };
const fin = 0x80;
const masked = 0x80;

/** @param {string} text @returns {Buffer} one masked text frame */
export function textFrame(text) {
  return frame(opcodes.text, Buffer.from(text));
}

/** @param {number} code @returns {Buffer} one masked close frame */
export function closeFrame(code) {
  const payload = Buffer.alloc(2);
  payload.writeUInt16BE(code);
  return frame(opcodes.close, payload);
}

/** @param {number} opcode @param {Buffer} payload */
function frame(opcode, payload) {
  const mask = randomBytes(4);
  const scrambled = payload.map((byte, index) => byte ^ mask[index % 4]);
  return Buffer.concat([Buffer.from([fin | opcode]), lengthOf(payload), mask, scrambled]);
}

/** @param {Buffer} payload */
function lengthOf({ length }) {
  if (length < 126) return Buffer.from([masked | length]);
  if (length > 0xffff) throw new RangeError(`${length} bytes are more than a test sends`);
  const bytes = Buffer.from([masked | 126, 0, 0]);
  bytes.writeUInt16BE(length, 1);
  return bytes;
}

/** Takes bytes as they come, and gives frames. */
export class FrameReader {
  #rest = Buffer.alloc(0);

  /**
   * @param {Buffer} bytes
   * @returns {({text: string} | {closeCode: number})[]}
   */
  push(bytes) {
    this.#rest = Buffer.concat([this.#rest, bytes]);
    const frames = [];
    for (let next = this.#take(); next; next = this.#take()) frames.push(next);
    return frames.filter((next) => 'text' in next || 'closeCode' in next);
  }

  #take() {
    const bytes = this.#rest;
    if (bytes.length < 2) return null;
    const short = bytes[1];
    if (short & masked) throw new Error('a server must not mask its frames');
    const start = short < 126 ? 2 : short === 126 ? 4 : 10;
    if (bytes.length < start) return null;
    const length = short < 126 ? short : short === 126 ? bytes.readUInt16BE(2) : Number(bytes.readBigUInt64BE(2));
    if (bytes.length < start + length) return null;
    this.#rest = bytes.subarray(start + length);
    return read(bytes[0], bytes.subarray(start, start + length));
  }
}

/** @param {number} head @param {Buffer} payload */
function read(head, payload) {
  switch (head) {
    case fin | opcodes.text:
      return { text: payload.toString() };
    case fin | opcodes.close:
      return { closeCode: payload.length >= 2 ? payload.readUInt16BE() : 1005 };
    case fin | opcodes.ping:
      return {};
    default:
      throw new Error(`a frame that begins with 0x${head.toString(16)} was not expected`);
  }
}

// Two in a call who send each other numbers, and what must hold of it whatever their signaling goes through.

import assert from 'node:assert/strict';

import { within } from './deadline.js';

/**
 * @import { Member } from './member.js'
 * @import { Stage } from './stage.js'
 */

/** Longer than any wait of a working media path. In milliseconds. */
const mediaGapMs = 1_000;
/** Between two messages of one sender. In milliseconds. */
const paceMs = 30;

export class Traffic {
  /** @param {Member[]} members two, who hear and see each other */
  constructor(members) {
    this.members = members;
    this.sent = 0;
    /** From a harm until signals went through again for both, at most. In milliseconds. */
    this.longestOutageMs = 0;
  }

  /**
   * Alice calls Bob.
   * @param {Stage} stage
   * @param {{origin: 'secure'|'plain', types?: string[]}} transport
   * @param {string[]} [browsers] hers and his
   */
  static async start(stage, transport, browsers = ['chromium', 'firefox']) {
    const room = stage.newRoom();
    const members = await Promise.all(browsers.map((browser, index) => (
      stage.member(browser, transport, { room, name: ['Alice', 'Bob'][index] })
    )));
    return Traffic.between(members);
  }

  /** The same with two who are in one room already. @param {Member[]} members */
  static async between(members) {
    const [alice, bob] = members;
    await Promise.all([alice.hears(bob), bob.hears(alice)]);
    await Promise.all([alice.page.evaluate(begin, bob.id, paceMs), bob.page.evaluate(begin, alice.id, paceMs)]);
    return new Traffic(members);
  }

  /** Each sends so many numbers to the other; resolves when all are answered and have arrived. @param {number} count */
  async exchange(count) {
    this.sent += count;
    await Promise.all(this.members.map(async ({ page, name }) => (
      within(page.evaluate((more) => globalThis.traffic.send(more), count), `answers to what ${name} sends`)
    )));
    await Promise.all(this.members.map((member) => (
      member.until(`${this.sent} messages`, (expected) => globalThis.member.messages.length >= expected, this.sent)
    )));
  }

  /** So many of the present exchange have gone out. @param {number} count */
  async underWay(count) {
    await Promise.all(this.members.map((member) => (
      member.until(`${count} messages sent`, (expected) => globalThis.traffic.sending() >= expected, count)
    )));
  }

  /**
   * Does harm as soon as so many of the present exchange have gone out, and waits until signals go through again: `resumed`
   * has come, or an answer to what was sent after the harm, where a browser has repeated a poll by itself.
   * @param {string} what
   * @param {() => Promise<void>|void} harm
   * @param {number} after
   */
  async suffer(what, harm, after) {
    await this.underWay(after);
    const since = Date.now();
    await harm();
    const backAt = await Promise.all(this.members.map(async (member) => {
      await member.until(`an end of the ${what}`, (time) => globalThis.traffic.backAfter(time) !== undefined, since);
      return member.page.evaluate((time) => globalThis.traffic.backAfter(time), since);
    }));
    this.longestOutageMs = Math.max(this.longestOutageMs, ...backAt.map((at) => at - since));
  }

  /** Looks at what has come of it all. @returns {Promise<number>} the longest gap in any stream of media, in milliseconds */
  async check() {
    const gaps = await Promise.all(this.members.map((member) => this.#checkReceiver(member)));
    return Math.max(...gaps);
  }

  /** @param {Member} receiver @returns {Promise<number>} */
  async #checkReceiver(receiver) {
    const numbers = await receiver.page.evaluate(() => globalThis.member.messages.map(({ data }) => data));
    assert.deepEqual(numbers, [...Array(this.sent).keys()]);

    const { joined, presence, connections, errors } = await receiver.record();
    assert.equal(joined, 1, 'the seat was kept');
    assert.deepEqual(presence.filter(({ event }) => event === 'peerleft'), []);
    assert.deepEqual(connections.filter(({ state }) => !['connecting', 'connected'].includes(state)), []);
    assert.deepEqual(errors, []);
    const { isSame, audio, video } = await receiver.page.evaluate(() => globalThis.traffic.media());
    assert.ok(isSame, 'the connection is the same as before');
    assert.ok(audio < mediaGapMs && video < mediaGapMs, `media stood still for ${audio} ms (audio) and ${video} ms (video)`);
    return Math.max(audio, video);
  }
}

/**
 * Runs in the page: prepares to send numbers from 0, and watches the media of the other.
 * @param {string} to
 * @param {number} everyMs
 */
function begin(to, everyMs) {
  const { session, call, record } = globalThis.member;
  const { pc } = call.peers.get(to);
  /** By their numbers. */
  const times = [];
  const sendNext = async () => {
    const time = { sentAt: Date.now(), answeredAt: undefined };
    const number = times.push(time) - 1;
    await session.send(number, { to });
    time.answeredAt = Date.now();
  };
  let answers = [];
  const send = (count) => new Promise((resolve, reject) => {
    answers = [];
    const sending = setInterval(() => {
      answers.push(sendNext());
      if (answers.length < count) return;
      clearInterval(sending);
      Promise.all(answers).then(resolve, reject);
    }, everyMs);
  });
  const backAfter = (time) => {
    const answered = times.filter(({ sentAt, answeredAt }) => sentAt > time && answeredAt !== undefined);
    const signs = [...record.resumedAt, ...answered.map(({ answeredAt }) => answeredAt)].filter((at) => at >= time);
    return signs.length > 0 ? Math.min(...signs) : undefined;
  };

  const streams = {};
  const look = async () => {
    const now = performance.now();
    for (const { type, kind, packetsReceived } of (await pc.getStats()).values()) {
      if (type !== 'inbound-rtp') continue;
      const seen = streams[kind] ??= { packets: packetsReceived, at: now, longestGap: 0 };
      seen.longestGap = Math.max(seen.longestGap, Math.round(now - seen.at));
      if (packetsReceived > seen.packets) Object.assign(seen, { packets: packetsReceived, at: now });
    }
  };
  setInterval(look, 100);
  const media = async () => {
    await look();
    return { isSame: call.peers.get(to).pc === pc, audio: streams.audio.longestGap, video: streams.video.longestGap };
  };
  globalThis.traffic = { send, sending: () => answers.length, backAfter, media };
}

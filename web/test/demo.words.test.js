import assert from 'node:assert/strict';
import { test } from 'node:test';

import {
  explainDevices, explainEnding, explainModeration, explainPeer, explainScreen, explainTokenWish, explainWaiting,
} from '../demo/words.js';

/** Every code that can end a visit, by the protocol, and by the library itself. */
const endings = [
  'rateLimited', 'roomFull', 'roomLocked', 'unauthorized', 'tokenExpired', 'forbidden', 'notFound', 'tooLarge',
  'replaced', 'kicked', 'notAdmitted', 'unsupported', 'unreachable',
];
const denied = new DOMException('no', 'NotAllowedError');
const missing = new DOMException('no', 'NotFoundError');

test('every ending has words of its own and a way on', () => {
  const titles = endings.map((code) => {
    const { title, text, remedies } = explainEnding({ code, message: 'server words' });
    assert.ok(text.length > 0 && !text.includes('server words'), code);
    assert.ok(remedies.length > 0, code);
    return title;
  });
  assert.equal(new Set(titles).size, endings.length);
});

test('an ending of an unknown kind tells what the server said, and has a way on', () => {
  const { text, remedies } = explainEnding({ code: 'somethingNew', message: 'the moon is full' });
  assert.match(text, /^The moon is full\./);
  assert.deepEqual(remedies, ['again', 'room']);
  assert.ok(explainEnding(undefined).text.length > 0);
});

test('waiting names the reason the server gave', () => {
  assert.match(explainWaiting({ code: 'roomFull', message: '' }), /full/);
  assert.match(explainWaiting({ code: 'roomLocked', message: '' }), /locked/);
  assert.match(explainWaiting({ message: 'the moon is full' }), /^The moon is full\. /);
  assert.match(explainWaiting(undefined), /not answered/);
});

test('one sentence for both devices where the reason is the same, one for each where not', () => {
  assert.equal(explainDevices({ camera: null, microphone: null }), '');
  assert.match(explainDevices({ camera: denied, microphone: denied }), /^The browser does not allow the camera and microphone\. [^.]*\.$/);
  const both = explainDevices({ camera: missing, microphone: denied });
  assert.match(both, /No camera could be found/);
  assert.match(both, /does not allow the microphone/);
});

test('a reason that is no Error is told all the same', () => {
  assert.match(explainDevices({ camera: { name: 'OverconstrainedError' }, microphone: null }), /No camera could be found/);
  assert.match(explainDevices({ camera: 'odd', microphone: null }), /Odd\.$/);
});

test('who changes their mind about sharing gets no reproach', () => {
  assert.equal(explainScreen(new DOMException('', 'AbortError')), null);
});

test('a tile says nothing where all is well, and tells away from interrupted', () => {
  assert.equal(explainPeer('here', 'connected'), '');
  const words = [explainPeer('here', 'connecting'), explainPeer('here', 'disconnected'), explainPeer('here', 'failed'),
    explainPeer('away', 'connected'), explainPeer('away', 'disconnected')];
  assert.equal(new Set(words).size, words.length);
  assert.ok(words.every((text) => text.length > 0));
});

test('the wish for a token tells one that is missing from one refused and one run out', () => {
  const words = [explainTokenWish({ code: 'unauthorized' }, false), explainTokenWish({ code: 'unauthorized' }, true), explainTokenWish({ code: 'tokenExpired' }, true)];
  assert.equal(new Set(words).size, words.length);
});

test('a moderator learns why nothing was done', () => {
  assert.match(explainModeration({ code: 'peerGone' }, 'Bob'), /^Bob has gone/);
  assert.match(explainModeration({ code: 'forbidden' }, 'Bob'), /token/);
  assert.match(explainModeration({ code: 'internal', message: 'the moon is full' }, 'Bob'), /The moon is full\.$/);
});

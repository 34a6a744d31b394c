import assert from 'node:assert/strict';
import { test } from 'node:test';

import { addressOf, inviteLink, randomRoomName, readAddress, toRoomName, withoutToken } from '../demo/room.js';

const allowed = /^[A-Za-z0-9._~-]{1,128}$/;

test('a random room name is one the protocol allows, is left as it is, and is not given twice', () => {
  const names = Array.from({ length: 2_000 }, randomRoomName);
  for (const name of names) {
    assert.match(name, /^[a-z]+-[a-z]+-[a-z2-9]{5}$/);
    assert.equal(toRoomName(name), name);
  }
  assert.equal(new Set(names).size, names.length);
});

test('what people type becomes the room name they mean', () => {
  assert.equal(toRoomName('  Team meeting '), 'Team-meeting');
  assert.equal(toRoomName('Caffè  Zürich!'), 'Caffe-Zurich');
  assert.equal(toRoomName('a/b?c#d%2e'), 'abcd2e');
  assert.equal(toRoomName('v1.2_~x'), 'v1.2_~x');
  assert.match(toRoomName('x'.repeat(500)), allowed);
});

test('what leaves no usable name is told apart', () => {
  for (const text of ['', ' ', '-', '.', '..', '/', '会議', '!?']) assert.equal(toRoomName(text), '', text);
});

test('the address names room, transports and token', () => {
  const { room, transports, token } = readAddress(new URL('https://h/?room=My%20room&transport=long-poll#token=a.b.c'));
  assert.deepEqual({ room, transports, token }, { room: 'My-room', transports: ['long-poll'], token: 'a.b.c' });
});

test('an address without any of them leaves all to the page', () => {
  assert.deepEqual(readAddress(new URL('https://h/')), { room: '', transports: undefined, token: undefined });
  assert.equal(readAddress(new URL('https://h/?transport=pigeon')).transports, undefined);
});

test('several forced transports keep the protocol’s order', () => {
  const { transports } = readAddress(new URL('https://h/?transport=long-poll,websocket'));
  assert.deepEqual(transports, ['websocket', 'long-poll']);
});

test('the address in the bar keeps what it had; the link to share gives nothing of one’s own away', () => {
  const href = 'https://h:8443/app/?transport=websocket&room=old#token=secret';
  assert.equal(addressOf(href, 'new'), 'https://h:8443/app/?transport=websocket&room=new#token=secret');
  assert.equal(inviteLink(href, 'new'), 'https://h:8443/app/?room=new');
  assert.equal(inviteLink(href, 'new', 'a.b.c'), 'https://h:8443/app/?room=new#token=a.b.c');
});

test('the token is taken out of the address, and nothing else is', () => {
  assert.equal(withoutToken('https://h/app/?room=r#token=a.b.c'), 'https://h/app/?room=r');
  assert.equal(withoutToken('https://h/?room=r#x=1&token=a.b.c&y=2'), 'https://h/?room=r#x=1&y=2');
  for (const href of ['https://h/?room=r', 'https://h/?room=r#chapter', 'https://h/?token=query']) assert.equal(withoutToken(href), href);
});

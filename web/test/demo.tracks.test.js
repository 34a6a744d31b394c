import assert from 'node:assert/strict';
import { describe, test } from 'node:test';

import { hasLive, watchTracks } from '../demo/tracks.js';

const newTrack = () => ({ readyState: 'live', muted: true });
const streamOf = (...tracks) => ({ getTracks: () => tracks });

describe('a remote track', () => {
  test('counts though the browser never says that it is unmuted', () => {
    const track = newTrack();
    watchTracks(streamOf(track), () => {});
    assert.equal(hasLive([track]), true);
  });

  test('does not count from mute to unmute, nor after its end', () => {
    const track = newTrack();
    const told = [];
    watchTracks(streamOf(track), () => told.push(hasLive([track])));
    track.onmute();
    track.onunmute();
    track.readyState = 'ended';
    track.onended();
    assert.deepEqual(told, [false, true, false]);
  });

  test('that is not there does not count', () => {
    assert.deepEqual([hasLive(undefined), hasLive([])], [false, false]);
  });
});

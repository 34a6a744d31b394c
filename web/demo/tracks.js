// Whether a remote track brings anything.

/**
 * Tracks that have brought something and stopped. Their `muted` cannot tell: where both sides have offered at once,
 * Chromium leaves it set for ever on the tracks of the offer that was rolled back, though their media arrives and plays.
 * @type {WeakSet<MediaStreamTrack>}
 */
const silent = new WeakSet();

/** @param {MediaStream} stream @param {() => void} changed called when one of its tracks falls silent, goes on or ends */
export function watchTracks(stream, changed) {
  for (const track of stream.getTracks()) {
    track.onmute = () => {
      silent.add(track);
      changed();
    };
    track.onunmute = () => {
      silent.delete(track);
      changed();
    };
    track.onended = changed;
  }
}

/** @param {MediaStreamTrack[]|undefined} tracks */
export function hasLive(tracks) {
  return tracks?.some((track) => track.readyState === 'live' && !silent.has(track)) ?? false;
}

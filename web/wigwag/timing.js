// Every wait of the library, in milliseconds, in one place.

export const timing = Object.freeze({
  /** A transport's head start over the next one down the ladder; the last resorts give the others longer. */
  headStartMs: Object.freeze({ webtransport: 250, websocket: 250, 'event-stream': 1500, 'long-poll': 3000 }),
  /** For the discovery's answer. */
  discoveryMs: 5_000,
  /** For the same when an earlier answer can take its place. */
  rediscoveryMs: 2_000,
  /** For a transport to open. */
  openMs: 8_000,
  /** For the answer to `join` or `resume` while another open transport waits for its turn … */
  patienceMs: 3_000,
  /** … and when none does. */
  answerMs: 10_000,
  /** For the same on an event stream with a long poll to follow it, as proxies that buffer keep it back for ever. How slow the
   *  way is otherwise, the discovery has shown: it is four times what that took, where that is more, up to `patienceMs`. */
  streamPatienceMs: 1_000,
  /** A race younger than this is on the present network, whatever has just changed. */
  staleRaceMs: 1_000,
  /** Of full-jitter backoff: first span and longest. The longest is half the default resume window. */
  backoffBaseMs: 500,
  backoffCapMs: 15_000,
  /** A link that dies younger than this has not worked: the waits between tries go on growing. */
  provenMs: 2_000,
  /** A transport whose link dies younger than this goes to the end of the ladder. */
  youngMs: 5_000,
  /** How long a transport that died young stays at the end of the ladder. */
  demotedMs: 600_000,
  /** An acknowledgement waits this long for company. */
  ackMs: 500,
  /** For any sign of life after a ping that checks the link. */
  probeMs: 3_000,
  /** An answer later than this, and than four round trips, makes a link doubtful: others are tried beside it. */
  doubtMs: 1_500,
  /** Between pings on WebTransport: networks drop UDP in mid-session. With the wait above less than five seconds. */
  udpProbeMs: 2_000,
  /** Assumed until `joined` has told the server's. */
  heartbeatMs: 10_000,
  /** Between measurements of the round trip. */
  roundTripMs: 30_000,
  /** First and longest wait before a better transport is tried. */
  betterMs: 15_000,
  betterCapMs: 600_000,
  /** For the answer to `leave`. */
  leaveMs: 2_000,
  /** After one's own second greeting, a `replaced` may be the doing of the first, late on its way. */
  ownReplacedMs: 30_000,
});

/** @typedef {typeof timing} Timing */

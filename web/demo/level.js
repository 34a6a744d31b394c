// How loud it is: one's own microphone by an analyser, the others by what their receivers report.

/** How often a level is taken, in milliseconds. */
const tickMs = 120;
/** From this level on, 0 to 1, somebody counts as speaking. */
const speakingLevel = 0.03;
/** Somebody still counts as speaking this long after the last sound. */
const holdMs = 700;

/** Watches the level of one track, 0 to 1. */
export class LevelMeter {
  #onLevel;
  /** @type {AudioContext|null} */
  #context = null;
  /** @type {MediaStreamAudioSourceNode|null} */
  #source = null;
  /** @type {MediaStreamTrack|null} */
  #track = null;
  /** @type {ReturnType<typeof setInterval>|undefined} */
  #timer;

  /** @param {(level: number) => void} onLevel */
  constructor(onLevel) {
    this.#onLevel = onLevel;
  }

  /** @param {MediaStreamTrack|null} track to listen to from now on */
  attach(track) {
    if (track === this.#track) return;
    this.#track = track;
    clearInterval(this.#timer);
    this.#source?.disconnect();
    this.#source = null;
    this.#onLevel(0);
    if (track) this.#listen(track);
  }

  /** @param {MediaStreamTrack} track */
  #listen(track) {
    const context = this.#context ??= new AudioContext();
    const analyser = new AnalyserNode(context, { fftSize: 512 });
    this.#source = new MediaStreamAudioSourceNode(context, { mediaStream: new MediaStream([track]) });
    this.#source.connect(analyser);
    const samples = new Float32Array(analyser.fftSize);
    this.#timer = setInterval(() => {
      // Browsers hold audio back until the page has been touched.
      if (context.state === 'suspended') context.resume().catch(() => {});
      analyser.getFloatTimeDomainData(samples);
      this.#onLevel(Math.min(1, rootMeanSquare(samples) * 4));
    }, tickMs);
  }
}

/**
 * Tells who speaks.
 * @param {() => Iterable<[string, RTCPeerConnection]>} connections  asked at each tick
 * @param {(speaking: Set<string>) => void} told  only when it has changed
 * @returns {() => void} ends it
 */
export function watchSpeakers(connections, told) {
  /** @type {Map<string, number>} */
  const lastHeard = new Map();
  let before = '';
  const timer = setInterval(() => {
    const now = performance.now();
    for (const [id, pc] of connections()) {
      if (levelOf(pc) >= speakingLevel) lastHeard.set(id, now);
    }
    const speaking = [...lastHeard].filter(([, at]) => now - at < holdMs).map(([id]) => id);
    if (speaking.join() === before) return;
    before = speaking.join();
    told(new Set(speaking));
  }, tickMs);
  return () => clearInterval(timer);
}

/** @param {RTCPeerConnection} pc */
function levelOf(pc) {
  const receiver = pc.getReceivers().find(({ track }) => track?.kind === 'audio');
  return receiver?.getSynchronizationSources()[0]?.audioLevel ?? 0;
}

/** @param {Float32Array} samples */
function rootMeanSquare(samples) {
  return Math.sqrt(samples.reduce((sum, sample) => sum + sample * sample, 0) / samples.length);
}

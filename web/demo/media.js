// One's own microphone, camera and screen.
//
// The camera is released while it is off, so that its light goes out. The microphone is only silenced, so that it is
// back at once.

/**
 * @typedef {'microphone'|'camera'} Device
 *
 * @typedef {object} MediaChoices
 * @property {boolean} microphone  whether it is on
 * @property {boolean} camera
 * @property {string} microphoneId '' means the browser's default
 * @property {string} cameraId
 */

/** Seen as a reason in `problems` where the page has no right to any device. */
const insecureContext = Object.assign(new Error('this page has no access to devices'), { name: 'InsecureContext' });

/** @type {MediaTrackConstraints} */
const cameraWishes = { width: { ideal: 1280 }, height: { ideal: 720 }, frameRate: { ideal: 30 } };

export class LocalMedia {
  /** @type {MediaStreamTrack|null} */
  microphone = null;
  /** @type {MediaStreamTrack|null} */
  camera = null;
  /** @type {MediaStreamTrack|null} */
  screen = null;
  /** What is wanted, whether or not it could be had. */
  wants;
  /** Why a wanted device is not there. @type {{microphone: unknown, camera: unknown}} */
  problems = { microphone: null, camera: null };
  /** Devices that the browser is being asked for. @type {Set<Device>} */
  pending = new Set();
  #ids;
  #changed;
  /** Counts starts and stops: a start that was overtaken asks for nothing more. */
  #turn = 0;
  /** Counts the requests for each device: the answer to an outdated one is dropped. */
  #requests = { microphone: 0, camera: 0 };

  /**
   * @param {MediaChoices} choices
   * @param {() => void} changed called after each change of what is sent or wanted
   */
  constructor({ microphone, camera, microphoneId, cameraId }, changed) {
    this.wants = { microphone, camera };
    this.#ids = { microphone: microphoneId, camera: cameraId };
    this.#changed = changed;
  }

  get microphoneOn() {
    return this.microphone !== null && this.wants.microphone;
  }

  get cameraOn() {
    return this.camera !== null;
  }

  static get canShareScreen() {
    return typeof navigator.mediaDevices?.getDisplayMedia === 'function';
  }

  /** What is sent as video. */
  get video() {
    return this.screen ?? this.camera;
  }

  /** Why what is wanted is not there; null for what is, or is not wanted. */
  get complaints() {
    return {
      microphone: this.wants.microphone ? this.problems.microphone : null,
      camera: this.wants.camera ? this.problems.camera : null,
    };
  }

  /** Goes on without what could not be had: it is complained of no more until it is asked for again. */
  acceptProblems() {
    this.problems = { microphone: null, camera: null };
  }

  /** Asks for what is wanted: both in one question, and one by one where that fails. */
  async start() {
    const turn = this.#turn += 1;
    const wanted = /** @type {Device[]} */ (['microphone', 'camera']).filter((device) => this.wants[device] && !this[device]);
    if (wanted.length === 2 && await this.#acquireBoth()) return;
    for (const device of wanted) {
      if (turn === this.#turn) await this.#acquire(device);
    }
  }

  /** @param {boolean} on */
  async setMicrophone(on) {
    this.wants.microphone = on;
    if (this.microphone) this.microphone.enabled = on;
    this.#changed();
    if (on && !this.microphone) await this.#acquire('microphone');
  }

  /** @param {boolean} on */
  async setCamera(on) {
    this.wants.camera = on;
    if (on) return this.#acquire('camera');
    this.#release('camera');
    this.#changed();
  }

  /**
   * Uses another device from now on; '' is the browser's default.
   * @param {Device} device
   * @param {string} id
   */
  async choose(device, id) {
    this.#ids[device] = id;
    if (!this.wants[device]) return;
    // Some browsers cannot open two microphones at once.
    this.#release(device);
    await this.#acquire(device);
  }

  /** @param {Device} device @returns {string} the id of the device in use, or of the chosen one */
  idOf(device) {
    return this[device]?.getSettings().deviceId ?? this.#ids[device];
  }

  /**
   * Sends the screen instead of the camera until it is stopped, here or in the browser's own bar.
   * @throws what getDisplayMedia throws
   */
  async shareScreen() {
    if (this.screen) return;
    const stream = await navigator.mediaDevices.getDisplayMedia({ video: { frameRate: { ideal: 15, max: 30 } }, audio: false });
    const [track] = stream.getVideoTracks();
    track.contentHint = 'detail';
    track.addEventListener('ended', () => this.stopScreen());
    this.stopScreen();
    this.screen = track;
    this.#changed();
  }

  stopScreen() {
    if (!this.screen) return;
    this.screen.stop();
    this.screen = null;
    this.#changed();
  }

  /** Releases everything; what is wanted stays. */
  stop() {
    this.#turn += 1;
    this.#release('microphone');
    this.#release('camera');
    this.screen?.stop();
    this.screen = null;
    this.#changed();
  }

  /** @returns {Promise<boolean>} whether both are there */
  async #acquireBoth() {
    const numbers = { microphone: this.#begin('microphone'), camera: this.#begin('camera') };
    let stream;
    try {
      stream = await ask({ audio: this.#constraints('microphone'), video: this.#constraints('camera') });
    } catch {
      // One of them may be the reason: asked for alone, the other is not to suffer.
    }
    this.#end('microphone', numbers.microphone, stream?.getAudioTracks()[0]);
    this.#end('camera', numbers.camera, stream?.getVideoTracks()[0]);
    return stream !== undefined;
  }

  /** @param {Device} device */
  async #acquire(device) {
    const number = this.#begin(device);
    const kind = device === 'microphone' ? 'audio' : 'video';
    try {
      const stream = await ask({ [kind]: this.#constraints(device) }).catch((error) => this.#askForAny(device, kind, error));
      this.#end(device, number, stream.getTracks()[0]);
    } catch (error) {
      if (number === this.#requests[device]) this.problems[device] = error;
      this.#end(device, number, undefined);
    }
  }

  /** The chosen device may be unplugged: then the default will do. @param {Device} device @param {string} kind @param {unknown} error */
  #askForAny(device, kind, error) {
    const { name } = /** @type {{name?: string}} */ (error);
    if (!this.#ids[device] || (name !== 'NotFoundError' && name !== 'OverconstrainedError')) throw error;
    this.#ids[device] = '';
    return ask({ [kind]: this.#constraints(device) });
  }

  /** @param {Device} device @returns {number} the request's number */
  #begin(device) {
    this.pending.add(device);
    this.problems[device] = null;
    this.#requests[device] += 1;
    this.#changed();
    return this.#requests[device];
  }

  /** @param {Device} device @param {number} number @param {MediaStreamTrack|undefined} track */
  #end(device, number, track) {
    if (number !== this.#requests[device]) return track?.stop();
    this.pending.delete(device);
    if (track) this.#take(device, track);
    this.#changed();
  }

  /** @param {Device} device @param {MediaStreamTrack} track */
  #take(device, track) {
    // Without the wish for it by now: the camera was switched off while the browser asked.
    if (device === 'camera' && !this.wants.camera) return track.stop();
    this[device]?.stop();
    this[device] = track;
    track.enabled = device === 'camera' || this.wants.microphone;
    track.addEventListener('ended', () => this.#lose(device, track));
  }

  /** The device was unplugged, or the permission withdrawn. @param {Device} device @param {MediaStreamTrack} track */
  #lose(device, track) {
    if (this[device] !== track) return;
    this[device] = null;
    this.problems[device] = new DOMException('the device has gone', 'NotFoundError');
    this.#changed();
  }

  /** @param {Device} device */
  #release(device) {
    this.#requests[device] += 1;
    this.pending.delete(device);
    this[device]?.stop();
    this[device] = null;
  }

  /** @param {Device} device @returns {MediaTrackConstraints} */
  #constraints(device) {
    const wishes = device === 'camera' ? cameraWishes : { echoCancellation: true, noiseSuppression: true, autoGainControl: true };
    return this.#ids[device] ? { ...wishes, deviceId: { exact: this.#ids[device] } } : wishes;
  }
}

/**
 * The devices to choose from, by kind. Before a permission is given, browsers tell neither ids nor names.
 * @returns {Promise<Record<'audioinput'|'videoinput'|'audiooutput', MediaDeviceInfo[]>>}
 */
export async function listDevices() {
  const all = await navigator.mediaDevices?.enumerateDevices().catch(() => []) ?? [];
  const ofKind = (/** @type {string} */ kind) => all.filter((device) => device.kind === kind && device.deviceId !== '');
  return { audioinput: ofKind('audioinput'), videoinput: ofKind('videoinput'), audiooutput: ofKind('audiooutput') };
}

/** @param {MediaStreamConstraints} constraints */
async function ask(constraints) {
  if (!navigator.mediaDevices) throw insecureContext;
  return navigator.mediaDevices.getUserMedia(constraints);
}

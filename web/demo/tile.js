// The view of one participant.

import { icon, make, setText } from './dom.js';
import { signaller, signal } from './semaphore.js';
import { explainPeer } from './words.js';

/**
 * @import { Rectangle } from './layout.js'
 * @import { Participant } from './meeting.js'
 */

/** How many colours there are for those without a picture. */
const tones = 6;

export class Tile {
  element;
  #video;
  #avatar;
  #signaller = signaller('');
  #name = make('span', { class: 'tile-name' });
  #sound = make('span', { class: 'visually-hidden' });
  #muted = icon('microphone-off');
  #note = make('p', { class: 'tile-note' });
  #pin;
  #remove;
  /** There is a picture to show, as soon as it comes. */
  #wantsPicture = false;

  /**
   * @param {Participant} participant
   * @param {{pin: () => void, remove: () => void, blocked: () => void}} calls  `blocked`: the browser lets nothing sound
   *   before a click
   */
  constructor(participant, { pin, remove, blocked }) {
    this.#video = make('video', { autoplay: true, playsinline: true });
    // One's own voice is not to come back; as the attribute alone would only set the default, the property is needed.
    this.#video.muted = participant.self;
    this.#video.addEventListener('loadedmetadata', () => this.#play(blocked));
    this.#video.addEventListener('resize', () => this.#showPicture());
    this.#avatar = make('div', { class: `avatar tone-${toneOf(participant.id)}` });
    this.#avatar.append(this.#signaller);
    this.#pin = make('button', { type: 'button', class: 'round small tile-pin' }, icon('pin'));
    this.#pin.addEventListener('click', pin);
    this.#remove = make('button', { type: 'button', class: 'round small tile-remove', 'data-testid': 'remove' }, icon('remove'));
    this.#remove.addEventListener('click', remove);
    this.#muted.classList.add('tile-muted');
    this.element = make('li', { class: 'tile' },
      this.#video, this.#avatar, this.#note, make('p', { class: 'tile-plate' }, this.#muted, this.#name, this.#sound),
      make('div', { class: 'tile-tools' }, this.#remove, this.#pin));
    this.element.dataset.testid = participant.self ? 'self-tile' : 'tile';
  }

  /** Plays again what the browser had held back. */
  play() {
    this.#video.play().catch(() => {}); // Told by `blocked` already.
  }

  /** @param {string} id of a loudspeaker, '' for the default */
  setSpeaker(id) {
    /** @type {any} */ (this.#video).setSinkId?.(id).catch(() => {}); // Unplugged: the sound stays where it was.
  }

  /**
   * @param {Participant} participant
   * @param {{isPinned: boolean, isRemovable: boolean}} how  `isRemovable`: by a moderator, who is the one to look at it
   */
  show(participant, { isPinned, isRemovable }) {
    const { id, name, self, audio, video, screen, speaking, presence, connection, stream } = participant;
    const shown = self ? `${name} (you)` : name;
    Object.assign(this.element.dataset, { peer: id, state: connection, presence, audio: String(audio), video: String(video) });
    this.element.classList.toggle('is-screen', screen);
    this.element.classList.toggle('is-self', self);
    this.element.classList.toggle('is-speaking', speaking && audio);
    this.element.classList.toggle('is-muted', !audio);
    if (this.#video.srcObject !== stream) this.#video.srcObject = stream;
    this.#wantsPicture = video;
    this.#showPicture();
    this.#video.setAttribute('aria-label', screen ? `Screen of ${shown}` : `Video of ${shown}`);
    signal(this.#signaller, name);
    setText(this.#name, screen ? `${shown} · screen` : shown);
    setText(this.#sound, audio ? '' : ', microphone off');
    setText(this.#note, self ? '' : explainPeer(presence, connection));
    // A picture that still comes is not to be covered.
    this.element.classList.toggle('is-interrupted', !self && connection !== 'connected');
    this.#pin.setAttribute('aria-pressed', String(isPinned));
    this.#pin.setAttribute('aria-label', `Show ${shown} large`);
    this.#remove.hidden = !isRemovable;
    this.#remove.setAttribute('aria-label', `Remove ${name} from the room`);
    this.#remove.title = 'Remove from the room';
    this.#pin.title = isPinned ? 'Back to equal tiles' : 'Show large';
  }

  /** Before its first frame a video has no size, and is black. */
  #showPicture() {
    this.element.classList.toggle('has-video', this.#wantsPicture && this.#video.videoWidth > 0);
  }

  /** @param {Rectangle} place @param {boolean} floats above the others */
  place({ x, y, width, height }, floats) {
    const { style } = this.element;
    style.transform = `translate(${Math.round(x)}px, ${Math.round(y)}px)`;
    style.width = `${Math.round(width)}px`;
    style.height = `${Math.round(height)}px`;
    this.element.classList.toggle('is-floating', floats);
    this.element.classList.toggle('is-small', width < 190);
  }

  remove() {
    this.#video.srcObject = null;
    this.element.remove();
  }

  /** @param {() => void} blocked */
  async #play(blocked) {
    try {
      await this.#video.play();
    } catch (error) {
      if (error instanceof DOMException && error.name === 'NotAllowedError') blocked();
    }
  }
}

/** The same colour for the same id, on every screen. @param {string} id */
function toneOf(id) {
  return [...id].reduce((sum, character) => (sum * 31 + character.charCodeAt(0)) % 65_521, 7) % tones;
}

// The view before the call: who one is, where to go, and how one looks and sounds.

import { byId, setIcon, setText } from './dom.js';
import { LevelMeter } from './level.js';
import { selfPicture } from './meeting.js';
import { randomRoomName, toRoomName } from './room.js';
import { signal, signaller } from './semaphore.js';
import { explainDevices } from './words.js';

/**
 * @import { LocalMedia } from './media.js'
 *
 * @typedef {object} PrejoinCalls
 * @property {(choice: {name: string, room: string, token: string}) => void} join
 * @property {(room: string, button: HTMLElement) => void} copyLink
 * @property {(name: string) => void} nameChanged
 */

export class Prejoin {
  #name = byId('name', HTMLInputElement);
  #room = byId('room', HTMLInputElement);
  #token = byId('token', HTMLInputElement);
  #tokenField = byId('token-field', HTMLElement);
  #tokenProblem = byId('token-problem', HTMLElement);
  #video = byId('preview-video', HTMLVideoElement);
  #empty = byId('preview-empty', HTMLElement);
  #level = byId('preview-level', HTMLElement);
  #microphone = byId('preview-microphone', HTMLButtonElement);
  #camera = byId('preview-camera', HTMLButtonElement);
  #problem = byId('device-problem', HTMLElement);
  #retry = byId('device-retry', HTMLButtonElement);
  #hint = byId('join-hint', HTMLElement);
  #signaller = signaller('');
  #meter = new LevelMeter((level) => this.#level.style.setProperty('--level', level.toFixed(2)));
  #media;
  #calls;

  /**
   * @param {LocalMedia} media
   * @param {{name: string, room: string, token: string}} given  `room` and `token` are '' where the address names none
   * @param {PrejoinCalls} calls
   */
  constructor(media, { name, room, token }, calls) {
    this.#media = media;
    this.#calls = calls;
    // Who is quick, or filled in by the browser, has typed before this script ran.
    this.#name.value ||= name;
    this.#room.value = room || this.#room.value || randomRoomName();
    if (token) this.setToken(token);
    this.#empty.append(this.#signaller);
    if (room) this.#invite(room);
    this.#listen();
    this.show();
  }

  /** The name that others see. */
  get name() {
    return this.#name.value.trim().slice(0, 40) || 'Guest';
  }

  /** Puts the cursor where something is to be filled in; not on a phone, whose keyboard would cover half the page. */
  focus() {
    if (!this.#tokenField.hidden) return this.#token.focus();
    if (!matchMedia('(hover: hover)').matches) return;
    if (this.#name.value === '') this.#name.focus();
    else byId('join', HTMLButtonElement).focus();
  }

  /** Asks for an access token. @param {string} why  to be said beside the field */
  askForToken(why) {
    this.#tokenField.hidden = false;
    this.#token.value = '';
    setText(this.#tokenProblem, why);
    this.#hintAtTokens();
  }

  /** Takes a token that has come with the address. @param {string} token */
  setToken(token) {
    this.#token.value = token;
    this.#tokenField.hidden = true;
    this.#hintAtTokens();
  }

  #hintAtTokens() {
    setText(byId('room-hint', HTMLElement), 'Whoever has an access token for it can come in.');
  }

  newRoom() {
    this.#room.value = randomRoomName();
    this.#checkRoom();
  }

  /** Shows what microphone and camera do now. */
  show() {
    const { microphoneOn, cameraOn, wants, pending } = this.#media;
    const { stream } = selfPicture(this.#media, '');
    if (this.#video.srcObject !== stream) this.#video.srcObject = stream;
    this.#video.hidden = !cameraOn;
    this.#empty.hidden = cameraOn;
    signal(this.#signaller, this.#name.value);
    this.#meter.attach(microphoneOn ? this.#media.microphone : null);
    showSwitch(this.#microphone, 'microphone', { on: microphoneOn, asking: wants.microphone && pending.has('microphone') });
    showSwitch(this.#camera, 'camera', { on: cameraOn, asking: wants.camera && pending.has('camera') });
    this.#showProblems();
    setText(this.#hint, pending.size > 0 ? 'The browser asks whether this page may use your camera and microphone.' : joinHint(microphoneOn, cameraOn));
  }

  /** Stops listening to the microphone, as the call is what shows it now. */
  rest() {
    this.#meter.attach(null);
    this.#video.srcObject = null;
  }

  #listen() {
    this.#name.addEventListener('input', () => {
      signal(this.#signaller, this.#name.value);
      this.#calls.nameChanged(this.#name.value.trim());
    });
    this.#room.addEventListener('change', () => this.#tidyRoom());
    this.#room.addEventListener('input', () => this.#checkRoom());
    byId('new-room', HTMLButtonElement).addEventListener('click', () => this.newRoom());
    const copyButton = byId('copy-link', HTMLButtonElement);
    copyButton.addEventListener('click', () => {
      this.#tidyRoom();
      if (this.#room.reportValidity()) this.#calls.copyLink(this.#room.value, copyButton);
    });
    this.#microphone.addEventListener('click', () => this.#media.setMicrophone(!this.#media.microphoneOn));
    this.#camera.addEventListener('click', () => this.#media.setCamera(!this.#media.cameraOn));
    this.#retry.addEventListener('click', () => this.#media.start());
    byId('join-form', HTMLFormElement).addEventListener('submit', (event) => {
      event.preventDefault();
      this.#tidyRoom();
      if (this.#room.reportValidity()) this.#calls.join({ name: this.name, room: this.#room.value, token: this.#token.value.trim() });
    });
  }

  /** @param {string} room */
  #invite(room) {
    setText(byId('welcome', HTMLElement), 'You are invited');
    setText(byId('lead', HTMLElement), `Say your name and come in to ${room}.`);
  }

  #tidyRoom() {
    this.#room.value = toRoomName(this.#room.value) || this.#room.value.trim();
    this.#checkRoom();
  }

  /** What is typed must leave a name once it is tidied. */
  #checkRoom() {
    const isUsable = toRoomName(this.#room.value) !== '';
    this.#room.setCustomValidity(isUsable ? '' : 'A room’s name is made of letters A to Z, digits, “-”, “.”, “_” and “~”.');
  }

  #showProblems() {
    const text = explainDevices(this.#media.complaints);
    this.#problem.hidden = this.#retry.hidden = text === '';
    setText(this.#problem, text);
  }
}

/**
 * @param {HTMLButtonElement} button
 * @param {'microphone'|'camera'} device
 * @param {{on: boolean, asking: boolean}} state
 */
function showSwitch(button, device, { on, asking }) {
  setIcon(button, on ? device : `${device}-off`);
  button.dataset.on = String(on);
  button.toggleAttribute('data-asking', asking);
  const label = `Switch ${device} ${on ? 'off' : 'on'}`;
  button.setAttribute('aria-label', label);
  button.title = label;
}

/** @param {boolean} microphoneOn @param {boolean} cameraOn */
function joinHint(microphoneOn, cameraOn) {
  if (microphoneOn && cameraOn) return '';
  if (microphoneOn) return 'You will be heard but not seen.';
  if (cameraOn) return 'You will be seen but not heard.';
  return 'You will be neither seen nor heard; you can watch, listen and chat.';
}

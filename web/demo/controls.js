// The buttons of the call, and the keys that do the same.

import { byId, make, setIcon, setText } from './dom.js';
import { LocalMedia } from './media.js';

/**
 * What a key does.
 * @typedef {{key: string, label: string, run: () => void}} Shortcut
 */

export class Controls {
  #mute = byId('mute', HTMLButtonElement);
  #camera = byId('camera', HTMLButtonElement);
  #screen = byId('screen', HTMLButtonElement);

  /** @param {{mute: () => void, camera: () => void, screen: () => void, leave: () => void}} calls */
  constructor({ mute, camera, screen, leave }) {
    this.#mute.addEventListener('click', mute);
    this.#camera.addEventListener('click', camera);
    this.#screen.addEventListener('click', screen);
    this.#screen.hidden = !LocalMedia.canShareScreen;
    byId('leave', HTMLButtonElement).addEventListener('click', leave);
  }

  /** @param {LocalMedia} media */
  show({ microphoneOn, cameraOn, screen }) {
    showControl(this.#mute, {
      on: microphoneOn, icon: microphoneOn ? 'microphone' : 'microphone-off',
      caption: microphoneOn ? 'Mute' : 'Unmute', label: microphoneOn ? 'Mute microphone (M)' : 'Unmute microphone (M)',
    });
    showControl(this.#camera, {
      on: cameraOn, icon: cameraOn ? 'camera' : 'camera-off',
      caption: cameraOn ? 'Camera off' : 'Camera on', label: cameraOn ? 'Switch camera off (V)' : 'Switch camera on (V)',
    });
    showControl(this.#screen, {
      on: screen !== null, icon: screen ? 'screen-off' : 'screen',
      caption: screen ? 'Stop' : 'Share', label: screen ? 'Stop sharing the screen (S)' : 'Share the screen (S)',
    });
  }
}

/**
 * Has single keys run their shortcuts: not while one types, nor with a modifier, nor above a dialog.
 * @param {Shortcut[]} shortcuts
 * @param {() => boolean} areOn
 */
export function listenToKeys(shortcuts, areOn) {
  document.addEventListener('keydown', (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.repeat || event.isComposing || !areOn()) return;
    if (isTyping(event.target) || document.querySelector('dialog[open]')) return;
    const shortcut = shortcuts.find(({ key }) => key === event.key.toLowerCase());
    if (!shortcut) return;
    event.preventDefault();
    shortcut.run();
  });
}

/** @param {HTMLElement} list a `dl` @param {Shortcut[]} shortcuts */
export function listKeys(list, shortcuts) {
  list.replaceChildren(...shortcuts.map(({ key, label }) => (
    make('div', {}, make('dt', {}, make('kbd', {}, key.toUpperCase())), make('dd', {}, label))
  )));
}

/** @param {HTMLButtonElement} button @param {{on: boolean, icon: string, caption: string, label: string}} state */
function showControl(button, { on, icon, caption, label }) {
  button.dataset.on = String(on);
  button.title = label;
  button.setAttribute('aria-label', label);
  setIcon(button, icon);
  const holder = button.querySelector('.caption');
  if (holder) setText(holder, caption);
}

/** @param {EventTarget|null} target */
function isTyping(target) {
  return target instanceof HTMLElement && target.closest('input:not([type=checkbox]), textarea, select, [contenteditable]') !== null;
}

// The dialog that gives the room's link away.

import { copy } from './dialogs.js';
import { byId } from './dom.js';
import { inviteLink } from './room.js';

/** @param {string} room @param {HTMLElement} button whose label tells the outcome */
export function copyLink(room, button) {
  return copy(inviteLink(location.href, room), button);
}

export class Invitation {
  #dialog = byId('invite-dialog', HTMLDialogElement);
  #fields = [byId('invite-link', HTMLInputElement), byId('alone-link', HTMLInputElement)];
  #share = byId('invite-share', HTMLButtonElement);
  #room = '';

  constructor() {
    for (const field of this.#fields) field.addEventListener('focus', () => field.select());
    for (const id of ['invite-copy', 'alone-copy']) {
      const button = byId(id, HTMLButtonElement);
      button.addEventListener('click', () => copyLink(this.#room, button));
    }
    this.#share.hidden = typeof navigator.share !== 'function';
    this.#share.addEventListener('click', () => this.#shareByApp());
  }

  /** @param {string} room */
  setRoom(room) {
    this.#room = room;
    for (const field of this.#fields) field.value = inviteLink(location.href, room);
  }

  open() {
    this.#dialog.showModal();
  }

  async #shareByApp() {
    const url = inviteLink(location.href, this.#room);
    // Who changes their mind needs no words.
    await navigator.share({ title: 'wigwag', text: 'Join me in a call:', url }).catch(() => {});
    this.#dialog.close();
  }
}

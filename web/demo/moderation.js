// What only moderators see: who waits at the door, the lock, and the question before somebody is removed.

import { byId, make, setIcon, setText } from './dom.js';

/** @import { Knock, Meeting, Participant } from './meeting.js' */

export class Moderation {
  #door = byId('door', HTMLElement);
  #title = byId('door-title', HTMLElement);
  #list = byId('knocks', HTMLElement);
  #admitAll = byId('admit-all', HTMLButtonElement);
  #lock = byId('lock', HTMLButtonElement);
  #dialog = byId('remove-dialog', HTMLDialogElement);
  #lockToo = byId('remove-lock', HTMLInputElement);
  /** Rows by the ids of those who knock. @type {Map<string, HTMLElement>} */
  #rows = new Map();
  /** @type {Meeting|null} */
  #meeting = null;
  /** Whom the dialog asks about. */
  #asked = '';

  constructor() {
    this.#lock.addEventListener('click', () => this.toggleLock());
    this.#admitAll.addEventListener('click', () => this.#answerAll());
    this.#dialog.addEventListener('close', () => this.#removeAsked());
  }

  /** @param {Meeting|null} meeting null: there is nothing to moderate */
  show(meeting) {
    this.#meeting = meeting;
    this.#showLock();
    this.#showDoor(meeting?.knocks ?? []);
  }

  /** Locks the room or unlocks it, where one may. */
  toggleLock() {
    if (this.#meeting?.moderates) this.#meeting.setLocked(!this.#meeting.locked);
  }

  /** Asks whether to remove somebody, and does it. @param {Participant} participant */
  askToRemove({ id, name }) {
    this.#asked = id;
    setText(byId('remove-title', HTMLElement), `Remove ${name}?`);
    this.#lockToo.checked = false;
    byId('remove-lock-row', HTMLElement).hidden = this.#meeting?.locked ?? false;
    this.#dialog.returnValue = '';
    this.#dialog.showModal();
  }

  async #removeAsked() {
    if (this.#dialog.returnValue !== 'remove') return;
    const meeting = this.#meeting;
    // First the lock, or they might be back before it.
    if (this.#lockToo.checked) await meeting?.setLocked(true);
    await meeting?.kick(this.#asked);
  }

  #showLock() {
    const locked = this.#meeting?.locked ?? false;
    this.#lock.hidden = !(this.#meeting?.moderates ?? false);
    setIcon(this.#lock, locked ? 'unlock' : 'lock');
    this.#lock.title = locked ? 'Let others in again (L)' : 'Let nobody else in (L)';
    const words = this.#lock.querySelector('span');
    if (words) setText(words, locked ? 'Unlock' : 'Lock');
  }

  // The door.

  /** @param {Knock[]} knocks */
  #showDoor(knocks) {
    const focused = this.#focusedPlace();
    const present = new Set(knocks.map(({ id }) => id));
    for (const [id, row] of this.#rows) {
      if (present.has(id)) continue;
      row.remove();
      this.#rows.delete(id);
    }
    for (const knock of knocks) {
      if (this.#rows.has(knock.id)) continue;
      const row = this.#row(knock);
      this.#rows.set(knock.id, row);
      this.#list.append(row);
    }
    this.#door.hidden = knocks.length === 0;
    this.#admitAll.hidden = knocks.length < 2;
    setText(this.#title, knocks.length === 1 ? 'One person asks to come in' : `${knocks.length} people ask to come in`);
    if (focused !== null) this.#keepFocus(focused);
  }

  /** @param {Knock} knock */
  #row({ id, name, user }) {
    const answerer = (/** @type {boolean} */ welcome) => () => this.#meeting?.answer(id, welcome);
    const admit = make('button', { type: 'button', class: 'primary', 'data-testid': 'admit', 'aria-label': `Let ${name} in` }, 'Let in');
    const refuse = make('button', { type: 'button', class: 'quiet', 'data-testid': 'refuse', 'aria-label': `Refuse ${name}` }, 'Refuse');
    admit.addEventListener('click', answerer(true));
    refuse.addEventListener('click', answerer(false));
    const who = make('span', { class: 'knock-name' }, name);
    if (user && user.toLowerCase() !== name.toLowerCase()) who.append(make('span', { class: 'hint' }, ` signed in as ${user}`));
    return make('li', { class: 'knock', 'data-peer': id }, who, admit, refuse);
  }

  #answerAll() {
    for (const id of [...this.#rows.keys()]) this.#meeting?.answer(id, true);
  }

  /** Where in the list the focus is; null where it is elsewhere. */
  #focusedPlace() {
    if (document.activeElement === this.#admitAll) return 0;
    const place = [...this.#rows.values()].findIndex((row) => row.contains(document.activeElement));
    return place < 0 ? null : place;
  }

  /** Who works through the list by keyboard comes to the next one, and at last back to the controls. @param {number} place */
  #keepFocus(place) {
    if (this.#door.contains(document.activeElement) && document.activeElement !== this.#admitAll) return;
    if (document.activeElement === this.#admitAll && !this.#admitAll.hidden) return;
    const rows = [...this.#rows.values()];
    const next = rows[Math.min(place, rows.length - 1)]?.querySelector('button');
    (next ?? byId('mute', HTMLButtonElement)).focus();
  }
}

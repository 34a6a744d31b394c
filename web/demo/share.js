// The dialog that gives the room's link away. On a server that wants tokens, a moderator has it make one for the guests.

import { copy } from './dialogs.js';
import { byId, setText } from './dom.js';
import { inviteLink } from './room.js';
import { explainInvitation } from './words.js';

/** @import { Meeting } from './meeting.js' */

/** @param {string} room @param {HTMLElement} button whose label tells the outcome */
export function copyLink(room, button) {
  return copy(inviteLink(location.href, room), button);
}

/** What a guest may do; who has not the first waits to be let in. */
const guestGrants = ['join', 'publish', 'message'];

export class Invitation {
  #dialog = byId('invite-dialog', HTMLDialogElement);
  #lead = byId('invite-lead', HTMLElement);
  #form = byId('invite-form', HTMLFormElement);
  #row = byId('invite-row', HTMLElement);
  #link = byId('invite-link', HTMLInputElement);
  #aloneLink = byId('alone-link', HTMLInputElement);
  #problem = byId('invite-problem', HTMLElement);
  #share = byId('invite-share', HTMLButtonElement);
  #canShare = typeof navigator.share === 'function';
  #room = '';
  /** The one who makes invitations, where there is one. @type {Meeting|null} */
  #inviter = null;

  constructor() {
    for (const field of [this.#link, this.#aloneLink]) field.addEventListener('focus', () => field.select());
    const copyButton = byId('invite-copy', HTMLButtonElement);
    copyButton.addEventListener('click', () => copy(this.#link.value, copyButton));
    const aloneButton = byId('alone-copy', HTMLButtonElement);
    aloneButton.addEventListener('click', () => copyLink(this.#room, aloneButton));
    byId('alone-invite', HTMLButtonElement).addEventListener('click', () => this.open());
    this.#share.addEventListener('click', () => this.#shareByApp());
    this.#form.addEventListener('submit', (event) => {
      event.preventDefault();
      this.#make();
    });
    // A link once made is to be made anew for another choice.
    this.#form.addEventListener('change', () => this.#showLink(null));
  }

  /**
   * @param {string} room
   * @param {{wantsToken: boolean, inviter: Meeting|null}} how  `wantsToken`: the link alone lets nobody in; `inviter`: a
   *   moderator's visit, by which there can be a token
   */
  setRoom(room, { wantsToken, inviter }) {
    this.#room = room;
    this.#inviter = inviter;
    this.#aloneLink.value = inviteLink(location.href, room);
    byId('alone-row', HTMLElement).hidden = inviter !== null;
    byId('alone-invite', HTMLElement).hidden = inviter === null;
    byId('alone-token', HTMLElement).hidden = !wantsToken || inviter !== null;
    this.#form.hidden = inviter === null;
    setText(this.#lead, leadOf(wantsToken, inviter));
    setText(this.#problem, '');
    this.#showLink(inviter === null ? inviteLink(location.href, room) : null);
  }

  open() {
    if (!this.#dialog.open) this.#dialog.showModal();
  }

  async #make() {
    const { uses, hours, waits } = Object.fromEntries(new FormData(this.#form));
    setText(this.#problem, '');
    try {
      const token = await this.#inviter?.invite({
        uses: Number(uses), expiresInMs: Number(hours) * 3_600_000, grants: waits === undefined ? guestGrants : guestGrants.slice(1),
      });
      this.#showLink(inviteLink(location.href, this.#room, token));
      byId('invite-copy', HTMLButtonElement).focus();
    } catch (/** @type {any} */ error) {
      setText(this.#problem, explainInvitation(error));
    }
  }

  /** @param {string|null} link null: there is none yet */
  #showLink(link) {
    this.#row.hidden = link === null;
    this.#share.hidden = link === null || !this.#canShare;
    this.#link.value = link ?? '';
  }

  async #shareByApp() {
    // Who changes their mind needs no words.
    await navigator.share({ title: 'wigwag', text: 'Join me in a call:', url: this.#link.value }).catch(() => {});
    this.#dialog.close();
  }
}

/** @param {boolean} wantsToken @param {Meeting|null} inviter */
function leadOf(wantsToken, inviter) {
  if (inviter) return 'The server makes a link that lets others in, without a token of their own.';
  return wantsToken ? 'Whoever opens this link, and has an access token, can join you.' : 'Whoever opens this link can join you.';
}

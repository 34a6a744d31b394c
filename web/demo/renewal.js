// The dialog that asks for a new access token while the call goes on.

import { byId, setText } from './dom.js';

export class Renewal {
  #dialog = byId('token-dialog', HTMLDialogElement);
  #field = byId('renew-token', HTMLInputElement);
  #problem = byId('renew-problem', HTMLElement);
  #renew;

  /** @param {(token: string) => Promise<void>} renew  rejects where the server does not take the token */
  constructor(renew) {
    this.#renew = renew;
    byId('renew-form', HTMLFormElement).addEventListener('submit', (event) => {
      event.preventDefault();
      this.#submit();
    });
  }

  open() {
    this.#field.value = '';
    setText(this.#problem, '');
    this.#dialog.showModal();
    this.#field.focus();
  }

  async #submit() {
    setText(this.#problem, '');
    try {
      await this.#renew(this.#field.value.trim());
      this.#dialog.close();
    } catch {
      setText(this.#problem, 'The server did not accept it: it must be whole, for this room, and for the same person.');
      this.#field.select();
    }
  }
}

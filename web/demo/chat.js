// The chat panel: messages, and how many of them nobody has seen yet.

import { clearToasts } from './dialogs.js';
import { byId, make, setText } from './dom.js';

/** Messages kept on the page. */
const maxMessages = 500;

const timeFormat = new Intl.DateTimeFormat(undefined, { hour: '2-digit', minute: '2-digit' });
const link = /https?:\/\/[^\s<>"']+[^\s<>"'.,;:!?)\]]/g;

export class Chat {
  #panel = byId('chat', HTMLElement);
  #toggle = byId('chat-toggle', HTMLButtonElement);
  #scroll = byId('chat-scroll', HTMLElement);
  #list = byId('messages', HTMLOListElement);
  #input = byId('chat-input', HTMLInputElement);
  #badge = byId('unread', HTMLElement);
  #unread = 0;
  #unreadChanged;

  /**
   * @param {object} calls
   * @param {(text: string) => void} calls.send
   * @param {(count: number) => void} calls.unreadChanged
   */
  constructor({ send, unreadChanged }) {
    this.#unreadChanged = unreadChanged;
    byId('chat-form', HTMLFormElement).addEventListener('submit', (event) => {
      event.preventDefault();
      this.#submit(send);
    });
    this.#toggle.addEventListener('click', () => this.toggle());
    byId('chat-close', HTMLButtonElement).addEventListener('click', () => this.close());
    this.#panel.addEventListener('keydown', ({ key }) => {
      if (key === 'Escape') this.close();
    });
    this.#setUnread(0);
  }

  get isOpen() {
    return !this.#panel.hidden;
  }

  toggle() {
    if (this.isOpen) this.close();
    else this.#open();
  }

  close() {
    if (!this.isOpen) return;
    this.#panel.hidden = true;
    this.#toggle.setAttribute('aria-expanded', 'false');
    this.#toggle.focus();
  }

  /**
   * @param {{name: string, self: boolean}} from
   * @param {string} text
   * @param {Date} at
   */
  add({ name, self }, text, at) {
    this.#append(make('li', { class: self ? 'message own' : 'message' },
      make('span', { class: 'message-head' },
        make('strong', {}, self ? 'You' : name),
        make('time', { datetime: at.toISOString() }, timeFormat.format(at))),
      make('span', { class: 'message-text' }, ...withLinks(text))));
    if (!self && !this.isOpen) this.#setUnread(this.#unread + 1);
  }

  /** Forgets all, as another room's messages are not to be seen here. */
  clear() {
    this.#list.replaceChildren();
    this.#setUnread(0);
  }

  #open() {
    clearToasts();
    this.#panel.hidden = false;
    this.#toggle.setAttribute('aria-expanded', 'true');
    this.#setUnread(0);
    this.#scroll.scrollTop = this.#scroll.scrollHeight;
    this.#input.focus();
  }

  /** @param {(text: string) => void} send */
  #submit(send) {
    const text = this.#input.value.trim();
    if (text === '') return;
    this.#input.value = '';
    send(text);
    this.add({ name: '', self: true }, text, new Date());
  }

  /** @param {HTMLLIElement} item */
  #append(item) {
    const { scrollTop, scrollHeight, clientHeight } = this.#scroll;
    const wasAtEnd = scrollHeight - scrollTop - clientHeight < 60;
    this.#list.append(item);
    if (this.#list.childElementCount > maxMessages) this.#list.firstElementChild?.remove();
    if (wasAtEnd || item.classList.contains('own')) this.#scroll.scrollTop = this.#scroll.scrollHeight;
  }

  /** @param {number} count */
  #setUnread(count) {
    this.#unread = count;
    this.#badge.hidden = count === 0;
    setText(this.#badge, count > 99 ? '99+' : String(count));
    this.#toggle.setAttribute('aria-label', count === 0 ? 'Chat' : `Chat, ${count} unread`);
    this.#unreadChanged(count);
  }
}

/** Addresses in a text as links; all else stays text. @param {string} text @returns {(Node|string)[]} */
function withLinks(text) {
  const parts = [];
  let end = 0;
  for (const match of text.matchAll(link)) {
    parts.push(text.slice(end, match.index), make('a', { href: match[0], target: '_blank', rel: 'noopener noreferrer' }, match[0]));
    end = match.index + match[0].length;
  }
  return [...parts, text.slice(end)];
}

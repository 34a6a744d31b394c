// Dialogs and toasts: what comes up above the page.

import { byId, make } from './dom.js';

/** How long a toast stays, in milliseconds, and how many are shown at once. */
const toastMs = 5_000;
const maxToasts = 4;

/** Has every dialog close by its own button and by a click beside it; Escape is the browser's. */
export function prepareDialogs() {
  for (const dialog of document.querySelectorAll('dialog')) {
    dialog.addEventListener('click', ({ target }) => {
      const isCloser = target instanceof Element && target.closest('[data-close]') !== null;
      if (target === dialog || isCloser) dialog.close();
    });
  }
}

/** @param {HTMLDialogElement} dialog */
export function toggleDialog(dialog) {
  if (dialog.open) dialog.close();
  else dialog.showModal();
}

export function closeDialogs() {
  for (const dialog of document.querySelectorAll('dialog')) dialog.close();
}

/** Tells something once, to the eye and to screen readers. @param {string} text */
export function toast(text) {
  say(text, 'toast');
}

/** Tells screen readers alone what the eye sees elsewhere. @param {string} text */
export function announce(text) {
  say(text, 'visually-hidden');
}

/** @param {string} text @param {string} look */
function say(text, look) {
  const holder = byId('toasts', HTMLElement);
  const element = make('p', { class: look }, text);
  holder.append(element);
  while (holder.childElementCount > maxToasts) holder.firstElementChild?.remove();
  setTimeout(() => element.remove(), toastMs);
}

/** Takes back what toasts have told: it is to be seen by now, or over. */
export function clearToasts() {
  byId('toasts', HTMLElement).replaceChildren();
}

/**
 * Copies a text, and says on the button that it has. Where the browser forbids it, the text is shown to be copied by hand.
 * @param {string} text
 * @param {HTMLElement} button whose label tells the outcome
 */
export async function copy(text, button) {
  try {
    await navigator.clipboard.writeText(text);
    flash(button);
    // Above a dialog nothing else is read out or seen: there the button alone says it.
    if (!document.querySelector('dialog[open]')) toast('Copied');
  } catch {
    prompt('Copy this:', text);
  }
}

/** @param {HTMLElement} button */
function flash(button) {
  if ('done' in button.dataset) return;
  const label = button.textContent;
  const hasWords = button.childElementCount === 0;
  button.dataset.done = '';
  if (hasWords) button.textContent = 'Copied';
  setTimeout(() => {
    delete button.dataset.done;
    if (hasWords) button.textContent = label;
  }, 1_500);
}

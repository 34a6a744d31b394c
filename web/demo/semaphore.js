// Flag semaphore: who has no picture is shown as a signaller who spells the first letter of the name.

import { makeSvg } from './dom.js';

/**
 * Both arms for each letter, as the reader sees them: eighths of a turn from straight down, clockwise.
 * @type {Readonly<Record<string, readonly [number, number]>>}
 */
const arms = Object.freeze({
  A: [0, 1], B: [0, 2], C: [0, 3], D: [0, 4], E: [0, 5], F: [0, 6], G: [0, 7],
  H: [1, 2], I: [1, 3], K: [1, 4], L: [1, 5], M: [1, 6], N: [1, 7],
  O: [2, 3], P: [2, 4], Q: [2, 5], R: [2, 6], S: [2, 7],
  T: [3, 4], U: [3, 5], Y: [3, 6],
  J: [4, 6], V: [4, 7], W: [5, 6], X: [5, 7], Z: [6, 7],
});

/** Digits are signalled as letters, 1 to 9 as A to I and 0 as K. */
const digits = 'KABCDEFGHI';

/** Both flags up, for names that begin with neither a Latin letter nor a digit. */
const attention = arms.U;

/** Both flags down: the signal for the end of a word, and for rest. */
const rest = /** @type {const} */ ([0, 0]);

/** How long each letter of a word is shown, in milliseconds. */
const letterMs = 900;

/**
 * @param {string} text
 * @returns {readonly [number, number]} the arms for its first letter
 */
function armsFor(text) {
  const first = text.trim().normalize('NFKD').charAt(0).toUpperCase();
  if (first === '') return rest;
  const letter = /[0-9]/.test(first) ? digits[Number(first)] : first;
  return arms[letter] ?? attention;
}

/**
 * The signaller as a picture; '' is a signaller at rest. It tells nothing that the text beside it does not, so screen
 * readers skip it.
 * @param {string} text
 * @returns {SVGElement}
 */
export function signaller(text) {
  const picture = makeSvg('svg', { class: 'signaller', viewBox: '-50 -50 100 100', 'aria-hidden': 'true', focusable: 'false' },
    makeSvg('path', { class: 'body', d: 'M-9 42 L-7.5 -1 Q0 -8 7.5 -1 L9 42 Z' }),
    makeSvg('circle', { class: 'head', cx: 0, cy: -15.5, r: 8 }),
    arm(),
    arm());
  signal(picture, text);
  return picture;
}

/**
 * Has a signaller show the first letter of another text.
 * @param {SVGElement} picture
 * @param {string} text
 */
export function signal(picture, text) {
  const [one, other] = armsFor(text);
  // An arm that hangs down keeps to the side that the other leaves free.
  const free = other === 0 || other > 4 ? 'left' : 'right';
  const elements = picture.querySelectorAll('.arm');
  turn(elements[0], one, one === 0 ? free : sideOf(one));
  turn(elements[1], other, other === 0 ? 'right' : sideOf(other));
}

/**
 * Has a signaller spell a word over and over, unless less motion is wished for.
 * @param {SVGElement} picture
 * @param {string} word
 * @returns {() => void} ends it
 */
export function spell(picture, word) {
  signal(picture, word);
  if (matchMedia('(prefers-reduced-motion: reduce)').matches) return () => {};
  let place = 0;
  const timer = setInterval(() => {
    place = (place + 1) % word.length;
    signal(picture, word.charAt(place));
  }, letterMs);
  return () => clearInterval(timer);
}

/** An arm with its flag, straight up; the flag at its left. */
function arm() {
  return makeSvg('g', { transform: 'translate(0 -1)' },
    makeSvg('g', { class: 'arm' },
      makeSvg('path', { class: 'pole', d: 'M0 0 V-46' }),
      makeSvg('path', { class: 'flag-upper', d: 'M0 -46 V-26 L-20 -46 Z' }),
      makeSvg('path', { class: 'flag-lower', d: 'M-20 -46 V-26 H0 Z' })));
}

/**
 * @param {Element} element
 * @param {number} eighths
 * @param {'left'|'right'} side
 */
function turn(element, eighths, side) {
  const lean = eighths === 0 ? { left: 14, right: -14 }[side] : 0;
  const isLow = eighths < 2 || eighths > 6;
  // A low flag points away from the body, any other hangs below its arm.
  const isMirrored = (side === 'right') !== isLow;
  if (element instanceof SVGElement) {
    element.style.transform = `rotate(${180 + 45 * eighths + lean}deg) scaleX(${isMirrored ? -1 : 1})`;
  }
}

/** @param {number} eighths @returns {'left'|'right'} as the reader sees it */
function sideOf(eighths) {
  return eighths < 4 ? 'left' : 'right';
}

// One room: what is to be said of it, its pairs with their sequence diagrams, its members, its events.

/** @import { Member, Pair, Timeline, View } from './api.js' */

import { byId, make, setText } from '../demo/dom.js';
import { reconcile } from './dom.js';
import { describe, draw, rows } from './sequence.js';
import { after, lasted, ofState, short, size, tell } from './words.js';

const figure = byId('sequence', HTMLElement);

/** What an operator may do to a member. @typedef {(member: Member) => void} Remove */

export class RoomPage {
  /** @type {View} */
  #view = { room: null, timeline: null };
  /** The pair that was chosen, by both ids. @type {string|null} */
  #chosen = null;
  #drawn = '';
  #remove;

  /** @param {Remove} remove */
  constructor(remove) {
    this.#remove = remove;
    new ResizeObserver(() => this.#drawPair()).observe(figure);
  }

  /** Another room is to be shown. @param {string} name */
  open(name) {
    this.#chosen = null;
    this.#drawn = '';
    this.#view = { room: null, timeline: null };
    setText(byId('room-name', HTMLElement), name);
    setText(byId('verdict-text', HTMLElement), 'Looking…');
    byId('verdict', HTMLElement).dataset.tone = 'none';
    for (const id of ['pairs', 'members', 'events', 'sequence', 'room-chips', 'pair-text']) byId(id, HTMLElement).replaceChildren();
  }

  /** @param {View} view @param {number} nowMs  by the server's clock */
  show(view, nowMs) {
    this.#view = view;
    const { room, timeline } = view;
    const chips = [];
    if (room) chips.push(`${room.here + room.away} ${room.here + room.away === 1 ? 'member' : 'members'}`, `open for ${lasted(nowMs - room.openedMs)}`, ...(room.locked ? ['locked'] : []));
    else if (timeline?.endedMs) chips.push(`ended ${lasted(nowMs - timeline.endedMs)} ago`);
    reconcile(byId('room-chips', HTMLElement), chips, (chip) => chip.replace(/ .*/, ''), () => make('span', { class: 'chip' }), setText);
    byId('room-actions', HTMLElement).hidden = room === null;
    setText(byId('room-lock', HTMLElement), room?.locked ? 'Unlock' : 'Lock');
    this.#showVerdict(timeline);
    this.#showPairs(timeline);
    this.#drawPair();
    reconcile(byId('members', HTMLElement), room?.members ?? [], ({ peer }) => peer, (member) => this.#card(member), (card, member) => updateCard(card, member, nowMs));
    showEvents(timeline);
  }

  get locked() {
    return this.#view.room?.locked ?? false;
  }

  /** @param {Timeline|null} timeline */
  #showVerdict(timeline) {
    const { tone } = ofState(timeline?.diagnosis.state ?? null);
    byId('verdict', HTMLElement).dataset.tone = tone;
    const text = timeline === null ? 'No such room is known: it never was, or has been forgotten.'
      : timeline.recorded ? timeline.diagnosis.text : 'Nothing is recorded here: --timeline-events is 0.';
    setText(byId('verdict-text', HTMLElement), text);
  }

  /** @param {Timeline|null} timeline */
  #showPairs(timeline) {
    const pairs = timeline?.diagnosis.pairs ?? [];
    const parent = byId('pairs', HTMLElement);
    parent.hidden = pairs.length < 2;
    if (!pairs.some((pair) => keyOf(pair) === this.#chosen)) this.#chosen = pairs[0] ? keyOf(pairs[0]) : null;
    reconcile(parent, pairs, keyOf, (pair) => {
      const button = make('button', { type: 'button', class: 'pair' }, make('span', {}, `${short(pair.impolite)} – ${short(pair.polite)}`), make('span', { class: 'chip' }));
      button.addEventListener('click', () => {
        this.#chosen = keyOf(pair);
        this.#showPairs(this.#view.timeline);
        this.#drawPair();
      });
      return button;
    }, (button, pair) => {
      const { label, tone } = ofState(pair.state);
      const chip = /** @type {HTMLElement} */ (button.lastElementChild);
      chip.dataset.tone = tone;
      setText(chip, label);
      button.classList.toggle('is-over', pair.over);
      button.setAttribute('aria-pressed', String(keyOf(pair) === this.#chosen));
    });
  }

  #drawPair() {
    const { timeline, room } = this.#view;
    const pair = timeline?.diagnosis.pairs.find((one) => keyOf(one) === this.#chosen);
    const text = byId('pair-text', HTMLElement);
    // The only pair is explained above.
    setText(text, pair && timeline && timeline.diagnosis.text !== pair.text ? pair.text : '');
    text.hidden = text.textContent === '';
    if (!timeline || !pair) {
      figure.replaceChildren();
      this.#drawn = '';
      return;
    }
    const width = Math.floor(figure.clientWidth);
    const told = rows(timeline.events, pair);
    const name = (/** @type {string} */ peer) => room?.members.find((member) => member.peer === peer)?.user ?? short(peer);
    const names = /** @type {[string, string]} */ ([name(pair.impolite), name(pair.polite)]);
    // Drawn anew only where it would look otherwise, so that a text that is being selected stays.
    const drawn = JSON.stringify([width, told, names, pair.state]);
    if (width === 0 || drawn === this.#drawn) return;
    this.#drawn = drawn;
    figure.replaceChildren(draw(told, names, width, pair), describe(told, names));
  }

  /** @param {Member} member */
  #card(member) {
    const button = make('button', { type: 'button', class: 'quiet', 'aria-label': `Remove ${member.user ?? short(member.peer)}` }, 'Remove…');
    button.addEventListener('click', () => this.#remove(member));
    return make('li', { class: 'member' },
      make('div', {}, make('b', {}, member.user ?? short(member.peer)), make('span', { class: 'chip' }), make('code', {}, member.peer), make('p')), button);
  }
}

/** @param {HTMLElement} card @param {Member} member @param {number} nowMs */
function updateCard(card, member, nowMs) {
  const [about, button] = [...card.children];
  const [, chip, , text] = [...about.children];
  /** @type {HTMLElement} */ (chip).dataset.tone = { here: 'good', away: 'bad', waiting: 'warn' }[member.state];
  setText(chip, member.state === 'here' ? 'connected' : member.state);
  const facts = [
    member.transport, member.address ?? member.addressKind, member.joinedMs === null ? null : `for ${lasted(nowMs - member.joinedMs)}`,
    member.moderates ? 'moderates' : null, member.node === null ? null : `at node ${member.node}`,
    member.queuedMessages === 0 ? null : `${member.queuedMessages} unread, ${size(member.queuedBytes)}`,
  ];
  setText(text, facts.filter((fact) => fact !== null).join(' · '));
  // Only its own node can remove it.
  /** @type {HTMLElement} */ (button).hidden = member.node !== null;
}

/** @param {Timeline|null} timeline */
function showEvents(timeline) {
  const events = timeline?.events ?? [];
  setText(byId('events-summary', HTMLElement), `All events (${events.length}${timeline && timeline.dropped > 0 ? `, ${timeline.dropped} forgotten` : ''})`);
  const begun = events[0]?.atMs ?? 0;
  const lines = events.map((happening, at) => ({ key: `${(timeline?.dropped ?? 0) + at}`, when: after(happening.atMs - begun), what: tell(happening) }));
  reconcile(byId('events', HTMLElement), lines, ({ key }) => key, () => make('li', {}, make('time'), make('span')), (line, { when, what }) => {
    setText(line.children[0], when);
    setText(line.children[1], what);
  });
}

/** @param {Pair} pair */
function keyOf({ impolite, polite }) {
  return `${impolite} ${polite}`;
}

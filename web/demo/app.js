// Joins state and views: what the person asks for goes to media and meeting, what these become goes to the views.

import { Chat } from './chat.js';
import { Controls, listKeys, listenToKeys } from './controls.js';
import { Details } from './details.js';
import { DevicePicker } from './devices.js';
import { announce, clearToasts, closeDialogs, prepareDialogs, toast, toggleDialog } from './dialogs.js';
import { byId, setText } from './dom.js';
import { LocalMedia } from './media.js';
import { Meeting } from './meeting.js';
import { Moderation } from './moderation.js';
import { Prejoin } from './prejoin.js';
import { Renewal } from './renewal.js';
import { addressOf, readAddress, withoutToken } from './room.js';
import { signal, signaller, spell } from './semaphore.js';
import { loadSettings, saveSettings } from './settings.js';
import { Invitation, copyLink } from './share.js';
import { Stage } from './stage.js';
import { keepToken, keptToken } from './token.js';
import { keepAwake } from './wakelock.js';
import { explainDevices, explainEnding, explainScreen, explainTokenWish, explainWaiting } from './words.js';

/**
 * @import { DeviceCalls, DeviceKind } from './devices.js'
 *
 * @typedef {'prejoin'|'joining'|'incall'|'reconnecting'|'left'|'failed'} PageState
 */

/** After this long, joining is said to take long, in milliseconds. */
const patienceMs = 6_000;

/** Refusals at the door that a token, or another one, may turn. @type {ReadonlySet<string|undefined>} */
const tokenWishes = new Set(['unauthorized', 'tokenExpired']);

const timeFormat = new Intl.DateTimeFormat(undefined, { timeStyle: 'short' });

/** The section shown in each state. @type {Readonly<Record<PageState, string>>} */
const sections = Object.freeze({
  prejoin: 'prejoin', joining: 'joining', incall: 'call', reconnecting: 'call', left: 'over', failed: 'over',
});

/** Reads the page's address, and takes the token out of it: it is a secret, and addresses are seen and shared. */
function takeAddress() {
  const request = readAddress(location);
  history.replaceState(history.state, '', withoutToken(location.href));
  return request;
}

export function start() {
  prepareDialogs();
  new App().begin();
}

class App {
  #settings = loadSettings();
  #address = takeAddress();
  #media = new LocalMedia(this.#settings, () => this.#mediaChanged());
  /** The present visit, or the last one. @type {Meeting|null} */
  #meeting = null;
  /** What was last joined, to come back to. @type {{name: string, room: string, token: string}|null} */
  #choice = null;
  /** @type {PageState} */
  #state = 'prejoin';
  #unread = 0;
  /** The browser lets nothing sound before a click. */
  #isSilenced = false;
  /** Joining takes long. */
  #isSlow = false;
  /** @type {ReturnType<typeof setTimeout>|undefined} */
  #slowTimer;
  #isSpelling = false;
  #stopSpelling = () => {};

  #details = new Details();
  #invitation = new Invitation();
  #moderation = new Moderation();
  #renewal = new Renewal((token) => this.#renewToken(token));
  #stage = new Stage({
    blocked: () => this.#silenced(),
    remove: (participant) => this.#moderation.askToRemove(participant),
  });
  #chat = new Chat({
    send: (text) => this.#meeting?.sendChat(text),
    unreadChanged: (count) => this.#unreadChanged(count),
  });
  #controls = new Controls({
    mute: () => this.#toggleMicrophone(),
    camera: () => this.#toggleCamera(),
    screen: () => this.#toggleScreen(),
    leave: () => this.#leave(),
  });
  #prejoin = new Prejoin(this.#media, { name: this.#settings.name, room: this.#address.room, token: this.#address.token ?? keptToken(this.#address.room) }, {
    join: (choice) => this.#join(choice),
    copyLink: (room, button) => copyLink(room, button),
    nameChanged: (name) => this.#remember({ name }),
  });
  #pickers = ['prejoin-device-list', 'settings-device-list'].map((id) => new DevicePicker(byId(id, HTMLElement), this.#deviceCalls()));
  #joiningSignaller = signaller('w');

  begin() {
    byId('joining-picture', HTMLElement).append(this.#joiningSignaller);
    byId('over-picture', HTMLElement).append(signaller(''));
    this.#listen();
    this.#prepareKeys();
    this.#setState('prejoin');
    this.#prejoin.focus();
    this.#media.start();
  }

  #listen() {
    const onClick = (/** @type {string} */ id, /** @type {() => void} */ run) => byId(id, HTMLButtonElement).addEventListener('click', run);
    onClick('invite', () => this.#invitation.open());
    onClick('settings-open', () => toggleDialog(byId('settings-dialog', HTMLDialogElement)));
    onClick('joining-cancel', () => this.#backToPrejoin());
    onClick('joining-details', () => this.#details.toggle());
    onClick('over-details', () => this.#details.toggle());
    onClick('over-again', () => this.#joinAgain());
    onClick('over-room', () => this.#anotherRoom());
    onClick('over-token', () => this.#enterToken());
    onClick('banner-action', () => this.#banner()?.run());
    addEventListener('pagehide', () => this.#abandon());
    addEventListener('hashchange', () => this.#takeLateToken());
  }

  // Coming and going.

  /** @param {{name: string, room: string, token: string}} choice */
  #join(choice) {
    this.#choice = choice;
    keepToken(choice.room, choice.token);
    this.#media.acceptProblems();
    this.#chat.clear();
    history.replaceState(null, '', addressOf(location.href, choice.room));
    setText(byId('room-name', HTMLElement), choice.room);
    this.#isSlow = false;
    clearTimeout(this.#slowTimer);
    this.#slowTimer = setTimeout(() => {
      this.#isSlow = true;
      this.#render();
    }, patienceMs);
    this.#meeting = this.#meet(choice);
    this.#invitation.setRoom(choice.room, { wantsToken: choice.token !== '', inviter: this.#meeting.moderates ? this.#meeting : null });
    this.#prejoin.rest();
    this.#setState('joining');
    byId('joining-title', HTMLElement).focus();
  }

  /** @param {{name: string, room: string, token: string}} choice */
  #meet({ name, room, token }) {
    /** @type {Meeting} */
    const meeting = new Meeting({ room, name, token: token || undefined, transports: this.#address.transports, media: this.#media }, {
      changed: () => this.#follow(meeting),
      chat: (from, text, at) => {
        this.#chat.add(from, text, at);
        if (!this.#chat.isOpen) toast(`${from.name}: ${text.length > 80 ? `${text.slice(0, 80)}…` : text}`);
      },
      notice: toast,
      knock: ({ name }) => announce(`${name} asks to come in`),
      over: (error, phase) => this.#over(error, phase),
    });
    return meeting;
  }

  /** @param {Error & {code?: string}} error @param {import('./meeting.js').Phase} phase in which the visit has ended */
  #over(error, phase) {
    if (phase === 'joining' && tokenWishes.has(error.code)) return this.#askForToken(error);
    const isDeclined = phase === 'waiting' && error.code === 'forbidden';
    this.#end('failed', explainEnding(isDeclined ? { code: 'notAdmitted' } : error));
  }

  /** Takes the page where the meeting has gone. @param {Meeting} meeting */
  #follow(meeting) {
    if (meeting !== this.#meeting || meeting.phase === 'over') return;
    const isNew = this.#state === 'joining' && meeting.phase === 'incall';
    this.#setState(meeting.phase === 'incall' || meeting.phase === 'reconnecting' ? meeting.phase : 'joining');
    if (isNew) byId('mute', HTMLButtonElement).focus();
  }

  async #leave() {
    const meeting = this.#meeting;
    const left = meeting?.leave();
    this.#end('left', {
      title: 'You have left the room', text: 'The others may still be there. The link brings you back at any time.', remedies: ['again', 'room'],
    });
    await left;
    if (this.#meeting === meeting) this.#render();
  }

  /** The page is being closed, or put aside by the browser for a return that finds the call over. */
  #abandon() {
    if (this.#meeting === null || this.#meeting.phase === 'over') return;
    this.#meeting.close();
    this.#end('left', { title: 'You have left the room', text: 'The page was closed or left meanwhile.', remedies: ['again', 'room'] });
  }

  /** @param {'left'|'failed'} state @param {import('./words.js').Explanation} why */
  #end(state, { title, text, remedies }) {
    closeDialogs();
    clearToasts();
    this.#media.stop();
    this.#isSilenced = false;
    setText(byId('over-title', HTMLElement), title);
    setText(byId('over-text', HTMLElement), text);
    byId('over-again', HTMLElement).hidden = !remedies.includes('again');
    byId('over-room', HTMLElement).hidden = !remedies.includes('room');
    byId('over-token', HTMLElement).hidden = !remedies.includes('token');
    this.#setState(state);
    byId('over-title', HTMLElement).focus();
  }

  #joinAgain() {
    this.#media.start();
    if (this.#choice) this.#join(this.#choice);
  }

  #anotherRoom() {
    this.#prejoin.newRoom();
    this.#backToPrejoin();
  }

  #enterToken() {
    this.#prejoin.askForToken('');
    this.#backToPrejoin();
  }

  /** The server wants a token, or another one: asked for where name and room stand. @param {{code?: string}} error */
  #askForToken(error) {
    closeDialogs();
    this.#prejoin.askForToken(explainTokenWish(error, Boolean(this.#choice?.token)));
    this.#backToPrejoin();
  }

  /** @param {string} token */
  async #renewToken(token) {
    await this.#meeting?.renewToken(token);
    if (this.#choice === null) return;
    this.#choice.token = token;
    keepToken(this.#choice.room, token);
  }

  /** Somebody has opened a link that differs from the page's own only by its token. */
  #takeLateToken() {
    const { token } = takeAddress();
    if (token !== undefined && this.#state === 'prejoin') this.#prejoin.setToken(token);
  }

  #backToPrejoin() {
    this.#meeting?.close();
    this.#meeting = null;
    this.#setState('prejoin');
    this.#prejoin.focus();
    this.#media.start();
  }

  // Microphone, camera, screen.

  /** Whether there is anybody to be seen or heard by. */
  get #usesDevices() {
    return sections[this.#state] !== 'over';
  }

  #toggleMicrophone() {
    if (!this.#usesDevices) return;
    this.#media.setMicrophone(!this.#media.microphoneOn);
  }

  #toggleCamera() {
    if (!this.#usesDevices) return;
    this.#media.setCamera(!this.#media.cameraOn);
  }

  async #toggleScreen() {
    if (this.#media.screen) return this.#media.stopScreen();
    try {
      await this.#media.shareScreen();
    } catch (error) {
      const words = explainScreen(error);
      if (words) toast(words);
    }
    // The call may have ended while the person was choosing.
    if (this.#state !== 'incall' && this.#state !== 'reconnecting') this.#media.stopScreen();
  }

  #mediaChanged() {
    const { microphone, camera } = this.#media.wants;
    this.#remember({ microphone, camera });
    this.#meeting?.mediaChanged();
    for (const picker of this.#pickers) picker.refresh();
    this.#render();
  }

  /** @returns {DeviceCalls} */
  #deviceCalls() {
    return {
      idOf: (kind) => (kind === 'audiooutput' ? this.#settings.speakerId : this.#media.idOf(kind === 'audioinput' ? 'microphone' : 'camera')),
      choose: (kind, id) => this.#choose(kind, id),
    };
  }

  /** @param {DeviceKind} kind @param {string} id */
  #choose(kind, id) {
    switch (kind) {
      case 'audioinput':
        this.#remember({ microphoneId: id });
        this.#media.choose('microphone', id);
        return;
      case 'videoinput':
        this.#remember({ cameraId: id });
        this.#media.choose('camera', id);
        return;
      case 'audiooutput':
        this.#remember({ speakerId: id });
        this.#stage.setSpeaker(id);
    }
  }

  #silenced() {
    this.#isSilenced = true;
    this.#render();
  }

  // Showing.

  /** @param {PageState} state */
  #setState(state) {
    this.#state = state;
    this.#render();
  }

  #render() {
    const state = this.#state;
    document.documentElement.dataset.state = state;
    for (const id of new Set(Object.values(sections))) byId(id, HTMLElement).hidden = sections[state] !== id;
    const isInCall = sections[state] === 'call';
    byId('where', HTMLElement).hidden = !isInCall;
    // A stray click on the logo is not to end the call.
    if (isInCall) byId('brand', HTMLElement).removeAttribute('href');
    else byId('brand', HTMLElement).setAttribute('href', '?');
    keepAwake(isInCall);
    this.#showTitle();
    this.#details.show(this.#meeting);
    this.#showJoining();
    if (state === 'prejoin') this.#prejoin.show();
    if (isInCall) return this.#showCall();
    this.#stage.clear();
    this.#moderation.show(null);
  }

  #showCall() {
    const meeting = this.#meeting;
    if (meeting === null) return;
    const { participants, moderates } = meeting;
    this.#stage.show(participants, { moderates });
    this.#moderation.show(meeting);
    this.#controls.show(this.#media);
    byId('alone', HTMLElement).hidden = participants.length > 1;
    document.getElementById('room-lock')?.toggleAttribute('hidden', !meeting.locked);
    const banner = this.#banner();
    byId('banner', HTMLElement).hidden = banner === null;
    setText(byId('banner-text', HTMLElement), banner?.text ?? '');
    setText(byId('banner-action', HTMLElement), banner?.action ?? '');
  }

  /** The one thing that most needs saying, and what to do about it. */
  #banner() {
    if (this.#isSilenced) {
      return {
        text: 'The browser holds the sound back until you ask for it.', action: 'Play sound',
        run: () => {
          this.#isSilenced = false;
          this.#stage.play();
          this.#render();
        },
      };
    }
    if (this.#state === 'reconnecting') {
      return {
        text: 'The server is out of reach; your call goes on without it. Reconnecting…', action: 'Try now',
        run: () => this.#meeting?.reconnect(),
      };
    }
    const endsAt = this.#meeting?.tokenEndsAt ?? null;
    if (endsAt !== null) {
      return {
        text: `Your access token ends at ${timeFormat.format(endsAt)}; then the server lets you go.`, action: 'Enter a new one',
        run: () => this.#renewal.open(),
      };
    }
    const complaint = explainDevices(this.#media.complaints);
    return complaint === '' ? null : { text: complaint, action: 'Try again', run: () => this.#media.start() };
  }

  #showJoining() {
    const isJoining = this.#state === 'joining';
    if (!isJoining) clearTimeout(this.#slowTimer);
    if (isJoining && this.#meeting) {
      setText(byId('joining-title', HTMLElement), this.#isWaiting ? 'Waiting to be let in' : 'Signaling…');
      setText(byId('joining-text', HTMLElement), this.#joiningText(this.#meeting));
    }
    const isSpelling = isJoining && !this.#isWaiting;
    if (isSpelling === this.#isSpelling) return;
    this.#isSpelling = isSpelling;
    this.#stopSpelling();
    // Who waits for a person needs no hurry shown.
    if (isSpelling) this.#stopSpelling = spell(this.#joiningSignaller, 'wigwag');
    else signal(this.#joiningSignaller, '');
  }

  /** At the door, until a moderator answers. */
  get #isWaiting() {
    return this.#state === 'joining' && this.#meeting?.phase === 'waiting';
  }

  /** @param {Meeting} meeting */
  #joiningText({ phase, refusal, room }) {
    if (phase === 'waiting') return `Whoever moderates ${room} is told that you are here. You come in as soon as they let you in; leave this page open until then.`;
    if (refusal !== undefined || this.#isSlow) return explainWaiting(refusal);
    return `Coming in to ${room}`;
  }

  #showTitle() {
    const room = sections[this.#state] === 'call' ? `${this.#choice?.room} · ` : '';
    const unread = this.#unread > 0 && room ? `(${this.#unread}) ` : '';
    const waiting = this.#isWaiting ? 'Waiting to be let in · ' : '';
    document.title = `${unread}${waiting}${room}wigwag`;
  }

  /** @param {number} count */
  #unreadChanged(count) {
    this.#unread = count;
    this.#showTitle();
  }

  // Keys and memory.

  #prepareKeys() {
    const inCall = (/** @type {() => void} */ run) => () => {
      if (sections[this.#state] === 'call') run();
    };
    const shortcuts = [
      { key: 'm', label: 'Microphone on or off', run: () => this.#toggleMicrophone() },
      { key: 'v', label: 'Camera on or off', run: () => this.#toggleCamera() },
      { key: 's', label: 'Share the screen, or stop', run: inCall(() => this.#toggleScreen()) },
      { key: 'c', label: 'Open or close the chat', run: inCall(() => this.#chat.toggle()) },
      { key: 'i', label: 'Invite others', run: inCall(() => this.#invitation.open()) },
      { key: 'l', label: 'Lock or unlock the room, as a moderator', run: inCall(() => this.#moderation.toggleLock()) },
      { key: 'd', label: 'Connection details', run: () => this.#details.toggle() },
      { key: '?', label: 'Settings and this list', run: () => toggleDialog(byId('settings-dialog', HTMLDialogElement)) },
    ];
    const areOn = byId('shortcuts-on', HTMLInputElement);
    areOn.checked = this.#settings.shortcuts;
    areOn.addEventListener('change', () => this.#remember({ shortcuts: areOn.checked }));
    listKeys(byId('keys', HTMLElement), shortcuts);
    listenToKeys(shortcuts, () => this.#settings.shortcuts);
  }

  /** @param {Partial<import('./settings.js').Settings>} part */
  #remember(part) {
    Object.assign(this.#settings, part);
    saveSettings(this.#settings);
  }
}

// The status line, and the dialog behind it that says what the connection is made of.

import { chosenPath } from '../call/path.js';
import { copy, toggleDialog } from './dialogs.js';
import { byId, make, setText } from './dom.js';
import { transportName } from './words.js';

/** @import { Meeting } from './meeting.js' */

/** How often the media connections are asked while somebody looks, in milliseconds. */
const refreshMs = 2_000;

/** How long the content of a saved file is kept for the browser to take, in milliseconds. */
const savedMs = 30_000;

const timeFormat = new Intl.DateTimeFormat(undefined, { timeStyle: 'medium', hourCycle: 'h23' });

/** @type {Readonly<Record<string, string>>} */
const candidateWords = Object.freeze({ host: 'direct', srflx: 'direct, through NAT', prflx: 'direct, through NAT', relay: 'relayed by TURN' });

export class Details {
  #dialog = byId('details-dialog', HTMLDialogElement);
  #status = byId('status', HTMLButtonElement);
  #text = byId('status-text', HTMLElement);
  #facts = byId('details-facts', HTMLElement);
  #attempts = byId('details-attempts', HTMLElement);
  #peers = byId('details-peers', HTMLElement);
  /** @type {Meeting|null} */
  #meeting = null;
  /** @type {PeerPath[]} */
  #paths = [];
  /** @type {ReturnType<typeof setInterval>|undefined} */
  #timer;

  constructor() {
    this.#status.addEventListener('click', () => this.toggle());
    this.#dialog.addEventListener('close', () => clearInterval(this.#timer));
    byId('details-reconnect', HTMLButtonElement).addEventListener('click', () => this.#meeting?.reconnect());
    const copyButton = byId('details-copy', HTMLButtonElement);
    copyButton.addEventListener('click', () => copy(this.#report(), copyButton));
    byId('details-download', HTMLButtonElement).addEventListener('click', () => this.#download());
  }

  toggle() {
    toggleDialog(this.#dialog);
    if (!this.#dialog.open) return;
    this.#fill();
    this.#measure();
    clearInterval(this.#timer);
    this.#timer = setInterval(() => this.#measure(), refreshMs);
  }

  /** @param {Meeting|null} meeting  the present or the last one */
  show(meeting) {
    if (meeting !== this.#meeting) this.#paths = [];
    this.#meeting = meeting;
    const transport = meeting?.transport ?? '';
    const roundTrip = meeting && transport && meeting.roundTrip !== null ? String(Math.round(meeting.roundTrip)) : '';
    this.#status.dataset.transport = transport;
    this.#status.dataset.rtt = roundTrip;
    this.#status.dataset.phase = meeting?.phase ?? '';
    setText(this.#text, statusText(meeting, transport, roundTrip));
    this.#status.title = 'Connection details (D)';
    byId('details-reconnect', HTMLButtonElement).disabled = meeting === null || meeting.phase === 'over';
    if (this.#dialog.open) this.#fill();
  }

  #fill() {
    this.#facts.replaceChildren(...this.#factLines().map(([term, fact]) => make('div', {}, make('dt', {}, term), make('dd', {}, fact))));
    const attempts = [...this.#meeting?.attempts ?? []].reverse();
    this.#attempts.replaceChildren(...rowsOr('Nothing was tried yet.', attempts.map(({ transport, outcome, ms, error, at }) => (
      make('tr', { 'data-transport': transport, 'data-outcome': outcome },
        cell(timeFormat.format(at)), cell(transportName(transport)), cell(outcomeText(outcome, error)), cell(`${ms} ms`))
    ))));
    this.#peers.replaceChildren(...rowsOr('Nobody to connect to yet.', this.#paths.map(({ name, state, path, roundTrip }) => (
      make('tr', {}, cell(name), cell(state), cell(path), cell(roundTrip))
    ))));
  }

  async #measure() {
    const meeting = this.#meeting;
    if (meeting === null) return;
    const paths = await Promise.all(meeting.connections.map(({ name, pc }) => pathOf(name, pc)));
    if (meeting !== this.#meeting) return;
    this.#paths = paths;
    this.#fill();
  }

  #factLines() {
    return factLines(this.#meeting, { host: location.host, ...this.#status.dataset });
  }

  /** Saves the server's log of the session, or where it cannot be had, as at an outage, the page's own report. */
  async #download() {
    const name = `wigwag-${this.#meeting?.room ?? 'page'}-${new Date().toISOString().slice(0, 10)}`;
    const report = this.#report();
    try {
      if (this.#meeting === null) throw new Error('there was no meeting');
      save(`${name}.ndjson`, 'application/x-ndjson', await this.#meeting.fetchLog());
    } catch {
      save(`${name}.txt`, 'text/plain', report);
    }
  }

  /** A text for support: no names of people, no tokens, no addresses but the server's. */
  #report() {
    const attempts = (this.#meeting?.attempts ?? []).map(({ at, transport, outcome, ms, error }) => (
      `${at.toISOString()} ${transport} ${outcome} ${ms} ms ${error}`.trimEnd()
    ));
    const peers = this.#paths.map(({ state, path, roundTrip }) => `peer: ${state}, ${path}, ${roundTrip}`);
    const facts = this.#factLines().map(([term, fact]) => `${term}: ${fact}`);
    return [`wigwag report, ${new Date().toISOString()}`, navigator.userAgent, ...facts, ...attempts, ...peers].join('\n');
  }
}

/**
 * What the connection is made of, for people to read and to send with a report. Pure.
 * @param {Pick<Meeting, 'phase'|'node'|'room'>|null} meeting
 * @param {{host: string, transport?: string, rtt?: string}} status
 * @returns {[string, string][]}
 */
export function factLines(meeting, { host, transport, rtt }) {
  return [
    ['State', phaseText(meeting)],
    ['Server', host],
    // Without a cluster there is none.
    ...(meeting?.node ? [/** @type {[string, string]} */ (['Node', meeting.node])] : []),
    ['Room', meeting?.room ?? 'none yet'],
    ['Transport', transport ? transportName(transport) : 'none'],
    ['Round trip', rtt ? `${rtt} ms` : 'not measured'],
  ];
}

/** Lets the browser save a text as a file. @param {string} name @param {string} type @param {string} text */
function save(name, type, text) {
  const url = URL.createObjectURL(new Blob([text], { type }));
  make('a', { href: url, download: name }).click();
  // Browsers do not tell when they have taken the content.
  setTimeout(() => URL.revokeObjectURL(url), savedMs);
}

/**
 * How the media of one peer travel.
 * @typedef {{name: string, state: string, path: string, roundTrip: string}} PeerPath
 */

/** @param {string} name @param {RTCPeerConnection} pc @returns {Promise<PeerPath>} */
async function pathOf(name, pc) {
  const { pair, local } = await chosenPath(pc);
  const milliseconds = pair?.currentRoundTripTime === undefined ? '–' : `${Math.round(pair.currentRoundTripTime * 1_000)} ms`;
  return {
    name,
    state: pc.connectionState,
    path: local ? `${candidateWords[local.candidateType] ?? local.candidateType}, ${String(local.protocol).toUpperCase()}` : '–',
    roundTrip: milliseconds,
  };
}

/** @param {Meeting|null} meeting @param {string} transport @param {string} roundTrip */
function statusText(meeting, transport, roundTrip) {
  if (meeting?.phase !== 'incall' || !transport) return phaseText(meeting);
  return roundTrip ? `${transportName(transport)} · ${roundTrip} ms` : transportName(transport);
}

/** @param {Pick<Meeting, 'phase'>|null} meeting */
function phaseText(meeting) {
  switch (meeting?.phase) {
    case 'joining':
      return 'Connecting…';
    case 'waiting':
      return 'Waiting to be let in';
    case 'incall':
      return 'Connected';
    case 'reconnecting':
      return 'Reconnecting…';
    default:
      return 'Not connected';
  }
}

/** @param {string} outcome @param {string} error */
function outcomeText(outcome, error) {
  const words = outcome === 'won' ? 'worked' : outcome === 'unused' ? 'not needed' : outcome;
  return error ? `${words}: ${error}` : words;
}

/** @param {string} text */
function cell(text) {
  return make('td', {}, text);
}

/** @param {string} nothing @param {HTMLTableRowElement[]} rows */
function rowsOr(nothing, rows) {
  return rows.length > 0 ? rows : [make('tr', {}, make('td', { colspan: 4, class: 'hint' }, nothing))];
}

// The operator's page: what is shown follows the address, what is told comes by one live view.

/** @import { Member, Overview } from './api.js' */

import { Refused, act, follow, read, roomPath, setToken, token } from './api.js';
import { Chart } from './charts.js';
import { byId, setText } from '../demo/dom.js';
import { RoomPage } from './room.js';
import { pageSize, showEnded, showRooms } from './rooms.js';
import { Series } from './series.js';
import { lasted, short, size } from './words.js';

const typingMs = 200;
const endedMs = 2_000;

/** What a chart of transports is made of, the best transport at the bottom. */
const transports = ['webtransport', 'websocket-h3', 'websocket-h2', 'websocket-h1', 'event-stream', 'long-poll'];

const charts = {
  sessions: new Chart(byId('chart-sessions', HTMLElement), { title: 'Sessions', unit: '', stacked: true, write: (value) => String(value) }),
  messages: new Chart(byId('chart-messages', HTMLElement), { title: 'Messages a second', unit: '' }),
  latency: new Chart(byId('chart-latency', HTMLElement), { title: 'Queue to transport', unit: ' ms' }),
};
const series = new Series();
const roomPage = new RoomPage(remove);

/** The list as it is wanted. */
const list = { filter: '', order: 'name', offset: 0, ended: false };
/** Ends the present live view. */
let view = new AbortController();
/** The server's clock against ours, in milliseconds. */
let ahead = 0;

/** @returns {string|null} the room that the address names */
function room() {
  return new URLSearchParams(location.hash.slice(1)).get('room');
}

function now() {
  return Date.now() + ahead;
}

/** Asks for what is to be shown now, in place of what was. */
function look() {
  view.abort();
  view = new AbortController();
  const wanted = new URLSearchParams({ filter: list.filter, order: list.order, offset: String(list.offset), limit: String(pageSize) });
  const name = room();
  if (name !== null) wanted.set('room', name);
  follow(wanted, { overview: showOverview, rooms: (rooms) => { if (!list.ended) showRooms(rooms, now()); }, room: (told) => roomPage.show(told, now()) }, lost, view.signal);
  if (name === null && list.ended) lookAtEnded(view.signal);
}

/** They change seldom. @param {AbortSignal} signal */
async function lookAtEnded(signal) {
  while (!signal.aborted) {
    const wanted = new URLSearchParams({ filter: list.filter, offset: String(list.offset), limit: String(pageSize) });
    const ended = await read(`/api/ended?${wanted}`).catch(() => null); // The live view tells what is wrong.
    if (ended && !signal.aborted) showEnded(ended);
    await new Promise((done) => { setTimeout(done, endedMs); });
  }
}

/** @param {Overview} overview */
function showOverview(overview) {
  ahead = overview.atMs - Date.now();
  document.documentElement.dataset.state = overview.draining ? 'draining' : 'live';
  const node = overview.node === null ? '' : ` · node ${overview.node}${overview.clusterConnected ? '' : ', alone'}`;
  setText(byId('status', HTMLElement), overview.draining ? 'Draining' : `Up ${lasted(overview.atMs - overview.startedMs)} · ${overview.version}${node}`);
  byId('drain', HTMLButtonElement).disabled = overview.draining;
  setText(byId('n-rooms', HTMLElement), String(overview.rooms));
  setText(byId('n-ended', HTMLElement), `${overview.endedRooms} ended lately`);
  setText(byId('n-here', HTMLElement), String(overview.seats.here));
  setText(byId('n-away', HTMLElement), String(overview.seats.away));
  setText(byId('n-waiting', HTMLElement), String(overview.seats.waiting));
  setText(byId('n-queue', HTMLElement), size(overview.queuedBytes));
  setText(byId('n-queue-messages', HTMLElement), `${overview.queuedMessages} messages`);
  series.push(overview);
  const { points } = series;
  charts.sessions.show(transports.map((name, at) => ({ name, tone: `tone-${at}`, values: points.map(({ sessions }) => sessions[name] ?? 0) })));
  charts.messages.show([{ name: 'received', tone: 'tone-0', values: points.map(({ messages }) => messages) }]);
  charts.latency.show([
    { name: 'median', tone: 'tone-0', values: points.map(({ median }) => median) },
    { name: '99 %', tone: 'tone-4', values: points.map(({ slow }) => slow) },
  ]);
}

/** @param {unknown} error */
function lost(error) {
  document.documentElement.dataset.state = 'lost';
  setText(byId('status', HTMLElement), error instanceof Refused ? `Refused: ${error.message}` : 'Not connected; trying again');
  if (error instanceof Refused && error.status === 401) askForToken(token() === '' ? '' : 'The server does not accept this token.');
}

/** What the address names. */
function navigate() {
  const name = room();
  byId('overview', HTMLElement).hidden = name !== null;
  byId('room', HTMLElement).hidden = name === null;
  document.title = name === null ? 'wigwag · operator' : `${name} · wigwag`;
  if (name !== null) roomPage.open(name);
  byId(name === null ? 'overview' : 'room', HTMLElement).focus({ preventScroll: true });
  scrollTo(0, 0);
  look();
}

/** @param {string} problem */
function askForToken(problem) {
  const dialog = byId('token', HTMLDialogElement);
  const text = byId('token-problem', HTMLElement);
  setText(text, problem);
  text.hidden = problem === '';
  if (!dialog.open) dialog.showModal();
}

/**
 * Asks whether that is meant, and does it.
 * @param {{title: string, text: string, yes: string, asksWhy: boolean}} question
 * @param {(reason: string) => Promise<void>} go
 */
function confirm({ title, text, yes, asksWhy }, go) {
  const dialog = byId('confirm', HTMLDialogElement);
  const problem = byId('confirm-problem', HTMLElement);
  const reason = byId('confirm-reason', HTMLInputElement);
  setText(byId('confirm-title', HTMLElement), title);
  setText(byId('confirm-text', HTMLElement), text);
  setText(byId('confirm-yes', HTMLElement), yes);
  byId('confirm-reason-field', HTMLElement).hidden = !asksWhy;
  reason.value = '';
  problem.hidden = true;
  const button = byId('confirm-yes', HTMLButtonElement);
  button.onclick = async (event) => {
    event.preventDefault();
    button.disabled = true;
    try {
      await go(reason.value.trim());
      dialog.close();
    } catch (error) {
      setText(problem, error instanceof Error ? error.message : String(error));
      problem.hidden = false;
    } finally {
      button.disabled = false;
    }
  };
  dialog.showModal();
}

/** @param {string} reason */
function because(reason) {
  return reason === '' ? undefined : { reason };
}

/** @param {Member} member */
function remove(member) {
  const name = room();
  if (name === null) return;
  const who = member.user ?? short(member.peer);
  confirm({
    title: `Remove ${who}?`, text: 'It is told, and its client does not come back by itself. Whoever may join can join again.', yes: 'Remove', asksWhy: true,
  }, (reason) => act(roomPath(name, 'peers', member.peer, 'remove'), because(reason)));
}

function closeRoom() {
  const name = room();
  if (name === null) return;
  confirm({
    title: `Close ${name}?`, text: 'Everybody in it is removed and told so. Calls that are under way lose their signaling.', yes: 'Close room', asksWhy: true,
  }, (reason) => act(roomPath(name, 'close'), because(reason)));
}

function drain() {
  confirm({
    title: 'Drain this server?', text: 'It takes no new sessions, asks those that are open to go elsewhere, and ends. That cannot be undone.', yes: 'Drain', asksWhy: false,
  }, () => act('/api/drain'));
}

async function lock() {
  const name = room();
  if (name === null) return;
  const problem = byId('room-problem', HTMLElement);
  problem.hidden = true;
  try {
    await act(roomPath(name, roomPage.locked ? 'unlock' : 'lock'));
  } catch (error) {
    setText(problem, error instanceof Error ? error.message : String(error));
    problem.hidden = false;
  }
}

/** The list from its beginning, otherwise. @param {Partial<typeof list>} change */
function relist(change) {
  Object.assign(list, { offset: 0 }, change);
  byId('show-open', HTMLElement).setAttribute('aria-pressed', String(!list.ended));
  byId('show-ended', HTMLElement).setAttribute('aria-pressed', String(list.ended));
  setText(byId('age-head', HTMLElement), list.ended ? 'Ended' : 'Open for');
  byId('order', HTMLSelectElement).disabled = list.ended;
  look();
}

/** @type {ReturnType<typeof setTimeout>|undefined} */
let typing;
byId('filter', HTMLInputElement).addEventListener('input', ({ target }) => {
  clearTimeout(typing);
  typing = setTimeout(() => relist({ filter: /** @type {HTMLInputElement} */ (target).value.trim() }), typingMs);
});
byId('order', HTMLSelectElement).addEventListener('change', ({ target }) => relist({ order: /** @type {HTMLSelectElement} */ (target).value }));
byId('show-open', HTMLButtonElement).addEventListener('click', () => relist({ ended: false }));
byId('show-ended', HTMLButtonElement).addEventListener('click', () => relist({ ended: true }));
byId('page-back', HTMLButtonElement).addEventListener('click', () => relist({ offset: Math.max(0, list.offset - pageSize) }));
byId('page-on', HTMLButtonElement).addEventListener('click', () => relist({ offset: list.offset + pageSize }));
byId('drain', HTMLButtonElement).addEventListener('click', drain);
byId('room-close', HTMLButtonElement).addEventListener('click', closeRoom);
byId('room-lock', HTMLButtonElement).addEventListener('click', lock);
byId('confirm-no', HTMLButtonElement).addEventListener('click', () => byId('confirm', HTMLDialogElement).close());
byId('token-open', HTMLButtonElement).addEventListener('click', () => askForToken(''));
byId('token-no', HTMLButtonElement).addEventListener('click', () => byId('token', HTMLDialogElement).close());
byId('token', HTMLDialogElement).querySelector('form')?.addEventListener('submit', () => {
  const field = byId('token-field', HTMLInputElement);
  setToken(field.value.trim());
  field.value = '';
  look();
});
addEventListener('hashchange', navigate);
navigate();

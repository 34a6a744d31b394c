// What is said in words: numbers, times, states, events. Pure.

/** @import { Happening, State } from './api.js' */

/** @type {Readonly<Record<State, {label: string, tone: 'good'|'warn'|'bad'}>>} */
const states = Object.freeze({
  media: { label: 'media', tone: 'good' },
  complete: { label: 'complete', tone: 'good' },
  connected: { label: 'no media', tone: 'warn' },
  oneSidedCandidates: { label: 'one side’s candidates', tone: 'warn' },
  noCandidates: { label: 'no candidates', tone: 'bad' },
  iceFailed: { label: 'ICE failed', tone: 'bad' },
  glare: { label: 'glare', tone: 'bad' },
  rolledBack: { label: 'offer taken back', tone: 'warn' },
  answerLost: { label: 'answer lost', tone: 'bad' },
  noAnswer: { label: 'no answer', tone: 'bad' },
  leftDuring: { label: 'left meanwhile', tone: 'warn' },
  offerLost: { label: 'offer lost', tone: 'bad' },
  noOffer: { label: 'no offer', tone: 'warn' },
});

/** @param {State|null} state @returns {{label: string, tone: 'good'|'warn'|'bad'|'none'}} */
export function ofState(state) {
  return state === null ? { label: '–', tone: 'none' } : states[state] ?? { label: state, tone: 'none' };
}

/** What tells peers apart who came at the same time. @param {string} peer */
export function short(peer) {
  return `…${peer.slice(-6)}`;
}

/** @param {number} bytes */
export function size(bytes) {
  if (bytes < 1024) return `${bytes} B`;
  const kib = bytes / 1024;
  return kib < 1024 ? `${kib.toFixed(kib < 10 ? 1 : 0)} KiB` : `${(kib / 1024).toFixed(1)} MiB`;
}

/** @param {number} ms */
export function lasted(ms) {
  const seconds = Math.max(0, Math.floor(ms / 1000));
  if (seconds < 60) return `${seconds} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  return hours < 48 ? `${hours} h ${minutes % 60} min` : `${Math.floor(hours / 24)} days`;
}

/** A moment of a timeline, counted from its first. @param {number} ms */
export function after(ms) {
  if (ms < 1000) return `+${Math.round(ms)} ms`;
  return ms < 60_000 ? `+${(ms / 1000).toFixed(2)} s` : `+${lasted(ms)}`;
}

/** @param {number} value */
export function short3(value) {
  if (value >= 1000) return `${(value / 1000).toFixed(value >= 10_000 ? 0 : 1)}k`;
  if (value >= 10) return String(Math.round(value));
  return String(Number(value.toFixed(value < 1 ? 2 : 1)));
}

/** Why something relayed did not arrive. @type {Readonly<Record<string, string>>} */
export const outcomes = Object.freeze({
  kept: 'waits, peer is away',
  elsewhere: 'to its node',
  queueFull: 'queue full',
  unreachable: 'its node could not be reached',
  peerGone: 'no such peer',
  filtered: 'left out by settings',
});

/** @type {Readonly<Record<string, string>>} */
const names = Object.freeze({
  joined: 'joined', knocked: 'knocked', admitted: 'was let in', away: 'lost its transport', back: 'is back', moved: 'moved to',
  left: 'left', refused: 'was refused', locked: 'locked the room', unlocked: 'unlocked the room', ended: 'The room ended',
  endOfCandidates: 'end of candidates',
});

/** What clients tell of their connections. @type {Readonly<Record<string, string>>} */
const milestones = Object.freeze({ connected: 'ICE connected', media: 'first media', failed: 'ICE failed' });

/** Such an event in words; null for any other. @param {Happening} happening */
export function ofMilestone({ event, candidateType, afterMs }) {
  const what = milestones[event];
  if (what === undefined) return null;
  const way = candidateType === undefined ? '' : event === 'failed' ? ` with ${candidateType} at best` : ` by ${candidateType}`;
  return `${what}${way} after ${after(afterMs ?? 0).slice(1)}`;
}

/** @type {Readonly<Record<string, string>>} */
const reasons = Object.freeze({ timeout: 'did not come back', kicked: 'was removed', nodeLost: 'its server is gone' });

/** An event as a sentence. @param {Happening} happening */
export function tell(happening) {
  const { event, peer, to, count, transport, bytes, outcome, code, reason } = happening;
  const who = peer === undefined ? (event === 'ended' ? '' : event === 'refused' ? 'Somebody' : 'The operator') : short(peer);
  const what = names[event] ?? event;
  const times = count === undefined ? '' : ` ×${count}`;
  const milestone = ofMilestone(happening);
  if (to !== undefined && milestone !== null) return `${who} with ${short(to)}: ${milestone}`;
  if (to !== undefined) {
    const fate = outcome !== undefined && outcome !== 'delivered' ? `, ${outcomes[outcome] ?? outcome}` : '';
    return `${who} → ${short(to)}: ${what}${times}, ${size(bytes ?? 0)}${fate}`;
  }
  const way = transport === undefined ? '' : event === 'moved' ? ` ${transport}` : ` by ${transport}`;
  const why = code ?? (reason === undefined ? undefined : reasons[reason]);
  return `${who} ${what}${way}${times}${why === undefined ? '' : ` (${why})`}`.trim();
}

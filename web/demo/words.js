// What has gone wrong, in words that say what happened and what to do. Pure.

/**
 * What the page offers to do about it: `again` tries the same once more, `room` goes back to choose a room,
 * `token` asks for an access token.
 * @typedef {'again'|'room'|'token'} Remedy
 * @typedef {{title: string, text: string, remedies: Remedy[]}} Explanation
 */

/** @type {Readonly<Record<string, Explanation>>} */
const endings = Object.freeze({
  roomFull: {
    title: 'This room is full',
    text: 'Everyone the server allows in this room is already here. Wait until somebody leaves, or meet in another room.',
    remedies: ['again', 'room'],
  },
  roomLocked: {
    title: 'This room is locked',
    text: 'The people inside let nobody else in for now. Ask one of them to unlock it, or meet in another room.',
    remedies: ['again', 'room'],
  },
  rateLimited: {
    title: 'Too many tries',
    text: 'The server wants us to slow down. Wait a minute, then try again.',
    remedies: ['again'],
  },
  unauthorized: {
    title: 'This server asks for an access token',
    text: 'It did not accept the one given, or none was given. Enter the token you were sent, or ask for a new one.',
    remedies: ['token', 'room'],
  },
  tokenExpired: {
    title: 'Your access token has run out',
    text: 'Ask whoever invited you for a new one, and enter it here.',
    remedies: ['token'],
  },
  forbidden: {
    title: 'You may not enter this room',
    text: 'The server refused: your token does not name this room or is used up, or this page’s address is not on the server’s list of allowed origins.',
    remedies: ['token', 'room'],
  },
  notFound: {
    title: 'There is no such room',
    text: 'The server does not know this room. Check the link, or choose another name.',
    remedies: ['room'],
  },
  notAdmitted: {
    title: 'You were not let in',
    text: 'Whoever moderates this room has declined, or has not answered in time. You can knock once more.',
    remedies: ['again', 'room'],
  },
  kicked: {
    title: 'You were removed from the room',
    text: 'Somebody who moderates this room ended your visit.',
    remedies: ['room'],
  },
  replaced: {
    title: 'Your place is used elsewhere',
    text: 'Another tab or device has taken over this place in the room. Join again to come in beside it.',
    remedies: ['again'],
  },
  tooLarge: {
    title: 'Something sent was too large',
    text: 'The server closed the connection because a message passed its size limit. A shorter name may help.',
    remedies: ['again'],
  },
  unsupported: {
    title: 'No way to the server is left to try',
    text: 'This browser and the server share none of the transports that may be used. If the address contains “transport=”, remove it; otherwise try a current browser.',
    remedies: ['again'],
  },
  unreachable: {
    title: 'The server does not answer',
    text: 'Check your network, a VPN or a firewall; then try again. The connection details show what was tried.',
    remedies: ['again'],
  },
});

/**
 * @param {{code?: string, message?: string}|null|undefined} error  a WigwagError, or whatever was thrown
 * @returns {Explanation}
 */
export function explainEnding(error) {
  const known = error?.code === undefined ? undefined : endings[error.code];
  if (known) return known;
  return {
    title: 'The connection ended',
    text: `${sentence(error?.message ?? 'The server gave no reason.')} Joining again usually helps.`,
    remedies: ['again', 'room'],
  };
}

/**
 * Why joining takes long: a refusal that may be over soon, or silence.
 * @param {{code?: string, message: string}|undefined} refusal  the last one
 * @returns {string}
 */
export function explainWaiting(refusal) {
  switch (refusal?.code) {
    case 'roomFull':
      return 'The room is full. You will be let in as soon as somebody leaves.';
    case 'roomLocked':
      return 'The room is locked. You will be let in as soon as it is unlocked.';
    case 'rateLimited':
      return 'The server asks us to slow down. Trying again shortly.';
    case 'goingAway':
      return 'The server is restarting. Trying again shortly.';
    default:
      if (refusal) return `${sentence(refusal.message)} Trying again.`;
      return 'The server has not answered yet. Still trying; check your network, a VPN or a firewall.';
  }
}

/**
 * Why there is no camera or microphone.
 * @param {{camera: unknown, microphone: unknown}} problems  what getUserMedia threw for each; null where nothing is wrong
 * @returns {string} '' where nothing is
 */
export function explainDevices({ camera, microphone }) {
  if (camera !== null && microphone !== null && nameOf(camera) === nameOf(microphone)) {
    return explainDevice('camera and microphone', camera);
  }
  return [
    camera === null ? '' : explainDevice('camera', camera),
    microphone === null ? '' : explainDevice('microphone', microphone),
  ].join(' ').trim();
}

/** @param {string} device @param {unknown} error */
function explainDevice(device, error) {
  switch (nameOf(error)) {
    case 'NotAllowedError':
    case 'SecurityError':
      return `The browser does not allow the ${device}. Open the site settings beside the address, allow access, then try again.`;
    case 'NotFoundError':
    case 'OverconstrainedError':
      return `No ${device} could be found. Plug one in or choose another, then try again.`;
    case 'NotReadableError':
    case 'AbortError':
      return `The ${device} could not be started, perhaps because another program is using it. Close that program, then try again.`;
    case 'InsecureContext':
      return `Browsers give the ${device} only to pages opened by https or on localhost. Open this page that way.`;
    default:
      return `The ${device} did not work: ${sentence(messageOf(error))}`;
  }
}

/**
 * @param {unknown} error  what getDisplayMedia threw
 * @returns {string|null} null where the person has changed their mind, which needs no words
 */
export function explainScreen(error) {
  const name = nameOf(error);
  if (name === 'AbortError') return null;
  if (name === 'NotAllowedError') return 'Nothing is shared. If you did not cancel, allow screen recording for this browser in the system’s settings.';
  return `The screen cannot be shared: ${sentence(messageOf(error))}`;
}

/**
 * Why the page asks for an access token.
 * @param {{code?: string}} error
 * @param {boolean} wasGiven  one was shown to the server, and refused
 */
export function explainTokenWish({ code }, wasGiven) {
  if (code === 'tokenExpired') return 'The access token has run out. Ask whoever invited you for a new one.';
  if (wasGiven) return 'The server did not accept that token. Check that it is whole, and made for this room.';
  return 'This server asks for an access token. Enter the one you were sent.';
}

/**
 * Why a moderator's wish was not done.
 * @param {{code?: string, message?: string}} error
 * @param {string} name  of whom it was about
 */
export function explainModeration({ code, message }, name) {
  switch (code) {
    case 'peerGone':
      return `${name} has gone already.`;
    case 'forbidden':
      return 'The server does not let you do that: your access token does not say that you moderate this room.';
    default:
      return `That did not work: ${sentence(message ?? 'the server gave no reason')}`;
  }
}

/** Why there is no invitation. @param {{code?: string, message?: string}} error */
export function explainInvitation({ code, message }) {
  // An older server does not know the request.
  if (code === 'notFound' || code === 'badRequest') return 'This server makes no invitations. The others need access tokens of their own, from whoever runs it.';
  return `There is no link: ${sentence(message ?? 'the server gave no reason')}`;
}

/** @type {Readonly<Record<string, string>>} */
const transportNames = Object.freeze({
  webtransport: 'WebTransport',
  websocket: 'WebSocket',
  'websocket-h3': 'WebSocket, HTTP/3',
  'websocket-h2': 'WebSocket, HTTP/2',
  'websocket-h1': 'WebSocket, HTTP/1.1',
  'event-stream': 'Event stream',
  'long-poll': 'Long poll',
});

/** @param {string} transport as the protocol names it */
export function transportName(transport) {
  return transportNames[transport] ?? transport;
}

/**
 * How it stands with a peer, in words for its tile; '' where all is well.
 * @param {'here'|'away'} presence
 * @param {string} connection  an RTCPeerConnectionState
 */
export function explainPeer(presence, connection) {
  if (presence === 'away') {
    return connection === 'connected' ? 'Reconnecting to the server' : 'Away: waiting for their connection';
  }
  switch (connection) {
    case 'connected':
      return '';
    case 'disconnected':
      return 'Connection interrupted…';
    case 'failed':
      return 'No direct way found, trying again…';
    default:
      return 'Connecting…';
  }
}

/** @param {unknown} error */
function nameOf(error) {
  // Not all that getUserMedia throws is an Error, in all browsers.
  return String(/** @type {{name?: unknown}|null|undefined} */ (error)?.name ?? '');
}

/** @param {unknown} error */
function messageOf(error) {
  return String(/** @type {{message?: unknown}|null|undefined} */ (error)?.message ?? error);
}

/** @param {string} text */
function sentence(text) {
  const trimmed = text.trim();
  if (trimmed === '') return '';
  const capital = trimmed.charAt(0).toUpperCase() + trimmed.slice(1);
  return /[.!?…]$/.test(capital) ? capital : `${capital}.`;
}

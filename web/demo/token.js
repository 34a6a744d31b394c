// Access tokens: what stands in one, and where the tab keeps it. The server alone judges them.

/**
 * Whether a token (RFC 7519) grants to moderate: what the page offers follows from it; what may be done, the server says.
 * @param {string|undefined} token
 * @returns {boolean} false, too, where it cannot be read
 */
export function mayModerate(token) {
  const grants = claimsOf(token)?.grants;
  return Array.isArray(grants) && grants.includes('moderate');
}

/** @param {string|undefined} token @returns {any} null where it cannot be read */
function claimsOf(token) {
  try {
    const [, payload = ''] = (token ?? '').split('.');
    const bytes = Uint8Array.from(atob(payload.replaceAll('-', '+').replaceAll('_', '/')), (character) => character.charCodeAt(0));
    return JSON.parse(new TextDecoder().decode(bytes));
  } catch {
    return null;
  }
}

/** @param {string} room */
const keyOf = (room) => `wigwag token ${room}`;

/**
 * Keeps the token of a room for as long as the tab lives, as the address is rid of it and a reload would lose it.
 * @param {string} room
 * @param {string} token  '' forgets it
 */
export function keepToken(room, token) {
  try {
    if (token === '') sessionStorage.removeItem(keyOf(room));
    else sessionStorage.setItem(keyOf(room), token);
  } catch {
    // A forbidden store costs the memory, nothing else: the page asks again.
  }
}

/** @param {string} room @returns {string} '' where none is kept */
export function keptToken(room) {
  try {
    return sessionStorage.getItem(keyOf(room)) ?? '';
  } catch {
    return '';
  }
}

// What the call library reads in session descriptions, and the one thing it changes. Pure.

/** @typedef {RTCSessionDescriptionInit|RTCSessionDescription|null} Description */

/** The line that names a description and its version (RFC 8866, 5.2). @param {Description} description */
export function originOf(description) {
  return description?.sdp?.match(/^o=.*$/m)?.[0];
}

/** What names its sender's ICE credentials (RFC 8839, 5.4). @param {Description} description */
export function fragmentOf(description) {
  return description?.sdp?.match(/^a=ice-ufrag:(\S+)/m)?.[1];
}

/** What names its sender's certificate, and so its end of the DTLS connection (RFC 8122, 5). @param {Description} description */
export function fingerprintOf(description) {
  return description?.sdp?.match(/^a=fingerprint:.*$/m)?.[0].trim();
}

/**
 * An offer as its receiver should read it: naming the DTLS role (`setup`, RFC 8842) that its sender has in the connection
 * that goes on.
 *
 * Every offer leaves the roles open, and every answer must keep them while the connection goes on. Firefox chooses anew
 * where it was about to restart ICE itself when the offer came, and the other side, whose role was the same, has to refuse
 * the answer: media end for good. Told the role, it has nothing to choose.
 * @param {RTCSessionDescriptionInit} offer
 * @param {{local: Description, remote: Description}} agreed  what the last negotiation ended with; null before the first
 * @returns {RTCSessionDescriptionInit}
 */
export function withAgreedRole(offer, { local, remote }) {
  const role = remoteRole(local, remote);
  // Another certificate makes another connection, whose roles are open.
  if (role === undefined || fingerprintOf(offer) !== fingerprintOf(remote)) return offer;
  return { type: offer.type, sdp: offer.sdp?.replaceAll(/^a=setup:actpass/gm, `a=setup:${role}`) };
}

/** @param {Description} local @param {Description} remote */
function remoteRole(local, remote) {
  // The answer has chosen for both.
  if (remote?.type === 'answer') return chosen(remote);
  const own = chosen(local);
  return own && (own === 'active' ? 'passive' : 'active');
}

/** @param {Description} description */
function chosen(description) {
  return description?.sdp?.match(/^a=setup:(active|passive)/m)?.[1];
}


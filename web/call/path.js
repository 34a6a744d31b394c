// How the media of one connection travel.

/** @param {RTCPeerConnection} pc @returns {Promise<any[]>} all that it tells of itself */
export async function statsOf(pc) {
  return [...(await pc.getStats()).values()];
}

/**
 * @param {any[]} stats
 * @returns {{pair?: any, local?: any}} the candidate pair in use, and its local candidate
 */
export function chosenOf(stats) {
  const chosen = stats.find(({ type, selectedCandidatePairId }) => type === 'transport' && selectedCandidatePairId)?.selectedCandidatePairId;
  // Firefox marks the pair itself.
  const pair = stats.find(({ type, id, selected }) => type === 'candidate-pair' && (id === chosen || selected));
  return { pair, local: stats.find(({ id }) => id === pair?.localCandidateId) };
}

/** The same of a connection as it is now. @param {RTCPeerConnection} pc */
export async function chosenPath(pc) {
  return chosenOf(await statsOf(pc));
}

// How the media of one connection travel.

/**
 * @param {RTCPeerConnection} pc
 * @returns {Promise<{pair?: any, local?: any}>} the candidate pair in use, and its local candidate
 */
export async function chosenPath(pc) {
  /** @type {any[]} */
  const all = [...(await pc.getStats()).values()];
  const chosen = all.find(({ type, selectedCandidatePairId }) => type === 'transport' && selectedCandidatePairId)?.selectedCandidatePairId;
  // Firefox marks the pair itself.
  const pair = all.find(({ type, id, selected }) => type === 'candidate-pair' && (id === chosen || selected));
  return { pair, local: all.find(({ id }) => id === pair?.localCandidateId) };
}

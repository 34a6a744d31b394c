// Keeps a phone's screen on during a call, where the browser lets a page do so.

/** @type {WakeLockSentinel|null} */
let sentinel = null;
let isWanted = false;

/** @param {boolean} wanted */
export function keepAwake(wanted) {
  if (wanted === isWanted) return;
  isWanted = wanted;
  if (wanted) document.addEventListener('visibilitychange', take);
  else document.removeEventListener('visibilitychange', take);
  take();
}

/** Browsers drop the lock when the page is hidden: it is taken again when it is seen. */
async function take() {
  if (!isWanted) {
    await sentinel?.release();
    sentinel = null;
    return;
  }
  if (document.visibilityState !== 'visible') return;
  try {
    sentinel = await navigator.wakeLock?.request('screen') ?? null;
    // Given up while the browser was thinking.
    if (!isWanted) await take();
  } catch {
    // A low battery forbids it: the screen goes dark as it always does.
  }
}

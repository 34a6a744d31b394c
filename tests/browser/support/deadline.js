// Every wait ends: with its event, or with an error that says what did not come.

/** For things that take a moment on a loaded machine; reaching it is a failure. In milliseconds. */
export const patienceMs = 30_000;

/**
 * @template T
 * @param {Promise<T>} promise
 * @param {string} what  that is waited for
 * @param {number} [ms]
 * @returns {Promise<T>}
 */
export async function within(promise, what, ms = patienceMs) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`not within ${ms} ms: ${what}`)), ms);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

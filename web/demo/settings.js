// What the page remembers between visits, in this browser only.

const key = 'wigwag demo';

/**
 * @typedef {object} Settings
 * @property {string} name
 * @property {boolean} microphone   whether one joins with it on
 * @property {boolean} camera
 * @property {string} microphoneId  '' means the browser's default
 * @property {string} cameraId
 * @property {string} speakerId
 * @property {boolean} shortcuts    whether single keys are shortcuts
 */

/** @type {Readonly<Settings>} */
const defaults = Object.freeze({
  name: '',
  microphone: true,
  camera: true,
  microphoneId: '',
  cameraId: '',
  speakerId: '',
  shortcuts: true,
});

/** @returns {Settings} */
export function loadSettings() {
  try {
    return fitting(JSON.parse(localStorage.getItem(key) ?? '{}'));
  } catch {
    // Storage may be forbidden, and what it holds may come from elsewhere.
    return { ...defaults };
  }
}

/** @param {Settings} settings */
export function saveSettings(settings) {
  try {
    localStorage.setItem(key, JSON.stringify(settings));
  } catch {
    // A full or forbidden store costs the memory, nothing else.
  }
}

/** Takes of a stored value what has the right type. @param {any} stored @returns {Settings} */
function fitting(stored) {
  const known = Object.entries(defaults).map(([name, value]) => (
    [name, typeof stored?.[name] === typeof value ? stored[name] : value]
  ));
  return Object.fromEntries(known);
}

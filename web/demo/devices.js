// Choosing microphone, camera and loudspeaker: the same three fields before and during the call.

import { make } from './dom.js';
import { listDevices } from './media.js';

/**
 * @typedef {'audioinput'|'videoinput'|'audiooutput'} DeviceKind
 *
 * @typedef {object} DeviceCalls
 * @property {(kind: DeviceKind) => string} idOf   the device in use
 * @property {(kind: DeviceKind, id: string) => void} choose
 */

/** @type {readonly {kind: DeviceKind, label: string, none: string}[]} */
const fields = [
  { kind: 'audioinput', label: 'Microphone', none: 'No microphone to choose' },
  { kind: 'videoinput', label: 'Camera', none: 'No camera to choose' },
  { kind: 'audiooutput', label: 'Loudspeaker', none: 'The system’s default' },
];

export class DevicePicker {
  #calls;
  /** @type {Map<DeviceKind, HTMLSelectElement>} */
  #selects = new Map();

  /**
   * @param {HTMLElement} holder
   * @param {DeviceCalls} calls
   */
  constructor(holder, calls) {
    this.#calls = calls;
    for (const { kind, label } of fields.filter(canChoose)) {
      const select = make('select', { id: `${holder.id}-${kind}`, 'data-testid': `${holder.id}-${kind}` });
      select.addEventListener('change', () => calls.choose(kind, select.value));
      this.#selects.set(kind, select);
      holder.append(make('div', { class: 'field' }, make('label', { for: select.id }, label), select));
    }
    navigator.mediaDevices?.addEventListener('devicechange', () => this.refresh());
  }

  /** Lists the devices anew: after a permission was given, browsers tell more. */
  async refresh() {
    const devices = await listDevices();
    for (const { kind, none } of fields) {
      const select = this.#selects.get(kind);
      if (select) this.#fill(select, kind, devices[kind], none);
    }
  }

  /** @param {HTMLSelectElement} select @param {DeviceKind} kind @param {MediaDeviceInfo[]} devices @param {string} none */
  #fill(select, kind, devices, none) {
    const options = devices.map(({ deviceId, label }, index) => make('option', { value: deviceId }, label || `Device ${index + 1}`));
    select.replaceChildren(...(options.length > 0 ? options : [make('option', { value: '' }, none)]));
    select.disabled = options.length === 0;
    const current = this.#calls.idOf(kind);
    if (devices.some(({ deviceId }) => deviceId === current)) select.value = current;
  }
}

/** Not every browser lets a page choose where the sound goes. @param {{kind: DeviceKind}} field */
function canChoose({ kind }) {
  return kind !== 'audiooutput' || 'setSinkId' in HTMLMediaElement.prototype;
}

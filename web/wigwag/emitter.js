// EventTarget whose events are CustomEvents with a typed detail.

/**
 * @template Detail
 * @typedef {((event: CustomEvent<Detail>) => void) | {handleEvent(event: CustomEvent<Detail>): void} | null} Listener
 */

/** @template {Record<string, any>} Events */
export class Emitter extends EventTarget {
  /**
   * @template {keyof Events & string} Name
   * @param {Name} name
   * @param {Listener<Events[Name]>} listener
   * @param {boolean | AddEventListenerOptions} [options]
   * @override
   */
  addEventListener(name, listener, options) {
    super.addEventListener(name, /** @type {EventListener} */ (listener), options);
  }

  /**
   * @template {keyof Events & string} Name
   * @param {Name} name
   * @param {Listener<Events[Name]>} listener
   * @param {boolean | EventListenerOptions} [options]
   * @override
   */
  removeEventListener(name, listener, options) {
    super.removeEventListener(name, /** @type {EventListener} */ (listener), options);
  }

  /**
   * @protected
   * @template {keyof Events & string} Name
   * @param {Name} name
   * @param {Events[Name]} detail
   */
  emit(name, detail) {
    this.dispatchEvent(new CustomEvent(name, { detail }));
  }
}

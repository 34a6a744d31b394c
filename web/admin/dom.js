// What the operator's views share beside what the demo page's do.

/**
 * Brings a parent's children to `wanted`, by their keys: what is there already keeps focus and selection.
 * @template T
 * @param {Element} parent
 * @param {T[]} wanted
 * @param {(one: T) => string} key
 * @param {(one: T) => HTMLElement} create
 * @param {(element: HTMLElement, one: T) => void} update
 */
export function reconcile(parent, wanted, key, create, update) {
  const known = new Map([...parent.children].map((child) => [/** @type {HTMLElement} */ (child).dataset.key, /** @type {HTMLElement} */ (child)]));
  wanted.forEach((one, at) => {
    const name = key(one);
    let element = known.get(name);
    known.delete(name);
    if (!element) {
      element = create(one);
      element.dataset.key = name;
    }
    update(element, one);
    if (parent.children[at] !== element) parent.insertBefore(element, parent.children[at] ?? null);
  });
  for (const gone of known.values()) gone.remove();
}

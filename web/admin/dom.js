// Small help with the document. No styles or scripts are ever written into markup, so that a strict
// Content-Security-Policy holds.

const svgNamespace = 'http://www.w3.org/2000/svg';

/** @typedef {Record<string, string|number|boolean|null|undefined>} Attributes  what is null, undefined or false is left out */

/**
 * The element with this id, which the page is known to have.
 * @template {HTMLElement} T
 * @param {string} id
 * @param {new () => T} type
 * @returns {T}
 * @throws {TypeError} where page and script do not fit together
 */
export function byId(id, type) {
  const element = document.getElementById(id);
  if (element instanceof type) return element;
  throw new TypeError(`the page has no ${type.name} with the id ${id}`);
}

/**
 * @template {keyof HTMLElementTagNameMap} Tag
 * @param {Tag} tag
 * @param {Attributes} [attributes]
 * @param {...(Node|string|null)} children
 * @returns {HTMLElementTagNameMap[Tag]}
 */
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  set(element, attributes);
  element.append(...children.filter((child) => child !== null));
  return element;
}

/**
 * @param {string} tag
 * @param {Attributes} [attributes]
 * @param {...(Node|string)} children
 * @returns {SVGElement}
 */
export function svg(tag, attributes = {}, ...children) {
  const element = /** @type {SVGElement} */ (document.createElementNS(svgNamespace, tag));
  set(element, attributes);
  element.append(...children);
  return element;
}

/** Sets a text only where it differs, so that nothing is read out twice. @param {Element} element @param {string} text */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

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

/** @param {Element} element @param {Attributes} attributes */
function set(element, attributes) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    element.setAttribute(name, value === true ? '' : String(value));
  }
}

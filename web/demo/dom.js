// Small help with the document. No styles or scripts are ever written into markup, so that a strict
// Content-Security-Policy holds.

const svgNamespace = 'http://www.w3.org/2000/svg';

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
 * Makes an element. `attributes` that are null, undefined or false are left out; true gives an empty one.
 * @template {keyof HTMLElementTagNameMap} Tag
 * @param {Tag} tag
 * @param {Record<string, string|number|boolean|null|undefined>} [attributes]
 * @param {...(Node|string|null)} children
 * @returns {HTMLElementTagNameMap[Tag]}
 */
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  setAttributes(element, attributes);
  element.append(...children.filter((child) => child !== null));
  return element;
}

/**
 * @param {string} tag
 * @param {Record<string, string|number|boolean|null|undefined>} [attributes]
 * @param {...(Node|string)} children
 * @returns {SVGElement}
 */
export function makeSvg(tag, attributes = {}, ...children) {
  const element = /** @type {SVGElement} */ (document.createElementNS(svgNamespace, tag));
  setAttributes(element, attributes);
  element.append(...children);
  return element;
}

/**
 * An icon from the page's own set of symbols; hidden from screen readers, as its button has a label.
 * @param {string} name
 */
export function icon(name) {
  return makeSvg('svg', { class: 'icon', 'aria-hidden': 'true', focusable: 'false' }, makeSvg('use', { href: `#i-${name}` }));
}

/** Shows another icon in an element that has one. @param {Element} holder @param {string} name */
export function setIcon(holder, name) {
  holder.querySelector('use')?.setAttribute('href', `#i-${name}`);
}

/** Sets a text only where it differs, so that nothing is read out twice. @param {Element} element @param {string} text */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/**
 * @param {Element} element
 * @param {Record<string, string|number|boolean|null|undefined>} attributes
 */
function setAttributes(element, attributes) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    element.setAttribute(name, value === true ? '' : String(value));
  }
}

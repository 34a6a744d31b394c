// Where the tiles go. Pure: sizes in, rectangles out; all lengths in CSS pixels.

/**
 * @typedef {{x: number, y: number, width: number, height: number}} Rectangle
 *
 * @typedef {object} Space
 * @property {number} width
 * @property {number} height
 */

const gap = 10;
/** The shapes of tiles, width by height: as cameras see, but for upright screens, on which faces fill upright tiles. */
const widest = 16 / 9;
const tallest = 1;
const tallestUpright = 0.6;
/** Below this the stage scrolls instead of shrinking its tiles further. */
const leastWidth = 112;

/**
 * Equal tiles, as large as they can be, in rows; the last row is centred.
 * @param {number} count
 * @param {Space} space
 * @returns {Rectangle[]}
 */
export function grid(count, { width, height }) {
  if (count === 0) return [];
  const best = Array.from({ length: count }, (_, index) => candidate(count, index + 1, { width, height }))
    .reduce((one, other) => (other.tile.width * other.tile.height > one.tile.width * one.tile.height ? other : one));
  const { columns, tile } = best.tile.width >= leastWidth ? best : scrolling(count, width);
  return place(count, columns, tile, { width, height });
}

/**
 * One large tile, and the others in a strip: at its right where the space is wide, below where it is tall.
 * @param {number} count  with the large one, which comes first
 * @param {Space} space
 * @returns {Rectangle[]}
 */
export function spotlight(count, { width, height }) {
  const others = count - 1;
  if (others <= 0) return grid(count, { width, height });
  return width >= height ? besideStrip(others, { width, height }) : aboveStrip(others, { width, height });
}

/**
 * The other one fills the space, oneself sits in the corner.
 * @param {Space} space
 * @returns {[Rectangle, Rectangle]}  the other, oneself
 */
export function duet({ width, height }) {
  const isTall = height > width;
  const side = clamp(width * (isTall ? 0.28 : 0.2), 96, 232);
  const own = { width: side, height: side * (isTall ? 4 / 3 : 3 / 4) };
  return [
    { x: 0, y: 0, width, height },
    { ...own, x: width - own.width - 1.4 * gap, y: height - own.height - 1.4 * gap },
  ];
}

/** @param {number} others @param {Space} space @returns {Rectangle[]} */
function besideStrip(others, { width, height }) {
  const stripWidth = clamp(width * 0.2, 112, 240);
  const tileHeight = Math.min(stripWidth / (16 / 10), (height - gap * (others - 1)) / others);
  const top = (height - others * tileHeight - (others - 1) * gap) / 2;
  const strip = Array.from({ length: others }, (_, index) => ({
    x: width - stripWidth, y: top + index * (tileHeight + gap), width: stripWidth, height: tileHeight,
  }));
  return [{ x: 0, y: 0, width: width - stripWidth - gap, height }, ...strip];
}

/** @param {number} others @param {Space} space @returns {Rectangle[]} */
function aboveStrip(others, { width, height }) {
  const stripHeight = clamp(height * 0.2, 84, 150);
  const tileWidth = Math.min(stripHeight, (width - gap * (others - 1)) / others);
  const left = (width - others * tileWidth - (others - 1) * gap) / 2;
  const strip = Array.from({ length: others }, (_, index) => ({
    x: left + index * (tileWidth + gap), y: height - stripHeight, width: tileWidth, height: stripHeight,
  }));
  return [{ x: 0, y: 0, width, height: height - stripHeight - gap }, ...strip];
}

/** @param {number} count @param {number} columns @param {Space} space */
function candidate(count, columns, { width, height }) {
  const rows = Math.ceil(count / columns);
  const cell = { width: (width - gap * (columns - 1)) / columns, height: (height - gap * (rows - 1)) / rows };
  return { columns, tile: fit(cell, height > width ? tallestUpright : tallest) };
}

/** @param {number} count @param {number} width */
function scrolling(count, width) {
  const columns = clamp(Math.floor((width + gap) / (leastWidth + gap)), 1, count);
  const side = (width - gap * (columns - 1)) / columns;
  return { columns, tile: { width: side, height: side } };
}

/** The largest tile of a good shape in a cell. @param {Space} cell @param {number} tallestShape @returns {Space} */
function fit({ width, height }, tallestShape) {
  const shape = clamp(width / height, tallestShape, widest);
  return { width: Math.max(0, Math.min(width, height * shape)), height: Math.max(0, Math.min(height, width / shape)) };
}

/** @param {number} count @param {number} columns @param {Space} tile @param {Space} space @returns {Rectangle[]} */
function place(count, columns, tile, { width, height }) {
  const rows = Math.ceil(count / columns);
  const top = Math.max(0, (height - rows * tile.height - (rows - 1) * gap) / 2);
  return Array.from({ length: count }, (_, index) => {
    const row = Math.floor(index / columns);
    const inRow = row === rows - 1 ? count - row * columns : columns;
    const left = (width - inRow * tile.width - (inRow - 1) * gap) / 2;
    return { ...tile, x: left + (index % columns) * (tile.width + gap), y: top + row * (tile.height + gap) };
  });
}

/** @param {number} value @param {number} least @param {number} most */
function clamp(value, least, most) {
  return Math.min(most, Math.max(least, value));
}

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { duet, grid, spotlight } from '../demo/layout.js';

/** @import { Rectangle, Space } from '../demo/layout.js' */

const spaces = {
  desktop: { width: 1256, height: 650 },
  phone: { width: 374, height: 690 },
  sideways: { width: 820, height: 280 },
  small: { width: 304, height: 400 },
};

/** @param {Rectangle} one @param {Rectangle} other */
function overlap(one, other) {
  return one.x < other.x + other.width - 0.01 && other.x < one.x + one.width - 0.01
    && one.y < other.y + other.height - 0.01 && other.y < one.y + one.height - 0.01;
}

/** @param {Rectangle[]} tiles @param {Space} space @param {{scrolls?: boolean}} [options] */
function assertTidy(tiles, { width, height }, { scrolls = false } = {}) {
  tiles.forEach((tile, index) => {
    assert.ok(tile.width > 0 && tile.height > 0, 'each tile has a size');
    assert.ok(tile.x >= -0.01 && tile.x + tile.width <= width + 0.01, 'no tile sticks out at a side');
    assert.ok(tile.y >= -0.01 && (scrolls || tile.y + tile.height <= height + 0.01), 'no tile sticks out above or below');
    assert.ok(tiles.slice(index + 1).every((other) => !overlap(tile, other)), 'no tile covers another');
  });
}

for (const [name, space] of Object.entries(spaces)) {
  test(`up to nine people fit on a ${name} screen, and nobody is covered`, () => {
    for (let count = 1; count <= 9; count += 1) {
      assert.equal(grid(count, space).length, count);
      assertTidy(grid(count, space), space, { scrolls: name === 'small' || name === 'sideways' });
      assertTidy(spotlight(count, space), space);
    }
  });
}

test('tiles of a grid are equal, and of a shape that suits a face', () => {
  for (const count of [1, 2, 3, 4, 5, 6, 7, 8, 9]) {
    const tiles = grid(count, spaces.desktop);
    for (const { width, height } of tiles) {
      assert.deepEqual({ width, height }, { width: tiles[0].width, height: tiles[0].height });
      assert.ok(width / height > 0.99 && width / height < 16 / 9 + 0.01, `${count}: ${width} by ${height}`);
    }
  }
});

test('a full room scrolls instead of shrinking its tiles to nothing', () => {
  const tiles = grid(64, spaces.phone);
  assertTidy(tiles, spaces.phone, { scrolls: true });
  assert.ok(tiles[0].width >= 112);
});

test('of two, the other fills the space and oneself stays inside it', () => {
  const [other, self] = duet(spaces.phone);
  assert.deepEqual(other, { x: 0, y: 0, ...spaces.phone });
  assertTidy([self], spaces.phone);
  assert.ok(self.width < other.width / 3);
});

test('the spotlight gives one more room than all the others have together', () => {
  for (const space of [spaces.desktop, spaces.phone]) {
    const [large, ...others] = spotlight(6, space);
    const areas = others.map(({ width, height }) => width * height).reduce((sum, area) => sum + area);
    assert.ok(large.width * large.height > areas);
  }
});

test('nobody, or no space yet, is no error', () => {
  assert.deepEqual(grid(0, spaces.desktop), []);
  assert.equal(spotlight(1, spaces.desktop).length, 1);
});

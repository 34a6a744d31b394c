import assert from 'node:assert/strict';
import { afterEach, beforeEach, describe, test } from 'node:test';

import { keepToken, keptToken, mayModerate } from '../demo/token.js';

/** A token with these claims, as any issuer would write it. @param {unknown} claims */
const tokenOf = (claims) => ['{"alg":"EdDSA"}', JSON.stringify(claims), 'signature'].map((part) => Buffer.from(part).toString('base64url')).join('.');

describe('a token', () => {
  test('makes a moderator by its grant', () => {
    assert.equal(mayModerate(tokenOf({ grants: ['join', 'moderate'] })), true);
    assert.equal(mayModerate(tokenOf({ grants: ['join', 'moderate'], metadata: { name: 'Zoë Größe ÿÿÿ' } })), true, 'base64url and UTF-8');
  });

  test('makes none without it, and none that cannot be read', () => {
    const others = [undefined, '', 'moderate', 'a.b.c', 'a.!!.c', tokenOf({}), tokenOf({ grants: ['join'] }), tokenOf({ grants: 'moderate' }), tokenOf(null)];
    for (const token of others) assert.equal(mayModerate(token), false, token);
  });
});

describe('the tab', () => {
  const before = globalThis.sessionStorage;
  /** @type {Map<string, string>} */
  let kept;
  beforeEach(() => {
    kept = new Map();
    define({ getItem: (key) => kept.get(key) ?? null, setItem: (key, value) => kept.set(key, value), removeItem: (key) => kept.delete(key) });
  });
  afterEach(() => define(before));

  test('keeps the token of each room until another or none is given', () => {
    keepToken('one', 'a.b.c');
    keepToken('other', 'd.e.f');
    assert.deepEqual([keptToken('one'), keptToken('other'), keptToken('none')], ['a.b.c', 'd.e.f', '']);
    keepToken('one', '');
    assert.equal(keptToken('one'), '');
    assert.equal(kept.size, 1);
  });

  test('does without where the store is forbidden', () => {
    const refuse = () => { throw new DOMException('no', 'SecurityError'); };
    define({ getItem: refuse, setItem: refuse, removeItem: refuse });
    keepToken('one', 'a.b.c');
    assert.equal(keptToken('one'), '');
  });
});

/** @param {unknown} value */
function define(value) {
  Object.defineProperty(globalThis, 'sessionStorage', { value, configurable: true });
}

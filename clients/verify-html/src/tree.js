// The Merkle tree (RFC 6962, section 2.1).

import { concat, equal, need, sha256 } from "./forms.js";

export const LEAF = Uint8Array.of(0);
const NODE = Uint8Array.of(1);

export const leafHash = (entry) => sha256.create().update(LEAF).update(entry).digest();
const parent = (left, right) => sha256(concat(NODE, left, right));

/** The largest power of two below `size`. */
function split(size) {
  let half = 1;
  while (half * 2 < size) half *= 2;
  return half;
}

/** Whether leaves at some indexes, and the hashes that lead on from them (export.md), give the root. */
export function leadTo(root, indexes, leaves, size, proof) {
  let used = 0;
  const next = () => {
    need(used < proof.length, "the proof ends too early", "der Beweis endet zu früh");
    return proof[used++];
  };
  const cut = (low, high, index) => {
    while (low < high) {
      const middle = (low + high) >> 1;
      if (indexes[middle] < index) low = middle + 1;
      else high = middle;
    }
    return low;
  };
  const subtree = (a, b, low, high) => {
    if (low === high) return next();
    if (b - a === 1) return leaves[low];
    const middle = a + split(b - a);
    const at = cut(low, high, middle);
    const left = subtree(a, middle, low, at);
    return parent(left, subtree(middle, b, at, high));
  };
  const found = subtree(0, size, 0, indexes.length);
  need(used === proof.length, "the proof has hashes that nothing needs", "der Beweis hat Hashes, die nichts braucht");
  return equal(found, root);
}

/** The root that an inclusion proof leads to. */
export function rootOfOne(leaf, index, size, path) {
  if (size === 1 || path.length === 0) {
    need(size === 1 && path.length === 0, "the proof is too long or too short", "der Beweis ist zu lang oder zu kurz");
    return leaf;
  }
  const [middle, last, rest] = [split(size), path.at(-1), path.slice(0, -1)];
  return index < middle ? parent(rootOfOne(leaf, index, middle, rest), last) : parent(last, rootOfOne(leaf, index - middle, size - middle, rest));
}

/** The tree of `next` leaves begins with that of `old` leaves: a consistency proof. */
export function needOneHistory(old, oldRoot, next, nextRoot, proof) {
  let used = 0;
  const take = () => {
    need(used < proof.length, "the proof from one checkpoint to the other ends too early", "der Beweis von einem Checkpoint zum anderen endet zu früh");
    return proof[used++];
  };
  const roots = (old, next, isWhole) => {
    if (old === next) {
      const both = isWhole ? oldRoot : take();
      return [both, both];
    }
    const middle = split(next);
    if (old <= middle) {
      const [first, second] = roots(old, middle, isWhole);
      return [first, parent(second, take())];
    }
    const [first, second] = roots(old - middle, next - middle, false);
    const left = take();
    return [parent(left, first), parent(left, second)];
  };
  const [first, second] = roots(old, next, true);
  need(equal(first, oldRoot) && equal(second, nextRoot), "the two checkpoints are not of one history", "die beiden Checkpoints stammen nicht aus einer Geschichte");
  need(used === proof.length, "the proof from one checkpoint to the other has hashes that nothing needs", "der Beweis von einem Checkpoint zum anderen hat Hashes, die nichts braucht");
}

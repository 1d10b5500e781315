// Passports (passport.md, c2sp.org/tlog-proof), step by step.

import { checkOpening, readEntry } from "./entry.js";
import { decode, encode, equal, need, readJson, unbase64, whole } from "./forms.js";
import { openCheckpoint } from "./note.js";
import { leafHash, rootOfOne } from "./tree.js";

export async function* checkPassport(raw, keys) {
  const text = decode(raw);
  const at = text.indexOf("\n\n");
  const rows = text.slice(0, Math.max(at, 0)).split("\n");
  const isOne = at > 0 && rows.length >= 3 && rows.length <= 3 + 64 && rows[0] === "c2sp.org/tlog-proof@v1";
  need(isOne, "this is no passport", "das ist kein Passport");
  need(rows[1].startsWith("extra ") && rows[2].startsWith("index "), "the passport lacks its entry or the entry's place", "dem Passport fehlt der Eintrag oder dessen Platz");
  const extra = unbase64(rows[1].slice(6));
  const parts = [];
  for (let start = 0; start <= extra.length; ) {
    const end = extra.indexOf(10, start);
    parts.push(extra.subarray(start, end < 0 ? extra.length : end));
    start = end < 0 ? extra.length + 1 : end + 1;
  }
  const [body, ...opened] = parts;
  const index = whole(rows[2].slice(6));
  const path = rows.slice(3).map((row) => unbase64(row, 32));
  const { origin, size, root, signer } = await openCheckpoint(encode(text.slice(at + 2)), keys);
  yield [`The checkpoint is signed by ${signer}.`, `Der Checkpoint ist mit ${signer} signiert.`];

  need(
    index < size && equal(rootOfOne(leafHash(body), index, size, path), root),
    "the entry does not lead to the signed root: entry or proof was changed",
    "der Eintrag führt nicht zur signierten Wurzel: Eintrag oder Beweis wurde geändert",
  );
  yield [
    `The entry stands in the log of ${size} entries that the checkpoint signs, at place ${index}.`,
    `Der Eintrag steht im Protokoll mit ${size} Einträgen, das der Checkpoint signiert, an Platz ${index}.`,
  ];

  const entry = readEntry(body);
  yield ["The entry is well-formed; a verdict in it follows from its scores and thresholds.", "Der Eintrag ist wohlgeformt; ein Urteil darin folgt aus seinen Messwerten und Schwellen."];

  need(opened.length <= 16 && opened.every((row) => row.length <= 1024), "too many openings, or one that is too long", "zu viele Offenlegungen, oder eine zu lange");
  const openings = opened.map((row) => readJson(row, { en: "an opening", de: "eine Offenlegung" }, "passport-opening"));
  const values = Object.fromEntries(openings.map(({ field, value }) => [field, value]));
  need(Object.keys(values).length === openings.length, "a value is opened twice", "ein Wert ist zweimal offengelegt");
  for (const opening of openings) checkOpening(opening, entry, index);
  yield [
    `All ${openings.length} opened values are those the entry commits to.`,
    `Alle ${openings.length} offengelegten Werte sind die im Eintrag festgelegten.`,
  ];
  return { kind: "passport", origin, size, index, entry, values };
}

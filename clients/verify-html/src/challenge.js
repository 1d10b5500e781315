// Answers to challenges (challenge.md), step by step.

import { readEntry } from "./entry.js";
import { concat, decode, encode, need, sha256, unbase64, unhex, whole } from "./forms.js";
import { Unusable, openCheckpoint } from "./note.js";
import { leadTo, leafHash } from "./tree.js";

const NONCE = /^(?:[0-9a-f]{2}){16,64}$/;
const BYTES_MAX = 16 * 2 ** 20;

/** The indexes that a nonce picks from a log of `size` entries whose checkpoint has the signed text `text`, ascending. */
export function picked(nonce, count, text, size) {
  const seed = sha256(concat(encode("lineproof challenge v1\n"), sha256(encode(text)), nonce));
  const found = new Set();
  const n = BigInt(size);
  // Values from here on would make small indexes likelier.
  const end = (2n ** 64n / n) * n;
  for (let draw = 0n; found.size < Math.min(count, size); draw++) {
    const number = new Uint8Array(8);
    new DataView(number.buffer).setBigUint64(0, draw);
    const hash = sha256(concat(seed, number));
    const value = new DataView(hash.buffer, hash.byteOffset).getBigUint64(0);
    if (value < end) found.add(Number(value % n));
  }
  return [...found].sort((a, b) => a - b);
}

/** The parts of an answer of version 1. */
function readAnswer(raw) {
  need(raw.length <= BYTES_MAX, "the answer is longer than 16 MiB", "die Antwort ist länger als 16 MiB");
  const text = decode(raw);
  const at = text.indexOf("\n\n");
  const [first, nonceRow = "", countRow = "", ...rest] = text.slice(0, Math.max(at, 0)).split("\n");
  need(first === "lineproof challenge 1", "this is no answer of version 1 to a challenge", "das ist keine Antwort der Version 1 auf eine Stichprobe");
  const nonce = nonceRow.startsWith("nonce ") ? nonceRow.slice(6) : "";
  const count = countRow.startsWith("count ") ? whole(countRow.slice(6)) : 0;
  need(
    NONCE.test(nonce) && count >= 1 && count <= 1000,
    "the answer lacks its nonce, or asks for no entry or more than 1000",
    "der Antwort fehlt ihre Nonce, oder sie fragt nach keinem Eintrag oder mehr als 1000",
  );
  const end = rest.findIndex((row) => !row.startsWith("entry "));
  const [entries, hashes] = end < 0 ? [rest, []] : [rest.slice(0, end), rest.slice(end)];
  need(hashes.every((row) => row.startsWith("proof ")), "the answer has a line that belongs to nothing", "die Antwort hat eine Zeile, die zu nichts gehört");
  return {
    nonce,
    count,
    bodies: entries.map((row) => unbase64(row.slice(6))),
    proof: hashes.map((row) => unbase64(row.slice(6), 32)),
    note: encode(text.slice(at + 2)),
  };
}

/** `given` is the nonce that the reader made up, or empty. */
export async function* checkChallenge(raw, keys, given) {
  if (given && !NONCE.test(given)) {
    throw new Unusable("A nonce is 16 to 64 bytes in lower-case hex: 32 to 128 digits.", "Eine Nonce ist 16 bis 64 Byte in kleinem Hex: 32 bis 128 Ziffern.");
  }
  const { nonce, count, bodies, proof, note } = readAnswer(raw);
  const { origin, size, root, signer, text } = await openCheckpoint(note, keys);
  yield [
    `The checkpoint is signed by ${signer}. Hold it against the one you had before you gave the nonce.`,
    `Der Checkpoint ist mit ${signer} signiert. Vergleichen Sie ihn mit dem, den Sie hatten, bevor Sie die Nonce nannten.`,
  ];

  need(
    !given || given === nonce,
    `it answers the nonce ${nonce}, which is not yours: whoever made that one up picked the entries`,
    `sie antwortet auf die Nonce ${nonce}, und das ist nicht Ihre: Wer jene erdacht hat, hat die Einträge ausgewählt`,
  );
  need(size > 0, "the log has no entries yet", "das Protokoll hat noch keine Einträge");
  const indexes = picked(unhex(nonce), count, text, size);
  need(
    indexes.length === bodies.length,
    `the answer has ${bodies.length} entries, the nonce picks ${indexes.length}`,
    `die Antwort hat ${bodies.length} Einträge, die Nonce wählt ${indexes.length} aus`,
  );
  need(
    leadTo(root, indexes, bodies.map(leafHash), size, proof),
    "the entries do not lead to the signed root: they are not the ones that the nonce picks",
    "die Einträge führen nicht zur signierten Wurzel: Es sind nicht die, die die Nonce auswählt",
  );
  const [whoseEn, whoseDe] = given
    ? ["It is the nonce you gave.", "Es ist die Nonce, die Sie genannt haben."]
    : ["You gave no nonce: compare this one with yours.", "Sie haben keine Nonce angegeben: Vergleichen Sie diese mit Ihrer."];
  yield [
    `The nonce ${nonce} picks exactly these ${bodies.length} of ${size} entries, and all stand in the log. ${whoseEn}`,
    `Die Nonce ${nonce} wählt genau diese ${bodies.length} von ${size} Einträgen aus, und alle stehen im Protokoll. ${whoseDe}`,
  ];

  const entries = bodies.map(readEntry);
  yield [
    "All entries are well-formed; every verdict follows from its scores and thresholds.",
    "Alle Einträge sind wohlgeformt; jedes Urteil folgt aus seinen Messwerten und Schwellen.",
  ];
  return { kind: "challenge", origin, size, nonce, isCompared: given !== "", count, entries };
}

// Answers to challenges (challenge.md), step by step.

import { readEntry } from "./entry.js";
import { concat, decode, encode, fits, hex, need, rangesOf, score, sha256, unbase64, unhex, whole } from "./forms.js";
import { Unusable, openCheckpoint } from "./note.js";
import { leadTo, leafHash, needOneHistory } from "./tree.js";

const NONCE = /^(?:[0-9a-f]{2}){16,64}$/;
const BYTES_MAX = 16 * 2 ** 20;
/** The largest difference of a score that a challenge lets pass as within: 1e-5 as a 32-bit float. */
const EPS = Math.fround(1e-5);

/** What a choice is drawn from: a nonce, and a checkpoint with the signed text `text`. */
export const seedOf = (nonce, text) => sha256(concat(encode("lineproof challenge v1\n"), sha256(encode(text)), nonce));

/** The indexes that a seed picks from a log of `size` entries, ascending. */
export function picked(seed, count, size) {
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

const WORDS = ["entry", "proof", "replay", "replay-proof", "consistency", "later"];

/** The parts of an answer. */
function readAnswer(raw) {
  need(raw.length <= BYTES_MAX, "the answer is longer than 16 MiB", "die Antwort ist länger als 16 MiB");
  const text = decode(raw);
  const at = text.indexOf("\n\n");
  const [first, nonceRow = "", countRow = "", ...rest] = text.slice(0, Math.max(at, 0)).split("\n");
  const hasReplays = first === "lineproof challenge 2";
  need(
    hasReplays || first === "lineproof challenge 1",
    "this is no answer of version 1 or 2 to a challenge",
    "das ist keine Antwort der Version 1 oder 2 auf eine Stichprobe",
  );
  const nonce = nonceRow.startsWith("nonce ") ? nonceRow.slice(6) : "";
  const count = countRow.startsWith("count ") ? whole(countRow.slice(6)) : 0;
  need(
    NONCE.test(nonce) && count >= 1 && count <= 1000,
    "the answer lacks its nonce, or asks for no entry or more than 1000",
    "der Antwort fehlt ihre Nonce, oder sie fragt nach keinem Eintrag oder mehr als 1000",
  );
  const words = hasReplays ? WORDS : WORDS.slice(0, 2);
  const parts = Object.fromEntries(words.map((word) => [word, []]));
  let place = 0;
  for (const row of rest) {
    const end = row.indexOf(" ");
    const found = words.indexOf(row.slice(0, Math.max(end, 0)), place);
    need(found >= 0, "the answer has a line that belongs to nothing, or not there", "die Antwort hat eine Zeile, die zu nichts gehört, oder nicht dorthin");
    place = found;
    parts[words[found]].push(row.slice(end + 1));
  }
  return {
    nonce,
    count,
    bodies: parts.entry.map((row) => unbase64(row)),
    proof: parts.proof.map((row) => unbase64(row, 32)),
    parts: hasReplays ? parts : undefined,
    note: encode(text.slice(at + 2)),
  };
}

/** `given` is the nonce that the reader made up, or empty. */
export async function* checkChallenge(raw, keys, given) {
  if (given && !NONCE.test(given)) {
    throw new Unusable("A nonce is 16 to 64 bytes in lower-case hex: 32 to 128 digits.", "Eine Nonce ist 16 bis 64 Byte in kleinem Hex: 32 bis 128 Ziffern.");
  }
  const { nonce, count, bodies, proof, parts, note } = readAnswer(raw);
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
  const seed = seedOf(unhex(nonce), text);
  const indexes = picked(seed, count, size);
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
  const proven = { kind: "challenge", origin, size, nonce, isCompared: given !== "", count, entries };
  if (!parts) return proven;

  const decisions = new Map(indexes.map((index, place) => [index, entries[place]]).filter(([, { kind }]) => kind === "decision"));
  const { outcomes, later } = await checkReplays(parts, origin, size, root, seed, decisions, keys);
  const said = Object.entries(outcomes).map(([outcome, found]) => `${found} ${outcome}`).join(", ");
  yield [
    `After the checkpoint the plant decided the picked decisions again and noted what came out: ${said}. A later checkpoint, of ${later.size} entries by ${later.signer}, covers that.`,
    `Nach dem Checkpoint hat das Werk die gewählten Entscheidungen noch einmal getroffen und vermerkt, was herauskam: ${said}. Ein späterer Checkpoint, mit ${later.size} Einträgen von ${later.signer}, deckt das ab.`,
  ];
  return { ...proven, outcomes };
}

/** What came out when the picked decisions were decided again, by entries behind the checkpoint (replay.md). */
async function checkReplays(parts, origin, size, root, seed, decisions, keys) {
  const rows = parts.replay.map((row) => [row.slice(0, Math.max(row.indexOf(" "), 0)), row.slice(row.indexOf(" ") + 1)]);
  need(
    rows.length >= 1 && rows.length <= 16 && parts.later.length === 1,
    "the answer has no replay entry, too many, or no later checkpoint",
    "der Antwort fehlen Wiederholungen, sie hat zu viele, oder ihr fehlt der spätere Checkpoint",
  );
  const places = rows.map(([index]) => whole(index));
  const bodies = rows.map(([, body]) => unbase64(body));
  const later = await openCheckpoint(unbase64(parts.later[0]), keys);
  need(
    later.origin === origin && later.size > size,
    "the second checkpoint is not a later one of the same log",
    "der zweite Checkpoint ist kein späterer desselben Protokolls",
  );
  needOneHistory(size, root, later.size, later.root, parts.consistency.map((row) => unbase64(row, 32)));
  places.forEach((place, at) => {
    const before = at === 0 ? size - 1 : places[at - 1];
    need(
      before < place && place < later.size,
      `entry ${place} does not stand between the checkpoints, or not in its place`,
      `Eintrag ${place} steht nicht zwischen den Checkpoints, oder nicht an seinem Platz`,
    );
  });
  const proof = parts["replay-proof"].map((row) => unbase64(row, 32));
  need(
    leadTo(later.root, places, bodies.map(leafHash), later.size, proof),
    "the replay entries do not lead to the later root",
    "die Wiederholungen führen nicht zur späteren Wurzel",
  );
  const named = [];
  const outcomes = {};
  for (const entry of bodies.map(readEntry)) {
    need(
      entry.challenge === `sha256:${hex(seed)}`,
      "a replay was not made for this challenge",
      "eine Wiederholung ist nicht für diese Stichprobe gemacht",
    );
    readReplay(entry, named, outcomes);
  }
  need(
    named.length === decisions.size && new Set(named.map(([index]) => index)).size === named.length && named.every(([index]) => decisions.has(index)),
    "the replays are not of the picked decisions, each once",
    "die Wiederholungen sind nicht die der gewählten Entscheidungen, jede einmal",
  );
  for (const [index, outcome] of named) {
    const { image, runtime } = decisions.get(index);
    const isKept = !image.archive.startsWith("none:");
    need(
      isKept === (outcome !== "not_archived") && !(outcome === "other_provider" && runtime.provider === "cpu"),
      `what a replay says of entry ${index} cannot be, by what that decision says`,
      `was eine Wiederholung über Eintrag ${index} sagt, kann nicht sein, nach dem, was die Entscheidung sagt`,
    );
  }
  return { outcomes, later };
}

/** Adds what one entry says: the decisions it names, and how many had which outcome. */
function readReplay(entry, named, outcomes) {
  const isOne = entry.kind === "replay" && entry.v === 2 && fits(entry, "replay");
  need(isOne, "an entry is no replay, or written in another way", "ein Eintrag ist keine Wiederholung, oder anders geschrieben");
  const has = (key) => Object.hasOwn(entry, key);
  const ran = ["exact", "within", "differs"].filter(has).map((outcome) => [outcome, entry[outcome]]);
  const not = Object.entries(entry.not_replayable ?? {});
  const isWhole =
    has("largest") === ran.length > 0 && has("runtime") === ran.length > 0 && has("not_replayable") === not.length > 0;
  need(isWhole, "a replay does not say what belongs there", "eine Wiederholung sagt nicht, was hineingehört");
  const [eps, largest] = [score(entry.eps), score(entry.largest ?? "0x00000000 0")];
  need(
    eps >= 0 && eps <= EPS,
    "a replay allows larger differences than a challenge does, or negative ones",
    "eine Wiederholung lässt größere Differenzen zu als eine Stichprobe, oder negative",
  );
  const most = has("differs") ? largest : has("within") ? eps : 0;
  need(
    largest >= 0 && largest <= most,
    "the largest difference does not go with what came out",
    "die größte Differenz passt nicht zu dem, was herauskam",
  );
  const said = [...ran, ...not].map(([outcome, text]) => [outcome, rangesOf(text)]);
  const count = (ranges) => ranges.reduce((sum, [first, last]) => sum + last - first + 1, 0);
  const all = said.reduce((sum, [, ranges]) => sum + count(ranges), 0);
  need(all >= 1 && all <= 256, "a replay of no decision, or of more than 256", "eine Wiederholung keiner Entscheidung, oder von mehr als 256");
  for (const [outcome, ranges] of said) {
    outcomes[outcome] = (outcomes[outcome] ?? 0) + count(ranges);
    for (const [first, last] of ranges) for (let index = first; index <= last; index++) named.push([index, outcome]);
  }
}

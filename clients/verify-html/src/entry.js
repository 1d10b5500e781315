// One entry of the log (entry.md), and whether a decision agrees with itself (export.md).

import { KINDS, encode, fits, hex, need, readJson, score, sha256, concat, unhex } from "./forms.js";

const ENTRY = { en: "an entry", de: "ein Eintrag" };

export function readEntry(bytes) {
  need(bytes.length > 0 && bytes.length <= 8192, "an entry of no byte, or of more than 8192", "ein Eintrag ohne ein Byte oder mit mehr als 8192");
  const entry = readJson(bytes, ENTRY);
  const { kind, v } = entry;
  need(typeof kind === "string" && !Array.isArray(entry) && typeof v === "number", "an entry without kind or version", "ein Eintrag ohne Art oder Version");
  need([1, 2, 3].includes(v), `an entry of version ${v}; this page knows 1 to 3`, `ein Eintrag der Version ${v}; diese Seite kennt 1 bis 3`);
  const isKnown = KINDS.includes(kind);
  need(!isKnown || fits(entry, kind), "an entry does not hold what belongs there", "ein Eintrag enthält nicht, was hineingehört");
  need(!Object.hasOwn(entry, "time") || fits(entry.time, "time"), "an entry whose time is no time", "ein Eintrag, dessen Zeit keine ist");
  if (kind === "decision") checkDecision(entry);
  return entry;
}

function checkDecision({ image, scores, reasons = [], verdict, v }) {
  const has = (object, key) => Object.hasOwn(object, key);
  const pair = (object) => {
    need(has(object, "reject") === has(object, "review"), "a threshold without the other", "eine Schwelle ohne die andere");
    return has(object, "reject");
  };
  const isShared = pair(scores);
  need(v > 1 || (!isShared && !scores.labels.some((label) => has(label, "defect"))), "version 1 shares no thresholds", "Version 1 hat keine gemeinsamen Schwellen");
  const isPlaced = scores.labels.some((label) => has(label, "at") || has(label, "boxes"));
  need((v === 3) === isPlaced, "version 3 says where labels were found, no other does", "Version 3 sagt, wo Labels gefunden wurden, keine andere");
  const found = [];
  for (const label of scores.labels) {
    checkPlace(label, image);
    const isOwn = pair(label);
    need(!has(label, "defect") || (isShared && !isOwn), "a label is marked that shares no thresholds", "ein Label ist markiert, das keine Schwellen teilt");
    if (!isOwn && (!isShared || has(label, "defect"))) continue;
    const thresholds = isOwn ? label : scores;
    const [value, reject, review] = [score(label.score), score(thresholds.reject), score(thresholds.review)];
    need(review <= reject, "a review threshold above the reject threshold", "eine Prüfschwelle über der Ausschussschwelle");
    const reaches = (threshold) => (scores.comparator === ">" ? value > threshold : value >= threshold);
    found.push({ value, outcome: reaches(reject) ? "reject" : reaches(review) ? "review" : "pass", label: label.label });
  }
  need(found.length > 0, "no label is a defect", "kein Label ist ein Fehler");
  const largest = Math.max(...found.map(({ value }) => value));
  need(score(scores.decision) === largest, "the decision score is not the largest score of a defect", "der entscheidende Wert ist nicht der größte Fehlerwert");
  let isSent = false;
  let maybeSent = false;
  for (const reason of reasons) {
    const [, code, label] = /^([^:]*):([^]*)$/.exec(reason) ?? [];
    if (code === "reject" || code === "review") {
      const follows = found.some((one) => one.outcome === code && one.label === label);
      need(follows, `no score gives the reason ${reason}`, `kein Messwert ergibt den Grund ${reason}`);
    } else if (code === "quality" || reason === "top_score_min") isSent = true;
    else maybeSent = true;
  }
  const outcomes = found.map(({ outcome }) => outcome);
  let expected = outcomes.includes("reject") ? "NOT_OK" : outcomes.includes("review") ? "NOT_DECIDABLE" : "OK";
  if (isSent || (maybeSent && verdict === "NOT_DECIDABLE")) expected = "NOT_DECIDABLE";
  need(verdict === expected, `scores and thresholds give ${expected}, the entry says ${verdict}`, `aus Werten und Schwellen folgt ${expected}, im Eintrag steht ${verdict}`);
}

/** The box that gave a score lies in the image, and is there exactly if boxes were found. */
function checkPlace({ at, boxes, label }, image) {
  const fits = (start, side, whole) => side > 0 && start + side <= whole;
  const isIn = at === undefined || (fits(at.x, at.width, image.width) && fits(at.y, at.height, image.height));
  need(isIn, `a box of ${label} does not lie in the image`, `ein Rahmen von ${label} liegt nicht im Bild`);
  const isCounted = boxes === undefined || boxes > 0 === (at !== undefined);
  need(isCounted, `the boxes of ${label} are counted wrongly`, `die Rahmen von ${label} sind falsch gezählt`);
}

export function checkOpening(opening, entry, index) {
  const commitments = ["decision", "access", "period_close", "retention"].includes(entry.kind) ? entry.private : {};
  const commitment = `sha256:${hex(sha256(concat(unhex(opening.salt), encode(opening.value))))}`;
  need(
    Object.hasOwn(commitments, opening.field) && commitments[opening.field] === commitment,
    `the ${opening.field} of entry ${index} is not the one the entry commits to`,
    `„${opening.field}“ von Eintrag ${index} ist nicht der Wert, den der Eintrag festlegt`,
  );
}

// Exports (export.md), step by step. Each step yields what it found right, in English and German.

import { blake3 } from "@noble/hashes/blake3.js";

import { checkOpening, readEntry } from "./entry.js";
import { Refused, decode, encode, equal, hex, lines, need, readJson, score, unbase64, whole, concat } from "./forms.js";
import { checkPeriods } from "./period.js";
import { checkSignature, openCheckpoint } from "./note.js";
import { LEAF, leadTo } from "./tree.js";
import { MANIFEST, digest, unpack } from "./zip.js";

/** Lets the page show itself between long loops. */
const breathe = () => new Promise((resume) => setTimeout(resume));
const CHUNK = 4096;

async function mapSlowly(items, change) {
  const out = [];
  for (let at = 0; at < items.length; at++) {
    out.push(change(items[at], at));
    if (at % CHUNK === CHUNK - 1) await breathe();
  }
  return out;
}

/** Leaf hashes by the browser's own SHA-256: faster than ours for long entries. */
async function hashAll(bodies) {
  const leaves = [];
  for (let at = 0; at < bodies.length; at += CHUNK) {
    const part = bodies.slice(at, at + CHUNK).map((body) => crypto.subtle.digest("SHA-256", concat(LEAF, body)));
    for (const leaf of await Promise.all(part)) leaves.push(new Uint8Array(leaf));
  }
  return leaves;
}

export async function* checkExport(raw, keys) {
  const { files, digests, manifestAt } = await unpack(raw);
  yield [
    `The ZIP holds the ${digests.size} files of an export, in order, and not one byte besides.`,
    `Die ZIP-Datei enthält die ${digests.size} Dateien eines Exports, in der richtigen Reihenfolge, und kein Byte darüber hinaus.`,
  ];

  const { origin, size, root, signer } = await openCheckpoint(files.get("checkpoint"), keys);
  const envelope = readJson(files.get(MANIFEST), { en: "the manifest", de: "das Manifest" }, "envelope");
  const [payload, [signature, ...others]] = [unbase64(envelope.payload), envelope.signatures];
  need(
    signature?.keyid === signer && others.length === 0,
    "manifest and checkpoint are not signed by the same key",
    "Manifest und Checkpoint sind nicht mit demselben Schlüssel signiert",
  );
  const pae = concat(encode(`DSSEv1 28 ${envelope.payloadType} ${payload.length} `), payload);
  await checkSignature(keys.get(signer), unbase64(signature.sig), pae, "the manifest", "des Manifests");
  const statement = readJson(payload, { en: "the manifest's statement", de: "die Aussage im Manifest" }, "statement");
  const manifest = statement.predicate;
  need(manifest.format === 1, `an export of format ${manifest.format}; this page knows 1`, `ein Export im Format ${manifest.format}; diese Seite kennt 1`);
  const { checkpoint } = manifest;
  const isSame = checkpoint.origin === origin && checkpoint.size === size && checkpoint.root === `sha256:${hex(root)}`;
  need(isSame, "the manifest speaks of another checkpoint", "das Manifest spricht von einem anderen Checkpoint");
  const line = encode(`${keys.get(signer).line}\n`);
  need(equal(files.get("log.vkey"), line), "log.vkey is not the key that signed", "log.vkey ist nicht der Schlüssel, mit dem signiert wurde");
  yield [`Checkpoint and manifest are signed by ${signer}.`, `Checkpoint und Manifest sind mit ${signer} signiert.`];

  const listed = statement.subject.map((subject) => `${subject.name} ${subject.digest.sha256}`);
  const found = [...digests].slice(0, -1).map(([name, sum]) => `${name} ${sum}`);
  const isListed = listed.length === found.length && listed.every((row, at) => row === found[at]);
  need(isListed, "the files are not those that the manifest lists", "die Dateien sind nicht die, die das Manifest nennt");
  const container = `sha256:${await digest(raw.subarray(0, manifestAt))}`;
  need(manifest.container === container, "the ZIP was changed or packed again after signing", "die ZIP-Datei wurde nach dem Signieren geändert oder neu gepackt");
  yield ["All files, and the ZIP around them, are those that were signed.", "Alle Dateien, und die ZIP-Datei um sie herum, sind die signierten."];

  const bodies = lines(files.get("entries.jsonl"), "entries.jsonl");
  const indexes = lines(files.get("entries.index.txt"), "entries.index.txt").map((row) => whole(decode(row)));
  const proof = lines(files.get("entries.proof.txt"), "entries.proof.txt").map((row) => unbase64(decode(row), 32));
  need(indexes.length === bodies.length, "there are not as many entries as indexes", "es sind nicht so viele Einträge wie Nummern");
  const isBounded = bodies.length > 0 && bodies.length <= 500_000 && proof.length <= 64 * bodies.length;
  need(isBounded, "no entry, or too many entries or hashes", "kein Eintrag, oder zu viele Einträge oder Hashes");
  const isAscending = indexes.every((index, at) => index < (at + 1 < indexes.length ? indexes[at + 1] : size));
  need(isAscending, "an index is out of order, or beyond the checkpoint", "eine Nummer steht nicht in der Reihe oder liegt hinter dem Checkpoint");
  const leaves = await hashAll(bodies);
  need(leadTo(root, indexes, leaves, size, proof), "the entries do not lead to the signed root: they do not stand in this log", "die Einträge führen nicht zur signierten Wurzel: Sie stehen nicht in diesem Protokoll");
  yield [
    `All ${bodies.length} entries stand in the log of ${size} entries that the checkpoint signs.`,
    `Alle ${bodies.length} Einträge stehen im Protokoll mit ${size} Einträgen, das der Checkpoint signiert.`,
  ];

  const entries = await mapSlowly(bodies, (body, at) => [indexes[at], readEntry(body)]);
  const decisions = new Map(entries.filter(([, entry]) => entry.kind === "decision"));
  const gaps = entries.filter(([, entry]) => entry.kind === "gap");
  yield [
    `All entries are well-formed; each of the ${decisions.size} verdicts follows from its scores and thresholds.`,
    `Alle Einträge sind wohlgeformt; jedes der ${decisions.size} Urteile folgt aus seinen Messwerten und Schwellen.`,
  ];

  const openings = await checkOpenings(lines(files.get("private.jsonl"), "private.jsonl"), decisions);
  checkSelection(manifest.selection, [...decisions, ...gaps, ...entries.filter(([, entry]) => entry.kind === "period_close")], openings);
  yield [
    `All ${openings.size} opened serial numbers and lots are those the entries commit to; all decisions and gaps were asked for.`,
    `Alle ${openings.size} offengelegten Seriennummern und Lose sind die in den Einträgen festgelegten; alle Entscheidungen und Lücken wurden angefragt.`,
  ];

  const all = [...decisions.values()];
  checkTexts(files, manifest.absent, "recipes", "recipes", all.map((entry) => entry.recipe.digest));
  checkTexts(files, manifest.absent, "calibrations", "calibrations", all.flatMap((entry) => entry.calibration ?? []));
  checkTexts(files, manifest.absent, "model-cards", "model_cards", all.map((entry) => entry.model.digest));
  yield ["All recipe and calibration texts are those that the decisions name.", "Alle Rezept- und Kalibrierungstexte sind die, die die Entscheidungen nennen."];

  const verdicts = (name) => all.filter(({ verdict }) => verdict === name).length;
  const counts = {
    decisions: decisions.size,
    entries: entries.length,
    gap_frames: gaps.reduce((sum, [, gap]) => sum + gap.count, 0),
    gaps: gaps.length,
    not_decidable: verdicts("NOT_DECIDABLE"),
    not_ok: verdicts("NOT_OK"),
    ok: verdicts("OK"),
    openings: openings.size,
    other: entries.length - decisions.size - gaps.length,
  };
  const isCounted = Object.entries(counts).every(([key, count]) => manifest.counts[key] === count);
  need(isCounted, "the manifest counts otherwise", "das Manifest zählt anders");
  yield ["The manifest's counts are right.", "Die Zahlen im Manifest stimmen."];

  const { closes, periods, frames, recounted } = checkPeriods(manifest.selection, entries);
  yield closes === 0
    ? ["No closed period counts these frames: nobody says how many there were.", "Kein abgeschlossener Zeitraum zählt diese Bilder: Niemand sagt, wie viele es gab."]
    : [
        `The line closed ${periods} periods with ${frames} frames, and nothing is missing in them; ${recounted} of ${closes} closes were counted again here.`,
        `Die Linie hat ${periods} Zeiträume mit ${frames} Bildern abgeschlossen, und es fehlt nichts darin; ${recounted} von ${closes} Abschlüssen wurden hier nachgezählt.`,
      ];
  return { kind: "export", origin, size, counts, selection: manifest.selection, software: manifest.software };
}

/** The opened values, by index and field. */
async function checkOpenings(rows, decisions) {
  const openings = new Map();
  let last = [-1, ""];
  await mapSlowly(rows, (row) => {
    need(row.length <= 2048, "an opening is too long", "eine Offenlegung ist zu lang");
    const opening = readJson(row, { en: "an opening", de: "eine Offenlegung" }, "export-opening");
    const { index, field, value } = opening;
    const isNext = last[0] < index || (last[0] === index && last[1] < field);
    need(isNext && decisions.has(index), "an opening out of order, or of no decision in this export", "eine Offenlegung außer der Reihe oder zu keiner Entscheidung in diesem Export");
    checkOpening(opening, decisions.get(index), index);
    openings.set(`${index} ${field}`, value);
    last = [index, field];
  });
  return openings;
}

function checkSelection(selection, entries, openings) {
  const asked = (key, value) => !Object.hasOwn(selection, key) || selection[key] === value;
  for (const [index, entry] of entries) {
    let fit = asked("camera", entry.camera) && asked("line", entry.line) && asked("station", entry.station);
    // A period may be closed after the time that was asked for.
    fit &&= entry.kind === "period_close" || ((selection.from ?? "") <= entry.time && entry.time < (selection.to ?? "~"));
    if (fit && entry.kind === "decision") {
      const value = score(entry.scores.decision);
      fit =
        asked("product", entry.product) && asked("recipe", entry.recipe.name) &&
        asked("lot", openings.get(`${index} lot`)) && asked("part", openings.get(`${index} serial`)) &&
        (selection.score_min === undefined || score(selection.score_min) <= value) &&
        (selection.score_max === undefined || value <= score(selection.score_max)) &&
        (selection.verdicts?.includes(entry.verdict) ?? true);
    }
    need(fit, `entry ${index} is not what the manifest says was asked for`, `Eintrag ${index} entspricht nicht der Anfrage, die das Manifest nennt`);
  }
}

function checkTexts(files, absent, folder, key, digests) {
  const named = new Set(digests);
  const held = new Set();
  for (const [name, text] of files) {
    if (!name.startsWith(`${folder}/`)) continue;
    const sum = `blake3:${name.slice(folder.length + 1, folder.length + 65)}`;
    const isText = folder === "model-cards" || `blake3:${hex(blake3(text))}` === sum;
    need(isText, `${name} is not the text its name says`, `${name} ist nicht der Text, den der Name nennt`);
    need(named.has(sum), `no decision names ${name}`, `keine Entscheidung nennt ${name}`);
    held.add(sum);
  }
  const missing = [...named].filter((sum) => !held.has(sum)).sort();
  const isStated = missing.length === absent[key].length && missing.every((sum, at) => sum === absent[key][at]);
  if (!isStated) throw new Refused(`other ${folder} are missing than the manifest says`, `es fehlen andere Texte in ${folder}, als das Manifest sagt`);
}

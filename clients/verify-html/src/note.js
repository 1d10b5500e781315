// Keys and signed checkpoints (forms.md, c2sp.org/signed-note, tlog-checkpoint, tlog-cosignature).

import { Refused, concat, decode, encode, hex, need, sha256, unbase64, whole } from "./forms.js";

/** What is wrong with the key, or with the browser: nothing was checked. */
export class Unusable extends Error {
  constructor(en, de) {
    super(en);
    this.words = { en, de };
  }
}

const NAME = "[^\\p{White_Space}+]+";
const VKEY = new RegExp(`^(${NAME})\\+([0-9a-f]{8})\\+([A-Za-z0-9+/=]{44})$`, "u");
const SIGNATURE = new RegExp(`^\u2014 (${NAME}) ([A-Za-z0-9+/=]+)$`, "u");
const BLANK = /^\p{White_Space}+|\p{White_Space}+$/gu;

const PRIME = 2n ** 255n - 19n;

function power(base, exponent) {
  let result = 1n;
  for (let square = ((base % PRIME) + PRIME) % PRIME; exponent > 0n; exponent >>= 1n) {
    if (exponent & 1n) result = (result * square) % PRIME;
    square = (square * square) % PRIME;
  }
  return result;
}

const divide = (a, b) => ((((a * power(b, PRIME - 2n)) % PRIME) + PRIME) % PRIME);
const D = divide(-121665n, 121666n);
const squareOfX = (y) => divide(y * y - 1n, D * y * y + 1n);

/** Whether 32 bytes are a point of edwards25519 in its one spelling (RFC 8032, 5.1.3), and not of small order. */
function isPoint(key) {
  const number = BigInt(`0x${hex(Uint8Array.from(key).reverse())}`);
  const sign = number >> 255n;
  let y = number & ((1n << 255n) - 1n);
  if (y >= PRIME) return false;
  const square = squareOfX(y);
  if (power(square, (PRIME - 1n) / 2n) > 1n || (square === 0n && sign === 1n)) return false;
  // Doubled three times, a point of small order is the neutral one, whose y is 1; y alone tells y after doubling.
  for (let times = 0; times < 3; times += 1) y = divide(y * y + squareOfX(y), 2n - (y * y - squareOfX(y)));
  return y !== 1n;
}

/** The keys of a key file by name and id. */
export async function readKeys(text) {
  const keys = new Map();
  const rows = text.replace(/^\ufeff/, "").split("\n").map((row) => row.replace(BLANK, "")).filter((row) => row && !row.startsWith("#"));
  if (rows.length === 0) throw new Unusable("There is no key yet.", "Es fehlt noch der Schlüssel.");
  if (rows.length > 64) throw new Unusable("These are more than 64 keys.", "Das sind mehr als 64 Schlüssel.");
  for (const line of rows) {
    const match = VKEY.exec(line);
    const wrong = () =>
      new Unusable(`This is no key line, or a character was lost: ${line.slice(0, 80)}`, `Das ist keine Schlüsselzeile, oder ein Zeichen ging verloren: ${line.slice(0, 80)}`);
    if (!match) throw wrong();
    const [, name, id, base64] = match;
    let material;
    try {
      material = unbase64(base64, 33);
    } catch {
      throw wrong();
    }
    const isOurs = (material[0] === 1 || material[0] === 4) && hex(sha256(concat(encode(`${name}\n`), material)).subarray(0, 4)) === id;
    if (!isOurs || !isPoint(material.subarray(1)) || encode(line).length > 512) throw wrong();
    let key;
    try {
      key = await crypto.subtle.importKey("raw", material.subarray(1), "Ed25519", false, ["verify"]);
    } catch {
      throw new Unusable(
        "This browser cannot check Ed25519 signatures. Use a current Firefox, Chrome, Edge or Safari.",
        "Dieser Browser kann keine Ed25519-Signaturen prüfen. Bitte einen aktuellen Firefox, Chrome, Edge oder Safari nehmen.",
      );
    }
    keys.set(`${name}+${id}`, { line, name, kind: material[0], key });
  }
  return keys;
}

export async function checkSignature({ key }, signature, message, en, de) {
  const isGood = signature.length === 64 && (await crypto.subtle.verify("Ed25519", key, signature, message));
  need(isGood, `the signature of ${en} does not verify: changed after signing, or another key`, `die Signatur ${de} stimmt nicht: nach dem Signieren geändert, oder anderer Schlüssel`);
}

/** Origin, size, root and signed text of a checkpoint, and the name of the given log key that signed it. */
export async function openCheckpoint(bytes, keys) {
  // eslint-disable-next-line no-control-regex
  const isText = bytes.length <= 131072 && !bytes.some((byte) => byte < 32 && byte !== 10);
  const broken = (en, de) => new Refused(`the checkpoint is no signed note: ${en}`, `der Checkpoint ist keine signierte Notiz: ${de}`);
  if (!isText) throw broken("too long, or control characters", "zu lang, oder Steuerzeichen");
  const note = decode(bytes);
  const at = note.lastIndexOf("\n\n");
  if (at < 0 || !note.endsWith("\n") || at + 2 >= note.length) throw broken("no signatures", "keine Signaturen");
  const [text, signatures] = [note.slice(0, at + 1), note.slice(at + 2, -1).split("\n")];
  const rows = text.slice(0, -1).split("\n");
  if (rows.length < 3 || rows.includes("")) throw broken("an empty line, or too few", "eine leere Zeile, oder zu wenige");
  if (signatures.length > 64) throw broken("more than 64 signatures", "mehr als 64 Signaturen");
  let signer;
  for (const line of signatures) {
    const match = SIGNATURE.exec(line);
    if (!match) throw broken("a damaged signature line", "eine beschädigte Signaturzeile");
    const whole = unbase64(match[2]);
    if (whole.length < 5) throw broken("a damaged signature line", "eine beschädigte Signaturzeile");
    const name = `${match[1]}+${hex(whole.subarray(0, 4))}`;
    const known = keys.get(name);
    if (!known) continue;
    let [signature, message] = [whole.subarray(4), text];
    if (known.kind === 4) {
      need(signature.length === 72, "a witness's signature is damaged", "die Signatur eines Zeugen ist beschädigt");
      const time = new DataView(signature.buffer, signature.byteOffset).getBigUint64(0);
      need(time > 0n && time < 1n << 63n, "a witness's time is none", "die Zeit eines Zeugen ist keine");
      message = `cosignature/v1\ntime ${time}\n${text}`;
      signature = signature.subarray(8);
    }
    await checkSignature(known, signature, encode(message), `the checkpoint by ${name}`, `des Checkpoints von ${name}`);
    if (known.kind === 1 && match[1] === rows[0]) signer = name;
  }
  need(
    signer !== undefined,
    `none of the given keys has signed the checkpoint of the log ${rows[0]}: another plant, the wrong key, or a forgery`,
    `keiner der angegebenen Schlüssel hat den Checkpoint des Protokolls ${rows[0]} signiert: anderes Werk, falscher Schlüssel oder Fälschung`,
  );
  return { origin: rows[0], size: whole(rows[1]), root: unbase64(rows[2], 32), signer, text };
}

// How values are written (docs/spec/forms.md), and the refusal of everything else.

import { sha256 } from "@noble/hashes/sha2.js";

/** What is wrong with the evidence, in English and German. */
export class Refused extends Error {
  constructor(en, de) {
    super(en);
    this.words = { en, de };
  }
}

export function need(condition, en, de) {
  if (!condition) throw new Refused(en, de);
}

export { sha256 };

const UTF8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
const TO_UTF8 = new TextEncoder();

export const encode = (text) => TO_UTF8.encode(text);

export function decode(bytes) {
  try {
    return UTF8.decode(bytes);
  } catch {
    throw new Refused("something that should be text is no UTF-8", "etwas, das Text sein sollte, ist kein UTF-8");
  }
}

const HEX = Array.from({ length: 256 }, (_, byte) => byte.toString(16).padStart(2, "0"));

export function hex(bytes) {
  let text = "";
  for (let at = 0; at < bytes.length; at++) text += HEX[bytes[at]];
  return text;
}

const nibble = (code) => (code < 58 ? code - 48 : code - 87);

/** The bytes of lower-case hex digits. */
export function unhex(text) {
  const bytes = new Uint8Array(text.length / 2);
  for (let at = 0; at < bytes.length; at++) bytes[at] = (nibble(text.charCodeAt(2 * at)) << 4) | nibble(text.charCodeAt(2 * at + 1));
  return bytes;
}

export function equal(a, b) {
  return a.length === b.length && a.every((byte, at) => byte === b[at]);
}

export function concat(...parts) {
  const all = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}

/** Base64 as an encoder writes it; `length` in bytes, where it is known. */
export function unbase64(text, length) {
  const wrong = () => new Refused("base64 in another spelling than encoders use", "Base64 in einer Schreibweise, die kein Kodierer benutzt");
  if (!/^[A-Za-z0-9+/]*={0,2}$/.test(text) || text.length % 4) throw wrong();
  const binary = atob(text);
  if (btoa(binary) !== text) throw wrong();
  need(length === undefined || binary.length === length, `${binary.length} bytes where ${length} belong`, `${binary.length} Byte, wo ${length} hingehören`);
  return Uint8Array.from(binary, (char) => char.charCodeAt(0));
}

export function whole(text) {
  const value = /^(0|[1-9][0-9]{0,15})$/.test(text) ? Number(text) : NaN;
  need(Number.isSafeInteger(value), `no whole number below 2^53: ${text.slice(0, 40)}`, `keine ganze Zahl unter 2^53: ${text.slice(0, 40)}`);
  return value;
}

/** The lines of a file, as views of its bytes. */
export function lines(bytes, name) {
  need(bytes.length === 0 || bytes.at(-1) === 10, `the last line of ${name} is cut off`, `die letzte Zeile von ${name} ist abgeschnitten`);
  const rows = [];
  for (let at = 0; at < bytes.length; ) {
    const end = bytes.indexOf(10, at);
    rows.push(bytes.subarray(at, end));
    at = end + 1;
  }
  return rows;
}

// ---- JSON ----

const DEPTH_MAX = 16;
const utf8Less = (a, b) => {
  for (let at = 0; at < a.length && at < b.length; at++) {
    const [x, y] = [a.codePointAt(at), b.codePointAt(at)];
    if (x !== y) return x < y;
    if (x > 0xffff) at++;
  }
  return a.length < b.length;
};

/** Whether `text`, which is JSON, is written in the one way evidence is; it walks the text once. */
function isCanonical(text) {
  let at = 0;
  const string = () => {
    const start = at++;
    let isPlain = true;
    for (; text.charCodeAt(at) !== 34; at++) {
      if (at >= text.length) return undefined;
      if (text.charCodeAt(at) === 92) {
        isPlain = false;
        at++;
      }
    }
    const quoted = text.slice(start, ++at);
    if (isPlain) return quoted.slice(1, -1);
    const value = JSON.parse(quoted);
    return JSON.stringify(value) === quoted && value.isWellFormed() ? value : undefined;
  };
  const value = (depth) => {
    const first = text[at];
    if (first === '"') return string() !== undefined;
    if (first === "{" || first === "[") {
      if (depth === 0) return false;
      const close = first === "{" ? "}" : "]";
      let before;
      at++;
      if (text[at] === close) return (at++, true);
      for (;;) {
        if (first === "{") {
          const key = text[at] === '"' ? string() : undefined;
          if (key === undefined || (before !== undefined && !utf8Less(before, key)) || text[at++] !== ":") return false;
          before = key;
        }
        if (!value(depth - 1)) return false;
        const next = text[at++];
        if (next === close) return true;
        if (next !== ",") return false;
      }
    }
    const word = /(?:true|false|0|[1-9][0-9]{0,15})(?![0-9.eE])/y;
    word.lastIndex = at;
    const found = word.exec(text);
    if (!found || (first >= "0" && first <= "9" && !Number.isSafeInteger(Number(found[0])))) return false;
    at += found[0].length;
    return true;
  };
  return value(DEPTH_MAX) && at === text.length;
}

/** JSON that is written in the one way evidence is, and holds what `form` says. */
export function readJson(bytes, what, form) {
  const text = decode(bytes);
  let value;
  try {
    value = JSON.parse(text);
  } catch {
    throw new Refused(`${what.en} is no JSON`, `${what.de} ist kein JSON`);
  }
  need(isCanonical(text), `${what.en} is not written in the one way evidence is`, `${what.de} ist nicht so geschrieben, wie Beweise es sind`);
  need(form === undefined || fits(value, form), `${what.en} does not hold what belongs there`, `${what.de} enthält nicht, was hineingehört`);
  return value;
}

// ---- Times and scores ----

const TIME = /^([0-9]{4})-([0-9]{2})-([0-9]{2})T([01][0-9]|2[0-3])(:[0-5][0-9]){2}\.[0-9]{9}Z$/;

function isTime(text) {
  const match = TIME.exec(text);
  if (!match || text < "1970" || text > "2262-04-11T23:47:16.854775807Z") return false;
  const [year, month, day] = match.slice(1, 4).map(Number);
  const date = new Date(Date.UTC(year, month - 1, day));
  return date.getUTCMonth() === month - 1 && date.getUTCDate() === day;
}

const FLOAT = new DataView(new ArrayBuffer(4));

function floatOf(bits) {
  FLOAT.setUint32(0, bits);
  return FLOAT.getFloat32(0);
}

/** The decimal of so many digits that is nearest to a positive float, exactly; undefined if it does not read back. */
function nearest(bits, digits) {
  const [exponent, mantissa] = [bits >>> 23, bits & 0x7fffff];
  const whole = BigInt(exponent ? mantissa | 0x800000 : mantissa);
  const power = (exponent || 1) - 150 - 2;
  const [value, high, low] = [4n * whole, 4n * whole + 2n, 4n * whole - (mantissa === 0 && exponent > 1 ? 1n : 2n)];
  const unit = Number(floatOf(bits).toExponential(20).split("e")[1]) + 1 - digits;
  // Everything times this, so that float and decimal are whole numbers.
  const ofFloat = (power > 0 ? 1n << BigInt(power) : 1n) * (unit < 0 ? 10n ** BigInt(-unit) : 1n);
  const ofDecimal = (power < 0 ? 1n << BigInt(-power) : 1n) * (unit > 0 ? 10n ** BigInt(unit) : 1n);
  const down = (value * ofFloat) / ofDecimal;
  const distance = (near) => (near * ofDecimal > value * ofFloat ? near * ofDecimal - value * ofFloat : value * ofFloat - near * ofDecimal);
  const back = [down, down + 1n].filter((near) => {
    const [at, bottom, top] = [near * ofDecimal, low * ofFloat, high * ofFloat];
    return (bottom < at && at < top) || (bits % 2 === 0 && (at === bottom || at === top));
  });
  if (back.length === 0) return undefined;
  const best = back.length === 2 && distance(back[0]) < distance(back[1]) ? back[0] : back.at(-1);
  return positional(best.toString(), unit);
}

/** `digits` times ten to the power of `unit`, without an exponent. */
function positional(digits, unit) {
  if (unit >= 0) return digits + "0".repeat(unit);
  const padded = digits.padStart(1 - unit, "0");
  const text = `${padded.slice(0, unit)}.${padded.slice(unit)}`;
  return text.replace(/\.?0+$/, "");
}

/** Whether rounding to so many digits reads back as the float, as far as doubles can tell; undefined if they cannot. */
function readsBack(bits, digits) {
  if ((bits & 0x7fffff) === 0 || bits < 0x00800000 || bits >= 0x7f000000) return undefined;
  const value = floatOf(bits);
  const text = value.toExponential(digits - 1);
  const near = Number(text);
  const [low, high] = [(value + floatOf(bits - 1)) / 2, (value + floatOf(bits + 1)) / 2];
  const slack = value * 1e-14;
  if (Math.abs(near - low) < slack || Math.abs(near - high) < slack) return undefined;
  if (!(low < near && near < high)) return null;
  const [mantissa, exponent] = text.split("e");
  return positional(mantissa.replace(".", ""), Number(exponent) + 1 - digits);
}

const decimal = (bits, digits) => {
  const quick = readsBack(bits, digits);
  return quick === undefined ? nearest(bits, digits) : (quick ?? undefined);
};

const SCORES = new Map();

/** The value of `0x<8 hex> <decimal>`, where the decimal is the shortest that reads back as the float. */
export function score(text) {
  const known = SCORES.get(text);
  if (known !== undefined) return known;
  const wrong = () => new Refused(`no score, or not in its shortest form: ${text.slice(0, 60)}`, `kein Messwert, oder nicht in kürzester Form: ${text.slice(0, 60)}`);
  const match = /^0x([0-9a-f]{8}) (-?)([0-9.]{1,60})$/.exec(text);
  if (!match) throw wrong();
  const bits = parseInt(match[1], 16);
  const size = bits & 0x7fffffff;
  const digits = match[3].replace(".", "").replace(/^0+|0+$/g, "").length;
  const isShortest =
    size > 0 && size < 0x7f800000 && bits >>> 31 === match[2].length && digits > 0 && digits < 12 &&
    decimal(size, digits) === match[3] && (digits === 1 || decimal(size, digits - 1) === undefined);
  if (!isShortest && text !== "0x00000000 0") throw wrong();
  if (SCORES.size > 100_000) SCORES.clear();
  SCORES.set(text, floatOf(bits));
  return floatOf(bits);
}

// ---- What belongs where (entry.md, export.md) ----

/** Entry indexes in ascending order, each run of them as one range: `3 17-40 99`. */
function isRanges(text) {
  let before = -2;
  for (const part of text.split(" ")) {
    const match = /^(0|[1-9][0-9]{0,15})(?:-([1-9][0-9]{0,15}))?$/.exec(part);
    if (!match) return false;
    const [first, last] = [Number(match[1]), Number(match[2] ?? match[1])];
    const isRange = match[2] === undefined || first < last;
    if (!isRange || !Number.isSafeInteger(last) || first <= before + 1) return false;
    before = last;
  }
  return true;
}

/** First and last entry of each range of a text that names ranges. */
export const rangesOf = (text) => text.split(" ").map((part) => part.split("-").map(Number)).map(([first, last = first]) => [first, last]);

const PATTERNS = {
  name: /^[A-Za-z0-9._:-]{1,64}$/,
  "recipe-name": /^[A-Za-z0-9._+@-]{1,130}$/,
  hex: /^[0-9a-f]{64}$/,
  blake3: /^blake3:[0-9a-f]{64}$/,
  sha256: /^sha256:[0-9a-f]{64}$/,
  salt: /^[0-9a-f]{32}$/,
};
// eslint-disable-next-line no-control-regex
const PART = /^[^\0-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ufeff]+$/u;
const HEAD = "clock=synchronised|free|stepped kind=text time=time v=whole";
const FORMS = {
  decision:
    `${HEAD} calibration?=blake3 camera=name captured?=time frame=frame image=image line=name model=model private=private product=name` +
    " quality=quality reasons?=text+ recipe=recipe-of runtime=runtime scores=scores software=text station=name verdict=verdict",
  frame: "counter=whole id=name trigger?=whole",
  image: "archive=text bytes=whole encoded=blake3 format=text height=u32 pfnc=text pixels=blake3 width=u32",
  model: "digest=blake3 version=text",
  private: "client?=sha256 lot?=sha256 serial?=sha256",
  quality: "focus=score mean=score saturated=score",
  "recipe-of": "digest=blake3 name=recipe-name",
  runtime: "batch=u32 cpu=text optimisation=text provider=text threads=u32 version=text",
  scores: "comparator=>=|> decision=score labels=label* reject?=score review?=score",
  label: "at?=box boxes?=u32 defect?=false label=text reject?=score review?=score score=score",
  box: "height=u32 width=u32 x=u32 y=u32",
  gap:
    `${HEAD} camera=name count=whole first?=whole frame?=name last?=whole line=name station=name` +
    " reason=counter_jump|overload|deadline|digest_mismatch|bad_frame|inference_fault|no_recipe",
  recipe: `${HEAD} calibration?=blake3 event=registered|approved|activated|retired model=blake3 recipe=recipe-of`,
  access:
    `${HEAD} count?=whole event=passport|export|frame_id_reused|read|changed|refused|login_failed|configured index?=whole` +
    " method?=text object?=text private=private reason?=text",
  key: `${HEAD} purpose=text vkey=text`,
  start: `${HEAD} recovered=whole software=text torn_bytes=whole`,
  period_close:
    `${HEAD} announced=announced camera=name corrects?=whole decided=whole end=whole gaps=whole line=name lost_frames=whole` +
    " missing?=range+ missing_frames=whole previous?=whole private=private since=whole station=name",
  announced:
    "first=whole frames_per_part?=whole from?=time last=whole lost?=range+ parts?=whole period=name restarted?=true to?=time" +
    " unseen?=whole",
  range: "first=whole last=whole",
  retention:
    `${HEAD} before?=time class?=text destroyed?=destroyed entries?=ranges event=erased|deleted|held|released from?=time hold?=whole` +
    " kept?=whole line?=name private=private product?=name rule=text to?=time",
  replay:
    `${HEAD} challenge?=sha256 differs?=ranges eps=score exact?=ranges largest?=score not_replayable?=not-replayable runtime?=replay-runtime` +
    " software=text within?=ranges",
  "not-replayable":
    "failed?=ranges image_damaged?=ranges image_gone?=ranges no_model?=ranges no_recipe?=ranges not_archived?=ranges other_provider?=ranges",
  "replay-runtime": "cpu=text version=text",
  destroyed: "client?=whole images?=whole lot?=whole packs?=whole serial?=whole",
  envelope: "payload=text payloadType=application/vnd.in-toto+json signatures=signature*",
  signature: "keyid=text sig=text",
  statement: "_type=https://in-toto.io/Statement/v1 predicate=predicate predicateType=urn:lineproof:export:1 subject=subject*",
  subject: "digest=digest name=text",
  digest: "sha256=hex",
  predicate: "absent=absent checkpoint=checkpoint container=sha256 counts=counts format=whole selection=selection software=text",
  absent: "calibrations=blake3* model_cards=blake3* recipes=blake3*",
  checkpoint: "origin=text root=sha256 size=whole",
  counts: "decisions=whole entries=whole gap_frames=whole gaps=whole not_decidable=whole not_ok=whole ok=whole openings=whole other=whole",
  selection:
    "camera?=name from?=time line?=name lot?=part part?=part product?=name recipe?=recipe-name score_max?=score score_min?=score" +
    " station?=name to?=time verdicts?=verdict+",
  "export-opening": "field=lot|serial index=whole salt=salt value=text",
  "passport-opening": "field=client|lot|serial salt=salt value=text",
};
export const KINDS = ["decision", "gap", "recipe", "access", "key", "start", "period_close", "retention"];
const WORDS = { verdict: ["OK", "NOT_OK", "NOT_DECIDABLE"] };
const RULES = new Map();

/** Whether a value is what a rule names: an object of FORMS, a list, a leaf, or one of some words. */
export const fits = (value, rule) => testOf(rule)(value);

/** The test of a rule, made once. */
function testOf(rule) {
  const known = RULES.get(rule);
  if (known) return known;
  const made = Object.hasOwn(FORMS, rule) ? testOfForm(FORMS[rule]) : testOfLeaf(rule);
  RULES.set(rule, made);
  return made;
}

function testOfForm(form) {
  const tests = new Map();
  let required = 0;
  for (const field of form.split(" ")) {
    const at = field.indexOf("=");
    const optional = field[at - 1] === "?";
    required += optional ? 0 : 1;
    tests.set(field.slice(0, optional ? at - 1 : at), { optional, test: testOf(field.slice(at + 1)) });
  }
  return (value) => {
    if (typeof value !== "object" || value === null || Array.isArray(value)) return false;
    let found = 0;
    for (const key of Object.keys(value)) {
      const member = tests.get(key);
      if (!member || !member.test(value[key])) return false;
      found += member.optional ? 0 : 1;
    }
    return found === required;
  };
}

function testOfLeaf(rule) {
  if (/[*+]$/.test(rule)) {
    const [test, least] = [testOf(rule.slice(0, -1)), rule.endsWith("+") ? 1 : 0];
    return (value) => Array.isArray(value) && value.length >= least && value.every(test);
  }
  if (rule === "whole") return (value) => typeof value === "number";
  if (rule === "u32") return (value) => typeof value === "number" && value < 2 ** 32;
  if (rule === "false" || rule === "true") return (value) => value === (rule === "true");
  const test = testOfText(rule);
  return (value) => typeof value === "string" && test(value);
}

function testOfText(rule) {
  if (rule === "text") return () => true;
  if (rule === "time") return isTime;
  if (rule === "ranges") return isRanges;
  if (rule === "score") return (value) => score(value) !== undefined;
  if (rule === "part") return (value) => PART.test(value) && encode(value).length <= 128;
  if (Object.hasOwn(PATTERNS, rule)) return (value) => PATTERNS[rule].test(value);
  const words = WORDS[rule] ?? rule.split("|");
  return (value) => words.includes(value);
}

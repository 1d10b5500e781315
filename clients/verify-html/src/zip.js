// The one ZIP layout an export may have (export.md): every header is rebuilt and compared.

import { Refused, concat, encode, equal, hex, need } from "./forms.js";

const [KIB, MIB, GIB] = [2 ** 10, 2 ** 20, 2 ** 30];
export const MANIFEST = "manifest.dsse.json";
const UNREAD = new Set(["README.txt", "decisions.csv", "decisions.de.csv", "decisions.jsonl", "report.html"]);
const PAGE = "verify.html"; // this page, as it came along; whoever wants to be sure takes it from elsewhere
const FIXED = new Set([...UNREAD, "checkpoint", "entries.index.txt", "entries.jsonl", "entries.proof.txt", "log.vkey", "private.jsonl", MANIFEST]);
const LIMITS = { calibrations: 64 * KIB, "model-cards": 256 * KIB, recipes: 64 * KIB, checkpoint: 128 * KIB, [MANIFEST]: MIB, [PAGE]: MIB };
const FOLDERS = /^((calibrations|recipes)\/[0-9a-f]{64}\.toml|model-cards\/[0-9a-f]{64}\.md)$/;

const u16 = (...values) => new Uint8Array(values.flatMap((value) => [value & 255, value >>> 8]));
const u32 = (...values) => new Uint8Array(values.flatMap((value) => [value & 255, (value >>> 8) & 255, (value >>> 16) & 255, value >>> 24]));

const CRC = Array.from({ length: 8 }, () => new Uint32Array(256));
for (let byte = 0; byte < 256; byte++) {
  let crc = byte;
  for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ 0xedb88320 : crc >>> 1;
  CRC[0][byte] = crc;
}
for (let byte = 0; byte < 256; byte++) {
  for (let row = 1; row < 8; row++) CRC[row][byte] = (CRC[row - 1][byte] >>> 8) ^ CRC[0][CRC[row - 1][byte] & 255];
}

/** CRC-32, eight bytes a step. */
function crc32(bytes) {
  let crc = ~0;
  let at = 0;
  for (; at + 8 <= bytes.length; at += 8) {
    const low = crc ^ (bytes[at] | (bytes[at + 1] << 8) | (bytes[at + 2] << 16) | (bytes[at + 3] << 24));
    crc =
      CRC[7][low & 255] ^ CRC[6][(low >>> 8) & 255] ^ CRC[5][(low >>> 16) & 255] ^ CRC[4][low >>> 24] ^
      CRC[3][bytes[at + 4]] ^ CRC[2][bytes[at + 5]] ^ CRC[1][bytes[at + 6]] ^ CRC[0][bytes[at + 7]];
  }
  for (; at < bytes.length; at++) crc = (crc >>> 8) ^ CRC[0][(crc ^ bytes[at]) & 255];
  return ~crc >>> 0;
}

/** Unpacks exactly one deflate stream of exactly `size` bytes. */
async function inflate(packed, size, name) {
  const wrong = () => new Refused(`${name} does not unpack to its size`, `${name} lässt sich nicht auf seine Größe auspacken`);
  const out = new Uint8Array(size);
  let at = 0;
  const reader = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate-raw")).getReader();
  for (;;) {
    let step;
    try {
      step = await reader.read();
    } catch {
      throw wrong();
    }
    if (step.done) break;
    if (at + step.value.length > size) {
      await reader.cancel().catch(() => {});
      throw wrong();
    }
    out.set(step.value, at);
    at += step.value.length;
  }
  if (at !== size) throw wrong();
  return out;
}

export const digest = async (bytes) => hex(new Uint8Array(await crypto.subtle.digest("SHA-256", bytes)));

/** The files that are read further, the SHA-256 of all, and where the manifest begins. */
export async function unpack(raw) {
  need(raw.length >= 22 && raw.length <= 2 * GIB, "this is no export: too short, or more than 2 GiB", "das ist kein Export: zu kurz oder mehr als 2 GiB");
  const view = new DataView(raw.buffer, raw.byteOffset, raw.byteLength);
  const start = raw.length - 22;
  const [count, length, central] = [view.getUint16(start + 10, true), view.getUint32(start + 12, true), view.getUint32(start + 16, true)];
  const end = concat(encode("PK\x05\x06"), u16(0, 0, count, count), u32(length, central), u16(0));
  const isEnd = count <= 512 && central + length + 22 === raw.length && equal(raw.subarray(start), end);
  need(isEnd, "this is no export: a ZIP file ends in another way, or something was cut off or appended", "das ist kein Export: eine ZIP-Datei endet anders, oder etwas wurde abgeschnitten oder angehängt");
  const [files, digests] = [new Map(), new Map()];
  const members = [];
  let [at, row, unpacked, manifestAt] = [0, central, 0, 0];
  for (let member = 0; member < count; member++) {
    need(row + 46 <= raw.length, "the ZIP's directory is cut off", "das Verzeichnis der ZIP-Datei ist abgeschnitten");
    const [crc, packed, size, nameLength] = [view.getUint32(row + 16, true), view.getUint32(row + 20, true), view.getUint32(row + 24, true), view.getUint16(row + 28, true)];
    const nameBytes = raw.subarray(row + 46, row + 46 + Math.min(nameLength, 128));
    const name = String.fromCharCode(...nameBytes);
    const isKnown = nameLength < 128 && (FIXED.has(name) || name === PAGE || FOLDERS.test(name)) && !members.some((other) => other.name === name);
    need(isKnown, `the ZIP holds what no export has: ${name}`, `die ZIP-Datei enthält, was kein Export hat: ${name}`);
    need(size <= (LIMITS[name.split("/")[0]] ?? 2 * GIB), `${name} is too long`, `${name} ist zu lang`);
    const isStored = name === MANIFEST;
    const common = concat(u16(20, isStored ? 0x800 : 0x808, isStored ? 0 : 8, 0, 33));
    const sizes = u32(crc, packed, size);
    const local = concat(encode("PK\x03\x04"), common, isStored ? sizes : new Uint8Array(12), u16(nameLength, 0), nameBytes);
    const head = concat(encode("PK\x01\x02"), u16(20), common, sizes, u16(nameLength, 0, 0, 0, 0), u32(0, at), nameBytes);
    const after = isStored ? new Uint8Array() : concat(encode("PK\x07\x08"), sizes);
    manifestAt = at;
    const dataAt = at + local.length;
    const isRight = dataAt + packed + after.length <= central && equal(raw.subarray(at, dataAt), local) &&
      equal(raw.subarray(dataAt + packed, dataAt + packed + after.length), after) && equal(raw.subarray(row, row + head.length), head);
    need(isRight, `the ZIP's headers of ${name} are not those of an export`, `die ZIP-Köpfe von ${name} sind nicht die eines Exports`);
    unpacked += size;
    need(unpacked <= 6 * GIB, "the export unpacks to more than 6 GiB", "der Export ist ausgepackt größer als 6 GiB");
    members.push({ name, size, crc, isStored, data: raw.subarray(dataAt, dataAt + packed) });
    at = dataAt + packed + after.length;
    row += head.length;
  }
  need(at === central && row === start, "the ZIP has bytes that belong to no file", "die ZIP-Datei hat Bytes, die zu keiner Datei gehören");
  const names = members.map(({ name }) => name);
  const sorted = names.filter((name) => name !== MANIFEST).sort();
  const isWhole = [...FIXED].every((name) => names.includes(name)) && [...sorted, MANIFEST].every((name, place) => name === names[place]);
  need(isWhole, "a file is missing, or not in its place", "eine Datei fehlt oder steht nicht an ihrem Platz");
  await readAll(members, files, digests);
  return { files, digests, manifestAt };
}

/** Unpacks, and hashes beside it: while one file is looked at, the browser unpacks the next. */
async function readAll(members, files, digests) {
  const content = ({ isStored, data, size, name }) => {
    const promise = isStored ? Promise.resolve(data) : inflate(data, size, name);
    promise.catch(() => {}); // whoever awaits it is told; if nobody does, an earlier file was wrong
    return promise;
  };
  const sums = [];
  let next = content(members[0]);
  for (let at = 0; at < members.length; at++) {
    const { name, size, crc } = members[at];
    const bytes = await next;
    next = at + 1 < members.length ? content(members[at + 1]) : undefined;
    sums.push(digest(bytes));
    need(bytes.length === size && crc32(bytes) === crc, `${name} does not unpack to its size and CRC`, `${name} lässt sich nicht auf Größe und CRC auspacken`);
    if (!UNREAD.has(name) && name !== PAGE) files.set(name, bytes);
  }
  for (const [at, sum] of (await Promise.all(sums)).entries()) digests.set(members[at].name, sum);
}

// Closed periods (period.md): what the line announced, against what an export holds of it.

import { need } from "./forms.js";

const has = (object, key) => Object.hasOwn(object, key);
const place = ({ line, station, camera }) => `${line} / ${station} / ${camera}`;
const pairs = (ranges = []) => ranges.map(({ first, last }) => [first, last]);
const sizeOf = (ranges) => ranges.reduce((sum, [first, last]) => sum + (last - first + 1), 0);

/** A close agrees with itself. */
function checkClose(index, close) {
  const said = close.announced;
  const [missing, lost] = [pairs(close.missing), pairs(said.lost)];
  const { first, last, parts, unseen } = said;
  const isForward = first <= last && (said.from ?? "") <= (said.to ?? "~");
  need(isForward, `the period in entry ${index} runs backwards`, `der Zeitraum in Eintrag ${index} läuft rückwärts`);
  for (const ranges of [lost, missing]) {
    const isInside = ranges.length <= 48 && ranges.every(([a, b]) => first <= a && a <= b && b <= last);
    const isOrdered = ranges.every(([a], at) => at === 0 || ranges[at - 1][1] + 1 < a);
    need(isInside && isOrdered, `entry ${index} has ranges out of order`, `Eintrag ${index} hat Bereiche außer der Reihe`);
  }
  const perPart = said.frames_per_part ?? 1;
  const isCounted =
    parts === undefined
      ? !has(said, "frames_per_part") && !has(said, "unseen")
      : perPart > 0 && BigInt(parts) * BigInt(perPart) < 2n ** 53n && (unseen === undefined || (unseen > 0 && unseen <= parts));
  need(isCounted, `the parts in entry ${index} contradict themselves`, `die Teile in Eintrag ${index} widersprechen sich`);
  const sum = [close.decided, close.gaps, close.lost_frames, close.missing_frames].reduce((all, some) => all + BigInt(some), 0n);
  const listed = sizeOf(missing);
  const isSum =
    sum === BigInt(last - first) + 1n &&
    (missing.length < 48 ? listed === close.missing_frames : listed <= close.missing_frames) &&
    close.lost_frames <= sizeOf(lost) &&
    splitAt(lost, missing)[0].length === 0;
  need(isSum, `the frames in entry ${index} do not add up to those announced`, `die Bilder in Eintrag ${index} ergeben nicht die gemeldeten`);
  const isWindow =
    close.since <= close.end && close.end <= index && (close.previous ?? -1) < index && (close.corrects ?? -1) < index &&
    (has(close, "corrects") || index - close.end <= 65_536);
  need(isWindow, `entry ${index} does not say truly what it counted`, `Eintrag ${index} sagt nicht richtig, was er gezählt hat`);
}

/** A close goes on where the camera's close before it ended. */
function checkFollows(index, close, previous) {
  const goesOn = close.announced.first === previous.announced.last + 1 && close.since <= previous.end;
  const fits =
    !has(previous, "corrects") && place(close) === place(previous) && previous.end <= close.end &&
    (has(close.announced, "restarted") ? close.since === previous.end : goesOn);
  need(fits, `entry ${index} does not go on where the period before ended`, `Eintrag ${index} schließt nicht an den Zeitraum davor an`);
}

function checkCorrects(index, close, original) {
  const fits =
    ["since", "end", "previous", "decided", "gaps"].every((key) => close[key] === original[key]) &&
    ["first", "last", "restarted", "period"].every((key) => close.announced[key] === original.announced[key]) &&
    !has(original, "corrects") && place(close) === place(original);
  need(fits, `entry ${index} does not fit what it corrects`, `Eintrag ${index} passt nicht zu dem, was er berichtigt`);
}

/** What decisions and gaps say of each camera's counter, in order: index, first, last, whether it is decided. */
function marksOf(entries) {
  const marks = new Map();
  for (const [index, entry] of entries) {
    let mark;
    if (entry.kind === "decision") mark = [index, entry.frame.counter, entry.frame.counter, true];
    const width = entry.last - entry.first;
    if (entry.kind === "gap" && width >= 0 && width < entry.count) mark = [index, entry.first, entry.last, false];
    if (!mark) continue;
    if (!marks.has(place(entry))) marks.set(place(entry), []);
    marks.get(place(entry)).push(mark);
  }
  return marks;
}

function union(ranges) {
  const merged = [];
  for (const [a, b] of ranges.sort((x, y) => x[0] - y[0])) {
    const before = merged.at(-1);
    if (before && a <= before[1] + 1) before[1] = Math.max(b, before[1]);
    else merged.push([a, b]);
  }
  return merged;
}

/** The first place in ascending rows whose number is not below `bound`. */
function lowerBound(rows, bound) {
  let [low, high] = [0, rows.length];
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (rows[middle][0] < bound) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** What of the whole ranges lies in `ranges`, and what does not. */
function splitAt(ranges, wholeRanges) {
  const [inside, outside] = [[], []];
  for (const [start, last] of wholeRanges) {
    let first = start;
    for (let at = Math.max(0, lowerBound(ranges, first + 1) - 1); at < ranges.length && first <= last; at++) {
      const [a, b] = ranges[at];
      if (a > last) break;
      if (b < first) continue;
      if (first < a) outside.push([first, a - 1]);
      inside.push([Math.max(a, first), Math.min(b, last)]);
      first = b + 1;
    }
    if (first <= last) outside.push([first, last]);
  }
  return [inside, outside];
}

/** Decided counters, those noted as gaps, and neither, by the entries that a close counts. */
function count(close, marks) {
  const counted = marks.slice(lowerBound(marks, close.since), lowerBound(marks, close.end));
  const rangesOf = (isDecided) => union(counted.filter((mark) => mark[3] === isDecided).map(([, a, b]) => [a, b]));
  const [decided, open] = splitAt(rangesOf(true), [[close.announced.first, close.announced.last]]);
  const [gaps, rest] = splitAt(rangesOf(false), open);
  return { decided, gaps, rest };
}

/** Whether a close says what was counted. */
function says(close, { decided, gaps, rest }) {
  const [lost, missing] = splitAt(pairs(close.announced.lost), rest);
  const isCounted =
    close.decided === sizeOf(decided) && close.gaps === sizeOf(gaps) && close.lost_frames === sizeOf(lost) &&
    close.missing_frames === sizeOf(missing);
  return isCounted && JSON.stringify(pairs(close.missing)) === JSON.stringify(missing.slice(0, 48));
}

/** Checks every close of an export and gives how many periods, frames and recounted closes there are. */
export function checkPeriods(selection, entries) {
  const closes = new Map(entries.filter(([, entry]) => entry.kind === "period_close"));
  need(closes.size <= 10_000, "more than 10,000 period closes", "mehr als 10.000 Abschlüsse von Zeiträumen");
  const marks = closes.size > 0 ? marksOf(entries) : new Map();
  const narrow = ["lot", "part", "product", "recipe", "score_max", "score_min", "from", "to"];
  const takesAll = !narrow.some((key) => has(selection, key)) && [0, 3].includes(selection.verdicts?.length ?? 0);
  const latest = new Map();
  let recounted = 0;
  for (const [index, close] of closes) {
    checkClose(index, close);
    if (closes.has(close.previous)) checkFollows(index, close, closes.get(close.previous));
    if (closes.has(close.corrects)) checkCorrects(index, close, closes.get(close.corrects));
    const counted = count(close, marks.get(place(close)) ?? []);
    const isWhole = says(close, counted);
    const found = splitAt(union([...counted.decided, ...counted.gaps]), pairs(close.missing))[0];
    const isTrue = found.length === 0 && sizeOf(counted.decided) <= close.decided && (isWhole || !takesAll);
    need(isTrue, `the entries here give other numbers than entry ${index}`, `die Einträge hier ergeben andere Zahlen als Eintrag ${index}`);
    recounted += isWhole ? 1 : 0;
    latest.set(close.corrects ?? index, [index, close]);
  }
  let frames = 0;
  for (const [index, close] of [...latest.values()].sort((a, b) => a[0] - b[0])) {
    const said = close.announced;
    const own = said.last - said.first + 1;
    frames += own;
    const short = ((said.parts ?? 0) - (said.unseen ?? 0)) * (said.frames_per_part ?? 1) - own;
    const ranges = pairs(close.missing).slice(0, 8).map(([a, b]) => `${a}–${b}`).join(", ");
    const name = `${said.period} (${place(close)})`;
    need(
      close.missing_frames === 0,
      `the period ${name} is not complete: of the announced frames ${ranges} there is no decision, no noted gap and no word from the line (entry ${index})`,
      `der Zeitraum ${name} ist nicht vollständig: Zu den gemeldeten Bildern ${ranges} gibt es weder Entscheidung noch vermerkte Lücke noch eine Erklärung der Linie (Eintrag ${index})`,
    );
    need(
      short <= 0,
      `the period ${name} is not complete: the line counted parts for ${short} frames more than its camera took (entry ${index})`,
      `der Zeitraum ${name} ist nicht vollständig: Die Linie zählte Teile für ${short} Bilder mehr, als die Kamera aufnahm (Eintrag ${index})`,
    );
  }
  return { closes: closes.size, periods: latest.size, frames, recounted };
}

// The page: takes a key and a file, shows each step and the result, in German or English.

import { Refused } from "./forms.js";
import { Unusable, readKeys } from "./note.js";
import { checkChallenge } from "./challenge.js";
import { checkExport } from "./export.js";
import { checkPassport } from "./passport.js";
import { TEXTS } from "./texts.js";

/** What evidence begins with; everything else is taken for an export. */
const BEGINNINGS = Object.entries({ passport: "c2sp.org/tlog-proof", replays: "lineproof challenge 2\n", challenge: "lineproof challenge" });
const at = (id) => document.getElementById(id);
let lang = (navigator.languages?.[0] ?? navigator.language ?? "en").toLowerCase().startsWith("de") ? "de" : "en";
let evidence;
let isAnswer = false;
let shown;
let run = 0;

const say = (words) => (Array.isArray(words) ? words[lang === "de" ? 1 : 0] : words[lang]);
const text = (key, ...values) => {
  const found = TEXTS[key];
  return typeof found === "function" ? say(found(...values)) : say(found);
};

function element(name, content, className) {
  const made = document.createElement(name);
  made.textContent = content;
  if (className) made.className = className;
  return made;
}

function kindOf(bytes) {
  const begins = ([, text]) => [...text].every((char, place) => bytes[place] === char.charCodeAt(0));
  return BEGINNINGS.find(begins)?.[0] ?? "export";
}

/** Checks, and returns what was found: steps in words, then a result, a refusal or why nothing could be checked. */
async function judge(bytes, keyText, nonce, onStep) {
  const found = { steps: [] };
  try {
    const keys = await readKeys(keyText);
    found.kind = kindOf(bytes);
    const check = { passport: checkPassport, challenge: checkChallenge, replays: checkChallenge, export: checkExport }[found.kind];
    const checks = check(bytes, keys, nonce);
    for (;;) {
      const step = await checks.next();
      if (step.done) return { ...found, proven: step.value };
      found.steps.push(step.value);
      onStep(found);
    }
  } catch (error) {
    if (error instanceof Refused) return { ...found, refused: error.words };
    if (error instanceof Unusable) return { ...found, unusable: error.words };
    const words = [`something unexpected: ${error}`, `etwas Unerwartetes: ${error}`];
    return { ...found, refused: { en: words[0], de: words[1] } };
  }
}

/** Text of others, with what would be invisible or turn the reading order spelled out. */
function visible(text) {
  return text.replace(/[\p{C}\p{Zl}\p{Zp}]/gu, (char) => `[U+${char.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}]`);
}

function summary(proven) {
  const rows = [[text("log"), proven.origin], [text("size"), proven.size]];
  if (proven.kind === "export") {
    const { counts, selection } = proven;
    rows.push([text("decisions"), counts.decisions], ["OK", counts.ok], ["NOT_OK", counts.not_ok], ["NOT_DECIDABLE", counts.not_decidable]);
    rows.push([text("gaps"), counts.gap_frames], [text("asked"), Object.keys(selection).length ? JSON.stringify(selection) : text("everything")]);
    rows.push([text("madeBy"), proven.software]);
  } else if (proven.kind === "challenge") {
    const { nonce, isCompared, count, entries } = proven;
    const decisions = entries.filter(({ kind }) => kind === "decision");
    const verdicts = (name) => decisions.filter(({ verdict }) => verdict === name).length;
    rows.push([text("nonce"), `${nonce} (${text(isCompared ? "nonceCompared" : "nonceNotCompared")})`]);
    rows.push([text("askedFor"), count], [text("given"), entries.length], [text("decisions"), decisions.length]);
    for (const name of ["OK", "NOT_OK", "NOT_DECIDABLE"]) rows.push([name, verdicts(name)]);
    rows.push([text("otherEntries"), entries.length - decisions.length]);
    for (const [outcome, found] of Object.entries(proven.outcomes ?? {})) rows.push([text("outcome", outcome), found]);
  } else {
    const { entry, values } = proven;
    rows.push([text("place"), proven.index], [text("kind"), entry.kind]);
    if (entry.kind === "decision") rows.push([text("verdict"), entry.verdict], [text("time"), entry.time], [text("product"), entry.product]);
    for (const field of ["serial", "lot", "client"]) if (field in values) rows.push([text(field), values[field]]);
  }
  return rows;
}

function draw() {
  document.documentElement.lang = lang;
  document.title = text("title");
  for (const made of document.querySelectorAll("[data-text]")) made.textContent = text(made.dataset.text);
  for (const button of document.querySelectorAll("[data-lang]")) button.setAttribute("aria-pressed", String(button.dataset.lang === lang));
  at("file-name").textContent = evidence ? text("chosen", evidence.name, evidence.size) : text("nothingChosen");
  at("nonce-part").hidden = !isAnswer;
  at("check").disabled = !evidence || !at("key").value.trim();
  drawResult();
}

function drawResult() {
  const [result, steps, facts] = [at("result"), at("steps"), at("facts")];
  result.replaceChildren();
  steps.replaceChildren();
  facts.replaceChildren();
  at("report").hidden = !shown;
  at("limits").hidden = !shown?.proven;
  const limits = { challenge: "challengeLimits", replays: "replayLimits" };
  at("limits").textContent = text(limits[shown?.kind] ?? "limits");
  if (!shown) {
    at("live").textContent = "";
    return;
  }
  const state = shown.proven ? "genuine" : shown.refused ? "refused" : shown.unusable ? "unusable" : "working";
  result.className = `result ${state}`;
  result.dataset.state = state;
  result.append(element("strong", text(state, visible(shown.name))));
  // A screen reader says only what is new: not every step, but begin and end.
  const spoken = [text(state, visible(shown.name)), shown.refused && say(shown.refused), shown.unusable && say(shown.unusable)];
  at("live").textContent = spoken.filter(Boolean).join(" ");
  const step = shown.steps.length + 1;
  result.dataset.step = state === "refused" ? String(step) : "";
  if (shown.refused) {
    result.append(element("p", `${text("atStep", step)}: ${say(shown.refused)}.`));
    result.append(element("p", text("refusedMeans")));
  }
  if (shown.unusable) result.append(element("p", say(shown.unusable)));
  if (shown.proven) {
    result.append(element("p", text(`${shown.kind}Means`)));
    const { exact, within, differs } = shown.proven.outcomes ?? {};
    if (shown.proven.outcomes && !exact && !within && !differs) result.append(element("p", text("noneRan"), "warning"));
    if (differs) result.append(element("p", text("differs"), "warning"));
    // Without the nonce the most important thing was not checked: that the plant did not choose.
    if (shown.proven.isCompared === false) result.append(element("p", text("nonceMissing"), "warning"));
  }
  const names = TEXTS[`${shown.kind}Steps`];
  if (shown.unusable) return;
  names.forEach((name, place) => {
    const [isDone, isRefused] = [place < shown.steps.length, shown.refused && place === shown.steps.length];
    const item = element("li", "", isDone ? "good" : isRefused ? "bad" : "open");
    item.append(element("span", isDone ? text("good") : isRefused ? text("bad") : text("open"), "mark"));
    item.append(element("span", isDone ? say(shown.steps[place]) : isRefused ? `${say(name)}: ${say(shown.refused)}.` : say(name)));
    steps.append(item);
  });
  if (shown.proven) {
    for (const [name, value] of summary(shown.proven)) facts.append(element("dt", name), element("dd", visible(String(value))));
  }
}

async function check() {
  const [mine, file] = [++run, evidence];
  const began = performance.now();
  delete at("result").dataset.milliseconds;
  shown = { steps: [], name: file.name, kind: "export" };
  draw();
  // The page is drawn before the work begins.
  await new Promise((resume) => setTimeout(resume, 20));
  const show = (found) => {
    if (mine !== run) return;
    shown = { ...found, name: file.name };
    drawResult();
  };
  let found;
  try {
    found = await judge(new Uint8Array(await file.arrayBuffer()), at("key").value, at("nonce").value.trim(), show);
  } catch (error) {
    found = { steps: [], unusable: { en: `The file cannot be read: ${error}`, de: `Die Datei ist nicht lesbar: ${error}` } };
  }
  show(found);
  if (mine === run) at("result").dataset.milliseconds = String(Math.round(performance.now() - began));
}

/** A result belongs to one file, one key and one nonce: when one of them changes it goes. */
function forget() {
  shown = undefined;
  run++;
  draw();
}

async function take(file) {
  if (!file) return;
  // The check reads the whole file and says why when it cannot; this only decides whether a nonce is asked for.
  const start = await file.slice(0, 64).arrayBuffer().catch(() => new ArrayBuffer(0));
  evidence = file;
  isAnswer = ["challenge", "replays"].includes(kindOf(new Uint8Array(start)));
  forget();
}

for (const button of document.querySelectorAll("[data-lang]")) {
  button.addEventListener("click", () => {
    lang = button.dataset.lang;
    draw();
  });
}
at("file").addEventListener("change", (event) => take(event.target.files[0]));
at("key-file").addEventListener("change", async (event) => {
  const file = event.target.files[0];
  if (file && file.size < 200_000) at("key").value = await file.text();
  forget();
});
// So that the same file, chosen again after an edit, is read again.
at("key-file").addEventListener("click", (event) => (event.target.value = ""));
at("key").addEventListener("input", forget);
at("nonce").addEventListener("input", forget);
at("form").addEventListener("submit", (event) => {
  event.preventDefault();
  check();
});
at("print").addEventListener("click", () => window.print());
for (const name of ["dragenter", "dragover"]) {
  document.addEventListener(name, (event) => {
    event.preventDefault();
    at("drop").classList.add("over");
  });
}
document.addEventListener("dragleave", (event) => event.relatedTarget ?? at("drop").classList.remove("over"));
document.addEventListener("drop", (event) => {
  event.preventDefault();
  at("drop").classList.remove("over");
  take(event.dataTransfer.files[0]);
});
draw();

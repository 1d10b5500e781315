// Opens the page as a file in headless Chromium and gives it evidence as an auditor would: through its two file fields.
//
//   node test.mjs CASES [SCREENSHOTS]
//
// CASES is what LINEPROOF_KEEP kept of `cargo test --test agreement`: evidence, key file, and what the Python verifier said.
// The page must say the same, at the same step, and ask the network for nothing.

import { mkdtempSync, readFileSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";

import { chromium } from "playwright-core";

import { picked, seedOf } from "./src/challenge.js";

const here = (path) => fileURLToPath(new URL(path, import.meta.url));
const PAGE = pathToFileURL(here("../../src/core/export/verify.html")).href;
const vectors = (name) => here(`../../docs/spec/vectors/${name}`);
const [cases, screenshots] = process.argv.slice(2);

const profile = mkdtempSync(join(tmpdir(), "lineproof-page-"));
const browser = await chromium.launchPersistentContext(profile, {
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  headless: true,
  locale: "de-DE",
  viewport: { width: 1000, height: 1400 },
  args: [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
  ],
});
const page = await browser.newPage();
page.setDefaultTimeout(30_000);
const asked = [];
const broken = [];
page.on("request", (request) => asked.push(request.url()));
page.on("pageerror", (error) => broken.push(String(error)));
page.on("console", (message) => message.type() === "error" && broken.push(message.text()));
await page.goto(PAGE);

let failed = 0;
function expect(isRight, what) {
  if (!isRight) {
    failed++;
    console.error(`FAILED: ${what}`);
  }
}

/** What the page says of some evidence: `accepted`, `refused 5` or `unusable`. */
async function judge(evidence, key, nonce = "") {
  await page.setInputFiles("#file", evidence);
  const name = typeof evidence === "string" ? evidence.split("/").at(-1) : evidence.name;
  await page.waitForFunction((name) => document.getElementById("file-name").textContent.includes(name), name);
  if (await page.locator("#nonce").isVisible()) await page.fill("#nonce", nonce);
  const text = readFileSync(key, "utf8");
  // Nothing to check with: the button stays off.
  if (text.trim() === "") return "unusable";
  await page.fill("#key", text);
  await page.waitForFunction(() => !document.getElementById("check").disabled);
  await page.click("#check");
  await page.waitForFunction(() => /genuine|refused|unusable/.test(document.getElementById("result").dataset.state ?? ""), null, { timeout: 120_000 });
  const result = await page.locator("#result").evaluate(({ dataset }) => ({ ...dataset }));
  return result.state === "genuine" ? "accepted" : result.state === "refused" ? `refused ${result.step}` : "unusable";
}

// ---- Good evidence, in both languages ----
for (const [lang, genuine] of [["de", "ist echt"], ["en", "is genuine"]]) {
  if (lang === "en") await page.click('[data-lang="en"]');
  for (const [evidence, steps] of [["export.zip", 9], ["export-rendering-2.zip", 9], ["export.tlog-proof", 4]]) {
    const said = await judge(vectors(evidence), vectors("export.vkey"));
    const text = await page.locator("#result").innerText();
    expect(said === "accepted" && text.includes(genuine), `${evidence} in ${lang}: ${said}, ${text}`);
    expect((await page.locator("#steps li.good").count()) === steps, `${evidence}: ${steps} steps`);
    if (screenshots) await page.screenshot({ path: join(screenshots, `${evidence}-${lang}.png`), fullPage: true });
  }
  expect((await page.locator("html").getAttribute("lang")) === lang, `the page says that it speaks ${lang}`);
}
await judge(vectors("lineage.tlog-proof"), vectors("export.vkey"));
expect((await page.locator("#result").innerText()).includes("REFUSED"), "another plant's passport is refused");
if (screenshots) await page.screenshot({ path: join(screenshots, "refused-en.png"), fullPage: true });

// ---- A result does not outlive its key ----
await page.fill("#key", "another+00000000+key");
expect(await page.locator("#report").isHidden(), "the result goes when the key changes");

// ---- A key from a file, and only the keyboard ----
await page.fill("#key", "");
await page.setInputFiles("#key-file", vectors("export.vkey"));
await page.waitForFunction(() => document.getElementById("key").value.startsWith("plant-7"));
await page.setInputFiles("#file", vectors("export.zip"));
await page.focus("#key");
let reached = false;
for (let tab = 0; tab < 6 && !reached; tab++) {
  await page.keyboard.press("Tab");
  reached = (await page.evaluate(() => document.activeElement.id)) === "check";
}
await page.keyboard.press("Enter");
await page.waitForFunction(() => document.getElementById("result").dataset.state === "genuine");
expect(reached, "the button is reached with the keyboard");

// ---- What a nonce picks, and whose nonce it is ----
const nonceBytes = Uint8Array.from({ length: 16 }, (_, place) => place);
const signedText = "example.com/plant\n1000\nAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n";
const choices = readFileSync(vectors("challenge.txt"), "utf8").split("\n").filter((line) => line && !line.startsWith("#"));
for (const line of choices) {
  const [count, size, ...indexes] = line.split(/ of |: *| /).filter(Boolean).map(Number);
  // The page refuses a checkpoint of such a size, as every number from 2^53.
  if (size > Number.MAX_SAFE_INTEGER) continue;
  const found = picked(seedOf(nonceBytes, signedText), count, size);
  expect(JSON.stringify(found) === JSON.stringify(indexes), `${line}: the page picks ${found}`);
}
expect(choices.length > 0, "challenge.txt has choices");
const withReplays = join(cases, "answer-with-replays--signed-accepted");
await page.click('[data-lang="en"]');
expect((await judge(`${withReplays}.bin`, `${withReplays}.vkey`)) === "accepted", "an answer with replays");
expect((await page.locator("#report").innerText()).includes("ecided again"), "what came out is shown");
expect((await page.locator("#steps li.good").count()) === 4, "an answer with replays has four steps");
if (screenshots) await page.screenshot({ path: join(screenshots, "replays-en.png"), fullPage: true });
const answer = join(cases, "answer--signed-accepted");
const answerText = readFileSync(`${answer}.bin`, "utf8");
const nonce = /^nonce ([0-9a-f]+)$/m.exec(answerText)[1];
for (const [lang, mine, none] of [["de", "die eingegebene", "Es wurde keine Nonce eingegeben"], ["en", "the one you entered", "No nonce was entered"]]) {
  await page.click(`[data-lang="${lang}"]`);
  const report = () => page.locator("#report").innerText();
  expect((await judge(`${answer}.bin`, `${answer}.vkey`, nonce)) === "accepted", "an answer to the nonce that was given");
  expect((await report()).includes(mine) && !(await report()).includes(none), `whose nonce it is, in ${lang}: ${await report()}`);
  if (screenshots) await page.screenshot({ path: join(screenshots, `answer-${lang}.png`), fullPage: true });
  await page.fill("#nonce", "");
  expect(await page.locator("#report").isHidden(), "the result goes when the nonce changes");
  expect((await judge(`${answer}.bin`, `${answer}.vkey`)) === "accepted", "an answer without a nonce to compare");
  expect((await report()).includes(none) && !(await report()).includes(mine), `no nonce, in ${lang}: ${await report()}`);
  expect((await judge(`${answer}.bin`, `${answer}.vkey`, "ab".repeat(16))) === "refused 2", "an answer to another nonce");
  expect((await judge(`${answer}.bin`, `${answer}.vkey`, "ab")) === "unusable", "a nonce that is none");
}
await page.setInputFiles("#file", vectors("export.zip"));
await page.waitForFunction(() => document.getElementById("file-name").textContent.includes("export.zip"));
expect(await page.locator("#nonce").isHidden(), "an export has no nonce");

// ---- The same as Python says ----
const kept = readdirSync(cases).filter((name) => name.endsWith(".bin")).map((name) => join(cases, name.slice(0, -4)));
let refused = 0;
for (const path of kept) {
  const expected = readFileSync(`${path}.said`, "utf8");
  const said = await judge(`${path}.bin`, `${path}.vkey`);
  expect(said === expected, `${path}: Python says ${expected}, the page ${said}: ${await page.locator("#result").innerText()}`);
  refused += said.startsWith("refused") ? 1 : 0;
}
expect(refused >= 20, `at least 20 changed pieces of evidence are refused; ${refused} were`);

const foreign = asked.filter((url) => url !== PAGE && !url.startsWith("blob:"));
expect(foreign.length === 0, `the page asks the network: ${foreign.join(" ")}`);
expect(broken.length === 0, `the page breaks: ${broken.join("; ")}`);
await browser.close();
rmSync(profile, { recursive: true, force: true });
console.log(`${kept.length} changed pieces of evidence, ${refused} refused at the step that Python names; ${foreign.length} network requests`);
console.log(`${kept.length + 7 - failed} passed, ${failed} failed`);
process.exit(failed ? 1 : 0);

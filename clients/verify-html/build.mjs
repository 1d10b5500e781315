// Builds the one file that an auditor opens: `node build.mjs` writes it, `node build.mjs --check` says whether it is
// what the sources give.

import { createHash } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

import { build } from "esbuild";

const here = (path) => fileURLToPath(new URL(path, import.meta.url));
const source = (name) => readFileSync(here(`src/${name}`), "utf8");
const OUT = here("../../src/core/export/verify.html");

const bundled = await build({
  entryPoints: [here("src/page.js")],
  bundle: true,
  format: "iife",
  target: ["es2022"],
  charset: "utf8",
  // Readable: whoever trusts nobody reads it. Licence comments stay in.
  minify: false,
  legalComments: "inline",
  absWorkingDir: here("."),
  write: false,
});
const js = `\n${bundled.outputFiles[0].text}`;
const css = `\n${source("page.css")}`;
if (js.includes("</script") || css.includes("</style")) throw new Error("the page would end within its own script or style");
const hash = (text) => `'sha256-${createHash("sha256").update(text).digest("base64")}'`;
const csp = `default-src 'none'; script-src ${hash(js)}; style-src ${hash(css)}; base-uri 'none'; form-action 'none'`;
const page = source("page.html")
  .replace('content="CSP"', () => `content="${csp}"`)
  .replace("<style>CSS</style>", () => `<style>${css}</style>`)
  .replace("<script>JS</script>", () => `<script>${js}</script>`);

if (process.argv.includes("--check")) {
  const committed = readFileSync(OUT, "utf8");
  if (committed !== page) {
    console.error("src/core/export/verify.html is not what clients/verify-html builds: run `npm run build` there");
    process.exit(1);
  }
  console.log("src/core/export/verify.html is what clients/verify-html builds");
} else {
  writeFileSync(OUT, page);
  console.log(`${OUT}: ${page.length} characters`);
}

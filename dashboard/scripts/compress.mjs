// Compresses what vite wrote, once, and refuses a page that has grown too large.
import { readFileSync, writeFileSync } from "node:fs";
import { gzipSync } from "node:zlib";

const MOST_BYTES = 150 * 1024;
const folder = new URL("../dist/", import.meta.url);
let total = 0;
for (const name of ["index.html", "dashboard.css", "dashboard.js", "dashboard.svg"]) {
  const small = gzipSync(readFileSync(new URL(name, folder)), { level: 9 });
  writeFileSync(new URL(`${name}.gz`, folder), small);
  total += small.length;
  console.log(`${name}.gz ${(small.length / 1024).toFixed(1)} KiB`);
}
console.log(`${(total / 1024).toFixed(1)} KiB of at most ${MOST_BYTES / 1024}`);
if (total > MOST_BYTES) {
  process.exitCode = 1;
}

// Writes the types of the admin API, or with --check says whether they are those of the running program's own document.
import { readFileSync, writeFileSync } from "node:fs";
import openapiTS, { astToString } from "openapi-typescript";
import { startDemo } from "../tests/gateway.mjs";

const file = new URL("../src/api/schema.d.ts", import.meta.url);
const demo = await startDemo();
try {
  const headers = { authorization: `Bearer ${demo.adminToken}` };
  const document = await (await fetch(`${demo.url}/admin/v1/openapi.json`, { headers })).json();
  // The version changes with each release, the API need not.
  document.info.version = "0";
  const types = `// Written by \`make dashboard-schema\` from the gateway's own document.\n\n${astToString(await openapiTS(document))}`;
  if (!process.argv.includes("--check")) {
    writeFileSync(file, types);
  } else if (readFileSync(file, "utf8") !== types) {
    console.error("src/api/schema.d.ts is not what the gateway describes: run `make dashboard-schema`.");
    process.exitCode = 1;
  }
} finally {
  await demo.stop();
}

// The demo as it is shipped, and a browser to look at it.
import { execFileSync, spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { chromium } from "playwright-core";

const BINARY = process.env.TIERWAY_BIN ?? fileURLToPath(new URL("../../target/debug/tierway", import.meta.url));

/** Starts the demo, on a port that the system chooses unless one is given. */
export async function startDemo(environment = {}, listen = "127.0.0.1:0") {
  const folder = mkdtempSync(join(tmpdir(), "tierway-dashboard-"));
  const env = { PATH: process.env.PATH, TMPDIR: folder, ...environment };
  const child = spawn(BINARY, ["serve", "--listen", listen], { cwd: folder, env });
  let log = "";
  child.stderr.on("data", (data) => (log += data));
  const url = await new Promise((resolve, reject) => {
    let out = "";
    child.stdout.on("data", (data) => {
      out += data;
      const found = /listening on (\S+)\n/.exec(out);
      if (found) resolve(found[1]);
    });
    child.on("exit", (code) => reject(new Error(`it ended with ${code}: ${log}`)));
  });
  const printed = (pattern) => pattern.exec(log)?.[1] ?? "";
  return {
    url,
    folder,
    link: printed(/dashboard\s+(\S+)/),
    adminToken: printed(/admin token\s+(\S+)/),
    key: printed(/\n {2}key\s+(\S+)/),
    log: () => log,
    async stop() {
      const ended = new Promise((resolve) => child.on("exit", resolve));
      child.removeAllListeners("exit");
      child.on("exit", () => {});
      child.kill("SIGTERM");
      await Promise.race([ended, new Promise((resolve) => child.on("close", resolve))]);
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

/** The system's Chromium: CHROMIUM, or what is on the path. */
export function launch() {
  const executablePath =
    process.env.CHROMIUM ?? execFileSync("sh", ["-c", "command -v chromium || command -v chromium-browser || command -v google-chrome"], { encoding: "utf8" }).trim();
  return chromium.launch({ executablePath, args: ["--no-sandbox", "--disable-dev-shm-usage"] });
}

// What every framework is asked, and what counts as an answer: checks.py for Node.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { z } from "zod";

export const QUESTION = "What is the weather in Zürich?";
export const TOOL = "get_weather";
export const Weather = z.object({ city: z.string() });
export const Report = z.object({ city: z.string(), celsius: z.int() });

const CHECKS = {
  whole(text) {
    assert.equal(typeof text, "string");
    assert.notEqual(text.trim(), "");
  },
  // The texts in the order in which they came. One alone would be a whole answer.
  stream(pieces) {
    assert.ok(pieces.filter(Boolean).length > 1, `not streamed: ${JSON.stringify(pieces)}`);
  },
  tools([name, args]) {
    assert.equal(name, TOOL);
    Weather.parse(args);
  },
  structured(report) {
    Report.parse(report);
  },
};

// Runs `methods` and prints how each went as one line of JSON.
export async function report(pkg, methods) {
  const { version } = JSON.parse(readFileSync(new URL(`node_modules/${pkg}/package.json`, import.meta.url)));
  const answers = { version };
  for (const [name, check] of Object.entries(CHECKS)) {
    try {
      check(await methods[name]());
      answers[name] = "yes";
    } catch (error) {
      console.error(error);
      answers[name] = `${error.name}: ${error.message}`.split("\n")[0];
      process.exitCode = 1;
    }
  }
  console.log(JSON.stringify(answers));
}

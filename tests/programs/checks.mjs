// What every program is asked, and what its tools say: checks.py for Node.

import { readFileSync } from "node:fs";
import { z } from "zod";

export const TASK = "How is the weather in Zürich, and how many live there?";
export const KEY = process.env.PROGRAM_KEY;
export const City = z.object({ city: z.string() });
export const TOOLS = {
  get_weather: { description: "The weather in a city.", run: ({ city }) => `12 degrees in ${city}` },
  get_population: { description: "How many people live in a city.", run: ({ city }) => `443037 people in ${city}` },
};

// Runs the cases and prints how each went as one line of JSON.
export async function report(pkg, methods) {
  const { version } = JSON.parse(readFileSync(new URL(`node_modules/${pkg}/package.json`, import.meta.url)));
  const outcomes = [];
  for (const { mode, url, model } of JSON.parse(process.argv[2])) {
    try {
      outcomes.push({ answer: await methods[mode](url, model) });
    } catch (error) {
      console.error(error);
      outcomes.push({ raised: `${error.name}: ${error.message}` });
    }
  }
  console.log(JSON.stringify({ version, outcomes }));
}

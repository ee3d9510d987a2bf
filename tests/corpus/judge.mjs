// What the official Node client gets of each answer. One JSON job on each line of stdin, one result on each line
// of stdout; judge.py compares them.

import { createInterface } from "node:readline";
// The tests of the SDKs have it installed.
import OpenAI from "../sdk/node_modules/openai/index.mjs";

const AT_ONCE = 16;
const key = process.env.CORPUS_KEY;

async function ask({ baseURL, endpoint, options, user, withinMs }) {
  const client = new OpenAI({ baseURL, apiKey: key, maxRetries: 0, timeout: withinMs, logLevel: "off" });
  const api = { chat: client.chat.completions, completions: client.completions, embeddings: client.embeddings }[endpoint];
  const result = { parts: [], error: "", detail: "" };
  const abort = new AbortController();
  let timer;
  const late = new Promise((resolve) => (timer = setTimeout(() => resolve("late"), withinMs)));
  const read = (async () => {
    const answer = await api.create({ ...options, user }, { signal: abort.signal });
    if (!options.stream) return void result.parts.push(answer);
    for await (const part of answer) result.parts.push(part);
  })();
  try {
    if ((await Promise.race([read, late])) === "late") {
      result.error = "hang";
      read.catch(() => {});
      abort.abort();
    }
  } catch (error) {
    result.error = error?.name === "Error" ? error.constructor.name : (error?.name ?? String(error));
    result.detail = String(error?.message ?? error).slice(0, 300);
  }
  clearTimeout(timer);
  return result;
}

const jobs = [];
for await (const line of createInterface({ input: process.stdin })) jobs.push(JSON.parse(line));
let next = 0;
await Promise.all(
  Array.from({ length: AT_ONCE }, async () => {
    while (next < jobs.length) {
      const job = jobs[next++];
      process.stdout.write(JSON.stringify({ id: job.id, ...(await ask(job)) }) + "\n");
    }
  }),
);
// What was left alone still holds its connection.
process.stdout.write("", () => process.exit(0));

// Vercel AI SDK, its provider for OpenAI, whose default is Responses.

import { City, KEY, TASK, TOOLS, report } from "./checks.mjs";

// [connect]
import { createOpenAI } from "@ai-sdk/openai";

const connect = (url, model) => createOpenAI({ baseURL: `${url}/v1`, apiKey: KEY })(model);
// [end]
import { generateText, stepCountIs, streamText, tool } from "ai";

const tools = Object.fromEntries(
  Object.entries(TOOLS).map(([name, { description, run }]) => [
    name,
    tool({ description, inputSchema: City, execute: run }),
  ]),
);
const ask = { prompt: TASK, tools, stopWhen: stepCountIs(5), maxRetries: 0 };

await report("@ai-sdk/openai", {
  async whole(url, model) {
    return (await generateText({ model: connect(url, model), ...ask })).text;
  },
  async stream(url, model) {
    // An error is a part of its stream, and by default only logged.
    const answer = streamText({ model: connect(url, model), ...ask, onError() {} });
    for await (const part of answer.fullStream) {
      if (part.type === "error") throw part.error instanceof Error ? part.error : new Error(JSON.stringify(part.error));
    }
    return await answer.text;
  },
});

// Vercel AI SDK, its OpenAI-compatible provider.

import { QUESTION, Report, TOOL, Weather, report } from "./checks.mjs";
import { Output, generateText, streamText, tool } from "ai";

// [connect]
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";

const tierway = createOpenAICompatible({
  name: "tierway",
  baseURL: process.env.OPENAI_BASE_URL,
  apiKey: process.env.OPENAI_API_KEY,
  supportsStructuredOutputs: true,
});
const model = tierway("auto");
// [end]

await report("@ai-sdk/openai-compatible", {
  async whole() {
    return (await generateText({ model, prompt: QUESTION })).text;
  },
  async stream() {
    const pieces = [];
    for await (const piece of streamText({ model, prompt: QUESTION }).textStream) pieces.push(piece);
    return pieces;
  },
  async tools() {
    const tools = { [TOOL]: tool({ description: "The weather in a city.", inputSchema: Weather }) };
    const answer = await generateText({ model, prompt: QUESTION, tools, toolChoice: "required" });
    return [answer.toolCalls[0].toolName, answer.toolCalls[0].input];
  },
  async structured() {
    return (await generateText({ model, prompt: QUESTION, output: Output.object({ schema: Report }) })).output;
  },
});

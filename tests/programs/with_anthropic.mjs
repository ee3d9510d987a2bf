// Anthropic's official client for TypeScript, with tools and thinking.

import { KEY, TASK, TOOLS, report } from "./checks.mjs";

// [connect]
import Anthropic from "@anthropic-ai/sdk";

const connect = (url) => new Anthropic({ baseURL: url, apiKey: KEY, maxRetries: 0 });
// [end]

const input_schema = { type: "object", properties: { city: { type: "string" } }, required: ["city"] };
const tools = Object.entries(TOOLS).map(([name, { description }]) => ({ name, description, input_schema }));
const ask = { max_tokens: 4096, thinking: { type: "adaptive" }, tools };

// Does the task; `turn` gets a message of the model from a history.
async function work(turn) {
  const messages = [{ role: "user", content: TASK }];
  for (;;) {
    const { content } = await turn(messages);
    if (content[0].type !== "thinking" || !content[0].signature) throw new Error("it did not think");
    const calls = content.filter((block) => block.type === "tool_use");
    if (calls.length === 0) return content.at(-1).text;
    messages.push({ role: "assistant", content });
    const result = ({ id, name, input }) => ({ type: "tool_result", tool_use_id: id, content: TOOLS[name].run(input) });
    messages.push({ role: "user", content: calls.map(result) });
  }
}

await report("@anthropic-ai/sdk", {
  whole: (url, model) => work((messages) => connect(url).messages.create({ model, messages, ...ask })),
  stream: (url, model) => work((messages) => connect(url).messages.stream({ model, messages, ...ask }).finalMessage()),
});

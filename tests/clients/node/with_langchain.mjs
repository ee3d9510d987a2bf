// LangChain (JavaScript).

import { QUESTION, Report, TOOL, Weather, report } from "./checks.mjs";
import { tool } from "@langchain/core/tools";

// [connect]
import { ChatOpenAI } from "@langchain/openai";

const model = new ChatOpenAI({
  model: "auto",
  apiKey: process.env.OPENAI_API_KEY,
  configuration: { baseURL: process.env.OPENAI_BASE_URL },
});
// [end]

const weather = tool(({ city }) => `Sunny in ${city}.`, {
  name: TOOL,
  description: "The weather in a city.",
  schema: Weather,
});

await report("@langchain/openai", {
  async whole() {
    return (await model.invoke(QUESTION)).content;
  },
  async stream() {
    const pieces = [];
    for await (const chunk of await model.stream(QUESTION)) pieces.push(chunk.content);
    return pieces;
  },
  async tools() {
    const answer = await model.bindTools([weather], { tool_choice: "required" }).invoke(QUESTION);
    return [answer.tool_calls[0].name, answer.tool_calls[0].args];
  },
  async structured() {
    return model.withStructuredOutput(Report).invoke(QUESTION);
  },
});

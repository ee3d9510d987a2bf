// OpenAI Agents SDK, its default: Responses.

import { City, KEY, TASK, TOOLS, report } from "./checks.mjs";

// [connect]
import { Agent, OpenAIProvider, Runner } from "@openai/agents";
import OpenAI from "openai";

const connect = (url) => {
  const openAIClient = new OpenAI({ baseURL: `${url}/v1`, apiKey: KEY, maxRetries: 0 });
  // Traces would be sent to OpenAI.
  return new Runner({ modelProvider: new OpenAIProvider({ openAIClient }), tracingDisabled: true });
};
// [end]
import { tool } from "@openai/agents";

const tools = Object.entries(TOOLS).map(([name, { description, run }]) =>
  tool({ name, description, parameters: City, execute: run }),
);
const agent = (model) => new Agent({ name: "reporter", model, tools });

await report("@openai/agents", {
  async whole(url, model) {
    return (await connect(url).run(agent(model), TASK)).finalOutput;
  },
  async stream(url, model) {
    const answer = await connect(url).run(agent(model), TASK, { stream: true });
    for await (const _ of answer);
    await answer.completed;
    if (answer.error) throw answer.error;
    return answer.finalOutput;
  },
});

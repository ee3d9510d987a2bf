/** Programs that call the gateway with a key, ready to paste. */

export interface Snippet {
  name: string;
  text: string;
}

/** A text between single quotes for a POSIX shell. */
export function shellQuoted(text: string): string {
  return `'${text.replaceAll("'", `'\\''`)}'`;
}

/** A string of Python or JavaScript. JSON's are both. */
function quoted(text: string): string {
  return JSON.stringify(text);
}

export function snippets(origin: string, secret: string, model: string): Snippet[] {
  const base = `${origin}/v1`;
  const body = JSON.stringify({ model, messages: [{ role: "user", content: "Hi" }] });
  return [
    {
      name: "curl",
      text: [
        `curl ${shellQuoted(`${base}/chat/completions`)} \\`,
        `  -H ${shellQuoted(`Authorization: Bearer ${secret}`)} \\`,
        `  -H 'Content-Type: application/json' \\`,
        `  -d ${shellQuoted(body)}`,
      ].join("\n"),
    },
    {
      name: "Python",
      text: [
        "# pip install openai",
        "from openai import OpenAI",
        "",
        `client = OpenAI(base_url=${quoted(base)}, api_key=${quoted(secret)})`,
        "answer = client.chat.completions.create(",
        `    model=${quoted(model)}, messages=[{"role": "user", "content": "Hi"}],`,
        ")",
        "print(answer.choices[0].message.content)",
      ].join("\n"),
    },
    {
      name: "Node",
      text: [
        "// npm install openai",
        'import OpenAI from "openai";',
        "",
        `const client = new OpenAI({ baseURL: ${quoted(base)}, apiKey: ${quoted(secret)} });`,
        "const answer = await client.chat.completions.create({",
        `  model: ${quoted(model)}, messages: [{ role: "user", content: "Hi" }],`,
        "});",
        "console.log(answer.choices[0].message.content);",
      ].join("\n"),
    },
    {
      name: "LangChain",
      text: [
        "# pip install langchain-openai",
        "from langchain_openai import ChatOpenAI",
        "",
        `model = ChatOpenAI(base_url=${quoted(base)}, api_key=${quoted(secret)}, model=${quoted(model)})`,
        'print(model.invoke("Hi").content)',
      ].join("\n"),
    },
    {
      name: "AI SDK",
      text: [
        "// npm install ai @ai-sdk/openai-compatible",
        'import { createOpenAICompatible } from "@ai-sdk/openai-compatible";',
        'import { generateText } from "ai";',
        "",
        "const tierway = createOpenAICompatible({",
        `  name: "tierway", baseURL: ${quoted(base)}, apiKey: ${quoted(secret)},`,
        "});",
        `const { text } = await generateText({ model: tierway(${quoted(model)}), prompt: "Hi" });`,
        "console.log(text);",
      ].join("\n"),
    },
  ];
}

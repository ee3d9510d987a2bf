/** Sample traffic for a gateway whose providers are all simulated: this page asks it, as any client does. */
import { api, ApiError, segment } from "./api/client";
import type { IssuedKey } from "./api/types";
import { gateway, Store } from "./store";

const NAME = "sample-traffic";
const EVERY_MS = 120;
const MOST_OPEN = 60;

export const sampling = new Store<"off" | "on" | string>("off");

let timer: number | undefined;
let open = 0;

const PROMPTS = [
  "Summarise this week's incident report in three sentences.",
  "Write a haiku about load balancers.",
  "Which of these two invoices is older?",
  "Translate: the region is back.",
];

/** A key for this run: made once, and given a new secret each time. */
async function secret(): Promise<string> {
  const policies = gateway.get()?.policies ?? [];
  const policy = policies.includes("pro") ? "pro" : policies[0];
  if (policy === undefined) throw new ApiError(0, "no_policy", "There is no policy to make a key with.", null);
  try {
    return (await api.post<IssuedKey>("/keys", { name: NAME, policy })).secret ?? "";
  } catch (error) {
    if (!(error instanceof ApiError) || error.code !== "conflict") throw error;
    return (await api.post<IssuedKey>(`/keys/${segment(NAME)}/rotate`, { overlap: "0s" })).secret ?? "";
  }
}

async function ask(key: string, model: string): Promise<void> {
  open += 1;
  try {
    const content = PROMPTS[Math.floor(Math.random() * PROMPTS.length)];
    const body = { model, stream: Math.random() < 0.7, max_tokens: 24, messages: [{ role: "user", content }] };
    const answer = await fetch("/v1/chat/completions", {
      method: "POST",
      credentials: "omit",
      headers: { authorization: `Bearer ${key}`, "content-type": "application/json" },
      body: JSON.stringify(body),
    });
    await answer.text();
  } catch {
    // The page shows what became of it, from the gateway's side.
  } finally {
    open -= 1;
  }
}

export async function startSampling(): Promise<void> {
  if (sampling.get() === "on") return;
  try {
    const [key, model] = [await secret(), gateway.get()?.example_model ?? "auto"];
    sampling.set("on");
    window.clearInterval(timer);
    timer = window.setInterval(() => {
      if (open < MOST_OPEN && !document.hidden) void ask(key, model);
    }, EVERY_MS);
  } catch (error) {
    sampling.set(error instanceof Error ? error.message : "It could not be started.");
  }
}

export function stopSampling(): void {
  window.clearInterval(timer);
  sampling.set("off");
}

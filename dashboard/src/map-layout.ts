/** Where tiers, models and deployments stand on the map, and how thick the lines between them are. */
import type { Deployment, Gateway, Second } from "./api/types";

export const ROW = 48;
const GAP = 8;

export interface Box {
  name: string;
  /** The middle, from the top. */
  y: number;
}

export interface Line {
  from: string;
  to: string;
  fromY: number;
  toY: number;
  /** Attempts a second. */
  rate: number;
  failed: boolean;
}

export interface MapLayout {
  height: number;
  tiers: Box[];
  models: Box[];
  deployments: (Box & { deployment: Deployment })[];
  toModels: Line[];
  toDeployments: Line[];
}

/** Attempts a second by deployment and tier over the last seconds. */
export interface Flow {
  deployment: string;
  tier: string | null;
  rate: number;
  failedRate: number;
}

export function flows(seconds: Second[]): Flow[] {
  const found = new Map<string, Flow>();
  for (const traffic of seconds.flatMap((second) => second.deployments)) {
    const id = JSON.stringify([traffic.deployment, traffic.tier]);
    const flow = found.get(id) ?? { deployment: traffic.deployment, tier: traffic.tier, rate: 0, failedRate: 0 };
    flow.rate += traffic.attempts / seconds.length;
    flow.failedRate += traffic.failed / seconds.length;
    found.set(id, flow);
  }
  return [...found.values()];
}

/** The width of a line in pixels: it grows with the logarithm of the rate, so that little is seen beside much. */
export function width(ratePerS: number): number {
  return ratePerS <= 0 ? 1 : Math.min(14, 1.5 + 2.5 * Math.log2(1 + ratePerS));
}

function stacked(names: string[]): Box[] {
  return names.map((name, at) => ({ name, y: at * (ROW + GAP) + ROW / 2 }));
}

/** Boxes as near to the wanted middles as their order and size allow, from the top down and then up from the end. */
function spread(wanted: Box[], height: number): Box[] {
  const boxes = wanted.map((box) => ({ ...box }));
  let least = ROW / 2;
  for (const box of boxes) {
    box.y = Math.max(box.y, least);
    least = box.y + ROW + GAP;
  }
  let most = height - ROW / 2;
  for (const box of boxes.reverse()) {
    box.y = Math.min(box.y, most);
    most = box.y - ROW - GAP;
  }
  return boxes.reverse();
}

const middle = (ys: number[], otherwise: number) => (ys.length === 0 ? otherwise : ys.reduce((sum, y) => sum + y, 0) / ys.length);

export function layout(gateway: Gateway, deployments: Deployment[], flow: Flow[]): MapLayout {
  const order = [...new Set([...gateway.tiers.flatMap((tier) => tier.models), ...deployments.map((one) => one.model)])];
  const models = order.filter((model) => deployments.some((one) => one.model === model));
  const sorted = [...deployments].sort((a, b) => models.indexOf(a.model) - models.indexOf(b.model));
  const most = Math.max(gateway.tiers.length, models.length, sorted.length, 1);
  const height = most * ROW + (most - 1) * GAP;
  const ends = stacked(sorted.map((one) => one.deployment));
  const placed = ends.flatMap((box, at) => {
    const deployment = sorted[at];
    return deployment === undefined ? [] : [{ ...box, deployment }];
  });
  // A model stands beside the middle of its deployments, a tier beside that of the models that no tier before it has.
  const modelBoxes = spread(
    models.map((name) => ({ name, y: middle(placed.filter((one) => one.deployment.model === name).map((one) => one.y), 0) })),
    height,
  );
  const seen = new Set<string>();
  const tierBoxes = spread(
    gateway.tiers.map((tier) => {
      const own = tier.models.filter((model) => !seen.has(model));
      own.forEach((model) => seen.add(model));
      return { name: tier.name, y: middle(modelBoxes.filter((box) => own.includes(box.name)).map((box) => box.y), 0) };
    }),
    height,
  );
  const rateOf = (match: (one: Flow) => boolean, of: (one: Flow) => number) =>
    flow.filter(match).reduce((sum, one) => sum + of(one), 0);
  const modelOf = new Map(sorted.map((one) => [one.deployment, one.model]));
  const toModels = gateway.tiers.flatMap((tier) =>
    tier.models.flatMap((model): Line[] => {
      const from = tierBoxes.find((box) => box.name === tier.name);
      const to = modelBoxes.find((box) => box.name === model);
      if (from === undefined || to === undefined) return [];
      const rate = rateOf((one) => one.tier === tier.name && modelOf.get(one.deployment) === model, (one) => one.rate);
      return [{ from: tier.name, to: model, fromY: from.y, toY: to.y, rate, failed: false }];
    }),
  );
  const toDeployments = placed.flatMap((box): Line[] => {
    const from = modelBoxes.find((one) => one.name === box.deployment.model);
    if (from === undefined) return [];
    const rate = rateOf((one) => one.deployment === box.name, (one) => one.rate);
    const failedRate = rateOf((one) => one.deployment === box.name, (one) => one.failedRate);
    return [{ from: from.name, to: box.name, fromY: from.y, toY: box.y, rate, failed: failedRate > rate / 2 }];
  });
  return { height, tiers: tierBoxes, models: modelBoxes, deployments: placed, toModels, toDeployments };
}

/** How a deployment's state is shown: a word, a shape, a colour. */
export type Lamp = "good" | "warn" | "bad" | "rest";

export function lamp(state: string): Lamp {
  switch (state) {
    case "closed":
      return "good";
    case "half_open":
      return "warn";
    case "silent":
    case "open":
      return "bad";
    default:
      return "rest";
  }
}

const STATE_WORDS: Record<string, string> = {
  closed: "serving",
  half_open: "probing",
  open: "open",
  silent: "silent",
  resting: "resting",
};

export function stateWord(state: string): string {
  return STATE_WORDS[state] ?? state;
}

const CAUSES: Record<string, string> = {
  consecutive: "several attempts failed in a row",
  ratio: "too many attempts failed",
  probe: "its probe failed",
  broken_off: "its answers broke off",
  throttled: "its provider throttles",
  not_found: "its provider does not know the model",
  credential_refused: "its credential is refused",
  silent: "nothing comes from it",
};

/** Why a deployment does not get its traffic, after "because". */
export function causeWords(cause: string): string {
  return CAUSES[cause] ?? cause.replaceAll("_", " ");
}

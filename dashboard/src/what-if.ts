/** What the same traffic would have cost with another split over tiers, or at another price. As `tierway cost` computes it. */
import type { UsageRow } from "./api/types";

/** The sum of a tier; null: requests outside every tier. */
export interface TierSpend {
  tier: string | null;
  requests: number;
  input: number;
  output: number;
  /** USD. */
  cost: number;
}

/** USD per million tokens. */
export interface TokenPrice {
  input: number;
  output: number;
}

/** Sums that say something: requests that reached no model cost nothing with any split. */
export function spendOf(rows: UsageRow[]): TierSpend[] {
  const met = rows.filter((row) => row.metered > 0 || Number(row.cost_usd) !== 0);
  return met.map((row) => ({
    tier: row.tier ?? null,
    requests: row.requests,
    input: row.input_tokens,
    output: row.output_tokens,
    cost: Number(row.cost_usd),
  }));
}

/** The tiers that had traffic, and so a price that is known. */
export function tiersOf(sums: TierSpend[]): TierSpend[] {
  return sums.filter((sum) => sum.tier !== null && tokens(sum) > 0);
}

export function tokens(sum: TierSpend): number {
  return sum.input + sum.output;
}

/** The share of each tier in all tokens of tiers, in percent. */
export function actualSplit(sums: TierSpend[]): Record<string, number> {
  const tiers = tiersOf(sums);
  const all = tiers.reduce((sum, tier) => sum + tokens(tier), 0);
  return Object.fromEntries(tiers.map((tier) => [tier.tier ?? "", (100 * tokens(tier)) / all]));
}

/**
 * What each of `sums` would have cost in USD if the tiers had shared all tokens by `shares`, each token at what one cost in its
 * tier on average. Traffic outside every tier stays as it was. null: the shares are all zero.
 */
export function withSplit(sums: TierSpend[], shares: Record<string, number>): number[] | null {
  const tiers = tiersOf(sums);
  const all = tiers.reduce((sum, tier) => sum + tokens(tier), 0);
  const share = (tier: string | null) => Math.max(0, shares[tier ?? ""] ?? 0);
  const parts = tiers.reduce((sum, tier) => sum + share(tier.tier), 0);
  if (parts === 0) return null;
  return sums.map((sum) => {
    if (sum.tier === null || tokens(sum) === 0) return sum.cost;
    return ((all * share(sum.tier)) / parts / tokens(sum)) * sum.cost;
  });
}

/** The tier whose tokens cost most on average, and what all tokens of tiers would have cost by it; null with one tier or none. */
export function byDearest(sums: TierSpend[]): { tier: string; cost: number } | null {
  const tiers = tiersOf(sums);
  const each = (sum: TierSpend) => sum.cost / tokens(sum);
  const dearest = tiers.reduce<TierSpend | null>((most, tier) => (most === null || each(tier) > each(most) ? tier : most), null);
  if (dearest === null || tiers.length < 2) return null;
  const tier = dearest.tier ?? "";
  return { tier, cost: withSplit(sums, { [tier]: 1 })?.reduce((all, cost) => all + cost, 0) ?? 0 };
}

/** What the tokens of `sum` cost at `price`, in USD. */
export function atPrice(sum: TierSpend, price: TokenPrice): number {
  return (sum.input * price.input + sum.output * price.output) / 1e6;
}

/** A table as CSV. A text that a spreadsheet would take for a formula begins with an apostrophe. */
export function csv(head: string[], rows: (string | number | null)[][]): string {
  const cell = (value: string | number | null) => {
    if (value === null) return "";
    if (typeof value === "number") return String(value);
    const text = /^[=+\-@\t\r]/.test(value) ? `'${value}` : value;
    return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  return [head, ...rows].map((row) => `${row.map(cell).join(",")}\r\n`).join("");
}

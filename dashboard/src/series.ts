/** The history as plots take it, continued by the seconds that come in. */
import type { GatewayEvent, History, Second } from "./api/types";

export const SPANS = ["15m", "6h", "7d"] as const;
export type Span = (typeof SPANS)[number];

const LENGTH_S: Record<Span, number> = { "15m": 15 * 60, "6h": 6 * 3600, "7d": 7 * 86_400 };

export interface Series {
  span: Span;
  stepS: number;
  /** The beginning of each step, as Unix seconds. */
  time: number[];
  requests: number[];
  refused: number[];
  faults: number[];
  attempts: number[];
  p50: (number | null)[];
  p99: (number | null)[];
  cost: number[];
  events: GatewayEvent[];
}

export function seriesOf(history: History): Series {
  const from = Date.parse(history.from) / 1000;
  const stepS = history.step_s;
  const ms = (us: number | null) => (us === null ? null : us / 1000);
  return {
    span: history.span as Span,
    stepS,
    time: history.requests.map((_, at) => from + at * stepS),
    requests: history.requests,
    refused: history.refused,
    faults: history.faults,
    attempts: history.attempts,
    p50: history.first_token_p50_us.map(ms),
    p99: history.first_token_p99_us.map(ms),
    cost: history.cost_usd.map(Number),
    events: history.events,
  };
}

/** The series with one more second; only one of seconds grows by them. Seconds that were missed are gaps of zero. */
export function extended(series: Series, second: Second): Series {
  const at = Date.parse(second.time) / 1000;
  const last = series.time.at(-1);
  if (series.stepS !== 1 || (last !== undefined && at <= last)) return series;
  const missed = last === undefined ? 0 : Math.min(at - last - 1, LENGTH_S["15m"]);
  const gap = Array.from({ length: missed }, () => 0);
  const none = gap.map(() => null);
  const drop = Math.max(0, series.time.length + missed + 1 - LENGTH_S[series.span]);
  const more = <T>(list: T[], between: T[], value: T) => [...list, ...between, value].slice(drop);
  const ms = (us: number | null) => (us === null ? null : us / 1000);
  return {
    ...series,
    time: more(series.time, gap.map((_, n) => (last ?? at) + n + 1), at),
    requests: more(series.requests, gap, second.requests),
    refused: more(series.refused, gap, second.refused),
    faults: more(series.faults, gap, second.faults),
    attempts: more(series.attempts, gap, second.attempts),
    p50: more(series.p50, none, ms(second.first_token_p50_us)),
    p99: more(series.p99, none, ms(second.first_token_p99_us)),
    cost: more(series.cost, gap, Number(second.cost_usd)),
  };
}

/** The lengths that an axis has, so that a young gateway is not a line at its end. */
const AXIS_S: Record<Span, number[]> = {
  "15m": [120, 300, 600, 900],
  "6h": [1800, 3600, 3 * 3600, 6 * 3600],
  "7d": [6 * 3600, 86_400, 3 * 86_400, 7 * 86_400],
};

/** The beginning and the end of the time axis: the shortest one that holds what is known. */
export function axis(series: Series, nowS: number): [number, number] {
  const end = series.time.at(-1) ?? nowS;
  const known = end - (series.time[0] ?? end);
  const length = AXIS_S[series.span].find((one) => one > known) ?? LENGTH_S[series.span];
  return [end - length, end];
}

/** What is shown of the events: a breaker that stays open is told of once, not at each probe that fails. */
export function worthShowing(event: GatewayEvent): boolean {
  return event.kind !== "probe" && !(event.kind === "trip" && event.detail === "probe");
}

export interface Totals {
  requests: number;
  refused: number;
  faults: number;
  attempts: number;
  cost: number;
}

export function totals(series: Series): Totals {
  const sum = (list: number[]) => list.reduce((all, one) => all + one, 0);
  return {
    requests: sum(series.requests),
    refused: sum(series.refused),
    faults: sum(series.faults),
    attempts: sum(series.attempts),
    cost: sum(series.cost),
  };
}

/** The latest value that there is. */
export function latest(list: (number | null)[]): number | null {
  for (let at = list.length - 1; at >= 0; at -= 1) {
    const value = list[at];
    if (value != null) return value;
  }
  return null;
}

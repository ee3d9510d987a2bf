/** What the page computes, without a page. */
import { describe, expect, it } from "vitest";
import { pauseMs } from "./api/live";
import type { Deployment, Gateway, GatewayEvent, RequestRow, Second } from "./api/types";
import { beginning, count, duration, money, offset, percent, rate, span } from "./format";
import { flows, lamp, layout, ROW, width } from "./map-layout";
import { build, linkToken, parse } from "./route";
import { chosen, origins } from "./settings";
import { axis, extended, latest, totals, worthShowing, type Series } from "./series";
import { shellQuoted, snippets } from "./snippets";
import { burn, budgetLeft, isKept, monthBefore } from "./sla-words";
import { tick } from "./ui/plot";
import { sorted } from "./ui/table";
import { waterfall } from "./waterfall";
import { actualSplit, atPrice, byDearest, csv, spendOf, withSplit, type TierSpend } from "./what-if";

describe("numbers as people read them", () => {
  it.each([
    [0, "0"], [0.00002, "<0.1"], [0.25, "0.3"], [9.96, "10.0"], [1234.4, "1,234"],
  ])("rate %d", (value, text) => expect(rate(value)).toBe(text));
  it.each([
    [0, "0"], [99_999, "99,999"], [1_234_567, "1.23 M"], [123_456, "123 k"],
  ])("count %d", (value, text) => expect(count(value)).toBe(text));
  it.each([
    [null, "–"], [0, "0 µs"], [850, "850 µs"], [1500, "1.5 ms"], [61_400, "61 ms"], [1_234_000, "1.23 s"],
    [12_340_000, "12.3 s"], [125_000_000, "2 min 5 s"],
  ])("duration %s", (us, text) => expect(duration(us)).toBe(text));
  it.each([
    ["0", "$0"], ["12.345", "$12.35"], ["0.0000213", "$0.000021"], ["0.000000001", "$0.000000001"], ["-1.5", "−$1.50"],
    ["12345.6", "$12,346"], [null, "–"], ["what", "–"],
  ])("money %s", (usd, text) => expect(money(usd)).toBe(text));
  it.each([
    [0, 0, "–"], [0, 10, "0 %"], [1, 1_000_000, "<0.01 %"], [1, 100, "1.00 %"], [1, 2, "50.0 %"],
  ])("percent %d of %d", (part, whole, text) => expect(percent(part, whole)).toBe(text));
  it.each([
    [0, "UTC"], [-120, "UTC+2"], [210, "UTC−3:30"],
  ])("offset %d", (behind, text) => expect(offset(behind)).toBe(text));
  it("spans have two units at most", () => {
    expect(span(0, 0)).toBe("0 s");
    expect(span(0, 61_000)).toBe("1 min 1 s");
    expect(span(0, 90_061_000)).toBe("1 d 1 h");
  });
  it("a month begins on its first day, with the zone's offset", () => {
    const text = beginning("month", new Date(2026, 10, 22, 15));
    expect(text).toMatch(/^2026-11-01T00:00:00(Z|[+-]\d\d:\d\d)$/);
    expect(Date.parse(text)).toBe(new Date(2026, 10, 1).getTime());
  });
});

describe("views are URLs", () => {
  it.each([
    ["", "overview", null], ["#/", "overview", null], ["#/nothing", "overview", null], ["#/map/eu%2Forg%2Fm", "map", "eu/org/m"],
    ["#/requests?key=a%20b", "requests", null], ["#/keys/%", "keys", "%"],
  ])("%s", (hash, page, detail) => expect(parse(hash)).toMatchObject({ page, detail }));
  it("what is built is parsed", () => {
    const names = ["a/b", "<script>", "%2f", "a?b#c", "é"];
    for (const name of names) {
      expect(parse(build("keys", name, { key: name, model: "" }))).toEqual({ page: "keys", detail: name, query: { key: name } });
    }
  });
  it("a link that signs in is none of them", () => {
    expect(linkToken("#twl_abc0Z")).toBe("twl_abc0Z");
    for (const hash of ["#/overview", "#twl_", "#twl_a/b", "#twa_abc", "twl_abc"]) expect(linkToken(hash)).toBeNull();
  });
});

function second(at: number, requests: number, more: Partial<Second> = {}): Second {
  return {
    object: "second", time: new Date(at * 1000).toISOString(), requests, served: requests, refused: 0, failed: 0, broken: 0,
    abandoned: 0, faults: 0, attempts: requests, failovers: 0, first_token_p50_us: 1000, first_token_p99_us: 2000,
    input_tokens: 0, output_tokens: 0, cost_usd: "0.5", attempts_in_flight: 0, faults_active: 0, deployments: [], ...more,
  };
}

describe("the series", () => {
  const empty: Series = {
    span: "15m", stepS: 1, time: [], requests: [], refused: [], faults: [], attempts: [], p50: [], p99: [], cost: [], events: [],
  };
  it("grows by seconds, with gaps where some were missed", () => {
    const series = extended(extended(empty, second(100, 3)), second(103, 2));
    expect(series.time).toEqual([100, 101, 102, 103]);
    expect(series.requests).toEqual([3, 0, 0, 2]);
    expect(series.p99).toEqual([2, null, null, 2]);
    expect(totals(series)).toMatchObject({ requests: 5, cost: 1 });
    expect(extended(series, second(103, 9))).toBe(series);
    expect(extended({ ...series, stepS: 10 }, second(104, 9)).requests).toHaveLength(4);
  });
  it("keeps to its length", () => {
    let series = empty;
    for (let at = 0; at < 1000; at += 1) series = extended(series, second(at, 1));
    expect(series.time).toHaveLength(900);
    expect(axis(series, 0)).toEqual([99, 999]);
    expect(axis(extended(empty, second(50, 1)), 0)).toEqual([-70, 50]);
    expect(axis(empty, 1000)).toEqual([880, 1000]);
    expect(extended(series, second(100_000, 1)).time).toHaveLength(900);
  });
  it("tells of an open breaker once", () => {
    const event = (kind: string, detail: string) => ({ object: "event", time: "", kind, subject: "", detail }) as GatewayEvent;
    expect(worthShowing(event("trip", "consecutive"))).toBe(true);
    expect(worthShowing(event("recovery", "recovered"))).toBe(true);
    expect(worthShowing(event("trip", "probe"))).toBe(false);
    expect(worthShowing(event("probe", ""))).toBe(false);
  });
  it("knows its latest value", () => {
    expect(latest([1, null, 0, null])).toBe(0);
    expect(latest([null])).toBeNull();
  });
});

function deployment(name: string, model: string, region: string): Deployment {
  return { deployment: name, model, region, provider: region, state: "closed" } as Deployment;
}

describe("the map", () => {
  const gateway = {
    tiers: [
      { name: "default", models: ["a"], then: ["fallback"] },
      { name: "fallback", models: ["b", "a"], then: [] },
    ],
  } as unknown as Gateway;
  const all = [deployment("us/b", "b", "us"), deployment("us/a", "a", "us"), deployment("eu/a", "a", "eu"), deployment("us/c", "c", "us")];
  const flow = flows([
    second(1, 2, { deployments: [{ deployment: "us/a", tier: "default", attempts: 4, failed: 4 }, { deployment: "eu/a", tier: "default", attempts: 2, failed: 0 }] }),
    second(2, 2, { deployments: [{ deployment: "us/a", tier: "fallback", attempts: 2, failed: 2 }] }),
  ]);
  const plan = layout(gateway, all, flow);
  it("has every deployment once, grouped by model in the order of the tiers", () => {
    expect(plan.deployments.map((one) => one.name)).toEqual(["us/a", "eu/a", "us/b", "us/c"]);
    expect(plan.models.map((one) => one.name)).toEqual(["a", "b", "c"]);
    const ys = plan.deployments.map((one) => one.y);
    ys.forEach((y, at) => expect(at === 0 || y - (ys[at - 1] ?? 0) >= ROW).toBe(true));
    expect(plan.height).toBeGreaterThanOrEqual((ys.at(-1) ?? 0) + ROW / 2);
  });
  it("draws lines as thick as traffic", () => {
    const rates = Object.fromEntries(plan.toModels.map((line) => [`${line.from} ${line.to}`, line.rate]));
    expect(rates).toEqual({ "default a": 3, "fallback b": 0, "fallback a": 1 });
    expect(plan.toDeployments.map((line) => [line.to, line.rate, line.failed])).toEqual([
      ["us/a", 3, true], ["eu/a", 1, false], ["us/b", 0, false], ["us/c", 0, false],
    ]);
    expect(width(0)).toBeLessThan(width(0.5));
    expect(width(1e9)).toBeLessThanOrEqual(14);
  });
  it("gives every state a lamp", () => {
    expect(["closed", "half_open", "open", "silent", "resting", "of tomorrow"].map(lamp)).toEqual(["good", "warn", "bad", "bad", "rest", "rest"]);
  });
  it("is drawn without any tier or deployment", () => {
    expect(layout({ tiers: [] } as unknown as Gateway, [], []).deployments).toEqual([]);
    expect(flows([])).toEqual([]);
  });
});

describe("the waterfall", () => {
  const attempt = (name: string, reason: string, started_us: number | null, duration_us: number) => ({ deployment: name, reason, started_us, duration_us });
  const request = (more: object) => ({ attempts: [], first_token_us: null, duration_us: 100_000, outcome: "served", ...more }) as unknown as RequestRow;
  it("shows attempts, waits between them and the answer", () => {
    const { bars, totalUs } = waterfall(request({
      attempts: [attempt("us", "unreachable", 100, 5_000), attempt("eu", "served", 40_000, 20_000)], first_token_us: 60_000,
    }));
    expect(bars.map((bar) => [bar.kind, bar.startUs, bar.endUs, bar.good])).toEqual([
      ["attempt", 100, 5_100, false], ["wait", 5_100, 40_000, true], ["attempt", 40_000, 60_000, true], ["answer", 60_000, 100_000, true],
    ]);
    expect(totalUs).toBe(100_000);
  });
  it("shows attempts beside each other", () => {
    const { bars } = waterfall(request({ attempts: [attempt("us", "overtaken", 0, 90_000), attempt("eu", "served", 50_000, 10_000)] }));
    expect(bars.map((bar) => bar.kind)).toEqual(["attempt", "attempt"]);
  });
  it("is empty for what was refused, and takes receipts without a beginning", () => {
    expect(waterfall(request({ duration_us: 0 }))).toEqual({ bars: [], totalUs: 1 });
    expect(waterfall(request({ attempts: [attempt("us", "served", null, 7)] })).bars[0]).toMatchObject({ startUs: 0, endUs: 7 });
  });
});

describe("snippets", () => {
  it("quote whatever a name holds", () => {
    expect(shellQuoted("it's")).toBe(`'it'\\''s'`);
    const [curl, python] = snippets("http://h:1", "tw_x", `a'b"c`);
    expect(curl?.text).toContain(`-d '{"model":"a'\\''b\\"c",`);
    expect(python?.text).toContain(`model="a'b\\"c"`);
  });
  it("name the address and the secret each", () => {
    for (const { text } of snippets("http://h:1", "tw_x", "auto")) {
      expect(text).toContain("http://h:1/v1");
      expect(text).toContain("tw_x");
    }
  });
});

it("rows are sorted by numbers as numbers and by names as people do", () => {
  expect(sorted([10, 9, 1], (one) => one, true)).toEqual([10, 9, 1]);
  expect(sorted(["k10", "k9", "K1"], (one) => one, false)).toEqual(["K1", "k9", "k10"]);
});

it("the pause before connecting again grows to some seconds", () => {
  expect([1, 2, 3, 4, 5, 50].map(pauseMs)).toEqual([500, 1000, 2000, 4000, 8000, 8000]);
});

describe("what the same traffic would cost otherwise", () => {
  const tier = (name: string | null, tokens: number, cost: number): TierSpend => ({ tier: name, requests: 1, input: tokens, output: 0, cost });
  const sums = [tier("premium", 100, 1000), tier("default", 300, 300), tier(null, 7, 9)];
  it.each([
    [{ default: 75, premium: 25 }, [1000, 300, 9]],
    [{ default: 1, premium: 1 }, [2000, 200, 9]],
    [{ default: 1, premium: 0 }, [0, 400, 9]],
    [{ default: 30, premium: -5 }, [0, 400, 9]],
    [{ default: 0 }, null],
  ])("with the split %j", (shares, costs) => expect(withSplit(sums, shares)).toEqual(costs));
  it("the split that was costs what was paid", () => {
    expect(actualSplit(sums)).toEqual({ premium: 25, default: 75 });
    expect(withSplit(sums, actualSplit(sums))).toEqual([1000, 300, 9]);
  });
  it("the dearest tier is what the others are cheaper than", () => {
    expect(byDearest(sums)).toEqual({ tier: "premium", cost: 4009 });
    expect(byDearest(sums.slice(1))).toBeNull();
    expect(byDearest([])).toBeNull();
  });
  it("a price is for a million tokens", () => {
    expect(atPrice({ ...tier("a", 2_000_000, 0), output: 1_000_000 }, { input: 0.5, output: 2 })).toBe(3);
  });
  it("requests that reached no model are left out", () => {
    const row = { requests: 3, metered: 0, failed: 3, estimated: 0, input_tokens: 0, cached_input_tokens: 0, output_tokens: 0, reasoning_tokens: 0, cost_usd: "0", tier: "a" };
    expect(spendOf([row, { ...row, metered: 1 }]).length).toBe(1);
  });
  it("no name in a table is a formula", () => {
    const rows = [["=1+1", 2], ["-a", 0.5], ['say "a", b', 1], [null, 0], ["plain", -1]];
    expect(csv(["key", "n"], rows)).toBe("key,n\r\n'=1+1,2\r\n'-a,0.5\r\n\"say \"\"a\"\", b\",1\r\n,0\r\nplain,-1\r\n");
  });
});

describe("an SLA in words", () => {
  it.each([
    ["99.9%", "99.9%", true], ["99.87%", "99.9%", false], ["100%", "99.9%", true], [null, "99.9%", null],
  ])("%s of %s", (uptime, promised, kept) => expect(isKept(uptime, promised)).toBe(kept));
  it.each([
    [0, "0 s"], [119, "119 s"], [2678, "45 min"], [-90, "−90 s"], [9000, "2.5 h"],
  ])("%d s of budget", (seconds, text) => expect(budgetLeft(seconds)).toBe(text));
  it.each([
    [null, "–"], [0, "0.0 ×"], [1400, "1.4 ×"], [14_400, "14 ×"],
  ])("burn %s", (thousandths, text) => expect(burn(thousandths)).toBe(text));
  it.each([
    ["2026-12", "2026-11"], ["2026-01", "2025-12"],
  ])("before %s", (month, before) => expect(monthBefore(month)).toBe(before));
});

describe("an axis of time", () => {
  it("has seconds where several ticks are in one minute", () => {
    const at = new Date(2026, 10, 22, 15, 4, 30).getTime() / 1000;
    expect(tick(at, 600, 30)).toBe("15:04:30");
    expect(tick(at, 900, 60)).toBe("15:04");
    expect(tick(at, 7 * 86_400, 86_400)).toBe("11-22 15:04");
  });
});

describe("settings", () => {
  const one = (setting: string, origin: string) => ({ setting, value: '"x"', origin });
  const settings = [one("server.listen", "env TIERWAY__SERVER__LISTEN"), one("server.drain", "default"), one("routing.total", "file, line 3")];
  it("are those that somebody wrote, or all, with the searched text in any column", () => {
    const names = (text: string, all: boolean) => chosen(settings, text, all).map((row) => row.setting);
    expect(names("", false)).toEqual(["server.listen", "routing.total"]);
    expect(names(" SERVER", true)).toEqual(["server.listen", "server.drain"]);
    expect(names("line 3", false)).toEqual(["routing.total"]);
    expect(names("drain", false)).toEqual([]);
  });
  it("are counted by origin", () => {
    expect(origins(settings)).toEqual({ file: 1, environment: 1, unwritten: 1 });
  });
});

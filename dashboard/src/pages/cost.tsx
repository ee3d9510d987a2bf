/** What was spent on what, day by day; and what the same traffic would have cost otherwise. */
import { useState } from "preact/hooks";
import { api, ApiError, query } from "../api/client";
import type { Usage, UsageRow } from "../api/types";
import { beginning, count, money, percent } from "../format";
import { build, type Route } from "../route";
import { Empty, Problem, usePolled } from "../ui/parts";
import { Table, type Column } from "../ui/table";
import { actualSplit, atPrice, byDearest, csv, spendOf, tiersOf, tokens, withSplit, type TierSpend } from "../what-if";

const SPANS = { month: "This month", "7d": "7 days", "30d": "30 days", "90d": "90 days" } as const;
type Span = keyof typeof SPANS;

const DIMENSIONS = { model: "Model", tier: "Tier", team: "Team", key: "Key", policy: "Policy", region: "Region" } as const;
type Dimension = keyof typeof DIMENSIONS;

const EVERY_MS = 30_000;

function since(span: Span): string {
  return span === "month" ? beginning("month", new Date()) : span;
}

function read(by: string, span: Span): Promise<Usage> {
  return api.get<Usage>(`/usage${query({ by, since: since(span) })}`);
}

export function Cost({ route }: { route: Route }) {
  const span = (Object.keys(SPANS) as Span[]).find((one) => one === route.query.span) ?? "month";
  const by = (Object.keys(DIMENSIONS) as Dimension[]).find((one) => one === route.query.by) ?? "model";
  const sums = usePolled(() => read(by, span), EVERY_MS, [by, span]);
  const days = usePolled(() => read("day", span), EVERY_MS, [span]);
  const tiers = usePolled(() => read("tier", span), EVERY_MS, [span]);
  const shown = sums.value !== null && sums.value.by[0] === by ? sums.value : null;
  if (sums.error instanceof ApiError && sums.error.code === "no_ledger") return <NoLedger />;
  return (
    <>
      <div class="page-head">
        <h1>Cost</h1>
        <div class="segments" role="group" aria-label="Time span">
          {(Object.keys(SPANS) as Span[]).map((one) => (
            <a key={one} href={build("cost", null, { span: one, by })} aria-current={one === span ? "true" : undefined}>
              {SPANS[one]}
            </a>
          ))}
        </div>
      </div>
      {sums.error !== null && <Problem error={sums.error} again={sums.again} />}
      {shown === null ? (
        <div class="waiting" aria-busy="true" />
      ) : shown.total.requests === 0 ? (
        <section class="card">
          <Empty title="Nothing was spent in this time.">
            <p>
              Requests that are served are here a second later; <code>tierway usage</code> shows the same sums in a terminal.
            </p>
          </Empty>
        </section>
      ) : (
        <>
          <Totals usage={shown} />
          {days.error !== null && <Problem error={days.error} again={days.again} />}
          {days.value !== null && <Days rows={days.value.data} />}
          <Sums usage={shown} by={by} span={span} />
          {tiers.error !== null && <Problem error={tiers.error} again={tiers.again} />}
          {tiers.value !== null && <WhatIf key={span} sums={spendOf(tiers.value.data)} />}
        </>
      )}
    </>
  );
}

function NoLedger() {
  return (
    <>
      <div class="page-head">
        <h1>Cost</h1>
      </div>
      <section class="card">
        <Empty title="No ledger is kept.">
          <p>
            Write <code>[store] url = "sqlite:tierway.db"</code>, and what each request costs is kept and added up here.
          </p>
        </Empty>
      </section>
    </>
  );
}

function Totals({ usage: { total } }: { usage: Usage }) {
  const each = total.requests === 0 ? null : Number(total.cost_usd) / total.requests;
  const tiles: [string, string, string][] = [
    ["Spent", money(total.cost_usd), `${count(total.estimated)} of ${count(total.requests)} requests estimated`],
    ["Per request", money(each), "on average"],
    ["Tokens in", count(total.input_tokens), `${percent(total.cached_input_tokens, total.input_tokens)} from a cache`],
    ["Tokens out", count(total.output_tokens), `${count(total.reasoning_tokens)} of them reasoning`],
  ];
  return (
    <dl class="tiles four">
      {tiles.map(([title, value, note]) => (
        <div key={title} class="tile">
          <dt>{title}</dt>
          <dd>
            <span class="value">{value}</span>
            <span class="note">{note}</span>
          </dd>
        </div>
      ))}
    </dl>
  );
}

function Days({ rows }: { rows: UsageRow[] }) {
  const most = Math.max(...rows.map((row) => Number(row.cost_usd)), 0);
  if (rows.length < 2 || most === 0) return null;
  return (
    <section class="card">
      <h2>By day, in UTC</h2>
      <ol class="days">
        {rows.map((row) => (
          <li key={row.day} title={`${row.day}: ${money(row.cost_usd)}, ${count(row.requests)} requests`}>
            <span class="day-bar" aria-hidden="true">
              <span style={{ height: `${(100 * Number(row.cost_usd)) / most}%` }} />
            </span>
            <span class="day-name">{row.day?.slice(5)}</span>
            <span class="day-cost">{money(row.cost_usd)}</span>
          </li>
        ))}
      </ol>
    </section>
  );
}

function Sums({ usage, by, span }: { usage: Usage; by: Dimension; span: Span }) {
  const nameOf = (row: UsageRow) => row[by] ?? null;
  const name = (row: UsageRow) => nameOf(row) ?? (by === "team" ? "no team" : "none");
  const columns: Column<UsageRow>[] = [
    { id: "name", title: DIMENSIONS[by], cell: name, by: name },
    { id: "requests", title: "Requests", cell: (row) => count(row.requests), by: (row) => row.requests, numeric: true },
    { id: "input", title: "Tokens in", cell: (row) => count(row.input_tokens), by: (row) => row.input_tokens, numeric: true, wide: true },
    { id: "output", title: "Tokens out", cell: (row) => count(row.output_tokens), by: (row) => row.output_tokens, numeric: true, wide: true },
    { id: "cost", title: "Cost", cell: (row) => money(row.cost_usd), by: (row) => Number(row.cost_usd), numeric: true },
    {
      id: "share",
      title: "Share",
      cell: (row) => percent(Number(row.cost_usd), Number(usage.total.cost_usd)),
      by: (row) => Number(row.cost_usd),
      numeric: true,
    },
  ];
  const save = () => {
    const head = [by, "requests", "input_tokens", "cached_input_tokens", "output_tokens", "reasoning_tokens", "cost_usd"];
    const rows = usage.data.map((row) => [
      nameOf(row), row.requests, row.input_tokens, row.cached_input_tokens, row.output_tokens, row.reasoning_tokens, Number(row.cost_usd),
    ]);
    download(`tierway-cost-by-${by}.csv`, csv(head, rows));
  };
  return (
    <>
      <div class="page-head section-head">
        <h2>By</h2>
        <div class="segments" role="group" aria-label="Summed by">
          {(Object.keys(DIMENSIONS) as Dimension[]).map((one) => (
            <a key={one} href={build("cost", null, { span, by: one })} aria-current={one === by ? "true" : undefined}>
              {DIMENSIONS[one]}
            </a>
          ))}
        </div>
        <button type="button" onClick={save}>
          Download CSV
        </button>
      </div>
      <section class="card flush">
        <Table caption={`Cost by ${by}`} columns={columns} rows={usage.data} id={name} />
      </section>
    </>
  );
}

function download(name: string, text: string): void {
  const url = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
  const link = document.createElement("a");
  link.href = url;
  link.download = name;
  link.click();
  // Not before the browser has begun to read it.
  window.setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

function WhatIf({ sums }: { sums: TierSpend[] }) {
  const tiers = tiersOf(sums);
  const [shares, setShares] = useState<Record<string, number> | null>(null);
  const [price, setPrice] = useState({ input: "", output: "" });
  if (tiers.length === 0) return null;
  const actual = actualSplit(sums);
  const now = shares ?? actual;
  const dearest = byDearest(sums);
  const split = withSplit(sums, now);
  const other = { input: Number(price.input), output: Number(price.output) };
  const priced = price.input !== "" && price.output !== "" && other.input >= 0 && other.output >= 0;
  const whole = sums.reduce((sum, one) => sum + one.cost, 0);
  const all = (costs: number[] | null) => costs?.reduce((sum, cost) => sum + cost, 0) ?? null;
  const rows = sums.map((sum, at) => ({ sum, split: split?.[at] ?? null, priced: priced ? atPrice(sum, other) : null }));
  return (
    <section class="card what-if">
      <h2>What if</h2>
      <p class="hint">
        The same tokens, shared by the tiers in another way, each at what one cost in its tier on average; or all of them, those from a
        cache as well, at another price.
      </p>
      {dearest !== null && dearest.cost > whole && (
        <p class="saved">
          All of it by <strong>{dearest.tier}</strong> would have cost {money(dearest.cost)}: the tiers saved{" "}
          <strong>{percent(dearest.cost - whole, dearest.cost)}</strong>.
        </p>
      )}
      <div class="what-if-inputs">
        <fieldset>
          <legend>Split</legend>
          {tiers.map(({ tier }) => (
            <label key={tier} class="slider">
              <span>
                {tier} <strong>{share(now, tier ?? "")}</strong>
              </span>
              <input
                type="range"
                min="0"
                max="100"
                step="1"
                value={now[tier ?? ""] ?? 0}
                onInput={(event) => setShares({ ...now, [tier ?? ""]: Number(event.currentTarget.value) })}
              />
            </label>
          ))}
          <button type="button" class="plain" disabled={shares === null} onClick={() => setShares(null)}>
            As it was
          </button>
        </fieldset>
        <fieldset>
          <legend>Price, USD per million tokens</legend>
          <div class="form-row">
            <PriceInput label="In" example="0.60" value={price.input} onInput={(input) => setPrice({ ...price, input })} />
            <PriceInput label="Out" example="2.50" value={price.output} onInput={(output) => setPrice({ ...price, output })} />
          </div>
        </fieldset>
      </div>
      <div class="table-box" tabIndex={0} role="region" aria-label="Costs compared">
        <table>
          <thead>
            <tr>
              <th scope="col">Tier</th>
              <th scope="col" class="number wide">Tokens</th>
              <th scope="col" class="number">Was</th>
              <th scope="col" class="number">With the split</th>
              <th scope="col" class="number">At the price</th>
            </tr>
          </thead>
          <tbody>
            {rows.map((row) => (
              <tr key={row.sum.tier}>
                <td class="unbroken">{row.sum.tier ?? "no tier"}</td>
                <td class="number wide">{count(tokens(row.sum))}</td>
                <td class="number">{money(row.sum.cost)}</td>
                <td class="number">{money(row.split)}</td>
                <td class="number">{money(row.priced)}</td>
              </tr>
            ))}
          </tbody>
          <tfoot>
            <tr>
              <th scope="row">Together</th>
              <td class="number wide" />
              <td class="number">{money(whole)}</td>
              <Compared cost={all(split)} whole={whole} />
              <Compared cost={priced ? all(rows.map((row) => row.priced ?? 0)) : null} whole={whole} />
            </tr>
          </tfoot>
        </table>
      </div>
    </section>
  );
}

function share(shares: Record<string, number>, tier: string): string {
  const all = Object.values(shares).reduce((sum, one) => sum + one, 0);
  return all === 0 ? "0 %" : `${((100 * (shares[tier] ?? 0)) / all).toFixed(1)} %`;
}

function PriceInput(props: { label: string; example: string; value: string; onInput: (value: string) => void }) {
  return (
    <label>
      {props.label}
      <input
        type="number"
        min="0"
        step="any"
        inputMode="decimal"
        placeholder={props.example}
        value={props.value}
        onInput={(event) => props.onInput(event.currentTarget.value)}
      />
    </label>
  );
}

/** A cost, and how much it is above or below what was paid. */
function Compared({ cost, whole }: { cost: number | null; whole: number }) {
  const difference = cost === null ? 0 : cost - whole;
  const word = difference > 0 ? "more" : "less";
  const says = Math.abs(difference) < 5e-10 || whole === 0 ? "the same" : `${percent(Math.abs(difference), whole)} ${word}`;
  return (
    <td class="number">
      <strong>{money(cost)}</strong>
      {cost !== null && <span class="note">{says}</span>}
    </td>
  );
}

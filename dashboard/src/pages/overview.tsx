/** How much is asked, how it ends, how soon and for how much; and what happened meanwhile. */
import { useEffect, useMemo, useState } from "preact/hooks";
import { api, ApiError, query } from "../api/client";
import type { GatewayEvent, History, Usage } from "../api/types";
import { beginning, clock, count, duration, moment, money, percent, rate, words } from "../format";
import { causeWords, type Lamp } from "../map-layout";
import { build, type Route } from "../route";
import { sampling, startSampling } from "../sample";
import { axis, extended, latest, seriesOf, SPANS, totals, worthShowing, type Series, type Span } from "../series";
import { events as liveEvents, gateway, lastSeconds, mayChange, second, useStore } from "../store";
import { shellQuoted } from "../snippets";
import { Code, Empty, Problem, Shape, usePolled } from "../ui/parts";
import { cursor, LEFT, Plot, RIGHT } from "../ui/plot";

const SPAN_WORDS: Record<Span, string> = { "15m": "15 min", "6h": "6 h", "7d": "7 days" };

export function Overview({ route }: { route: Route }) {
  const span = SPANS.find((one) => one === route.query.span) ?? "15m";
  const { series, error, again } = useSeries(span);
  return (
    <>
      <div class="page-head">
        <h1>Overview</h1>
        <div class="segments" role="group" aria-label="Time span">
          {SPANS.map((one) => (
            <a key={one} href={build("overview", null, { span: one })} aria-current={one === span ? "true" : undefined}>
              {SPAN_WORDS[one]}
            </a>
          ))}
        </div>
      </div>
      {error !== null && <Problem error={error} again={again} />}
      <Tiles series={series} span={span} />
      {series === null ? <div class="plots waiting" aria-busy="true" /> : <Plots series={series} />}
    </>
  );
}

/** The history of a span, read again from time to time and continued by what comes in. */
function useSeries(span: Span): { series: Series | null; error: unknown; again: () => void } {
  const every = span === "15m" ? 60_000 : span === "6h" ? 10_000 : 60_000;
  const polled = usePolled(async () => seriesOf(await api.get<History>(`/history${query({ span })}`)), every, [span]);
  const [series, setSeries] = useState<Series | null>(null);
  const now = useStore(second);
  useEffect(() => {
    if (polled.value !== null && polled.value.span === span) setSeries(polled.value);
  }, [polled.value, span]);
  useEffect(() => {
    if (now !== null) setSeries((before) => (before === null ? before : extended(before, now)));
  }, [now]);
  return { series: series?.span === span ? series : null, error: polled.error, again: polled.again };
}

function useSpend(of: "day" | "month"): string {
  const read = async () => {
    try {
      const usage = await api.get<Usage>(`/usage${query({ by: "policy", since: beginning(of, new Date()) })}`);
      return money(usage.total.cost_usd);
    } catch (error) {
      // Without a ledger nothing is known of it.
      if (error instanceof ApiError && error.code === "no_ledger") return "no ledger";
      throw error;
    }
  };
  return usePolled(read, 10_000, [of]).value ?? "–";
}

function Tile({ title, value, note, bad }: { title: string; value: string; note: string; bad?: boolean }) {
  return (
    <div class={bad ? "tile bad" : "tile"}>
      <dt>{title}</dt>
      <dd>
        <span class="value">
          {bad && <Shape kind="bad" />}
          {value}
        </span>
        <span class="note">{note}</span>
      </dd>
    </div>
  );
}

function Tiles({ series, span }: { series: Series | null; span: Span }) {
  const recent = useStore(lastSeconds);
  const now = useStore(second);
  const [today, month] = [useSpend("day"), useSpend("month")];
  const perSecond = recent.length === 0 ? 0 : recent.reduce((sum, one) => sum + one.requests, 0) / recent.length;
  const sums = series === null ? null : totals(series);
  const over = `in ${SPAN_WORDS[span]}`;
  const attempts = sums === null || sums.requests === 0 ? "–" : (sums.attempts / sums.requests).toFixed(2);
  const ms = (value: number | null) => duration(value === null ? null : value * 1000);
  return (
    <dl class="tiles">
      <Tile title="Requests a second" value={rate(perSecond)} note={`${now?.attempts_in_flight ?? 0} attempts in flight`} />
      <Tile
        title="Failures"
        value={sums === null ? "–" : count(sums.faults)}
        note={sums === null ? "" : `${percent(sums.faults, sums.requests)} of ${count(sums.requests)} ${over}`}
        bad={(sums?.faults ?? 0) > 0}
      />
      <Tile
        title="First token, p99"
        value={series === null ? "–" : ms(latest(series.p99))}
        note={series === null ? "" : `p50 ${ms(latest(series.p50))}`}
      />
      <Tile title="Attempts per request" value={attempts} note={over} />
      <Tile title="Spend today" value={today} note="since midnight here" />
      <Tile title="Spend this month" value={month} note="since the 1st" />
    </dl>
  );
}

function Plots({ series }: { series: Series }) {
  const range = axis(series, Date.now() / 1000);
  const perSecond = (list: number[]) => list.map((value) => value / series.stepS);
  const at = useStore(cursor);
  const values = useMemo(
    () => ({
      requests: perSecond(series.requests),
      refused: perSecond(series.refused),
      faults: perSecond(series.faults),
      attempts: series.attempts.map((all, n) => ((series.requests[n] ?? 0) === 0 ? null : all / (series.requests[n] ?? 1))),
      cost: series.cost.map((cost) => (cost * 3600) / series.stepS),
    }),
    [series],
  );
  const events = useEvents(series, range);
  const marks = events.map((event) => ({ unixS: Date.parse(event.time) / 1000, colour: `--${kindOf(event)}` }));
  const common = { time: series.time, range, marks };
  const when = series.time[at ?? series.time.length - 1];
  if (totals(series).requests === 0 && series.span === "15m") {
    return (
      <>
        <NothingYet span={series.span} />
        <Events events={events} range={range} />
      </>
    );
  }
  return (
    <>
      <p class="plots-when">
        {when === undefined ? "" : `${moment(new Date(when * 1000).toISOString())}${at === null ? ", the latest" : ""}`}
      </p>
      <div class="plots">
        <Plot
          {...common}
          title="Requests a second"
          format={rate}
          curves={[
            { label: "all", values: values.requests, colour: "--accent", filled: true },
            { label: "refused", values: values.refused, colour: "--muted", dashed: true },
            { label: "failed", values: values.faults, colour: "--bad" },
          ]}
        />
        <Plot
          {...common}
          title="First token"
          format={(ms) => duration(ms * 1000)}
          curves={[
            { label: "p50", values: series.p50, colour: "--accent" },
            { label: "p99", values: series.p99, colour: "--second", dashed: true },
          ]}
        />
        <Plot
          {...common}
          title="Attempts per request"
          format={(value) => value.toFixed(2)}
          curves={[{ label: "attempts", values: values.attempts, colour: "--accent" }]}
        />
        <Plot
          {...common}
          title="Spend an hour, at this rate"
          format={money}
          curves={[{ label: "USD", values: values.cost, colour: "--accent", filled: true }]}
        />
      </div>
      <Events events={events} range={range} />
    </>
  );
}

const EVENT_KINDS: Record<string, { kind: Lamp; word: string }> = {
  trip: { kind: "bad", word: "breaker opened" },
  probe: { kind: "warn", word: "probing" },
  recovery: { kind: "good", word: "recovered" },
  rest: { kind: "rest", word: "rests" },
  fault_injected: { kind: "bad", word: "broken on purpose" },
  fault_ended: { kind: "good", word: "mended" },
  reload: { kind: "rest", word: "reloaded" },
  reload_refused: { kind: "bad", word: "reload refused" },
};
const MOST_LISTED = 12;

function kindOf(event: GatewayEvent): Lamp {
  return EVENT_KINDS[event.kind]?.kind ?? "rest";
}

/** What the history has, and what came in since it was read. */
function useEvents(series: Series, range: [number, number]): GatewayEvent[] {
  const fresh = useStore(liveEvents);
  const known = new Set(series.events.map(identity));
  const all = [...series.events, ...fresh.filter((event) => !known.has(identity(event)))];
  return all.filter((event) => worthShowing(event) && Date.parse(event.time) / 1000 >= range[0]);
}

function Events({ events: shown, range }: { events: GatewayEvent[]; range: [number, number] }) {
  const place = (event: GatewayEvent) => (100 * (Date.parse(event.time) / 1000 - range[0])) / (range[1] - range[0]);
  return (
    <section class="card events">
      <h3>Events</h3>
      <div class="strip" style={{ marginLeft: `${LEFT}px`, marginRight: `${RIGHT}px` }} aria-hidden="true">
        {shown.map((event) => (
          <span key={identity(event)} class="mark" style={{ left: `${Math.min(100, place(event))}%` }}>
            <Shape kind={kindOf(event)} />
          </span>
        ))}
      </div>
      {shown.length === 0 ? (
        <p class="hint">No breaker opened and nothing was reloaded in this time.</p>
      ) : (
        <ol class="event-list" reversed>
          {shown.slice(-MOST_LISTED).reverse().map((event) => (
            <li key={identity(event)}>
              <time dateTime={event.time}>{clock(Date.parse(event.time))}</time>
              <span class={`badge ${kindOf(event)}`}>
                <Shape kind={kindOf(event)} />
                {EVENT_KINDS[event.kind]?.word ?? words(event.kind)}
              </span>
              <span class="subject">{event.subject}</span>
              <span class="detail">{event.kind === "recovery" ? "" : causeWords(event.detail)}</span>
            </li>
          ))}
        </ol>
      )}
    </section>
  );
}

function identity(event: GatewayEvent): string {
  return JSON.stringify([event.time, event.kind, event.subject]);
}

function NothingYet({ span }: { span: Span }) {
  const here = useStore(gateway);
  const sample = useStore(sampling);
  const origin = here?.clients_at ?? location.origin;
  const body = JSON.stringify({ model: here?.example_model ?? "MODEL", messages: [{ role: "user", content: "Hi" }] });
  const curl = [
    `curl ${shellQuoted(`${origin}/v1/chat/completions`)} \\`,
    `  -H "Authorization: Bearer $OPENAI_API_KEY" \\`,
    `  -H 'Content-Type: application/json' \\`,
    `  -d ${shellQuoted(body)}`,
  ].join("\n");
  return (
      <section class="card">
        <Empty title={`Nothing was asked in the last ${SPAN_WORDS[span]}.`}>
          {here?.simulated === true && here.clients_at === null && mayChange() ? (
            <>
              <p>Every provider here is simulated. Send some traffic, then break a region on the map and watch.</p>
              <p>
                <button type="button" class="primary" onClick={() => void startSampling()}>
                  Send sample traffic
                </button>
              </p>
              {sample !== "on" && sample !== "off" && <Problem error={sample} />}
              <p class="hint">Or ask it yourself:</p>
            </>
          ) : (
            <p>
              Ask it with a key; <a href={build("keys")}>Keys &amp; teams</a> makes one.
            </p>
          )}
          <Code text={curl} label="A request with curl" />
        </Empty>
      </section>
  );
}

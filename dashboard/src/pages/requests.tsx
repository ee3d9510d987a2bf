/** Requests as they end, those of the ledger, and what became of one of them. */
import { useEffect, useRef, useState } from "preact/hooks";
import { api, ApiError, query, segment } from "../api/client";
import type { List, RequestRow } from "../api/types";
import { clock, count, duration, moment, money, words } from "../format";
import { build, type Route } from "../route";
import { shellQuoted } from "../snippets";
import { gateway, tail, useStore } from "../store";
import { Copy, Empty, Outcome, Problem, useAction, usePolled } from "../ui/parts";
import { Table, type Column } from "../ui/table";
import { waterfall } from "../waterfall";

const FILTERS = ["key", "model", "deployment", "region", "reason"] as const;
const PAGE = 100;
const ID = /^req_[0-9a-f]+$/;

export function Requests({ route }: { route: Route }) {
  return route.detail === null ? <RequestList route={route} /> : <OneRequest id={route.detail} />;
}

const COLUMNS: Column<RequestRow>[] = [
  { id: "time", title: "Time", cell: (one) => clock(Date.parse(one.time)), by: (one) => one.time },
  {
    id: "outcome",
    title: "Outcome",
    cell: (one) => <Outcome outcome={one.outcome} reason={one.reason} />,
    by: (one) => one.reason,
  },
  { id: "key", title: "Key", cell: (one) => one.key ?? "–", by: (one) => one.key ?? "", wide: true },
  {
    id: "model",
    title: "Model",
    cell: (one) => (
      <span class="two-lines">
        <span>{one.asked_model ?? "–"}</span>
        <span class="hint">{one.model === one.asked_model ? "" : (one.model ?? "")}</span>
      </span>
    ),
    by: (one) => one.asked_model ?? "",
  },
  { id: "region", title: "Region", cell: (one) => one.region ?? "–", by: (one) => one.region ?? "", wide: true },
  { id: "attempts", title: "Attempts", cell: (one) => one.attempts.length, by: (one) => one.attempts.length, numeric: true },
  {
    id: "first",
    title: "First token",
    cell: (one) => duration(one.first_token_us),
    by: (one) => one.first_token_us ?? -1,
    numeric: true,
  },
  { id: "total", title: "Total", cell: (one) => duration(one.duration_us), by: (one) => one.duration_us, numeric: true, wide: true },
  { id: "cost", title: "Cost", cell: (one) => money(one.cost_usd), by: (one) => Number(one.cost_usd), numeric: true },
];

function RequestList({ route }: { route: Route }) {
  const filters = Object.fromEntries(FILTERS.map((name) => [name, route.query[name] ?? ""]));
  const filtered = Object.values(filters).some((value) => value !== "");
  const [held, setHeld] = useState<RequestRow[] | null>(null);
  const live = useStore(tail);
  const { value, error, again } = usePolled(
    () => api.get<List<RequestRow>>(`/ledger${query({ ...filters, limit: PAGE })}`),
    filtered ? 5000 : 60_000,
    [JSON.stringify(filters)],
  );
  const [older, setOlder] = useState<List<RequestRow> | null>(null);
  useEffect(() => setOlder(null), [JSON.stringify(filters)]);
  // What was the first page stays: it moves on while older ones are looked at.
  const first = useRef(new Map<string, RequestRow>());
  useEffect(() => first.current.clear(), [JSON.stringify(filters)]);
  if (older === null) first.current.clear();
  for (const one of value?.data ?? []) first.current.set(one.request_id, one);
  const stored = [...new Map([...first.current, ...(older?.data ?? []).map((one) => [one.request_id, one] as const)]).values()];
  const known = new Set(stored.map((one) => one.request_id));
  const fresh = filtered ? [] : live.filter((one) => !known.has(one.request_id));
  const rows = held ?? [...fresh, ...stored].sort((a, b) => (a.time < b.time ? 1 : -1));
  const next = older === null ? value?.next : older.next;
  const noLedger = error instanceof ApiError && error.code === "no_ledger";
  const reading = useAction();
  const more = async () => {
    const page = await api.get<List<RequestRow>>(`/ledger${query({ ...filters, limit: PAGE, after: next })}`);
    setOlder({ ...page, data: [...(older?.data ?? []), ...page.data] });
  };
  return (
    <>
      <div class="page-head">
        <h1>Requests</h1>
        {!filtered && (
          <button type="button" aria-pressed={held !== null} onClick={() => setHeld(held === null ? rows : null)}>
            {held === null ? "Hold the list" : "Go on"}
          </button>
        )}
      </div>
      <Filters filters={filters} />
      {error !== null && !noLedger && <Problem error={error} again={again} />}
      {noLedger && <p class="hint">This gateway keeps no ledger: only requests that end while you look are shown.</p>}
      {rows.length === 0 ? (
        <section class="card">
          {value === null && error === null ? (
            <div class="waiting" aria-busy="true" />
          ) : filtered ? (
            <Empty title="No request is like that.">
              <p>
                <a href={build("requests")}>Show all</a>
              </p>
            </Empty>
          ) : (
            <Empty title="Nothing was asked yet.">
              <p>
                <a href={build("keys")}>Make a key</a>, and paste the command that comes with it.
              </p>
            </Empty>
          )}
        </section>
      ) : (
        <section class="card flush">
          <Table
            caption="Requests, the newest first"
            columns={COLUMNS}
            rows={rows}
            id={(one) => one.request_id}
            href={(one) => build("requests", one.request_id)}
          />
        </section>
      )}
      {next != null && held === null && (
        <button type="button" class="more" disabled={reading.busy} onClick={() => reading.run(more)}>
          Older requests
        </button>
      )}
      {reading.error !== null && <Problem error={reading.error} />}
    </>
  );
}

function Filters({ filters }: { filters: Record<string, string> }) {
  const [id, setId] = useState("");
  const go = (form: HTMLFormElement) => {
    const wanted = id.trim();
    if (ID.test(wanted)) {
      location.hash = build("requests", wanted);
      return;
    }
    const given = new FormData(form);
    location.hash = build("requests", null, Object.fromEntries(FILTERS.map((name) => [name, String(given.get(name) ?? "").trim()])));
  };
  return (
    <form
      class="filters"
      role="search"
      onSubmit={(event) => {
        event.preventDefault();
        go(event.currentTarget);
      }}
    >
      <label class="grow">
        Request id
        <input type="search" name="id" placeholder="req_…" value={id} onInput={(event) => setId(event.currentTarget.value)} />
      </label>
      {FILTERS.map((name) => (
        <label key={`${name} ${filters[name] ?? ""}`}>
          {name[0]?.toUpperCase()}
          {name.slice(1)}
          <input type="text" name={name} defaultValue={filters[name] ?? ""} autoComplete="off" />
        </label>
      ))}
      <button type="submit">Search</button>
    </form>
  );
}

/** A receipt is in the ledger a moment after its request ended. */
async function readOne(id: string): Promise<RequestRow> {
  try {
    return await api.get<RequestRow>(`/ledger/${segment(id)}`);
  } catch (error) {
    const seen = tail.get().find((one) => one.request_id === id);
    if (seen !== undefined) return seen;
    throw error;
  }
}

function OneRequest({ id }: { id: string }) {
  const [state, setState] = useState<{ value: RequestRow | null; error: unknown }>({ value: null, error: null });
  useEffect(() => {
    setState({ value: null, error: null });
    readOne(id).then(
      (value) => setState({ value, error: null }),
      (error: unknown) => setState({ value: null, error }),
    );
  }, [id]);
  const { value, error } = state;
  return (
    <>
      <div class="page-head">
        <p class="back">
          <a href={build("requests")}>← Requests</a>
        </p>
        <h1 class="mono">{id}</h1>
        <Copy text={id} label="Copy id" />
      </div>
      {error !== null && <Problem error={error} />}
      {value !== null && <RequestSummary one={value} />}
    </>
  );
}

function RequestSummary({ one }: { one: RequestRow }) {
  return (
    <>
      <section class="card">
        <p class="lead">
          <Outcome outcome={one.outcome} reason={one.reason} /> {one.reason === one.outcome ? "" : `${words(one.reason)}, `}
          status {one.status}, {duration(one.duration_us)} in all, first token after {duration(one.first_token_us)},{" "}
          {money(one.cost_usd)}
        </p>
        <dl class="facts wide-facts">
          <Fact title="Time" value={moment(one.time)} />
          <Fact title="Key" value={one.key} />
          <Fact title="Team" value={one.team} />
          <Fact title="Policy" value={one.policy} />
          <Fact title="Endpoint" value={one.endpoint} />
          <Fact title="Asked for" value={one.asked_model} />
          <Fact title="Meant" value={one.meant_model === null ? null : `${one.meant_model}${one.meant_tier === null ? "" : ` in ${one.meant_tier}`}`} />
          <Fact title="Served by" value={one.deployment} />
          <Fact title="Tier" value={one.tier} />
          <Fact title="Region" value={one.region} />
          <Fact title="Tokens" value={one.input_tokens === null ? null : `${count(one.input_tokens)} in, ${count(one.output_tokens ?? 0)} out${one.estimated ? ", estimated" : ""}`} />
          <Fact title="Overhead" value={duration(one.overhead_us)} />
          <Fact title="Failover" value={one.failover_us === null ? null : duration(one.failover_us)} />
          <Fact title="Price" value={one.price === null ? null : `$${one.price.input_usd_per_mtok} in, $${one.price.output_usd_per_mtok} out per million tokens`} />
          <Fact title="Provider's id" value={one.provider_request_id} />
        </dl>
      </section>
      <Waterfall one={one} />
      {one.passed_over.length > 0 && (
        <section class="card">
          <h2>Not asked</h2>
          <ul class="plain-list">
            {one.passed_over.map((passed) => (
              <li key={passed.deployment}>
                {passed.deployment}: {words(passed.why)}
                {passed.until_us === null ? "" : `, for another ${duration(passed.until_us)}`}
              </li>
            ))}
          </ul>
        </section>
      )}
      <AsCurl one={one} />
    </>
  );
}

function Fact({ title, value }: { title: string; value: string | null }) {
  return (
    <div>
      <dt>{title}</dt>
      <dd>{value ?? "–"}</dd>
    </div>
  );
}

function Waterfall({ one }: { one: RequestRow }) {
  const { bars, totalUs } = waterfall(one);
  return (
    <section class="card">
      <h2>What became of it</h2>
      {bars.length === 0 ? (
        <p class="hint">Nothing was sent to a provider.</p>
      ) : (
        <ol class="waterfall">
          {bars.map((bar, at) => (
            <li key={at} class={bar.kind}>
              <span class="bar-label">
                {bar.label}
                {bar.reason !== null && <span class={bar.good ? "hint" : "bad-text"}> {words(bar.reason)}</span>}
              </span>
              <span class="bar-track">
                <span
                  class={`bar ${bar.kind} ${bar.good ? "good" : "bad"}`}
                  style={{
                    left: `${(100 * bar.startUs) / totalUs}%`,
                    width: `max(2px, ${(100 * (bar.endUs - bar.startUs)) / totalUs}%)`,
                  }}
                />
              </span>
              <span class="bar-time">{duration(bar.endUs - bar.startUs)}</span>
            </li>
          ))}
        </ol>
      )}
    </section>
  );
}

/** What each endpoint takes as its content. */
function contentOf(path: string): Record<string, unknown> {
  const messages = [{ role: "user", content: "…" }];
  if (path === "messages") return { max_tokens: 1024, messages };
  if (path === "chat/completions") return { messages };
  return path === "completions" ? { prompt: "…" } : { input: "…" };
}

/** The gateway does not keep what was asked: the command has a place for it. */
function AsCurl({ one }: { one: RequestRow }) {
  const paths: Record<string, string> = { chat: "chat/completions", completions: "completions", embeddings: "embeddings", responses: "responses", messages: "messages" };
  const path = paths[one.endpoint ?? ""];
  if (path === undefined || one.asked_model === null) return null;
  const body = { model: one.asked_model, ...(one.stream ? { stream: true } : {}), ...contentOf(path) };
  const origin = gateway.get()?.clients_at ?? location.origin;
  const text = `curl ${shellQuoted(`${origin}/v1/${path}`)} -H "Authorization: Bearer $OPENAI_API_KEY" -H 'Content-Type: application/json' -d ${shellQuoted(JSON.stringify(body))}`;
  return (
    <p>
      <Copy text={text} label="Copy as curl" /> <span class="hint">without the content, which the gateway does not keep</span>
    </p>
  );
}

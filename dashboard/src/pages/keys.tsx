/** Keys and teams: who may ask, for how much, and what they spent this month. */
import { useState } from "preact/hooks";
import { api, ApiError, query, segment } from "../api/client";
import type { IssuedKey, Key, List, Team, Usage } from "../api/types";
import { beginning, moment, money, span } from "../format";
import { build, type Route } from "../route";
import { snippets } from "../snippets";
import { gateway, mayChange, useStore } from "../store";
import { Code, Copy, Dialog, Empty, FormDialog, Problem, Shape, useAction, usePolled } from "../ui/parts";
import { Table, type Column } from "../ui/table";

const PAGE = 200;

type Spent = Map<string, string>;

/** What each key spent since the 1st; null without a ledger. */
async function readSpent(): Promise<Spent | null> {
  try {
    const usage = await api.get<Usage>(`/usage${query({ by: "key", since: beginning("month", new Date()) })}`);
    return new Map(usage.data.map((row) => [String((row as { key?: string | null }).key ?? ""), row.cost_usd]));
  } catch (error) {
    if (error instanceof ApiError && error.code === "no_ledger") return null;
    throw error;
  }
}

type Shown = { kind: "new-key" } | { kind: "new-team" } | { kind: "issued"; key: IssuedKey } | null;

export function Keys({ route }: { route: Route }) {
  const keys = usePolled(() => api.get<List<Key>>(`/keys${query({ limit: PAGE })}`), 10_000, []);
  const teams = usePolled(() => api.get<List<Team>>(`/teams${query({ limit: PAGE })}`), 30_000, []);
  const spent = usePolled(readSpent, 10_000, []).value;
  const [shown, show] = useState<Shown>(null);
  const [search, setSearch] = useState("");
  const [more, setMore] = useState<List<Key> | null>(null);
  const all = [...(keys.value?.data ?? []), ...(more?.data ?? [])];
  const wanted = search.trim().toLowerCase();
  const rows = all.filter((key) => [key.name, key.policy, key.team ?? ""].some((text) => text.toLowerCase().includes(wanted)));
  const next = more === null ? keys.value?.next : more.next;
  const chosen = all.find((key) => key.name === route.detail);
  const changed = () => {
    keys.again();
    teams.again();
  };
  const reading = useAction();
  const readMore = async () => {
    const page = await api.get<List<Key>>(`/keys${query({ limit: PAGE, after: next })}`);
    setMore({ ...page, data: [...(more?.data ?? []), ...page.data] });
  };
  return (
    <>
      <div class="page-head">
        <h1>Keys &amp; teams</h1>
        {mayChange() && (
          <button type="button" class="primary" onClick={() => show({ kind: "new-key" })}>
            Create key
          </button>
        )}
      </div>
      {keys.error !== null && <Problem error={keys.error} again={keys.again} />}
      <div class="filters">
        <label class="grow">
          Find a key
          <input type="search" value={search} placeholder="name, policy or team" onInput={(event) => setSearch(event.currentTarget.value)} />
        </label>
      </div>
      <div class={chosen === undefined ? "" : "map-and-detail"}>
        <section class="card flush">
          {keys.value === null ? (
            <div class="waiting" aria-busy="true" />
          ) : rows.length === 0 ? (
            <Empty title={all.length === 0 ? "There is no key yet." : "No key is called like that."}>
              {all.length === 0 && (
                <p>
                  Create one here, or with <code>tierway keys create NAME --policy POLICY</code>.
                </p>
              )}
            </Empty>
          ) : (
            <Table caption="Keys" columns={columns(spent)} rows={rows} id={(key) => key.name} href={(key) => build("keys", key.name)} selected={route.detail} />
          )}
        </section>
        {chosen !== undefined && <KeyDetail key={chosen.name} one={chosen} spent={spent} onChanged={changed} onIssued={(key) => show({ kind: "issued", key })} />}
      </div>
      {next != null && (
        <button type="button" class="more" disabled={reading.busy} onClick={() => reading.run(readMore)}>
          More keys
        </button>
      )}
      {reading.error !== null && <Problem error={reading.error} />}
      <Teams teams={teams.value?.data ?? []} onCreate={() => show({ kind: "new-team" })} />
      {shown?.kind === "new-key" && (
        <NewKey
          onClose={() => show(null)}
          onIssued={(key) => {
            show({ kind: "issued", key });
            changed();
          }}
        />
      )}
      {shown?.kind === "new-team" && (
        <NewTeam
          onClose={() => {
            show(null);
            changed();
          }}
        />
      )}
      {shown?.kind === "issued" && <Issued issued={shown.key} onClose={() => show(null)} />}
    </>
  );
}

function columns(spent: Spent | null): Column<Key>[] {
  return [
    { id: "name", title: "Name", cell: (key) => key.name, by: (key) => key.name },
    { id: "state", title: "State", cell: (key) => <KeyState state={key.state} />, by: (key) => key.state },
    { id: "policy", title: "Policy", cell: (key) => key.policy, by: (key) => key.policy },
    { id: "team", title: "Team", cell: (key) => key.team ?? "–", by: (key) => key.team ?? "", wide: true },
    {
      id: "spent",
      title: "Spent this month",
      cell: (key) => <Budget one={key} spent={spent} />,
      by: (key) => Number(spent?.get(key.name) ?? 0),
      numeric: true,
    },
    { id: "used", title: "Last used", cell: (key) => lastUsed(key), by: (key) => usedAt(key) ?? "", wide: true },
    { id: "source", title: "Kept in", cell: (key) => key.source, by: (key) => key.source, wide: true },
  ];
}

function KeyState({ state }: { state: string }) {
  const kind = state === "active" ? "good" : "rest";
  return (
    <span class={`badge ${kind}`}>
      <Shape kind={kind} />
      {state}
    </span>
  );
}

/** The budget of a month that leaves least, with what was spent. */
function Budget({ one, spent }: { one: Key; spent: Spent | null }) {
  if (spent === null) return <>–</>;
  const cost = spent.get(one.name) ?? "0";
  const own = one.effective.budgets.find((budget) => budget.of === "key" && budget.window === "month");
  if (own === undefined) return <>{money(cost)}</>;
  const share = Number(own.limit) === 0 ? 100 : Math.min(100, (100 * Number(cost)) / Number(own.limit));
  return (
    <span class="budget">
      <span>
        {money(cost)} of {money(own.limit)}
      </span>
      <span class="meter" role="img" aria-label={`${share.toFixed(0)} % of the budget`}>
        <span class={share >= 90 ? "near" : ""} style={{ width: `${share}%` }} />
      </span>
    </span>
  );
}

function usedAt(key: Key): string | null {
  const all = key.secrets.flatMap((secret) => (secret.last_used === null ? [] : [secret.last_used])).sort();
  return all.at(-1) ?? null;
}

function lastUsed(key: Key): string {
  const at = usedAt(key);
  if (key.source === "file") return "–";
  return at === null ? "never" : `${span(Date.parse(at), Date.now())} ago`;
}

function KeyDetail(props: { one: Key; spent: Spent | null; onChanged: () => void; onIssued: (key: IssuedKey) => void }) {
  const { one, onChanged } = props;
  const { busy, error, run } = useAction();
  const [asked, ask] = useState(false);
  const path = `/keys/${segment(one.name)}`;
  const toggle = () =>
    run(async () => {
      await api.patch(path, { disabled: !one.disabled });
      onChanged();
    });
  const rotate = () =>
    run(async () => {
      props.onIssued(await api.post<IssuedKey>(`${path}/rotate`, { overlap: "24h" }));
      ask(false);
      onChanged();
    });
  const limit = (value: number | null, unit: string) => (value === null ? "none" : `${value.toLocaleString("en")} ${unit}`);
  return (
    <aside class="card detail" aria-labelledby="detail-title">
      <div class="detail-head">
        <h2 id="detail-title">{one.name}</h2>
        <a class="plain" href={build("keys")} aria-label="Close">
          ✕
        </a>
      </div>
      <p>
        <KeyState state={one.state} />
      </p>
      <dl class="facts">
        <dt>Policy</dt>
        <dd>{one.policy}</dd>
        <dt>Team</dt>
        <dd>{one.team ?? "–"}</dd>
        <dt>Requests</dt>
        <dd>{limit(one.effective.requests_per_minute, "a minute")}</dd>
        <dt>Tokens</dt>
        <dd>{limit(one.effective.tokens_per_minute, "a minute")}</dd>
        <dt>At once</dt>
        <dd>{limit(one.effective.max_concurrent, "")}</dd>
        <dt>Budgets</dt>
        <dd>
          {one.effective.budgets.length === 0
            ? "none"
            : one.effective.budgets.map((budget) => `${money(budget.limit)} ${budget.window === "none" ? "in all" : `a ${budget.window}`} of the ${budget.of}`).join("; ")}
        </dd>
        <dt>Spent</dt>
        <dd>{money(props.spent?.get(one.name) ?? "0")} this month</dd>
        <dt>Expires</dt>
        <dd>{one.expires === null ? "never" : moment(one.expires)}</dd>
        <dt>Secrets</dt>
        <dd>{one.secrets.map((secret) => `${secret.id}${secret.ends === null ? "" : ` until ${moment(secret.ends)}`}`).join("; ")}</dd>
      </dl>
      {error !== null && <Problem error={error} />}
      {one.source === "file" ? (
        <p class="hint">It is in the configuration file, and changed there.</p>
      ) : (
        mayChange() && (
          <div class="actions">
            {asked ? (
              <>
                <p class="hint">A new secret is made; those it has work for another 24 hours.</p>
                <button type="button" class="primary" disabled={busy} onClick={rotate}>
                  Make a new secret
                </button>
                <button type="button" onClick={() => ask(false)}>
                  Cancel
                </button>
              </>
            ) : (
              <>
                <button type="button" disabled={busy} onClick={() => ask(true)}>
                  Rotate
                </button>
                <button type="button" disabled={busy} onClick={toggle}>
                  {one.disabled ? "Enable" : "Disable"}
                </button>
              </>
            )}
          </div>
        )
      )}
      <p>
        <a href={build("requests", null, { key: one.name })}>Its requests</a>
      </p>
    </aside>
  );
}

/** A budget of a month, where one is given. */
function monthly(limit: string): { budget?: { limit: string; window: "month" } } {
  return limit === "" ? {} : { budget: { limit, window: "month" } };
}

function MonthlyBudget() {
  return (
    <label>
      USD a month
      <input name="budget" inputMode="decimal" pattern="[0-9]+([.][0-9]{1,9})?" placeholder="no budget" />
    </label>
  );
}

function NewKey({ onClose, onIssued }: { onClose: () => void; onIssued: (key: IssuedKey) => void }) {
  const here = useStore(gateway);
  const create = async (text: (name: string) => string) => {
    const optional = (name: string) => (text(name) === "" ? {} : { [name]: text(name) });
    const requests = text("requests_per_minute");
    const body = {
      name: text("name"),
      policy: text("policy"),
      ...optional("team"),
      ...(requests === "" ? {} : { requests_per_minute: Number(requests) }),
      ...monthly(text("budget")),
      ...optional("expires"),
    };
    onIssued(await api.post<IssuedKey>("/keys", body));
  };
  return (
    <FormDialog title="Create key" onClose={onClose} submit={create}>
      <label>
        Name
        <input name="name" required maxLength={200} autoFocus autoComplete="off" placeholder="growth-app" />
        <span class="hint">For people, reports and budgets. It cannot be used again.</span>
      </label>
      <label>
        Policy
        <select name="policy" required>
          {(here?.policies ?? []).map((policy) => (
            <option key={policy}>{policy}</option>
          ))}
        </select>
      </label>
      <label>
        Team
        <input name="team" maxLength={200} autoComplete="off" placeholder="none" />
      </label>
      <div class="form-row">
        <label>
          Requests a minute
          <input name="requests_per_minute" type="number" min="1" step="1" placeholder="the policy's" />
        </label>
        <MonthlyBudget />
      </div>
      <label>
        Last day
        <input name="expires" type="date" />
      </label>
    </FormDialog>
  );
}

function Issued({ issued, onClose }: { issued: IssuedKey; onClose: () => void }) {
  const here = useStore(gateway);
  const secret = issued.secret ?? "";
  const all = snippets(here?.clients_at ?? location.origin, secret, here?.example_model ?? "MODEL");
  const [name, choose] = useState(all[0]?.name ?? "");
  const chosen = all.find((one) => one.name === name);
  return (
    <Dialog title={`The secret of ${issued.name}`} onClose={onClose}>
      <p>
        <strong>It is shown now and never again.</strong> Only its SHA-256 is kept.
      </p>
      <div class="secret">
        <code>{secret}</code>
        <Copy text={secret} />
      </div>
      <div class="segments" role="group" aria-label="Language">
        {all.map((one) => (
          <button key={one.name} type="button" aria-pressed={one.name === name} onClick={() => choose(one.name)}>
            {one.name}
          </button>
        ))}
      </div>
      {chosen !== undefined && <Code text={chosen.text} label={`${chosen.name} snippet`} />}
    </Dialog>
  );
}

const TEAM_COLUMNS: Column<Team>[] = [
  { id: "name", title: "Name", cell: (team) => team.name, by: (team) => team.name },
  {
    id: "budget",
    title: "Budget",
    cell: (team) => (team.budget === null ? "none" : `${money(team.budget.limit)} ${team.budget.window === "none" ? "in all" : `a ${team.budget.window}`}`),
    by: (team) => Number(team.budget?.limit ?? 0),
    numeric: true,
  },
  { id: "source", title: "Kept in", cell: (team) => team.source, by: (team) => team.source },
];

function Teams({ teams, onCreate }: { teams: Team[]; onCreate: () => void }) {
  return (
    <>
      <div class="page-head section-head">
        <h2>Teams</h2>
        {mayChange() && (
          <button type="button" onClick={onCreate}>
            Create team
          </button>
        )}
      </div>
      <section class="card flush">
        {teams.length === 0 ? (
          <Empty title="There is no team with a budget." >
            <p>Keys of a team share its budget and a line of each report.</p>
          </Empty>
        ) : (
          <Table caption="Teams" columns={TEAM_COLUMNS} rows={teams} id={(team) => team.name} />
        )}
      </section>
    </>
  );
}

function NewTeam({ onClose }: { onClose: () => void }) {
  const create = async (text: (name: string) => string) => {
    await api.post("/teams", { name: text("name"), ...monthly(text("budget")) });
    onClose();
  };
  return (
    <FormDialog title="Create team" onClose={onClose} submit={create}>
      <label>
        Name
        <input name="name" required maxLength={200} autoFocus autoComplete="off" placeholder="growth" />
      </label>
      <MonthlyBudget />
    </FormDialog>
  );
}

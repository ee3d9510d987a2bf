/** The configuration that is active, where each value is from, what reloads changed, and why a file was refused. */
import { api } from "../api/client";
import type { AuditRow, Configuration as ConfigurationObject, List, Setting } from "../api/types";
import { count, moment } from "../format";
import { build, type Route } from "../route";
import { chosen, origins } from "../settings";
import { events, useStore } from "../store";
import { Empty, Problem, Shape, usePolled } from "../ui/parts";
import { Table, type Column } from "../ui/table";

const MOST_CHANGES = 20;
const EVERY_MS = 30_000;

const COLUMNS: Column<Setting>[] = [
  { id: "setting", title: "Setting", cell: (one) => <code>{one.setting}</code>, by: (one) => one.setting },
  { id: "value", title: "Value", cell: (one) => <code>{one.value}</code>, by: (one) => one.value },
  { id: "origin", title: "Origin", cell: (one) => one.origin, by: (one) => one.origin },
];

export function Configuration({ route }: { route: Route }) {
  const reloads = useStore(events).filter((one) => one.kind.startsWith("reload")).length;
  const { value, error, again } = usePolled(() => api.get<ConfigurationObject>("/configuration"), EVERY_MS, [reloads]);
  return (
    <>
      <div class="page-head">
        <h1>Configuration</h1>
        {value !== null && (
          <span class="hint">
            <code>{value.source}</code>, version <code>{value.version}</code>
          </span>
        )}
      </div>
      {error !== null && <Problem error={error} again={again} />}
      {value === null ? (
        error === null && <div class="card waiting" aria-busy="true" />
      ) : (
        <>
          {value.refused !== null && <Refused refused={value.refused} />}
          <Settings settings={value.settings} route={route} />
          <Changes reloads={reloads} />
        </>
      )}
    </>
  );
}

function Refused({ refused }: { refused: NonNullable<ConfigurationObject["refused"]> }) {
  return (
    <section class="card refused" role="alert">
      <h2 class="badge bad">
        <Shape kind="bad" />
        The changed file is refused
      </h2>
      <p class="hint">Since {moment(refused.time)}. What is shown below stays active until the file is right; it is read again when it changes.</p>
      <div class="code">
        <pre tabIndex={0} role="region" aria-label="Problems of the changed file">
          <code>{refused.problems}</code>
        </pre>
      </div>
    </section>
  );
}

function Settings({ settings, route }: { settings: Setting[]; route: Route }) {
  const [search, all] = [route.query.search ?? "", route.query.all === "yes"];
  const show = (query: Record<string, string>) => {
    history.replaceState(null, "", build("configuration", null, { ...route.query, ...query }));
    window.dispatchEvent(new HashChangeEvent("hashchange"));
  };
  const rows = chosen(settings, search, all);
  const { file, environment, unwritten } = origins(settings);
  return (
    <>
      <div class="filters">
        <label>
          Search
          <input
            type="search"
            placeholder="a setting, a value, an origin"
            value={search}
            onInput={(event) => show({ search: event.currentTarget.value })}
          />
        </label>
      </div>
      <div class="actions">
        <div class="segments" role="group" aria-label="Which settings">
          <button type="button" aria-pressed={!all} onClick={() => show({ all: "" })}>
            What is set
          </button>
          <button type="button" aria-pressed={all} onClick={() => show({ all: "yes" })}>
            Defaults too
          </button>
        </div>
        <span class="hint" role="status">
          {count(rows.length)} shown; {count(file)} from the file, {count(environment)} from the environment, {count(unwritten)} defaults
        </span>
      </div>
      <section class={rows.length === 0 ? "card" : "card flush"}>
        {rows.length === 0 ? (
          <Empty title="No setting has this in it.">
            <p class="hint">{all ? "Search for less of it." : "Look among the defaults too."}</p>
          </Empty>
        ) : (
          <Table caption="Settings" columns={COLUMNS} rows={rows} id={(one) => one.setting} />
        )}
      </section>
    </>
  );
}

function Changes({ reloads }: { reloads: number }) {
  const { value, error, again } = usePolled(
    () => api.get<List<AuditRow>>(`/audit?kind=configuration&limit=${MOST_CHANGES}`),
    EVERY_MS,
    [reloads],
  );
  return (
    <>
      <h2 class="section-head">What changed</h2>
      {error !== null && <Problem error={error} again={again} />}
      <section class="card" aria-busy={value === null && error === null ? "true" : undefined}>
        {value?.data.length === 0 && (
          <Empty title="No other configuration was active since the audit began.">
            <p class="hint">Edit the file: the gateway reads it when it changes.</p>
          </Empty>
        )}
        <ol class="changes">{value?.data.map((row) => <Change key={row.number} row={row} />)}</ol>
      </section>
    </>
  );
}

function Change({ row }: { row: AuditRow }) {
  return (
    <li>
      <h3>
        {moment(row.time)} <span class="hint">{row.command === "serve" ? "at a start" : "by a reload"}</span>
      </h3>
      <dl>
        {row.changes.map((one) => (
          <div key={one.field}>
            <dt>
              <code>{one.field}</code>
            </dt>
            <dd>
              <code>{one.before ?? "not set"}</code> <span aria-hidden="true">→</span>
              <span class="unseen">became</span> <code>{one.after ?? "not set"}</code>
            </dd>
          </div>
        ))}
      </dl>
    </li>
  );
}

/** What each policy promises, whether it is kept this month, and what closed months were worth. */
import { api, ApiError, query } from "../api/client";
import type { List, SlaClosing, SlaFigures, SlaKey, SlaReport } from "../api/types";
import { count, duration, moment, money, words } from "../format";
import { build, type Route } from "../route";
import { Code, Empty, Problem, Shape, usePolled } from "../ui/parts";
import { Table, type Column } from "../ui/table";
import { burn, budgetLeft, isKept, monthBefore } from "../sla-words";

const EXAMPLE = `[policies.pro]
sla = { uptime = "99.9%", first_token = { p = "95%", within = "500ms" }, credits = [
  { below = "99.9%", credit = "10%" },
  { below = "99%", credit = "25%" },
] }`;

export function SlaPage({ route }: { route: Route }) {
  const month = route.query.month ?? "";
  const polled = usePolled(() => api.get<List<SlaReport>>(`/sla${query({ month })}`), 30_000, [month]);
  const reports = polled.value?.data ?? null;
  const noLedger = polled.error instanceof ApiError && polled.error.code === "no_ledger";
  const shown = reports?.[0]?.month ?? month;
  return (
    <>
      <div class="page-head">
        <h1>SLA {shown !== "" && <span class="unbroken">{shown}</span>}</h1>
        {shown !== "" && (
          <div class="segments" role="group" aria-label="Month">
            <a href={build("sla", null, { month: monthBefore(shown) })}>The month before</a>
            <a href={build("sla")} aria-current={month === "" ? "true" : undefined}>
              This month
            </a>
          </div>
        )}
        <button type="button" onClick={() => window.print()}>
          Print
        </button>
      </div>
      {polled.error !== null && !noLedger && <Problem error={polled.error} again={polled.again} />}
      {noLedger || reports?.length === 0 ? (
        <section class="card">
          <Empty title={noLedger ? "No ledger is kept, and without one no SLA can be measured." : "No policy has an SLA."}>
            <p>{noLedger ? "Write [store] url = \"sqlite:tierway.db\", and give a policy an SLA:" : "Give one to a policy, and it is measured and paid from then on:"}</p>
            <Code text={EXAMPLE} label="A policy with an SLA" />
          </Empty>
        </section>
      ) : reports === null ? (
        <div class="waiting" aria-busy="true" />
      ) : (
        reports.map((report) => <Report key={`${report.policy} ${report.month}`} report={report} />)
      )}
    </>
  );
}

function Report({ report }: { report: SlaReport }) {
  const { figures, promise } = report;
  const kept = isKept(figures.uptime, promise.uptime);
  const kind = kept === null ? "rest" : kept ? "good" : "bad";
  return (
    <section class="card sla">
      <div class="page-head">
        <h2>Policy {report.policy}</h2>
        <span class={`badge ${kind}`}>
          <Shape kind={kind} />
          {kept === null ? "nothing was asked" : kept ? "kept" : "not kept"}
          {report.is_over ? "" : " so far"}
        </span>
      </div>
      <p class="hint">
        {moment(report.begins)} to {moment(report.is_over ? report.ends : report.until)}, counted in {promise.zone} by{" "}
        {promise.measure === "5m" ? "intervals of five minutes" : "requests"}
      </p>
      <Figures report={report} />
      <WorstHour hour={figures.worst_hour} of="requests" />
      <WorstHour hour={report.probes.worst_hour} of="probes" />
      {report.keys.length > 0 && (
        <>
          <h3>By key</h3>
          <Table caption={`Keys of ${report.policy}`} columns={KEY_COLUMNS} rows={report.keys} id={(one) => one.key} />
        </>
      )}
      <h3>Closed</h3>
      {report.closings.length === 0 ? (
        <p class="hint">
          {report.is_over ? "It closes at" : "The month closes by itself at"} {moment(report.closes)}. Its credit{" "}
          {report.step === null ? "would be nothing as it is" : `would be ${report.step.credit} of what was spent, ${money(figures.spent)}, as it is`}.
        </p>
      ) : (
        report.closings.map((closing) => <Closing key={closing.statement} closing={closing} />)
      )}
      {report.unreadable > 0 && (
        <p class="hint">{count(report.unreadable)} receipts cannot be read, and count for nothing.</p>
      )}
    </section>
  );
}

function WorstHour({ hour, of }: { hour: SlaFigures["worst_hour"]; of: string }) {
  if (hour === null) return null;
  return (
    <>
      <h3>
        The worst hour of {of}, from {moment(hour.begins)}: {count(hour.failed)} failed
      </h3>
      <ul class="causes">
        {hour.causes.map((cause) => (
          <li key={cause.reason}>
            {count(cause.failed)} × {words(cause.reason)}, such as <a href={build("requests", cause.request_id)}>{cause.request_id}</a>
          </li>
        ))}
      </ul>
    </>
  );
}

function Figures({ report: { figures, probes, promise, dead_intervals: dead } }: { report: SlaReport }) {
  const left = budgetLeft(figures.error_budget_left_s);
  const within = promise.first_token_within_us;
  return (
    <dl class="tiles">
      <Tile title="Uptime" value={figures.uptime ?? "–"} note={`promised ${promise.uptime}`} bad={isKept(figures.uptime, promise.uptime) === false} />
      <Tile title="Error budget left" value={left} note="of the month's" bad={figures.error_budget_left_s < 0} />
      <Tile title="Burn, last hour" value={burn(figures.burn_1h)} note={`6 h ${burn(figures.burn_6h)}, 3 d ${burn(figures.burn_3d)}`} bad={(figures.burn_1h ?? 0) > 1000} />
      <Tile
        title="First token, p95"
        value={duration(figures.first_token_p95_us)}
        note={within === null ? "nothing promised" : `${figures.first_token_kept ?? "–"} within ${duration(within)}, promised ${promise.first_token_share}`}
        bad={within !== null && isKept(figures.first_token_kept, promise.first_token_share ?? "0%") === false}
      />
      <Tile title="Failed" value={count(figures.failed)} note={`of ${count(figures.eligible)} eligible${dead > 0 ? `, ${dead} dead intervals` : ""}`} />
      {probes.sent > 0 && (
        <Tile
          title="Probes failed"
          value={count(probes.failed)}
          note={`of ${count(probes.sent)}; ${count(probes.intervals)} idle intervals count by them`}
          bad={probes.failed > 0}
        />
      )}
      <Tile title="Spent" value={money(figures.spent)} note={`${count(figures.requests)} requests in all`} />
    </dl>
  );
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

const figure = (of: (figures: SlaFigures) => number | null) => (one: SlaKey) => of(one.figures) ?? -1;

const KEY_COLUMNS: Column<SlaKey>[] = [
  { id: "key", title: "Key", cell: (one) => one.key, by: (one) => one.key },
  { id: "uptime", title: "Uptime", cell: (one) => one.figures.uptime ?? "–", by: (one) => Number.parseFloat(one.figures.uptime ?? "-1"), numeric: true },
  { id: "failed", title: "Failed", cell: (one) => count(one.figures.failed), by: figure((of) => of.failed), numeric: true },
  { id: "eligible", title: "Eligible", cell: (one) => count(one.figures.eligible), by: figure((of) => of.eligible), numeric: true },
  { id: "p95", title: "First token, p95", cell: (one) => duration(one.figures.first_token_p95_us), by: figure((of) => of.first_token_p95_us), numeric: true, wide: true },
  { id: "spent", title: "Spent", cell: (one) => money(one.figures.spent), by: (one) => Number(one.figures.spent), numeric: true, wide: true },
];

function Closing({ closing }: { closing: SlaClosing }) {
  return (
    <div class="closing">
      <p>
        {closing.statement === 1 ? "Closed" : `Restated (statement ${closing.statement})`} {moment(closing.closed)}: {closing.uptime ?? "no"} uptime,{" "}
        {count(closing.failed)} of {count(closing.eligible)} failed.{" "}
        {closing.step === null ? "No credit." : `Credit: ${closing.step.credit} of what was spent, below ${closing.step.below}.`}
      </p>
      {closing.credits.length > 0 && (
        <ul class="causes">
          {closing.credits.map((credit) => (
            <li key={`${credit.team} ${credit.key}`}>
              {credit.team === null ? `Key ${credit.key}` : `Team ${credit.team}`}: {money(credit.granted)} granted, {money(credit.due)} due of {money(credit.spent)}
            </li>
          ))}
        </ul>
      )}
    </div>
  );
}

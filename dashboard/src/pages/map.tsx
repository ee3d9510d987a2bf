/** Where requests go: tiers, their models, the deployments that serve them; and what becomes of it when one breaks. */
import { useEffect, useRef, useState } from "preact/hooks";
import type { Deployment } from "../api/types";
import { clock, duration, rate, span, words } from "../format";
import { breakIt, endFault, faultAt, LASTS } from "../faults";
import { causeWords, flows, lamp, layout, ROW, stateWord, width, type Line, type MapLayout } from "../map-layout";
import { build, type Route } from "../route";
import { sampling, startSampling } from "../sample";
import { deployments, faults, gateway, lastSeconds, mayChange, second, useStore } from "../store";
import { Empty, Problem, Shape, StateBadge, useAction } from "../ui/parts";

export function MapPage({ route }: { route: Route }) {
  const here = useStore(gateway);
  const all = useStore(deployments);
  const recent = useStore(lastSeconds);
  const sample = useStore(sampling);
  const chosen = all.find((one) => one.deployment === route.detail);
  if (here === null) return <div class="waiting" aria-busy="true" />;
  if (all.length === 0) {
    return (
      <Empty title="No deployment is configured.">
        <p>
          <code>tierway init</code> writes a configuration with the providers whose keys it finds.
        </p>
      </Empty>
    );
  }
  return (
    <>
      <div class="page-head">
        <h1>Map</h1>
        <Rates />
        {here.simulated && here.clients_at === null && mayChange() && sample !== "on" && (
          <button type="button" onClick={() => void startSampling()}>
            Send sample traffic
          </button>
        )}
      </div>
      {here.fault_api && <Regions all={all} regions={here.regions} />}
      <div class="map-and-detail">
        <Graph plan={layout(here, all, flows(recent))} chosen={route.detail} />
        {chosen !== undefined && <Detail one={chosen} breakable={here.fault_api} />}
      </div>
    </>
  );
}

/** The promise in two figures: asked, and failed. */
function Rates() {
  const recent = useStore(lastSeconds);
  const seconds = Math.max(1, recent.length);
  const sum = (of: (one: (typeof recent)[number]) => number) => recent.reduce((all, one) => all + of(one), 0);
  const failures = sum((one) => one.faults);
  return (
    <p class="rates" role="status">
      <strong>{rate(sum((one) => one.requests) / seconds)}</strong> requests a second,{" "}
      <span class={failures > 0 ? "badge bad" : "badge good"}>
        <Shape kind={failures > 0 ? "bad" : "good"} />
        {failures} failed
      </span>{" "}
      in the last {seconds} s
    </p>
  );
}

function Regions({ all, regions }: { all: Deployment[]; regions: string[] }) {
  const injected = useStore(faults);
  const { busy, error, run } = useAction();
  return (
    <section class="card regions" aria-labelledby="regions-title">
      <h2 id="regions-title">Regions</h2>
      <p class="hint">
        Break one and watch its requests move. It mends itself after {LASTS === "2m" ? "2 minutes" : LASTS}.
      </p>
      {error !== null && <Problem error={error} />}
      <ul>
        {regions.map((region) => {
          const own = all.filter((one) => one.region === region);
          const serving = own.filter((one) => one.state === "closed").length;
          const fault = faultAt(injected, { region });
          const kind = serving === own.length ? "good" : serving === 0 ? "bad" : "warn";
          return (
            <li key={region}>
              <Shape kind={kind} />
              <span class="region-name">{region}</span>
              <span class="hint">
                {serving} of {own.length} serving
              </span>
              {mayChange() &&
                (fault === undefined ? (
                  <button type="button" disabled={busy} onClick={() => run(() => breakIt({ region }))}>
                    Break <span class="unseen">region {region}</span>
                  </button>
                ) : (
                  <button type="button" class="primary" onClick={() => endFault(fault)}>
                    Mend <span class="unseen">region {region}</span>
                  </button>
                ))}
            </li>
          );
        })}
      </ul>
    </section>
  );
}

const COLUMN = 220;
const NARROW = 720;

function Graph({ plan, chosen }: { plan: MapLayout; chosen: string | null }) {
  const box = useRef<HTMLDivElement>(null);
  const [wide, setWide] = useState(1000);
  useEffect(() => {
    const element = box.current;
    if (element === null) return;
    const measured = () => setWide(element.clientWidth);
    measured();
    const resized = new ResizeObserver(measured);
    resized.observe(element);
    return () => resized.disconnect();
  }, []);
  const narrow = wide < NARROW;
  const right = narrow ? wide : Math.min(280, Math.max(COLUMN, wide * 0.28));
  const left = Math.min(180, wide * 0.16);
  const middle = Math.min(260, wide * 0.26);
  const middleX = (left + wide - right) / 2 - middle / 2;
  return (
    <div ref={box} class={narrow ? "graph narrow" : "graph"} style={narrow ? {} : { height: `${plan.height}px` }}>
      {!narrow && (
        <svg class="lines" width={wide} height={plan.height} aria-hidden="true">
          {plan.toModels.map((line) => (
            <Path key={`${line.from} ${line.to}`} line={line} x={[left, middleX]} />
          ))}
          {plan.toDeployments.map((line) => (
            <Path key={`${line.from} ${line.to}`} line={line} x={[middleX + middle, wide - right]} />
          ))}
        </svg>
      )}
      {!narrow &&
        plan.tiers.map((tier) => (
          <div key={tier.name} class="node tier" style={{ top: `${tier.y - ROW / 2}px`, left: "0", width: `${left}px`, height: `${ROW}px` }}>
            <span class="node-kind">tier</span>
            <span class="node-name">{tier.name}</span>
          </div>
        ))}
      {!narrow &&
        plan.models.map((model) => (
          <div
            key={model.name}
            class="node model"
            style={{ top: `${model.y - ROW / 2}px`, left: `${middleX}px`, width: `${middle}px`, height: `${ROW}px` }}
          >
            <span class="node-kind">model</span>
            <span class="node-name" title={model.name}>
              {model.name}
            </span>
          </div>
        ))}
      {plan.deployments.map(({ deployment, name, y }) => {
        const line = plan.toDeployments.find((one) => one.to === name);
        const place = narrow ? {} : { top: `${y - ROW / 2}px`, left: `${wide - right}px`, width: `${right}px`, height: `${ROW}px` };
        return (
          <a
            key={name}
            class={`node deployment ${lamp(deployment.state)}${chosen === name ? " selected" : ""}`}
            href={build("map", chosen === name ? null : name)}
            style={place}
            aria-label={`${name}, ${stateWord(deployment.state)}, ${rate(line?.rate ?? 0)} attempts a second`}
          >
            <span class="node-top">
              <StateBadge state={deployment.state} />
              <span class="node-rate">{rate(line?.rate ?? 0)}/s</span>
            </span>
            <span class="node-name" title={name}>
              {narrow ? name : deployment.provider} <span class="node-region">{deployment.region}</span>
            </span>
          </a>
        );
      })}
    </div>
  );
}

function Path({ line, x: [from, to] }: { line: Line; x: [number, number] }) {
  const bend = (to - from) / 2;
  const d = `M${from} ${line.fromY} C${from + bend} ${line.fromY} ${to - bend} ${line.toY} ${to} ${line.toY}`;
  const kind = line.rate === 0 ? "idle" : line.failed ? "failed" : "flowing";
  return <path d={d} class={kind} style={{ strokeWidth: `${width(line.rate)}px` }} />;
}

function Detail({ one, breakable }: { one: Deployment; breakable: boolean }) {
  const injected = useStore(faults);
  useStore(second);
  const { busy, error, run } = useAction();
  const now = Date.now();
  const fault = faultAt(injected, { deployment: one.deployment });
  const since = one.since === null ? null : Date.parse(one.since);
  const probe = one.next_probe === null ? null : Date.parse(one.next_probe);
  return (
    <aside class="card detail" aria-labelledby="detail-title">
      <div class="detail-head">
        <h2 id="detail-title">{one.deployment}</h2>
        <a class="plain" href={build("map")} aria-label="Close">
          ✕
        </a>
      </div>
      <p>
        <StateBadge state={one.state} />
        {one.cause !== null && <> because {causeWords(one.cause)}</>}
        {since !== null && one.state !== "closed" && <>, for {span(since, now)}</>}
        {probe !== null && one.state !== "closed" && (
          <>; {probe <= now ? "the next attempt may try it" : `tried again at ${clock(probe)}`}</>
        )}
      </p>
      <dl class="facts">
        <dt>Model</dt>
        <dd>{one.model}</dd>
        <dt>Region</dt>
        <dd>{one.region}</dd>
        <dt>Provider</dt>
        <dd>
          {one.provider} ({one.url === "sim" ? "simulated" : one.url})
        </dd>
        <dt>First token</dt>
        <dd>
          p50 {duration(one.stream_first_token.p50_us)}, p99 {duration(one.stream_first_token.p99_us)}
        </dd>
        <dt>Whole answer</dt>
        <dd>
          p50 {duration(one.whole_answer.p50_us)}, p99 {duration(one.whole_answer.p99_us)}
        </dd>
        <dt>Last failure</dt>
        <dd>
          {one.last_failure === null
            ? "none"
            : `${clock(Date.parse(one.last_failure.time))}: ${words(one.last_failure.reason)}. ${one.last_failure.detail}`}
        </dd>
      </dl>
      {error !== null && <Problem error={error} />}
      <div class="actions">
        <a class="button" href={build("requests", null, { deployment: one.deployment })}>
          Its requests
        </a>
        {breakable && mayChange() && fault === undefined && (
          <button type="button" disabled={busy} onClick={() => run(() => breakIt({ deployment: one.deployment }))}>
            Break it
          </button>
        )}
        {breakable && mayChange() && fault !== undefined && (
          <button type="button" class="primary" onClick={() => endFault(fault)}>
            Mend it
          </button>
        )}
      </div>
    </aside>
  );
}

/** What a buyer asks, each answer with its source and date, or with how to measure it. */
import { api, ApiError, query } from "../api/client";
import type { PostureAnswer, PostureAnswers } from "../api/types";
import { moment } from "../format";
import { build, type Route } from "../route";
import { gateway, useStore } from "../store";
import { Empty, Problem, Shape, usePolled } from "../ui/parts";

export function Posture({ route }: { route: Route }) {
  const policy = route.query.policy ?? "";
  const here = useStore(gateway);
  const polled = usePolled(() => api.get<PostureAnswers>(`/posture${query({ policy })}`), 60_000, [policy]);
  const posture = polled.value;
  const noLedger = polled.error instanceof ApiError && polled.error.code === "no_ledger";
  return (
    <>
      <div class="page-head">
        <h1>Posture</h1>
        <div class="segments" role="group" aria-label="Policy">
          <a href={build("posture")} aria-current={policy === "" ? "true" : undefined}>
            All policies
          </a>
          {(here?.policies ?? []).map((one) => (
            <a key={one} href={build("posture", null, { policy: one })} aria-current={one === policy ? "true" : undefined}>
              {one}
            </a>
          ))}
        </div>
        <button type="button" onClick={() => window.print()}>
          Print
        </button>
      </div>
      {polled.error !== null && !noLedger && <Problem error={polled.error} again={polled.again} />}
      {noLedger ? (
        <section class="card">
          <Empty title="No ledger is kept, and nothing is measured without one.">
            <p>
              Write <code>[store] url = "sqlite:tierway.db"</code>.
            </p>
          </Empty>
        </section>
      ) : posture === null ? (
        <div class="waiting" aria-busy="true" />
      ) : (
        <>
          <p class="hint lead">
            {posture.policy === null ? "All policies" : `Policy ${posture.policy}`}; the ledger from {moment(posture.since)} to {moment(posture.until)}
          </p>
          {posture.answers.map((answer, at) => (
            <Answer key={answer.question} answer={answer} number={at + 1} />
          ))}
        </>
      )}
    </>
  );
}

/** Commands are between backticks. */
function withCode(text: string) {
  return text.split("`").map((part, at) => (at % 2 === 1 ? <code key={at}>{part}</code> : part));
}

function Answer({ answer, number }: { answer: PostureAnswer; number: number }) {
  const kind = answer.measured ? "good" : "rest";
  return (
    <section class="card answer">
      <div class="page-head">
        <h2>
          {number}. {answer.question}
        </h2>
        <span class={`badge ${kind}`}>
          <Shape kind={kind} />
          {answer.measured ? "measured" : "not measured yet"}
        </span>
      </div>
      {answer.facts.length > 0 && (
        <ul class="posture-facts">
          {answer.facts.map((fact) => (
            <li key={`${fact.topic} ${fact.source} ${fact.value}`}>
              <span class="topic">{fact.topic}</span>
              <span>{fact.value}</span>
              <span class="hint">
                {fact.source}, {fact.since === null ? moment(fact.at) : `${moment(fact.since)} to ${moment(fact.at)}`}
              </span>
            </li>
          ))}
        </ul>
      )}
      {answer.how_to_measure !== null && (
        <p>
          <strong>To measure it:</strong> {withCode(answer.how_to_measure)}
        </p>
      )}
    </section>
  );
}

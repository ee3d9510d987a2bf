//! One sentence for every setting: the words of the schema and of `docs/configuration.md`.
//!
//! What is true of the code (type, default, place) is never said here; it comes from the reading.
//! A test fails for a setting without a sentence and for a sentence without a setting.

/// By path, as the catalogue writes it; `*.` begins what holds wherever a path ends like this.
const SENTENCES: &[(&str, &str)] = &[
    ("server", "How the front door stands."),
    ("server.listen", "Where clients are served, and operators unless moved. A change needs a restart."),
    ("server.admin_listen", "Moves everything but /v1 to an address of its own. A change needs a restart."),
    (
        "server.admin_token",
        "What operators present. Absent: $TIERWAY_ADMIN_TOKEN, else one is made at start and printed once. \
         Required where operators can be reached from other machines.",
    ),
    ("server.viewer_token", "What those present who may look at everything of an operator's and change nothing."),
    ("server.max_body", "The longest request body, as sent and as decoded."),
    ("server.max_in_flight_bytes", "The longest sum of all request bodies held at once; more are told to slow down."),
    ("server.lb_grace", "How long to keep accepting after SIGTERM, while /readyz already says 503."),
    ("server.drain", "How long open streams may finish after SIGTERM."),
    ("server.tls", "Serves HTTPS on every address. New files are taken while running; on or off needs a restart."),
    ("server.tls.cert", "The certificate chain as PEM, the server's own certificate first."),
    ("server.tls.key", "The private key of the first certificate, as PEM."),
    ("store", "What keeps keys and receipts. A change needs a restart."),
    (
        "store.url",
        "\"sqlite:PATH\" is one file, made where there is none, and held by one gateway; \"memory:\" keeps nothing. \"postgres://…\" is not enforced yet.",
    ),
    (
        "store.retention",
        "How long receipts are kept, such as \"400d\"; absent: for ever. What is too old is deleted a little at a time.",
    ),
    ("store.shared", "Rate limits and concurrency shared by replicas."),
    ("telemetry", "What is told to whom."),
    ("telemetry.log", "A level, or directives such as \"info,tierway::relay=debug\"; one line a request at info."),
    ("telemetry.metrics_token", "What /metrics asks for; without it /metrics is open to whoever reaches it."),
    ("telemetry.otlp", "Where traces are sent."),
    ("providers", "Who serves, by name."),
    ("providers.NAME", "A wire protocol, a host, credentials and a region."),
    (
        "providers.NAME.protocol",
        "The dialect: openai and everything that speaks it, or sim, which answers by itself; not all are built yet.",
    ),
    (
        "providers.NAME.region",
        "Where it runs: for residency, and so that a failing region is left. Absent: a region of its own.",
    ),
    (
        "providers.NAME.finish_reason",
        "Optional for a provider known to end streams without one; otherwise such an end is a truncation.",
    ),
    ("providers.NAME.base_url", "Scheme, host and path of the API. Required unless the provider is simulated."),
    ("providers.NAME.credential", "What we present. Several are used in turn, each resting on its own."),
    ("providers.NAME.http2", "Whether to speak HTTP/2; one connection per host is then a ceiling."),
    ("providers.NAME.first_token", "Simulated only: the time to the first token."),
    ("providers.NAME.tokens_per_second", "Simulated only: the pace after the first token."),
    ("providers.NAME.error_rate", "Simulated only: the share of requests answered with an error."),
    ("models", "What clients ask for, by name."),
    ("models.NAME", "A model and who serves it."),
    ("models.NAME.endpoints", "What it serves."),
    (
        "*.price",
        "What it costs, in USD, or what it costs from which day on; a deployment's own takes the place of the model's.",
    ),
    (
        "*.price.from",
        "The day it begins, at midnight UTC: each has one but the first, which holds until the next begins.",
    ),
    ("*.price.version", "What receipts call it. Absent: what it costs, such as \"0.07/0.25\" for input and output."),
    ("*.price.input", "For a million input tokens."),
    ("*.price.cached_input", "For a million cached input tokens. Absent: as input."),
    ("*.price.output", "For a million output tokens."),
    ("*.price.request", "For each request."),
    ("models.NAME.context", "The longest input and output together, in tokens. Required where a budget applies."),
    ("models.NAME.max_output", "The longest output, in tokens. Required where a budget applies."),
    (
        "models.NAME.typical_output",
        "What an answer usually takes, in tokens: for limits where the client names no ceiling.",
    ),
    ("models.NAME.features", "What it can do. Absent: everything."),
    ("models.NAME.first_token", "Its own deadline for the first token of a stream, in place of that of [routing]."),
    ("models.NAME.whole", "Its own deadline for a whole answer, in place of that of [routing]."),
    ("models.NAME.deployments", "Each is this model at one provider."),
    ("models.NAME.deployments.provider", "Who serves it."),
    ("models.NAME.deployments.weight", "Its share among the model's shared deployments, where balance is weighted."),
    ("models.NAME.deployments.upstream_model", "The model's name at the provider. Absent: the same."),
    (
        "models.NAME.deployments.name",
        "Its stable name, in metrics and headers. Absent: PROVIDER/MODEL, or PROVIDER/Pro/MODEL if dedicated.",
    ),
    ("models.NAME.deployments.capacity", "Dedicated capacity is reached only as \"Pro/MODEL\"."),
    ("models.NAME.deployments.max_concurrent", "How many requests it may carry at once; full is passed over."),
    ("models.NAME.deployments.spill", "Dedicated only: when it is down, Pro/ requests may use shared deployments."),
    ("models.NAME.deployments.lend", "Dedicated only: idle capacity serves plain names."),
    ("tiers", "Lists of models to step down through, by name. The name of a tier is a model too."),
    ("tiers.NAME", "A list of models with a chain."),
    ("tiers.NAME.then", "The whole list of tiers to step down through; never followed further."),
    ("tiers.NAME.models", "Tried as written; where one is given a weight, the first is drawn by weight."),
    ("tiers.NAME.models.name", "The model."),
    ("tiers.NAME.models.weight", "How often it is the first, beside the others; 1 where only others have one."),
    ("aliases", "Model names of your own that split over tiers or models."),
    ("aliases.NAME", "One such name."),
    ("aliases.NAME.sticky", "What a draw is bound to: nothing, the key, or the body's `user`."),
    ("aliases.NAME.split", "Tiers or models and their shares."),
    ("aliases.NAME.split.NAME", "The share of this tier or model."),
    ("routing", "How a deployment is chosen, and for how long to wait."),
    ("routing.region", "The gateway's own region, preferred where a choice is free."),
    ("routing.balance", "How one is chosen among a model's deployments; latency is the better of two drawn."),
    ("routing.max_attempts", "Attempts for one request over the whole chain, retries included."),
    ("routing.retry_budget", "Extra attempts, as a share of traffic, with a floor of 10 per second."),
    ("routing.connect_timeout", "How long a connection may take to stand."),
    ("routing.first_token", "Streams: from the request sent to the first token."),
    ("routing.idle", "Streams: between two frames."),
    ("routing.whole", "Whole answers: from the request sent to the last byte."),
    ("routing.total", "From the request being read to its last byte, over all attempts."),
    ("routing.silent_after", "An attempt silent for this long counts against its deployment in the choice."),
    ("routing.retry_after_wait_max", "How long to wait for a throttled deployment when nothing else can serve."),
    ("routing.same_region_retry_on_500", "1: a 500 is tried once more at the same deployment before another is."),
    ("routing.malformed_frame", "What a frame that is not JSON means: a failure, or something to pass on."),
    ("routing.breaker", "When a deployment is left alone, and for how long."),
    ("routing.breaker.failures", "It trips after this many failures in a row."),
    ("routing.breaker.ratio", "It trips when fewer than this share succeed."),
    ("routing.breaker.window", "The time over which the share is counted."),
    ("routing.breaker.min_requests", "Below this many requests in the window a share says nothing."),
    ("routing.breaker.open", "How long it is left alone the first time; doubled each time after."),
    ("routing.breaker.open_max", "The longest it is left alone."),
    ("routing.stream", "What happens to a stream that breaks: strict ends it with an error."),
    ("policies", "What keys may do, by name."),
    ("policies.NAME", "Each limit and budget is each key's own."),
    ("policies.NAME.tiers", "The tiers whose models it may use: names, or \"*\" for all."),
    ("policies.NAME.models", "Models beyond those tiers, as patterns."),
    ("policies.NAME.priority", "The share when the gateway is full."),
    ("policies.NAME.clamp", "Whether an answer is shortened to what is left of a budget rather than refused."),
    (
        "policies.NAME.unknown_price",
        "Whether models without a price may be used where a budget applies; they then cost nothing.",
    ),
    (
        "policies.NAME.credit",
        "Whether credit is spent first and budgets pay for the rest, or nothing is served that credit does not cover.",
    ),
    ("policies.NAME.hedge", "A second attempt while the first is still silent; the first good frame wins."),
    ("policies.NAME.hedge.after", "When it starts: a percentile of the usual first token, or a time."),
    ("policies.NAME.hedge.at_least", "Never earlier than this."),
    ("policies.NAME.hedge.extra", "At most this share of the traffic."),
    ("policies.NAME.sla", "What is promised, and the credit given when it is not kept."),
    ("policies.NAME.sla.uptime", "The share of requests served."),
    ("policies.NAME.sla.first_token", "The time to the first token."),
    ("policies.NAME.sla.credits", "What is given back, by how much was missed."),
    ("policies.NAME.sla.credits.below", "Below this uptime …"),
    ("policies.NAME.sla.credits.credit", "… this share of what was spent."),
    ("policies.NAME.total", "What all keys of the policy share."),
    ("policies.NAME.regions", "Residency, as patterns: never left, not even by a retry. Absent: everywhere."),
    ("policies.NAME.reserved", "Whether Pro/ names may be used."),
    ("*.requests_per_minute", "Requests in any sliding minute."),
    ("*.tokens_per_minute", "Tokens in any sliding minute, as taken at admission and corrected by usage."),
    ("*.max_concurrent", "Requests at once."),
    ("*.budget", "What may be spent; a request that may cost more than is left is not sent."),
    ("*.budget.limit", "In USD."),
    ("*.budget.window", "When it is whole again: each day, each month, or never."),
    ("*.budget.zone", "In which time zone days and months end."),
    ("teams", "Who shares a budget and a report, by name; one that is not declared has no budget."),
    ("teams.NAME", "A team."),
    ("keys", "What clients present; more may live in the store."),
    ("keys.name", "For people; unique."),
    ("keys.secret", "What the client presents. One of secret and hash."),
    ("keys.hash", "The SHA-256 of what the client presents."),
    ("keys.team", "Whom it belongs to."),
    ("keys.policy", "What it may do."),
    ("keys.expires", "Its last day, in UTC, or the instant it ends."),
    ("drill", "Rehearsed outages."),
    ("drill.enabled", "Opens the fault API, so that failover can be rehearsed."),
];

/// What the setting at `path` is for, in one sentence; empty for a setting nobody wrote about.
pub(super) fn sentence(path: &str) -> &'static str {
    row(path).map_or("", |(_, sentence)| sentence)
}

fn row(path: &str) -> Option<&'static (&'static str, &'static str)> {
    let ends = |named: &str| named.strip_prefix('*').is_some_and(|end| path.ends_with(end));
    SENTENCES.iter().find(|(named, _)| *named == path).or_else(|| SENTENCES.iter().find(|(named, _)| ends(named)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse::describe;
    use std::collections::BTreeSet;

    #[test]
    fn every_setting_has_a_sentence_and_every_sentence_a_setting() {
        let catalogue = describe();
        let paths: Vec<&str> = catalogue.settings.iter().map(|setting| setting.path.as_str()).collect();
        let silent: Vec<&&str> = paths.iter().filter(|path| row(path).is_none()).collect();
        assert!(silent.is_empty(), "without a sentence: {silent:?}");
        let used: BTreeSet<&str> = paths.iter().filter_map(|path| row(path)).map(|(named, _)| *named).collect();
        let idle: Vec<&str> = SENTENCES.iter().map(|(named, _)| *named).filter(|named| !used.contains(named)).collect();
        assert!(idle.is_empty(), "about no setting: {idle:?}");
    }

    #[test]
    fn sentences_end_as_sentences_do() {
        for (path, sentence) in SENTENCES {
            assert!(sentence.ends_with(['.', '…']), "{path}: {sentence}");
        }
    }
}

//! The file, one to one.
//!
//! Every struct here is a table of the file and every field a setting, with its default in place and
//! the place where it was written. Names are still names: nothing here knows whether the tier they
//! speak of exists. A required field is `Option`, `None` only after its absence was complained about.

use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroU64};
use std::time::Duration;

use super::reader::{Written, words};
use super::settings::{FinishReason, MalformedFrame, Protocol};
use super::value::{BaseUrl, CertificateChain, Day, Days, Expiry, LogFilter, Name, Percent, PrivateKey, Sha256};
use super::value::{Size, StoreUrl, Wait};
use crate::domain::budget::{CreditUse, Zone};
use crate::domain::call::{Endpoint, Feature};
use crate::domain::glob::Glob;
use crate::domain::money::{NanoUsd, PicoUsdPerToken};
use crate::domain::routing::table::{Balance, Capacity, Sticky};
use crate::domain::secret::Secret;

/// The whole file.
pub(super) struct Raw {
    pub(super) server: Server,
    pub(super) store: Store,
    pub(super) telemetry: Telemetry,
    pub(super) providers: Vec<Provider>,
    pub(super) models: Vec<Model>,
    pub(super) tiers: Vec<Tier>,
    pub(super) aliases: Vec<Alias>,
    pub(super) routing: Routing,
    pub(super) policies: Vec<Policy>,
    pub(super) teams: Vec<Team>,
    pub(super) keys: Vec<Key>,
}

/// `[server]`
pub(super) struct Server {
    pub(super) listen: Written<SocketAddr>,
    pub(super) admin_listen: Option<Written<SocketAddr>>,
    pub(super) admin_token: Option<Written<Secret>>,
    pub(super) viewer_token: Option<Written<Secret>>,
    pub(super) max_body: Written<Size>,
    pub(super) max_in_flight_bytes: Written<Size>,
    pub(super) lb_grace: Written<Duration>,
    pub(super) drain: Written<Duration>,
    pub(super) tls: Option<Tls>,
}

/// `[server.tls]`
pub(super) struct Tls {
    pub(super) cert: Option<Written<CertificateChain>>,
    pub(super) key: Option<Written<PrivateKey>>,
}

/// `[store]`
pub(super) struct Store {
    pub(super) url: Written<StoreUrl>,
    pub(super) retention: Option<Written<Days>>,
    pub(super) shared: Option<Written<StoreUrl>>,
}

/// `[telemetry]`
pub(super) struct Telemetry {
    pub(super) log: Written<LogFilter>,
    pub(super) metrics_token: Option<Written<Secret>>,
}

/// `[providers.NAME]`
pub(super) struct Provider {
    pub(super) name: Written<String>,
    pub(super) protocol: Option<Written<Protocol>>,
    pub(super) region: Option<Written<Name>>,
    pub(super) finish_reason: Written<FinishReason>,
    /// `None` where it is simulated.
    pub(super) network: Option<Network>,
    /// `None` where it is not.
    pub(super) sim: Option<Sim>,
}

/// The settings of a provider that is reached over the network.
pub(super) struct Network {
    pub(super) base_url: Option<Written<BaseUrl>>,
    pub(super) credentials: Vec<Written<Secret>>,
    pub(super) http2: Written<bool>,
}

/// The settings of a `sim` provider.
pub(super) struct Sim {
    pub(super) first_token: Written<Duration>,
    pub(super) tokens_per_second: Written<NonZeroU32>,
    pub(super) error_rate: Written<Percent>,
}

/// `[models.NAME]`
pub(super) struct Model {
    pub(super) name: Written<String>,
    /// In the order of their dates; where one is wrong, less.
    pub(super) price: Option<Vec<Price>>,
    pub(super) context: Option<Written<NonZeroU64>>,
    pub(super) max_output: Option<Written<NonZeroU64>>,
    pub(super) typical_output: Written<NonZeroU64>,
    pub(super) endpoints: Vec<Endpoint>,
    /// `None`: all.
    pub(super) features: Option<Vec<Feature>>,
    pub(super) first_token: Option<Written<Wait>>,
    pub(super) whole: Option<Written<Wait>>,
    pub(super) deployments: Vec<Deployment>,
}

/// `price = { … }`, or each of `price = [{ … }, …]`
pub(super) struct Price {
    /// Of the first: `None`.
    pub(super) from: Option<Written<Day>>,
    pub(super) version: Option<Written<Name>>,
    pub(super) input: Option<Written<PicoUsdPerToken>>,
    pub(super) cached_input: Option<Written<PicoUsdPerToken>>,
    pub(super) output: Option<Written<PicoUsdPerToken>>,
    pub(super) request: Written<NanoUsd>,
}

/// `[[models.NAME.deployments]]`
pub(super) struct Deployment {
    pub(super) provider: Option<Written<Name>>,
    pub(super) weight: Written<NonZeroU32>,
    pub(super) upstream_model: Option<Written<Name>>,
    pub(super) name: Option<Written<Name>>,
    pub(super) capacity: Written<Capacity>,
    pub(super) max_concurrent: Option<Written<NonZeroU32>>,
    pub(super) price: Option<Vec<Price>>,
    pub(super) spill: Written<bool>,
}

/// `[tiers.NAME]`
pub(super) struct Tier {
    pub(super) name: Written<String>,
    pub(super) models: Vec<TierModel>,
    pub(super) then: Vec<Written<Name>>,
}

/// `"NAME"` or `{ name = "NAME", weight = 2 }`
pub(super) struct TierModel {
    pub(super) name: Option<Written<Name>>,
    pub(super) weight: Option<Written<NonZeroU32>>,
}

/// `[aliases.NAME]`
pub(super) struct Alias {
    pub(super) name: Written<String>,
    pub(super) split: Vec<(Written<String>, Written<NonZeroU32>)>,
    pub(super) sticky: Written<Sticky>,
}

/// `[routing]`
pub(super) struct Routing {
    pub(super) region: Option<Written<Name>>,
    pub(super) balance: Written<Balance>,
    pub(super) max_attempts: Written<NonZeroU32>,
    pub(super) retry_budget: Written<Percent>,
    pub(super) connect_timeout: Written<Wait>,
    pub(super) first_token: Written<Wait>,
    pub(super) idle: Written<Wait>,
    pub(super) whole: Written<Wait>,
    pub(super) total: Written<Wait>,
    pub(super) silent_after: Written<Wait>,
    pub(super) retry_after_wait_max: Written<Duration>,
    pub(super) same_region_retry_on_500: Written<u32>,
    pub(super) malformed_frame: Written<MalformedFrame>,
    pub(super) breaker: Breaker,
}

/// `breaker = { … }`
pub(super) struct Breaker {
    pub(super) failures: Written<NonZeroU32>,
    pub(super) ratio: Written<Percent>,
    pub(super) window: Written<Wait>,
    pub(super) min_requests: Written<NonZeroU32>,
    pub(super) open: Written<Wait>,
    pub(super) open_max: Written<Wait>,
}

/// `[policies.NAME]`
pub(super) struct Policy {
    pub(super) name: Written<String>,
    pub(super) tiers: Vec<Written<Name>>,
    pub(super) models: Vec<Written<Glob>>,
    pub(super) regions: Option<Vec<Written<Glob>>>,
    pub(super) reserved: Written<bool>,
    pub(super) limits: Limits,
    pub(super) clamp: Written<bool>,
    pub(super) unknown_price: Written<UnknownPrice>,
    pub(super) credit: Written<CreditUse>,
    /// What its keys share: only a budget yet.
    pub(super) total: Option<Budget>,
}

/// What a policy allows each of its keys, and a key may tighten.
pub(super) struct Limits {
    pub(super) requests_per_minute: Option<Written<NonZeroU64>>,
    pub(super) tokens_per_minute: Option<Written<NonZeroU64>>,
    pub(super) max_concurrent: Option<Written<NonZeroU32>>,
    pub(super) budget: Option<Budget>,
}

/// `budget = { … }`
pub(super) struct Budget {
    pub(super) limit: Option<Written<NanoUsd>>,
    pub(super) window: Written<Window>,
    pub(super) zone: Written<Zone>,
}

/// `[teams.NAME]`
pub(super) struct Team {
    pub(super) name: Written<String>,
    pub(super) budget: Option<Budget>,
}

/// `[[keys]]`
pub(super) struct Key {
    pub(super) name: Option<Written<Name>>,
    pub(super) team: Option<Written<Name>>,
    pub(super) policy: Option<Written<Name>>,
    pub(super) hash: Option<Written<Sha256>>,
    pub(super) expires: Option<Written<Expiry>>,
    pub(super) limits: Limits,
}

/// When a window of money ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Window {
    Day,
    Month,
    None,
}

/// What happens to a stream that breaks after its first token.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Stream {
    Strict,
    Buffered,
    Splice,
}

/// What a policy says to a model without a price.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum UnknownPrice {
    Deny,
    Allow,
}

words!(Window { "day" => Day, "month" => Month, "none" => None });
words!(Stream { "strict" => Strict, "buffered" => Buffered, "splice" => Splice });
words!(UnknownPrice { "deny" => Deny, "allow" => Allow });
words!(CreditUse { "first" => First, "only" => Only });
words!(Balance { "weighted" => Weighted, "latency" => Latency, "cost" => Cost, "ordered" => Ordered });
words!(Capacity { "shared" => Shared, "dedicated" => Dedicated });
words!(Sticky { "none" => None, "key" => Key, "user" => User });
words!(FinishReason { "required" => Required, "optional" => Optional });
words!(MalformedFrame { "fail" => Fail, "pass" => Pass });
words!(Protocol {
    "openai" => OpenAi,
    "azure" => Azure,
    "anthropic" => Anthropic,
    "gemini" => Gemini,
    "bedrock" => Bedrock,
    "sim" => Sim,
});
words!(Endpoint { "chat" => Chat, "completions" => Completions, "embeddings" => Embeddings });
words!(Feature { "tools" => Tools, "vision" => Vision, "json_schema" => JsonSchema });

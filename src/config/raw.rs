//! The file, one to one.
//!
//! Every struct here is a table of the file and every field a setting, with its default in place and
//! the place where it was written. Names are still names: nothing here knows whether the tier they
//! speak of exists. A required field is `Option`, `None` only after its absence was complained about.

use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroU64};
use std::time::Duration;

use super::reader::{Located, words};
use super::settings::{FinishReason, MalformedFrame, Protocol};
use super::value::{BaseUrl, CertificateChain, Day, Days, Expiry, LogFilter, Name, Percent, PrivateKey, Sha256};
use super::value::{Size, StoreUrl, Wait};
use crate::domain::budget::{CreditUse, Zone};
use crate::domain::call::{Endpoint, Feature};
use crate::domain::glob::Glob;
use crate::domain::money::{NanoUsd, PicoUsdPerToken};
use crate::domain::routing::table::{BalanceStrategy, Capacity, Sticky};
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
    pub(super) listen: Located<SocketAddr>,
    pub(super) admin_listen: Option<Located<SocketAddr>>,
    pub(super) admin_token: Option<Located<Secret>>,
    pub(super) viewer_token: Option<Located<Secret>>,
    pub(super) max_body: Located<Size>,
    pub(super) max_in_flight_bytes: Located<Size>,
    pub(super) lb_grace: Located<Duration>,
    pub(super) drain: Located<Duration>,
    pub(super) tls: Option<Tls>,
}

/// `[server.tls]`
pub(super) struct Tls {
    pub(super) cert: Option<Located<CertificateChain>>,
    pub(super) key: Option<Located<PrivateKey>>,
}

/// `[store]`
pub(super) struct Store {
    pub(super) url: Located<StoreUrl>,
    pub(super) retention: Option<Located<Days>>,
    pub(super) shared: Option<Located<StoreUrl>>,
}

/// `[telemetry]`
pub(super) struct Telemetry {
    pub(super) log: Located<LogFilter>,
    pub(super) metrics_token: Option<Located<Secret>>,
}

/// `[providers.NAME]`
pub(super) struct Provider {
    pub(super) name: Located<String>,
    pub(super) protocol: Option<Located<Protocol>>,
    pub(super) region: Option<Located<Name>>,
    pub(super) finish_reason: Located<FinishReason>,
    /// `None` where it is simulated.
    pub(super) network: Option<Network>,
    /// `None` where it is not.
    pub(super) sim: Option<Sim>,
}

/// The settings of a provider that is reached over the network.
pub(super) struct Network {
    pub(super) base_url: Option<Located<BaseUrl>>,
    pub(super) credentials: Vec<Located<Secret>>,
    pub(super) http2: Located<bool>,
}

/// The settings of a `sim` provider.
pub(super) struct Sim {
    pub(super) first_token: Located<Duration>,
    pub(super) tokens_per_second: Located<NonZeroU32>,
    pub(super) error_rate: Located<Percent>,
}

/// `[models.NAME]`
pub(super) struct Model {
    pub(super) name: Located<String>,
    /// In the order of their dates; where one is wrong, less.
    pub(super) price: Option<Vec<Price>>,
    pub(super) context: Option<Located<NonZeroU64>>,
    pub(super) max_output: Option<Located<NonZeroU64>>,
    pub(super) typical_output: Located<NonZeroU64>,
    pub(super) endpoints: Vec<Endpoint>,
    /// `None`: all.
    pub(super) features: Option<Vec<Feature>>,
    pub(super) first_token: Option<Located<Wait>>,
    pub(super) whole: Option<Located<Wait>>,
    pub(super) deployments: Vec<Deployment>,
}

/// `price = { … }`, or each of `price = [{ … }, …]`
pub(super) struct Price {
    /// Of the first: `None`.
    pub(super) from: Option<Located<Day>>,
    pub(super) version: Option<Located<Name>>,
    pub(super) input: Option<Located<PicoUsdPerToken>>,
    pub(super) cached_input: Option<Located<PicoUsdPerToken>>,
    pub(super) output: Option<Located<PicoUsdPerToken>>,
    pub(super) request: Located<NanoUsd>,
}

/// `[[models.NAME.deployments]]`
pub(super) struct Deployment {
    pub(super) provider: Option<Located<Name>>,
    pub(super) weight: Located<NonZeroU32>,
    pub(super) upstream_model: Option<Located<Name>>,
    pub(super) name: Option<Located<Name>>,
    pub(super) capacity: Located<Capacity>,
    pub(super) max_concurrent: Option<Located<NonZeroU32>>,
    pub(super) price: Option<Vec<Price>>,
    pub(super) spill: Located<bool>,
}

/// `[tiers.NAME]`
pub(super) struct Tier {
    pub(super) name: Located<String>,
    pub(super) models: Vec<TierModel>,
    pub(super) then: Vec<Located<Name>>,
}

/// `"NAME"` or `{ name = "NAME", weight = 2 }`
pub(super) struct TierModel {
    pub(super) name: Option<Located<Name>>,
    pub(super) weight: Option<Located<NonZeroU32>>,
}

/// `[aliases.NAME]`
pub(super) struct Alias {
    pub(super) name: Located<String>,
    pub(super) split: Vec<(Located<String>, Located<NonZeroU32>)>,
    pub(super) sticky: Located<Sticky>,
}

/// `[routing]`
pub(super) struct Routing {
    pub(super) region: Option<Located<Name>>,
    pub(super) balance: Located<BalanceStrategy>,
    pub(super) max_attempts: Located<NonZeroU32>,
    pub(super) retry_budget: Located<Percent>,
    pub(super) connect_timeout: Located<Wait>,
    pub(super) first_token: Located<Wait>,
    pub(super) idle: Located<Wait>,
    pub(super) whole: Located<Wait>,
    pub(super) total: Located<Wait>,
    pub(super) silent_after: Located<Wait>,
    pub(super) retry_after_wait_max: Located<Duration>,
    pub(super) same_region_retry_on_500: Located<u32>,
    pub(super) malformed_frame: Located<MalformedFrame>,
    pub(super) breaker: Breaker,
}

/// `breaker = { … }`
pub(super) struct Breaker {
    pub(super) failures: Located<NonZeroU32>,
    pub(super) ratio: Located<Percent>,
    pub(super) window: Located<Wait>,
    pub(super) min_requests: Located<NonZeroU32>,
    pub(super) open: Located<Wait>,
    pub(super) open_max: Located<Wait>,
}

/// `[policies.NAME]`
pub(super) struct Policy {
    pub(super) name: Located<String>,
    pub(super) tiers: Vec<Located<Name>>,
    pub(super) models: Vec<Located<Glob>>,
    pub(super) regions: Option<Vec<Located<Glob>>>,
    pub(super) reserved: Located<bool>,
    pub(super) limits: Limits,
    pub(super) clamp: Located<bool>,
    pub(super) unknown_price: Located<UnknownPrice>,
    pub(super) credit: Located<CreditUse>,
    /// What its keys share: only a budget yet.
    pub(super) total: Option<Budget>,
}

/// What a policy allows each of its keys, and a key may tighten.
pub(super) struct Limits {
    pub(super) requests_per_minute: Option<Located<NonZeroU64>>,
    pub(super) tokens_per_minute: Option<Located<NonZeroU64>>,
    pub(super) max_concurrent: Option<Located<NonZeroU32>>,
    pub(super) budget: Option<Budget>,
}

/// `budget = { … }`
pub(super) struct Budget {
    pub(super) limit: Option<Located<NanoUsd>>,
    pub(super) window: Located<Window>,
    pub(super) zone: Located<Zone>,
}

/// `[teams.NAME]`
pub(super) struct Team {
    pub(super) name: Located<String>,
    pub(super) budget: Option<Budget>,
}

/// `[[keys]]`
pub(super) struct Key {
    pub(super) name: Option<Located<Name>>,
    pub(super) team: Option<Located<Name>>,
    pub(super) policy: Option<Located<Name>>,
    pub(super) hash: Option<Located<Sha256>>,
    pub(super) expires: Option<Located<Expiry>>,
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
words!(BalanceStrategy { "weighted" => Weighted, "latency" => Latency, "cost" => Cost, "ordered" => Ordered });
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

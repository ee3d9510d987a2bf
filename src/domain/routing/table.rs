//! The routing table: models, deployments, tiers, aliases.
//!
//! It exists so that a request is planned from resolved indexes and not from strings: every name was
//! looked up once, when the configuration was compiled. A table must never change; a reload builds another.
//!
//! Start reading in [`RoutingTable`].

use crate::domain::body_member::{BodyRules, GivenMember, ListedMembers, MemberObjection, MemberPrice};
use crate::domain::breaker::BreakerSettings;
use crate::domain::call::{Call, EndpointSet, FeatureSet};
use crate::domain::id::{DeploymentId, ModelId, ProviderId, RegionId, TierId};
use crate::domain::pricing::{PriceVersion, Prices};
use crate::domain::routing::AnswerMode;
use crate::domain::routing::adaptive::InFlightBounds;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// The prefix that asks for reserved capacity: `Pro/NAME`.
pub const RESERVED_PREFIX: &str = "Pro/";

/// Everything a request can be routed to.
#[derive(Clone, Debug)]
pub struct RoutingTable {
    /// In file order.
    pub models: Vec<Model>,
    /// In file order, grouped by model.
    pub deployments: Vec<Deployment>,
    /// In file order: the first tier that contains a model is that model's tier.
    pub tiers: Vec<Tier>,
    /// In file order.
    pub aliases: Vec<Alias>,
    /// Region names, in order of first use. A provider without a region is a region of its own, named after it.
    pub regions: Vec<Arc<str>>,
    /// What a client may write as `model`, `Pro/` names aside.
    pub names: HashMap<Arc<str>, Target>,
    /// The members of a body that some provider has a rule for.
    pub listed_members: ListedMembers,
    /// How deployments are chosen, and all timeouts.
    pub settings: RoutingSettings,
}

impl RoutingTable {
    /// The tiers whose models, with those of their chains, are more than one request has attempts for, each with the
    /// number of models.
    pub fn chains_out_of_reach(&self) -> Vec<(TierId, usize)> {
        let most = self.settings.max_attempts as usize;
        let models = |tier: TierId| {
            let chain = [tier].into_iter().chain(self.tier(tier).then.iter().copied());
            let mut models: Vec<ModelId> =
                chain.flat_map(|tier| self.tier(tier).models.iter().map(|(model, _)| *model)).collect();
            models.sort_unstable();
            models.dedup();
            models.len()
        };
        let tiers = (0..self.tiers.len() as u32).map(TierId);
        tiers.map(|tier| (tier, models(tier))).filter(|(_, models)| *models > most).collect()
    }

    /// A name that a client may ask for, for examples: the first alias, or else the first model.
    pub fn example_model(&self) -> Option<&Arc<str>> {
        self.aliases.first().map(|alias| &alias.name).or(self.models.first().map(|model| &model.name))
    }

    /// The model numbered `id`.
    pub fn model(&self, id: ModelId) -> &Model {
        &self.models[id.index()]
    }

    /// The deployment numbered `id`.
    pub fn deployment(&self, id: DeploymentId) -> &Deployment {
        &self.deployments[id.index()]
    }

    /// The usual price of the deployment numbered `id` for a request whose prices are those of `unix_ms`: its own,
    /// else its model's.
    pub fn price(&self, id: DeploymentId, unix_ms: i64) -> Option<&PriceVersion> {
        self.prices(id).map(|prices| prices.at(unix_ms))
    }

    /// The price of `call` at the deployment numbered `id`: the one that is known for a member that it has, else the
    /// usual one.
    pub fn price_of(&self, id: DeploymentId, call: &Call, unix_ms: i64) -> Option<&PriceVersion> {
        let mut given = call.metadata().given.iter();
        let prices = &self.deployment(id).member_prices;
        let by_member = given.find_map(|given| prices.iter().find(|price| price.is_of(given)));
        by_member.map(|price| &price.price).or_else(|| self.price(id, unix_ms))
    }

    /// The member of the body of `call` that stands against sending it to the deployment numbered `id`, and why.
    /// `is_paid`: whether a budget or credit pays for it.
    pub fn objection<'c>(
        &self,
        id: DeploymentId,
        call: &'c Call,
        is_paid: bool,
    ) -> Option<(&'c GivenMember, MemberObjection)> {
        let given = &call.metadata().given;
        if given.is_empty() {
            return None;
        }
        let deployment = self.deployment(id);
        deployment.body_rules.verdict(given, &deployment.member_prices, is_paid).err()
    }

    /// Where the provider of the deployment numbered `id` serves the model that it calls `upstream_model`, which is not
    /// the deployment's own: a provider may answer with another model than it was asked for.
    pub fn other_deployment(&self, id: DeploymentId, upstream_model: &str) -> Option<DeploymentId> {
        let own = self.deployment(id);
        self.deployment_ids().find(|other| {
            let other = self.deployment(*other);
            other.provider == own.provider
                && other.model != own.model
                && other.upstream_model.eq_ignore_ascii_case(upstream_model)
        })
    }

    /// All prices of the deployment numbered `id`, over time.
    pub fn prices(&self, id: DeploymentId) -> Option<&Prices> {
        let deployment = self.deployment(id);
        deployment.price.as_ref().or(self.model(deployment.model).price.as_ref())
    }

    /// The tier numbered `id`.
    pub fn tier(&self, id: TierId) -> &Tier {
        &self.tiers[id.index()]
    }

    /// The name of the region numbered `id`.
    pub fn region(&self, id: RegionId) -> &Arc<str> {
        &self.regions[id.index()]
    }

    /// The name by which clients ask for `target`.
    pub fn target_name(&self, target: Target) -> &Arc<str> {
        match target {
            Target::Model(model) => &self.model(model).name,
            Target::Tier(tier) => &self.tier(tier).name,
            Target::Alias(alias) => &self.aliases[alias].name,
        }
    }

    /// Every deployment's number.
    pub fn deployment_ids(&self) -> impl Iterator<Item = DeploymentId> + use<> {
        (0..self.deployments.len() as u32).map(DeploymentId)
    }
}

/// What a name refers to. A model hides an alias of the same name, an alias hides a tier.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Target {
    /// One model.
    Model(ModelId),
    /// The alias at this index.
    Alias(usize),
    /// One tier.
    Tier(TierId),
}

/// A model, as clients know it.
#[derive(Clone, Debug)]
pub struct Model {
    /// The name clients ask for.
    pub name: Arc<str>,
    /// Its price where a deployment has none of its own; `None` when no price is known.
    pub price: Option<Prices>,
    /// The maximum of input and output together, in tokens.
    pub context: Option<u64>,
    /// The maximum output, in tokens.
    pub max_output: Option<u64>,
    /// The usual length of an answer, in output tokens: for token limits where the client sets no ceiling.
    pub typical_output: u64,
    /// What an image takes, where that is known for all of its deployments.
    pub image_tokens: Option<ImageTokens>,
    /// The endpoints it serves, at a deployment whose provider has them.
    pub endpoints: EndpointSet,
    /// The features it supports.
    pub features: FeatureSet,
    /// Shared deployments, in file order.
    pub shared: Vec<DeploymentId>,
    /// Dedicated deployments, in file order: reached only as `Pro/NAME`.
    pub dedicated: Vec<DeploymentId>,
    /// How long a stream may take from the request sent to its first token.
    pub first_token: Duration,
    /// How long a whole answer may take from the request sent to its last byte.
    pub whole: Duration,
}

impl Model {
    /// How long an answer of this mode is waited for at least before another deployment is asked as well: a model that
    /// thinks may need minutes, but what is lost is not waited for as long.
    pub fn late_after(&self, mode: AnswerMode) -> Duration {
        match mode {
            AnswerMode::Stream => self.first_token.min(LATE_STREAM),
            AnswerMode::Whole => (self.whole / 4).min(LATE_WHOLE),
        }
    }
}

/// Few healthy deployments take longer to begin a stream, and to give a whole answer.
const LATE_STREAM: Duration = Duration::from_secs(10);
const LATE_WHOLE: Duration = Duration::from_secs(30);

/// The input tokens that an image takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ImageTokens {
    /// One of about a megapixel.
    pub typical: u64,
    /// The most that any image takes.
    pub most: u64,
}

/// Whether a deployment serves every request or only reserved ones.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Capacity {
    /// Serves plain model names.
    Shared,
    /// Serves `Pro/` names only.
    Dedicated,
}

/// One model at one provider.
#[derive(Clone, Debug)]
pub struct Deployment {
    /// Its name, which stays over reloads: `PROVIDER/MODEL`, `PROVIDER/Pro/MODEL`, or as configured.
    pub name: Arc<str>,
    /// The model it serves.
    pub model: ModelId,
    /// The provider it runs at.
    pub provider: ProviderId,
    /// The model's name at the provider.
    pub upstream_model: Arc<str>,
    /// The endpoints that its provider has.
    pub endpoints: EndpointSet,
    /// The region it runs in.
    pub region: RegionId,
    /// Whether it is shared or dedicated.
    pub capacity: Capacity,
    /// Its weight among the model's deployments.
    pub weight: u32,
    /// How many requests may be in flight at it; when full, it is not chosen. `None` is no limit.
    pub max_concurrent: Option<u32>,
    /// The most output tokens, per choice, that its host writes by itself, where the price catalogue knows.
    pub max_output: Option<u64>,
    /// Its price, where it differs from the model's.
    pub price: Option<Prices>,
    /// Its prices for requests with a certain member.
    pub member_prices: Vec<MemberPrice>,
    /// What its provider's rules say of a body.
    pub body_rules: Arc<BodyRules>,
    /// Dedicated only: when it is down, `Pro/` requests may use the model's shared deployments.
    pub spill: bool,
    /// Dedicated only: requests by plain names may use places that `Pro/` requests did not need lately.
    pub lend: bool,
}

/// A named list of models with a step-down chain.
#[derive(Clone, Debug)]
pub struct Tier {
    /// `default`, `fallback`, `premium`, or as configured.
    pub name: Arc<str>,
    /// In the order in which they are tried, with weights for drawing the first.
    pub models: Vec<(ModelId, u32)>,
    /// Whether the first model is drawn by weight (some model was given one).
    pub drawn: bool,
    /// The complete chain of tiers to step down through, in order.
    pub then: Vec<TierId>,
}

/// A model name that the operator defines and that splits over tiers or models.
#[derive(Clone, Debug)]
pub struct Alias {
    /// The name clients ask for.
    pub name: Arc<str>,
    /// Tiers or models and their weights.
    pub split: Vec<(Target, u32)>,
    /// Whether one client always gets the same share.
    pub sticky: Sticky,
}

/// What the choice of an alias depends on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sticky {
    /// Every request draws independently.
    None,
    /// All requests of one key get the same share.
    Key,
    /// All requests with one value of the body's `user` get the same share; requests without one draw independently.
    User,
}

/// How one deployment is chosen among a model's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BalanceStrategy {
    /// By weight.
    Weighted,
    /// Power of two choices on expected first-token time × load.
    Latency,
    /// The cheapest first.
    Cost,
    /// In file order.
    Ordered,
}

/// How many requests may be in flight in the gateway.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum InFlightLimit {
    /// So many, at least one.
    Fixed(u32),
    /// As many as leave first-token times as they are.
    Adaptive(InFlightBounds),
}

/// The `[routing]` section, compiled, with what else decides where and when requests are sent.
#[derive(Clone, Debug)]
pub struct RoutingSettings {
    /// How one deployment is chosen among a model's.
    pub balance: BalanceStrategy,
    /// The gateway's own region, preferred where a choice is free.
    pub home: Option<RegionId>,
    /// Attempts per request over the whole chain.
    pub max_attempts: u32,
    /// Extra attempts allowed, in hundredths of a percent of the last 10 s of traffic.
    pub retry_budget_bp: u32,
    /// How long a connection may take to be established.
    pub connect_timeout: Duration,
    /// Streams: the longest time between two data frames.
    pub idle: Duration,
    /// From the request being read to its last byte, over all attempts.
    pub total: Duration,
    /// How long a request may wait for a throttled deployment when nothing else can serve it.
    pub retry_after_wait_max: Duration,
    /// How long a request may wait for a place where the gateway is full, or every deployment that could serve it.
    pub queue_wait: Duration,
    /// How many requests by plain names may be in flight; `None`: any number.
    pub max_in_flight: Option<InFlightLimit>,
    /// Whether a request is retried once at the same deployment after a 500, before another is tried.
    pub same_region_retry_on_500: bool,
    /// An attempt without an answer for this long counts against its deployment when one is chosen.
    pub silent_after: Duration,
    /// How long budgeted requests are kept from a deployment whose answer cost more than was held for it.
    pub beyond_hold_pause: Duration,
    /// Whether a stream is held until all of it came, so that another deployment may still be asked.
    pub hold_streams: bool,
    /// Whether a stream that breaks goes on at another deployment of its model, where that can be done.
    pub splice_streams: bool,
    /// The settings of every deployment's breaker.
    pub breaker: BreakerSettings,
}

//! The explanation of a request as values: serialised for `--json`, and formatted by `text`.

use crate::domain::call::{Call, Feature};
use crate::domain::id::DeploymentId;
use crate::domain::policy::{KeyRecord, ResolvedName};
use crate::domain::pricing::{PriceVersion, Prices};
use crate::domain::refusal::Refusal;
use crate::domain::routing::builder::{CandidateModel, ExclusionReason};
use crate::domain::routing::explain::{PossibleRoute, RouteExplanation};
use crate::domain::routing::table::{BalanceStrategy, Capacity, RESERVED_PREFIX, RoutingTable, Sticky, Target};
use crate::http::error::ApiError;
use crate::telemetry::rfc3339::Rfc3339Text;
use serde::Serialize;
use std::time::Duration;

/// A request, and where it would go.
#[derive(Serialize, Debug)]
pub(super) struct ExplanationView {
    pub(super) model: String,
    /// `model`, `alias`, `tier` or `reserved`; `None` if the name is unknown or not allowed.
    pub(super) kind: Option<&'static str>,
    pub(super) key: Option<String>,
    /// `None` for a key without restrictions.
    pub(super) policy: Option<String>,
    pub(super) endpoint: &'static str,
    pub(super) features: Vec<&'static str>,
    /// The error that the client would receive instead of an answer.
    pub(super) refusal: Option<ErrorView>,
    /// The names the key may use, if it may not use this one.
    pub(super) usable: Vec<String>,
    pub(super) ways: Vec<PlanView>,
    /// Parts of the alias that are never chosen.
    pub(super) never_drawn: Vec<UnusedShareView>,
    pub(super) terms: RouteTerms,
    pub(super) passed_over: Vec<ExcludedDeployment>,
}

/// An error as the client reads it.
#[derive(Serialize, Debug)]
pub(super) struct ErrorView {
    pub(super) status: u16,
    pub(super) code: &'static str,
    pub(super) message: String,
}

#[derive(Serialize, Debug)]
pub(super) struct PlanView {
    /// Where it begins: `tier default`, `model m`.
    pub(super) begins: String,
    /// The percentage of requests that take it.
    pub(super) percent: f64,
    #[serde(rename = "legs")]
    pub(super) candidate_models: Vec<CandidateView>,
}

#[derive(Serialize, Debug)]
pub(super) struct CandidateView {
    pub(super) model: String,
    pub(super) tier: Option<String>,
    /// The percentage of requests that begin with this model, if the first model is drawn at random.
    pub(super) first_percent: Option<f64>,
    pub(super) deployments: Vec<DeploymentView>,
}

#[derive(Serialize, Debug)]
pub(super) struct DeploymentView {
    pub(super) name: String,
    pub(super) region: String,
    pub(super) capacity: &'static str,
    pub(super) weight: u32,
    pub(super) max_concurrent: Option<u32>,
    /// In USD per million tokens.
    pub(super) price: Option<PriceView>,
}

#[derive(Serialize, Debug)]
pub(super) struct PriceView {
    pub(super) version: String,
    pub(super) input: String,
    pub(super) output: String,
    /// The day of the price catalogue that it is from; absent if it is from the file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) catalogue: Option<String>,
    /// The next price, if one is configured.
    pub(super) then: Option<NextPriceView>,
}

#[derive(Serialize, Debug)]
pub(super) struct NextPriceView {
    /// Its first day, in UTC.
    pub(super) from: String,
    pub(super) version: String,
    pub(super) input: String,
    pub(super) output: String,
}

#[derive(Serialize, Debug)]
pub(super) struct UnusedShareView {
    pub(super) part: String,
    pub(super) why: &'static str,
}

#[derive(Serialize, Debug)]
pub(super) struct ExcludedDeployment {
    pub(super) deployment: String,
    pub(super) reason: &'static str,
    pub(super) why: String,
}

/// The limits of every attempt.
#[derive(Serialize, Debug)]
pub(super) struct RouteTerms {
    pub(super) balance: &'static str,
    pub(super) home_region: Option<String>,
    pub(super) max_attempts: u32,
    pub(super) total_ms: u64,
    /// Milliseconds until the first token of a stream, or until the whole answer, of the first model.
    pub(super) patience_ms: Option<u64>,
    pub(super) stream: bool,
}

/// The request to explain, with what it is explained from.
pub(super) struct ExplainContext<'a> {
    pub(super) table: &'a RoutingTable,
    pub(super) key: &'a KeyRecord,
    /// A key of the configuration was named.
    pub(super) key_is_known: bool,
    pub(super) by_policy: bool,
    pub(super) call: &'a Call,
    /// The Unix milliseconds of the prices to show.
    pub(super) now_ms: i64,
}

impl ExplainContext<'_> {
    pub(super) fn refused(&self, refusal: &Refusal) -> ExplanationView {
        let row = ApiError::refused(refusal);
        let view = ErrorView { status: row.status.as_u16(), code: row.code, message: row.message.into_owned() };
        let usable = match refusal {
            Refusal::ModelNotFound { .. } | Refusal::ModelNotAllowed { .. } => {
                self.key.policy.usable_names(self.table).iter().map(|(name, _)| name.to_string()).collect()
            }
            _ => Vec::new(),
        };
        ExplanationView { refusal: Some(view), usable, ..self.opening() }
    }

    pub(super) fn view(&self, asked: ResolvedName, explanation: RouteExplanation) -> ExplanationView {
        let passed_over = explanation.passed_over.iter().map(|(id, why)| self.passed_over(asked, *id, *why)).collect();
        let kind = Some(match asked {
            ResolvedName::Reserved(_) => "reserved",
            ResolvedName::Plain(Target::Model(_)) => "model",
            ResolvedName::Plain(Target::Alias(_)) => "alias",
            ResolvedName::Plain(Target::Tier(_)) => "tier",
        });
        let explanation = match explanation.routes {
            Err(refusal) => self.refused(&refusal),
            Ok(ways) => {
                let never_drawn = self.never_drawn(asked, &ways);
                let bound = explanation.bound.filter(|_| self.is_bound(asked));
                ExplanationView {
                    ways: self.ways(&ways, bound),
                    never_drawn,
                    terms: self.terms(ways.first()),
                    ..self.opening()
                }
            }
        };
        ExplanationView { kind, passed_over, ..explanation }
    }

    fn opening(&self) -> ExplanationView {
        let needed = self.call.metadata().features;
        ExplanationView {
            model: self.call.metadata().model.to_string(),
            kind: None,
            key: self.key_is_known.then(|| self.key.name.to_string()),
            policy: (self.key_is_known || self.by_policy).then(|| self.key.policy.name.to_string()),
            endpoint: self.call.endpoint().name(),
            features: Feature::ALL.into_iter().filter(|f| needed.contains(*f)).map(Feature::name).collect(),
            refusal: None,
            usable: Vec::new(),
            ways: Vec::new(),
            never_drawn: Vec::new(),
            terms: self.terms(None),
            passed_over: Vec::new(),
        }
    }

    /// The choice of an alias that is sticky by key is known only if the key is.
    fn is_bound(&self, asked: ResolvedName) -> bool {
        match asked {
            ResolvedName::Plain(Target::Alias(index)) => {
                self.table.aliases[index].sticky != Sticky::Key || self.key_is_known
            }
            ResolvedName::Plain(_) | ResolvedName::Reserved(_) => false,
        }
    }

    fn ways(&self, ways: &[PossibleRoute], bound: Option<usize>) -> Vec<PlanView> {
        let total: u64 = ways.iter().map(|way| u64::from(way.weight)).sum();
        let view = |(index, way): (usize, &PossibleRoute)| PlanView {
            begins: self.part(way.begins),
            percent: match bound {
                Some(bound) => f64::from(u8::from(bound == index)) * 100.0,
                None => percent(way.weight, total),
            },
            candidate_models: way.candidate_models.iter().map(|candidate| self.candidate(candidate, way)).collect(),
        };
        ways.iter().enumerate().map(view).filter(|way| way.percent > 0.0).collect()
    }

    fn candidate(&self, candidate: &CandidateModel, way: &PossibleRoute) -> CandidateView {
        let total: u64 = way.drawn.iter().map(|(_, weight)| u64::from(*weight)).sum();
        let drawn = way.drawn.iter().find(|(model, _)| *model == candidate.model);
        CandidateView {
            model: self.table.model(candidate.model).name.to_string(),
            tier: candidate.tier.map(|tier| self.table.tier(tier).name.to_string()),
            first_percent: drawn.map(|(_, weight)| percent(*weight, total)),
            deployments: candidate.deployments.iter().map(|id| self.deployment(*id)).collect(),
        }
    }

    fn deployment(&self, id: DeploymentId) -> DeploymentView {
        let deployment = self.table.deployment(id);
        DeploymentView {
            name: deployment.name.to_string(),
            region: self.table.region(deployment.region).to_string(),
            capacity: match deployment.capacity {
                Capacity::Shared => "shared",
                Capacity::Dedicated => "dedicated",
            },
            weight: deployment.weight,
            max_concurrent: deployment.max_concurrent,
            price: self.table.prices(id).map(|prices| priced(prices, self.now_ms)),
        }
    }

    fn never_drawn(&self, asked: ResolvedName, ways: &[PossibleRoute]) -> Vec<UnusedShareView> {
        let ResolvedName::Plain(Target::Alias(index)) = asked else { return Vec::new() };
        let parts = self.table.aliases[index].split.iter().map(|(part, _)| *part);
        let idle = parts.filter(|part| !ways.iter().any(|way| way.begins == *part));
        let view = |part| UnusedShareView {
            part: self.part(part),
            why: if self.key.policy.allows(self.table, part) {
                "none of its deployments may serve this request"
            } else {
                "the policy does not allow it"
            },
        };
        idle.map(view).collect()
    }

    fn terms(&self, way: Option<&PossibleRoute>) -> RouteTerms {
        let settings = &self.table.settings;
        let stream = self.call.metadata().stream;
        let first = way.and_then(|way| way.candidate_models.first()).map(|candidate| self.table.model(candidate.model));
        RouteTerms {
            balance: match settings.balance {
                BalanceStrategy::Weighted => "weighted",
                BalanceStrategy::Latency => "latency",
                BalanceStrategy::Cost => "cost",
                BalanceStrategy::Ordered => "ordered",
            },
            home_region: settings.home.map(|id| self.table.region(id).to_string()),
            max_attempts: settings.max_attempts,
            total_ms: millis(settings.total),
            patience_ms: first.map(|model| millis(if stream { model.first_token } else { model.whole })),
            stream,
        }
    }

    fn part(&self, part: Target) -> String {
        let kind = match part {
            Target::Model(_) => "model",
            Target::Alias(_) => "alias",
            Target::Tier(_) => "tier",
        };
        format!("{kind} {}", self.table.target_name(part))
    }

    fn passed_over(&self, asked: ResolvedName, id: DeploymentId, why: ExclusionReason) -> ExcludedDeployment {
        let deployment = self.table.deployment(id);
        let plain = matches!(asked, ResolvedName::Plain(_));
        let why = match why {
            // Another name may lead to its model; a plain name does not.
            ExclusionReason::Unreached if plain && deployment.capacity == Capacity::Dedicated => {
                ExclusionReason::Dedicated
            }
            why => why,
        };
        let (reason, words) = match why {
            ExclusionReason::Forbidden(part) => {
                ("forbidden", format!("the policy does not allow the {}", self.part(part)))
            }
            ExclusionReason::NotServed(what) => ("not_served", format!("its model does not serve {what}")),
            ExclusionReason::OutsideResidency => {
                let region = self.table.region(deployment.region);
                ("outside_residency", format!("the policy never leaves its regions, and {region} is none of them"))
            }
            ExclusionReason::MemberNotAllowed(_) => {
                ("member_not_allowed", "its provider may not be sent a member of the body".to_owned())
            }
            ExclusionReason::Dedicated => {
                let model = &self.table.model(deployment.model).name;
                ("dedicated", format!("dedicated: reached only as {RESERVED_PREFIX}{model}"))
            }
            ExclusionReason::Shared => {
                ("shared", format!("shared: a {RESERVED_PREFIX} name keeps to dedicated capacity"))
            }
            ExclusionReason::OtherModel => ("other_model", self.why_no_other_model().to_owned()),
            ExclusionReason::Unreached if plain => ("unreached", "nothing on the way leads to its model".to_owned()),
            ExclusionReason::Unreached => {
                ("unreached", format!("a {RESERVED_PREFIX} name never steps down to another model"))
            }
        };
        ExcludedDeployment { deployment: deployment.name.to_string(), reason, why: words }
    }

    fn why_no_other_model(&self) -> &'static str {
        match self.call.endpoint().may_change_model() {
            false => "embeddings of another model would lie in another space",
            true => "another model may not answer: no fallback",
        }
    }
}

fn priced(prices: &Prices, now_ms: i64) -> PriceView {
    let PriceVersion { price, version, .. } = prices.at(now_ms);
    let next = |(from_unix_ms, PriceVersion { price, version, .. }): (i64, &PriceVersion)| NextPriceView {
        from: Rfc3339Text(from_unix_ms).to_string()[.."2027-01-01".len()].to_owned(),
        version: version.to_string(),
        input: price.input.usd_per_mtok(),
        output: price.output.usd_per_mtok(),
    };
    PriceView {
        version: version.to_string(),
        input: price.input.usd_per_mtok(),
        output: price.output.usd_per_mtok(),
        catalogue: prices.catalogue().map(ToString::to_string),
        then: prices.after(now_ms).map(next),
    }
}

fn percent(weight: u32, total: u64) -> f64 {
    if total == 0 { 0.0 } else { f64::from(weight) * 100.0 / total as f64 }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

//! Converts a receipt to a row of the `receipts` table, and back, the same in every database.
//!
//! Numbers stay integers in both directions. Labels are written as in the access log; a row with a label that this
//! program does not know is an error, and never read as something else.

use super::column::{UnreadableValue, duration, from_label, micros, reason, unknown};
use super::receipt_attempts as attempts;
use crate::domain::call::Endpoint;
use crate::domain::id::RequestId;
use crate::domain::limit::LimitKind;
use crate::domain::money::{NanoUsd, PicoUsdPerToken};
use crate::domain::pricing::Price;
use crate::domain::readable::readable;
use crate::domain::receipt::{Outcome, PlannedModel, Receipt, ServingDeployment};
use crate::domain::usage::{ByTokenClass, TokenClass, Usage};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::sync::Arc;

/// How far the time inside an id may be from `received_unix_ms`: the clock may have been set back between the two,
/// or the request may have run long. A query by time extends its range of ids by this much.
pub(super) const CLOCKS_DIFFER_MS: i64 = 86_400_000;

/// The lowest id that a request can have at `unix_ms`.
pub(super) fn lowest_id_at(unix_ms: i64) -> RequestId {
    const MOST: i64 = (1 << 48) - 1;
    RequestId(u128::from(unix_ms.clamp(0, MOST).unsigned_abs()) << 80)
}

type ReceiptText<'a> = Option<Cow<'a, str>>;

/// The columns of a receipt but for its id, under their names. What they mean is in the migrations.
#[derive(Serialize, Deserialize)]
#[allow(missing_docs)]
pub(super) struct ReceiptRow<'a> {
    pub(super) received_unix_ms: i64,
    pub(super) endpoint: ReceiptText<'a>,
    pub(super) key: ReceiptText<'a>,
    pub(super) team: ReceiptText<'a>,
    pub(super) policy: ReceiptText<'a>,
    pub(super) asked_model: ReceiptText<'a>,
    pub(super) stream: bool,
    pub(super) model: ReceiptText<'a>,
    pub(super) deployment: ReceiptText<'a>,
    pub(super) tier: ReceiptText<'a>,
    pub(super) region: ReceiptText<'a>,
    pub(super) attempts: String,
    pub(super) outcome: Cow<'a, str>,
    pub(super) reason: Cow<'a, str>,
    pub(super) limited_by: ReceiptText<'a>,
    pub(super) status: u16,
    pub(super) input_tokens: Option<i64>,
    pub(super) cached_input_tokens: Option<i64>,
    pub(super) output_tokens: Option<i64>,
    pub(super) reasoning_tokens: Option<i64>,
    pub(super) estimated: bool,
    pub(super) input_pico: Option<i64>,
    pub(super) cached_input_pico: Option<i64>,
    pub(super) output_pico: Option<i64>,
    pub(super) request_nanousd: Option<i64>,
    pub(super) cost_nanousd: i64,
    pub(super) first_token_us: Option<i64>,
    pub(super) duration_us: i64,
    pub(super) overhead_us: i64,
    pub(super) price_version: ReceiptText<'a>,
    pub(super) meant_model: ReceiptText<'a>,
    pub(super) meant_tier: ReceiptText<'a>,
    pub(super) failover_us: Option<i64>,
    pub(super) passed_over: Option<String>,
    pub(super) provider_request_id: ReceiptText<'a>,
    pub(super) apart_tokens: Option<String>,
    pub(super) apart_pico: Option<String>,
    /// Missing where a program wrote the row that did not know it.
    #[serde(default)]
    pub(super) injected: Option<String>,
}

impl<'a> ReceiptRow<'a> {
    /// The row of `receipt`.
    pub(super) fn of(receipt: &'a Receipt) -> Self {
        let served = receipt.served.as_ref();
        let (usage, price) = (receipt.usage, receipt.price);
        let (meant_model, meant_tier) = meant_columns(receipt);
        let tokens = |count: fn(Usage) -> u64| usage.map(|usage| signed(count(usage)));
        let pico = |price: Option<PicoUsdPerToken>| price.map(|price| signed(price.0));
        Self {
            received_unix_ms: receipt.received_unix_ms,
            endpoint: receipt.endpoint.map(Endpoint::name).map(Cow::Borrowed),
            key: borrowed(receipt.key.as_deref()),
            team: borrowed(receipt.team.as_deref()),
            policy: borrowed(receipt.policy.as_deref()),
            asked_model: receipt.asked_model.as_deref().map(readable),
            stream: receipt.stream,
            model: served.map(|served| Cow::Borrowed(&*served.model)),
            deployment: served.map(|served| Cow::Borrowed(&*served.deployment)),
            tier: borrowed(served.and_then(|served| served.tier.as_deref())),
            region: served.map(|served| Cow::Borrowed(&*served.region)),
            attempts: attempts::encode(&receipt.attempts, served),
            outcome: receipt.outcome.label().into(),
            reason: receipt.reason.label().into(),
            limited_by: receipt.limit.map(LimitKind::label).map(Cow::Borrowed),
            status: receipt.status,
            input_tokens: tokens(|usage| usage.input),
            cached_input_tokens: tokens(|usage| usage.cached_input),
            output_tokens: tokens(|usage| usage.output),
            reasoning_tokens: tokens(|usage| usage.reasoning),
            estimated: receipt.estimated,
            input_pico: pico(price.map(|price| price.input)),
            cached_input_pico: pico(price.map(|price| price.cached_input)),
            output_pico: pico(price.map(|price| price.output)),
            request_nanousd: price.map(|price| price.request.0),
            cost_nanousd: receipt.cost.0,
            first_token_us: receipt.first_token.map(micros),
            duration_us: micros(receipt.duration),
            overhead_us: micros(receipt.overhead),
            price_version: borrowed(receipt.price_version.as_deref()),
            meant_model: borrowed(meant_model),
            meant_tier: borrowed(meant_tier),
            failover_us: receipt.failover.map(micros),
            passed_over: attempts::encode_passed_over(&receipt.passed_over),
            // For a search by it; it is read with the attempts.
            provider_request_id: borrowed(receipt.provider_request_id()),
            apart_tokens: usage.and_then(|usage| encode_apart(usage.apart.iter().filter(|(_, count)| *count > 0))),
            apart_pico: price.and_then(|price| {
                encode_apart(price.apart.iter().filter_map(|(class, price)| Some((class, price?.0))))
            }),
            injected: attempts::encode_injected(receipt),
        }
    }
}

impl ReceiptRow<'_> {
    /// The receipt of request `id`, whose row it is.
    ///
    /// # Errors
    /// A value that this program cannot read.
    pub(super) fn receipt(self, id: RequestId) -> Result<Receipt, UnreadableValue> {
        let (usage, price) = (self.usage()?, self.price()?);
        let served = match (shared(self.model), shared(self.deployment), shared(self.region)) {
            (Some(model), Some(deployment), Some(region)) => {
                Some(ServingDeployment { model, deployment, tier: shared(self.tier), region })
            }
            _ => None,
        };
        let meant = meant(shared(self.meant_model), shared(self.meant_tier), served.as_ref())?;
        let mut receipt = Receipt {
            id,
            received_unix_ms: self.received_unix_ms,
            endpoint: from_label(self.endpoint.as_deref(), Endpoint::ON_RECEIPTS, Endpoint::name)?,
            key: shared(self.key),
            team: shared(self.team),
            policy: shared(self.policy),
            asked_model: self.asked_model.map(|model| model.into_owned().into()),
            stream: self.stream,
            attempts: attempts::decode(&self.attempts, served.as_ref())?,
            meant,
            served,
            passed_over: attempts::decode_passed_over(self.passed_over.as_deref())?,
            outcome: from_label(Some(&self.outcome), Outcome::ALL, Outcome::label)?
                .ok_or_else(|| unknown("no outcome"))?,
            reason: reason(&self.reason)?,
            limit: from_label(self.limited_by.as_deref(), LimitKind::ALL, LimitKind::label)?,
            status: self.status,
            usage,
            estimated: self.estimated,
            price,
            price_version: shared(self.price_version),
            cost: NanoUsd(self.cost_nanousd),
            charges: Vec::new(),
            first_token: self.first_token_us.map(duration),
            failover: self.failover_us.map(duration),
            duration: duration(self.duration_us),
            overhead: duration(self.overhead_us),
        };
        attempts::decode_injected(self.injected.as_deref(), &mut receipt)?;
        Ok(receipt)
    }

    fn usage(&self) -> Result<Option<Usage>, UnreadableValue> {
        let Some(input) = self.input_tokens else { return Ok(None) };
        let count = |count: Option<i64>| count.unwrap_or(0).max(0).unsigned_abs();
        Ok(Some(Usage {
            input: count(Some(input)),
            cached_input: count(self.cached_input_tokens),
            output: count(self.output_tokens),
            reasoning: count(self.reasoning_tokens),
            apart: decode_apart(self.apart_tokens.as_deref(), "apart_tokens", |count| count)?,
        }))
    }

    fn price(&self) -> Result<Option<Price>, UnreadableValue> {
        let pico = |pico: Option<i64>| PicoUsdPerToken(pico.unwrap_or(0).max(0).unsigned_abs());
        let Some(request) = self.request_nanousd else { return Ok(None) };
        Ok(Some(Price {
            input: pico(self.input_pico),
            cached_input: pico(self.cached_input_pico),
            output: pico(self.output_pico),
            request: NanoUsd(request),
            apart: decode_apart(self.apart_pico.as_deref(), "apart_pico", |pico| Some(PicoUsdPerToken(pico)))?,
        }))
    }
}

fn borrowed(text: Option<&str>) -> ReceiptText<'_> {
    text.map(Cow::Borrowed)
}

fn shared(text: ReceiptText<'_>) -> Option<Arc<str>> {
    text.map(Arc::from)
}

/// In most rows what was meant is what served, which is not written twice.
const MEANT_AS_SERVED: &str = "";

/// The columns of the model that was meant, and its tier.
fn meant_columns(receipt: &Receipt) -> (Option<&str>, Option<&str>) {
    let Some(PlannedModel { model, tier }) = &receipt.meant else { return (None, None) };
    let as_served = receipt.served.as_ref().is_some_and(|served| served.model == *model && served.tier == *tier);
    if as_served { (Some(MEANT_AS_SERVED), None) } else { (Some(model), tier.as_deref()) }
}

/// What [`meant_columns`] wrote, in a row with `served`.
fn meant(
    model: Option<Arc<str>>,
    tier: Option<Arc<str>>,
    served: Option<&ServingDeployment>,
) -> Result<Option<PlannedModel>, UnreadableValue> {
    match (model, served) {
        (Some(model), Some(served)) if &*model == MEANT_AS_SERVED => {
            Ok(Some(PlannedModel { model: served.model.clone(), tier: served.tier.clone() }))
        }
        (Some(model), None) if &*model == MEANT_AS_SERVED => Err(unknown("meant_model")),
        (model, _) => Ok(model.map(|model| PlannedModel { model, tier })),
    }
}

/// `CLASS=NUMBER` with commas between; `None` if there is none.
fn encode_apart(values: impl Iterator<Item = (TokenClass, u64)>) -> Option<String> {
    let text: Vec<String> = values.map(|(class, number)| format!("{}={number}", class.name())).collect();
    (!text.is_empty()).then(|| text.join(","))
}

/// What [`encode_apart`] wrote into `column`, which holds `text`.
fn decode_apart<T: Copy + Default>(
    text: Option<&str>,
    column: &'static str,
    value: impl Fn(u64) -> T,
) -> Result<ByTokenClass<T>, UnreadableValue> {
    let mut out = ByTokenClass::default();
    for part in text.unwrap_or_default().split(',').filter(|part| !part.is_empty()) {
        let (name, number) = part.split_once('=').ok_or_else(|| unknown(column))?;
        let class = TokenClass::named(name).ok_or_else(|| unknown(column))?;
        out.set(class, value(number.parse().map_err(|_| unknown(column))?));
    }
    Ok(out)
}

/// `count` as a signed integer of a database, saturating.
fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

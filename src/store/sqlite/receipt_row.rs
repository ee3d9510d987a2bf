//! Converts a receipt to a row of the `receipts` table, and back.
//!
//! Numbers stay integers in both directions. Labels are written as in the access log; a row with a label that this
//! program does not know is an error, and never read as something else.

use super::attempts;
use super::column::{duration, from_label, micros, reason, unknown};
use crate::domain::call::Endpoint;
use crate::domain::id::RequestId;
use crate::domain::limit::LimitKind;
use crate::domain::money::{NanoUsd, PicoUsdPerToken};
use crate::domain::pricing::Price;
use crate::domain::readable::readable;
use crate::domain::receipt::{Outcome, PlannedModel, Receipt, ServingDeployment};
use crate::domain::usage::{ByTokenClass, TokenClass, Usage};
use rusqlite::{Row, Transaction, named_params};
use std::sync::Arc;

/// How far the time inside an id may be from `received_unix_ms`: the clock may have been set back between the two,
/// or the request may have run long. A query by time extends its range of ids by this much.
pub(super) const CLOCKS_DIFFER_MS: i64 = 86_400_000;

const INSERT: &str = "INSERT INTO receipts VALUES (
    :id, :received_unix_ms, :endpoint, :key, :team, :policy, :asked_model, :stream, :model, :deployment, :tier,
    :region, :attempts, :outcome, :reason, :limited_by, :status, :input_tokens, :cached_input_tokens, :output_tokens,
    :reasoning_tokens, :estimated, :input_pico, :cached_input_pico, :output_pico, :request_nanousd, :cost_nanousd,
    :first_token_us, :duration_us, :overhead_us, :price_version, :meant_model, :meant_tier, :failover_us, :passed_over,
    :provider_request_id, :apart_tokens, :apart_pico
) ON CONFLICT (id) DO NOTHING";

/// The lowest id that a request can have at `unix_ms`.
pub(super) fn id_at(unix_ms: i64) -> [u8; 16] {
    const MOST: i64 = (1 << 48) - 1;
    (u128::from(unix_ms.clamp(0, MOST).unsigned_abs()) << 80).to_be_bytes()
}

/// Inserts `receipt`, unless its id exists; returns whether it was inserted.
pub(super) fn insert(transaction: &Transaction<'_>, receipt: &Receipt) -> rusqlite::Result<bool> {
    let served = receipt.served.as_ref();
    let (usage, price) = (receipt.usage, receipt.price);
    let (meant_model, meant_tier) = meant_columns(receipt);
    let tokens = |count: fn(Usage) -> u64| usage.map(|usage| signed(count(usage)));
    let pico = |price: Option<PicoUsdPerToken>| price.map(|price| signed(price.0));
    let inserted = transaction.prepare_cached(INSERT)?.execute(named_params! {
        ":id": receipt.id.0.to_be_bytes(),
        ":received_unix_ms": receipt.received_unix_ms,
        ":endpoint": receipt.endpoint.map(Endpoint::name),
        ":key": receipt.key.as_deref(),
        ":team": receipt.team.as_deref(),
        ":policy": receipt.policy.as_deref(),
        ":asked_model": receipt.asked_model.as_deref().map(readable),
        ":stream": receipt.stream,
        ":model": served.map(|served| &*served.model),
        ":deployment": served.map(|served| &*served.deployment),
        ":tier": served.and_then(|served| served.tier.as_deref()),
        ":region": served.map(|served| &*served.region),
        ":attempts": attempts::encode(&receipt.attempts, served),
        ":outcome": receipt.outcome.label(),
        ":reason": receipt.reason.label(),
        ":limited_by": receipt.limit.map(LimitKind::label),
        ":status": receipt.status,
        ":input_tokens": tokens(|usage| usage.input),
        ":cached_input_tokens": tokens(|usage| usage.cached_input),
        ":output_tokens": tokens(|usage| usage.output),
        ":reasoning_tokens": tokens(|usage| usage.reasoning),
        ":estimated": receipt.estimated,
        ":input_pico": pico(price.map(|price| price.input)),
        ":cached_input_pico": pico(price.map(|price| price.cached_input)),
        ":output_pico": pico(price.map(|price| price.output)),
        ":request_nanousd": price.map(|price| price.request.0),
        ":cost_nanousd": receipt.cost.0,
        ":first_token_us": receipt.first_token.map(micros),
        ":duration_us": micros(receipt.duration),
        ":overhead_us": micros(receipt.overhead),
        ":price_version": receipt.price_version.as_deref(),
        ":meant_model": meant_model,
        ":meant_tier": meant_tier,
        ":failover_us": receipt.failover.map(micros),
        ":passed_over": attempts::encode_passed_over(&receipt.passed_over),
        // For a search by it; it is read with the attempts.
        ":provider_request_id": receipt.provider_request_id(),
        ":apart_tokens": usage.and_then(|usage| encode_apart(usage.apart.iter().filter(|(_, count)| *count > 0))),
        ":apart_pico": price.and_then(|price| {
            encode_apart(price.apart.iter().filter_map(|(class, price)| Some((class, price?.0))))
        }),
    })?;
    Ok(inserted == 1)
}

/// The receipt in `row`, which has all columns of the table.
pub(super) fn read(row: &Row<'_>) -> rusqlite::Result<Receipt> {
    let text = |column: &str| row.get::<_, Option<Arc<str>>>(column);
    let served = match (text("model")?, text("deployment")?, text("region")?) {
        (Some(model), Some(deployment), Some(region)) => {
            Some(ServingDeployment { model, deployment, tier: text("tier")?, region })
        }
        _ => None,
    };
    let meant = meant(text("meant_model")?, text("meant_tier")?, served.as_ref())?;
    let label = |column: &'static str| row.get::<_, Option<String>>(column);
    Ok(Receipt {
        id: RequestId(u128::from_be_bytes(row.get("id")?)),
        received_unix_ms: row.get("received_unix_ms")?,
        endpoint: from_label(label("endpoint")?, Endpoint::ON_RECEIPTS, Endpoint::name)?,
        key: text("key")?,
        team: text("team")?,
        policy: text("policy")?,
        asked_model: row.get("asked_model")?,
        stream: row.get("stream")?,
        attempts: attempts::decode(&row.get::<_, String>("attempts")?, served.as_ref())?,
        meant,
        served,
        passed_over: attempts::decode_passed_over(row.get::<_, Option<String>>("passed_over")?.as_deref())?,
        outcome: from_label(label("outcome")?, Outcome::ALL, Outcome::label)?.ok_or_else(|| unknown("no outcome"))?,
        reason: reason(&row.get::<_, String>("reason")?)?,
        limit: from_label(label("limited_by")?, LimitKind::ALL, LimitKind::label)?,
        status: row.get("status")?,
        usage: usage(row)?,
        estimated: row.get("estimated")?,
        price: price(row)?,
        price_version: text("price_version")?,
        cost: NanoUsd(row.get("cost_nanousd")?),
        charges: Vec::new(),
        first_token: row.get::<_, Option<i64>>("first_token_us")?.map(duration),
        failover: row.get::<_, Option<i64>>("failover_us")?.map(duration),
        duration: duration(row.get("duration_us")?),
        overhead: duration(row.get("overhead_us")?),
    })
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
) -> rusqlite::Result<Option<PlannedModel>> {
    match (model, served) {
        (Some(model), Some(served)) if &*model == MEANT_AS_SERVED => {
            Ok(Some(PlannedModel { model: served.model.clone(), tier: served.tier.clone() }))
        }
        (Some(model), None) if &*model == MEANT_AS_SERVED => Err(unknown("meant_model")),
        (model, _) => Ok(model.map(|model| PlannedModel { model, tier })),
    }
}

fn usage(row: &Row<'_>) -> rusqlite::Result<Option<Usage>> {
    let count =
        |column: &str| row.get::<_, Option<i64>>(column).map(|count| count.map(|count| count.max(0).unsigned_abs()));
    let Some(input) = count("input_tokens")? else { return Ok(None) };
    Ok(Some(Usage {
        input,
        cached_input: count("cached_input_tokens")?.unwrap_or(0),
        output: count("output_tokens")?.unwrap_or(0),
        reasoning: count("reasoning_tokens")?.unwrap_or(0),
        apart: decode_apart(row, "apart_tokens", |count| count)?,
    }))
}

fn price(row: &Row<'_>) -> rusqlite::Result<Option<Price>> {
    let pico = |column: &str| {
        row.get::<_, Option<i64>>(column).map(|pico| PicoUsdPerToken(pico.unwrap_or(0).max(0).unsigned_abs()))
    };
    let Some(request) = row.get::<_, Option<i64>>("request_nanousd")? else { return Ok(None) };
    Ok(Some(Price {
        input: pico("input_pico")?,
        cached_input: pico("cached_input_pico")?,
        output: pico("output_pico")?,
        request: NanoUsd(request),
        apart: decode_apart(row, "apart_pico", |pico| Some(PicoUsdPerToken(pico)))?,
    }))
}

/// `CLASS=NUMBER` with commas between; `None` if there is none.
fn encode_apart(values: impl Iterator<Item = (TokenClass, u64)>) -> Option<String> {
    let text: Vec<String> = values.map(|(class, number)| format!("{}={number}", class.name())).collect();
    (!text.is_empty()).then(|| text.join(","))
}

/// What [`encode_apart`] wrote into `column`.
fn decode_apart<T: Copy + Default>(
    row: &Row<'_>,
    column: &'static str,
    value: impl Fn(u64) -> T,
) -> rusqlite::Result<ByTokenClass<T>> {
    let mut out = ByTokenClass::default();
    let text = row.get::<_, Option<String>>(column)?.unwrap_or_default();
    for part in text.split(',').filter(|part| !part.is_empty()) {
        let (name, number) = part.split_once('=').ok_or_else(|| unknown(column))?;
        let class = TokenClass::named(name).ok_or_else(|| unknown(column))?;
        out.set(class, value(number.parse().map_err(|_| unknown(column))?));
    }
    Ok(out)
}

/// `count` as a signed integer of SQLite, saturating.
fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

//! Rows of the `receipts` table in SQLite: what a row holds is in [`ReceiptRow`].

use super::unreadable_value;
use crate::domain::id::RequestId;
use crate::domain::receipt::Receipt;
use crate::store::receipt_row::{ReceiptRow, lowest_id_at};
use rusqlite::{Row, Transaction, named_params};
use std::borrow::Cow;

const INSERT: &str = "INSERT INTO receipts VALUES (
    :id, :received_unix_ms, :endpoint, :key, :team, :policy, :asked_model, :stream, :model, :deployment, :tier,
    :region, :attempts, :outcome, :reason, :limited_by, :status, :input_tokens, :cached_input_tokens, :output_tokens,
    :reasoning_tokens, :estimated, :input_pico, :cached_input_pico, :output_pico, :request_nanousd, :cost_nanousd,
    :first_token_us, :duration_us, :overhead_us, :price_version, :meant_model, :meant_tier, :failover_us, :passed_over,
    :provider_request_id, :apart_tokens, :apart_pico, :injected
) ON CONFLICT (id) DO NOTHING";

/// The lowest id that a request can have at `unix_ms`.
pub(super) fn id_at(unix_ms: i64) -> [u8; 16] {
    lowest_id_at(unix_ms).0.to_be_bytes()
}

/// Inserts `receipt`, unless its id exists; returns whether it was inserted.
pub(super) fn insert(transaction: &Transaction<'_>, receipt: &Receipt) -> rusqlite::Result<bool> {
    let row = ReceiptRow::of(receipt);
    let inserted = transaction.prepare_cached(INSERT)?.execute(named_params! {
        ":id": receipt.id.0.to_be_bytes(),
        ":received_unix_ms": row.received_unix_ms,
        ":endpoint": row.endpoint,
        ":key": row.key,
        ":team": row.team,
        ":policy": row.policy,
        ":asked_model": row.asked_model,
        ":stream": row.stream,
        ":model": row.model,
        ":deployment": row.deployment,
        ":tier": row.tier,
        ":region": row.region,
        ":attempts": row.attempts,
        ":outcome": row.outcome,
        ":reason": row.reason,
        ":limited_by": row.limited_by,
        ":status": row.status,
        ":input_tokens": row.input_tokens,
        ":cached_input_tokens": row.cached_input_tokens,
        ":output_tokens": row.output_tokens,
        ":reasoning_tokens": row.reasoning_tokens,
        ":estimated": row.estimated,
        ":input_pico": row.input_pico,
        ":cached_input_pico": row.cached_input_pico,
        ":output_pico": row.output_pico,
        ":request_nanousd": row.request_nanousd,
        ":cost_nanousd": row.cost_nanousd,
        ":first_token_us": row.first_token_us,
        ":duration_us": row.duration_us,
        ":overhead_us": row.overhead_us,
        ":price_version": row.price_version,
        ":meant_model": row.meant_model,
        ":meant_tier": row.meant_tier,
        ":failover_us": row.failover_us,
        ":passed_over": row.passed_over,
        ":provider_request_id": row.provider_request_id,
        ":apart_tokens": row.apart_tokens,
        ":apart_pico": row.apart_pico,
        ":injected": row.injected,
    })?;
    Ok(inserted == 1)
}

/// The receipt in `row`, which has all columns of the table.
pub(super) fn read(row: &Row<'_>) -> rusqlite::Result<Receipt> {
    let text = |column: &str| row.get::<_, Option<String>>(column).map(|text| text.map(Cow::Owned));
    let receipt = ReceiptRow {
        received_unix_ms: row.get("received_unix_ms")?,
        endpoint: text("endpoint")?,
        key: text("key")?,
        team: text("team")?,
        policy: text("policy")?,
        asked_model: text("asked_model")?,
        stream: row.get("stream")?,
        model: text("model")?,
        deployment: text("deployment")?,
        tier: text("tier")?,
        region: text("region")?,
        attempts: row.get("attempts")?,
        outcome: row.get::<_, String>("outcome")?.into(),
        reason: row.get::<_, String>("reason")?.into(),
        limited_by: text("limited_by")?,
        status: row.get("status")?,
        input_tokens: row.get("input_tokens")?,
        cached_input_tokens: row.get("cached_input_tokens")?,
        output_tokens: row.get("output_tokens")?,
        reasoning_tokens: row.get("reasoning_tokens")?,
        estimated: row.get("estimated")?,
        input_pico: row.get("input_pico")?,
        cached_input_pico: row.get("cached_input_pico")?,
        output_pico: row.get("output_pico")?,
        request_nanousd: row.get("request_nanousd")?,
        cost_nanousd: row.get("cost_nanousd")?,
        first_token_us: row.get("first_token_us")?,
        duration_us: row.get("duration_us")?,
        overhead_us: row.get("overhead_us")?,
        price_version: text("price_version")?,
        meant_model: text("meant_model")?,
        meant_tier: text("meant_tier")?,
        failover_us: row.get("failover_us")?,
        passed_over: row.get("passed_over")?,
        provider_request_id: text("provider_request_id")?,
        apart_tokens: row.get("apart_tokens")?,
        apart_pico: row.get("apart_pico")?,
        injected: row.get("injected")?,
    };
    receipt.receipt(RequestId(u128::from_be_bytes(row.get("id")?))).map_err(unreadable_value)
}

//! The list of models and one of them, as `GET /v1/models` writes them: OpenAI's members plus `pricing`,
//! `context_length` and `regions`.
//!
//! It never chooses which models are listed.

use crate::domain::pricing::Price;
use serde::Serialize;
use std::sync::Arc;

/// A list of models.
#[derive(Serialize)]
pub struct ModelList<'a> {
    object: &'static str,
    data: Vec<ModelEntry<'a>>,
}

/// One model.
#[derive(Serialize)]
pub struct ModelEntry<'a> {
    id: &'a str,
    object: &'static str,
    /// It is known of no model when it was made; clients want a number.
    created: u64,
    owned_by: &'static str,
    pricing: Option<ModelPricing>,
    context_length: Option<u64>,
    regions: &'a [Arc<str>],
}

/// In US dollars, as decimal strings: per million tokens, `request` per request.
#[derive(Serialize)]
struct ModelPricing {
    input: String,
    cached_input: String,
    output: String,
    request: String,
}

impl<'a> ModelList<'a> {
    /// The list of `models`.
    pub fn new(models: impl Iterator<Item = ModelEntry<'a>>) -> Self {
        Self { object: "list", data: models.collect() }
    }

    /// As JSON.
    pub fn json(&self) -> Vec<u8> {
        json(self)
    }
}

impl<'a> ModelEntry<'a> {
    /// The model `id`; `context_length` in tokens, input and output together.
    pub fn new(id: &'a str, price: Option<&Price>, context_length: Option<u64>, regions: &'a [Arc<str>]) -> Self {
        let pricing = price.map(ModelPricing::of);
        Self { id, object: "model", created: 0, owned_by: "tierway", pricing, context_length, regions }
    }

    /// As JSON.
    pub fn json(&self) -> Vec<u8> {
        json(self)
    }
}

impl ModelPricing {
    fn of(price: &Price) -> Self {
        Self {
            input: price.input.usd_per_mtok(),
            cached_input: price.cached_input.usd_per_mtok(),
            output: price.output.usd_per_mtok(),
            request: price.request.to_string(),
        }
    }
}

fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("texts and numbers always serialise")
}

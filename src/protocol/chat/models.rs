//! The list of models and one of them, as `GET /v1/models` writes them: OpenAI's members plus `pricing`,
//! `context_length` and `regions`; and the list of a provider, as hosts write theirs.
//!
//! It never chooses which models are listed.

use crate::domain::pricing::Price;
use crate::protocol::body_kind::BYTE_ORDER_MARK;
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;
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
    /// Classes of tokens that are priced apart, such as `cache_write`.
    #[serde(flatten)]
    apart: BTreeMap<&'static str, String>,
    /// The day of the price catalogue that it is from; absent if an operator wrote it.
    #[serde(skip_serializing_if = "Option::is_none")]
    catalogue: Option<Arc<str>>,
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
    /// The model `id`, with a price and the day of the catalogue that it is from; `context_length` in tokens, input and
    /// output together.
    pub fn new(
        id: &'a str,
        price: Option<&(Price, Option<Arc<str>>)>,
        context_length: Option<u64>,
        regions: &'a [Arc<str>],
    ) -> Self {
        let pricing = price.map(|(price, catalogue)| ModelPricing::of(price, catalogue.clone()));
        Self { id, object: "model", created: 0, owned_by: "tierway", pricing, context_length, regions }
    }

    /// As JSON.
    pub fn json(&self) -> Vec<u8> {
        json(self)
    }
}

impl ModelPricing {
    fn of(price: &Price, catalogue: Option<Arc<str>>) -> Self {
        let apart = price.apart.iter().filter_map(|(class, price)| Some((class.name(), price?.usd_per_mtok())));
        Self {
            input: price.input.usd_per_mtok(),
            cached_input: price.cached_input.usd_per_mtok(),
            output: price.output.usd_per_mtok(),
            request: price.request.to_string(),
            apart: apart.collect(),
            catalogue,
        }
    }
}

/// The names in a provider's list: `{"data":[{"id":…}]}`, or the array alone as one host writes it, or
/// `{"models":[{"name":…}]}`. `None` where it is none of these. An entry without a name is passed over.
pub fn listed(body: &[u8]) -> Option<Vec<String>> {
    let list: Value = serde_json::from_slice(body.strip_prefix(BYTE_ORDER_MARK).unwrap_or(body)).ok()?;
    let entries = list.get("data").or_else(|| list.get("models")).unwrap_or(&list).as_array()?;
    let name =
        |entry: &Value| ["id", "name", "model"].iter().find_map(|member| Some(entry.get(member)?.as_str()?.to_owned()));
    let names: Vec<String> = entries.iter().filter_map(name).collect();
    (entries.is_empty() || !names.is_empty()).then_some(names)
}

fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("texts and numbers always serialise")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_form_of_a_list_is_read() {
        let check = |body: &str, expected: Option<&[&str]>| {
            let expected = expected.map(|names| names.iter().map(ToString::to_string).collect());
            assert_eq!(listed(body.as_bytes()), expected, "{body}");
        };
        check(r#"{"object":"list","data":[{"id":"a","object":"model"},{"id":"b"}]}"#, Some(&["a", "b"]));
        check(r#"[{"id":"a"}]"#, Some(&["a"]));
        check(r#"{"models":[{"name":"models/a"}]}"#, Some(&["models/a"]));
        check(r#"{"data":[{"object":"model"},{"id":"a"},null]}"#, Some(&["a"]));
        check("\u{feff}{\"data\":[{\"id\":\"a\"}]}", Some(&["a"]));
        check(r#"{"data":[]}"#, Some(&[]));
        check(r#"{"data":{}}"#, None);
        check(r#"{"data":[{"object":"model"}]}"#, None);
        check(r#"{"error":"no"}"#, None);
        check("<html>", None);
    }
}

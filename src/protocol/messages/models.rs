//! The list of models and one of them, as `GET /v1/models` writes them for clients of Anthropic's API.
//!
//! It never chooses which models are listed.
//!
//! Start reading in [`ModelPage::of`].

use serde::Serialize;

/// A model was made at some time, of which nothing is known.
const UNKNOWN_TIME: &str = "1970-01-01T00:00:00Z";
/// How many models a page has where its client does not say, and at most.
const USUAL_PAGE: usize = 20;
const LONGEST_PAGE: usize = 1000;

/// A part of a list of models.
#[derive(Serialize)]
pub struct ModelPage<'a> {
    data: Vec<ModelDescription<'a>>,
    has_more: bool,
    first_id: Option<&'a str>,
    last_id: Option<&'a str>,
}

/// One model. What is not known of it is `null`: clients of Anthropic's API expect every member.
#[derive(Clone, Serialize)]
pub struct ModelDescription<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    id: &'a str,
    display_name: &'a str,
    created_at: &'static str,
    lifecycle: &'static str,
    deprecated_at: (),
    retires_at: (),
    line: (),
    capabilities: (),
    max_input_tokens: Option<u64>,
    max_tokens: (),
}

impl<'a> ModelPage<'a> {
    /// The page of `models` that a client asks for by the parameters of its query, of which `parameter` is the value.
    pub fn of(models: &[ModelDescription<'a>], parameter: impl Fn(&str) -> Option<String>) -> Self {
        let place = |id: String| models.iter().position(|model| *model.id == *id);
        let limit = parameter("limit").and_then(|limit| limit.parse().ok()).unwrap_or(USUAL_PAGE);
        let limit = limit.clamp(1, LONGEST_PAGE);
        let (data, has_more) = match (parameter("after_id"), parameter("before_id")) {
            (None, Some(before)) => {
                let end = place(before).unwrap_or(0);
                let start = end.saturating_sub(limit);
                (&models[start..end], start > 0)
            }
            (after, _) => {
                let start = after.map_or(0, |after| place(after).map_or(models.len(), |at| at + 1));
                let end = models.len().min(start + limit);
                (&models[start..end], end < models.len())
            }
        };
        let (first_id, last_id) = (data.first().map(|model| model.id), data.last().map(|model| model.id));
        Self { data: data.to_vec(), has_more, first_id, last_id }
    }

    /// As JSON.
    pub fn json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("texts and numbers always serialise")
    }
}

impl<'a> ModelDescription<'a> {
    /// The model `id`, which reads at most `context` tokens.
    pub fn new(id: &'a str, context: Option<u64>) -> Self {
        Self {
            kind: "model",
            id,
            display_name: id,
            created_at: UNKNOWN_TIME,
            // It is served here.
            lifecycle: "active",
            deprecated_at: (),
            retires_at: (),
            line: (),
            capabilities: (),
            max_input_tokens: context,
            max_tokens: (),
        }
    }

    /// As JSON.
    pub fn json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("texts and numbers always serialise")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_holds_what_was_asked_for() {
        let models = ["a", "b", "c/d", "e"].map(|id| ModelDescription::new(id, None));
        let check = |query: Option<&str>, ids: &[&str], has_more: bool| {
            let page = ModelPage::of(&models, |name| {
                let mut given = query?.split('&').filter_map(|pair| pair.split_once('='));
                given.find(|(given, _)| *given == name).map(|(_, value)| value.to_owned())
            });
            let listed: Vec<&str> = page.data.iter().map(|model| model.id).collect();
            assert_eq!((&listed[..], page.has_more), (ids, has_more), "{query:?}");
            assert_eq!((page.first_id, page.last_id), (ids.first().copied(), ids.last().copied()), "{query:?}");
        };
        check(None, &["a", "b", "c/d", "e"], false);
        check(Some("limit=2"), &["a", "b"], true);
        check(Some("limit=2&after_id=b"), &["c/d", "e"], false);
        check(Some("limit=1&after_id=b"), &["c/d"], true);
        check(Some("after_id=c/d"), &["e"], false);
        check(Some("before_id=e&limit=2"), &["b", "c/d"], true);
        check(Some("before_id=b"), &["a"], false);
        check(Some("limit=0"), &["a"], true);
        check(Some("limit=x"), &["a", "b", "c/d", "e"], false);
        check(Some("after_id=unknown"), &[], false);
    }

    #[test]
    fn a_model_is_written_as_anthropic_writes_it() {
        let json = String::from_utf8(ModelDescription::new("m", Some(200_000)).json()).expect("UTF-8");
        let expected = "{\"type\":\"model\",\"id\":\"m\",\"display_name\":\"m\",\"created_at\":\"1970-01-01T00:00:00Z\",\
                        \"lifecycle\":\"active\",\"deprecated_at\":null,\"retires_at\":null,\"line\":null,\
                        \"capabilities\":null,\"max_input_tokens\":200000,\"max_tokens\":null}";
        assert_eq!(json, expected);
    }
}

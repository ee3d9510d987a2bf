//! The posture as a JSON object: the answer of the admin API, and what `tierway posture --json` prints.

use super::UtcTime;
use crate::admin::posture::{Posture, PostureAnswer, PostureFact};
use schemars::JsonSchema;

/// Six questions, each answered from what was measured, or with how to measure it.
#[derive(serde::Serialize, JsonSchema, Debug)]
#[schemars(rename = "Posture", deny_unknown_fields)]
pub struct PostureObject {
    #[schemars(extend("const" = "posture"))]
    object: &'static str,
    /// The policy that it is about; null: all.
    policy: Option<String>,
    /// The ledger was read from this time on.
    since: UtcTime,
    /// When the answers were made.
    until: UtcTime,
    answers: Vec<PostureAnswerObject>,
}

/// The answer to one question.
#[derive(serde::Serialize, JsonSchema, Debug)]
#[schemars(rename = "PostureAnswer", deny_unknown_fields)]
struct PostureAnswerObject {
    question: &'static str,
    /// Whether anything was measured. What is only configured is not.
    measured: bool,
    facts: Vec<PostureFactObject>,
    /// How to measure what is not known; null: everything is.
    how_to_measure: Option<String>,
}

/// Something that is known, and where from.
#[derive(serde::Serialize, JsonSchema, Debug)]
#[schemars(rename = "PostureFact", deny_unknown_fields)]
struct PostureFactObject {
    topic: String,
    /// With units.
    value: String,
    /// The ledger, the configuration, a drill, or statements about closed months.
    source: String,
    /// The first time that it covers; null: one instant only.
    since: Option<UtcTime>,
    /// The last time that it covers.
    at: UtcTime,
}

impl From<&Posture> for PostureObject {
    fn from(posture: &Posture) -> Self {
        Self {
            object: "posture",
            policy: posture.policy.as_deref().map(str::to_owned),
            since: UtcTime::of(posture.since_unix_ms),
            until: UtcTime::of(posture.until_unix_ms),
            answers: posture.answers.iter().map(Into::into).collect(),
        }
    }
}

impl From<&PostureAnswer> for PostureAnswerObject {
    fn from(answer: &PostureAnswer) -> Self {
        let PostureAnswer { question, measured, facts, how } = answer;
        let facts = facts.iter().map(Into::into).collect();
        Self { question: *question, measured: *measured, facts, how_to_measure: how.clone() }
    }
}

impl From<&PostureFact> for PostureFactObject {
    fn from(fact: &PostureFact) -> Self {
        Self {
            topic: fact.topic.clone(),
            value: fact.value.clone(),
            source: fact.source.clone(),
            since: fact.since_unix_ms.map(UtcTime::of),
            at: UtcTime::of(fact.at_unix_ms),
        }
    }
}

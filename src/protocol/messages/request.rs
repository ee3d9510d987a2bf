//! Reads the few members of a Messages request that routing, limits and the meter must know, and their places: what
//! comes out is a [`Call`].
//!
//! It never changes the body and never judges what it does not need. A member that is read and given twice, in any
//! escaping, or in a spelling that some readers take for it, is refused.
//!
//! Start reading in [`read_request`].

use super::content::BlockReader;
use crate::domain::body_member::ListedMembers;
use crate::domain::call::{BodyProblem, Call, CostFacts, Endpoint, Feature, FeatureSet, RequestMetadata};
use crate::protocol::given::GivenReader;
use crate::protocol::json::member::{BodyField, member_of, members};
use crate::protocol::request_basics::{BodyText, basics, ceiling, cost_facts, lists_some};
use bytes::Bytes;

/// The members that are read of a body.
const OF_MESSAGES: [&str; 12] = [
    "model",
    "messages",
    "system",
    "tools",
    "stream",
    "max_tokens",
    "metadata",
    "output_config",
    "context_management",
    "mcp_servers",
    "container",
    "thread",
];
const MESSAGES: usize = 1;
const SYSTEM: usize = 2;
const TOOLS: usize = 3;
const CONTEXT_MANAGEMENT: usize = 8;
/// Members of members.
const USER_ID: &str = "metadata.user_id";
const FORMAT: &str = "output_config.format";
const FORMAT_TYPE: &str = "output_config.format.type";

/// Beginnings of the types of tools that the client runs itself, or that only choose among those of the body.
const OWN_TOOLS: [&str; 5] = ["bash_", "text_editor_", "computer_", "memory_", "tool_search_tool_"];

/// Understands `body` as a request to `endpoint`, and takes note of members that are `listed`.
///
/// # Errors
/// [`BodyProblem::NotJson`] for anything but one JSON object in UTF-8, nested at most 128 levels;
/// [`BodyProblem::BadField`] for a member that is read and has the wrong type, an impossible value, is given twice or in
/// another spelling, or is required and missing: `model`, and `max_tokens` of a message.
pub fn read_request(endpoint: Endpoint, body: Bytes, listed: &ListedMembers) -> Result<Call, BodyProblem> {
    let metadata = read_metadata(endpoint, &body, listed)?;
    Ok(Call::new(endpoint, body, metadata))
}

fn read_metadata(endpoint: Endpoint, body: &[u8], listed: &ListedMembers) -> Result<RequestMetadata, BodyProblem> {
    let place = BodyText::of(body)?;
    let mut given = GivenReader::new(place.text, listed, is_own_tool);
    let mut blocks = BlockReader::new(place.text);
    let found = members(place.text, OF_MESSAGES, |index, name, scanner| match index {
        Some(MESSAGES) => blocks.messages(scanner),
        Some(SYSTEM) => blocks.content(scanner),
        Some(TOOLS) => given.tools(scanner),
        // Leaving out what is old costs nothing; only writing a summary of it does.
        Some(CONTEXT_MANAGEMENT) => {
            let value = scanner.value_span()?;
            if may_compact(&place.text[value.clone()]) {
                given.passed(name, value);
            }
            Ok(())
        }
        _ => given.member(name, scanner),
    })?;
    let [model, messages, _, tools, stream, max_tokens, metadata, output, _, mcp_servers, container, thread] = found;
    messages.list()?;
    let content = blocks.end()?;
    if endpoint == Endpoint::Messages && max_tokens.given().is_none() {
        return Err(max_tokens.bad("is required"));
    }
    // What the provider reads by itself, or remembers, is bounded by nothing in the body.
    let others = [&mcp_servers, &container, &thread];
    let read_elsewhere = given.provider_runs_tools() || others.into_iter().any(is_something);
    let elsewhere = content.elsewhere | read_elsewhere;
    let user = match metadata.object()? {
        Some(object) => {
            member_of(place.text, object, USER_ID)?.string()?.filter(|user| !user.is_empty()).map(Box::from)
        }
        None => None,
    };
    let needed = [
        (Feature::Tools, lists_some(&tools)?),
        (Feature::JsonSchema, asks_for_json_schema(place, &output)?),
        (Feature::Vision, content.images),
    ];
    let features = FeatureSet::of(needed.into_iter().filter_map(|(feature, needed)| needed.then_some(feature)));
    Ok(RequestMetadata {
        stream: stream.boolean()? && endpoint == Endpoint::Messages,
        max_output: ceiling(&max_tokens)?,
        user,
        features,
        cost_facts: CostFacts { media: content.media, ..cost_facts(place, [Some(&max_tokens), None], elsewhere)? },
        given: given.end()?,
        ..basics(&model, None)?
    })
}

/// Whether the value of `context_management` may ask for a summary; where it is written with escapes, it may.
fn may_compact(value: &str) -> bool {
    value.contains("compact") || value.contains('\\')
}

fn is_own_tool(kind: &str) -> bool {
    kind == "custom" || OWN_TOOLS.iter().any(|tool| kind.starts_with(tool))
}

/// Whether a member is there and holds something.
fn is_something(member: &BodyField<'_>) -> bool {
    member.given().is_some_and(|value| !value.text.starts_with(['[', '{']) || !value.is_empty())
}

fn asks_for_json_schema(place: BodyText<'_>, output: &BodyField<'_>) -> Result<bool, BodyProblem> {
    let Some(object) = output.object()? else { return Ok(false) };
    let Some(format) = member_of(place.text, object, FORMAT)?.object()? else { return Ok(false) };
    Ok(member_of(place.text, format, FORMAT_TYPE)?.string()?.as_deref() == Some("json_schema"))
}

#[cfg(test)]
mod tests;

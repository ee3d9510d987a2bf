//! What a request asks its answer to be: text, a document, a tool call, vectors of some length. For answers that are
//! made up here; a provider reads the same from the client's bytes.
//!
//! Tools: a tool that is named or required is called; one that may be called is, unless the conversation ends with a
//! tool's result, so that a program that runs tools comes to an end. Of several, the first that was not called yet.
//!
//! Start reading in [`AnswerForm::of`].

use crate::domain::call::{Call, Endpoint};
use crate::domain::random::{FNV_BASIS, RandomValue, fnv1a};
use crate::protocol::json_schema::{example, schema_in_text};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use std::borrow::Cow;
use std::collections::HashMap;

/// The dimensions of vectors where the request names none, and the most it may name.
const DIMENSIONS: usize = 16;
const MOST_DIMENSIONS: usize = 3072;
/// The most numbers of one answer: its vectors are made in memory.
const MOST_NUMBERS: usize = 4 << 20;

/// What an answer is to be.
#[derive(PartialEq, Debug)]
pub enum AnswerForm {
    /// Whatever is said.
    Text,
    /// This JSON text.
    Document(String),
    /// A call of a tool.
    ToolCall(ToolCallForm),
    /// Text after each of these prompts, which are repeated.
    Echo(Vec<String>),
    /// A vector for each input.
    Vectors(VectorForm),
}

/// A call of a tool.
#[derive(PartialEq, Eq, Debug)]
pub struct ToolCallForm {
    /// How the tool was described.
    pub kind: ToolKind,
    /// Its name.
    pub name: String,
    /// What it is called with: the JSON of its arguments, or any text for a custom tool.
    pub input: String,
}

/// How a tool was described, and its call is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ToolKind {
    /// In `tools`, with a schema of its arguments.
    Function,
    /// In `tools`, without one.
    Custom,
    /// In `functions`, which came before `tools`.
    Legacy,
}

/// Vectors of embeddings.
#[derive(PartialEq, Eq, Debug)]
pub struct VectorForm {
    /// What each vector is made of: the same for the same input.
    pub seeds: Vec<RandomValue>,
    /// The length of each.
    pub dimensions: usize,
    /// Whether they are written as base64 of little-endian 32-bit floats.
    pub base64: bool,
}

/// What a request asks for and no host would answer.
#[derive(PartialEq, Eq, Debug)]
pub struct FormProblem {
    /// The member of the body.
    pub param: &'static str,
    /// What is wrong with it.
    pub message: String,
}

impl FormProblem {
    fn new(param: &'static str, message: impl Into<String>) -> Self {
        Self { param, message: message.into() }
    }
}

/// The members of a body as they were written; of two with one name, the last.
type BodyMembers<'a> = HashMap<Cow<'a, str>, &'a RawValue>;

impl AnswerForm {
    /// What the answer to `call` is to be; what is made up for it follows from `seed`.
    ///
    /// # Errors
    /// [`FormProblem`] for what OpenAI answers with 400.
    pub fn of(call: &Call, seed: RandomValue) -> Result<Self, FormProblem> {
        let body = call.body();
        // Most requests ask for text, and their messages need not be read for that.
        let names = |name: &str| memchr::memmem::find(body, name.as_bytes()).is_some();
        let asks = match call.endpoint() {
            Endpoint::Chat => ["\"tool", "\"function", "\"response_format"].iter().any(|name| names(name)),
            Endpoint::Completions => names("\"echo"),
            Endpoint::Embeddings => true,
            Endpoint::Messages
            | Endpoint::CountTokens
            | Endpoint::Responses
            | Endpoint::InputTokens
            | Endpoint::Conversations
            | Endpoint::StoredResponses => false,
        };
        let Some(members) = asks.then(|| serde_json::from_slice::<BodyMembers<'_>>(body).ok()).flatten() else {
            return Ok(Self::Text);
        };
        match call.endpoint() {
            Endpoint::Chat => chat(&members, seed),
            Endpoint::Completions => Ok(echo(&members)),
            Endpoint::Embeddings => vectors(&members),
            Endpoint::Messages
            | Endpoint::CountTokens
            | Endpoint::Responses
            | Endpoint::InputTokens
            | Endpoint::Conversations
            | Endpoint::StoredResponses => Ok(Self::Text),
        }
    }
}

/// A member as a tree; `null` where it is absent.
fn member(members: &BodyMembers<'_>, name: &str) -> Value {
    members.get(name).and_then(|raw| serde_json::from_str(raw.get()).ok()).unwrap_or_default()
}

// --- chat -------------------------------------------------------------------------------------

/// A tool that may be called.
struct Tool {
    kind: ToolKind,
    name: String,
    parameters: Value,
}

/// Whether a tool is to be called.
enum ToolChoice {
    None,
    Auto,
    Required,
    Named(String),
}

/// What has been said so far, as far as it decides over tools.
#[derive(Default)]
struct Conversation {
    ends_with_result: bool,
    called: Vec<String>,
    /// What the model said, as it was written. Some programs repeat calls as text.
    said: Vec<String>,
}

impl Conversation {
    fn has_called(&self, name: &str) -> bool {
        let quoted = [format!("'{name}'"), format!("\\\"{name}\\\"")];
        let is_said = || self.said.iter().any(|text| quoted.iter().any(|name| text.contains(name)));
        self.called.iter().any(|called| called == name) || is_said()
    }
}

fn chat(members: &BodyMembers<'_>, seed: RandomValue) -> Result<AnswerForm, FormProblem> {
    let mut tools = tools(members);
    let choice = tool_choice(members, &mut tools)?;
    if let Some(tool) = chosen(&tools, &choice, &conversation(members))? {
        let input = match tool.kind {
            ToolKind::Custom => "river light".to_owned(),
            ToolKind::Function | ToolKind::Legacy => example(&tool.parameters, seed).to_string(),
        };
        return Ok(AnswerForm::ToolCall(ToolCallForm { kind: tool.kind, name: tool.name.clone(), input }));
    }
    response_format(members, seed)
}

fn tools(members: &BodyMembers<'_>) -> Vec<Tool> {
    let tool = |kind, described: &Value| {
        let name = described.get("name")?.as_str()?.to_owned();
        let any = json!({ "type": "object", "properties": {} });
        let parameters = described.get("parameters").filter(|schema| !schema.is_null()).cloned().unwrap_or(any);
        Some(Tool { kind, name, parameters })
    };
    let listed = member(members, "tools");
    let modern = listed.as_array().into_iter().flatten().filter_map(|one| match one.get("custom") {
        Some(custom) => tool(ToolKind::Custom, custom),
        None => tool(ToolKind::Function, one.get("function").unwrap_or(one)),
    });
    let functions = member(members, "functions");
    let legacy = functions.as_array().into_iter().flatten().filter_map(|one| tool(ToolKind::Legacy, one));
    modern.chain(legacy).collect()
}

/// The choice of the request, which may leave only some of `tools`.
fn tool_choice(members: &BodyMembers<'_>, tools: &mut Vec<Tool>) -> Result<ToolChoice, FormProblem> {
    let (param, written) = match (member(members, "tool_choice"), member(members, "function_call")) {
        (Value::Null, legacy) => ("function_call", legacy),
        (modern, _) => ("tool_choice", modern),
    };
    let named = ["function", "custom"].iter().find_map(|kind| written.get(kind)).unwrap_or(&written);
    let mode = match &written {
        Value::Null => return Ok(ToolChoice::Auto),
        Value::String(mode) => mode.as_str(),
        Value::Object(object) => match object.get("allowed_tools") {
            Some(allowed) => {
                let allowed_names: Vec<&str> =
                    allowed["tools"].as_array().into_iter().flatten().filter_map(name_of).collect();
                tools.retain(|tool| allowed_names.contains(&tool.name.as_str()));
                allowed["mode"].as_str().unwrap_or("auto")
            }
            None => match named.get("name").and_then(Value::as_str) {
                Some(name) => return Ok(ToolChoice::Named(name.to_owned())),
                None => object.get("type").and_then(Value::as_str).unwrap_or_default(),
            },
        },
        _ => "",
    };
    match mode {
        "none" => Ok(ToolChoice::None),
        "auto" => Ok(ToolChoice::Auto),
        "required" | "any" => Ok(ToolChoice::Required),
        _ => Err(FormProblem::new(param, "must be none, auto, required, or an object that names a tool")),
    }
}

/// The name in `{"type": "function", "function": {"name": …}}`, or in the object itself.
fn name_of(tool: &Value) -> Option<&str> {
    ["function", "custom"].iter().find_map(|kind| tool.get(kind)).unwrap_or(tool).get("name")?.as_str()
}

fn conversation(members: &BodyMembers<'_>) -> Conversation {
    #[derive(Deserialize)]
    struct SpokenMessage<'a> {
        #[serde(borrow, default)]
        role: Cow<'a, str>,
        #[serde(borrow, default)]
        content: Option<&'a RawValue>,
        #[serde(default)]
        tool_calls: Option<Vec<Value>>,
        #[serde(default)]
        function_call: Option<Value>,
    }
    let messages =
        members.get("messages").and_then(|raw| serde_json::from_str::<Vec<SpokenMessage<'_>>>(raw.get()).ok());
    let messages = messages.unwrap_or_default();
    let of_model = messages.iter().filter(|message| message.role == "assistant");
    let calls = messages.iter().flat_map(|message| message.tool_calls.iter().flatten().chain(&message.function_call));
    Conversation {
        ends_with_result: messages.last().is_some_and(|last| ["tool", "function"].contains(&&*last.role)),
        called: calls.filter_map(name_of).map(str::to_owned).collect(),
        said: of_model.filter_map(|message| Some(message.content?.get().to_owned())).collect(),
    }
}

/// The tool to call.
fn chosen<'t>(
    tools: &'t [Tool],
    choice: &ToolChoice,
    conversation: &Conversation,
) -> Result<Option<&'t Tool>, FormProblem> {
    let fresh = || tools.iter().find(|tool| !conversation.has_called(&tool.name));
    match choice {
        ToolChoice::None => Ok(None),
        ToolChoice::Auto if conversation.ends_with_result => Ok(None),
        ToolChoice::Auto => Ok(fresh().or(tools.first())),
        // What is called last is what a program takes for the answer.
        ToolChoice::Required => fresh()
            .or(tools.last())
            .map(Some)
            .ok_or_else(|| FormProblem::new("tool_choice", "a tool is required, and the request has none to call")),
        ToolChoice::Named(name) => tools
            .iter()
            .find(|tool| tool.name == *name)
            .map(Some)
            .ok_or_else(|| FormProblem::new("tool_choice", format!("there is no tool '{name}' in the request"))),
    }
}

fn response_format(members: &BodyMembers<'_>, seed: RandomValue) -> Result<AnswerForm, FormProblem> {
    const PARAM: &str = "response_format";
    let format = member(members, PARAM);
    let document = |schema: &Value| Ok(AnswerForm::Document(example(schema, seed).to_string()));
    match format.get("type").and_then(Value::as_str) {
        None if format.is_null() => Ok(AnswerForm::Text),
        Some("text") => Ok(AnswerForm::Text),
        Some("json_object") => document(&schema_in_text(&prompt(members)).unwrap_or_else(|| {
            json!({
                "type": "object",
                "properties": { "answer": { "type": "string" }, "simulated": { "const": true } },
            })
        })),
        Some("json_schema") => match format.get("json_schema").and_then(|described| described.get("schema")) {
            Some(schema @ (Value::Object(_) | Value::Bool(_))) => document(schema),
            None | Some(Value::Null) => document(&json!({})),
            Some(_) => Err(FormProblem::new(PARAM, "json_schema.schema must be a JSON schema")),
        },
        _ => Err(FormProblem::new(PARAM, "type must be text, json_object or json_schema")),
    }
}

/// The texts of all messages.
fn prompt(members: &BodyMembers<'_>) -> String {
    let messages = member(members, "messages");
    let contents = messages.as_array().into_iter().flatten().filter_map(|message| message.get("content"));
    let texts = contents.flat_map(|content| match content {
        Value::Array(parts) => parts.iter().filter_map(|part| part.get("text")?.as_str()).collect(),
        whole => whole.as_str().into_iter().collect::<Vec<_>>(),
    });
    texts.collect::<Vec<_>>().join("\n")
}

// --- completions ------------------------------------------------------------------------------

fn echo(members: &BodyMembers<'_>) -> AnswerForm {
    if member(members, "echo") != Value::Bool(true) {
        return AnswerForm::Text;
    }
    // Nobody knows the text of a token here.
    let text = |prompt: &Value| prompt.as_str().unwrap_or_default().to_owned();
    let prompt = member(members, "prompt");
    AnswerForm::Echo(match prompt.as_array() {
        Some(prompts) if !prompts.first().is_some_and(Value::is_number) => prompts.iter().map(text).collect(),
        _ => vec![text(&prompt)],
    })
}

// --- embeddings -------------------------------------------------------------------------------

fn vectors(members: &BodyMembers<'_>) -> Result<AnswerForm, FormProblem> {
    let dimensions = match member(members, "dimensions") {
        Value::Null => DIMENSIONS,
        written => {
            let number = written.as_f64().filter(|number| number.fract() == 0.0);
            let fits = number.filter(|number| (1.0..=MOST_DIMENSIONS as f64).contains(number));
            let problem = || FormProblem::new("dimensions", format!("must be from 1 to {MOST_DIMENSIONS}"));
            fits.ok_or_else(problem)? as usize
        }
    };
    let base64 = match member(members, "encoding_format") {
        Value::Null => false,
        Value::String(format) if format == "float" => false,
        Value::String(format) if format == "base64" => true,
        _ => return Err(FormProblem::new("encoding_format", "must be float or base64")),
    };
    let seeds = members.get("input").map(|input| inputs(input.get())).unwrap_or_default();
    if seeds.is_empty() {
        return Err(FormProblem::new(
            "input",
            "must be a text, a list of tokens, or a list of those that is not empty",
        ));
    }
    if seeds.len() * dimensions > MOST_NUMBERS {
        return Err(FormProblem::new("input", format!("inputs times dimensions must be at most {MOST_NUMBERS}")));
    }
    Ok(AnswerForm::Vectors(VectorForm { seeds, dimensions, base64 }))
}

/// A seed for each input, by its bytes: the same input lies at the same place, wherever it is asked about.
fn inputs(input: &str) -> Vec<RandomValue> {
    let seed = |text: &str| RandomValue(fnv1a(FNV_BASIS, text.as_bytes()));
    match serde_json::from_str::<Vec<&RawValue>>(input) {
        Ok(list) if !list.first().is_some_and(|first| is_token(first.get())) => {
            list.iter().map(|one| seed(one.get())).collect()
        }
        // One text, or one list of tokens.
        _ => vec![seed(input)],
    }
}

fn is_token(written: &str) -> bool {
    written.starts_with(|c: char| c == '-' || c.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::body_member::ListedMembers;
    use crate::protocol::chat::request::read_request;
    use bytes::Bytes;

    fn form(endpoint: Endpoint, members: &str) -> Result<AnswerForm, FormProblem> {
        let body = format!("{{\"model\":\"m\",{members}}}");
        let call = read_request(endpoint, Bytes::from(body), &ListedMembers::default())
            .unwrap_or_else(|problem| panic!("{members}: {problem:?}"));
        AnswerForm::of(&call, RandomValue(1))
    }

    const TOOLS: &str = r#""tools":[{"type":"function","function":{"name":"a","parameters":{"type":"object",
        "properties":{"city":{"enum":["Oslo"]}},"required":["city"]}}},{"type":"function","function":{"name":"b"}},
        {"type":"custom","custom":{"name":"c"}}]"#;

    /// The tool that is called with [`TOOLS`] and `more`, and what with; `None` for text.
    #[track_caller]
    fn check(more: &str, expected: Option<(&str, &str)>) {
        let members = format!("{TOOLS},\"messages\":[{{\"role\":\"user\",\"content\":\"Hi\"}}]{more}");
        match form(Endpoint::Chat, &members).expect("it can be answered") {
            AnswerForm::ToolCall(call) => assert_eq!(Some((&*call.name, &*call.input)), expected, "{more}"),
            AnswerForm::Text => assert_eq!(None, expected, "{more}"),
            other => panic!("{more}: {other:?}"),
        }
    }

    #[test]
    fn the_tool_is_called_that_is_chosen() {
        let a = Some(("a", r#"{"city":"Oslo"}"#));
        check("", a);
        check(r#","tool_choice":null"#, a);
        check(r#","tool_choice":"auto""#, a);
        check(r#","tool_choice":"required""#, a);
        check(r#","tool_choice":"none""#, None);
        check(r#","tool_choice":{"type":"function","function":{"name":"b"}}"#, Some(("b", "{}")));
        check(r#","tool_choice":{"type":"function","name":"b"}"#, Some(("b", "{}")));
        check(r#","tool_choice":{"type":"custom","custom":{"name":"c"}}"#, Some(("c", "river light")));
        let allowed = r#","tool_choice":{"type":"allowed_tools","allowed_tools":{"mode":"required",
            "tools":[{"type":"function","function":{"name":"b"}}]}}"#;
        check(allowed, Some(("b", "{}")));
    }

    #[test]
    fn a_result_ends_what_may_be_called_and_not_what_must_be() {
        let after_a = r#""messages":[{"role":"user","content":"Hi"},{"role":"assistant","content":null,
            "tool_calls":[{"id":"1","type":"function","function":{"name":"a","arguments":"{}"}}]},
            {"role":"tool","tool_call_id":"1","content":"21"}]"#;
        let called = |more: &str| match form(Endpoint::Chat, &format!("{TOOLS},{after_a}{more}")) {
            Ok(AnswerForm::ToolCall(call)) => Some(call.name),
            _ => None,
        };
        assert_eq!(called(""), None);
        assert_eq!(called(r#","tool_choice":"required""#).as_deref(), Some("b"));
        let named = r#","tool_choice":{"type":"function","function":{"name":"a"}}"#;
        assert_eq!(called(named).as_deref(), Some("a"));
        for said in ["Calling tools: [{'name': 'a'}]", r#"[{\"name\": \"a\"}]"#] {
            let members = format!(
                r#"{TOOLS},"messages":[{{"role":"user","content":"Hi"}},{{"role":"assistant","content":"{said}"}},
                {{"role":"user","content":"Observation: 21"}}],"tool_choice":"required""#
            );
            let called = form(Endpoint::Chat, &members).expect("it can be answered");
            assert!(matches!(&called, AnswerForm::ToolCall(call) if call.name == "b"), "{said}: {called:?}");
        }
    }

    #[test]
    fn functions_are_called_as_they_were_before_tools() {
        let functions = r#""functions":[{"name":"f","parameters":{"type":"object","properties":{}}}]"#;
        let called = |more: &str| match form(Endpoint::Chat, &format!("{functions}{more}")) {
            Ok(AnswerForm::ToolCall(call)) => Some((call.kind, call.name)),
            _ => None,
        };
        assert_eq!(called(""), Some((ToolKind::Legacy, "f".to_owned())));
        assert_eq!(called(r#","function_call":{"name":"f"}"#), Some((ToolKind::Legacy, "f".to_owned())));
        assert_eq!(called(r#","function_call":"none""#), None);
    }

    #[test]
    fn what_no_host_would_answer_is_refused() {
        let check = |endpoint, members: &str, param: &str| {
            let problem = form(endpoint, members).expect_err(members);
            assert_eq!(problem.param, param, "{members}");
        };
        check(Endpoint::Chat, r#""tool_choice":"required""#, "tool_choice");
        check(Endpoint::Chat, &format!(r#"{TOOLS},"tool_choice":"perhaps""#), "tool_choice");
        check(Endpoint::Chat, &format!(r#"{TOOLS},"tool_choice":{{"function":{{"name":"x"}}}}"#), "tool_choice");
        check(Endpoint::Chat, r#""response_format":{"type":"xml"}"#, "response_format");
        check(
            Endpoint::Chat,
            r#""response_format":{"type":"json_schema","json_schema":{"schema":5}}"#,
            "response_format",
        );
        for dimensions in ["0", "-1", "1.5", "3073", "\"8\""] {
            check(Endpoint::Embeddings, &format!("\"input\":\"a\",\"dimensions\":{dimensions}"), "dimensions");
        }
        check(Endpoint::Embeddings, r#""input":"a","encoding_format":"hex""#, "encoding_format");
        check(Endpoint::Embeddings, r#""input":[]"#, "input");
    }

    #[test]
    fn a_document_is_what_its_format_says() {
        let document = |format: &str| match form(Endpoint::Chat, &format!("\"response_format\":{format}")) {
            Ok(AnswerForm::Document(text)) => serde_json::from_str::<Value>(&text).expect("it is JSON"),
            other => panic!("{format}: {other:?}"),
        };
        assert!(document(r#"{"type":"json_object"}"#).is_object());
        let prompted = r#"{"type":"json_object"},"messages":[{"role":"system","content":[{"type":"text","text":
            "Answer by {\"properties\": {\"n\": {\"const\": 3}}}"}]},{"role":"user","content":"Hi"}]"#;
        assert_eq!(document(prompted), json!({"n": 3}));
        assert_eq!(document(r#"{"type":"json_schema","json_schema":{"name":"x"}}"#), json!({}));
        let schema = r#"{"type":"json_schema","json_schema":{"name":"x","schema":{"type":"object",
            "properties":{"n":{"const":3}},"required":["n"]}}}"#;
        assert_eq!(document(schema), json!({"n": 3}));
        assert_eq!(form(Endpoint::Chat, r#""response_format":{"type":"text"}"#), Ok(AnswerForm::Text));
    }

    #[test]
    fn every_input_has_a_vector_of_its_own_and_the_same_everywhere() {
        let vectors = |members: &str| match form(Endpoint::Embeddings, members) {
            Ok(AnswerForm::Vectors(vectors)) => vectors,
            other => panic!("{members}: {other:?}"),
        };
        let one = vectors(r#""input":"a""#);
        assert_eq!((one.dimensions, one.base64, one.seeds.len()), (16, false, 1));
        let both = vectors(r#""input":["b","a"],"dimensions":8.0,"encoding_format":"base64""#);
        assert_eq!((both.dimensions, both.base64), (8, true));
        assert_eq!(both.seeds[1], one.seeds[0]);
        assert_ne!(both.seeds[0], one.seeds[0]);
        let tokens = vectors(r#""input":[1,2,3]"#);
        assert_eq!(tokens.seeds.len(), 1);
        assert_eq!(vectors(r#""input":[[4],[1,2,3]]"#).seeds[1], tokens.seeds[0]);
    }

    #[test]
    fn prompts_are_repeated_where_that_is_asked() {
        let check = |members: &str, expected: &[&str]| {
            let expected = AnswerForm::Echo(expected.iter().map(|text| (*text).to_owned()).collect());
            assert_eq!(form(Endpoint::Completions, members), Ok(expected), "{members}");
        };
        check(r#""echo":true,"prompt":"one""#, &["one"]);
        check(r#""echo":true,"prompt":["one","two"]"#, &["one", "two"]);
        check(r#""echo":true,"prompt":[1,2]"#, &[""]);
        assert_eq!(form(Endpoint::Completions, r#""echo":false,"prompt":"one""#), Ok(AnswerForm::Text));
    }
}

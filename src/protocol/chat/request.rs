//! Reads the few members of a request body that routing, limits and the meter must know, and their places,
//! without building the body's JSON as a tree: what comes out is a [`Call`].
//!
//! It never changes the body and never judges what it does not need: a member that is not read here
//! is the provider's to accept or refuse. A member that is read and given twice, in any escaping, or in a spelling that
//! some providers take for it, is refused, at the top and inside the objects read: which one wins would be the provider's
//! choice.
//!
//! Start reading in [`read_request`].

use std::ops::Range;

use bytes::Bytes;
use memchr::memchr;

use crate::domain::body_member::ListedMembers;
use crate::domain::call::{BodyProblem, Call, CostFacts, Endpoint, Feature, FeatureSet, RequestMetadata, Splice};
use crate::protocol::given::GivenReader;
use crate::protocol::json::member::{BodyField, member_of, members};
use crate::protocol::request_basics::{BodyText, basics, ceiling, cost_facts, lists_some};
use content::{ContentReader, media_of_inputs};

/// The most choices a request may ask for, as at OpenAI: each is followed to its end on its own.
const MAX_CHOICES: u64 = 128;

/// The members that are read of a body, by endpoint.
const OF_CHAT: [&str; 12] = [
    "model",
    "messages",
    "tools",
    "user",
    "stream",
    "stream_options",
    "n",
    // Of vLLM, OpenVINO and TensorRT-LLM: OpenAI has it for completions alone.
    "best_of",
    "max_tokens",
    "max_completion_tokens",
    "functions",
    "response_format",
];
const OF_COMPLETIONS: [&str; 8] = ["model", "prompt", "user", "stream", "stream_options", "n", "best_of", "max_tokens"];
const OF_EMBEDDINGS: [&str; 3] = ["model", "input", "user"];
/// Types of tools that the client runs itself.
const OWN_TOOLS: [&str; 2] = ["function", "custom"];
/// Members of members of every body that has them.
const INCLUDE_USAGE: &str = "stream_options.include_usage";
const FORMAT_TYPE: &str = "response_format.type";

/// Understands `body` as a request to `endpoint`, and takes note of members that are `listed`.
///
/// # Errors
/// [`BodyProblem::NotJson`] for anything but one JSON object in UTF-8, nested at most 128 levels;
/// [`BodyProblem::BadField`] for a member that is read and has the wrong type, an impossible value,
/// is given twice or in a spelling that only some providers take for it, or is `model` and missing.
pub fn read_request(endpoint: Endpoint, body: Bytes, listed: &ListedMembers) -> Result<Call, BodyProblem> {
    let metadata = read_metadata(endpoint, &body, listed)?;
    Ok(Call::new(endpoint, body, metadata))
}

fn read_metadata(endpoint: Endpoint, body: &[u8], listed: &ListedMembers) -> Result<RequestMetadata, BodyProblem> {
    let place = BodyText::of(body)?;
    let mut given = GivenReader::new(place.text, listed, |tool| OWN_TOOLS.contains(&tool));
    let metadata = match endpoint {
        Endpoint::Completions => completions(place, &mut given),
        Endpoint::Embeddings => embeddings(place, &mut given),
        // Those of other dialects are read there.
        _ => chat(place, &mut given),
    }?;
    Ok(RequestMetadata { given: given.end()?, ..metadata })
}

fn chat(place: BodyText<'_>, given: &mut GivenReader<'_>) -> Result<RequestMetadata, BodyProblem> {
    const MESSAGES: usize = 1;
    const TOOLS: usize = 2;
    let mut contents = ContentReader::new(place.text);
    let found = members(place.text, OF_CHAT, |index, name, scanner| match index {
        Some(MESSAGES) => contents.messages(scanner),
        Some(TOOLS) => given.tools(scanner),
        _ => given.member(name, scanner),
    })?;
    let [model, messages, tools, user, stream, stream_options, n, best_of, rest @ ..] = found;
    let [max_tokens, max_completion_tokens, functions, format] = rest;
    let stream = stream.boolean()?;
    messages.list()?;
    let contents = contents.end()?;
    Ok(RequestMetadata {
        stream,
        ask_usage: ask_usage(place, stream, &stream_options)?,
        // A provider may know only one of the two; the hold covers whichever it applies.
        max_output: ceiling(&max_tokens)?.max(ceiling(&max_completion_tokens)?),
        choices: choices(&n)?,
        features: features(place, &tools, &functions, &format, contents.images)?,
        cost_facts: CostFacts {
            candidates: candidates(&best_of)?,
            media: contents.media,
            ..cost_facts(place, [Some(&max_tokens), Some(&max_completion_tokens)], contents.elsewhere)?
        },
        ..basics(&model, Some(&user))?
    })
}

fn completions(place: BodyText<'_>, given: &mut GivenReader<'_>) -> Result<RequestMetadata, BodyProblem> {
    const PROMPT: usize = 1;
    let mut contents = ContentReader::new(place.text);
    let found = members(place.text, OF_COMPLETIONS, |index, name, scanner| match index {
        Some(PROMPT) => contents.prompts(scanner),
        _ => given.member(name, scanner),
    })?;
    let [model, prompt, user, stream, stream_options, n, best_of, max_tokens] = found;
    let contents = contents.end()?;
    let stream = stream.boolean()?;
    Ok(RequestMetadata {
        stream,
        ask_usage: ask_usage(place, stream, &stream_options)?,
        max_output: ceiling(&max_tokens)?,
        choices: choices(&n)?,
        inputs: inputs(&prompt)?,
        cost_facts: CostFacts {
            candidates: candidates(&best_of)?,
            ..cost_facts(place, [Some(&max_tokens), None], contents.elsewhere)?
        },
        ..basics(&model, Some(&user))?
    })
}

fn embeddings(place: BodyText<'_>, given: &mut GivenReader<'_>) -> Result<RequestMetadata, BodyProblem> {
    let [model, input, user] = members(place.text, OF_EMBEDDINGS, |_, name, scanner| given.member(name, scanner))?;
    // Inputs that are objects may be images by reference.
    let media = input.given().map(|value| media_of_inputs(value.text)).unwrap_or_default();
    let has_object = |text: &str| memchr(b'{', text.as_bytes()).is_some();
    let input_elsewhere = media.images > 0 || input.value.is_some_and(|value| has_object(value.text));
    let cost_facts = CostFacts { input_elsewhere, media, ..CostFacts::default() };
    Ok(RequestMetadata { inputs: inputs(&input)?, cost_facts, ..basics(&model, Some(&user))? })
}

/// How to make the provider report usage at the end of a stream, unless the client asked already.
fn ask_usage(place: BodyText<'_>, stream: bool, options: &BodyField<'_>) -> Result<Option<Splice>, BodyProblem> {
    let splice = |at: Range<usize>, with: &'static str| Splice { at, with: Bytes::from_static(with.as_bytes()) };
    let insert = |at: usize, with| splice(at..at, with);
    let splice = match (options.value, options.object()?) {
        // The object around it holds `model`, so the comma is right.
        (None, _) => insert(place.opening_brace + 1, r#""stream_options":{"include_usage":true},"#),
        (Some(null), None) => splice(null.span(), r#"{"include_usage":true}"#),
        (Some(_), Some(object)) => {
            let include_usage = member_of(place.text, object, INCLUDE_USAGE)?;
            let asked = include_usage.boolean()?;
            let inside = object.span().start + 1;
            match include_usage.value {
                _ if asked => return Ok(None),
                Some(other) => splice(other.span(), "true"),
                None if object.is_empty() => insert(inside, r#""include_usage":true"#),
                None => insert(inside, r#""include_usage":true,"#),
            }
        }
    };
    Ok(stream.then_some(splice))
}

fn choices(n: &BodyField<'_>) -> Result<u32, BodyProblem> {
    match n.whole_number()? {
        None => Ok(1),
        Some(n @ 1..=MAX_CHOICES) => Ok(n as u32),
        Some(_) => Err(n.bad(&format!("must be from 1 to {MAX_CHOICES}"))),
    }
}

/// How many choices are written to give the client the best of them.
fn candidates(best_of: &BodyField<'_>) -> Result<u32, BodyProblem> {
    Ok(best_of.whole_number()?.map_or(0, |n| u32::try_from(n).unwrap_or(u32::MAX)))
}

/// How many prompts or inputs: a text is one, a list of token numbers is one, any other list has
/// one per element.
fn inputs(member: &BodyField<'_>) -> Result<u32, BodyProblem> {
    let Some(value) = member.given() else { return Ok(1) };
    let of_tokens = || value.inside().starts_with(|c: char| c == '-' || c.is_ascii_digit());
    match value.text.as_bytes()[0] {
        b'"' => Ok(1),
        b'[' if of_tokens() => Ok(1),
        b'[' => Ok(member.list_len()?.map_or(1, |len| u32::try_from(len).unwrap_or(u32::MAX).max(1))),
        _ => Err(member.bad("must be a string or a list")),
    }
}

fn features(
    place: BodyText<'_>,
    tools: &BodyField<'_>,
    functions: &BodyField<'_>,
    format: &BodyField<'_>,
    images: bool,
) -> Result<FeatureSet, BodyProblem> {
    let needed = [
        (Feature::Tools, lists_some(tools)? | lists_some(functions)?),
        (Feature::JsonSchema, asks_for_json_schema(place, format)?),
        (Feature::Vision, images),
    ];
    Ok(FeatureSet::of(needed.into_iter().filter_map(|(feature, needed)| needed.then_some(feature))))
}

fn asks_for_json_schema(place: BodyText<'_>, format: &BodyField<'_>) -> Result<bool, BodyProblem> {
    let Some(object) = format.object()? else { return Ok(false) };
    let kind = member_of(place.text, object, FORMAT_TYPE)?;
    Ok(kind.string()?.as_deref() == Some("json_schema"))
}

#[cfg(test)]
mod agreement;
pub(in crate::protocol) mod content;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn metadata(endpoint: Endpoint, body: &str) -> Result<RequestMetadata, BodyProblem> {
        read_request(endpoint, Bytes::copy_from_slice(body.as_bytes()), &ListedMembers::default())
            .map(|call| call.metadata().clone())
    }

    /// What a body says beyond the model, as one line.
    fn check(endpoint: Endpoint, members: &str, expected: &str) {
        let found = metadata(endpoint, &format!("{{\"model\":\"m\",{members}}}"));
        let metadata = found.unwrap_or_else(|problem| panic!("{members}: {problem:?}"));
        let mut found_members = Vec::new();
        found_members.extend(metadata.stream.then(|| "stream".to_owned()));
        found_members.extend(metadata.ask_usage.is_some().then(|| "ask".to_owned()));
        found_members.extend(metadata.max_output.map(|tokens| format!("max={tokens}")));
        found_members.extend((metadata.choices != 1).then(|| format!("choices={}", metadata.choices)));
        let candidates = metadata.cost_facts.candidates;
        found_members.extend((candidates != 0).then(|| format!("candidates={candidates}")));
        found_members.extend((metadata.inputs != 1).then(|| format!("inputs={}", metadata.inputs)));
        found_members.extend(metadata.user.map(|user| format!("user={user}")));
        found_members
            .extend(Feature::ALL.iter().filter(|f| metadata.features.contains(**f)).map(|f| f.name().to_owned()));
        assert_eq!(found_members.join(" "), expected, "{members}");
    }

    #[test]
    fn chat_bodies_are_understood() {
        let check = |members, expected| check(Endpoint::Chat, members, expected);
        check(r#""stream":false"#, "");
        check(r#""stream":null,"n":null,"user":null,"tools":null,"messages":null"#, "");
        check(r#""stream":true"#, "stream ask");
        check(r#""stream":true,"stream_options":{"include_usage":true}"#, "stream");
        check(r#""stream":true,"stream_options":{"include_usage":false}"#, "stream ask");
        check(r#""stream_options":{"include_usage":false}"#, "");
        check(r#""max_tokens":5"#, "max=5");
        check(r#""max_completion_tokens":7"#, "max=7");
        check(r#""max_tokens":5,"max_completion_tokens":7"#, "max=7");
        check(r#""max_tokens":9,"max_completion_tokens":7"#, "max=9");
        check(r#""max_tokens":0"#, "");
        check(r#""max_tokens":0,"max_completion_tokens":7"#, "max=7");
        check(r#""max_tokens":100.0,"max_completion_tokens":2e2,"n":2.0,"stream":null"#, "max=200 choices=2");
        check(r#""n":2,"user":"\u00e9""#, "choices=2 user=\u{e9}");
        check(r#""n":128,"user":"""#, "choices=128");
        check(r#""best_of":20,"n":2"#, "choices=2 candidates=20");
        check(r#""best_of":null"#, "");
        check(r#""prompt":7,"input":7"#, "");
        check(r#""seed":1e999,"stop":{"a":[-0.0,1E5]}"#, "");
    }

    #[test]
    fn features_are_seen() {
        let check = |members, expected| check(Endpoint::Chat, members, expected);
        check(r#""tools":[{"type":"function"}]"#, "tools");
        check(r#""functions":[{}]"#, "tools");
        check(r#""tools":[],"functions":[ ]"#, "");
        check(r#""response_format":{"type":"json_schema","json_schema":{}}"#, "json_schema");
        check(r#""response_format":{"type":"json_object"}"#, "");
        check(r#""response_format":{"schema":"json_schema"}"#, "");
        check(r#""messages":[{"content":[{"type":"text"},{"type":"image_url","image_url":{}}]}]"#, "vision");
        check(r#""messages":[{"content":"a"},{"role":"user","content":[{"type":"input_image"}]}]"#, "vision");
        check(r#""messages":[{"content":null},{},{"content":[{"type":"image_url"}]}]"#, "vision");
        check(r#""messages":[{"content":"what is an image_url?"}]"#, "");
        check(r#""messages":[{"content":"[{\"type\":\"image_url\"}]"}]"#, "");
        check(r#""messages":[{"content":[{"type":"text","text":"image_url"}]}]"#, "");
        check(r#""messages":[{"tool_calls":[{"type":"image_url"}]}]"#, "");
        check(r#""messages":["image_url"]"#, "");
        check(r#""image_url":[{"type":"image_url"}]"#, "");
    }

    #[test]
    fn other_bodies_are_understood() {
        let prompts = |members, expected| check(Endpoint::Completions, members, expected);
        prompts(r#""prompt":"a","stream":true,"max_tokens":3,"n":2"#, "stream ask max=3 choices=2");
        prompts(r#""prompt":["a","b","c"]"#, "inputs=3");
        prompts(r#""prompt":[ 1, 2]"#, "");
        prompts(r#""prompt":[[1,2],[3]]"#, "inputs=2");
        prompts(r#""prompt":"a","best_of":7"#, "candidates=7");
        prompts(r#""prompt":[],"tools":1,"max_completion_tokens":"x""#, "");
        let inputs = |members, expected| check(Endpoint::Embeddings, members, expected);
        inputs(r#""input":"a""#, "");
        inputs(r#""input":["a","b"],"user":"u""#, "inputs=2 user=u");
        inputs(r#""input":[-1]"#, "");
        inputs(r#""input":[{"text":"a"},{"image":"b"}],"stream":1"#, "inputs=2");
    }

    #[test]
    fn the_model_is_found_unescaped_and_in_its_place() {
        let body = r#" {"a":"model", "model" : "gpt\u002d4\/é" }"#;
        let metadata = metadata(Endpoint::Chat, body).expect("a good body");
        assert_eq!(&*metadata.model, "gpt-4/é");
        assert_eq!(&body[metadata.model_span], r#""gpt\u002d4\/é""#);
    }

    fn refuse(endpoint: Endpoint, body: &str, param: &str, message: &str) {
        match metadata(endpoint, body) {
            Err(BodyProblem::BadField { param: found, message: text }) => assert_eq!((found, &*text), (param, message)),
            other => panic!("{body}: {other:?}"),
        }
    }

    #[test]
    fn bad_members_are_refused() {
        let chat = |members: &str, param: &str, what: &str| {
            let body = format!("{{\"model\":\"m\",{members}}}");
            refuse(Endpoint::Chat, &body, param, &format!("'{param}' {what}."));
        };
        chat(r#""stream":"true""#, "stream", "must be true or false");
        chat(r#""stream":1"#, "stream", "must be true or false");
        chat(r#""stream_options":[true]"#, "stream_options", "must be an object");
        let include_usage = "stream_options.include_usage";
        chat(r#""stream_options":{"include_usage":1}"#, include_usage, "must be true or false");
        chat(r#""stream_options":{"include_usage":true,"include_usage":false}"#, include_usage, "is given twice");
        for bad in ["-1", "1.5", "1e-2", "\"5\"", "[]", "100000000000000000000", "1e999"] {
            for param in ["max_tokens", "max_completion_tokens", "n", "best_of"] {
                chat(&format!("\"{param}\":{bad}"), param, "must be a whole number, zero or more");
            }
        }
        chat(r#""n":0"#, "n", "must be from 1 to 128");
        chat(r#""n":129"#, "n", "must be from 1 to 128");
        chat(r#""user":7"#, "user", "must be a string");
        chat(r#""tools":{}"#, "tools", "must be a list");
        chat(r#""functions":"f""#, "functions", "must be a list");
        chat(r#""response_format":"json""#, "response_format", "must be an object");
        chat(r#""response_format":{"type":1}"#, "response_format.type", "must be a string");
        chat(r#""messages":"hello""#, "messages", "must be a list");
        refuse(Endpoint::Completions, r#"{"model":"m","prompt":1}"#, "prompt", "'prompt' must be a string or a list.");
        refuse(Endpoint::Embeddings, r#"{"model":"m","input":{}}"#, "input", "'input' must be a string or a list.");
    }

    #[test]
    fn a_bad_model_is_refused() {
        let chat = |body: &str, what: &str| refuse(Endpoint::Chat, body, "model", &format!("'model' {what}."));
        chat("{}", "is required");
        chat(r#"{"model":null}"#, "is required");
        chat(r#"{"model":7}"#, "must be a string");
        chat(r#"{"model":["m"]}"#, "must be a string");
        chat(r#"{"model":""}"#, "must be 1 to 256 bytes long");
        chat(&format!("{{\"model\":\"{}\"}}", "m".repeat(257)), "must be 1 to 256 bytes long");
    }

    #[test]
    fn members_that_are_read_are_refused_twice() {
        for member in ["model", "stream", "stream_options", "n", "max_tokens", "tools", "messages", "user"] {
            for again in [member.to_owned(), format!("\\u{:04x}{}", member.as_bytes()[0], &member[1..])] {
                let body = format!("{{\"model\":\"m\",\"{member}\":null,\"x\":1,\"{again}\":null}}");
                refuse(Endpoint::Chat, &body, member, &format!("'{member}' is given twice."));
            }
        }
        refuse(Endpoint::Chat, r#"{"model":"a","mod\u0065l":"b"}"#, "model", "'model' is given twice.");
        check(Endpoint::Chat, r#""metadata":1,"metadata":2,"x":{"model":1,"model":2}"#, "");
    }

    /// A body in which the member at `path` is called `name` and nothing else is wrong.
    fn with_name(path: &str, name: &str) -> String {
        let (outer, around) = match path.rsplit_once('.') {
            None => return format!("{{\"model\":\"m\",{name}:null}}"),
            Some((outer, _)) => (outer, format!("{{{name}:null}}")),
        };
        let object = match outer {
            "messages[]" => format!("\"messages\":[{around}]"),
            "messages[].content[]" => format!("\"messages\":[{{\"content\":[{around}]}}]"),
            "tools[]" => format!("\"tools\":[{around}]"),
            object => format!("\"{object}\":{around}"),
        };
        format!("{{\"model\":\"m\",{object}}}")
    }

    /// Every name that is read, in every spelling that some reader takes for it: the whole table.
    #[test]
    fn names_that_fold_to_one_that_is_read_are_refused_wherever_it_is_read() {
        let nested = [
            content::MESSAGE.paths(),
            content::PART.paths(),
            crate::protocol::given::TOOL.paths(),
            &[INCLUDE_USAGE, FORMAT_TYPE],
        ];
        let of_chat: Vec<&'static str> = OF_CHAT.iter().chain(nested.into_iter().flatten()).copied().collect();
        let of_completions: Vec<&'static str> = OF_COMPLETIONS.iter().copied().chain([INCLUDE_USAGE]).collect();
        let mut tried = 0;
        for (endpoint, paths) in [
            (Endpoint::Chat, of_chat),
            (Endpoint::Completions, of_completions),
            (Endpoint::Embeddings, OF_EMBEDDINGS.to_vec()),
        ] {
            for path in paths {
                let name = path.rsplit_once('.').map_or(path, |(_, name)| name);
                let capital = |at: usize| format!("{}{}{}", &name[..at], name[at..=at].to_uppercase(), &name[at + 1..]);
                let mut spellings = vec![name.to_uppercase(), capital(0), capital(name.len() - 1)];
                for (letter, folds) in [("s", "\u{17f}"), ("k", "\u{212a}"), ("ss", "ß"), ("st", "ﬆ"), ("i", "ı")] {
                    spellings.extend(name.contains(letter).then(|| name.replacen(letter, folds, 1)));
                }
                for spelling in spellings {
                    let escaped: String = spelling.chars().map(|c| format!("\\u{:04x}", u32::from(c))).collect();
                    for quoted in
                        [format!("\"{spelling}\""), format!("\"{escaped}\""), format!("\"{spelling}\\u0000\"")]
                    {
                        let body = with_name(path, &quoted);
                        let found = metadata(endpoint, &body);
                        let is_it = matches!(&found, Err(BodyProblem::BadField { param, .. }) if *param == path);
                        assert!(is_it, "{body}: {found:?}");
                        tried += 1;
                    }
                }
                // The name itself, and one that is like it, pass, but for `model` given twice.
                let like = [format!("\"{name}\""), format!("\"{name}_\""), format!("\"x{name}\"")];
                for name in like.iter().skip(usize::from(path == "model")) {
                    assert!(metadata(endpoint, &with_name(path, name)).is_ok(), "{name}");
                }
            }
        }
        assert!(tried > 300, "{tried}");
    }

    fn refuse_text(body: &[u8], expected: &str) {
        match read_request(Endpoint::Chat, Bytes::copy_from_slice(body), &ListedMembers::default()) {
            Err(BodyProblem::NotJson(text)) => assert!(text.contains(expected), "{}: {text}", body.escape_ascii()),
            other => panic!("{}: {other:?}", body.escape_ascii()),
        }
    }

    #[test]
    fn bodies_that_are_no_json_object_are_refused() {
        for body in ["", " ", "[]", "null", "1", "\"model\"", "model", "\u{feff}{\"model\":\"m\"}", "\u{a0}{}"] {
            refuse_text(body.as_bytes(), "not a JSON object");
        }
        let no_json = [
            "{",
            "{\"model\"",
            "{\"model\":\"m\"",
            "{\"model\":\"m\",}",
            "{\"model\":'m'}",
            "{model:\"m\"}",
            "{\"model\":\"m\"}}",
            "{\"model\":\"m\"}{}",
            "{\"model\":\"m\"} x",
            "{\"model\":\"m\",\"a\":NaN}",
            "{\"model\":\"m\",\"a\":01}",
            "{\"model\":\"m\",\"a\":\"\n\"}",
            "{\"model\":\"m\",\"a\":\"\\x\"}",
            "{\"model\":\"m\",\"a\":[1,]}",
            "{\"model\":\"m\" /*c*/}",
            "{\"model\":\"m\",\"a\":\"\\u12\"}",
            "{1:2}",
        ];
        for body in no_json {
            refuse_text(body.as_bytes(), "not JSON");
        }
        refuse_text(b"{\"model\":\"\xff\"}", "not UTF-8 at byte 10");
        refuse_text(b"{\"model\":\"m\",\"a\":\"\xed\xa0\xbd\"}", "not UTF-8 at byte 18");
        refuse_text(br#"{"model":"\ud800"}"#, "half a surrogate pair");
        refuse_text(br#"{"model":"m","a":["\udc00"]}"#, "half a surrogate pair");
    }

    #[test]
    fn deep_bodies_are_refused_wherever_they_are_deep() {
        let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        for member in ["x", "messages", "tools", "prompt"] {
            check(
                Endpoint::Chat,
                &format!("\"{member}\":{}", nested(127)),
                if member == "tools" { "tools" } else { "" },
            );
            refuse_text(format!("{{\"model\":\"m\",\"{member}\":{}}}", nested(128)).as_bytes(), "128 levels");
        }
        refuse_text(format!("{{\"x\":{}", "[".repeat(10_000_000)).as_bytes(), "128 levels");
    }

    /// The body as a provider gets it, its model renamed.
    fn edited(body: &str, metadata: &RequestMetadata, model: &str) -> String {
        let rename = Splice { at: metadata.model_span.clone(), with: model.to_owned().into() };
        let mut splices: Vec<Splice> = metadata.ask_usage.iter().cloned().chain([rename]).collect();
        splices.sort_by_key(|splice| splice.at.start);
        let mut text = String::new();
        let mut copied = 0;
        for splice in splices {
            text += &body[copied..splice.at.start];
            text += std::str::from_utf8(&splice.with).expect("we write UTF-8");
            copied = splice.at.end;
        }
        text + &body[copied..]
    }

    #[test]
    fn usage_is_asked_for_in_place() {
        let check = |rest: &str, expected: &str| {
            let body = format!("{{ \"stream\":true, \"model\":\"a\"{rest} }}");
            let metadata = metadata(Endpoint::Chat, &body).expect("a good body");
            assert_eq!(edited(&body, &metadata, "\"b\""), expected, "{body}");
        };
        let start = r#"{ "stream":true, "model":"b""#;
        check("", r#"{"stream_options":{"include_usage":true}, "stream":true, "model":"b" }"#);
        for (given, expected) in [
            ("null", r#"{"include_usage":true}"#),
            ("{}", r#"{"include_usage":true}"#),
            ("{ \n}", "{\"include_usage\":true \n}"),
            (r#"{ "x": 1}"#, r#"{"include_usage":true, "x": 1}"#),
            (r#"{"include_usage" : false , "x":1}"#, r#"{"include_usage" : true , "x":1}"#),
            (r#"{"include_usage":null}"#, r#"{"include_usage":true}"#),
            (r#"{"include_usage": true}"#, r#"{"include_usage": true}"#),
        ] {
            check(&format!(", \"stream_options\" : {given}"), &format!("{start}, \"stream_options\" : {expected} }}"));
        }
    }

    fn space() -> impl Strategy<Value = String> {
        prop_oneof![4 => Just(String::new()), 1 => "[ \t\r\n]{1,3}"]
    }

    /// JSON text of any shape, with what a re-serialiser would spoil.
    fn value() -> impl Strategy<Value = String> {
        let scalar = prop_oneof![
            prop::sample::select(vec![
                "null",
                "true",
                "false",
                "-0",
                "1.0",
                "1e+2",
                "123456789012345678901234567890",
                "0.1000000000000000055",
                r#""""#,
                r#""\u00e9\/\"\\""#,
                r#""\ud83d\ude00""#,
                r#""model""#,
                r#""},{\"stream\":false""#,
                "\"é\u{1f600}\"",
            ])
            .prop_map(str::to_owned),
            any::<f64>().prop_filter("JSON has no other numbers", |x| x.is_finite()).prop_map(|x| format!("{x:e}")),
            any::<String>().prop_map(|text| json!(text).to_string()),
        ];
        scalar.prop_recursive(3, 12, 4, |inner| {
            let element = (space(), inner, space()).prop_map(|(before, value, after)| before + &value + &after).boxed();
            let elements = prop::collection::vec(element.clone(), 0..4);
            let members = prop::collection::vec(("[a-z]{0,6}|model|include_usage", space(), element), 0..4);
            let member = |(name, space, value): (String, String, String)| format!("{space}\"{name}\"{space}:{value}");
            prop_oneof![
                elements.prop_map(|elements| format!("[{}]", elements.join(","))),
                members.prop_map(move |members| {
                    format!("{{{}}}", members.into_iter().map(member).collect::<Vec<_>>().join(","))
                }),
            ]
        })
    }

    /// A chat body and the text of its model: known and unknown members in any order.
    pub(super) fn body() -> impl Strategy<Value = (String, String)> {
        let model = prop::sample::select(vec![r#""m""#, r#""a\/b""#, r#""\u006d\ud83d\ude00é""#]);
        let stream = prop::sample::select(vec!["true", "false", "null"]);
        let options = prop::option::of(prop::sample::select(vec![
            "null",
            "{}",
            "{ }",
            r#"{"include_usage":false}"#,
            r#"{ "x":{} , "include\u005fusage" :true}"#,
            r#"{"x":[1]}"#,
        ]));
        let others = prop::collection::vec(("x[a-z]{0,5}", value()), 0..6);
        let members = (model, stream, options, others).prop_flat_map(|(model, stream, options, others)| {
            let mut members =
                vec![("mod\\u0065l".to_owned(), model.to_owned()), ("stream".to_owned(), stream.to_owned())];
            members.extend(options.map(|options| ("stream_options".to_owned(), options.to_owned())));
            members.extend(others);
            (Just(members).prop_shuffle(), Just(model.to_owned()))
        });
        (members, prop::collection::vec(space(), 5)).prop_map(|((members, model), spaces)| {
            let [before, name, colon, value, after] = &spaces[..] else { unreachable!("five were asked for") };
            let members = members.iter().map(|(n, v)| format!("{name}\"{n}\"{colon}:{value}{v}{after}"));
            (format!("{before}{{{}}}{after}", members.collect::<Vec<_>>().join(",")), model)
        })
    }

    proptest! {
        #[test]
        fn the_spans_point_at_the_values((body, model) in body()) {
            let metadata = metadata(Endpoint::Chat, &body).expect("a good body");
            prop_assert_eq!(&body[metadata.model_span.clone()], &model);
            prop_assert_eq!(json!(metadata.model), serde_json::from_str::<Value>(&model).expect("JSON"));
        }

        #[test]
        fn the_edits_change_nothing_else((body, _) in body()) {
            let metadata = metadata(Endpoint::Chat, &body).expect("a good body");
            let edited = edited(&body, &metadata, "\"elsewhere\"");
            let mut wanted: Value = serde_json::from_str(&body).expect("JSON");
            wanted["model"] = json!("elsewhere");
            if metadata.stream {
                wanted["stream_options"]["include_usage"] = json!(true);
            }
            prop_assert_eq!(serde_json::from_str::<Value>(&edited).expect("still JSON"), wanted);
            let again = super::tests::metadata(Endpoint::Chat, &edited).expect("still a good body");
            prop_assert_eq!(again.ask_usage, None);
        }

        #[test]
        fn no_body_makes_it_panic(body in prop::collection::vec(any::<u8>(), 0..80), garbage in "[{}\\[\\]\":,a-e\\\\0-9 ]{0,60}") {
            for endpoint in Endpoint::ALL {
                let _ = read_request(endpoint, body.clone().into(), &ListedMembers::default());
                let _ = read_request(endpoint, format!("{{\"model\":\"m\",\"n\":{garbage}}}").into(), &ListedMembers::default());
            }
        }
    }
}

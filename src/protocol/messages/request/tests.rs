//! Tests of the reading of requests.

use super::super::content::{BLOCK, BLOCK_SOURCE, MESSAGE};
use super::*;
use crate::domain::estimate::MediaSize;
use crate::protocol::given::TOOL;

fn metadata(endpoint: Endpoint, body: &str) -> Result<RequestMetadata, BodyProblem> {
    let call = read_request(endpoint, Bytes::copy_from_slice(body.as_bytes()), &ListedMembers::default());
    call.map(|call| call.metadata().clone())
}

fn read(members: &str) -> RequestMetadata {
    let body = format!("{{\"model\":\"m\",\"max_tokens\":9,{members}}}");
    metadata(Endpoint::Messages, &body).unwrap_or_else(|problem| panic!("{members}: {problem:?}"))
}

#[test]
fn the_members_that_are_read() {
    let all = read(r#""stream":true,"metadata":{"user_id":"u"},"tools":[{"name":"f","input_schema":{}}]"#);
    assert_eq!((&*all.model, all.stream, all.max_output, all.user.as_deref()), ("m", true, Some(9), Some("u")));
    assert_eq!(all.features, FeatureSet::of([Feature::Tools]));
    assert!(all.ask_usage.is_none() && !all.cost_facts.input_elsewhere);
    let format = r#""output_config":{"effort":"high","format":{"type":"json_schema","schema":{}}}"#;
    assert_eq!(read(format).features, FeatureSet::of([Feature::JsonSchema]));
    for none in [r#""output_config":{"format":null}"#, r#""output_config":null"#, r#""tools":[]"#, r#""metadata":{}"#] {
        assert_eq!(read(none).features, FeatureSet::default(), "{none}");
    }
    // A zero fills the cache, and is no ceiling to hold money by.
    let zero = metadata(Endpoint::Messages, r#"{"model":"m","max_tokens":0,"messages":[]}"#);
    assert_eq!(zero.map(|metadata| metadata.max_output), Ok(None));
}

#[test]
fn a_message_must_have_a_ceiling_and_a_count_needs_none() {
    let body = r#"{"model":"m","messages":[],"stream":true}"#;
    let problem = metadata(Endpoint::Messages, body).expect_err("it has none");
    assert!(matches!(&problem, BodyProblem::BadField { param: "max_tokens", message } if message.contains("required")));
    let counted = metadata(Endpoint::CountTokens, body);
    assert!(counted.is_ok_and(|metadata| !metadata.stream));
}

#[test]
fn what_is_not_in_the_body_is_known_to_be_elsewhere() {
    let content = |block: &str| format!(r#""messages":[{{"role":"user","content":[{block}]}}]"#);
    let check = |members: &str, elsewhere: bool, media: MediaSize| {
        let facts = read(members).cost_facts;
        assert_eq!((facts.input_elsewhere, facts.media), (elsewhere, media), "{members}");
    };
    let none = MediaSize::default();
    for text in [
        r#"{"type":"text","text":"Hi"}"#,
        r#""Hi""#,
        r#"{"type":"thinking","thinking":"a","signature":"b"}"#,
        r#"{"type":"redacted_thinking","data":"b"}"#,
        r#"{"type":"tool_use","id":"t","name":"f","input":{"type":"image"}}"#,
        r#"{"type":"tool_result","tool_use_id":"t","content":"12"}"#,
        r#"{"type":"tool_result","tool_use_id":"t","content":[{"type":"text","text":"12"}]}"#,
        r#"{"type":"web_search_tool_result","tool_use_id":"t","content":[{"type":"web_search_result","encrypted_content":"x"}]}"#,
        r#"{"type":"document","source":{"type":"text","media_type":"text/plain","data":"x"}}"#,
        r#"{"type":"document","source":{"type":"content","content":[{"type":"text","text":"x"}]}}"#,
    ] {
        check(&content(text), false, none);
    }
    let image = r#"{"type":"base64","media_type":"image/png","data":"aGk="}"#;
    let one = MediaSize { images: 1, image_bytes: image.len() as u64, ..none };
    let block = format!(r#"{{"source":{image},"type":"image"}}"#);
    check(&content(&block), false, one);
    // Inside of what a tool returned, and of a document.
    check(&content(&format!(r#"{{"type":"tool_result","content":[{block}]}}"#)), false, one);
    check(&content(&format!(r#"{{"type":"document","source":{{"type":"content","content":[{block}]}}}}"#)), false, one);
    check(&format!(r#""system":[{block}]"#), false, one);
    assert_eq!(read(&content(&block)).features, FeatureSet::of([Feature::Vision]));
    let file = r#"{"type":"base64","media_type":"application/pdf","data":"aGk="}"#;
    let pages = MediaSize { file_bytes: file.len() as u64, ..none };
    check(&content(&format!(r#"{{"type":"document","source":{file}}}"#)), true, pages);
    for elsewhere in [
        r#"{"type":"document","source":{"type":"url","url":"https://a.example/x.pdf"}}"#,
        r#"{"type":"document","source":{"type":"file","file_id":"file_1"}}"#,
        r#"{"type":"container_upload","file_id":"file_1"}"#,
        r#"{"type":"what_is_new"}"#,
        "{}",
        "7",
    ] {
        check(&content(elsewhere), true, none);
    }
    for members in [
        r#""tools":[{"type":"web_search_20250305","name":"web_search"}]"#,
        r#""mcp_servers":[{"url":"https://a.example"}]"#,
        r#""container":"c_1""#,
        r#""thread":{"id":"t"}"#,
    ] {
        check(members, true, none);
    }
    for members in [
        r#""tools":[{"type":"bash_20250124","name":"bash"},{"type":"custom","name":"f"},{"name":"g"}]"#,
        r#""mcp_servers":[],"container":null"#,
        r#""system":"Be brief.","messages":[{"role":"user","content":"Hi"}]"#,
    ] {
        check(members, false, none);
    }
}

#[test]
fn only_a_summary_among_edits_of_the_context_is_noted() {
    let listed = ListedMembers::of(["context_management".into()]);
    let given = |edits: &str| {
        let body = format!("{{\"model\":\"m\",\"max_tokens\":1,\"context_management\":{edits}}}");
        let call = read_request(Endpoint::Messages, body.into(), &listed).expect("a good body");
        !call.metadata().given.is_empty()
    };
    assert!(!given(r#"{"edits":[{"type":"clear_thinking_20251015"},{"type":"clear_tool_uses_20250919"}]}"#));
    assert!(given(r#"{"edits":[{"type":"compact_20260112"}]}"#));
    assert!(given(r#"{"edits":[{"type":"c\u006fmpact_20260112"}]}"#));
}

/// A body whose member at `path` has this quoted name, beside what else it needs.
fn with_name(path: &str, quoted: &str) -> String {
    let inside = |outer: &str| match outer {
        "" => format!("{quoted}:null"),
        "messages[]" => format!("\"messages\":[{{{quoted}:null}}]"),
        "messages[].content[]" => format!("\"messages\":[{{\"content\":[{{{quoted}:null}}]}}]"),
        "messages[].content[].source" => {
            format!("\"messages\":[{{\"content\":[{{\"source\":{{{quoted}:null}}}}]}}]")
        }
        "tools[]" => format!("\"tools\":[{{{quoted}:null}}]"),
        "output_config.format" => format!("\"output_config\":{{\"format\":{{{quoted}:null}}}}"),
        object => format!("\"{object}\":{{{quoted}:null}}"),
    };
    let outer = path.rsplit_once('.').map_or("", |(outer, _)| outer);
    let ceiling = if path == "max_tokens" { "" } else { "\"max_tokens\":1," };
    format!("{{\"model\":\"m\",{ceiling}{}}}", inside(outer))
}

/// Every name that is read, in every spelling that some reader takes for it: the whole table.
#[test]
fn names_that_fold_to_one_that_is_read_are_refused_wherever_it_is_read() {
    let nested = [MESSAGE.paths(), BLOCK.paths(), BLOCK_SOURCE.paths(), TOOL.paths(), &[USER_ID, FORMAT, FORMAT_TYPE]];
    let mut tried = 0;
    for path in OF_MESSAGES.iter().chain(nested.into_iter().flatten()).copied() {
        let name = path.rsplit_once('.').map_or(path, |(_, name)| name);
        let mut spellings = vec![name.to_uppercase(), format!("{}{}", name[..1].to_uppercase(), &name[1..])];
        for (letter, folds) in [("s", "\u{17f}"), ("k", "\u{212a}"), ("i", "ı")] {
            spellings.extend(name.contains(letter).then(|| name.replacen(letter, folds, 1)));
        }
        for spelling in spellings {
            let escaped: String = spelling.chars().map(|c| format!("\\u{:04x}", u32::from(c))).collect();
            for quoted in [format!("\"{spelling}\""), format!("\"{escaped}\"")] {
                let body = with_name(path, &quoted);
                for endpoint in [Endpoint::Messages, Endpoint::CountTokens] {
                    let found = metadata(endpoint, &body);
                    let is_it = matches!(&found, Err(BodyProblem::BadField { param, .. }) if *param == path);
                    assert!(is_it, "{body}: {found:?}");
                    tried += 1;
                }
            }
        }
    }
    assert!(tried > 150, "{tried}");
}

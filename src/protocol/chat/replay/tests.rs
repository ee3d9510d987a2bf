//! What is left out of a replay, and what ends it.

use super::*;
use crate::domain::body_member::ListedMembers;
use crate::protocol::chat::request::read_request;
use proptest::prelude::*;
use serde_json::{Value, json};

fn of_body(members: &str) -> Option<ChatReplay> {
    let body = format!("{{\"model\":\"m\",\"stream\":true{members}}}");
    let call = read_request(Endpoint::Chat, body.into(), &ListedMembers::default()).expect("a chat request");
    ChatReplay::of(&call)
}

fn open() -> ChatReplay {
    of_body("").expect("it asks for text alone")
}

fn event(payload: &str) -> Event<'_> {
    Event { name: None, payload: payload.as_bytes(), terminated: true }
}

/// A frame of the answer `id` with this delta.
fn delta(id: &str, delta: &str) -> String {
    format!(r#"{{"id":"{id}","object":"chunk","choices":[{{"index":0,"delta":{delta},"finish_reason":null}}]}}"#)
}

fn said(id: &str, text: &str) -> String {
    delta(id, &format!("{{\"content\":{}}}", Value::from(text)))
}

fn finish(id: &str) -> String {
    format!(r#"{{"id":"{id}","choices":[{{"index":0,"delta":{{}},"finish_reason":"stop"}}]}}"#)
}

/// What goes out of a replay of `frames` after `sent` was sent: each frame that is passed on, without its framing.
fn replayed(sent: &[String], frames: &[String]) -> Result<Vec<String>, DivergenceError> {
    let mut replay = open();
    for frame in sent {
        assert_eq!(replay.read(event(frame)), Ok(ReplayEdit::Keep), "{frame}");
    }
    assert!(replay.may_begin());
    replay.begin();
    let mut out = Vec::new();
    for frame in frames {
        match replay.read(event(frame))? {
            ReplayEdit::Keep => out.push(frame.clone()),
            ReplayEdit::Drop => {}
            ReplayEdit::Write(bytes) => {
                let written = String::from_utf8(bytes).expect("text");
                let payload = written.strip_prefix("data: ").and_then(|rest| rest.strip_suffix("\n\n"));
                out.push(payload.expect("one frame of one line").to_owned());
            }
        }
    }
    Ok(out)
}

#[test]
fn requests_for_more_than_the_text_of_one_choice_are_not_replayed() {
    let check = |members: &str, expected: bool| assert_eq!(of_body(members).is_some(), expected, "{members}");
    for text in [
        "",
        r#","n":1,"temperature":0,"seed":7,"tools":[{"type":"function"}]"#,
        r#","response_format":{"type": "text"},"modalities":["text"],"logprobs":false,"top_logprobs":null"#,
        r#","response_format":null,"audio":null,"guided_json":null,"best_of":1"#,
    ] {
        check(text, true);
    }
    for more in [
        r#""n":2"#,
        r#""best_of":2"#,
        r#""response_format":{"type":"json_object"}"#,
        r#""response_format":{"type":"json_schema","json_schema":{}}"#,
        r#""logprobs":true"#,
        r#""top_logprobs":3"#,
        r#""modalities":["text","audio"]"#,
        r#""audio":{"voice":"a"}"#,
        r#""web_search_options":{"a":1}"#,
        r#""guided_json":{"type":"object"}"#,
        r#""logprobs":false,"logprobs":true"#,
        r#""Logprobs":true"#,
    ] {
        check(&format!(",{more}"), false);
    }
    let body = r#"{"model":"m"}"#;
    let whole = read_request(Endpoint::Chat, body.into(), &ListedMembers::default()).expect("a chat request");
    assert!(ChatReplay::of(&whole).is_none(), "no stream");
    let body = r#"{"model":"m","stream":true}"#;
    let other = read_request(Endpoint::Completions, body.into(), &ListedMembers::default()).expect("a request");
    assert!(ChatReplay::of(&other).is_none(), "completions");
}

#[test]
fn what_the_client_has_is_left_out_and_the_rest_is_a_part_of_its_stream() {
    let role = |id: &str| delta(id, r#"{"role":"assistant","content":""}"#);
    let sent = [role("a"), said("a", "Hé"), said("a", "llo")];
    let usage = |id: &str| format!(r#"{{"id":"{id}","choices":[],"usage":{{"prompt_tokens":1}}}}"#);
    let frames = [role("b"), said("b", "H"), said("b", "éllo, w"), said("b", "orld"), finish("b"), usage("b")];
    let expected = [said("a", ", w"), said("a", "orld"), finish("a"), usage("a")];
    assert_eq!(replayed(&sent, &frames), Ok(expected.to_vec()));
    // Broken behind all of its text, before its finish.
    let all = [said("a", "Hello")];
    assert_eq!(replayed(&all, &[role("b"), said("b", "Hello"), finish("b")]), Ok(vec![finish("a")]));
    // In one frame, with the finish.
    let whole = json!({"id":"b","choices":[{"delta":{"role":"assistant","content":"Hello"},"finish_reason":"stop"}]});
    let role_sent = [role("a"), said("a", "Hel")];
    let rest = r#"{"choices":[{"delta":{"content":"lo"},"finish_reason":"stop"}],"id":"a"}"#;
    let out = replayed(&role_sent, &[whole.to_string()]).expect("the same answer");
    let values: Vec<Value> = out.iter().map(|frame| serde_json::from_str(frame).expect("JSON")).collect();
    assert_eq!(values, [serde_json::from_str::<Value>(rest).expect("JSON")]);
}

#[test]
fn a_role_is_said_once() {
    let role = |id: &str| delta(id, r#"{"role":"assistant"}"#);
    let with_role = |id: &str, text: &str| delta(id, &format!(r#"{{"role":"assistant","content":"{text}"}}"#));
    // Nothing but a role was sent: any answer goes on with it.
    assert_eq!(replayed(&[role("a")], &[role("b"), said("b", "x")]), Ok(vec![said("a", "x")]));
    assert_eq!(replayed(&[role("a")], &[with_role("b", "x")]), Ok(vec![said("a", "x")]));
    // Not even that was.
    assert_eq!(replayed(&[], &[role("b"), said("b", "x")]), Ok(vec![role("b"), said("b", "x")]));
    assert_eq!(replayed(&[with_role("a", "x")], &[with_role("b", "x"), with_role("b", "y")]), Ok(vec![said("a", "y")]));
}

#[test]
fn reasoning_is_text_of_its_own() {
    let thought = |id: &str, text: &str| delta(id, &format!(r#"{{"reasoning_content":"{text}","content":null}}"#));
    let sent = [thought("a", "so"), said("a", "H")];
    let frames = [thought("b", "s"), thought("b", "o"), said("b", "Hi")];
    assert_eq!(replayed(&sent, &frames), Ok(vec![said("a", "i")]));
    assert_eq!(replayed(&[thought("a", "so")], &[said("b", "so")]), Err(DivergenceError));
    let other_name = delta("b", r#"{"reasoning":"so, what"}"#);
    assert_eq!(replayed(&[thought("a", "so")], &[other_name]), Err(DivergenceError));
}

#[test]
fn another_answer_is_never_passed_on() {
    let sent = [said("a", "Hello")];
    let check = |frames: &[String]| assert_eq!(replayed(&sent, frames), Err(DivergenceError), "{frames:?}");
    check(&[said("b", "Help")]);
    check(&[said("b", "Hell"), finish("b")]);
    check(&[said("b", "Hell"), "[DONE]".to_owned()]);
    check(&[finish("b")]);
    check(&[delta("b", r#"{"tool_calls":[{"index":0}]}"#)]);
    check(&[delta("b", r#"{"refusal":"no"}"#)]);
    check(&[r#"{"choices":[{"index":1,"delta":{"content":"Hello"}}]}"#.to_owned()]);
    check(&["{".to_owned()]);
}

#[test]
fn what_says_more_than_text_ends_what_may_be_replayed() {
    for frame in [
        delta("a", r#"{"tool_calls":[{"index":0}]}"#),
        delta("a", r#"{"content":"x","audio":{"id":"y"}}"#),
        delta("a", r#"{"content":"x","content":"y"}"#),
        delta("a", r#"{"content":"x","c\u006fntent":"y"}"#),
        delta("a", r#"{"content":[{"type":"text"}]}"#),
        delta("a", r#"{"content":"x","reasoning":"y"}"#),
        delta("a", r#"{"content":"\ud83d"}"#),
        r#"{"choices":[{"index":0,"delta":{"content":"x"}},{"index":1,"delta":{"content":"x"}}]}"#.to_owned(),
        r#"{"choices":[{"delta":{"content":"x"},"logprobs":{"content":[]}}]}"#.to_owned(),
        r#"{"choices":[],"choices":[{"delta":{"content":"x"}}]}"#.to_owned(),
        r#"{"choices":[{"delta":{},"finish_reason":"tool_calls"}]}"#.to_owned(),
        finish("a"),
        "ping".to_owned(),
    ] {
        let mut replay = open();
        assert_eq!(replay.read(event(&frame)), Ok(ReplayEdit::Keep), "it passes as it came");
        assert!(!replay.may_begin() && replay.text_bytes() == 0, "{frame}");
    }
    let mut replay = open();
    let long = said("a", &"x".repeat(MOST_TEXT));
    assert_eq!(replay.read(event(&long)), Ok(ReplayEdit::Keep));
    assert!(replay.may_begin());
    assert_eq!(replay.read(event(&said("a", "x"))), Ok(ReplayEdit::Keep));
    assert!(!replay.may_begin() && replay.text_bytes() == 0, "it is longer than is kept");
}

#[test]
fn what_follows_all_that_the_client_has_may_be_more_than_text() {
    let call = delta("b", r#"{"tool_calls":[{"index":0,"id":"c"}]}"#);
    assert_eq!(replayed(&[said("a", "Hi")], &[said("b", "Hi"), call.clone()]), Ok(vec![call]));
    let mut replay = open();
    for (frame, begins) in [(said("a", "H"), true), (said("b", "Hi"), true), (said("c", "Hi!"), false)] {
        assert!(replay.read(event(&frame)).is_ok());
        assert!(replay.may_begin());
        if begins {
            replay.begin();
        }
    }
    assert_eq!(replay.text_bytes(), 3, "what a replay adds may be replayed in its turn");
}

#[test]
fn a_frame_in_several_lines_is_written_in_one() {
    let sent = [said("a", "H")];
    let lines = "{\"id\":\"b\",\n\"choices\":[{\"delta\":{\"content\":\"Hi\"}}]}".to_owned();
    let expected = "{\"id\":\"a\", \"choices\":[{\"delta\":{\"content\":\"i\"}}]}".to_owned();
    assert_eq!(replayed(&sent, &[lines]), Ok(vec![expected]));
}

/// The text of a frame that was passed on.
fn content(frame: &str) -> String {
    let value: Value = serde_json::from_str(frame).expect("JSON");
    value["choices"][0]["delta"]["content"].as_str().unwrap_or_default().to_owned()
}

proptest! {
    /// Wherever the first answer broke and however both are cut into frames, escapes included.
    #[test]
    fn the_client_has_each_character_once(
        text in "[a\u{e9}\u{1f600}\n\"\\\\]{1,24}",
        broke_at in 0..24_usize,
        first in 1..5_usize,
        second in 1..5_usize,
    ) {
        let characters: Vec<char> = text.chars().collect();
        let frames = |id: &str, of: &[char], size: usize| -> Vec<String> {
            of.chunks(size).map(|piece| said(id, &piece.iter().collect::<String>())).collect()
        };
        let had = &characters[..broke_at.min(characters.len())];
        let sent = frames("a", had, first);
        let mut all = frames("b", &characters, second);
        all.push(finish("b"));
        let out = replayed(&sent, &all).expect("it is the same text");
        let received: String = sent.iter().chain(&out).map(|frame| content(frame)).collect();
        prop_assert_eq!(received, text);
        prop_assert!(out.iter().all(|frame| frame.contains(r#""id":"a""#)) || sent.is_empty());
        prop_assert_eq!(out.iter().filter(|frame| frame.contains("stop")).count(), 1);
    }
}

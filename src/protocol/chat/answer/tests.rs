//! Frames and whole answers, and the moments that are read in them.

use super::choice_set::{ChoiceSet, MOST_INDEXES};
use super::*;
use crate::domain::body_member::ListedMembers;
use crate::domain::call::Endpoint;
use crate::domain::usage::Usage;
use crate::protocol::chat::request::read_request;
use crate::protocol::{AnswerError, UsageReport};

/// A stream of so many choices; `hiding`: usage we asked for and the client did not.
fn stream(choices: u32, hiding: bool) -> ChatStream {
    let body =
        format!(r#"{{"model":"m","n":{choices},"stream":true,"stream_options":{{"include_usage":{}}}}}"#, !hiding);
    let call =
        read_request(Endpoint::Chat, body.into(), &ListedMembers::default()).expect("the body is a chat request");
    ChatStream::new(&call, ChatQuirks::default())
}

fn event(payload: &str) -> Event<'_> {
    Event { name: None, payload: payload.as_bytes(), terminated: true }
}

fn read(stream: &mut ChatStream, payload: &str) -> Result<(Vec<Moment>, FrameEdit), FrameError> {
    let mut moments = Vec::new();
    stream.read(event(payload), |moment| moments.push(moment)).map(|edit| (moments, edit))
}

fn moments(payload: &str) -> Vec<Moment> {
    read(&mut stream(1, false), payload).unwrap_or_else(|error| panic!("{payload}: {error:?}")).0
}

fn whole(body: &str) -> Result<Vec<Moment>, AnswerError> {
    let mut moments = Vec::new();
    read_whole(body.as_bytes(), |moment| moments.push(moment)).map(|()| moments)
}

#[test]
fn a_good_frame_carries_a_token_or_an_end() {
    let check = |frame: &str, good: bool| {
        let moments = moments(frame);
        assert_eq!(moments.iter().any(|moment| moment.is_good()), good, "{frame}");
        assert!(!moments.contains(&Moment::Fault), "{frame}");
    };
    let delta = |delta: &str| format!(r#"{{"choices":[{{"index":0,"delta":{delta},"finish_reason":null}}]}}"#);
    check(&delta(r#"{"role":"assistant","content":""}"#), false);
    check(&delta(r#"{"role":"assistant","content":null,"refusal":null}"#), false);
    check(&delta("{}"), false);
    check(&delta("null"), false);
    check(&delta(r#"{"tool_calls":[]}"#), false);
    check(&delta(r#"{"content":"h\u00e9\n"}"#), true);
    check(&delta(r#"{"content":[{"type":"text","text":"x"}]}"#), true);
    check(&delta(r#"{"reasoning":"x"}"#), true);
    check(&delta(r#"{"reasoning_content":"x"}"#), true);
    check(&delta(r#"{"refusal":"no"}"#), true);
    check(&delta(r#"{"tool_calls":[{"index":0,"function":{"name":"f"}}]}"#), true);
    check(&delta(r#"{"function_call":{"name":"f"}}"#), true);
    for part in [
        r#""audio":{"id":"a"}"#,
        r#""reasoning_details":[{"type":"reasoning.text","text":"x"}]"#,
        r#""thinking":"x""#,
        r#""images":[{"type":"image_url"}]"#,
        r#""executed_tools":[{}]"#,
        r#""never_heard_of":7"#,
    ] {
        check(&delta(&format!("{{{part}}}")), true);
    }
    check(&delta(r#"{"role":"assistant","images":[],"thinking":"","annotations":null,"audio":{}}"#), false);
    check(&delta(r#""text""#), false);
    check(r#"{"choices":[{"index":0,"message":{"role":"assistant","content":"x"}}]}"#, true);
    check(r#"{"choices":[{"index":0,"delta":{},"message":{"content":"x"}}]}"#, false);
    check(r#"{"choices":[null,7,"x",[]]}"#, false);
    check(r#"{"choices":{}}"#, false);
    check(r#"{"choices":[{"index":0,"text":"x"}]}"#, true);
    check(r#"{"choices":[{"index":0,"text":""}]}"#, false);
    check(r#"{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#, true);
    check(r#"{"choices":[{"index":0,"delta":{},"finish_reason":""}]}"#, false);
    check(r#"{"choices":[],"usage":{"prompt_tokens":1}}"#, false);
    check(r#"{"choices":null,"error":null}"#, false);
    check("{}", false);
}

#[test]
fn an_error_is_a_fault_and_nothing_else() {
    let check = |frame: &str, error: bool| {
        let moments = moments(frame);
        assert_eq!(moments == [Moment::Fault], error, "{frame}");
        assert_eq!(moments.contains(&Moment::Fault), error, "{frame}");
        assert_eq!(whole(frame).map(|moments| moments.contains(&Moment::Fault)), Ok(error), "{frame}");
    };
    check(r#"{"error":{"message":"x"}}"#, true);
    check(r#"{"error":"x","choices":[]}"#, true);
    check(r#"{"choices":[{"index":0,"text":"x"}],"usage":{"prompt_tokens":1},"error":"x"}"#, true);
    check(r#"{"object":"error","message":"x"}"#, true);
    check(r#"{"choices":[{"index":0,"delta":{"content":"x"},"finish_reason":"error"}]}"#, true);
    check(r#"{"choices":[{"index":0,"message":{},"finish_reason":"network_error"}]}"#, true);
    check(r#"{"choices":[{"finish_reason":"stop"}],"message":"ok","code":"x"}"#, false);
    check(r#"{"error":null,"object":"chat.completion"}"#, false);
    check(r#"{"choices":[{"error":{"message":"x"}}]}"#, false);
    let named = Event { name: Some(b"error"), ..event("x") };
    let mut moments = Vec::new();
    assert_eq!(stream(1, false).read(named, |moment| moments.push(moment)), Ok(FrameEdit::Keep));
    assert_eq!(moments, [Moment::Fault]);
}

#[test]
fn an_error_in_another_shape_is_one_where_there_is_no_choice() {
    let check = |frame: &str, error: bool| assert_eq!(moments(frame) == [Moment::Fault], error, "{frame}");
    check(r#"{"detail":"Not Found"}"#, true);
    check(r#"{"detail":[{"msg":"field required"}]}"#, true);
    check(r#"{"code":1302,"message":"too many","data":null}"#, true);
    check(r#"{"code":"Throttling","message":"x","request_id":"r"}"#, true);
    check(r#"{"code":0,"message":"ok"}"#, false);
    check(r#"{"code":"200","message":"ok"}"#, false);
    check(r#"{"message":"x"}"#, false);
    check(r#"{"detail":"","choices":[]}"#, false);
    check(r#"{"detail":"x","usage":{"prompt_tokens":1}}"#, false);
}

#[test]
fn a_whole_answer_is_one_where_a_choice_says_something() {
    let check = |choices: &str, expected: bool| {
        let moments = whole(&format!(r#"{{"choices":[{choices}]}}"#)).expect("it is an object");
        assert_eq!(moments.contains(&Moment::Finish), expected, "{choices}");
    };
    let message = |members: &str| format!(r#"{{"index":0,"message":{{"role":"assistant"{members}}}}}"#);
    for says_nothing in [
        "{}",
        "null",
        "7",
        "[]",
        r#"{"index":0}"#,
        r#"{"index":0,"logprobs":{"content":[]},"usage":{"prompt_tokens":1}}"#,
        r#"{"finish_reason":null}"#,
        r#"{"finish_reason":""}"#,
        r#"{"text":null}"#,
        r#"{"message":null}"#,
        r#"{"message":"x"}"#,
        r#"{"message":{}}"#,
        r#"{"delta":{}}"#,
        r#"{"delta":{"role":"assistant"}}"#,
        r#"{"message":{"content":"x"},"message":{}}"#,
    ] {
        check(says_nothing, false);
        check(&format!("{says_nothing},{{}}"), false);
        check(&format!("{says_nothing},{}", message(r#","content":"x""#)), true);
    }
    check(&message(""), false);
    check(&message(r#","content":null"#), false);
    check(&message(r#","content":null,"tool_calls":[],"annotations":[],"audio":null,"function_call":{}"#), false);
    for says_something in [
        r#""content":"x""#,
        r#""content":"""#,
        r#""content":[{"type":"text","text":"x"}]"#,
        r#""content":null,"refusal":"No.""#,
        r#""content":null,"tool_calls":[{"id":"a","type":"function","function":{"name":"f","arguments":"{}"}}]"#,
        r#""content":null,"function_call":{"name":"f","arguments":"{}"}"#,
        r#""content":null,"audio":{"id":"a","data":"UklGRg=="}"#,
        r#""content":null,"reasoning_content":"Hm""#,
        r#""reasoning":"Hm""#,
        r#""images":[{"image_url":{"url":"data:,"}}]"#,
    ] {
        check(&message(&format!(",{says_something}")), true);
        check(&format!(r#"{{"delta":{{{says_something}}}}}"#), true);
    }
    check(r#"{"text":"x"}"#, true);
    check(r#"{"text":""}"#, true);
    check(r#"{"finish_reason":"content_filter"}"#, true);
    check(r#"{"message":{"content":null},"finish_reason":"stop"}"#, true);
}

#[test]
fn of_two_members_of_one_name_the_last_counts() {
    let check = |frame: &str, expected: &[Moment]| {
        assert_eq!(moments(frame), expected, "{frame}");
    };
    let text = |text_bytes| Moment::Content { text_bytes };
    check(r#"{"error":"x","error":null}"#, &[]);
    check(r#"{"choices":[{"finish_reason":"stop"}],"choices":[]}"#, &[]);
    check(r#"{"choices":[{"delta":{"content":"a","content":"bcd"}}]}"#, &[text(3)]);
    check(r#"{"choices":[{"delta":{"content":"a"},"delta":{}}]}"#, &[]);
    check(r#"{"choices":[{"finish_reason":"stop","finish_reason":null}]}"#, &[]);
    check(r#"{"choices":[{"index":1,"index":0,"finish_reason":null,"finish_reason":"stop"}]}"#, &[Moment::Finish]);
    check(r#"{"id":"a","id":"b","model":1,"model":2,"choices":[{"index":0,"text":"x"}]}"#, &[text(1)]);
    assert_eq!(
        whole(r#"{"choices":[],"choices":[{"text":""}],"id":1,"id":2}"#).map(|moments| moments[0]),
        Ok(Moment::Finish)
    );
}

#[test]
fn what_the_official_clients_read_is_read() {
    let check = |frame: &str| {
        assert_eq!(moments(frame), [Moment::Content { text_bytes: 1 }], "{frame}");
    };
    check(r#"{"choices":[{"delta":{"content":"x"},"logprobs":{"a":NaN,"b":-Infinity,"c":[Infinity]}}]}"#);
    check("\u{feff}{\"choices\":[{\"delta\":{\"content\":\"x\"}}]}");
    let not_utf8 = Event { payload: b"{\"choices\":[{\"delta\":{\"content\":\"\xff\"}}]}", ..event("") };
    let mut moments = Vec::new();
    assert_eq!(stream(1, false).read(not_utf8, |moment| moments.push(moment)), Ok(FrameEdit::Keep));
    assert_eq!(moments, [Moment::Content { text_bytes: 1 }]);
    assert_eq!(
        whole("\u{feff}{\"choices\":[{\"text\":\"\",\"x\":NaN}]}").map(|moments| moments[0]),
        Ok(Moment::Finish)
    );
}

#[test]
fn what_is_no_object_is_no_part_of_an_answer() {
    for text in ["", "[]", "null", "\"x\"", "ping", ": keepalive", "7", "{}", " { } "] {
        assert_eq!(read(&mut stream(1, false), text), Ok((vec![], FrameEdit::Ignore)), "{text}");
    }
    for text in ["{\"a\":1", "{} x", "{oops", "{\"a\":1}\n{\"a\":2}", "<html>"] {
        let malformed = FrameError::Malformed("a frame that is no completion");
        assert_eq!(read(&mut stream(1, false), text), Err(malformed), "{text}");
        let skipping = ChatQuirks { skip_malformed_frames: true, ..ChatQuirks::default() };
        let mut skipping = ChatStream { quirks: skipping, ..stream(1, false) };
        assert_eq!(read(&mut skipping, text), Ok((vec![], FrameEdit::Keep)), "{text}");
        let cut = Event { terminated: false, ..event(text) };
        assert_eq!(skipping.read(cut, |_| ()), Err(malformed), "{text}");
    }
    assert_eq!(whole("{\"a\":[1,2"), Err(AnswerError::EndsEarly));
    assert_eq!(whole(""), Err(AnswerError::EndsEarly));
    assert!(matches!(whole("<html>"), Err(AnswerError::NotAnObject(_))));
}

#[test]
fn done_ends_a_stream_whose_choices_are_finished() {
    let stop = r#"{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#;
    let early = Err(FrameError::Incomplete("[DONE] came without every finish_reason"));
    let done = Ok((vec![Moment::End], FrameEdit::Keep));
    let mut one = stream(1, false);
    assert_eq!(read(&mut one, "[DONE]"), early);
    assert!(one.end().is_err());
    assert!(read(&mut one, stop).is_ok_and(|(moments, _)| moments == [Moment::Finish]));
    assert_eq!(read(&mut one, " [DONE]\n"), done);
    assert_eq!(one.end(), Ok(DONE_FRAME));
    assert_eq!(read(&mut stream(2, false), "[DONE]"), early);
    assert_eq!(read(&mut one, "[DONE] and more"), done);
    let optional = ChatQuirks { finish_reason_optional: true, ..ChatQuirks::default() };
    let mut lenient = ChatStream { quirks: optional, ..stream(2, false) };
    assert_eq!(read(&mut lenient, "[DONE]"), done);
    assert!(lenient.end().is_err());
}

fn part(index: u32, content: &str, finish_reason: &str) -> String {
    format!(r#"{{"choices":[{{"index":{index},"delta":{{"content":"{content}"}},"finish_reason":{finish_reason}}}]}}"#)
}

#[test]
fn nothing_that_follows_makes_a_finished_answer_incomplete() {
    let mut finished = stream(1, false);
    assert!(read(&mut finished, &part(0, "x", "null")).is_ok() && !finished.is_finished());
    assert!(read(&mut finished, &part(0, "", r#""stop""#)).is_ok() && finished.is_finished());
    for odd in [r#"{"error":{"message":"x"}}"#, "{oops", "ping", r#"{"detail":"x"}"#] {
        assert_eq!(read(&mut finished, odd), Ok((vec![], FrameEdit::Ignore)), "{odd}");
    }
    let counted = read(&mut finished, r#"{"choices":[],"usage":{"prompt_tokens":1}}"#);
    assert!(counted.is_ok_and(|(moments, edit)| moments.len() == 1 && edit == FrameEdit::Keep));
    assert!(finished.is_finished());
}

#[test]
fn a_finish_reason_with_every_token_is_no_end() {
    let mut going_on = stream(1, false);
    for _ in 0..2 {
        assert!(read(&mut going_on, &part(0, "x", r#""STOP""#)).is_ok());
    }
    assert!(!going_on.is_finished());
    assert_eq!(going_on.end(), Ok(DONE_FRAME), "its own end is one");
    assert!(read(&mut going_on, "{oops").is_err());
}

#[test]
fn a_host_that_ignores_how_many_choices_it_is_asked_for_ends_with_those_that_came() {
    let mut one_of_two = stream(2, false);
    assert!(read(&mut one_of_two, &part(0, "x", r#""stop""#)).is_ok());
    assert!(!one_of_two.is_finished() && one_of_two.end().is_ok());
    assert!(read(&mut one_of_two, "[DONE]").is_ok());
    let mut second_is_cut = stream(2, false);
    assert!(read(&mut second_is_cut, &part(1, "x", "null")).is_ok());
    assert!(read(&mut second_is_cut, &part(0, "x", r#""stop""#)).is_ok());
    assert!(second_is_cut.end().is_err() && read(&mut second_is_cut, "[DONE]").is_err());
}

#[test]
fn usage_the_client_did_not_ask_for_is_cut_out() {
    let check = |frame: &str, expected: Option<&str>| {
        assert_eq!(read(&mut stream(1, false), frame).map(|(_, edit)| edit), Ok(FrameEdit::Keep), "{frame}");
        let left = match read(&mut stream(1, true), frame).map(|(_, edit)| edit) {
            Ok(FrameEdit::Keep | FrameEdit::Ping) => Some(frame.to_owned()),
            Ok(FrameEdit::Cut(span) | FrameEdit::Unname(span)) => {
                Some([&frame[..span.start], &frame[span.end..]].concat())
            }
            Ok(FrameEdit::Drop | FrameEdit::Ignore) => None,
            Err(error) => panic!("{frame}: {error:?}"),
        };
        assert_eq!(left.as_deref(), expected, "{frame}");
    };
    check(r#"{"choices":[{"usage":null}]}"#, Some(r#"{"choices":[{"usage":null}]}"#));
    check(r#"{"a": 1.0 , "usage" : null }"#, Some(r#"{"a": 1.0  }"#));
    check(
        r#"{"choices":[{"index":0,"delta":{"role":"assistant"}}],"usage":{"prompt_tokens":1}}"#,
        Some(r#"{"choices":[{"index":0,"delta":{"role":"assistant"}}]}"#),
    );
    check(
        r#"{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}],"usage":{"prompt_tokens":1}}"#,
        Some(r#"{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#),
    );
    // Frames that tell nothing else, in any shape.
    for usage in ["null", "{}", r#"{"prompt_tokens":1}"#] {
        for choices in ["[]", "null", "[{}]", r#"[{"index":0}]"#, r#"[{"index":0,"delta":{},"finish_reason":null}]"#] {
            check(&format!(r#"{{"id":"x","choices":{choices},"usage":{usage}}}"#), None);
        }
        check(&format!(r#"{{"id":"x","usage":{usage}}}"#), None);
    }
    check(r#"{"id":"x","choices":[]}"#, None);
    check(r#"{"choices":[],"timings":{"n":1},"usage":{"prompt_tokens":1}}"#, None);
    // What a host says beside it stays.
    let filter = r#"{"choices":[],"prompt_filter_results":[{}],"usage":null}"#;
    check(filter, Some(r#"{"choices":[],"prompt_filter_results":[{}]}"#));
    check(r#"{"usage":{"prompt_tokens":1},"x":[2]}"#, Some(r#"{"x":[2]}"#));
    // Half a surrogate pair before it: the frame that is read is not the frame that is cut.
    check(
        r#"{"choices":[{"index":0,"delta":{"content":"\ud83d"}}],"usage":{"prompt_tokens":5}}"#,
        Some(r#"{"choices":[{"index":0,"delta":{"content":"\ud83d"}}]}"#),
    );
}

#[test]
fn usage_is_read_where_it_is_not_null() {
    let check = |usage: &str, expected: Option<Option<u64>>| {
        let frame = format!(r#"{{"choices":[],"usage":{usage}}}"#);
        let report = expected.map(|input| UsageReport {
            usage: input.map(|input| Usage { input, ..Usage::default() }),
            ..UsageReport::default()
        });
        let moments = moments(&frame);
        assert_eq!(moments, report.into_iter().map(Moment::Usage).collect::<Vec<_>>(), "{usage}");
    };
    check("null", None);
    check(r#"{"prompt_tokens":1}"#, Some(Some(1)));
    check("{}", Some(None));
}

#[test]
fn usage_is_read_wherever_a_frame_has_it() {
    let check = |frame: &str, expected: &[u64]| {
        let outputs = moments(frame).into_iter().filter_map(|moment| match moment {
            Moment::Usage(report) => report.usage.map(|usage| usage.output),
            _ => None,
        });
        assert_eq!(outputs.collect::<Vec<_>>(), expected, "{frame}");
    };
    let usage = |output: u64| format!(r#"{{"prompt_tokens":5,"completion_tokens":{output}}}"#);
    let stop = |usage: &str| format!(r#"{{"index":0,"delta":{{}},"finish_reason":"stop","usage":{usage}}}"#);
    check(&format!(r#"{{"choices":[{}]}}"#, stop(&usage(7))), &[7]);
    check(&format!(r#"{{"choices":[{}]}}"#, stop("null")), &[]);
    check(&format!(r#"{{"choices":[],"x_groq":{{"id":"r","usage":{}}}}}"#, usage(7)), &[7]);
    check(r#"{"choices":[],"x_groq":{"id":"r"}}"#, &[]);
    check(r#"{"choices":[],"x_groq":"r"}"#, &[]);
    check(&format!(r#"{{"choices":[{}],"usage":{}}}"#, stop(&usage(7)), usage(8)), &[7, 8]);
    let token = r#"{"index":0,"delta":{"content":"x"}}"#;
    check(&format!(r#"{{"choices":[{token}],"usage":{}}}"#, usage(9)), &[9]);
}

#[test]
fn the_text_of_an_answer_is_measured() {
    let check = |frame: &str, text_bytes: u64| {
        let content = moments(frame).into_iter().find(|moment| matches!(moment, Moment::Content { .. }));
        assert_eq!(content, Some(Moment::Content { text_bytes }), "{frame}");
    };
    let delta = |delta: &str| format!(r#"{{"choices":[{{"index":0,"delta":{delta}}}]}}"#);
    check(&delta(r#"{"content":"h\u00e9\n"}"#), 4);
    check(&delta(r#"{"reasoning_content":"ab","content":"c"}"#), 3);
    check(&delta(r#"{"tool_calls":[{"index":0,"function":{"name":"f","arguments":"{}"}}]}"#), 2);
    check(r#"{"choices":[{"index":0,"text":"x"},{"index":1,"text":"yz"}]}"#, 3);
    // Half a surrogate pair, of a provider that cuts between the two.
    check(&delta(r#"{"content":"\ud83d"}"#), 3);
    check(&delta(r#"{"content":"\\uDE00\ude00"}"#), 9);
    let whole_text = |body: &str, text_bytes: u64| {
        let moments = whole(body).unwrap_or_else(|error| panic!("{body}: {error}"));
        let measured = moments.iter().map(|moment| match moment {
            Moment::Content { text_bytes } => *text_bytes,
            _ => 0,
        });
        assert_eq!(measured.sum::<u64>(), text_bytes, "{body}");
        assert_eq!(moments.last(), Some(&Moment::End), "{body}");
    };
    whole_text(r#"{"choices":[{"message":{"role":"assistant","content":"Hello"}}]}"#, 5);
    whole_text(r#"{"choices":[{"text":"Hello"}],"usage":{"prompt_tokens":1}}"#, 5);
    whole_text(r#"{"choices":[{"text":"Hello"}],"usage":{"prompt_tokens":1,"completion_tokens":2}}"#, 0);
    // Zeros beside text are no count; without text they are.
    whole_text(r#"{"choices":[{"text":"Hello"}],"usage":{"prompt_tokens":1,"completion_tokens":0}}"#, 5);
    whole_text(r#"{"choices":[{"text":""}],"usage":{"prompt_tokens":1,"completion_tokens":0}}"#, 0);
    // Half a surrogate pair, where a ceiling cut an answer short.
    whole_text(r#"{"choices":[{"message":{"content":"\ud83d"}}]}"#, 3);
    whole_text(r#"{"output":"Hello"}"#, 18);
    whole_text(r#"{"choices":{"content":"abc"}}"#, 3);
}

#[test]
fn an_error_beside_a_complete_answer_is_none() {
    let check = |body: &str, last: Moment| {
        assert_eq!(whole(body).map(|moments| moments.last().copied()), Ok(Some(last)), "{body}");
    };
    for error in [r#""error":{"message":"x"}"#, r#""error":"x""#, r#""object":"error""#] {
        check(&format!(r#"{{{error}}}"#), Moment::Fault);
        check(&format!(r#"{{{error},"choices":[]}}"#), Moment::Fault);
        check(
            &format!(r#"{{{error},"choices":[{{"message":{{"content":""}},"finish_reason":"stop"}}]}}"#),
            Moment::Fault,
        );
        check(&format!(r#"{{{error},"choices":[{{"message":{{"content":"x"}}}}]}}"#), Moment::Fault);
        check(
            &format!(r#"{{{error},"choices":[{{"message":{{"content":"x"}},"finish_reason":"error"}}]}}"#),
            Moment::Fault,
        );
        check(
            &format!(r#"{{{error},"choices":[{{"message":{{"content":"x"}},"finish_reason":"stop"}}]}}"#),
            Moment::End,
        );
        check(&format!(r#"{{{error},"data":[{{"embedding":[1]}}]}}"#), Moment::End);
    }
    for none in ["null", "false", "0", "\"\"", "{}", "[]"] {
        check(&format!(r#"{{"error":{none},"choices":[{{}}]}}"#), Moment::End);
    }
}

#[test]
fn indexes_that_nobody_asked_for_are_not_kept() {
    let mut stream = stream(2, false);
    for index in 64..5_000 {
        let frame = format!(r#"{{"choices":[{{"index":{index},"delta":{{}},"finish_reason":"stop"}}]}}"#);
        assert!(read(&mut stream, &frame).is_ok());
    }
    assert_eq!((stream.finished.len(), stream.came.len()), (2, 0));
    assert!(stream.has_finished(2), "a host may number its choices otherwise");
    let mut of_one_frame = ChoiceSet::default();
    (0..2 * MOST_INDEXES as u32).for_each(|index| of_one_frame.insert(index));
    assert_eq!(of_one_frame.len(), 64 + MOST_INDEXES);
}

#[test]
fn as_many_choices_must_finish_as_were_asked_for() {
    let check = |indexes: &[u64], expected: u32, all: bool| {
        let mut stream = stream(expected, false);
        for index in indexes {
            let frame = format!(r#"{{"choices":[{{"index":{index},"delta":{{}},"finish_reason":"stop"}}]}}"#);
            assert!(read(&mut stream, &frame).is_ok());
        }
        assert_eq!(stream.has_finished(expected), all, "{indexes:?} of {expected}");
    };
    check(&[], 1, false);
    check(&[0], 1, true);
    check(&[1], 1, true);
    check(&[0, 2, 2], 3, false);
    check(&[2, 0, 1], 3, true);
    check(&[1 << 32], 1, true);
    let many: Vec<u64> = (0..128).collect();
    check(&many, 128, true);
    check(&many[..64], 64, true);
    check(&many[..127], 128, false);
}

//! Tests of the reading of answers.

use super::*;

fn event<'a>(name: Option<&'a str>, payload: &'a str) -> Event<'a> {
    Event { name: name.map(str::as_bytes), payload: payload.as_bytes(), terminated: true }
}

fn read(stream: &mut MessagesStream, payload: &str) -> Result<(Vec<Moment>, FrameEdit), FrameError> {
    let mut moments = Vec::new();
    let edit = stream.read(event(None, payload), |moment| moments.push(moment))?;
    Ok((moments, edit))
}

fn moments(payload: &str) -> Vec<Moment> {
    let read = read(&mut MessagesStream::default(), payload);
    let (moments, edit) = read.unwrap_or_else(|error| panic!("{payload}: {error:?}"));
    assert_eq!(edit, FrameEdit::Keep, "{payload}");
    moments
}

fn whole_moments(body: &str) -> Result<Vec<Moment>, AnswerError> {
    let mut moments = Vec::new();
    read_whole(body.as_bytes(), |moment| moments.push(moment)).map(|()| moments)
}

fn text(text_bytes: u64) -> Moment {
    Moment::Content { text_bytes }
}

fn counted(input: u64, cached_input: u64, output: u64, has_output: bool) -> Moment {
    let usage = Usage { input, cached_input, output, ..Usage::default() };
    Moment::Usage(UsageReport { usage: Some(usage), has_output, is_impossible: false })
}

#[test]
fn a_part_of_the_answer_is_seen_in_every_event_that_carries_one() {
    let delta = |delta: &str| format!(r#"{{"type":"content_block_delta","index":0,"delta":{delta}}}"#);
    let block = |block: &str| format!(r#"{{"type":"content_block_start","index":0,"content_block":{block}}}"#);
    for (payload, expected) in [
        (delta(r#"{"type":"text_delta","text":"h\u00e9\n"}"#), Some(4)),
        (delta(r#"{"type":"thinking_delta","thinking":"abc"}"#), Some(3)),
        (delta(r#"{"type":"input_json_delta","partial_json":"{\"a\""}"#), Some(4)),
        (delta(r#"{"type":"signature_delta","signature":"EqQB"}"#), Some(0)),
        (delta(r#"{"type":"citations_delta","citation":{"cited_text":"x"}}"#), Some(0)),
        (delta(r#"{"type":"text_delta","text":""}"#), None),
        (delta(r#"{"type":"input_json_delta","partial_json":""}"#), None),
        (delta(r#"{"type":"text_delta","text":"\ud83d"}"#), Some(3)),
        (block(r#"{"type":"text","text":""}"#), None),
        (block(r#"{"type":"thinking","thinking":"","signature":""}"#), None),
        (block(r#"{"type":"text","text":"ab"}"#), Some(2)),
        (block(r#"{"type":"tool_use","id":"toolu_1","name":"f","input":{}}"#), Some(0)),
        (block(r#"{"type":"redacted_thinking","data":"Eq"}"#), Some(0)),
        (block(r#"{"type":"server_tool_use","id":"srvtoolu_1","name":"web_search","input":{}}"#), Some(0)),
    ] {
        assert_eq!(moments(&payload), expected.map(text).into_iter().collect::<Vec<_>>(), "{payload}");
    }
}

#[test]
fn what_says_nothing_is_passed_on_and_no_moment() {
    let ping = read(&mut MessagesStream::default(), r#"{"type": "ping"}"#);
    assert_eq!(ping, Ok((vec![], FrameEdit::Ping)));
    for payload in [
        r#"{"type":"content_block_stop","index":0}"#,
        r#"{"type":"message_delta","delta":{"stop_reason":null},"usage":null}"#,
        r#"{"type":"a_new_event","delta":{"text":"x"}}"#,
        r#"{"type":"message_start","message":{"content":[]}}"#,
        "{}",
    ] {
        assert_eq!(moments(payload), [], "{payload}");
    }
    for odd in ["[DONE]", "ping", "7", "[1]"] {
        assert_eq!(read(&mut MessagesStream::default(), odd), Ok((vec![], FrameEdit::Ignore)), "{odd}");
    }
    for broken in ["{\"type\":\"content_block", "<html>", r#"{"type":"message_stop""#] {
        let read = read(&mut MessagesStream::default(), broken);
        assert_eq!(read, Err(FrameError::Malformed("a frame that is no event of Messages")), "{broken}");
    }
}

#[test]
fn only_message_stop_behind_a_stop_reason_ends_an_answer() {
    let mut stream = MessagesStream::default();
    let stop = r#"{"type":"message_stop"}"#;
    let early = Err(FrameError::Incomplete("message_stop came without a stop_reason"));
    assert_eq!(read(&mut stream, stop), early);
    assert!(stream.end().is_err());
    let reason = r#"{"type":"message_delta","delta":{"stop_reason":"end_turn","stop_sequence":null},"usage":{"output_tokens":5}}"#;
    let moments = read(&mut stream, reason).expect("it is an event").0;
    assert_eq!(moments.last(), Some(&Moment::Finish));
    // All of the text came, and yet it did not say that it was over.
    assert!(stream.end().is_err() && !stream.is_finished());
    assert_eq!(read(&mut stream, stop), Ok((vec![Moment::End], FrameEdit::Keep)));
}

#[test]
fn an_error_is_one_by_its_type_its_member_or_its_name() {
    let error = r#"{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}"#;
    for payload in [error, r#"{"error":{"message":"x"}}"#, r#"{"type":"error"}"#] {
        assert_eq!(moments(payload), [Moment::Fault], "{payload}");
    }
    for payload in ["{}", "oops", error] {
        let mut moments = Vec::new();
        let read = MessagesStream::default().read(event(Some("error"), payload), |moment| moments.push(moment));
        assert_eq!((read, &moments[..]), (Ok(FrameEdit::Keep), &[Moment::Fault][..]), "{payload}");
    }
    let named = MessagesStream::default().read(event(Some("message_stop"), "{}"), |_| ());
    assert_eq!(named, Ok(FrameEdit::Keep), "a name alone ends nothing");
}

#[test]
fn usage_of_a_stream_is_put_together_from_its_beginning_and_its_end() {
    let mut stream = MessagesStream::default();
    let start = r#"{"type":"message_start","message":{"id":"msg_1","content":[],"usage":{"input_tokens":3,"cache_read_input_tokens":7,"output_tokens":1}}}"#;
    assert_eq!(read(&mut stream, start).expect("an event").0, [counted(10, 7, 1, false)]);
    let end = r#"{"type":"message_delta","delta":{"stop_reason":"max_tokens"},"usage":{"input_tokens":null,"output_tokens":40}}"#;
    assert_eq!(read(&mut stream, end).expect("an event").0, [counted(10, 7, 40, true), Moment::Finish]);
}

#[test]
fn a_whole_answer_is_one_that_has_content_or_a_reason_to_stop() {
    let check = |body: &str, expected: &[Moment]| {
        assert_eq!(whole_moments(body).as_deref(), Ok(expected), "{body}");
    };
    check(
        r#"{"type":"message","content":[{"type":"text","text":"Hi"}],"stop_reason":"end_turn","usage":{"input_tokens":3,"output_tokens":2}}"#,
        &[Moment::Finish, counted(3, 0, 2, true), Moment::End],
    );
    // Without a count its text is measured: 5 bytes, and 7 of a tool's input.
    check(
        r#"{"type":"message","content":[{"type":"thinking","thinking":"abc"},{"type":"text","text":"Hi"},{"type":"tool_use","input":{"a":1}}]}"#,
        &[Moment::Finish, text(12), Moment::End],
    );
    // A cache was filled.
    check(
        r#"{"type":"message","content":[],"stop_reason":"max_tokens","usage":{"input_tokens":3,"output_tokens":0}}"#,
        &[Moment::Finish, counted(3, 0, 0, true), Moment::End],
    );
    check(r#"{"type":"error","error":{"type":"api_error","message":"x"}}"#, &[text(0), Moment::Fault]);
    check(r#"{"input_tokens":5}"#, &[text(0), Moment::End]);
    check("{}", &[text(0), Moment::End]);
    assert_eq!(whole_moments(r#"{"type":"message","content":[{"#), Err(AnswerError::EndsEarly));
    assert!(matches!(whole_moments("<html>"), Err(AnswerError::NotAnObject(_))));
    assert_eq!(text_bytes(br#"{"content":[{"type":"text","text":"Hi"}],"usage":{"output_tokens":1}}"#), 2);
}

#[test]
fn a_count_of_tokens_costs_none() {
    let count = |body: &str| {
        let mut moments = Vec::new();
        read_count(body.as_bytes(), |moment| moments.push(moment)).map(|()| moments)
    };
    let none = counted(0, 0, 0, true);
    assert_eq!(count(r#"{"input_tokens":2095}"#).as_deref(), Ok(&[Moment::Finish, none, Moment::End][..]));
    for other in ["{}", r#"{"input_tokens":"7"}"#, r#"{"content":[]}"#] {
        assert_eq!(count(other).as_deref(), Ok(&[none, Moment::End][..]), "{other}");
    }
    assert_eq!(count(r#"{"type":"error","error":{"type":"x"}}"#).as_deref(), Ok(&[none, Moment::Fault][..]));
}

//! The reading and metering of answers: any frame is read or refused, counts stay within each other and within
//! reason, what is cut out of a frame is its usage, and a frame that a whole JSON reader understands means the
//! same to both.
//!
//! Compared are frames that leave no choice: no member given twice, no list in an object's place.
//!
//! Each line of the input is one frame of a stream, and the whole of it one whole answer.

use std::collections::BTreeSet;

use bytes::Bytes;
use serde_json::Value;
use tierway::domain::call::{Call, Endpoint};
use tierway::domain::usage::Usage;
use tierway::protocol::chat::answer::{ChatQuirks, ChatStream, read_whole};
use tierway::protocol::chat::request::read_request;
use tierway::protocol::{Event, FrameEdit, Moment};
use tierway::upstream::meter::AnswerMeter;

use super::json::{Members, depth};

/// More tokens than any answer has.
const ABSURD: u64 = 1_000_000_000;
/// Deeper than this a whole reader gives up.
const READABLE_DEPTH: usize = 126;

/// What must hold for any frames.
pub fn holds(data: &[u8]) {
    let (mut stream, mut meter) = (ChatStream::new(&call(), ChatQuirks::default()), AnswerMeter::default());
    let mut slow = SlowReader { comparable: true, ..SlowReader::default() };
    // A `[DONE]` is no frame of JSON.
    for frame in data.split(|byte| *byte == b'\n').filter(|frame| frame.trim_ascii() != b"[DONE]") {
        let tokens = meter.token_frames();
        let (mut good, mut fault) = (false, false);
        let edit = stream.read(Event { name: None, payload: frame, terminated: true }, |moment| {
            good |= moment.is_good();
            fault |= moment == Moment::Fault;
            meter.note(moment);
        });
        assert!(meter.token_frames() - tokens <= 1);
        meter.usage().inspect(sane);
        assert!(!(fault && good));
        if let Ok(FrameEdit::Cut(span)) = &edit {
            cut_out(frame, &[&frame[..span.start], &frame[span.end..]].concat());
        }
        match PlainFrame::of(frame) {
            Some(plain) => {
                let read = edit.as_ref().map(|edit| (good, fault, *edit == FrameEdit::Drop)).ok();
                assert_eq!(read, slow.read(&plain), "{}", frame.escape_ascii());
                let hidden = plain.0.get("usage").is_some();
                let kept = edit.is_ok_and(|edit| edit == FrameEdit::Keep);
                assert_eq!(kept, fault || !hidden, "{}", frame.escape_ascii());
            }
            // Refused or not, it may mean anything.
            None if edit.is_ok() => slow.comparable = false,
            None => {}
        }
        if slow.comparable {
            assert_eq!(meter.usage(), slow.usage);
            assert_eq!(meter.token_frames(), slow.token_frames);
            for expected in [1, 2, 3, 63, 64, 65, 128] {
                let all = (0..expected).all(|index| slow.finished.contains(&u64::from(index)));
                assert_eq!(stream.has_finished(expected), all, "{expected} choices");
            }
        }
    }
    whole(data);
}

/// A call whose client did not ask for usage: it is to be hidden.
fn call() -> Call {
    let body = Bytes::from_static(br#"{"model":"m","stream":true}"#);
    read_request(Endpoint::Chat, body).expect("it is a chat request")
}

fn whole(body: &[u8]) {
    let (mut fault, mut meter) = (false, AnswerMeter::default());
    let read = read_whole(body, |moment| {
        fault |= moment == Moment::Fault;
        meter.note(moment);
    });
    let counted = meter.tally(true).counted;
    counted.inspect(sane);
    if let Some(plain) = PlainFrame::of(body) {
        assert_eq!(read, Ok(()), "it is an object");
        assert_eq!((fault, counted), (is_error(&plain.0), usage_of(&plain.0["usage"])));
    }
}

/// Each part is within the whole it is part of, and none is absurd.
fn sane(usage: &Usage) {
    assert!(usage.cached_input <= usage.input && usage.reasoning <= usage.output, "{usage:?}");
    assert!(usage.input <= ABSURD && usage.output <= 2 * ABSURD, "{usage:?}");
}

/// Cutting the usage out of a frame leaves every other member as it is written.
fn cut_out(frame: &[u8], rest: &[u8]) {
    let (Ok(before), Ok(after)) = (Members::of(frame), Members::of(rest)) else {
        // A name with half a surrogate pair is skipped by the one and refused by the other.
        assert_eq!(Members::of(frame).is_ok(), Members::of(rest).is_ok(), "{}", rest.escape_ascii());
        return;
    };
    let others = |members: &Members| -> Vec<(String, String)> {
        let kept = members.0.iter().filter(|(name, _)| name != "usage");
        kept.map(|(name, raw)| (name.clone(), raw.get().to_owned())).collect()
    };
    assert_eq!(others(&before), others(&after));
    assert_eq!(after.all("usage").count(), 0);
}

/// A frame that can be read in one way only.
struct PlainFrame(Value);

impl PlainFrame {
    fn of(frame: &[u8]) -> Option<Self> {
        let members = Members::of(frame).ok().filter(|_| depth(frame) < READABLE_DEPTH)?;
        let value: Value = serde_json::from_slice(frame).ok()?;
        let object = |text: &str| Members::of(text.as_bytes()).ok().filter(|members| !members.repeats());
        let once = |text: Option<&str>| text.is_none_or(|text| object(text).is_some());
        let choices: Vec<Box<serde_json::value::RawValue>> = match members.given("choices") {
            None => Vec::new(),
            Some(raw) => serde_json::from_str(raw).ok()?,
        };
        let choice = |raw: &str| object(raw).is_some_and(|choice| once(choice.given("delta")));
        let usage = members.given("usage").and_then(object);
        let details = ["prompt_tokens_details", "completion_tokens_details"];
        let plain = !members.repeats()
            && choices.iter().all(|raw| choice(raw.get()))
            && once(members.given("usage").filter(|raw| raw.starts_with('{')))
            && usage.is_none_or(|usage| {
                details.iter().all(|name| once(usage.given(name).filter(|raw| raw.starts_with('{'))))
            });
        plain.then_some(Self(value))
    }
}

/// Reader and meter, slow and obvious.
#[derive(Default)]
struct SlowReader {
    usage: Option<Usage>,
    finished: BTreeSet<u64>,
    token_frames: u64,
    /// No frame came before that could be read in two ways.
    comparable: bool,
}

impl SlowReader {
    /// Whether the frame is good, an error, and there for its usage alone.
    fn read(&mut self, PlainFrame(frame): &PlainFrame) -> Option<(bool, bool, bool)> {
        if is_error(frame) {
            return Some((false, true, false));
        }
        let choices = frame["choices"].as_array();
        let (mut token, mut finish) = (false, false);
        for (position, choice) in choices.into_iter().flatten().enumerate() {
            token |= says(&choice["text"]);
            for part in ["content", "reasoning", "reasoning_content", "refusal", "tool_calls", "function_call", "audio"]
            {
                token |= says(&choice["delta"][part]);
            }
            if says(&choice["finish_reason"]) {
                finish = true;
                // `null` counts as zero, what is no number as absent.
                let index = if choice["index"].is_null() && choice.get("index").is_some() {
                    Some(0)
                } else {
                    count(&choice["index"])
                };
                self.finished.insert(index.unwrap_or(position as u64));
            }
        }
        self.token_frames += u64::from(token);
        self.usage = usage_of(&frame["usage"]).or(self.usage);
        let alone = !frame["usage"].is_null() && choices.is_some_and(Vec::is_empty);
        Some((token || finish, false, alone))
    }
}

fn is_error(answer: &Value) -> bool {
    says(&answer["error"]) || answer["object"] == "error"
}

/// Whether a value is there and says something.
fn says(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(flag) => *flag,
        Value::Number(_) => true,
        Value::String(text) => !text.is_empty(),
        Value::Array(list) => !list.is_empty(),
        Value::Object(members) => !members.is_empty(),
    }
}

/// A whole number, however it is written.
fn count(value: &Value) -> Option<u64> {
    let exact = value.as_u64();
    let float = value.as_f64().filter(|float| value.is_f64() && float.fract() == 0.0 && (0.0..9e15).contains(float));
    exact.or(float.map(|float| float as u64))
}

/// The same, `null` and absent read as none.
fn tokens(value: &Value) -> Option<u64> {
    if value.is_null() { Some(0) } else { count(value).filter(|count| *count <= ABSURD) }
}

fn usage_of(usage: &Value) -> Option<Usage> {
    if !usage.is_object() || usage["prompt_tokens"].is_null() {
        return None;
    }
    let input = tokens(&usage["prompt_tokens"])?;
    let mut output = tokens(&usage["completion_tokens"])?;
    let within =
        |details: &str, part: &str| usage[details].is_object().then(|| optional(&usage[details][part])).flatten();
    let cached = within("prompt_tokens_details", "cached_tokens").or(optional(&usage["prompt_cache_hit_tokens"]));
    let reasoning = within("completion_tokens_details", "reasoning_tokens").unwrap_or(0);
    if reasoning > 0 && tokens(&usage["total_tokens"]) == Some(input + output + reasoning) {
        output += reasoning;
    }
    Some(Usage { input, cached_input: cached.unwrap_or(0).min(input), output, reasoning: reasoning.min(output) })
}

fn optional(value: &Value) -> Option<u64> {
    count(value).filter(|count| *count <= ABSURD)
}

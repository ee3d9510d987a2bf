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
use tierway::domain::body_member::ListedMembers;
use tierway::domain::call::{Call, Endpoint};
use tierway::domain::usage::Usage;
use tierway::protocol::chat::answer::{ChatQuirks, ChatStream, read_whole};
use tierway::protocol::chat::request::read_request;
use tierway::protocol::json::text::text_bytes;
use tierway::protocol::{BYTE_ORDER_MARK, Event, FrameEdit, Moment};
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
        if let Ok(FrameEdit::Cut(span)) = &edit
            && !frame.starts_with(BYTE_ORDER_MARK)
        {
            cut_out(frame, &[&frame[..span.start], &frame[span.end..]].concat());
        }
        match PlainFrame::of(frame) {
            Some(plain) => {
                let read = edit.as_ref().map(|edit| (good, fault, *edit == FrameEdit::Drop)).ok();
                let expected = slow.read(&plain);
                assert_eq!(read, expected, "{}", frame.escape_ascii());
                let is_alone = expected.is_some_and(|(_, _, alone)| alone);
                let hidden = is_alone || plain.0.get("usage").is_some();
                let kept = edit.as_ref().is_ok_and(|edit| *edit == FrameEdit::Keep);
                let ignored = edit.is_ok_and(|edit| edit == FrameEdit::Ignore);
                assert_eq!(kept, !ignored && (fault || !hidden), "{}", frame.escape_ascii());
            }
            // Refused or not, it may mean anything.
            None if edit.is_ok_and(|edit| edit != FrameEdit::Ignore) => slow.comparable = false,
            None => {}
        }
        if slow.comparable {
            assert_eq!(meter.usage(), slow.usage);
            assert_eq!(meter.token_frames(), slow.token_frames);
            for expected in [1, 2, 3, 63, 64, 65, 128] {
                let all = slow.finished.len() >= expected as usize;
                assert_eq!(stream.has_finished(expected), all, "{expected} choices");
            }
        }
    }
    whole(data);
}

/// A call whose client did not ask for usage: it is to be hidden.
fn call() -> Call {
    let body = Bytes::from_static(br#"{"model":"m","stream":true}"#);
    read_request(Endpoint::Chat, body, &ListedMembers::default()).expect("it is a chat request")
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
        assert_eq!((fault, counted), (is_whole_error(&plain.0, body), usage_of(&plain.0["usage"])));
    }
}

/// Each part is within the whole it is part of, and none is absurd.
fn sane(usage: &Usage) {
    assert!(usage.cached_input <= usage.input && usage.reasoning <= usage.output, "{usage:?}");
    // What hosts count beside them is added.
    assert!(usage.input <= 4 * ABSURD && usage.output <= 2 * ABSURD, "{usage:?}");
}

/// Cutting the usage out of a frame leaves every other member as it is written.
fn cut_out(frame: &[u8], rest: &[u8]) {
    // What one reader forgives and the other refuses, such as half a surrogate pair, may have been cut out.
    let Ok(before) = Members::of(frame) else { return };
    let Ok(after) = Members::of(rest) else { panic!("{}", rest.escape_ascii()) };
    let others = |members: &Members| -> Vec<(String, String)> {
        let kept = members.0.iter().filter(|(name, _)| name != "usage");
        kept.map(|(name, raw)| (name.clone(), raw.get().to_owned())).collect()
    };
    assert_eq!(others(&before), others(&after));
    // Of several the last one counts.
    assert_eq!(after.all("usage").count() + 1, before.all("usage").count());
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
        let choice = |raw: &str| {
            object(raw).is_some_and(|choice| ["delta", "message"].iter().all(|name| once(choice.given(name))))
        };
        let usage = members.given("usage").and_then(object);
        let details = ["prompt_tokens_details", "completion_tokens_details"];
        let plain = !members.repeats()
            && choices.iter().all(|raw| choice(raw.get()))
            && once(members.given("usage").filter(|raw| raw.starts_with('{')))
            && usage.is_none_or(|usage| {
                details.iter().all(|name| once(usage.given(name).filter(|raw| raw.starts_with('{'))))
            });
        (plain && has_plain_usage(&value)).then_some(Self(value))
    }
}

/// Reader and meter, slow and obvious.
#[derive(Default)]
struct SlowReader {
    usage: Option<Usage>,
    /// The choice that was asked for came.
    came: bool,
    finished: BTreeSet<u32>,
    all_finished: bool,
    token_frames: u64,
    /// A token came after everything was finished.
    went_on: bool,
    /// No frame came before that could be read in two ways.
    comparable: bool,
}

impl SlowReader {
    /// Whether a choice is finished, as one was asked for, and none that came is not.
    fn is_over(&self) -> bool {
        self.all_finished && !self.went_on
    }

    /// Whether the frame is good, an error, and there for its usage alone.
    fn read(&mut self, PlainFrame(frame): &PlainFrame) -> Option<(bool, bool, bool)> {
        if is_frame_error(frame) {
            // Behind the answer nothing is an error any more.
            return Some((false, !self.is_over(), false));
        }
        let was_finished = self.all_finished;
        let choices = frame["choices"].as_array();
        let (mut token, mut finish) = (false, false);
        for (position, choice) in choices.into_iter().flatten().enumerate() {
            let said = if choice.get("delta").is_some() { &choice["delta"] } else { &choice["message"] };
            let parts = said.as_object().into_iter().flatten();
            token |= says(&choice["text"]) || parts.filter(|(name, _)| *name != "role").any(|(_, part)| says(part));
            // `null` counts as zero, what is no number as absent.
            let is_null = choice["index"].is_null() && choice.get("index").is_some();
            let index = if is_null { Some(0) } else { count(&choice["index"]) };
            let index = u32::try_from(index.unwrap_or(position as u64)).unwrap_or(u32::MAX);
            self.came |= index == 0;
            if says(&choice["finish_reason"]) {
                finish = true;
                self.finished.insert(index);
            }
        }
        if finish {
            self.all_finished = !self.came || self.finished.contains(&0);
        }
        self.token_frames += u64::from(token);
        self.went_on |= token && was_finished;
        let next = usage_of(&frame["usage"]);
        self.usage = next.map(|next| after(self.usage.unwrap_or_default(), next)).or(self.usage);
        let (usage, no_choice) = (frame.get("usage"), choices.is_some_and(Vec::is_empty));
        let counts = usage.is_some_and(|usage| !usage.is_null()) && no_choice;
        let only = !token && !finish && (usage.is_some() || no_choice) && is_silent(frame);
        Some((token || finish, false, counts || only))
    }
}

fn choices(answer: &Value) -> impl Iterator<Item = &Value> {
    answer["choices"].as_array().into_iter().flatten()
}

/// Whether an error ended one of the choices.
fn broke_off(answer: &Value) -> bool {
    let by_error = |choice: &Value| {
        let reason = choice["finish_reason"].as_str().unwrap_or_default();
        ["error", "network_error"].iter().any(|error| error.eq_ignore_ascii_case(reason))
    };
    choices(answer).any(by_error)
}

/// What says something of an error: zero does not.
fn complains(value: &Value) -> bool {
    says(value) && count(value) != Some(0)
}

/// An error, unless there is an answer beside it.
fn is_whole_error(answer: &Value, body: &[u8]) -> bool {
    let finished = choices(answer).any(|choice| says(&choice["finish_reason"]));
    let is_answer = complains(&answer["data"]) || (finished && text_bytes(body) > 0);
    broke_off(answer) || ((complains(&answer["error"]) || answer["object"] == "error") && !is_answer)
}

/// An error, or one in the shape of some framework.
fn is_frame_error(frame: &Value) -> bool {
    let code = &frame["code"];
    let fine = |code: &str| ["0", "200", "ok", "success"].contains(&code.to_ascii_lowercase().as_str());
    let failed = says(code) && !code.as_str().is_some_and(fine) && !matches!(count(code), Some(0 | 200));
    let other_shape = complains(&frame["detail"]) || (complains(&frame["message"]) && failed);
    complains(&frame["error"])
        || broke_off(frame)
        || (frame["object"] == "error" && choices(frame).next().is_none())
        || (other_shape && !frame["choices"].is_array() && frame.get("usage").is_none())
}

/// Whether a frame, its choices or one of them says nothing but what every frame has.
fn is_silent(value: &Value) -> bool {
    const OF_EVERY_FRAME: [&str; 10] = [
        "usage",
        "id",
        "object",
        "created",
        "model",
        "index",
        "system_fingerprint",
        "service_tier",
        "provider",
        "obfuscation",
    ];
    let silent = |(name, value): (&String, &Value)| match name.as_str() {
        "choices" => is_silent(value),
        name => OF_EVERY_FRAME.contains(&name) || !says(value),
    };
    match value {
        Value::Null => true,
        Value::Array(list) => list.iter().all(is_silent),
        Value::Object(members) => members.iter().all(silent),
        Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
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

/// What a `usage` says that has no names but OpenAI's.
fn usage_of(usage: &Value) -> Option<Usage> {
    let usage = usage.as_object()?;
    let of = |name: &str| usage.get(name).filter(|value| !value.is_null());
    // One that cannot be a count makes the report impossible.
    let [said_input, said_output] = ["prompt_tokens", "completion_tokens"].map(|name| of(name).map(optional));
    if said_input == Some(None) || said_output == Some(None) {
        return None;
    }
    let (said_input, said_output) = (said_input.flatten(), said_output.flatten());
    let total = of("total_tokens").and_then(optional).unwrap_or(0);
    let left = |other: u64| Some(total.saturating_sub(other)).filter(|left| *left > 0);
    let mut input = said_input.or_else(|| left(said_output?))?;
    let mut output = said_output.filter(|output| *output > 0).or_else(|| left(input)).unwrap_or(0);
    let within = |details: &str, part: &str| {
        of(details).and_then(|details| details.as_object()?.get(part)).and_then(optional).unwrap_or(0)
    };
    let cached = within("prompt_tokens_details", "cached_tokens");
    let mut beyond = total.saturating_sub(input + output);
    if cached > input && beyond >= cached {
        input += cached;
        beyond -= cached;
    }
    output += beyond;
    let reasoning = within("completion_tokens_details", "reasoning_tokens").max(beyond);
    let cached_input = cached.min(input);
    Some(Usage { input, cached_input, output, reasoning: reasoning.min(output), ..Usage::default() })
}

/// What stands after `next` came behind `earlier`: no zero takes the place of a count.
fn after(earlier: Usage, mut next: Usage) -> Usage {
    next.input = if next.input == 0 { earlier.input } else { next.input };
    next.output = if next.output == 0 { earlier.output } else { next.output };
    if next.cached_input == 0 && next.input == earlier.input {
        next.cached_input = earlier.cached_input;
    }
    if next.reasoning == 0 && next.output == earlier.output {
        next.reasoning = earlier.reasoning;
    }
    next
}

/// Whether a member's name may mean a count by another name than OpenAI's.
fn is_other_name(name: &str) -> bool {
    const PLAIN: [&str; 7] = [
        "prompt_tokens",
        "completion_tokens",
        "total_tokens",
        "prompt_tokens_details",
        "completion_tokens_details",
        "cached_tokens",
        "reasoning_tokens",
    ];
    let small = name.to_ascii_lowercase();
    !PLAIN.contains(&name) && ["token", "cache"].iter().any(|word| small.contains(word))
}

/// Whether its counts have OpenAI's names, each in its place, and are nowhere else.
fn has_plain_usage(frame: &Value) -> bool {
    let names = |value: &Value| -> Vec<String> {
        value.as_object().into_iter().flatten().map(|(name, _)| name.clone()).collect()
    };
    let usage = &frame["usage"];
    let parts = ["cached_tokens", "reasoning_tokens"];
    let in_choice = |choice: &Value| choice.get("usage").is_some();
    names(usage).iter().all(|name| !is_other_name(name) && !parts.contains(&name.as_str()))
        && names(&usage["prompt_tokens_details"]).iter().all(|name| !is_other_name(name))
        && names(&usage["completion_tokens_details"]).iter().all(|name| !is_other_name(name))
        && !frame["choices"].as_array().is_some_and(|choices| choices.iter().any(in_choice))
        && frame.get("x_groq").is_none()
}

fn optional(value: &Value) -> Option<u64> {
    count(value).filter(|count| *count <= ABSURD)
}

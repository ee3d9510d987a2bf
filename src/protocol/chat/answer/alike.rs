//! Frames that differ from an earlier one of their stream in nothing but the text of their token: most of a stream. Such
//! a frame says the same as the earlier one, so it is compared with it instead of parsed (`make instructions`: 5,000 of
//! a frame).
//!
//! It never guesses. One text of the earlier frame may be another one, and only if a frame that differs in it alone was
//! parsed and had that much more text: then it is a text of the answer, of which nothing counts but its length. Hosts that
//! write something new into each frame, such as padding against eavesdroppers, have every frame parsed.
//!
//! Start reading in [`AlikeFrames::read`].

use super::frame::ChatFrame;
use crate::protocol::FrameEdit;
use crate::protocol::json::lenient::{PartsValue, object};
use memchr::memmem;
use std::ops::Range;

/// The longest frame that is kept, in bytes: each open stream has one.
const LONGEST: usize = 1024;
/// How many frames are kept in turn that no other one is like.
const MOST_UNUSED: u8 = 2;
/// What the text of a token is called, before its quotes.
const NAMES: [&[u8]; 4] = [br#""content":"#, br#""reasoning_content":"#, br#""reasoning":"#, br#""text":"#];

/// A frame whose text may be another one, if there is one.
pub(super) struct AlikeFrames {
    /// The payload of the frame; empty where there is none.
    json: Vec<u8>,
    /// The place of its text, without quotes.
    text: Range<usize>,
    /// Bytes of text elsewhere in it.
    other_text_bytes: u64,
    /// How it is passed on.
    edit: FrameEdit,
    /// How many frames were kept since one was of use.
    unused: u8,
}

impl AlikeFrames {
    pub(super) const NONE: Self =
        Self { json: Vec::new(), text: 0..0, other_text_bytes: 0, edit: FrameEdit::Keep, unused: 0 };

    /// The bytes of text of a frame with this `payload`, and how it is passed on; `None` where it must be parsed.
    #[inline]
    pub(super) fn read(&mut self, payload: &[u8]) -> Option<(u64, FrameEdit)> {
        let before = self.json.get(..self.text.start).filter(|before| !before.is_empty())?;
        let text = payload.strip_prefix(before)?.strip_suffix(&self.json[self.text.end..])?;
        if text.is_empty() || text.iter().any(|byte| !is_plain(*byte)) || str::from_utf8(text).is_err() {
            return None;
        }
        self.unused = 0;
        let moved = |at: usize| if at < self.text.end { at } else { at - self.text.len() + text.len() };
        let edit = match &self.edit {
            FrameEdit::Cut(span) => FrameEdit::Cut(moved(span.start)..moved(span.end)),
            edit => edit.clone(),
        };
        Some((self.other_text_bytes + text.len() as u64, edit))
    }

    /// Keeps the frame with this `payload`, which says nothing but so many bytes of text, if another text may be in it.
    #[cold]
    pub(super) fn keep(&mut self, payload: &[u8], text_bytes: u64, edit: &FrameEdit) {
        if self.unused >= MOST_UNUSED || payload.len() > LONGEST || str::from_utf8(payload).is_err() {
            return;
        }
        let Some(text) = NAMES.iter().find_map(|name| plain_text(payload, name)) else { return };
        let is_outside = match edit {
            FrameEdit::Keep => true,
            FrameEdit::Cut(span) => span.end <= text.start || span.start >= text.end,
            _ => false,
        };
        if !is_outside {
            return;
        }
        self.unused += 1;
        let (before, after) = payload.split_at(text.end);
        let mut json = [before, b"x", after].concat();
        let longer = object::<PartsValue<ChatFrame<'_>>>(&json).map(|frame| frame.0.choices.text_bytes);
        if !longer.is_ok_and(|longer| longer == text_bytes + 1) {
            return;
        }
        json.remove(text.end);
        let other_text_bytes = text_bytes.saturating_sub(text.len() as u64);
        *self = Self { json, text, other_text_bytes, edit: edit.clone(), unused: self.unused };
    }
}

/// The place of the text in `payload` that is called `name`, if it is not empty and nothing in it is escaped.
fn plain_text(payload: &[u8], name: &[u8]) -> Option<Range<usize>> {
    let value = memmem::find(payload, name)? + name.len();
    let start = value + payload[value..].iter().position(|byte| *byte != b' ')? + 1;
    let len = payload.get(start..)?.iter().position(|byte| !is_plain(*byte))?;
    let is_text = payload[start - 1] == b'"' && payload[start + len] == b'"';
    (is_text && len > 0).then_some(start..start + len)
}

/// Whether a byte of a JSON string stands for itself, if the string is UTF-8.
fn is_plain(byte: u8) -> bool {
    byte >= b' ' && !matches!(byte, b'"' | b'\\')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::body_member::ListedMembers;
    use crate::domain::call::Endpoint;
    use crate::protocol::chat::answer::{ChatQuirks, ChatStream};
    use crate::protocol::chat::request::read_request;
    use crate::protocol::{Event, FrameError, Moment};
    use proptest::prelude::*;

    const TEMPLATE: &str = r#"{"id":"c","choices":[{"index":0,"delta":{"content":"abc"},"finish_reason":null}]}"#;

    /// A stream; `hiding`: usage that we asked for and the client did not.
    fn stream(hiding: bool) -> ChatStream {
        let body = format!(r#"{{"model":"m","n":2,"stream":true,"stream_options":{{"include_usage":{}}}}}"#, !hiding);
        let call = read_request(Endpoint::Chat, body.into(), &ListedMembers::default()).expect("a chat request");
        ChatStream::new(&call, ChatQuirks::default())
    }

    type Read = (Vec<Moment>, Result<FrameEdit, FrameError>);

    fn read(stream: &mut ChatStream, payload: &[u8]) -> Read {
        let mut moments = Vec::new();
        let read = stream.read(Event { name: None, payload, terminated: true }, |moment| moments.push(moment));
        (moments, read)
    }

    /// Reads `frames` in one stream, by comparing where that is possible and by parsing each: both must be the same.
    /// Returns how many were compared.
    fn check(frames: &[&[u8]], hiding: bool) -> usize {
        let (mut comparing, mut parsing) = (stream(hiding), stream(hiding));
        let mut compared = 0;
        for frame in frames {
            parsing.alike.unused = MOST_UNUSED;
            let is_alike = !comparing.all_finished && comparing.alike.read(frame).is_some();
            compared += usize::from(is_alike);
            let (found, expected) = (read(&mut comparing, frame), read(&mut parsing, frame));
            assert_eq!(found, expected, "{}", String::from_utf8_lossy(frame));
            assert_eq!(
                (comparing.is_finished(), comparing.went_on, comparing.may_end()),
                (parsing.is_finished(), parsing.went_on, parsing.may_end())
            );
        }
        compared
    }

    #[test]
    fn a_frame_that_differs_in_its_text_is_compared() {
        let with = |text: &str| TEMPLATE.replace("abc", text);
        for (text, is_compared) in [
            ("abc", true),
            (" longer", true),
            ("héllo 🎉", true),
            ("\u{7f}", true),
            ("", false),
            (r"a\nb", false),
            (r#"a\"b"#, false),
            (r"\u00e9", false),
            ("\t", false),
            (r#"a","refusal":"no"#, false),
            (r#"a"},"finish_reason":"stop"},{"delta":{"content":"b"#, false),
        ] {
            let compared = check(&[TEMPLATE.as_bytes(), with(text).as_bytes()], false);
            assert_eq!(compared == 1, is_compared, "{text}");
        }
        let mut broken = with("#").into_bytes();
        let at = broken.iter().position(|byte| *byte == b'#').expect("it is there");
        broken[at] = 0xff;
        assert_eq!(check(&[TEMPLATE.as_bytes(), &broken], false), 0, "no UTF-8");
    }

    #[test]
    fn only_a_text_that_counts_may_be_another_one() {
        for (template, is_kept) in [
            (r#"{"choices":[{"delta":{"content":"abc"}}]}"#, true),
            (r#"{"choices":[{"delta":{"content": "abc"}}]}"#, true),
            (r#"{"choices":[{"delta":{"content":null,"reasoning_content":"abc"}}]}"#, true),
            (r#"{"choices":[{"delta":{"reasoning":"abc"}}]}"#, true),
            (r#"{"choices":[{"text":"abc"}]}"#, true),
            (r#"{"choices":[{"delta":{"content":"abc"}},{"index":1,"delta":{"content":"de"}}]}"#, true),
            (r#"{"choices":[{"delta":{"tool_calls":[{"function":{"arguments":"xyz"}}],"content":"abc"}}]}"#, true),
            // What a client never sees as the answer, and the first of two members, of which the last counts.
            (r#"{"content":"abc","choices":[{"delta":{"refusal":"abc"}}]}"#, false),
            (r#"{"choices":[{"delta":{"content":"abc","content":"abd"}}]}"#, false),
            (r#"{"choices":[{"logprobs":{"content":"abc"},"delta":{"content":"abc"}}]}"#, false),
            (r#"{"x\"content":"abc","choices":[{"delta":{"content":"abc"}}]}"#, false),
            // What says more than a text.
            (r#"{"choices":[{"delta":{"content":"abc"},"finish_reason":"stop"}]}"#, false),
            (r#"{"choices":[{"delta":{"content":"abc"}}],"usage":{"prompt_tokens":1,"completion_tokens":1}}"#, false),
            (r#"{"error":"abc","choices":[{"delta":{"content":"abc"}}]}"#, false),
            (r#"{"choices":[{"delta":{"content":"abc"},"usage":{"completion_tokens":1}}]}"#, false),
            (r#"{"choices":[{"delta":{"content":"a\nc"}}]}"#, false),
            (r#"{"choices":[{"delta":{"content":""}}]}"#, false),
            (r#"{"choices":[{"delta":{"role":"abc"}}]}"#, false),
        ] {
            let other = template.replacen("abc", "another", 1);
            for hiding in [false, true] {
                let compared = check(&[template.as_bytes(), other.as_bytes(), template.as_bytes()], hiding);
                assert_eq!(compared > 0, is_kept, "{template}");
            }
        }
    }

    #[test]
    fn what_is_cut_moves_with_the_text() {
        for template in [
            r#"{"choices":[{"delta":{"content":"abc"}}],"usage":null}"#,
            r#"{"usage":null,"choices":[{"delta":{"content":"abc"}}]}"#,
        ] {
            let others = ["a", "longer than before"].map(|text| template.replace("abc", text));
            let frames = [template.as_bytes(), others[0].as_bytes(), others[1].as_bytes()];
            assert_eq!(check(&frames, true), 2, "{template}");
            assert_eq!(check(&frames, false), 2, "{template}");
        }
    }

    #[test]
    fn after_the_end_and_where_each_frame_is_new_all_are_parsed() {
        let stop = r#"{"choices":[{"index":0,"delta":{},"finish_reason":"stop"},{"index":1,"finish_reason":"stop"}]}"#;
        let frames = [TEMPLATE, TEMPLATE, stop, TEMPLATE, TEMPLATE].map(str::as_bytes);
        assert_eq!(check(&frames, false), 1);
        let padded: Vec<String> = (0..20).map(|number| TEMPLATE.replace("\"c\"", &number.to_string())).collect();
        let mut padded_stream = stream(false);
        for frame in &padded {
            assert!(read(&mut padded_stream, frame.as_bytes()).1.is_ok());
        }
        assert_eq!(padded_stream.alike.unused, MOST_UNUSED);
        assert_eq!(check(&padded.iter().map(String::as_bytes).collect::<Vec<_>>(), false), 0);
    }

    proptest! {
        /// Whatever stands in the place of a text.
        #[test]
        fn any_bytes_are_read_alike(bytes in prop::collection::vec(any::<u8>(), 0..12), json in r#"[a"\\:,{}\[\]nul1 ]{0,12}"#) {
            let (before, after) = TEMPLATE.split_once("abc").expect("the template has its text");
            for text in [&bytes[..], json.as_bytes()] {
                let frame = [before.as_bytes(), text, after.as_bytes()].concat();
                check(&[TEMPLATE.as_bytes(), &frame, TEMPLATE.as_bytes()], false);
            }
        }
    }
}

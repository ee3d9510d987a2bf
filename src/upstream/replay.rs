//! What a client has of a stream, so that another answer may go on with it.
//!
//! The first answer's bytes pass as they came, and its text is kept beside. Those of another answer come out without
//! what the client has. It never sends anything, and knows nothing of time: whether there is another answer is the
//! caller's to decide.
//!
//! Start reading in [`ReplayableAnswer::pass`].

use super::held::{HeldAnswer, MAX_HELD_ANSWER};
use crate::domain::call::Call;
use crate::domain::memory::InFlightAllowance;
use crate::domain::sent_text::DivergenceError;
use crate::protocol::chat::replay::{ChatReplay, ReplayEdit};
use crate::protocol::sse::SseReader;
use bytes::{Bytes, BytesMut};

/// A stream that another answer may go on with.
pub struct ReplayableAnswer {
    framing: SseReader,
    replay: ChatReplay,
    /// The text that is kept.
    held: HeldAnswer,
}

impl ReplayableAnswer {
    /// Of the stream that answers `call`, whose text counts in `allowance`; `None` where it may be more than text.
    pub fn of(call: &Call, allowance: &InFlightAllowance) -> Option<Self> {
        let replay = ChatReplay::of(call)?;
        Some(Self { framing: SseReader::new(MAX_HELD_ANSWER), replay, held: HeldAnswer::none(allowance) })
    }

    /// Whether another answer may go on with what passed so far.
    pub fn may_begin(&self) -> bool {
        self.replay.may_begin()
    }

    /// From here on the frames of another answer pass, from its beginning.
    pub fn begin(&mut self) {
        self.framing = SseReader::new(MAX_HELD_ANSWER);
        self.replay.begin();
    }

    /// Whether that answer has said all that the client had.
    pub fn is_caught_up(&self) -> bool {
        self.replay.is_caught_up()
    }

    /// What the client gets of `frames`, which are whole: all of the first answer; of another one what is new.
    ///
    /// # Errors
    /// [`DivergenceError`]: the other answer is not the same, and nothing of it may be passed on.
    pub fn pass(&mut self, frames: Bytes) -> Result<Bytes, DivergenceError> {
        let is_replay = self.replay.is_replay();
        if !is_replay && !self.may_begin() {
            return Ok(frames);
        }
        self.framing.push(frames.clone());
        let mut out = BytesMut::new();
        while let Some(frame) = self.framing.next_frame().map_err(|_| DivergenceError)? {
            let edit = match frame.event() {
                Some(event) => self.replay.read(event)?,
                // Comments and blank lines are no part of an answer.
                None => ReplayEdit::Keep,
            };
            match edit {
                ReplayEdit::Keep if is_replay => out.extend_from_slice(&frame.raw),
                ReplayEdit::Write(written) => out.extend_from_slice(&written),
                ReplayEdit::Keep | ReplayEdit::Drop => {}
            }
        }
        // Without room for it the text is not kept, once there is nothing left to compare.
        if self.is_caught_up() && !self.held.try_hold(self.replay.text_bytes()) {
            self.replay.close();
            self.held.try_hold(0);
        }
        Ok(if is_replay { out.freeze() } else { frames })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::testing::call;
    use std::sync::Arc;

    const BODY: &str = r#"{"model":"m","stream":true}"#;
    const COMMENT: &str = ": c\n\n";
    const DONE: &str = "data: [DONE]\n\n";

    fn said(id: &str, text: &str) -> String {
        format!("data: {{\"id\":\"{id}\",\"choices\":[{{\"delta\":{{\"content\":\"{text}\"}}}}]}}\n\n")
    }

    fn finish(id: &str) -> String {
        format!("data: {{\"id\":\"{id}\",\"choices\":[{{\"delta\":{{}},\"finish_reason\":\"stop\"}}]}}\n\n")
    }

    fn answer(allowance: &InFlightAllowance) -> ReplayableAnswer {
        ReplayableAnswer::of(&call(BODY), allowance).expect("it asks for text")
    }

    #[test]
    fn the_first_answer_passes_as_it_came_and_what_follows_is_its_rest() {
        let mut answer = answer(&InFlightAllowance::default());
        let first = Bytes::from([COMMENT, &said("a", "Hel"), &said("a", "lo")].concat());
        let passed = answer.pass(first.clone()).expect("the first one never diverges");
        assert_eq!(passed.as_ptr(), first.as_ptr(), "the same bytes, and no copy of them");
        answer.begin();
        assert!(!answer.is_caught_up());
        let replay =
            [COMMENT.to_owned(), said("b", "He"), said("b", "llo, "), said("b", "you"), finish("b"), DONE.into()];
        let expected = [COMMENT.to_owned(), said("a", ", "), said("a", "you"), finish("a"), DONE.into()].concat();
        for reads in [1, 2, replay.len()] {
            let mut answer = ReplayableAnswer::of(&call(BODY), &InFlightAllowance::default()).expect("text");
            answer.pass(first.clone()).expect("the first one never diverges");
            answer.begin();
            let out: Vec<Bytes> =
                replay.chunks(reads).map(|read| answer.pass(read.concat().into()).expect("the same answer")).collect();
            assert_eq!(String::from_utf8_lossy(&out.concat()), expected);
            assert!(answer.is_caught_up() && !answer.may_begin(), "it is finished");
        }
    }

    #[test]
    fn another_answer_is_an_error() {
        let mut answer = answer(&InFlightAllowance::default());
        answer.pass(said("a", "Hello").into()).expect("the first one never diverges");
        answer.begin();
        assert_eq!(answer.pass(said("b", "Hi").into()), Err(DivergenceError));
    }

    #[test]
    fn text_without_room_is_not_kept() {
        let allowance = InFlightAllowance { max: 150_000, ..InFlightAllowance::default() };
        let mut answer = answer(&allowance);
        let text = "x".repeat(80 * 1024);
        answer.pass(said("a", &text).into()).expect("the first one never diverges");
        assert_eq!((answer.may_begin(), allowance.all.bytes()), (true, 80 * 1024));
        let mut busy = InFlightAllowance { own: Arc::default(), ..allowance.clone() }.reservation();
        assert!(busy.grow(30_000));
        answer.pass(said("a", &text).into()).expect("the first one never diverges");
        assert!(!answer.may_begin());
        assert_eq!(allowance.all.bytes(), 30_000);
    }
}

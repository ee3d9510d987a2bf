//! Answers of which all came before any of it is passed on: whole ones, and streams that are read to their end.
//!
//! Up to the last byte another provider may be asked. Nothing here watches the clock, but for silence within a stream.
//!
//! Start reading in [`whole`], then [`stream_to_its_end`].

use super::held::{HeldAnswer, MAX_HELD_ANSWER};
use super::meter::AnswerMeter;
use super::providers::UpstreamReply;
use super::stream::AnswerStream;
use super::{AttemptError, UpstreamRequest, fold};
use crate::clock::Clock;
use crate::domain::estimate::UsageTally;
use crate::domain::failure::Failure;
use crate::domain::provider_state::StateId;
use crate::protocol::{AnswerError, Grammar, Moment};
use bytes::Bytes;

/// An answer of which all came before any of it is passed on.
pub(super) struct WholeAnswer {
    /// In the form that its client asked for.
    pub(super) bytes: Bytes,
    pub(super) tally: UsageTally,
    pub(super) made: Vec<StateId>,
    pub(super) other_model: Option<Box<str>>,
}

/// A stream, read to its end: for a client that wants the whole, or because streams are held.
pub(super) async fn stream_to_its_end(
    reply: UpstreamReply,
    request: &UpstreamRequest<'_>,
    held: &mut HeldAnswer,
    clock: Clock,
    heard: &mut (dyn FnMut() + Send),
) -> Result<WholeAnswer, AttemptError> {
    let grammar = reply.grammar;
    let mut stream = AnswerStream::new(reply, request.call, request.allowance);
    let idle = request.timeouts.idle;
    let folded = fold::read(&mut stream, idle, MAX_HELD_ANSWER, held, clock, heard).await?;
    let tally = stream.tally();
    let (bytes, made) = match request.call.metadata().stream {
        true if !folded.good => return Err(without_a_token()),
        true => (folded.bytes, stream.take_made()),
        false => {
            let whole = Bytes::from(grammar.whole_of(folded.bytes).ok_or_else(garbage)?);
            let (_, made) = judge(grammar, &whole)?;
            (whole, made)
        }
    };
    let other_model = grammar.other_model(&bytes, request.model.name());
    Ok(WholeAnswer { bytes, tally, made, other_model })
}

/// A whole answer, for a client that may have asked for a stream.
pub(super) async fn whole(
    mut reply: UpstreamReply,
    request: &UpstreamRequest<'_>,
    held: &mut HeldAnswer,
    clock: Clock,
    heard: &mut (dyn FnMut() + Send),
) -> Result<WholeAnswer, AttemptError> {
    let grammar = reply.grammar;
    let bytes = reply.source.collect(MAX_HELD_ANSWER, held, clock, heard).await?;
    let (tally, made) = judge(grammar, &bytes)?;
    let other_model = grammar.other_model(&bytes, request.model.name());
    let bytes = match request.call.metadata().stream {
        true => grammar.stream_of(&bytes, request.call).ok_or_else(garbage)?.into(),
        false => bytes,
    };
    Ok(WholeAnswer { bytes, tally, made, other_model })
}

/// What is known of the tokens of the whole answer `body`, and what the provider made with it.
///
/// # Errors
/// It is none.
fn judge(grammar: Grammar, body: &[u8]) -> Result<(UsageTally, Vec<StateId>), AttemptError> {
    let (mut fault, mut answered, mut meter, mut made) = (false, false, AnswerMeter::default(), Vec::new());
    let read = grammar.read_whole(body, |moment| {
        fault |= moment == Moment::Fault;
        answered |= moment == Moment::Finish;
        if let Moment::Made(id) = moment {
            made.push(id);
        }
        meter.note(moment);
    });
    match read {
        Ok(()) if fault => Err(AttemptError::new(Failure::ErrorInside, "an error inside a 2xx")),
        Ok(()) if !answered => Err(AttemptError::new(Failure::NoAnswer, "a 2xx without a choice or a vector")),
        Ok(()) => Ok((meter.tally(true), made)),
        Err(error @ AnswerError::EndsEarly) => Err(AttemptError::new(Failure::Truncated, error.to_string())),
        Err(error @ AnswerError::NotAnObject(_)) => Err(AttemptError::new(Failure::Garbage, error.to_string())),
    }
}

/// A stream of which all came and no token.
pub(super) fn without_a_token() -> AttemptError {
    AttemptError::new(Failure::Truncated, "the stream ended before its first token")
}

fn garbage() -> AttemptError {
    AttemptError::new(Failure::Garbage, "an answer that cannot be read")
}

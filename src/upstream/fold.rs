//! A stream that is read to its end before anything of it is passed on: its client wants the whole, or streams are held.
//!
//! It ends as a stream does for a client that reads it; until then another provider may be asked. What becomes of the
//! frames is the caller's, or the grammar's.
//!
//! Start reading in [`read`].

use super::AttemptError;
use super::body::GRACE;
use super::held::HeldAnswer;
use super::stream::AnswerStream;
use crate::clock::Clock;
use crate::domain::failure::Failure;
use bytes::{Bytes, BytesMut};
use std::future::{pending, poll_fn};
use std::time::Duration;

/// A stream of which all came.
pub(super) struct FoldedStream {
    /// Its frames.
    pub(super) bytes: Bytes,
    /// A good frame was among them.
    pub(super) good: bool,
}

/// All frames of `stream`, counted in `held`. It may be silent for `idle` after its first frame. Calls `heard` for each
/// read.
///
/// # Errors
/// It broke off or fell silent, holds more than `limit` bytes, or there is no room for it.
pub(super) async fn read(
    stream: &mut AnswerStream,
    idle: Duration,
    limit: usize,
    held: &mut HeldAnswer,
    clock: Clock,
    heard: &mut (dyn FnMut() + Send),
) -> Result<FoldedStream, AttemptError> {
    let (mut all, mut good) = (BytesMut::new(), false);
    // When it is over, if nothing comes: what has said everything and does not end is given less time.
    let mut over_at = None;
    let mut has_finished = false;
    while !stream.is_complete() {
        let silence = async {
            match over_at {
                Some(at) => clock.sleep_until(at).await,
                None => pending().await,
            }
        };
        let read = tokio::select! {
            biased;
            read = poll_fn(|cx| stream.poll_batch(cx)) => Some(read),
            () = silence => None,
        };
        match read {
            None if stream.is_finished() => all.extend_from_slice(&stream.close()),
            None => return Err(AttemptError::new(Failure::IdleTimeout, "a stream fell silent before its end")),
            Some(None) => break,
            Some(Some(Err(broken))) => return Err(broken.into()),
            Some(Some(Ok(batch))) => {
                heard();
                all.extend_from_slice(&batch.bytes);
                good |= batch.good;
                let finishes = stream.is_finished() && !has_finished;
                if batch.alive || batch.pinged || finishes {
                    has_finished = stream.is_finished();
                    over_at = clock.now().checked_add(if has_finished { idle.min(GRACE) } else { idle });
                }
            }
        }
        if all.len() > limit {
            return Err(AttemptError::new(Failure::Unreadable, format!("an answer of more than {limit} bytes")));
        }
        held.hold(all.len(), clock, heard).await?;
    }
    Ok(FoldedStream { bytes: all.freeze(), good })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::estimate::UsageTally;
    use crate::domain::memory::InFlightAllowance;
    use crate::protocol::Grammar;
    use crate::protocol::chat::answer::ChatQuirks;
    use crate::upstream::providers::UpstreamReply;
    use crate::upstream::testing::{call, feed};
    use http::{HeaderMap, StatusCode};

    const GOOD: &str = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"x\"}}]}\n\n";
    const STOP: &str = "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n";
    const USAGE: &str = "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":1}}\n\n";
    const DONE: &str = "data: [DONE]\n\n";

    /// What is read of these frames, one each second, after which the provider holds its connection.
    async fn folded(frames: &[&'static str], limit: usize) -> Result<(String, UsageTally), Failure> {
        let (sender, source) = feed();
        let grammar = Grammar::Chat(ChatQuirks::default());
        let reply = UpstreamReply { status: StatusCode::OK, headers: HeaderMap::new(), source, grammar };
        let allowance = InFlightAllowance::default();
        let mut stream = AnswerStream::new(reply, &call(r#"{"model":"m"}"#), &allowance);
        let mut held = HeldAnswer::none(&allowance);
        let sending = async {
            for frame in frames {
                let _ = sender.send(Ok((*frame).into()));
                Clock.sleep(Duration::from_secs(1)).await;
            }
        };
        let mut unheard = || {};
        let idle = Duration::from_secs(20);
        let reading = read(&mut stream, idle, limit, &mut held, Clock, &mut unheard);
        let (read, ()) = tokio::join!(tokio::time::timeout(Duration::from_secs(60), reading), sending);
        let all = read.expect("it ends").map_err(|error| error.failure)?;
        Ok((String::from_utf8(all.bytes.to_vec()).expect("tests send text"), stream.tally()))
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_is_read_to_its_end_or_to_what_ends_it() {
        let whole = [GOOD, STOP, USAGE].concat();
        let (all, tally) =
            folded(&[GOOD, STOP, USAGE, ": c\n\n", ": c\n\n", GOOD], 1 << 20).await.expect("it is whole");
        assert_eq!((all.replace(": c\n\n", ""), tally.is_final), ([&whole, DONE].concat(), true));
        assert_eq!(
            folded(&[GOOD, STOP, DONE, GOOD], 1 << 20).await.map(|(all, _)| all),
            Ok([GOOD, STOP, DONE].concat())
        );
        assert_eq!(folded(&[GOOD, "data: {\"error\":1}\n\n"], 1 << 20).await.err(), Some(Failure::ErrorInside));
        assert_eq!(folded(&[GOOD, GOOD], 2 * GOOD.len() - 1).await.err(), Some(Failure::Unreadable));
        assert_eq!(folded(&[GOOD, ": c\n\n"], 1 << 20).await.err(), Some(Failure::IdleTimeout));
    }
}

//! Bytes that break off early, for an injected fault.
//!
//! Start reading in [`CutBody::poll_chunk`].

use super::{SourceError, SourceOrigin};
use bytes::Bytes;
use std::task::{Context, Poll, ready};

/// The bytes of a reply up to where its connection breaks.
pub(super) struct CutBody {
    origin: SourceOrigin,
    /// The frames of a stream that still pass; `None` of a whole answer, of which half of the first bytes pass.
    frames_left: Option<u32>,
    /// Whether the line that is being read is empty so far: a frame ends with an empty line.
    line_is_empty: bool,
    broken: bool,
}

impl CutBody {
    /// `origin` up to so many frames of a stream; `None`: it is a whole answer.
    pub(super) fn new(origin: SourceOrigin, frames: Option<u32>) -> Self {
        Self { origin, frames_left: frames, line_is_empty: false, broken: frames == Some(0) }
    }

    /// The next bytes, never empty, or the break. `None`: it ended before.
    pub(super) fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, SourceError>>> {
        if self.broken {
            return Poll::Ready(Some(Err(SourceError::Injected)));
        }
        let chunk = match ready!(self.origin.poll_chunk(cx)) {
            Some(Ok(chunk)) => chunk,
            ended => return Poll::Ready(ended),
        };
        let passed = self.passed(&chunk);
        if passed == 0 {
            self.broken = true;
            return Poll::Ready(Some(Err(SourceError::Injected)));
        }
        Poll::Ready(Some(Ok(chunk.slice(..passed))))
    }

    /// How many bytes of `chunk` come before the break.
    fn passed(&mut self, chunk: &[u8]) -> usize {
        let Some(left) = &mut self.frames_left else {
            self.broken = true;
            return chunk.len() / 2;
        };
        for (at, byte) in chunk.iter().enumerate() {
            match byte {
                b'\n' if self.line_is_empty => {
                    *left -= 1;
                    self.line_is_empty = false;
                    if *left == 0 {
                        self.broken = true;
                        return at + 1;
                    }
                }
                b'\n' => self.line_is_empty = true,
                b'\r' => {}
                _ => self.line_is_empty = false,
            }
        }
        chunk.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_breaks_behind_its_frames_however_it_is_read() {
        let text = b"data: 1\n\ndata: 2\r\n\r\ndata: 3\n\n";
        for (frames, expected) in [(1, &text[..9]), (2, &text[..20]), (3, &text[..])] {
            for size in 1..=text.len() {
                let mut body = CutBody::new(SourceOrigin::Network(reqwest::Body::default()), Some(frames));
                let mut passed = 0;
                for chunk in text.chunks(size) {
                    if !body.broken {
                        passed += body.passed(chunk);
                    }
                }
                assert_eq!(passed, expected.len(), "{frames} frames, read by {size}");
                assert!(body.broken);
            }
        }
        let mut body = CutBody::new(SourceOrigin::Network(reqwest::Body::default()), Some(4));
        assert_eq!((body.passed(text), body.broken), (text.len(), false), "it ended before");
    }
}

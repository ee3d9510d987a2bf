//! Where a host's answers differ from what its API promises.
//!
//! It exists so that a difference is a configured value that the reader of answers is given, and never a test of a
//! host's name in its code.

/// What a provider is known to do otherwise than OpenAI.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct ChatQuirks {
    /// `[DONE]` completes a stream although a `finish_reason` is missing.
    pub finish_reason_optional: bool,
    /// Frames that are not JSON are passed on.
    pub skip_malformed_frames: bool,
}

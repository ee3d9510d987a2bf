//! Routing: the configured values ([`table`]), the weighted choices ([`split`]) and the state machine that
//! chooses the attempts of one request ([`plan`]).
//!
//! It exists so that the request path and a simulation use the same routing: time and random values are
//! passed in, and the plan returns what to do next. It must never send anything.
//!
//! Start reading in [`plan`].

pub mod adaptive;
pub mod builder;
mod choice;
pub mod explain;
#[cfg(test)]
pub(crate) mod fixture;
pub mod gauge;
pub mod health;
pub mod places;
pub mod plan;
pub mod queue;
pub mod silence;
pub mod split;
pub mod table;

/// Whether an answer is passed on as it comes, or once it is whole.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AnswerMode {
    /// Frame by frame.
    Stream,
    /// In one piece: an answer without frames, or a stream that is held until all of it came.
    Whole,
}

impl AnswerMode {
    /// The mode of the answer to a call whose `stream` member has this value; `held`: streams are held until they are
    /// complete.
    pub fn of(stream: bool, held: bool) -> Self {
        if stream && !held { Self::Stream } else { Self::Whole }
    }
}

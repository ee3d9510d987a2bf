//! Attempts that ask for what a provider keeps, instead of for an answer: how long they take, and that they succeed, says
//! nothing of how the model answers.

use super::Permit;
use crate::domain::breaker::AttemptEnd;
use std::time::Instant;

impl Permit {
    /// Reports that what was asked for came, or was refused for the request's own sake. From here on nothing of the attempt
    /// counts: not that it lasts, nor how it ends.
    pub fn let_go(&mut self, now: Instant) {
        _ = self.credential.accepted(self.team, now);
        self.report(AttemptEnd::Neutral, None, now);
    }
}

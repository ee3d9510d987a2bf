//! The attempts of one request that are in flight, by number.
//!
//! At most two: the usual one lies inline, one started beside it behind a pointer, so that a request stays small.
//! The relay starts one at a time so far; whoever starts a second ends the one that lost before the request ends.

/// Something of an attempt in flight.
pub(super) trait AttemptNumbered {
    /// The attempt's number in the plan, from 1.
    fn number(&self) -> u32;
}

/// One value for each attempt in flight.
pub(super) struct InFlightAttempts<T> {
    first: Option<T>,
    second: Option<Box<T>>,
}

impl<T> Default for InFlightAttempts<T> {
    fn default() -> Self {
        Self { first: None, second: None }
    }
}

impl<T: AttemptNumbered> InFlightAttempts<T> {
    /// Adds an attempt.
    ///
    /// # Panics
    /// When two are in flight: the plan started one too many.
    pub(super) fn insert(&mut self, attempt: T) {
        if self.first.is_none() {
            self.first = Some(attempt);
            return;
        }
        assert!(self.second.is_none(), "no more than two attempts are in flight");
        self.second = Some(Box::new(attempt));
    }

    /// Attempt `number`, if it is in flight.
    pub(super) fn find(&self, number: u32) -> Option<&T> {
        self.first.iter().chain(self.second.as_deref()).find(|attempt| attempt.number() == number)
    }

    /// Takes attempt `number` out.
    pub(super) fn take(&mut self, number: u32) -> Option<T> {
        self.take_if(|attempt| attempt.number() == number)
    }

    /// Takes the first attempt out for which `condition` holds.
    pub(super) fn take_if(&mut self, condition: impl Fn(&T) -> bool) -> Option<T> {
        let first = self.first.take_if(|attempt| condition(attempt));
        first.or_else(|| self.second.take_if(|attempt| condition(attempt)).map(|attempt| *attempt))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl AttemptNumbered for u32 {
        fn number(&self) -> u32 {
            *self
        }
    }

    #[test]
    fn two_attempts_are_kept_apart_by_number() {
        let mut attempts = InFlightAttempts::default();
        attempts.insert(1);
        attempts.insert(2);
        assert_eq!((attempts.find(1), attempts.find(2), attempts.find(3)), (Some(&1), Some(&2), None));
        assert_eq!(attempts.take(1), Some(1));
        assert_eq!((attempts.take(1), attempts.find(2)), (None, Some(&2)));
        attempts.insert(3);
        assert_eq!(attempts.take_if(|number| *number > 1), Some(3));
        assert_eq!((attempts.take(2), attempts.take_if(|_| true)), (Some(2), None));
    }

    #[test]
    #[should_panic(expected = "no more than two")]
    fn a_third_is_a_fault() {
        let mut attempts = InFlightAttempts::default();
        [1, 2, 3].into_iter().for_each(|number| attempts.insert(number));
    }
}

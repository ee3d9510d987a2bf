//! Counts what passes of an answer: its parts, their text, its provider's last word on its tokens.
//!
//! It folds the moments that the grammar read and knows no JSON. It keeps a few numbers, never a part of the
//! answer.
//!
//! Start reading in [`AnswerMeter::note`].

use crate::domain::estimate::UsageTally;
use crate::domain::usage::Usage;
use crate::protocol::{Moment, UsageReport};

/// What was counted of one answer so far.
#[derive(Clone, Copy, Default, Debug)]
pub struct AnswerMeter {
    report: UsageReport,
    /// How many frames had carried a token at the time of that report.
    reported_at: u64,
    token_frames: u64,
    text_bytes: u64,
}

impl AnswerMeter {
    /// Takes note of one moment.
    #[inline]
    pub fn note(&mut self, moment: Moment) {
        match moment {
            Moment::Content { text_bytes } => {
                self.token_frames += 1;
                self.text_bytes += text_bytes;
            }
            Moment::Usage(report) => self.note_usage(report),
            Moment::Finish | Moment::Fault | Moment::End => {}
        }
    }

    /// The last usage that can be is the whole of it, also where there was one before: providers that count more
    /// than once begin at the beginning each time.
    fn note_usage(&mut self, report: UsageReport) {
        if report.usage.is_some() {
            (self.report, self.reported_at) = (report, self.token_frames);
        } else {
            self.report.is_impossible |= report.is_impossible && self.report.usage.is_none();
        }
    }

    /// The last usage reported.
    pub fn usage(&self) -> Option<Usage> {
        self.report.usage
    }

    /// Frames that carried a token.
    pub fn token_frames(&self) -> u64 {
        self.token_frames
    }

    /// What is known of the tokens of an answer. A count is final when no token came after it and the answer was
    /// complete: until then another count may follow, also after the finish.
    pub fn tally(&self, is_complete: bool) -> UsageTally {
        let over = is_complete && self.reported_at == self.token_frames;
        UsageTally {
            counted: self.report.usage,
            is_final: over && self.report.has_output,
            is_impossible: self.report.is_impossible,
            frames: self.token_frames,
            text_bytes: self.text_bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: Moment = Moment::Content { text_bytes: 3 };

    fn counted(output: Option<u64>) -> Moment {
        let usage = Usage { input: 5, output: output.unwrap_or(0), ..Usage::default() };
        Moment::Usage(UsageReport { usage: Some(usage), has_output: output.is_some(), is_impossible: false })
    }

    fn uncounted(is_impossible: bool) -> Moment {
        Moment::Usage(UsageReport { is_impossible, ..UsageReport::default() })
    }

    fn tally(moments: &[Moment], is_complete: bool) -> UsageTally {
        let mut meter = AnswerMeter::default();
        moments.iter().for_each(|moment| meter.note(*moment));
        meter.tally(is_complete)
    }

    #[test]
    fn a_count_is_final_when_nothing_came_after_it() {
        let (stop, usage, running) = (Moment::Finish, counted(Some(2)), counted(Some(1)));
        let check = |moments: &[Moment], is_complete: bool, output: Option<u64>, is_final: bool| {
            let tally = tally(moments, is_complete);
            let found = (tally.counted.map(|usage| usage.output), tally.is_final, tally.is_impossible);
            assert_eq!(found, (output, is_final, false), "{moments:?}");
            assert_eq!(tally.text_bytes, 3 * tally.frames, "{moments:?}");
        };
        check(&[TOKEN, stop, usage], true, Some(2), true);
        check(&[TOKEN, usage, stop], true, Some(2), true);
        // Its client left, or it broke, before `[DONE]`: the provider may have had another count to give.
        check(&[TOKEN, stop, usage], false, Some(2), false);
        check(&[TOKEN, usage, stop], false, Some(2), false);
        check(&[TOKEN, stop], true, None, false);
        // With every frame, each time from the beginning: the last is the whole, twice is not the sum.
        check(&[TOKEN, running, TOKEN, running, stop, usage, usage], true, Some(2), true);
        check(&[TOKEN, running, TOKEN, running], false, Some(1), false);
        check(&[TOKEN, running, TOKEN, stop], true, Some(1), false);
        check(&[usage, TOKEN, stop], true, Some(2), false);
        check(&[TOKEN, stop, counted(None)], true, Some(0), false);
        check(&[TOKEN, stop, usage, uncounted(false)], true, Some(2), true);
    }

    #[test]
    fn an_impossible_count_changes_nothing_that_was_counted() {
        let check = |moments: &[Moment], output: Option<u64>, is_impossible: bool| {
            let tally = tally(moments, true);
            assert_eq!((tally.counted.map(|usage| usage.output), tally.is_impossible), (output, is_impossible));
        };
        check(&[uncounted(true)], None, true);
        check(&[uncounted(false)], None, false);
        check(&[uncounted(true), uncounted(false)], None, true);
        check(&[counted(Some(1)), uncounted(true)], Some(1), false);
        check(&[uncounted(true), counted(Some(1))], Some(1), false);
    }
}

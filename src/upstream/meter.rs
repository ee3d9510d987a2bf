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
            Moment::Finish | Moment::Fault | Moment::Failed | Moment::End | Moment::Made(_) => {}
        }
    }

    /// The last usage that can be is the whole of it, also where there was one before: providers that count more
    /// than once begin at the beginning each time. A zero is how some of them write that they do not know: it never
    /// takes the place of a count.
    fn note_usage(&mut self, report: UsageReport) {
        let Some(mut usage) = report.usage else {
            self.report.is_impossible |= report.is_impossible && self.report.usage.is_none();
            return;
        };
        let earlier = self.report.usage.unwrap_or_default();
        if usage.input == 0 {
            usage.input = earlier.input;
        }
        if usage.input == earlier.input && usage.cached_input == 0 {
            usage.cached_input = earlier.cached_input;
        }
        let mut has_output = report.has_output;
        if usage.output == 0 && earlier.output > 0 {
            (usage.output, has_output) = (earlier.output, self.report.has_output);
        } else {
            self.reported_at = self.token_frames;
        }
        if usage.output == earlier.output && usage.reasoning == 0 {
            usage.reasoning = earlier.reasoning;
        }
        for (class, tokens) in earlier.apart.iter() {
            let is_same = if class.is_output() { usage.output == earlier.output } else { usage.input == earlier.input };
            if is_same && usage.apart.get(class) == 0 {
                usage.apart.set(class, tokens);
            }
        }
        self.report = UsageReport { usage: Some(usage), has_output, is_impossible: false };
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
        // No output is a count only where none was seen.
        let is_counted =
            self.report.has_output && (self.token_frames == 0 || self.usage().is_some_and(|u| u.output > 0));
        UsageTally {
            counted: self.report.usage,
            is_final: over && is_counted,
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
    fn a_zero_is_a_count_only_where_nothing_else_is() {
        let report = |input: u64, output: u64| {
            let usage = Usage { input, output, ..Usage::default() };
            Moment::Usage(UsageReport { usage: Some(usage), has_output: true, is_impossible: false })
        };
        let check = |moments: &[Moment], counted: (u64, u64), is_final: bool| {
            let tally = tally(moments, true);
            let found = tally.counted.map(|usage| (usage.input, usage.output));
            assert_eq!((found, tally.is_final), (Some(counted), is_final), "{moments:?}");
        };
        check(&[TOKEN, report(0, 0)], (0, 0), false);
        check(&[TOKEN, report(5, 0)], (5, 0), false);
        check(&[report(5, 0)], (5, 0), true);
        check(&[TOKEN, report(5, 7), report(0, 0)], (5, 7), true);
        check(&[TOKEN, report(5, 7), report(5, 0)], (5, 7), true);
        check(&[TOKEN, report(5, 7), report(0, 9)], (5, 9), true);
        check(&[report(5, 0), TOKEN, report(0, 7)], (5, 7), true);
        // A token after the count: it does not cover all of it.
        check(&[TOKEN, report(5, 7), TOKEN, report(0, 0)], (5, 7), false);
    }

    #[test]
    fn parts_that_are_not_repeated_stay() {
        let report = |[input, cached_input, output, reasoning]: [u64; 4]| {
            let mut usage = Usage { input, cached_input, ..Usage::default() };
            (usage.output, usage.reasoning) = (output, reasoning);
            Moment::Usage(UsageReport { usage: Some(usage), has_output: true, is_impossible: false })
        };
        let check = |reports: &[[u64; 4]], expected: [u64; 4]| {
            let moments: Vec<_> = std::iter::once(TOKEN).chain(reports.iter().copied().map(report)).collect();
            let usage = tally(&moments, true).counted.expect("there is a count");
            assert_eq!([usage.input, usage.cached_input, usage.output, usage.reasoning], expected, "{reports:?}");
        };
        check(&[[50, 40, 7, 3], [50, 0, 7, 0]], [50, 40, 7, 3]);
        check(&[[50, 40, 7, 3], [0, 0, 0, 0]], [50, 40, 7, 3]);
        check(&[[50, 40, 7, 3], [50, 30, 7, 2]], [50, 30, 7, 2]);
        // Another count, of which they are not known to be parts.
        check(&[[50, 40, 7, 3], [30, 0, 5, 0]], [30, 0, 5, 0]);
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

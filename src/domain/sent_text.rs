//! The text of an answer that its client has, and what of another answer to the same request is new beside it.
//!
//! It exists so that a stream that broke may go on with another deployment's answer: nothing that the client has is
//! sent again, and nothing is left out between what it has and what it gets. Text is compared by character, whatever
//! the pieces it comes in. It must never guess: where the two answers differ, that is an error.
//!
//! Start reading in [`SentText::take`].

/// The text that was sent so far, in the order in which it was sent: pieces of one kind after another are one run.
/// `K` tells kinds of text apart, such as reasoning and what follows it.
#[derive(Clone, Debug)]
pub struct SentText<K> {
    runs: Vec<(K, String)>,
    /// Bytes in all runs.
    bytes: usize,
    /// The run that is compared next; as many as there are once all were.
    run: usize,
    /// Bytes of that run which were compared.
    compared: usize,
}

/// The answer says something else than what was sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DivergenceError;

impl<K> Default for SentText<K> {
    fn default() -> Self {
        Self { runs: Vec::new(), bytes: 0, run: 0, compared: 0 }
    }
}

impl<K: Copy + PartialEq> SentText<K> {
    /// How many bytes of text were sent.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// From here on another answer is compared, from its beginning.
    pub fn compare_again(&mut self) {
        (self.run, self.compared) = (0, 0);
    }

    /// Whether all that was sent was compared: whatever follows is new.
    pub fn is_compared(&self) -> bool {
        self.run == self.runs.len()
    }

    /// The part of `text`, the next piece of an answer, that is new. It counts as sent from here on.
    ///
    /// # Errors
    /// [`DivergenceError`] where the answer differs from what was sent. Nothing of it may be used after that.
    pub fn take<'t>(&mut self, kind: K, text: &'t str) -> Result<&'t str, DivergenceError> {
        let mut left = text;
        while !left.is_empty() {
            let Some((sent_kind, sent)) = self.runs.get(self.run) else {
                self.add(kind, left);
                return Ok(left);
            };
            if *sent_kind != kind {
                return Err(DivergenceError);
            }
            let expected = &sent[self.compared..];
            if let Some(rest) = left.strip_prefix(expected) {
                (self.run, self.compared) = (self.run + 1, 0);
                left = rest;
            } else if expected.starts_with(left) {
                self.compared += left.len();
                return Ok("");
            } else {
                return Err(DivergenceError);
            }
        }
        Ok("")
    }

    fn add(&mut self, kind: K, text: &str) {
        match self.runs.last_mut() {
            Some((last, run)) if *last == kind => run.push_str(text),
            _ => self.runs.push((kind, text.to_owned())),
        }
        self.bytes += text.len();
        (self.run, self.compared) = (self.runs.len(), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type Pieces<'a> = &'a [(char, &'a str)];

    /// What is new of `replay` beside `sent`, and whether all that was sent was compared in the end.
    fn new_of(sent: Pieces<'_>, replay: Pieces<'_>) -> Result<(String, bool), DivergenceError> {
        let mut text = SentText::default();
        for (kind, piece) in sent {
            assert_eq!(text.take(*kind, piece), Ok(*piece), "what is first is new");
        }
        text.compare_again();
        let new: String =
            replay.iter().map(|(kind, piece)| text.take(*kind, piece)).collect::<Result<Vec<_>, _>>()?.concat();
        Ok((new, text.is_compared()))
    }

    #[test]
    fn what_was_sent_is_left_out_and_what_follows_is_new() {
        let check = |sent: Pieces<'_>, replay: Pieces<'_>, new: &str, is_compared: bool| {
            assert_eq!(new_of(sent, replay), Ok((new.to_owned(), is_compared)), "{sent:?} {replay:?}");
        };
        check(&[], &[('a', "Hello")], "Hello", true);
        check(&[('a', "Hel")], &[('a', "Hello")], "lo", true);
        check(&[('a', "H"), ('a', "el")], &[('a', "He"), ('a', "l"), ('a', "lo")], "lo", true);
        check(&[('a', "Hello")], &[('a', "Hel")], "", false);
        check(&[('a', "Hello")], &[('a', "Hello"), ('a', "")], "", true);
        check(&[('r', "why"), ('a', "H")], &[('r', "w"), ('r', "hy"), ('a', "Hi")], "i", true);
        check(&[('r', "why")], &[('r', "why not"), ('a', "Hi")], " notHi", true);
        check(&[('a', "é")], &[('a', "é!")], "!", true);
        check(&[], &[], "", true);
    }

    #[test]
    fn another_text_or_kind_diverges() {
        let check = |sent: Pieces<'_>, replay: Pieces<'_>| {
            assert_eq!(new_of(sent, replay), Err(DivergenceError), "{sent:?} {replay:?}");
        };
        check(&[('a', "Hello")], &[('a', "Help")]);
        check(&[('a', "Hello")], &[('a', "hello")]);
        check(&[('a', "Hello")], &[('r', "Hello")]);
        check(&[('r', "why"), ('a', "H")], &[('r', "why not")]);
        check(&[('r', "why"), ('a', "H")], &[('a', "H")]);
        // One character that begins with the same byte.
        check(&[('a', "é")], &[('a', "è")]);
    }

    #[test]
    fn an_answer_that_went_on_may_be_compared_once_more() {
        let mut text = SentText::default();
        assert_eq!(text.take('a', "ab"), Ok("ab"));
        for (piece, new) in [("abc", "c"), ("abcd", "d")] {
            text.compare_again();
            assert_eq!(text.take('a', piece), Ok(new));
        }
        assert_eq!(text.bytes(), 4);
        text.compare_again();
        assert_eq!(text.take('a', "abx"), Err(DivergenceError));
    }

    /// `text` in pieces of so many characters.
    fn pieces(text: &str, sizes: &[usize]) -> Vec<String> {
        let mut left: Vec<char> = text.chars().collect();
        let mut all = Vec::new();
        for size in sizes.iter().cycle() {
            if left.is_empty() {
                break;
            }
            all.push(left.drain(..(*size).min(left.len())).collect());
        }
        all
    }

    proptest! {
        /// However both answers are cut, the client has each character once.
        #[test]
        fn no_character_is_lost_or_doubled(
            text in "[a-c\u{e9}\u{1f600}\\n\"]{0,40}",
            sent in 0..40_usize,
            first in prop::collection::vec(1..5_usize, 1..6),
            second in prop::collection::vec(1..5_usize, 1..6),
        ) {
            let had: String = text.chars().take(sent).collect();
            let mut known = SentText::default();
            for piece in pieces(&had, &first) {
                prop_assert_eq!(known.take((), &piece), Ok(&*piece));
            }
            known.compare_again();
            let mut received = had.clone();
            for piece in pieces(&text, &second) {
                received += known.take((), &piece).expect("it is the same text");
            }
            prop_assert_eq!(received, text);
            prop_assert!(known.is_compared());
        }

        /// Another answer adds nothing before it is known to be another one, wherever it differs.
        #[test]
        fn another_answer_is_found_before_it_adds_anything(
            text in "[ab]{1,30}",
            at in 0..30_usize,
            sizes in prop::collection::vec(1..5_usize, 1..6),
        ) {
            let at = at % text.len();
            let other: String = text.char_indices().map(|(i, c)| if i == at { 'x' } else { c }).collect();
            let mut known = SentText::default();
            prop_assert_eq!(known.take((), &text), Ok(&*text));
            known.compare_again();
            let mut found = false;
            for piece in pieces(&other, &sizes) {
                match known.take((), &piece) {
                    Ok(new) => prop_assert_eq!(new, ""),
                    Err(DivergenceError) => {
                        found = true;
                        break;
                    }
                }
            }
            prop_assert!(found);
        }
    }
}

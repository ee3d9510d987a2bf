//! Reads JSON text once, strictly, and builds nothing: the caller learns where the members of an
//! object are. What passes is the grammar of RFC 8259, nested at most [`MAX_DEPTH`] levels, and no
//! string with half a surrogate pair, which is no character and which strict readers refuse.
//!
//! It never decodes, copies or judges a value.
//!
//! Start reading in [`object`].

use std::ops::{Range, RangeInclusive};

/// How deep objects and lists may nest, the outermost counted.
pub const MAX_DEPTH: usize = 128;

const LEADING: RangeInclusive<u16> = 0xD800..=0xDBFF;
const TRAILING: RangeInclusive<u16> = 0xDC00..=0xDFFF;

/// Why text does not pass, and at which byte.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum JsonError {
    /// It is not JSON, or not of the kind asked for.
    Grammar(usize),
    /// It nests deeper than [`MAX_DEPTH`] levels.
    TooDeep(usize),
    /// An escape spells half a surrogate pair.
    HalfSurrogate(usize),
}

/// Reads the object that fills `text` from `start` on, white space aside, and calls `member` for each
/// of its members, at its value, with the place of the name, its quotes included: it must read the value.
///
/// # Errors
/// The first [`JsonError`]; `member` was then called for the members before it.
pub fn object<'a>(
    text: &'a str,
    start: usize,
    member: impl FnMut(&mut Scanner<'a>, Range<usize>) -> Result<(), JsonError>,
) -> Result<(), JsonError> {
    let mut scanner = Scanner::new(text, start);
    scanner.skip_space();
    scanner.object(member)?;
    scanner.end()
}

/// Reads the value at `start` of `text`, which `read` must read; what follows it is not looked at.
///
/// # Errors
/// The first [`JsonError`].
pub fn value_at<'a>(
    text: &'a str,
    start: usize,
    read: impl FnOnce(&mut Scanner<'a>) -> Result<(), JsonError>,
) -> Result<(), JsonError> {
    read(&mut Scanner::new(text, start))
}

/// How many elements the list has that fills `text`.
///
/// # Errors
/// The first [`JsonError`].
pub fn list_len(text: &str) -> Result<usize, JsonError> {
    let mut scanner = Scanner::new(text, 0);
    let mut len = 0;
    scanner.list(|scanner| {
        len += 1;
        scanner.value()
    })?;
    scanner.end()?;
    Ok(len)
}

/// A position in text; each method moves it behind what the method is named for, or returns why that is not there.
pub struct Scanner<'a> {
    text: &'a [u8],
    /// The next byte to read.
    at: usize,
    /// How many objects and lists are open.
    depth: usize,
}

impl<'a> Scanner<'a> {
    fn new(text: &'a str, start: usize) -> Self {
        Self { text: text.as_bytes(), at: start, depth: 0 }
    }

    /// Reads a value, whatever is in it.
    ///
    /// # Errors
    /// The first [`JsonError`].
    pub fn value(&mut self) -> Result<(), JsonError> {
        match self.next() {
            Some(b'"') => self.string(),
            Some(b'{') => self.object(|scanner, _| scanner.value()),
            Some(b'[') => self.list(Self::value),
            Some(b't') => self.word(b"true"),
            Some(b'f') => self.word(b"false"),
            Some(b'n') => self.word(b"null"),
            _ => self.number(),
        }
    }

    /// Reads a value, and returns its place.
    ///
    /// # Errors
    /// The first [`JsonError`].
    pub fn value_span(&mut self) -> Result<Range<usize>, JsonError> {
        let start = self.at;
        self.value()?;
        Ok(start..self.at)
    }

    /// Reads an object, and calls `member` for each of its members as [`object`] does.
    ///
    /// # Errors
    /// The first [`JsonError`].
    pub fn object(
        &mut self,
        mut member: impl FnMut(&mut Self, Range<usize>) -> Result<(), JsonError>,
    ) -> Result<(), JsonError> {
        self.open(b'{')?;
        let mut more = !self.close(b'}');
        while more {
            let name = self.at;
            self.string()?;
            let name = name..self.at;
            self.skip_space();
            self.byte(b':')?;
            self.skip_space();
            member(self, name)?;
            more = self.comma_or(b'}')?;
        }
        Ok(())
    }

    /// Reads a list, and calls `element` at each of its elements: it must read it.
    ///
    /// # Errors
    /// The first [`JsonError`].
    pub fn list(&mut self, mut element: impl FnMut(&mut Self) -> Result<(), JsonError>) -> Result<(), JsonError> {
        self.open(b'[')?;
        let mut more = !self.close(b']');
        while more {
            element(self)?;
            more = self.comma_or(b']')?;
        }
        Ok(())
    }

    /// An opening bracket and the space behind it.
    fn open(&mut self, bracket: u8) -> Result<(), JsonError> {
        self.byte(bracket)?;
        if self.depth == MAX_DEPTH {
            return Err(JsonError::TooDeep(self.at - 1));
        }
        self.depth += 1;
        self.skip_space();
        Ok(())
    }

    /// The closing bracket, if it is next.
    fn close(&mut self, bracket: u8) -> bool {
        let closes = self.take(bracket);
        self.depth -= usize::from(closes);
        closes
    }

    /// What follows an element: a comma, the space around it, and thus another element (`true`), or
    /// the closing bracket.
    fn comma_or(&mut self, bracket: u8) -> Result<bool, JsonError> {
        self.skip_space();
        if self.close(bracket) {
            return Ok(false);
        }
        self.byte(b',')?;
        self.skip_space();
        Ok(true)
    }

    fn string(&mut self) -> Result<(), JsonError> {
        self.byte(b'"')?;
        let mut at = self.at;
        loop {
            at = plain_end(self.text, at);
            match &self.text[at..] {
                [b'"', ..] => break,
                [b'\\', b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't', ..] => at += 2,
                [b'\\', b'u', ..] => at = self.after_unicode(at)?,
                _ => return Err(JsonError::Grammar(at)),
            }
        }
        self.at = at + 1;
        Ok(())
    }

    /// Where the text goes on after a `\uXXXX` at `at`, or after the two that spell one character.
    fn after_unicode(&self, at: usize) -> Result<usize, JsonError> {
        let unit = self.code_unit(at).ok_or(JsonError::Grammar(at))?;
        if LEADING.contains(&unit) && self.code_unit(at + 6).is_some_and(|next| TRAILING.contains(&next)) {
            return Ok(at + 12);
        }
        if LEADING.contains(&unit) || TRAILING.contains(&unit) {
            return Err(JsonError::HalfSurrogate(at));
        }
        Ok(at + 6)
    }

    /// The UTF-16 code unit that a `\uXXXX` at `at` spells.
    fn code_unit(&self, at: usize) -> Option<u16> {
        let hex = self.text.get(at..at + 6)?.strip_prefix(b"\\u")?;
        let digit = |byte: u8| char::from(byte).to_digit(16);
        hex.iter().try_fold(0, |unit, byte| Some(unit << 4 | digit(*byte)? as u16))
    }

    fn number(&mut self) -> Result<(), JsonError> {
        self.take(b'-');
        // A zero leads nothing: a digit behind it is an error for whoever reads on.
        if !self.take(b'0') {
            self.digits()?;
        }
        if self.take(b'.') {
            self.digits()?;
        }
        if self.take(b'e') || self.take(b'E') {
            let _sign = self.take(b'+') || self.take(b'-');
            self.digits()?;
        }
        Ok(())
    }

    /// One digit or more.
    fn digits(&mut self) -> Result<(), JsonError> {
        let start = self.at;
        while self.next().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        if self.at == start { Err(self.error()) } else { Ok(()) }
    }

    fn word(&mut self, word: &[u8]) -> Result<(), JsonError> {
        if !self.text[self.at..].starts_with(word) {
            return Err(self.error());
        }
        self.at += word.len();
        Ok(())
    }

    /// The end of the text, and space before it.
    fn end(&mut self) -> Result<(), JsonError> {
        self.skip_space();
        if self.at == self.text.len() { Ok(()) } else { Err(self.error()) }
    }

    fn skip_space(&mut self) {
        while matches!(self.next(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn byte(&mut self, byte: u8) -> Result<(), JsonError> {
        if self.take(byte) { Ok(()) } else { Err(self.error()) }
    }

    /// Whether `byte` is next; goes behind it.
    fn take(&mut self, byte: u8) -> bool {
        let there = self.next() == Some(byte);
        self.at += usize::from(there);
        there
    }

    /// Where the next byte to read is.
    pub fn at(&self) -> usize {
        self.at
    }

    /// The next byte.
    pub fn next(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn error(&self) -> JsonError {
        JsonError::Grammar(self.at)
    }
}

/// Where the first byte at or after `at` is that does not mean itself in a string: a quote,
/// a backslash, a control character; the end of the text if there is none.
///
/// Most stretches are a few machine words long, and words find the exact end; long ones are searched in
/// blocks, which the compiler turns into vector instructions.
#[inline]
fn plain_end(text: &[u8], mut at: usize) -> usize {
    while let Some(block) = block_at(text, at) {
        for (index, word) in block.as_chunks().0.iter().enumerate() {
            let stops = stops(*word);
            if stops != 0 {
                return at + index * WORD + stops.trailing_zeros() as usize / 8;
            }
        }
        at += BLOCK;
        while block_at(text, at).is_some_and(|block| !block.iter().fold(false, |stop, byte| stop | is_stop(*byte))) {
            at += BLOCK;
        }
    }
    at + text[at..].iter().position(|byte| is_stop(*byte)).unwrap_or(text.len() - at)
}

const WORD: usize = 8;
const BLOCK: usize = 32;

fn block_at(text: &[u8], at: usize) -> Option<&[u8; BLOCK]> {
    text[at..].first_chunk()
}

/// One bit swaps the quote with the space and keeps control characters among themselves, so that one
/// comparison finds both.
fn is_stop(byte: u8) -> bool {
    byte ^ (b'"' ^ b' ') <= b' ' || byte == b'\\'
}

/// [`is_stop`] of eight bytes at once: the lowest bit set is in the first byte that is one. Bits above
/// it may be wrong, as a subtraction borrows from the bytes behind.
fn stops(word: [u8; WORD]) -> u64 {
    let each = |byte: u8| u64::from_ne_bytes([byte; WORD]);
    let word = u64::from_le_bytes(word);
    let below = |word: u64, limit: u8| word.wrapping_sub(each(limit)) & !word;
    let quotes_and_controls = below(word ^ each(b'"' ^ b' '), b' ' + 1);
    let backslashes = below(word ^ each(b'\\'), 1);
    (quotes_and_controls | backslashes) & each(0x80)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What becomes of one value, from its first byte on.
    fn value(text: &str) -> Result<(), JsonError> {
        let mut scanner = Scanner::new(text, 0);
        scanner.value()?;
        scanner.end()
    }

    fn check(text: impl AsRef<str>, expected: Result<(), JsonError>) {
        assert_eq!(value(text.as_ref()), expected, "{}", text.as_ref());
    }

    #[test]
    fn nesting_is_counted_outside_strings_only() {
        let nested = |open: &str, close: &str, depth| open.repeat(depth) + &close.repeat(depth);
        let too_deep = |at| Err(JsonError::TooDeep(at));
        check(nested("[", "]", 128), Ok(()));
        check(nested("[", "]", 129), too_deep(128));
        check(format!("{}0{}", "{\"\":".repeat(128), "}".repeat(128)), Ok(()));
        check("{\"\":".repeat(129), too_deep(512));

        check("{\"a\":[".repeat(65), too_deep(384));
        check(format!("[{}[]]", "[],{},".repeat(500)), Ok(()));
        check(format!("[\"{}\"]", "[".repeat(500)), Ok(()));
        check(format!("[\"\\\"{}\"]", "[".repeat(500)), Ok(()));
        check(format!("[\"\\\\\",{}", "[".repeat(128)), too_deep(133));
        check(format!("\"{}", "[".repeat(500)), Err(JsonError::Grammar(501)));
    }

    #[test]
    fn surrogates_come_in_pairs() {
        let half = |at| Err(JsonError::HalfSurrogate(at));
        check(r#""\ud83d\ude00 \uD83D\uDE00 \u00e9 \uE000""#, Ok(()));
        check(r#""\ud83d""#, half(1));
        check(r#""ab\ude00""#, half(3));
        check(r#""\ud83d\ud83d\ude00""#, half(1));
        check(r#""\ud83d\u0041""#, half(1));
        check(r#""\ud83d\uzzzz""#, half(1));
        check(r#""\\ud83d""#, Ok(()));
        check(r#"{"\udc00":1}"#, half(2));
    }

    #[test]
    fn the_first_error_is_reported_with_its_place() {
        let cases = [
            ("", 0),
            ("\"", 1),
            ("\"\\", 1),
            ("\"\\u", 1),
            ("\"\\ud8", 1),
            ("\"\\uzzzz\"", 1),
            ("\"\\u+123\"", 1),
            ("\"ab\u{1f}\"", 3),
            ("]]}}", 0),
            ("01", 1),
            ("-", 1),
            ("1.e5", 2),
            ("[1,]", 3),
            ("{\"a\":1,}", 7),
            ("{\"a\" 1}", 5),
            ("truE", 0),
            ("null null", 5),
        ];
        for (text, at) in cases {
            check(text, Err(JsonError::Grammar(at)));
        }
    }

    #[test]
    fn members_are_reported_where_they_are() {
        let text = r#"xx { "a" : [1, {"b": 2}] ,"\u0063":"}"} "#;
        let mut found = Vec::new();
        let note = |scanner: &mut Scanner<'_>, name| {
            let value = scanner.value_span()?;
            found.push((&text[name], &text[value]));
            Ok(())
        };
        assert_eq!(object(text, 2, note), Ok(()));
        assert_eq!(found, [(r#""a""#, r#"[1, {"b": 2}]"#), (r#""\u0063""#, r#""}""#)]);
        assert_eq!(object("[]", 0, |_, _| Ok(())), Err(JsonError::Grammar(0)));
        assert_eq!(object("{} {}", 0, |_, _| Ok(())), Err(JsonError::Grammar(3)));
    }

    #[test]
    fn elements_are_counted() {
        for (text, expected) in [("[]", 0), ("[ ]", 0), ("[1]", 1), (r#"["a,b", [2, 3] ,{"c":[]}]"#, 3)] {
            assert_eq!(list_len(text), Ok(expected), "{text}");
        }
    }

    /// Every byte at every place of a text longer than a block, so that words, blocks and the rest all
    /// meet it.
    #[test]
    fn plain_text_ends_where_it_ends() {
        for byte in 0..=u8::MAX {
            let stops = byte < 0x20 || byte == b'"' || byte == b'\\';
            for at in 0..3 * BLOCK {
                for filler in [b' ', b'!', b'#', b'[', b']', 0x7f, 0x80, 0xff] {
                    let mut text = [filler; 3 * BLOCK];
                    text[at] = byte;
                    let expected = if stops { at } else { text.len() };
                    assert_eq!(plain_end(&text, 0), expected, "{byte:#x} at {at} among {filler:#x}");
                }
            }
        }
    }

    proptest! {
        /// What the whole-tree reader, which checks surrogates, says of any string.
        #[test]
        fn agrees_with_a_whole_reader(pieces in prop::collection::vec(prop::sample::select(vec![
            "a", "\\\\", "\\\"", "\\u0041", "\\ud83d", "\\ude00", "\\uDBFF", "\\uDC00", "\\n", "é",
        ]), 0..12)) {
            let text = format!("\"{}\"", pieces.concat());
            prop_assert_eq!(value(&text).is_ok(), serde_json::from_str::<String>(&text).is_ok());
        }
    }
}

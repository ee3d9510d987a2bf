//! What a client wrote, made safe to look at.
//!
//! It exists so that logs, the ledger and reports show the same: a name shortened, and without the
//! characters that a terminal obeys. It must never be used to compare or to route.

use std::borrow::Cow;

/// A client may write a model's name as long as a body; nobody reads one this long.
const LONGEST: usize = 256;

/// `text` shortened, and without the characters that a terminal obeys: JSON escapes the lower control
/// characters only.
pub fn readable(text: &str) -> Cow<'_, str> {
    if text.len() <= LONGEST && text.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic()) {
        return Cow::Borrowed(text);
    }
    let mut short: String = text.chars().take(LONGEST).map(|c| if is_obeyed(c) { '\u{fffd}' } else { c }).collect();
    if text.chars().nth(LONGEST).is_some() {
        short.push('…');
    }
    Cow::Owned(short)
}

/// Control characters, line and paragraph separators, and those that turn the direction of writing.
fn is_obeyed(c: char) -> bool {
    c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

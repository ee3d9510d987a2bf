//! Text from clients, made safe to display.
//!
//! It exists so that logs, the ledger and reports show the same: a name shortened, and without the
//! characters that control a terminal. It must never be used to compare or to route.

use std::borrow::Cow;

/// The longest text that is shown, in characters: a model's name may be as long as a body.
const LONGEST: usize = 256;

/// `text` shortened, and without the characters that control a terminal: JSON escapes the lower control
/// characters only.
pub fn readable(text: &str) -> Cow<'_, str> {
    if text.len() <= LONGEST && text.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic()) {
        return Cow::Borrowed(text);
    }
    let mut short: String =
        text.chars().take(LONGEST).map(|c| if controls_terminal(c) { '\u{fffd}' } else { c }).collect();
    if text.chars().nth(LONGEST).is_some() {
        short.push('…');
    }
    Cow::Owned(short)
}

/// Control characters, line and paragraph separators, and those that change the writing direction.
pub fn controls_terminal(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

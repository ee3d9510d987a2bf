//! What a body is, judged by its first bytes: hosts label event streams as JSON, JSON as event streams, and both as
//! text or as nothing.
//!
//! It never reads further than it must, and never reads a label.
//!
//! Start reading in [`BodyKind::of`].

/// The mark that some tools put before a text in UTF-8.
pub const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";
/// How the first line of an event stream begins: with the name of a field, or as a comment.
const FIELDS: [&[u8]; 5] = [b"data:", b"event:", b"id:", b"retry:", b":"];

/// What a body is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BodyKind {
    /// Server-sent events.
    Events,
    /// One JSON text.
    Json,
    /// Neither: a page, a sentence, nothing at all.
    Other,
}

impl BodyKind {
    /// What a body is that begins with `start`; `None` where it takes more bytes to know. White space and a byte order
    /// mark say nothing: hosts send white space to keep a connection alive.
    pub fn of(start: &[u8]) -> Option<Self> {
        let text = start.strip_prefix(BYTE_ORDER_MARK).unwrap_or(start).trim_ascii_start();
        match text.first() {
            None => None,
            Some(b'{' | b'[') => Some(Self::Json),
            Some(_) if FIELDS.iter().any(|field| text.starts_with(field)) => Some(Self::Events),
            Some(_) if FIELDS.iter().any(|field| field.starts_with(text)) => None,
            Some(_) if BYTE_ORDER_MARK.starts_with(text) => None,
            Some(_) => Some(Self::Other),
        }
    }

    /// Whether a line behind the first one is data of an event: then the first is a field that no standard names, which
    /// every reader of events skips. No JSON has such a line.
    pub fn has_data_line(start: &[u8]) -> bool {
        let breaks = memchr::memchr2_iter(b'\n', b'\r', start);
        breaks.into_iter().any(|at| start[at + 1..].starts_with(b"data:"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_what_its_first_bytes_are() {
        let check = |start: &[u8], expected: Option<BodyKind>| {
            assert_eq!(BodyKind::of(start), expected, "{}", start.escape_ascii());
        };
        for events in ["data: {}", "event: x", "id: 1", "retry:5", ": hi", ":", "\n\ndata:", "\u{feff}data:", " data: "]
        {
            check(events.as_bytes(), Some(BodyKind::Events));
        }
        for json in ["{", "{\"data: \"", " \r\n\t{}", "\u{feff}{", "\u{feff}\n[1]"] {
            check(json.as_bytes(), Some(BodyKind::Json));
        }
        for unclear in ["", " ", "\n\n\n", "d", "data", "\nretr", "i", "\u{feff}", "\u{feff}eve"] {
            check(unclear.as_bytes(), None);
        }
        check(b"\xEF", None);
        check(b"\xEF\xBB", None);
        for (text, has_data) in
            [("x: 1\ndata: {}", true), ("}\rdata:", true), ("x: data: 1\n data:", false), ("\n", false)]
        {
            assert_eq!(BodyKind::has_data_line(text.as_bytes()), has_data, "{text:?}");
        }
        for other in ["<html>", "date: x", "dat:", "upstream connect error", "\"x\"", "1", "\u{feff}x"] {
            check(other.as_bytes(), Some(BodyKind::Other));
        }
    }
}

//! Reads a Server-Sent Events stream frame by frame, made for passing it on byte for byte.
//! Line endings (LF, CR, CRLF, mixed), comments, the byte order mark and the field rules are those
//! of the HTML standard, section 9.2; only a last frame without its blank line, which the standard
//! drops, is returned here too, marked as such, and a byte order mark is skipped before any line, not the
//! first alone: some hosts write one with each event, and the official Node client skips it.
//!
//! It never loses, adds or alters a byte: the `raw` of all frames, joined, is the input. It never
//! looks inside a payload, never waits for a byte it does not need, and looks at each byte once
//! however the stream is cut into chunks.
//!
//! Start reading in [`SseReader::next_frame`].

use std::collections::VecDeque;
use std::ops::Range;

use super::Event;
use super::body_kind::BYTE_ORDER_MARK;
use bytes::{Buf, Bytes, BytesMut};
use memchr::{memchr, memchr2};

/// Cuts chunks of bytes into frames.
///
/// Push a chunk, then call [`next_frame`](Self::next_frame) until it returns `None`; at the end of
/// the stream call [`finish`](Self::finish). Memory stays below one frame plus the chunks pushed.
///
/// A carriage return at the very end of a chunk may be half of a CRLF. When it closes a frame, that
/// frame is returned at once all the same; the line feed, should it follow, becomes a frame of its
/// own: one blank line and no data, harmless to every reader, and no client that splits
/// on `\r\n\r\n` has to wait for the next event to see the last one.
#[derive(Debug)]
pub struct SseReader {
    max_frame_bytes: usize,
    /// The unfinished frame's bytes from earlier chunks; empty while it lies within `chunk`.
    carry: BytesMut,
    /// The part of the newest chunk that follows `carry`.
    chunk: Bytes,
    /// Chunks pushed before the former ones were read to their end.
    waiting: VecDeque<Bytes>,
    /// Where in the unfinished frame (`carry`, then `chunk`) the current line begins.
    line_start: usize,
    /// How much of the unfinished frame was looked at; never less than `carry` holds.
    scanned: usize,
    /// The last byte looked at was a carriage return: a line feed now belongs to it.
    after_cr: bool,
    fields: FrameFields,
    failed: bool,
}

/// One event of the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// The bytes exactly as they came, the closing blank line included.
    /// A slice of the chunk when the frame lies within one, else a copy.
    pub raw: Bytes,
    /// The payload of the `data` lines, joined by line feeds; a slice of `raw` when there is one
    /// line. `None` without any `data` line, empty for a bare `data:`.
    pub data: Option<Bytes>,
    /// The value of the last `event` line, unless empty.
    pub event_name: Option<Bytes>,
    /// Whether its blank line came; `false` only for what [`SseReader::finish`] returns last.
    pub terminated: bool,
}

impl Frame {
    /// The event it carries; `None` for comments, blank payloads and nothing but a blank line.
    pub fn event(&self) -> Option<Event<'_>> {
        let payload = self.data.as_deref().filter(|data| !data.trim_ascii().is_empty())?;
        Some(Event { name: self.event_name.as_deref(), payload, terminated: self.terminated })
    }

    /// Takes away the name of its event; all but its payload goes with it.
    pub fn unname(&mut self) {
        self.event_name = None;
        self.raw = Bytes::new();
    }

    /// Passes `write` the frame without the bytes of its payload at `cut`, in order; nothing where it has none.
    pub fn write_without(&self, cut: Range<usize>, mut write: impl FnMut(&[u8])) {
        let Some(payload) = &self.data else { return };
        if let Some(at) = place_in(&self.raw, payload) {
            write(&self.raw[..at + cut.start]);
            write(&self.raw[at + cut.end..]);
            return;
        }
        // The payload came in several `data` lines and is a text of its own: it goes out line by line.
        if let Some(name) = &self.event_name {
            write(&[b"event: ", &name[..], b"\n"].concat());
        }
        let left = [&payload[..cut.start], &payload[cut.end..]].concat();
        for line in left.split(|&byte| byte == b'\n') {
            write(&[b"data: ", line, b"\n"].concat());
        }
        if self.terminated {
            write(b"\n");
        }
    }
}

/// Where `part` lies in `all`, when it is a slice of it.
fn place_in(all: &Bytes, part: &Bytes) -> Option<usize> {
    let at = part.as_ptr().addr().checked_sub(all.as_ptr().addr())?;
    (at.checked_add(part.len())? <= all.len()).then_some(at)
}

/// A comment: clients ignore it, and proxies on the way see that the stream is alive.
pub const KEEP_ALIVE_COMMENT: &[u8] = b": keep-alive\n\n";
/// An empty line between events: clients ignore it.
pub const BLANK_LINE: &[u8] = b"\n";

/// What a last frame without its blank line lacks.
pub fn missing_end(raw: &[u8]) -> &'static [u8] {
    if raw.ends_with(b"\n") { b"\n" } else { b"\n\n" }
}

/// Whether `bytes` of a stream end with a whole frame.
pub fn ends_frame(bytes: &[u8]) -> bool {
    [&b"\n\n"[..], b"\r\n\r\n", b"\r\r"].iter().any(|end| bytes.ends_with(end))
}

/// Why a stream cannot be read on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SseError {
    /// A frame is larger than the reader holds.
    #[error("a frame of the stream is larger than {max_frame_bytes} bytes")]
    FrameTooLarge {
        /// The limit that was passed.
        max_frame_bytes: usize,
    },
}

impl SseReader {
    /// A reader that holds at most `max_frame_bytes` of an unfinished frame. (The line feed of a
    /// closing CRLF is not counted, as it may come after the frame was returned.)
    pub fn new(max_frame_bytes: usize) -> Self {
        Self {
            max_frame_bytes,
            carry: BytesMut::new(),
            chunk: Bytes::new(),
            waiting: VecDeque::new(),
            line_start: 0,
            scanned: 0,
            after_cr: false,
            fields: FrameFields::default(),
            failed: false,
        }
    }

    /// How many bytes of an unfinished frame are held.
    #[inline]
    pub fn held(&self) -> usize {
        self.carry.len()
    }

    /// Takes the next bytes of the stream.
    pub fn push(&mut self, chunk: Bytes) {
        if self.failed {
            return;
        }
        if self.chunk.is_empty() && self.waiting.is_empty() {
            self.chunk = chunk;
        } else {
            self.waiting.push_back(chunk);
        }
    }

    /// The next complete frame; `None` when it takes more bytes to know.
    ///
    /// # Errors
    ///
    /// [`SseError::FrameTooLarge`], from then on at every call.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, SseError> {
        if self.failed {
            return Err(self.too_large());
        }
        loop {
            if self.chunk.is_empty() {
                match self.waiting.pop_front() {
                    Some(chunk) => self.chunk = chunk,
                    None => return Ok(None),
                }
            }
            if let Some(line_feed) = self.rest_of_crlf() {
                return Ok(Some(line_feed));
            }
            let Some(end) = self.line_end() else {
                self.check_size(self.carry.len() + self.chunk.len())?;
                self.carry_over(self.chunk.len());
                continue;
            };
            let next_line = self.skip_line_ending(end);
            if self.take_line(end, next_line)? {
                return Ok(Some(self.take_frame(next_line, true)));
            }
        }
    }

    /// At the end of the stream: what is left, complete frames first, then a last frame whose blank
    /// line never came (`terminated: false`). Call until `None`. After an error nothing is left.
    pub fn finish(&mut self) -> Option<Frame> {
        match self.next_frame() {
            Ok(Some(frame)) => return Some(frame),
            Ok(None) => {}
            Err(SseError::FrameTooLarge { .. }) => return None,
        }
        // Having found no further frame, `next_frame` left all bytes in the carry.
        let len = self.carry.len();
        if len == 0 {
            return None;
        }
        self.note_line(len);
        Some(self.take_frame(len, false))
    }

    /// Steps over the line feed of a CRLF that was cut by a chunk's end. When the carriage return
    /// had closed a frame already, the line feed is a frame.
    fn rest_of_crlf(&mut self) -> Option<Frame> {
        let next = *self.chunk.get(self.scanned - self.carry.len())?;
        if !std::mem::take(&mut self.after_cr) || next != b'\n' {
            return None;
        }
        if self.scanned == 0 {
            return Some(self.take_frame(1, true));
        }
        self.scanned += 1;
        self.line_start = self.scanned;
        None
    }

    /// Where the current line's first ending byte is, in the unfinished frame.
    fn line_end(&self) -> Option<usize> {
        let unseen = &self.chunk[self.scanned - self.carry.len()..];
        memchr2(b'\n', b'\r', unseen).map(|offset| self.scanned + offset)
    }

    /// Where the line after the one that ends at `end` begins.
    fn skip_line_ending(&mut self, end: usize) -> usize {
        let ending = &self.chunk[end - self.carry.len()..];
        match (ending[0], ending.get(1)) {
            (b'\r', Some(b'\n')) => end + 2,
            (b'\r', None) => {
                self.after_cr = true;
                end + 1
            }
            _ => end + 1,
        }
    }

    /// Takes note of the line that ends at `end`; whether it is the blank line that ends a frame.
    fn take_line(&mut self, end: usize, next_line: usize) -> Result<bool, SseError> {
        if !self.carry.is_empty() {
            self.carry_over(next_line - self.carry.len());
        }
        let blank = self.note_line(end);
        self.check_size(if blank { end + 1 } else { next_line })?;
        self.line_start = next_line;
        self.scanned = next_line;
        Ok(blank)
    }

    /// Reads the field in the line that ends at `end`; whether the line is blank.
    fn note_line(&mut self, end: usize) -> bool {
        let so_far: &[u8] = if self.carry.is_empty() { &self.chunk } else { &self.carry };
        // Before any other line it is a part of a name that no field has, and alone it is no blank line.
        let is_marked = self.line_start == 0 && so_far[..end].starts_with(BYTE_ORDER_MARK);
        let start = self.line_start + if is_marked { BYTE_ORDER_MARK.len() } else { 0 };
        self.fields.note(so_far, start..end);
        self.line_start == end
    }

    /// Moves bytes from the chunk to the carry: the frame does not lie within one chunk.
    fn carry_over(&mut self, len: usize) {
        self.carry.extend_from_slice(&self.chunk[..len]);
        self.chunk.advance(len);
        self.scanned = self.carry.len();
    }

    /// Cuts off the first `len` bytes as a frame and begins the next one.
    fn take_frame(&mut self, len: usize, terminated: bool) -> Frame {
        let raw = if self.carry.is_empty() { self.chunk.split_to(len) } else { self.carry.split().freeze() };
        self.line_start = 0;
        self.scanned = 0;
        std::mem::take(&mut self.fields).into_frame(raw, terminated)
    }

    fn check_size(&mut self, frame_bytes: usize) -> Result<(), SseError> {
        if frame_bytes <= self.max_frame_bytes {
            return Ok(());
        }
        self.failed = true;
        self.carry = BytesMut::new();
        self.chunk = Bytes::new();
        self.waiting = VecDeque::new();
        Err(self.too_large())
    }

    fn too_large(&self) -> SseError {
        SseError::FrameTooLarge { max_frame_bytes: self.max_frame_bytes }
    }
}

/// What the lines of the unfinished frame hold so far, as places in it.
#[derive(Debug, Default)]
struct FrameFields {
    data: DataLines,
    event: Option<Range<usize>>,
}

#[derive(Debug, Default)]
enum DataLines {
    #[default]
    None,
    /// One `data` line, the common case: nothing is copied.
    Line(Range<usize>),
    /// Several, joined by line feeds.
    Joined(BytesMut),
}

impl FrameFields {
    /// Reads the line at `line` of `frame`.
    fn note(&mut self, frame: &[u8], line: Range<usize>) {
        let text = &frame[line.clone()];
        let colon = memchr(b':', text).unwrap_or(text.len());
        let mut value = (line.start + colon + 1).min(line.end)..line.end;
        if frame[value.clone()].first() == Some(&b' ') {
            value.start += 1;
        }
        match &text[..colon] {
            b"data" => self.data.append(frame, value),
            b"event" => self.event = Some(value),
            _ => {}
        }
    }

    fn into_frame(self, raw: Bytes, terminated: bool) -> Frame {
        let data = match self.data {
            DataLines::None => None,
            DataLines::Line(line) => Some(raw.slice(line)),
            DataLines::Joined(lines) => Some(lines.freeze()),
        };
        let event_name = self.event.filter(|name| !name.is_empty());
        Frame { data, event_name: event_name.map(|name| raw.slice(name)), terminated, raw }
    }
}

impl DataLines {
    fn append(&mut self, frame: &[u8], line: Range<usize>) {
        let mut lines = match std::mem::take(self) {
            Self::None => {
                *self = Self::Line(line);
                return;
            }
            Self::Line(first) => BytesMut::from(&frame[first]),
            Self::Joined(lines) => lines,
        };
        lines.extend_from_slice(b"\n");
        lines.extend_from_slice(&frame[line]);
        *self = Self::Joined(lines);
    }
}

#[cfg(test)]
mod tests {
    // That any stream reads the same however it is cut is shown in `tests/fuzzing`.

    use super::*;

    const MAX_FRAME: usize = 1 << 16;

    /// All frames of a stream that comes in the given chunks.
    fn read_all<'a>(
        max_frame_bytes: usize,
        chunks: impl IntoIterator<Item = &'a [u8]>,
    ) -> Result<Vec<Frame>, SseError> {
        let mut reader = SseReader::new(max_frame_bytes);
        let mut frames = Vec::new();
        for chunk in chunks {
            reader.push(Bytes::copy_from_slice(chunk));
            while let Some(frame) = reader.next_frame()? {
                frames.push(frame);
            }
        }
        frames.extend(std::iter::from_fn(|| reader.finish()));
        Ok(frames)
    }

    /// One line per frame: enough to read a vector's meaning off a table.
    fn summary(frame: &Frame) -> String {
        let text = |bytes: &Option<Bytes>| match bytes {
            Some(bytes) => format!("{:?}", String::from_utf8_lossy(bytes)),
            None => "-".into(),
        };
        let open = if frame.terminated { "" } else { " unterminated" };
        format!("{} {}{open}", text(&frame.event_name), text(&frame.data))
    }

    fn check(input: &[u8], expected: &[&str]) {
        let frames = read_all(MAX_FRAME, [input]).expect("no frame is too large here");
        let summaries: Vec<String> = frames.iter().map(summary).collect();
        assert_eq!(summaries, expected, "{}", input.escape_ascii());
    }

    #[test]
    fn frames_are_read_by_the_rules() {
        check(b"data: a\r\rdata: b\n\n", &["- \"a\"", "- \"b\""]);
        check(b"\xEF\xBB\xBFdata: a\r\n\r\n", &["- \"a\""]);
        check(b"data: a\n\n\xEF\xBB\xBFdata: b\n\n", &["- \"a\"", "- \"b\""]);
        check(b"data: a\ndata:b\ndata\n\n", &["- \"a\\nb\\n\""]);
        check(b"data:  a \n\n", &["- \" a \""]);
        check(b"data\n\n:data\n\n", &["- \"\"", "- -"]);
        check(b"event: x\nid: 1\ndata: {}\n\n", &["\"x\" \"{}\""]);
        check(b"event: x\nevent:\n\n\n", &["- -", "- -"]);
        check(b"data: [DONE]\n\ndata:[DONE] \r\n\r\n", &["- \"[DONE]\"", "- \"[DONE] \""]);
        check(b"data: [DONE]", &["- \"[DONE]\" unterminated"]);
        check(b"data: a\n", &["- \"a\" unterminated"]);
        check(b":", &["- - unterminated"]);
    }

    #[test]
    fn an_event_has_a_payload_that_is_not_blank() {
        let check = |input: &[u8], expected: Option<(Option<&str>, &str)>| {
            let frames = read_all(MAX_FRAME, [input]).expect("no frame is too large here");
            let text = |bytes| std::str::from_utf8(bytes).expect("tests send text");
            let event = frames[0].event().map(|event| (event.name.map(text), text(event.payload)));
            assert_eq!(event, expected, "{}", input.escape_ascii());
        };
        check(b"data:  a \n\n", Some((None, " a ")));
        check(b"event: x\ndata: [DONE]\n\n", Some((Some("x"), "[DONE]")));
        check(b"data: a", Some((None, "a")));
        check(b"event: x\ndata: \n\n", None);
        check(b"event: x\n\n", None);
        check(b": c\n\n", None);
    }

    #[test]
    fn a_frame_is_returned_with_its_last_byte() {
        for input in ["data: a\r\n\r", "data: a\r\r", "data: a\n\n"] {
            let mut reader = SseReader::new(MAX_FRAME);
            reader.push(Bytes::from(input));
            let frame = reader.next_frame().expect("small").expect("complete");
            assert_eq!((&frame.raw[..], frame.terminated), (input.as_bytes(), true));
            assert_eq!(reader.next_frame(), Ok(None));
        }
    }

    #[test]
    fn a_line_feed_cut_off_is_a_blank_line_of_its_own_at_once() {
        let frames = read_all(MAX_FRAME, [&b"data: a\r\n\r"[..], b"\n", b"data: b\n\n"]).expect("small");
        let raw: Vec<&[u8]> = frames.iter().map(|frame| &frame.raw[..]).collect();
        assert_eq!(raw, [&b"data: a\r\n\r"[..], b"\n", b"data: b\n\n"]);
        assert_eq!(summary(&frames[1]), "- -");
    }

    #[test]
    fn a_frame_within_one_chunk_is_not_copied() {
        let chunk = Bytes::from_static(b"data: a\n\nevent: x\ndata: b\n\n");
        let within = chunk.as_ptr_range();
        let mut reader = SseReader::new(MAX_FRAME);
        reader.push(chunk);
        while let Some(frame) = reader.next_frame().expect("small") {
            assert!(within.contains(&frame.raw.as_ptr()));
            assert!(within.contains(&frame.data.expect("both have data").as_ptr()));
        }
    }

    #[test]
    fn chunks_may_be_pushed_ahead() {
        let mut reader = SseReader::new(MAX_FRAME);
        for chunk in [&b"data"[..], b"", b": a\n", b"\ndata: b\n\n"] {
            reader.push(Bytes::from_static(chunk));
        }
        let frames: Vec<String> = std::iter::from_fn(|| reader.finish()).map(|f| summary(&f)).collect();
        assert_eq!(frames, ["- \"a\"", "- \"b\""]);
    }

    #[test]
    fn a_frame_over_the_limit_ends_the_reading() {
        let too_large = SseError::FrameTooLarge { max_frame_bytes: 9 };
        let mut reader = SseReader::new(9);
        reader.push(Bytes::from_static(b"data: a\n\ndata: bc\n\n"));
        assert_eq!(reader.next_frame().map(|frame| frame.is_some()), Ok(true));
        assert_eq!(reader.next_frame(), Err(too_large));
        reader.push(Bytes::from_static(b"data: a\n\n"));
        assert_eq!(reader.next_frame(), Err(too_large));
        assert_eq!(reader.finish(), None);
    }

    #[test]
    fn an_endless_line_is_refused_without_holding_it() {
        let mut reader = SseReader::new(MAX_FRAME);
        let mut pushed = 0;
        let refused = loop {
            reader.push(Bytes::from_static(&[b'x'; 1000]));
            pushed += 1000;
            match reader.next_frame() {
                Ok(frame) => assert_eq!(frame, None),
                Err(refused) => break refused,
            }
        };
        assert_eq!(refused, SseError::FrameTooLarge { max_frame_bytes: MAX_FRAME });
        assert!(pushed <= MAX_FRAME + 1000);
    }
}

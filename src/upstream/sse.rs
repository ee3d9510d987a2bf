//! Reads a Server-Sent Events stream frame by frame, made for passing it on byte for byte.
//! Line endings (LF, CR, CRLF, mixed), comments, the byte order mark and the field rules are those
//! of the HTML standard, section 9.2; only a last frame without its blank line, which the standard
//! drops, is handed out here too, marked as such.
//!
//! It never loses, adds or alters a byte: the `raw` of all frames, joined, is the input. It never
//! looks inside a payload, never waits for a byte it does not need, and looks at each byte once
//! however the stream is cut into chunks.
//!
//! Start reading in [`SseReader::next_frame`].

use std::collections::VecDeque;
use std::ops::Range;

use bytes::{Buf, Bytes, BytesMut};
use memchr::{memchr, memchr2};

const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

/// Cuts chunks of bytes into frames.
///
/// Push a chunk, then call [`next_frame`](Self::next_frame) until it answers `None`; at the end of
/// the stream call [`finish`](Self::finish). Memory stays below one frame plus the chunks pushed.
///
/// A carriage return at the very end of a chunk may be half of a CRLF. When it closes a frame, that
/// frame is handed out at once all the same; the line feed, should it follow, becomes a frame of its
/// own: one blank line, [`FrameKind::Comment`], harmless to every reader, and no client that splits
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
    /// No line was read yet, so this one may begin with a byte order mark.
    first_line: bool,
    fields: Fields,
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
    pub event: Option<Bytes>,
    /// What the frame is for.
    pub kind: FrameKind,
    /// Whether its blank line came; `false` only for what [`SseReader::finish`] hands out last.
    pub terminated: bool,
}

/// What a frame is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameKind {
    /// It carries a payload.
    Data,
    /// Its payload is `[DONE]`, give or take white space around it.
    Done,
    /// It carries no payload: comments, other fields, or nothing but a blank line.
    Comment,
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
    /// closing CRLF is not counted, as it may come after the frame was handed out.)
    pub fn new(max_frame_bytes: usize) -> Self {
        Self {
            max_frame_bytes,
            carry: BytesMut::new(),
            chunk: Bytes::new(),
            waiting: VecDeque::new(),
            line_start: 0,
            scanned: 0,
            after_cr: false,
            first_line: true,
            fields: Fields::default(),
            failed: false,
        }
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

    /// The next complete frame; `None` when it takes more bytes to tell.
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
    /// had closed a frame already, the line feed is the answer.
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
        if std::mem::take(&mut self.first_line) && so_far[..end].starts_with(BYTE_ORDER_MARK) {
            self.line_start = BYTE_ORDER_MARK.len();
        }
        self.fields.note(so_far, self.line_start..end);
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

/// What the lines of the unfinished frame said so far, as places in it.
#[derive(Debug, Default)]
struct Fields {
    data: Payload,
    event: Option<Range<usize>>,
}

#[derive(Debug, Default)]
enum Payload {
    #[default]
    None,
    /// One `data` line, the common case: nothing is copied.
    Line(Range<usize>),
    /// Several, joined by line feeds.
    Joined(BytesMut),
}

impl Fields {
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
            Payload::None => None,
            Payload::Line(line) => Some(raw.slice(line)),
            Payload::Joined(lines) => Some(lines.freeze()),
        };
        let kind = match &data {
            None => FrameKind::Comment,
            Some(data) if data.trim_ascii() == b"[DONE]" => FrameKind::Done,
            Some(_) => FrameKind::Data,
        };
        let event = self.event.filter(|name| !name.is_empty());
        Frame { data, event: event.map(|name| raw.slice(name)), kind, terminated, raw }
    }
}

impl Payload {
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
    use proptest::prelude::*;

    use super::*;

    const ROOM: usize = 1 << 16;

    /// Every awkward stream, by what is awkward about it.
    const VECTORS: &[(&str, &[u8])] = &[
        ("nothing", b""),
        ("line feeds", b"data: a\n\ndata: b\n\n"),
        ("carriage returns", b"data: a\r\rdata: b\r\r"),
        ("both", b"data: a\r\n\r\ndata: b\r\n\r\n"),
        ("mixed", b"data: a\r\n\ndata: b\n\r\ndata: c\r\n\rdata: d\n\r"),
        ("line feed, carriage return is blank", b"data: a\n\rdata: b\n\n"),
        ("byte order mark", b"\xEF\xBB\xBFdata: a\n\ndata: b\n\n"),
        ("byte order mark alone in its line", b"\xEF\xBB\xBF\n\ndata: a\n\n"),
        ("byte order mark too late", b"\n\xEF\xBB\xBFdata: a\n\n"),
        ("half a byte order mark", b"\xEF\xBBdata: a\n\n"),
        ("comments", b": ping\n\n:\n\n:\ndata: a\n: mid\n\n"),
        ("several data lines", b"data: a\ndata:b\ndata\ndata: \n\n"),
        ("empty data", b"data:\n\ndata: \n\ndata\n\n"),
        ("space kept after the first", b"data:  a \n\n"),
        ("other fields", b"id: 7\nretry: 10\n\nid: 8\ndata: a\n\n"),
        ("not fields", b" data: a\ndatabase: b\nDATA: c\ndata : d\n\n"),
        ("event names", b"event: ping\ndata: {}\n\nevent: a\nevent:b\n\nevent: \ndata: x\n\n"),
        ("blank lines", b"\n\r\n\r\n\n\ndata: a\n\n\n\n"),
        ("wide characters", "data: h\u{e9}\u{20ac}\u{1f600}\r\n\r\n".as_bytes()),
        ("no blank line", b"data: a\n\ndata: b\n"),
        ("no line end", b"data: a\n\ndata: b\ndata: c"),
        ("no blank line after a carriage return", b"data: a\r\n\r\ndata: b\r"),
        ("unfinished comment", b"data: a\n\n:"),
        ("done", b"data: [DONE]\n\ndata:[DONE]\r\n\r\ndata:  [DONE] \t\n\ndata: [DONE]"),
        ("not done", b"data: [DONE\n\ndata: [done]\n\ndata: [DONE]!\n\n: [DONE]\n\n"),
        (
            "usage in the last frame and before it",
            b"data: {\"choices\":[{\"delta\":{\"content\":\"x\"}}],\"usage\":null}\n\n\
              data: {\"choices\":[],\"usage\":{\"total_tokens\":3}}\n\ndata: [DONE]\n\n",
        ),
        (
            "two choices",
            b"data: {\"choices\":[{\"index\":1,\"delta\":{\"content\":\"x\"}}]}\n\n\
              data: {\"choices\":[{\"index\":0,\"finish_reason\":\"stop\"}]}\n\n",
        ),
    ];

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

    /// Undoes what a cut between a closing carriage return and its line feed does.
    fn join_cut_endings(frames: Vec<Frame>) -> Vec<Frame> {
        let mut joined: Vec<Frame> = Vec::new();
        for frame in frames {
            match joined.last_mut() {
                Some(last) if last.raw.ends_with(b"\r") && frame.raw == "\n" => {
                    assert_eq!(frame.kind, FrameKind::Comment);
                    last.raw = [&last.raw[..], b"\n"].concat().into();
                }
                _ => joined.push(frame),
            }
        }
        joined
    }

    /// The same rules, slow and obvious: lines first, then groups of lines, then fields.
    fn reference(input: &[u8]) -> Vec<Frame> {
        let mut lines: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
        let mut rest = input.to_vec();
        while !rest.is_empty() {
            let length = rest.iter().take_while(|b| !b"\r\n".contains(b)).count();
            let ending = match &rest[length..] {
                [b'\r', b'\n', ..] => 2,
                [] => 0,
                _ => 1,
            };
            let after = rest.split_off(length + ending);
            let ending = rest.split_off(length);
            lines.push((rest, ending));
            rest = after;
        }
        let mut frames = Vec::new();
        let mut group: Vec<Vec<u8>> = Vec::new();
        let mut raw = Vec::new();
        for (number, (text, ending)) in lines.into_iter().enumerate() {
            raw.extend_from_slice(&text);
            raw.extend_from_slice(&ending);
            let text = match text.strip_prefix(BYTE_ORDER_MARK) {
                Some(text) if number == 0 => text.to_vec(),
                _ => text,
            };
            if text.is_empty() && !ending.is_empty() {
                frames.push(reference_frame(std::mem::take(&mut raw), &group, true));
                group.clear();
            } else {
                group.push(text);
            }
        }
        if !raw.is_empty() {
            frames.push(reference_frame(raw, &group, false));
        }
        frames
    }

    fn reference_frame(raw: Vec<u8>, lines: &[Vec<u8>], terminated: bool) -> Frame {
        let values = |name: &str| -> Vec<Vec<u8>> {
            let of_line = |line: &Vec<u8>| {
                let mut parts = line.splitn(2, |byte| *byte == b':');
                let named = parts.next() == Some(name.as_bytes());
                let value = parts.next().unwrap_or(b"");
                named.then(|| value.strip_prefix(b" ").unwrap_or(value).to_vec())
            };
            lines.iter().filter_map(of_line).collect()
        };
        let data = values("data");
        let data = (!data.is_empty()).then(|| Bytes::from(data.join(&b'\n')));
        let text = data.as_ref().map(|data| String::from_utf8_lossy(data));
        let kind = match text.as_deref().map(|text| text.trim_matches([' ', '\t', '\n', '\x0c'])) {
            None => FrameKind::Comment,
            Some("[DONE]") => FrameKind::Done,
            Some(_) => FrameKind::Data,
        };
        let event = values("event").pop().filter(|name| !name.is_empty());
        Frame { raw: raw.into(), data, event: event.map(Bytes::from), kind, terminated }
    }

    /// One line per frame: enough to read a vector's meaning off a table.
    fn summary(frame: &Frame) -> String {
        let text = |bytes: &Option<Bytes>| match bytes {
            Some(bytes) => format!("{:?}", String::from_utf8_lossy(bytes)),
            None => "-".into(),
        };
        let open = if frame.terminated { "" } else { " unterminated" };
        format!("{:?} {} {}{open}", frame.kind, text(&frame.event), text(&frame.data))
    }

    fn check(input: &[u8], expected: &[&str]) {
        let frames = read_all(ROOM, [input]).expect("no frame is too large here");
        let summaries: Vec<String> = frames.iter().map(summary).collect();
        assert_eq!(summaries, expected, "{}", input.escape_ascii());
    }

    #[test]
    fn frames_are_read_by_the_rules() {
        check(b"data: a\r\rdata: b\n\n", &["Data - \"a\"", "Data - \"b\""]);
        check(b"\xEF\xBB\xBFdata: a\r\n\r\n", &["Data - \"a\""]);
        check(b"data: a\n\n\xEF\xBB\xBFdata: b\n\n", &["Data - \"a\"", "Comment - -"]);
        check(b"data: a\ndata:b\ndata\n\n", &["Data - \"a\\nb\\n\""]);
        check(b"data:  a \n\n", &["Data - \" a \""]);
        check(b"data\n\n:data\n\n", &["Data - \"\"", "Comment - -"]);
        check(b"event: x\nid: 1\ndata: {}\n\n", &["Data \"x\" \"{}\""]);
        check(b"event: x\nevent:\n\n\n", &["Comment - -", "Comment - -"]);
        check(b"data: [DONE]\n\ndata:[DONE] \r\n\r\n", &["Done - \"[DONE]\"", "Done - \"[DONE] \""]);
        check(b"data: [DONE]", &["Done - \"[DONE]\" unterminated"]);
        check(b"data: a\n", &["Data - \"a\" unterminated"]);
        check(b":", &["Comment - - unterminated"]);
    }

    #[test]
    fn every_vector_at_every_cut_reads_the_same() {
        for (name, input) in VECTORS {
            let whole = read_all(ROOM, [*input]).expect("no frame is too large here");
            assert_eq!(whole, reference(input), "{name}, against the reference");
            let bytewise = read_all(ROOM, input.chunks(1)).expect("no frame is too large here");
            assert_eq!(join_cut_endings(bytewise), whole, "{name}, byte by byte");
            for cut in 0..=input.len() {
                let (first, second) = input.split_at(cut);
                let halves = read_all(ROOM, [first, second]).expect("no frame is too large here");
                assert_eq!(join_cut_endings(halves), whole, "{name}, cut at {cut}");
            }
        }
    }

    #[test]
    fn a_frame_is_handed_out_with_its_last_byte() {
        for input in ["data: a\r\n\r", "data: a\r\r", "data: a\n\n"] {
            let mut reader = SseReader::new(ROOM);
            reader.push(Bytes::from(input));
            let frame = reader.next_frame().expect("small").expect("complete");
            assert_eq!((&frame.raw[..], frame.terminated), (input.as_bytes(), true));
            assert_eq!(reader.next_frame(), Ok(None));
        }
    }

    #[test]
    fn a_line_feed_cut_off_is_a_blank_line_of_its_own_at_once() {
        let frames = read_all(ROOM, [&b"data: a\r\n\r"[..], b"\n", b"data: b\n\n"]).expect("small");
        let raw: Vec<&[u8]> = frames.iter().map(|frame| &frame.raw[..]).collect();
        assert_eq!(raw, [&b"data: a\r\n\r"[..], b"\n", b"data: b\n\n"]);
        assert_eq!(summary(&frames[1]), "Comment - -");
    }

    #[test]
    fn a_frame_within_one_chunk_is_not_copied() {
        let chunk = Bytes::from_static(b"data: a\n\nevent: x\ndata: b\n\n");
        let within = chunk.as_ptr_range();
        let mut reader = SseReader::new(ROOM);
        reader.push(chunk);
        while let Some(frame) = reader.next_frame().expect("small") {
            assert!(within.contains(&frame.raw.as_ptr()));
            assert!(within.contains(&frame.data.expect("both have data").as_ptr()));
        }
    }

    #[test]
    fn chunks_may_be_pushed_ahead() {
        let mut reader = SseReader::new(ROOM);
        for chunk in [&b"data"[..], b"", b": a\n", b"\ndata: b\n\n"] {
            reader.push(Bytes::from_static(chunk));
        }
        let frames: Vec<String> = std::iter::from_fn(|| reader.finish()).map(|f| summary(&f)).collect();
        assert_eq!(frames, ["Data - \"a\"", "Data - \"b\""]);
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
        let mut reader = SseReader::new(ROOM);
        let mut pushed = 0;
        let refused = loop {
            reader.push(Bytes::from_static(&[b'x'; 1000]));
            pushed += 1000;
            match reader.next_frame() {
                Ok(frame) => assert_eq!(frame, None),
                Err(refused) => break refused,
            }
        };
        assert_eq!(refused, SseError::FrameTooLarge { max_frame_bytes: ROOM });
        assert!(pushed <= ROOM + 1000);
    }

    /// Streams made of the pieces that matter, and now and then of any byte.
    fn stream() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            8 => prop::sample::select(vec![
                &b"\n"[..], b"\r", b"\r\n", b"\n\n", b"\r\n\r\n", b"data:", b"data: ", b"event: ",
                b"data", b"[DONE]", b":", b" ", b"id: 1", BYTE_ORDER_MARK, b"\xEF", b"{}",
            ])
            .prop_map(<[u8]>::to_vec),
            1 => prop::collection::vec(any::<u8>(), 0..4),
        ];
        prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
    }

    /// A stream and the chunks it comes in.
    fn cut_stream() -> impl Strategy<Value = (Vec<u8>, Vec<Vec<u8>>)> {
        (stream(), prop::collection::vec(1..9usize, 1..40)).prop_map(|(input, sizes)| {
            let mut chunks = Vec::new();
            let mut rest = &input[..];
            for size in sizes {
                let (chunk, after) = rest.split_at(size.min(rest.len()));
                chunks.push(chunk.to_vec());
                rest = after;
            }
            chunks.push(rest.to_vec());
            (input, chunks)
        })
    }

    proptest! {
        #[test]
        fn frames_joined_are_the_input((input, chunks) in cut_stream()) {
            let frames = read_all(ROOM, chunks.iter().map(Vec::as_slice)).expect("small");
            let joined: Vec<u8> = frames.iter().flat_map(|frame| frame.raw.to_vec()).collect();
            prop_assert_eq!(joined, input);
        }

        #[test]
        fn any_stream_reads_as_the_reference_does((input, chunks) in cut_stream()) {
            let frames = read_all(ROOM, chunks.iter().map(Vec::as_slice)).expect("small");
            prop_assert_eq!(join_cut_endings(frames), reference(&input));
        }

        #[test]
        fn the_limit_does_not_depend_on_the_cuts((input, chunks) in cut_stream(), limit in 1..40usize) {
            let cut = read_all(limit, chunks.iter().map(Vec::as_slice)).map(join_cut_endings);
            prop_assert_eq!(cut, read_all(limit, [&input[..]]));
        }
    }
}

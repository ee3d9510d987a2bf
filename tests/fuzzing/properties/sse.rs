//! A stream of server-sent events reads the same however it is cut, as a slow and obvious reader
//! reads it, and loses no byte.
//!
//! The bytes after the last NUL are the lengths of the chunks.
//!
//! Start reading in [`holds`]; [`reference`] is the slow reading.

use bytes::Bytes;
use tierway::protocol::sse::{Frame, SseError, SseReader};

const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";
/// More than any input here.
const NO_LIMIT: usize = 1 << 20;

/// What must hold for any stream, in any chunks.
pub fn holds(data: &[u8]) {
    let (input, sizes) = stream_and_sizes(data);
    let expected = reference(input);
    let cut = chunks(input, sizes);
    assert_eq!(read_all(NO_LIMIT, &[input]), Ok(expected.clone()), "in one chunk");
    check(&cut, &expected);
    check(&input.chunks(1).collect::<Vec<_>>(), &expected);
    let limit = 1 + sizes.iter().map(|size| usize::from(*size)).sum::<usize>() % 64;
    let bounded = read_all(limit, &cut).map(join_cut_endings);
    assert_eq!(bounded, read_all(limit, &[input]), "the limit does not depend on the cuts");
    // The line feed of a closing CRLF is not counted.
    let counted = |frame: &Frame| frame.raw.len() - usize::from(frame.terminated && frame.raw.ends_with(b"\r\n"));
    let small = |frame: &Frame| counted(frame) <= limit;
    assert_eq!(bounded.is_ok(), expected.iter().all(small), "exactly what is too large is refused");
}

/// The same for a stream cut in two, wherever that is; slow.
pub fn holds_at_every_cut(data: &[u8]) {
    let (input, _) = stream_and_sizes(data);
    let expected = reference(input);
    for at in 0..=input.len() {
        check(&[&input[..at], &input[at..]], &expected);
    }
}

fn check(chunks: &[&[u8]], expected: &[Frame]) {
    let frames = read_all(NO_LIMIT, chunks).expect("no frame is larger than the input");
    let raw: Vec<u8> = frames.iter().flat_map(|frame| frame.raw.to_vec()).collect();
    assert_eq!(raw, chunks.concat(), "every byte, once");
    assert_eq!(join_cut_endings(frames), expected, "as the reference reads it");
}

fn stream_and_sizes(data: &[u8]) -> (&[u8], &[u8]) {
    match data.iter().rposition(|byte| *byte == 0) {
        Some(at) => (&data[..at], &data[at + 1..]),
        None => (data, &[]),
    }
}

/// `input` in chunks whose lengths follow from `sizes`.
fn chunks<'a>(input: &'a [u8], sizes: &[u8]) -> Vec<&'a [u8]> {
    let mut chunks = Vec::new();
    let mut rest = input;
    for size in sizes {
        let (chunk, after) = rest.split_at(usize::from(*size).min(rest.len()));
        chunks.push(chunk);
        rest = after;
    }
    chunks.push(rest);
    chunks
}

/// All frames of a stream that comes in `chunks`; never more is held than the limit and a chunk.
fn read_all(max_frame_bytes: usize, chunks: &[&[u8]]) -> Result<Vec<Frame>, SseError> {
    let mut reader = SseReader::new(max_frame_bytes);
    let mut frames = Vec::new();
    let mut held = 0;
    for chunk in chunks {
        reader.push(Bytes::copy_from_slice(chunk));
        held += chunk.len();
        while let Some(frame) = reader.next_frame()? {
            held -= frame.raw.len();
            frames.push(frame);
        }
        assert!(held <= max_frame_bytes, "{held} bytes are held");
    }
    frames.extend(std::iter::from_fn(|| reader.finish()));
    Ok(frames)
}

/// Undoes what a cut between a closing carriage return and its line feed does.
fn join_cut_endings(frames: Vec<Frame>) -> Vec<Frame> {
    let mut joined: Vec<Frame> = Vec::new();
    for frame in frames {
        match joined.last_mut() {
            Some(last) if last.terminated && last.raw.ends_with(b"\r") && frame.raw == "\n" => {
                assert_eq!((&frame.data, frame.event()), (&None, None));
                last.raw = [&last.raw[..], b"\n"].concat().into();
            }
            _ => joined.push(frame),
        }
    }
    joined
}

/// The same rules, slow and obvious: lines first, then groups of lines, then fields.
fn reference(input: &[u8]) -> Vec<Frame> {
    let mut frames = Vec::new();
    let mut group: Vec<&[u8]> = Vec::new();
    let mut raw = Vec::new();
    for (text, ending) in lines(input) {
        raw.extend_from_slice(text);
        raw.extend_from_slice(ending);
        if text.is_empty() && !ending.is_empty() {
            frames.push(reference_frame(std::mem::take(&mut raw), &group, true));
            group.clear();
        } else if group.is_empty() {
            group.push(text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text));
        } else {
            group.push(text);
        }
    }
    if !raw.is_empty() {
        frames.push(reference_frame(raw, &group, false));
    }
    frames
}

/// Every line and its ending; the last one may have none.
fn lines(input: &[u8]) -> Vec<(&[u8], &[u8])> {
    let mut lines = Vec::new();
    let mut rest = input;
    while !rest.is_empty() {
        let length = rest.iter().take_while(|byte| !b"\r\n".contains(byte)).count();
        let ending = match &rest[length..] {
            [b'\r', b'\n', ..] => 2,
            [] => 0,
            _ => 1,
        };
        let (line, after) = rest.split_at(length + ending);
        lines.push(line.split_at(length));
        rest = after;
    }
    lines
}

fn reference_frame(raw: Vec<u8>, lines: &[&[u8]], terminated: bool) -> Frame {
    let values = |name: &str| -> Vec<Vec<u8>> {
        let of_line = |line: &&[u8]| {
            let mut parts = line.splitn(2, |byte| *byte == b':');
            let named = parts.next() == Some(name.as_bytes());
            let value = parts.next().unwrap_or(b"");
            named.then(|| value.strip_prefix(b" ").unwrap_or(value).to_vec())
        };
        lines.iter().filter_map(of_line).collect()
    };
    let data = values("data");
    let data = (!data.is_empty()).then(|| Bytes::from(data.join(&b'\n')));
    let event = values("event").pop().filter(|name| !name.is_empty());
    Frame { raw: raw.into(), data, event_name: event.map(Bytes::from), terminated }
}

//! Just enough HTTP/1.1 to read a request or a response exactly, shared by provider and client.
//!
//! It never repairs: what is not plain HTTP/1.1 is [`Malformed`], and bytes are returned unchanged.

use bytes::{Buf, Bytes, BytesMut};

/// Why a message cannot be read.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Malformed(pub(super) &'static str);

/// First line and headers of a message.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) raw: Bytes,
    pub(super) first_line: String,
    pub(super) headers: Vec<(String, String)>,
}

/// Removes a head from the front of `buffer`; `None` until it is complete.
pub(super) fn take_head(buffer: &mut BytesMut) -> Result<Option<Head>, Malformed> {
    let Some(end) = memchr::memmem::find(buffer, b"\r\n\r\n") else {
        return Ok(None);
    };
    let raw = buffer.split_to(end + 4).freeze();
    let text: String = raw[..end].iter().map(|byte| char::from(*byte)).collect();
    let mut lines = text.split("\r\n");
    let first_line = lines.next().unwrap_or_default().to_owned();
    let headers = lines
        .map(|line| {
            let (name, value) = line.split_once(':').ok_or(Malformed("no colon"))?;
            Ok((name.to_owned(), value.trim_matches([' ', '\t']).to_owned()))
        })
        .collect::<Result<_, _>>()?;
    Ok(Some(Head { raw, first_line, headers }))
}

/// The one header of this name; fails the test when it occurs twice.
pub(super) fn header<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
    let mut values =
        headers.iter().filter(|(given, _)| given.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str());
    let value = values.next();
    assert_eq!(values.next(), None, "the header `{name}` came twice");
    value
}

/// What [`Body::next`] found.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Part {
    Data(Bytes),
    /// More must be read first.
    More,
    /// The body is complete.
    End,
}

/// The position in a body; returns each byte as soon as it has been read.
#[derive(Debug)]
pub(super) enum Body {
    Length(usize),
    UntilClose,
    ChunkSize,
    ChunkData(usize),
    ChunkEnd,
    Trailers,
}

impl Body {
    pub(super) fn of_request(head: &Head) -> Result<Self, Malformed> {
        Ok(Self::framed(head)?.unwrap_or(Body::Length(0)))
    }

    pub(super) fn of_response(head: &Head, status: u16) -> Result<Self, Malformed> {
        match status {
            204 | 304 => Ok(Body::Length(0)),
            _ => Ok(Self::framed(head)?.unwrap_or(Body::UntilClose)),
        }
    }

    fn framed(head: &Head) -> Result<Option<Self>, Malformed> {
        let length = header(&head.headers, "content-length");
        match (length, header(&head.headers, "transfer-encoding")) {
            (Some(_), Some(_)) => Err(Malformed("both a length and a transfer encoding")),
            (None, Some("chunked")) => Ok(Some(Body::ChunkSize)),
            (None, Some(_)) => Err(Malformed("unknown transfer encoding")),
            (Some(length), None) => match number(length.as_bytes(), 10) {
                Some(length) => Ok(Some(Body::Length(length))),
                None => Err(Malformed("not a length")),
            },
            (None, None) => Ok(None),
        }
    }

    /// Removes the next part of the body from the front of `buffer`.
    pub(super) fn next(&mut self, buffer: &mut BytesMut) -> Result<Part, Malformed> {
        loop {
            match self {
                Body::Length(0) => return Ok(Part::End),
                Body::ChunkData(0) => *self = Body::ChunkEnd,
                Body::Length(left) | Body::ChunkData(left) => {
                    let taken = buffer.split_to(buffer.len().min(*left)).freeze();
                    *left -= taken.len();
                    return Ok(data_or_more(taken));
                }
                Body::UntilClose => return Ok(data_or_more(buffer.split().freeze())),
                Body::ChunkSize | Body::ChunkEnd | Body::Trailers => {
                    let Some(line) = take_line(buffer) else {
                        return Ok(Part::More);
                    };
                    match self.after_line(&line)? {
                        Some(state) => *self = state,
                        None => {
                            *self = Body::Length(0);
                            return Ok(Part::End);
                        }
                    }
                }
            }
        }
    }

    /// The state after a line between chunks; `None` after the last.
    fn after_line(&self, line: &[u8]) -> Result<Option<Self>, Malformed> {
        match self {
            Body::ChunkEnd if line.is_empty() => Ok(Some(Body::ChunkSize)),
            Body::ChunkEnd => Err(Malformed("a chunk longer than its size")),
            Body::Trailers if line.is_empty() => Ok(None),
            Body::Trailers => Ok(Some(Body::Trailers)),
            _ => match number(line, 16) {
                Some(0) => Ok(Some(Body::Trailers)),
                Some(size) => Ok(Some(Body::ChunkData(size))),
                None => Err(Malformed("not a chunk size")),
            },
        }
    }
}

/// Digits only: the standard parsers would also take a sign.
fn number(digits: &[u8], radix: u32) -> Option<usize> {
    let text = std::str::from_utf8(digits).ok()?;
    let all_digits = text.chars().all(|digit| digit.is_digit(radix));
    all_digits.then(|| usize::from_str_radix(text, radix).ok())?
}

fn data_or_more(taken: Bytes) -> Part {
    match taken.is_empty() {
        true => Part::More,
        false => Part::Data(taken),
    }
}

fn take_line(buffer: &mut BytesMut) -> Option<Bytes> {
    let end = memchr::memmem::find(buffer, b"\r\n")?;
    let line = buffer.split_to(end).freeze();
    buffer.advance(2);
    Some(line)
}

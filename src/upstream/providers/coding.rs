//! Undoes the `Content-Encoding` of a reply while it is read: what was sent is there to be passed on as soon as it
//! came, however it is encoded.
//!
//! It judges bytes rather than labels: a name that is no coding (`none`, `identity`, `utf-8`) says nothing, as it says
//! nothing to the official clients, and bytes that are plain although a coding is named stay as they are. It holds a
//! few KiB at a time, whatever they expand to: whoever reads on has the limits.
//!
//! Start reading in [`DecodedBody::poll_chunk`].

use super::SourceError;
use crate::protocol::BodyKind;
use async_compression::tokio::bufread::{BrotliDecoder, DeflateDecoder, GzipDecoder, ZlibDecoder, ZstdDecoder};
use async_compression::zstd::DParameter;
use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http::header::CONTENT_ENCODING;
use http_body_util::{BodyDataStream, BodyExt};
use std::io::{self, Cursor};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncBufRead, AsyncRead, AsyncReadExt, BufReader, ReadBuf};
use tokio::task::coop::poll_proceed;
use tokio_util::io::StreamReader;

/// The most codings of one reply.
const MAX_CODINGS: usize = 4;
/// Bytes that are decoded at a time.
const CHUNK: usize = 16 * 1024;
/// The largest zstd window, as RFC 9659 sets it for HTTP: 2^23 bytes, 8 MiB.
const ZSTD_WINDOW_LOG: u32 = 23;

/// One way of encoding a body.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum ContentCoding {
    Zstd,
    Gzip,
    Brotli,
    Deflate,
}

/// The codings that `headers` name, in the order in which they were applied.
///
/// # Errors
/// Why there are too many, for the log.
pub(super) fn of(headers: &HeaderMap) -> Result<Vec<ContentCoding>, &'static str> {
    let values = headers.get_all(CONTENT_ENCODING).into_iter().filter_map(|value| value.to_str().ok());
    let names = values.flat_map(|value| value.split(','));
    let codings: Vec<ContentCoding> = names.filter_map(|name| ContentCoding::named(name.trim())).collect();
    if codings.len() > MAX_CODINGS { Err("the answer is encoded too many times over") } else { Ok(codings) }
}

impl ContentCoding {
    /// The coding of a body that begins with `start` and names none: no text begins with the mark of one.
    pub(super) fn unnamed(start: &[u8]) -> Option<Self> {
        [Self::Gzip, Self::Zstd].into_iter().find(|coding| coding.fits(start))
    }

    fn named(name: &str) -> Option<Self> {
        const NAMES: [(&str, ContentCoding); 6] = [
            ("gzip", ContentCoding::Gzip),
            ("x-gzip", ContentCoding::Gzip),
            ("deflate", ContentCoding::Deflate),
            ("br", ContentCoding::Brotli),
            ("zstd", ContentCoding::Zstd),
            ("x-zstd", ContentCoding::Zstd),
        ];
        NAMES.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, coding)| *coding)
    }

    /// Whether a body that begins with `start` can be in it.
    fn fits(self, start: &[u8]) -> bool {
        match self {
            Self::Gzip => start.first() == Some(&0x1f),
            Self::Zstd => start.first() == Some(&0x28),
            // These have no mark of their own, but never begin as events or JSON do.
            Self::Brotli | Self::Deflate => {
                !matches!(BodyKind::of(start), Some(BodyKind::Events | BodyKind::Json)) && !start.is_empty()
            }
        }
    }

    /// What `source`, which begins with `start`, holds once decoded.
    fn decoded(self, source: EncodedSource, start: u8) -> DecodedSource {
        match self {
            Self::Zstd => {
                let mut reader = ZstdDecoder::with_params(source, &[DParameter::window_log_max(ZSTD_WINDOW_LOG)]);
                reader.multiple_members(true);
                Box::new(reader)
            }
            Self::Gzip => Box::new(GzipMembers(Some(GzipDecoder::new(source)))),
            Self::Brotli => Box::new(BrotliDecoder::new(source)),
            // RFC 9110 means zlib, method 8 in the low four bits of its first byte; some hosts send raw deflate.
            Self::Deflate if start & 0x0f == 8 => Box::new(ZlibDecoder::new(source)),
            Self::Deflate => Box::new(DeflateDecoder::new(source)),
        }
    }
}

type EncodedSource = Box<dyn AsyncBufRead + Send + Unpin>;
type DecodedSource = Box<dyn AsyncRead + Send + Unpin>;

/// A gzip body, of several members at some hosts. What follows the last one is ignored, as the official clients do.
struct GzipMembers(Option<GzipDecoder<EncodedSource>>);

impl AsyncRead for GzipMembers {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while let Some(member) = &mut this.0 {
            let before = buf.filled().len();
            ready!(Pin::new(&mut *member).poll_read(cx, buf))?;
            if buf.filled().len() > before {
                break;
            }
            let rest = ready!(Pin::new(member.get_mut()).poll_fill_buf(cx))?;
            let is_member = ContentCoding::Gzip.fits(rest);
            let rest = this.0.take().map(GzipDecoder::into_inner);
            this.0 = rest.filter(|_| is_member).map(GzipDecoder::new);
        }
        Poll::Ready(Ok(()))
    }
}

/// A body whose codings are undone.
pub(super) struct DecodedBody {
    reader: DecodedSource,
    chunk: BytesMut,
}

impl DecodedBody {
    /// `read` and then `body` without `codings`, which are in the order in which they were applied.
    pub(super) fn new(read: Bytes, body: reqwest::Body, codings: Vec<ContentCoding>) -> Self {
        let rest = StreamReader::new(BodyDataStream::new(body.map_err(io::Error::other)));
        let mut source: EncodedSource = Box::new(Cursor::new(read).chain(rest));
        for coding in codings.into_iter().rev() {
            source = Box::new(BufReader::with_capacity(CHUNK, CodedSource::Unread(Some(source), coding)));
        }
        Self { reader: Box::new(source), chunk: BytesMut::new() }
    }

    /// The next bytes, never empty; `None` at the end. Small bodies can be large ones: it gives way to other tasks.
    pub(super) fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, SourceError>>> {
        let budget = ready!(poll_proceed(cx));
        self.chunk.reserve(CHUNK);
        let read = ready!(pin!(self.reader.read_buf(&mut self.chunk)).poll(cx));
        budget.made_progress();
        Poll::Ready(match read {
            Ok(0) => None,
            Ok(_) => Some(Ok(self.chunk.split().freeze())),
            Err(error) => Some(Err(source_error(error))),
        })
    }
}

/// The connection's error where it is one.
fn source_error(error: io::Error) -> SourceError {
    match error.downcast() {
        Ok(connection) => SourceError::Connection(connection),
        Err(error) => SourceError::Coding(error),
    }
}

/// One coding being undone, which its first bytes decide.
enum CodedSource {
    Unread(Option<EncodedSource>, ContentCoding),
    Opened(DecodedSource),
}

impl AsyncRead for CodedSource {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if let Self::Unread(source, coding) = this {
            let Some(unread) = source else { return Poll::Ready(Ok(())) };
            let start = ready!(Pin::new(unread).poll_fill_buf(cx))?;
            let (fits, first) = (coding.fits(start), start.first().copied().unwrap_or_default());
            let Some(unread) = source.take() else { return Poll::Ready(Ok(())) };
            *this = Self::Opened(if fits { coding.decoded(unread, first) } else { Box::new(unread) });
        }
        match this {
            Self::Opened(reader) => Pin::new(reader).poll_read(cx, buf),
            Self::Unread(..) => Poll::Ready(Ok(())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::domain::failure::Failure;
    use crate::domain::memory::InFlightAllowance;
    use crate::protocol::Grammar;
    use crate::protocol::chat::answer::ChatQuirks;
    use crate::upstream::held::HeldAnswer;
    use crate::upstream::providers::UpstreamReply;
    use crate::upstream::testing::fed;
    use async_compression::tokio::bufread::{BrotliEncoder, DeflateEncoder, GzipEncoder, ZlibEncoder, ZstdEncoder};
    use http::{HeaderValue, StatusCode};

    const TEXT: &str = "data: {\"choices\":[]}\n\ndata: [DONE]\n\n";

    async fn encoded(mut encoder: impl AsyncRead + Unpin) -> Vec<u8> {
        let mut bytes = Vec::new();
        encoder.read_to_end(&mut bytes).await.expect("memory can be read");
        bytes
    }

    /// What is read of a reply with these headers and reads.
    async fn decoded(labels: &[&'static str], reads: &[&[u8]]) -> Result<Vec<u8>, Failure> {
        let source = fed(reads.iter().filter(|read| !read.is_empty()).map(|read| Bytes::copy_from_slice(read)));
        let headers = labels.iter().map(|label| (CONTENT_ENCODING, HeaderValue::from_static(label))).collect();
        let grammar = Grammar::Chat(ChatQuirks::default());
        let mut reply = UpstreamReply { status: StatusCode::OK, headers, source, grammar };
        reply.undo_codings().map_err(|error| error.failure)?;
        let mut held = HeldAnswer::none(&InFlightAllowance::default());
        let all = reply.source.collect(1 << 20, &mut held, Clock, &mut || {}).await;
        all.map(|bytes| bytes.to_vec()).map_err(|error| error.failure)
    }

    #[tokio::test]
    async fn codings_are_undone_however_the_bytes_are_cut() {
        let plain = TEXT.as_bytes();
        let twice = encoded(GzipEncoder::new(plain)).await.repeat(2);
        for (label, bytes, text) in [
            ("gzip", encoded(GzipEncoder::new(plain)).await, TEXT.to_owned()),
            ("X-Gzip", twice, TEXT.repeat(2)),
            ("br", encoded(BrotliEncoder::new(plain)).await, TEXT.to_owned()),
            ("ZSTD", encoded(ZstdEncoder::new(plain)).await, TEXT.to_owned()),
            ("deflate", encoded(ZlibEncoder::new(plain)).await, TEXT.to_owned()),
            ("deflate", encoded(DeflateEncoder::new(plain)).await, TEXT.to_owned()),
            ("none", plain.to_vec(), TEXT.to_owned()),
            ("identity, utf-8", plain.to_vec(), TEXT.to_owned()),
        ] {
            for cut in 0..bytes.len() {
                let (head, tail) = bytes.split_at(cut);
                assert_eq!(decoded(&[label], &[head, tail]).await, Ok(text.clone().into_bytes()), "{label} at {cut}");
                if label != "none" && !label.starts_with("id") && cut > 0 && cut < bytes.len() / 2 {
                    let error = decoded(&[label], &[head]).await.expect_err("it is cut");
                    assert!(matches!(error, Failure::Truncated | Failure::Garbage), "{label} ends at {cut}");
                }
            }
        }
    }

    #[tokio::test]
    async fn what_follows_the_last_member_is_ignored() {
        let members = encoded(GzipEncoder::new(TEXT.as_bytes())).await.repeat(2);
        for rest in [&b"\0\0\0"[..], b"\r\n", b"rest"] {
            assert_eq!(decoded(&["gzip"], &[&members, rest]).await, Ok(TEXT.repeat(2).into_bytes()));
            assert_eq!(decoded(&["gzip"], &[&[&members, rest].concat()]).await, Ok(TEXT.repeat(2).into_bytes()));
        }
    }

    #[tokio::test]
    async fn what_is_plain_stays_so_whatever_its_label() {
        for label in ["gzip", "br", "zstd", "deflate", "gzip, br"] {
            for text in [TEXT, "{\"choices\":[]}", ""] {
                assert_eq!(decoded(&[label], &[text.as_bytes()]).await, Ok(text.into()), "{label}: {text}");
            }
        }
    }

    #[tokio::test]
    async fn several_codings_are_undone_from_the_last_to_the_first() {
        let inner = encoded(ZstdEncoder::new(TEXT.as_bytes())).await;
        let outer = encoded(GzipEncoder::new(&inner[..])).await;
        for labels in [&["zstd, gzip"][..], &["zstd", "gzip"], &["zstd,none", "identity , GZIP"]] {
            assert_eq!(decoded(labels, &[&outer]).await, Ok(TEXT.into()), "{labels:?}");
        }
        assert_eq!(decoded(&["gzip,gzip,gzip", "br, br"], &[&outer]).await, Err(Failure::Unreadable));
        let broken = b"\x1f\x8b\x08\0\0\0\0\0\0\x03\xff\xff\xff\xff";
        assert_eq!(decoded(&["gzip"], &[broken]).await, Err(Failure::Garbage));
    }
}

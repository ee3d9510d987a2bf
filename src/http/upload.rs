//! A request's body: read on demand, decoded, limited in size and in rate, and counted for its key.
//!
//! Nothing is read before [`Upload::gather`] is polled, so a client without a key makes us read nothing. How long all of
//! it may take is its reader's to limit, in [`relay`](crate::relay). What is unread when the request was answered is
//! discarded for up to two seconds, so that the client reads the answer and not a reset.
//!
//! Start reading at [`Upload::gather`].

use crate::clock::Clock;
use crate::domain::call::BodyProblem;
use crate::domain::memory::{InFlightAllowance, InFlightReservation};
use async_compression::tokio::bufread::{BrotliDecoder, DeflateDecoder, GzipDecoder, ZlibDecoder, ZstdDecoder};
use async_compression::zstd::DParameter;
use axum::body::{Body, HttpBody};
use bytes::{Buf, Bytes};
use http::HeaderMap;
use http::header::{CONTENT_ENCODING, EXPECT};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncRead, AsyncReadExt, ReadBuf};
use tokio::time::Sleep;

/// The longest time a client may send nothing, and the most time ahead that what it sent earns it.
const IDLE: Duration = Duration::from_secs(10);
/// The lowest rate over any time longer than [`IDLE`], in bytes per second.
const MIN_RATE: u64 = 1024;
/// The longest time that an unread body is discarded, so that the client sees our answer.
const DISCARD: Duration = Duration::from_secs(2);
/// The most bytes that are allocated on the word of `content-length` alone.
const TRUSTED_LENGTH: u64 = 1024 * 1024;
/// A compressed body may decode to this many bytes, whatever was sent.
const DECODED_FREELY: u64 = 1024 * 1024;
/// The most times its size that a larger one may decode to: text packs 3 to 20 times, and decoding costs by what comes
/// out.
const DECODED_RATIO: u64 = 100;
/// The largest zstd window, as RFC 9659 sets it for HTTP: 2^23 bytes, 8 MiB.
const ZSTD_WINDOW_LOG: u32 = 23;

/// A request body that was not read yet.
pub struct Upload {
    /// `None` once it has ended or is being discarded.
    body: Option<Body>,
    encoding: Result<Encoding, BodyProblem>,
    /// The largest body, as sent and as decoded, in bytes.
    max: u64,
    /// The client waits for `100 Continue`, which reading sends: until then there is nothing to discard.
    awaits_continue: bool,
    rate: ReceiveRate,
    /// How many bytes of a compressed body were received.
    packed: Option<Arc<AtomicU64>>,
    /// What was received and not yet consumed.
    ready: Bytes,
    /// Why reading failed; the decoders pass on only `io::Error`.
    problem: Option<BodyProblem>,
}

impl Upload {
    /// The body of a request with `headers`, of at most `max` bytes as sent and as decoded.
    pub fn new(body: Body, headers: &HeaderMap, max: u64, clock: Clock) -> Self {
        let awaits_continue = headers.get(EXPECT).is_some_and(|v| v.as_bytes().eq_ignore_ascii_case(b"100-continue"));
        Self {
            body: Some(body),
            encoding: Encoding::of(headers),
            max,
            awaits_continue,
            rate: ReceiveRate { clock, until: None, received: 0, timer: None },
            packed: None,
            ready: Bytes::new(),
            problem: None,
        }
    }

    /// Reads all of it. The bytes count in `allowance` until the last clone of them is dropped.
    ///
    /// # Errors
    /// Every [`BodyProblem`] that is not about JSON.
    pub async fn gather(mut self, allowance: InFlightAllowance) -> Result<Bytes, BodyProblem> {
        let limit = self.max;
        let declared = self.body.as_ref().map_or(0, |body| body.size_hint().lower());
        if declared > limit {
            return Err(BodyProblem::TooLarge { limit });
        }
        let encoding = self.encoding.clone()?;
        let mut reservation = allowance.reservation();
        self.packed = (encoding != Encoding::Identity).then(Arc::default);
        let packed = self.packed.clone();
        let mut reader = encoding.decode(&mut self).await;
        // One byte more than declared: the read that finds the end needs a free byte, or it would double the buffer.
        let mut bytes = Vec::with_capacity(declared.min(TRUSTED_LENGTH) as usize + 1);
        let problem = loop {
            match reader.read_buf(&mut bytes).await {
                Ok(0) => return Ok(Bytes::from_owner(ReservedBytes { bytes, _reservation: reservation })),
                Ok(_) if bytes.len() as u64 > limit => break BodyProblem::TooLarge { limit },
                Ok(_) if packed.as_ref().is_some_and(|packed| expands_too_much(packed, bytes.len())) => {
                    break BodyProblem::ExpandsTooMuch { most: DECODED_RATIO };
                }
                Ok(more) => {
                    if !reservation.grow(more as u64) {
                        break BodyProblem::TooMuchInFlight;
                    }
                }
                Err(error) => break BodyProblem::BadEncoding(format!("The body is not valid {encoding}: {error}.")),
            }
            // Decoding a small body into a large one must not block other tasks.
            tokio::task::consume_budget().await;
        };
        drop(reader);
        Err(self.problem.take().unwrap_or(problem))
    }

    fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BodyProblem>> {
        let Some(body) = &mut self.body else { return Poll::Ready(Ok(())) };
        self.awaits_continue = false;
        loop {
            match Pin::new(&mut *body).poll_frame(cx) {
                Poll::Ready(None) => {
                    self.body = None;
                    return Poll::Ready(Ok(()));
                }
                Poll::Ready(Some(Err(_))) => return Poll::Ready(Err(BodyProblem::BrokenOff)),
                Poll::Ready(Some(Ok(frame))) => {
                    // Trailers are ignored.
                    let Ok(data) = frame.into_data() else { continue };
                    if data.is_empty() {
                        continue;
                    }
                    self.ready = data;
                    if let Some(packed) = &self.packed {
                        packed.fetch_add(self.ready.len() as u64, Ordering::Relaxed);
                    }
                    if self.rate.record(self.ready.len()) > self.max {
                        return Poll::Ready(Err(BodyProblem::TooLarge { limit: self.max }));
                    }
                    return Poll::Ready(Ok(()));
                }
                Poll::Pending => return self.rate.poll_too_slow(cx).map(|()| Err(BodyProblem::TooSlow)),
            }
        }
    }
}

impl AsyncBufRead for Upload {
    fn poll_fill_buf(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        let this = self.get_mut();
        if this.ready.is_empty()
            && let Err(problem) = ready!(this.poll_more(cx))
        {
            this.problem = Some(problem);
            return Poll::Ready(Err(io::ErrorKind::Other.into()));
        }
        Poll::Ready(Ok(&this.ready))
    }

    fn consume(mut self: Pin<&mut Self>, amount: usize) {
        self.ready.advance(amount);
    }
}

impl AsyncRead for Upload {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let ready = ready!(self.as_mut().poll_fill_buf(cx))?;
        let amount = ready.len().min(buf.remaining());
        buf.put_slice(&ready[..amount]);
        self.consume(amount);
        Poll::Ready(Ok(()))
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        let Some(body) = self.body.take() else { return };
        if body.is_end_stream() || self.awaits_continue {
            return;
        }
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(tokio::time::timeout(DISCARD, discard(body)));
        }
    }
}

/// Whether a body of which `packed` bytes were received may not decode to `decoded` bytes.
fn expands_too_much(packed: &AtomicU64, decoded: usize) -> bool {
    decoded as u64 > packed.load(Ordering::Relaxed).saturating_mul(DECODED_RATIO).max(DECODED_FREELY)
}

async fn discard(mut body: Body) {
    while let Some(Ok(_)) = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {}
}

/// How fast a body is received.
struct ReceiveRate {
    clock: Clock,
    /// When the client is too slow unless it sends more; `None` before it was waited for.
    until: Option<Instant>,
    received: u64,
    timer: Option<Pin<Box<Sleep>>>,
}

impl ReceiveRate {
    /// Adds `amount` received bytes; returns the sum so far.
    fn record(&mut self, amount: usize) -> u64 {
        self.until = self.until.map(|until| extended(until, amount as u64, self.clock.now()));
        self.received += amount as u64;
        self.received
    }

    /// Ready when the client is too slow.
    fn poll_too_slow(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let end = (*self.until.get_or_insert_with(|| self.clock.now() + IDLE)).into();
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(end)));
        if timer.deadline() != end {
            timer.as_mut().reset(end);
        }
        timer.as_mut().poll(cx)
    }
}

/// When a client is too slow that would have been at `until`, after `amount` bytes that came at `now`: each byte earns
/// it the time that it may take, and none more than [`IDLE`] ahead, so that no burst pays for a trickle.
fn extended(until: Instant, amount: u64, now: Instant) -> Instant {
    (until + Duration::from_micros(amount.saturating_mul(1_000_000) / MIN_RATE)).min(now + IDLE)
}

/// How a body is encoded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Encoding {
    Identity,
    Zstd,
    Gzip,
    Brotli,
    Deflate,
}

impl Encoding {
    fn of(headers: &HeaderMap) -> Result<Self, BodyProblem> {
        let mut values = headers.get_all(CONTENT_ENCODING).iter();
        let (first, more) = (values.next(), values.next());
        let Some(value) = first else { return Ok(Self::Identity) };
        let name = String::from_utf8_lossy(value.as_bytes()).trim().to_ascii_lowercase();
        match name.as_str() {
            _ if more.is_some() => Err(BodyProblem::UnknownEncoding(format!("{name}, …"))),
            "identity" | "" => Ok(Self::Identity),
            "zstd" => Ok(Self::Zstd),
            "gzip" | "x-gzip" => Ok(Self::Gzip),
            "br" => Ok(Self::Brotli),
            "deflate" => Ok(Self::Deflate),
            _ => Err(BodyProblem::UnknownEncoding(name)),
        }
    }

    async fn decode(self, upload: &mut Upload) -> Box<dyn AsyncRead + Send + Unpin + '_> {
        match self {
            Self::Identity => Box::new(upload),
            Self::Zstd => Box::new(ZstdDecoder::with_params(upload, &[DParameter::window_log_max(ZSTD_WINDOW_LOG)])),
            Self::Gzip => Box::new(GzipDecoder::new(upload)),
            Self::Brotli => Box::new(BrotliDecoder::new(upload)),
            // RFC 9110 means zlib; some clients send raw deflate.
            Self::Deflate if is_zlib(upload.fill_buf().await.unwrap_or_default()) => Box::new(ZlibDecoder::new(upload)),
            Self::Deflate => Box::new(DeflateDecoder::new(upload)),
        }
    }
}

impl std::fmt::Display for Encoding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Identity => "identity",
            Self::Zstd => "zstd",
            Self::Gzip => "gzip",
            Self::Brotli => "br",
            Self::Deflate => "deflate",
        })
    }
}

/// Whether data begins like zlib: method 8 in the low four bits of its first byte. Raw deflate that
/// begins so would be a stored block with padding bits set, which no encoder writes.
fn is_zlib(start: &[u8]) -> bool {
    start.first().is_some_and(|byte| byte & 0x0f == 8)
}

/// A body and its reservation, dropped together.
struct ReservedBytes {
    bytes: Vec<u8>,
    _reservation: InFlightReservation,
}

impl AsRef<[u8]> for ReservedBytes {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use async_compression::tokio::bufread::{BrotliEncoder, DeflateEncoder, GzipEncoder, ZlibEncoder, ZstdEncoder};
    use http_body::Frame;
    use http_body_util::Full;
    use std::collections::VecDeque;
    use std::convert::Infallible;
    use std::sync::Arc;

    const MAX: u64 = 100_000;

    fn encoded(value: &str) -> HeaderMap {
        HeaderMap::from_iter([(CONTENT_ENCODING, value.parse().expect("a header value"))])
    }

    async fn received(body: Body, headers: &HeaderMap) -> Result<Bytes, BodyProblem> {
        Upload::new(body, headers, MAX, Clock).gather(InFlightAllowance::default()).await
    }

    async fn gather(body: impl Into<Bytes>, headers: &HeaderMap) -> Result<Bytes, BodyProblem> {
        // Its length is not declared, so that only reading it shows its size.
        let body = Body::new(SlowBody { chunks: [body.into()].into(), every: Duration::ZERO, timer: None });
        received(body, headers).await
    }

    /// A body that yields one chunk at a time, with a pause of `every` before each, then ends.
    struct SlowBody {
        chunks: VecDeque<Bytes>,
        every: Duration,
        timer: Option<Pin<Box<Sleep>>>,
    }

    impl HttpBody for SlowBody {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            let every = self.every;
            if !every.is_zero() {
                ready!(self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(every))).as_mut().poll(cx));
                self.timer = None;
            }
            Poll::Ready(self.chunks.pop_front().map(|chunk| Ok(Frame::data(chunk))))
        }
    }

    async fn compressed(encoding: &str, plain: &'static [u8]) -> Vec<u8> {
        let mut out = Vec::new();
        let mut encoder: Box<dyn AsyncRead + Unpin> = match encoding {
            "zstd" => Box::new(ZstdEncoder::new(plain)),
            "gzip" | "x-gzip" => Box::new(GzipEncoder::new(plain)),
            "br" => Box::new(BrotliEncoder::new(plain)),
            "deflate" => Box::new(ZlibEncoder::new(plain)),
            "raw deflate" => Box::new(DeflateEncoder::new(plain)),
            _ => Box::new(plain),
        };
        encoder.read_to_end(&mut out).await.expect("compressing in memory");
        out
    }

    #[tokio::test]
    async fn every_encoding_is_read() {
        for encoding in ["identity", "", "zstd", "gzip", "x-gzip", "GZip", "br", "deflate", "raw deflate"] {
            let body = compressed(&encoding.to_lowercase(), b"{\"model\":\"m\"}").await;
            let name = encoding.trim_start_matches("raw ");
            assert_eq!(gather(body, &encoded(name)).await.as_deref(), Ok(&b"{\"model\":\"m\"}"[..]), "{encoding}");
        }
    }

    #[tokio::test]
    async fn an_unknown_encoding_is_refused() {
        for value in ["lzma", "gzip, br", "gzip,gzip", "aws-chunked"] {
            assert_eq!(gather("{}", &encoded(value)).await, Err(BodyProblem::UnknownEncoding(value.into())));
        }
        let mut twice = encoded("gzip");
        twice.append(CONTENT_ENCODING, "br".parse().unwrap());
        assert!(matches!(gather("{}", &twice).await, Err(BodyProblem::UnknownEncoding(_))));
    }

    #[tokio::test]
    async fn a_body_that_is_not_what_its_encoding_says_is_refused() {
        for encoding in ["zstd", "gzip", "br", "deflate"] {
            let plain = gather("{\"model\":\"m\"}", &encoded(encoding)).await;
            assert!(matches!(plain, Err(BodyProblem::BadEncoding(_))), "{encoding}: {plain:?}");
            let mut cut = compressed(encoding, b"{\"model\":\"m\"}").await;
            cut.truncate(cut.len() - 5);
            let cut = gather(cut, &encoded(encoding)).await;
            assert!(matches!(cut, Err(BodyProblem::BadEncoding(_))), "{encoding} cut: {cut:?}");
        }
    }

    #[tokio::test]
    async fn the_size_limit_applies_to_a_body_as_sent_and_as_decoded() {
        static ZEROS: [u8; 100_001] = [0; 100_001];
        let too_large = Err(BodyProblem::TooLarge { limit: 100_000 });
        assert_eq!(gather(&ZEROS[..100_000], &HeaderMap::new()).await.map(|bytes| bytes.len()), Ok(100_000));
        assert_eq!(gather(&ZEROS[..], &HeaderMap::new()).await, too_large);
        for encoding in ["zstd", "gzip", "br", "deflate"] {
            let fits = compressed(encoding, &ZEROS[..100_000]).await;
            assert_eq!(gather(fits, &encoded(encoding)).await.map(|b| b.len()), Ok(100_000), "{encoding}");
            let bomb = compressed(encoding, &ZEROS).await;
            assert!(bomb.len() < 1000, "{encoding}: {}", bomb.len());
            assert_eq!(gather(bomb, &encoded(encoding)).await, too_large, "{encoding}");
        }
    }

    #[tokio::test]
    async fn a_body_may_decode_to_a_hundred_times_what_was_sent_and_a_small_one_to_more() {
        static ZEROS: [u8; 20 * 1024 * 1024] = [0; 20 * 1024 * 1024];
        for encoding in ["zstd", "gzip", "deflate"] {
            let read = |body: Vec<u8>| {
                let body = Body::new(SlowBody { chunks: [body.into()].into(), every: Duration::ZERO, timer: None });
                Upload::new(body, &encoded(encoding), u64::MAX, Clock).gather(InFlightAllowance::default())
            };
            let small = compressed(encoding, &ZEROS[..DECODED_FREELY as usize]).await;
            assert_eq!(read(small).await.map(|bytes| bytes.len() as u64), Ok(DECODED_FREELY), "{encoding}");
            let bomb = compressed(encoding, &ZEROS).await;
            assert!(bomb.len() * 200 < ZEROS.len(), "{encoding}: {}", bomb.len());
            assert_eq!(read(bomb).await, Err(BodyProblem::ExpandsTooMuch { most: DECODED_RATIO }), "{encoding}");
        }
        let bytes = |count| AtomicU64::new(count);
        assert!(!expands_too_much(&bytes(0), 1024 * 1024) && expands_too_much(&bytes(0), 1024 * 1024 + 1));
        assert!(!expands_too_much(&bytes(50_000), 5_000_000) && expands_too_much(&bytes(50_000), 5_000_001));
    }

    #[tokio::test]
    async fn a_declared_length_over_the_limit_is_refused_before_a_byte_is_read() {
        let body = Body::new(Full::new(Bytes::from(vec![b' '; 100_001])));
        let result = received(body, &HeaderMap::new()).await;
        assert_eq!(result, Err(BodyProblem::TooLarge { limit: 100_000 }));
    }

    #[tokio::test]
    async fn bytes_count_as_in_flight_until_the_last_clone_is_dropped() {
        let key = InFlightAllowance { max: 200_000, ..InFlightAllowance::default() };
        let other = InFlightAllowance { own: Arc::default(), ..key.clone() };
        let read = |of: &InFlightAllowance, len: usize| {
            Upload::new(Body::from(vec![b' '; len]), &HeaderMap::new(), MAX, Clock).gather(of.clone())
        };
        let first = read(&key, 90_000).await.unwrap();
        assert_eq!(read(&key, 10_001).await, Err(BodyProblem::TooMuchInFlight), "as much as it leaves free");
        assert_eq!(key.all.bytes(), 90_000);
        let slice = first.slice(..10);
        drop(first);
        let second = read(&other, 55_000).await.expect("that is another key's");
        assert_eq!((key.own.bytes(), other.own.bytes(), key.all.bytes()), (90_000, 55_000, 145_000));
        drop((slice, second));
        assert_eq!(key.all.bytes(), 0);
    }

    /// Reads `chunks` of `size` bytes, one every `every_s` seconds; the result and the seconds it took.
    async fn received_slowly(chunks: usize, size: usize, every_s: u64) -> (Result<usize, BodyProblem>, u64) {
        let start = Clock.now();
        let chunks = std::iter::repeat_n(Bytes::from(vec![b' '; size]), chunks).collect();
        let body = Body::new(SlowBody { chunks, every: Duration::from_secs(every_s), timer: None });
        let result = received(body, &HeaderMap::new()).await;
        (result.map(|bytes| bytes.len()), (Clock.now() - start).as_secs())
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_may_be_slow_but_not_too_slow() {
        assert_eq!(received_slowly(4, 20_000, 9).await, (Ok(80_000), 45));
        // Nothing for ten seconds.
        assert_eq!(received_slowly(2, 10_000, 11).await, (Err(BodyProblem::TooSlow), 10));
        // A byte now and then.
        assert_eq!(received_slowly(60, 1, 1).await, (Err(BodyProblem::TooSlow), 10));
        assert_eq!(received_slowly(60, 512, 1).await, (Err(BodyProblem::TooSlow), 19));
        assert_eq!(received_slowly(60, 1200, 1).await, (Ok(72_000), 61));
    }

    #[tokio::test(start_paused = true)]
    async fn a_burst_does_not_pay_for_a_trickle() {
        for burst in [1, 20_000, 90_000] {
            let start = Clock.now();
            let trickle = std::iter::repeat_n(Bytes::from_static(b" "), 100);
            let chunks = std::iter::once(Bytes::from(vec![b' '; burst])).chain(trickle).collect();
            let body = Body::new(SlowBody { chunks, every: Duration::from_secs(4), timer: None });
            assert_eq!(received(body, &HeaderMap::new()).await, Err(BodyProblem::TooSlow), "{burst}");
            let lasted = (Clock.now() - start).as_secs();
            assert!((10..=14).contains(&lasted), "{burst}: {lasted} s");
        }
    }

    #[test]
    fn each_byte_earns_its_time_and_no_more_than_ten_seconds_ahead() {
        let begun = Clock.now();
        let check = |now_s: u64, amount: u64, expected_ms: u64| {
            let end = extended(begun + IDLE, amount, begun + Duration::from_secs(now_s));
            assert_eq!((end - begun).as_millis() as u64, expected_ms, "{now_s} s, {amount} B");
        };
        check(0, 0, 10_000);
        check(0, 1024, 10_000);
        check(1, 512, 10_500);
        check(9, 4 * 1024, 14_000);
        check(9, u64::MAX, 19_000);
    }
}

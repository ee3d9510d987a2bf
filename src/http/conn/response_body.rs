//! A response's body as its connection sends it, dropped when the client never reads it.
//!
//! An HTTP/2 client may keep a stream's window closed. The body is then not polled again, so no timer
//! of its own runs, and the provider's connection and the key's slot stay in use for as long as the
//! client answers pings. The connection's task, which checks its timeouts anyway, takes such a body
//! and drops it. On HTTP/1.1 this is not needed: there the socket stops accepting bytes. A body that
//! waits for its provider is never dropped here.
//!
//! Start reading at [`ResponseBody`].

use super::connection::{Connection, OpenRequest, UNREAD_COUNTED, UNREAD_TIMEOUT, counted_unread};
use super::lifecycle::OpenGuard;
use crate::clock::Clock;
use crate::domain::memory::{InFlightAllowance, InFlightReservation};
use crate::http::ending::AbortError;
use axum::body::Body;
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use parking_lot::Mutex;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::Instant;

/// Count a request as open on its connection and in the process.
pub type OpenGuards = (OpenRequest, OpenGuard);

/// A response's body. Its request counts as open until it is dropped.
pub enum ResponseBody {
    /// On HTTP/1.1.
    Plain(Body, OpenGuards),
    /// On HTTP/2: the connection may take it.
    Monitored {
        /// Shared with the connection. A holder of this lock may lock the connection, never the other
        /// way round.
        body: Arc<Mutex<MonitoredBody>>,
        /// The source of time.
        clock: Clock,
    },
}

/// A body that its connection may take.
pub struct MonitoredBody {
    /// `None` once it was taken.
    body: Option<(Body, OpenGuards)>,
    /// Since when it was ready to be polled and was not; `None` while the body itself is waited for.
    unread_since: Option<Instant>,
    /// What is counted for it while it is not read.
    unread: Option<InFlightReservation>,
}

/// A connection's reference to a body sent on it.
#[derive(Clone)]
pub struct BodyHandle(Weak<Mutex<MonitoredBody>>);

/// A body taken from a client that does not read; to be dropped while no lock is held.
pub struct UnreadBody(#[expect(dead_code, reason = "it is made to be dropped")] (Body, OpenGuards));

impl ResponseBody {
    /// `body`, to be sent on `connection`.
    pub fn new(body: Body, guards: OpenGuards, connection: &Connection, clock: Clock) -> Self {
        if !connection.is_http2() {
            return Self::Plain(body, guards);
        }
        let monitored = MonitoredBody { body: Some((body, guards)), unread_since: Some(clock.now()), unread: None };
        let body = Arc::new(Mutex::new(monitored));
        connection.monitor(BodyHandle(Arc::downgrade(&body)));
        Self::Monitored { body, clock }
    }
}

impl BodyHandle {
    /// Whether the body's stream is still open.
    pub fn is_alive(&self) -> bool {
        self.0.strong_count() > 0
    }

    /// Takes the body if it was not polled for [`UNREAD_TIMEOUT`] before `now`, or for [`UNREAD_COUNTED`] and `allowance`
    /// has no room for it.
    pub fn take_unread(&self, now: Instant, allowance: Option<&InFlightAllowance>) -> Option<UnreadBody> {
        let monitored = self.0.upgrade()?;
        let mut monitored = monitored.lock();
        let since = monitored.unread_since?;
        if now >= since + UNREAD_COUNTED && monitored.unread.is_none() {
            monitored.unread = allowance.and_then(counted_unread);
        }
        let is_held = monitored.unread.is_some() || allowance.is_none() || now < since + UNREAD_COUNTED;
        if is_held && now < since + UNREAD_TIMEOUT {
            return None;
        }
        monitored.unread = None;
        monitored.body.take().map(UnreadBody)
    }
}

impl http_body::Body for ResponseBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let (monitored, clock) = match self.get_mut() {
            Self::Plain(body, _) => return Pin::new(body).poll_frame(cx),
            Self::Monitored { body, clock } => (body, clock),
        };
        let mut monitored = monitored.lock();
        let Some((body, _)) = &mut monitored.body else {
            return Poll::Ready(Some(Err(axum::Error::new(AbortError))));
        };
        let polled = Pin::new(body).poll_frame(cx);
        monitored.unread = None;
        monitored.unread_since = polled.is_ready().then(|| clock.now());
        polled
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Plain(body, _) => body.is_end_stream(),
            Self::Monitored { body, .. } => body.lock().body.as_ref().is_some_and(|(body, _)| body.is_end_stream()),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Plain(body, _) => body.size_hint(),
            Self::Monitored { body, .. } => {
                body.lock().body.as_ref().map_or_else(SizeHint::default, |(body, _)| body.size_hint())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::conn::lifecycle::Lifecycle;
    use http_body::Body as _;
    use std::task::Waker;
    use std::time::Duration;
    use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

    /// A body that sends what the test gives it.
    struct Fed(UnboundedReceiver<Bytes>);

    impl http_body::Body for Fed {
        type Data = Bytes;
        type Error = std::convert::Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
            self.0.poll_recv(cx).map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes))))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn only_a_body_that_is_not_polled_is_dropped() {
        let (connection, lifecycle) = (Arc::new(Connection::new(Clock)), Lifecycle::new(Clock));
        let (feed, fed) = unbounded_channel();
        let guards = (connection.open_request(true), lifecycle.open_request());
        let mut response_body = ResponseBody::new(Body::new(Fed(fed)), guards, &connection, Clock);
        let mut poll = || Pin::new(&mut response_body).poll_frame(&mut Context::from_waker(Waker::noop()));
        let late = async || {
            tokio::time::advance(UNREAD_TIMEOUT).await;
            connection.take_unread(Clock.now()).len()
        };
        // The provider is silent, and the client waits.
        assert!(poll().is_pending());
        assert_eq!(late().await, 0);
        // Something came and was read, and the body is polled again just in time.
        feed.send(Bytes::from_static(b"x")).unwrap();
        assert!(matches!(poll(), Poll::Ready(Some(Ok(_)))));
        tokio::time::advance(UNREAD_TIMEOUT - Duration::from_secs(1)).await;
        assert!(connection.take_unread(Clock.now()).is_empty());
        feed.send(Bytes::from_static(b"x")).unwrap();
        assert!(matches!(poll(), Poll::Ready(Some(Ok(_)))));
        // Without room for it, it goes sooner.
        let none = InFlightAllowance { max: 0, ..InFlightAllowance::default() };
        connection.answers_within(InFlightAllowance::default());
        tokio::time::advance(UNREAD_COUNTED).await;
        assert!(connection.take_unread(Clock.now()).is_empty());
        connection.answers_within(none);
        assert!(connection.take_unread(Clock.now()).is_empty(), "it is counted already");
        // It is not polled any more.
        assert_eq!(late().await, 1);
        assert!(feed.is_closed(), "the provider sees that it was dropped");
        assert!(matches!(poll(), Poll::Ready(Some(Err(_)))), "what is missing is not presented as complete");
        assert_eq!(late().await, 0);
    }
}

//! A response's body as its connection holds it: let go when its client takes nothing of it.
//!
//! An HTTP/2 client may leave a stream's window shut. Nobody then asks the body for more, so no timer
//! of its own ever runs, and the provider's connection and the key's slot stay held for as long as the
//! client answers pings. The connection, which looks at the clock anyway, takes such a body away; on
//! HTTP/1.1 it need not, for there the socket itself tells. A body that waits for its provider is
//! never let go here.
//!
//! Start reading at [`ResponseBody`].

use super::connection::{Connection, Open, UNTAKEN_TIMEOUT};
use super::ending::Aborted;
use super::lifecycle::Present;
use crate::clock::Clock;
use axum::body::Body;
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::Instant;

/// By these a request is counted as open.
pub type Guards = (Open, Present);

/// A response's body, by which its request is counted as open.
pub enum ResponseBody {
    /// On HTTP/1.1: the connection's alone.
    Plain(Body, Guards),
    /// On HTTP/2: the connection looks after it.
    Watched {
        /// Shared with the connection. Whoever locks it may lock the wire, never the other way round.
        held: Arc<Mutex<Held>>,
        /// The time.
        clock: Clock,
    },
}

/// A body that the connection may take away.
pub struct Held {
    /// `None` once it was let go.
    body: Option<(Body, Guards)>,
    /// Since when the client could have more of it and nobody asks; `None` while it is the body
    /// that is waited for.
    untaken: Option<Instant>,
}

/// What a connection keeps of a body on it.
#[derive(Clone)]
pub struct Handle(Weak<Mutex<Held>>);

/// A body taken from a client that does not read; to be dropped where no lock is held.
pub struct LetGo(#[expect(dead_code, reason = "dropping it is the point")] (Body, Guards));

impl ResponseBody {
    /// `body`, going out on `connection`.
    pub fn new(body: Body, guards: Guards, connection: &Connection, clock: Clock) -> Self {
        if !connection.is_http2() {
            return Self::Plain(body, guards);
        }
        let held = Arc::new(Mutex::new(Held { body: Some((body, guards)), untaken: Some(clock.now()) }));
        connection.watch(Handle(Arc::downgrade(&held)));
        Self::Watched { held, clock }
    }
}

impl Handle {
    /// Whether there is anything left to watch.
    pub fn is_alive(&self) -> bool {
        self.0.strong_count() > 0
    }

    /// Takes the body away if nobody has asked for it for too long.
    pub fn let_go(&self, now: Instant) -> Option<LetGo> {
        let held = self.0.upgrade()?;
        let mut held = lock(&held);
        let late = held.untaken.is_some_and(|since| now >= since + UNTAKEN_TIMEOUT);
        if late { held.body.take().map(LetGo) } else { None }
    }
}

/// Whatever panicked with it has ended its connection; the guards still count.
fn lock(held: &Mutex<Held>) -> MutexGuard<'_, Held> {
    held.lock().unwrap_or_else(PoisonError::into_inner)
}

impl http_body::Body for ResponseBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let (held, clock) = match self.get_mut() {
            Self::Plain(body, _) => return Pin::new(body).poll_frame(cx),
            Self::Watched { held, clock } => (held, clock),
        };
        let mut held = lock(held);
        let Some((body, _)) = &mut held.body else {
            return Poll::Ready(Some(Err(axum::Error::new(Aborted))));
        };
        let polled = Pin::new(body).poll_frame(cx);
        held.untaken = polled.is_ready().then(|| clock.now());
        polled
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Plain(body, _) => body.is_end_stream(),
            Self::Watched { held, .. } => lock(held).body.as_ref().is_some_and(|(body, _)| body.is_end_stream()),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Plain(body, _) => body.size_hint(),
            Self::Watched { held, .. } => {
                lock(held).body.as_ref().map_or_else(SizeHint::default, |(body, _)| body.size_hint())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::lifecycle::Lifecycle;
    use http_body::Body as _;
    use std::task::Waker;
    use std::time::Duration;
    use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

    /// A body fed by the test.
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
    async fn only_a_body_that_nobody_asks_for_is_let_go() {
        let (connection, lifecycle) = (Arc::new(Connection::new(Clock)), Lifecycle::new(Clock));
        let (feed, fed) = unbounded_channel();
        let guards = (connection.request(true), lifecycle.request());
        let mut response_body = ResponseBody::new(Body::new(Fed(fed)), guards, &connection, Clock);
        let mut poll = || Pin::new(&mut response_body).poll_frame(&mut Context::from_waker(Waker::noop()));
        let late = async || {
            tokio::time::advance(UNTAKEN_TIMEOUT).await;
            connection.let_go(Clock.now()).len()
        };
        // The provider is silent, and the client waits.
        assert!(poll().is_pending());
        assert_eq!(late().await, 0);
        // Something came, was taken, and the next is asked for just in time.
        feed.send(Bytes::from_static(b"x")).unwrap();
        assert!(matches!(poll(), Poll::Ready(Some(Ok(_)))));
        tokio::time::advance(UNTAKEN_TIMEOUT - Duration::from_secs(1)).await;
        assert!(connection.let_go(Clock.now()).is_empty());
        feed.send(Bytes::from_static(b"x")).unwrap();
        assert!(matches!(poll(), Poll::Ready(Some(Ok(_)))));
        // Nobody asks any more.
        assert_eq!(late().await, 1);
        assert!(feed.is_closed(), "the provider is told");
        assert!(matches!(poll(), Poll::Ready(Some(Err(_)))), "what is missing is not presented as complete");
        assert_eq!(late().await, 0);
    }
}

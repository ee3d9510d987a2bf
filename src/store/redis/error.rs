//! Why the server cannot be used, in sentences that say what to do.

/// Why the counters of several gateways cannot be opened. That no server answers is not among it: a gateway serves without,
/// and looks for it.
#[derive(Debug, thiserror::Error)]
pub enum RedisOpenError {
    /// The URL cannot be understood.
    #[error(
        "the URL in store.shared cannot be read ({0}); write redis://:PASSWORD@HOST:PORT/0, or rediss:// for TLS, special \
         characters as %XX"
    )]
    Url(String),
    /// The server answers, and does not let this gateway in.
    #[error("the server at {place} refuses this gateway: {why}; correct user and password in store.shared")]
    Refused {
        /// The host of the URL.
        place: String,
        /// The server's words.
        why: String,
    },
    /// The thread for its connection cannot be started.
    #[error("the system gives no thread for the connection to the server in store.shared: {0}")]
    NoThread(std::io::Error),
}

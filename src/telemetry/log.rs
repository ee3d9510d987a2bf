//! The logs: JSON to stderr, or plain lines when stderr is a terminal.
//!
//! Lines are written by a thread of their own, the access log's among them, so that order is kept
//! and a reader that stalls holds up nobody: lines are dropped and counted instead.
//!
//! Start reading in [`Logs::start`].

use super::access::{self, AccessLog};
use std::io::{self, BufWriter, IsTerminal};
use tracing_appender::non_blocking::{NonBlocking, WorkerGuard};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::reload::{self, Handle};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt};

/// How much is gathered before it is written, while more lines wait.
const GATHERED: usize = 64 * 1024;

/// Running logs. Keep it until the end: dropping it writes what still waits.
#[must_use = "dropped at once, the logs end"]
pub struct Logs {
    filter: Handle<EnvFilter, Registry>,
    writer: NonBlocking,
    _worker: WorkerGuard,
}

/// Why there are no logs.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The level is neither a level nor a list of targets with levels.
    #[error("`{level}` is not a log level: {source}")]
    Level {
        /// As configured.
        level: String,
        /// What is wrong with it.
        source: tracing_subscriber::filter::ParseError,
    },
    /// Logs were started twice in one process.
    #[error("the logs are set up already")]
    Twice,
}

impl Logs {
    /// Starts the process's logs at `level`: `info`, `debug`, `warn,tierway::relay=debug`, …
    ///
    /// # Errors
    /// [`LogError`]; nothing was started then.
    pub fn start(level: &str) -> Result<Self, LogError> {
        let (filter, handle) = reload::Layer::new(parse(level)?);
        let (writer, worker) = access::in_background(BufWriter::with_capacity(GATHERED, io::stderr()));
        let lines = fmt::layer().with_writer(writer.clone());
        let lines = if io::stderr().is_terminal() {
            lines.compact().boxed()
        } else {
            lines.json().flatten_event(true).with_span_list(false).boxed()
        };
        tracing_subscriber::registry().with(filter).with(lines).try_init().map_err(|_| LogError::Twice)?;
        Ok(Self { filter: handle, writer, _worker: worker })
    }

    /// An access log whose lines go where these do.
    pub fn access(&self) -> AccessLog {
        AccessLog::beside(self.writer.clone())
    }

    /// Another level from now on, as after a reload.
    ///
    /// # Errors
    /// [`LogError::Level`]; the old level stays.
    pub fn set_level(&self, level: &str) -> Result<(), LogError> {
        let filter = parse(level)?;
        // It fails only once the subscriber is gone, which lives as long as the process.
        let _ = self.filter.reload(filter);
        Ok(())
    }
}

fn parse(level: &str) -> Result<EnvFilter, LogError> {
    EnvFilter::builder().parse(level).map_err(|source| LogError::Level { level: level.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_is_read_or_named() {
        for level in ["info", "WARN", "off", "warn,tierway::relay=debug"] {
            assert!(parse(level).is_ok(), "{level}");
        }
        let error = parse("tierway=loud").expect_err("there is no such level");
        assert!(error.to_string().starts_with("`tierway=loud` is not a log level"), "{error}");
    }
}
